"""When readings are published, and with which time."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from climatestream import replay
from climatestream.codec import END_NS
from climatestream.errors import SourceError, UsageError
from climatestream.model import Batch, Cells, Slice
from climatestream.region import parse_region
from climatestream.replay import Clock, Pace, demo, paced
from climatestream.sources.selection import Selection
from climatestream.sources.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

S = 1_000_000_000
MS = 1_000_000
HOUR = 3_600 * S
FIRST = 1_754_784_000 * S  # 2025-08-10T00:00Z
NOW = 1_800_000_000 * S + 300 * MS


class FakeClock(Clock):
    """A clock that stands still but for waiting; may wake early, and be stopped at a time."""

    def __init__(self, now_ns: int = NOW, *, early_ns: int = 0, stop_ns: int | None = None) -> None:
        super().__init__(threading.Event())
        self.now = now_ns
        self.waited = 0
        self._early_ns = early_ns
        self._stop_ns = stop_ns

    def now_ns(self) -> int:
        return self.now

    def wait_until(self, due_ns: int) -> None:
        if self.stop.is_set() or due_ns <= self.now:
            return
        self.waited += due_ns - self.now
        if self._stop_ns is not None and due_ns >= self._stop_ns:
            self.now = max(self.now, self._stop_ns)
            self.stop.set()
        else:
            self.now = due_ns - self._early_ns


class FakeSource:
    """Slices of given times and datasets, each of some batches of some rows."""

    def __init__(
        self,
        times: Iterable[int] = (FIRST, FIRST + HOUR, FIRST + 2 * HOUR),
        datasets: Sequence[str] = ("era5-land/hourly",),
        *,
        rows: Sequence[int] = (2,),
    ) -> None:
        self._slices = [Slice(time_ns, dataset) for time_ns in times for dataset in datasets]
        self._batches = [
            (Cells(np.zeros(n), np.arange(float(n)), [None] * n), np.arange(float(n))) for n in rows
        ]
        self.begun: list[Slice] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def slices(self) -> Sequence[Slice]:
        return self._slices

    def read(self, slice_: Slice) -> Iterator[Batch]:
        self.begun.append(slice_)
        for cells, values in self._batches:
            yield Batch(
                slice_.dataset, slice_.time_ns, cells, {"temperature": values}, extra={"height": 2}
            )


def hours(number: int, first: int = FIRST) -> list[int]:
    return [first + place * HOUR for place in range(number)]


def original_ms(batch: Batch) -> float:
    return batch.extra["original_timestamp"]


def originals(batches: Iterable[Batch], first: int = FIRST) -> list[int]:
    """Their own times, as hours since the first."""
    return [int(original_ms(batch) * MS - first) // HOUR for batch in batches]


def when(batches: Iterable[Batch], clock: FakeClock, number: int) -> list[tuple[float, Batch]]:
    """The first batches, each with the seconds from the start to its coming."""
    began = clock.now
    return [((clock.now - began) / S, batch) for batch in itertools.islice(batches, number)]


# ---------------------------------------------------------------------------- as it is, rate


def test_readings_come_as_they_are_and_without_waiting() -> None:
    """In order of time, under their own dataset and time."""
    clock = FakeClock()
    source = FakeSource(datasets=("era5-land/hourly", "era5/hourly"), rows=(2, 3))
    found = [(b.time_ns, b.dataset, len(b)) for b in paced(source, Pace(), clock)]
    expected = [
        (slice_.time_ns, slice_.dataset, rows) for slice_ in source.slices() for rows in (2, 3)
    ]
    assert found == expected
    assert clock.waited == 0
    assert all("original_timestamp" not in b.extra for b in paced(FakeSource(), Pace(), clock))


def test_a_source_without_slices_gives_nothing() -> None:
    """Replayed and repeated too: there is nothing to wait for."""
    for pace in (Pace(), Pace(speed=1.0), Pace(shift_to_now=True, loop=True)):
        assert list(paced(FakeSource(times=()), pace, FakeClock())) == []
    assert list(demo(FakeSource(times=()), FakeClock(), lambda: True)) == []


@pytest.mark.parametrize(("rate", "rows"), [(100.0, (250,)), (100.0, (7, 3, 240)), (37.0, (90,))])
def test_a_rate_is_kept_in_every_second(rate: float, rows: tuple[int, ...]) -> None:
    """As a stream of small parts, with every reading once and in order."""
    clock = FakeClock()
    source = FakeSource(rows=rows)
    parts = when(paced(source, Pace(rate_per_s=rate), clock), clock, 10_000)
    for at, _ in parts:
        assert sum(len(b) for t, b in parts if at <= t < at + 1.0) <= rate + max(1, rate / 10)
    expected = [value for _ in source.slices() for n in rows for value in range(n)]
    assert [value for _, b in parts for value in b.values["temperature"]] == expected
    assert [lon for _, b in parts for lon in b.cells.longitude] == expected
    assert parts[-1][0] == pytest.approx(3 * sum(rows) / rate, abs=0.2)


def test_a_rate_below_one_a_second_gives_single_readings() -> None:
    clock = FakeClock()
    parts = when(paced(FakeSource(), Pace(rate_per_s=0.5), clock), clock, 6)
    assert [(at, len(batch)) for at, batch in parts] == [(2.0 * n, 1) for n in range(6)]


def test_what_was_late_is_not_made_up_for_by_more_than_a_second() -> None:
    """After a pause of a minute no flood comes, but the rate again."""
    clock = FakeClock()
    parts = paced(FakeSource(rows=(10_000,)), Pace(rate_per_s=100.0), clock)
    next(parts)
    clock.now += 60 * S
    burst = sum(len(part) for at, part in when(parts, clock, 200) if at == 0.0)
    assert burst <= 110


# --------------------------------------------------------------------------------- speed


def test_speed_is_the_datas_time_that_passes_in_a_second() -> None:
    """Whatever the steps are: months are as long as they are."""
    months = [int(datetime(2025, n, 1, tzinfo=UTC).timestamp()) * S for n in (1, 2, 3, 4)]
    clock = FakeClock()
    came = when(paced(FakeSource(months), Pace(speed=86_400.0), clock), clock, 4)
    assert [at for at, _ in came] == [0.0, 31.0, 59.0, 90.0]
    assert [batch.time_ns for _, batch in came] == months


def test_the_datasets_of_one_time_come_together() -> None:
    clock = FakeClock()
    source = FakeSource(datasets=("a", "b"), rows=(1, 1))
    came = when(paced(source, Pace(speed=3_600.0), clock), clock, 12)
    assert [at for at, _ in came] == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_a_slow_taker_does_not_delay_what_comes_later() -> None:
    """A slice is due at its time since the start, not since the one before it."""
    clock = FakeClock()
    batches = paced(FakeSource(hours(5)), Pace(speed=3_600.0), clock)
    times = []
    for batch in batches:
        times.append((clock.now - NOW) / S)
        if batch.time_ns == FIRST + HOUR:
            clock.now += 2 * S + 500 * MS
    assert times == [0.0, 1.0, 3.5, 3.5, 4.0]


# -------------------------------------------------------------------------- shift to now


def test_shifted_slices_are_stamped_with_the_present_second() -> None:
    """One slice a second, rounded down; all batches and datasets of a time with one stamp."""
    clock = FakeClock()
    source = FakeSource(datasets=("era5-land/hourly", "my"), rows=(1, 2))
    came = when(paced(source, Pace(shift_to_now=True), clock), clock, 100)
    assert len(came) == 3 * 4
    for number, batch in enumerate(batch for _, batch in came):
        assert batch.time_ns == NOW - 300 * MS + number // 4 * S
    assert [at for at, _ in came] == [float(n // 4) for n in range(12)]


def test_shifted_readings_are_a_replay_and_keep_their_own_time() -> None:
    """Real readings are never overwritten: the dataset is another; the rest is as it was."""
    source = FakeSource([FIRST + 123_456_789])
    (shifted,) = paced(source, Pace(shift_to_now=True), FakeClock())
    (own,) = source.read(source.slices()[0])
    assert shifted.dataset == "era5-land/hourly/replay"
    assert shifted.extra == {"height": 2, "original_timestamp": FIRST / MS + 123.456789}
    assert (shifted.cells, shifted.values) == (own.cells, own.values)


def test_a_simulation_keeps_its_name() -> None:
    (batch,) = paced(
        FakeSource([FIRST], ("simulation",)), Pace(shift_to_now=True, rate_per_s=100.0), FakeClock()
    )
    assert batch.dataset == "simulation"
    assert original_ms(batch) == FIRST / MS


@pytest.mark.parametrize("speed", [1_800.0, 3_600.0, 7_200.0, 3_600_000.0, 1e12, 5_000.0])
@pytest.mark.parametrize("early_ns", [0, 1, 40_000])
def test_stamps_are_distinct_and_on_whole_publishing_intervals(speed: float, early_ns: int) -> None:
    """Also where the wait for the next one ends a little early, and never in the future."""
    interval = max(MS, round(HOUR / speed))
    clock = FakeClock(early_ns=early_ns)
    source = FakeSource(hours(50))
    stamps = []
    for batch in paced(source, Pace(speed=speed, shift_to_now=True), clock):
        stamps.append(batch.time_ns)
        assert batch.time_ns <= clock.now + early_ns
        assert clock.now - batch.time_ns < 2 * interval
    assert len({stamp // MS for stamp in stamps}) == 50  # the store keeps milliseconds
    assert stamps == sorted(stamps)
    assert {stamp % interval for stamp in stamps} == {0}


def test_a_slice_that_takes_longer_than_the_interval_is_followed_by_the_present() -> None:
    """No queue of stamps that were missed: the next slice has the second in which it comes."""
    clock = FakeClock()
    stamps = []
    for batch in paced(FakeSource(hours(6)), Pace(shift_to_now=True), clock):
        stamps.append((batch.time_ns - NOW + 300 * MS) // S)
        clock.now += 2 * S + 500 * MS
    assert stamps == [0, 2, 5, 7, 10, 12]


# ---------------------------------------------------------------------------------- loop


def test_files_are_not_repeated_without_a_new_time() -> None:
    """The same readings again would be no news: an error at once, with what to do."""
    with pytest.raises(UsageError, match="add --shift-to-now") as caught:
        paced(FakeSource(), Pace(loop=True), FakeClock())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("number", [1, 2, 7])
@pytest.mark.parametrize("datasets", [("a",), ("a", "b")])
def test_files_are_repeated_for_ever_with_another_stamp_each_time(
    number: int, datasets: tuple[str, ...]
) -> None:
    """Also a file of a single time."""
    clock = FakeClock()
    pace = Pace(loop=True, shift_to_now=True)
    count = 5 * number * len(datasets)
    came = when(paced(FakeSource(hours(number), datasets), pace, clock), clock, count)
    batches = [batch for _, batch in came]
    assert originals(batches) == [n for n in range(number) for _ in datasets] * 5
    assert len({(batch.dataset, batch.time_ns) for batch in batches}) == count
    assert [at for at, _ in came] == [float(n // len(datasets)) for n in range(count)]


def test_a_repeated_replay_keeps_its_speed() -> None:
    """From the last slice to the first again it is one interval."""
    clock = FakeClock()
    pace = Pace(loop=True, shift_to_now=True, speed=7_200.0)
    came = when(paced(FakeSource(hours(3)), pace, clock), clock, 7)
    assert [at for at, _ in came] == [0.5 * n for n in range(7)]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("shift", [False, True])
def test_a_simulation_goes_on_in_time_instead_of_repeating(number: int, shift: bool) -> None:
    """The same readings again would be no news of it either."""
    source = FakeSource(hours(number), ("simulation",))
    batches = paced(source, Pace(loop=True, shift_to_now=shift), FakeClock())
    taken = list(itertools.islice(batches, 10))
    own = originals(taken) if shift else [(batch.time_ns - FIRST) // HOUR for batch in taken]
    assert own == list(range(10))


def test_a_simulation_that_goes_on_ends_with_the_times_that_a_message_may_have() -> None:
    """The year 2201 is a dead letter's: what is shifted to now does not come to it."""
    source = FakeSource(hours(3, END_NS - 5 * HOUR), ("simulation",))
    times = [batch.time_ns for batch in paced(source, Pace(loop=True), FakeClock())]
    assert times == hours(5, END_NS - 5 * HOUR)
    shifted = paced(source, Pace(loop=True, shift_to_now=True), FakeClock())
    assert len(list(itertools.islice(shifted, 20))) == 20


def test_the_simulation_itself_can_be_read_on_and_on() -> None:
    """Seamlessly: the field moves from its last time on as it did before."""
    selection = Selection(region=parse_region("west=10,south=48,east=10.5,north=48.5"))
    with Simulation("simulation:?step=6h&days=1&seed=3", selection) as source:
        taken = list(itertools.islice(paced(source, Pace(loop=True), FakeClock()), 12))
        steps = {b.time_ns - a.time_ns for a, b in itertools.pairwise(taken)}
        assert steps == {6 * HOUR}
        longer = Simulation("simulation:?step=6h&days=3&seed=3", selection)
        with longer:
            for batch, same in zip(taken, paced(longer, Pace(), FakeClock()), strict=True):
                assert np.array_equal(batch.values["temperature"], same.values["temperature"])


# ---------------------------------------------------------------------------------- stop


@pytest.mark.parametrize(
    "pace",
    [
        Pace(),
        Pace(speed=1.0),
        Pace(shift_to_now=True, loop=True),
        Pace(rate_per_s=1.0),
        Pace(rate_per_s=1e9),
    ],
)
def test_nothing_is_read_or_given_once_the_clock_is_told_to_stop(pace: Pace) -> None:
    """Neither in the middle of a slice nor after a wait."""
    clock = FakeClock()
    source = FakeSource(hours(10), rows=(4, 4, 4))
    batches = paced(source, pace, clock)
    next(batches)
    clock.stop.set()
    assert list(batches) == []
    assert len(source.begun) == 1


def test_a_wait_that_is_stopped_gives_nothing() -> None:
    """Ctrl-C in the middle of an hour between two slices."""
    for pace in (Pace(speed=1.0), Pace(speed=1.0, shift_to_now=True, loop=True)):
        clock = FakeClock(stop_ns=NOW + 60 * S)
        source = FakeSource()
        assert len(list(paced(source, pace, clock))) == 1
        assert clock.now == NOW + 60 * S
        assert len(source.begun) == 1


@pytest.mark.parametrize("pace", [Pace(), Pace(rate_per_s=1.0), Pace(loop=True, shift_to_now=True)])
def test_times_without_a_single_reading_are_an_error_that_names_them(pace: Pace) -> None:
    """The sea of ERA5-Land: a success that has stored nothing would hide it."""
    with pytest.raises(SourceError, match="every value that is asked for is missing.* --region"):
        list(paced(FakeSource(rows=()), pace, FakeClock()))
    with pytest.raises(SourceError, match="of era5-land/hourly at 2"):
        list(demo(FakeSource(rows=()), FakeClock(), lambda: True))


def test_slices_that_are_all_empty_can_be_stopped() -> None:
    clock = FakeClock(stop_ns=NOW + S)
    assert list(paced(FakeSource(rows=()), Pace(loop=True, shift_to_now=True), clock)) == []


def test_the_real_clock_waits_and_is_stopped_at_once() -> None:
    clock = Clock(threading.Event())
    clock.wait_until(clock.now_ns() - S)
    due = clock.now_ns() + 10 * MS
    clock.wait_until(due)
    assert clock.now_ns() >= due - 5 * MS
    threading.Timer(0.01, clock.stop.set).start()
    clock.wait_until(clock.now_ns() + 24 * HOUR)
    assert clock.stop.is_set()
    clock.wait_until(clock.now_ns() + 24 * HOUR)


# ---------------------------------------------------------------------------------- demo

LAST_SECOND = NOW - 300 * MS


def test_demo_begins_with_two_minutes_at_once_newest_first() -> None:
    """The newest slice has the present second, those before it a second less each."""
    clock = FakeClock()
    came = when(demo(FakeSource(hours(168)), clock, lambda: True), clock, 120)
    batches = [batch for _, batch in came]
    assert [at for at, _ in came] == [0.0] * 120
    assert [b.time_ns for b in batches] == [LAST_SECOND - n * S for n in range(120)]
    assert originals(batches) == list(range(119, -1, -1))
    assert {batch.dataset for batch in batches} == {"era5-land/hourly/replay"}


def test_demo_shows_the_present_also_while_it_publishes_the_past() -> None:
    """Where two minutes take long, the slice that is due comes in between, in its own second."""
    clock = FakeClock()
    past: list[int] = []
    present: list[int] = []
    for batch in demo(FakeSource(hours(168), rows=(1,)), clock, lambda: True):
        (past if batch.time_ns <= NOW else present).append(batch.time_ns)
        clock.now += S // 4
        if len(past) == 120:
            break
    assert past == [past[0] - back * S for back in range(120)]
    assert 38 <= len(present) <= 40  # one in four
    assert {later - earlier for earlier, later in itertools.pairwise(present)} == {S}


def test_demo_goes_on_with_a_slice_a_second_for_ever() -> None:
    """From where the first picture was, in order; files repeat."""
    clock = FakeClock()
    came = when(demo(FakeSource(hours(168)), clock, lambda: True), clock, 620)[120:]
    batches = [batch for _, batch in came]
    assert [at for at, _ in came] == [pytest.approx(n + 0.7) for n in range(500)]
    assert [b.time_ns for b in batches] == [LAST_SECOND + n * S for n in range(1, 501)]
    assert originals(batches) == [n % 168 for n in range(120, 620)]


@pytest.mark.parametrize("number", [1, 5, 119, 121])
def test_demo_fills_two_minutes_from_fewer_slices_too(number: int) -> None:
    """They repeat backwards as they do forwards; no stamp comes twice."""
    batches = list(
        itertools.islice(demo(FakeSource(hours(number)), FakeClock(), lambda: True), 400)
    )
    assert len({batch.time_ns for batch in batches}) == 400
    by_stamp = sorted(batches, key=lambda batch: batch.time_ns)
    steps = {(b - a) % number for a, b in itertools.pairwise(originals(by_stamp))}
    assert steps == {1 % number}
    assert originals(batches)[0] == min(number, 120) - 1


def test_demo_of_a_simulation_goes_on_in_time() -> None:
    """Before its first slice and after its last: the weather never jumps."""
    source = FakeSource(hours(48), ("simulation",))
    batches = list(itertools.islice(demo(source, FakeClock(), lambda: True), 500))
    by_stamp = sorted(batches, key=lambda batch: batch.time_ns)
    assert originals(by_stamp) == list(range(48 - 120, 48 + 380))
    assert {batch.dataset for batch in batches} == {"simulation"}


def test_demo_publishes_a_million_readings_at_once_and_no_more() -> None:
    """Whole slices, the one that reaches the million included; then it goes on as ever."""
    clock = FakeClock()
    batches = demo(FakeSource(hours(168), rows=(50_000, 49_999)), clock, lambda: True)
    came = when(batches, clock, 30)
    at_once = [batch for at, batch in came if at == 0.0]
    assert sum(map(len, at_once[:-2])) < replay.DEMO_READINGS <= sum(map(len, at_once))
    assert len(at_once) == 22
    assert came[22][1].time_ns == LAST_SECOND + S


def test_demo_waits_until_the_store_has_caught_up() -> None:
    """A slice too large for a second makes the interval longer, never a queue."""
    clock = FakeClock()
    done = NOW
    batches = demo(FakeSource(hours(168)), clock, lambda: clock.now >= done)
    for _ in range(120):
        next(batches)
    seconds = []
    for batch in itertools.islice(batches, 5):
        assert clock.now >= done
        assert batch.time_ns == clock.now - clock.now % S
        seconds.append((batch.time_ns - LAST_SECOND) // S)
        done = clock.now + 2 * S + 500 * MS
    # caught up 2.5 s after a slice, that is in the middle of a second: the next whole one is due
    assert seconds == sorted(set(seconds))
    assert all(2 <= b - a <= 4 for a, b in itertools.pairwise(seconds))


def test_demo_stops_at_once() -> None:
    """In the middle of a slice of the first two minutes, waiting for the store, or a second."""
    clock = FakeClock()
    source = FakeSource(hours(168), rows=(1, 1))
    batches = demo(source, clock, lambda: True)
    next(batches)
    clock.stop.set()
    assert list(batches) == []
    assert len(source.begun) == 1

    for caught_up in (True, False):
        clock = FakeClock(stop_ns=NOW + 500 * MS)
        source = FakeSource(hours(168))
        assert len(list(demo(source, clock, lambda: caught_up))) == 120  # noqa: B023
        assert clock.now == NOW + 500 * MS
        assert len(source.begun) == 120
