"""What the page shows of a store now: datasets, variables, the newest field, counts."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, defaultdict, deque
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np

from climatestream import variables
from climatestream.colors import COLORS, Scale
from climatestream.dashboards.panels import COMPUTED, FIELD, SERIES, TIMES, iso, value_of
from climatestream.errors import UsageError
from climatestream.web.asking import COST_SHARE, Asking
from climatestream.web.field import draw
from climatestream.web.frames import Frame, Grid, make_grid
from climatestream.web.timetable import TimeTable, ms_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from climatestream.ports import Store
    from climatestream.variables import Variable

BEAT_S = 0.25
"""Time between two looks for news [s]; however many browsers look, the store is asked once."""
QUICK_BEAT_S = 0.04
"""The same while news comes quickly [s]."""
COUNTS_S = 1.0
"""Age of counts, rate and latency at most [s]."""
DATASETS_S = 5.0
"""Age of the list of datasets at least [s]: it reads the whole table."""
IDLE_S = 15.0
"""Age of the newest row of `demo.pipeline` from which nothing is running [s]: rows come every 5."""
FIRST_ROW_S = 1.0
"""Time that the first row of a consumer speaks of [s]."""
MAX_CELLS = 150_000
"""Cells of a field at most [cells]: of a larger one the means of boxes are drawn."""
KEPT_BYTES = 64_000_000
"""Fields kept in memory, all together [bytes]: ten minutes of 4,500 cells."""
KEPT_TABLES = 64
"""Time tables kept [tables]: a dataset needs one, and one for each variable with a chart."""
KEPT_POLLS = 500
"""Measurements of event to queryable that the percentiles are of."""
STEADY_S = 1.0
"""Time between two looks from which the arrival of news is not known well enough [s]."""

MINUS = "\N{MINUS SIGN}"

NO_VARIABLES = frozenset({"latitude", "longitude", "original_timestamp"})
"""Numbers in `data` that are no variables."""


@dataclass(frozen=True)
class Choice:
    """A variable that can be chosen: what a person calls it, its unit and its colours.

    `factor` leads from the unit of the store to the one shown; `knots` and the plausible range
    are as shown. Without a plausible range `plausible` is None.
    """

    name: str
    label: str
    unit: str
    factor: float
    colors: tuple[str, ...]
    knots: tuple[float, ...]
    plausible: tuple[float, float] | None


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
class Pace:
    """What the consumers did of late, from `demo.pipeline`; None where no row tells.

    `p50_ms` is the mean of the partitions' medians weighted by rows, `p95_ms` the highest of the
    partitions: event to stored.
    """

    rate: float
    lag: int | None
    p50_ms: float | None
    p95_ms: float | None


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


@dataclass(frozen=True)
class Slice:
    """A time of a dataset as it is stored now; another version when a row was added or changed."""

    time: datetime
    cells: int
    version: str


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
        self._clock = clock
        self._lock = threading.Lock()
        self.slow = threading.Lock()
        """Held by whoever asks for what reads a whole table."""
        self._frames: OrderedDict[tuple[Any, ...], Frame] = OrderedDict()
        self._grids: dict[str, Grid] = {}
        self._tables: OrderedDict[tuple[str, ...], TimeTable] = OrderedDict()
        self._pace = _Looks()
        self._shown: dict[str, Slice] = {}
        self._growing: dict[str, tuple[Slice, float]] = {}
        self._samples: dict[str, tuple[datetime, float | None]] = {}
        self._seen: defaultdict[str, set[str]] = defaultdict(set)
        self._free_scales: dict[tuple[str, str], Scale] = {}

    def close(self, timeout_s: float) -> None:
        """Ask the store nothing more; wait this long for queries that are under way [s]."""
        self.asking.close(timeout_s)

    @property
    def beat_s(self) -> float:
        """Time between two looks for news [s]."""
        return self._pace.beat_s

    def polls_ms(self) -> list[float]:
        """Event to queryable of the newest fields, as this page saw them [ms]."""
        return list(self._pace.polls_ms)

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
            return State(**self._counts())
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
            **self._counts(),
        )

    def png(self, dataset: str, variable: str, at: datetime) -> bytes:
        """The picture of a variable at a time; empty where no cell has a value."""
        frame = self.frame(dataset, variable, at)
        present = frame.present
        if not present.any():
            return b""
        scale = self.scale(dataset, variable, frame)
        grid = frame.grid
        return draw(
            grid.latitude[present], grid.longitude[present], frame.values[present], scale
        ).png

    def _picture(self, dataset: str, variable: str, slice_: Slice) -> dict[str, Any]:
        frame = self.frame(dataset, variable, slice_.time, slice_)
        scale = self.scale(dataset, variable, frame)
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
        return self.asking.fresh(
            ("newest", dataset), lambda: self._ask_newest(dataset), self._pace.beat_s
        )

    def _ask_newest(self, dataset: str) -> Slice:
        """The newest slice that is worth showing.

        A slice is written in several parts. One that has fewer cells than the one before is
        shown when it stops growing, or when a newer one begins, so that no picture has holes
        for a moment and a quick stream is never waited for.
        """
        shown = self._shown.get(dataset)
        time_ = None
        if shown is not None:
            time_ = self._ask_newest_time(dataset, shown.time)
        if time_ is None:
            time_ = self._ask_newest_time(dataset, None)
        if time_ is None:  # its last readings have expired since the datasets were listed
            self.asking.forget("datasets")
            return Slice(datetime.fromtimestamp(0, UTC), 0, "")
        newest, published_at = self._ask_slice(dataset, time_)
        now = self._clock()
        growing, since = self._growing.pop(dataset, (None, now))
        if shown is not None and newest.time != shown.time and newest.cells < shown.cells:
            if growing is None or (growing.time == newest.time and growing != newest):
                self._growing[dataset] = newest, now
                newest = shown
            elif growing.time != newest.time:
                self._growing[dataset] = newest, now
                newest, published_at = self._ask_slice(dataset, growing.time)
            elif now - since < BEAT_S:
                self._growing[dataset] = growing, since
                newest = shown
        if newest != shown:
            self._pace.saw_news(now, published_at)
        self._pace.looked(now)
        self._shown[dataset] = newest
        return newest

    def _ask_newest_time(self, dataset: str, since: datetime | None) -> datetime | None:
        """The newest time; from a known one on only the end of the table is read."""
        sql = 'SELECT max("timestamp") AS newest FROM demo.climate_data WHERE dataset = ?'
        parameters = [dataset]
        if since is not None:
            sql += ' AND "timestamp" >= ?'
            parameters.append(iso(since))
        ((time_,),) = self.asking.query(sql, parameters).rows
        found: datetime | None = time_
        return found

    def slice(self, dataset: str, at: datetime) -> Slice:
        """A time as it is stored now."""
        return self.asking.fresh(
            ("slice", dataset, at), lambda: self._ask_slice(dataset, at)[0], BEAT_S
        )

    def _ask_slice(self, dataset: str, at: datetime) -> tuple[Slice, datetime | None]:
        ((cells, stored_at, published_at),) = self.asking.query(
            "SELECT count(*) AS cells, max(stored_at) AS stored_at, "
            "max(published_at) AS published_at FROM demo.climate_data "
            'WHERE dataset = ? AND "timestamp" = ?',
            [dataset, iso(at)],
        ).rows
        version = f"{cells}.{stored_at.timestamp() if stored_at else 0:.3f}"
        return Slice(at, cells, version), published_at

    def describe(self, dataset: str, slice_: Slice) -> tuple[tuple[Choice, ...], str | None]:
        """The variables of a dataset, the registry's first, and what to say of its data."""
        with self._lock:
            at, original_ms = self._samples.get(dataset, (None, None))
            if at != slice_.time:
                fields, original_ms = self._ask_sample(dataset, slice_.time)
                self._seen[dataset] |= fields
                self._samples[dataset] = slice_.time, original_ms
            names = set(self._seen[dataset])
        names |= {name for name, computed in COMPUTED.items() if names.issuperset(computed.of)}
        order = {variable.name: float(n) for n, variable in enumerate(variables.VARIABLES)}
        order |= {name: order[one.of[0]] - 0.5 for name, one in COMPUTED.items()}
        ordered = sorted(names, key=lambda name: (order.get(name, 999), name))
        return tuple(self.choice(dataset, name) for name in ordered), _notice(dataset, original_ms)

    def _ask_sample(self, dataset: str, at: datetime) -> tuple[set[str], float | None]:
        """The variables of some readings, and the newest time that they were read from [ms]."""
        objects = [
            row[0]
            for row in self.asking.query(
                'SELECT data FROM demo.climate_data WHERE dataset = ? AND "timestamp" = ? LIMIT 50',
                [dataset, iso(at)],
            ).rows
        ]
        names = {
            name
            for data in objects
            for name, value in data.items()
            if isinstance(value, float | int) and not isinstance(value, bool)
        }
        times = [data["original_timestamp"] for data in objects if data.get("original_timestamp")]
        return names - NO_VARIABLES, max(times, default=None)

    def _described(self, dataset: str) -> dict[str, str]:
        return self.asking.fresh(
            ("described", dataset),
            lambda: dict(
                self.asking.query(
                    "SELECT variable, unit FROM demo.datasets WHERE dataset = ?", [dataset]
                ).rows
            ),
            DATASETS_S,
        )

    def choice(self, dataset: str, name: str) -> Choice:
        """What is to be said of a variable."""
        known = _known(name)
        scale = known.scale if known else self._free_scales.get((dataset, name), _NO_SCALE)
        factor = known.shown_factor if known else 1.0
        return Choice(
            name=name,
            label=known.label if known else name,
            unit=known.shown_unit if known else self._described(dataset).get(name, ""),
            factor=factor,
            colors=COLORS[scale.colors],
            knots=tuple(float(f"{knot * factor:.12g}") for knot in scale.knots),
            plausible=(known.valid_min * factor, known.valid_max * factor) if known else None,
        )

    def scale(self, dataset: str, variable: str, frame: Frame) -> Scale:
        """The registry's scale; for what it does not know one that only ever grows."""
        known = _known(variable)
        if known is not None:
            return known.scale
        scale = self._free_scales.get((dataset, variable))
        found = frame.range()
        if found is None:
            return scale or _NO_SCALE
        low, _, high = found
        if scale is None:
            scale = _round_scale(low, high)
        elif low < scale.vmin or high > scale.vmax:
            scale = _round_scale(min(low, scale.vmin), max(high, scale.vmax))
        self._free_scales[dataset, variable] = scale
        return scale

    # ------------------------------------------------------------------------------- fields

    def frame(
        self, dataset: str, variable: str, at: datetime, slice_: Slice | None = None
    ) -> Frame:
        """A variable at a time, in every cell that the dataset is known to have.

        Raises
        ------
        UsageError
            There is no such dataset or variable.
        """
        if slice_ is None:
            self.check(dataset, variable)
            slice_ = self.slice(dataset, at)
        key = (dataset, variable, slice_.time, slice_.version)
        with self._lock:
            kept = self._frames.get(key)
            if kept is not None:
                self._frames.move_to_end(key)
                return kept
        frame = self.asking.fresh(key, lambda: self._ask_frame(dataset, variable, slice_), BEAT_S)
        self.asking.forget(key)
        with self._lock:
            self._frames[key] = frame
            size = sum(one.size() for one in self._frames.values())
            while size > KEPT_BYTES and len(self._frames) > 1:
                size -= self._frames.popitem(last=False)[1].size()
        if _known(variable) is None:
            self.scale(dataset, variable, frame)
        return frame

    def _ask_frame(self, dataset: str, variable: str, slice_: Slice) -> Frame:
        words = {"dataset": dataset, "time": slice_.time, "value": value_of(variable)}
        whole_range = None
        if slice_.cells <= MAX_CELLS:
            rows = self.asking.panel(FIELD, words).rows
        else:
            rows, whole_range = self._ask_boxes(words)
        if rows:
            cells, latitude, longitude, country, *columns = zip(*rows, strict=True)
        else:
            cells, latitude, longitude, country, *columns = (), (), (), (), (), (), ()
        grid, index = self._grid(dataset, cells, latitude, longitude, country)
        values = np.full((3, len(grid.cells)), np.nan)
        values[:, index] = np.array(columns, np.float64)
        value, u10, v10 = values
        return Frame(
            dataset=dataset,
            variable=variable,
            time=slice_.time,
            version=slice_.version,
            stored=slice_.cells,
            grid=grid,
            values=value,
            u10=u10,
            v10=v10,
            whole_range=whole_range,
        )

    def _ask_boxes(
        self, words: dict[str, Any]
    ) -> tuple[list[tuple[Any, ...]], tuple[float, float, float] | None]:
        """The means of boxes of a field with more cells than a picture needs, and its range."""
        latitude, longitude = "latitude(geo_location)", "longitude(geo_location)"
        value = words["value"]
        where = 'WHERE dataset = ? AND "timestamp" = ?'
        parameters = [words["dataset"], iso(words["time"])]
        ((south, north, west, east, low, mean, high),) = self.asking.query(
            f"SELECT min({latitude}), max({latitude}), min({longitude}), max({longitude}), "  # noqa: S608
            f"min({value}), avg({value}), max({value}) "
            f"FROM demo.climate_data {where}",
            parameters,
        ).rows
        height, width = north - south, east - west
        side = max(math.sqrt(height * width / MAX_CELLS), (height + width) / MAX_CELLS)
        box = max(math.ceil(20.0 * side), 1) / 20.0
        rows = self.asking.query(
            f"SELECT floor({latitude} / {box}) AS y, floor({longitude} / {box}) AS x, "  # noqa: S608
            f"avg({value}) AS value, avg(data['u10']) AS u10, avg(data['v10']) AS v10 "
            f"FROM demo.climate_data {where} GROUP BY 1, 2",
            parameters,
        ).rows
        boxes = [
            (f"{y:.0f}/{x:.0f}", (y + 0.5) * box, (x + 0.5) * box, None, *columns)
            for y, x, *columns in rows
        ]
        return boxes, None if low is None else (low, mean, high)

    def _grid(
        self, dataset: str, cells: Any, latitude: Any, longitude: Any, country: Any
    ) -> tuple[Grid, list[int]]:
        """The grid of a dataset, which only grows, and the place in it of each of these cells."""
        with self._lock:
            grid = self._grids.get(dataset)
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
                return _NO_GRID, []
            else:
                cells_ = cells
            grid = make_grid(
                cells_, np.array(latitude, np.float64), np.array(longitude, np.float64), country
            )
            self._grids[dataset] = grid
            return grid, [grid.index[cell] for cell in cells]

    def grid(self, dataset: str, variable: str) -> Grid:
        """The cells of a dataset."""
        if dataset not in self._grids:
            self.frame(dataset, variable, self.newest(dataset).time)
        return self._grids.get(dataset, _NO_GRID)

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

        def refresh() -> bool:
            # the state of every browser waits for the times, and must wait for no one's charts
            with nullcontext() if variable is None else self.slow:
                table.refresh(self.horizons().get(dataset, 0))
            return True

        age_s = COUNTS_S if variable is not None else self._pace.beat_s
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

    # ------------------------------------------------------------------------------- counts

    def pipeline_until(self) -> datetime:
        """The end of what `demo.pipeline` tells: now, or its newest row where nothing runs."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        newest = self.asking.fresh(
            "pipeline",
            lambda: self.asking.query('SELECT max("time") AS newest FROM demo.pipeline').rows[0][0],
            COUNTS_S,
        )
        idle = newest is None or (now - newest).total_seconds() > IDLE_S
        return newest if idle and newest is not None else now

    def _counts(self) -> dict[str, Any]:
        return self.asking.fresh("counts", self._ask_counts, COUNTS_S)

    def _ask_counts(self) -> dict[str, Any]:
        ((readings,),) = self.asking.query("SELECT count(*) FROM demo.climate_data").rows
        ((dead,),) = self.asking.query("SELECT count(*) FROM demo.dead_letters").rows
        since = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=4 * IDLE_S)
        rows = self.asking.query(
            'SELECT "time", instance, "rows", "offset", high_water, stored_p50_ms, stored_p95_ms '
            'FROM demo.pipeline WHERE "time" > ? ORDER BY "time" DESC LIMIT 1000',
            [iso(since)],
        ).rows
        return {
            "readings": readings,
            "dead_letters": dead,
            "pace": _pace(rows, datetime.fromtimestamp(self._clock(), UTC)),
        }


class _Looks:
    """How often to look for news, and how long they took to be found."""

    def __init__(self) -> None:
        self.beat_s = BEAT_S
        self.polls_ms: deque[float] = deque(maxlen=KEPT_POLLS)
        self._news_at = -math.inf
        self._looked_at = -math.inf

    def saw_news(self, now: float, published_at: datetime | None) -> None:
        """Look about ten times between one piece of news and the next."""
        self.beat_s = min(BEAT_S, max(QUICK_BEAT_S, (now - self._news_at) / 10.0))
        self._news_at = now
        if published_at is not None and 0.0 <= now - self._looked_at < STEADY_S:
            self.polls_ms.append(max(0.0, (now - published_at.timestamp()) * 1000.0))

    def looked(self, now: float) -> None:
        """A look has ended."""
        self._looked_at = now


_NO_SCALE = Scale("dusk", (0.0, 0.5, 1.0))
_NO_GRID = make_grid(["0.0000,0.0000"], np.zeros(1), np.zeros(1), [None])


def _known(name: str) -> Variable | None:
    computed = COMPUTED.get(name)
    return computed.variable if computed is not None else variables.by_name(name)


def _pace(rows: list[tuple[Any, ...]], now: datetime) -> Pace | None:
    """What the newest rows of each instance say; `rows` newest first."""
    if not rows:
        return None
    rate = 0.0
    last: list[tuple[Any, ...]] = []
    for instance in {row[1] for row in rows}:
        times = sorted({row[0] for row in rows if row[1] == instance})
        if (now - times[-1]).total_seconds() > IDLE_S:
            continue
        newest = [row for row in rows if row[1] == instance and row[0] == times[-1]]
        seconds = (times[-1] - times[-2]).total_seconds() if len(times) > 1 else FIRST_ROW_S
        rate += sum(row[2] for row in newest) / seconds
        last += newest
    behind = [row[4] - row[3] for row in last if row[3] is not None and row[4] is not None]
    timed = [row for row in last if row[5] is not None and row[2]]
    return Pace(
        rate=rate,
        lag=sum(behind) if behind else None,
        p50_ms=(
            sum(row[5] * row[2] for row in timed) / sum(row[2] for row in timed) if timed else None
        ),
        p95_ms=max((row[6] for row in timed), default=None),
    )


def _notice(dataset: str, original_ms: float | None) -> str | None:
    if dataset.partition("/")[0] == "simulation":
        return "simulated data, not ERA5-Land"
    if not dataset.endswith("/replay"):
        return None
    if original_ms is None:
        return "replayed data: the times are not those of the readings"
    original = datetime.fromtimestamp(original_ms / 1000.0, UTC)
    return f"data of {original:%Y-%m-%d %H:%M} UTC, replayed"


def _round_scale(low: float, high: float) -> Scale:
    """Five steps or so of 1, 2 or 5 times a power of ten; around zero where there are two signs."""
    if low < 0.0 < high:
        high = max(-low, high)
        low = -high
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4.0))
    step = power * next(m for m in (1.0, 2.0, 5.0, 10.0) if m * power * 4.0 >= span)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 2)
    knots = tuple(round(place * step, 12) for place in range(first, last + 1))
    return Scale("balance" if low < 0.0 < high else "dusk", knots)
