"""What a service is asked for: a dataset, variables, a box on the grid, times.

Every service source narrows a `Selection` the same way, so that the same arguments mean the same
readings whatever they come from, and a cache knows them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from climatestream import variables
from climatestream.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from climatestream.region import Region
    from climatestream.sources.selection import Selection

CELLS_A_DEGREE: Final[Mapping[str, int]] = {"era5-land": 10, "era5": 4}
"""The step of a product's grid [1/degree]: 0.1 and 0.25 degree, with a cell at 0 N 0 E.
Sources: https://confluence.ecmwf.int/display/CKB/ERA5-Land%3A+data+documentation and
https://confluence.ecmwf.int/display/CKB/ERA5%3A+data+documentation"""

DEFAULT_VARIABLES: Final = ("temperature", "u10", "v10", "pressure")
"""What is read of a service where no variables are named: those that the wire format names."""

HOUR_NS: Final = 3_600_000_000_000

ON_GRID: Final = 1e-6
"""How far off a cell an edge may be and still be on it [degree], as in `region.EDGE`."""


@dataclass(frozen=True)
class Area:
    """A box whose edges are cells of a grid, both ends included.

    Parameters
    ----------
    north, west, south, east
        Degrees, exact multiples of the grid's step in decimal; longitude in [-180, 180],
        west > east where the box crosses the date line.
    cells_a_degree
        The step of the grid [1/degree].
    """

    north: float
    west: float
    south: float
    east: float
    cells_a_degree: int

    @property
    def shape(self) -> tuple[int, int]:
        """How many latitudes and longitudes it has."""
        width = self.east - self.west + (360.0 if self.west > self.east else 0.0)
        rows = round((self.north - self.south) * self.cells_a_degree) + 1
        columns = round(width * self.cells_a_degree) + 1
        return rows, min(columns, 360 * self.cells_a_degree)

    @property
    def point(self) -> tuple[float, float] | None:
        """Latitude and longitude where it is a single cell."""
        return (self.north, self.west) if self.shape == (1, 1) else None

    def parts(self) -> tuple[Area, ...]:
        """The box without the date line in it: itself, or one box to each side of it."""
        if self.west <= self.east:
            return (self,)
        last = 180.0 - 1.0 / self.cells_a_degree
        north, south, step = self.north, self.south, self.cells_a_degree
        east = (Area(north, self.west, south, last, step),) if self.west <= last else ()
        return (*east, Area(north, -180.0, south, self.east, step))


@dataclass(frozen=True)
class Request:
    """What is asked of a service, whichever it is.

    Parameters
    ----------
    dataset
        Ours: `era5-land/daily-mean/utc+01`.
    variables
        Our names, sorted, none twice; a name that the registry does not know as it was given.
    area
        The box that holds the region; of no region, the whole grid.
    start_ns, end_ns
        From the one, up to but without the other [ns, UTC].
    """

    dataset: str
    variables: tuple[str, ...]
    area: Area
    start_ns: int
    end_ns: int

    @property
    def product(self) -> str:
        """`era5-land` or `era5`."""
        return self.dataset.partition("/")[0]

    @property
    def statistic(self) -> str:
        """`hourly`, `daily-mean`, ..."""
        return self.dataset.split("/")[1]

    @property
    def step_ns(self) -> int:
        """From one time of it to the next [ns]."""
        return (1 if self.statistic == "hourly" else 24) * HOUR_NS

    @property
    def suffix(self) -> str:
        """What comes after: `utc+01`; empty for UTC days from hourly values."""
        return "/".join(self.dataset.split("/")[2:])


def request_of(dataset: str, selection: Selection) -> Request:
    """A selection as a request: the region's box on the grid, the variables, the times.

    Parameters
    ----------
    dataset
        Ours, product and statistic at least.

    Raises
    ------
    UsageError
        The dataset is none of a product that services have, there are no times, or ERA5-Land has
        no such variable.
    """
    product, _, statistic = dataset.partition("/")
    step = CELLS_A_DEGREE.get(product)
    if step is None or not statistic:
        raise UsageError(
            f"dataset {dataset!r} is none that a service gives: expected a product "
            f"({' or '.join(CELLS_A_DEGREE)}) and what its values are, as in era5-land/daily-mean"
        )
    if selection.start_ns is None or selection.end_ns is None:
        lacking = "--from" if selection.start_ns is None else "--to"
        raise UsageError(
            f"{dataset} of a service has no end by itself: say with {lacking} which times to "
            "read, as in --from 2025-08-01 --to 2025-08-31"
        )
    tokens = DEFAULT_VARIABLES if selection.variables is None else selection.variables
    return Request(
        dataset,
        tuple(sorted({_our_name(token, product) for token in tokens})),
        snapped(selection.region, step),
        selection.start_ns,
        selection.end_ns,
    )


def snapped(region: Region | None, cells_a_degree: int) -> Area:
    """The narrowest box of cells that holds a region: its bounds moved outward to the grid.

    A point is its nearest cell. A box that is all around is -180 up to the last cell before 180.
    """
    step = cells_a_degree
    last = 180.0 - 1.0 / step
    if region is None:
        return Area(90.0, -180.0, -90.0, last, step)
    if region.point is not None:
        row, column = (round(place * step) for place in region.point)
        latitude, longitude = row / step, _turned(column, step)
        return Area(latitude, longitude, latitude, longitude, step)
    west, south, east, north = region.bounds
    left, bottom = (math.floor((side + ON_GRID) * step) for side in (west, south))
    right, top = (math.ceil((side - ON_GRID) * step) for side in (east, north))
    width = right - left + (360 * step if left > right else 0)
    if width >= 360 * step - 1:
        return Area(top / step, -180.0, bottom / step, last, step)
    return Area(top / step, _turned(left, step), bottom / step, _turned(right, step), step)


def _turned(column: int, step: int) -> float:
    """A column of the grid as a longitude in [-180, 180)."""
    return ((column + 180 * step) % (360 * step) - 180 * step) / step


def _our_name(token: str, product: str) -> str:
    """Our name of a variable; one that only the service may know stays as it is.

    Of ERA5-Land every variable is known, and an unknown one is a mistake; ERA5 has others:
    100m_u_component_of_wind.
    """
    try:
        return variables.find(token).name
    except UsageError:
        if product == "era5-land":
            raise
        return token
