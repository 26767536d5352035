"""Fields on the wire, and what the page's charts and exports are made of."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from climatestream.dashboards.panels import PANELS
from climatestream.ports import Description
from climatestream.stores.open import open_store
from climatestream.web import fields
from climatestream.web.frames import MISSING, Frame, make_grid, pack
from climatestream.web.looks import BEAT_S
from climatestream.web.page import Page
from climatestream.web.timetable import WHOLE_S, buckets
from tests.test_web import NOON, Browser, Clock, Counting, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from climatestream.ports import Store

HOUR = timedelta(hours=1)
LOOK = {"dataset": "simulation", "variable": "temperature"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path / 'page.duckdb'}") as opened:
        yield opened


@pytest.fixture
def browser(store: Store, clock: Clock) -> Browser:
    return Browser(store, clock)


def unpack(message: bytes) -> dict[str, Any]:
    """A frame as the browser reads it: the header, and its columns."""
    length = int.from_bytes(message[:4], "little")
    assert length % 4 == 0
    head: dict[str, Any] = json.loads(message[4 : 4 + length])
    at, n = 4 + length, head["grid"]["n"]

    def column(kind: type) -> np.ndarray[Any, Any]:
        nonlocal at
        values: np.ndarray[Any, Any] = np.frombuffer(message, kind, n, at)
        at += values.nbytes
        return values

    if head["places"]:
        head["row"], head["column"] = column(np.uint16), column(np.uint16)
    numbers = column(np.uint16)
    head["values"] = np.where(numbers == MISSING, np.nan, head["low"] + head["step"] * numbers)
    if head["wind"]:
        head["u"], head["v"] = (column(np.int8) * head["wind"] for _ in "uv")
    assert at == len(message)
    return head


def frame(values: list[float], u: list[float] | None = None) -> Frame:
    n = len(values)
    grid = make_grid([str(i) for i in range(n)], np.full(n, 50.0), np.arange(n) / 10.0, [None] * n)
    wind = np.array(u if u is not None else [np.nan] * n)
    return Frame("simulation", "temperature", NOON, "1", n, grid, np.array(values), wind, wind)


# ---------------------------------------------------------------------------------- frames


def test_a_frame_holds_values_to_a_65000th_of_their_range() -> None:
    values = np.random.default_rng(1).normal(280.0, 20.0, 1000)
    found = unpack(pack(frame(values.tolist()), 1.0, None))["values"]
    assert np.abs(found - values).max() <= np.ptp(values) / 65_000


def test_a_missing_value_is_missing_and_a_constant_field_is_constant() -> None:
    found = unpack(pack(frame([5.0, float("nan"), 5.0]), 0.01, None))
    np.testing.assert_allclose(found["values"], [0.05, np.nan, 0.05])
    assert (found["empty"], found["low"], found["high"]) == (False, 0.05, 0.05)
    assert unpack(pack(frame([float("nan")]), 1.0, None))["empty"] is True


def test_places_are_sent_once_and_wind_only_where_there_is_some() -> None:
    whole = frame([1.0, 2.0], [3.0, -5.0])
    first = unpack(pack(whole, 1.0, None))
    again = pack(whole, 1.0, first["grid"]["id"])
    assert first["column"].tolist() == [0, 1]
    assert "row" not in unpack(again)
    np.testing.assert_allclose(unpack(again)["u"], [3.0, -5.0], atol=0.05)
    assert "u" not in unpack(pack(frame([1.0]), 1.0, None))
    assert "u" not in unpack(pack(frame([1.0, 2.0], [np.nan, np.nan]), 1.0, None))


def test_an_update_costs_four_bytes_a_cell() -> None:
    whole = frame([float(i) for i in range(8000)], [1.0] * 8000)
    assert len(pack(whole, 1.0, whole.grid.id)) < 4 * 8000 + 500


def test_any_stored_time_is_a_frame_on_one_grid(store: Store, browser: Browser) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0]})
    put(store, "simulation", NOON + HOUR, {"temperature": [3.0, 4.0, 5.0], "u10": [1.0, 2.0, 3.0]})
    whole = unpack(browser.get("/frame", params=LOOK).content)
    said = {**LOOK, "time": NOON.isoformat(), "grid": whole["grid"]["id"]}
    part = unpack(browser.get("/frame", params=said).content)
    np.testing.assert_allclose(whole["values"], [3.0, 4.0, 5.0])
    np.testing.assert_allclose(part["values"], [1.0, 2.0, np.nan])
    assert part["grid"]["id"] == whole["grid"]["id"]
    assert part["places"] is False


def test_the_outline_that_clips_a_field_is_of_its_countries_unless_it_covers_the_sea() -> None:
    n = 8
    place = (np.full(n, 50.0), np.arange(n) / 10.0)
    names = [str(i) for i in range(n)]
    assert make_grid(names, *place, ["DEU"] * 7 + [None]).countries == ("DEU",)
    assert make_grid(names, *place, ["DEU", "FRA"] * 2 + [None] * 4).countries == ()


def test_a_past_frame_is_asked_for_once_however_often_it_is_played(
    store: Store, clock: Clock
) -> None:
    for hour in range(3):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0, 2.0]})
    counting = Counting(store)
    page = Page(counting, clock)
    for _ in range(3):
        page.frame("simulation", "temperature", NOON)
    asked = counting.queries
    page.frame("simulation", "temperature", NOON)
    assert counting.queries == asked


def test_kept_frames_are_bounded(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "KEPT_BYTES", 200)
    page = Page(store, clock)
    for hour in range(20):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0, 2.0]})
        page.frame("simulation", "temperature", NOON + hour * HOUR)
    assert page.fields.size() <= 200


# ------------------------------------------------------------------------------------ times


def test_times_of_the_past_that_arrive_late_are_found(store: Store, clock: Clock) -> None:
    page = Page(store, clock)
    put(store, "simulation", NOON, {"temperature": [1.0]})
    assert len(page.times("simulation").times) == 1
    put(store, "simulation", NOON - 5 * HOUR, {"temperature": [1.0]})
    put(store, "simulation", NOON + HOUR, {"temperature": [1.0]})
    clock.pass_(BEAT_S)
    assert len(page.times("simulation").times) == 2
    clock.pass_(max(WHOLE_S, 60.0))
    assert len(page.times("simulation").times) == 3


def test_a_series_holds_readings_of_the_past_as_soon_as_their_times_are_known(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.web.timetable.COST_SHARE", 1e9)
    page = Page(store, clock)
    for hour in (5, 6, 7, 8, 9):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [float(hour)]})
    assert page.series("simulation", "temperature").columns[:, 1].tolist() == [5, 6, 7, 8, 9]
    for hour in (1, 2, 3):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [float(hour)]})
    put(store, "simulation", NOON + 4 * HOUR, {"pressure": [9e4]})
    monkeypatch.setattr("climatestream.web.timetable.COST_SHARE", 0.0)
    clock.pass_(WHOLE_S)
    page.times("simulation")
    monkeypatch.setattr("climatestream.web.timetable.COST_SHARE", 1e9)
    for _ in range(2):
        clock.pass_(1.0)
        found = page.series("simulation", "temperature").columns[:, 1].tolist()
        assert found == [1, 2, 3, 5, 6, 7, 8, 9]


def test_times_that_have_expired_are_gone(store: Store, clock: Clock) -> None:
    page = Page(store, clock)
    for hour in range(4):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0]})
    assert len(page.times("simulation").times) == 4
    store.expire("simulation", round((NOON + 2 * HOUR).timestamp() * 1000))
    clock.pass_(BEAT_S)
    assert len(page.times("simulation").times) == 2


def test_a_long_line_is_thinned_but_keeps_its_extremes() -> None:
    times = np.arange(10_000, dtype=np.int64) * 1000
    values = np.random.default_rng(0).normal(0.0, 1.0, 10_000)
    thin, low, mean, high = buckets(times, values, values, values, 600)
    assert len(thin) <= 600
    assert (low.min(), high.max()) == (values.min(), values.max())
    assert mean.mean() == pytest.approx(values.mean(), abs=0.01)
    few = values[:5]
    assert buckets(times[:5], few, few, few, 600)[1] is few


# ---------------------------------------------------------------------- charts and exports


def test_every_panel_is_answered_with_its_text_and_its_query(
    store: Store, browser: Browser
) -> None:
    for hour in range(3):
        put(
            store,
            "simulation",
            NOON + hour * HOUR,
            {"temperature": [10.0, 20.0], "u10": [1.0, 2.0], "v10": [0.0, 3.0]},
        )
    said = {**LOOK, "cell": "50.0,10.1"}
    for panel in PANELS:
        answer = browser.get(f"/panel/{panel.name}", params=said)
        content = answer.json()
        assert answer.status_code == 200, content
        assert content["title"] == panel.title
        assert "$" not in content["sql"]
        assert store.query(content["sql"]).columns == tuple(content["columns"])
        said_again = browser.get(f"/sql/{panel.name}", params=said).json()["sql"]
        # what ends now ends a moment later
        assert said_again.split("BETWEEN")[0] == content["sql"].split("BETWEEN")[0]


def test_a_cell_is_found_by_its_place_with_its_series_and_all_its_values(
    store: Store, browser: Browser
) -> None:
    for hour in range(2):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0, 5.0 + hour]})
    put(store, "simulation", NOON + HOUR, {"pressure": [9e4, 1e5], "u10": [3.0, 3.0]}, offset=9)
    put(store, "simulation", NOON + HOUR, {"v10": [4.0, 4.0]}, offset=99)
    said = {**LOOK, "cell": "50.04,10.06"}
    series = browser.get("/cell", params=said).json()
    assert (series["cell"], series["value"]) == ("50.0000,10.1000", [5.0, 6.0])
    reading = browser.get("/reading", params=said).json()
    assert (reading["cell"], reading["country"]) == ("50.0000,10.1000", "DEU")
    values = {name: (value, unit) for name, _, value, unit in reading["values"]}
    assert values["pressure"] == (1000.0, "hPa")
    assert values["wind_speed"] == (5.0, "m/s")


def test_a_span_narrows_series_and_quality(store: Store, browser: Browser) -> None:
    for hour in range(10):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0 * hour]})
    span = {"from": (NOON + 2 * HOUR).isoformat(), "to": (NOON + 4 * HOUR).isoformat()}
    series = browser.get("/series", params={**LOOK, **span}).json()
    assert series["avg"] == [2.0, 3.0, 4.0]
    times = browser.get("/panel/times", params={**LOOK, **span}).json()
    assert len(times["rows"]) == 3


@pytest.mark.parametrize(
    ("hours", "by", "told"),
    [
        (2, None, "minute"),
        (30, None, "hour"),
        (80, None, "day"),
        (2, "day", "day"),
        (30, "minute", "minute"),
        (80, "minute", "day"),
        (80, "hour", "hour"),
    ],
)
def test_coverage_is_told_by_the_day_or_in_finer_steps_where_they_are_not_too_many(
    store: Store, browser: Browser, hours: int, by: str | None, told: str
) -> None:
    for hour in (0, hours):
        put(store, "simulation", NOON + hour * HOUR, {"temperature": [1.0, 2.0]})
    said = LOOK if by is None else {**LOOK, "by": by}
    content = browser.get("/panel/coverage", params=said).json()
    assert content["words"]["by"] == told
    assert [row[1] for row in content["rows"]] == [100.0] * len(content["rows"])
    assert (said == LOOK) or f"{content['words']['width']:.0f} seconds" in content["sql"]


def test_a_variable_that_the_registry_does_not_know_has_no_plausible_range(
    store: Store, browser: Browser
) -> None:
    store.describe([Description("simulation", "u100", "m s-1", "wind at 100 m")])
    put(store, "simulation", NOON, {"u100": [3.0]})
    answer = browser.get("/panel/range", params={"dataset": "simulation", "variable": "u100"})
    assert answer.json()["unknown"] is True
    said = {"dataset": "simulation", "variable": "u100"}
    for path in ("/sql/range", "/export/range.csv"):
        refused = browser.get(path, params=said)
        assert (refused.status_code, "'u100'" in refused.json()["error"]) == (400, True)


def test_the_field_is_exported_as_csv_and_parquet(store: Store, browser: Browser) -> None:
    put(store, "simulation", NOON, {"temperature": [1.5, 2.5], "u10": [1.0, 2.0]})
    csv = browser.get("/export/field.csv", params=LOOK)
    assert csv.headers["content-disposition"] == (
        'attachment; filename="simulation-temperature-field.csv"'
    )
    table = pl.read_csv(csv.content).sort("cell")
    assert table["temperature"].to_list() == [1.5, 2.5]
    parquet = browser.get("/export/field.parquet", params=LOOK).content
    assert pl.read_parquet(io.BytesIO(parquet)).sort("cell").equals(table)


def test_every_panel_can_be_exported(store: Store, browser: Browser) -> None:
    put(store, "simulation", NOON, {"temperature": [1.5, 2.5], "u10": [1.0, 2.0]})
    said = {**LOOK, "cell": "50,10"}
    for panel in PANELS:
        for form in ("csv", "parquet"):
            answer = browser.get(f"/export/{panel.name}.{form}", params=said)
            assert answer.status_code == 200, answer.text


# ------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("path", "said", "sentence"),
    [
        ("/frame", {"dataset": "x" * 201, "variable": "y"}, "201 characters, expected at most 200"),
        ("/frame", {**LOOK, "time": "1066-10-14T00:00Z"}, "outside 1900 to 2200"),
        ("/cell", LOOK, "cell=LATITUDE,LONGITUDE"),
        ("/cell", {**LOOK, "cell": "95,10"}, "not on the globe"),
        ("/cell", {**LOOK, "cell": "nan,10"}, "not on the globe"),
        ("/cell", {**LOOK, "cell": "here"}, "expected LATITUDE,LONGITUDE"),
        (
            "/series",
            {**LOOK, "from": "2025-08-02T00:00Z", "to": "2025-08-01T00:00Z"},
            "from is later than to",
        ),
        ("/panel/secrets", LOOK, "there is no panel 'secrets'"),
        ("/panel/coverage", {**LOOK, "by": "week"}, "by 'week' is none of minute, hour, day"),
        ("/export/secrets.csv", LOOK, "there is no panel 'secrets'"),
        ("/export/field.xls", LOOK, "csv or parquet, not 'xls'"),
        ("/times", {"dataset": "other"}, "there is: simulation"),
    ],
)
def test_every_parameter_has_limits(
    store: Store, browser: Browser, path: str, said: dict[str, str], sentence: str
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    answer = browser.get(path, params=said)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_an_address_that_is_too_long_is_refused(browser: Browser) -> None:
    answer = browser.get("/state", params={"dataset": "x" * 3000})
    assert (answer.status_code, "2000" in answer.text) == (414, True)


def test_a_field_too_large_for_a_browser_is_refused_with_a_way_out(
    store: Store, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.web.charts.MAX_EXPORT", 1)
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0]})
    answer = browser.get("/export/field.csv", params=LOOK)
    assert (answer.status_code, "copy its query" in answer.json()["error"]) == (400, True)


def test_times_on_the_wire_are_milliseconds(store: Store, browser: Browser) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    assert browser.get("/times", params={"dataset": "simulation"}).json() == [
        round(NOON.timestamp() * 1000)
    ]
    assert isinstance(NOON, datetime)
