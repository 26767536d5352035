"""The tables that every store holds: what their columns mean, not how an engine declares them.

A store maps each `Kind` to its own type and makes its DDL from `TABLES`. Times are UTC. Names are
quoted wherever they are used: several are words of SQL (`offset`, `rows`, `time`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from climatestream.model import FieldType

SCHEMA = "demo"

Kind = Literal[
    "text",
    "integer",  # 64 bit
    "number",  # float64
    "boolean",
    "time",  # an instant, to the millisecond
    "point",  # longitude, latitude [degree], in this order
    "fields",  # an object that grows with the fields that arrive; starts with `FIELDS`
    "document",  # text of any size, neither searched nor aggregated
]


@dataclass(frozen=True)
class Column:
    """A column. `generated` is the SQL, the same in both engines, that makes its values."""

    name: str
    kind: Kind
    generated: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of `SCHEMA`; `key` names the columns that tell its rows apart, none: it grows."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()


FIELDS: dict[str, FieldType] = dict.fromkeys(
    ("temperature", "u10", "v10", "pressure", "latitude", "longitude"), "number"
)
"""The fields of `data` that exist before anything arrives: the reference's, so that its queries
run on an empty table. Temperature in degrees Celsius, wind in m s-1, pressure in Pa."""

READINGS = Table(
    "climate_data",
    (
        Column("dataset", "text"),
        Column("cell", "text"),
        Column("country", "text"),  # ISO 3166-1 alpha-3
        Column("timestamp", "time"),
        Column("year", "time", generated="date_trunc('year', \"timestamp\")"),
        Column("geo_location", "point"),
        Column("data", "fields"),
        Column("preliminary", "boolean"),
        Column("published_at", "time"),
        Column("stored_at", "time"),  # when the row's rank last rose
        Column("source", "text"),  # topic/partition
        Column("offset", "integer"),
    ),
    key=("dataset", "cell", "timestamp"),
)

DEAD_LETTERS = Table(
    "dead_letters",
    (
        Column("topic", "text"),
        Column("partition", "integer"),
        Column("offset", "integer"),
        Column("published_at", "time"),
        Column("key", "text"),  # the message's own, base64; null where it has none
        Column("value", "document"),  # base64, whole; null where the message has no value
        Column("headers", "document"),  # JSON: [[name, base64], ...]
        Column("reason", "text"),
        Column("error", "document"),
        Column("attempt", "integer"),
        Column("dead_at", "time"),
        Column("retried_at", "time"),
    ),
    key=("topic", "partition", "offset", "published_at"),
)

PIPELINE = Table(
    "pipeline",
    (
        Column("time", "time"),
        Column("instance", "text"),
        Column("topic", "text"),
        Column("partition", "integer"),
        Column("offset", "integer"),
        Column("high_water", "integer"),
        Column("rows", "integer"),
        Column("batch_ms", "number"),
        Column("dead", "integer"),
        Column("errors", "integer"),
        Column("stored_p50_ms", "number"),
        Column("stored_p95_ms", "number"),
        Column("stored_p99_ms", "number"),
        Column("queryable_ms", "number"),
    ),
)

DATASETS = Table(
    "datasets",
    (
        Column("dataset", "text"),
        Column("variable", "text"),
        Column("unit", "text"),
        Column("description", "text"),
    ),
    key=("dataset", "variable"),
)

RETENTION = Table(
    "retention",
    (
        Column("dataset", "text"),
        Column("before", "time"),
        Column("set_at", "time"),
    ),
    key=("dataset",),
)

NORMALS = Table(
    "climate_normals",
    (
        Column("dataset", "text"),
        Column("cell", "text"),
        Column("day_of_year", "integer"),  # extract(doy FROM "timestamp")
        Column("variable", "text"),
        Column("period", "text"),  # 1991-2020
        Column("years", "integer"),  # with a value for this day
        Column("mean", "number"),
        Column("deviation", "number"),
        Column("p10", "number"),
        Column("p50", "number"),
        Column("p90", "number"),
    ),
    key=("dataset", "cell", "day_of_year", "variable"),
)

PLACES = Table(
    "places",
    (
        Column("name", "text"),
        Column("country", "text"),
        Column("latitude", "number"),
        Column("longitude", "number"),
        Column("population", "integer"),
    ),
    key=("name", "country", "latitude", "longitude"),
)

TABLES = (READINGS, DEAD_LETTERS, PIPELINE, DATASETS, RETENTION, NORMALS, PLACES)


def quoted(name: str) -> str:
    """A name as SQL's identifier; any text but the empty one is a name."""
    return '"' + name.replace('"', '""') + '"'
