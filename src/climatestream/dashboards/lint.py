"""What is wrong with a board, that Grafana would load without a word.

Grafana 12.3 takes any JSON with a title: a panel type, layer, unit, macro, variable or data source
that does not exist is seen first by whoever looks at the board. The names that it knows are
listed here, from its source and from the SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from grafana_foundation_sdk.models import common, geomap, units
from grafana_foundation_sdk.models import dashboard as models

from climatestream.dashboards.board_variables import DATASOURCE
from climatestream.dashboards.geomap import OUTLINES
from climatestream.dashboards.grafana_sql import BUILT_IN, FORMATS, MACROS, VARIABLE
from climatestream.dashboards.visuals import GRAFANA

Json: TypeAlias = Any

PANELS: Final = frozenset({"barchart", "geomap", "stat", "table", "timeseries"})
"""Types of panels that our boards use, all of Grafana's core; another one is a typing error, or
wants its options checked here too."""

UNITS: Final = frozenset(
    value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)
)
LAYERS: Final = frozenset({"markers", "geojson", "xyz"})
"""Layers that our maps use; Grafana has more, some of them behind a switch."""
SYMBOLS: Final = frozenset(
    {
        "img/icons/marker/circle.svg",
        "img/icons/marker/square.svg",
        "img/icons/unicons/arrow-up.svg",
    }
)
_BOARD: Final = frozenset(
    {
        "annotations", "description", "editable", "fiscalYearStartMonth", "graphTooltip", "links",
        "panels", "refresh", "schemaVersion", "tags", "templating", "time", "timepicker",
        "timezone", "title", "uid",
    }
)  # fmt: skip
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "geomap": frozenset({"view", "controls", "basemap", "layers", "tooltip"}),
    "timeseries": frozenset({"legend", "tooltip"}),
    "stat": frozenset(
        {
            "reduceOptions", "orientation", "textMode", "wideLayout", "colorMode", "graphMode",
            "justifyMode", "showPercentChange", "percentChangeColorMode",
        }
    ),
    "table": frozenset({"showHeader", "cellHeight", "sortBy"}),
    "barchart": frozenset(
        {
            "xField", "orientation", "barWidth", "groupWidth", "barRadius", "showValue",
            "stacking", "xTickLabelRotation", "xTickLabelSpacing", "fullHighlight", "legend",
            "tooltip",
        }
    ),
}  # fmt: skip
_PROPERTIES: Final = frozenset(
    {
        "displayName", "unit", "decimals", "min", "max", "color", "thresholds", "links", "noValue",
        "custom.hideFrom", "custom.lineWidth", "custom.lineStyle", "custom.fillBelowTo",
        "custom.fillOpacity", "custom.cellOptions",
    }
)  # fmt: skip
_CALCS: Final = frozenset({"mean", "max", "min", "last", "lastNotNull", "sum", "count"})
_DURATION: Final = re.compile(r"\d+[smhd]")
_IDENTIFIER: Final = re.compile(r"\w+")


def problems(board: Json, uids: frozenset[str] | None = None) -> list[str]:
    """What is wrong with a board, each as a sentence that begins with the place.

    Parameters
    ----------
    uids
        Of all boards, which links may name; None: only this one's.
    """
    return list(_Lint(board, uids or frozenset({board.get("uid")})).found())


class _Lint:
    def __init__(self, board: Json, uids: frozenset[str]) -> None:
        self._board = board
        self._uids = uids
        templating = board.get("templating")
        self._variables: list[Json] = templating.get("list", []) if _is(templating, dict) else []
        self._names = frozenset(
            variable["name"] for variable in self._variables if _is(variable.get("name"), str)
        )

    def found(self) -> Iterator[str]:
        yield from self._top()
        yield from self._variables_found()
        panels = self._board.get("panels")
        if not _is(panels, list) or not panels:
            yield f"panels: got {panels!r}, expected a list of panels"
            return
        yield from _doubled("panel id", [panel.get("id") for panel in panels])
        yield from _doubled("panel title", [panel.get("title") for panel in panels])
        yield from self._places(panels)
        for panel in panels:
            name = f"panel {panel.get('title') or panel.get('id')!r}"
            for sentence in self._panel(panel):
                yield f"{name}: {sentence}"

    # ------------------------------------------------------------------------------ the board

    def _top(self) -> Iterator[str]:
        board = self._board
        yield from (f"unknown key {key!r} of the board" for key in board.keys() - _BOARD)
        for key in ("uid", "title", "description"):
            if not _is(board.get(key), str) or not board[key]:
                yield f"{key}: got {board.get(key)!r}, expected text"
        if not _is(board.get("schemaVersion"), int):
            yield f"schemaVersion: got {board.get('schemaVersion')!r}, expected a number (v1 JSON)"
        if board.get("editable") is not False:
            yield "editable: a provisioned board can't be changed in Grafana, expected false"
        if not _DURATION.fullmatch(str(board.get("refresh"))):
            yield f"refresh: got {board.get('refresh')!r}, expected a time such as 30s: it is live"
        time = board.get("time")
        if not _is(time, dict) or not re.fullmatch(r"now-\d+[smhd]", str(time.get("from"))):
            yield f"time: got {time!r}, expected from now-6h to now"
        if not any(
            link.get("type") == "dashboards" and link.get("keepTime") and link.get("includeVars")
            for link in board.get("links") or []
        ):
            yield "links: no link to the other boards that keeps the time and the variables"

    def _variables_found(self) -> Iterator[str]:
        yield from _doubled("variable", [variable.get("name") for variable in self._variables])
        before: set[str] = set()
        for variable in self._variables:
            name = f"variable {variable.get('name')!r}"
            if not _IDENTIFIER.fullmatch(str(variable.get("name"))):
                yield f"{name}: expected a name of letters"
            kind = variable.get("type")
            if kind not in ("query", "custom", "textbox"):
                yield f"{name}: type {kind!r} is none of query, custom, textbox"
            if not variable.get("label"):
                yield f"{name}: no label"
            if kind == "custom" and not variable.get("options"):
                yield f"{name}: no options"
            if kind == "query":
                yield from (f"{name}: {s}" for s in _datasource(variable.get("datasource")))
                query = variable.get("query")
                if not _is(query, str) or not query:
                    yield f"{name}: query {query!r} is no text"
                else:
                    yield from (f"{name}: {s}" for s in _text(query, frozenset(before), sql=True))
                if variable.get("refresh") not in (1, 2):
                    yield f"{name}: refresh {variable.get('refresh')!r} is neither 1 nor 2"
            before.add(str(variable.get("name")))

    def _places(self, panels: Sequence[Json]) -> Iterator[str]:
        taken: dict[tuple[int, int], str] = {}
        for panel in panels:
            place = panel.get("gridPos")
            sides = [place.get(key) for key in "xywh"] if _is(place, dict) else []
            if len(sides) != 4 or not all(_is(side, int) for side in sides):
                yield f"panel {panel.get('title')!r}: gridPos {place!r} is not four whole numbers"
                continue
            x, y, width, height = sides
            if x < 0 or y < 0 or width < 1 or height < 1 or x + width > 24:
                yield f"panel {panel.get('title')!r}: gridPos {place} is outside the 24 columns"
                continue
            for cell in ((i, j) for i in range(x, x + width) for j in range(y, y + height)):
                if cell in taken:
                    yield f"panel {panel.get('title')!r}: lies over panel {taken[cell]!r}"
                    break
                taken[cell] = str(panel.get("title"))

    # ------------------------------------------------------------------------------ the panels

    def _panel(self, panel: Json) -> Iterator[str]:
        kind = panel.get("type")
        if not _is(panel.get("id"), int):
            yield f"id {panel.get('id')!r} is no whole number"
        if not panel.get("title"):
            yield "no title"
        yield from _text(str(panel.get("title")), self._names)
        if kind == "row":
            if panel.get("collapsed") is not False or panel.get("panels"):
                yield "a row is to be open, with its panels below it"
            return
        if kind not in PANELS:
            yield f"type {kind!r} is none of {', '.join(sorted(PANELS))}"
            return
        if not panel.get("description"):
            yield "no description"
        if panel.get("pluginVersion") != GRAFANA:
            yield f"pluginVersion {panel.get('pluginVersion')!r}, expected {GRAFANA}"
        yield from _datasource(panel.get("datasource"))
        yield from self._targets(panel)
        yield from self._fields(panel)
        options = panel.get("options")
        if not _is(options, dict):
            yield f"options {options!r} are none"
            return
        known = _OPTIONS[kind]
        if options.keys() != known:
            wrong = sorted(options.keys() ^ known)
            yield f"options {', '.join(wrong)}: missing, or none of a {kind}"
        yield from self._options(kind, options, panel)

    def _targets(self, panel: Json) -> Iterator[str]:
        targets = panel.get("targets")
        if not _is(targets, list) or not targets:
            yield "no query"
            return
        yield from _doubled("query", [target.get("refId") for target in targets])
        for target in targets:
            yield from _datasource(target.get("datasource"))
            if target.get("format") not in ("table", "time_series"):
                yield f"format {target.get('format')!r} is neither table nor time_series"
            if target.get("rawQuery") is not True or target.get("editorMode") != "code":
                yield "the query is not said to be code: rawQuery true, editorMode code"
            sql = target.get("rawSql")
            if not _is(sql, str) or not sql.strip():
                yield "the query is empty"
                continue
            yield from _text(sql, self._names, sql=True)
            says = re.findall(r"\$\{(?:convert|\w+_unit):", sql)
            told = re.search(r"\$\{(?:unit|\w+_unit)\b", str(panel.get("title")))
            if says and not told and not re.search(r"\bAS unit\b", sql):
                yield "the query converts units, and the title does not name the unit"

    def _fields(self, panel: Json) -> Iterator[str]:
        config = panel.get("fieldConfig") or {}
        defaults: Json = config.get("defaults")
        if not _is(defaults, dict):
            yield "no fieldConfig.defaults"
            return
        if not defaults.get("unit"):
            yield "no unit"
        if not defaults.get("noValue"):
            yield "no text for when there is no data"
        yield from _config(defaults, frozenset({*self._names}), self._uids)
        for override in config.get("overrides") or []:
            matcher = override.get("matcher") or {}
            if matcher.get("id") not in ("byName", "byRegexp"):
                yield f"override: matcher {matcher.get('id')!r} is neither byName nor byRegexp"
            if not matcher.get("options"):
                yield "override: for no field"
            given = {one.get("id"): one.get("value") for one in override.get("properties") or []}
            for unknown in given.keys() - _PROPERTIES:
                yield f"override of {matcher.get('options')}: no property {unknown!r}"
            for sentence in _config(given, self._names, self._uids):
                yield f"override of {matcher.get('options')}: {sentence}"

    def _options(self, kind: str, options: Json, panel: Json) -> Iterator[str]:
        if kind == "geomap":
            yield from _geomap(options, panel)
        if "legend" in options:
            yield from _one_of(
                "legend.displayMode", options["legend"].get("displayMode"), common.LegendDisplayMode
            )
            yield from _one_of(
                "legend.placement", options["legend"].get("placement"), common.LegendPlacement
            )
            for calc in options["legend"].get("calcs") or []:
                if calc not in _CALCS:
                    yield f"legend.calcs: no calculation {calc!r}"
        if kind in ("timeseries", "barchart"):
            yield from _one_of(
                "tooltip.mode", options["tooltip"].get("mode"), common.TooltipDisplayMode
            )
        if kind == "timeseries":
            custom = panel["fieldConfig"]["defaults"].get("custom") or {}
            yield from _one_of("drawStyle", custom.get("drawStyle"), common.GraphDrawStyle)
            yield from _one_of(
                "stacking.mode", (custom.get("stacking") or {}).get("mode"), common.StackingMode
            )
        if kind == "barchart":
            yield from _one_of("stacking", options.get("stacking"), common.StackingMode)
            yield from _one_of("showValue", options.get("showValue"), common.VisibilityMode)
        if kind == "stat":
            for calc in (options.get("reduceOptions") or {}).get("calcs") or ["none"]:
                if calc not in _CALCS:
                    yield f"reduceOptions.calcs: no calculation {calc!r}"
            yield from _one_of("colorMode", options.get("colorMode"), common.BigValueColorMode)
            yield from _one_of("graphMode", options.get("graphMode"), common.BigValueGraphMode)
            yield from _one_of("textMode", options.get("textMode"), common.BigValueTextMode)


# ----------------------------------------------------------------------------------- the parts


def _geomap(options: Json, panel: Json) -> Iterator[str]:
    basemap = options.get("basemap")
    if not _is(basemap, dict) or basemap.get("type") not in ("geojson", "xyz"):
        yield (
            f"basemap {basemap.get('type') if _is(basemap, dict) else basemap!r} is not an "
            "explicit geojson: without one Grafana asks the internet for tiles"
        )
        return
    layers = options.get("layers") or []
    refs = {target.get("refId") for target in panel.get("targets") or []}
    names = [layer.get("name") for layer in [basemap, *layers]]
    yield from _doubled("layer", names)
    for layer in [basemap, *layers]:
        for sentence in _layer(layer, refs):
            yield f"layer {layer.get('name')!r}: {sentence}"
    view = options.get("view") or {}
    if view.get("id") not in ("fit", "coords", "zero"):
        yield f"view.id {view.get('id')!r} is none of fit, coords, zero"
    if view.get("id") == "fit" and view.get("layer") not in names[1:]:
        yield f"view.layer {view.get('layer')!r} names no layer, so that nothing is fitted"
    if view.get("allLayers") is not False:
        yield "view.allLayers: with the basemap's, every view is the whole world"
    if not _is(view.get("zoom"), int | float) or view["zoom"] < 5:
        yield f"view.zoom {view.get('zoom')!r} keeps the view from coming nearer"
    yield from _one_of(
        "tooltip.mode", (options.get("tooltip") or {}).get("mode"), geomap.TooltipMode
    )


def _layer(layer: Json, refs: set[Any]) -> Iterator[str]:
    kind, config = layer.get("type"), layer.get("config") or {}
    if kind not in LAYERS:
        yield f"type {kind!r} is none of {', '.join(sorted(LAYERS))}"
    if kind == "geojson" and config.get("src") != OUTLINES:
        yield f"Grafana serves no {config.get('src')!r}, expected {OUTLINES}"
    if kind == "xyz" and not str(config.get("url")).startswith("http"):
        yield f"{config.get('url')!r} is no address of tiles"
    if kind != "markers":
        return
    location = layer.get("location") or {}
    if location.get("mode") != common.FrameGeometrySourceMode.COORDS:
        yield f"location.mode {location.get('mode')!r}, expected coords"
    chosen = layer.get("filterData") or {}
    if chosen.get("id") != "byRefId" or chosen.get("options") not in refs:
        yield f"filterData {chosen!r} names no query of the panel"
    style = config.get("style") or {}
    if (style.get("symbol") or {}).get("fixed") not in SYMBOLS:
        yield f"no symbol {(style.get('symbol') or {}).get('fixed')!r}"
    for part in ("size", "color", "rotation"):
        if not _is(style.get(part), dict):
            yield f"style.{part} is missing"


def _config(given: Json, names: frozenset[str], uids: frozenset[str]) -> Iterator[str]:
    """What a field's configuration, or what differs for one field, says."""
    unit = given.get("unit")
    if (
        unit is not None
        and unit not in UNITS
        and not re.match(r"(suffix|prefix|time): ?\S", str(unit))
    ):
        yield f"Grafana has no unit {unit!r}"
    chosen = given.get("color")
    if chosen is not None:
        yield from _one_of("color.mode", (chosen or {}).get("mode"), models.FieldColorModeId)
    limits = given.get("thresholds")
    if limits is not None:
        yield from _one_of("thresholds.mode", limits.get("mode"), models.ThresholdsMode)
        values = [step.get("value") for step in limits.get("steps") or []]
        if not values or values[0] is not None:
            yield "thresholds: the first step has a value, expected null"
        elif values[1:] != sorted(set(values[1:])):
            yield f"thresholds do not ascend: {values}"
    for link in given.get("links") or []:
        url = str(link.get("url"))
        yield from _text(url, names)
        if not any(url.startswith(f"/d/{uid}?") for uid in uids):
            yield f"a link leads to {url.partition('?')[0]}, which is none of the boards"
        if "${__url_time_range}" not in url:
            yield "a link does not keep the time range"


def _text(text: str, names: frozenset[str], *, sql: bool = False) -> Iterator[str]:
    """Variables and macros that a text names."""
    for match in VARIABLE.finditer(text):
        name, form = match[1] or match[3] or match[4], match[2] or match[5]
        if match[3] and name in MACROS and sql:
            if not text[match.end() :].startswith("("):
                yield f"the macro ${name} is not called: ${name}(...)"
        elif (
            name.startswith("__")
            and name not in BUILT_IN
            and not (not sql and name in ("__value", "__data", "__field"))
        ):
            yield f"Grafana has no macro ${name}"
        elif not name.startswith("__") and name not in names:
            yield f"{match[0]} names no variable of the board"
        elif form is not None and form.split(":")[0] not in {*FORMATS, "date"}:
            yield f"{match[0]}: no format {form!r}"
        elif sql and not name.startswith("__") and form not in ("raw", "sqlstring"):
            yield f"{match[0]}: a query needs the format sqlstring or raw"


def _datasource(given: Json) -> Iterator[str]:
    wanted = {"type": DATASOURCE.type_val, "uid": DATASOURCE.uid}
    if given != wanted:
        yield f"data source {given!r}, expected {wanted}"


def _one_of(what: str, value: Json, kinds: type[Any]) -> Iterator[str]:
    known = [str(kind.value) for kind in kinds]
    if value not in known:
        yield f"{what} {value!r} is none of {', '.join(known)}"


def _doubled(what: str, values: Sequence[Json]) -> Iterator[str]:
    seen: set[str] = set()
    for value in map(repr, values):
        if value in seen:
            yield f"{what} {value} is there twice"
        seen.add(value)


def _is(value: Json, kind: Any) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
