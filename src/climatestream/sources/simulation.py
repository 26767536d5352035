"""Weather that is made up: `simulation:`, for when there is no file.

Temperature, wind and surface pressure on ERA5-Land's grid and on land, for any place and time.
It looks like weather and obeys its plainest laws (`weather`); it is never called ERA5-Land.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, overload
from urllib.parse import parse_qsl

import numpy as np

from climatestream import countries, variables
from climatestream.codec import END_NS, FIRST_NS
from climatestream.errors import UsageError
from climatestream.model import Batch, Slice
from climatestream.region import Region, parse_region
from climatestream.sources.grid import Grid
from climatestream.sources.selection import Selection, start_of, time_text
from climatestream.sources.weather import Weather

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

SCHEME = "simulation:"
DATASET = "simulation"
EXAMPLE = "simulation:?step=1h&seed=0&days=7&start=2025-08-10"
VARIABLES: tuple[str, ...] = ("temperature", "u10", "v10", "pressure")

DEFAULT_REGION = "DEU"
DEFAULTS = {"step": "1h", "seed": "0", "days": "7", "start": "2025-08-10"}
"""The start is fixed, so that the same command gives the same readings on any day."""

CELLS_A_DEGREE = 10
"""ERA5-Land's grid: points on whole tenths of a degree."""

NS_PER_S = 1_000_000_000
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True)
class Times(Sequence[Slice]):
    """The slices of a period, made when they are asked for: a period may have any length.

    Parameters
    ----------
    first_ns, step_ns
        The time of the first slice, and from one to the next.
    number
        How many there are.
    """

    first_ns: int
    step_ns: int
    number: int

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, place: int) -> Slice: ...
    @overload
    def __getitem__(self, place: slice) -> Times: ...
    def __getitem__(self, place: int | slice) -> Slice | Times:
        places = range(self.number)[place]
        if isinstance(places, range):
            first_ns = self.first_ns + places.start * self.step_ns
            return Times(first_ns, self.step_ns * places.step, len(places))
        return Slice(self.first_ns + places * self.step_ns, DATASET)


class Simulation:
    """The source `simulation:`.

    Parameters
    ----------
    spec
        `simulation:`, with options after a `?`: `step` (10m, 1h, 1d), `seed`, `days`, and
        `start` (a date or time, UTC). Times are whole steps since 1970.
    selection
        Without a region: Germany. Without dates: `days` from `start`; with only one of the
        dates: `days` from or up to it.

    Raises
    ------
    UsageError
        An unknown option or a wrong value, a variable that is not among the four, a time out of
        1900..2200, a dataset stated that is not `simulation`.
    """

    def __init__(self, spec: str, selection: Selection) -> None:
        options = _options(spec)
        self._seed = _number(spec, options, "seed", least=0)
        self._times = _times(spec, options, selection)
        self._region = selection.region
        self._names = VARIABLES
        if selection.variables is not None:
            asked = {_variable(name) for name in selection.variables}
            self._names = tuple(name for name in VARIABLES if name in asked)
        if selection.dataset not in {None, DATASET}:
            raise UsageError(
                f"{spec} is the dataset {DATASET} and can't be stated to be "
                f"{selection.dataset!r}: leave --dataset out"
            )

    def __enter__(self) -> Self:
        """Find the land of the region.

        Raises
        ------
        UsageError
            There is none on this grid.
        """
        region = self._region or parse_region(DEFAULT_REGION)
        latitude, longitude = _axes(region)
        self._land = region.contains(latitude, longitude)
        self._land &= countries.lookup(latitude, longitude) >= 0
        if not self._land.any():
            raise UsageError(
                f"region {region.name} has no land on ERA5-Land's grid of 0.1 degrees: take one "
                "that is larger, or not all sea"
            )
        self._grid = Grid(latitude, longitude)
        self._weather = Weather(self._seed, latitude, longitude)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def slices(self) -> Sequence[Slice]:
        """One slice a step. `read` takes any other time as well."""
        return self._times

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The weather at a time, on land: float64 that float32 holds exactly, as ERA5-Land's."""
        for block in self._grid.blocks(self._land):
            values = self._weather.at(slice_.time_ns, block)
            chosen = {name: values[name] for name in self._names}
            yield Batch(DATASET, slice_.time_ns, block.cells, chosen)


def _options(spec: str) -> dict[str, str]:
    """The options of a spec, with the defaults for those that it does not name."""
    head, _, tail = spec.removeprefix(SCHEME).partition("?")
    try:
        given = parse_qsl(tail, keep_blank_values=True, strict_parsing=bool(tail))
    except ValueError:
        given = [(tail, "")]
    names = [name for name, _ in given]
    wrong = [name for name in names if name not in DEFAULTS or names.count(name) > 1]
    if not spec.startswith(SCHEME) or head or wrong:
        what = head or (wrong[0] if wrong else spec)
        raise UsageError(
            f"source {spec} has {what!r}, expected each of {', '.join(DEFAULTS)} at most once, as "
            f"in '{EXAMPLE}'"
        )
    return DEFAULTS | dict(given)


def _number(spec: str, options: dict[str, str], name: str, *, least: int) -> int:
    text = options[name]
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
        raise UsageError(
            f"source {spec} has {name}={text}, expected a whole number from {least} on, as in "
            f"'{EXAMPLE}'"
        )
    return int(text)


def _times(spec: str, options: dict[str, str], selection: Selection) -> Times:
    """The times from the one date up to, and without, the other."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", options["step"])
    step_ns = int(found[1]) * UNITS_S[found[2]] * NS_PER_S if found else 0
    if not step_ns:
        raise UsageError(
            f"source {spec} has step={options['step']}, expected a length of time above zero "
            f"such as 10m, 1h or 1d, as in '{EXAMPLE}'"
        )
    length_ns = _number(spec, options, "days", least=1) * UNITS_S["d"] * NS_PER_S
    start_ns, end_ns = selection.start_ns, selection.end_ns
    if start_ns is None:
        start_ns = start_of(options["start"]) if end_ns is None else end_ns - length_ns
    if end_ns is None:
        end_ns = start_ns + length_ns
    if start_ns < FIRST_NS or end_ns > END_NS:
        raise UsageError(
            f"source {spec} has times before 1900 or after 2200: take fewer days, or dates "
            "within these years"
        )
    first_ns = -(-start_ns // step_ns) * step_ns
    if first_ns >= end_ns:
        raise UsageError(
            f"source {spec} has no time between {time_text(start_ns)} and {time_text(end_ns - 1)}: "
            f"its times are whole steps of {options['step']} since 1970; take a shorter step"
        )
    return Times(first_ns, step_ns, -(-(end_ns - first_ns) // step_ns))


def _variable(asked: str) -> str:
    name = variables.find(asked).name
    if name not in VARIABLES:
        raise UsageError(
            f"variable {asked} is not simulated: expected some of {', '.join(VARIABLES)}"
        )
    return name


def _axes(region: Region) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ERA5-Land's points within a region's bounds: north to south, and west to east.

    Longitudes are in [-180, 180): across the date line the axis goes on from there.
    """
    west, south, east, north = (bound * CELLS_A_DEGREE for bound in region.bounds)
    turn = 360 * CELLS_A_DEGREE
    if west > east:
        east += turn
    # Float noise, as in 54.9 * 10, must not cost a row.
    rows = np.arange(np.ceil(south - 1e-6), np.floor(north + 1e-6) + 1)[::-1]
    columns = np.arange(np.ceil(west - 1e-6), np.floor(east + 1e-6) + 1)[:turn]
    columns = (columns + turn / 2) % turn - turn / 2
    return rows / CELLS_A_DEGREE, columns / CELLS_A_DEGREE
