"""The panels: one list, one SQL; what each answers, held against numpy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from climatestream.dashboards import panels
from climatestream.dashboards.panels import COMPUTED, PANELS, Panel, bucket_of, value_of
from climatestream.model import DeadLetter, Rows, cell_id
from climatestream.ports import PipelineRow
from climatestream.stores.open import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from climatestream.ports import Store

START = datetime(2025, 8, 1, tzinfo=UTC)
HOURS = (0, 1, 2, 3, 6)  # one gap
CELLS = 40

WORDS: dict[str, Any] = {
    "dataset": "simulation",
    "cell": cell_id(50.0, 10.0),
    "time": START,
    "from": START,
    "to": START + timedelta(days=1),
    "value": value_of("temperature"),
    "low": -10.0,
    "high": 25.0,
    "width": 1.0,
    "cells": CELLS,
    "step": 3600.0,
    "bucket": bucket_of(3600.0),
}
KNOWN = {"dataset", "cell", "time", "from", "to", "low", "high", "width", "cells", "step"}


def fields() -> dict[str, NDArray[np.float64]]:
    """Shape (times, cells)."""
    chance = np.random.default_rng(7)
    shape = (len(HOURS), CELLS)
    return {
        "temperature": chance.normal(15.0, 8.0, shape),
        "u10": chance.normal(0.0, 5.0, shape),
        "v10": chance.normal(0.0, 5.0, shape),
    }


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path_factory.mktemp('panels') / 'empty.duckdb'}") as store:
        yield store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path_factory.mktemp('panels') / 'full.duckdb'}") as store:
        fill(store)
        yield store


def fill(store: Store) -> None:
    longitude = [10.0 + i / 10.0 for i in range(CELLS)]
    for number, hour in enumerate(HOURS):
        ms = round((START + timedelta(hours=hour)).timestamp() * 1000)
        data = {name: field[number].tolist() for name, field in fields().items()}
        data |= {"latitude": [50.0] * CELLS, "longitude": longitude}
        rows = Rows(
            dataset=["simulation"] * CELLS,
            cell=[cell_id(50.0, lon) for lon in longitude],
            country=["DEU"] * CELLS,
            time_ms=[ms] * CELLS,
            latitude=[50.0] * CELLS,
            longitude=longitude,
            preliminary=[False] * CELLS,
            data=data,
            types=dict.fromkeys(data, "number"),
            published_at_ms=[ms] * CELLS,
            source=["readings/0"] * CELLS,
            offset=list(range(CELLS)),
        )
        assert store.write(rows) == []
    ms = round(START.timestamp() * 1000)
    store.record(
        [
            PipelineRow(
                time_ms=ms + 5000 * n,
                instance="here:1",
                topic="readings",
                partition=n % 2,
                offset=90,
                high_water=100 + n,
                rows=500,
                batch_ms=2.0,
                dead=n,
                errors=0,
                stored_p50_ms=10.0,
                stored_p95_ms=20.0 + n,
                stored_p99_ms=30.0,
                queryable_ms=float(n),
            )
            for n in range(4)
        ]
    )
    store.bury([DeadLetter("t", 0, n, 0, None, b"", (), "empty", "no value") for n in range(3)])


def rows(store: Store, panel: Panel, **said: Any) -> list[tuple[Any, ...]]:
    return store.query(*panel.query({**WORDS, **said})).rows


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_every_panel_answers_on_an_empty_store_and_on_a_full_one(
    empty: Store, store: Store, panel: Panel
) -> None:
    rows(empty, panel)
    assert rows(store, panel)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_the_text_of_a_query_answers_what_the_query_does(store: Store, panel: Panel) -> None:
    assert "?" not in panel.text(WORDS)
    assert sorted(map(str, store.query(panel.text(WORDS)).rows)) == sorted(
        map(str, rows(store, panel))
    )


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_panels_say_what_they_are_and_ask_only_for_known_words(panel: Panel) -> None:
    assert panel.title
    assert panel.description.endswith(".")
    assert panel.words() <= KNOWN | panels.EXPRESSIONS
    assert "::timestamp" not in panel.sql.lower()


def test_names_of_panels_are_unique() -> None:
    assert len(panels.BY_NAME) == len(PANELS)


def test_a_quote_in_a_name_stays_in_the_name(store: Store) -> None:
    words = {**WORDS, "dataset": "it's", "value": value_of("it's")}
    assert "'it''s'" in panels.TIMES.text(words)
    assert value_of("it's") == "data['it''s']"
    assert store.query(*panels.TIMES.query(words)).rows == []


def test_the_series_is_lowest_mean_and_highest_of_each_time(store: Store) -> None:
    found = rows(store, panels.SERIES)
    assert [row[0] for row in found] == [START + timedelta(hours=hour) for hour in HOURS]
    field = fields()["temperature"]
    wanted = np.stack([field.min(1), field.mean(1), field.max(1)], 1)
    np.testing.assert_allclose([row[1:] for row in found], wanted)


def test_the_field_has_every_cell_once_with_its_wind(store: Store) -> None:
    found = rows(store, panels.FIELD, time=START + timedelta(hours=2))
    by_cell = {row[0]: row for row in found}
    assert len(by_cell) == len(found) == CELLS
    made = fields()
    _, latitude, longitude, country, *numbers = by_cell[cell_id(50.0, 10.3)]
    assert (latitude, longitude, country) == (50.0, 10.3, "DEU")
    np.testing.assert_allclose(
        numbers, [made[name][2, 3] for name in ("temperature", "u10", "v10")]
    )


def test_the_histogram_counts_every_value_in_its_bar(store: Store) -> None:
    found = dict(rows(store, panels.HISTOGRAM))
    bars, counts = np.unique(np.floor(fields()["temperature"][0] + 10.0), return_counts=True)
    assert found == dict(zip(bars.tolist(), counts.tolist(), strict=True))


def test_the_rose_says_from_where_the_wind_blows(store: Store) -> None:
    made = fields()
    u, v = made["u10"][0], made["v10"][0]
    toward = np.degrees(np.arctan2(u, v))
    sector = np.floor((toward + 180.0 + 5.0) % 360.0 / 10.0) % 36
    speed = np.minimum(np.floor(np.hypot(u, v) / 3.0), 5.0)
    wanted: dict[tuple[float, float], int] = {}
    for place in zip(sector.tolist(), speed.tolist(), strict=True):
        wanted[place] = wanted.get(place, 0) + 1
    found = {(row[0], row[1]): row[2] for row in rows(store, panels.ROSE, width=3.0)}
    assert found == wanted


def test_coverage_is_a_share_of_whole_fields_at_the_stored_times(store: Store) -> None:
    found = rows(store, panels.COVERAGE, cells=2 * CELLS, bucket=bucket_of(86_400.0))
    assert found == [(START, 50.0)]


def test_a_gap_is_where_the_next_time_is_late(store: Store) -> None:
    ((before, after, seconds),) = rows(store, panels.GAPS)
    assert (before, after) == (START + timedelta(hours=3), START + timedelta(hours=6))
    assert seconds == 3 * 3600.0


def test_values_outside_the_plausible_range_are_counted_and_named(store: Store) -> None:
    field = fields()["temperature"]
    outside = int(((field < -10.0) | (field > 25.0)).sum())
    assert outside > 0
    assert rows(store, panels.RANGE)[0][:2] == (field.size, outside)
    assert len(rows(store, panels.OUTSIDE)) == min(outside, 50)


def test_rate_lag_and_latency_come_from_the_pipelines_rows(store: Store) -> None:
    words = {"bucket": bucket_of(5.0), "width": 5.0}
    assert [row[1] for row in rows(store, panels.RATE, **words)] == [100.0] * 4
    assert {row[1]: row[2] for row in rows(store, panels.LAG, bucket=bucket_of(3600.0))} == {
        0: 12,
        1: 13,
    }
    assert rows(store, panels.LATENCY)[0][1:] == (10.0, 23.0, 30.0)
    assert rows(store, panels.LETTERS)[0][:2] == ("empty", 3)


def test_wind_speed_is_computed_from_its_components(store: Store) -> None:
    found = rows(store, panels.SERIES, value=value_of("wind_speed"))
    made = fields()
    np.testing.assert_allclose([row[3] for row in found], np.hypot(made["u10"], made["v10"]).max(1))
    assert COMPUTED["wind_speed"].variable.shown_unit == "m/s"


def test_the_scale_of_the_wind_holds_what_blows_in_real_files(era5: Path) -> None:
    import netCDF4

    files = sorted(era5.glob("germany-land-daily/*component*"))
    components = []
    for file in files:
        with netCDF4.Dataset(file) as opened:
            name = next(name for name in ("u10", "v10") if name in opened.variables)
            components.append(np.ma.filled(opened[name][:].astype(np.float64), np.nan))
    assert len(components) == 2
    speed = np.hypot(*components)
    scale = COMPUTED["wind_speed"].variable.scale
    speed = speed[np.isfinite(speed)]
    assert ((speed >= scale.vmin) & (speed <= scale.vmax)).mean() >= 0.98
