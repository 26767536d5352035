"""Which points of a grid lie in which polygon: one scan line for each row of the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def paint(
    rings: Sequence[NDArray[np.float64]],
    values: Sequence[int],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
) -> NDArray[np.int16]:
    """The value of the polygon that contains each point of a grid, 0 where none does.

    A point is inside when an odd number of edges lies west of it (Jordan's curve theorem), so
    holes need no orientation. Edges that two polygons share are computed alike for both and
    belong to one of them: no point is lost or in two. Every edge meets only the rows that it
    spans, so the cost is that of the outline plus one pass over the grid.

    Parameters
    ----------
    rings
        Outer rings and holes, each closed, shape (n, 2): longitude in [-180, 180] and latitude,
        in degrees.
    values
        For each ring the value of its polygon, positive. Polygons of different values do not
        overlap.
    latitude, longitude
        The axes of the grid, degrees, in any order; longitude in any turn of the circle.

    Returns
    -------
    NDArray[np.int16]
        Shape (latitude, longitude).
    """
    turned = (longitude + 180.0) % 360.0 - 180.0
    rows, columns = np.argsort(latitude, kind="stable"), np.argsort(turned, kind="stable")
    lat, lon = latitude[rows], turned[columns]
    field = np.zeros((len(lat), len(lon) + 1), np.int16)
    if field.size and rings:
        corners = np.concatenate(rings)
        value = np.repeat(np.asarray(values, np.int16), [len(ring) for ring in rings])
        edge = np.ones(len(corners) - 1, np.bool_)
        edge[np.cumsum([len(ring) for ring in rings])[:-1] - 1] = False
        upward = corners[:-1, 1] < corners[1:, 1]
        low = np.where(upward[:, None], corners[:-1], corners[1:])
        high = np.where(upward[:, None], corners[1:], corners[:-1])
        first, last = np.searchsorted(lat, low[:, 1]), np.searchsorted(lat, high[:, 1])
        span = np.flatnonzero(edge & (last > first))
        count = (last - first)[span]
        row = np.repeat(first[span], count) + _ramps(count)
        (x0, y0), (x1, y1) = low[span].T, high[span].T
        x, y, slope = (np.repeat(a, count) for a in (x0, y0, (x1 - x0) / (y1 - y0)))
        crossing = x + (lat[row] - y) * slope
        column = np.searchsorted(lon, crossing)
        np.bitwise_xor.at(field, (row, column), np.repeat(value[:-1][span], count))
        np.bitwise_xor.accumulate(field, axis=1, out=field)
    painted = np.empty((len(lat), len(lon)), np.int16)
    painted[np.ix_(rows, columns)] = field[:, :-1]
    return painted


def _ramps(count: NDArray[np.intp]) -> NDArray[np.intp]:
    """0, 1, ... n-1 for each n of `count`, one after the other."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
