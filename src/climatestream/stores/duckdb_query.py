"""Queries of panels on DuckDB: what may be asked, and the answer as plain Python values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import duckdb

from climatestream.errors import StoreError

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType


def check_reads(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """See that a query is one statement that reads.

    Raises
    ------
    StoreError
        It is none, several, or another.
    """
    statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if len(kinds) != 1 or kinds[0] not in _READS:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise StoreError(f"a query holds {found}, expected one SELECT: queries only read")


_READS: Final = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def parameter(value: Any) -> Any:
    """A time with a zone would make DuckDB turn every time of the table into one."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def conversion(kind: DuckDBPyType) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """What makes an answer's column of what DuckDB gives; None where it is that already."""
    if str(kind).startswith("TIMESTAMP"):
        return _aware
    if kind.id == "decimal":
        return lambda values: [None if value is None else float(value) for value in values]
    if kind.id == "struct":
        return lambda values: [_without_nulls(value) for value in values]
    return None


def _aware(times: Sequence[datetime | None]) -> list[datetime | None]:
    """Times with their zone, UTC; each different one is made once, since most rows share theirs."""
    aware = {
        time: time and (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC))
        for time in set(times)
    }
    return [aware[time] for time in times]


def _without_nulls(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """An object with the fields that the row has, as CrateDB answers."""
    return value and {name: item for name, item in value.items() if item is not None}
