"""Precipitation and radiation: amounts of hours and days, whatever the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from climatestream.errors import SourceError, UsageError
from tests.make_files import HOUR_NS, JANUARY_NS, Var, axes, batches, rows, t2m, write

RAIN = np.array([0.5, 0.25, 0.0, 1.0] * 6, np.float32)
"""What falls in each hour of a day: exact in float32, as are its sums [m]."""
LAND = {"title": "ERA5-Land"}


def sums(days: int = 2) -> NDArray[np.float32]:
    """Sums since midnight at 01:00 of the first day up to 00:00 after the last, as in ERA5-Land."""
    return np.concatenate([np.cumsum(RAIN)] * days).reshape(-1, 1, 1)


def cell(time: ArrayLike) -> dict[str, Var]:
    """The coordinates of one cell."""
    return axes(latitude=[50.0], longitude=[8.0], time=time)


def rain_file(
    path: Path, values: NDArray[np.float32], first_hour: int = 1, step: int = 1, **attributes: Any
) -> str:
    time = first_hour + step * np.arange(len(values))
    expver = attributes.pop("expver", None)
    variables = {
        **cell(time),
        "tp": Var(values, attributes={"units": "m", "GRIB_stepType": "accum"}),
    }
    if expver is not None:
        variables["expver"] = Var(expver, ["time"], dtype="str")
    return write(path, variables, LAND | attributes)


def rain(specs: list[str], **select: Any) -> dict[int, float]:
    """Amounts by hour since 2025."""
    return {
        (time - JANUARY_NS) // HOUR_NS: values["total_precipitation"]
        for (_, time, *_), values in rows(batches(specs, **select)).items()
        if "total_precipitation" in values
    }


def test_hours_of_era5_land_are_differences_and_begin_anew_at_one_o_clock(tmp_path: Path) -> None:
    found = rain([rain_file(tmp_path / "a.nc", sums())])
    assert found == dict(zip(range(1, 49), [*RAIN, *RAIN], strict=True))


def test_hours_of_a_day_add_up_to_its_00_utc_step_of_the_next_day(tmp_path: Path) -> None:
    values = sums()
    found = rain([rain_file(tmp_path / "a.nc", values)])
    assert sum(found[hour] for hour in range(1, 25)) == values[23]


def test_hour_whose_hour_before_is_not_there_has_no_value(tmp_path: Path) -> None:
    """02:00 without 01:00 says what fell in two hours, not in one."""
    found = rain([rain_file(tmp_path / "a.nc", sums()[1:6], first_hour=2)])
    assert found == dict(zip(range(3, 7), RAIN[2:6].tolist(), strict=True))


def test_hour_before_may_be_in_another_file(tmp_path: Path) -> None:
    """Files of months are read as one: at 00:00 the last hour of the month before is there."""
    values = sums()
    first = rain_file(tmp_path / "a.nc", values[:23])
    second = rain_file(tmp_path / "b.nc", values[23:], first_hour=24)
    assert rain([second, first]) == rain([rain_file(tmp_path / "c.nc", values)])


@pytest.mark.parametrize("hour", [2, 5, 24, 25, 26])
def test_selection_may_begin_at_any_hour(tmp_path: Path, hour: int) -> None:
    """The hour before is read for the first one, and is no reading itself."""
    file = rain_file(tmp_path / "a.nc", sums())
    found = rain([file], start_ns=JANUARY_NS + hour * HOUR_NS)
    assert found == {h: RAIN[(h - 1) % 24] for h in range(hour, 49)}


def test_slices_may_be_read_in_any_order(tmp_path: Path) -> None:
    from climatestream.sources.files import open_files

    with open_files([rain_file(tmp_path / "a.nc", sums())]) as source:
        read = {
            slice_.time_ns: [b.values["total_precipitation"][0] for b in source.read(slice_)]
            for slice_ in reversed(source.slices())
        }
    assert read == {JANUARY_NS + h * HOUR_NS: [RAIN[(h - 1) % 24]] for h in range(1, 49)}


def test_other_variables_keep_their_readings_where_an_hour_is_not_known(tmp_path: Path) -> None:
    variables = {
        **cell([2, 3]),
        "tp": Var(sums()[1:3], attributes={"units": "m"}),
        **t2m(np.array([[[280.0]], [[281.0]]], np.float32)),
    }
    found = rows(batches([write(tmp_path / "a.nc", variables, LAND)]))
    assert [set(values) for values in found.values()] == [
        {"temperature"},
        {"temperature", "total_precipitation"},
    ]


def test_amount_is_preliminary_where_either_end_is(tmp_path: Path) -> None:
    expver = ["0001", "0005", "0005", "0001"]
    file = rain_file(tmp_path / "a.nc", sums()[:4], expver=expver)
    found = [batch.preliminary for batch in batches([file])]
    assert [bool(flags[0]) for flags in found if flags is not None] == [False, True, True, True]


def test_hours_of_era5_are_taken_as_they_are(tmp_path: Path) -> None:
    """It accumulates over the hour that ends at the time."""
    variables = {
        **axes(latitude=[50.0, 49.75], longitude=[8.0, 8.25], time=[1, 2, 3]),
        "tp": Var(np.full((3, 2, 2), 0.5, np.float32), attributes={"units": "m"}),
    }
    found = rows(batches([write(tmp_path / "era5.nc", variables)]))
    assert {dataset for dataset, *_ in found} == {"era5/hourly"}
    assert {values["total_precipitation"] for values in found.values()} == {0.5}
    assert len(found) == 12


def test_hours_of_the_time_series_are_taken_as_they_are(tmp_path: Path) -> None:
    """ECMWF makes them amounts of an hour already; only the file's name says what it is."""
    name = "reanalysis-era5-land-timeseries-sfc-2m-temperaturex7y.nc"
    assert list(rain([rain_file(tmp_path / name, sums())]).values()) == sums().ravel().tolist()


def test_sums_without_any_hour_before_are_refused_with_the_way_out(tmp_path: Path) -> None:
    file = rain_file(tmp_path / "a.nc", sums()[2::3], first_hour=3, step=3)
    with pytest.raises(SourceError, match="no time in it has the hour before it: get all hours"):
        batches([file])


@pytest.mark.parametrize("step", [1, 24])
def test_total_of_a_day_is_its_sum_at_00_utc_of_the_next(tmp_path: Path, step: int) -> None:
    """Whether the file holds all hours or that one alone; it is stamped with the day itself."""
    values = sums(days=3) if step == 1 else sums(days=3)[23::24]
    file = rain_file(
        tmp_path / "a.nc", values, first_hour=1 if step == 1 else 24, step=step, GRIB_centre="ecmf"
    )
    found = rows(batches([file], dataset="era5-land/daily-sum"))
    total = {"total_precipitation": float(RAIN.sum())}
    assert found == {
        ("era5-land/daily-sum", JANUARY_NS + day * 24 * HOUR_NS, 50.0, 8.0): total
        for day in range(3)
    }


def test_what_is_no_amount_has_no_total_of_a_day(tmp_path: Path) -> None:
    """A temperature of each hour would be stored as one of each day."""
    variables = {
        **cell(1 + np.arange(48)),
        "tp": Var(sums(), attributes={"units": "m"}),
        **t2m(np.full((48, 1, 1), 280.0, np.float32)),
    }
    file = write(tmp_path / "a.nc", variables, LAND | {"GRIB_centre": "ecmf"})
    with pytest.raises(UsageError, match=r"t2m in .*a\.nc is no amount .* with --variables"):
        batches([file], dataset="era5-land/daily-sum")
    found = rows(batches([file], dataset="era5-land/daily-sum", variables=("tp",)))
    assert {tuple(values) for values in found.values()} == {("total_precipitation",)}


def test_totals_of_asked_days_come_from_the_days_after(tmp_path: Path) -> None:
    file = rain_file(tmp_path / "a.nc", sums(days=3))
    start, end = JANUARY_NS + 24 * HOUR_NS, JANUARY_NS + 48 * HOUR_NS
    found = rows(batches([file], dataset="era5-land/daily-sum", start_ns=start, end_ns=end))
    assert [time for _, time, *_ in found] == [start]


def test_sums_of_days_that_someone_made_are_taken_as_they_are(tmp_path: Path) -> None:
    """Without ECMWF's mark the file is what it is said to be."""
    file = rain_file(tmp_path / "a.nc", sums(days=3)[23::24], first_hour=24, step=24)
    found = rows(batches([file], dataset="era5-land/daily-sum"))
    assert [(time - JANUARY_NS) // HOUR_NS for _, time, *_ in found] == [24, 48, 72]


def test_real_rain_of_kerala_adds_up(era5: Path) -> None:
    """Against the file's own sums: 15 hours of 26 July 2025, from 01:00."""
    import netCDF4

    with netCDF4.Dataset(era5 / "kerala-land-hourly" / "data_0.nc") as dataset:
        total = np.asarray(dataset["tp"][15].filled(np.nan), np.float64)
    found = rows(batches([str(era5 / "kerala-land-hourly")], variables=("tp",)))
    by_cell: dict[tuple[float, float], float] = {}
    for (_, _, latitude, longitude), values in found.items():
        cell = (latitude, longitude)
        by_cell[cell] = by_cell.get(cell, 0.0) + values["total_precipitation"]
    amounts = np.array(list(by_cell.values()))
    np.testing.assert_allclose(np.sort(amounts), np.sort(total[~np.isnan(total)]), atol=1e-12)
    assert len(found) == 342 * 15
