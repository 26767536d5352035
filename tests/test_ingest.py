"""Ingest says for every message what became of it, whatever the store does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream import codec, fastcodec
from climatestream.ingest import Decode, Ingest
from climatestream.model import Messages, Position
from climatestream.ports import Store
from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.stores import FailingStore, RefusingStore

NS = 1_754_784_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    with DuckDBStore(str(tmp_path / "store.duckdb")) as opened:
        yield opened


@pytest.fixture(params=[codec.decode, fastcodec.decode], ids=["by message", "in bulk"])
def decode(request: pytest.FixtureRequest) -> Decode:
    chosen: Decode = request.param
    return chosen


def message(**fields: Any) -> bytes:
    return orjson.dumps(
        {"timestamp": NS, "temperature": 280.0, "latitude": 50.0, "longitude": 8.0, **fields}
    )


def block(*values: bytes | None, first: int = 0, partition: int = 0, **more: Any) -> Messages:
    n = len(values)
    return Messages(
        topic="t",
        partition=partition,
        offset=range(first, first + n),
        published_at_ms=more.get("published_at_ms", [1_000] * n),
        key=[None] * n,
        value=list(values),
        headers=more.get("headers", [()] * n),
    )


def readings(store: Store, what: str = "cell, data['temperature']") -> list[tuple[Any, ...]]:
    return store.query(f"SELECT {what} FROM demo.climate_data ORDER BY cell").rows


def test_readings_are_stored_and_poison_is_buried(store: DuckDBStore, decode: Decode) -> None:
    blocks = [block(message(), b"poison", message(latitude=51)), block(None, partition=3)]
    report = Ingest(store, decode=decode)(blocks)
    assert (report.stored, len(report.dead), report.retry) == (2, 2, [])
    assert [row[0] for row in readings(store)] == ["50.0000,8.0000", "51.0000,8.0000"]
    letters = {letter.position: letter.reason for letter, _ in store.dead_letters()}
    assert letters == {Position("t", 0, 1): "not-json", Position("t", 3, 0): "empty"}


def test_temperature_is_stored_in_degrees_celsius(store: DuckDBStore, decode: Decode) -> None:
    Ingest(store, decode=decode)([block(message(temperature=295.6215515136719))])
    assert readings(store)[0][1] == 295.6215515136719 - 273.15


def test_a_message_without_dataset_is_what_the_consumer_says(
    store: DuckDBStore, decode: Decode
) -> None:
    Ingest(store, decode=decode)([block(message())])
    Ingest(store, dataset="era5/hourly", decode=decode)([block(message(), first=1)])
    Ingest(store, dataset="era5/hourly", decode=decode)([block(message(dataset="x"), first=2)])
    assert {row[0] for row in readings(store, "dataset")} == {"unstated", "era5/hourly", "x"}


def test_a_store_that_is_down_means_that_every_message_is_retried(
    store: DuckDBStore, decode: Decode
) -> None:
    ingest = Ingest(FailingStore(store), decode=decode)
    messages = [block(message(), b"poison", first=5), block(message(latitude=1), partition=1)]
    report = ingest(messages)
    assert (report.stored, list(report.dead)) == (0, [])
    assert report.first_retry() == {("t", 0): 5, ("t", 1): 0}
    assert report.error is not None
    again = ingest(messages)
    assert (again.stored, len(again.dead), list(again.retry)) == (2, 1, [])


def test_a_row_that_the_store_refuses_for_good_is_a_dead_letter_as_a_whole_message(
    store: DuckDBStore, decode: Decode
) -> None:
    refusing = RefusingStore(store, [8])
    report = Ingest(refusing, decode=decode)([block(message(), message(latitude=51), first=7)])
    (letter,) = report.dead
    assert (report.stored, letter.offset, letter.reason) == (1, 8, "refused")
    assert letter.value == message(latitude=51)
    assert [one.offset for one, _ in store.dead_letters()] == [8]


def test_a_row_that_the_store_refuses_for_now_is_retried(
    store: DuckDBStore, decode: Decode
) -> None:
    refusing = RefusingStore(store, [8], transient=True)
    report = Ingest(refusing, decode=decode)([block(message(), message(latitude=51), first=7)])
    assert report.first_retry() == {("t", 0): 8}
    assert list(report.dead) == []


def test_an_unknown_error_is_a_bug_and_is_raised(store: DuckDBStore, decode: Decode) -> None:
    broken = FailingStore(store, error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        Ingest(broken, decode=decode)([block(message())])


@pytest.mark.parametrize("call", ["field_types", "describe", "bury"])
def test_whatever_call_fails_the_messages_are_retried(
    store: DuckDBStore, decode: Decode, call: str
) -> None:
    """A dead letter that can't be written is transient, like a row."""
    ingest = Ingest(FailingStore(store, calls=[call]), decode=decode)
    messages = [block(message(), b"poison")]
    assert len(ingest(messages).retry) == 2
    again = ingest(messages)
    assert (again.stored, len(again.dead)) == (1, 1)


def test_the_first_type_of_a_field_holds_over_restarts(store: DuckDBStore, decode: Decode) -> None:
    Ingest(store, decode=decode)([block(message(quality="good"))])
    report = Ingest(store, decode=decode)([block(message(quality=1.0, latitude=51), first=1)])
    assert [letter.reason for letter in report.dead] == ["wrong-type"]


def test_variables_are_described_with_their_units(store: DuckDBStore, decode: Decode) -> None:
    units = [(("units", b'{"fsr":"m"}'),)]
    ingest = Ingest(store, decode=decode)
    ingest([block(message(dataset="d", fsr=0.5), headers=units)])
    ingest([block(message(dataset="e", original_timestamp=1.0), first=1)])
    found = store.query("SELECT dataset, variable, unit FROM demo.datasets ORDER BY 1, 2").rows
    assert found == [("d", "fsr", "m"), ("d", "temperature", "degC"), ("e", "temperature", "degC")]


def test_what_is_older_than_the_horizon_is_not_written(store: DuckDBStore, decode: Decode) -> None:
    ingest = Ingest(store, decode=decode, horizon_ms=lambda _: NS // 1_000_000 + 1)
    report = ingest([block(message(), message(timestamp=NS + 2_000_000))])
    assert (report.stored, report.expired, report.dead) == (1, 1, [])
    assert len(readings(store)) == 1


def test_what_is_too_old_is_counted_by_its_partition(store: DuckDBStore, decode: Decode) -> None:
    ingest = Ingest(store, decode=decode, horizon_ms=lambda _: NS // 1_000_000 + 1)
    new = message(timestamp=NS + 2_000_000)
    old = message()
    blocks = [block(old, b"no JSON", new), block(old, new, old, partition=1)]
    report = ingest(blocks)
    assert report.too_old == {(blocks[0].topic, 0): 1, (blocks[1].topic, 1): 2}
    assert (report.stored, report.expired, len(report.dead)) == (2, 3, 1)
