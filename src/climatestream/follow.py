"""`publish --follow`: what appears is published, day by day, and final values after preliminary.

A round looks at what the source has now, publishes each whole day that was not published yet, and
remembers it; then it waits. A day is whole when the source has all its times, each with as many
readings and the same variables: a service adds the hours of a day one after the other, and fills
chunks before others.

Delivery: a day is remembered only after the broker has acknowledged every message of it, so that a
process killed at any moment publishes the day under way again, whole: nothing is lost, and what
comes twice changes nothing in a store. Days that were preliminary are looked at again when they
should be final, and published again once they are; their rank replaces what is stored.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import orjson

from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.sources.preliminary import final_before_ns

if TYPE_CHECKING:
    from climatestream.model import Batch, Slice
    from climatestream.ports import Source

DAY_NS: Final = 86_400_000_000_000
HOURS: Final = 24
VERSION: Final = 1

_EPOCH: Final = date(1970, 1, 1)


class Clock(Protocol):
    """The present, and waiting."""

    def now_ns(self) -> int:
        """The present [ns since the epoch, UTC]."""

    def wait(self, seconds: float) -> bool:
        """Wait; True: asked to stop before it was over."""

    def stopped(self) -> bool:
        """Whether it was asked to stop."""


class Waiting:
    """The system's clock; a stop ends every wait."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now_ns(self) -> int:
        return time.time_ns()

    def wait(self, seconds: float) -> bool:
        return self._stop.wait(seconds)

    def stopped(self) -> bool:
        return self._stop.is_set()


@dataclass
class Days:
    """What was published of one dataset, as days since 1970.

    Parameters
    ----------
    published
        Whole days, preliminary ones included.
    preliminary
        Those of them whose final values are still to come.
    """

    published: set[int] = field(default_factory=set)
    preliminary: set[int] = field(default_factory=set)


@dataclass
class Memory:
    """What a follower has done, in a file that is always whole.

    Parameters
    ----------
    path
        Written beside and renamed, so that a crash leaves the old one or the new one.
    of
        What is followed, and to where: another follower's file is refused.
    """

    path: Path
    of: Mapping[str, Any]
    datasets: dict[str, Days] = field(default_factory=lambda: defaultdict(Days))

    def load(self) -> None:
        """Read what is there; nothing at the first start.

        Raises
        ------
        UsageError
            The file is none of ours, or of another source, region or broker.
        """
        try:
            said = orjson.loads(self.path.read_bytes())
            if said["version"] != VERSION:
                raise ValueError(said["version"])
            found = {
                name: Days(_days(days["published"]), _days(days["preliminary"]))
                for name, days in said["datasets"].items()
            }
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{self.path} can't be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path} is no memory of publish --follow: name another file with --state"
            ) from error
        if said["of"] != dict(self.of):
            before = said["of"]
            differs = [k for k in {**before, **self.of} if before.get(k) != self.of.get(k)]
            was = "; ".join(f"{name} {_plain(before.get(name))}" for name in differs)
            raise UsageError(
                f"{self.path} remembers what was followed of something else ({was}): name another "
                "file with --state"
            )
        self.datasets.update(found)

    def save(self) -> None:
        """Keep it: when this returns, it survives a crash of the machine.

        Raises
        ------
        SourceError
            It can't be written.
        """
        said = {
            "version": VERSION,
            "of": dict(self.of),
            "datasets": {
                name: {"published": _ranges(d.published), "preliminary": _ranges(d.preliminary)}
                for name, d in sorted(self.datasets.items())
            },
        }
        try:
            self._write(orjson.dumps(said, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise SourceError(
                f"{self.path}, which remembers what is published, can't be written: "
                f"{error.strerror}; make room, and start again: the last day comes once more, "
                "which changes nothing in a store"
            ) from error

    def _write(self, content: bytes) -> None:
        beside = self.path.with_name(self.path.name + ".new")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _plain(of: Any) -> str:
    """A part of what is followed, for people."""
    return "any" if of is None else " ".join(of) if isinstance(of, list) else str(of)


def _ranges(days: Iterable[int]) -> list[list[str]]:
    """Days as ranges of dates, both ends included."""
    found: list[list[int]] = []
    for day in sorted(days):
        if found and day == found[-1][1] + 1:
            found[-1][1] = day
        else:
            found.append([day, day])
    return [[_date(day).isoformat() for day in ends] for ends in found]


def _days(ranges: Sequence[Sequence[str]]) -> set[int]:
    ends = [[(date.fromisoformat(end) - _EPOCH).days for end in each] for each in ranges]
    return {day for first, last in ends for day in range(first, last + 1)}


def _date(day: int) -> date:
    return _EPOCH + timedelta(day)


@dataclass
class Follower:
    """Publishes what appears.

    Parameters
    ----------
    look
        The source between two times [ns], not yet opened; the first is None where all is asked
        for. Opened anew for each look, so that it sees what is new.
    publish
        Publishes readings; when it returns, the broker has acknowledged every one.
    memory
        Loaded.
    since_ns
        The first time to be published; None: all there is.
    poll_s
        Between two rounds [s].
    say
        Told what was published, and what is waited for.
    """

    look: Callable[[int | None, int], AbstractContextManager[Source]]
    publish: Callable[[Iterable[Batch]], object]
    memory: Memory
    clock: Clock
    since_ns: int | None
    poll_s: float
    say: Callable[[str], None]
    _asked_again: dict[int, int] = field(default_factory=dict)
    """By preliminary day, the day on which it was last looked at: once a day is enough."""
    _waited: set[tuple[int, str]] = field(default_factory=set)

    def run(self) -> None:
        """Follow until stopped."""
        while not self.clock.stopped():
            self.round()
            if self.clock.wait(self.poll_s):
                return

    def round(self) -> None:
        """Publish what is new now.

        What a service can't give for now is waited for; any other error is raised.
        """
        now_ns = self.clock.now_ns()
        for start_ns, end_ns, again in self._spans(now_ns):
            if self.clock.stopped():
                return
            try:
                with self.look(start_ns, end_ns) as source:
                    self._publish_days(source, again)
            except SourceUnavailable as error:
                self.say(f"{error}; looked for again in {self.poll_s:g} s")
            except NotServed as error:
                if error.lack != "time":
                    raise
                self.say(f"nothing new yet: {error}")

    # -------------------------------------------------------------------------------- pieces

    def _spans(self, now_ns: int) -> Iterator[tuple[int | None, int, bool]]:
        """What to look at: from when, until when, and whether it was published before."""
        today = now_ns // DAY_NS
        start = None if self.since_ns is None else self.since_ns // DAY_NS
        if start is not None and self.memory.datasets:
            start = min(
                next(day for day in range(start, today + 2) if day not in days.published)
                for days in self.memory.datasets.values()
            )
        if start is None or start < today:
            yield None if start is None else start * DAY_NS, today * DAY_NS, False
        due = {
            day
            for days in self.memory.datasets.values()
            for day in days.preliminary
            if day * DAY_NS < final_before_ns(now_ns) and self._asked_again.get(day) != today
        }
        self._asked_again.update(dict.fromkeys(due, today))
        for first, last in _ranges(due):
            begin, end = ((date.fromisoformat(day) - _EPOCH).days for day in (first, last))
            yield begin * DAY_NS, (end + 1) * DAY_NS, True

    def _publish_days(self, source: Source, again: bool) -> None:
        by_day: dict[tuple[int, str], list[Slice]] = defaultdict(list)
        for slice_ in source.slices():
            by_day[slice_.time_ns // DAY_NS, slice_.dataset].append(slice_)
        times = _times_of_a_day(by_day)
        for (day, dataset), slices in sorted(by_day.items()):
            if self.clock.stopped():
                return
            days = self.memory.datasets[dataset]
            if not self._is_wanted(days, day, again):
                continue
            whole = len(slices) == times[dataset]
            if not (whole and self._publish_day(source, day, slices, days, again)):
                self._waits(day, dataset)

    def _is_wanted(self, days: Days, day: int, again: bool) -> bool:
        if self.since_ns is not None and day < self.since_ns // DAY_NS:
            return False
        return day in days.preliminary if again else day not in days.published

    def _publish_day(
        self, source: Source, day: int, slices: Sequence[Slice], days: Days, again: bool
    ) -> bool:
        """Publish a day and remember it; False: it is not whole, or not final as it should be."""
        seen = [_seen(source.read(slice_)) for slice_ in slices]
        if len({(each.readings, each.variables) for each in seen}) > 1 or not seen[0].readings:
            return False
        preliminary = any(each.preliminary for each in seen)
        if again and preliminary:
            return False
        self.publish(batch for slice_ in slices for batch in source.read(slice_))
        days.published.add(day)
        (days.preliminary.add if preliminary else days.preliminary.discard)(day)
        self.memory.save()
        readings = sum(each.readings for each in seen)
        kind = "preliminary" if preliminary else "final, replaces preliminary" if again else "final"
        self.say(f"{_date(day)} of {slices[0].dataset}: {readings:,} readings, {kind}")
        return True

    def _waits(self, day: int, dataset: str) -> None:
        """Say once that a day is waited for."""
        if (day, dataset) not in self._waited:
            self._waited.add((day, dataset))
            self.say(f"{_date(day)} of {dataset} is not whole yet, or not final: waited for")


@dataclass(frozen=True)
class _Seen:
    """What a slice has."""

    readings: int
    variables: frozenset[str]
    preliminary: bool


def _seen(batches: Iterable[Batch]) -> _Seen:
    readings, names, preliminary = 0, set(), False
    for batch in batches:
        readings += len(batch)
        names |= {n for n, column in batch.values.items() if not np.isnan(column).all()}
        preliminary |= batch.preliminary is not None and bool(np.asarray(batch.preliminary).any())
    return _Seen(readings, frozenset(names), preliminary)


def _times_of_a_day(by_day: Mapping[tuple[int, str], Sequence[Slice]]) -> dict[str, int]:
    """By dataset, how many times a whole day has.

    Of hours 24, however few there are yet; of others the number that most days have.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for (_, dataset), slices in by_day.items():
        counts[dataset][len(slices)] += 1
    return {
        dataset: HOURS if dataset.endswith("/hourly") else max(count, key=lambda n: (count[n], n))
        for dataset, count in counts.items()
    }
