"""The page over a real CrateDB answers what it answers over DuckDB, part by part."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from climatestream.dashboards.panels import PANELS
from climatestream.model import DeadLetter
from climatestream.ports import Description, Store
from climatestream.stores.crate import CrateStore
from climatestream.stores.open import open_store
from climatestream.web import fields
from climatestream.web.server import Server as PageServer
from tests.page.conftest import Opened, chromium, launched
from tests.services.crate import Server
from tests.services.test_crate_store import RefreshedStore, clean
from tests.test_web import NOON, Browser, Clock, pipeline_row, put
from tests.test_web_frames import unpack

SCHEMA = "climatestream_test_page"
HOURS = 30
CELLS = 40
LOOK = {"dataset": "era5-land/hourly", "variable": "temperature"}
PIXELS = """() => { const { canvas } = climatestream.map.raster;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...new Uint32Array(data.buffer)]; }"""
CELL = {"cell": "50.01,11.32"}
SPAN = {"from": "2025-08-12T14:00Z", "to": "2025-08-13T09:00Z"}


def fill(store: Store) -> None:
    """Hours of weather with a gap, a hole and a heat that can't be; and what the pipeline said."""
    for hour in range(HOURS):
        if hour in {10, 11}:
            continue
        n = CELLS - 5 if hour == 20 else CELLS
        place = np.arange(n)
        put(
            store,
            "era5-land/hourly",
            NOON + timedelta(hours=hour),
            {
                "temperature": [
                    *(15.0 + 8.0 * np.sin(hour / 4.0 + place[:-1] / 9.0)).tolist(),
                    91.0 if hour == 25 else 12.5,
                ],
                "u10": (5.0 * np.cos(hour / 5.0 + place / 7.0)).tolist(),
                "v10": (5.0 * np.sin(hour / 3.0 - place / 7.0)).tolist(),
                "soot": (place * 0.1 + hour).tolist(),
            },
            offset=hour * CELLS,
        )
    put(store, "unstated", NOON, {"pressure": [101_325.0, 99_000.0]})
    store.describe([Description("era5-land/hourly", "soot", "mg m-3", "")])
    store.record(
        [
            pipeline_row(NOON + timedelta(hours=HOURS, seconds=5.0 * at), partition, rows=100 + at)
            for at in range(-20, 0)
            for partition in range(2)
        ]
    )
    letter = DeadLetter("readings", 0, 7, 1, b"k", b"{", (), "not-json", "it ends too early")
    store.bury([letter])


@pytest.fixture(scope="module")
def stores(cratedb: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """Each store, with the same readings."""
    path = tmp_path_factory.mktemp("page") / "same.duckdb"
    crate = RefreshedStore(clean(cratedb, SCHEMA))
    with open_store(f"duckdb:{path}") as duckdb, crate.store:
        fill(duckdb)
        fill(crate)
        yield crate, duckdb
    CrateStore(cratedb.at(SCHEMA)).drop()


@pytest.fixture(scope="module")
def clock() -> Clock:
    clock = Clock()
    clock.pass_(HOURS * 3600.0)
    return clock


@pytest.fixture(scope="module")
def both(stores: tuple[Store, Store], clock: Clock) -> tuple[Browser, Browser]:
    """The page over each store."""
    crate, duckdb = (Browser(store, clock) for store in stores)
    return crate, duckdb


def same(ours: Any, theirs: Any, at: str = "answer") -> None:
    """Equal, but for the last digits of numbers, and for when each was stored."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), at
        for key in ours:
            if key not in {"version", "picture", "stored_at"}:
                same(ours[key], theirs[key], f"{at}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), at
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{at}[{i}]")
    elif isinstance(ours, int | float) and not isinstance(ours, bool):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6), at
    else:
        assert ours == theirs, at


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/state", {}),
        ("/state", LOOK),
        ("/state", {"dataset": "unstated", "variable": "pressure"}),
        ("/state", {**LOOK, "variable": "soot"}),
        ("/times", {"dataset": LOOK["dataset"]}),
        ("/series", LOOK),
        ("/series", {**LOOK, **SPAN, "variable": "wind_speed"}),
        ("/series", {**LOOK, "variable": "soot"}),
        ("/cell", {**LOOK, **CELL}),
        ("/cell", {**LOOK, **CELL, **SPAN}),
        ("/reading", {**LOOK, **CELL}),
        ("/reading", {**LOOK, **CELL, "time": "2025-08-12T15:00Z"}),
        ("/reading", {**LOOK, **CELL, "time": "2025-08-12T15:30Z"}),
        ("/places", {"box": "40,60,0,20"}),
    ],
)
def test_the_same_is_told_of_the_same_readings(
    both: tuple[Browser, Browser], path: str, said: dict[str, str]
) -> None:
    ours, theirs = (browser.get(path, params=said) for browser in both)
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    same(ours.json(), theirs.json())


@pytest.mark.parametrize("panel", [panel.name for panel in PANELS])
@pytest.mark.parametrize("span", [{}, SPAN], ids=["all times", "a span"])
def test_every_panel_holds_the_same(
    both: tuple[Browser, Browser], panel: str, span: dict[str, str]
) -> None:
    said = {**LOOK, **CELL, **span}
    ours, theirs = (browser.get(f"/panel/{panel}", params=said) for browser in both)
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    said_by_us, by_them = ours.json(), theirs.json()
    if panel in {"delay", "letters", "reading"}:  # they hold when each store was written to
        assert len(said_by_us["rows"]) == len(by_them["rows"])
        return
    for one in (said_by_us, by_them):
        one["rows"].sort(key=lambda row: [str(value) for value in row[:2]])
    same(said_by_us, by_them)


@pytest.mark.parametrize("most", [150_000, 20])
@pytest.mark.parametrize("box", [None, "49.9,50.1,10.95,12.05"])
@pytest.mark.parametrize("time", [None, "2025-08-13T08:00Z"])
def test_fields_are_drawn_from_the_same_numbers(
    both: tuple[Browser, Browser],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    box: str | None,
    time: str | None,
) -> None:
    monkeypatch.setattr(fields, "MAX_CELLS", most)
    said = {key: value for key, value in {**LOOK, "box": box, "time": time}.items() if value}
    answers = [browser.get("/frame", params=said) for browser in both]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    ours, theirs = (unpack(answer.content) for answer in answers)
    ours.pop("version"), theirs.pop("version")
    assert ours["grid"].pop("id") == theirs["grid"].pop("id")
    for name in ("row", "column"):
        assert (ours.pop(name) == theirs.pop(name)).all()
    for name in ("values", "u", "v"):
        one, other = ours.pop(name), theirs.pop(name)
        assert one == pytest.approx(other, abs=2.0 * max(ours["step"], ours["wind"]), nan_ok=True)
    same(ours, theirs)


@pytest.mark.parametrize("panel", ["field", "series", "coverage", "letters"])
def test_exports_hold_the_same(both: tuple[Browser, Browser], panel: str) -> None:
    answers = [browser.get(f"/export/{panel}.csv", params=LOOK) for browser in both]
    ours, theirs = (list(csv.reader(io.StringIO(answer.text))) for answer in answers)
    assert ours[0] == theirs[0]
    assert len(ours) == len(theirs) > 1
    parquet = browser_parquet(both[0], panel)
    assert (parquet.columns, len(parquet)) == (ours[0], len(ours) - 1)


def browser_parquet(browser: Browser, panel: str) -> pl.DataFrame:
    answer = browser.get(f"/export/{panel}.parquet", params=LOOK)
    return pl.read_parquet(io.BytesIO(answer.content))


@pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium")
def test_the_map_draws_the_same_field_and_every_board_opens(
    stores: tuple[Store, Store], clock: Clock
) -> None:
    """In a browser, pixel by pixel, without an error on its console."""
    drawn = []
    with launched() as browser:
        for store in stores:
            with PageServer(store, port=0, clock=clock) as server:
                page = Opened(browser.new_page(viewport={"width": 1440, "height": 900}))
                page.tab.goto(f"{server.url}/?dataset={LOOK['dataset']}&variable=temperature&cells")
                page.ready()
                for board in ("pipeline", "quality"):
                    page.tab.click(f"#tab-{board}")
                    page.until(f"document.querySelector('#{board} table')")
                drawn.append(page.tab.evaluate(PIXELS))
                page.close()
            page.check()
    ours, theirs = drawn
    assert len(set(ours)) > 10
    assert ours == theirs


def test_serve_shows_a_schema_of_a_server(
    both: tuple[Browser, Browser], cratedb: Server, tmp_path: Path
) -> None:
    address = cratedb.address
    store = f"crate://{address.user}@{address.host}:{address.port}/{SCHEMA}"
    command = [sys.executable, "-m", "climatestream.cli", "serve", "--port", "0", "--store", store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            url = next(iter(process.stdout)).split()[-1]
            state = httpx.get(f"{url}/state").json()
            theirs = both[1].get("/state").json()
            for name in ("datasets", "dataset", "times", "readings", "dead_letters"):
                same(state[name], theirs[name])
            names = [[one["name"] for one in page["variables"]] for page in (state, theirs)]
            assert names[0] == names[1]
        finally:
            process.terminate()
            process.wait(20)
