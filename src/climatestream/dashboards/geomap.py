"""Maps: cells as squares on Grafana's Geomap, with the registry's colours, and wind arrows.

Geomap draws no shapes from a query, so a cell is a square marker, whose size in pixels the query
computes from the view (`board_panels`). A unit that is chosen has a column of its own name
(`temperature_K`), with its own unit, thresholds and the shown name by which the layer finds it:
so that colours and legend follow the choice.

What was read in Grafana 12.3's source is in docs/decisions/grafana-boards.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from grafana_foundation_sdk.models import common, geomap
from grafana_foundation_sdk.models import dashboard as models

from climatestream.colors import COLORS, Scale
from climatestream.dashboards.board_panels import CONVERSIONS
from climatestream.dashboards.board_variables import KNOWN, STORED
from climatestream.dashboards.panels import COMPUTED, Panel
from climatestream.dashboards.visuals import Sql, about, color, drawn, grafana_sql, override, steps

PANEL_HEIGHT: Final = 15
"""Of a map, in rows of the board's grid."""
ACROSS: Final = 620.0
"""Pixels that a third of a board gives a map on a screen 1,920 wide; on a narrower one a country
that is wider than high has squares that overlap more, and no gaps."""
DOWN: Final = PANEL_HEIGHT * 38.0 - 8.0 - 34.0
"""Pixels that a map is high: 30 a row and 8 between rows, less the title's line."""
DEEPEST: Final = 12
"""Zoom that a view of few cells does not exceed."""

OUTLINES: Final = "public/maps/countries.geojson"
"""The outlines of countries that Grafana brings along and serves."""

GRAFANA_UNITS: Final = {
    "degC": "celsius",
    "K": "kelvin",
    "degF": "fahrenheit",
    "hPa": "pressurehpa",
    "Pa": "pressurepa",
    "m/s": "velocityms",
    "km/h": "velocitykmh",
    "kn": "velocityknot",
    "mm": "lengthmm",
    "m": "lengthm",
    "%": "percent",
    "": "none",
}
"""By the unit as people read it, Grafana's id of it; others are written behind the number."""

CELLS: Final = "Cells"
_TEXT: Final = {
    "fontSize": 12,
    "offsetX": 0,
    "offsetY": 0,
    "textAlign": "center",
    "textBaseline": "middle",
}


def grafana_unit(unit: str) -> str:
    """Grafana's id of a unit."""
    return GRAFANA_UNITS.get(unit, f"suffix: {unit}")


def thresholds(scale: Scale, factor: float = 1.0, offset: float = 0.0) -> dict[str, Any]:
    """A scale as steps: two for each pair of its knots, each with the colour of its middle."""
    knots = scale.knots
    values = [knots[0]]
    for low, high in pairwise(knots):
        values += [(low + high) / 2.0, high]
    last = len(values) - 1
    pairs = [
        (
            None if n == 0 else float(f"{value * factor + offset:.6g}"),
            _blend(COLORS[scale.colors], min(1.0, (n + 0.5) / last)),
        )
        for n, value in enumerate(values)
    ]
    return steps(*pairs)


def _blend(stops: Sequence[str], position: float) -> str:
    """The colour at a position of 0 to 1 between the first and the last of equally far stops."""
    place = position * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    share = place - first
    low, high = (bytes.fromhex(stops[n][1:]) for n in (first, first + 1))
    mixed = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _style(
    symbol: str, *, size: str, paint: str | None, fixed: str, turn: str = ""
) -> dict[str, Any]:
    return {
        "symbol": {"mode": "fixed", "fixed": symbol},
        "symbolAlign": {"horizontal": "center", "vertical": "center"},
        "size": {"field": size, "fixed": 5, "min": 0, "max": 100},
        "color": {"fixed": fixed} | ({} if paint is None else {"field": paint}),
        "opacity": 1,
        "rotation": {"fixed": 0, "min": -360, "max": 360, "mode": "mod"}
        | ({"field": turn} if turn else {}),
        "textConfig": _TEXT,
    }


def _markers(name: str, ref: str, style: dict[str, Any], *, legend: bool, tooltip: bool) -> Any:
    return common.MapLayerOptions(
        type_val="markers",
        name=name,
        config={"style": style, "showLegend": legend},
        location=common.FrameGeometrySource(
            mode=common.FrameGeometrySourceMode.COORDS, latitude="latitude", longitude="longitude"
        ),
        filter_data={"id": "byRefId", "options": ref},
        tooltip=tooltip,
    )


def _outlines(name: str, *, fill: float, line: str, width: float) -> common.MapLayerOptions:
    style = {
        "color": {"fixed": line},
        "opacity": fill,
        "lineWidth": width,
        "rotation": {"fixed": 0, "min": -360, "max": 360, "mode": "mod"},
        "size": {"fixed": 5, "min": 2, "max": 15},
        "symbol": {"mode": "fixed", "fixed": "img/icons/marker/circle.svg"},
        "symbolAlign": {"horizontal": "center", "vertical": "center"},
        "textConfig": _TEXT,
    }
    return common.MapLayerOptions(
        type_val="geojson",
        name=name,
        config={"src": OUTLINES, "rules": [], "style": style},
        tooltip=False,
    )


def _basemap(tiles: str | None) -> common.MapLayerOptions:
    if tiles is None:
        return _outlines("Countries", fill=0.15, line="#8893a5", width=1)
    return common.MapLayerOptions(
        type_val="xyz", name="Tiles", config={"url": tiles, "attribution": ""}, tooltip=False
    )


def world_map(
    panel: Panel,
    shown: str,
    fields: Sequence[models.DashboardFieldConfigSourceOverrides],
    *,
    title: str,
    unit: str,
    tiles: str | None,
    no_data: str,
    arrows: Panel | None = None,
) -> models.Panel:
    """Cells as squares, coloured by the field that is shown under the name `shown`."""
    words = {"across": f"{ACROSS}", "down": f"{DOWN}"}
    hidden = {"tooltip": True, "viz": False, "legend": False}
    queries = [Sql(grafana_sql(panel, **words))]
    layers = [
        _markers(
            CELLS,
            "A",
            _style("img/icons/marker/square.svg", size="size", paint=shown, fixed="#808080"),
            legend=True,
            tooltip=True,
        ),
        _outlines("Borders", fill=0, line="#1b1f27", width=1),
    ]
    if arrows is not None:
        queries.append(Sql(grafana_sql(arrows, **words), ref="B"))
        layers.append(
            _markers(
                "Wind",
                "B",
                _style(
                    "img/icons/unicons/arrow-up.svg",
                    size="length",
                    paint=None,
                    fixed="#ffffff",
                    turn="blows to",
                ),
                legend=False,
                tooltip=True,
            )
        )
    return drawn(
        "geomap",
        about(panel, title, unit, no_data),
        queries,
        options=geomap.Options(
            view=geomap.MapViewConfig(
                id_val="fit",
                all_layers=False,
                layer=CELLS,
                last_only=False,
                padding=5,
                lat=0,
                lon=0,
                zoom=DEEPEST,
            ),
            controls=geomap.ControlsOptions(
                show_zoom=True,
                mouse_wheel_zoom=True,
                show_attribution=True,
                show_scale=False,
                show_debug=False,
                show_measure=False,
            ),
            basemap=_basemap(tiles),
            layers=layers,
            tooltip=geomap.TooltipOptions(mode=geomap.TooltipMode.DETAILS),
        ),
        custom={"hideFrom": {"tooltip": False, "viz": False, "legend": False}},
        colors=color("thresholds"),
        overrides=[
            *fields,
            *(
                override(name, min=0, max=100, custom__hideFrom=hidden)
                for name in ("size", "length")
            ),
            override("latitude", unit="degree", decimals=2),
            override("longitude", unit="degree", decimals=2),
            override("blows to", unit="degree", decimals=0),
            override("cells", unit="none", decimals=0),
            override("years", unit="none", decimals=0),
        ],
    )


def of_quantity(quantity: str, shown: str) -> list[models.DashboardFieldConfigSourceOverrides]:
    """The field of a quantity in each of its units."""
    variable = COMPUTED["wind_speed"].variable if quantity == "wind" else KNOWN[quantity]
    return [
        override(
            f"{quantity}_{unit}",
            displayName=shown,
            unit=grafana_unit(unit),
            decimals=1,
            color=color("thresholds"),
            thresholds=thresholds(variable.scale, *linear),
        )
        for unit, linear in CONVERSIONS[quantity].items()
    ]


def of_any_variable(shown: str) -> list[models.DashboardFieldConfigSourceOverrides]:
    """The field of the chosen variable, whichever it is and in whichever unit.

    One that the registry does not know has the colours from the lowest to the highest value.
    """
    found = [
        models.DashboardFieldConfigSourceOverrides(
            matcher=models.MatcherConfig(id_val="byRegexp", options="/^value: .*/"),
            properties=[
                models.DynamicConfigValue(id_val="displayName", value=shown),
                models.DynamicConfigValue(id_val="color", value=color("continuous-BlYlRd")),
            ],
        )
    ]
    quantities = {stored: quantity for quantity, stored in STORED.items()}
    variables = {**KNOWN, **{name: one.variable for name, one in COMPUTED.items()}}
    for name, variable in sorted(variables.items()):
        quantity = quantities.get(variable.store_unit)
        units = (
            CONVERSIONS[quantity]
            if quantity
            else {variable.shown_unit or "1": (variable.shown_factor, 0.0)}
        )
        found += [
            override(
                f"value: {name} {unit}",
                unit=grafana_unit(variable.shown_unit if quantity is None else unit),
                color=color("thresholds"),
                thresholds=thresholds(variable.scale, *linear),
            )
            for unit, linear in units.items()
        ]
    return found
