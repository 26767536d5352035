"""Regions: what a user may write, and which points of a grid are in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from climatestream import countries
from climatestream.errors import UsageError
from climatestream.region import Region, parse_region

if TYPE_CHECKING:
    from pathlib import Path

LATITUDE = np.arange(900, -901, -5) / 10
EAST = np.arange(0, 3600, 5) / 10
WEST_AND_EAST = np.arange(-1800, 1800, 5) / 10


def places(region: Region, longitude: np.ndarray[Any, Any]) -> set[tuple[float, float]]:
    """The points of a global half-degree grid that are in the region."""
    rows, columns = np.nonzero(region.contains(LATITUDE, longitude))
    normal = (longitude[columns] + 180.0) % 360.0 - 180.0
    return set(zip(LATITUDE[rows].tolist(), normal.tolist(), strict=True))


def square(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [corners]}


@pytest.mark.parametrize("code", ["DEU", "deu", " Deu "])
def test_country_code_is_taken_in_either_case(code: str) -> None:
    region = parse_region(code)
    assert (region.name, region.country) == ("DEU", "DEU")
    assert region.bounds == pytest.approx((5.86, 47.28, 15.02, 55.06), abs=0.01)


def test_region_of_a_country_is_what_lookup_calls_that_country() -> None:
    """The `country` of a reading and the region that let it through never disagree."""
    found = countries.lookup(LATITUDE, EAST)
    for place, code in enumerate(countries.CODES):
        inside = parse_region(code).contains(LATITUDE, EAST)
        assert (inside == (found == place)).all(), code


@pytest.mark.parametrize(
    "text",
    [
        "west=5,south=47,east=15,north=55",
        "north=55, east=15, south=47, west=5",
        "WEST=5;SOUTH=47;EAST=15;NORTH=55.0",
    ],
)
def test_box_is_read_by_the_names_of_its_sides(text: str) -> None:
    region = parse_region(text)
    assert region.name == "west=5,south=47,east=15,north=55"
    assert region.bounds == (5.0, 47.0, 15.0, 55.0)


def test_points_on_the_edge_of_a_box_are_in_it() -> None:
    latitude = np.array([47.0 - 1e-7, 47.0, 51.0, 55.0, 55.0000001, 55.001])
    longitude = np.array([4.999, 5.0 - 1e-7, 15.000000000000172, 15.001])
    inside = parse_region("west=5,south=47,east=15,north=55").contains(latitude, longitude)
    assert inside.tolist() == [[False, True, True, False]] * 5 + [[False] * 4]


def test_points_on_the_edge_of_a_polygon_are_in_it() -> None:
    inside = parse_region(json.dumps(square(5, 47, 15, 55)))
    assert places(inside, EAST) == places(parse_region("west=5,south=47,east=15,north=55"), EAST)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("west=170,south=-20,east=-170,north=-10", 41 * 21),
        ("west=170,south=-20,east=190,north=-10", 41 * 21),
        ("west=350,south=-1,east=10,north=1", 41 * 5),
        ("west=-10,south=-1,east=10,north=1", 41 * 5),
        ("west=170,south=0,east=180,north=1", 21 * 3),
        ("west=-180,south=0,east=-170,north=1", 21 * 3),
        ("west=-180,south=-90,east=180,north=90", 720 * 361),
        ("west=0,south=-90,east=360,north=90", 720 * 361),
    ],
)
def test_box_may_lie_anywhere_on_the_circle(text: str, count: int) -> None:
    region = parse_region(text)
    assert len(places(region, EAST)) == count
    assert places(region, EAST) == places(region, WEST_AND_EAST)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("west=170,south=-20,east=-170,north=-10", (170, -20, -170, -10)),
        ("west=350,south=-1,east=10,north=1", (-10, -1, 10, 1)),
        ("west=200,south=0,east=250,north=1", (-160, 0, -110, 1)),
        ("west=170,south=0,east=180,north=1", (170, 0, 180, 1)),
        ("west=-180,south=0,east=-170,north=1", (-180, 0, -170, 1)),
        ("west=0,south=-90,east=360,north=90", (-180, -90, 180, 90)),
        ("RUS", (19.605, 41.2, -169.73, 81.855)),
        ("FJI", (174.585, -21.7075, -178.25, -12.4775)),
        ("NZL", (165.8875, -52.57, -176.1225, -34.43)),
        ("ATA", (-180, -90, 180, -60.5225)),
        ("AUS", (112.91, -54.75, 158.96, -10.05)),
    ],
)
def test_bounds_are_the_narrowest_box_on_the_circle(
    text: str, bounds: tuple[float, float, float, float]
) -> None:
    assert parse_region(text).bounds == pytest.approx(bounds, abs=0.01)


@pytest.mark.parametrize("code", ["RUS", "NZL", "USA"])
def test_country_across_the_date_line_has_both_of_its_sides(code: str) -> None:
    region = parse_region(code)
    west, _, east, _ = region.bounds
    longitudes = {longitude for _, longitude in places(region, EAST)}
    assert west > east
    assert any(longitude >= west for longitude in longitudes)
    assert any(longitude <= east for longitude in longitudes)
    assert places(region, EAST) == places(region, WEST_AND_EAST)


@pytest.mark.parametrize("turn", [-360, 0])
def test_geojson_in_any_turn_of_the_circle_is_the_same_region(turn: float) -> None:
    region = parse_region(json.dumps(square(170 + turn, -20, 175 + turn, -10)))
    assert region.bounds == (170.0, -20.0, 175.0, -10.0)
    assert len(places(region, EAST)) == 11 * 21


@pytest.mark.parametrize("west", [170, -190])
def test_geojson_may_cross_the_date_line(west: float) -> None:
    region = parse_region(json.dumps(square(west, -20, west + 20, -10)))
    assert region.bounds == (170.0, -20.0, -170.0, -10.0)
    assert len(places(region, WEST_AND_EAST)) == 41 * 21


def test_geojson_may_be_a_multipolygon_a_feature_a_collection_or_have_holes() -> None:
    one, two = square(0, 0, 2, 2), square(10, 0, 12, 2)
    both = {"type": "MultiPolygon", "coordinates": [one["coordinates"], two["coordinates"]]}
    features = [{"type": "Feature", "properties": {}, "geometry": part} for part in (one, two)]
    collection = {"type": "FeatureCollection", "features": features}
    expected = places(parse_region(json.dumps(one)), EAST)
    expected |= places(parse_region(json.dumps(two)), EAST)
    assert len(expected) == 50
    for given in (both, collection, {"type": "Feature", "properties": None, "geometry": both}):
        assert places(parse_region(json.dumps(given)), EAST) == expected
    holed = square(0, 0, 2, 2)
    holed["coordinates"] += square(0.25, 0.25, 1.75, 1.75)["coordinates"]
    assert len(places(parse_region(json.dumps(holed)), EAST)) == 25 - 9


def test_geojson_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "field=a, 1.GeoJSON"
    path.write_text("\ufeff" + json.dumps(square(5, 47, 15, 55)), "utf-8")
    region = parse_region(str(path))
    assert (region.name, region.bounds) == (path.name, (5.0, 47.0, 15.0, 55.0))


def test_contains_keeps_the_order_of_the_axes() -> None:
    region = parse_region("west=5,south=47,east=15,north=55")
    inside = region.contains(LATITUDE, EAST)
    assert (region.contains(LATITUDE[::-1], EAST[::-1]) == inside[::-1, ::-1]).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("DE", r"'DE' is Germany.*write DEU$"),
        ("276", r"'276' is Germany.*write DEU$"),
        ("germany", r"'germany' is Germany.*write DEU$"),
        ("South Korea", r"is South Korea.*write KOR$"),
        ("GER", r"'GER' is no ISO 3166-1 alpha-3 code \(nearest: DEU \(Germany\)"),
        ("Turkey", r"nearest:.*TUR \(Türkiye\)"),
        ("DEX", r"nearest:.*DEU \(Germany\)"),
        ("", r"'' is no ISO 3166-1 alpha-3 code \(nearest: none\): give a code such as DEU"),
        ("TUV", r"'TUV' \(TUV\) is too small for the outlines.*bounding box"),
        ("5,47,15,55", r"numbers whose order can't be known.*west=5,south=47,east=15,north=55"),
        ("-10.5 47 15 55", r"numbers whose order can't be known"),
        ("west=5,south=47", r"lacks east and north"),
        ("west=5,west=6,south=1,east=7,north=3", r"'west' twice"),
        ("left=5,south=1,east=7,north=3", r"'left' which is no side"),
        ("west=five,south=1,east=7,north=3", r"west='five', expected degrees"),
        ("west=1,south=55,east=2,north=47", r"south=55 and north=47, expected -90 <= south"),
        ("west=1,south=nan,east=2,north=47", r"south=nan"),
        ("west=1,south=1,east=1,north=2", r"two different longitudes"),
        ("west=-181,south=1,east=1,north=2", r"longitudes of -180..360"),
        ("west=inf,south=1,east=1,north=2", r"longitudes of -180..360"),
        ("west=-180,south=1,east=360,north=2", r"540 degrees wide"),
        ("nowhere.geojson", r"nowhere.geojson can't be read: No such file"),
        ('{"type": ', r"no JSON: Expecting value in line 1, column 9"),
        ('{"a": 1}', r"no GeoJSON.*expected a Polygon, MultiPolygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', r"holds Point: expected polygons"),
        ('{"type": "Feature", "properties": {}, "geometry": null}', r"no GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', r"holds nothing"),
        ('{"type": "Polygon", "coordinates": []}', r"holds nothing"),
        (
            '{"type": "Polygon", "coordinates": [[[0,0],[9,9],[9,0],[0,9],[0,0]]]}',
            r"not valid: Self-intersection",
        ),
        ('{"type": "Polygon", "coordinates": [[[0,0],[9,9],[9,0]]]}', r"no GeoJSON"),
        (
            '{"type": "Polygon", "coordinates": [[[0,0],[6e5,0],[6e5,5e6],[0,0]]]}',
            r"expected degrees \(WGS 84\), longitude first",
        ),
    ],
)
def test_wrong_region_is_answered_with_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_region(text)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"a\.json can't be read: not UTF-8"):
        parse_region(str(path))
    with pytest.raises(UsageError, match="can't be read"):
        parse_region(str(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("latitude=50.11,longitude=8.68", (50.0, 8.5)),
        ("lon=8.76;lat=50.26", (50.5, 9.0)),
        ("latitude=-33.9, longitude=-0.2", (-34.0, 0.0)),
        ("latitude=0.1,longitude=359.9", (0.0, 0.0)),
        ("latitude=90,longitude=179.9", (90.0, -180.0)),
    ],
)
def test_point_is_its_nearest_cell(text: str, cell: tuple[float, float]) -> None:
    region = parse_region(text)
    assert places(region, EAST) == places(region, WEST_AND_EAST) == {cell}


def test_point_off_a_grid_has_no_cell() -> None:
    latitude, longitude = np.arange(47.0, 55.1, 0.1), np.arange(6.0, 15.1, 0.1)
    beside = parse_region("latitude=50.1,longitude=5.96").contains(latitude, longitude)
    beyond = parse_region("latitude=50.1,longitude=5.94").contains(latitude, longitude)
    assert (beside.sum(), beyond.sum()) == (1, 0)


@pytest.mark.parametrize(
    "text",
    ["latitude=50", "latitude=95,longitude=5", "lat=5,lon=x", "lat=5,lon=400", "lat=5,lon=6,x=7"],
)
def test_wrong_point_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a latitude of -90..90 and a longitude"):
        parse_region(text)
