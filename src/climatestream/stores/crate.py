"""A store in CrateDB, over its HTTP endpoint: what `crate://user@host:port/schema` names.

Delivery: as `Store` says; a row that the server has answered for is in its log on disk. Rows of
one call become visible to queries one by one, within the table's refresh interval (1 s): `query`
may see less than was written, while `find` and the dead letters see all of it.

It imports nothing heavier than orjson, for the Lambda handler.
"""

# ruff: noqa: S608 - SQL is put together of our own tables' names and of quoted() field names

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import DeadLetter, FieldType, History
from climatestream.ports import HISTORY_ROWS, Answer, Found, Refusal
from climatestream.stores.cells import CELLS_AT_ONCE, ranges
from climatestream.stores.crate_address import Address
from climatestream.stores.crate_errors import (
    LATER,
    classify,
    words,
)
from climatestream.stores.crate_http import CrateHttp, body
from climatestream.stores.crate_lookup import LookUp
from climatestream.stores.crate_merge import (
    DATA,
    REQUEST_BYTES,
    REQUEST_ROWS,
    Merge,
    field_of,
    keys_of,
    parameters,
)
from climatestream.stores.crate_query import query
from climatestream.stores.crate_tables import (
    FIELD_TYPES,
    SHARDS,
    Setup,
    State,
    Tables,
    User,
    table_name,
)
from climatestream.stores.letter_rows import letter_of, row_of
from climatestream.stores.schema import (
    DATASETS,
    DEAD_LETTERS,
    NORMALS,
    PIPELINE,
    PLACES,
    READINGS,
    RETENTION,
    Table,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from climatestream.model import Normals, Place, Rows
    from climatestream.ports import Description, PipelineRow

_TYPES_OF_COLUMNS: Final = {column: kind for kind, column in FIELD_TYPES.items()}


HISTORY_REQUEST_ROWS: Final = 50_000
"""Readings of a history that are asked for at once [readings]; an answer is some 5 MB of JSON."""


class CrateStore:
    """A schema on a CrateDB server, whose tables `init` has made.

    Parameters
    ----------
    address
        Where it is, and as whom to go there.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http = CrateHttp(address)
        self._tables = Tables(self._http, address.schema)
        self._look_up = LookUp(self._http, address.schema)
        self._merge = Merge(self._http, address.schema, self._fields)
        self._columns: dict[str, str] = {}

    def open(self) -> Self:
        """Connect, and see that the tables are there.

        Raises
        ------
        StoreError
            The server refuses the user, or lacks the tables, or has others.
        StoreUnavailable
            The server does not answer.
        """
        self._http.open()
        try:
            self._tables.check()
            self._columns = self._fields()
            self._http.tables_were_there = True
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Let the connections go. Whatever was answered is stored."""
        self._merge.close()
        self._http.close()

    def answer_by(self, moment: float | None) -> None:
        """Let calls fail as unavailable that are not answered then, by `time.monotonic`."""
        self._http.answer_by = moment

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ----------------------------------------------------------------------------- tables

    def init(
        self,
        *,
        shards: int = SHARDS,
        replicas: str | None = None,
        refresh_interval_ms: int | None = None,
        writer: User | None = None,
        reader: User | None = None,
    ) -> Setup:
        """Make the tables, users and grants that are missing; the store is not open.

        See `Tables.init`.
        """
        self._http.open()
        try:
            return self._tables.init(
                shards=shards,
                replicas=replicas,
                refresh_interval_ms=refresh_interval_ms,
                writer=writer,
                reader=reader,
            )
        finally:
            self._http.close()

    def state(self) -> State:
        """What there is, and what this user may do with it; the store is not open."""
        self._http.open()
        try:
            return self._tables.state()
        finally:
            self._http.close()

    def drop(self, *, users: Sequence[str] = ()) -> None:
        """Drop the tables with all that is in them, and these users; the store is not open."""
        self._http.open()
        try:
            self._tables.drop(users=users)
        finally:
            self._http.close()

    # --------------------------------------------------------------------------- readings

    def write(self, rows: Rows) -> list[Refusal]:
        """Store rows: see `Store.write`.

        Refused, for good, is a row with a field of another type than the table's (CrateDB itself
        would make a text of a number without a word), and one that the server refuses: with too
        long a text, an impossible name, or more fields than a table may have.
        """
        if not len(rows):
            return []
        keys = keys_of(rows)
        ready = parameters(rows)
        named = {name for name in rows.data if any(name in row[DATA] for row in ready)}
        news = named - self._columns.keys()
        if news:
            self._columns = self._fields()
        refused = self._clashing(rows, ready, named)
        kept = {row: values for row, values in enumerate(ready) if row not in refused}
        try:
            refused |= self._merge(kept, keys, self._columns.keys())
        except StoreUnavailable:
            self._columns = {}  # asked for anew: the table may be another one by then
            raise
        if news - self._columns.keys():
            # Another writer may have stored one of them at the same moment, as another type.
            self._columns = self._fields()
            refused = self._clashing(rows, ready, news) | refused
        return [refusal for _, refusal in sorted(refused.items())]

    def _clashing(
        self, rows: Rows, ready: Sequence[tuple[Any, ...]], names: set[str]
    ) -> dict[int, Refusal]:
        """By row, the field of it that the table has with another type."""
        refused: dict[int, Refusal] = {}
        for name in names & self._columns.keys():
            stored, mine = self._columns[name], rows.types[name]
            if stored == FIELD_TYPES[mine]:
                continue
            expected = _TYPES_OF_COLUMNS.get(stored, stored)
            error = f"the field {name!r} is {mine}, expected {expected}, as stored before"
            refused.update(
                (row, Refusal(row, False, error))
                for row, values in enumerate(ready)
                if name in values[DATA]
            )
        return refused

    def _fields(self) -> dict[str, str]:
        """By field of `data`, CrateDB's type of it."""
        columns = self._tables.columns().get(READINGS.name)
        if columns is None:
            raise StoreUnavailable(
                f"{self.address} does not show its table {READINGS.name}: it may be starting, or "
                f"the table was dropped; `climatestream store init --store '{self.address}'` "
                "makes it again"
            )
        return {
            path[1]: kind for path, kind in columns.items() if len(path) == 2 and path[0] == "data"
        }

    def field_types(self) -> dict[str, FieldType]:
        """The types that hold now, whoever stored them.

        A field with a type that is none of ours, made by another program, is not among them;
        `write` refuses rows that name it.
        """
        self._columns = self._fields()
        return {
            name: _TYPES_OF_COLUMNS[kind]
            for name, kind in self._columns.items()
            if kind in _TYPES_OF_COLUMNS
        }

    def find(self, rows: Rows) -> Found:
        """What is stored for the keys of these rows: see `Store.find`.

        Refreshes the table first, which costs milliseconds where nothing was written, and up to
        a second where much was.
        """
        keys = keys_of(rows)
        if rows.data.keys() - self._columns.keys():
            self._columns = self._fields()
        names = [name for name in rows.data if name in self._columns]
        rank = ["preliminary", "published_at", '"offset"', "source"]
        self._look_up.refresh()
        stored = self._look_up(set(keys), [*rank, *map(field_of, names)]) if keys else {}
        nothing = (False, 0, 0, "", *[None] * len(names))
        found = [stored.get(key, nothing) for key in keys]
        preliminary, published_at_ms, offset, source, *fields = (
            map(list, zip(*found, strict=True)) if found else ([] for _ in nothing)
        )
        columns = dict(zip(names, fields, strict=True))
        missing = [None] * len(keys)
        return Found(
            present=[key in stored for key in keys],
            preliminary=preliminary,
            published_at_ms=published_at_ms,
            offset=offset,
            source=source,
            data={
                name: _numbers(columns.get(name, missing))
                if rows.types[name] == "number"
                else columns.get(name, missing)
                for name in rows.data
            },
        )

    def expire(self, dataset: str, before_ms: int) -> None:
        """Drop the readings of a dataset with a time before this; see `Store.expire`.

        A year that lies before it and holds no other dataset is dropped as a whole, which costs
        nothing; of others, row by row. (Another dataset's first reading of such a year, written
        in the milliseconds between the look and the drop, would go with it.)
        """
        self._keep(
            RETENTION,
            [(dataset, before_ms, _now_ms())],
            # `greatest` in both keeps a lower horizon from lowering what is remembered.
            set_={
                "set_at": "CASE WHEN excluded.before > before THEN excluded.set_at ELSE set_at END",
                "before": "greatest(excluded.before, before)",
            },
        )
        self._look_up.refresh()
        readings = table_name(self.address.schema, READINGS)
        for year_ms in self._years():
            if _next_year_ms(year_ms) > before_ms:
                continue
            others = self._http.sql(
                f'SELECT 1 FROM {readings} WHERE "year" = ? AND dataset <> ? LIMIT 1',
                [year_ms, dataset],
            )
            if not others["rows"]:
                self._http.sql(f'DELETE FROM {readings} WHERE "year" = ?', [year_ms])
        self._http.sql(
            f'DELETE FROM {readings} WHERE dataset = ? AND "timestamp" < ?', [dataset, before_ms]
        )

    def _years(self) -> list[int]:
        """The partitions of the readings: when their years began [ms]."""
        rows = self._http.sql(
            """SELECT values['year'] FROM information_schema.table_partitions
            WHERE table_schema = ? AND table_name = ?""",
            [self.address.schema, READINGS.name],
        )["rows"]
        return sorted(int(value) for (value,) in rows)

    def horizons(self) -> dict[str, int]:
        """By dataset, the time before which readings were dropped [ms]."""
        return dict(self._fresh(RETENTION, 'SELECT dataset, "before" FROM {table}'))

    # ----------------------------------------------------------------------- dead letters

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one that is there already stays as it is."""
        dead_at_ms = _now_ms()
        self._keep(DEAD_LETTERS, [row_of(letter, dead_at_ms) for letter in letters])

    def dead_offsets(self, topic: str, partition: int) -> set[int]:
        """The offsets of the partition that are in the dead-letter table."""
        sql = 'SELECT "offset" FROM {table} WHERE topic = ? AND "partition" = ?'
        return {offset for (offset,) in self._fresh(DEAD_LETTERS, sql, topic, partition)}

    def dead_letters(
        self, *, limit: int | None = None, position: tuple[str, int, int] | None = None
    ) -> list[tuple[DeadLetter, int]]:
        """Dead letters, newest first, each with the time at which it was buried [ms]."""
        where = 'WHERE topic = ? AND "partition" = ? AND "offset" = ?' if position else ""
        rows = self._fresh(
            DEAD_LETTERS,
            f"""SELECT {", ".join(quoted(column.name) for column in DEAD_LETTERS.columns)}
            FROM {{table}} {where}
            ORDER BY dead_at DESC, published_at DESC, "offset" DESC
            {"" if limit is None else "LIMIT ?"}""",
            *(position or ()),
            *(() if limit is None else (limit,)),
        )
        return list(map(letter_of, rows))

    def mark_retried(self, letters: Sequence[tuple[DeadLetter, int]], at_ms: int) -> None:
        """Note when dead letters were published again; see `Store.mark_retried`."""
        table = table_name(self.address.schema, DEAD_LETTERS)
        key = " AND ".join(f"{quoted(name)} = ?" for name in DEAD_LETTERS.key)
        self._run(
            DEAD_LETTERS,
            f"UPDATE {table} SET retried_at = ? WHERE {key}",
            [
                (at_ms, letter.topic, letter.partition, letter.offset, letter.published_at_ms)
                for letter, _ in letters
            ],
        )

    # ------------------------------------------------------------------------ bookkeeping

    def describe(self, entries: Sequence[Description]) -> None:
        """Keep what the variables of datasets are; the newest description of each stays."""
        rows = [(e.dataset, e.variable, e.unit, e.description) for e in entries]
        newest = {name: f"excluded.{name}" for name in ("unit", "description")}
        self._keep(DATASETS, rows, set_=newest)

    def record(self, rows: Sequence[PipelineRow]) -> None:
        """Append to `demo.pipeline`; after StoreUnavailable rows may be there twice."""
        names = [column.name for column in PIPELINE.columns[1:]]
        values = [(row.time_ms, *(getattr(row, name) for name in names)) for row in rows]
        self._keep(PIPELINE, values)

    def _keep(
        self,
        table: Table,
        rows: Sequence[tuple[Any, ...]],
        set_: dict[str, str] | None = None,
    ) -> None:
        """Add rows, whole, to a table beside the readings; set columns where the key is there."""
        columns = ", ".join(quoted(column.name) for column in table.columns)
        places = ", ".join("?" * len(table.columns))
        statement = (
            f"INSERT INTO {table_name(self.address.schema, table)} ({columns}) VALUES ({places})"
        )
        if set_:
            key = ", ".join(map(quoted, table.key))
            sets = ", ".join(f"{quoted(name)} = {value}" for name, value in set_.items())
            statement += f" ON CONFLICT ({key}) DO UPDATE SET {sets}"
        elif table.key:
            statement += " ON CONFLICT DO NOTHING"
        self._run(table, statement, rows)

    def _run(self, table: Table, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement for each of these rows of a table beside the readings.

        Raises
        ------
        StoreUnavailable
            Some rows were not stored now.
        StoreError
            The server will not store one of them.
        """
        for request in _requests(statement, rows):
            for result in self._http.send(request)["results"]:
                if result["rowcount"] < 0:
                    raise self._not_kept(table, result.get("error"))

    def _not_kept(self, table: Table, problem: dict[str, Any] | None) -> Exception:
        """What to raise for a row of a table beside the readings; the first has a reason."""
        code, message = (problem["code"], problem["message"]) if problem else (0, "no reason")
        said = f"{self.address} does not store a row of {table.name}: {code} {words(message)}"
        if classify("row", code, message) in LATER:
            return StoreUnavailable(said)
        return StoreError(said)

    def _fresh(self, table: Table, sql: str, *arguments: Any) -> list[list[Any]]:
        """Rows of a small table, with all that was written."""
        name = table_name(self.address.schema, table)
        self._http.refresh(name)
        rows: list[list[Any]] = self._http.sql(sql.format(table=name), arguments)["rows"]
        return rows

    # ---------------------------------------------------------------------------- normals

    def years(self) -> dict[str, list[int]]:
        """By dataset, the years of whose days there are readings, ascending."""
        rows = self._fresh(READINGS, 'SELECT DISTINCT dataset, "year" FROM {table} ORDER BY 1, 2')
        years: dict[str, list[int]] = {}
        for dataset, year_ms in rows:
            years.setdefault(dataset, []).append(_year(year_ms))
        return years

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

        A request is answered with `HISTORY_REQUEST_ROWS` readings at most, unless a single cell
        has more.
        """
        self._columns = self._fields()
        self._look_up.refresh()
        asked = f"""FROM {table_name(self.address.schema, READINGS)}
            WHERE dataset = ? AND "timestamp" >= ? AND "timestamp" < ? AND cell"""
        known = [dataset, start_ms, end_ms]

        def counted(after: str) -> list[list[Any]]:
            sql = f"SELECT cell, count(*) {asked} > ? GROUP BY cell ORDER BY cell LIMIT ?"
            found: list[list[Any]] = self._http.sql(sql, [*known, after, CELLS_AT_ONCE])["rows"]
            return found

        stored = [name for name in names if self._columns.get(name) == FIELD_TYPES["number"]]
        chosen = ", ".join(["cell", '"timestamp"', *map(field_of, stored)])
        for first, last in ranges(counted, min(rows, HISTORY_REQUEST_ROWS)):
            found = self._http.sql(
                f"SELECT {chosen} {asked} >= ? AND cell <= ?", [*known, first, last]
            )["rows"]
            cells, times, *fields = map(list, zip(*found, strict=True))
            columns = dict(zip(stored, fields, strict=True))
            yield History(
                first=first,
                last=last,
                cell=cells,
                time_ms=times,
                data={name: _numbers(columns.get(name) or [None] * len(times)) for name in names},
            )

    def keep_normals(self, normals: Normals) -> None:
        """Keep what is normal; see `Store.keep_normals`.

        After an error some of the normals before may be gone: the same call mends it.
        """
        table = table_name(self.address.schema, NORMALS)
        self._http.sql(f"REFRESH TABLE {table}")  # a DELETE sees what is visible
        self._http.sql(
            f"DELETE FROM {table} WHERE dataset = ? AND variable = ? AND cell >= ? AND cell <= ?",
            [normals.dataset, normals.variable, normals.first, normals.last],
        )
        columns = [
            [value] * len(normals) if isinstance(value, str) else _plain(value)
            for value in (getattr(normals, column.name) for column in NORMALS.columns)
        ]
        set_ = {
            column.name: f"excluded.{quoted(column.name)}"
            for column in NORMALS.columns
            if column.name not in NORMALS.key
        }
        self._keep(NORMALS, list(zip(*columns, strict=True)), set_=set_)

    def keep_places(self, places: Sequence[Place]) -> None:
        """Keep cities; one that is there already gets its inhabitants anew."""
        rows = [tuple(place) for place in places]  # orjson writes no named ones
        self._keep(PLACES, rows, set_={"population": "excluded.population"})

    # ---------------------------------------------------------------------------- queries

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        """Answer a panel's query; see `Store.query`.

        It sees what the last refresh made visible: up to a second ago. Only statements that read
        are sent; what the user may read, the server decides. `demo` is the store's own schema,
        whatever that is called.
        """
        return query(self._http, self.address.schema, sql, parameters)


def _numbers(values: list[Any]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def _plain(column: Any) -> list[Any]:
    """A column in any of its forms as a list of plain values."""
    if isinstance(column, list):
        return column
    # numpy's word for it, and polars'
    values: list[Any] = column.tolist() if hasattr(column, "tolist") else column.to_list()
    return values


def _requests(statement: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[bytes]:
    """Requests of a bulk statement, none of them too large if more than a row."""
    for start in range(0, len(rows), REQUEST_ROWS):
        yield from _sized(statement, rows[start : start + REQUEST_ROWS])


def _sized(statement: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[bytes]:
    request = body(statement, bulk=rows)
    if len(request) <= REQUEST_BYTES or len(rows) == 1:
        yield request
        return
    middle = len(rows) // 2
    yield from _sized(statement, rows[:middle])
    yield from _sized(statement, rows[middle:])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _next_year_ms(year_ms: int) -> int:
    """When the year after the one that began then begins [ms]."""
    return int(datetime(_year(year_ms) + 1, 1, 1, tzinfo=UTC).timestamp() * 1000)


def _year(time_ms: int) -> int:
    return datetime.fromtimestamp(time_ms / 1000, UTC).year
