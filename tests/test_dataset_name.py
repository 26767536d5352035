"""The dataset is found from what files say, and never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from climatestream.sources.dataset_name import Evidence, Unknown, find

if TYPE_CHECKING:
    from numpy.typing import NDArray

CFGRIB = '2025-10-29T07:53 GRIB to CDM+CF via cfgrib-0.9.15.0/ecCodes-2.42.0 with {"source": "%s"}'
REDUCE = (
    CFGRIB
    % "2m_temperature.grib"
    + "\nearthkit.transforms.aggregate.temporal.daily_reduce(2m_temperature_0, "
    "how=%s, **{'time_shift': {%s}})"
)
MODA = CFGRIB.replace("}", ', "filter_by_keys": {"stream": ["moda"]}}') % "data.grib"
MARS = "2020-01-15 08:23:42 GMT by grib_to_netcdf-2.15.0: grib_to_netcdf -o a.nc b.grib"


def times(*values: str) -> NDArray[np.int64]:
    return np.array(values, "datetime64[ns]").astype(np.int64)


def every(hours: int, count: int = 4, start: str = "2025-08-10") -> NDArray[np.int64]:
    step = np.timedelta64(hours, "h") * np.arange(count)
    return (np.datetime64(start, "ns") + step).astype(np.int64)


def named(time_ns: NDArray[np.int64], step: float = 0.1, **evidence: Any) -> str:
    axis = np.arange(5, dtype=np.float64) * step
    return find(Evidence(**evidence), 50 - axis, 8 + axis, time_ns)


DAYS, HOURS = every(24), every(1)
MONTHS = times("2020-01-01", "2020-02-01", "2020-03-01")
MIDDLES = times("2020-01-16T12", "2020-02-15")
ONE = times("2025-02-01")
MEAN = {"history": REDUCE % ("mean", "'hours': 0")}

FOUND: list[tuple[NDArray[np.int64], float, dict[str, Any], str]] = [
    # The grid.
    (HOURS, 0.1, {}, "era5-land/hourly"),
    (HOURS, 0.10001111, {}, "era5-land/hourly"),
    (HOURS, 0.25, {}, "era5/hourly"),
    (HOURS, 1.0, {"names": ("era5_2t.nc",)}, "era5/hourly"),
    (HOURS, 1.0, {"text": "ERA5-Land regridded"}, "era5-land/hourly"),
    (HOURS, 0.1, {"names": ("era5-germany.nc",)}, "era5-land/hourly"),
    (HOURS, 0.5, {"archive_class": "ea", "centre": "ecmf"}, "era5/hourly"),
    (HOURS, 0.25, {"archive_class": "l5", "centre": "ecmf"}, "era5-land/hourly"),
    # The day of what accumulates: the Data Store counts its 00:00 to the day that ends then.
    (
        DAYS,
        0.25,
        {"history": REDUCE % ("sum", "'hours': -1"), "step_type": "accum"},
        "era5/daily-sum",
    ),
    (
        DAYS,
        0.25,
        {"history": REDUCE % ("mean", "'hours': 4"), "step_type": "avg"},
        "era5/daily-mean/utc+05",
    ),
    (
        DAYS,
        0.25,
        {"history": REDUCE % ("mean", "'hours': -1"), "step_type": "instant"},
        "era5/daily-mean/utc-01",
    ),
    # The times.
    (every(6), 0.1, {}, "era5-land/hourly"),
    (HOURS, 0.25, {"history": MARS}, "era5/hourly"),
    (times("2020-01-01T00", "2020-01-01T05", "2020-03-07T11"), 0.25, {}, "era5/hourly"),
    (MONTHS, 0.25, {"history": MARS}, "era5/monthly-mean"),
    (
        MIDDLES,
        0.25,
        {"cell_methods": "time: mean"},
        "era5/monthly-mean",
    ),
    (MONTHS, 0.25, {"cell_methods": "time: maximum"}, "era5/monthly-maximum"),
    (ONE, 0.1, {"names": ("era5-land-monthly-t.nc",)}, "era5-land/monthly-mean"),
    # The stream of the archive.
    (ONE, 0.1, {"history": MODA}, "era5-land/monthly-mean"),
    (ONE, 0.1, {"stream": "moda"}, "era5-land/monthly-mean"),
    (ONE, 0.1, {"stream": "mnth"}, "era5-land/monthly-mean-by-hour"),
    (ONE, 0.1, {"stream": "oper"}, "era5-land/hourly"),
    # What was done to the values.
    (DAYS, 0.1, MEAN, "era5-land/daily-mean"),
    (ONE, 0.1, MEAN, "era5-land/daily-mean"),
    (DAYS, 0.25, {"history": REDUCE % ("max", "'hours': 0")}, "era5/daily-maximum"),
    (DAYS, 0.1, {"history": REDUCE % ("min", "'hours': 1")}, "era5-land/daily-minimum/utc+01"),
    (DAYS, 0.1, {"history": REDUCE % ("sum", "'hours': -5")}, "era5-land/daily-sum/utc-05"),
    (
        DAYS,
        0.1,
        {"history": REDUCE % ("mean", "'hours': 5, 'minutes': 30")},
        "era5-land/daily-mean/utc+05:30",
    ),
    (DAYS, 0.1, {"history": "earthkit.transforms.temporal.daily_mean(t)"}, "era5-land/daily-mean"),
    (DAYS, 0.1, {"history": "cdo daymax a.nc b.nc"}, "era5-land/daily-maximum"),
    (MONTHS, 0.1, {"history": "cdo -monmean a.nc b.nc"}, "era5-land/monthly-mean"),
    (DAYS, 0.1, {"history": "cdo daymean b c\ncdo daymin a b"}, "era5-land/daily-minimum"),
    # The name of the file, and attributes.
    (DAYS, 0.1, {"names": ("2m_temperature_0_daily-mean.nc",)}, "era5-land/daily-mean"),
    (DAYS, 0.1, {"names": ("a.zip", "t2m_daily_max.nc")}, "era5-land/daily-maximum"),
    (
        DAYS,
        0.1,
        {"names": ("t_daily-mean.nc",), "time_shift": "-1 days +19:00:00"},
        "era5-land/daily-mean/utc-05",
    ),
    (
        DAYS,
        0.25,
        {"names": ("OBS6_ERA5_day_tas.nc",), "cell_methods": "day_of_year: year: mean"},
        "era5/daily-mean",
    ),
    (
        DAYS,
        0.25,
        {"names": ("tasmax_day_ERA5.nc",), "cell_methods": "area: mean time: maximum"},
        "era5/daily-maximum",
    ),
    # A name that the times belie says nothing.
    (HOURS, 0.1, {"names": ("daily_climate.nc", "data_0.nc")}, "era5-land/hourly"),
    (HOURS, 0.1, {"names": ("monthly-download.nc",)}, "era5-land/hourly"),
    (HOURS, 0.1, {"cell_methods": "time: maximum (interval: 1 hour)"}, "era5-land/hourly"),
]


@pytest.mark.parametrize(("time_ns", "step", "evidence", "expected"), FOUND)
def test_the_dataset_is_found(
    time_ns: NDArray[np.int64], step: float, evidence: dict[str, Any], expected: str
) -> None:
    assert named(time_ns, step, **evidence) == expected


UNKNOWN: list[tuple[NDArray[np.int64], float, dict[str, Any], str]] = [
    (HOURS, 20.0, {}, "neither 0.1 degree"),
    (HOURS, 0.25, {"names": ("era5-land.nc",)}, "its grid is ERA5's"),
    (HOURS, 0.25, {"centre": "kwbc"}, "'kwbc'"),
    (HOURS, 0.1, {"archive_class": "od"}, "'od'"),
    (ONE, 0.1, {}, "single time"),
    (DAYS, 0.1, {}, "24 hours apart"),
    (every(24, start="2025-08-10T12:00"), 0.25, {"history": MARS}, "24 hours apart"),
    (DAYS, 0.1, {"names": ("daily_climate.nc",)}, "24 hours apart"),
    (MONTHS + 86_400_000_000_000, 0.25, {}, "hours apart"),
    (every(1, start="2025-08-10T00:30"), 0.1, {}, "not on the hour"),
    (every(3), 0.1, {"cell_methods": "time: mean"}, "mean over 3 hours"),
    (DAYS, 0.1, {**MEAN, "names": ("t_daily-max.nc",)}, "history says daily mean"),
    (DAYS, 0.1, {"names": ("t_daily-max.nc",), "time_shift": "an hour"}, "can't be read"),
]


@pytest.mark.parametrize(("time_ns", "step", "evidence", "why"), UNKNOWN)
def test_what_can_mean_two_things_is_not_known_and_says_why(
    time_ns: NDArray[np.int64], step: float, evidence: dict[str, Any], why: str
) -> None:
    with pytest.raises(Unknown, match=why):
        named(time_ns, step, **evidence)


def test_a_single_cell_is_of_the_product_that_it_names() -> None:
    point = np.array([50.0]), np.array([8.0])
    assert find(Evidence(text="ERA5-Land hourly"), *point, HOURS) == "era5-land/hourly"
    with pytest.raises(Unknown, match="grid step, none"):
        find(Evidence(text="ERA5 hourly"), *point, HOURS)


def test_a_grid_of_two_steps_is_no_products() -> None:
    axis = np.arange(5, dtype=np.float64)
    with pytest.raises(Unknown, match=r"0\.1 by 0\.25"):
        find(Evidence(), axis * 0.1, axis * 0.25, HOURS)
