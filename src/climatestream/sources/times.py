"""The times of files (CF conventions, section 4.4) as integers, exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from climatestream.codec import END_NS, FIRST_NS
from climatestream.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNIT_NS = {
    name: length
    for names, length in (
        ("nanosecond nanoseconds nanosec nanosecs ns", 1),
        ("microsecond microseconds microsec microsecs us", 1_000),
        ("millisecond milliseconds millisec millisecs msec msecs ms", 1_000_000),
        ("second seconds sec secs s", 1_000_000_000),
        ("minute minutes min mins", 60_000_000_000),
        ("hour hours hr hrs h", 3_600_000_000_000),
        ("day days d", 86_400_000_000_000),
    )
    for name in names.split()
}
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
"""Calendars whose dates are real ones. They differ before 1582 only."""

FLOAT_STEP_NS = 1_000_000
"""What times in floating point are rounded to [ns]. A float64 of days since 1850 is off by up to
half a microsecond, so 11:30 would become 11:30:00.000000301; the store keeps milliseconds."""


def decode(values: NDArray[Any], units: str, calendar: str, where: str) -> NDArray[np.int64]:
    """Times as nanoseconds since 1970-01-01, UTC.

    Parameters
    ----------
    values
        Integers, which come out exact, or floats, which are rounded to `FLOAT_STEP_NS`; finite.
    units
        As in `hours since 1900-01-01 00:00:00.0`.
    where
        What to call them in an error.

    Raises
    ------
    SourceError
        The unit or calendar is not known, there is no time, or one is not of 1900..2200.
    """
    unit, _, reference = (part.strip() for part in units.partition(" since "))
    length = UNIT_NS.get(unit.lower())
    if length is None or not reference:
        raise SourceError(
            f"{where} has units {units!r}, expected a unit from nanoseconds to days 'since' a "
            "date: rewrite the times, with 'cdo setreftime,1970-01-01,00:00,1sec' for one"
        )
    if calendar.lower() not in CALENDARS:
        raise SourceError(
            f"{where} has calendar {calendar!r}, expected one of {', '.join(CALENDARS)}: dates of "
            "other calendars are no instants"
        )
    numbers = np.atleast_1d(values)
    if not numbers.size:
        raise SourceError(f"{where} holds no times: expected at least one")
    first = int(np.floor(numbers.min()))
    # Days stand for the finer units here: the library's own count in microseconds.
    days, rest = divmod(first * length, UNIT_NS["day"])
    anchor = _date(days, reference, calendar, where) + rest
    since_first: NDArray[Any] = numbers - numbers.dtype.type(first)
    _check(anchor, anchor + float(since_first.max()) * length, where)
    since: NDArray[np.int64]
    if np.issubdtype(numbers.dtype, np.integer):
        since = since_first.astype(np.int64) * length
    else:
        steps = since_first.astype(np.float64) * (length / FLOAT_STEP_NS)
        since = np.rint(steps).astype(np.int64) * FLOAT_STEP_NS
    return since + anchor


def _date(days: int, reference: str, calendar: str, where: str) -> int:
    """The instant so many days after a reference date [ns since 1970, UTC]."""
    import cftime

    try:
        instant = cftime.num2date(
            days, f"days since {reference}", calendar, only_use_cftime_datetimes=True
        )
        year, month, day, hour, minute, second = instant.timetuple()[:6]
        real = datetime(year, month, day, hour, minute, second, instant.microsecond, UTC)
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{where} counts from {reference!r}: {error}; expected a date such as 1970-01-01"
        ) from error
    since = real - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1000


def _check(first: int, last: float, where: str) -> None:
    if not FIRST_NS <= first <= last < END_NS:
        raise SourceError(
            f"{where} reaches out of the years 1900..2200: check its units and its values"
        )
