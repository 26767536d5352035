"""What files are: format, dataset, variables, grid, times, and how much of it is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from climatestream.sources import naming
from climatestream.sources.locate import Files
from climatestream.sources.merge import WINDOW_BYTES
from climatestream.sources.selection import time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from rich.console import RenderableType

    from climatestream.sources.dataset_name import Unknown
    from climatestream.sources.field import Field

HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class VariableReport:
    """A variable of a file.

    Parameters
    ----------
    name
        In the file.
    variable
        Ours; None where the registry does not know it.
    unit
        In the file; None where it states none.
    minimum, maximum
        Of the values, in that unit; None where there is none.
    values, missing_share
        How many there are, and which part of all places has none. All versions (`expver`) of a
        place count.
    """

    name: str
    variable: str | None
    unit: str | None
    minimum: float | None
    maximum: float | None
    values: int
    missing_share: float


@dataclass(frozen=True)
class GridReport:
    """A grid: counts, first and last place and median step of its axes [degree].

    `longitudes_within` is 0..360 or -180..180, or 0..180 where either is meant.
    """

    latitudes: int
    latitude_first: float
    latitude_last: float
    latitude_step: float | None
    longitudes: int
    longitude_first: float
    longitude_last: float
    longitude_step: float | None
    longitudes_within: str


@dataclass(frozen=True)
class TimesReport:
    """Times, UTC: how many, the first and last, and their shortest and longest step [hours]."""

    count: int
    first: str
    last: str
    shortest_step_hours: float | None
    longest_step_hours: float | None


@dataclass(frozen=True)
class FileReport:
    """What a file is. One with several grids, times or datasets has a report of each.

    Parameters
    ----------
    path
        As it was named; a ZIP's member after its ZIP.
    format
        NETCDF4, NETCDF3_64BIT_OFFSET, GRIB1, ...
    dataset, dataset_unknown
        Its name, or else why it can't be known.
    expver
        The experiment versions in it: 0001 or 1 is final, 0005 or 5 preliminary.
    readings
        Cells and times with at least one value.
    """

    path: str
    format: str
    dataset: str | None
    dataset_unknown: str | None
    variables: tuple[VariableReport, ...]
    grid: GridReport
    times: TimesReport
    expver: tuple[str, ...]
    readings: int


def inspect_files(
    specs: Sequence[str],
    dataset: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[FileReport]:
    """What files are; reads all their values, a few times of a file at once.

    Parameters
    ----------
    specs
        Files, folders and glob patterns.
    dataset
        States what all of them are.
    progress
        Told before each file how many are done, how many there are, and its name.

    Raises
    ------
    SourceError
        A file is missing, damaged, or of a shape that is no reading for each cell and time.
    """
    with Files(specs) as files:
        found = [(file, files.fields(file, lambda _: True)) for file in files.find()]
        fields = [field for _, some in found for field in some]
        names = [dataset] * len(fields) if dataset is not None else naming.datasets(fields)
        datasets = dict(zip(map(id, fields), names, strict=True))
        reports = []
        for done, (file, some) in enumerate(found):
            if progress is not None:
                progress(done, len(found), file.label)
            for name, alike in _alike(some, datasets):
                reports.append(_report(files.format_of(file), name, alike))
        return reports


def _alike(
    fields: Sequence[Field], datasets: dict[int, str | Unknown]
) -> Iterator[tuple[str | Unknown, list[Field]]]:
    """Fields by dataset, grid and times, which most files have one of."""
    groups: dict[tuple[str, bytes, bytes, bytes], list[Field]] = {}
    for field in fields:
        axes = (field.latitude.tobytes(), field.longitude.tobytes(), field.time_ns.tobytes())
        groups.setdefault((str(datasets[id(field)]), *axes), []).append(field)
    yield from ((datasets[id(group[0])], group) for group in groups.values())


def _report(format_: str, dataset: str | Unknown, fields: Sequence[Field]) -> FileReport:
    first = fields[0]
    cells = len(first.latitude) * len(first.longitude)
    widest = max(field.value_bytes for field in fields)
    step = max(1, WINDOW_BYTES // (cells * (widest + 2)))
    tallies = [_Tally() for _ in fields]
    readings = 0
    for start in range(0, len(first.time_ns), step):
        times = slice(start, min(start + step, len(first.time_ns)))
        somewhere = np.zeros(
            (times.stop - start, *map(len, (first.latitude, first.longitude))), "?"
        )
        for field, tally in zip(fields, tallies, strict=True):
            tally.add(field, times, somewhere)
        readings += int(np.count_nonzero(somewhere))
    return FileReport(
        path=first.file,
        format=format_,
        dataset=dataset if isinstance(dataset, str) else None,
        dataset_unknown=None if isinstance(dataset, str) else str(dataset),
        variables=tuple(tally.report(field) for field, tally in zip(fields, tallies, strict=True)),
        grid=_grid(first),
        times=_times(first.time_ns),
        expver=tuple(dict.fromkeys(version for field in fields for version in field.expver)),
        readings=readings,
    )


class _Tally:
    """What was seen of a variable's values so far."""

    def __init__(self) -> None:
        self.places = 0
        self.missing = 0
        self.low = np.inf
        self.high = -np.inf

    def add(self, field: Field, times: slice, somewhere: NDArray[np.bool_]) -> None:
        """Add some times; marks in `somewhere` where there are values."""
        window = field.read(times, slice(0, len(field.latitude)), slice(0, len(field.longitude)))
        somewhere |= window.valid
        self.places += window.in_file
        self.missing += window.missing
        raw = window.raw[window.valid]
        if raw.size:
            scale, offset = window.packing or (1.0, 0.0)
            ends = [float(end) * scale + offset for end in (raw.min(), raw.max())]
            self.low, self.high = min(self.low, *ends), max(self.high, *ends)

    def report(self, field: Field) -> VariableReport:
        values = self.places - self.missing
        known = naming.known(field.name)
        return VariableReport(
            name=field.name,
            variable=None if known is None else known.name,
            unit=field.units,
            minimum=self.low if values else None,
            maximum=self.high if values else None,
            values=values,
            missing_share=self.missing / self.places,
        )


def _grid(field: Field) -> GridReport:
    latitude, longitude = field.latitude, field.longitude
    within = "-180..180" if longitude.min() < 0 else "0..180"
    return GridReport(
        latitudes=len(latitude),
        latitude_first=float(latitude[0]),
        latitude_last=float(latitude[-1]),
        latitude_step=_step(latitude),
        longitudes=len(longitude),
        longitude_first=float(longitude[0]),
        longitude_last=float(longitude[-1]),
        longitude_step=_step(longitude),
        longitudes_within="0..360" if longitude.max() >= 180 else within,
    )


def _step(axis: NDArray[np.float64]) -> float | None:
    return float(np.median(np.diff(axis))) if len(axis) > 1 else None


def _times(time_ns: NDArray[np.int64]) -> TimesReport:
    times = np.unique(time_ns)
    steps = np.diff(times) / HOUR_NS
    return TimesReport(
        count=len(times),
        first=time_text(int(times[0])),
        last=time_text(int(times[-1])),
        shortest_step_hours=float(steps.min()) if len(steps) else None,
        longest_step_hours=float(steps.max()) if len(steps) else None,
    )


# ------------------------------------------------------------------------------- display


def as_json(report: FileReport) -> dict[str, Any]:
    """A report as JSON has it."""
    return asdict(report)


def table(report: FileReport) -> RenderableType:
    """A report for a terminal: what holds for the whole file, and a table of its variables."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text(report.path, "bold"), _facts(report), _variables(report))


def _facts(report: FileReport) -> RenderableType:
    from rich.table import Table

    grid, times = report.grid, report.times
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    unknown = f"not known: {report.dataset_unknown}; state it with --dataset"
    facts.add_row("dataset", report.dataset or unknown)
    facts.add_row("format", report.format)
    for name, count, first, last, step in (
        ("latitude", grid.latitudes, grid.latitude_first, grid.latitude_last, grid.latitude_step),
        (
            "longitude",
            grid.longitudes,
            grid.longitude_first,
            grid.longitude_last,
            grid.longitude_step,
        ),
    ):
        by = "" if step is None else f", step {abs(step):.4g}"
        within = f", within {grid.longitudes_within}" if name == "longitude" else ""
        facts.add_row(name, f"{count:,}: {first:.6g} to {last:.6g}{by}{within}")
    facts.add_row("times (UTC)", f"{times.count:,}: {times.first} to {times.last}{_steps(times)}")
    if report.expver:
        facts.add_row("expver", ", ".join(report.expver))
    facts.add_row("readings", f"{report.readings:,}")
    return facts


def _steps(times: TimesReport) -> str:
    if times.shortest_step_hours is None:
        return ""
    if times.shortest_step_hours == times.longest_step_hours:
        return f", step {times.shortest_step_hours:g} h"
    return f", steps {times.shortest_step_hours:g} to {times.longest_step_hours:g} h"


def _variables(report: FileReport) -> RenderableType:
    from rich import box
    from rich.table import Table

    listed = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("in the file", "variable", "unit"):
        listed.add_column(heading)
    for heading in ("minimum", "maximum", "values", "missing"):
        listed.add_column(heading, justify="right")
    for variable in report.variables:
        ends = ["" if end is None else f"{end:.5g}" for end in (variable.minimum, variable.maximum)]
        listed.add_row(
            variable.name,
            variable.variable or variable.name,
            variable.unit or "not stated",
            *ends,
            f"{variable.values:,}",
            f"{variable.missing_share:.2%}",
        )
    return listed
