"""What the page shows: asked from a store in the panels' SQL, by cheap queries, and remembered."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlencode

import numpy as np

from climatestream import variables
from climatestream.colors import COLORS, Scale
from climatestream.errors import StoreUnavailable, UsageError
from climatestream.web.field import Picture, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from climatestream.ports import Answer, Store

BEAT_S = 0.25
"""Time between two looks for news [s]; however many browsers look, the store is asked once."""
COUNTS_S = 1.0
"""Age of counts, rate and latency at most [s]."""
DATASETS_S = 5.0
"""Age of the list of datasets at most [s]: it reads the whole table."""
IDLE_S = 15.0
"""Age of the newest row of `demo.pipeline` from which nothing is running [s]: rows come every 5."""
FIRST_ROW_S = 1.0
"""Time that the first row of a consumer speaks of [s]."""
MAX_CELLS = 150_000
"""Cells of a picture at most [cells]: of a larger field the means of boxes are drawn."""
KEPT_PICTURES = 64
"""Pictures kept [pictures]: two minutes of one variable, as the sliders of browsers need them."""
SERIES_TIMES = 120
"""Times of a series [times]."""

MINUS = "\N{MINUS SIGN}"

NO_VARIABLES = frozenset({"latitude", "longitude", "original_timestamp"})
"""Numbers in `data` that are no variables."""

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A variable that can be chosen, with what a person calls it and its unit."""

    name: str
    label: str
    unit: str


@dataclass(frozen=True)
class Legend:
    """The colours from the lowest to the highest, and ticks at equal distances along them."""

    label: str
    unit: str
    colors: tuple[str, ...]
    ticks: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
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
    frame: Frame | None = None
    legend: Legend | None = None
    readings: int = 0
    dead_letters: int = 0
    pace: Pace | None = None


@dataclass(frozen=True, eq=False)
class _Field:
    picture: Picture | None
    scale: Scale
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class _Slice:
    """A time of a dataset as it is stored now; another version when a row was added or changed."""

    time: datetime
    cells: int
    version: str


class Page:
    """Answers for any number of browsers, one query at a time.

    Parameters
    ----------
    store
        Opened by the caller, who closes it after the page.
    clock
        Seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._memo: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._fields: dict[tuple[str, str, datetime, str], _Field] = {}
        self._shown: dict[str, _Slice] = {}
        self._growing: dict[str, _Slice] = {}
        self._samples: dict[str, tuple[datetime, float | None]] = {}
        self._seen: defaultdict[str, set[str]] = defaultdict(set)
        self._free_scales: dict[tuple[str, str], Scale] = {}

    def state(self, dataset: str | None = None, variable: str | None = None) -> State:
        """What to show of a dataset and variable: the newest field and all around it.

        What is not there is replaced by the nearest thing that is, and a note says so.

        Raises
        ------
        StoreUnavailable, StoreError
            The store does not answer, or refuses.
        """
        with self._lock:
            newest = self._datasets()
            if not newest:
                return State(**self._counts())
            note = None
            if dataset not in newest:
                if dataset is not None:
                    note = f"there is no dataset {dataset} in this store"
                dataset = max(newest, key=lambda name: newest[name])
            slice_ = self._newest(dataset)
            choices, notice = self._describe(dataset, slice_)
            names = [choice.name for choice in choices]
            if variable not in names:
                if variable is not None:
                    note = note or f"there is no variable {variable} in {dataset}"
                variable = names[0] if names else None
            shown: dict[str, Any] = {}
            if variable is not None:
                shown = self._frame(dataset, variable, slice_)
            return State(
                datasets=tuple(sorted(newest)),
                dataset=dataset,
                variables=choices,
                variable=variable,
                note=note,
                notice=notice,
                **shown,
                **self._counts(),
            )

    def png(self, dataset: str, variable: str, at: datetime, version: str | None = None) -> bytes:
        """The picture of a variable at a time; empty where no cell has a value.

        Parameters
        ----------
        at
            Aware.
        version
            Of the slice, as a frame's address has it: saves asking whether it has changed.

        Raises
        ------
        UsageError
            The store has no such dataset, or no such variable in it.
        """
        with self._lock:
            kept = self._fields.get((dataset, variable, at, version or ""))
            if kept is None:
                self._check_dataset(dataset)
                slice_ = self._slice(dataset, at)
                self._check_variable(dataset, variable, slice_)
                kept = self._field(dataset, variable, slice_)
            return b"" if kept.picture is None else kept.picture.png

    def series(self, dataset: str, variable: str) -> list[tuple[datetime, float, float, float]]:
        """Lowest, mean and highest value of the newest times, oldest first, as shown.

        Raises
        ------
        UsageError
            The store has no such dataset, or no such variable in it.
        """
        with self._lock:
            self._check_dataset(dataset)
            self._check_variable(dataset, variable, self._newest(dataset))
            return self._fresh(COUNTS_S, ("series", dataset, variable), self._series)

    def close(self, timeout_s: float) -> None:
        """Ask the store nothing more; wait this long for a query that is under way [s]."""
        self._closed = True
        if self._lock.acquire(timeout=timeout_s):
            self._lock.release()

    # ----------------------------------------------------------------- what is in the store

    def _query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        if self._closed:
            raise StoreUnavailable("the page is closed")
        return self._store.query(sql, parameters)

    def _fresh(self, age_s: float, key: tuple[str, ...], ask: Callable[..., T]) -> T:
        """The answer of `ask(*key[1:])`, at most this old."""
        now = self._clock()
        at, kept = self._memo.get(key, (-math.inf, None))
        if 0.0 <= now - at < age_s:
            return cast("T", kept)
        answer = ask(*key[1:])
        self._memo[key] = (now, answer)
        return answer

    def _datasets(self, age_s: float = DATASETS_S) -> dict[str, datetime]:
        found = self._fresh(age_s, ("datasets",), self._ask_datasets)
        return found or self._fresh(BEAT_S, ("datasets",), self._ask_datasets)

    def _ask_datasets(self) -> dict[str, datetime]:
        return dict(
            self._query(
                'SELECT dataset, max("timestamp") AS newest FROM demo.climate_data GROUP BY dataset'
            ).rows
        )

    def _check_dataset(self, dataset: str) -> None:
        if dataset not in self._datasets() and dataset not in self._datasets(BEAT_S):
            names = ", ".join(sorted(self._datasets())) or "none"
            raise UsageError(f"dataset {dataset!r} is not in this store; there is: {names}")

    def _check_variable(self, dataset: str, variable: str, slice_: _Slice) -> None:
        choices, _ = self._describe(dataset, slice_)
        names = [choice.name for choice in choices]
        if variable not in names:
            raise UsageError(
                f"variable {variable!r} is not in dataset {dataset}; "
                f"there is: {', '.join(names) or 'none'}"
            )

    def _newest(self, dataset: str) -> _Slice:
        return self._fresh(BEAT_S, ("newest", dataset), self._ask_newest)

    def _ask_newest(self, dataset: str) -> _Slice:
        """The newest slice that is worth showing.

        A slice is written in several parts. One that has fewer cells than the one before is
        shown when it stops growing, or when a newer one begins, so that no picture has holes
        for a moment and a quick stream is never waited for.
        """
        ((time_,),) = self._query(
            'SELECT max("timestamp") AS newest FROM demo.climate_data WHERE dataset = ?',
            [dataset],
        ).rows
        if time_ is None:  # its last readings have expired since the datasets were listed
            self._memo.pop(("datasets",), None)
            return _Slice(datetime.fromtimestamp(0, UTC), 0, "")
        newest = self._slice(dataset, time_)
        shown = self._shown.get(dataset)
        growing = self._growing.pop(dataset, None)
        if shown is not None and newest.time != shown.time and newest.cells < shown.cells:
            if growing is None or (growing.time == newest.time and growing != newest):
                self._growing[dataset] = newest
                newest = shown
            elif growing.time != newest.time:
                self._growing[dataset] = newest
                newest = self._slice(dataset, growing.time)
        self._shown[dataset] = newest
        return newest

    def _slice(self, dataset: str, at: datetime) -> _Slice:
        ((cells, stored_at),) = self._query(
            "SELECT count(*) AS cells, max(stored_at) AS stored_at FROM demo.climate_data "
            'WHERE dataset = ? AND "timestamp" = ?',
            [dataset, _iso(at)],
        ).rows
        return _Slice(at, cells, f"{cells}.{stored_at.timestamp() if stored_at else 0:.3f}")

    def _describe(self, dataset: str, slice_: _Slice) -> tuple[tuple[Choice, ...], str | None]:
        """The variables of a dataset, the registry's first, and what to say of its data."""
        at, original_ms = self._samples.get(dataset, (None, None))
        if at != slice_.time:
            fields, original_ms = self._ask_sample(dataset, slice_.time)
            self._seen[dataset] |= fields
            self._samples[dataset] = slice_.time, original_ms
        described = self._fresh(DATASETS_S, ("described", dataset), self._ask_described)
        order = {variable.name: place for place, variable in enumerate(variables.VARIABLES)}
        names = sorted(self._seen[dataset], key=lambda name: (order.get(name, 999), name))
        choices = tuple(self._choice(name, described.get(name, "")) for name in names)
        return choices, _notice(dataset, original_ms)

    def _ask_sample(self, dataset: str, at: datetime) -> tuple[set[str], float | None]:
        """The variables of some readings, and the newest time that they were read from [ms]."""
        objects = [
            row[0]
            for row in self._query(
                'SELECT data FROM demo.climate_data WHERE dataset = ? AND "timestamp" = ? LIMIT 50',
                [dataset, at],
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

    def _ask_described(self, dataset: str) -> dict[str, str]:
        return dict(
            self._query(
                "SELECT variable, unit FROM demo.datasets WHERE dataset = ?", [dataset]
            ).rows
        )

    @staticmethod
    def _choice(name: str, unit: str) -> Choice:
        known = variables.by_name(name)
        if known is None:
            return Choice(name, name, unit)
        return Choice(name, known.label, known.shown_unit)

    # ------------------------------------------------------------------------------- fields

    def _frame(self, dataset: str, variable: str, slice_: _Slice) -> dict[str, Any]:
        field = self._field(dataset, variable, slice_)
        known = variables.by_name(variable)
        factor = 1.0 if known is None else known.shown_factor
        described = self._fresh(DATASETS_S, ("described", dataset), self._ask_described)
        choice = self._choice(variable, described.get(variable, ""))
        legend = Legend(
            label=choice.label,
            unit=choice.unit,
            colors=COLORS[field.scale.colors],
            ticks=tuple(f"{knot * factor:.6g}".replace("-", MINUS) for knot in field.scale.knots),
        )
        if field.picture is None:
            return {"legend": legend}
        address = urlencode(
            {
                "dataset": dataset,
                "variable": variable,
                "time": _iso(slice_.time),
                "version": slice_.version,
            }
        )
        frame = Frame(
            time=slice_.time,
            picture=f"/field.png?{address}",
            south=field.picture.south,
            north=field.picture.north,
            west=field.picture.west,
            east=field.picture.east,
            cells=slice_.cells,
            low=field.low * factor,
            mean=field.mean * factor,
            high=field.high * factor,
        )
        return {"legend": legend, "frame": frame}

    def _field(self, dataset: str, variable: str, slice_: _Slice) -> _Field:
        key = (dataset, variable, slice_.time, slice_.version)
        field = self._fields.pop(key, None)
        if field is None:
            field = self._draw(dataset, variable, slice_)
        self._fields[key] = field
        while len(self._fields) > KEPT_PICTURES:
            del self._fields[next(iter(self._fields))]
        return field

    def _draw(self, dataset: str, variable: str, slice_: _Slice) -> _Field:
        value = _value(variable)
        where = f'WHERE dataset = ? AND "timestamp" = ? AND {value} IS NOT NULL'
        parameters = [dataset, _iso(slice_.time)]
        ((low, mean, high),) = self._query(
            f"SELECT min({value}), avg({value}), max({value}) FROM demo.climate_data {where}",  # noqa: S608
            parameters,
        ).rows
        scale = self._scale(dataset, variable, low, high)
        if low is None:
            return _Field(None, scale, math.nan, math.nan, math.nan)
        latitude, longitude = "latitude(geo_location)", "longitude(geo_location)"
        if slice_.cells <= MAX_CELLS:
            rows = self._query(
                f"SELECT {latitude} AS latitude, {longitude} AS longitude, {value} AS value "  # noqa: S608
                f"FROM demo.climate_data {where}",
                parameters,
            ).rows
            y, x, values = np.array(rows, np.float64).T
            return _Field(draw(y, x, values, scale), scale, low, mean, high)
        ((south, north, west, east),) = self._query(
            f"SELECT min({latitude}), max({latitude}), min({longitude}), max({longitude}) "  # noqa: S608
            f"FROM demo.climate_data {where}",
            parameters,
        ).rows
        height, width = north - south, east - west
        side = max(math.sqrt(height * width / MAX_CELLS), (height + width) / MAX_CELLS)
        box = max(math.ceil(20.0 * side), 1) / 20.0
        rows = self._query(
            f"SELECT floor({latitude} / {box}) AS y, floor({longitude} / {box}) AS x, "  # noqa: S608
            f"avg({value}) AS value FROM demo.climate_data {where} GROUP BY 1, 2",
            parameters,
        ).rows
        y, x, values = np.array(rows, np.float64).T
        picture = draw((y + 0.5) * box, (x + 0.5) * box, values, scale)
        return _Field(picture, scale, low, mean, high)

    def _scale(self, dataset: str, variable: str, low: float | None, high: float | None) -> Scale:
        """The registry's scale; for what it does not know one that only ever grows."""
        known = variables.by_name(variable)
        if known is not None:
            return known.scale
        scale = self._free_scales.get((dataset, variable))
        if low is None or high is None:
            return scale or Scale("dusk", (0.0, 0.5, 1.0))
        if scale is None:
            scale = _round_scale(low, high)
        elif low < scale.vmin or high > scale.vmax:
            scale = _round_scale(min(low, scale.vmin), max(high, scale.vmax))
        self._free_scales[dataset, variable] = scale
        return scale

    def _series(self, dataset: str, variable: str) -> list[tuple[datetime, float, float, float]]:
        value = _value(variable)
        known = variables.by_name(variable)
        factor = 1.0 if known is None else known.shown_factor
        rows = self._query(
            f'SELECT "timestamp" AS ts, min({value}) AS "min", avg({value}) AS "avg", '  # noqa: S608
            f'max({value}) AS "max" FROM demo.climate_data '
            f"WHERE dataset = ? AND {value} IS NOT NULL "
            f'GROUP BY "timestamp" ORDER BY "timestamp" DESC LIMIT {SERIES_TIMES}',
            [dataset],
        ).rows
        return [
            (at, low * factor, mean * factor, high * factor)
            for at, low, mean, high in reversed(rows)
        ]

    # ------------------------------------------------------------------------------- counts

    def _counts(self) -> dict[str, Any]:
        return self._fresh(COUNTS_S, ("counts",), self._ask_counts)

    def _ask_counts(self) -> dict[str, Any]:
        ((readings,),) = self._query("SELECT count(*) FROM demo.climate_data").rows
        ((dead,),) = self._query("SELECT count(*) FROM demo.dead_letters").rows
        since = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=4 * IDLE_S)
        rows = self._query(
            'SELECT "time", instance, "rows", "offset", high_water, stored_p50_ms, stored_p95_ms '
            'FROM demo.pipeline WHERE "time" > ? ORDER BY "time" DESC LIMIT 1000',
            [_iso(since)],
        ).rows
        return {
            "readings": readings,
            "dead_letters": dead,
            "pace": _pace(rows, datetime.fromtimestamp(self._clock(), UTC)),
        }


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


def _value(variable: str) -> str:
    """A variable as SQL; any text is a name."""
    return "data['{}']".format(variable.replace("'", "''"))


def _iso(at: datetime) -> str:
    """A time as both engines take it for a parameter: CrateDB reads a number as ms, DuckDB not."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
