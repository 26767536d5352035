"""The whole path under faults: nothing is lost, nothing doubled, memory is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from climatestream import fastcodec, pipeline
from climatestream.audit import Auditor
from climatestream.brokers.memory import CAPACITY, MemoryBroker
from climatestream.errors import SourceError, StoreUnavailable
from climatestream.ingest import Ingest
from climatestream.meter import Meter
from climatestream.model import Batch
from climatestream.ports import Store
from climatestream.sources.open import open_source
from climatestream.sources.selection import Selection
from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.brokers import UnavailableConsumer
from climatestream.testing.stores import (
    BlockingStore,
    Crash,
    CrashingStore,
    FailingStore,
    RefusingStore,
)


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """A day of simulated readings of Luxembourg, every hour a batch."""
    from climatestream.region import parse_region

    with open_source(("simulation:?days=1",), Selection(region=parse_region("LUX"))) as source:
        return [batch for slice_ in source.slices() for batch in source.read(slice_)]


class World:
    """What a run needs, with a store that a test may wrap."""

    def __init__(self, folder: Path, store: Store, partitions: int = 4, capacity: int = CAPACITY):
        self.store = store
        self.broker = MemoryBroker(keep=folder, partitions=partitions, capacity=capacity)
        self.stop = threading.Event()
        self.abandon = threading.Event()

    def run(self, batches: Iterable[Batch], store: Store | None = None) -> Meter:
        ingest = Ingest(store or self.store, decode=fastcodec.decode)
        with Meter(self.store, self.broker.topic, dict) as meter:
            pipeline.run(batches, self.broker, ingest, meter, stop=self.stop, abandon=self.abandon)
        return meter

    def audit(self) -> dict[str, int]:
        auditor = Auditor(self.broker, self.store, pipeline.GROUP, "unstated", fastcodec.decode)
        return {name: count for name, count in auditor.audit().total.items() if count}

    def rows(self) -> tuple[int, int]:
        """How many rows there are, and how many different keys."""
        query = """SELECT count(*), count(DISTINCT dataset || cell || "timestamp"::VARCHAR)
            FROM demo.climate_data"""
        rows, keys = self.store.query(query).rows[0]
        return rows, keys


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with DuckDBStore(str(tmp_path / "store.duckdb")) as store:
        made = World(tmp_path, store)
        with made.broker:
            yield made


def count(batches: list[Batch]) -> int:
    return sum(map(len, batches))


def test_every_reading_is_stored_once(world: World, batches: list[Batch]) -> None:
    meter = world.run(batches)
    n = count(batches)
    assert (meter.published, meter.stored, meter.dead) == (n, n, 0)
    assert world.rows() == (n, n)
    assert world.audit() == {"stored": n}
    assert all(
        end == world.broker.high_water([number])[number]
        for number, end in world.broker.committed(pipeline.GROUP).items()
    )


def test_a_store_that_is_away_for_a_while_loses_nothing(world: World, batches: list[Batch]) -> None:
    meter = world.run(batches, FailingStore(world.store, 3))
    assert meter.retries == 3
    assert world.audit() == {"stored": count(batches)}
    assert world.rows() == (count(batches), count(batches))


def test_a_broker_that_takes_no_commit_for_a_while_loses_nothing(
    world: World, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = world.broker.consumer
    monkeypatch.setattr(
        world.broker, "consumer", lambda group: UnavailableConsumer(consumer(group), commits=2)
    )
    meter = world.run(batches)
    assert meter.retries == 2
    assert world.audit() == {"stored": count(batches)}
    assert meter.stored == count(batches)


def test_rows_that_are_refused_for_a_while_are_written_later(
    world: World, batches: list[Batch]
) -> None:
    refusing = RefusingStore(world.store, range(20), transient=True, times=2)
    world.run(batches, refusing)
    assert world.audit() == {"stored": count(batches)}


def test_a_death_between_write_and_answer_commits_nothing_and_doubles_nothing(
    world: World, batches: list[Batch]
) -> None:
    with pytest.raises(Crash):
        world.run(batches[:2], CrashingStore(world.store))
    assert set(world.broker.committed(pipeline.GROUP).values()) == {0}
    written = world.rows()[0]
    assert written > 0
    world.stop.clear()
    world.abandon.clear()
    world.run(batches[2:])  # the next member of the group goes on from what is committed
    assert world.audit() == {"stored": count(batches)}
    assert world.rows() == (count(batches), count(batches))


def test_a_bug_stops_the_run_also_while_the_source_waits(
    world: World, batches: list[Batch]
) -> None:
    """A source that waits for the present ends when nobody takes its readings any more."""

    def waiting() -> Iterator[Batch]:
        yield batches[0]
        world.stop.wait()

    with pytest.raises(ZeroDivisionError):
        world.run(waiting(), FailingStore(world.store, error=ZeroDivisionError()))


def test_a_source_that_breaks_is_told_after_what_came_before_is_stored(
    world: World, batches: list[Batch]
) -> None:
    def broken() -> Iterator[Batch]:
        yield from batches[:3]
        raise SourceError("the file ends in the middle")

    with pytest.raises(SourceError, match="in the middle"):
        world.run(broken())
    assert world.rows()[0] == count(batches[:3])


def test_a_slow_store_slows_the_reader(tmp_path: Path, batches: list[Batch]) -> None:
    """While the store answers nothing, no more is read than the bounded places hold."""
    read = 0

    def counted() -> Iterator[Batch]:
        nonlocal read
        for batch in batches * 50:
            read += len(batch)
            yield batch

    capacity = 100
    with BlockingStore(DuckDBStore(str(tmp_path / "store.duckdb"))) as blocking:
        world = World(tmp_path, blocking, partitions=2, capacity=capacity)
        with world.broker:
            run = threading.Thread(target=world.run, args=(counted(),))
            run.start()
            assert blocking.waiting.wait(10)
            before = -1
            while read != before:
                before = read
                time.sleep(0.3)
            largest = max(map(len, batches))
            # what is in the broker, written, decoded, being published, and read ahead
            assert read <= 2 * capacity + 2 * (2 * capacity) + 4 * largest
            world.stop.set()
            world.abandon.set()
            blocking.release()
            run.join(10)
            assert not run.is_alive()


def test_abandon_ends_a_run_whose_store_never_answers(world: World, batches: list[Batch]) -> None:
    store = FailingStore(world.store, float("inf"), error=StoreUnavailable("gone"))
    threading.Timer(0.3, world.abandon.set).start()
    meter = world.run(batches, store)
    assert meter.stored == 0
    assert set(world.audit()) == {"pending"}
