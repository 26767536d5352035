"""A page that is fed directly: fields of any size at any rate, without a store's cost."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from climatestream.dashboards.panels import TIMES
from climatestream.ports import Answer
from climatestream.web.choices import Choice
from climatestream.web.fields import Box
from climatestream.web.frames import Frame, Grid, make_grid
from climatestream.web.looks import Slice
from climatestream.web.page import Page
from climatestream.web.timetable import TimeTable

DATASET = "simulation"


class Nothing:
    """A store that holds nothing."""

    def query(self, sql: str, parameters: Any = ()) -> Answer:
        if "count(*) FROM" in sql:
            return Answer(("count",), [(0,)])
        if "max(" in sql and "GROUP BY" not in sql:
            return Answer(("max",), [(None,)])
        return Answer(("time", "cells"), [])


class FedPage(Page):
    """A page whose newest field changes `rate` times a second.

    Parameters
    ----------
    cells
        Size of the field, near enough: a square of cells a tenth of a degree apart, all at land.
    rate
        Fields a second.
    """

    def __init__(self, cells: int, rate: float) -> None:
        super().__init__(Nothing())  # type: ignore[arg-type]
        side = round(cells**0.5)
        row, column = (axis.ravel() for axis in np.mgrid[0:side, 0:side])
        latitude, longitude = 40.0 + row / 10.0, column / 10.0 - 2.0
        names = [f"{y:.4f},{x:.4f}" for y, x in zip(latitude, longitude, strict=True)]
        self.fed: Grid = make_grid(names, latitude, longitude, ["DEU", "FRA"] * (len(row) // 2 + 1))
        self.fed_rate = rate
        self._x, self._y = self.fed.longitude / 4.0, self.fed.latitude / 5.0
        self._table = TimeTable(self.asking, TIMES, {})

    def datasets(self, age_s: float = 0.0) -> dict[str, datetime]:
        del age_s
        return {DATASET: datetime.now(UTC)}

    def check(self, dataset: str, variable: str | None = None) -> None:
        """All is there."""

    def newest(self, dataset: str) -> Slice:
        del dataset
        number = int(time.time() * self.fed_rate)
        at = datetime.fromtimestamp(number / self.fed_rate, UTC)
        return Slice(at, len(self.fed.cells), str(number))

    @property
    def beat_s(self) -> float:
        return 0.25 / self.fed_rate

    def describe(self, dataset: str, slice_: Slice) -> tuple[tuple[Choice, ...], str | None]:
        del slice_
        return (self.choice(dataset, "temperature"), self.choice(dataset, "pressure")), None

    def frame(
        self,
        dataset: str,
        variable: str,
        at: datetime,
        slice_: Slice | None = None,
        box: Box | None = None,
    ) -> Frame:
        del at, box
        slice_ = slice_ or self.newest(dataset)
        phase = slice_.time.timestamp() % 1000.0
        values = 15.0 + 12.0 * np.sin(self._x + phase) * np.cos(self._y - phase / 3.0)
        u10 = 6.0 * np.cos(self._y + phase)
        v10 = 6.0 * np.sin(self._x - phase)
        return Frame(
            dataset, variable, slice_.time, slice_.version, slice_.cells, self.fed, values, u10, v10
        )

    def times(self, dataset: str) -> TimeTable:
        del dataset
        now = int(self.newest(DATASET).time.timestamp() * 1000)
        self._table.times = np.array([now - 1000, now], np.int64)
        self._table.columns = np.full((2, 1), float(len(self.fed.cells)))
        return self._table

    def series(self, dataset: str, variable: str) -> TimeTable:
        del variable
        table = TimeTable(self.asking, TIMES, {})
        table.times = self.times(dataset).times
        table.columns = np.array([[1.0, 15.0, 29.0]] * 2)
        return table
