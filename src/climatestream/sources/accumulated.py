"""Accumulated variables (precipitation, radiation, runoff) as an analyst expects them.

What an hour and a day are, in every source:

- `.../hourly`: the amount of the hour that ends at the reading's time.
- `.../daily-sum`: the amount of the UTC day at whose beginning the reading is stamped.

What services and files hold instead, by ECMWF's "Conversion table for accumulated variables"
(https://confluence.ecmwf.int/pages/viewpage.action?pageId=197702790) and "ERA5-Land: data
documentation" (https://confluence.ecmwf.int/display/CKB/ERA5-Land%3A+data+documentation):

- ERA5-Land, hourly, accumulates from 00 UTC to the time: 01:00 holds the first hour, and 00:00 the
  whole day before. So the hour that ends at h is A(h) - A(h - 1), but at 01:00 A(1) itself; and the
  total of a day d is A(00 UTC of d + 1), nothing else.
- ERA5-Land's time series of single points (and ECMWF's Zarr) hold the amount of each hour: they
  are taken as they are (https://confluence.ecmwf.int/pages/viewpage.action?pageId=536226853).
- ERA5 on single levels accumulates over the hour that ends at the time, as is expected; the Data
  Store's daily sums of it take the hours of the day from 01:00 to 00:00 of the next.

An hour whose hour before is not there can't be told, and has no value. Differences of packed
values may be negative by the packing's step; they stay, so that the hours of a day add up to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from climatestream import variables

if TYPE_CHECKING:
    from climatestream.sources.dataset_name import Evidence, Unknown

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS

HOURLY: Final = "era5-land/hourly"
DAILY_SUM: Final = "era5-land/daily-sum"

TIME_SERIES: Final = "timeseries"
"""In the names of the Data Store's files of single points: their hours are amounts already."""


def since_midnight(found: str | Unknown, stated: str | None, name: str, evidence: Evidence) -> bool:
    """Whether values of a file are sums since 00 UTC, not amounts of an hour or a day.

    Parameters
    ----------
    found, stated
        The dataset as the file says it, and as the user does.
    name
        Ours, of the variable.
    evidence
        What the file says.
    """
    variable = variables.by_name(name)
    if variable is None or not variable.accumulated:
        return False
    if isinstance(found, str):
        sums = found == HOURLY
    else:
        # A value at 00 UTC each day is the Data Store's own step where nothing worked on it.
        raw = bool(evidence.centre or evidence.archive_class)
        sums = stated == HOURLY or (stated == DAILY_SUM and raw)
    return sums and not any(TIME_SERIES in said.lower() for said in evidence.names)


def begins(time_ns: int) -> bool:
    """Whether a sum at this time is that of its own hour alone: at 01 UTC."""
    return time_ns % DAY_NS == HOUR_NS
