"""`arco:` and `edh:` against archives on loopback: what is read, what is asked for, what fails."""

from __future__ import annotations

import json
import mmap
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from climatestream.cli import invoke
from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.model import Batch
from climatestream.region import parse_region
from climatestream.sources import archives
from climatestream.sources.preliminary import final_before_ns
from climatestream.sources.selection import Selection, end_of, start_of
from climatestream.sources.zarr_array import Patience, _Block
from climatestream.sources.zarr_source import ZarrSource
from tests.benchmarks import archives as figures
from tests.conftest import ROOT
from tests.zarr_server import HOUR_NS, Fault, ZarrServer, is_sea, value

NOW_NS = start_of("2026-11-25")
QUICK = Patience(timeout_s=5.0, retries=2, wait_s=0.001, sleep=lambda _: None)
BOX = "west=6,south=50,east=7,north=50.5"


def selection(
    since: str, until: str, variables: str = "temperature", region: str | None = BOX
) -> Selection:
    return Selection(
        region=None if region is None else parse_region(region),
        variables=tuple(variables.split(",")),
        start_ns=start_of(since),
        end_ns=end_of(until),
    )


def source(
    spec: str,
    chosen: Selection,
    said: list[str] | None = None,
    now_ns: Callable[[], int] = lambda: NOW_NS,
) -> ZarrSource:
    say = (said if said is not None else []).append
    return ZarrSource(spec, chosen, say=say, now_ns=now_ns, patience=QUICK)


def everything(opened: ZarrSource) -> list[Batch]:
    return [batch for slice_ in opened.slices() for batch in opened.read(slice_)]


SHORT = {"temperature": "t2m", "pressure": "sp", "u10": "u10", "v10": "v10"}


def assert_true(batches: list[Batch], hours: int, cells: int) -> None:
    """Every cell of every hour has the value that was put there."""
    assert len({batch.time_ns for batch in batches}) == hours
    assert sum(map(len, batches)) == hours * cells
    for batch in batches:
        latitude, longitude = np.asarray(batch.cells.latitude), np.asarray(batch.cells.longitude)
        assert not is_sea(latitude, longitude).any()
        for name, column in batch.values.items():
            wanted = value(SHORT[name], batch.time_ns // HOUR_NS, latitude, longitude)
            np.testing.assert_array_equal(column, wanted.astype("f4"))


# ------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("spec", ["arco:era5-land/hourly", "edh:era5-land/hourly"])
def test_readings_are_those_of_the_archive(zarr_server: ZarrServer, spec: str) -> None:
    names = "temperature,u10,v10,pressure"
    with source(spec, selection("2025-09-26", "2025-09-27", names)) as opened:
        batches = everything(opened)
    assert_true(batches, hours=48, cells=11 * 6)
    assert {tuple(sorted(batch.values)) for batch in batches} == {tuple(sorted(SHORT))}
    assert {batch.dataset for batch in batches} == {"era5-land/hourly"}


@pytest.mark.parametrize("spec", ["arco:era5-land/hourly", "edh:era5-land/hourly"])
@pytest.mark.parametrize("place", ["west=-1,south=50,east=1.5,north=51", "FRA"])
def test_a_region_across_greenwich_is_read_from_both_ends(
    zarr_server: ZarrServer, spec: str, place: str
) -> None:
    with source(spec, selection("2025-09-26", "2025-09-26", region=place)) as opened:
        batches = everything(opened)
    cells = len(batches[0])
    assert_true(batches, 24, cells)
    west = np.asarray(batches[0].cells.longitude) % 360.0
    assert (west > 180.0).any()
    assert (west < 180.0).any()
    assert place == "FRA" or cells == 26 * 11


def test_cells_have_one_id_in_every_archive(zarr_server: ZarrServer) -> None:
    from climatestream.fastcodec import keys

    found = []
    for spec in ("arco:era5-land/hourly", "edh:era5-land/hourly"):
        with source(spec, selection("2025-09-26", "2025-09-26", region="DEU")) as opened:
            found.append({key for batch in everything(opened) for key in keys(batch.cells)})
    assert found[0] == found[1]
    assert b"52.5000,13.4000" in found[0]


@pytest.mark.parametrize("spec", ["arco:era5-land/hourly", "edh:era5-land/hourly"])
def test_rain_is_the_amount_of_each_hour(zarr_server: ZarrServer, spec: str) -> None:
    """Earth Data Hub has sums since midnight, ARCO hours; a reading is an hour of either."""
    chosen = selection("2025-09-26", "2025-09-26", "total_precipitation")
    with source(spec, chosen) as opened:
        batches = everything(opened)
    assert len(batches) == 24
    for batch in batches:
        wanted = value("tp", 0, np.asarray(batch.cells.latitude), 0.0)
        np.testing.assert_allclose(batch.values["total_precipitation"], wanted, atol=1e-7)


def test_a_days_rain_is_the_sum_at_its_end(zarr_server: ZarrServer) -> None:
    chosen = selection("2025-09-26", "2025-09-28", "total_precipitation")
    with source("edh:era5-land/daily-sum", chosen) as opened:
        batches = everything(opened)
    days = [start_of(f"2025-09-{day}") for day in (26, 27, 28)]
    assert [batch.time_ns for batch in batches] == days
    for batch in batches:
        wanted = 24 * value("tp", 0, np.asarray(batch.cells.latitude), 0.0)
        np.testing.assert_allclose(batch.values["total_precipitation"], wanted, rtol=1e-6)
        assert batch.dataset == "era5-land/daily-sum"


def test_days_come_from_the_store_of_days(zarr_server: ZarrServer) -> None:
    with source("edh:era5-land/daily-mean", selection("2025-09-26", "2025-09-28")) as opened:
        batches = everything(opened)
    assert_true(batches, 3, 66)
    assert {batch.dataset for batch in batches} == {"era5-land/daily-mean"}
    assert all("daily" in path for path in zarr_server.paths)


def test_a_point_is_its_nearest_cell(zarr_server: ZarrServer) -> None:
    chosen = selection("2025-09-26", "2025-09-26", region="latitude=50.13,longitude=8.68")
    with source("arco:era5-land/hourly", chosen) as opened:
        batches = everything(opened)
    assert_true(batches, 24, 1)
    assert round(float(batches[0].cells.latitude[0]), 4) == 50.1
    assert round(float(batches[0].cells.longitude[0]), 4) == 8.7


def test_the_services_own_names_will_do(zarr_server: ZarrServer) -> None:
    chosen = selection("2025-09-26", "2025-09-26")
    for spec in ("arco:reanalysis-era5-land", "edh:era5-land-v0.zarr"):
        with source(spec, chosen) as opened:
            assert opened.slices()[0].dataset == "era5-land/hourly"


def test_values_are_preliminary_by_their_date_and_that_is_said(zarr_server: ZarrServer) -> None:
    chosen = selection("2025-09-29", "2025-10-02")
    said: list[str] = []
    present = start_of("2026-01-15")
    with source("arco:era5-land/hourly", chosen, said, now_ns=lambda: present) as opened:
        batches = everything(opened)
    october = start_of("2025-10-01")
    for batch in batches:
        assert batch.preliminary is not None
        assert np.asarray(batch.preliminary).all() == (batch.time_ns >= october)
    assert "those from 2025-10-01T00:00:00Z on are taken for it, by their date" in said[-1]
    with source("arco:era5-land/hourly", chosen, said := []) as opened:
        assert not np.asarray(everything(opened)[0].preliminary).any()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("now", "cutoff"),
    [("2026-11-25", "2026-08-01"), ("2026-03-01", "2025-12-01"), ("2026-02-28", "2025-11-01")],
)
def test_a_month_is_final_three_months_after_its_end(now: str, cutoff: str) -> None:
    assert final_before_ns(start_of(now)) == start_of(cutoff)


# ---------------------------------------------------------------------------------- requests


def test_only_chunks_that_region_and_dates_touch_are_read_each_once_and_told_before(
    zarr_server: ZarrServer,
) -> None:
    said: list[str] = []
    names = "temperature,u10,v10,pressure"
    with source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-27", names), said) as o:
        assert zarr_server.chunks() == [], "nothing is read before it is told"
        everything(o)
        # rows 56..61 of 20, columns 60..70 of 40, hours 24..71 (and 23) of 96
        assert o.plan.requests == 4 * (2 * 1 * 1)
        assert o.traffic.requests == len(zarr_server.paths)
    assert len(zarr_server.chunks()) == len(set(zarr_server.chunks())) == 8
    assert "8 chunks of 307 kB, 2.46 MB before compression" in said[0]


def test_one_windows_worth_at_a_time_still_reads_a_chunk_once(
    zarr_server: ZarrServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of a few hours, chunks of five days."""
    monkeypatch.setattr("climatestream.sources.merge.WINDOW_BYTES", 66 * 5 * 7)
    chosen = selection("2025-09-25", "2025-10-04", "temperature,pressure")
    with source("arco:era5-land/hourly", chosen) as opened:
        assert_true(everything(opened), 240, 66)
    assert len(zarr_server.chunks()) == len(set(zarr_server.chunks()))


@pytest.mark.parametrize(
    ("since", "until", "region", "cut"),
    [
        ("2025-09-25", "2025-10-04", "latitude=50,longitude=8", "geo"),
        ("2025-09-26T00:00Z", "2025-09-26T01:00Z", "DEU", "time"),
    ],
)
def test_the_cut_suits_the_request(
    zarr_server: ZarrServer, since: str, until: str, region: str, cut: str
) -> None:
    said: list[str] = []
    with source("arco:era5-land/hourly", selection(since, until, region=region), said) as opened:
        everything(opened)
        assert len(zarr_server.chunks()) == opened.plan.requests
    assert all(f"arco-{cut}-" in path for path in zarr_server.chunks())
    assert f"cut by {cut}" in said[0]


def test_chunks_are_asked_for_several_at_a_time(zarr_server: ZarrServer) -> None:
    zarr_server.delay_s = 0.02
    chosen = selection("2025-09-26", "2025-09-28", region="DEU")
    with source("arco:era5-land/hourly", chosen) as opened:
        everything(opened)
    assert 4 <= zarr_server.most_at_once <= 17


# ------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("kind", [503, 500, 429, "cut", "damage"])
@pytest.mark.parametrize("spec", ["arco:era5-land/hourly", "edh:era5-land/hourly"])
def test_what_fails_once_is_tried_again(
    zarr_server: ZarrServer, spec: str, kind: int | str
) -> None:
    with source(spec, selection("2025-09-26", "2025-09-26")) as opened:
        zarr_server.faults.append(Fault("t2m/", kind, times=1))
        assert_true(everything(opened), 24, 66)


def test_an_archive_that_stays_away_is_unavailable(zarr_server: ZarrServer) -> None:
    with source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-26")) as opened:
        zarr_server.faults.append(Fault("t2m/c/", 503))
        with pytest.raises(SourceUnavailable, match=r"era5-land-v0\.zarr does not answer: .*503"):
            everything(opened)
    zarr_server.faults = [Fault("zarr.json", 503)]
    with (
        pytest.raises(SourceUnavailable),
        source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-26")),
    ):
        pass


def held_bytes() -> int:
    """Of this process in memory, whatever for."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system keeps it")
def test_what_waits_in_a_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """A chunk may span years: what is kept of it would grow with the span that is read."""
    block = _Block(str(tmp_path), 0, np.dtype("f4"), (64, 512, 512))
    before = held_bytes()
    block.values[:] = np.arange(512, dtype="f4")
    assert held_bytes() - before > block.values.nbytes / 2
    block.let_go()
    assert held_bytes() - before < block.values.nbytes / 2
    assert (block.values[63, 511] == np.arange(512)).all()


def test_what_is_asked_for_beside_what_fails_is_given_up(zarr_server: ZarrServer) -> None:
    """An answer that comes while Python ends would be printed, or end it with a signal."""
    opened = source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-26", region="DEU"))
    with opened:
        zarr_server.faults.append(Fault("t2m/c/0/1", 403, times=1))
        zarr_server.delay_s = 3.0
        with pytest.raises(NotServed, match="does not take the key"):
            everything(opened)
        assert opened.traffic.asking
    assert not opened.traffic.asking


def test_what_an_archive_has_not_yet_is_told(zarr_server: ZarrServer) -> None:
    for spec in ("arco:era5-land/hourly", "edh:era5-land/hourly"):
        said: list[str] = []
        with source(spec, selection("2025-10-04", "2025-10-06"), said) as opened:
            assert len(opened.slices()) == 24
        assert said[-1].endswith("has era5-land/hourly up to 2025-10-04T23:00:00Z")
    whole: list[str] = []
    with source("arco:era5-land/hourly", selection("2025-10-04", "2025-10-04"), whole):
        assert len(whole) == 1


def test_a_chunk_that_stays_damaged_is_named(zarr_server: ZarrServer) -> None:
    with source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-26")) as opened:
        zarr_server.faults.append(Fault("t2m/c/", "damage"))
        with pytest.raises(SourceError, match=r"era5-land-v0\.zarr gives a damaged chunk"):
            everything(opened)


def test_a_chunk_that_is_absent_holds_no_values(zarr_server: ZarrServer) -> None:
    """Zarr's own rule: it was all fill values, and so was not written."""
    with source("edh:era5-land/hourly", selection("2025-09-26", "2025-09-26")) as opened:
        zarr_server.faults.append(Fault("t2m/c/", 404))
        assert everything(opened) == []


@pytest.mark.parametrize(("service", "key"), [("arco", "CDSAPI_KEY"), ("edh", "EDH_API_KEY")])
def test_keys_are_asked_for_never_shown(
    zarr_server: ZarrServer, monkeypatch: pytest.MonkeyPatch, service: str, key: str
) -> None:
    chosen = selection("2025-09-26", "2025-09-26")
    monkeypatch.setenv(key, "another-secret")
    said: list[str] = []
    with pytest.raises(NotServed, match="does not take the key") as refused:
        source(f"{service}:era5-land/hourly", chosen, said).__enter__()
    assert refused.value.lack == "key"
    monkeypatch.setenv(key, "secret-of-" + service)
    with source(f"{service}:era5-land/hourly", chosen, said) as opened:
        zarr_server.faults.append(Fault("t2m", 403))
        with pytest.raises(NotServed) as late:
            everything(opened)
        shown = [*said, str(refused.value), str(late.value), repr(opened.__dict__)]
    assert not any("secret" in text for text in shown)
    monkeypatch.delenv(key)
    with pytest.raises(NotServed, match=r"https://.*(put it into|where to put it)") as missing:
        source(f"{service}:era5-land/hourly", chosen).__enter__()
    assert missing.value.lack == "key"


def test_keys_come_from_the_files_where_the_services_tell_to_put_them(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "CDSAPI_RC": str(tmp_path / ".cdsapirc")}
    (tmp_path / ".cdsapirc").write_text("url: https://cds.climate.copernicus.eu/api\nkey: abc\n")
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine data.earthdatahub.destine.eu\n  password token\n")
    netrc.chmod(0o600)
    assert archives.headers("arco", home) == {"Authorization": "Bearer abc"}
    assert archives.headers("edh", home) == {"Authorization": "Basic ZWRoOnRva2Vu"}


def test_a_key_is_never_sent_unencrypted() -> None:
    elsewhere = {"CLIMATESTREAM_EDH_URL": "http://mirror.example/era5"}
    with pytest.raises(UsageError, match="would send the key unencrypted"):
        archives.base_url("edh", elsewhere)


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("spec", "change", "lack", "message"),
    [
        ("arco:era5-land/daily-mean", {}, "dataset", "arco: has no era5-land/daily-mean, only"),
        ("arco:era5-land/hourly", {"variables": ("sde",)}, "variable", "has no snow_depth"),
        ("edh:era5-land/daily-sum", {}, "variable", "has no temperature of era5-land/daily-sum"),
        (
            "edh:era5-land/hourly",
            {"start_ns": start_of("2026-01-01"), "end_ns": end_of("2026-01-02")},
            "time",
            "it holds 2025-09-25T00:00:00Z to 2025-10-04T23:00:00Z",
        ),
        (
            "arco:era5-land/hourly",
            {"region": parse_region("west=100,south=50,east=101,north=51")},
            "region",
            "has no longitude of 100..101",
        ),
    ],
)
def test_what_an_archive_lacks_is_said(
    zarr_server: ZarrServer, spec: str, change: dict[str, Any], lack: str, message: str
) -> None:
    chosen = replace(selection("2025-09-26", "2025-09-26"), **change)
    with pytest.raises(NotServed, match=message) as refused:
        source(spec, chosen).__enter__()
    assert refused.value.lack == lack


def test_wrong_arguments_are_refused_before_anything_is_asked(zarr_server: ZarrServer) -> None:
    chosen = selection("2025-09-26", "2025-09-26")
    with pytest.raises(UsageError, match="names no dataset"):
        source("arco:", chosen)
    with pytest.raises(UsageError, match="say with --to which"):
        source("arco:era5-land/hourly", replace(chosen, end_ns=None))
    with pytest.raises(UsageError, match="leave --dataset out"):
        source("arco:era5-land/hourly", replace(chosen, dataset="era5/hourly"))
    assert zarr_server.paths == []


# ----------------------------------------------------------------------------------- command


def test_the_command_takes_an_archive_to_a_store_and_proves_it(
    zarr_server: ZarrServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = f"duckdb:{tmp_path}/readings.duckdb"
    dates = ["--from", "2025-09-26", "--to", "2025-09-27"]
    more = ["--region", BOX, *dates, "--audit", "--json", "--store", spec]
    assert invoke(["run", "edh:era5-land/hourly", *more]) == 0
    said = capfd.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert (result["stored"], result["audit"]["ok"]) == (48 * 66, True)
    assert "secret" not in said.out + said.err


def test_the_figures_of_the_docs_are_the_planners() -> None:
    page = (ROOT / "docs/sources.md").read_text()
    for span in figures.SPANS:
        for name in figures.CUTS:
            ours = figures.plan(name, span)
            line = f"| {name} | {span} | {ours.requests:,} | {ours.size / 1e9:,.2f} GB |"
            assert line in page
