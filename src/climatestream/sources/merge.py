"""Variables of many files, merged on the grids that they share.

A layer is all that is known of one dataset on one grid. Where two files hold the same variable
at the same time, final values go before preliminary ones, equal ones count once, and values
that differ are refused before anything is read in earnest.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from climatestream.errors import SourceError
from climatestream.model import Batch
from climatestream.sources import accumulated
from climatestream.sources.field import UNSAID, Field, Window, ten_thousandths
from climatestream.sources.grid import Grid
from climatestream.sources.selection import time_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from climatestream.region import Region

WINDOW_BYTES = 32 * 1024 * 1024
"""What successive times read at once may take, all variables together [bytes]. A file of small
fields is read in one go; of a large field, at least one time is held, whatever it takes."""

BEFORE = 100
"""The rank from which on windows of the hour before are kept; no variable is there so often."""

COMPARED = 1_000_000
"""Values that are compared at once where two files hold the same [values]."""


@dataclass(frozen=True, eq=False)
class Member:
    """A field, and what it is a part of.

    Parameters
    ----------
    variable
        Our name, or the file's where the registry does not know it.
    unit
        The file's, where the registry does not know the variable.
    times
        The places of the times that are asked for; of sums since midnight also of the hour before.
    since_midnight
        The values are sums since 00 UTC: each is read as the amount of its hour (`accumulated`).
    """

    field: Field
    variable: str
    unit: str | None
    dataset: str
    times: NDArray[np.intp]
    since_midnight: bool = False


def layers(members: Sequence[Member], region: Region | None, start_ns: int) -> list[Layer]:
    """Members grouped by dataset and grid, narrowed to a region; what lies outside is left out.

    Grids are the same where they have the same cells, in any order and turn of the circle; the
    order of the first file holds. Times before `start_ns` are there for the hours after them.

    Raises
    ------
    SourceError
        Values of one variable, cell and time differ, one cell is on two grids at one time, or
        no hour of a variable that accumulates can be told.
    """
    grouped: dict[tuple[str, bytes, bytes], list[Member]] = defaultdict(list)
    for member in members:
        rows, columns = (np.sort(places).tobytes() for places in _places(member.field))
        grouped[member.dataset, rows, columns].append(member)
    found = [
        Layer(group, region, start_ns, *span)
        for group in grouped.values()
        if (span := _span(group[0].field, region)) is not None
    ]
    wanted = sum(layer.time_bytes for layer in found)
    for layer in found:
        layer.times_at_once = max(1, WINDOW_BYTES // wanted)
        layer.settle()
    _check_apart(found)
    return found


def _places(field: Field) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (
        ten_thousandths("latitude", field.latitude),
        ten_thousandths("longitude", field.longitude),
    )


def _check_apart(found: Sequence[Layer]) -> None:
    """Refuse grids of one dataset that share a cell at a time: neither would be the whole."""
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            if one.dataset != other.dataset:
                continue
            latitude = np.intersect1d(one.latitude, other.latitude)
            longitude = np.intersect1d(one.longitude, other.longitude)
            if not (latitude.size and longitude.size):
                continue
            if (times := np.intersect1d(one.time_ns, other.time_ns)).size:
                raise SourceError(
                    f"{one.files} and {other.files} hold {latitude.size * longitude.size:,} cells "
                    f"in common at {time_text(int(times[0]))} on grids that differ: publish them "
                    "one after the other"
                )


@dataclass(frozen=True)
class _Values:
    """A variable at one time, in a window."""

    window: Window
    place: int
    flag: int

    @property
    def valid(self) -> NDArray[np.bool_]:
        valid: NDArray[np.bool_] = self.window.valid[self.place].reshape(-1)
        return valid

    def values(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        return self.window.values(self.place, index)

    @property
    def mixed(self) -> bool:
        """Whether final and preliminary values are mixed within the time."""
        return self.window.preliminary is not None

    def flags(self, index: NDArray[np.intp]) -> NDArray[np.int8]:
        """Of each value 1 preliminary, 0 final, `UNSAID`."""
        if self.window.preliminary is None:
            return np.full(len(index), self.flag, np.int8)
        flags: NDArray[np.bool_] = self.window.preliminary[self.place].reshape(-1)[index]
        return flags.astype(np.int8)


def _filled(entries: Sequence[_Values | _Hour], index: NDArray[np.intp]) -> NDArray[np.float64]:
    """The values of the first entry, and where it has none of the next."""
    first, *others = entries
    values = first.values(index)
    for other in others:
        missing = np.isnan(values)
        values[missing] = other.values(index)[missing]
    return values


def _flags(entries: Sequence[_Values | _Hour], index: NDArray[np.intp]) -> NDArray[np.int8]:
    """The flag of each value that `_filled` gives; `UNSAID` where there is none."""
    flags = np.full(len(index), UNSAID, np.int8)
    for entry in reversed(entries):
        valid = entry.valid[index]
        flags[valid] = entry.flags(index)[valid]
    return flags


@dataclass(frozen=True)
class _Hour:
    """The amount of an hour, from sums since midnight at its end and at its beginning."""

    end: Sequence[_Values]
    beginning: Sequence[_Values]

    @property
    def flag(self) -> int:
        return self.end[0].flag

    @property
    def valid(self) -> NDArray[np.bool_]:
        end, beginning = (
            np.any([each.valid for each in entries], axis=0)
            for entries in (self.end, self.beginning)
        )
        valid: NDArray[np.bool_] = end & beginning
        return valid

    @property
    def mixed(self) -> bool:
        every = [*self.end, *self.beginning]
        return len({each.flag for each in every}) > 1 or any(each.mixed for each in every)

    def values(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        return _filled(self.end, index) - _filled(self.beginning, index)

    def flags(self, index: NDArray[np.intp]) -> NDArray[np.int8]:
        """Preliminary where either end is."""
        return np.maximum(_flags(self.end, index), _flags(self.beginning, index))


class _Axes:
    """Where the grid of a layer is in a member's field."""

    def __init__(
        self,
        own: tuple[NDArray[np.int64], NDArray[np.int64]],
        wanted: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        spans, turns = [], []
        for mine, theirs in zip(own, wanted, strict=True):
            order = np.argsort(mine)
            places = order[np.searchsorted(mine, theirs, sorter=order)]
            start = int(places.min())
            spans.append(slice(start, int(places.max()) + 1))
            turns.append(places - start)
        self.rows, self.columns = spans
        straight = all(
            np.array_equal(turn, np.arange(span.stop - span.start))
            for turn, span in zip(turns, spans, strict=True)
        )
        self._turns = None if straight else (turns[0], turns[1])

    def read(self, field: Field, start: int, stop: int) -> Window:
        window = field.read(slice(start, stop), self.rows, self.columns)
        return window if self._turns is None else window.take(*self._turns)


class Layer:
    """One dataset on one grid.

    Parameters
    ----------
    members
        Fields that have the same cells.
    region
        Narrows the grid; None keeps it whole.
    start_ns
        The first time that is asked for [ns].
    rows, columns
        The part of the first field's grid that holds the region.
    """

    def __init__(
        self,
        members: Sequence[Member],
        region: Region | None,
        start_ns: int,
        rows: slice,
        columns: slice,
    ) -> None:
        self._members = members
        self._start_ns = start_ns
        self.dataset = members[0].dataset
        self.times_at_once = 1
        first = members[0].field
        every = [_places(member.field) for member in members]
        self.latitude, self.longitude = every[0][0][rows], every[0][1][columns]
        wanted = (self.latitude, self.longitude)
        self._axes = [_Axes(own, wanted) for own in every]
        self._grid = Grid(first.latitude[rows], first.longitude[columns], region)
        self.cells = len(self.latitude) * len(self.longitude)
        self._names = list(dict.fromkeys(member.variable for member in members))
        self._units = {
            member.variable: member.unit for member in members if member.unit is not None
        }
        self._windows: dict[tuple[int, int], tuple[int, int, Window]] = {}
        self._sums = {member.variable for member in members if member.since_midnight}
        self._before: dict[int, tuple[int, list[_Values]]] = {}
        self._index()
        for name in self._sums:
            self._check_hours(name)

    def _index(self) -> None:
        """What there is, as columns sorted by time: variable, final before preliminary."""
        counts = [len(member.times) for member in self._members]
        number = {name: i for i, name in enumerate(self._names)}

        def column(values: list[Any]) -> NDArray[np.int64]:
            return np.concatenate(values).astype(np.int64)

        member = np.repeat(np.arange(len(counts)), counts)
        variable = np.repeat([number[m.variable] for m in self._members], counts)
        place = column([m.times for m in self._members])
        time = column([m.field.time_ns[m.times] for m in self._members])
        flag = column([m.field.preliminary[m.times] for m in self._members])
        # What says nothing of being preliminary comes last, so that the other is kept.
        order = np.lexsort((member, np.where(flag == UNSAID, 2, flag), variable, time))
        self._table = np.stack([variable, member, place, flag], axis=1)[order]
        self._time = time[order]

    @property
    def time_ns(self) -> NDArray[np.int64]:
        """The times at which there is something."""
        return np.unique(self._time[self._time >= self._start_ns])

    @property
    def files(self) -> str:
        """The files, for a message."""
        names = list(dict.fromkeys(member.field.file for member in self._members))
        return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"

    @property
    def time_bytes(self) -> int:
        """What all variables of one time take while they are read."""
        widest: defaultdict[str, int] = defaultdict(int)
        for member in self._members:
            # A byte more says whether it is valid.
            size: int = member.field.value_bytes + 1
            widest[member.variable] = max(size, widest[member.variable])
        return self.cells * sum(widest.values())

    def settle(self) -> None:
        """See that what is there twice is the same, and keep it once.

        Raises
        ------
        SourceError
            Two values differ: names both files.
        """
        same = np.flatnonzero(
            (self._time[1:] == self._time[:-1]) & (self._table[1:, 0] == self._table[:-1, 0])
        )
        if not same.size:
            return
        keep = np.ones(len(self._time), np.bool_)
        for row in (same + 1).tolist():
            variable, start = self._table[row, 0], row - 1
            while (
                start
                and self._time[start - 1] == self._time[row]
                and (self._table[start - 1, 0] == variable)
            ):
                start -= 1
            earlier = [other for other in range(start, row) if keep[other]]
            # It is compared with each of them: a list, so that none is left out.
            keep[row] = True not in [self._same(other, row) for other in earlier]
        self._table, self._time = self._table[keep], self._time[keep]
        self._windows.clear()

    def _same(self, one: int, other: int) -> bool:
        """Whether a later entry adds nothing to an earlier one."""
        a, b = self._values(one, 0), self._values(other, 1)
        if not (a.valid.any() and b.valid.any()):
            # A time without any value says nothing that the other could contradict.
            return not b.valid.any()
        same = True
        for start in range(0, self.cells, COMPARED):
            index = np.arange(start, min(start + COMPARED, self.cells))
            x, y = a.values(index), b.values(index)
            # What is preliminary may differ from what is final, and is replaced by it.
            flags = a.flags(index), b.flags(index)
            alike = (flags[0] == flags[1]) | (flags[0] == UNSAID) | (flags[1] == UNSAID)
            equal = (x == y) | (np.isnan(x) & np.isnan(y))
            if (wrong := np.flatnonzero(alike & ~equal)).size:
                at = int(wrong[0])
                raise SourceError(self._difference(one, other, start + at, x[at], y[at]))
            same = same and bool(alike.all())
        return same

    def _difference(self, one: int, other: int, cell: int, x: float, y: float) -> str:
        first, second = (self._members[self._table[row, 1]].field for row in (one, other))
        row, column = divmod(cell, len(self._grid.longitude))
        place = f"latitude {self._grid.latitude[row]:g}, longitude {self._grid.longitude[column]:g}"
        values = " and ".join("none" if np.isnan(v) else repr(float(v)) for v in (x, y))
        when = time_text(int(self._time[one]))
        if first is second:
            return (
                f"{first.where} has {when} twice, with different values at {place}: {values}; "
                "take one of the two out, with 'cdo seltimestep' for one"
            )
        return (
            f"{first.where} and {second.where} differ at {when}, {place}: {values}; leave one of "
            "them out"
        )

    def _check_hours(self, name: str) -> None:
        """Refuse sums since midnight of which no hour can be told."""
        time = self._time[self._table[:, 0] == self._names.index(name)]
        asked = time[time >= self._start_ns]
        told = (asked % accumulated.DAY_NS == accumulated.HOUR_NS) | np.isin(
            asked - accumulated.HOUR_NS, time
        )
        if len(asked) and not told.any():
            raise SourceError(
                f"{name} in {self.files} is the sum since 00 UTC, and no time in it has the hour "
                "before it: get all hours, or, where it has 00:00, which holds the day before, "
                f"state the sums of days with --dataset {accumulated.DAILY_SUM}"
            )

    def _entries(self, time_ns: int, first_rank: int = 0) -> dict[int, list[_Values]]:
        """What there is at a time, by variable, final before preliminary."""
        low, high = np.searchsorted(self._time, [time_ns, time_ns + 1]).tolist()
        parts: dict[int, list[_Values]] = defaultdict(list)
        for row in range(low, high):
            variable = int(self._table[row, 0])
            if first_rank == 0 or self._names[variable] in self._sums:
                parts[variable].append(self._values(row, first_rank + len(parts[variable])))
        return parts

    def _hours(
        self, time_ns: int, entries: dict[int, list[_Values]]
    ) -> dict[int, Sequence[_Values | _Hour]]:
        """The same with what came in the hour for sums since midnight; without what can't be told.

        The hour before is kept from the last call, so that successive times are read once.
        """
        sums = {v: some for v, some in entries.items() if self._names[v] in self._sums}
        parts: dict[int, Sequence[_Values | _Hour]] = {**entries}
        if not accumulated.begins(time_ns):
            before = time_ns - accumulated.HOUR_NS
            kept = {v: some for v, (at, some) in self._before.items() if at == before}
            if not sums.keys() <= kept.keys():
                kept = self._entries(before, first_rank=BEFORE)
            for variable, end in sums.items():
                beginning = kept.get(variable)
                if beginning:
                    parts[variable] = [_Hour(end, beginning)]
                else:
                    del parts[variable]
        self._before = {variable: (time_ns, some) for variable, some in sums.items()}
        return parts

    def read(self, time_ns: int) -> Iterator[Batch]:
        """The readings of one time."""
        parts = self._hours(time_ns, self._entries(time_ns))
        if not parts:
            return
        valid = np.zeros(self.cells, np.bool_)
        for part in parts.values():
            for each in part:
                valid |= each.valid
        units = {
            name: unit
            for variable in parts
            if (unit := self._units.get(name := self._names[variable])) is not None
        }
        for block in self._grid.blocks(valid):
            values, preliminary = self._columns(parts, block.index)
            yield Batch(self.dataset, time_ns, block.cells, values, preliminary, units)

    def _columns(
        self, parts: Mapping[int, Sequence[_Values | _Hour]], index: NDArray[np.intp]
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_] | None]:
        """The variables at some cells, and whether any value of a cell is preliminary."""
        columns = {self._names[v]: _filled(entries, index) for v, entries in parts.items()}
        every = [values for entries in parts.values() for values in entries]
        flags = {values.flag for values in every}
        if len(flags) == 1 and not any(values.mixed for values in every):
            flag = flags.pop()
            return columns, None if flag == UNSAID else np.full(len(index), flag == 1)
        said = [_flags(entries, index) for entries in parts.values()]
        known = any((flags != UNSAID).any() for flags in said)
        return columns, np.any([flags == 1 for flags in said], axis=0) if known else None

    def _values(self, row: int, rank: int) -> _Values:
        """An entry's values, from the window that holds them; reads it where none does."""
        variable, member, place, flag = self._table[row].tolist()
        field = self._members[member].field
        step = self.times_at_once
        if step > field.chunk_times:
            step -= step % field.chunk_times
        start = place // step * step
        slot = (variable, rank)
        held = self._windows.get(slot)
        if held is None or held[:2] != (member, start):
            # The old one goes before the new one comes: one of them may fill the memory.
            self._windows.pop(slot, None)
            held = None
            stop = min(start + step, len(field.time_ns))
            held = (member, start, self._axes[member].read(field, start, stop))
            self._windows[slot] = held
        return _Values(held[2], place - start, flag)


def _span(field: Field, region: Region | None) -> tuple[slice, slice] | None:
    """The rows and columns that hold a region; None where the grid has no cell of it."""
    if region is None:
        return slice(0, len(field.latitude)), slice(0, len(field.longitude))
    inside = region.contains(field.latitude, field.longitude)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return (
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
