"""Which dataset a variable of a file belongs to: what its values are of, statistic included.

No CDS file records the name of its dataset. It is found from what the files do say: the step of
the grid, the stream of the archive, the commands in `history`, `cell_methods`, the file's name
and the times. Where these leave it open, it has to be stated.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_TOLERANCE = 0.02
"""How far a grid's step may be from the product's, as a share of it: the CDS's own daily files
of ERA5-Land have steps of 0.10001 and, once a grid, 0.101 degree."""

PRODUCT_OF_STEP = {0.1: "era5-land", 0.25: "era5"}
"""By grid step [degree], ECMWF's documentation of the two."""

PRODUCT_OF_CLASS = {"l5": "era5-land", "ea": "era5"}
"""By class in the archive (https://codes.ecmwf.int/mars/class/)."""

STATISTICS = {
    "mean": "mean",
    "avg": "mean",
    "average": "mean",
    "max": "maximum",
    "maximum": "maximum",
    "min": "minimum",
    "minimum": "minimum",
    "sum": "sum",
    "median": "median",
    "std": "standard-deviation",
}
STATISTIC = "|".join(STATISTICS)

OF_EARTHKIT = re.compile(
    rf"\b(daily|monthly)_(?:reduce\(.*?\bhow=['\"]?({STATISTIC})\b|({STATISTIC})\()"
)
OF_CDO = re.compile(rf"\b(day|mon)({STATISTIC})\b")
TIME_SHIFT = re.compile(r"time_shift['\"]?\s*[:=]\s*\{([^}]*)\}")
SHIFT_PART = re.compile(r"(days|hours|minutes)['\"]?\s*[:=]\s*(-?\d+)")
TIMEDELTA = re.compile(r"(-?\d+) days? \+?(\d+):(\d+)")
CELL_METHOD = re.compile(
    rf"\b(?:time|day|year|day_of_year|month)\s*:\s*(?:\w+:\s*)*({STATISTIC})\b"
)
DAILY_IN_NAME = re.compile(rf"(?:daily|day)[-_ ]?({STATISTIC})(?![a-z])")
DAY_IN_NAME = re.compile(r"(?<![a-z])(?:day|daily)(?![a-z])")
MONTH_IN_NAME = re.compile(r"(?<![a-z])(?:monthly|amon|mon)(?![a-z])")
STREAM = re.compile(r"[\"']stream[\"']\s*:\s*\[?\s*[\"'](\w+)")

ENDED = {"accum", "avg"}
"""Values of the hour that ends at their time. The Data Store makes days of them by shifting times
an hour more than the time zone says, so that 00:00 counts to the day that ends then."""

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
SHORTEST_MONTH_NS = 28 * DAY_NS


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a file says about a variable, besides grid and times.

    Parameters
    ----------
    names
        The file's name, and a ZIP's with its member's.
    history
        The global attribute: what made the file, a command a line.
    cell_methods
        CF's attribute of the variable.
    time_shift
        The attribute of the time axis in the CDS's daily files.
    step_type
        How a value stands to its time, in GRIB's words: `instant`, or of the hours that end at it
        `accum`, `avg`.
    centre
        Who made the data (`ecmf`); empty where it is not said.
    archive_class, stream
        ECMWF's, where the file is GRIB.
    text
        Other global attributes, in one.
    """

    names: tuple[str, ...] = ()
    history: str = ""
    cell_methods: str = ""
    time_shift: str = ""
    step_type: str = ""
    centre: str = ""
    archive_class: str = ""
    stream: str = ""
    text: str = ""


class Unknown(Exception):
    """The dataset can't be known; the text says why."""


def find(
    evidence: Evidence,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    time_ns: NDArray[np.int64],
) -> str:
    """The dataset's name: `era5-land/daily-mean`, with the day's time zone where not UTC.

    Parameters
    ----------
    latitude, longitude
        The grid's axes [degree].
    time_ns
        All times of the variable, of more than one file where these belong together.

    Raises
    ------
    Unknown
        With the reason, as half a sentence.
    """
    return f"{_product(evidence, latitude, longitude)}/{_statistic(evidence, time_ns)}"


# ------------------------------------------------------------------------------- product


def _product(
    evidence: Evidence, latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> str:
    if evidence.archive_class:
        product = PRODUCT_OF_CLASS.get(evidence.archive_class)
        if product is None:
            raise Unknown(f"its archive class is {evidence.archive_class!r}, not l5 or ea")
        return product
    if evidence.centre and evidence.centre != "ecmf":
        raise Unknown(f"its data are of the centre {evidence.centre!r}, not of the ECMWF (ecmf)")
    steps = [_step(axis) for axis in (latitude, longitude) if len(axis) > 1]
    words = " ".join((*evidence.names, evidence.history, evidence.text)).lower()
    named = re.search(r"era-?5([-_ ]?land)?", words)
    for step, product in PRODUCT_OF_STEP.items():
        if steps and all(abs(found - step) <= STEP_TOLERANCE * step for found in steps):
            if product == "era5" and named and named[1]:
                raise Unknown("its name or text says ERA5-Land, but its grid is ERA5's")
            return product
    if named and (named[1] or steps):
        return "era5-land" if named[1] else "era5"
    grid = " by ".join(f"{step:g}" for step in dict.fromkeys(steps)) or "none"
    raise Unknown(
        f"its grid step, {grid}, is neither 0.1 degree (ERA5-Land) nor 0.25 (ERA5), and its name "
        "and attributes name neither"
    )


def _step(axis: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(np.diff(axis))))


# ----------------------------------------------------------------------------- statistic


def _statistic(evidence: Evidence, time_ns: NDArray[np.int64]) -> str:
    name = " ".join(evidence.names).lower()
    in_name = DAILY_IN_NAME.search(name)
    if found := _last(OF_EARTHKIT, evidence.history):
        every, statistic = found[1], STATISTICS[found[2] or found[3]]
        if in_name and (every, statistic) != ("daily", STATISTICS[in_name[1]]):
            raise Unknown(
                f"its history says {every} {statistic} and its name daily {STATISTICS[in_name[1]]}"
            )
        return f"{every}-{statistic}{_time_zone(evidence) if every == 'daily' else ''}"
    if found := _last(OF_CDO, evidence.history):
        every = {"day": "daily", "mon": "monthly"}[found[1]]
        return f"{every}-{STATISTICS[found[2]]}"
    stream = evidence.stream
    if not stream and (said := STREAM.search(evidence.history)):
        stream = said[1]
    if stream == "moda":
        return "monthly-mean"
    if stream == "mnth":
        return "monthly-mean-by-hour"
    method = CELL_METHOD.search(evidence.cell_methods)
    step = _shortest_step(time_ns)
    if step is None or step >= DAY_NS:
        if in_name:
            return f"daily-{STATISTICS[in_name[1]]}{_time_zone(evidence)}"
        if DAY_IN_NAME.search(name) and method:
            return f"daily-{STATISTICS[method[1]]}{_time_zone(evidence)}"
    if stream in {"oper", "wave"}:
        return "hourly"
    return _of_times(time_ns, step, name, method)


def _of_times(
    time_ns: NDArray[np.int64], step: int | None, name: str, method: re.Match[str] | None
) -> str:
    """What the times alone say; where they can mean two things, nothing."""
    starts, one_a_month = _months(time_ns)
    if one_a_month and (
        (starts and (step is not None or MONTH_IN_NAME.search(name)))
        or (method and step is not None and step >= SHORTEST_MONTH_NS)
    ):
        return f"monthly-{STATISTICS[method[1]] if method else 'mean'}"
    if step is None:
        raise Unknown("it holds a single time and says nothing of what its values are")
    if step >= DAY_NS:
        raise Unknown(
            f"its times are {step / HOUR_NS:g} hours apart, which may be a value of one hour "
            "each day or one of several daily statistics"
        )
    if (time_ns % HOUR_NS).any():
        raise Unknown("its times are not on the hour")
    if method and step > HOUR_NS:
        raise Unknown(f"its values are a {STATISTICS[method[1]]} over {step / HOUR_NS:g} hours")
    return "hourly"


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last of its kind in a history is what was done to the values last."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _time_zone(evidence: Evidence) -> str:
    """The suffix of a day that does not begin at 00 UTC: `/utc+01`."""
    minutes: int | None = None
    if said := _last(TIME_SHIFT, evidence.history):
        unit = {"days": 1440, "hours": 60, "minutes": 1}
        minutes = sum(unit[name] * int(count) for name, count in SHIFT_PART.findall(said[1]))
    elif evidence.time_shift:
        # As pandas writes a difference of times: `-1 days +19:00:00` is five hours back.
        parts = TIMEDELTA.match(evidence.time_shift)
        if parts is None:
            raise Unknown(f"its day is shifted by {evidence.time_shift!r}, which can't be read")
        minutes = int(parts[1]) * 1440 + int(parts[2]) * 60 + int(parts[3])
    if minutes is not None and evidence.step_type in ENDED:
        minutes += 60
    if not minutes:
        return ""
    hours, rest = divmod(abs(minutes), 60)
    return f"/utc{'+' if minutes > 0 else '-'}{hours:02d}" + (f":{rest:02d}" if rest else "")


def _shortest_step(time_ns: NDArray[np.int64]) -> int | None:
    times = np.unique(time_ns)
    return int(np.diff(times).min()) if len(times) > 1 else None


def _months(time_ns: NDArray[np.int64]) -> tuple[bool, bool]:
    """Whether every time begins a month, and whether each is of another month."""
    times = np.unique(time_ns).astype("datetime64[ns]")
    months = times.astype("datetime64[M]")
    return bool((times == months).all()), len(np.unique(months)) == len(times)
