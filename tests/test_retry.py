"""A dead letter that is published again keeps its rank, counts its attempts, and stays provable."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream import fastcodec
from climatestream.audit import Auditor
from climatestream.brokers.memory import MemoryBroker
from climatestream.errors import DeliveryFailed, UsageError
from climatestream.ingest import Ingest
from climatestream.letters import find
from climatestream.meter import Meter
from climatestream.model import DeadLetter, Headers
from climatestream.retry import ATTEMPTS, Correct, Retried, parse_change, retry, with_fields
from climatestream.stores.duckdb import DuckDBStore
from climatestream.worker import work

NS = 1_754_784_000_000_000_000
GROUP = "climatestream"


class World:
    """A broker with one partition, and a store."""

    def __init__(self, broker: MemoryBroker, store: DuckDBStore) -> None:
        self.broker = broker
        self.store = store

    def publish(self, *documents: Any) -> None:
        values = [d if isinstance(d, bytes) else orjson.dumps(d) for d in documents]
        with self.broker.producer() as producer:
            producer.publish([b"the same cell"] * len(values), values)

    def consume(self) -> None:
        with (
            self.broker.consumer(GROUP) as consumer,
            Meter(self.store, self.broker.topic, consumer.high_water) as meter,
        ):
            ingest = Ingest(self.store, decode=fastcodec.decode)
            work(consumer, ingest, meter, finished=lambda: True, stop=threading.Event())

    def retry(self, *corrected: Correct, named: bool = False) -> Retried:
        """Retry every dead letter; consume what that published."""
        with self.broker.producer() as producer:
            letters = self.store.dead_letters()
            done = retry(self.store, producer, letters, *corrected, named=named)
        self.consume()
        return done

    def letters(self) -> list[DeadLetter]:
        """All of them, in offset order."""
        found = [letter for letter, _ in self.store.dead_letters()]
        return sorted(found, key=lambda letter: letter.offset)

    def rows(self) -> list[tuple[Any, ...]]:
        """Latitude, temperature [degC] and rank of every row."""
        return self.store.query(
            """SELECT data['latitude'], data['temperature'], "offset", source
            FROM demo.climate_data ORDER BY 1"""
        ).rows

    def audit(self) -> dict[str, int]:
        audit = Auditor(self.broker, self.store, GROUP, "unstated", fastcodec.decode).audit()
        assert audit.ok
        return {name: count for name, count in audit.total.items() if count}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A clock that goes on by a millisecond whenever it is read."""
    ticks = itertools.count(NS // 1_000_000)
    with (
        MemoryBroker(partitions=1, keep=tmp_path, clock_ms=ticks.__next__) as broker,
        DuckDBStore(tmp_path / "store.duckdb") as store,
    ):
        yield World(broker, store)


def reading(latitude: float = 50.0, **fields: Any) -> dict[str, Any]:
    return {"timestamp": NS, "temperature": 280.0, "latitude": latitude, "longitude": 8.0, **fields}


# ------------------------------------------------------------------------------------ rank


def test_a_corrected_letter_is_stored_with_the_rank_of_its_origin(world: World) -> None:
    world.publish(reading(50), reading(95))
    world.consume()
    assert world.retry(with_fields({"latitude": 51.0})) == Retried(published=1, left=0)
    source = f"{world.broker.topic}/0"
    assert [row[2:] for row in world.rows()] == [(0, source), (1, source)]
    assert world.audit() == {"dead": 1, "stored": 2}


def test_an_old_reading_that_is_retried_never_overwrites_a_newer_one(world: World) -> None:
    """It fills what the newer one lacks, as any late message does."""
    world.publish(reading(95, temperature=270.0, u10=3.0))
    world.publish(reading(50, temperature=300.0))
    world.consume()
    world.retry(with_fields({"latitude": 50.0}))
    [(_, temperature, offset, _)] = world.rows()
    assert (temperature, offset) == (pytest.approx(26.85), 1)
    assert world.store.query("SELECT data['u10'] FROM demo.climate_data").rows == [(3.0,)]
    assert world.audit() == {"dead": 1, "stored": 1, "superseded": 1}


def test_a_second_retry_still_has_the_rank_of_the_first_message(world: World) -> None:
    world.publish(reading(95))
    world.publish(reading(50, temperature=300.0))
    world.consume()
    world.retry(with_fields({"latitude": 96.0}))
    assert [letter.attempt for letter in world.letters()] == [1, 2]
    world.retry(with_fields({"latitude": 50.0}))
    [(_, temperature, offset, _)] = world.rows()
    assert (temperature, offset) == (pytest.approx(26.85), 1)
    assert world.audit() == {"dead": 2, "stored": 1, "superseded": 1}


# -------------------------------------------------------------------------------- attempts


def test_after_three_attempts_a_message_stays_dead(world: World) -> None:
    """The first delivery is one of them; each is a letter of its own, and none is deleted."""
    assert ATTEMPTS == 3
    world.publish(b"no JSON")
    world.consume()
    assert [world.retry() for _ in range(4)] == [
        Retried(1, 0),
        Retried(1, 0),
        Retried(0, 1),
        Retried(0, 1),
    ]
    assert [letter.attempt for letter in world.letters()] == [1, 2, 3]
    assert {letter.value for letter in world.letters()} == {b"no JSON"}
    assert world.audit() == {"dead": 3}


def test_a_letter_that_was_retried_is_not_retried_again(world: World) -> None:
    """It stays in the table, with the time of its retry."""
    world.publish(reading(95))
    world.consume()
    assert [letter.retried_at_ms for letter in world.letters()] == [None]
    assert world.retry(with_fields({"latitude": 50.0})).published == 1
    assert world.retry(with_fields({"latitude": 50.0})) == Retried(0, 0)
    [letter] = world.letters()
    assert letter.retried_at_ms is not None
    assert letter.attempt == 1


def test_a_letter_is_found_by_its_place_and_one_that_was_retried_is_told(world: World) -> None:
    world.publish(reading(95))
    world.consume()
    topic = world.broker.topic
    letter, _ = find(world.store, (topic, 0, 0), again=True)
    assert letter.offset == 0
    with pytest.raises(UsageError, match="0@7 is no dead letter of the store"):
        find(world.store, (topic, 0, 7))
    world.retry(with_fields({"latitude": 50.0}))
    with pytest.raises(UsageError, match="0@0 was published again at 20.* already"):
        find(world.store, (topic, 0, 0), again=True)
    assert find(world.store, (topic, 0, 0))[0].retried_at_ms is not None


class Deaf:
    """A producer whose messages are not acknowledged."""

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(
        self, keys: Sequence[bytes], values: Sequence[bytes], headers: Headers = ()
    ) -> None:
        pass

    def flush(self) -> int:
        raise DeliveryFailed("1 of 1 messages were not acknowledged")


def test_a_letter_that_was_not_acknowledged_can_be_retried_again(world: World) -> None:
    world.publish(reading(95))
    world.consume()
    with pytest.raises(DeliveryFailed):
        retry(world.store, Deaf(), world.store.dead_letters())
    assert [letter.retried_at_ms for letter in world.letters()] == [None]
    assert world.retry().published == 1


# ------------------------------------------------------------------------------ correction


def test_a_correction_changes_the_fields_that_it_names_and_no_other(world: World) -> None:
    world.publish(reading(95, station="Höhe", soil=7.5, broken=[1]))
    world.consume()
    world.retry(with_fields({"latitude": 50.0, "broken": None}))
    [(data,)] = world.store.query("SELECT data FROM demo.climate_data").rows
    assert data == {
        "temperature": pytest.approx(6.85),
        "station": "Höhe",
        "soil": 7.5,
        "latitude": 50.0,
        "longitude": 8.0,
    }


def test_a_corrected_message_has_the_key_of_its_new_cell(world: World) -> None:
    """So that it is in order with the other readings of that cell."""
    world.publish(reading(95))
    world.consume()
    world.retry(with_fields({"latitude": 50.0}))
    *_, last = (key for block in world.broker.read() for key in block.key)
    assert last == b"50.0000,8.0000"


def test_a_message_that_is_no_object_needs_a_whole_document(world: World) -> None:
    world.publish(b"no JSON")
    world.consume()
    with pytest.raises(UsageError, match="--from FILE"):
        world.retry(with_fields({"latitude": 50.0}), named=True)
    assert [letter.retried_at_ms for letter in world.letters()] == [None]
    assert world.retry(lambda _: orjson.dumps(reading(52))).published == 1
    assert [row[0] for row in world.rows()] == [52.0]


def test_a_letter_without_a_value_needs_one(world: World) -> None:
    [letter] = [DeadLetter("t", 0, 7, 1, None, None, (), "empty", "no value")]
    with pytest.raises(UsageError, match="t/0@7 has no value"):
        retry(world.store, Deaf(), [(letter, 1)], named=True)


def test_a_letter_that_cant_be_mended_keeps_no_other_from_being_published(world: World) -> None:
    """Of all letters; it stays to be retried. Those named are published together or not at all."""
    world.publish(b"no JSON", reading(95), b"")
    world.consume()
    mend = with_fields({"latitude": 50.0})
    with pytest.raises(UsageError, match="0@2 is no JSON object"):
        world.retry(mend, named=True)
    assert [letter.retried_at_ms for letter in world.letters()] == [None] * 3
    done = world.retry(mend)
    assert (done.published, done.left) == (1, 2)
    assert ["0@2" in sentence for sentence in done.unmended] == [True, False]
    assert [letter.retried_at_ms is None for letter in world.letters()] == [True, False, True]
    assert world.audit() == {"dead": 3, "stored": 1}


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("latitude=52.5", ("latitude", 52.5)),
        ("station=Höhe 7", ("station", "Höhe 7")),
        ('station="7"', ("station", "7")),
        ("broken=null", ("broken", None)),
        ("frozen=true", ("frozen", True)),
        ("note=a=b", ("note", "a=b")),
        ("note=", ("note", "")),
    ],
)
def test_a_change_is_json_or_else_text(text: str, change: tuple[str, Any]) -> None:
    assert parse_change(text) == change


@pytest.mark.parametrize("text", ["latitude", "=52.5", ""])
def test_a_change_without_a_field_or_a_value_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        parse_change(text)
