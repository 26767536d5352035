"""The outlines of countries."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import netCDF4
import numpy as np
import pycountry
import pytest
import shapely

from climatestream import countries

if TYPE_CHECKING:
    from pathlib import Path

LATITUDE = np.arange(90.0, -90.1, -0.5)
LONGITUDE = np.arange(0.0, 360.0, 0.5)


def code_at(latitude: float, longitude: float) -> str | None:
    place = countries.lookup(np.array([latitude]), np.array([longitude]))[0, 0]
    code: str | None = countries.CODES_OR_NONE[place]
    return code


def test_codes_are_those_of_iso_3166_and_kosovo() -> None:
    known = {country.alpha_3 for country in pycountry.countries}
    assert set(countries.CODES) - known == {"XKX"}
    assert known - set(countries.CODES) == {"BVT", "GIB", "TUV", "UMI"}, "too small for 1:50m"
    assert list(countries.CODES) == sorted(countries.NAMES)
    assert countries.NAMES["DEU"] == "Germany"
    assert countries.NAMES["KOR"] == "South Korea"


def test_index_minus_one_is_no_country() -> None:
    assert countries.CODES_OR_NONE[-1] is None
    assert tuple(countries.CODES_OR_NONE[:-1]) == countries.CODES


@pytest.mark.parametrize("code", countries.CODES)
def test_outline_is_valid_and_in_one_turn_of_the_circle(code: str) -> None:
    outline = countries.geometry(code)
    west, south, east, north = outline.bounds
    assert outline.is_valid
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90


def test_outlines_do_not_overlap() -> None:
    outlines = [countries.geometry(code) for code in countries.CODES]
    one, other = shapely.STRtree(outlines).query(outlines, predicate="overlaps")
    shared = [
        (countries.CODES[a], countries.CODES[b], outlines[a].intersection(outlines[b]).area)
        for a, b in zip(one, other, strict=True)
    ]
    assert [pair for pair in shared if pair[2] > 1e-4] == []


@pytest.mark.parametrize(
    ("latitude", "longitude", "code"),
    [
        (52.5, 13.4, "DEU"),
        (-29.6, 28.2, "LSO"),  # a hole in South Africa
        (41.902, 12.435, "VAT"),
        (66.0, 179.9, "RUS"),
        (66.0, -179.9, "RUS"),
        (66.0, 180.0, "RUS"),
        (-16.92, 179.96, "FJI"),
        (42.6, 20.9, "XKX"),
        (35.3, 33.4, "CYP"),  # Northern Cyprus
        (9.6, 44.1, "SOM"),  # Somaliland
        (4.9, -52.4, "GUF"),
        (78.2, 15.6, "SJM"),
        (12.2, -68.3, "BES"),
        (-90.0, 0.0, "ATA"),
        (54.0, 4.0, None),  # the North Sea
        (0.0, 0.0, None),
    ],
)
def test_lookup_knows_the_country_of_a_place(
    latitude: float, longitude: float, code: str | None
) -> None:
    assert code_at(latitude, longitude) == code
    assert code_at(latitude, longitude + 360.0 if longitude < 0 else longitude) == code


def test_lookup_agrees_with_shapely() -> None:
    """Every tenth point of a global grid, tested one by one against every outline."""
    found = countries.lookup(LATITUDE, LONGITUDE)
    latitude, longitude = np.meshgrid(LATITUDE[1:-1], LONGITUDE, indexing="ij")
    points = shapely.points((longitude.ravel() + 180.0) % 360.0 - 180.0, latitude.ravel())[::10]
    outlines = [countries.geometry(code) for code in countries.CODES]
    expected = np.full(len(points), -1)
    point, country = shapely.STRtree(outlines).query(points, predicate="within")
    expected[point] = country
    on_border = shapely.STRtree(outlines).query(points, predicate="touches")[0]
    differs = np.flatnonzero(found[1:-1].ravel()[::10] != expected)
    assert set(differs) <= set(on_border)


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("germany-land-daily/2m_temperature_0_daily-mean.nc", 0.99),
        # Natural Earth leaves out the ice shelves of Antarctica.
        ("world-land-monthly/era5-land-monthly-temp-feb-2025-global.nc", 0.96),
    ],
)
def test_countries_cover_the_land_of_era5_land_and_not_its_sea(
    era5: Path, file: str, least: float
) -> None:
    with netCDF4.Dataset(era5 / file) as dataset:
        land = np.isfinite(np.ma.filled(dataset["t2m"][0], np.nan))
        axes = [np.ma.getdata(dataset[name][:]) for name in ("latitude", "longitude")]
    covered = countries.lookup(*axes) >= 0
    assert covered[land].mean() > least
    assert land[covered].mean() > 0.99


def test_lookup_does_not_mind_the_order_or_the_turn_of_the_axes() -> None:
    expected = countries.lookup(LATITUDE, LONGITUDE)
    assert (countries.lookup(LATITUDE[::-1], LONGITUDE) == expected[::-1]).all()
    west_first = np.where(LONGITUDE >= 180.0, LONGITUDE - 360.0, LONGITUDE)
    assert (countries.lookup(LATITUDE, west_first) == expected).all()
    ascending = np.argsort(west_first)
    assert (countries.lookup(LATITUDE, west_first[ascending]) == expected[:, ascending]).all()


def test_lookup_of_a_small_grid_is_a_part_of_the_large_one() -> None:
    expected = countries.lookup(LATITUDE, LONGITUDE)
    rows, columns = slice(60, 90), slice(0, 40)
    assert (countries.lookup(LATITUDE[rows], LONGITUDE[columns]) == expected[rows, columns]).all()


def test_lookup_of_an_empty_axis_is_empty() -> None:
    assert countries.lookup(np.array([]), LONGITUDE).shape == (0, len(LONGITUDE))
    assert countries.lookup(LATITUDE, np.array([])).shape == (len(LATITUDE), 0)


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="CODEZ"):
        _ = countries.CODEZ
    with pytest.raises(KeyError):
        countries.geometry("XXX")


def test_import_reads_no_data_and_no_heavy_package() -> None:
    program = "import sys, climatestream.countries as c; print(*sys.modules, *vars(c))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"numpy", "shapely", "orjson", "pycountry", "CODES", "NAMES"} & set(loaded)
