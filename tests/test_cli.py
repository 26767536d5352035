"""The commands as a user types them: real processes, exit codes, one sentence for a mistake."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import duckdb
import netCDF4
import numpy as np
import pytest

from climatestream.cli import cli, invoke

SHORT = "simulation:?days=1&step=6h"
COMMAND = [sys.executable, "-W", "error::ResourceWarning", "-m", "climatestream.cli"]


def climatestream(
    *arguments: str | Path, cwd: Path, exit_code: int = 0, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its exit code is what it should be, and there is no traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )
    assert done.returncode == exit_code, done
    assert "Traceback" not in done.stderr, done.stderr
    return done


def last_json(text: str) -> dict[str, Any]:
    """The last line of an output, as the JSON object that it must be."""
    answer: dict[str, Any] = json.loads(text.splitlines()[-1])
    return answer


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A command under way; it is killed if it is still there at the end."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_readings(store: Path) -> None:
    """Wait until a command under way has written to its store."""
    deadline = time.monotonic() + 30
    log = store.with_name(store.name + ".wal")
    while not (log.exists() and log.stat().st_size > 100_000):
        assert time.monotonic() < deadline, f"nothing was written to {store}"
        time.sleep(0.05)


def page_address(process: subprocess.Popen[str]) -> str:
    """The address of the page, alone at the end of a line of standard output."""
    assert process.stdout is not None
    match = re.search(r"(?<= )http://127\.0\.0\.1:\d+$", process.stdout.readline().rstrip("\n"))
    assert match is not None
    return match[0]


# ---------------------------------------------------------------------------------- help


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, (*path, name))


@pytest.mark.parametrize("path", list(_commands(cli)), ids=" ".join)
def test_help_holds_an_example_to_paste(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    text = command.get_help(click.Context(command, info_name="climatestream"))
    assert re.search(r"Example:\n +climatestream ", text)


# ----------------------------------------------------------------------------- run, audit


def test_run_stores_every_reading_and_the_audit_says_so(tmp_path: Path) -> None:
    done = climatestream("run", SHORT, "--audit", "--json", cwd=tmp_path)
    said = last_json(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    assert said["published"] == said["stored"] == said["audit"]["stored"] > 0
    assert said["dead_letters"] == said["audit"]["missing"] == 0
    assert said["datasets"] == ["simulation"]
    assert said["audit"]["ok"] is True
    assert isinstance(said["seconds"], float)
    assert (tmp_path / "climatestream.duckdb").exists()


def test_a_second_run_of_the_same_readings_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        climatestream("run", SHORT, cwd=tmp_path)
    with duckdb.connect(str(tmp_path / "climatestream.duckdb")) as store:
        query = """SELECT count(*), count(DISTINCT (dataset, cell, "timestamp"))
            FROM demo.climate_data"""
        rows, keys = store.execute(query).fetchall()[0]
    assert rows == keys > 0


def test_region_variables_and_times_narrow_a_source(tmp_path: Path) -> None:
    narrow = ["--region", "LUX", "--variables", "u10", "--from", "2025-08-10T06:00"]
    climatestream("run", SHORT, *narrow, cwd=tmp_path)
    with duckdb.connect(str(tmp_path / "climatestream.duckdb")) as store:
        query = """SELECT DISTINCT country, data['temperature'] IS NULL, data['u10'] IS NULL
            FROM demo.climate_data"""
        assert store.execute(query).fetchall() == [("LUX", True, False)]
        (first,) = store.execute('SELECT min("timestamp") FROM demo.climate_data').fetchall()[0]
    assert str(first) == "2025-08-10 06:00:00"


def test_publish_prints_one_json_document_a_line(tmp_path: Path) -> None:
    done = climatestream("publish", SHORT, "--broker", "-", "--json", cwd=tmp_path)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    said = last_json(done.stderr)
    assert said["published"] == len(documents) > 0
    assert said["datasets"] == ["simulation"]
    assert {"timestamp", "temperature", "u10", "v10", "pressure", "dataset"} <= set(documents[0])


def test_a_reader_that_goes_away_ends_publish_without_a_word(tmp_path: Path) -> None:
    with started("publish", "simulation:", "--broker", "-", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=20) == 1
        assert process.stderr.read() == ""


def test_a_dead_letter_can_be_listed_and_shown(tmp_path: Path, germany_poisoned: Path) -> None:
    listed = climatestream(
        "dead-letters", "list", "--store", f"duckdb:{germany_poisoned}", "--json", cwd=tmp_path
    )
    (letter,) = last_json(listed.stdout)["dead_letters"]
    assert letter["reason"] == "not-json"
    shown = climatestream(
        "dead-letters",
        "show",
        letter["message"],
        "--store",
        f"duckdb:{germany_poisoned}",
        cwd=tmp_path,
    )
    assert "not JSON" in shown.stdout
    assert '{"broken' in shown.stdout
    table = climatestream(
        "dead-letters", "list", "--store", f"duckdb:{germany_poisoned}", cwd=tmp_path
    )
    assert "not-json" in table.stdout


@pytest.fixture
def germany_poisoned(tmp_path: Path) -> Path:
    """A store with one dead letter."""
    from climatestream.ingest import Ingest
    from climatestream.model import Messages
    from climatestream.stores.open import open_store

    path = tmp_path / "poisoned.duckdb"
    block = Messages("t", 0, [7], [1], [b"k"], [b'{"broken'], [()])
    with open_store(f"duckdb:{path}") as store:
        Ingest(store)([block])
    return path


KAFKA = "kafka://127.0.0.1:1/era5"


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "--port", "0"],
        ["normals"],
        ["audit", "--broker", KAFKA],
        ["dead-letters", "list"],
        ["dead-letters", "show", "t/0@7"],
        ["dead-letters", "retry", "t/0@7", "--broker", KAFKA],
    ],
    ids=" ".join,
)
def test_who_reads_a_store_makes_none(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The missing file is named, with what makes one."""
    missing = tmp_path / "missing.duckdb"
    assert invoke([*command, "--store", f"duckdb:{missing}"]) == 1
    said = capfd.readouterr().err
    assert f"there is no file {missing}: name one that `climatestream run`" in said
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- Ctrl-C, the page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_shows_readings_until_it_is_interrupted_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    with started("demo", "--port", "0", "--json", cwd=tmp_path) as process:
        page_address(process)
        time.sleep(1.0)
        process.send_signal(number)
        # two seconds are promised; a busy machine gets more
        assert process.wait(timeout=30) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert last_json(process.stdout.read())["stored"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_busy_port_is_answered_by_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started("demo", "--port", str(port), cwd=tmp_path) as process:
            address = page_address(process)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)
    assert int(address.rpartition(":")[2]) > port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_serve_with_130(tmp_path: Path, number: signal.Signals) -> None:
    from climatestream.stores.open import open_store

    with open_store(f"duckdb:{tmp_path / 'new.duckdb'}"):
        pass
    with started("serve", "--store", "duckdb:new.duckdb", "--port", "0", cwd=tmp_path) as process:
        page_address(process)
        process.send_signal(number)
        assert process.wait(timeout=10) == 130


def test_an_interrupted_run_keeps_what_it_stored_and_exits_130(tmp_path: Path) -> None:
    with started("run", "simulation:?days=3650", "--json", cwd=tmp_path) as process:
        wait_for_readings(tmp_path / "climatestream.duckdb")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert process.stdout is not None
        said = last_json(process.stdout.read())
    with duckdb.connect(str(tmp_path / "climatestream.duckdb")) as store:
        (rows,) = store.execute("SELECT count(*) FROM demo.climate_data").fetchall()[0]
    # what was on its way has two seconds to arrive, which a busy machine may exceed
    assert 0 < rows == said["stored"] <= said["published"]


# ------------------------------------------------------------------------------ bad input


def _text(path: Path) -> list[str]:
    (path / "text.nc").write_text("this is no NetCDF file\n")
    return ["run", "text.nc"]


def _empty(path: Path) -> list[str]:
    (path / "empty.nc").touch()
    return ["run", "empty.nc"]


def _grid(path: Path, **values: float) -> None:
    with netCDF4.Dataset(path, "w") as file:
        for name, axis in (("latitude", [50.0, 49.9]), ("longitude", [8.0, 8.1])):
            file.createDimension(name, 2)
            file.createVariable(name, "f8", (name,))[:] = axis
        file.createDimension("valid_time", 1)
        when = file.createVariable("valid_time", "i8", ("valid_time",))
        when.units = "hours since 2025-08-10"
        when[:] = [0]
        for name, value in values.items():
            of = file.createVariable(name, "f4", ("valid_time", "latitude", "longitude"))
            of.units = "K"
            of[:] = np.full((1, 2, 2), value)


def _truncated(path: Path) -> list[str]:
    _grid(path / "whole.nc", t2m=280.0)
    data = (path / "whole.nc").read_bytes()
    (path / "half.nc").write_bytes(data[: len(data) // 2])
    return ["run", "half.nc"]


def _disagree(path: Path) -> list[str]:
    _grid(path / "a.nc", t2m=280.0)
    _grid(path / "b.nc", t2m=281.0)
    return ["run", "a.nc", "b.nc", "--dataset", "era5-land/hourly"]


def _no_latitude(path: Path) -> list[str]:
    with netCDF4.Dataset(path / "flat.nc", "w") as file:
        file.createDimension("x", 2)
        file.createVariable("t2m", "f4", ("x",))[:] = [1.0, 2.0]
    return ["run", "flat.nc"]


def _empty_zip(path: Path) -> list[str]:
    with zipfile.ZipFile(path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return ["run", "empty.zip"]


def _unknown_dataset(path: Path) -> list[str]:
    _grid(path / "what.nc", t2m=280.0)
    return ["run", "what.nc"]


def _folder(path: Path) -> list[str]:
    (path / "folder").mkdir()
    (path / "folder" / "notes.txt").write_text("no data")
    return ["run", "folder"]


def _foreign_store(path: Path) -> list[str]:
    with duckdb.connect(str(path / "other.duckdb")) as other:
        other.execute("CREATE TABLE theirs (a INTEGER)")
    return ["run", SHORT, "--store", "duckdb:other.duckdb"]


def _text_store(path: Path) -> list[str]:
    (path / "notes.txt").write_text("no database " * 1000)
    return ["run", SHORT, "--store", "duckdb:notes.txt"]


BAD: list[tuple[str, Callable[[Path], list[str]], int, str]] = [
    ("a missing file", lambda _: ["run", "nowhere.nc"], 1, "nowhere.nc"),
    ("an empty file", _empty, 1, "empty.nc"),
    ("a truncated file", _truncated, 1, "half.nc"),
    ("a text file named .nc", _text, 1, "text.nc"),
    ("a ZIP with nothing usable", _empty_zip, 1, "empty.zip"),
    ("a folder without usable files", _folder, 1, "folder"),
    ("a file without latitude", _no_latitude, 1, "latitude"),
    ("files that disagree", _disagree, 1, "a.nc.*b.nc|b.nc.*a.nc"),
    ("a file that does not say what it is", _unknown_dataset, 2, "--dataset"),
    ("a store of another program", _foreign_store, 1, "other.duckdb"),
    ("a store that is no database", _text_store, 1, "notes.txt"),
    ("a store in no folder", lambda _: ["run", SHORT, "--store", "duckdb:no/x.duckdb"], 1, "no"),
    ("an unknown store", lambda _: ["run", SHORT, "--store", "mysql://x"], 2, "duckdb:FILE"),
    ("an unknown option", lambda _: ["run", SHORT, "--adit"], 2, "--audit"),
    ("an unknown command", lambda _: ["rum", SHORT], 2, "rum"),
    ("no source", lambda _: ["run"], 2, "SOURCE"),
    ("an unknown country", lambda _: ["run", SHORT, "--region", "DEX"], 2, "DEU"),
    (
        "an unknown variable",
        lambda _: ["run", SHORT, "--variables", "temprature"],
        2,
        "temperature",
    ),
    ("a box without names", lambda _: ["run", SHORT, "--region", "5,47,15,55"], 2, "west="),
    ("a bad date", lambda _: ["run", SHORT, "--from", "yesterday"], 2, "2025-08-10"),
    ("a bad rate", lambda _: ["run", SHORT, "--rate", "fast"], 2, "1000/s"),
    ("a bad duration", lambda _: ["run", SHORT, "--keep", "long"], 2, "30d"),
    ("--loop alone", lambda p: [*_looped(p)], 2, "--shift-to-now"),
    ("an unknown broker", lambda _: ["publish", SHORT, "--broker", "amqp://x"], 2, "kafka://"),
    ("a dead letter without a place", lambda _: ["dead-letters", "show", "x"], 2, "OFFSET"),
]


def _looped(path: Path) -> list[str]:
    _grid(path / "a.nc", t2m=280.0)
    return ["run", "a.nc", "--dataset", "era5-land/hourly", "--loop"]


@pytest.mark.parametrize(
    ("arrange", "exit_code", "word"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_a_mistake_gets_one_sentence_and_leaves_the_store_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arrange: Callable[[Path], list[str]],
    exit_code: int,
    word: str,
) -> None:
    arguments = arrange(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == exit_code
    said = capfd.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("climatestream: ")
    assert re.search(word, lines[0])
    assert said.out == ""
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_store_in_use_is_told_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with started("run", "simulation:?days=3650", cwd=tmp_path) as process:
        wait_for_readings(tmp_path / "climatestream.duckdb")
        done = climatestream("run", SHORT, cwd=tmp_path, exit_code=1)
        assert str(process.pid) in done.stderr
        assert len(done.stderr.splitlines()) == 1
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    _grid(tmp_path / "a.nc", t2m=280.0)
    (tmp_path / "a.nc").chmod(0)
    done = climatestream("run", "a.nc", cwd=tmp_path, exit_code=1)
    assert "ermission" in done.stderr


def test_a_full_disk_is_waited_for_and_told(tmp_path: Path) -> None:
    """The store can't grow: the run goes on trying, says why, and Ctrl-C ends it."""
    with started("run", "simulation:?days=365", cwd=tmp_path) as process:
        wait_for_readings(tmp_path / "climatestream.duckdb")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        assert process.stderr is not None
        for line in process.stderr:
            if "trying again" in line:
                break
        else:
            pytest.fail("the run ended without a word about the disk")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130


def test_an_interrupt_inside_an_extension_that_returns_all_the_same_ends_with_130(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python then says SystemError, as it has been seen of Kafka's client."""

    def interrupted(*_: object, **__: object) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "main", interrupted)
    assert invoke(["doctor"]) == 130


def test_an_interrupt_within_a_query_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB says RuntimeError then, as it has been seen of a check of the boards."""

    def interrupted(*_: object, **__: object) -> None:
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(cli, "main", interrupted)
    assert invoke(["dashboards", "check"]) == 130
