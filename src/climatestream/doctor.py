"""What works here, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from climatestream.errors import ClimatestreamError
from climatestream.stores.open import DUCKDB, open_store

State = Literal["ok", "missing", "broken"]

PYTHON: Final = (3, 11)
FREE_DISK_BYTES: Final = 1_000_000_000
"""A day of hourly readings of Germany is about 10 MB; a month of the globe about 300 MB."""
FREE_MEMORY_BYTES: Final = 500_000_000
"""What a run takes at most, with DuckDB's own memory counted."""
BUILT: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""A clock that shows an earlier time is wrong: this version did not exist then."""

EXTRAS: Final = {"grib": ("eccodes",)}
"""Packages of the extras that a user may lack."""
PURPOSES: Final = {"grib": "to read GRIB"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    state
        ok; missing: something that not everyone needs; broken: commands will fail.
    found
        What is there.
    todo
        What to do; empty where all is well.
    """

    name: str
    state: State
    found: str
    todo: str = ""


def examine(*, store: str, port: int) -> list[Finding]:
    """Look at everything that the commands need; nothing is changed, a free port is not taken."""
    checks: Sequence[Callable[[], Finding]] = (
        _python,
        _packages,
        *(lambda extra=extra: _extra(extra) for extra in EXTRAS),
        lambda: _port(port),
        lambda: _disk(store),
        _memory,
        _clock,
        _sample_data,
        lambda: _store(store),
    )
    return [check() for check in checks]


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as a JSON object; `ok` where nothing is broken."""
    return {
        "ok": all(finding.state != "broken" for finding in findings),
        "checks": [asdict(finding) for finding in findings],
    }


def print_table(findings: Sequence[Finding]) -> None:
    """Print the findings, a line each."""
    table = Table("", "what", "found", "what to do", box=None)
    colors = {"ok": "green", "missing": "yellow", "broken": "red"}
    for finding in findings:
        state = Text(finding.state, style=colors[finding.state])
        table.add_row(state, finding.name, Text(finding.found), Text(finding.todo))
    console = Console()
    # where the table goes into a file or a pipe, no line is cut at a terminal's width
    console.print(table, width=None if console.is_terminal else 160)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        return Finding("Python", "ok", version)
    wanted = ".".join(map(str, PYTHON))
    return Finding("Python", "broken", version, f"install Python {wanted} or newer")


def _packages() -> Finding:
    required = importlib.metadata.requires("climatestream") or []
    names = [line.split(";")[0].strip() for line in required if "extra ==" not in line]
    lacking = [name for name in names if not _installed(name)]
    if not lacking:
        return Finding("packages", "ok", f"{len(names)} packages")
    return Finding("packages", "broken", f"no {', '.join(lacking)}", "make env")


def _extra(extra: str) -> Finding:
    lacking = [name for name in EXTRAS[extra] if not _installed(name)]
    if not lacking:
        return Finding(f"extra {extra}", "ok", ", ".join(EXTRAS[extra]))
    command = f"{sys.executable} -m pip install {' '.join(lacking)}"
    return Finding(
        f"extra {extra}", "missing", f"no {', '.join(lacking)}", f"{PURPOSES[extra]}: {command}"
    )


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            todo = "nothing: the next free port is taken, or name one with --port"
            return Finding("port", "missing", f"{port}: {error.strerror}", todo)
    return Finding("port", "ok", f"{port} is free")


def _disk(store: str) -> Finding:
    folder = Path(store.removeprefix(DUCKDB)).absolute().parent
    try:
        free = {place: shutil.disk_usage(place).free for place in (folder, tempfile.gettempdir())}
    except OSError as error:
        return Finding("disk", "broken", f"{folder}: {error.strerror}", f"mkdir -p {folder}")
    place, least = min(free.items(), key=lambda pair: pair[1])
    found = f"{least / 1e9:.1f} GB free in {place}"
    if least >= FREE_DISK_BYTES:
        return Finding("disk", "ok", found)
    return Finding("disk", "broken", found, f"free {FREE_DISK_BYTES / 1e9:.0f} GB there")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    found = f"{free / 1e9:.1f} GB free"
    if free >= FREE_MEMORY_BYTES:
        return Finding("memory", "ok", found)
    return Finding("memory", "broken", found, "close other programs: a run takes up to 0.5 GB")


def _clock() -> Finding:
    now = datetime.now(UTC)
    if now >= BUILT:
        return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")
    return Finding("clock", "broken", f"{now:%Y-%m-%d %H:%M} UTC", "set the clock: it is slow")


def _sample_data() -> Finding:
    folder = Path(os.environ.get("CLIMATESTREAM_TEST_DATA", "../shared/data/era5"))
    if folder.is_dir():
        return Finding("sample files", "ok", str(folder))
    todo = "only some tests need them: set CLIMATESTREAM_TEST_DATA to a folder of CDS files"
    return Finding("sample files", "missing", f"no folder {folder}", todo)


def _store(spec: str) -> Finding:
    path = Path(spec.removeprefix(DUCKDB))
    if spec.startswith(DUCKDB) and not path.exists():
        if os.access(path.absolute().parent, os.W_OK):
            return Finding("store", "ok", f"{spec} does not exist yet: the first run makes it")
        return Finding(
            "store", "broken", f"{spec} can't be made", f"name a folder that exists: {path.parent}"
        )
    try:
        with open_store(spec) as store:
            (count,) = store.query("SELECT count(*) FROM demo.climate_data").rows[0]
    except ClimatestreamError as error:
        return Finding("store", "broken", spec, str(error))
    return Finding("store", "ok", f"{spec}: {count:,} readings")
