"""The audit names every message that is not where it should be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from climatestream import fastcodec
from climatestream.audit import CLASSES, Audit, Auditor
from climatestream.brokers.memory import MemoryBroker
from climatestream.ingest import Ingest
from climatestream.meter import Meter
from climatestream.model import Rows
from climatestream.ports import Found
from climatestream.stores.duckdb import DuckDBStore
from climatestream.worker import work

NS = 1_754_784_000_000_000_000
GROUP = "climatestream"


class World:
    """A broker and a store between which messages have travelled."""

    def __init__(self, folder: Path, broker: MemoryBroker) -> None:
        self.path = folder / "store.duckdb"
        self.broker = broker

    def publish(self, *documents: Any) -> None:
        values = [d if isinstance(d, bytes) else orjson.dumps(d) for d in documents]
        with self.broker.producer() as producer:
            producer.publish([b"the same cell"] * len(values), values)

    def consume(self) -> None:
        with (
            DuckDBStore(str(self.path)) as store,
            self.broker.consumer(GROUP) as consumer,
            Meter(store, self.broker.topic, consumer.high_water) as meter,
        ):
            ingest = Ingest(store, decode=fastcodec.decode)
            work(consumer, ingest, meter, finished=lambda: True, stop=threading.Event())

    def tamper(self, sql: str) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)

    def audit(self) -> Audit:
        with DuckDBStore(str(self.path)) as store:
            return Auditor(self.broker, store, GROUP, "unstated", fastcodec.decode).audit()

    def missing(self) -> list[int]:
        audit = self.audit()
        assert audit.ok == (not any(audit.missing.values()))
        return [offset for offsets in audit.missing.values() for offset in offsets]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with MemoryBroker(keep=tmp_path) as broker:
        yield World(tmp_path, broker)


def reading(latitude: float = 50.0, **fields: Any) -> dict[str, Any]:
    return {"timestamp": NS, "temperature": 280.0, "latitude": latitude, "longitude": 8.0, **fields}


def counts(audit: Audit) -> dict[str, int]:
    return {name: count for name, count in audit.total.items() if count}


def test_every_message_is_in_one_class(world: World) -> None:
    world.publish(reading(), b"poison", reading(51, u10=1.0), reading(temperature=281.0))
    world.consume()
    world.publish(reading(52))
    audit = world.audit()
    assert counts(audit) == {"dead": 1, "stored": 2, "superseded": 1, "pending": 1}
    assert audit.ok
    said = audit.as_json()
    assert all(isinstance(said[name], int) for name in CLASSES)
    assert said["ok"] is True
    assert sum(part["stored"] for part in said["partitions"].values()) == 2


TAMPERING = [
    ("a row that is gone", "DELETE FROM demo.climate_data WHERE cell = '51.0000,8.0000'"),
    (
        "a variable that is null",
        """UPDATE demo.climate_data SET data = struct_update(data, temperature := NULL::DOUBLE)
        WHERE cell = '51.0000,8.0000'""",
    ),
    (
        "a value that is another",
        """UPDATE demo.climate_data SET data = struct_update(data, temperature := 6.85::DOUBLE)
        WHERE cell = '51.0000,8.0000'""",
    ),
    (
        "a row with another rank",
        """UPDATE demo.climate_data SET "offset" = 0 WHERE cell = '51.0000,8.0000'""",
    ),
]


@pytest.mark.parametrize("sql", [case[1] for case in TAMPERING], ids=[c[0] for c in TAMPERING])
def test_what_is_lost_is_named_by_its_offset(world: World, sql: str) -> None:
    world.publish(reading(50), reading(51), reading(52))
    world.consume()
    assert world.missing() == []
    world.tamper(sql)
    assert world.missing() == [1]
    said = world.audit().as_json()
    assert list(said["missing_offsets"].values()) == [[[1, 1]]]


def test_a_long_series_of_a_place_takes_few_looks_into_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its messages comes in a block of its own; a look costs milliseconds."""
    for hour in range(100):
        world.publish(reading(timestamp=NS + hour * 3_600_000_000_000))
    world.consume()
    world.tamper('DELETE FROM demo.climate_data WHERE "offset" IN (7, 93)')
    looks: list[int] = []
    find = DuckDBStore.find

    def counted(store: DuckDBStore, rows: Rows) -> Found:
        looks.append(len(rows))
        return find(store, rows)

    monkeypatch.setattr(DuckDBStore, "find", counted)
    assert (world.missing(), looks) == ([7, 93], [100])
    monkeypatch.setattr("climatestream.audit.BATCH_ROWS", 40)
    assert (world.missing(), looks[1:]) == ([7, 93], [40, 40, 20])


def test_a_dead_letter_that_was_not_kept_is_missing(world: World) -> None:
    world.publish(reading(50), b"poison")
    world.consume()
    world.tamper("DELETE FROM demo.dead_letters")
    assert world.missing() == [1]


def test_an_older_message_whose_row_lost_a_field_of_its_own_is_missing(world: World) -> None:
    """Superseded is only what the row has a value for."""
    world.publish(reading(50, u10=1.0), reading(50, temperature=281.0))
    world.consume()
    assert world.missing() == []
    world.tamper("UPDATE demo.climate_data SET data = struct_update(data, u10 := NULL::DOUBLE)")
    assert world.missing() == [0]


def test_what_was_dropped_on_purpose_is_expired(world: World) -> None:
    world.publish(reading(50), reading(51, timestamp=NS + 60_000_000_000))
    world.consume()
    with DuckDBStore(str(world.path)) as store:
        store.expire("unstated", NS // 1_000_000 + 1)
    assert counts(world.audit()) == {"expired": 1, "stored": 1}


def test_what_was_never_consumed_is_pending(world: World) -> None:
    world.publish(reading(50), reading(51))
    assert counts(world.audit()) == {"pending": 2}
    assert world.audit().ok
