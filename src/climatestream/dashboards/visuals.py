"""How a panel is drawn: charts, numbers and tables as Grafana's JSON has them.

Each function gives a panel without its place; `boards` puts them side by side. Options that the
SDK has no type for, or that Grafana 12.3 has and the SDK lacks, are plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as models

from climatestream.dashboards.board_variables import DATASOURCE, WORDS
from climatestream.dashboards.panels import Panel

GRAFANA: Final = "12.3.3"
"""The version that the boards are written for. Of panels that name none, Grafana takes the oldest,
and rewrites their options."""
NO_DATA: Final = "Nothing stored for this choice: another time range, dataset or country?"


@dataclass
class Sql(Dataquery):
    """A query of Grafana's PostgreSQL data source, which the SDK has no type for."""

    sql: str
    ref: str = "A"
    form: str = "table"

    def to_json(self) -> dict[str, object]:
        """As a board holds it."""
        return {
            "refId": self.ref,
            "datasource": DATASOURCE,
            "rawQuery": True,
            "editorMode": "code",
            "format": self.form,
            "rawSql": self.sql.strip(),
        }


def grafana_sql(panel: Panel, **words: str) -> str:
    """A panel's query as Grafana takes it; `words` that only its board knows besides."""
    known = {**WORDS, **words}
    return panel.filled(lambda word: known[word])


def override(name: str, **properties: Any) -> models.DashboardFieldConfigSourceOverrides:
    """What differs for the field of a name; `__` in a property's id stands for a dot."""
    return models.DashboardFieldConfigSourceOverrides(
        matcher=models.MatcherConfig(id_val="byName", options=name),
        properties=[
            models.DynamicConfigValue(id_val=key.replace("__", "."), value=value)
            for key, value in properties.items()
        ],
    )


def color(mode: str, fixed: str | None = None) -> dict[str, str]:
    """A field's colour."""
    return {"mode": mode} | ({} if fixed is None else {"fixedColor": fixed})


def steps(*pairs: tuple[float | None, str]) -> dict[str, Any]:
    """Thresholds: from which value on which colour; the first has none."""
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": name} for value, name in pairs],
    }


def link(title: str, url: str) -> dict[str, Any]:
    """A link of a value."""
    return {"title": title, "url": url, "targetBlank": False}


@dataclass(frozen=True)
class About:
    """What every panel says of itself."""

    title: str
    unit: str
    description: str
    no_data: str = NO_DATA


def about(panel: Panel, title: str | None, unit: str, no_data: str = NO_DATA) -> About:
    """From the list of panels; the title by the board, where it names the unit."""
    return About(title or panel.title, unit, panel.description, no_data)


def drawn(
    kind: str,
    said: About,
    targets: Sequence[Sql],
    *,
    options: object,
    custom: Mapping[str, Any] | None = None,
    colors: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, Any] | None = None,
    decimals: float | None = None,
    low: float | None = None,
    high: float | None = None,
    overrides: Sequence[models.DashboardFieldConfigSourceOverrides] = (),
    links: Sequence[Mapping[str, Any]] = (),
    interval: str | None = None,
    transformations: Sequence[models.DataTransformerConfig] = (),
) -> models.Panel:
    """A panel of any kind."""
    defaults: dict[str, Any] = {
        "unit": said.unit,
        "noValue": said.no_data,
        "color": colors or color("palette-classic"),
        "custom": custom or {},
        "thresholds": thresholds or steps((None, "green")),
        "mappings": [],
        "links": list(links),
    }
    optional = {"decimals": decimals, "min": low, "max": high}
    defaults |= {name: value for name, value in optional.items() if value is not None}
    return models.Panel(
        type_val=kind,
        plugin_version=GRAFANA,
        title=said.title,
        description=said.description,
        datasource=DATASOURCE,
        targets=list(targets),
        options=options,
        field_config=models.FieldConfigSource(defaults=_Given(defaults), overrides=list(overrides)),
        interval=interval,
        transformations=list(transformations) or None,
    )


class _Given(models.FieldConfig):
    """A field's configuration as it is given: the SDK's knows neither kinds of links."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self._given = given

    def to_json(self) -> dict[str, object]:
        return self._given


_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_LINE: Final = {
    "drawStyle": "line",
    "lineInterpolation": "linear",
    "lineWidth": 2,
    "fillOpacity": 0,
    "showPoints": "auto",
    "pointSize": 4,
    "spanNulls": False,
    "stacking": {"mode": "none", "group": "A"},
    "axisPlacement": "auto",
    "axisLabel": "",
}


def series(
    panel: Panel,
    unit: str,
    *,
    title: str | None = None,
    no_data: str = NO_DATA,
    band: tuple[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    low: float | None = None,
    interval: str | None = None,
    calcs: Sequence[str] = (),
    names: Mapping[str, Mapping[str, Any]] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
) -> models.Panel:
    """Lines over time: a line for each number, or for each text in a column `metric`.

    Parameters
    ----------
    band
        The shown name of a line and the name of one above it: the space between is filled.
    calcs
        What the legend says of each line.
    names
        By line, what differs for it.
    """
    custom = dict(_LINE)
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
        custom["fillOpacity"] = 60
    if bars:
        custom |= {"drawStyle": "bars", "fillOpacity": 70, "lineWidth": 0}
    overrides = [override(name, **properties) for name, properties in (names or {}).items()]
    if band is not None:
        under, over = band
        overrides.append(override(over, custom__fillBelowTo=under, custom__fillOpacity=12))
    return drawn(
        "timeseries",
        about(panel, title, unit, no_data),
        [Sql(grafana_sql(panel), form="time_series")],
        options={
            "legend": _LEGEND | {"calcs": list(calcs), "displayMode": "table" if calcs else "list"},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        custom=custom,
        low=low,
        overrides=overrides,
        links=links,
        interval=interval,
    )


RANGE: Final[Mapping[str, Mapping[str, Any]]] = {
    "min": {"color": color("fixed", "#4e9fd7"), "custom__lineWidth": 1},
    "avg": {"color": color("fixed", "#fbbc62")},
    "max": {"color": color("fixed", "#e0553c"), "custom__lineWidth": 1},
}
"""Lowest, mean and highest."""


def stat(
    panel: Panel,
    unit: str,
    *,
    title: str | None = None,
    no_data: str = NO_DATA,
    units: Mapping[str, str] | None = None,
    decimals: float | None = None,
    thresholds: Mapping[str, Any] | None = None,
) -> models.Panel:
    """A number for each column of the one row; `units` where a column has another."""
    return drawn(
        "stat",
        about(panel, title, unit, no_data),
        [Sql(grafana_sql(panel))],
        options={
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": "/.*/"},
            "orientation": "auto",
            "textMode": "value_and_name",
            "wideLayout": True,
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
        colors=color("thresholds") if thresholds else color("fixed", "text"),
        thresholds=thresholds,
        decimals=decimals,
        overrides=[override(name, unit=of) for name, of in (units or {}).items()],
    )


def table(
    panel: Panel,
    unit: str,
    *,
    title: str | None = None,
    no_data: str = NO_DATA,
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    thresholds: Mapping[str, Any] | None = None,
    colored: bool = False,
    decimals: float | None = None,
    header: bool = True,
) -> models.Panel:
    """Rows as they are; `columns` says what differs for one."""
    cell: dict[str, Any] = {"type": "auto"}
    if colored:
        cell = {"type": "color-background", "mode": "basic"}
    return drawn(
        "table",
        about(panel, title, unit, no_data),
        [Sql(grafana_sql(panel))],
        options={"showHeader": header, "cellHeight": "sm", "sortBy": []},
        custom={"align": "auto", "cellOptions": cell, "inspect": False},
        colors=color("thresholds"),
        thresholds=thresholds,
        decimals=decimals,
        overrides=[override(name, **of) for name, of in (columns or {}).items()],
    )


def bars(
    panel: Panel,
    unit: str,
    across: str,
    *,
    title: str | None = None,
    stacked: bool = False,
    names: Mapping[str, Mapping[str, Any]] | None = None,
    decimals: float | None = None,
) -> models.Panel:
    """A bar for each row, named by the column `across`."""
    return drawn(
        "barchart",
        about(panel, title, unit),
        [Sql(grafana_sql(panel))],
        options={
            "xField": across,
            "orientation": "vertical",
            "barWidth": 0.97,
            "groupWidth": 0.7,
            "barRadius": 0,
            "showValue": "never",
            "stacking": "normal" if stacked else "none",
            "xTickLabelRotation": 0,
            "xTickLabelSpacing": 60,
            "fullHighlight": False,
            "legend": _LEGEND | {"showLegend": stacked},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        custom={"fillOpacity": 85, "lineWidth": 0, "gradientMode": "none", "axisPlacement": "auto"},
        colors=color("palette-classic") if stacked else color("fixed", "#4e9fd7"),
        decimals=decimals,
        overrides=[override(name, **of) for name, of in (names or {}).items()],
    )
