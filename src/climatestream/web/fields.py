"""A variable at a time, as frames: whole, or what lies in a box.

Of more cells than a picture needs the means of square boxes are drawn. The whole of such a field is
seen in coarse boxes; what lies in sight comes in finer ones the closer the view is, and as the
cells themselves where they are few enough.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from climatestream.dashboards.panels import FIELD, iso, value_of
from climatestream.errors import UsageError
from climatestream.web.frames import Frame, Grid, make_grid
from climatestream.web.looks import BEAT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from climatestream.web.asking import Asking
    from climatestream.web.looks import Slice

MAX_CELLS: Final = 150_000
"""Cells of a whole field at most [cells]: of a larger one the means of boxes are drawn."""
PART_CELLS: Final = 60_000
"""The same of what lies in a box: as many as the map moves smoothly."""
KEPT_BYTES: Final = 64_000_000
"""Fields kept in memory, all together [bytes]: ten minutes of 4,500 cells."""
SIDES: Final = tuple(k / 20.0 for k in range(1, 7201) if 7200 % k == 0)
"""Sides of boxes: twentieths of a degree that go into a turn without rest, so that the boxes on
both sides of the date line are on one grid [degree]."""

_LATITUDE: Final = "latitude(geo_location)"
_LONGITUDE: Final = "longitude(geo_location)"


class Box(NamedTuple):
    """A part of the globe [degree]; west in [-180, 180), east up to a turn beyond it."""

    south: float
    north: float
    west: float
    east: float


class Fields:
    """Frames by time, kept while there is room."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], Frame] = OrderedDict()
        self._grids: dict[str, Grid] = {}

    def frame(self, dataset: str, variable: str, slice_: Slice, box: Box | None = None) -> Frame:
        """A variable at a time, in every cell that the dataset is known to have.

        Parameters
        ----------
        box
            What is wanted of it; None: all. A field that is small enough comes whole in any case.
        """
        if slice_.cells <= MAX_CELLS:
            box = None
        key = (dataset, variable, slice_.time, slice_.version, box)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        frame = self._asking.fresh(key, lambda: self._ask(dataset, variable, slice_, box), BEAT_S)
        self._asking.forget(key)
        with self._lock:
            self._kept[key] = frame
            size = sum(one.size() for one in self._kept.values())
            while size > KEPT_BYTES and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1].size()
        return frame

    def size(self) -> int:
        """Bytes of the frames kept."""
        return sum(frame.size() for frame in self._kept.values())

    def _ask(self, dataset: str, variable: str, slice_: Slice, box: Box | None) -> Frame:
        words = {"dataset": dataset, "time": slice_.time, "value": value_of(variable)}
        stored, range_ = slice_.cells, None
        where, parameters = _within(box)
        side = None
        if slice_.cells > MAX_CELLS:
            stored, range_, edges = self._ask_range(words, where, parameters)
            side = _side(edges, PART_CELLS if box else MAX_CELLS, stored)
        if side is None:
            sql, given = FIELD.query(words)
            rows = self._asking.query(sql + where, [*given, *parameters]).rows
        else:
            rows = self._ask_boxes(words, side, where, parameters)
        if rows:
            cells, latitude, longitude, country, *columns = zip(*rows, strict=True)
        else:
            cells, latitude, longitude, country, *columns = (), (), (), (), (), (), ()
        kept_as = None if box else dataset if side is None else f"{dataset}\n{side}"
        grid, index = self._grid(kept_as, cells, latitude, longitude, country)
        values = np.full((3, len(grid.cells)), np.nan)
        values[:, index] = np.array(columns, np.float64)
        value, u10, v10 = values
        return Frame(
            dataset=dataset,
            variable=variable,
            time=slice_.time,
            version=slice_.version,
            stored=stored,
            grid=grid,
            values=value,
            u10=u10,
            v10=v10,
            whole_range=range_ if side is not None else None,
            part=box is not None,
        )

    def _ask_range(
        self, words: dict[str, Any], where: str, parameters: list[Any]
    ) -> tuple[int, tuple[float, float, float] | None, tuple[float, float]]:
        """How many readings there are, their range, and how high and wide they lie [degree]."""
        value = words["value"]
        ((stored, south, north, west, east, low, mean, high),) = self._asking.query(
            f"SELECT count(*), min({_LATITUDE}), max({_LATITUDE}), min({_LONGITUDE}), "  # noqa: S608
            f"max({_LONGITUDE}), min({value}), avg({value}), max({value}) "
            f'FROM demo.climate_data WHERE dataset = ? AND "timestamp" = ?{where}',
            [words["dataset"], iso(words["time"]), *parameters],
        ).rows
        edges = (north - south, east - west) if stored else (0.0, 0.0)
        return stored, None if low is None else (low, mean, high), edges

    def _ask_boxes(
        self, words: dict[str, Any], side: float, where: str, parameters: list[Any]
    ) -> list[tuple[Any, ...]]:
        """The means of the cells in boxes, in the columns of the panel of a field.

        The small number keeps a cell on the edge of a box in one box, whatever its last digit.
        """
        rows = self._asking.query(
            f"SELECT floor({_LATITUDE} / {side} + 0.0001) AS y, "  # noqa: S608
            f"floor({_LONGITUDE} / {side} + 0.0001) AS x, "
            f"avg({words['value']}) AS value, avg(data['u10']) AS u10, avg(data['v10']) AS v10 "
            f'FROM demo.climate_data WHERE dataset = ? AND "timestamp" = ?{where} GROUP BY 1, 2',
            [words["dataset"], iso(words["time"]), *parameters],
        ).rows
        return [
            (f"{y:.0f}/{x:.0f}", (y + 0.5) * side, (x + 0.5) * side, None, *columns)
            for y, x, *columns in rows
        ]

    def _grid(
        self, name: str | None, cells: Any, latitude: Any, longitude: Any, country: Any
    ) -> tuple[Grid, list[int]]:
        """The grid of that name, which only grows, and the place in it of each of these cells."""
        with self._lock:
            grid = self._grids.get(name) if name else None
            if grid is not None:
                try:
                    index = grid.index
                    return grid, [index[cell] for cell in cells]
                except KeyError:
                    places = zip(cells, latitude, longitude, country, strict=True)
                    known = zip(
                        grid.cells, grid.latitude, grid.longitude, grid.country, strict=True
                    )
                    merged = {place[0]: place for place in (*known, *places)}
                    cells_, latitude, longitude, country = zip(*merged.values(), strict=True)
            elif not cells:
                return NO_GRID, []
            else:
                cells_ = cells
            grid = make_grid(
                cells_, np.array(latitude, np.float64), np.array(longitude, np.float64), country
            )
            if name:
                self._grids[name] = grid
            return grid, [grid.index[cell] for cell in cells]

    def nearest(
        self, dataset: str, variable: str, slice_: Slice, place: tuple[float, float]
    ) -> tuple[str, float, float]:
        """The cell nearest to a latitude and longitude, in degrees, and where it lies.

        Raises
        ------
        UsageError
            None of a field that is drawn in boxes is as near as two boxes.
        """
        frame = self.frame(dataset, variable, slice_)
        grid = frame.grid
        if not frame.boxed:
            at = grid.nearest(*place)
            return grid.cells[at], float(grid.latitude[at]), float(grid.longitude[at])
        latitude, longitude = place
        away = 2.0 * max(grid.step_lat, grid.step_lon)
        where, parameters = _within(
            normal_box(latitude - away, latitude + away, longitude - away, longitude + away)
        )
        sql, given = FIELD.query(
            {"dataset": dataset, "time": slice_.time, "value": value_of(variable)}
        )
        rows = self._asking.query(sql + where, [*given, *parameters]).rows
        if not rows:
            raise UsageError(f"there is no cell of {dataset} within {away:.2f} degrees of {place}")
        cell, north, east, *_ = min(
            rows,
            key=lambda row: (row[1] - latitude) ** 2 + turned(row[2] - longitude) ** 2,
        )
        return cell, north, east


def normal_box(south: float, north: float, west: float, east: float) -> Box:
    """A box that may begin at any turn of the circle; wider than one it is all around."""
    width = east - west
    if width >= 360.0:
        return Box(south, north, -180.0, 180.0)
    west = turned(west)
    return Box(south, north, west, west + width)


def turned(longitude: float) -> float:
    """The same longitude in [-180, 180)."""
    return (longitude + 180.0) % 360.0 - 180.0


def _within(box: Box | None) -> tuple[str, list[Any]]:
    """The box as SQL that follows a WHERE, and its parameters."""
    if box is None:
        return "", []
    sql = f" AND {_LATITUDE} BETWEEN ? AND ?"
    parameters: list[Any] = [box.south, box.north]
    if box.east - box.west >= 360.0:
        return sql, parameters
    if box.east <= 180.0:
        return f"{sql} AND {_LONGITUDE} BETWEEN ? AND ?", [*parameters, box.west, box.east]
    return (
        f"{sql} AND ({_LONGITUDE} >= ? OR {_LONGITUDE} <= ?)",
        [*parameters, box.west, box.east - 360.0],
    )


def _side(edges: Sequence[float], most: int, stored: int) -> float | None:
    """The side of boxes, at most so many, that cover this height and width; None: the cells."""
    if stored <= most:
        return None
    height, width = edges
    side = max(math.sqrt(height * width / most), (height + width) / most)
    return next(one for one in SIDES if one >= min(side, SIDES[-1]))


NO_GRID: Final = make_grid(["0.0000,0.0000"], np.zeros(1), np.zeros(1), [None])
