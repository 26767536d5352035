"""A field as a picture: one pixel a cell, in the colours of its scale."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from climatestream.colors import COLORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from climatestream.colors import Scale

SHADES = 255
"""Colours of a picture besides transparent: a palette of one byte a pixel [colours]."""
LONGEST_SIDE = 4000
"""Cells along an axis at most: places that lie on no grid would otherwise need a picture of any
size [pixels]."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A PNG and the edges of its outermost cells, in degrees north and east.

    West may be any turn of the circle below east: a field across the date line is drawn whole.
    """

    png: bytes
    south: float
    north: float
    west: float
    east: float


def draw(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    values: NDArray[np.float64],
    scale: Scale,
) -> Picture:
    """Draw the values of cells; where there is no cell the picture is transparent.

    Parameters
    ----------
    latitude, longitude
        The cells' centres in degrees, flat, in any order, at least one; together they lie on a
        regular grid, near enough (files have 54.903 and 54.802 with a step of 0.1).
    values
        In the unit of the scale, of the same length; NaN is drawn as no cell.
    """
    at = places(latitude, longitude)
    pixels = np.zeros((at.row.max() + 1, at.column.max() + 1), np.uint8)
    shade = np.interp(values, scale.knots, np.linspace(0.0, SHADES - 1.0, len(scale.knots)))
    drawn = np.isfinite(values)
    pixels[-1 - at.row[drawn], at.column[drawn]] = np.rint(shade[drawn]).astype(np.uint8) + 1
    image = Image.fromarray(pixels)
    image.putpalette(_palette(scale.colors))
    png = io.BytesIO()
    image.save(png, "PNG", transparency=0, compress_level=1)
    height, width = pixels.shape
    south = at.south - at.step_lat / 2.0
    west = at.west - at.step_lon / 2.0
    return Picture(
        png.getvalue(), south, south + height * at.step_lat, west, west + width * at.step_lon
    )


@dataclass(frozen=True, eq=False)
class Places:
    """Where cells lie on the regular grid that they are on, near enough.

    `south` and `west` are the centre of row 0 and column 0; the steps lead north and east
    [degree].
    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    south: float
    west: float
    step_lat: float
    step_lon: float


def places(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> Places:
    """The grid of these cells; a field across the date line is in one piece."""
    row, south, step_lat = _places(latitude)
    column, west, step_lon = _places(_unwrap(longitude))
    return Places(row, column, south, west, step_lat, step_lon)


def _unwrap(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longitudes counted from the eastern side of the widest gap between them."""
    around = np.unique(np.round(longitude, 4))
    gaps = np.diff(around, append=around[0] + 360.0)
    widest = int(gaps.argmax())
    if gaps[widest] <= gaps[-1] + 1e-3:
        return longitude
    west = around[widest + 1] - 1e-3
    return np.where(longitude < west, longitude + 360.0, longitude)


def _places(axis: NDArray[np.float64]) -> tuple[NDArray[np.intp], float, float]:
    """The place of each coordinate along its axis, the first coordinate, and the step [degree].

    Rounding as cell ids do makes one coordinate of 12.7 and 12.700000000000001. The step is the
    median of those near the smallest, so that rows without a cell stay empty.
    """
    distinct = np.unique(np.round(axis, 4))
    if len(distinct) == 1:
        return np.zeros(len(axis), np.intp), float(distinct[0]), 0.1
    steps = np.diff(distinct)
    span = float(distinct[-1] - distinct[0])
    step = max(float(np.median(steps[steps < 1.5 * steps.min()])), span / LONGEST_SIDE)
    count = max(round(span / step), 1)
    place = np.rint((axis - distinct[0]) * (count / span)).astype(np.intp)
    return place, float(distinct[0]), span / count


@cache
def _palette(colors: str) -> list[int]:
    """Transparent (drawn as mid grey by what ignores that), then the shades, as RGB bytes."""
    stops = np.array([list(bytes.fromhex(stop[1:])) for stop in COLORS[colors]], np.float64)
    at = np.linspace(0.0, len(stops) - 1.0, SHADES)
    shades = [np.interp(at, np.arange(len(stops)), channel) for channel in stops.T]
    return [128, 128, 128, *np.rint(np.stack(shades, 1)).astype(int).ravel().tolist()]
