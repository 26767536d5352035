"""The variables of the boards: what is chosen at their top, and what follows from it unseen.

The unseen ones (`unit`, `convert`, `field`, ...) are queries too, so that a change of the variable
or of a unit reaches every panel: Grafana asks those anew that name a variable that changed.
"""

# ruff: noqa: S608 - SQL is put together of our own names; what is chosen are variables in it

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef

from climatestream import variables
from climatestream.dashboards.board_panels import (
    CONVERSIONS,
    NATIVE,
    NEWEST,
    NOWHERE,
    WIND,
    conversion,
)

DATASOURCE: Final = DataSourceRef(type_val="grafana-postgresql-datasource", uid="cratedb")

KNOWN: Final = {variable.name: variable for variable in variables.VARIABLES}
_NO_VARIABLES: Final = "('latitude', 'longitude', 'original_timestamp')"

_TEXTS: Final = {"degC": "°C", "degF": "°F", "kn": "knots"}
UNITS: Final = {
    quantity: tuple((_TEXTS.get(unit, unit), unit) for unit in units)
    for quantity, units in CONVERSIONS.items()
}
"""The units to choose from, as (text, value)."""

STORED: Final = {"temperature": "degC", "pressure": "Pa", "wind": "m s-1"}
"""The unit of the store of what has a choice of units."""


def _query(
    name: str,
    label: str,
    sql: str,
    *,
    description: str | None = None,
    multi: bool = False,
    hidden: bool = False,
    on_time: bool = False,
) -> models.VariableModel:
    text = " ".join(sql.split())
    return models.VariableModel(
        type_val=models.VariableType.QUERY,
        name=name,
        label=label,
        description=description,
        hide=models.VariableHide.HIDE_VARIABLE if hidden else models.VariableHide.DONT_HIDE,
        skip_url_sync=hidden,
        query=text,
        definition=text,
        datasource=DATASOURCE,
        refresh=models.VariableRefresh.ON_TIME_RANGE_CHANGED
        if on_time
        else models.VariableRefresh.ON_DASHBOARD_LOAD,
        sort=models.VariableSort.DISABLED,
        multi=multi,
        include_all=multi,
        current=models.VariableOption(text=["All"], value=["$__all"]) if multi else None,
        regex="",
        auto=None,
        auto_min=None,
        auto_count=None,
    )


def _choice(
    name: str, label: str, options: tuple[tuple[str, str], ...], description: str
) -> models.VariableModel:
    text, value = options[0]
    return models.VariableModel(
        type_val=models.VariableType.CUSTOM,
        name=name,
        label=label,
        description=description,
        query=", ".join(f"{text} : {value}" for text, value in options),
        current=models.VariableOption(text=text, value=value, selected=True),
        options=[
            models.VariableOption(text=text, value=value, selected=not n)
            for n, (text, value) in enumerate(options)
        ],
        hide=models.VariableHide.DONT_HIDE,
        auto=None,
        auto_min=None,
        auto_count=None,
    )


def _text(name: str, label: str, description: str) -> models.VariableModel:
    return models.VariableModel(
        type_val=models.VariableType.TEXTBOX,
        name=name,
        label=label,
        description=description,
        query="",
        current=models.VariableOption(text="", value="", selected=True),
        options=[models.VariableOption(text="", value="", selected=True)],
        hide=models.VariableHide.DONT_HIDE,
        auto=None,
        auto_min=None,
        auto_count=None,
    )


def _names(of: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in of)


def _by_name(values: dict[str, str]) -> str:
    """Cases of the chosen variable, those with the same value together."""
    together: dict[str, list[str]] = {}
    for name, value in values.items():
        together.setdefault(value, []).append(name)
    return " ".join(
        f"WHEN ${{variable:sqlstring}} IN ({_names(names)}) THEN '{value}'"
        for value, names in together.items()
    )


def _shown_otherwise() -> tuple[dict[str, str], dict[str, str]]:
    """Of variables without a choice of units that are shown in another than the store's."""
    units, conversions = {}, {}
    for name, variable in KNOWN.items():
        if variable.store_unit in STORED.values():
            continue
        if variable.shown_unit not in ("", variable.store_unit):
            units[name] = variable.shown_unit
        if variable.shown_factor != 1.0:
            conversions[name] = conversion(variable.shown_factor, 0.0)
    return units, conversions


def _of_quantities(say: Callable[[str], str]) -> str:
    """Cases of the quantities that have a choice of units."""
    return " ".join(
        f"WHEN max(unit) = '{stored}' THEN {say(quantity)}" for quantity, stored in STORED.items()
    )


_UNITS, _CONVERSIONS = _shown_otherwise()
_DESCRIBED: Final = """FROM demo.datasets
    WHERE dataset = ${dataset:sqlstring} AND variable = ${variable:sqlstring}"""


def _conversion_of(quantity: str) -> str:
    cases = " ".join(
        f"WHEN '{unit}' THEN '{conversion(*linear)}'"
        for unit, linear in CONVERSIONS[quantity].items()
    )
    return f"CASE ${{{quantity}_unit:sqlstring}} {cases} END"


DATASET: Final = _query(
    "dataset",
    "Dataset",
    'SELECT dataset AS "__text", dataset AS "__value" FROM demo.climate_data '
    "GROUP BY dataset ORDER BY dataset",
    description="What the readings are values of.",
)
COUNTRY: Final = _query(
    "country",
    "Country",
    f"""SELECT coalesce(country, '{NOWHERE}') AS "__text",
      coalesce(country, '{NOWHERE}') AS "__value"
    FROM demo.climate_data WHERE dataset = ${{dataset:sqlstring}}
    GROUP BY coalesce(country, '{NOWHERE}') ORDER BY 1""",
    description="ISO 3166-1 alpha-3; none: at sea, or not looked up.",
    multi=True,
)
VARIABLE: Final = _query(
    "variable",
    "Variable",
    f"""SELECT "__text", "__value" FROM (
      SELECT coalesce(nullif(description, ''), variable) AS "__text", variable AS "__value"
      FROM demo.datasets
      WHERE dataset = ${{dataset:sqlstring}} AND variable NOT IN {_NO_VARIABLES}
      UNION ALL
      SELECT 'Wind speed, 10 m' AS "__text", 'wind_speed' AS "__value"
      FROM demo.datasets WHERE dataset = ${{dataset:sqlstring}} AND variable = 'u10'
    ) AS known
    ORDER BY CASE "__value" WHEN 'temperature' THEN 0 ELSE 1 END, "__text" """,
    description="What the panels of the chosen variable show.",
)
RESOLUTION: Final = _choice(
    "resolution",
    "Resolution",
    (("cells", NATIVE), ("0.25°", "0.25"), ("0.5°", "0.5"), ("1°", "1.0"), ("2°", "2.0")),
    "The side of a square of the maps; cells: as they are stored.",
)
TEMPERATURE_UNIT: Final = _choice(
    "temperature_unit", "Temperature in", UNITS["temperature"], "Unit of every temperature."
)
PRESSURE_UNIT: Final = _choice(
    "pressure_unit", "Pressure in", UNITS["pressure"], "Unit of every pressure."
)
WIND_UNIT: Final = _choice("wind_unit", "Wind in", UNITS["wind"], "Unit of every speed.")
AT: Final = _query(
    "at",
    "Time of the maps",
    f"""SELECT "__text", "__value" FROM (
      SELECT 'newest' AS "__text", '{NEWEST}' AS "__value"
      UNION ALL
      SELECT date_format('%Y-%m-%d %H:%i:%s', "timestamp") AS "__text",
        date_format('%Y-%m-%dT%H:%i:%s.000Z', "timestamp") AS "__value"
      FROM demo.climate_data
      WHERE dataset = ${{dataset:sqlstring}} AND $__timeFilter("timestamp")
      GROUP BY "timestamp"
    ) AS times ORDER BY "__value" DESC LIMIT 1000""",
    description="The newest 1,000 times of the span; newest follows what arrives.",
    on_time=True,
)
UNIT: Final = _query(
    "unit",
    "Unit of the variable",
    f"""SELECT CASE WHEN ${{variable:sqlstring}} = 'wind_speed' THEN ${{wind_unit:sqlstring}}
      {_of_quantities(lambda quantity: f"${{{quantity}_unit:sqlstring}}")} {_by_name(_UNITS)}
      ELSE coalesce(max(nullif(unit, '')), '1') END AS "__value" {_DESCRIBED}""",
    hidden=True,
)
CONVERT: Final = _query(
    "convert",
    "From the unit of the store",
    f"""SELECT CASE WHEN ${{variable:sqlstring}} = 'wind_speed' THEN {_conversion_of("wind")}
      {_of_quantities(_conversion_of)} {_by_name(_CONVERSIONS)}
      ELSE '{conversion(1.0, 0.0)}' END AS "__value" {_DESCRIBED}""",
    hidden=True,
)
_WIND_TEXT: Final = WIND.replace("'", "''")
FIELD: Final = _query(
    "field",
    "The variable in the store",
    f"""SELECT CASE ${{variable:sqlstring}} WHEN 'wind_speed' THEN '{_WIND_TEXT}'
      ELSE 'data[''' || replace(${{variable:sqlstring}}, '''', '''''') || ''']'
      END AS "__value" """,
    hidden=True,
)


def _plausible(name: str, label: str, of: str, otherwise: str) -> models.VariableModel:
    known = {variable: repr(getattr(about, of)) for variable, about in KNOWN.items()}
    known["wind_speed"] = repr(0.0 if of == "valid_min" else 113.2)
    return _query(
        name,
        label,
        f"""SELECT CASE {_by_name(known)} ELSE '{otherwise}' END AS "__value" """,
        hidden=True,
    )


LOW: Final = _plausible("low", "Lowest plausible", "valid_min", "-1e300")
HIGH: Final = _plausible("high", "Highest plausible", "valid_max", "1e300")

PLACE: Final = _query(
    "place",
    "City",
    """SELECT name || ', ' || country AS "__text",
      'POINT(' || longitude::TEXT || ' ' || latitude::TEXT || ')' AS "__value"
    FROM demo.places WHERE country IN (${country:sqlstring})
    ORDER BY population DESC, name LIMIT 1000""",
    description="The 1,000 largest cities of the chosen countries.",
)
RADIUS: Final = _choice(
    "radius",
    "Radius",
    tuple((f"{km} km", str(km)) for km in (50, 10, 25, 100, 200)),
    "Cells up to this far from the city.",
)
POLYGON: Final = _text(
    "polygon",
    "or polygon (WKT)",
    "POLYGON((11.4 48.0, 11.8 48.0, 11.8 48.3, 11.4 48.3, 11.4 48.0)): longitude before latitude. "
    "Where there is one, the city and the radius are not looked at.",
)
AREA: Final = _query(
    "area",
    "What lies in the place",
    """SELECT CASE WHEN trim(${polygon:sqlstring}) = ''
      THEN 'distance(geo_location, ''' || ${place:sqlstring} || ''') <= ' || ${radius:sqlstring}
        || ' * 1000.0'
      ELSE 'within(geo_location, ''' || replace(${polygon:sqlstring}, '''', '''''') || ''')'
      END AS "__value" """,
    hidden=True,
)

CHOSEN: Final = (DATASET, COUNTRY, VARIABLE, TEMPERATURE_UNIT, PRESSURE_UNIT, WIND_UNIT)
"""At the top of every board of readings."""
UNSEEN: Final = (UNIT, CONVERT, FIELD)

WORDS: Final = {
    "dataset": "${dataset:sqlstring}",
    "country": "${country:sqlstring}",
    "variable": "${variable:sqlstring}",
    "variable_name": "${variable:raw} ${unit:raw}",
    "value": "(${field:raw} ${convert:raw})",
    "field": "${field:raw}",
    "convert": "${convert:raw}",
    "low": "(${low:raw} ${convert:raw})",
    "high": "(${high:raw} ${convert:raw})",
    "at": "${at:sqlstring}",
    "from": "$__timeFrom()",
    "to": "$__timeTo()",
    "resolution": "${resolution:raw}",
    "area": "${area:raw}",
    "bucket": "'$__interval_ms milliseconds'::INTERVAL",
    "width": "($__interval_ms / 1000.0)",
    "temperature_unit": "${temperature_unit:sqlstring}",
    "pressure_unit": "${pressure_unit:sqlstring}",
    "wind_unit": "${wind_unit:sqlstring}",
    "temperature_name": "${temperature_unit:raw}",
    "pressure_name": "${pressure_unit:raw}",
    "wind_name": "${wind_unit:raw}",
    "time": """(SELECT max("timestamp") FROM demo.climate_data
  WHERE dataset = ${dataset:sqlstring} AND "timestamp" <= $__timeTo())""",
    "step": """(SELECT percentile(seconds, 0.5) FROM (
    SELECT extract(epoch FROM "time" - lag("time") OVER (ORDER BY "time")) AS seconds
    FROM (SELECT DISTINCT "timestamp" AS "time" FROM demo.climate_data
      WHERE dataset = ${dataset:sqlstring} AND "timestamp" BETWEEN $__timeFrom() AND $__timeTo()
    ) AS stored) AS steps)""",
}
"""How a word of a panel's query is written for Grafana."""
