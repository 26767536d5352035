"""What Grafana makes of a query before the database sees it: variables, then macros.

`expand` does what Grafana 12.3's PostgreSQL data source does, so that the text of a board or of
an alert rule runs on a store without Grafana.

Formats of variables: https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/
Macros: https://grafana.com/docs/grafana/latest/datasources/postgres/query-editor/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from climatestream.errors import DashboardError

Value: TypeAlias = str | Sequence[str]


@dataclass(frozen=True)
class Range:
    """A time range, and the width of a bucket [ms] that its panel asks for."""

    start: datetime
    end: datetime
    interval_ms: int = 60_000


MACROS: Final = frozenset(
    {
        "__time", "__timeEpoch", "__timeFilter", "__timeFrom", "__timeTo", "__timeGroup",
        "__timeGroupAlias", "__unixEpochFilter", "__unixEpochFrom", "__unixEpochTo",
        "__unixEpochNanoFilter", "__unixEpochNanoFrom", "__unixEpochNanoTo",
        "__unixEpochGroup", "__unixEpochGroupAlias",
    }
)  # fmt: skip
"""Macros of Grafana's PostgreSQL data source, called as functions."""

BUILT_IN: Final = frozenset({"__interval", "__interval_ms", "__from", "__to", "__url_time_range"})
"""Variables that every board has."""

FORMATS: Final = frozenset({"raw", "sqlstring", "text", "queryparam", "percentencode"})
"""Formats of variables that our boards use."""

VARIABLE: Final = re.compile(
    r"\$\{(\w+)(?:\.[\w.]+)?(?::([\w:]+))?\}|\$(\w+)|\[\[(\w+)(?::(\w+))?\]\]"
)
_CALL: Final = re.compile(r"\$(__\w+)\(((?:[^()']|'[^']*')*)\)")


def expand(sql: str, variables: Mapping[str, Value], time: Range) -> str:
    """The query as the database gets it.

    Parameters
    ----------
    variables
        The value of each variable of the board; several where it takes several.

    Raises
    ------
    DashboardError
        A variable, a format or a macro is not known.
    """
    text = VARIABLE.sub(lambda match: _variable(match, variables, time), sql)
    return _CALL.sub(lambda match: _macro(match[1], match[2], time), text)


def instant(at: datetime) -> str:
    """A time as Grafana writes it: RFC 3339, in UTC, without trailing zeros."""
    text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"


def _variable(match: re.Match[str], variables: Mapping[str, Value], time: Range) -> str:
    name, form = match[1] or match[3] or match[4], match[2] or match[5] or ""
    if name in MACROS:
        return match[0]
    if name == "__interval_ms":
        return str(time.interval_ms)
    if name == "__interval":
        return f"{max(1, time.interval_ms // 1000)}s"
    if name not in variables:
        raise DashboardError(f"{match[0]} names no variable of the board: {', '.join(variables)}")
    value = variables[name]
    values = [value] if isinstance(value, str) else list(value)
    if form == "sqlstring":
        return ",".join("'" + text.replace("'", "''") + "'" for text in values)
    if form == "raw":
        return ",".join(values)
    raise DashboardError(
        f"{match[0]} in a query needs the format sqlstring or raw, since Grafana quotes without "
        "one by whether the variable takes several values"
    )


def _macro(name: str, arguments: str, time: Range) -> str:
    start, end = f"'{instant(time.start)}'", f"'{instant(time.end)}'"
    if name == "__timeFilter":
        return f"{arguments.strip()} BETWEEN {start} AND {end}"
    if name == "__timeFrom":
        return start
    if name == "__timeTo":
        return end
    if name == "__timeGroup":
        column, width = (part.strip() for part in arguments.split(",")[:2])
        seconds = _seconds(width.strip("'"))
        return f"floor(extract(epoch from {column})/{seconds})*{seconds}"
    raise DashboardError(f"the macro ${name} is none that we use: {', '.join(sorted(USED))}")


USED: Final = ("$__timeFilter", "$__timeFrom", "$__timeTo", "$__timeGroup", "$__interval_ms")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _seconds(width: str) -> int:
    found = re.fullmatch(r"(\d+)([smhd])", width)
    if found is None:
        raise DashboardError(f"$__timeGroup takes a width such as 5m, got {width!r}")
    return int(found[1]) * _UNITS_S[found[2]]


_RELATIVE: Final = re.compile(r"now(?:-(\d+)([smhd]))?")


def moment(text: str, now: datetime) -> datetime:
    """An end of a board's time range: `now`, or `now-6h`.

    Raises
    ------
    DashboardError
        It is neither.
    """
    found = _RELATIVE.fullmatch(text)
    if found is None:
        raise DashboardError(f"a board's time range ends at {text!r}, expected now or now-6h")
    return now - timedelta(seconds=int(found[1]) * _UNITS_S[found[2]] if found[1] else 0)
