"""`climatestream doctor` says what works here, what does not, and what to do."""

from __future__ import annotations

import socket
from pathlib import Path

import orjson
import pytest

from climatestream import doctor
from climatestream.cli import invoke
from climatestream.findings import Finding


def finding(name: str, **more: str | int) -> Finding:
    asked = {"store": "duckdb:climatestream.duckdb", "port": 0, **more}
    found = doctor.examine(store=str(asked["store"]), port=int(asked["port"]))
    return next(one for one in found if one.name == name)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_healthy_machine_is_ok(capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--json", "--port", "0"]) == 0
    said = orjson.loads(capfd.readouterr().out)
    assert said["ok"] is True
    states = {check["name"]: check["state"] for check in said["checks"]}
    assert states["Python"] == states["packages"] == states["store"] == "ok"
    assert {"port", "disk", "memory", "clock", "extra grib", "sample files"} <= set(states)
    assert all(check["todo"] for check in said["checks"] if check["state"] != "ok")


def test_the_table_has_a_line_for_each(capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--port", "0"]) == 0
    said = capfd.readouterr().out
    assert all(name in said for name in ("Python", "packages", "port", "disk", "store"))


def test_a_store_of_another_program_is_broken(tmp_path: Path) -> None:
    (tmp_path / "notes.duckdb").write_text("no database " * 1000)
    found = finding("store", store="duckdb:notes.duckdb")
    assert found.state == "broken"
    assert "notes.duckdb" in found.todo
    assert invoke(["doctor", "--store", "duckdb:notes.duckdb", "--port", "0"]) == 1


def test_a_store_in_no_folder_is_broken() -> None:
    assert finding("store", store="duckdb:nowhere/x.duckdb").state == "broken"


def test_looking_makes_no_store(tmp_path: Path) -> None:
    finding("store")
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = finding("port", port=taken.getsockname()[1])
    assert found.state == "missing"
    assert "--port" in found.todo


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"grib": ("no-such-package",)})
    found = finding("extra grib")
    assert found.state == "missing"
    assert "pip install no-such-package" in found.todo


def test_a_slow_clock_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    monkeypatch.setattr(doctor, "BUILT", datetime(2999, 1, 1, tzinfo=UTC))
    assert finding("clock").state == "broken"


def test_too_little_memory_and_disk_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_MEMORY_BYTES", 10**18)
    monkeypatch.setattr(doctor, "FREE_DISK_BYTES", 10**18)
    assert finding("memory").state == finding("disk").state == "broken"


def test_a_broker_and_a_store_that_do_not_answer_are_broken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        found = doctor.examine(
            store=f"crate://crate@127.0.0.1:{port}/demo",
            port=0,
            broker=f"kafka://127.0.0.1:{port}/era5",
        )
    broken = {one.name: one.todo for one in found if one.state == "broken"}
    assert broken.keys() == {"broker", "store"}
    assert "start the broker" in broken["broker"]
    assert f"127.0.0.1:{port}" in broken["store"]


def test_what_only_tests_need_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CRATEDB_HOME", "/nowhere")
    monkeypatch.delenv("CLIMATESTREAM_TEST_CRATEDB", raising=False)
    monkeypatch.delenv("CLIMATESTREAM_CHROMIUM", raising=False)
    for name, todo in (("Kafka", "maven"), ("CrateDB", "CRATEDB_HOME"), ("browser", "chromium")):
        found = finding(f"{name} for tests")
        assert found.state == "missing"
        assert todo in found.todo
