"""A store's name as it is typed, as a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from climatestream.errors import StoreError, UsageError

if TYPE_CHECKING:
    from climatestream.ports import Store

DUCKDB = "duckdb:"
CRATE = "crate:"


def open_store(spec: str, *, duckdb_memory: str | None = None, existing: bool = False) -> Store:
    """The store of a name, not yet opened: `duckdb:FILE` or `crate://user@host:port/schema`.

    Parameters
    ----------
    existing
        Whether a DuckDB file must be there already: who only reads makes none.

    Raises
    ------
    StoreError
        A file that must be there is not.
    UsageError
        The name is of no store that is known, or has an option that is not.
    """
    if spec.startswith(DUCKDB) and len(spec) > len(DUCKDB):
        from climatestream.stores.duckdb import DuckDBStore
        from climatestream.stores.duckdb_file import MEMORY_LIMIT

        path = Path(spec.removeprefix(DUCKDB))
        if existing and not path.exists():
            raise StoreError(
                f"there is no file {path}: name one that `climatestream run` or `consume` has made"
            )
        return DuckDBStore(path, memory_limit=duckdb_memory or MEMORY_LIMIT)
    if spec.startswith(CRATE):
        from climatestream.stores.crate import CrateStore
        from climatestream.stores.crate_address import parse

        return CrateStore(parse(spec))
    raise UsageError(
        f"store {spec!r} is not known: expected duckdb:FILE or crate://user@host:port/schema"
    )
