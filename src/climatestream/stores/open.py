"""A store's name as it is typed, as a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from climatestream.errors import UsageError

if TYPE_CHECKING:
    from climatestream.ports import Store

DUCKDB = "duckdb:"


def open_store(spec: str, *, duckdb_memory: str | None = None) -> Store:
    """The store of a name such as `duckdb:germany.duckdb`, not yet opened.

    Raises
    ------
    UsageError
        The name is of no store that is known.
    """
    if spec.startswith(DUCKDB) and len(spec) > len(DUCKDB):
        from climatestream.stores.duckdb import DuckDBStore
        from climatestream.stores.duckdb_file import MEMORY_LIMIT

        return DuckDBStore(spec.removeprefix(DUCKDB), memory_limit=duckdb_memory or MEMORY_LIMIT)
    raise UsageError(f"store {spec!r} is not known: expected duckdb:FILE")
