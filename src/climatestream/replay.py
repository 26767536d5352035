"""When readings are published, and with which time: rate, speed, loop, shift to now.

Whatever is published with another time than its own belongs to another dataset (`NAME/replay`),
so that real readings are never overwritten, and carries its own time as `original_timestamp`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from climatestream.codec import END_NS
from climatestream.errors import SourceError, UsageError
from climatestream.ingest import ORIGINAL_TIME
from climatestream.model import NS_PER_MS, Batch, Slice
from climatestream.ports import Source
from climatestream.sources.selection import time_text

NS_PER_S = 1_000_000_000

REPLAYED = "/replay"
KEEPS_ITS_NAME = "simulation"
"""The dataset that is made up anyhow: shifted to now it is what it was."""

STEP_OF_ONE_NS = 3_600 * NS_PER_S
"""From one slice to the next where a simulation of a single slice goes on [ns]."""

RATE_STEPS = 10
"""Parts a second in which a limited rate is published: a smooth stream, not a burst a second."""

DEMO_SLICES = 120
"""Slices that `demo` publishes at once: two minutes for the slider and the charts [slices]."""
DEMO_READINGS = 1_000_000
"""Readings after which `demo` publishes no earlier slice at once [readings]."""


class Clock:
    """The present, and waiting for a time; `stop` ends every wait at once."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def now_ns(self) -> int:
        return time.time_ns()

    def wait_until(self, due_ns: int) -> None:
        """Come back at a time, or at once when asked to stop."""
        self.stop.wait(max(0.0, (due_ns - self.now_ns()) / NS_PER_S))


@dataclass(frozen=True)
class Pace:
    """How readings are published.

    Parameters
    ----------
    rate_per_s
        Readings a second at most; None: as fast as can be.
    speed
        Seconds of the data's time that pass in a second; None: no waiting.
    loop
        After the last slice begin again with the first, for ever; a simulation goes on in time
        instead, without `shift_to_now` up to the last time that a message may have.
    shift_to_now
        Stamp a slice with the present, rounded down to a whole publishing interval.
    """

    rate_per_s: float | None = None
    speed: float | None = None
    loop: bool = False
    shift_to_now: bool = False


def paced(source: Source, pace: Pace, clock: Clock) -> Iterator[Batch]:
    """All readings of a source, in order of time, each batch when it is due.

    Ends early when the clock is told to stop.

    Raises
    ------
    UsageError
        `loop` without `shift_to_now` for readings that have a time of their own.
    SourceError
        All slices were read, and there is not one reading in them.
    """
    slices = source.slices()
    if pace.loop and not pace.shift_to_now and any(not _made_up(s.dataset) for s in slices[:1]):
        raise UsageError(
            "--loop without --shift-to-now would publish the same readings again, which is no "
            "news: add --shift-to-now"
        )
    batches = _scheduled(source, slices, pace, clock)
    return batches if pace.rate_per_s is None else _limited(batches, pace.rate_per_s, clock)


def demo(source: Source, clock: Clock, caught_up: Callable[[], bool]) -> Iterator[Batch]:
    """What `demo` publishes: two minutes at once, newest first, and a slice a second for ever.

    The present goes before the past: where publishing two minutes takes longer than a second, the
    slice that is due comes in between. A slice too large for a second makes the interval longer,
    never a queue: once the two minutes are published, the next slice waits until `caught_up` says
    that what was published is stored.

    Raises
    ------
    SourceError
        There is not one reading in the two minutes.
    """
    slices = source.slices()
    if not slices:
        return
    newest = min(DEMO_SLICES, len(slices)) - 1
    start_ns = stamp_ns = _floor(clock.now_ns(), NS_PER_S)
    numbers = itertools.count(newest + 1)
    readings = 0
    for back in range(DEMO_SLICES):
        if readings >= DEMO_READINGS:
            break
        if clock.now_ns() >= stamp_ns + NS_PER_S:
            stamp_ns = _floor(clock.now_ns(), NS_PER_S)
            yield from _live(source, _slice(slices, next(numbers)), stamp_ns, clock)
        for batch in _read(source, _slice(slices, newest - back), clock):
            readings += len(batch)
            yield _stamped(batch, start_ns - back * NS_PER_S)
    if not readings and not clock.stop.is_set():
        raise _no_reading(slices)
    for number in numbers:
        while not caught_up() and not clock.stop.is_set():
            clock.wait_until(clock.now_ns() + NS_PER_S // 100)
        stamp_ns = _next_stamp(clock, stamp_ns, NS_PER_S)
        if clock.stop.is_set():
            return
        yield from _live(source, _slice(slices, number), stamp_ns, clock)


def _live(source: Source, slice_: Slice, stamp_ns: int, clock: Clock) -> Iterator[Batch]:
    return (_stamped(batch, stamp_ns) for batch in _read(source, slice_, clock))


def _scheduled(
    source: Source, slices: Sequence[Slice], pace: Pace, clock: Clock
) -> Iterator[Batch]:
    interval_ns = _interval_ns(slices, pace)
    due_ns = clock.now_ns()
    stamp_ns = 0
    before: Slice | None = None
    some = False
    for number in itertools.count() if pace.loop and slices else range(len(slices)):
        slice_ = _slice(slices, number)
        if number >= len(slices) and slice_.time_ns >= END_NS and not pace.shift_to_now:
            return
        # the datasets of one time are due together; with a new round a new time begins
        new_time = before is None or number % len(slices) == 0 or slice_.time_ns != before.time_ns
        if new_time and before is not None:
            step_ns = slice_.time_ns - before.time_ns
            due_ns += round(step_ns / pace.speed) if pace.speed and step_ns > 0 else interval_ns
        if interval_ns:
            clock.wait_until(due_ns)
        if new_time and pace.shift_to_now:
            stamp_ns = _next_stamp(clock, stamp_ns, interval_ns)
        before = slice_
        if clock.stop.is_set():
            return
        for batch in _read(source, slice_, clock):
            some = True
            yield _stamped(batch, stamp_ns) if pace.shift_to_now else batch
        if number == len(slices) - 1 and not some and not clock.stop.is_set():
            raise _no_reading(slices)


def _no_reading(slices: Sequence[Slice]) -> SourceError:
    return SourceError(
        f"of {slices[0].dataset} at {time_text(slices[0].time_ns)} to "
        f"{time_text(slices[-1].time_ns)} every value that is asked for is missing: ERA5-Land has "
        "none at sea, so look at --region, and at what `climatestream inspect` says of files"
    )


def _slice(slices: Sequence[Slice], number: int) -> Slice:
    """The slice of a number, also before the first and after the last.

    There files repeat, and a simulation, which can be read at any time, goes on in its steps.
    """
    turn, place = divmod(number, len(slices))
    slice_ = slices[place]
    if not turn or not _made_up(slice_.dataset):
        return slice_
    step_ns = slices[1].time_ns - slices[0].time_ns if len(slices) > 1 else STEP_OF_ONE_NS
    return replace(slice_, time_ns=slice_.time_ns + turn * len(slices) * step_ns)


def _read(source: Source, slice_: Slice, clock: Clock) -> Iterator[Batch]:
    """The readings of a slice, until the clock is told to stop."""
    if not clock.stop.is_set():
        yield from itertools.takewhile(lambda _: not clock.stop.is_set(), source.read(slice_))


def _interval_ns(slices: Sequence[Slice], pace: Pace) -> int:
    """The time between two slices [ns]; 0 where nothing waits."""
    if pace.speed is None:
        return NS_PER_S if pace.shift_to_now else 0
    times = sorted({slice_.time_ns for slice_ in slices[:1000]})
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    step_ns = min(steps, default=NS_PER_S)
    return max(NS_PER_MS, round(step_ns / pace.speed))


def _next_stamp(clock: Clock, last_ns: int, interval_ns: int) -> int:
    """The present, rounded down to a whole interval; waits until that is later than the last."""
    next_ns = _floor(last_ns, interval_ns) + interval_ns
    clock.wait_until(next_ns)
    # where the system's clock is being slowed, a wait ends a little before its time
    return max(next_ns, _floor(clock.now_ns(), interval_ns))


def _floor(time_ns: int, interval_ns: int) -> int:
    return time_ns - time_ns % interval_ns


def _stamped(batch: Batch, time_ns: int) -> Batch:
    dataset = batch.dataset
    return replace(
        batch,
        time_ns=time_ns,
        dataset=dataset if _made_up(dataset) else dataset + REPLAYED,
        extra={**batch.extra, ORIGINAL_TIME: batch.time_ns / NS_PER_MS},
    )


def _made_up(dataset: str) -> bool:
    return dataset == KEEPS_ITS_NAME


def _limited(batches: Iterable[Batch], rate_per_s: float, clock: Clock) -> Iterator[Batch]:
    """The same readings, in parts that keep to a rate."""
    rows = max(1, round(rate_per_s / RATE_STEPS))
    due_ns = float(clock.now_ns())
    for part in cut(batches, rows):
        clock.wait_until(round(due_ns))
        if clock.stop.is_set():
            return
        # what was late is not made up for by a burst of more than a second
        due_ns = max(due_ns, clock.now_ns() - NS_PER_S) + len(part) / rate_per_s * NS_PER_S
        yield part


def cut(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """The same readings in batches of at most so many rows.

    A batch that is small enough is passed on as it is, with what was derived from its cells.
    """
    for batch in batches:
        if len(batch) <= rows:
            yield batch
        else:
            for start in range(0, len(batch), rows):
                yield batch.part(start, min(start + rows, len(batch)))
