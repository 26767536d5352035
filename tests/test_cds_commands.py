"""fetch, cache, and run cds: as a user runs them: killed, interrupted, gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from climatestream.cli import invoke
from climatestream.errors import ClimatestreamError
from climatestream.sources.cache import PART, Cache
from climatestream.sources.open import open_source
from climatestream.sources.selection import Selection
from tests.fake_cds import KEY, FakeDataStore

ASK = (
    *("era5-land/hourly", "--region", "west=8,south=50,east=8.2,north=50.1"),
    *("--variables", "temperature", "--from", "2025-09-01", "--to", "2025-09-03"),
)
READINGS = 3 * 24 * 6


@pytest.fixture
def store() -> Iterator[FakeDataStore]:
    with FakeDataStore() as fake:
        yield fake


class Commands:
    """The command line, in a home of its own."""

    def __init__(
        self,
        store: FakeDataStore,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(home),
            **store.environment,
            "CLIMATESTREAM_CACHE": str(home / "cache"),
        }
        self.cache = Cache(home / "cache", 10**9)
        self._capsys = capsys
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "climatestream.cli", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert KEY not in out + err
        return process.returncode, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        """The result of a command that ends well, run in this process."""
        self._capsys.readouterr()
        code = invoke([*arguments, "--json"])
        said = self._capsys.readouterr()
        assert code == 0, said.err
        assert KEY not in said.out + said.err
        result: dict[str, Any] = orjson.loads(said.out.splitlines()[-1])
        return result


@pytest.fixture
def commands(
    store: FakeDataStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Commands:
    return Commands(store, tmp_path, monkeypatch, capsys)


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def more_looks(store: FakeDataStore, than: int) -> bool:
    return store.asked("/jobs/") > than


def part_bytes(commands: Commands) -> int:
    return sum(path.stat().st_size for path in commands.cache.folder.rglob(PART))


def test_fetched_files_are_listed_and_cleared(commands: Commands, store: FakeDataStore) -> None:
    fetched = commands.json("fetch", *ASK)
    assert (fetched["dataset"], fetched["asked"]) == ("era5-land/hourly", 1)
    size = Path(fetched["files"][0]["path"]).stat().st_size
    assert fetched["files"][0]["bytes"] == fetched["downloaded_bytes"] == size == store.served
    listed = commands.json("cache", "list")
    assert [(e["label"], e["state"]) for e in listed["entries"]] == [("2025-09-01..03", "here")]
    assert commands.json("cache", "clear", "--older-than", "1h")["removed"] == 0
    cleared = commands.json("cache", "clear", listed["entries"][0]["key"][:8])
    assert cleared == {"removed": 1, "bytes": listed["bytes"], "in_use": 0}
    assert commands.json("cache", "list")["entries"] == []


def test_run_takes_a_country_from_the_data_store_into_a_store(
    commands: Commands, tmp_path: Path
) -> None:
    database = tmp_path / "a.duckdb"
    select = ("--region", "LUX", "--from", "2025-08-31", "--to", "2025-09-01")
    result = commands.json(
        "run", "cds:era5-land/daily-mean", *select, "--store", f"duckdb:{database}"
    )
    assert result["published"] == result["stored"] > 0
    with duckdb.connect(str(database), read_only=True) as opened:
        found = opened.execute(
            "SELECT dataset, country, count(*), count(data['pressure']), count(data['u10']) "
            "FROM demo.climate_data GROUP BY ALL"
        ).fetchall()
    count = result["stored"]
    assert found == [("era5-land/daily-mean", "LUX", count, count, count)]


def test_kill_in_the_queue_costs_no_request(commands: Commands, store: FakeDataStore) -> None:
    store.moods.looks_queued = 10**9
    process = commands.start("fetch", *ASK)
    until(lambda: store.asked("/jobs/"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    store.moods.looks_queued = 0
    fetched = commands.json("fetch", *ASK)
    assert (fetched["asked"], len(store.jobs), len(fetched["files"])) == (0, 1, 1)


def test_kill_in_a_download_costs_no_byte(
    commands: Commands, store: FakeDataStore, tmp_path: Path
) -> None:
    store.moods.stalls = threading.Event()
    process = commands.start("run", f"cds:{ASK[0]}", *ASK[1:], "--store", f"duckdb:{tmp_path}/a")
    until(lambda: store.served and part_bytes(commands) == store.served)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store.moods.stalls.set()
    half = store.served
    until(lambda: store.served > half)  # the fake sends the rest to nobody
    store.moods.stalls = None
    before = store.served
    result = commands.json("run", f"cds:{ASK[0]}", *ASK[1:], "--store", f"duckdb:{tmp_path}/a")
    assert (result["stored"], len(store.jobs)) == (READINGS, 1)
    assert store.download_headers[-1]["Range"] == f"bytes={half}-"
    assert store.served - before == before - half


def test_ctrl_c_ends_at_once_and_says_what_goes_on(
    commands: Commands, store: FakeDataStore, tmp_path: Path
) -> None:
    store.moods.looks_queued = 10**9
    for command in (("fetch", ASK[0]), ("publish", f"cds:{ASK[0]}", "--broker", "-")):
        process = commands.start(*command, *ASK[1:])
        looks = store.asked("/jobs/")
        until(partial(more_looks, store, looks))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (130, "")
        assert "what was asked for goes on at the service, and the same command goes on" in err
    assert len(store.jobs) == 1


def test_missing_key_is_one_sentence_with_the_page_to_open(
    commands: Commands, store: FakeDataStore
) -> None:
    del commands.environment["CDSAPI_KEY"]
    code, out, err = commands.run("fetch", *ASK)
    assert (code, out) == (1, "")
    assert err == (
        "climatestream: there is no key for the Climate Data Store in CDSAPI_KEY or ~/.cdsapirc: "
        "open https://cds.climate.copernicus.eu/how-to-api, which shows yours and where to put it\n"
    )
    assert not store.seen


def test_service_without_files_is_not_fetched(commands: Commands) -> None:
    code, _, err = commands.run("fetch", "arco:era5-land/hourly", *ASK[1:])
    assert code == 2
    assert err == (
        "climatestream: fetch keeps files of the Climate Data Store, and arco: is read without "
        "any: climatestream run arco:era5-land/hourly --store duckdb:FILE keeps its readings\n"
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("cdss:era5-land/hourly", "is no file, and cdss: no service: expected one of simulation:"),
        ("CDS:era5-land/hourly", "is no file, and CDS: no service: expected one of simulation:"),
        ("era5-land/hourly", "no file or folder .* as in auto:era5-land/hourly"),
        ("reanalysis-era5-land", "no file or folder .* as in auto:reanalysis-era5-land"),
        ("era5.nc", "there is no file or folder era5.nc"),
        ("https://cds.example/era5.nc", "is an address"),
    ],
)
def test_a_service_that_was_meant_is_told(source: str, says: str) -> None:
    with (
        pytest.raises(ClimatestreamError, match=says),
        open_source([source], Selection()),
    ):
        pass
