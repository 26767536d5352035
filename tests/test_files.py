"""Files as a source, on real sample files and on the traps that these do not have."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from climatestream.model import BATCH_ROWS, Slice
from climatestream.region import parse_region
from climatestream.sources import merge
from climatestream.sources.files import open_files
from climatestream.sources.selection import Selection, end_of, start_of, time_text
from tests.make_files import (
    HOUR_NS,
    JANUARY_NS,
    LATITUDE,
    LONGITUDE,
    TWO_HOURS,
    Kind,
    Var,
    axes,
    batches,
    column,
    everything,
    field_of,
    grib,
    rows,
    t2m,
    write,
)

FOUR = ("temperature", "u10", "v10", "pressure")

SAMPLES: dict[str, tuple[str, int, str, str, dict[str, int], tuple[float, float]]] = {
    "germany-land-daily": (
        "era5-land/daily-mean",
        5,
        "2025-08-10T00:00:00Z",
        "2025-08-14T00:00:00Z",
        dict.fromkeys(FOUR, 31_275),
        (5.988, 14.989),
    ),
    "kerala-land-hourly": (
        "era5-land/hourly",
        16,
        "2025-07-26T00:00:00Z",
        "2025-07-26T15:00:00Z",
        {
            **dict.fromkeys(("temperature", "2m_dewpoint_temperature", "u10", "v10"), 5_472),
            # Of 00:00 the hour before is not there.
            "total_precipitation": 5_130,
        },
        (75.29999999999998, 77.0),
    ),
    "kerala-zip-named-nc": (
        "era5-land/hourly",
        15,
        "2025-09-10T00:00:00Z",
        "2025-09-10T14:00:00Z",
        {**dict.fromkeys(("temperature", "u10", "v10"), 3_060), "total_precipitation": 2_856},
        (75.99999999999999, 77.2),
    ),
    "berlin-old-packed": (
        "era5/hourly",
        8_760,
        "2017-01-01T00:00:00Z",
        "2017-12-31T23:00:00Z",
        dict.fromkeys(
            (*FOUR, "u100", "v100", "fsr", "fdir", "surface_solar_radiation_downwards"), 52_560
        ),
        (13.100000381469727, 13.600000381469727),
    ),
    "riviera-old-expver-dim": (
        "era5/monthly-mean",
        22,
        "2020-01-01T00:00:00Z",
        "2021-10-01T00:00:00Z",
        {"u100": 1_782, "v100": 1_782},
        (6.0, 8.0),
    ),
    "rhine-ascending-latitude": (
        "era5/daily-mean",
        30,
        "2000-01-01T11:30:00Z",
        "2000-01-30T11:30:00Z",
        {"temperature": 9_630},
        (4.25, 11.75),
    ),
    "world-land-monthly": (
        "era5-land/monthly-mean",
        1,
        "2025-02-01T00:00:00Z",
        "2025-02-01T00:00:00Z",
        {"temperature": 2_212_863},
        (0.0, 359.9),
    ),
    "ghana-land-grib": (
        "era5-land/hourly",
        16,
        "2025-03-28T01:00:00Z",
        "2025-03-31T19:00:00Z",
        {"temperature": 7_056},
        (-1.0, 1.0),
    ),
    "world-old-0-360": (
        "era5/hourly",
        1,
        "2021-03-01T12:00:00Z",
        "2021-03-01T12:00:00Z",
        {"temperature": 162},
        (0.0, 340.0),
    ),
}
"""By folder: dataset, times, first and last, values by variable, longitudes as the file has
them."""

NOT_KNOWN = "world-old-0-360"

PRELIMINARY: dict[str, Any] = {
    "germany-land-daily": None,
    "kerala-land-hourly": True,
    "kerala-zip-named-nc": True,
    "berlin-old-packed": None,
    "rhine-ascending-latitude": None,
    "world-land-monthly": False,
    "ghana-land-grib": False,
    "world-old-0-360": None,
}
"""What a set says of all its readings."""


def _folder(era5: Path, name: str) -> str:
    if name.endswith("grib"):
        pytest.importorskip("eccodes", reason="ecCodes is missing: make env-grib")
    return str(era5 / name)


# -------------------------------------------------------------------------- sample files


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_set_gives_just_the_readings_that_its_readme_implies(
    era5: Path, name: str
) -> None:
    dataset, times, first, last, counts, (west, east) = SAMPLES[name]
    stated = dataset if name == NOT_KNOWN else None
    with open_files([_folder(era5, name)], Selection(dataset=stated)) as source:
        slices = source.slices()
        found = everything(source)
    assert slices == sorted(slices)
    assert {slice_.dataset for slice_ in slices} == {dataset}
    assert len(slices) == times
    assert (time_text(slices[0].time_ns), time_text(slices[-1].time_ns)) == (first, last)
    assert all(0 < len(batch) <= BATCH_ROWS for batch in found)
    values: dict[str, int] = {}
    for batch in found:
        valid = [~np.isnan(column) for column in batch.values.values()]
        assert np.any(valid, axis=0).all(), "a reading without any value"
        for named, flags in zip(batch.values, valid, strict=True):
            values[named] = values.get(named, 0) + int(flags.sum())
    assert values == counts
    # In every set a reading has all variables or none.
    assert sum(map(len, found)) == max(counts.values())
    longitudes = np.concatenate([batch.cells.longitude for batch in found])
    assert (longitudes.min(), longitudes.max()) == (west, east)


@pytest.mark.parametrize("name", PRELIMINARY)
def test_a_sample_set_says_of_its_readings_whether_they_are_preliminary(
    era5: Path, name: str
) -> None:
    for batch in batches([_folder(era5, name)], dataset="stated"):
        if PRELIMINARY[name] is None:
            assert batch.preliminary is None
        else:
            assert batch.preliminary is not None
            assert len(batch.preliminary) == len(batch)
            assert set(np.asarray(batch.preliminary).tolist()) == {PRELIMINARY[name]}


def test_final_and_preliminary_values_along_a_dimension_become_one_reading_each(
    era5: Path,
) -> None:
    path = era5 / "riviera-old-expver-dim" / "2020_2021.nc"
    found = batches([str(path)])
    flags = [set(np.asarray(batch.preliminary).tolist()) for batch in found]
    assert flags == [{False}] * 20 + [{True}] * 2
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        variable = dataset["u100"]
        raw = variable[...]
        scale, offset = variable.scale_factor, variable.add_offset
    for time, batch in enumerate(found):
        expected = raw[time, 0 if time < 20 else 1].astype(np.float64) * scale + offset
        assert np.array_equal(batch.values["u100"], expected.ravel())


NETCDF_SETS = [name for name in SAMPLES if "grib" not in name and "expver" not in name]


@pytest.mark.parametrize("name", NETCDF_SETS)
def test_values_are_the_files_to_the_last_bit(era5: Path, tmp_path: Path, name: str) -> None:
    """Against the raw numbers of the file, unpacked here: every value of some times."""
    ours = {"t2m": "temperature", "tas": "temperature", "sp": "pressure", "u10": "u10"}
    files = sorted(era5.joinpath(name).iterdir())
    if zipfile.is_zipfile(files[0]):
        with zipfile.ZipFile(files[0]) as archive:
            files = [Path(archive.extract("data_0.nc", tmp_path))]
    with open_files([str(era5 / name)], Selection(dataset="stated")) as source:
        slices = source.slices()
        for file in files:
            with netCDF4.Dataset(file) as dataset:
                dataset.set_auto_maskandscale(False)
                for raw_name in ours.keys() & dataset.variables.keys():
                    variable = dataset[raw_name]
                    for time in {0, len(slices) // 2, len(slices) - 1}:
                        raw = variable[time]
                        expected = raw.astype(np.float64)
                        fill = variable.getncattr("_FillValue")
                        missing = np.isnan(raw) | (raw == fill)
                        if "scale_factor" in variable.ncattrs():
                            expected = expected * variable.scale_factor + variable.add_offset
                        read = [b.values[ours[raw_name]] for b in source.read(slices[time])]
                        got = np.concatenate(read)
                        assert got.dtype == np.float64
                        assert got.tobytes() == expected[~missing].tobytes()


def test_a_reading_of_germany_is_where_and_what_the_file_says(era5: Path) -> None:
    found = rows(batches([str(era5 / "germany-land-daily")]))
    with netCDF4.Dataset(era5 / "germany-land-daily" / "2m_temperature_0_daily-mean.nc") as file:
        latitude, longitude = float(file["latitude"][40]), float(file["longitude"][30])
        raw = file["t2m"][2, 40, 30]
    key = ("era5-land/daily-mean", start_of("2025-08-12"), latitude, longitude)
    assert found[key]["temperature"] == float(raw)
    assert set(found[key]) == set(FOUR)


def test_four_files_of_one_request_give_the_same_in_any_order(era5: Path) -> None:
    files = [str(path) for path in sorted(era5.joinpath("germany-land-daily").iterdir())]
    assert len(files) == 4
    expected = rows(batches(files))
    assert rows(batches(files[::-1])) == expected
    assert rows(batches([*files, str(era5 / "germany-land-daily")])) == expected


def test_one_variable_of_the_four_files_alone_is_read_alone(era5: Path) -> None:
    found = batches([str(era5 / "germany-land-daily")], variables=("surface_pressure",))
    assert sum(map(len, found)) == 31_275
    assert {name for batch in found for name in batch.values} == {"pressure"}


def test_unknown_variables_travel_under_the_files_name_with_their_unit(era5: Path) -> None:
    first = batches([str(era5 / "berlin-old-packed")], end_ns=end_of("2017-01-01T00:00"))[0]
    assert first.units == {
        "u100": "m s**-1",
        "v100": "m s**-1",
        "fsr": "m",
        "fdir": "J m**-2",
    }


def test_grib_values_are_what_the_bits_of_the_file_say(era5: Path) -> None:
    """Against simple packing (WMO manual 306, code table 11) unpacked here, every value."""
    folder = _folder(era5, "ghana-land-grib")
    content = (era5 / "ghana-land-grib" / "sample_202503.grib").read_bytes()
    length = int.from_bytes(content[4:7], "big")
    messages = [content[start : start + length] for start in range(0, len(content), length)]
    found = batches([folder])
    assert len(messages) == len(found) == 16
    for message, batch in zip(messages, found, strict=True):
        start = 8
        for _ in ("product", "grid"):
            start += int.from_bytes(message[start : start + 3], "big")
        data = message[start:]
        scale = int.from_bytes(data[4:6], "big")
        scale = -(scale & 0x7FFF) if scale & 0x8000 else scale
        reference = int.from_bytes(data[7:10], "big") / 2**24 * 16.0 ** ((data[6] & 0x7F) - 64)
        assert data[10] == 16
        packed = np.frombuffer(data[11 : 11 + 2 * 441], ">u2")
        assert column(batch, "temperature") == (reference + packed * 2.0**scale).tolist()
    assert found[0].cells.longitude[0] == -1.0
    assert not list(Path(folder).glob("*.idx"))


# ----------------------------------------------------------------------------- selection


def test_dates_select_whole_days_and_times_themselves(era5: Path) -> None:
    files = [str(era5 / "germany-land-daily")]

    def days(since: str | None, until: str | None) -> list[str]:
        selection = Selection(
            start_ns=None if since is None else start_of(since),
            end_ns=None if until is None else end_of(until),
        )
        with open_files(files, selection) as source:
            return [time_text(slice_.time_ns)[8:10] for slice_ in source.slices()]

    assert days("2025-08-12", None) == ["12", "13", "14"]
    assert days("2025-08-11", "2025-08-12") == ["11", "12"]
    assert days(None, "2025-08-12T00:00Z") == ["10", "11", "12"]
    assert days("2025-08-12T00:00:01", "2025-08-13T02:00+02:00") == ["13"]


def test_a_region_keeps_the_cells_in_it_and_their_values(era5: Path) -> None:
    whole = rows(batches([str(era5 / "germany-land-daily")]))
    box = parse_region("west=7,south=50,east=8,north=51")
    found = rows(batches([str(era5 / "germany-land-daily")], region=box))
    inside = {key: row for key, row in whole.items() if 50 <= key[2] <= 51 and 7 <= key[3] <= 8}
    assert found == inside
    assert len(found) == 5 * 10 * 10


def test_a_region_over_the_zero_meridian_reads_a_grid_of_0_to_360(era5: Path) -> None:
    box = parse_region("west=-1,south=48,east=1,north=49")
    found = batches([str(era5 / "world-land-monthly")], region=box)
    longitudes = np.concatenate([batch.cells.longitude for batch in found])
    assert longitudes.min() == 0.0
    assert 359 <= longitudes.max() < 360
    assert sum(map(len, found)) == 21 * 11


def test_a_country_is_read_as_the_country_that_its_cells_are_in(era5: Path) -> None:
    found = batches([str(era5 / "germany-land-daily")], region=parse_region("DEU"))
    assert {code for batch in found for code in batch.cells.country} == {"DEU"}
    assert sum(map(len, found)) > 5 * 4_000


# ------------------------------------------------------------------------------- reading


def test_slices_can_be_read_in_any_order_and_twice(era5: Path) -> None:
    with open_files([str(era5 / "berlin-old-packed")]) as source:
        slices = source.slices()[:200]
        forwards = [rows(list(source.read(slice_))) for slice_ in slices]
        backwards = [rows(list(source.read(slice_))) for slice_ in slices[::-1]]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("kind", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("window_bytes", [1, 200, 10**9])
def test_values_do_not_depend_on_how_many_times_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, window_bytes: int
) -> None:
    monkeypatch.setattr(merge, "WINDOW_BYTES", window_bytes)
    values = field_of(shape=(7, 3, 4))
    content = {**axes(time=np.arange(7)), **t2m(values)}
    file = write(tmp_path / "a.nc", content, kind=kind)
    found = batches([file])
    assert [batch.time_ns for batch in found] == [JANUARY_NS + h * HOUR_NS for h in range(7)]
    assert [column(batch, "temperature") for batch in found] == values.reshape(7, 12).tolist()


def test_blocks_of_a_large_field_follow_each_other_without_gap(era5: Path) -> None:
    found = batches([str(era5 / "world-land-monthly")])
    assert [len(batch) for batch in found[:-1]] == [BATCH_ROWS] * (len(found) - 1)
    latitude = np.concatenate([batch.cells.latitude for batch in found])
    assert (np.diff(latitude) <= 0).all()


@pytest.mark.parametrize("order", ["latitude", "longitude"])
def test_dimensions_may_come_in_any_order(tmp_path: Path, order: str) -> None:
    values = field_of()
    dimensions = {
        "latitude": ("latitude", "longitude", "time"),
        "longitude": ("longitude", "time", "latitude"),
    }[order]
    places = [("time", "latitude", "longitude").index(d) for d in dimensions]
    content = {**axes(), **t2m(values.transpose(places), dimensions=dimensions)}
    expected = rows(batches([write(tmp_path / "plain.nc", {**axes(), **t2m(values)})]))
    assert rows(batches([write(tmp_path / "turned.nc", content)])) == expected


def test_axes_are_known_by_their_units_where_their_names_say_nothing(tmp_path: Path) -> None:
    content = {
        "t": Var(TWO_HOURS, ["t"], {"units": "hours since 2025-01-01"}, dtype="i4"),
        "y": Var(LATITUDE, ["y"], {"units": "degrees_north"}, dtype="f8"),
        "x": Var(LONGITUDE, ["x"], {"units": "degreesE"}, dtype="f8"),
        **t2m(dimensions=("t", "y", "x")),
    }
    assert len(rows(batches([write(tmp_path / "a.nc", content)]))) == 24


def test_packed_coordinates_are_unpacked(tmp_path: Path) -> None:
    content = {**axes(), **t2m()}
    packed = {"units": "degrees_north", "scale_factor": 0.1, "add_offset": 50.0}
    content["latitude"] = Var([2, 1, 0], ["latitude"], packed, dtype="i2")
    found = batches([write(tmp_path / "a.nc", content)])
    assert list(found[0].cells.latitude[::4]) == [50.2, 50.1, 50.0]


def test_scalar_dimensions_bounds_and_grid_mappings_are_no_variables(tmp_path: Path) -> None:
    content = {
        **axes(),
        "number": Var(0, [], {"standard_name": "realization"}, dtype="i8"),
        "height": Var(2.0, [], {"units": "m"}, dtype="f8"),
        "crs": Var(0, [], {"grid_mapping_name": "latitude_longitude"}, dtype="i4"),
        "latitude_bnds": Var(np.zeros((3, 2)), ["latitude", "bnds"], dtype="f8"),
        "cells": Var(np.zeros((3, 4)), ["latitude", "longitude"], {"units": "m2"}),
        "spread": Var(field_of()[:, None], ["time", "number_", "latitude", "longitude"]),
        **t2m(attributes={"coordinates": "height number", "grid_mapping": "crs"}),
    }
    content["latitude"].attributes = {"units": "degrees_north", "bounds": "latitude_bnds"}
    found = batches([write(tmp_path / "a.nc", content)])
    assert {name for batch in found for name in batch.values} == {"temperature", "spread"}


def test_packed_integers_are_masked_before_they_are_unpacked_in_float64(tmp_path: Path) -> None:
    raw = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    raw[0, 0, 0] = -32767
    raw[0, 0, 1] = -1
    scale, offset = 0.0006430646012642247, 284.56827435392984
    packed = {
        "units": "K",
        "scale_factor": scale,
        "add_offset": offset,
        "missing_value": np.int16(-1),
    }
    content = {
        **axes(),
        "t2m": Var(raw, attributes=packed, fill=np.int16(-32767), dtype="i2"),
        "lsm": Var(np.ones((2, 3, 4)), attributes={"units": "(0 - 1)"}),
    }
    first = batches([write(tmp_path / "a.nc", content, kind="NETCDF3_64BIT_OFFSET")])[0]
    expected = raw[0].ravel().astype(np.float64) * scale + offset
    assert np.isnan(first.values["temperature"][:2]).all()
    assert np.array_equal(first.values["temperature"][2:], expected[2:])


@pytest.mark.parametrize("missing", [np.float32(1e20), np.float32(np.nan), np.float32(np.inf)])
def test_a_cell_without_any_value_is_no_reading(tmp_path: Path, missing: np.float32) -> None:
    values = field_of()
    values[0, 1, 1] = missing
    values[1] = missing
    fill = None if np.isinf(missing) else missing
    content = {**axes(), **t2m(values, fill=fill)}
    with open_files([write(tmp_path / "a.nc", content)]) as source:
        first, second = source.slices()
        assert [len(batch) for batch in source.read(first)] == [11]
        assert list(source.read(second)) == []


def test_what_was_never_written_is_missing(tmp_path: Path) -> None:
    values = field_of()
    values[0, 0, 0] = netCDF4.default_fillvals["f4"]
    found = batches([write(tmp_path / "a.nc", {**axes(), **t2m(values)})])
    assert [len(batch) for batch in found] == [11, 12]


def test_unsigned_values_in_signed_integers_are_read_as_such(tmp_path: Path) -> None:
    raw = np.full((2, 3, 4), -1, np.int8)
    content = {
        **axes(),
        "t2m": Var(raw, attributes={"units": "K", "_Unsigned": "true"}, dtype="i1"),
    }
    found = batches([write(tmp_path / "a.nc", content)])
    assert column(found[0], "temperature") == [255.0] * 12


@pytest.mark.parametrize(
    ("time", "units", "expected"),
    [
        ([1_104_000, 1_104_001], "hours since 1900-01-01 00:00:00.0", "2025-12-11T00:00:00Z"),
        ([54786.47916666667, 54787.5], "days since 1850-1-1", "2000-01-01T11:30:00Z"),
        ([1_735_689_600, 1_735_693_200], "seconds since 1970-01-01", "2025-01-01T00:00:00Z"),
        ([17_743_440.0, 17_743_441.0], "hours since 1-1-1 00:00:0.0", "2025-02-27T00:00:00Z"),
        ([0, 60], "minutes since 2025-01-01 02:00 +02:00", "2025-01-01T00:00:00Z"),
        ([0, 10**9], "nanoseconds since 2025-01-01", "2025-01-01T00:00:00Z"),
    ],
)
def test_times_are_exact(tmp_path: Path, time: list[float], units: str, expected: str) -> None:
    content = {**axes(time=time, units=units), **t2m()}
    content["time"].dtype = "f8" if isinstance(time[0], float) else "i4"
    with open_files([write(tmp_path / "a.nc", content)], Selection(dataset="x")) as source:
        first = source.slices()[0].time_ns
    assert time_text(first) == expected
    assert first % 1_000_000_000 == 0


def test_valid_time_over_time_and_step_is_when_values_are_valid(tmp_path: Path) -> None:
    values = field_of(shape=(2, 3, 3, 4))
    content = {
        **axes(),
        "step": Var([1, 2, 3], ["step"], {"units": "hours"}, dtype="i8"),
        "valid_time": Var(
            [[1, 2, 3], [25, 26, 27]], ["time", "step"], {"units": SINCE}, dtype="i8"
        ),
        **t2m(values, dimensions=("time", "step", "latitude", "longitude")),
    }
    content["time"].values = [0, 24]
    content["time"].attributes = {"units": SINCE, "standard_name": "forecast_reference_time"}
    found = batches([write(tmp_path / "a.nc", content)])
    assert [(batch.time_ns - JANUARY_NS) // HOUR_NS for batch in found] == [1, 2, 3, 25, 26, 27]
    assert [column(batch, "temperature") for batch in found] == values.reshape(6, 12).tolist()


SINCE = "hours since 2025-01-01"


def test_a_scalar_time_is_one_time(tmp_path: Path) -> None:
    content = {
        **axes(),
        "time": Var(5, [], {"units": SINCE}, dtype="i8"),
        **t2m(field_of(shape=(3, 4)), dimensions=("latitude", "longitude")),
    }
    with open_files([write(tmp_path / "a.nc", content)], Selection(dataset="x")) as source:
        assert source.slices() == [Slice(JANUARY_NS + 5 * HOUR_NS, "x")]


@pytest.mark.parametrize(
    ("values", "dimensions", "dtype", "expected"),
    [
        ("0001", [], "str", [False, False]),
        (["0001", "0005"], ["time"], "str", [False, True]),
        ([1, 5], ["time"], "i4", [False, True]),
        (5, [], "i4", [True, True]),
        ([list("0005"), list("0001")], ["time", "string4"], "S1", [True, False]),
        ("0079", [], "str", [None, None]),
        ("none", [], "str", [None, None]),
    ],
)
def test_expver_says_whether_a_time_is_preliminary(
    tmp_path: Path,
    values: Any,
    dimensions: list[str],
    dtype: str,
    expected: list[bool | None],
) -> None:
    content = {**axes(), "expver": Var(values, dimensions, dtype=dtype), **t2m()}
    found = batches([write(tmp_path / "a.nc", content)])
    flags = [b.preliminary if b.preliminary is None else set(b.preliminary) for b in found]
    assert flags == [None if flag is None else {flag} for flag in expected]


@pytest.mark.parametrize("versions", [[1, 5], [5, 1]])
def test_along_expver_the_final_value_goes_first_cell_by_cell(
    tmp_path: Path, versions: list[int]
) -> None:
    final, early = field_of(280), field_of(290)
    final[:, 0, 0] = np.nan
    early[:, 2, 3] = np.nan
    final[:, 1, 1] = early[:, 1, 1] = np.nan
    pair = [final, early] if versions[0] == 1 else [early, final]
    content = {
        **axes(),
        "expver": Var(versions, ["expver"], dtype="i4"),
        **t2m(np.stack(pair, axis=1), dimensions=("time", "expver", "latitude", "longitude")),
    }
    first = batches([write(tmp_path / "a.nc", content)])[0]
    expected = final[0].copy()
    expected[0, 0] = early[0, 0, 0]
    keep = ~np.isnan(expected)
    assert len(first) == 11
    assert np.array_equal(first.values["temperature"], expected[keep])
    assert np.flatnonzero(np.asarray(first.preliminary)).tolist() == [0]


# ------------------------------------------------------------------------------- merging


def test_ascending_and_descending_files_are_merged_cell_by_cell(tmp_path: Path) -> None:
    wind = {"u10": Var(field_of(1)[:, ::-1], attributes={"units": "m s**-1"})}
    one = write(tmp_path / "a.nc", {**axes(), **t2m()})
    other = write(tmp_path / "b.nc", {**axes(latitude=LATITUDE[::-1]), **wind})
    found = batches([one, other])
    assert [len(batch) for batch in found] == [12, 12]
    assert np.array_equal(found[0].values["u10"], field_of(1)[0].ravel())


def test_the_two_conventions_of_longitude_are_one_grid_and_the_first_file_is_followed(
    tmp_path: Path,
) -> None:
    west = np.array([-0.2, -0.1, 0.0, 0.1])
    east = np.array([0.0, 0.1, 359.8, 359.9])
    wind = {"u10": Var(field_of(1)[..., [2, 3, 0, 1]], attributes={"units": "m/s"})}
    one = write(tmp_path / "a.nc", {**axes(longitude=west), **t2m()})
    other = write(tmp_path / "b.nc", {**axes(longitude=east), **wind})
    first = batches([one, other])[0]
    assert list(first.cells.longitude[:4]) == west.tolist()
    assert np.array_equal(first.values["u10"], field_of(1)[0].ravel())
    box = parse_region("west=-0.25,south=49,east=-0.05,north=51")
    narrowed = batches([one, other], region=box)[0]
    assert np.array_equal(narrowed.values["u10"], field_of(1)[0, :, :2].ravel())


def test_files_of_later_times_continue_earlier_ones(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{day}.nc", {**axes(time=TWO_HOURS + 24 * day), **t2m()})
        for day in range(3)
    ]
    found = batches([str(tmp_path)])
    assert [(batch.time_ns - JANUARY_NS) // HOUR_NS for batch in found] == [0, 1, 24, 25, 48, 49]
    assert rows(batches(files[::-1])) == rows(found)


def test_a_time_that_only_one_file_has_gives_readings_without_the_others_variable(
    tmp_path: Path,
) -> None:
    wind = {"u10": Var(field_of(1, (3, 3, 4)), attributes={"units": "m s-1"})}
    one = write(tmp_path / "a.nc", {**axes(), **t2m()})
    other = write(tmp_path / "b.nc", {**axes(time=[0, 1, 2]), **wind})
    assert [set(batch.values) for batch in batches([one, other])] == [
        {"temperature", "u10"},
        {"temperature", "u10"},
        {"u10"},
    ]


def test_the_same_values_in_two_files_are_read_once(tmp_path: Path) -> None:
    values = field_of()
    values[0, 0, 0] = np.nan
    files = [write(tmp_path / name, {**axes(), **t2m(values)}) for name in ("a.nc", "b.nc")]
    files.append(str(tmp_path))
    assert rows(batches(files)) == rows(batches(files[:1]))


def test_a_final_file_goes_before_a_preliminary_one_and_leaves_it_the_gaps(
    tmp_path: Path,
) -> None:
    final = field_of(280)
    final[:, 0, 0] = np.nan
    version = {"expver": Var("0005", [], dtype="str")}
    early = write(tmp_path / "a.nc", {**axes(), **version, **t2m(field_of(290))})
    version = {"expver": Var("0001", [], dtype="str")}
    later = write(tmp_path / "b.nc", {**axes(time=[1, 2]), **version, **t2m(final)})
    found = batches([early, later])
    assert [np.asarray(batch.preliminary).sum() for batch in found] == [12, 1, 0]
    assert found[1].values["temperature"][0] == field_of(290)[1, 0, 0]
    assert np.array_equal(found[1].values["temperature"][1:], final[0].ravel()[1:])


def test_of_three_files_with_the_same_time_the_final_one_is_read_once(tmp_path: Path) -> None:
    for name, version, start in [("a", "0005", 290), ("b", "0001", 280), ("c", "0001", 280)]:
        expver = {"expver": Var(version, [], dtype="str")}
        write(tmp_path / f"{name}.nc", {**axes(), **expver, **t2m(field_of(start))})
    found = batches([str(tmp_path)])
    assert [column(batch, "temperature")[0] for batch in found] == [280.0, 281.5]
    assert [np.asarray(batch.preliminary).any() for batch in found] == [False, False]


@pytest.mark.parametrize("empty", ["a.nc", "b.nc"])
def test_a_time_without_any_value_contradicts_nothing(tmp_path: Path, empty: str) -> None:
    for name in ("a.nc", "b.nc"):
        values = field_of()
        if name == empty:
            values[1] = np.nan
        write(tmp_path / name, {**axes(), **t2m(values)})
    found = batches([str(tmp_path)])
    assert [column(batch, "temperature") for batch in found] == field_of().reshape(2, 12).tolist()


def test_grids_that_overlap_at_other_times_are_read_each_at_its_time(tmp_path: Path) -> None:
    one = write(tmp_path / "a.nc", {**axes(), **t2m()})
    north = axes(latitude=LATITUDE + 0.1, time=[2, 3])
    other = write(tmp_path / "b.nc", {**north, **t2m()})
    found = batches([one, other])
    assert [round(batch.cells.latitude[0], 1) for batch in found] == [50.2, 50.2, 50.3, 50.3]


def test_minimum_and_mean_of_one_day_are_two_datasets(tmp_path: Path) -> None:
    days = axes(time=[0, 24])
    write(tmp_path / "2m_temperature_0_daily-mean.nc", {**days, **t2m()})
    write(tmp_path / "2m_temperature_0_daily-min.nc", {**days, **t2m(field_of(270))})
    with open_files([str(tmp_path)]) as source:
        assert [slice_.dataset for slice_ in source.slices()] == [
            "era5-land/daily-mean",
            "era5-land/daily-minimum",
        ] * 2
        found = everything(source)
    assert [batch.values["temperature"][0] for batch in found] == [280.0, 270.0, 281.5, 271.5]


def test_grids_without_a_common_cell_are_read_one_after_the_other(tmp_path: Path) -> None:
    one = write(tmp_path / "a.nc", {**axes(), **t2m()})
    other = write(tmp_path / "b.nc", {**axes(longitude=LONGITUDE + 1), **t2m()})
    with open_files([one, other]) as source:
        assert len(source.slices()) == 2
        assert len(rows(everything(source))) == 48


def test_files_of_single_times_say_together_that_they_are_hourly(tmp_path: Path) -> None:
    for hour in range(3):
        content = {**axes(time=[hour]), **t2m(field_of(shape=(1, 3, 4)))}
        write(tmp_path / f"{hour}.nc", content)
    with open_files([str(tmp_path)]) as source:
        assert {slice_.dataset for slice_ in source.slices()} == {"era5-land/hourly"}


def test_a_known_variable_without_a_unit_has_the_one_that_its_name_implies(
    tmp_path: Path,
) -> None:
    found = batches([write(tmp_path / "a.nc", {**axes(), "t2m": Var(field_of())})])
    assert found[0].values["temperature"][0] == 280.0


def test_more_files_than_are_kept_open_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.sources.netcdf_values.OPEN_FILES", 2)
    for day in range(5):
        write(tmp_path / f"{day}.nc", {**axes(time=TWO_HOURS + 24 * day), **t2m()})
    with open_files([str(tmp_path)]) as source:
        forwards = rows(everything(source))
        assert rows(everything(source)) == forwards
    assert len(forwards) == 5 * 24


# ------------------------------------------------------------------------ names of files


def test_files_are_recognised_by_their_content_in_folders_and_patterns(tmp_path: Path) -> None:
    deep = tmp_path / "2025" / "01"
    deep.mkdir(parents=True)
    write(deep / "no-suffix", {**axes(), **t2m()})
    write(tmp_path / "b.txt", {**axes(time=[2, 3]), **t2m()})
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".hidden.nc").write_text("not data")
    os.mkfifo(tmp_path / "pipe.nc")
    with open_files([str(tmp_path)]) as source:
        assert len(source.slices()) == 4
    with open_files([str(tmp_path / "**" / "no*")]) as source:
        assert len(source.slices()) == 2
    with open_files([str(tmp_path / "[b-c].*"), str(tmp_path / "202?")]) as source:
        assert len(source.slices()) == 4


def test_a_name_with_the_letters_of_a_pattern_is_a_name_where_it_exists(tmp_path: Path) -> None:
    file = write(tmp_path / "data_0 [1].nc", {**axes(), **t2m()})
    assert len(rows(batches([file]))) == 24


def test_a_zip_of_several_files_is_read_as_its_files_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    wind = {"u10": Var(field_of(1), attributes={"units": "m s**-1"})}
    one = write(tmp_path / "a.nc", {**axes(), **t2m()})
    other = write(tmp_path / "b.nc", {**axes(), **wind})
    expected = rows(batches([one, other]))
    with zipfile.ZipFile(tmp_path / "both.nc", "w") as archive:
        archive.write(one, "stream-oper/a.nc")
        archive.write(other, "stream-wave/b.nc")
        archive.writestr("README.txt", "not data")
    with zipfile.ZipFile(tmp_path / "again.zip", "w") as archive:
        archive.write(one, "a.nc")
    with open_files([str(tmp_path / "both.nc"), str(tmp_path / "again.zip")]) as source:
        assert len(list(temporary.iterdir())) == 1
        assert rows(everything(source)) == expected
    assert list(temporary.iterdir()) == []


# ---------------------------------------------------------------------------------- grib


def test_grib_messages_of_several_variables_are_merged(tmp_path: Path) -> None:
    wind = field_of(1, (12,))
    messages: list[dict[str, Any]] = [{"dataTime": hour * 100} for hour in range(2)]
    messages += [{**message, "shortName": "10u", "values": wind} for message in messages]
    found = batches([grib(tmp_path / "a.grib", messages)])
    assert [set(batch.values) for batch in found] == [{"temperature", "u10"}] * 2
    assert [batch.dataset for batch in found] == ["era5-land/hourly"] * 2
    assert np.array_equal(found[0].values["u10"], wind)
    assert list(found[0].cells.longitude[:4]) == pytest.approx(LONGITUDE)
    assert list(found[0].cells.latitude[::4]) == pytest.approx(LATITUDE)


def test_what_a_grib_bitmap_leaves_out_is_missing_though_9999_is_a_value(tmp_path: Path) -> None:
    values = field_of(0, (12,)).astype(np.float64)
    values[3], values[4] = 9999.0, 1e30
    keys = {"shortName": "10u", "values": values, "missingValue": 1e30}
    (batch,) = batches([grib(tmp_path / "a.grib", [keys])])
    assert len(batch) == 11
    assert 9999.0 in np.round(batch.values["u10"], 1)


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("by_column", [0, 1])
def test_grib_values_are_where_the_scanning_mode_says(
    tmp_path: Path, edition: int, by_column: int
) -> None:
    keys = {
        "jPointsAreConsecutive": by_column,
        "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": 50.0,
        "latitudeOfLastGridPointInDegrees": 50.2,
    }
    found = rows(batches([grib(tmp_path / "a.grib", [keys], edition)], dataset="x"))
    order = sorted(found, key=lambda key: key[2:] if not by_column else key[:1:-1])
    assert [found[key]["temperature"] for key in order] == field_of(shape=(12,)).tolist()


def test_grib_forecast_steps_and_experiment_versions_are_told_apart(tmp_path: Path) -> None:
    messages = [
        {"step": 6, "expver": "0001"},
        {"step": 7, "expver": "0005"},
    ]
    found = batches([grib(tmp_path / "a.grib", messages)])
    assert [(batch.time_ns - JANUARY_NS) // HOUR_NS for batch in found] == [6, 7]
    assert [np.asarray(batch.preliminary).any() for batch in found] == [False, True]


def test_one_variable_of_a_grib_file_alone_is_read_alone(tmp_path: Path) -> None:
    levels = {"shortName": "t", "typeOfLevel": "isobaricInhPa"}
    messages = [{}, *({**levels, "level": level} for level in (500, 850))]
    found = batches([grib(tmp_path / "a.grib", messages)], variables=("2t",), dataset="x")
    assert [set(batch.values) for batch in found] == [{"temperature"}]
