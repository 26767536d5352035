"""`inspect` says of the sample files what the table of their README says."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
from rich.console import Console

from climatestream.inspect import FileReport, as_json, inspect_files, table
from tests.make_files import LATITUDE, Var, axes, field_of, t2m, write

VARIABLE = re.compile(r"(\w+) \[(.+?)\] (\S+)\.\.(\S+), NaN ([\d.]+) %, ([\d,]+) values")
AXIS = re.compile(r"([-\d.]+)\.\.([-\d.]+) [NE]")


@dataclass
class Row:
    """A line of the README's table."""

    path: str
    format: str
    latitude: tuple[float, float]
    longitude: tuple[float, float]
    within: str
    first: str
    last: str
    times: int
    variables: dict[str, tuple[str, str, str, str, int]]


def _rows(era5: Path) -> list[Row]:
    text = (era5 / "README.md").read_text("utf-8")
    found = []
    for line in text[text.index("## Contents") : text.index("## Provenance")].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 8 or not cells[0].startswith("`"):
            continue
        names = re.findall(r"`([^`]+)`", cells[0])
        ends = [
            tuple(float(end) for end in match.groups())
            for match in (AXIS.search(cell) for cell in cells[4:6])
            if match
        ]
        when = re.search(r"(\d{4}\S+) \.\. (\S+), ([\d,]+)", cells[6])
        within = re.search(r"(\S+)$", cells[5])
        assert len(ends) == 2
        assert when
        assert within
        # The table has the northern end first, whatever the file does.
        ascending = " ascending" in cells[4]
        found.append(
            Row(
                path=" → ".join([str(era5 / names[0]), *names[1:]]),
                format=cells[1].split(",")[0].replace(" ", ""),
                latitude=(ends[0][ascending], ends[0][1 - ascending]),
                longitude=(ends[1][0], ends[1][1]),
                within=within[1],
                first=when[1],
                last=when[2],
                times=int(when[3].replace(",", "")),
                variables={
                    name: (unit, low, high, share, int(count.replace(",", "")))
                    for name, unit, low, high, share, count in VARIABLE.findall(cells[7])
                },
            )
        )
    return found


def _check(row: Row, report: FileReport) -> None:
    assert report.format == row.format
    grid, times = report.grid, report.times
    assert (grid.latitude_first, grid.latitude_last) == pytest.approx(row.latitude)
    assert (grid.longitude_first, grid.longitude_last) == pytest.approx(row.longitude)
    assert grid.longitudes_within == row.within
    assert (times.first[:13], times.last[:13], times.count) == (row.first, row.last, row.times)
    assert [variable.name for variable in report.variables] == list(row.variables)
    for variable in report.variables:
        unit, low, high, share, count = row.variables[variable.name]
        assert variable.unit == unit
        assert variable.minimum is not None
        assert variable.maximum is not None
        # The README has five digits.
        assert f"{variable.minimum:.5g}" == low
        assert f"{variable.maximum:.5g}" == high
        assert f"{variable.missing_share:.2%}" == f"{share}%"
        assert variable.values == count


def test_every_netcdf_sample_is_what_its_readme_says(era5: Path) -> None:
    wanted = {row.path: row for row in _rows(era5) if not row.format.startswith("GRIB")}
    assert len(wanted) == 11
    folders = sorted({str(Path(path.split(" → ")[0]).parent) for path in wanted})
    reports = inspect_files(folders)
    assert {report.path for report in reports} == set(wanted)
    for report in reports:
        _check(wanted[report.path], report)


def test_the_grib_sample_is_what_its_readme_says(era5: Path) -> None:
    pytest.importorskip("eccodes", reason="ecCodes is missing: make env-grib")
    (row,) = (row for row in _rows(era5) if row.format.startswith("GRIB"))
    (report,) = inspect_files([str(era5 / "ghana-land-grib")])
    _check(row, report)
    assert report.dataset == "era5-land/hourly"
    assert report.readings == 7_056


def test_a_dataset_that_cannot_be_known_is_null_and_has_a_reason(era5: Path) -> None:
    files = [str(era5 / "world-old-0-360")]
    (report,) = inspect_files(files)
    assert report.dataset is None
    assert report.dataset_unknown is not None
    assert "single time" in report.dataset_unknown
    (report,) = inspect_files(files, dataset="era5/hourly")
    assert (report.dataset, report.dataset_unknown) == ("era5/hourly", None)


def test_readings_are_the_cells_and_times_with_any_value(tmp_path: Path) -> None:
    temperature, wind = field_of(), field_of(1)
    temperature[0, 0, :2] = np.nan
    wind[0, 0, 1:3] = np.nan
    wind[1] = np.nan
    content = {**axes(), **t2m(temperature), "mine": Var(wind)}
    (report,) = inspect_files([write(tmp_path / "a.nc", content)])
    assert report.readings == 23
    known, own = report.variables
    assert (known.variable, known.unit, known.values) == ("temperature", "K", 22)
    assert (own.variable, own.unit, own.values) == (None, None, 10)
    assert own.missing_share == 14 / 24


def test_a_variable_without_any_value_has_no_ends(tmp_path: Path) -> None:
    content = {**axes(), **t2m(np.full((2, 3, 4), np.nan))}
    (report,) = inspect_files([write(tmp_path / "a.nc", content)])
    (variable,) = report.variables
    assert (variable.minimum, variable.maximum, variable.missing_share) == (None, None, 1.0)
    assert report.readings == 0


def test_a_file_of_two_grids_has_a_report_of_each(tmp_path: Path) -> None:
    content = {
        **axes(),
        **t2m(),
        "y": Var(LATITUDE[:2] + 5, ["y"], {"units": "degrees_north"}, dtype="f8"),
        "u10": Var(field_of(1, (2, 2, 4)), ("time", "y", "longitude"), {"units": "m s**-1"}),
    }
    reports = inspect_files([write(tmp_path / "a.nc", content)])
    assert [report.variables[0].name for report in reports] == ["t2m", "u10"]
    assert [report.grid.latitudes for report in reports] == [3, 2]


def test_progress_is_told_before_each_file(tmp_path: Path) -> None:
    files = [write(tmp_path / name, {**axes(), **t2m()}) for name in ("a.nc", "b.nc")]
    told: list[tuple[int, int, str]] = []
    inspect_files(files, progress=lambda *what: told.append(what))
    assert told == [(0, 2, files[0]), (1, 2, files[1])]


def test_a_report_is_json_and_a_table_with_the_same_numbers(era5: Path) -> None:
    (report,) = inspect_files([str(era5 / "rhine-ascending-latitude")])
    told = orjson.loads(orjson.dumps(as_json(report)))
    assert told["dataset"] == "era5/daily-mean"
    assert told["times"]["first"] == "2000-01-01T11:30:00Z"
    assert told["variables"][0]["values"] == 9_630
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(report))
    text = console.export_text()
    for word in ("era5/daily-mean", "11:30", "46.25 to 52.25", "9,630", "61.09%", "temperature"):
        assert word in text


def test_a_table_says_what_is_not_known_and_what_varies(era5: Path) -> None:
    folders = [str(era5 / "riviera-old-expver-dim"), str(era5 / "world-old-0-360")]
    console = Console(width=120, record=True, file=io.StringIO())
    for report in inspect_files(folders):
        console.print(table(report))
    text = console.export_text()
    assert "steps 672 to 744 h" in text
    assert "1, 5" in text
    assert "not known: it holds a single time" in text
    assert "--dataset" in text
