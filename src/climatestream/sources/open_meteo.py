"""`open-meteo:`: the hours of a single point without a key, as a last resort, when it is named.

Open-Meteo's archive (https://open-meteo.com/en/docs/historical-weather-api) gives ERA5-Land's cells
rounded to a tenth of its unit, and wind as speed and direction. Such values are no ERA5-Land
readings to the last bit, so the dataset says whose they are: `era5-land/hourly/open-meteo`. They
never meet those of another source in a row, and `auto:` does not choose it.

Its terms: no commercial use, 600 calls a minute and 10,000 a day, where a call of more than ten
variables or two weeks counts for several (https://open-meteo.com/en/terms).
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import numpy as np

from climatestream import countries
from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.model import Batch, Cells, Slice
from climatestream.progress import say
from climatestream.sources.archives import dataset_of
from climatestream.sources.preliminary import final_before_ns
from climatestream.sources.request import request_of

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from climatestream.sources.selection import Selection

URL: Final = "https://archive-api.open-meteo.com/v1/archive"
URL_ENVIRONMENT: Final = "CLIMATESTREAM_OPEN_METEO_URL"

SERVES: Final = "era5-land/hourly"
DATASET: Final = "era5-land/hourly/open-meteo"

CALLS_A_DAY: Final = 10_000
CALL_DAYS: Final = 14
"""What one call may ask for before it counts for several: days, of ten variables."""
CALLS_A_MINUTE: Final = 600

REQUEST_DAYS: Final = 366
TIMEOUT_S: Final = 60.0
TRIES: Final = 4
DAY_NS: Final = 86_400_000_000_000

_TOO_MANY: Final = 429
_SERVER: Final = 500

_KELVIN: Final = 273.15
_WIND: Final = ("wind_speed_10m", "wind_direction_10m")


@dataclass(frozen=True)
class _Variable:
    """What is asked for, and what makes the file's unit of it."""

    asked: tuple[str, ...]
    made: Callable[..., NDArray[np.float64]]


def _eastward(speed: NDArray[np.float64], from_degree: NDArray[np.float64]) -> Any:
    return -speed * np.sin(np.radians(from_degree))


def _northward(speed: NDArray[np.float64], from_degree: NDArray[np.float64]) -> Any:
    return -speed * np.cos(np.radians(from_degree))


def _kelvin(celsius: NDArray[np.float64]) -> NDArray[np.float64]:
    return celsius + _KELVIN


VARIABLES: Final[Mapping[str, _Variable]] = {
    "temperature": _Variable(("temperature_2m",), _kelvin),
    "2m_dewpoint_temperature": _Variable(("dew_point_2m",), _kelvin),
    "pressure": _Variable(("surface_pressure",), lambda hpa: hpa * 100.0),
    "total_precipitation": _Variable(("precipitation",), lambda mm: mm / 1000.0),
    "u10": _Variable(_WIND, _eastward),
    "v10": _Variable(_WIND, _northward),
}
"""By our name; precipitation is the sum of the hour before, as ours is."""

_UNITS: Final = {
    "temperature_2m": "°C",
    "dew_point_2m": "°C",
    "surface_pressure": "hPa",
    "precipitation": "mm",
    "wind_speed_10m": "m/s",
    "wind_direction_10m": "°",
}


class OpenMeteo:
    """The source `open-meteo:era5-land/hourly`.

    Parameters
    ----------
    spec
        As it is typed.
    selection
        With a point as region, and both dates.
    stop
        Ends a wait.

    Raises
    ------
    UsageError
        No dataset is named, another one is stated, or there are no dates.
    NotServed
        It is no point, or another dataset or variable, or more than a day's calls.
    """

    def __init__(
        self,
        spec: str,
        selection: Selection,
        stop: threading.Event,
        *,
        say: Callable[[str], None] = say,
        now_ns: Callable[[], int] = time.time_ns,
        wait_s: float = 1.0,
    ) -> None:
        dataset = dataset_of(spec)
        if selection.dataset not in {None, dataset, DATASET}:
            raise UsageError(f"{spec} can't be stated to be {selection.dataset!r}: leave it out")
        if dataset not in {SERVES, DATASET}:
            raise NotServed("dataset", f"open-meteo: has no {dataset}, only {SERVES}: take cds:")
        request = request_of(SERVES, selection)
        if request.area.point is None:
            raise NotServed(
                "region",
                "open-meteo: gives single points: name one, as in --region "
                "latitude=50.11,longitude=8.68, or take auto:",
            )
        lacking = [name for name in request.variables if name not in VARIABLES]
        if lacking:
            raise NotServed(
                "variable",
                f"open-meteo: has no {', '.join(lacking)}, only {', '.join(VARIABLES)}",
            )
        self._request = request
        self._point = request.area.point
        self._asked = tuple(dict.fromkeys(a for n in request.variables for a in VARIABLES[n].asked))
        self._stop = stop
        self._say = say
        self._now_ns = now_ns
        self._wait_s = wait_s
        self._time_ns: NDArray[np.int64] = np.empty(0, np.int64)
        self._values: dict[str, NDArray[np.float64]] = {}
        days = (request.end_ns - request.start_ns) / DAY_NS
        self._calls = max(1, math.ceil(days / CALL_DAYS))
        if self._calls > CALLS_A_DAY:
            raise NotServed(
                "limit",
                f"open-meteo: takes {CALLS_A_DAY:,} calls a day, and this is {self._calls:,}: ask "
                "for fewer years",
            )

    def __enter__(self) -> Self:
        """Ask for all of it: a point's hours are small.

        Raises
        ------
        SourceUnavailable
            It does not answer, or has had too many calls.
        NotServed, SourceError
            It has nothing at these times, or answers something else.
        """
        spans = list(self._spans())
        self._say(
            f"{DATASET} from Open-Meteo, rounded and without a key: {len(spans)} requests, "
            f"{self._calls:,} calls of its {CALLS_A_DAY:,} a day"
        )
        times, parts = [], []
        for number, (first, last) in enumerate(spans):
            if number:  # a request is several calls: kept below those of a minute
                self._pause(60.0 * REQUEST_DAYS / CALL_DAYS / CALLS_A_MINUTE * self._wait_s)
            hourly = self._hours(first, last)
            times.append(np.array(hourly["time"], np.int64) * 1_000_000_000)
            parts.append({n: np.array(hourly[n], np.float64) for n in self._asked})
        time_ns = np.concatenate(times)
        columns = {n: np.concatenate([part[n] for part in parts]) for n in self._asked}
        values = {
            name: VARIABLES[name].made(*(columns[a] for a in VARIABLES[name].asked))
            for name in self._request.variables
        }
        there = np.any([np.isfinite(column) for column in values.values()], axis=0)
        there &= (time_ns >= self._request.start_ns) & (time_ns < self._request.end_ns)
        if not there.any():
            raise NotServed("time", "open-meteo: has nothing at these times, or not yet")
        self._time_ns = time_ns[there]
        self._values = {name: column[there] for name, column in values.items()}
        latitude, longitude = (np.array([place]) for place in self._point)
        country = countries.CODES_OR_NONE[countries.lookup(latitude, longitude).ravel()].tolist()
        self._cells = Cells(latitude, longitude, country)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is open."""

    def slices(self) -> Sequence[Slice]:
        return [Slice(time_ns, DATASET) for time_ns in self._time_ns.tolist()]

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The reading of an hour; preliminary by its date."""
        place = int(np.searchsorted(self._time_ns, slice_.time_ns))
        values = {name: column[place : place + 1] for name, column in self._values.items()}
        early = np.array([slice_.time_ns >= final_before_ns(self._now_ns())])
        yield Batch(DATASET, slice_.time_ns, self._cells, values, early)

    # -------------------------------------------------------------------------------- pieces

    def _spans(self) -> Iterator[tuple[date, date]]:
        """The days, a year a request."""
        first, last = (
            datetime.fromtimestamp(at // 1_000_000_000, UTC).date()
            for at in (self._request.start_ns, self._request.end_ns - 1)
        )
        while first <= last:
            end = min(last, first + timedelta(REQUEST_DAYS - 1))
            yield first, end
            first = end + timedelta(1)

    def _hours(self, first: date, last: date) -> dict[str, Any]:
        latitude, longitude = self._point
        query = {
            "latitude": f"{latitude:g}",
            "longitude": f"{longitude:g}",
            "start_date": first.isoformat(),
            "end_date": last.isoformat(),
            "hourly": ",".join(self._asked),
            "models": "era5_land",
            "elevation": "nan",  # the cell's own value, not one moved to a height
            "cell_selection": "nearest",
            "timeformat": "unixtime",
            "timezone": "GMT",
            "wind_speed_unit": "ms",
        }
        answer = self._ask(f"{os.environ.get(URL_ENVIRONMENT, URL)}?{urlencode(query)}")
        try:
            hourly: dict[str, Any] = answer["hourly"]
            units = {name: answer["hourly_units"][name] for name in self._asked}
            lengths = {len(hourly[name]) for name in ("time", *self._asked)}
        except (KeyError, TypeError) as error:
            raise SourceError(
                f"open-meteo: answers without {error}: its form has changed"
            ) from error
        wrong = [f"{n} in {u}" for n, u in units.items() if u != _UNITS[n]]
        if wrong or len(lengths) != 1:
            raise SourceError(
                f"open-meteo: answers {', '.join(wrong) or 'columns of several lengths'}, expected "
                "what was asked for: its form has changed"
            )
        return hourly

    def _ask(self, url: str) -> Any:
        """The answer, tried again while it may come."""
        for attempt in range(TRIES):
            try:
                with urlopen(HttpRequest(url), timeout=TIMEOUT_S) as response:  # noqa: S310 - ours
                    return json.loads(response.read())
            except HTTPError as error:
                said = _reason(error)
                if error.code != _TOO_MANY and error.code < _SERVER:
                    lack: Any = "time" if "date" in said else "limit"
                    raise NotServed(lack, f"open-meteo: refuses it: {said}") from error
                problem = f"{error.code} {said}"
            except (URLError, OSError, HTTPException, ValueError) as error:
                problem = str(getattr(error, "reason", error))
            if attempt < TRIES - 1:
                self._pause(self._wait_s * 4**attempt)
        raise SourceUnavailable(f"open-meteo: does not answer: {problem}")

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise KeyboardInterrupt


def _reason(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)
