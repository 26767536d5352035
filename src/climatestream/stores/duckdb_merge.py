"""The merge of rows into the table of readings, by rank, as DuckDB's SQL.

The rules are the design's: a message of higher rank than its row overrides the fields that it
names and gives the row its rank; one of equal or lower rank fills what is absent; rows with one
key are applied one after the other, never merged in memory.

No index keeps the keys unique: `MERGE` does, since there is one writer. Why, and at what cost:
docs/decisions/duckdb-store.md.
"""

# ruff: noqa: S608 - SQL is put together of our own tables' names and of quoted() field names

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from climatestream.arrow import ArrowStream
from climatestream.stores.duckdb_file import table_name
from climatestream.stores.schema import READINGS, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

    from climatestream.model import FieldType, Rows

TABLE: Final = table_name(READINGS)
SAME_KEY: Final = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in READINGS.key)

_TIME: Final = pl.Datetime("us")
_US_PER_MS: Final = 1000

_DTYPES: Final[dict[FieldType, pl.DataType]] = {
    "number": pl.Float64(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
}

_COORDINATES: Final = ("latitude", "longitude")

# (final, published_at, offset, source) of the message, compared in this order with the row's.
_NEWER: Final = """(CASE WHEN s.preliminary <> t.preliminary THEN t.preliminary
    WHEN s.published_at <> t.published_at THEN s.published_at > t.published_at
    WHEN s."offset" <> t."offset" THEN s."offset" > t."offset"
    ELSE s.source > t.source END)"""


def column(values: Any, kind: FieldType) -> pl.Series:
    """A field's values in any of the forms that a column has; NaN becomes null."""
    if kind != "number":
        return pl.Series(values, dtype=_DTYPES[kind])
    return pl.Series(values, dtype=pl.Float64, nan_to_null=True).fill_nan(None)


def frame(rows: Rows) -> pl.DataFrame:
    """The columns of rows but their fields, named as the table names them, times as DuckDB's."""
    return pl.DataFrame(
        {
            "dataset": pl.Series(rows.dataset, dtype=pl.String),
            "cell": pl.Series(rows.cell, dtype=pl.String),
            "timestamp": _times(rows.time_ms),
            "country": pl.Series(rows.country, dtype=pl.String),
            "latitude": pl.Series(rows.latitude, dtype=pl.Float64),
            "longitude": pl.Series(rows.longitude, dtype=pl.Float64),
            "preliminary": pl.Series(rows.preliminary, dtype=pl.Boolean),
            "published_at": _times(rows.published_at_ms),
            "source": pl.Series(rows.source, dtype=pl.String),
            "offset": pl.Series(rows.offset, dtype=pl.Int64),
        }
    )


def _times(values_ms: Any) -> pl.Series:
    return (pl.Series(values_ms, dtype=pl.Int64) * _US_PER_MS).cast(_TIME)


@dataclass(frozen=True)
class Merge:
    """What brings a frame into the table.

    Parameters
    ----------
    fields
        The fields of `data`, in the table's order.
    named
        By the fields that the frame has, its columns of them.
    """

    fields: tuple[str, ...]
    named: Mapping[str, str]

    def __call__(self, connection: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> None:
        """Bring rows into the table, in the connection's transaction."""
        now = {"now_ms": time.time_ns() // 1_000_000}
        for repetition, part in enumerate(_without_repeats(rows)):
            connection.register("incoming", ArrowStream(part))
            if repetition or connection.execute(_ANY_STORED).fetchall():
                connection.execute(self._merge(), now)
            else:
                connection.execute(self._insert(), now)

    def _insert(self) -> str:
        """All rows are new."""
        columns, values = self._inserted()
        return f"INSERT INTO {TABLE} ({columns}) SELECT {values} FROM incoming s"

    def _merge(self) -> str:
        """Some rows may be there. One that is, and brings nothing, is left alone."""
        columns, values = self._inserted()
        fills = " OR ".join(
            f"(t.{name} IS NULL AND s.{incoming} IS NOT NULL)"
            for name, incoming in (
                ("country", "country"),
                *((f"data.{quoted(name)}", place) for name, place in self.named.items()),
            )
        )
        return f"""MERGE INTO {TABLE} t USING incoming s ON {SAME_KEY}
            WHEN MATCHED AND {_NEWER} THEN UPDATE SET
                country = coalesce(s.country, t.country), geo_location = {_POINT},
                data = {self._data("coalesce(s.{0}, t.data.{1})", "s.{0}", "t.data.{1}")},
                preliminary = s.preliminary, published_at = s.published_at,
                stored_at = {_NOW}, source = s.source, "offset" = s."offset"
            WHEN MATCHED AND ({fills}) THEN UPDATE SET
                country = coalesce(t.country, s.country),
                data = {self._data("coalesce(t.data.{1}, s.{0})", "t.data.{1}", "t.data.{1}")}
            WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"""

    def _inserted(self) -> tuple[str, str]:
        """The columns that are written of a new row, and the expressions of their values."""
        made = {
            "geo_location": _POINT,
            "data": self._data("s.{0}", "s.{0}", "NULL"),
            "stored_at": _NOW,
        }
        names = [column.name for column in READINGS.columns if column.generated is None]
        values = [made.get(name, f"s.{quoted(name)}") for name in names]
        return ", ".join(map(quoted, names)), ", ".join(values)

    def _data(self, named: str, coordinate: str, other: str) -> str:
        """A value of `data`.

        Of an expression for the fields that the frame has, one for the coordinates, and one for
        the other fields; in each {0} is the frame's column and {1} the table's field.
        """
        expressions = []
        for name in self.fields:
            place, stored = self.named.get(name, name), quoted(name)
            form = named if name in self.named else coordinate if name in _COORDINATES else other
            expressions.append(f"{stored}: {form.format(place, stored)}")
        return f"{{{', '.join(expressions)}}}"


_POINT: Final = "[s.longitude, s.latitude]::DOUBLE[2]"
_NOW: Final = "make_timestamp_ms($now_ms)"
_ANY_STORED: Final = f"SELECT 1 FROM incoming s SEMI JOIN {TABLE} t ON {SAME_KEY} LIMIT 1"


def _without_repeats(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Frames with every key once at most, which one after the other are the rows."""
    keys = rows.select(READINGS.key)
    if keys.is_unique().all():
        yield rows
        return
    repetition = keys.select(pl.int_range(pl.len()).over(READINGS.key)).to_series()
    for _, part in rows.group_by(repetition, maintain_order=True):
        yield part
