"""What the Climate Data Store is asked for a request: one month and one box at a time.

Its datasets and parameters are those of its web forms
(https://cds.climate.copernicus.eu/datasets), the statistics those of "ERA5 family post-processed
daily statistics documentation"
(https://confluence.ecmwf.int/display/CKB/ERA5+family+post-processed+daily+statistics+documentation).
Nothing here talks to anyone.
"""

from __future__ import annotations

import hashlib
import math
import re
from calendar import monthrange
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from climatestream import variables
from climatestream.errors import NotServed, UsageError
from climatestream.sources import accumulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from climatestream.sources.request import Area, Request

LAND_HOURLY: Final = "reanalysis-era5-land"
LAND_DAILY: Final = "derived-era5-land-daily-statistics"
LAND_SERIES: Final = "reanalysis-era5-land-timeseries"
ERA5_DAILY: Final = "derived-era5-single-levels-daily-statistics"

THEIRS: Final[Mapping[str, str]] = {
    LAND_HOURLY: accumulated.HOURLY,
    LAND_DAILY: "era5-land/daily-mean",
    LAND_SERIES: accumulated.HOURLY,
    ERA5_DAILY: "era5/daily-mean",
}
"""The Data Store's datasets, and what each is read as where nothing else is said."""

STATISTICS: Final[Mapping[str, str]] = {
    "daily-mean": "daily_mean",
    "daily-minimum": "daily_minimum",
    "daily-maximum": "daily_maximum",
    "daily-sum": "daily_sum",
}

IN_SERIES: Final = {
    *("temperature", "2m_dewpoint_temperature", "pressure", "u10", "v10", "snow_cover"),
    *("total_precipitation", "surface_solar_radiation_downwards"),
    "surface_thermal_radiation_downwards",
}
"""What the time series of points has; it is a part of ERA5-Land's variables."""

FIRST_DAY: Final = {
    LAND_HOURLY: date(1950, 1, 1),
    LAND_DAILY: date(1950, 1, 1),
    LAND_SERIES: date(1950, 1, 2),
    ERA5_DAILY: date(1940, 1, 1),
}
HOURS = [f"{hour:02d}:00" for hour in range(24)]


@dataclass(frozen=True)
class Ask:
    """One request to the Data Store.

    Parameters
    ----------
    collection
        Its dataset.
    inputs
        Its parameters, as its web form writes them.
    label
        What it is for, for people: `2025-08`, or the days of a month that it is for.
    last_day
        The last day of data that it is for.
    """

    collection: str
    inputs: Mapping[str, Any]
    label: str
    last_day: date

    @property
    def key(self) -> str:
        """A name of what is asked for, the same for the same parameters in any order."""
        said = {"collection": self.collection, "inputs": dict(self.inputs)}
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:32]

    @property
    def month(self) -> tuple[str, str] | None:
        """Year and month, where it asks for days of a month."""
        if "day" not in self.inputs:
            return None
        year, month = self.inputs["year"], self.inputs["month"]
        return str(year), str(month if isinstance(month, str) else month[0])

    @property
    def values(self) -> int:
        """How many combinations of its parameters it asks for: what the service's cost grows by."""
        lists = (self.inputs.get(name, ()) for name in ("variable", "day", "time"))
        return math.prod(len(some) for some in lists if isinstance(some, list))

    def on_days(self, days: Sequence[str]) -> Ask:
        """The same for some of its days only."""
        year, month = map(int, self.month or ())
        before, now = (
            [date(year, month, int(day)) for day in some] for some in (self.inputs["day"], days)
        )
        return replace(
            self,
            inputs={**self.inputs, "day": list(days)},
            label=self.label.replace(_span(before), _span(now), 1),
            last_day=now[-1],
        )

    def halves(self) -> tuple[Ask, Ask] | None:
        """The same in two: days first, then variables, then hours; None: it can't be divided."""
        for name in ("day", "variable", "time"):
            values = self.inputs.get(name)
            if not isinstance(values, list) or len(values) < 2:
                continue
            middle = (len(values) + 1) // 2
            first, second = values[:middle], values[middle:]
            if name == "day":
                return self.on_days(first), self.on_days(second)
            whole = self.label.removesuffix(f" {values[0]}..")
            one, two = (
                replace(
                    self,
                    inputs={**self.inputs, name: part},
                    label=f"{whole} {part[0]}" + (".." if len(part) > 1 else ""),
                )
                for part in (first, second)
            )
            return one, two
        return None


def dataset_of(name: str) -> tuple[str, str | None]:
    """Our name for what someone calls a dataset, and the Data Store's where it was that.

    Parameters
    ----------
    name
        Ours (`era5-land/daily-mean/utc+01`), or the Data Store's.

    Raises
    ------
    UsageError
        There is no name.
    """
    if not name:
        raise UsageError(
            "cds: has no dataset: name one, as in cds:era5-land/daily-mean, or one of the Data "
            f"Store's: {', '.join(THEIRS)}"
        )
    return (THEIRS[name], name) if name in THEIRS else (name, None)


def plan(request: Request, named: str | None = None) -> list[Ask]:
    """What to ask for, in order of time: a month and a box each, or a point's whole span.

    Parameters
    ----------
    request
        What is wanted.
    named
        The Data Store's dataset, where it was named.

    Raises
    ------
    NotServed
        The Data Store does not have it.
    UsageError
        It has no such variable.
    """
    collection = _collection(request, named)
    names = _variables(request, collection)
    days = _days(request, collection)
    if collection == LAND_SERIES:
        return [_series(request, names, days)]
    if request.dataset == accumulated.DAILY_SUM:
        # The total of a day is the 00 UTC step of the next: docstring of `accumulated`.
        days = [day + timedelta(days=1) for day in days]
    of = _MAKERS[collection]
    asks = [
        of(request, area, names, month) for month in _months(days) for area in request.area.parts()
    ]
    sums = [name for name in names if _accumulates(name)]
    before = [days[0] - timedelta(days=1)]
    from_midnight = (
        request.start_ns % accumulated.DAY_NS == 0 and before[0] >= FIRST_DAY[collection]
    )
    if request.dataset == accumulated.HOURLY and sums and from_midnight:
        # 00:00 of the first day ends the last hour of the day before.
        extra = [of(request, area, sums, before) for area in request.area.parts()]
        asks = [
            replace(ask, inputs={**ask.inputs, "time": ["23:00"]}, label=f"{before[0]} 23:00")
            for ask in extra
        ] + asks
    return asks


def _collection(request: Request, named: str | None) -> str:
    """The Data Store's dataset for a request."""
    dataset, statistic = request.dataset, request.statistic
    if request.product == "era5-land":
        if dataset == accumulated.HOURLY:
            point = request.area.point is not None
            if named == LAND_SERIES and not point:
                raise NotServed(
                    "region",
                    f"{LAND_SERIES} gives a single point: name it, as in --region "
                    "latitude=50.11,longitude=8.68, or read cds:era5-land/hourly",
                )
            if named is not None:
                return named
            return LAND_SERIES if point and {*request.variables} <= IN_SERIES else LAND_HOURLY
        if dataset == accumulated.DAILY_SUM:
            return LAND_HOURLY
        if statistic in STATISTICS and statistic != "daily-sum":
            return LAND_DAILY
    elif statistic in STATISTICS:
        return ERA5_DAILY
    raise NotServed(
        "dataset",
        f"the Climate Data Store does not give {dataset} as one: it gives era5-land/hourly, "
        "era5-land/daily-mean, -minimum, -maximum and (of UTC days) -sum, and era5/daily-mean, "
        "-minimum, -maximum and -sum",
    )


def _variables(request: Request, collection: str) -> list[str]:
    """The names in a request, sorted; refuses what has no such statistic."""
    land = request.product == "era5-land"
    known = [variables.by_name(name) for name in request.variables]
    for name, variable in zip(request.variables, known, strict=True):
        if variable is None or not request.statistic.startswith("daily"):
            continue
        if variable.accumulated and land and request.statistic != "daily-sum":
            raise NotServed(
                "variable",
                f"{name} is an amount, of which a day has a sum and ERA5-Land no "
                f"{request.statistic}: read cds:{accumulated.DAILY_SUM}",
            )
        if not variable.accumulated and request.statistic == "daily-sum":
            raise NotServed(
                "variable",
                f"{name} is no amount that could be summed over a day: read "
                f"cds:{request.product}/daily-mean",
            )
    if collection == LAND_SERIES and (lacking := sorted({*request.variables} - IN_SERIES)):
        raise NotServed(
            "variable",
            f"{LAND_SERIES} does not have {', '.join(lacking)}: read cds:era5-land/hourly",
        )
    return sorted(
        name if variable is None else variable.cds_name
        for name, variable in zip(request.variables, known, strict=True)
    )


def _accumulates(cds_name: str) -> bool:
    variable = variables.by_cds_name(cds_name)
    return variable is not None and variable.accumulated


def _days(request: Request, collection: str) -> list[date]:
    """The days that a request touches; of daily statistics, those that begin within."""
    start, end = request.start_ns, request.end_ns
    if request.statistic != "hourly":
        start = -(-start // accumulated.DAY_NS) * accumulated.DAY_NS
    first, last = _day(start), _day(end - 1)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    kept = [day for day in days if day >= FIRST_DAY[collection]]
    if not kept:
        raise NotServed(
            "time",
            f"the Climate Data Store has {request.dataset} from {FIRST_DAY[collection]}, and "
            f"{_day(request.start_ns)} to {_day(end - 1)} is asked for, in which no day of it "
            "begins",
        )
    return kept


def _day(time_ns: int) -> date:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).date()


def _months(days: Sequence[date]) -> Iterator[list[date]]:
    month: list[date] = []
    for day in days:
        if month and (day.year, day.month) != (month[0].year, month[0].month):
            yield month
            month = []
        month.append(day)
    yield month


def _box(area: Area) -> list[float]:
    return [area.north, area.west, area.south, area.east]


def _when(month: Sequence[date]) -> dict[str, Any]:
    return {
        "year": f"{month[0].year}",
        "month": f"{month[0].month:02d}",
        "day": [f"{day.day:02d}" for day in month],
    }


def _label(area: Area, month: Sequence[date]) -> str:
    side = " west of 180" if area.east > 179.0 and area.west > 0 else ""
    return f"{_span(month)}{side}"


def _span(month: Sequence[date]) -> str:
    """Days of a month for people: `2025-08` where it is whole, `2025-08-03..07`, `2025-08-03`."""
    first, last = month[0], month[-1]
    if len(month) == monthrange(first.year, first.month)[1]:
        return f"{first:%Y-%m}"
    return f"{first}" if first == last else f"{first}..{last:%d}"


def _hourly(request: Request, area: Area, names: Sequence[str], month: Sequence[date]) -> Ask:
    inputs = {
        "variable": list(names),
        **_when(month),
        "time": ["00:00"] if request.dataset == accumulated.DAILY_SUM else HOURS,
        "data_format": "netcdf",
        "download_format": "unarchived",
        "area": _box(area),
    }
    return Ask(LAND_HOURLY, inputs, _label(area, month), month[-1])


def _daily(request: Request, area: Area, names: Sequence[str], month: Sequence[date]) -> Ask:
    zone, sampled = _suffix(request)
    era5 = request.product == "era5"
    inputs = {
        **({"product_type": "reanalysis"} if era5 else {}),
        "variable": list(names),
        **_when(month),
        "daily_statistic": STATISTICS[request.statistic],
        "time_zone": zone,
        "frequency": sampled,
        "area": _box(area),
    }
    return Ask(ERA5_DAILY if era5 else LAND_DAILY, inputs, _label(area, month), month[-1])


def _suffix(request: Request) -> tuple[str, str]:
    """Time zone and sampling of a daily statistic, as the web form writes them."""
    said = re.fullmatch(r"(?:utc([+-]\d{2}))?/?(?:([36])-hourly)?", request.suffix)
    hours = int(said[1] or 0) if said else 0
    if said is None or said[1] in {"+00", "-00"} or not -12 <= hours <= 14:
        raise NotServed(
            "dataset",
            f"the Climate Data Store has no {request.dataset}: after the statistic comes a time "
            "zone other than UTC's in whole hours of -12..+14 (utc+01), then 3-hourly or 6-hourly "
            "where not every hour counts",
        )
    return f"utc{hours:+03d}:00", f"{said[2] or 1}_hourly"


def _series(request: Request, names: Sequence[str], days: Sequence[date]) -> Ask:
    latitude, longitude = request.area.point or (0.0, 0.0)
    inputs = {
        "variable": list(names),
        "location": {"longitude": longitude, "latitude": latitude},
        "date": [f"{days[0]}/{days[-1]}"],
        "data_format": "netcdf",
    }
    return Ask(LAND_SERIES, inputs, f"{days[0]}..{days[-1]}", days[-1])


_MAKERS: Final[Mapping[str, Callable[[Request, Area, Sequence[str], Sequence[date]], Ask]]] = {
    LAND_HOURLY: _hourly,
    LAND_DAILY: _daily,
    ERA5_DAILY: _daily,
}
