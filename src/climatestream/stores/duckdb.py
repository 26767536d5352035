"""A store in one DuckDB file: what `duckdb:FILE` names.

Delivery: as `Store` says; a write is one transaction, on disk when it returns. A file belongs to
one process at a time, which may use the store from any number of threads: writes wait for each
other, queries run beside them and see the last commit.
"""

# ruff: noqa: S608 - SQL is put together of our own tables' names and of quoted() field names

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
import numpy as np
import polars as pl

from climatestream.arrow import ArrowStream
from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import DeadLetter, FieldType, History
from climatestream.ports import HISTORY_ROWS, Answer, Found, Refusal
from climatestream.stores.cells import CELLS_AT_ONCE, ranges
from climatestream.stores.duckdb_file import MEMORY_LIMIT, DuckDBFile, table_name, words_of
from climatestream.stores.duckdb_merge import SAME_KEY, Merge, column, frame
from climatestream.stores.duckdb_query import check_reads, conversion, parameter
from climatestream.stores.letter_rows import letter_of, row_of
from climatestream.stores.schema import (
    DATASETS,
    DEAD_LETTERS,
    FIELDS,
    NORMALS,
    PIPELINE,
    PLACES,
    READINGS,
    RETENTION,
    Column,
    Kind,
    Table,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from climatestream.model import Normals, Place, Rows
    from climatestream.ports import Description, PipelineRow

_SQL_TYPES: Final[dict[FieldType, str]] = {
    "number": "DOUBLE",
    "text": "VARCHAR",
    "boolean": "BOOLEAN",
}
_FIELD_TYPES: Final = {sql: kind for kind, sql in _SQL_TYPES.items()}

_FRAME_TYPES: Final[dict[Kind, pl.DataType]] = {
    "text": pl.String(),
    "document": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "time": pl.Datetime("ms"),
}

_READINGS: Final = table_name(READINGS)
_DEAD_LETTERS: Final = table_name(DEAD_LETTERS)

_ROW_GROUP: Final = 122_880
"""Rows that DuckDB keeps together and gives the room back of together [readings]; after fewer
deletions a checkpoint of our own gains nothing over the one that comes anyway.
https://duckdb.org/docs/stable/internals/storage.html"""


class DuckDBStore:
    """A store in a DuckDB file, which is made if it is not there.

    Parameters
    ----------
    path
        The file. DuckDB keeps its log and its temporary folder beside it.
    memory_limit
        What DuckDB may hold in memory: `100MB`.
    threads
        Threads that a statement may use; None: as many as there are cores.
    """

    def __init__(
        self, path: Path | str, *, memory_limit: str = MEMORY_LIMIT, threads: int | None = None
    ) -> None:
        self.path = Path(path)
        fields = ", ".join(f"{quoted(name)} {_SQL_TYPES[kind]}" for name, kind in FIELDS.items())
        self._file = DuckDBFile(
            self.path, memory_limit=memory_limit, threads=threads, fields=f"STRUCT({fields})"
        )

    def open(self) -> Self:
        """Open the file, making what is missing.

        Raises
        ------
        StoreError
            Another process has the file, it is not one of ours, or it can't be written; it is
            as it was.
        StoreUnavailable
            The disk does not take it now.
        """
        self._file.open()
        try:
            self.field_types()
        except BaseException:
            self._file.close()
            raise
        return self

    def close(self) -> None:
        """Move everything into the file and let it go. Queries under way are given up."""
        self._file.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --------------------------------------------------------------------------- readings

    def write(self, rows: Rows) -> list[Refusal]:
        """Store rows: see `Store.write`.

        Refused, for good, is a row with a field of another type than the table's, with one
        without a name, or with one that differs from another in the case of its letters only:
        DuckDB can't tell these two apart, and a query for one would read the other.
        """
        if not len(rows):
            return []
        columns = {name: column(values, rows.types[name]) for name, values in rows.data.items()}
        places = {name: f"field{place}" for place, name in enumerate(columns)}
        with self._file.alone():
            stored = self.field_types()
            refused = _refused(columns, rows.types, stored)
            incoming = frame(rows).with_columns(
                **{places[name]: values for name, values in columns.items()}
            )
            if refused:
                kept = np.ones(len(rows), dtype=bool)
                kept[list(refused)] = False
                incoming = incoming.filter(pl.Series(kept))
            named = {name: place for name, place in places.items() if incoming[place].count()}
            news = [name for name in named if name not in stored]
            for name in news:
                self._grow(name, _SQL_TYPES[rows.types[name]])
            try:
                with self._file.writing() as connection:
                    Merge((*stored, *news), named)(connection, incoming)
            except StoreUnavailable:
                raise  # the same rows come again, and find their fields
            except BaseException:
                with suppress(StoreUnavailable):
                    for name in reversed(news):
                        self._shrink(name)
                raise
        return [Refusal(row, False, error) for row, error in sorted(refused.items())]

    def _grow(self, name: str, kind: str) -> None:
        """Add a field to `data`. Without a row that names it, it changes nothing."""
        with self._file.writing() as connection:
            connection.execute(f"ALTER TABLE {_READINGS} ADD COLUMN data.{quoted(name)} {kind}")
        # the whole column lies in memory, as large as the table, until it is in the file
        self._file.checkpoint()

    def _shrink(self, name: str) -> None:
        """Take away a field that no row names: its type would hold."""
        with self._file.writing() as connection:
            connection.execute(f"ALTER TABLE {_READINGS} DROP COLUMN data.{quoted(name)}")

    def field_types(self) -> dict[str, FieldType]:
        """The types that hold, those of the coordinates among them."""
        with self._file.reading() as connection:
            return self._stored_fields(connection)

    def _stored_fields(self, connection: duckdb.DuckDBPyConnection) -> dict[str, FieldType]:
        """The fields of `data` in the table's order."""
        data = connection.sql(f"SELECT data FROM {_READINGS} LIMIT 0").types[0]
        kinds = {name: str(kind) for name, kind in data.children}
        if strange := sorted(set(kinds.values()) - set(_FIELD_TYPES)):
            raise StoreError(
                f"{self.path}: a field of data is {', '.join(strange)}, expected "
                f"{', '.join(_FIELD_TYPES)}; name another file"
            )
        return {name: _FIELD_TYPES[kind] for name, kind in kinds.items()}

    def find(self, rows: Rows) -> Found:
        """What is stored for the keys of these rows: see `Store.find`."""
        keys = frame(rows).select(READINGS.key).with_row_index("row")
        asked = {name: f"field{place}" for place, name in enumerate(rows.data)}
        with self._file.reading() as connection:
            kinds = self._stored_fields(connection)
            fields = [
                f"{f't.data.{quoted(name)}' if kinds.get(name) == rows.types[name] else 'NULL'} "
                f"AS {place}"
                for name, place in asked.items()
            ]
            connection.register("incoming", ArrowStream(keys))
            stored = pl.DataFrame(
                connection.sql(
                    f"""SELECT t.cell IS NOT NULL AS present, t.preliminary,
                        epoch_ms(t.published_at) AS published_at_ms, t."offset", t.source,
                        {", ".join([*fields, "s.row"])}
                    FROM incoming s LEFT JOIN {_READINGS} t ON {SAME_KEY} ORDER BY s.row"""
                )
            )
        return Found(
            present=stored["present"].to_numpy(),
            preliminary=stored["preliminary"].fill_null(False).to_numpy(),
            published_at_ms=stored["published_at_ms"].fill_null(0).to_numpy(),
            offset=stored["offset"].fill_null(0).to_numpy(),
            source=stored["source"].fill_null(""),
            data={name: _values(stored[place], rows.types[name]) for name, place in asked.items()},
        )

    def expire(self, dataset: str, before_ms: int) -> None:
        """Drop the readings of a dataset with a time before this; see `Store.expire`."""
        with self._file.writing() as connection:
            deleted = connection.execute(
                f'DELETE FROM {_READINGS} WHERE dataset = ? AND "timestamp" < make_timestamp_ms(?)',
                [dataset, before_ms],
            ).fetchall()[0][0]
            horizon = _frame(RETENTION, [(dataset, before_ms, _now_ms())])
            _upsert(connection, RETENTION, horizon, when='s."before" > t."before"')
        if deleted >= _ROW_GROUP:
            self._file.checkpoint()

    def horizons(self) -> dict[str, int]:
        """By dataset, the time before which readings were dropped [ms]."""
        return dict(self._rows(f'SELECT dataset, epoch_ms("before") FROM {table_name(RETENTION)}'))

    # ----------------------------------------------------------------------- dead letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one that is there already stays as it is."""
        if not letters:
            return
        dead_at_ms = _now_ms()
        letters_frame = _frame(DEAD_LETTERS, [row_of(letter, dead_at_ms) for letter in letters])
        with self._file.writing() as connection:
            _upsert(connection, DEAD_LETTERS, letters_frame.unique(DEAD_LETTERS.key, keep="first"))

    def dead_offsets(self, topic: str, partition: int) -> set[int]:
        """The offsets of the partition that are in the dead-letter table."""
        sql = f'SELECT "offset" FROM {_DEAD_LETTERS} WHERE topic = ? AND "partition" = ?'
        return {offset for (offset,) in self._rows(sql, [topic, partition])}

    def dead_letters(
        self, *, limit: int | None = None, position: tuple[str, int, int] | None = None
    ) -> list[tuple[DeadLetter, int]]:
        """Dead letters, newest first, each with the time at which it was buried [ms]."""
        where = 'WHERE topic = ? AND "partition" = ? AND "offset" = ?' if position else ""
        rows = self._rows(
            f"""SELECT {", ".join(map(_read, DEAD_LETTERS.columns))}
            FROM {_DEAD_LETTERS} {where}
            ORDER BY dead_at DESC, published_at DESC, "offset" DESC LIMIT ?""",
            [*(position or ()), limit],
        )
        return list(map(letter_of, rows))

    def mark_retried(self, letters: Sequence[tuple[DeadLetter, int]], at_ms: int) -> None:
        """Note when dead letters were published again; see `Store.mark_retried`."""
        retried = [
            row_of(replace(letter, retried_at_ms=at_ms), dead_at_ms)
            for letter, dead_at_ms in letters
        ]
        with self._file.writing() as connection:
            _upsert(connection, DEAD_LETTERS, _frame(DEAD_LETTERS, retried), when="true")

    # ------------------------------------------------------------------------ bookkeeping

    def describe(self, entries: Sequence[Description]) -> None:
        """Keep what the variables of datasets are; the newest description of each stays."""
        if not entries:
            return
        news = _frame(DATASETS, [(e.dataset, e.variable, e.unit, e.description) for e in entries])
        changed = "s.unit <> t.unit OR s.description <> t.description"
        with self._file.writing() as connection:
            _upsert(connection, DATASETS, news.unique(DATASETS.key, keep="last"), when=changed)

    def record(self, rows: Sequence[PipelineRow]) -> None:
        """Append to `demo.pipeline`."""
        names = [column.name for column in PIPELINE.columns[1:]]
        values = [(row.time_ms, *(getattr(row, name) for name in names)) for row in rows]
        if rows:
            with self._file.writing() as connection:
                _upsert(connection, PIPELINE, _frame(PIPELINE, values))

    # ---------------------------------------------------------------------------- normals

    def years(self) -> dict[str, list[int]]:
        """By dataset, the years of whose days there are readings, ascending."""
        return dict(
            self._rows(
                f"""SELECT dataset, list_sort(list(DISTINCT year("timestamp"))) FROM {_READINGS}
                GROUP BY dataset ORDER BY dataset"""
            )
        )

    def history(
        self,
        dataset: str,
        names: Sequence[str],
        start_ms: int,
        end_ms: int,
        *,
        rows: int = HISTORY_ROWS,
    ) -> Iterator[History]:
        """The readings of a dataset, cell after cell: see `Store.history`.

        Each part is a look through the dataset's readings, and a transaction of its own.
        """
        asked = f"""FROM {_READINGS}
            WHERE dataset = ? AND "timestamp" >= make_timestamp_ms(?)
                AND "timestamp" < make_timestamp_ms(?) AND cell"""
        known = [dataset, start_ms, end_ms]

        def counted(after: str) -> list[tuple[Any, ...]]:
            sql = f"SELECT cell, count(*) {asked} > ? GROUP BY cell ORDER BY cell LIMIT ?"
            return self._rows(sql, [*known, after, CELLS_AT_ONCE])

        for first, last in ranges(counted, rows):
            with self._file.reading() as connection:
                stored = self._stored_fields(connection)
                fields = [
                    f"{f'data.{quoted(name)}' if stored.get(name) == 'number' else 'NULL'}::DOUBLE "
                    f"AS field{place}"
                    for place, name in enumerate(names)
                ]
                chosen = ", ".join(["cell", 'epoch_ms("timestamp") AS time_ms', *fields])
                found = pl.DataFrame(
                    connection.sql(
                        f"SELECT {chosen} {asked} BETWEEN ? AND ?", params=[*known, first, last]
                    )
                )
            yield History(
                first=first,
                last=last,
                cell=found["cell"],
                time_ms=found["time_ms"].to_numpy(),
                data={
                    name: _values(found[f"field{place}"], "number")
                    for place, name in enumerate(names)
                },
            )

    def keep_normals(self, normals: Normals) -> None:
        """Keep what is normal, in one transaction; see `Store.keep_normals`."""
        kinds = {column.name: _FRAME_TYPES[column.kind] for column in NORMALS.columns}
        values = {name: getattr(normals, name) for name in kinds}
        incoming = pl.DataFrame(
            {
                name: pl.repeat(value, len(normals), eager=True)
                if isinstance(value, str)
                else pl.Series(value, dtype=kinds[name])
                for name, value in values.items()
            }
        ).fill_nan(None)
        with self._file.writing() as connection:
            connection.execute(
                f"DELETE FROM {table_name(NORMALS)} "
                "WHERE dataset = ? AND variable = ? AND cell BETWEEN ? AND ?",
                [normals.dataset, normals.variable, normals.first, normals.last],
            )
            connection.register("incoming", ArrowStream(incoming))
            connection.execute(f"INSERT INTO {table_name(NORMALS)} SELECT * FROM incoming")

    def keep_places(self, places: Sequence[Place]) -> None:
        """Keep cities; one that is there already gets its inhabitants anew."""
        if not places:
            return
        with self._file.writing() as connection:
            incoming = _frame(PLACES, list(places))
            _upsert(connection, PLACES, incoming, when="s.population <> t.population")

    # ---------------------------------------------------------------------------- queries

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        """Answer a panel's query; see `Store.query`.

        Reads the tables of the file and nothing else: one SELECT or EXPLAIN, in a transaction
        that can't write, without access to other files. A parameter that is a time is an aware
        datetime or ISO text.
        """
        with self._file.reading() as connection:
            try:
                check_reads(connection, sql)
                relation = connection.sql(sql, params=[parameter(value) for value in parameters])
                conversions = [conversion(kind) for kind in relation.types]
                columns, rows = tuple(relation.columns), relation.fetchall()
            except (duckdb.IOException, duckdb.FatalException, duckdb.InterruptException):
                raise
            except duckdb.Error as error:
                raise StoreError(f"the query can't be answered: {words_of(error)}") from error
        if rows and any(conversions):
            by_column = [
                convert(values) if convert else values
                for convert, values in zip(conversions, zip(*rows, strict=True), strict=True)
            ]
            rows = list(zip(*by_column, strict=True))
        return Answer(columns, rows)

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._file.reading() as connection:
            return connection.execute(sql, list(parameters)).fetchall()


# --------------------------------------------------------------------------------- refusals


def _refused(
    columns: Mapping[str, pl.Series],
    types: Mapping[str, FieldType],
    stored: Mapping[str, FieldType],
) -> dict[int, str]:
    """By row, why a table with these fields can't take it."""
    refused: dict[int, str] = {}
    for name, values in columns.items():
        expected = stored.get(name, types[name])
        if not name:
            error = "a field without a name can't be kept in a DuckDB file: give it one"
        elif expected != types[name]:
            error = f"the field {name!r} is a {types[name]}, expected a {expected} as stored before"
        else:
            continue
        refused.update(dict.fromkeys(values.is_not_null().arg_true().to_list(), error))
    return refused | _clashing(columns, stored, refused)


def _clashing(
    columns: Mapping[str, pl.Series], stored: Iterable[str], refused: Collection[int]
) -> dict[int, str]:
    """By row not refused, which of its fields is another's name but for the case of its letters.

    The first row to name either of two such fields settles which of them the table has.
    """
    owners = {_caseless(name): name for name in stored}
    alike: dict[bytes, set[str]] = {}
    for name in columns:
        alike.setdefault(_caseless(name), {owners.get(_caseless(name), name)}).add(name)
    suspects = [name for name in columns if len(alike[_caseless(name)]) > 1]
    clashing: dict[int, str] = {}
    named = np.array([columns[name].is_not_null().to_numpy() for name in suspects], dtype=bool)
    for row in np.flatnonzero(named.any(axis=0)).tolist():
        if row in refused:
            continue
        claimed = dict(owners)
        for name in np.compress(named[:, row], suspects).tolist():
            other = claimed.setdefault(_caseless(name), name)
            if other != name:
                clashing[row] = (
                    f"the field {name!r} differs from {other!r} in the case of its letters only, "
                    "which a DuckDB file can't tell apart: give it another name"
                )
                break
        else:
            owners = claimed
    return clashing


def _caseless(name: str) -> bytes:
    """What DuckDB compares names by: the letters A to Z as small ones, all others as they are."""
    return name.encode().lower()


# ------------------------------------------------------------------------------ small tables


def _frame(table: Table, rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of a table, with its columns in its order; times in ms."""
    schema = {column.name: _FRAME_TYPES[column.kind] for column in table.columns}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _upsert(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    incoming: pl.DataFrame,
    when: str | None = None,
) -> None:
    """Add the rows whose key the table lacks; replace those for which `when` holds."""
    names = [quoted(name) for name in incoming.columns]
    same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in table.key) or "false"
    replaced = ", ".join(f"{name} = s.{name}" for name in names)
    connection.register("incoming", ArrowStream(incoming))
    connection.execute(
        f"""MERGE INTO {table_name(table)} t USING incoming s ON {same}
        {f"WHEN MATCHED AND ({when}) THEN UPDATE SET {replaced}" if when else ""}
        WHEN NOT MATCHED THEN INSERT ({", ".join(names)}) VALUES (s.{", s.".join(names)})"""
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _read(column: Column) -> str:
    """A column as statements read it: times in ms."""
    name = quoted(column.name)
    return f"epoch_ms({name})" if column.kind == "time" else name


# ------------------------------------------------------------------------------ answers


def _values(stored: pl.Series, kind: FieldType) -> Any:
    """A field's column as `Found` has it."""
    if kind == "number":
        return stored.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return stored.to_list()
