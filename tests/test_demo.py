"""What the first ten seconds of `climatestream demo` show."""

from __future__ import annotations

import io
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.test_cli import page_address, started


def state(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/state").json()
    return found


def picture(url: str) -> np.ndarray[Any, Any]:
    """The page's newest field of temperature, as RGBA."""
    path = state(url)["frame"]["picture"]
    image = Image.open(io.BytesIO(httpx.get(f"{url}{path}").content))
    return np.asarray(image.convert("RGBA"), dtype=np.int16)


def test_the_picture_moves(tmp_path: Path) -> None:
    """Between second 5 and second 10 at least a third of the land changes its colour."""
    with started("demo", "--port", "0", cwd=tmp_path) as process:
        url = page_address(process)
        began = time.monotonic()
        pictures = []
        for second in (5, 10):
            time.sleep(max(0.0, began + second - time.monotonic()))
            pictures.append(picture(url))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    before, after = pictures
    assert before.shape == after.shape
    land = (before[..., 3] > 0) & (after[..., 3] > 0)
    assert land.sum() > 3_000
    assert (before != after).any(axis=-1)[land].mean() >= 1 / 3


def test_readings_appear_at_once_and_two_minutes_of_them_soon(tmp_path: Path) -> None:
    with started("demo", "--port", "0", cwd=tmp_path) as process:
        url = page_address(process)
        deadline = time.monotonic() + 15  # two seconds on a machine that has nothing else to do
        while state(url)["readings"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while state(url)["readings"] < 120 * 4_500:
            assert time.monotonic() < deadline + 30
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)


def test_files_are_replayed_and_say_when_they_are_of(tmp_path: Path, era5: Path) -> None:
    files = sorted((era5 / "germany-land-daily").glob("*.nc"))
    with started("demo", *files, "--port", "0", cwd=tmp_path) as process:
        url = page_address(process)
        deadline = time.monotonic() + 20
        while not (found := state(url)).get("frame"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
    assert found["dataset"] == "era5-land/daily-mean/replay"
    assert re.search(r"data of 2025-08-1\d 00:00 UTC, replayed", str(found))


def test_loop_and_shift_give_each_slice_a_time_of_its_own(tmp_path: Path) -> None:
    import duckdb

    store = tmp_path / "loop.duckdb"
    replay = ["--shift-to-now", "--loop", "--speed", "1d/s", "--region", "LUX"]
    with started(
        "run", "simulation:?days=2&step=6h", *replay, "--store", f"duckdb:{store}", cwd=tmp_path
    ) as process:
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
    with duckdb.connect(str(store)) as connection:
        query = """SELECT "timestamp", count(DISTINCT data['original_timestamp']), count(*)
            FROM demo.climate_data GROUP BY ALL"""
        slices = connection.execute(query).fetchall()
    assert len(slices) > 3
    assert {row[1] for row in slices} == {1}
    assert len({row[2] for row in slices}) == 1
    assert all(time_.microsecond % 250_000 == 0 for time_, *_ in slices)


@pytest.mark.parametrize("source", [["--shift-to-now"], ["--rate", "500/s"]])
def test_a_paced_run_ends_at_once_when_asked(tmp_path: Path, source: list[str]) -> None:
    with started("run", "simulation:", *source, cwd=tmp_path) as process:
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 130
