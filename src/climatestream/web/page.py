"""What the page shows of a store now: datasets, variables, the newest field, counts."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from climatestream.colors import COLORS
from climatestream.dashboards.panels import SERIES, TIMES, iso, value_of
from climatestream.errors import UsageError
from climatestream.web.asking import COST_SHARE, Asking
from climatestream.web.choices import Choices, known_variable
from climatestream.web.field import draw
from climatestream.web.fields import Fields
from climatestream.web.looks import BEAT_S, Looks
from climatestream.web.pace import COUNTS_S, counts
from climatestream.web.timetable import TimeTable, ms_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from climatestream.ports import Store
    from climatestream.web.choices import Choice
    from climatestream.web.fields import Box
    from climatestream.web.frames import Frame
    from climatestream.web.looks import Slice
    from climatestream.web.pace import Pace

DATASETS_S: Final = 5.0
"""Age of the list of datasets at least [s]: it reads the whole table."""
KEPT_TABLES: Final = 64
"""Time tables kept [tables]: a dataset needs one, and one for each variable with a chart."""

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Legend:
    """The colours from the lowest to the highest, and ticks at equal distances along them."""

    label: str
    unit: str
    colors: tuple[str, ...]
    ticks: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A field at one time: where its picture is, its edges [degree], its values as shown."""

    time: datetime
    picture: str
    south: float
    north: float
    west: float
    east: float
    cells: int
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Times:
    """The stored times of a dataset [ms]."""

    count: int
    first: int | None
    last: int | None


@dataclass(frozen=True)
class State:
    """All that the page shows at a moment. An empty store has no dataset."""

    datasets: tuple[str, ...] = ()
    dataset: str | None = None
    variables: tuple[Choice, ...] = ()
    variable: str | None = None
    note: str | None = None
    """Why something else is shown than was asked for."""
    notice: str | None = None
    """What the data is not: simulated or replayed."""
    frame: Shown | None = None
    version: str | None = None
    """Of the newest field: changes with it."""
    legend: Legend | None = None
    times: Times = Times(0, None, None)
    readings: int = 0
    dead_letters: int = 0
    pace: Pace | None = None


class Page:
    """Answers for any number of browsers.

    Parameters
    ----------
    store
        Opened by the caller, who closes it after the page.
    clock
        Seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.asking = Asking(store, clock)
        self.looks = Looks(self.asking)
        self.choices = Choices(self.asking)
        self.fields = Fields(self.asking)
        self.slow = threading.Lock()
        """Held by whoever asks for what reads a whole table."""
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, ...], TimeTable] = OrderedDict()

    def close(self, timeout_s: float) -> None:
        """Ask the store nothing more; wait this long for queries that are under way [s]."""
        self.asking.close(timeout_s)

    @property
    def beat_s(self) -> float:
        """Time between two looks for news [s]."""
        return self.looks.beat_s

    # -------------------------------------------------------------------------------- state

    def state(
        self, dataset: str | None = None, variable: str | None = None, *, picture: bool = True
    ) -> State:
        """What to show of a dataset and variable: the newest field and all around it.

        What is not there is replaced by the nearest thing that is, and a note says so.

        Parameters
        ----------
        picture
            Whether the newest field is looked at; its values are else left out.

        Raises
        ------
        StoreUnavailable, StoreError
            The store does not answer, or refuses.
        """
        newest = self.datasets()
        if not newest:
            return State(**counts(self.asking))
        note = None
        if dataset not in newest:
            if dataset is not None:
                note = f"there is no dataset {dataset} in this store"
            dataset = max(newest, key=lambda name: newest[name])
        slice_ = self.newest(dataset)
        choices, notice = self.describe(dataset, slice_)
        names = [choice.name for choice in choices]
        if variable not in names:
            if variable is not None:
                note = note or f"there is no variable {variable} in {dataset}"
            variable = names[0] if names else None
        shown: dict[str, Any] = {}
        if variable is not None:
            shown["version"] = f"{ms_of(slice_.time)}.{slice_.version}"
            if picture:
                shown |= self._picture(dataset, variable, slice_)
        times = self.times(dataset)
        return State(
            datasets=tuple(sorted(newest)),
            dataset=dataset,
            variables=choices,
            variable=variable,
            note=note,
            notice=notice,
            times=Times(
                len(times.times),
                int(times.times[0]) if len(times.times) else None,
                int(times.times[-1]) if len(times.times) else None,
            ),
            **shown,
            **counts(self.asking),
        )

    def png(self, dataset: str, variable: str, at: datetime) -> bytes:
        """The picture of a variable at a time; empty where no cell has a value."""
        frame = self.frame(dataset, variable, at)
        present = frame.present
        if not present.any():
            return b""
        scale = self.choices.scale(dataset, variable, frame)
        grid = frame.grid
        return draw(
            grid.latitude[present], grid.longitude[present], frame.values[present], scale
        ).png

    def _picture(self, dataset: str, variable: str, slice_: Slice) -> dict[str, Any]:
        frame = self.frame(dataset, variable, slice_.time, slice_)
        scale = self.choices.scale(dataset, variable, frame)
        choice = self.choice(dataset, variable)
        legend = Legend(
            label=choice.label,
            unit=choice.unit,
            colors=COLORS[scale.colors],
            ticks=tuple(f"{knot * choice.factor:.6g}".replace("-", MINUS) for knot in scale.knots),
        )
        found = frame.range()
        if found is None:
            return {"legend": legend}
        address = urlencode(
            {
                "dataset": dataset,
                "variable": variable,
                "time": iso(slice_.time),
                "version": slice_.version,
            }
        )
        low, mean, high = (value * choice.factor for value in found)
        grid = frame.grid
        rows, columns = grid.row[frame.present], grid.column[frame.present]
        shown = Shown(
            time=slice_.time,
            picture=f"/field.png?{address}",
            south=grid.south + (float(rows.min()) - 0.5) * grid.step_lat,
            north=grid.south + (float(rows.max()) + 0.5) * grid.step_lat,
            west=grid.west + (float(columns.min()) - 0.5) * grid.step_lon,
            east=grid.west + (float(columns.max()) + 0.5) * grid.step_lon,
            cells=slice_.cells,
            low=low,
            mean=mean,
            high=high,
        )
        return {"legend": legend, "frame": shown}

    # ----------------------------------------------------------------- what is in the store

    def datasets(self, age_s: float = DATASETS_S) -> dict[str, datetime]:
        """By dataset the newest time."""
        found = self.asking.fresh(
            "datasets", self._ask_datasets, age_s, cost_share=COST_SHARE if age_s else 0.0
        )
        return found or self.asking.fresh("datasets", self._ask_datasets, BEAT_S)

    def _ask_datasets(self) -> dict[str, datetime]:
        return dict(
            self.asking.query(
                'SELECT dataset, max("timestamp") AS newest FROM demo.climate_data GROUP BY dataset'
            ).rows
        )

    def check(self, dataset: str, variable: str | None = None) -> None:
        """Refuse what is not there.

        Raises
        ------
        UsageError
            There is no such dataset, or variable in it: names those that there are.
        """
        if dataset not in self.datasets() and dataset not in self.datasets(0.0):
            names = ", ".join(sorted(self.datasets())) or "none"
            raise UsageError(f"dataset {dataset!r} is not in this store; there is: {names}")
        if variable is None:
            return
        names_of = [choice.name for choice in self.describe(dataset, self.newest(dataset))[0]]
        if variable not in names_of:
            raise UsageError(
                f"variable {variable!r} is not in dataset {dataset}; "
                f"there is: {', '.join(names_of) or 'none'}"
            )

    def newest(self, dataset: str) -> Slice:
        """The newest slice that is worth showing."""
        return self.looks.newest(dataset)

    def describe(self, dataset: str, slice_: Slice) -> tuple[tuple[Choice, ...], str | None]:
        """The variables of a dataset, the registry's first, and what to say of its data."""
        return self.choices.describe(dataset, slice_)

    def choice(self, dataset: str, name: str) -> Choice:
        """What is to be said of a variable."""
        return self.choices.choice(dataset, name)

    # ------------------------------------------------------------------------------- fields

    def frame(
        self,
        dataset: str,
        variable: str,
        at: datetime,
        slice_: Slice | None = None,
        box: Box | None = None,
    ) -> Frame:
        """A variable at a time, in every cell that the dataset is known to have.

        Raises
        ------
        UsageError
            There is no such dataset or variable.
        """
        if slice_ is None:
            self.check(dataset, variable)
            slice_ = self.looks.slice(dataset, at)
        frame = self.fields.frame(dataset, variable, slice_, box)
        if known_variable(variable) is None and box is None:
            self.choices.scale(dataset, variable, frame)
        return frame

    # -------------------------------------------------------------------------------- times

    def times(self, dataset: str) -> TimeTable:
        """How many cells each stored time has."""
        return self.table((TIMES.name, dataset), dataset, None)

    def series(self, dataset: str, variable: str) -> TimeTable:
        """Lowest, mean and highest of a variable at each time."""
        return self.table((SERIES.name, dataset, variable), dataset, variable)

    def table(self, key: tuple[str, ...], dataset: str, variable: str | None) -> TimeTable:
        """A time table, asked for at most once in a beat, or a second where it is a series."""
        with self._lock:
            table = self._tables.get(key)
            if table is None:
                panel = TIMES if variable is None else SERIES
                words = {"dataset": dataset}
                if variable is not None:
                    words["value"] = value_of(variable)
                table = self._tables[key] = TimeTable(self.asking, panel, words)
            self._tables.move_to_end(key)
            while len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)

        stored = None if variable is None else self.times(dataset).times

        def refresh() -> bool:
            # the state of every browser waits for the times, and must wait for no one's charts
            with nullcontext() if variable is None else self.slow:
                table.refresh(self.horizons().get(dataset, 0), stored)
            return True

        age_s = COUNTS_S if variable is not None else self.beat_s
        self.asking.fresh(("table", *key), refresh, age_s)
        return table

    def horizons(self) -> dict[str, int]:
        """By dataset, the time before which readings were dropped [ms]."""
        return self.asking.fresh(
            "horizons",
            lambda: {
                dataset: ms_of(before)
                for dataset, before in self.asking.query(
                    'SELECT dataset, "before" FROM demo.retention'
                ).rows
            },
            BEAT_S,
        )
