"""What works here, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from climatestream.errors import ClimatestreamError
from climatestream.findings import Finding
from climatestream.stores.open import CRATE, DUCKDB, open_store

PYTHON: Final = (3, 11)
FREE_DISK_BYTES: Final = 1_000_000_000
"""A day of hourly readings of Germany is about 10 MB; a month of the globe about 300 MB."""
FREE_MEMORY_BYTES: Final = 500_000_000
"""What a run takes at most, with DuckDB's own memory counted."""
BUILT: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""A clock that shows an earlier time is wrong: this version did not exist then."""

EXTRAS: Final = {
    "cds": ("ecmwf-datastores-client",),
    "grib": ("eccodes",),
    "kafka": ("confluent-kafka",),
    "lambda": ("awslambdaric", "pyyaml"),
    "msk": ("aws-msk-iam-sasl-signer-python",),
}
"""Packages of the extras that a user may lack."""
PURPOSES: Final = {
    "cds": "for the Climate Data Store",
    "grib": "to read GRIB",
    "kafka": "for kafka:// brokers",
    "lambda": "to run the Lambda function here (Linux)",
    "msk": "for Amazon MSK with IAM",
}

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def examine(
    *, store: str, port: int, broker: str | None = None, group: str = "climatestream"
) -> list[Finding]:
    """Look at everything that the commands need; nothing is changed, a free port is not taken.

    Parameters
    ----------
    broker
        A broker to look at, with the group's place in its topic; None: none.
    """
    checks: Sequence[Callable[[], Finding]] = (
        _python,
        _packages,
        *(lambda extra=extra: _extra(extra) for extra in EXTRAS),
        _data_store_key,
        lambda: _port(port),
        lambda: _disk(store),
        _memory,
        _clock,
        _sample_data,
        _own_kafka,
        _own_cratedb,
        _browser,
    )
    findings = [check() for check in checks]
    if broker is not None:
        from climatestream.doctor_servers import examine_broker

        findings += examine_broker(broker, group)
    if store.startswith(CRATE):
        from climatestream.doctor_servers import examine_crate

        return findings + examine_crate(store)
    return [*findings, _store(store)]


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


def _data_store_key() -> Finding:
    from climatestream.sources.cds_client import credentials

    try:
        found = credentials()
    except ClimatestreamError as error:
        return Finding("Data Store's key", "missing", "for cds:", str(error))
    return Finding("Data Store's key", "ok", f"in {found.where}, for {found.url}")


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
    file = Path(store.removeprefix(DUCKDB) if store.startswith(DUCKDB) else "")
    folder = file.absolute().parent if file.name else Path.cwd()
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


def _own_kafka() -> Finding:
    lacking = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if not lacking:
        return Finding("Kafka for tests", "ok", "java and mvn")
    todo = (
        "only `make test-services` needs it: apt-get install openjdk-17-jre-headless maven, or "
        "name a broker with CLIMATESTREAM_TEST_KAFKA=host:port"
    )
    return Finding("Kafka for tests", "missing", f"no {' and no '.join(lacking)}", todo)


def _own_cratedb() -> Finding:
    named = os.environ.get("CLIMATESTREAM_TEST_CRATEDB")
    if named:
        return Finding("CrateDB for tests", "ok", f"CLIMATESTREAM_TEST_CRATEDB={named}")
    home = Path(os.environ.get("CRATEDB_HOME") or "~/.local/share/cratedb").expanduser()
    if (home / "bin/crate").is_file():
        return Finding("CrateDB for tests", "ok", str(home))
    todo = (
        "only `make test-services` needs it: unpack a distribution there, or name its folder with "
        "CRATEDB_HOME, or a server with CLIMATESTREAM_TEST_CRATEDB=crate://crate@host:4200"
    )
    return Finding("CrateDB for tests", "missing", f"no {home}/bin/crate", todo)


def _browser() -> Finding:
    named = os.environ.get("CLIMATESTREAM_CHROMIUM")
    found = next((path for name in (named, *BROWSERS) if name and (path := shutil.which(name))), "")
    if found:
        return Finding("browser for tests", "ok", found)
    todo = "only `make test-page` needs one: apt-get install chromium"
    return Finding("browser for tests", "missing", "no chromium", todo)


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
