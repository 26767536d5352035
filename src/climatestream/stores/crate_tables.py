"""The tables in CrateDB: their DDL, the users that use them, and what differs where they exist.

Nothing that exists is changed: a table with other settings is reported, a user keeps its
password. Grants are given again, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from climatestream.errors import StoreError
from climatestream.model import FieldType
from climatestream.stores.crate_errors import RequestRefused, Verdict
from climatestream.stores.crate_http import CrateHttp
from climatestream.stores.schema import (
    DEAD_LETTERS,
    FIELDS,
    READINGS,
    TABLES,
    Column,
    Kind,
    Table,
    quoted,
)

FIELD_TYPES: Final[dict[FieldType, str]] = {
    "number": "double precision",
    "text": "text",
    "boolean": "boolean",
}
"""By the type of a field of `data`, what CrateDB calls the type of its column."""

SHARDS: Final = 2
"""Shards of a year's partition; a node holds 1,000 by default."""

_TYPES: Final[dict[Kind, str]] = {
    "text": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "time": "timestamp with time zone",
    "point": "geo_point",
    "fields": "object",
    "document": "text",
}

_STORED_ONLY: Final = " INDEX OFF STORAGE WITH (columnstore = false)"
"""An ordinary text ends at 32,766 bytes; one that is only kept, at 20 million characters, which
the server's JSON parser takes."""

_BASE64_OF_ANY_SIZE: Final = {(DEAD_LETTERS.name, "key")}

_ALWAYS_THERE: Final = ("preliminary", "published_at", "source", "offset")
"""What the rank is made of: the merge compares them without asking for null."""

_USER_EXISTS: Final = "RoleAlreadyExistsException"


Columns: TypeAlias = dict[str, dict[tuple[str, ...], str]]
"""By table the types of its columns, each as a path: `("data", "temperature")`."""


@dataclass(frozen=True)
class User:
    """A user of the database, with the password that it is made with."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Setup:
    """What `init` did: names of tables and users, and sentences about what differs."""

    created: tuple[str, ...]
    existing: tuple[str, ...]
    different: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """A schema as one user finds it.

    Parameters
    ----------
    version
        The server's own word.
    lacking
        Tables that are not there, or not to be seen.
    different
        Sentences about columns that are others than needed.
    rights
        By table, what the user may do: of `RIGHTS`.
    blocked
        Tables, and years of the readings, that take no writes.
    red
        Tables with missing shards; empty too where the user may not ask.
    readings
        Their count; None where it can't be asked for.
    """

    version: str
    lacking: tuple[str, ...]
    different: tuple[str, ...]
    rights: dict[str, frozenset[str]]
    blocked: tuple[str, ...]
    red: tuple[str, ...]
    readings: int | None


RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def table_name(schema: str, table: Table) -> str:
    """The table as statements name it."""
    return f"{quoted(schema)}.{quoted(table.name)}"


def partition_column(table: Table) -> Column | None:
    """The column that the table is partitioned by; its values are made of another's."""
    return next((column for column in table.columns if column.generated), None)


def primary_key(table: Table) -> tuple[str, ...]:
    """The columns of the key; CrateDB wants the partition column among them."""
    partition = partition_column(table)
    return (*table.key, partition.name) if partition and table.key else table.key


# ------------------------------------------------------------------------------------ init


@dataclass(frozen=True)
class Tables:
    """The tables of a schema.

    Parameters
    ----------
    http
        Open, as a user who may create tables and, where there are any, users.
    schema
        Made by CrateDB with its first table.
    """

    http: CrateHttp
    schema: str

    def init(
        self,
        *,
        shards: int = SHARDS,
        replicas: str | None = None,
        refresh_interval_ms: int | None = None,
        writer: User | None = None,
        reader: User | None = None,
    ) -> Setup:
        """Make what is missing.

        Parameters
        ----------
        shards
            Of each year's partition of the readings; the tables beside have one shard.
        replicas
            As CrateDB takes it: `1`, `0-1`, `0-all`; None: what the server gives a new table.
        refresh_interval_ms
            After which time a written reading is seen by queries; CrateDB takes whole seconds, or
            less than one. None: as `replicas`.
        writer
            Who may read and write the tables, and change none of them.
        reader
            Who may read them: Grafana.

        Raises
        ------
        StoreError
            The user may not, or a name or password is not one.
        """
        settings = {"number_of_replicas": replicas, "refresh_interval": refresh_interval_ms}
        given = {name: str(value) for name, value in settings.items() if value is not None}
        existing = self.columns()
        created = [table for table in TABLES if table.name not in existing]
        for table in created:
            self.http.sql(self._ddl(table, shards if table is READINGS else 1, given))
        names = [f"{self.schema}.{table.name}" for table in created]
        different = [
            *self._different_columns(existing),
            *self._different_settings(shards, given, {table.name for table in created}),
        ]
        users = [(user, rights) for user, rights in ((writer, "DQL, DML"), (reader, "DQL")) if user]
        new_users = [user.name for user, rights in users if self._allow(user, rights)]
        different += [
            f"user {user.name} existed: its password is as it was"
            for user, _ in users
            if user.name not in new_users
        ]
        kept = [f"{self.schema}.{table.name}" for table in TABLES if table.name in existing]
        kept += [user.name for user, _ in users if user.name not in new_users]
        return Setup((*names, *new_users), tuple(kept), tuple(different))

    def drop(self, *, users: Sequence[str] = ()) -> None:
        """Drop the tables with all that is in them, and these users, where they exist."""
        for table in TABLES:
            self.http.sql(f"DROP TABLE IF EXISTS {table_name(self.schema, table)}")
        for user in users:
            self.http.sql(f"DROP USER IF EXISTS {quoted(user)}")

    def columns(self) -> Columns:
        """The columns of the tables that the user has a right on."""
        rows = self.http.sql(
            """SELECT table_name, column_details['name'], column_details['path'], data_type
            FROM information_schema.columns WHERE table_schema = ?""",
            [self.schema],
        )["rows"]
        found: Columns = {}
        for table, name, path, kind in rows:
            found.setdefault(table, {})[name, *path] = kind
        return found

    def check(self) -> None:
        """See that the tables are there, with the columns that they need.

        Raises
        ------
        StoreError
            Something is missing: what, and how to make it.
        """
        found = self.columns()
        missing = [table.name for table in TABLES if table.name not in found]
        place = self.http.address
        if missing:
            raise StoreError(
                f"{place} lacks the tables {', '.join(missing)}, or {place.user} has no rights on "
                f"them: make them with `climatestream store init --store '{place}'`"
            )
        problems = list(self._different_columns(found))
        if problems:
            raise StoreError(
                f"{place} has tables of another version of climatestream: {'; '.join(problems)}; "
                "drop them, or name another schema"
            )

    def state(self) -> State:
        """What there is, and what this user may do with it; nothing is changed."""
        [[version]] = self.http.sql("SELECT version()")["rows"]
        found = self.columns()
        lacking = tuple(table.name for table in TABLES if table.name not in found)
        rights = self._rights(found.keys())
        readable = "SELECT" in rights.get(READINGS.name, ())
        return State(
            version=str(version).partition(" (")[0],
            lacking=lacking,
            different=tuple(self._different_columns(found)),
            rights=rights,
            blocked=tuple(self._blocked()),
            red=tuple(self._red()),
            readings=self._count() if readable else None,
        )

    def _rights(self, tables: Collection[str]) -> dict[str, frozenset[str]]:
        names = [table.name for table in TABLES if table.name in tables]
        if not names:
            return {}
        asked = [f"{self.schema}.{name}" for name in names for _ in RIGHTS]
        may = self.http.sql(
            f"SELECT {', '.join('has_table_privilege(?, ?)' for _ in asked)}",
            [word for place in zip(asked, RIGHTS * len(names), strict=True) for word in place],
        )["rows"][0]
        rights: dict[str, set[str]] = {name: set() for name in names}
        for place, right, allowed in zip(asked, RIGHTS * len(names), may, strict=True):
            if allowed:
                rights[place.removeprefix(f"{self.schema}.")].add(right)
        return {name: frozenset(of) for name, of in rights.items()}

    def _blocked(self) -> Iterator[str]:
        """Tables that take no writes, and partitions, by their year."""
        for what, name in (("tables", "NULL"), ("table_partitions", "values['year']")):
            rows = self.http.sql(
                f"""SELECT table_name, {name}, settings['blocks']
                FROM information_schema.{what} WHERE table_schema = ? ORDER BY 1, 2""",  # noqa: S608
                [self.schema],
            )["rows"]
            for table, year_ms, blocks in rows:
                on = [block for block in _WRITE_BLOCKS if (blocks or {}).get(block)]
                if on:
                    year = "" if year_ms is None else f" ({_year(year_ms)})"
                    yield f"{table}{year}: blocks.{', blocks.'.join(on)}"

    def _red(self) -> list[str]:
        try:
            rows = self.http.sql(
                "SELECT DISTINCT table_name FROM sys.health WHERE table_schema = ? AND health = ?",
                [self.schema, "RED"],
                any_table=True,
            )["rows"]
        except RequestRefused as error:  # without a right on `sys` there is no such schema
            if error.verdict in (Verdict.MISSING, Verdict.DENIED):
                return []
            raise
        return sorted(name for (name,) in rows)

    def _count(self) -> int:
        name = table_name(self.schema, READINGS)
        [[count]] = self.http.sql(f"SELECT count(*) FROM {name}")["rows"]  # noqa: S608 - our table
        return int(count)

    # ---------------------------------------------------------------------------- pieces

    def _ddl(self, table: Table, shards: int, settings: dict[str, str]) -> str:
        key, partition = primary_key(table), partition_column(table)
        declared = [_declared(table, column) for column in table.columns]
        if key:
            declared.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
        return (
            f"CREATE TABLE IF NOT EXISTS {table_name(self.schema, table)} ({', '.join(declared)}) "
            f"CLUSTERED INTO {shards:d} SHARDS"
            + (f" PARTITIONED BY ({quoted(partition.name)})" if partition else "")
            + _with(settings)
        )

    def _different_columns(self, found: Columns) -> Iterator[str]:
        """How the tables that exist differ from those that are needed."""
        for table in TABLES:
            columns = found.get(table.name)
            if columns is None:
                continue
            wanted: dict[tuple[str, ...], str] = {
                (column.name,): _TYPES[column.kind] for column in table.columns
            }
            if table is READINGS:
                wanted |= {("data", name): FIELD_TYPES[kind] for name, kind in FIELDS.items()}
            for path, kind in wanted.items():
                got = columns.get(path, "missing")
                if got != kind:
                    name = ".".join([self.schema, table.name, *path])
                    yield f"{name} is {got}, expected {kind}"

    def _different_settings(
        self, shards: int, given: dict[str, str], created: set[str]
    ) -> Iterator[str]:
        rows = self.http.sql(
            """SELECT table_name, number_of_shards, number_of_replicas,
                settings['refresh_interval']
            FROM information_schema.tables WHERE table_schema = ? ORDER BY table_name""",
            [self.schema],
        )["rows"]
        for table, has_shards, has_replicas, refresh in rows:
            if table in created or table not in {table.name for table in TABLES}:
                continue
            settings = {"number_of_replicas": has_replicas, "refresh_interval": refresh}
            pairs = [(name, settings[name], value) for name, value in given.items()]
            if table == READINGS.name:
                pairs.append(("number_of_shards", has_shards, str(shards)))
            for name, got, wanted in pairs:
                if str(got) != wanted:
                    yield f"{self.schema}.{table} has {name} {got}, not {wanted}: left as it is"

    def _allow(self, user: User, rights: str) -> bool:
        """Make the user if it is not there, and give it its rights; whether it is new."""
        name = quoted(user.name)
        new = True
        try:
            self.http.sql(f"CREATE USER {name} WITH (password = ?)", [user.password])
        except RequestRefused as error:
            if _USER_EXISTS not in str(error):
                raise
            new = False
        tables = ", ".join(table_name(self.schema, table) for table in TABLES)
        self.http.sql(f"GRANT {rights} ON TABLE {tables} TO {name}")
        return new


_WRITE_BLOCKS: Final = ("read_only", "read_only_allow_delete", "write")


def _year(time_ms: int) -> int:
    return datetime.fromtimestamp(time_ms / 1000, UTC).year


def _declared(table: Table, column: Column) -> str:
    kind = _TYPES[column.kind].upper()
    if column.kind == "fields":
        fields = (f"{quoted(name)} {FIELD_TYPES[of].upper()}" for name, of in FIELDS.items())
        kind = f"OBJECT(DYNAMIC) AS ({', '.join(fields)})"
    if column.kind == "document" or (table.name, column.name) in _BASE64_OF_ANY_SIZE:
        kind += _STORED_ONLY
    if column.generated:
        kind += f" GENERATED ALWAYS AS {column.generated}"
    if table is READINGS:
        if column.name == "stored_at":
            kind += " DEFAULT now()"
        if column.name in _ALWAYS_THERE:
            kind += " NOT NULL"
    return f"{quoted(column.name)} {kind}"


def _with(settings: dict[str, str]) -> str:
    if not settings:
        return ""
    values = ", ".join(
        f"{name} = {_literal(value + _UNITS.get(name, ''))}" for name, value in settings.items()
    )
    return f" WITH ({values})"


_UNITS: Final = {"refresh_interval": "ms"}


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
