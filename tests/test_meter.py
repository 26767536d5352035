"""What the pipeline counts, and the rows of `demo.pipeline` that it writes of it."""

from __future__ import annotations

import os
import queue
from typing import TYPE_CHECKING, cast

import pytest

from climatestream import meter as metering
from climatestream.errors import BrokerUnavailable, StoreError, StoreUnavailable, Transient
from climatestream.ingest import Report
from climatestream.meter import Meter
from climatestream.model import DeadLetter, Messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from climatestream.ports import PipelineRow, Store

TOPIC = "era5-1"
NOW_MS = 1_800_000_000_000


class FakeStore:
    """Keeps the rows of each `record`; while `error` is set, raises it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: queue.Queue[list[PipelineRow]] = queue.Queue()
        self.refused: queue.Queue[list[PipelineRow]] = queue.Queue()

    def record(self, rows: Sequence[PipelineRow]) -> None:
        if self.error is not None:
            self.refused.put(list(rows))
            raise self.error
        self.calls.put(list(rows))

    def rows(self) -> list[PipelineRow]:
        """The rows of the next call; waits for it."""
        return self.calls.get(timeout=10)

    def last(self) -> list[PipelineRow]:
        """The rows of the last call so far."""
        rows = self.rows()
        while not self.calls.empty():
            rows = self.rows()
        return rows


class HighWater:
    """By assigned partition, the offset after the newest message; may be out of reach."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.ends = ends
        self.error: Exception | None = None

    def __call__(self) -> Mapping[int, int]:
        if self.error is not None:
            raise self.error
        return dict(self.ends)


def block(partition: int, first: int, published_at_ms: Sequence[int]) -> Messages:
    n = len(published_at_ms)
    offsets = range(first, first + n)
    return Messages(TOPIC, partition, offsets, published_at_ms, [b"k"] * n, [b"v"] * n, [()] * n)


def letter(partition: int, offset: int) -> DeadLetter:
    return DeadLetter(TOPIC, partition, offset, NOW_MS, None, b"v", (), "not-json", "not JSON")


def meter(store: FakeStore, ends: dict[int, int] | HighWater) -> Meter:
    high_water = ends if isinstance(ends, HighWater) else HighWater(ends)
    return Meter(cast("Store", store), TOPIC, high_water, lambda: NOW_MS)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written every few milliseconds instead of every 5 seconds."""
    monkeypatch.setattr(metering, "FIRST_S", 0.002)
    monkeypatch.setattr(metering, "INTERVAL_S", 0.002)


# -------------------------------------------------------------------------------- counting


def test_counts_are_of_all_batches() -> None:
    """What was stored, dead, expired, and tried again."""
    counts = meter(FakeStore(), {})
    report = Report(stored=7, too_old={(TOPIC, 0): 2}, dead=[letter(0, 3)])
    counts.saw([block(0, 0, [NOW_MS] * 10)], report, 0.1)
    counts.failed([block(0, 10, [NOW_MS])], StoreUnavailable("gone"))
    counts.failed((), BrokerUnavailable("gone"))
    counts.saw([block(0, 10, [NOW_MS])], Report(stored=1), 0.1)
    assert (counts.stored, counts.dead, counts.expired, counts.retries) == (8, 1, 2, 2)


def test_what_is_too_old_is_no_row_that_was_stored() -> None:
    store = FakeStore()
    with meter(store, {0: 10, 1: 10}) as counts:
        blocks = [block(0, 0, [NOW_MS] * 10), block(1, 0, [NOW_MS] * 10)]
        counts.saw(blocks, Report(stored=17, too_old={(TOPIC, 1): 3}), 0.1)
    assert [row.rows for row in store.rows()] == [10, 7]


def test_what_is_waited_for_is_known_until_it_is_there() -> None:
    counts = meter(FakeStore(), {})
    error = StoreUnavailable("gone")
    assert counts.waiting_for is None
    counts.failed([block(0, 0, [NOW_MS])], error)
    assert cast("Transient | None", counts.waiting_for) is error
    counts.saw([block(0, 0, [NOW_MS])], Report(stored=1), 0.1)
    assert counts.waiting_for is None


# ------------------------------------------------------------------------------------ rows


def test_a_row_is_written_for_each_partition_when_the_meter_is_closed() -> None:
    """With what was done since it was opened, however short that was."""
    store = FakeStore()
    with meter(store, {0: 100, 1: 40, 2: 0}) as counts:
        first, second = block(0, 50, [NOW_MS - 20] * 10), block(1, 7, [NOW_MS - 5] * 3)
        counts.saw([first, second], Report(stored=11, dead=[letter(0, 52), letter(1, 8)]), 0.2)
        counts.failed([block(0, 60, [NOW_MS])], StoreUnavailable("gone"))
        counts.saw([block(0, 60, [NOW_MS - 40] * 2)], Report(stored=2), 0.4)
    zero, one, two = store.rows()
    assert store.calls.empty()
    assert {(row.time_ms, row.topic, row.instance) for row in (zero, one, two)} == {
        (NOW_MS, TOPIC, zero.instance)
    }
    assert zero.instance.endswith(f":{os.getpid()}")
    assert [row.partition for row in (zero, one, two)] == [0, 1, 2]
    assert (zero.offset, zero.high_water) == (62, 100)
    assert (zero.rows, zero.dead, zero.errors) == (11, 1, 1)
    assert zero.batch_ms == pytest.approx(300.0)
    assert (zero.stored_p50_ms, zero.stored_p95_ms, zero.stored_p99_ms) == (20.0, 40.0, 40.0)
    assert (one.offset, one.high_water, one.rows, one.dead, one.errors) == (10, 40, 2, 1, 0)
    assert one.batch_ms == pytest.approx(200.0)
    assert (one.stored_p50_ms, one.stored_p99_ms) == (5.0, 5.0)
    assert (two.offset, two.high_water, two.rows, two.dead, two.errors) == (None, 0, 0, 0, 0)
    assert (two.batch_ms, two.stored_p50_ms, two.stored_p95_ms, two.stored_p99_ms) == (None,) * 4
    assert {row.queryable_ms for row in (zero, one, two)} == {None}


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [
        (range(1, 101), (50.0, 95.0, 99.0)),
        (range(100, 0, -1), (50.0, 95.0, 99.0)),
        ([7], (7.0, 7.0, 7.0)),
        ([1] * 99 + [1_000], (1.0, 1.0, 1.0)),
        ([1] * 94 + [50] * 4 + [1_000] * 2, (1.0, 50.0, 1_000.0)),
        ([1, 2], (1.0, 2.0, 2.0)),
        ([-3, -3, 4], (-3.0, 4.0, 4.0)),  # the clock of another machine may be ahead
    ],
)
def test_a_percentile_is_the_latency_that_so_many_messages_do_not_exceed(
    latencies: Sequence[int], expected: tuple[float, float, float]
) -> None:
    """From `published_at` to the store's answer; over all batches of the time."""
    store = FakeStore()
    with meter(store, {0: 0}) as counts:
        times = [NOW_MS - latency for latency in latencies]
        for part in (times[:30], times[30:]):
            if part:
                counts.saw([block(0, 0, part)], Report(stored=len(part)), 0.1)
    (row,) = store.rows()
    assert (row.stored_p50_ms, row.stored_p95_ms, row.stored_p99_ms) == expected


@pytest.mark.usefixtures("_quick")
def test_every_row_speaks_of_its_own_time_alone() -> None:
    """An idle partition has zero rows, and stays at the offset where it was."""
    store = FakeStore()
    high_water = HighWater({0: 10})
    with meter(store, high_water) as counts:
        counts.saw([block(0, 0, [NOW_MS] * 10)], Report(stored=9, dead=[letter(0, 1)]), 0.1)
        busy = next(row for row in iter(lambda: store.rows()[0], None) if row.rows)
        high_water.ends[0] = 12
        idle = next(row for row in iter(lambda: store.rows()[0], None) if row.high_water == 12)
    assert (busy.offset, busy.rows, busy.dead) == (10, 9, 1)
    assert (idle.offset, idle.rows, idle.dead, idle.errors) == (10, 0, 0, 0)
    assert (idle.batch_ms, idle.stored_p50_ms) == (None, None)


def test_the_first_row_comes_sooner_than_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens the page at once sees a rate."""
    assert (metering.FIRST_S, metering.INTERVAL_S) == (1.0, 5.0)
    monkeypatch.setattr(metering, "FIRST_S", 0.002)
    monkeypatch.setattr(metering, "INTERVAL_S", 3_600.0)
    store = FakeStore()
    with meter(store, {0: 5}):
        assert [row.high_water for row in store.rows()] == [5]
        assert store.calls.empty()
    assert len(store.rows()) == 1


@pytest.mark.usefixtures("_quick")
def test_a_partition_that_another_member_got_has_no_more_rows() -> None:
    """What was done before is still said; then its rows are the other member's."""
    store = FakeStore()
    high_water = HighWater({0: 10, 1: 10})
    with meter(store, high_water) as counts:
        store.rows()
        counts.saw([block(1, 0, [NOW_MS] * 10)], Report(stored=10), 0.1)
        del high_water.ends[1]
        rows: list[PipelineRow] = []
        while len(rows) < 20:
            rows += store.rows()
    of_lost = [row for row in rows if row.partition == 1 and row.rows]
    assert [row.rows for row in of_lost] == [10]
    assert {row.partition for row in rows[-5:]} == {0}


# ------------------------------------------------------------------- store or broker away


@pytest.mark.usefixtures("_quick")
def test_rows_that_the_store_could_not_take_are_written_later() -> None:
    """Each once, in order, and what is waited for is known until then."""
    error = StoreUnavailable("the store is away")
    store = FakeStore(error)
    with meter(store, {0: 30}) as counts:
        for number in range(3):
            counts.saw([block(0, 10 * number, [NOW_MS] * 10)], Report(stored=10), 0.1)
            store.refused.get(timeout=10)
            store.refused.get(timeout=10)
        assert counts.waiting_for is error
        store.error = None
        first = store.rows()
        later = store.rows()
        assert counts.waiting_for is None
    assert len(first) >= 4
    assert sum(row.rows for row in first) == 30
    assert [row.offset for row in first if row.rows] == [10, 20, 30]
    assert [row.rows for row in later] == [0]


@pytest.mark.usefixtures("_quick")
def test_no_more_rows_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away for a day does not fill the memory: the oldest are dropped."""
    monkeypatch.setattr(metering, "KEPT_ROWS", 6)
    store = FakeStore(StoreUnavailable("the store is away"))
    with meter(store, {0: 1, 1: 1}):
        kept = [len(store.refused.get(timeout=10)) for _ in range(10)]
    assert max(kept) == 6 + 2
    assert kept[-1] == 6 + 2


@pytest.mark.usefixtures("_quick")
def test_a_broker_that_is_away_leaves_rows_without_a_high_water() -> None:
    """The offsets are not forgotten meanwhile, and rows go on when it is back."""
    store = FakeStore()
    high_water = HighWater({0: 10})
    with meter(store, high_water) as counts:
        counts.saw([block(0, 0, [NOW_MS] * 10)], Report(stored=10), 0.1)
        error = high_water.error = BrokerUnavailable("the broker is away")
        rows = [store.rows()[0] for _ in range(5)]
        assert counts.waiting_for is error
        high_water.error = None
        back = [store.rows()[0] for _ in range(5)]
    assert (rows[-1].offset, rows[-1].high_water, rows[-1].rows) == (10, None, 0)
    assert (back[-1].offset, back[-1].high_water) == (10, 10)
    assert sum(row.rows for row in rows + back) == 10


@pytest.mark.usefixtures("_quick")
def test_what_time_cannot_mend_stops_the_run() -> None:
    """A store that refuses the rows is not passed over in silence: the worker gets its error."""
    error = StoreError("the store is of another program")
    store = FakeStore(error)

    def work() -> None:
        with meter(store, {0: 1}) as counts:
            while True:
                counts.saw([block(0, 0, [NOW_MS])], Report(stored=1), 0.1)
                if not store.refused.empty():
                    store.error = None

    with pytest.raises(StoreError, match="another program") as caught:
        work()
    assert caught.value is error


@pytest.mark.usefixtures("_quick")
def test_what_time_cannot_mend_is_raised_at_the_end_where_no_message_comes() -> None:
    store = FakeStore(StoreError("the store is of another program"))

    def wait() -> None:
        with meter(store, {0: 1}):
            store.refused.get(timeout=10)
            store.error = None

    with pytest.raises(StoreError, match="another program"):
        wait()
