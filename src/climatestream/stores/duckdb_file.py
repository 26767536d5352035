"""A DuckDB file as one process has it open: its lock, its limits, its transactions, its failures.

The file is attached under the fixed name `CATALOG` to a database in memory, so that `demo` in a
query is the schema and nothing else, whatever the file is called.
"""

# ruff: noqa: S608 - SQL is put together of our own tables' names and of quoted() field names

from __future__ import annotations

import os
import re
import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import duckdb
import psutil

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.stores.duckdb_functions import FUNCTIONS
from climatestream.stores.schema import READINGS, SCHEMA, TABLES, Column, Kind, Table, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CATALOG: Final = "climatestream"

MEMORY_LIMIT: Final = "100MB"
"""What DuckDB may hold in memory; larger sorts and joins go to a folder beside the file. The whole
pipeline over six global fields (2.2 million cells at a time) then peaks at 449 MB instead of the
541 MB of 160MB, in the same CPU time."""

CHECKPOINT_THRESHOLD: Final = "64MB"
"""Log that is written before DuckDB moves it into the file. With DuckDB's own 16 MB a new row takes
2.5 us instead of 1.5; 256 MB gains nothing more, and opening after a crash reads it all again."""

_DUCKDB_TYPES: Final[dict[Kind, str]] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMP",
    "point": "DOUBLE[2]",
    "document": "VARCHAR",
}

_SEARCH_PATH: Final = f"SET search_path = '{CATALOG}.main,memory.main'"

_MAGIC: Final = slice(8, 12)
"""Where a DuckDB file says `DUCK`: https://duckdb.org/docs/stable/internals/storage.html"""

_UNAVAILABLE: Final = (
    duckdb.IOException,  # the disk is full or has gone
    duckdb.TransactionException,  # the log could not be written
    duckdb.OutOfMemoryException,
    duckdb.FatalException,  # after one of these, until the file is opened again
    duckdb.InterruptException,  # the file is being opened again
)

# DuckDB has one type for every failure of the file; these words tell damage from a full disk.
_DAMAGED: Final = re.compile(r"corrupt|could not read enough bytes|checksum", re.IGNORECASE)


def table_name(table: Table) -> str:
    """The table as statements of the writer name it."""
    return f"{CATALOG}.{SCHEMA}.{quoted(table.name)}"


class DuckDBFile:
    """An open DuckDB file: one writer at a time, any number of readers beside it.

    Parameters
    ----------
    path
        The file; made if it is not there.
    memory_limit
        As DuckDB takes it: `100MB`.
    threads
        None: as many as there are cores.
    fields
        SQL of the type that a column of kind "fields" begins with.
    """

    def __init__(self, path: Path, *, memory_limit: str, threads: int | None, fields: str) -> None:
        self.path = path
        self._memory_limit = memory_limit
        self._threads = threads
        self._fields = fields
        self._root: duckdb.DuckDBPyConnection | None = None
        self._is_open = False
        self._doubtful = False
        self._writers = threading.RLock()
        self._guard = threading.Condition()
        self._readers: set[duckdb.DuckDBPyConnection] = set()

    def open(self) -> None:
        """Open the file, making it and its tables where they are missing.

        Raises
        ------
        StoreError
            Another process has it open, it is no file of ours, or it can't be written. It is
            as it was.
        StoreUnavailable
            The disk does not take it now.
        """
        with self._writers:
            self._check_path()
            self._connect()
            self._is_open, self._doubtful = True, False

    def close(self) -> None:
        """Move everything into the file and let it go. Queries under way are given up."""
        with self._writers:
            self._is_open = False
            if self._root is None:
                return
            with suppress(duckdb.Error):  # what is committed is in the log: the next open reads it
                self._root.execute(f"CHECKPOINT {CATALOG}")
            self._disconnect()

    def alone(self) -> AbstractContextManager[object]:
        """While it lasts, no other thread writes: several transactions are one piece of work."""
        return self._writers

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction of its own; leaving it commits, an error undoes it all.

        Raises
        ------
        StoreUnavailable
            Nothing of the transaction was kept, except where the failure came after the commit.
        """
        with self._writers:
            self._recover()
            connection = self._connected().cursor()
            try:
                connection.execute(_SEARCH_PATH)
                connection.begin()
                yield connection
                connection.commit()
            except duckdb.Error as error:
                self._raise_failure(error)
                raise
            finally:
                with suppress(duckdb.Error):
                    connection.rollback()
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that sees one state of the file and can't change it."""
        if self._doubtful:
            with self._writers:
                self._recover()
        with self._guard:
            connection = self._connected().cursor()
            self._readers.add(connection)
        try:
            connection.execute(_SEARCH_PATH)
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection
        except duckdb.Error as error:
            self._raise_failure(error)
            raise
        finally:
            with suppress(duckdb.Error):
                connection.rollback()
            connection.close()
            with self._guard:
                self._readers.discard(connection)
                self._guard.notify_all()

    def checkpoint(self) -> None:
        """Give the room of deleted rows back to the file, unless readers hold it."""
        with self._writers, suppress(duckdb.TransactionException):
            try:
                self._connected().execute(f"CHECKPOINT {CATALOG}")
            except duckdb.IOException as error:
                self._raise_failure(error)

    # ------------------------------------------------------------------------- connection

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if not self._is_open:
            raise StoreError(f"{self.path} is closed: open the store first")
        if self._root is None:
            raise StoreUnavailable(f"{self.path} is being opened again after a failure")
        return self._root

    def _recover(self) -> None:
        """After a failure, open the file again if DuckDB has given it up."""
        if not self._doubtful or not self._is_open:
            return
        if self._root is not None:
            try:
                self._root.execute(f"SELECT 1 FROM {table_name(READINGS)} LIMIT 1").fetchall()
            except duckdb.Error:
                self._disconnect()
        if self._root is None:
            self._connect()
        self._doubtful = False

    def _disconnect(self) -> None:
        """Close every connection: while one is left, DuckDB keeps the file."""
        with self._guard:
            root, self._root = self._root, None
            while self._readers:
                for reader in self._readers:
                    reader.interrupt()
                self._guard.wait(timeout=0.01)
            if root is not None:
                root.close()

    def _connect(self) -> None:
        root = duckdb.connect(config=self._config())
        try:
            if self.path.exists():
                self._check_content(root)
            root.execute(f"ATTACH {_literal(str(self.path.absolute()))} AS {CATALOG}")
            tables = [f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{SCHEMA}", *map(self._ddl, TABLES)]
            root.execute("; ".join(["BEGIN", *tables, "COMMIT", *FUNCTIONS, *_SETTINGS]))
        except duckdb.Error as error:
            root.close()
            raise self._not_opened(error) from error
        except BaseException:
            root.close()
            raise
        with self._guard:
            self._root = root

    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory_limit,
            "preserve_insertion_order": False,  # what is written need not be held until it is
            "temp_directory": f"{self.path.absolute()}.tmp",
            "checkpoint_threshold": CHECKPOINT_THRESHOLD,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,  # a query's table is no variable of ours
        }
        if self._threads is not None:
            config["threads"] = self._threads
        return config

    def _ddl(self, table: Table) -> str:
        columns = ", ".join(self._declared(column) for column in table.columns)
        return f"CREATE TABLE IF NOT EXISTS {table_name(table)} ({columns})"

    def _declared(self, column: Column) -> str:
        kind = self._fields if column.kind == "fields" else _DUCKDB_TYPES[column.kind]
        made = f" GENERATED ALWAYS AS ({column.generated})" if column.generated else ""
        return f"{quoted(column.name)} {kind}{made}"

    # ----------------------------------------------------------------------------- errors

    def _check_path(self) -> None:
        folder = self.path.parent
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder, expected a file: name a file in it")
        if not folder.is_dir():
            raise StoreError(
                f"the folder {folder} of the store {self.path.name} does not exist: make it, "
                "or name another file"
            )
        for place in (folder, self.path):
            if place.exists() and not os.access(place, os.W_OK):
                raise StoreError(
                    f"{place} can't be written by this user, which the store {self.path} needs: "
                    "change its permissions, or name another file"
                )

    def _check_content(self, root: duckdb.DuckDBPyConnection) -> None:
        """Look at the file without changing a byte of it."""
        root.execute(f"ATTACH {_literal(str(self.path.absolute()))} AS {CATALOG} (READ_ONLY)")
        found: dict[tuple[str, str], set[str]] = {}
        for schema, table, name in root.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() "
            "WHERE database_name = ?",
            [CATALOG],
        ).fetchall():
            found.setdefault((schema, table), set()).add(name)
        root.execute(f"DETACH {CATALOG}")
        if found and (SCHEMA, READINGS.name) not in found:
            others = ", ".join(sorted(f"{schema}.{table}" for schema, table in found)[:3])
            raise StoreError(
                f"{self.path} is a DuckDB file of another program: it holds {others}, expected "
                f"{SCHEMA}.{READINGS.name}; name another file"
            )
        for table in TABLES:
            columns = found.get((SCHEMA, table.name))
            missing = columns and {column.name for column in table.columns} - columns
            if missing:
                raise StoreError(
                    f"{self.path}: its table {SCHEMA}.{table.name} lacks {sorted(missing)}, so "
                    "that another version of climatestream made it: name another file"
                )

    def _not_opened(self, error: duckdb.Error) -> StoreError | StoreUnavailable:
        """Why the file could not be opened."""
        words = words_of(error)
        holder = re.search(r"lock.*PID (\d+)", words)
        if holder:
            return StoreError(
                f"{self.path} is open in {_process(int(holder[1]))}, and a DuckDB file belongs to "
                "one process at a time: end that one, or name another file"
            )
        if isinstance(error, duckdb.ResourceInUseException):
            return StoreError(
                f"{self.path} is open in this process already: use that store, or close it first"
            )
        if self.path.is_file() and not _is_duckdb(self.path):
            return StoreError(f"{self.path} is not a DuckDB file: name another file")
        if isinstance(error, _UNAVAILABLE) and not _DAMAGED.search(words):
            return StoreUnavailable(f"{self.path} can't be opened now: {words}")
        return StoreError(f"{self.path} can't be opened: {words}; name another file")

    def _raise_failure(self, error: duckdb.Error) -> None:
        """Say it to the caller where the file is what failed; any other error is a bug."""
        words = words_of(error)
        if _DAMAGED.search(words):
            raise StoreError(f"{self.path} is damaged: {words}; name another file") from error
        if isinstance(error, _UNAVAILABLE):
            self._doubtful = True
            raise StoreUnavailable(f"{self.path} is not available: {words}") from error


_SETTINGS: Final = (
    # As CrateDB has them, for the panels' SQL.
    "SET GLOBAL TimeZone = 'UTC'",
    "SET GLOBAL integer_division = true",
    "SET GLOBAL default_null_order = 'nulls_last_on_asc_first_on_desc'",
    # A query reaches what is attached, and nothing else of the machine.
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def words_of(error: duckdb.Error) -> str:
    """DuckDB's own words on one line, without its pointer into the query or to its manual."""
    sentence = " ".join(str(error).split("\n\nLINE ", maxsplit=1)[0].split())
    return sentence.split(" See also ", maxsplit=1)[0].rstrip(".")


def _is_duckdb(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC.stop)[_MAGIC] == b"DUCK"
    except OSError:
        return True


def _process(pid: int) -> str:
    try:
        command = " ".join(" ".join(psutil.Process(pid).cmdline()).split())
    except psutil.Error:
        command = ""
    return f"process {pid} ({command[:120]})" if command else f"process {pid}"
