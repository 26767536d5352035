"""Fields on their way to the browser: the grid once, then two bytes a cell and update.

A frame on the wire is the length of its header (32 bits, little endian), the header in JSON,
padded to a multiple of four, and columns of `n` cells one after the other:

    row, column    uint16, only where the header says `places`: the cell's place in the grid
    values         uint16: shown = low + step * number; 65535 is missing
    u, v           int8, only where the header says `wind`: m/s = wind * number; -128 is missing
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from climatestream.web.field import places

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

MISSING: Final = 65535
STILL: Final = -128
"""A wind that is missing."""
COAST: Final = 0.25
"""Share of cells without a country up to which a field is one of land: the outlines of countries
leave out some cells of the coast. A field of land is clipped to them where it is drawn smooth."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a dataset and where they lie.

    Parameters
    ----------
    south, west, step_lat, step_lon
        Centre of the cell in row 0 and column 0, and the way to the next [degree].
    row, column
        Place of each of the n cells, from south and west.
    cells, latitude, longitude
        Their ids and exact coordinates.
    countries
        Codes of those that a smooth field is clipped to; none where it covers the sea.
    """

    south: float
    west: float
    step_lat: float
    step_lon: float
    row: NDArray[np.uint16]
    column: NDArray[np.uint16]
    cells: list[str]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    countries: tuple[str, ...]
    country: list[str | None]
    id: str = field(init=False)
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b("\n".join(self.cells).encode(), digest_size=6).hexdigest()
        object.__setattr__(self, "id", digest)
        object.__setattr__(self, "index", {cell: place for place, cell in enumerate(self.cells)})

    def nearest(self, latitude: float, longitude: float) -> int:
        """The place of the cell whose centre is nearest, in degrees."""
        away = (self.longitude - longitude + 180.0) % 360.0 - 180.0
        return int(np.argmin((self.latitude - latitude) ** 2 + away**2))

    def describe(self) -> dict[str, Any]:
        """What the browser needs to place the cells."""
        return {
            "id": self.id,
            "n": len(self.cells),
            "south": self.south,
            "west": self.west,
            "step_lat": self.step_lat,
            "step_lon": self.step_lon,
            "rows": int(self.row.max()) + 1,
            "columns": int(self.column.max()) + 1,
            "countries": self.countries,
        }


def make_grid(
    cells: Sequence[str],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    country: Sequence[str | None],
) -> Grid:
    """The grid of some cells, in the order of their ids; at least one."""
    order = sorted(range(len(cells)), key=cells.__getitem__)
    latitude, longitude = latitude[order], longitude[order]
    codes = [country[i] for i in order]
    at = places(latitude, longitude)
    known = {code for code in codes if code is not None}
    at_sea = sum(code is None for code in codes) > COAST * len(codes)
    return Grid(
        south=at.south,
        west=at.west,
        step_lat=at.step_lat,
        step_lon=at.step_lon,
        row=at.row.astype(np.uint16),
        column=at.column.astype(np.uint16),
        cells=[cells[i] for i in order],
        latitude=latitude,
        longitude=longitude,
        country=codes,
        countries=() if at_sea else tuple(sorted(known)),
    )


@dataclass(frozen=True, eq=False)
class Frame:
    """A variable at one time, aligned with a grid, in the unit of the store; NaN where missing."""

    dataset: str
    variable: str
    time: datetime
    version: str
    stored: int
    """Readings at that time, or of the part; more than cells where the values are of boxes."""
    grid: Grid
    values: NDArray[np.float64]
    u10: NDArray[np.float64]
    v10: NDArray[np.float64]
    whole_range: tuple[float, float, float] | None = None
    """Of all readings, where the values are means of several."""
    part: bool = False
    """Whether the grid is of what lies in a box, and of this frame alone."""

    @property
    def boxed(self) -> bool:
        """Whether the values are means of the cells in boxes."""
        return self.whole_range is not None

    @property
    def wind(self) -> bool:
        """Whether any cell has both components."""
        return bool((np.isfinite(self.u10) & np.isfinite(self.v10)).any())

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which cells have a value."""
        return np.isfinite(self.values)

    def range(self) -> tuple[float, float, float] | None:
        """Lowest, mean and highest value; None where there is none."""
        if self.whole_range is not None:
            return self.whole_range
        finite = self.values[self.present]
        if not len(finite):
            return None
        return float(finite.min()), float(finite.mean()), float(finite.max())

    def size(self) -> int:
        """Bytes in memory, the grid not counted."""
        return 3 * self.values.nbytes


def pack(frame: Frame, factor: float, known_grid: str | None) -> bytes:
    """A frame for the wire.

    Parameters
    ----------
    factor
        shown = stored * factor.
    known_grid
        The id of the grid that the browser has; where it is this one, places are left out.
    """
    low, mean, high = (value * factor for value in frame.range() or (0.0, 0.0, 0.0))
    step = (high - low) / (MISSING - 1) or 1.0
    numbers = np.full(len(frame.values), MISSING, np.uint16)
    present = frame.present
    numbers[present] = np.rint((frame.values[present] * factor - low) / step)
    places_ = frame.grid.id != known_grid
    header: dict[str, Any] = {
        "dataset": frame.dataset,
        "variable": frame.variable,
        "time": round(frame.time.timestamp() * 1000),
        "version": f"{round(frame.time.timestamp() * 1000)}.{frame.version}",
        "cells": frame.stored,
        "low": low,
        "mean": mean,
        "high": high,
        "empty": not present.any(),
        "step": step,
        "wind": 0.0,
        "places": places_,
        "part": frame.part,
        "boxed": frame.boxed,
        "grid": frame.grid.describe(),
    }
    parts: list[bytes] = []
    if places_:
        parts += [frame.grid.row.tobytes(), frame.grid.column.tobytes()]
    parts.append(numbers.tobytes())
    if frame.wind:
        strongest = max(np.nanmax(np.abs(frame.u10)), np.nanmax(np.abs(frame.v10)), 0.1)
        header["wind"] = float(strongest) / 127.0
        for component in (frame.u10, frame.v10):
            scaled = np.nan_to_num(np.rint(component / header["wind"]), nan=STILL)
            parts.append(scaled.astype(np.int8).tobytes())
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])
