"""The panels: one list that the embedded page and Grafana draw from.

Those that both show are here; `board_panels` adds what the boards show besides.

A panel's query is written once, in CrateDB's SQL, and runs on both stores. Words that begin with
a dollar sign are filled in by whoever asks:

    $dataset, $cell          text
    $time, $from, $to        an instant
    $low, $high, $width      numbers in the unit of the store
    $cells, $step            cells of a whole field; the usual time between two fields [s]
    $value                   the expression of a variable: data['temperature']
    $bucket                  an interval: '60 seconds'::INTERVAL
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from climatestream.colors import Scale
from climatestream.variables import Variable

Board = Literal["Climate", "Place", "Pipeline", "Data quality"]

VARIABLE_UNIT: Final = "variable"
"""Stands for the unit in which people read the chosen variable."""


@dataclass(frozen=True)
class Panel:
    """One query and what to say of it.

    Parameters
    ----------
    unit
        Of its numbers, as people read it; `VARIABLE_UNIT` where the variable decides.
    sql
        CrateDB's SQL with the words that the module describes.
    """

    name: str
    board: Board
    title: str
    unit: str
    description: str
    sql: str

    def words(self) -> frozenset[str]:
        """What has to be filled in."""
        return frozenset(_WORD.findall(self.sql))

    def query(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The query with `?` for parameters, and the parameters in their order."""
        parameters: list[Any] = []

        def fill(word: str) -> str:
            if word in EXPRESSIONS:
                return str(values[word])
            value = values[word]
            parameters.append(iso(value) if isinstance(value, datetime) else value)
            return "?"

        return self.filled(fill), parameters

    def text(self, values: Mapping[str, Any]) -> str:
        """The query as it can be pasted into a console."""
        return self.filled(
            lambda word: str(values[word]) if word in EXPRESSIONS else _literal(values[word])
        )

    def filled(self, fill: Callable[[str], str]) -> str:
        """The query with what `fill` makes of each word."""
        return _WORD.sub(lambda match: fill(match[1]), self.sql)


_WORD: Final = re.compile(r"\$([a-z_]+)")

EXPRESSIONS: Final = frozenset({"value", "bucket"})
"""Words that stand for SQL; all others stand for a value."""


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        value = iso(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def iso(at: datetime) -> str:
    """A time as both engines take it for a parameter: CrateDB reads a number as ms, DuckDB not."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def value_of(variable: str) -> str:
    """A variable as SQL: one that is computed, or a field of the store, whatever its name."""
    computed = COMPUTED.get(variable)
    if computed is not None:
        return computed.sql
    return "data['{}']".format(variable.replace("'", "''"))


def bucket_of(seconds: float) -> str:
    """An interval as SQL."""
    return (
        f"'{seconds:.3f} seconds'::INTERVAL"
        if seconds % 1
        else f"'{seconds:.0f} seconds'::INTERVAL"
    )


# --------------------------------------------------------------------- computed variables


@dataclass(frozen=True)
class Computed:
    """A variable that is stored as others: `of` names them."""

    variable: Variable
    of: tuple[str, ...]
    sql: str


COMPUTED: Final[dict[str, Computed]] = {
    "wind_speed": Computed(
        Variable(
            cds_name="wind_speed",
            short_names=(),
            label="Wind speed, 10 m",
            standard_name="wind_speed",
            file_unit="m s-1",
            store_unit="m s-1",
            shown_unit="m/s",
            valid_min=0.0,
            valid_max=113.2,
            valid_why="strongest gust measured (WMO, Barrow Island 1996); no mean exceeds it",
            scale=Scale("ember", (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 25.0)),
        ),
        of=("u10", "v10"),
        sql="sqrt(data['u10'] * data['u10'] + data['v10'] * data['v10'])",
    )
}
"""What people ask for and no file holds. The reference's boards compute it the same way."""

# ------------------------------------------------------------------------------ the panels

FIELD: Final = Panel(
    "field",
    "Climate",
    "Map",
    VARIABLE_UNIT,
    "The chosen variable in every cell at one time, with the wind that moves the arrows.",
    """
SELECT cell, latitude(geo_location) AS latitude, longitude(geo_location) AS longitude, country,
  $value AS value, data['u10'] AS u10, data['v10'] AS v10
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" = $time
""",
)
SERIES: Final = Panel(
    "series",
    "Climate",
    "Lowest, mean and highest",
    VARIABLE_UNIT,
    "Of all cells at each time.",
    """
SELECT "timestamp" AS "time", min($value) AS "min", avg($value) AS "avg", max($value) AS "max"
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to AND $value IS NOT NULL
GROUP BY "timestamp" ORDER BY "timestamp"
""",
)
CELL: Final = Panel(
    "cell",
    "Climate",
    "One cell",
    VARIABLE_UNIT,
    "The chosen variable in the clicked cell.",
    """
SELECT "timestamp" AS "time", $value AS value
FROM demo.climate_data
WHERE dataset = $dataset AND cell = $cell AND "timestamp" BETWEEN $from AND $to
ORDER BY "timestamp"
""",
)
READING: Final = Panel(
    "reading",
    "Climate",
    "One reading",
    "",
    "All that is stored of one cell at one time.",
    """
SELECT cell, country, latitude(geo_location) AS latitude, longitude(geo_location) AS longitude,
  data, preliminary, published_at, stored_at, source, "offset"
FROM demo.climate_data
WHERE dataset = $dataset AND cell = $cell AND "timestamp" = $time
""",
)
HISTOGRAM: Final = Panel(
    "histogram",
    "Climate",
    "Distribution",
    "cells",
    "How many cells have which value at the time shown.",
    """
SELECT floor(($value - $low) / $width) AS "bin", count(*) AS cells
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" = $time AND $value IS NOT NULL
GROUP BY 1 ORDER BY 1
""",
)
ROSE: Final = Panel(
    "rose",
    "Climate",
    "Wind rose",
    "cells",
    "From where the wind blows at the time shown, in tens of degrees as aviation reports it, in "
    "six classes of speed, the last without an end.",
    """
SELECT floor((degrees(atan2(-data['u10'], -data['v10'])) + 365.0) / 10.0) % 36 AS sector,
  least(floor(sqrt(data['u10'] * data['u10'] + data['v10'] * data['v10']) / $width),
    5.0) AS speed, count(*) AS cells
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" = $time
  AND data['u10'] IS NOT NULL AND data['v10'] IS NOT NULL
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
RATE: Final = Panel(
    "rate",
    "Pipeline",
    "Readings a second",
    "readings/s",
    "For which the store has answered, of all consumers and partitions.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", sum("rows") / $width AS rate,
  sum(dead) / $width AS dead
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to
GROUP BY 1 ORDER BY 1
""",
)
LAG: Final = Panel(
    "lag",
    "Pipeline",
    "Lag by partition",
    "messages",
    "Messages published and not yet answered for by the store.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", "partition", max(high_water - "offset") AS lag
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND high_water IS NOT NULL AND "offset" IS NOT NULL
GROUP BY 1, 2 ORDER BY 1, 2
""",
)
LATENCY: Final = Panel(
    "latency",
    "Pipeline",
    "Event to stored",
    "ms",
    "From publishing to the store's answer, seen by the consumer; the slowest partition.",
    """
SELECT date_bin($bucket, "time", 0) AS "time", max(stored_p50_ms) AS p50,
  max(stored_p95_ms) AS p95, max(stored_p99_ms) AS p99
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND stored_p50_ms IS NOT NULL
GROUP BY 1 ORDER BY 1
""",
)
QUERYABLE: Final = Panel(
    "queryable",
    "Pipeline",
    "Event to queryable",
    "ms",
    "From publishing until a query finds the reading, by a consumer that polls for it.",
    """
SELECT percentile(queryable_ms, 0.5) AS p50, percentile(queryable_ms, 0.95) AS p95,
  percentile(queryable_ms, 0.99) AS p99
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND queryable_ms IS NOT NULL
""",
)
DELAY: Final = Panel(
    "delay",
    "Pipeline",
    "Published to stored, by the clocks",
    "ms",
    "stored_at less published_at: two clocks, so approximate.",
    """
SELECT percentile(extract(epoch FROM stored_at - published_at) * 1000.0, 0.5) AS p50,
  percentile(extract(epoch FROM stored_at - published_at) * 1000.0, 0.95) AS p95,
  percentile(extract(epoch FROM stored_at - published_at) * 1000.0, 0.99) AS p99
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" = $time
""",
)
LETTERS: Final = Panel(
    "letters",
    "Pipeline",
    "Dead letters",
    "messages",
    "Messages that can never be stored, by reason.",
    """
SELECT reason, count(*) AS letters, max(dead_at) AS newest
FROM demo.dead_letters
GROUP BY reason ORDER BY letters DESC, reason LIMIT 20
""",
)
TIMES: Final = Panel(
    "times",
    "Data quality",
    "Cells at each time",
    "cells",
    "How many cells have a reading; a dip is a field with holes.",
    """
SELECT "timestamp" AS "time", count(*) AS cells
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to
GROUP BY "timestamp" ORDER BY "timestamp"
""",
)
COVERAGE: Final = Panel(
    "coverage",
    "Data quality",
    "Coverage",
    "%",
    "Values of the chosen variable, as a share of a whole field at every stored time.",
    """
SELECT date_bin($bucket, "timestamp", 0) AS "time",
  100.0 * count($value) / (count(DISTINCT "timestamp") * $cells) AS coverage
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to
GROUP BY 1 ORDER BY 1
""",
)
GAPS: Final = Panel(
    "gaps",
    "Data quality",
    "Gaps",
    "s",
    "Where the next stored time is further away than one and a half usual steps.",
    """
SELECT earlier AS "from", "time" AS "to", seconds
FROM (
  SELECT "time", lag("time") OVER (ORDER BY "time") AS earlier,
    extract(epoch FROM "time" - lag("time") OVER (ORDER BY "time")) AS seconds
  FROM (
    SELECT DISTINCT "timestamp" AS "time" FROM demo.climate_data
    WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to
  ) AS stored
) AS steps
WHERE seconds > 1.5 * $step
ORDER BY "time" DESC LIMIT 50
""",
)
RANGE: Final = Panel(
    "range",
    "Data quality",
    "Outside the plausible range",
    "values",
    "Values of the chosen variable below or above what the registry holds to be possible.",
    """
SELECT count($value) AS "values",
  sum(CASE WHEN $value < $low OR $value > $high THEN 1 ELSE 0 END) AS outside,
  min($value) AS "min", max($value) AS "max"
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to
""",
)
OUTSIDE: Final = Panel(
    "outside",
    "Data quality",
    "Cells outside the plausible range",
    VARIABLE_UNIT,
    "The newest of them.",
    """
SELECT "timestamp" AS "time", cell, $value AS value
FROM demo.climate_data
WHERE dataset = $dataset AND "timestamp" BETWEEN $from AND $to AND ($value < $low OR $value > $high)
ORDER BY "timestamp" DESC, cell LIMIT 50
""",
)

PANELS: Final = (
    *(FIELD, SERIES, CELL, READING, HISTOGRAM, ROSE),
    *(RATE, LAG, LATENCY, DELAY, QUERYABLE, LETTERS),
    *(TIMES, COVERAGE, GAPS, RANGE, OUTSIDE),
)
"""The panels of the page, board by board, in the order in which they are shown."""

BY_NAME: Final[Mapping[str, Panel]] = {panel.name: panel for panel in PANELS}
