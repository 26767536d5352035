"""Cities on the page: those in sight, and the one that a cell is near."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from climatestream.stores.open import open_store
from climatestream.web import places
from climatestream.web.asking import Asking
from climatestream.web.fields import normal_box
from tests.page.stores import settle
from tests.test_web import Browser, Clock


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    path = tmp_path / "places.duckdb"
    with open_store(f"duckdb:{path}"):
        pass
    settle(path)
    with open_store(f"duckdb:{path}") as store:
        yield Asking(store, Clock())


def names(asking: Asking, *edges: float) -> list[str]:
    return [one["name"] for one in places.largest(asking, normal_box(*edges))]


def test_the_cities_in_sight_come_largest_first(asking: Asking) -> None:
    assert names(asking, 50.0, 51.2, 8.0, 14.0) == ["Frankfurt am Main", "Dresden", "Offenbach"]
    assert names(asking, -10.0, 10.0, 8.0, 14.0) == []


@pytest.mark.parametrize("turn", [-360.0, 360.0])
def test_a_view_that_is_a_turn_away_has_the_same_cities(asking: Asking, turn: float) -> None:
    assert names(asking, 51.2, 52.0, turn + 8.0, turn + 14.0) == ["Leipzig"]


def test_a_view_of_the_whole_globe_has_all(asking: Asking) -> None:
    assert len(names(asking, -90.0, 90.0, -300.0, 100.0)) == 7
    assert names(asking, 51.2, 52.0, 170.0, 380.0) == ["Leipzig"]


def test_a_cell_is_near_its_nearest_city_or_none(asking: Asking) -> None:
    assert places.near(asking, 50.1, 8.75) == "Offenbach"
    assert places.near(asking, 50.1, 8.69) == "Frankfurt am Main"
    assert places.near(asking, 53.0, 8.0) is None


def test_a_view_without_a_box_is_refused(asking: Asking) -> None:
    answer = Browser(asking._store, Clock()).get("/places")
    assert (answer.status_code, "box" in answer.json()["error"]) == (400, True)
