"""What can't be read is refused before anything is read: one sentence, exit code 1 or 2."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from climatestream.errors import ClimatestreamError, SourceError, UsageError
from climatestream.region import parse_region
from climatestream.sources import netcdf3
from climatestream.sources.files import open_files
from climatestream.sources.selection import Selection, end_of, start_of
from tests.make_files import (
    LATITUDE,
    TWO_HOURS,
    Var,
    axes,
    batches,
    everything,
    field_of,
    grib,
    rows,
    t2m,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Case = tuple["Callable[[Path], list[str]]", type[ClimatestreamError], tuple[str, ...]]


def _good(path: Path, **options: Any) -> str:
    return write(path / "good.nc", {**axes(), **t2m(**options)})


def _bytes(content: bytes, name: str = "a.nc") -> Callable[[Path], list[str]]:
    def make(path: Path) -> list[str]:
        (path / name).write_bytes(content)
        return [str(path / name)]

    return make


def _cut(kind: Any, keep: float | int) -> Callable[[Path], list[str]]:
    """A good file without its end: a share of it, or all but so many bytes."""

    def make(path: Path) -> list[str]:
        whole = Path(write(path / "a.nc", {**axes(), **t2m()}, kind=kind))
        content = whole.read_bytes()
        if kind.startswith("NETCDF3"):
            # The library leaves a tiny file longer than its content.
            content = content[: netcdf3.length_needed(io.BytesIO(content))]
        size = int(len(content) * keep) if isinstance(keep, float) else len(content) - keep
        whole.write_bytes(content[:size])
        return [str(whole)]

    return make


def _made(**content: Var) -> Callable[[Path], list[str]]:
    def make(path: Path) -> list[str]:
        return [write(path / "a.nc", content)]

    return make


def _two(first: dict[str, Var], second: dict[str, Var]) -> Callable[[Path], list[str]]:
    def make(path: Path) -> list[str]:
        return [write(path / "a.nc", first), write(path / "b.nc", second)]

    return make


def _folder(path: Path) -> list[str]:
    (path / "empty" / "deeper").mkdir(parents=True)
    (path / "empty" / "notes.txt").write_text("nothing")
    return [str(path / "empty")]


def _link(path: Path) -> list[str]:
    (path / "a.nc").symlink_to(path / "none.nc")
    return [str(path / "a.nc")]


def _zip_of(**members: bytes) -> Callable[[Path], list[str]]:
    def make(path: Path) -> list[str]:
        with zipfile.ZipFile(path / "a.nc", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return [str(path / "a.nc")]

    return make


def _levels(path: Path) -> list[str]:
    values = field_of(shape=(2, 5, 3, 4))
    level = Var(np.arange(5), ["level"], {"units": "hPa"}, dtype="i4")
    dimensions = ("time", "level", "latitude", "longitude")
    return [write(path / "a.nc", {**axes(), "level": level, **t2m(values, dimensions=dimensions)})]


def _two_dimensional(path: Path) -> list[str]:
    places = np.tile(np.arange(4.0), (3, 1))
    content = {
        "time": axes()["time"],
        "lat": Var(places, ["y", "x"], {"units": "degrees_north"}),
        "lon": Var(places, ["y", "x"], {"units": "degrees_east"}),
        **t2m(dimensions=("time", "y", "x")),
    }
    return [write(path / "a.nc", content)]


def _stations(path: Path) -> list[str]:
    content = {
        "time": axes()["time"],
        "lat": Var(np.arange(3.0), ["station"], {"units": "degrees_north"}),
        "lon": Var(np.arange(3.0), ["station"], {"units": "degrees_east"}),
        **t2m(field_of(shape=(2, 3)), dimensions=("time", "station")),
    }
    return [write(path / "a.nc", content)]


def _time(values: Any, **attributes: str) -> Callable[[Path], list[str]]:
    time = Var(values, ["time"], {"units": "hours since 2025-01-01", **attributes}, dtype="f8")
    return _made(**{**axes(), "time": time}, **t2m())


def _expver(path: Path) -> list[str]:
    version = Var([1, 79], ["expver"], dtype="i4")
    content = {**axes(), "expver": version, **t2m(EXPVER, dimensions=WITH_EXPVER)}
    return [write(path / "a.nc", content)]


def _changed(values: np.ndarray, by: float) -> np.ndarray:
    other = values.copy()
    other[1, 2, 3] += by
    return other


EXPVER = field_of(shape=(2, 2, 3, 4))
WITH_EXPVER = ("time", "expver", "latitude", "longitude")
NO_LATITUDE = {
    "time": axes()["time"],
    "longitude": axes()["longitude"],
    **t2m(field_of(shape=(2, 4)), dimensions=("time", "longitude")),
}
DEGC = Var(field_of(), attributes={"units": "degC"})
NAMED_BADLY = {"a.b": Var(field_of(), attributes={"units": "K"})}
RESERVED = {"country": Var(field_of(), attributes={"units": "1"})}
OVERLAP = {**axes(latitude=LATITUDE - 0.1), **t2m()}

CASES: dict[str, Case] = {
    "missing file": (lambda p: [str(p / "none.nc")], SourceError, ("no file", "none.nc")),
    "address": (lambda _: ["https://example.org/a.nc"], UsageError, ("download",)),
    "no name": (lambda _: [""], UsageError, ("no name",)),
    "pattern without match": (lambda p: [f"{p}/*.nc"], SourceError, ("no file matches", "*.nc")),
    "empty file": (_bytes(b""), SourceError, ("a.nc is empty",)),
    "text named .nc": (_bytes(b"hello\n" * 9), SourceError, ("a.nc", "hello", "NetCDF or GRIB")),
    "answer of a server": (_bytes(b"<html>"), SourceError, ("HTML",)),
    "gzip": (_bytes(b"\x1f\x8b\x08\x00"), SourceError, ("gzip",)),
    "only the first bytes": (_bytes(b"\x89HDF\r\n\x1a\n"), SourceError, ("a.nc", "get it again")),
    "half of a NetCDF-4": (_cut("NETCDF4", 0.5), SourceError, ("a.nc", "get it again")),
    "NetCDF-4, its end": (_cut("NETCDF4", 1), SourceError, ("a.nc", "get it again")),
    "half of a NetCDF-3": (_cut("NETCDF3_CLASSIC", 0.5), SourceError, ("cut short",)),
    "NetCDF-3, its end": (_cut("NETCDF3_CLASSIC", 1), SourceError, ("cut short", "bytes")),
    "NetCDF-3, 64 bit": (_cut("NETCDF3_64BIT_OFFSET", 2), SourceError, ("cut short", "bytes")),
    "NetCDF-3, 64 bit data": (_cut("NETCDF3_64BIT_DATA", 3), SourceError, ("cut short", "bytes")),
    "NetCDF-3 header": (_cut("NETCDF3_CLASSIC", 0.05), SourceError, ("cut short", "header")),
    "NetCDF-3 with a damaged header": (
        _bytes(b"CDF\x01" + bytes(7) + b"\x07" + bytes(60)),
        SourceError,
        ("damaged", "marked 7"),
    ),
    "a link to nowhere": (_link, SourceError, ("a.nc is no file",)),
    "folder without data": (_folder, SourceError, ("empty", "holds no data")),
    "empty ZIP": (_zip_of(), SourceError, ("ZIP that holds nothing",)),
    "ZIP of text": (_zip_of(**{"a.txt": b"text"}), SourceError, ("ZIP that holds a.txt",)),
    "no latitude": (_made(**NO_LATITUDE), SourceError, ("a.nc has no latitude", "t2m")),
    "two-dimensional latitude": (_two_dimensional, SourceError, ("two-dimensional latitude",)),
    "stations": (_stations, SourceError, ("station", "expected a grid")),
    "levels": (_levels, SourceError, ("5 places along 'level'",)),
    "latitude out of range": (
        _made(**{**axes(latitude=[95.0, 94.0, 93.0]), **t2m()}),
        SourceError,
        ("latitude 93..95",),
    ),
    "a longitude twice": (
        _made(**{**axes(longitude=[0.0, 120.0, 240.0, 360.0]), **t2m()}),
        SourceError,
        ("a place twice",),
    ),
    "missing latitude": (
        _made(**{**axes(latitude=[50.2, np.nan, 50.0]), **t2m()}),
        SourceError,
        ("latitude in", "missing"),
    ),
    "latitude without places": (
        _made(**{**axes(latitude=[]), **t2m(field_of(shape=(2, 0, 4)))}),
        SourceError,
        ("empty latitude",),
    ),
    "time without places": (
        _made(**{**axes(time=[]), **t2m(field_of(shape=(0, 3, 4)))}),
        SourceError,
        ("holds no times",),
    ),
    "no time": (
        _made(**t2m(field_of(shape=(3, 4)), dimensions=("latitude", "longitude")), **axes()),
        SourceError,
        ("no time for t2m",),
    ),
    "months as a unit": (_time([0, 1], units="months since 2025-01-01"), SourceError, ("months",)),
    "another calendar": (_time([0, 1], calendar="360_day"), SourceError, ("360_day",)),
    "no date": (_time([0, 1], units="hours since the flood"), SourceError, ("the flood",)),
    "missing time": (_time([0, np.nan]), SourceError, ("missing",)),
    "a time of another age": (_time([0, 1e9]), SourceError, ("1900..2200",)),
    "versions without values": (
        _made(**axes(), **t2m(EXPVER, dimensions=WITH_EXPVER)),
        SourceError,
        ("dimension expver, but no values",),
    ),
    "unknown versions": (_expver, SourceError, ("1, 79", "expver")),
    "another unit": (_made(**axes(), t2m=DEGC), SourceError, ("'degC'", "'K'")),
    "name with a dot": (_made(**axes(), **NAMED_BADLY), SourceError, ("a.b", "dot")),
    "name of another field": (_made(**axes(), **RESERVED), SourceError, ("country",)),
    "two values": (
        _two({**axes(), **t2m()}, {**axes(), **t2m(_changed(field_of(), 1))}),
        SourceError,
        ("a.nc", "b.nc", "2025-01-01T01:00", "latitude 50,", "longitude 8.3:"),
    ),
    "value and none": (
        _two({**axes(), **t2m()}, {**axes(), **t2m(_changed(field_of(), np.nan))}),
        SourceError,
        ("a.nc", "b.nc", "282.875 and none"),
    ),
    "a time twice": (
        _made(**{**axes(time=[0, 1, 1]), **t2m(field_of(shape=(3, 3, 4)))}),
        SourceError,
        ("2025-01-01T01:00:00Z twice",),
    ),
    "two names of one variable": (
        _made(**axes(), **t2m(), **{"2t": Var(_changed(field_of(), 1))}),
        SourceError,
        ("t2m in", "2t in"),
    ),
    "one cell on two grids": (
        _two({**axes(), **t2m()}, OVERLAP),
        SourceError,
        ("8 cells in common",),
    ),
    "two units of an unknown variable": (
        _two(
            {**axes(), "mine": Var(field_of(), attributes={"units": "K"})},
            {**axes(time=[2, 3]), "mine": Var(field_of(), attributes={"units": "degC"})},
        ),
        SourceError,
        ("'K'", "'degC'"),
    ),
    "a dataset that can't be known": (
        _made(**{**axes(time=[0, 24]), **t2m()}),
        UsageError,
        ("24 hours apart", "--dataset"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_sentence_that_says_what_and_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    make, kind, words = CASES[name]
    source = open_files(make(tmp_path))
    with pytest.raises(kind) as caught, source:
        pytest.fail("was opened")
    message = str(caught.value)
    assert caught.type is kind
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not message.endswith(".")
    assert capfd.readouterr() == ("", ""), "a library speaks on its own"


def test_no_file_at_all_is_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no file"):
        open_files([])


def test_a_damaged_block_is_an_error_when_it_is_read(
    era5: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((era5 / "kerala-land-hourly" / "data_0.nc").read_bytes())
    content[60_000:90_000] = b"\xff" * 30_000
    (tmp_path / "a.nc").write_bytes(content)
    with (
        open_files([str(tmp_path / "a.nc")]) as source,
        pytest.raises(SourceError, match=r"a\.nc is damaged .* HDF error\): get it again"),
    ):
        everything(source)
    assert capfd.readouterr() == ("", "")


def test_a_file_without_read_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _good(tmp_path)
    if os.geteuid() == 0:
        # Root may read everything: the system's answer is put in its place.
        def denied(path: Path, *_: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", denied)
    else:
        Path(file).chmod(0)
    with (
        pytest.raises(SourceError, match=r"good.nc may not be read by this user"),
        open_files([file]),
    ):
        pass


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _good(tmp_path)
    if os.geteuid() == 0:

        def denied(path: str) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "scandir", denied)
    else:
        tmp_path.chmod(0)
    with pytest.raises(SourceError, match="may not be read"), open_files([str(tmp_path)]):
        pass
    tmp_path.chmod(0o755)


def test_a_file_that_is_no_data_under_a_name_of_data_is_not_skipped_in_a_folder(
    tmp_path: Path,
) -> None:
    _good(tmp_path)
    (tmp_path / "z.nc").write_text("no data")
    with pytest.raises(SourceError, match=r"z.nc begins with"), open_files([str(tmp_path)]):
        pass


def test_one_wrong_file_among_good_ones_is_named(tmp_path: Path) -> None:
    files = [_good(tmp_path), str(tmp_path / "none.nc")]
    with pytest.raises(SourceError, match=r"none\.nc"), open_files(files):
        pass


def test_a_file_that_goes_away_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.sources.netcdf_values.OPEN_FILES", 1)
    for day in range(2):
        write(tmp_path / f"{day}.nc", {**axes(time=TWO_HOURS + 24 * day), **t2m()})
    with open_files([str(tmp_path)]) as source:
        (tmp_path / "0.nc").unlink()
        with pytest.raises(SourceError, match=r"0\.nc can't be read: No such file"):
            list(source.read(source.slices()[0]))


# ----------------------------------------------------------------------------- selection


def test_a_variable_that_nobody_knows_is_a_wrong_usage_that_names_the_nearest(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(UsageError, match=r"'temperatur'.*temperature.*files hold t2m"),
        open_files([_good(tmp_path)], Selection(variables=("temperatur",))),
    ):
        pass


def test_a_known_variable_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(SourceError, match="holds surface_pressure: they hold t2m"),
        open_files([_good(tmp_path)], Selection(variables=("t2m", "surface_pressure"))),
    ):
        pass


def test_a_variable_that_only_the_file_knows_can_be_chosen(tmp_path: Path) -> None:
    mine = {"mine": Var(field_of(1), attributes={"units": "1"})}
    file = write(tmp_path / "a.nc", {**axes(), **mine, **t2m()})
    found = batches([file], variables=("mine",))
    assert {name for batch in found for name in batch.values} == {"mine"}
    assert found[0].units == {"mine": "1"}


def test_what_is_wrong_with_a_variable_does_not_matter_where_another_is_chosen(
    tmp_path: Path,
) -> None:
    levels = Var(field_of(shape=(2, 2, 3, 4)), ("time", "level", "latitude", "longitude"))
    content = {**axes(), **t2m(), "q": levels, "d2m": DEGC, **NAMED_BADLY}
    file = write(tmp_path / "a.nc", content)
    assert len(rows(batches([file], variables=("2m_temperature",)))) == 24


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ({"start_ns": start_of("2025-02-01")}, ("from 2025-02-01", "2025-01-01T00:00:00Z to")),
        ({"end_ns": end_of("2024-12-31")}, ("to 2024-12-31T23:59:59Z", "2025-01-01T01:00:00Z")),
        ({"region": parse_region("NZL")}, ("NZL", "latitude 50..50.2, longitude 8..8.3")),
    ],
)
def test_a_selection_that_leaves_nothing_is_told_what_there_is(
    tmp_path: Path, select: dict[str, Any], words: tuple[str, ...]
) -> None:
    file = _good(tmp_path)
    with pytest.raises(SourceError) as caught, open_files([file], Selection(**select)):
        pass
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "1750-01-01", "2025-08"])
def test_what_is_no_time_is_a_wrong_usage_that_shows_one(text: str) -> None:
    with pytest.raises(UsageError, match="2025-08-10"):
        start_of(text)
    with pytest.raises(UsageError, match="2025-08-10"):
        end_of(text)


def test_times_that_end_before_they_begin_are_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="earlier one first"):
        Selection(start_ns=start_of("2025-08-11"), end_ns=end_of("2025-08-10"))
    Selection(start_ns=start_of("2025-08-10"), end_ns=end_of("2025-08-10"))


def test_an_empty_dataset_is_a_wrong_usage() -> None:
    with pytest.raises(UsageError, match="is no name"):
        Selection(dataset="")


def test_one_name_for_several_datasets_is_a_wrong_usage(tmp_path: Path) -> None:
    days = axes(time=[0, 24])
    for name in ("mean", "max"):
        write(tmp_path / f"2m_temperature_0_daily-{name}.nc", {**days, **t2m()})
    with (
        pytest.raises(UsageError, match=r"daily-maximum.*daily-mean"),
        open_files([str(tmp_path)], Selection(dataset="mine")),
    ):
        pass


# ---------------------------------------------------------------------------------- grib


def test_without_ecCodes_grib_is_refused_with_the_command_to_type(  # noqa: N802
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "eccodes", None)
    (tmp_path / "a.nc").write_bytes(b"GRIB" + bytes(100))
    with (
        pytest.raises(SourceError, match="pip install eccodes"),
        open_files([str(tmp_path / "a.nc")]),
    ):
        pass


GRIB_CASES: dict[str, tuple[list[dict[str, Any]], float, str]] = {
    "cut short": ([{}], 0.9, "cut short"),
    "several levels": (
        [{"typeOfLevel": "isobaricInhPa", "level": level} for level in (500, 850)],
        1.0,
        "several levels",
    ),
    "several streams": ([{}, {"stream": "moda", "dataTime": 600}], 1.0, "classes or streams"),
    "another grid": ([{"gridType": "rotated_ll"}], 1.0, "rotated_ll"),
    "another class": ([{"class": "od"}], 1.0, "'od'"),
    "two values": ([{}, {"values": field_of(290, (12,))}], 1.0, "00:00:00Z twice"),
}


@pytest.mark.parametrize("name", GRIB_CASES)
def test_bad_grib_gets_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    messages, keep, word = GRIB_CASES[name]
    path = Path(grib(tmp_path / "a.grib", messages))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises((SourceError, UsageError), match=word), open_files([str(path)]):
        pass
    assert capfd.readouterr() == ("", ""), "a library speaks on its own"


def test_a_grib_file_that_goes_away_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = Path(grib(tmp_path / "a.grib", [{}]))
    with open_files([str(path)]) as source:
        path.unlink()
        with pytest.raises(SourceError, match="can't be read at byte 0: No such file"):
            everything(source)


# ------------------------------------------------------------------------------ netcdf-3


def test_the_length_that_a_header_needs_is_that_of_the_file(era5: Path) -> None:
    for name in ("berlin-old-packed", "riviera-old-expver-dim", "world-old-0-360"):
        (path,) = era5.joinpath(name).iterdir()
        with path.open("rb") as file:
            assert netcdf3.length_needed(file) == path.stat().st_size


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("others", [0, 1])
def test_records_are_counted_into_the_length(tmp_path: Path, kind: Any, others: int) -> None:
    """A lone record variable is not padded, several are; both end at the last value."""
    import netCDF4

    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=kind) as dataset:
        dataset.createDimension("time", None)
        dataset.createDimension("x", 3)
        for i in range(1 + others):
            dataset.createVariable(f"v{i}", "i2", ("time", "x"))[:] = np.ones((5, 3))
    with path.open("rb") as file:
        needed = netcdf3.length_needed(file)
    assert 0 <= path.stat().st_size - needed <= 3
