"""Queries of panels on CrateDB: what may be asked, and the answer as plain Python values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from climatestream.errors import StoreError
from climatestream.ports import Answer
from climatestream.stores.crate_errors import RequestRefused, Verdict, words
from climatestream.stores.crate_http import CrateHttp
from climatestream.stores.schema import SCHEMA, quoted


def query(http: CrateHttp, schema: str, sql: str, parameters: Sequence[Any]) -> Answer:
    """Answer a panel's query; see `Store.query`.

    Parameters
    ----------
    schema
        What `demo` in the query stands for.
    """
    if not _READS.match(sql):
        first = words(sql)[:40] or "nothing"
        raise StoreError(f"a query is {first!r}, expected one SELECT: queries only read")
    try:
        reply = http.sql(_in_schema(sql, schema), parameters, any_table=True)
    except RequestRefused as error:
        if error.verdict is Verdict.DENIED:
            raise
        raise StoreError(f"the query can't be answered: {error}") from error
    conversions = [_conversion(kind) for kind in reply["col_types"]]
    rows = reply["rows"]
    if rows and any(conversions):
        by_column = [
            [None if value is None else convert(value) for value in values] if convert else values
            for convert, values in zip(conversions, zip(*rows, strict=True), strict=True)
        ]
        return Answer(tuple(reply["cols"]), list(zip(*by_column, strict=True)))
    return Answer(tuple(reply["cols"]), [tuple(row) for row in rows])


def _in_schema(sql: str, schema: str) -> str:
    if schema == SCHEMA:
        return sql
    own = quoted(schema) + "."
    return _SCHEMA_NAMES.sub(lambda found: own if found["schema"] else found[0], sql)


_READS: Final = re.compile(
    r"(\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(EXPLAIN\s+((ANALYZE|VERBOSE)\s+|\([^)]*\)\s*)?)?(SELECT|WITH|VALUES|SHOW)\b",
    re.IGNORECASE | re.DOTALL,
)
"""How statements begin that read; the server takes one statement a request."""

_SCHEMA_NAMES: Final = re.compile(
    rf"""'(?:[^']|'')*' | "(?:[^"]|"")*"(?!\.) | (?P<schema>(?<![\w.])(?:{SCHEMA}|"{SCHEMA}")\.)""",
    re.VERBOSE,
)


def _conversion(kind: Any) -> Callable[[Any], Any] | None:
    """What makes an answer's value, not null, of what CrateDB gives; None where it is that.

    Parameters
    ----------
    kind
        The type's id in CrateDB's answer; of an array [100, the elements'].
        https://cratedb.com/docs/crate/reference/en/latest/interfaces/http.html#column-types
    """
    if isinstance(kind, list):
        convert = _conversion(kind[1])
        return None if convert is None else lambda values: [_or_none(convert, v) for v in values]
    return _CONVERSIONS.get(kind)


def _or_none(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _instant(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)


_CONVERSIONS: Final[dict[int, Callable[[Any], Any]]] = {
    6: float,  # double precision: NaN and infinity come as text
    7: float,  # real
    11: _instant,  # timestamp with time zone
    12: lambda fields: {name: value for name, value in fields.items() if value is not None},
    13: tuple,  # geo_point: longitude, latitude
    15: _instant,  # timestamp without time zone
    22: float,  # numeric
    24: _instant,  # date
}
