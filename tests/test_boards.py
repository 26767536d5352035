"""The boards: what they hold, what `check` finds, and what their queries answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from climatestream import places, settings
from climatestream.cli import invoke
from climatestream.dashboards import check, generate, geomap, grafana, lint, runs
from climatestream.dashboards.board_panels import NATIVE, NEWEST
from climatestream.dashboards.grafana_sql import Range, expand, instant, moment
from climatestream.errors import DashboardError
from climatestream.interrupt import Interrupt
from climatestream.model import Batch
from climatestream.ports import Store
from climatestream.stores.open import open_store

ROOT = Path(__file__).resolve().parent.parent
TEXTS = grafana.build()
BOARDS = {name: json.loads(text) for name, text in TEXTS.items()}
UIDS = frozenset(board["uid"] for board in BOARDS.values())
SMALL = json.dumps(
    {
        **BOARDS["climate.json"],
        "panels": [
            panel
            for panel in BOARDS["climate.json"]["panels"]
            if panel["type"] == "row"
            or "Temperature" in panel["title"]
            or "Lowest" in panel["title"]
        ],
    }
)
"""A board to break: the maps of any variable have a legend for each that there is."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path_factory.mktemp('boards') / 'boards.duckdb'}") as opened:
        check.fill(opened)
        yield opened


@pytest.fixture(scope="module")
def now(store: Store) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


# ------------------------------------------------------------------------------ what is checked in


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_well_formed_and_its_queries_are_answered(
    store: Store, now: datetime, name: str
) -> None:
    assert lint.problems(BOARDS[name], UIDS) == []
    assert check.run(BOARDS[name], store, now) == []


def test_what_is_checked_in_is_what_the_code_makes() -> None:
    folder = ROOT / generate.FOLDER
    made = {f"boards/{name}": text.encode() for name, text in grafana.build().items()}
    assert generate.different(folder, made) == []
    assert {path.name for path in (folder / "boards").iterdir()} == set(BOARDS)


def test_build_and_check_are_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in settings.BY_NAME.values():
        monkeypatch.delenv(name.environment, raising=False)
    folder = str(tmp_path / "grafana")
    assert invoke(["dashboards", "build", "--to", folder, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) >= 4
    assert invoke(["dashboards", "build", "--to", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == []
    climate = tmp_path / "grafana/boards/climate.json"
    climate.write_text(climate.read_text().replace('"markers"', '"marker"'))
    (climate.parent / "other.json").write_text("{}")
    (climate.parent / "place.json").unlink()
    assert invoke(["dashboards", "check", "--in", folder, "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any("is not what the code makes" in problem for problem in problems)
    assert any("other.json is no board of ours" in problem for problem in problems)
    assert any("place.json is missing: run" in problem for problem in problems)
    assert any("type 'marker' is none of" in problem for problem in problems)


def test_an_interrupt_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: nothing is published any more, and no board is asked."""
    interrupt, simulated_ = Interrupt(), check._simulated
    recorded: list[object] = []
    monkeypatch.setattr(check, "places", recorded)

    def simulated(first: date, days: int) -> Iterator[Batch]:
        interrupt.stop.set()
        yield from simulated_(first, days)

    monkeypatch.setattr(check, "_simulated", simulated)
    monkeypatch.setattr(check, "run", recorded.append)
    assert check.check(ROOT / generate.FOLDER, generate.files(), interrupt) == []
    assert recorded == []


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("--map-tiles", "https://tiles.example", "{z}/{x}/{y}"),
        ("--map-tiles", "tiles/{z}/{x}/{y}.png", "https://host/"),
        ("--alert-webhook", "hooks.example/secret", "https://host/path"),
        ("--alert-email", "someone", "someone@example.org"),
        ("--alert-heat", "nan", "expected a number"),
        ("--alert-lag", "many", "expected a number"),
        ("--alert-no-data", "soon", "no duration"),
    ],
)
def test_what_grafana_would_take_without_a_word_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, text: str, expected: str
) -> None:
    """Nothing is written, and no address that may be a secret is repeated."""
    assert invoke(["dashboards", "build", "--to", str(tmp_path), option, text]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_tiles_are_one_option() -> None:
    tiles = "https://tiles.example/{z}/{x}/{y}.png"
    boards = {name: json.loads(text) for name, text in grafana.build(tiles).items()}
    uids = frozenset(board["uid"] for board in boards.values())
    for name, board in boards.items():
        assert lint.problems(board, uids) == []
        for panel in maps(board):
            assert panel["options"]["basemap"]["config"]["url"] == tiles
        for panel in maps(BOARDS[name]):
            assert panel["options"]["basemap"]["type"] == "geojson"
            assert "http" not in json.dumps(panel["options"])


def maps(board: Any) -> list[Any]:
    return [panel for panel in board["panels"] if panel["type"] == "geomap"]


# ---------------------------------------------------------------------------- deliberate breaks


def panel_of(board: Any, kind: str) -> Any:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


def layer_of(board: Any, kind: str = "markers") -> Any:
    return next(
        one for one in panel_of(board, "geomap")["options"]["layers"] if one["type"] == kind
    )


def put(*path: str | int) -> Callable[[Any, Any], None]:
    def change(at: Any, value: Any) -> None:
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def in_panel(kind: str, *path: str | int, value: Any) -> Callable[[Any], None]:
    return lambda board: put(*path)(panel_of(board, kind), value)


def in_layer(*path: str | int, value: Any, kind: str = "markers") -> Callable[[Any], None]:
    return lambda board: put(*path)(layer_of(board, kind), value)


def in_board(*path: str | int, value: Any) -> Callable[[Any], None]:
    return lambda board: put(*path)(board, value)


def in_sql(kind: str, old: str, new: str) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        target = panel_of(board, kind)["targets"][0]
        assert old in target["rawSql"]
        target["rawSql"] = target["rawSql"].replace(old, new, 1)

    return change


def variable(board: Any, name: str) -> Any:
    return next(one for one in board["templating"]["list"] if one["name"] == name)


def without(kind: str, *path: str) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        at = panel_of(board, kind)
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]

    return change


def in_variable(name: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda board: variable(board, name).__setitem__(key, value)


def twice(what: str) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        first, second = board["panels"][0], board["panels"][1]
        second[what] = first[what]

    return change


def in_override(kind: str, property_: str, value: Any) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        for override in panel_of(board, kind)["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                if one["id"] == property_:
                    one["value"] = value
                    return
        raise AssertionError(property_)

    return change


SHAPE: dict[str, tuple[Callable[[Any], None], str]] = {
    "panel type": (in_panel("timeseries", "type", value="timeserie"), "type 'timeserie' is none"),
    "layer type": (in_layer("type", value="marker"), "type 'marker' is none"),
    "basemap of tiles": (
        in_panel("geomap", "options", "basemap", "type", value="carto"),
        "basemap 'carto' is not an explicit geojson",
    ),
    "no basemap": (without("geomap", "options", "basemap"), "is not an explicit geojson"),
    "outlines that are not there": (
        in_layer("config", "src", value="public/maps/country.geojson", kind="geojson"),
        "Grafana serves no",
    ),
    "tooltip.mode": (
        in_panel("geomap", "options", "tooltip", "mode", value="detail"),
        "tooltip.mode 'detail'",
    ),
    "location.mode": (in_layer("location", "mode", value="coord"), "location.mode 'coord'"),
    "a layer of no query": (in_layer("filterData", "options", value="C"), "names no query"),
    "symbol": (
        in_layer("config", "style", "symbol", "fixed", value="img/icons/marker/box.svg"),
        "no symbol",
    ),
    "options.layers renamed": (
        lambda b: panel_of(b, "geomap")["options"].update(
            layer=panel_of(b, "geomap")["options"].pop("layers")
        ),
        "options layer, layers",
    ),
    "view of no layer": (
        in_panel("geomap", "options", "view", "layer", value="Cell"),
        "names no layer",
    ),
    "view of the world": (
        in_panel("geomap", "options", "view", "allLayers", value=True),
        "every view is the whole world",
    ),
    "view from afar": (in_panel("geomap", "options", "view", "zoom", value=1), "view.zoom 1"),
    "view.id": (in_panel("geomap", "options", "view", "id", value="fits"), "view.id 'fits'"),
    "thresholds.mode": (
        in_panel("geomap", "fieldConfig", "defaults", "thresholds", "mode", value="relative"),
        "thresholds.mode 'relative'",
    ),
    "thresholds that fall": (
        in_override(
            "geomap",
            "thresholds",
            {"mode": "absolute", "steps": [{"value": None}, {"value": 2}, {"value": 1}]},
        ),
        "do not ascend",
    ),
    "a first threshold": (
        in_override("geomap", "thresholds", {"mode": "absolute", "steps": [{"value": 0}]}),
        "the first step has a value",
    ),
    "colour mode": (
        in_panel("timeseries", "fieldConfig", "defaults", "color", "mode", value="rainbow"),
        "color.mode 'rainbow'",
    ),
    "unit": (
        in_panel("geomap", "fieldConfig", "defaults", "unit", value="degC"),
        "no unit 'degC'",
    ),
    "unit of a field": (in_override("geomap", "unit", "centigrade"), "no unit 'centigrade'"),
    "no unit": (without("stat", "fieldConfig", "defaults", "unit"), "no unit"),
    "no title": (in_panel("stat", "title", value=""), "no title"),
    "version of a panel": (in_panel("stat", "pluginVersion", value="6.1"), "pluginVersion '6.1'"),
    "no description": (in_panel("stat", "description", value=""), "no description"),
    "no text for no data": (without("stat", "fieldConfig", "defaults", "noValue"), "no text for"),
    "property": (
        lambda b: panel_of(b, "geomap")["fieldConfig"]["overrides"][0]["properties"][0].update(
            id="displayname"
        ),
        "no property 'displayname'",
    ),
    "matcher": (
        lambda b: panel_of(b, "geomap")["fieldConfig"]["overrides"][0]["matcher"].update(
            id="byNames"
        ),
        "matcher 'byNames'",
    ),
    "gridPos as text": (in_panel("stat", "gridPos", "x", value="0"), "not four whole numbers"),
    "gridPos beyond": (in_panel("stat", "gridPos", "w", value=25), "outside the 24 columns"),
    "panels over each other": (
        lambda b: panel_of(b, "stat").update(gridPos=panel_of(b, "geomap")["gridPos"]),
        "lies over panel",
    ),
    "panel id twice": (twice("id"), "is there twice"),
    "panel title twice": (twice("title"), "is there twice"),
    "panel id": (in_panel("stat", "id", value="2"), "is no whole number"),
    "a collapsed row": (in_panel("row", "collapsed", value=True), "a row is to be open"),
    "a row with panels": (
        lambda b: panel_of(b, "row")["panels"].append(panel_of(b, "stat")),
        "a row is to be open",
    ),
    "key of the board": (in_board("panel", value=[]), "unknown key 'panel'"),
    "no panels": (in_board("panels", value=None), "expected a list of panels"),
    "no uid": (in_board("uid", value=None), "uid: got None"),
    "schema version": (in_board("schemaVersion", value="v2"), "schemaVersion"),
    "not live": (in_board("refresh", value=""), "refresh"),
    "time": (in_board("time", "from", value="yesterday"), "time: got"),
    "no links": (in_board("links", value=[]), "no link to the other boards"),
    "data source of a panel": (
        in_panel("stat", "datasource", "uid", value="crate"),
        "data source {'type': 'grafana-postgresql-datasource', 'uid': 'crate'}",
    ),
    "data source of a query": (
        in_panel("stat", "targets", 0, "datasource", "type", value="postgres"),
        "data source",
    ),
    "data source of a variable": (in_variable("dataset", "datasource", None), "data source None"),
    "format": (in_panel("stat", "targets", 0, "format", value="tables"), "format 'tables'"),
    "query not raw": (in_panel("stat", "targets", 0, "rawQuery", value=False), "not said to be"),
    "no query": (in_panel("stat", "targets", value=[]), "no query"),
    "empty query": (in_panel("stat", "targets", 0, "rawSql", value=" "), "the query is empty"),
    "query twice": (
        lambda b: panel_of(b, "stat")["targets"].append(panel_of(b, "stat")["targets"][0]),
        "is there twice",
    ),
    "macro": (in_sql("timeseries", "$__timeFrom()", "$__timeFromm()"), "no macro $__timeFromm"),
    "macro not called": (in_sql("timeseries", "$__timeFrom()", "$__timeFrom"), "is not called"),
    "variable of a query": (
        in_sql("timeseries", "${dataset:sqlstring}", "${datasets:sqlstring}"),
        "names no variable",
    ),
    "format of a variable": (
        in_sql("timeseries", "${dataset:sqlstring}", "${dataset:sql}"),
        "no format 'sql'",
    ),
    "variable without a format": (
        in_sql("timeseries", "${dataset:sqlstring}", "$dataset"),
        "needs the format",
    ),
    "variable of a title": (
        in_panel("timeseries", "title", value="in ${units}"),
        "names no variable",
    ),
    "a title without the unit": (in_panel("timeseries", "title", value="T"), "name the unit"),
    "variable twice": (in_variable("country", "name", "dataset"), "is there twice"),
    "type of a variable": (in_variable("country", "type", "querys"), "type 'querys'"),
    "refresh of a variable": (in_variable("country", "refresh", 0), "refresh 0"),
    "a variable that comes later": (
        in_variable("dataset", "query", "SELECT ${country:sqlstring}"),
        "names no variable",
    ),
    "a link to nowhere": (
        lambda b: panel_of(b, "timeseries")["fieldConfig"]["defaults"]["links"][0].update(
            url="/d/climate?${__url_time_range}"
        ),
        "none of the boards",
    ),
    "a link without the time": (
        lambda b: panel_of(b, "timeseries")["fieldConfig"]["defaults"]["links"][0].update(
            url="/d/climatestream-climate?"
        ),
        "does not keep the time range",
    ),
    "legend": (
        in_panel("timeseries", "options", "legend", "displayMode", value="lists"),
        "legend.displayMode 'lists'",
    ),
    "legend.calcs": (
        in_panel("timeseries", "options", "legend", "calcs", value=["average"]),
        "no calculation 'average'",
    ),
    "stacking": (
        in_panel("timeseries", "fieldConfig", "defaults", "custom", "stacking", "mode", value="on"),
        "stacking.mode 'on'",
    ),
    "reducer": (
        in_panel("stat", "options", "reduceOptions", "calcs", value=["lastValue"]),
        "no calculation 'lastValue'",
    ),
}


@pytest.mark.parametrize("name", SHAPE)
def test_a_break_that_grafana_lets_pass_is_found(name: str) -> None:
    board = json.loads(SMALL)
    change, expected = SHAPE[name]
    change(board)
    found = lint.problems(board, UIDS)
    assert any(expected in sentence for sentence in found), found


ANSWERS: dict[str, tuple[Callable[[Any], None], str]] = {
    "column of a table": (
        in_sql("stat", "data['temperature']", "data['temprature']"),
        "temprature",
    ),
    "table": (in_sql("stat", "demo.climate_data", "demo.climate"), "climate"),
    "syntax": (in_sql("stat", "SELECT", "SELEKT"), "SELEKT"),
    "no rows": (in_sql("timeseries", "WHERE dataset", "WHERE 1 = 2 AND dataset"), "no rows"),
    "field of a colour": (
        in_layer("config", "style", "color", "field", value="temperature_degX"),
        "names the field 'temperature_degX'",
    ),
    "field of a size": (
        in_layer("config", "style", "size", "field", value="radius"),
        "names the field 'radius'",
    ),
    "field of a place": (in_layer("location", "latitude", value="lat"), "names the field 'lat'"),
    "field of an override": (
        lambda b: panel_of(b, "geomap")["fieldConfig"]["overrides"][0]["matcher"].update(
            options="temperatur"
        ),
        "names the field 'Temperature'",
    ),
    "field of a line": (
        lambda b: panel_of(b, "timeseries")["fieldConfig"]["overrides"][0]["matcher"].update(
            options="lowest"
        ),
        "for the field 'lowest'",
    ),
    "a series without time": (in_sql("timeseries", 'AS "time"', 'AS "at"'), "without a column"),
    "a series out of order": (
        in_sql("timeseries", "ORDER BY 1", "ORDER BY 1 DESC"),
        "not sorted by time",
    ),
    "columns of one name": (in_sql("timeseries", 'AS "max"', 'AS "min"'), "columns of one name"),
    "query of a variable": (in_variable("country", "query", "SELECT 1"), "has no value"),
    "a variable that the store refuses": (
        in_variable("country", "query", 'SELECT x AS "__value"'),
        "variable 'country'",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_break_that_only_an_answer_shows_is_found(store: Store, now: datetime, name: str) -> None:
    board = json.loads(SMALL)
    change, expected = ANSWERS[name]
    change(board)
    found = check.run(board, store, now, [({}, True)])
    assert any(expected in sentence for sentence in found), found


# ------------------------------------------------------------------------------------ expander

TIME = Range(datetime(2025, 8, 10, tzinfo=UTC), datetime(2025, 8, 16, 23, 59, 59, tzinfo=UTC), 5000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '$__timeFilter("timestamp")',
            "\"timestamp\" BETWEEN '2025-08-10T00:00:00Z' AND '2025-08-16T23:59:59Z'",
        ),
        ("$__timeFrom() $__timeTo()", "'2025-08-10T00:00:00Z' '2025-08-16T23:59:59Z'"),
        ("$__timeGroup(\"time\", '5m')", 'floor(extract(epoch from "time")/300)*300'),
        ("$__timeGroup(t, $__interval)", "floor(extract(epoch from t)/5)*5"),
        ("'$__interval_ms ms'", "'5000 ms'"),
        ("${name:sqlstring}", "'it''s'"),
        ("${name:raw}", "it's"),
        ("${many:sqlstring}", "'a','b'"),
        ("[[name:raw]]", "it's"),
    ],
)
def test_macros_and_variables_are_what_grafana_makes_of_them(text: str, expected: str) -> None:
    assert expand(text, {"name": "it's", "many": ["a", "b"]}, TIME) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("$nobody", "names no variable"),
        ("${name}", "needs the format"),
        ("${name:csv}", "needs the format"),
        ("$__timeEpoch(t)", "none that we use"),
        ("$__timeGroup(t, 5)", "a width such as 5m"),
    ],
)
def test_what_is_not_expanded_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(DashboardError, match=sentence):
        expand(text, {"name": "it's"}, TIME)


def test_the_ends_of_a_range_are_moments() -> None:
    at = datetime(2025, 8, 10, 12, 0, 0, 250_000, tzinfo=UTC)
    assert moment("now", at) == at
    assert moment("now-6h", at) == at - timedelta(hours=6)
    assert instant(at) == "2025-08-10T12:00:00.25Z"
    with pytest.raises(DashboardError, match="expected now or now-6h"):
        moment("now/d", at)


# --------------------------------------------------------------------------------- what is seen


def answered(store: Store, now: datetime, name: str, title: str, **chosen: str) -> list[Any]:
    """The rows of a panel's first query, as dictionaries."""
    board = BOARDS[name]
    time = runs.span(board, now)
    values = runs.resolve(board, store.query, time, chosen)
    query = next(q for q in runs.queries(board, values, time) if q.panel.startswith(title))
    answer = store.query(query.sql)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


@pytest.mark.parametrize("resolution", [NATIVE, "0.1", "0.5"])
def test_a_map_says_place_and_time_of_each_square(
    store: Store, now: datetime, resolution: str
) -> None:
    """Country, coordinates, time, and the largest city that lies in the square."""
    squares = answered(store, now, "climate.json", "Temperature", resolution=resolution)
    assert {square["place"] for square in squares} == {"DEU"}
    assert {square["time"].tzinfo is not None for square in squares} == {True}
    side = max(float(resolution), 0.1)
    cities = [city for city in places.cities() if city.country == "DEU"]
    for square in squares:
        inside = [
            city
            for city in cities
            if abs(city.latitude - square["latitude"]) < side / 2 - 1e-6
            and abs(city.longitude - square["longitude"]) < side / 2 - 1e-6
        ]
        assert square["city"] == (max(inside, key=lambda c: c.population).name if inside else None)
    assert any(square["city"] for square in squares)


def test_a_map_of_a_place_says_its_city(store: Store, now: datetime) -> None:
    squares = answered(store, now, "place.json", "${variable:text}, in ${unit}: the place")
    assert any(square["city"] for square in squares)


@pytest.mark.parametrize("resolution", [NATIVE, "0.25"])
@pytest.mark.parametrize("across", [430.0, geomap.ACROSS])
def test_cells_adjoin_at_the_boards_view(
    store: Store, now: datetime, resolution: str, across: float
) -> None:
    """Squares as OpenLayers draws them in the view that Geomap fits leave no gap between cells."""
    cells = answered(store, now, "climate.json", "Temperature", resolution=resolution)
    assert len({cell["latitude"] for cell in cells}) > 1
    x = np.array([cell["longitude"] for cell in cells])
    y = mercator(np.array([cell["latitude"] for cell in cells]))
    resolution_px = max(np.ptp(x) / across, np.ptp(y) / geomap.DOWN) * 1.05
    side = math.sqrt(2.0) * (np.array([cell["size"] for cell in cells]) + 0.5)
    latitudes = np.array([cell["latitude"] for cell in cells])
    step = np.diff(np.unique(latitudes)).min()
    high = (mercator(latitudes + step / 2) - mercator(latitudes - step / 2)) / resolution_px
    wide = step / resolution_px
    if across == geomap.ACROSS:
        assert (side >= high).all()
        assert (side <= high + 2.0).all()
    assert (side >= wide).all()


def mercator(latitude: Any) -> Any:
    """Web Mercator's second axis, in degrees of the equator."""
    return np.degrees(np.log(np.tan(np.radians(45.0 + latitude / 2.0))))


def test_boxes_hold_every_cell_once(store: Store, now: datetime) -> None:
    counts = {
        resolution: sum(
            cell["cells"]
            for cell in answered(store, now, "climate.json", "Temperature", resolution=resolution)
        )
        for resolution in (NATIVE, "0.25", "0.5", "1.0", "2.0")
    }
    assert len(set(counts.values())) == 1
    assert min(counts.values()) > 20


@pytest.mark.parametrize(
    ("unit", "factor", "offset"), [("degC", 1.0, 0.0), ("K", 1.0, 273.15), ("degF", 1.8, 32.0)]
)
def test_a_unit_reaches_map_series_and_chosen_variable(
    store: Store, now: datetime, unit: str, factor: float, offset: float
) -> None:
    said = {"temperature_unit": unit}
    (cell, *_) = answered(store, now, "climate.json", "Temperature 2 m", **said)
    stored = answered(store, now, "climate.json", "Temperature 2 m")[0]["temperature_degC"]
    assert cell[f"temperature_{unit}"] == pytest.approx(stored * factor + offset)
    series = answered(store, now, "climate.json", "Temperature over time", **said)
    chosen = answered(store, now, "climate.json", "${variable:text}, in ${unit}: lowest", **said)
    assert [row["avg"] for row in chosen] == pytest.approx([row["avg"] for row in series])
    plain = answered(store, now, "climate.json", "Temperature over time")
    assert [row["avg"] for row in series] == pytest.approx(
        [row["avg"] * factor + offset for row in plain]
    )


def test_maps_step_through_time(store: Store, now: datetime) -> None:
    (newest,) = answered(store, now, "climate.json", "Time of the maps")
    (before,) = answered(store, now, "climate.json", "Time of the maps", at=newest["earlier"])
    assert before["shown"] < newest["shown"]
    assert newest["later"] is None
    (again,) = answered(store, now, "climate.json", "Time of the maps", at=before["later"])
    assert again["shown"] == newest["shown"]
    board = BOARDS["climate.json"]
    at = next(v for v in board["templating"]["list"] if v["name"] == "at")
    time = runs.span(board, now)
    values = runs.resolve(board, store.query, time)
    options = [row[1] for row in store.query(expand(at["query"], values, time)).rows]
    assert options[0] == NEWEST
    assert newest["earlier"] in options


def test_an_arrow_points_to_where_the_wind_blows(store: Store, now: datetime) -> None:
    board = BOARDS["climate.json"]
    time = runs.span(board, now)
    values = runs.resolve(board, store.query, time)
    query = next(q for q in runs.queries(board, values, time) if q.ref == "B")
    arrows = store.query(query.sql)
    (newest,) = answered(store, now, "climate.json", "Time of the maps")
    assert {row[:2] for row in arrows.rows} == {(newest["shown"], "DEU")}
    (u, v) = store.query(
        "SELECT avg(data['u10']), avg(data['v10']) FROM demo.climate_data "
        'WHERE "timestamp" = (SELECT max("timestamp") FROM demo.climate_data)'
    ).rows[0]
    turned = np.radians(
        [dict(zip(arrows.columns, row, strict=True))["blows to"] for row in arrows.rows]
    )
    mean = math.degrees(math.atan2(np.sin(turned).mean(), np.cos(turned).mean()))
    assert abs((mean - math.degrees(math.atan2(u, v)) + 180) % 360 - 180) < 20


def test_a_place_is_a_circle_or_a_polygon(store: Store, now: datetime) -> None:
    circle = answered(store, now, "place.json", "Means at the time", radius="10")[0]["cells"]
    wider = answered(store, now, "place.json", "Means at the time", radius="25")[0]["cells"]
    assert 0 < circle < wider
    polygon = "POLYGON((13.25 52.25, 13.55 52.25, 13.55 52.55, 13.25 52.55, 13.25 52.25))"
    inside = answered(store, now, "place.json", "Means at the time", polygon=polygon)[0]["cells"]
    assert inside == 9


def test_a_rose_and_a_distribution_are_whole(store: Store, now: datetime) -> None:
    rose = answered(store, now, "place.json", "Wind rose", radius="50")
    shares = sum(value for row in rose for name, value in row.items() if name != "from")
    assert shares == pytest.approx(100.0)
    bars = answered(store, now, "place.json", "${variable:text}, in ${unit}: how many")
    (whole,) = store.query(
        "SELECT count(*) FROM demo.climate_data "
        "WHERE distance(geo_location, 'POINT(13.4105 52.5244)') <= 50000 AND \"timestamp\" > ?",
        [now - timedelta(hours=6)],
    ).rows[0]
    assert sum(bar["readings"] for bar in bars) == whole


def test_quality_sees_the_gap_the_hot_cell_and_what_is_preliminary(
    store: Store, now: datetime
) -> None:
    (gap,) = answered(store, now, "quality.json", "Gaps")
    assert gap["seconds"] == 2 * 3600.0
    hot = answered(store, now, "quality.json", "${variable:text}, in ${unit}: cells outside")
    assert {round(row["value"], 2) for row in hot} == {126.85}
    kinds = answered(store, now, "quality.json", "Preliminary and final")
    assert all((row["final"] > 0) != (row["preliminary"] > 0) for row in kinds)
    assert kinds[-1]["preliminary"] > 0
    calendar = answered(store, now, "quality.json", "${variable:text}: coverage")
    shares = [
        v for week in calendar for day, v in week.items() if day != "week of" and v is not None
    ]
    assert shares.count(100.0) >= 5
    assert 100.0 * 23 / 24 in [pytest.approx(share) for share in shares]


def test_the_normal_of_a_day_is_near_its_values(store: Store, now: datetime) -> None:
    anomaly = answered(store, now, "climate.json", "${variable:text}: standard deviations")
    assert all(row["years"] == check.YEARS for row in anomaly)
    series = answered(store, now, "climate.json", "${variable:text}, in ${unit}: against")
    assert all(row["p10"] <= row["normal"] <= row["p90"] for row in series)


def test_the_value_beside_its_normal_is_the_mean_of_the_readings(
    store: Store, now: datetime
) -> None:
    """Of all of a bucket, also where its times have different numbers of cells."""
    chosen = "${variable:text}, in ${unit}: "
    values = answered(store, now, "climate.json", f"{chosen}against")
    series = answered(store, now, "climate.json", f"{chosen}lowest, mean and highest")
    means = {row["time"]: row["avg"] for row in series}
    assert values
    assert [row["value"] for row in values] == pytest.approx([means[row["time"]] for row in values])
