"""The panels that only the boards show: maps, places, normals, calendars.

Their queries are written as those of `panels`, with more words:

    $country                    texts: the chosen countries, `NOWHERE` for readings without one
    $at                         an instant as text: the newest time up to it is the time shown
    $variable, $field           the chosen variable's name; its expression in the unit of the store
    $area                       a condition: what lies in the chosen place
    $resolution                 the side of a box of a map [degree]; `NATIVE`: that of the cells
    $across, $down              the pixels that a map fills
    $temperature_unit, ...      the unit chosen for a quantity; ..._name: the same within a name

Sources of the formulas: Web Mercator (EPSG:3857), in which Geomap draws; a square's side from its
size is OpenLayers' regular shape: a circle's radius around the corners, with a line of 1 pixel.
"""

# ruff: noqa: S608 - SQL is put together of our own pieces; what is chosen are words in it

from __future__ import annotations

from typing import Final

from climatestream.dashboards.panels import VARIABLE_UNIT, Board, Panel

NOWHERE: Final = "none"
"""Stands for the country of readings that have none."""
SIGMA: Final = "\u03c3"
"""Standard deviations, as a unit."""
NATIVE: Final = "0.0001"
"""The grid that cell ids are rounded to [degree]: each cell is a box of its own."""
NEWEST: Final = "2200-01-01T00:00:00.000Z"
"""The end of the times that are taken: the time shown is then the newest."""

WIND: Final = "sqrt(data['u10'] * data['u10'] + data['v10'] * data['v10'])"
QUANTITIES: Final = {
    "temperature": "data['temperature']",
    "pressure": "data['pressure']",
    "wind": WIND,
}
"""The quantities that have a map each, in the unit of the store."""


CONVERSIONS: Final = {
    "temperature": {"degC": (1.0, 0.0), "K": (1.0, 273.15), "degF": (1.8, 32.0)},
    "pressure": {"hPa": (0.01, 0.0), "Pa": (1.0, 0.0)},
    "wind": {"m/s": (1.0, 0.0), "km/h": (3.6, 0.0), "kn": (3600.0 / 1852.0, 0.0)},
}
"""By quantity and unit to choose, factor and offset from the unit of the store; the first unit is
the default."""


def conversion(factor: float, offset: float) -> str:
    """What makes a value of another unit, written behind one in the unit of the store."""
    return f"* {factor!r} + {offset!r}"


def in_unit(quantity: str, sql: str) -> str:
    """A value of a quantity, in the chosen unit."""
    cases = " ".join(
        f"WHEN '{unit}' THEN {sql} {conversion(*linear)}"
        for unit, linear in CONVERSIONS[quantity].items()
    )
    return f"CASE ${quantity}_unit {cases} END"


_CHOSEN: Final = (
    "dataset = $dataset AND "
    f"(country IN ($country) OR (country IS NULL AND '{NOWHERE}' IN ($country)))"
)
"""What can be looked up in CrateDB's index, other than `coalesce(country, ...) IN ...`."""
_SPAN: Final = '"timestamp" BETWEEN $from AND $to'
_SHOWN: Final = """(
    SELECT max("timestamp") FROM demo.climate_data
    WHERE dataset = $dataset AND "timestamp" <= $at AND "timestamp" <= $to)"""
"""The time shown: the newest up to the chosen one, whether in the span or before it."""

# ------------------------------------------------------------------------------------ maps

_ROW: Final = "floor(data['latitude'] / $resolution + 0.500001)"
_COLUMN: Final = "floor(data['longitude'] / $resolution + 0.500001)"
"""The number of the box that a cell is in, as the nearest multiple of the resolution; the
millionth keeps cells on a line between two boxes together."""


def _view(*columns: str) -> str:
    """Boxes with the view that `Fit to data` takes: all of them, and 5 % more.

    The distance of two rows of boxes is the least that occurs. Window functions see the boxes in
    one pass, where joins would ask for the readings anew.
    """
    carried = ", ".join(("x", "y", *columns))
    return f"""lines AS (
  SELECT {carried}, y - lag(y) OVER (ORDER BY y) AS step
  FROM boxes WHERE value IS NOT NULL
), extents AS (
  SELECT {carried}, coalesce(min(CASE WHEN step > 0.0 THEN step END) OVER () * $resolution, 0.1)
      AS step, min(x) OVER () * $resolution AS west, max(x) OVER () * $resolution AS east,
    min(y) OVER () * $resolution AS south, max(y) OVER () * $resolution AS north
  FROM lines
), view AS (
  SELECT {carried}, step, 1.05 * greatest(
    (east - west) / $across,
    (degrees(ln(tan(radians(45.0 + north / 2.0))))
      - degrees(ln(tan(radians(45.0 + south / 2.0))))) / $down,
    step / 200.0) AS degrees_a_pixel
  FROM extents
)"""


_SIZE: Final = """greatest(1.5,
    (step / cos(radians(y * $resolution)) / degrees_a_pixel + 1.0) / sqrt(2.0) - 0.5) AS size"""
"""Of a square as high as its box, which is higher than wide the further it is from the equator;
one pixel more covers the soft edges. Squares overlap from east to west, none leaves a gap."""


_SIDE: Final = "greatest($resolution, 0.1)"
"""Of the box that a city is looked for in [degree]: a cell of ERA5-Land at the least."""


_OF_COUNTRIES: Final = "WHERE country IN ($country)"


def _cities(where: str = _OF_COUNTRIES) -> str:
    """The largest city of each box that has one.

    Not the nearest of every box: for that each would be held against all cities around it, where
    here equal boxes are looked up.
    """
    return f"""cities AS (
  SELECT floor(latitude / {_SIDE} + 0.500001) AS "row", floor(longitude / {_SIDE} + 0.500001)
      AS "column", max_by(name, population) AS city
  FROM demo.places {where}
  GROUP BY 1, 2
)"""


_WITH_CITY: Final = f"""view LEFT JOIN cities
  ON "row" = floor(y * $resolution / {_SIDE} + 0.500001)
  AND "column" = floor(x * $resolution / {_SIDE} + 0.500001)"""


def _map(
    name: str, board: Board, title: str, unit: str, description: str, value: str, column: str,
    where: str = _CHOSEN, cities: str = _OF_COUNTRIES,
) -> Panel:  # fmt: skip
    return Panel(
        name,
        board,
        title,
        unit,
        description,
        f"""
WITH boxes AS (
  SELECT {_ROW} AS y, {_COLUMN} AS x, max("timestamp") AS "time", max(country) AS place,
    count(*) AS cells, avg({value}) AS value
  FROM demo.climate_data
  WHERE {where} AND "timestamp" = {_SHOWN}
  GROUP BY 1, 2
), {_view('"time"', "place", "cells", "value")}, {_cities(cities)}
SELECT "time", place, city, {column}, cells,
  y * $resolution AS latitude, x * $resolution AS longitude, {_SIZE}
FROM {_WITH_CITY}
ORDER BY x, y
""",
    )


TEMPERATURE_MAP: Final = _map(
    "temperature_map",
    "Climate",
    "Temperature 2 m above ground",
    "temperature",
    "The mean of the cells in each square at the time shown, with the colours of the page.",
    QUANTITIES["temperature"],
    f'{in_unit("temperature", "value")} AS "temperature_$temperature_name"',
)
PRESSURE_MAP: Final = _map(
    "pressure_map",
    "Climate",
    "Pressure at the ground",
    "pressure",
    "The mean of the cells in each square at the time shown; lower where the land is higher.",
    QUANTITIES["pressure"],
    f'{in_unit("pressure", "value")} AS "pressure_$pressure_name"',
)
WIND_MAP: Final = _map(
    "wind_map",
    "Climate",
    "Wind 10 m above ground",
    "wind",
    "The mean speed of the cells in each square at the time shown. Arrows point to where the wind "
    "blows; the longer, the faster.",
    QUANTITIES["wind"],
    f'{in_unit("wind", "value")} AS "wind_$wind_name"',
)
ARROWS: Final = Panel(
    "arrows",
    "Climate",
    "Wind arrows",
    "wind",
    "The mean wind of some cells, 16 arrows from one side to the other.",
    f"""
WITH cells AS (
  SELECT "timestamp" AS "time", country, data['latitude'] AS latitude,
    data['longitude'] AS longitude, data['u10'] AS u10, data['v10'] AS v10
  FROM demo.climate_data
  WHERE {_CHOSEN} AND "timestamp" = {_SHOWN}
    AND data['u10'] IS NOT NULL AND data['v10'] IS NOT NULL
), spacing AS (
  SELECT greatest(0.1, ceil(greatest(max(longitude) - min(longitude),
    1.6 * (max(latitude) - min(latitude))) / 1.6) / 10.0) AS degree
  FROM cells
), means AS (
  SELECT max("time") AS "time", max(country) AS place, avg(latitude) AS latitude,
    avg(longitude) AS longitude, avg(u10) AS u10, avg(v10) AS v10
  FROM cells CROSS JOIN spacing
  GROUP BY floor(latitude / degree + 0.000001), floor(longitude / degree + 0.000001)
)
SELECT "time", place, latitude, longitude, degrees(atan2(u10, v10)) AS "blows to",
  {in_unit("wind", "sqrt(u10 * u10 + v10 * v10)")} AS "wind_$wind_name",
  5.0 + least(9.0, sqrt(u10 * u10 + v10 * v10)) AS "length"
FROM means
ORDER BY latitude, longitude
""",
)
VARIABLE_MAP: Final = _map(
    "variable_map",
    "Climate",
    "The chosen variable",
    VARIABLE_UNIT,
    "The mean of the cells in each square at the time shown, with the colours of the page.",
    "$value",
    'value AS "value: $variable_name"',
)
SURROUNDINGS: Final = _map(
    "surroundings",
    "Place",
    "The place and its surroundings",
    VARIABLE_UNIT,
    "The mean of the cells in each square at the time shown, within the radius or the polygon.",
    "$value",
    'value AS "value: $variable_name"',
    "dataset = $dataset AND $area",
    cities="",
)

_NORMAL: Final = f"""(
  SELECT cell, mean, deviation, years
  FROM demo.climate_normals
  WHERE dataset = $dataset AND variable = $variable AND day_of_year = extract(doy FROM {_SHOWN})
) AS n ON n.cell = r.cell"""
"""Of the one day that is shown, before they are joined: there are those of a year."""

ANOMALY_MAP: Final = Panel(
    "anomaly_map",
    "Climate",
    "Anomaly of the chosen variable",
    SIGMA,
    "How far the value is from the cell's normal for the day of the year, in standard deviations "
    "of the years that the normal is made of.",
    f"""
WITH readings AS (
  SELECT cell, country, "timestamp", data['latitude'] AS latitude,
    data['longitude'] AS longitude, $field AS stored, $value AS value
  FROM demo.climate_data
  WHERE {_CHOSEN} AND "timestamp" = {_SHOWN}
), boxes AS (
  SELECT floor(r.latitude / $resolution + 0.500001) AS y,
    floor(r.longitude / $resolution + 0.500001) AS x, max(r."timestamp") AS "time",
    max(r.country) AS place, count(*) AS cells, avg(r.value) AS value,
    avg(r.stored - n.mean) AS difference, avg(n.deviation) AS deviation, max(n.years) AS years
  FROM readings AS r JOIN {_NORMAL}
  GROUP BY 1, 2
), {_view('"time"', "place", "cells", "value", "difference", "deviation", "years")}, {_cities()}
SELECT "time", place, city, difference / deviation AS anomaly,
  value AS "value: $variable_name", years, cells,
  y * $resolution AS latitude, x * $resolution AS longitude, {_SIZE}
FROM {_WITH_CITY}
WHERE difference IS NOT NULL AND deviation > 0.0
ORDER BY x, y
""",
)

# ------------------------------------------------------------------------------ the time shown

TIME_SHOWN: Final = Panel(
    "time_shown",
    "Climate",
    "Time of the maps",
    "",
    "The newest stored time up to the chosen one. The times beside it are links: they step through "
    "the stored times of the span, however far apart they are.",
    f"""
WITH shown AS (
  SELECT {_SHOWN} AS "time"
)
SELECT
  (SELECT date_format('%Y-%m-%dT%H:%i:%s.000Z', max("timestamp")) FROM demo.climate_data
    WHERE dataset = $dataset AND "timestamp" >= $from
      AND "timestamp" < (SELECT "time" FROM shown)) AS "earlier",
  (SELECT "time" FROM shown) AS "shown",
  (SELECT date_format('%Y-%m-%dT%H:%i:%s.000Z', min("timestamp")) FROM demo.climate_data
    WHERE dataset = $dataset AND "timestamp" <= $to
      AND "timestamp" > (SELECT "time" FROM shown)) AS "later",
  'newest' AS "newest"
""",
)
NOW: Final = Panel(
    "now",
    "Climate",
    "Lowest, mean and highest at the time shown",
    "",
    "Of all cells of the chosen countries.",
    f"""
SELECT {in_unit("temperature", f"min({QUANTITIES['temperature']})")} AS "lowest temperature",
  {in_unit("temperature", f"avg({QUANTITIES['temperature']})")} AS "mean temperature",
  {in_unit("temperature", f"max({QUANTITIES['temperature']})")} AS "highest temperature",
  {in_unit("wind", f"max({WIND})")} AS "fastest wind",
  count(*) AS "cells"
FROM demo.climate_data
WHERE {_CHOSEN} AND "timestamp" = {_SHOWN}
""",
)

# ------------------------------------------------------------------------------------- series


def _series(
    name: str, board: Board, title: str, unit: str, description: str, values: tuple[str, str, str],
    where: str,
) -> Panel:  # fmt: skip
    low, mean, high = values
    return Panel(
        name,
        board,
        title,
        unit,
        description,
        f"""
SELECT date_bin($bucket, "timestamp", 0) AS "time",
  {low} AS "min", {mean} AS "avg", {high} AS "max"
FROM demo.climate_data
WHERE {where} AND {_SPAN}
GROUP BY 1 ORDER BY 1
""",
    )


def _of_quantity(board: Board, quantity: str, title: str, where: str) -> Panel:
    sql = QUANTITIES[quantity]
    low, mean, high = (in_unit(quantity, f"{of}({sql})") for of in ("min", "avg", "max"))
    return _series(
        f"{board.lower()}_{quantity}",
        board,
        title,
        quantity,
        "Lowest, mean and highest of all cells at each time. A click on a point shows its time "
        "on the maps.",
        (low, mean, high),
        where,
    )


def _of_variable(board: Board, where: str) -> Panel:
    return _series(
        f"{board.lower()}_variable",
        board,
        "The chosen variable",
        VARIABLE_UNIT,
        "Lowest, mean and highest of all cells at each time.",
        ("min($value)", "avg($value)", "max($value)"),
        where,
    )


_HERE: Final = "dataset = $dataset AND $area"

CLIMATE_SERIES: Final = (
    _of_quantity("Climate", "temperature", "Temperature over time", _CHOSEN),
    _of_quantity("Climate", "pressure", "Pressure over time", _CHOSEN),
    _of_quantity("Climate", "wind", "Wind speed over time", _CHOSEN),
)
CLIMATE_VARIABLE: Final = _of_variable("Climate", _CHOSEN)
PLACE_SERIES: Final = (
    _of_quantity("Place", "temperature", "Temperature over time", _HERE),
    _of_quantity("Place", "pressure", "Pressure over time", _HERE),
    _of_quantity("Place", "wind", "Wind speed over time", _HERE),
)
PLACE_VARIABLE: Final = _of_variable("Place", _HERE)


def _anomaly(board: Board, where: str) -> Panel:
    """Grouped by time first: bucket and day are then computed for the times, not the readings."""
    return Panel(
        f"{board.lower()}_anomaly",
        board,
        "The chosen variable and its normal",
        VARIABLE_UNIT,
        "The mean of the cells, and the mean, 10th and 90th percentile of their normals for the "
        "day of the year.",
        f"""
WITH stored AS (
  SELECT "timestamp", sum($value) AS total, count($value) AS readings
  FROM demo.climate_data
  WHERE {where} AND {_SPAN}
  GROUP BY 1
), times AS (
  SELECT date_bin($bucket, "timestamp", 0) AS "time", extract(doy FROM "timestamp") AS day,
    sum(total) / sum(readings) AS value
  FROM stored
  GROUP BY 1, 2
), normals AS (
  SELECT day_of_year AS day, avg(mean $convert) AS normal,
    avg(p10 $convert) AS p10, avg(p90 $convert) AS p90
  FROM demo.climate_normals
  WHERE dataset = $dataset AND variable = $variable
    AND day_of_year IN (
      SELECT extract(doy FROM day)
      FROM generate_series($from::TIMESTAMP, $to::TIMESTAMP + '1 day'::INTERVAL,
        '1 day'::INTERVAL) AS days(day))
    AND cell IN (SELECT cell FROM demo.climate_data WHERE {where} AND "timestamp" = {_SHOWN})
  GROUP BY 1
)
SELECT t."time", avg(t.value) AS "value", avg(n.normal) AS "normal",
  avg(n.p10) AS "p10", avg(n.p90) AS "p90"
FROM times AS t JOIN normals AS n ON n.day = t.day
GROUP BY 1 ORDER BY 1
""",
    )


CLIMATE_ANOMALY: Final = _anomaly("Climate", _CHOSEN)
PLACE_ANOMALY: Final = _anomaly("Place", _HERE)

# -------------------------------------------------------------------------------------- place

BARS: Final = 24
"""Bars of a distribution."""

DISTRIBUTION: Final = Panel(
    "distribution",
    "Place",
    "Distribution of the chosen variable",
    "readings",
    f"How many readings of the place and the span have which value: {BARS} bars from the lowest to "
    "the highest, each named by where it begins.",
    f"""
WITH here AS (
  SELECT $value AS value FROM demo.climate_data
  WHERE {_HERE} AND {_SPAN} AND $value IS NOT NULL
), ends AS (
  SELECT min(value) AS low, (max(value) - min(value)) / {BARS}.0 AS width FROM here
), bars AS (
  SELECT coalesce(least({BARS - 1}.0, floor((value - low) / nullif(width, 0.0))), 0.0) AS bar,
    low, width
  FROM here CROSS JOIN ends
)
SELECT (round((low + bar * width) * 100.0) / 100.0)::TEXT AS "from", readings AS "readings"
FROM (SELECT low, width, bar, count(*) AS readings FROM bars GROUP BY low, width, bar) AS counted
ORDER BY bar
""",
)

SECTORS: Final = (
    *("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE"),
    *("S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW"),
)
SPEEDS: Final = (
    ("below 2 m/s", 0.0, 2.0),
    ("2 to 4", 2.0, 4.0),
    ("4 to 6", 4.0, 6.0),
    ("6 to 9", 6.0, 9.0),
    ("9 and more", 9.0, 1e9),
)
"""Classes of the wind rose [m/s], whatever the chosen unit: a rose compares directions."""

_CLASSES: Final = ",\n    ".join(
    f"sum(CASE WHEN speed >= {low} AND speed < {high} THEN 1.0 ELSE 0.0 END) AS class{n}"
    for n, (_, low, high) in enumerate(SPEEDS)
)
_SHARES: Final = ", ".join(
    f'100.0 * class{n} / readings AS "{name}"' for n, (name, *_) in enumerate(SPEEDS)
)
_SECTOR_NAMES: Final = " ".join(f"WHEN {n} THEN '{name}'" for n, name in enumerate(SECTORS))

WIND_ROSE: Final = Panel(
    "wind_rose",
    "Place",
    "Wind rose: from where it blows, and how fast",
    "%",
    "Share of the readings of the place and the span by the sixteenth of the horizon that the wind "
    "comes from, and by its speed.",
    f"""
WITH winds AS (
  SELECT floor((degrees(atan2(-data['u10'], -data['v10'])) + 371.25) / 22.5) % 16 AS sector,
    {WIND} AS speed
  FROM demo.climate_data
  WHERE {_HERE} AND {_SPAN} AND data['u10'] IS NOT NULL AND data['v10'] IS NOT NULL
), sectors AS (
  SELECT sector, {_CLASSES}
  FROM winds GROUP BY sector
), total AS (
  SELECT count(*) AS readings FROM winds
)
SELECT CASE sector {_SECTOR_NAMES} END AS "from", {_SHARES}
FROM sectors CROSS JOIN total
ORDER BY sector
""",
)


_EXTREMES: Final = (
    ("coldest", "temperature", "min"),
    ("hottest", "temperature", "max"),
    ("fastest wind", "wind", "max"),
    ("lowest pressure", "pressure", "min"),
    ("highest pressure", "pressure", "max"),
)
_ALL_EXTREMES: Final = ",\n    ".join(
    f'{of}({sql}) AS value{n}, {of}_by("timestamp", {sql}) AS time{n}, '
    f"{of}_by(cell, {sql}) AS cell{n}"
    for n, (_, quantity, of) in enumerate(_EXTREMES)
    for sql in (QUANTITIES[quantity],)
)

EXTREMES: Final = Panel(
    "extremes",
    "Place",
    "Extremes, when and where",
    "",
    "The lowest and highest readings of the place and the span, with their time and cell.",
    f"""
WITH found AS (
  SELECT {_ALL_EXTREMES}
  FROM demo.climate_data WHERE {_HERE} AND {_SPAN}
)
"""
    + "\nUNION ALL ".join(
        f"SELECT '{label}' AS what, {in_unit(quantity, f'value{n}')} AS value, "
        f'${quantity}_unit AS unit, time{n} AS "when", cell{n} AS cell FROM found'
        for n, (label, quantity, _) in enumerate(_EXTREMES)
    )
    + "\n",
)
HERE: Final = Panel(
    "here",
    "Place",
    "Cells in the place",
    "cells",
    "How many cells lie within the radius or the polygon, and what they held at the time shown.",
    f"""
SELECT count(*) AS "cells",
  {in_unit("temperature", f"avg({QUANTITIES['temperature']})")} AS "temperature",
  {in_unit("pressure", f"avg({QUANTITIES['pressure']})")} AS "pressure",
  {in_unit("wind", f"avg({WIND})")} AS "wind speed"
FROM demo.climate_data
WHERE {_HERE} AND "timestamp" = {_SHOWN}
""",
)

# ----------------------------------------------------------------------------------- pipeline

TOTALS: Final = Panel(
    "totals",
    "Pipeline",
    "In the span",
    "",
    "Readings that the store has answered for, dead letters and errors of all consumers.",
    """
SELECT sum("rows") AS "readings", sum(dead) AS "dead letters", sum(errors) AS "errors",
  count(DISTINCT instance) AS "consumers"
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to
""",
)
LAGS: Final = Panel(
    "lags",
    "Pipeline",
    "Lag by partition",
    "messages",
    "Messages published and not yet answered for by the store. Of a Lambda function it is null: "
    "CloudWatch has it there (OffsetLag).",
    """
SELECT date_bin($bucket, "time", 0) AS "time",
  topic || '/' || "partition"::TEXT AS metric, max(high_water - "offset") AS lag
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND high_water IS NOT NULL AND "offset" IS NOT NULL
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
BATCHES: Final = Panel(
    "batches",
    "Pipeline",
    "Readings by partition and report",
    "readings",
    "A worker reports on each partition every five seconds, a Lambda function at each invocation: "
    "mean and largest of the reports, empty ones left out.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", avg("rows") AS "mean", max("rows") AS "largest"
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND "rows" > 0
GROUP BY 1 ORDER BY 1
""",
)
BATCH_TIME: Final = Panel(
    "batch_time",
    "Pipeline",
    "Time to store a batch",
    "ms",
    "From handing a batch to the store until its answer: mean and longest.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", avg(batch_ms) AS "mean", max(batch_ms) AS "longest"
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND batch_ms IS NOT NULL
GROUP BY 1 ORDER BY 1
""",
)
ERRORS: Final = Panel(
    "errors",
    "Pipeline",
    "Store errors",
    "errors",
    "Times that the store did not answer or refused for now; each is tried again.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", instance AS metric, sum(errors) AS errors
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
ARRIVALS: Final = Panel(
    "arrivals",
    "Pipeline",
    "Readings by the minute in which they were stored",
    "readings",
    "Counted in the readings themselves, by dataset; one that was overridden counts when it was "
    "last.",
    """
SELECT date_bin('60 seconds'::INTERVAL, stored_at, 0) AS "time", dataset AS metric,
  count(*) AS readings
FROM demo.climate_data
WHERE stored_at BETWEEN $from AND $to
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
LETTERS_OVER_TIME: Final = Panel(
    "letters_over_time",
    "Pipeline",
    "Dead letters over time",
    "messages",
    "Messages that can never be stored, by when they were buried and why.",
    """
SELECT date_bin($bucket, dead_at, 0) AS "time", reason AS metric, count(*) AS letters
FROM demo.dead_letters
WHERE dead_at BETWEEN $from AND $to
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
NEWEST_LETTERS: Final = Panel(
    "newest_letters",
    "Pipeline",
    "Newest dead letters",
    "",
    "With the place of each in its topic: `climatestream dead-letters show TOPIC/PARTITION@OFFSET` "
    "prints it whole, `retry` publishes it again.",
    """
SELECT dead_at AS "buried", topic || '/' || "partition"::TEXT || '@' || "offset"::TEXT AS message,
  reason, error, retried_at AS "retried"
FROM demo.dead_letters
WHERE dead_at BETWEEN $from AND $to
ORDER BY dead_at DESC, topic, "partition", "offset" LIMIT 50
""",
)

# -------------------------------------------------------------------------------- data quality

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

CALENDAR: Final = Panel(
    "calendar",
    "Data quality",
    "Coverage by day",
    "%",
    "A calendar of UTC days: values of the chosen variable as a share of a whole day, which has "
    "the most times that a day of the span has, and at each the most cells.",
    f"""
WITH times AS (
  SELECT "timestamp" AS "time", count($field) AS cells
  FROM demo.climate_data
  WHERE {_CHOSEN} AND {_SPAN}
  GROUP BY 1
), days AS (
  SELECT date_trunc('day', "time") AS day, count(*) AS times, sum(cells) AS found,
    max(cells) AS most
  FROM times GROUP BY 1
), whole AS (
  SELECT max(times) * max(most) AS cells FROM days
), shares AS (
  SELECT date_trunc('week', day) AS week,
    (floor(extract(epoch FROM day) / 86400.0) + 3.0) % 7.0 AS weekday,
    100.0 * found / nullif(cells, 0) AS coverage
  FROM days CROSS JOIN whole
)
SELECT week AS "week of",
  {
        ", ".join(
            f'max(CASE WHEN weekday = {n}.0 THEN coverage END) AS "{name}"'
            for n, name in enumerate(WEEKDAYS)
        )
    }
FROM shares GROUP BY week ORDER BY week
""",
)
PRELIMINARY: Final = Panel(
    "preliminary",
    "Data quality",
    "Preliminary and final readings over time",
    "readings",
    "ERA5-Land is preliminary (ERA5-Land-T) until it is final, two to three months later; a final "
    "reading overrides the preliminary one of its cell and time, never the other way round.",
    f"""
SELECT date_bin($bucket, "timestamp", 0) AS "time",
  sum(CASE WHEN preliminary THEN 0 ELSE 1 END) AS "final",
  sum(CASE WHEN preliminary THEN 1 ELSE 0 END) AS "preliminary"
FROM demo.climate_data
WHERE {_CHOSEN} AND {_SPAN}
GROUP BY 1 ORDER BY 1
""",
)
PRELIMINARY_DAYS: Final = Panel(
    "preliminary_values",
    "Data quality",
    "The chosen variable in preliminary and in final readings",
    VARIABLE_UNIT,
    "The mean of the final and of the preliminary readings at each time: a step where one ends and "
    "the other begins is a bias of the preliminary ones.",
    f"""
SELECT date_bin($bucket, "timestamp", 0) AS "time",
  avg(CASE WHEN preliminary THEN NULL ELSE $value END) AS "final",
  avg(CASE WHEN preliminary THEN $value END) AS "preliminary"
FROM demo.climate_data
WHERE {_CHOSEN} AND {_SPAN}
GROUP BY 1 ORDER BY 1
""",
)
FRESHNESS: Final = Panel(
    "freshness",
    "Data quality",
    "What is stored of the dataset",
    "",
    "The oldest, the newest and the newest final time, whatever the span.",
    """
SELECT min("timestamp") AS "oldest", max("timestamp") AS "newest",
  max(CASE WHEN preliminary THEN NULL ELSE "timestamp" END) AS "newest final",
  count(*) AS "readings", sum(CASE WHEN preliminary THEN 1 ELSE 0 END) AS "preliminary"
FROM demo.climate_data
WHERE dataset = $dataset
""",
)
