"""What a service is asked for, from what a user wrote."""

from __future__ import annotations

from typing import Any

import pytest

from climatestream.errors import UsageError
from climatestream.region import parse_region
from climatestream.sources.request import Area, request_of, snapped
from climatestream.sources.selection import Selection, end_of, start_of


def selection(**more: Any) -> Selection:
    span = {"start_ns": start_of("2025-08-01"), "end_ns": end_of("2025-08-31")}
    return Selection(**span | more)


@pytest.mark.parametrize(
    ("region", "step", "box"),
    [
        ("DEU", 10, (55.1, 5.8, 47.2, 15.1)),
        ("DEU", 4, (55.25, 5.75, 47.25, 15.25)),
        ("west=5.1,south=47.2,east=15.3,north=55.7", 10, (55.7, 5.1, 47.2, 15.3)),
        ("west=5.11,south=47.29,east=15.31,north=55.61", 10, (55.7, 5.1, 47.2, 15.4)),
        ("west=-0.05,south=-0.05,east=0.05,north=0.05", 10, (0.1, -0.1, -0.1, 0.1)),
        ("west=170,south=-20,east=-170,north=-10", 10, (-10.0, 170.0, -20.0, -170.0)),
        ("west=350,south=-1,east=10,north=1", 10, (1.0, -10.0, -1.0, 10.0)),
        ("west=170,south=0,east=180,north=1", 10, (1.0, 170.0, 0.0, -180.0)),
        ("west=-180,south=-90,east=180,north=90", 10, (90.0, -180.0, -90.0, 179.9)),
        ("west=0,south=-60,east=360,north=60", 4, (60.0, -180.0, -60.0, 179.75)),
        ("latitude=50.11,longitude=8.68", 10, (50.1, 8.7, 50.1, 8.7)),
        ("latitude=-0.04,longitude=359.97", 10, (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_region_is_asked_for_as_its_box_on_the_grid(
    region: str, step: int, box: tuple[float, float, float, float]
) -> None:
    """Outward, so that no cell of the region is left out, and to the last digit."""
    assert snapped(parse_region(region), step) == Area(*box, step)


def test_no_region_is_the_whole_grid() -> None:
    area = snapped(None, 10)
    assert area.shape == (1801, 3600)
    assert area.parts() == (area,)


def test_box_across_the_date_line_has_a_part_on_each_side_and_no_cell_twice() -> None:
    area = Area(-10.0, 170.0, -20.0, -170.0, 10)
    west, east = area.parts()
    assert (west.west, west.east, east.west, east.east) == (170.0, 179.9, -180.0, -170.0)
    assert west.shape[1] + east.shape[1] == area.shape[1] == 201


def test_variables_are_one_however_they_are_named() -> None:
    """A cache then knows the request again."""
    names = ("tp", "2m_temperature", "temperature", "total_precipitation")
    asked = request_of("era5-land/hourly", selection(variables=names))
    assert asked.variables == ("temperature", "total_precipitation")
    assert asked == request_of("era5-land/hourly", selection(variables=("t2m", "tp")))


def test_variable_that_only_a_service_may_know_is_passed_on() -> None:
    asked = request_of("era5/daily-mean", selection(variables=("100m_u_component_of_wind",)))
    assert asked.variables == ("100m_u_component_of_wind",)


def test_four_variables_are_asked_for_where_none_are_named() -> None:
    asked = request_of("era5-land/daily-mean", selection())
    assert asked.variables == ("pressure", "temperature", "u10", "v10")


def test_dataset_says_product_statistic_and_the_day() -> None:
    asked = request_of("era5-land/daily-mean/utc+01", selection())
    assert (asked.product, asked.statistic, asked.suffix) == ("era5-land", "daily-mean", "utc+01")


@pytest.mark.parametrize("dataset", ["simulation", "era5-land", "cmip6/daily-mean", ""])
def test_dataset_of_no_service_is_refused(dataset: str) -> None:
    with pytest.raises(UsageError, match="expected a product .* as in era5-land/daily-mean"):
        request_of(dataset, selection())


@pytest.mark.parametrize(("lacking", "option"), [("start_ns", "--from"), ("end_ns", "--to")])
def test_times_have_to_be_said(lacking: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"say with {option} which times"):
        request_of("era5-land/hourly", selection(**{lacking: None}))
