"""A long command says what it does, how far it is, its rate and what is left."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream import progress
from climatestream.errors import StoreUnavailable
from climatestream.logs import JsonFormatter, configure
from climatestream.meter import Counts
from tests.test_cli import COMMAND, started


def test_on_a_terminal_there_is_a_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "run", "simulation:?days=3650"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
    ) as process:
        os.close(theirs)
        try:
            seen = ""
            while not re.search(r"[\d,]+ stored, [\d,]+/s.*[1-9]\d*/87600 slices \d+:\d\d", seen):
                seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode())
        finally:
            process.kill()
    os.close(ours)


def test_elsewhere_there_are_plain_lines(tmp_path: Path) -> None:
    with started("run", "simulation:?days=3650", cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            assert "\x1b" not in line
            if re.search(r"published, .* stored, .*/s.* slice .* of 87,600, about .* s left", line):
                break
        else:
            pytest.fail("the run ended without such a line")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    monkeypatch.setattr(progress, "LINES_S", 60.0)


def shown(capfd: pytest.CaptureFixture[str]) -> str:
    deadline = time.monotonic() + 5
    while not (said := capfd.readouterr().err):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return said


def test_what_is_waited_for_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    counts = Counts()
    counts.waiting_for = StoreUnavailable("the disk is full")
    with progress.Progress(counts, 3):
        assert "trying again: the disk is full" in shown(capfd)


def test_the_rate_is_that_of_what_the_command_does_of_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stored a second, or published where nothing is stored; over the last ten seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counts = Counts()
    shown = progress.Progress(counts, None)
    rates = []
    for published, stored in ((500, 0), (1_000, 0), (2_000, 600)):
        now[0] += 5.0
        counts.published, counts.stored = published, stored
        rates.append(shown._rate())
    assert rates == [100.0, 100.0, 10.0]
    for _ in range(20):  # nothing happens any more
        now[0] += 1.0
        last = shown._rate()
    assert last == 0.0


def test_a_log_for_machines_has_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    configure("json")
    try:
        counts = Counts()
        counts.stored = 7
        with progress.Progress(counts, None):
            said = orjson.loads(shown(capfd))
    finally:
        configure("text")
    assert said["message"] == "progress"
    assert said["stored"] == 7
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])


@pytest.mark.parametrize("fields", [None, lambda: {"delivered": 3}])
def test_what_is_said_without_a_bar_is_json_too(
    capfd: pytest.CaptureFixture[str], fields: Callable[[], dict[str, Any]] | None
) -> None:
    configure("json")
    try:
        with progress.Spinner(lambda: "3 delivered", fields):
            said = orjson.loads(shown(capfd))
    finally:
        configure("text")
    assert said["message"] == ("3 delivered" if fields is None else "progress")
    assert said.get("delivered") == (None if fields is None else 3)


def test_a_log_line_tells_its_exception() -> None:
    import logging

    record = logging.LogRecord("x", logging.ERROR, "", 1, "failed %s", ("twice",), None)
    said = orjson.loads(JsonFormatter().format(record))
    assert (said["message"], said["level"], said["logger"]) == ("failed twice", "error", "x")
