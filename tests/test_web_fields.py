"""Fields with more cells than a picture needs: coarse as a whole, and sharp where one looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from climatestream.errors import UsageError
from climatestream.model import Rows, cell_id
from climatestream.ports import Store
from climatestream.stores.open import open_store
from climatestream.web import fields
from climatestream.web.fields import Box, normal_box
from climatestream.web.page import Page
from tests.test_web import NOON, Browser, Clock

LOOK = {"dataset": "simulation", "variable": "temperature"}
SIDE = 40


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A square of 40 cells across the date line, a tenth of a degree apart; values count up."""
    monkeypatch.setattr(fields, "MAX_CELLS", 500)
    monkeypatch.setattr(fields, "PART_CELLS", 100)
    n = SIDE * SIDE
    latitude = [10.0 + (i // SIDE) / 10.0 for i in range(n)]
    longitude = [(178.0 + (i % SIDE) / 10.0 + 180.0) % 360.0 - 180.0 for i in range(n)]
    numbers = {"temperature": [float(i) for i in range(n)], "u10": [3.0] * n, "v10": [4.0] * n}
    with open_store(f"duckdb:{tmp_path / 'page.duckdb'}") as opened:
        opened.write(
            Rows(
                dataset=["simulation"] * n,
                cell=[cell_id(*place) for place in zip(latitude, longitude, strict=True)],
                country=["FJI"] * n,
                time_ms=[round(NOON.timestamp() * 1000)] * n,
                latitude=latitude,
                longitude=longitude,
                preliminary=[False] * n,
                data={**numbers, "latitude": latitude, "longitude": longitude},
                types=dict.fromkeys((*numbers, "latitude", "longitude"), "number"),
                published_at_ms=[round(NOON.timestamp() * 1000)] * n,
                source=["readings/0"] * n,
                offset=list(range(n)),
            )
        )
        yield opened


@pytest.fixture
def page(store: Store) -> Page:
    return Page(store, Clock())


def test_the_whole_is_the_means_of_boxes_and_the_range_of_all_cells(page: Page) -> None:
    frame = page.frame("simulation", "temperature", NOON)
    assert frame.boxed
    assert not frame.part
    assert len(frame.grid.cells) < 500
    assert frame.stored == SIDE * SIDE
    assert frame.range() == (0.0, (SIDE * SIDE - 1) / 2, SIDE * SIDE - 1.0)
    assert frame.u10 == pytest.approx(3.0)


def test_what_is_in_sight_comes_as_its_cells_where_they_are_few(page: Page) -> None:
    frame = page.frame("simulation", "temperature", NOON, box=Box(11.05, 11.55, 178.95, 179.45))
    assert frame.part
    assert not frame.boxed
    assert sorted(frame.values) == [
        float(row * SIDE + column) for row in range(11, 16) for column in range(10, 15)
    ]


def test_what_is_in_sight_comes_in_finer_boxes_where_there_are_more(page: Page) -> None:
    whole = page.frame("simulation", "temperature", NOON)
    part = page.frame("simulation", "temperature", NOON, box=Box(10.0, 12.0, 178.0, 179.95))
    assert part.boxed
    assert part.grid.step_lat < whole.grid.step_lat
    assert part.stored == 420


def test_a_view_across_the_date_line_holds_both_sides(page: Page) -> None:
    box = normal_box(11.05, 11.35, -540.25, -539.75)
    frame = page.frame("simulation", "temperature", NOON, box=box)
    assert sorted(set(np.round(frame.grid.longitude, 1))) == [-180.0, -179.9, -179.8, 179.8, 179.9]
    assert (frame.grid.row.max(), frame.grid.column.max()) == (2, 4)


def test_a_view_of_the_whole_globe_has_no_edge(page: Page) -> None:
    assert normal_box(-90.0, 90.0, -400.0, 20.0) == Box(-90.0, 90.0, -180.0, 180.0)
    frame = page.frame("simulation", "temperature", NOON, box=normal_box(-90, 90, -400, 20))
    assert frame.stored == SIDE * SIDE


def test_a_view_beside_the_data_is_empty(browser: Browser) -> None:
    answer = browser.get("/frame", params={**LOOK, "box": "0,1,0,1"})
    assert answer.status_code == 200
    assert b'"empty":true' in answer.content


def test_the_cell_under_the_pointer_gives_its_own_values(browser: Browser) -> None:
    found = browser.get("/reading", params={**LOOK, "cell": "11.52,179.27"}).json()
    assert found["cell"] == "11.5000,179.3000"
    assert {name: value for name, _, value, _ in found["values"]} == pytest.approx(
        {"temperature": 15.0 * SIDE + 13.0, "u10": 3.0, "v10": 4.0, "wind_speed": 5.0}
    )
    series = browser.get("/cell", params={**LOOK, "cell": "11.52,179.27"}).json()
    assert (series["cell"], series["value"]) == ("11.5000,179.3000", [15.0 * SIDE + 13.0])


def test_a_cell_beyond_the_date_line_is_the_nearest_one(page: Page) -> None:
    slice_ = page.newest("simulation")
    for longitude in (-179.97, 180.03):
        cell, _, _ = page.fields.nearest("simulation", "temperature", slice_, (11.0, longitude))
        assert cell == "11.0000,-180.0000"


def test_far_from_the_data_there_is_no_cell(page: Page) -> None:
    with pytest.raises(UsageError, match="there is no cell of simulation within"):
        page.fields.nearest("simulation", "temperature", page.newest("simulation"), (0.0, 0.0))


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "2,1,0,1", "0,91,0,1", "0,1,0,900", "0,1,1,1"])
def test_a_box_that_is_none_is_refused(browser: Browser, box: str) -> None:
    answer = browser.get("/frame", params={**LOOK, "box": box})
    assert answer.status_code == 400
    assert "expected SOUTH,NORTH,WEST,EAST" in answer.json()["error"]


@pytest.fixture
def browser(store: Store) -> Browser:
    return Browser(store, Clock())


def test_sides_of_boxes_are_as_long_as_their_number_asks_for() -> None:
    side = fields._side((10.0, 20.0), 200, 1000)
    assert side == pytest.approx(1.0)
    assert fields._side((10.0, 20.0), 200, 200) is None


@pytest.mark.parametrize("most", [100, 977, 5_000, 150_000])
def test_boxes_go_around_the_globe_without_a_seam(most: int) -> None:
    side = fields._side((150.0, 359.9), most, 2_200_000)
    assert side is not None
    assert 360.0 / side == pytest.approx(round(360.0 / side))
    assert 360.0 / side * 150.0 / side <= most * 1.01


def test_a_field_of_all_longitudes_has_one_column_a_box(page: Page, store: Store) -> None:
    n = 720
    longitude: list[float] = [-180.0 + i / 2.0 for i in range(n) if not 300 <= i < 340]
    n = len(longitude)
    latitude = [10.0 + (i % 4) for i in range(n)]
    numbers = {"temperature": [1.0] * n}
    store.write(
        Rows(
            dataset=["world"] * n,
            cell=[cell_id(*place) for place in zip(latitude, longitude, strict=True)],
            country=["FJI"] * n,
            time_ms=[round(NOON.timestamp() * 1000)] * n,
            latitude=latitude,
            longitude=longitude,
            preliminary=[False] * n,
            data={**numbers, "latitude": latitude, "longitude": longitude},
            types=dict.fromkeys((*numbers, "latitude", "longitude"), "number"),
            published_at_ms=[round(NOON.timestamp() * 1000)] * n,
            source=["readings/1"] * n,
            offset=list(range(n)),
        )
    )
    grid = page.frame("world", "temperature", NOON).grid
    side = grid.step_lon
    assert 360.0 / side == pytest.approx(round(360.0 / side))
    assert side in fields.SIDES
