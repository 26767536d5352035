"""Files as a source: NetCDF, GRIB and ZIPs of them, one or many, merged into readings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from climatestream import variables
from climatestream.errors import NotServed, SourceError, UsageError
from climatestream.model import Batch, Slice
from climatestream.sources import accumulated, merge, naming
from climatestream.sources.locate import Files
from climatestream.sources.naming import Wanted
from climatestream.sources.selection import Selection, time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from climatestream.sources.dataset_name import Unknown
    from climatestream.sources.field import Field


ALL = Selection()


def open_files(specs: Sequence[str], selection: Selection = ALL) -> FileSource:
    """Files, folders and glob patterns as a source, not yet opened.

    Parameters
    ----------
    specs
        Files, folders (with those in them) and glob patterns. Files are recognised by their
        first bytes.
    selection
        What to read of them.

    Raises
    ------
    UsageError
        None is given.
    """
    if not specs:
        raise UsageError("no file is given: name files, folders or patterns such as 'data/*.nc'")
    return FileSource(specs, selection)


class FileSource:
    """What files hold, as readings.

    Entering reads what there is, all but the values, and refuses what is wrong with it; only a
    variable that is there twice is read, to see that it is the same.

    Parameters
    ----------
    specs, selection
        As for `open_files`.
    known
        Adds to a field what is known of it besides what its file says.
    """

    def __init__(
        self,
        specs: Sequence[str],
        selection: Selection,
        known: Callable[[Field], Field] = lambda field: field,
    ) -> None:
        self._selection = selection
        self._files = Files(specs)
        self._known = known
        self._layers: list[merge.Layer] = []

    def __enter__(self) -> Self:
        try:
            wanted = Wanted(self._selection.variables)
            fields = [
                self._known(field)
                for file in self._files.find()
                for field in self._files.fields(file, wanted)
            ]
            wanted.check()
            self._layers = layers_of(fields, self._selection)
        except BaseException:
            self._files.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._layers = []
        self._files.__exit__(kind, error, trace)

    def slices(self) -> Sequence[Slice]:
        """What there is, by time and dataset."""
        found = {
            Slice(time_ns, layer.dataset)
            for layer in self._layers
            for time_ns in layer.time_ns.tolist()
        }
        return sorted(found)

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The readings of a slice.

        Raises
        ------
        SourceError
            The file is damaged or has gone.
        """
        for layer in self._layers:
            if layer.dataset == slice_.dataset:
                yield from layer.read(slice_.time_ns)


def layers_of(fields: Sequence[Field], selection: Selection) -> list[merge.Layer]:
    """Fields as layers: named, checked, narrowed to what is asked for.

    Raises
    ------
    UsageError
        The dataset can't be known.
    SourceError
        A unit is wrong, files contradict each other, or nothing is left.
    """
    units = [naming.unit_of(field) for field in fields]
    naming.check_units(fields)
    found = naming.datasets(fields)
    names = naming.state_datasets(fields, found, selection.dataset)
    for field, said in zip(fields, found, strict=True):
        _check_summed(field, said, selection.dataset)
    sums = [
        accumulated.since_midnight(said, selection.dataset, naming.our_name(f.name), f.evidence)
        for f, said in zip(fields, found, strict=True)
    ]
    members = [
        _member(field, unit, dataset, sum_, selection)
        for field, unit, dataset, sum_ in zip(fields, units, names, sums, strict=True)
    ]
    chosen = [member for member in members if len(member.times)]
    if not any((m.field.time_ns[m.times] >= _start(selection)).any() for m in chosen):
        first = min(int(field.time_ns.min()) for field in fields)
        last = max(int(field.time_ns.max()) for field in fields)
        raise NotServed(
            "time",
            f"no time is left of {_files(fields)}: asked for is {_asked_times(selection)}, there "
            f"is {time_text(first)} to {time_text(last)}",
        )
    layers = merge.layers(chosen, selection.region, _start(selection))
    if not layers and selection.region is not None:
        grids = dict.fromkeys(
            f"latitude {f.latitude.min():g}..{f.latitude.max():g}, longitude "
            f"{f.longitude.min():g}..{f.longitude.max():g}"
            for f in fields
        )
        raise SourceError(
            f"no cell of {_files(fields)} is in region {selection.region.name}: there is "
            f"{'; '.join(list(grids)[:3])}"
        )
    return layers


def _check_summed(field: Field, found: str | Unknown, stated: str | None) -> None:
    """Refuse the totals of days of what is no amount: a temperature of an hour is none."""
    variable = variables.by_name(naming.our_name(field.name))
    if stated != accumulated.DAILY_SUM or found == stated or variable is None:
        return
    if not variable.accumulated:
        raise UsageError(
            f"{field.name} in {field.file} is no amount that could be summed over a day, and "
            f"{stated} is stated: name those that are with --variables, as in --variables "
            "total_precipitation"
        )


def _member(
    field: Field, unit: str | None, dataset: str, since_midnight: bool, selection: Selection
) -> merge.Member:
    """A field as part of a dataset; sums since midnight become those of days, or of hours."""
    name = naming.our_name(field.name)
    if since_midnight and dataset == accumulated.DAILY_SUM:
        whole = np.flatnonzero(field.time_ns % accumulated.DAY_NS == 0)
        days = replace(field, time_ns=field.time_ns - accumulated.DAY_NS)
        times = np.intersect1d(whole, _times(days, selection))
        return merge.Member(days, name, unit, dataset, times)
    earlier = accumulated.HOUR_NS if since_midnight else 0
    times = _times(field, selection, earlier)
    return merge.Member(field, name, unit, dataset, times, since_midnight)


def _files(fields: Iterable[Field]) -> str:
    names = list(dict.fromkeys(field.file for field in fields))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _asked_times(selection: Selection) -> str:
    parts = []
    if selection.start_ns is not None:
        parts.append(f"from {time_text(selection.start_ns)}")
    if selection.end_ns is not None:
        parts.append(f"to {time_text(selection.end_ns - 1)}")
    return " ".join(parts)


def _start(selection: Selection) -> int:
    """The first time that is asked for."""
    return np.iinfo(np.int64).min if selection.start_ns is None else selection.start_ns


def _times(field: Field, selection: Selection, earlier: int = 0) -> NDArray[np.intp]:
    """The places of the times that are asked for, and of those up to `earlier` before [ns]."""
    chosen = np.ones(len(field.time_ns), np.bool_)
    if selection.start_ns is not None:
        chosen &= field.time_ns >= selection.start_ns - earlier
    if selection.end_ns is not None:
        chosen &= field.time_ns < selection.end_ns
    return np.flatnonzero(chosen)
