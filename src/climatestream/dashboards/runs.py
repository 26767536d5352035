"""Runs every query of a board on a store, as Grafana would: variables first, then panels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from climatestream.dashboards.grafana_sql import Range, Value, expand, moment
from climatestream.errors import DashboardError, StoreError
from climatestream.ports import Answer

Json: TypeAlias = Any
Ask: TypeAlias = Callable[[str], Answer]
"""Answers a query: `Store.query`, or a connection over PostgreSQL's protocol."""

EMPTY: Final = "answers no rows"

POINTS: Final = 500
"""Buckets that Grafana asks for of a panel half a screen wide."""


@dataclass(frozen=True)
class Query:
    """A query of a panel, as the database gets it."""

    panel: str
    ref: str
    form: str
    sql: str


def span(board: Json, now: datetime) -> Range:
    """The board's default time range."""
    return Range(moment(board["time"]["from"], now), moment(board["time"]["to"], now))


def resolve(
    board: Json, ask: Ask, time: Range, chosen: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """The value of each variable: what is chosen, or what Grafana takes where nothing is.

    That is the first option, or of one that takes several all of them.

    Raises
    ------
    DashboardError
        A variable's query can't be answered, or answers nothing.
    """
    values: dict[str, Value] = {}
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "textbox":
            values[name] = variable["query"]
        elif variable["type"] == "custom":
            values[name] = variable["options"][0]["value"]
        else:
            sql = expand(variable["query"], values, time)
            try:
                answer = ask(sql)
            except StoreError as error:
                raise DashboardError(f"variable {name!r}: {error}: {sql}") from error
            if "__value" not in answer.columns or not answer.rows:
                raise DashboardError(f"variable {name!r} has no value: {sql}")
            place = answer.columns.index("__value")
            options = [str(row[place]) for row in answer.rows]
            values[name] = options if variable.get("multi") else options[0]
        if chosen and name in chosen:
            values[name] = chosen[name]
    return values


def queries(board: Json, values: Mapping[str, Value], time: Range) -> Iterator[Query]:
    """Every query of the board's panels.

    Raises
    ------
    DashboardError
        One names a variable or macro that there is not.
    """
    for panel in board["panels"]:
        for target in panel.get("targets") or []:
            width = max(_milliseconds(panel.get("interval")), _round(time))
            sql = expand(target["rawSql"], values, Range(time.start, time.end, width))
            yield Query(panel["title"], target["refId"], target["format"], sql)


_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _milliseconds(interval: str | None) -> int:
    if not interval:
        return 1_000
    found = re.fullmatch(r"(\d+)([smhd])", interval)
    if found is None:
        raise DashboardError(f"a panel's least interval is {interval!r}, expected one such as 5s")
    return int(found[1]) * _UNITS_MS[found[2]]


def _round(time: Range) -> int:
    """The width of a bucket [ms]: a whole number of seconds."""
    seconds = (time.end - time.start).total_seconds() / POINTS
    return max(1, round(seconds)) * 1_000


def answer_problems(query: Query, answer: Answer) -> list[str]:
    """What is wrong with an answer, for the way in which it is drawn."""
    found = []
    if not any(value is not None for row in answer.rows for value in row):
        return [EMPTY]
    if len(set(answer.columns)) < len(answer.columns):
        found.append(f"has columns of one name: {', '.join(answer.columns)}")
    if query.form == "time_series":
        found += _series_problems(answer)
    return found


def _series_problems(answer: Answer) -> list[str]:
    if "time" not in answer.columns:
        return ["is a time series without a column `time`"]
    place = answer.columns.index("time")
    times = [row[place] for row in answer.rows]
    if not all(isinstance(at, datetime) for at in times):
        return ["has a column `time` that holds no times"]
    if times != sorted(times):
        return ["is not sorted by time, which Grafana refuses"]
    numbers = [
        name
        for n, name in enumerate(answer.columns)
        if any(isinstance(row[n], int | float) for row in answer.rows)
    ]
    return [] if numbers else ["has no numbers to draw"]


def field_problems(panel: Json, columns: Mapping[str, Sequence[str]], seen: set[str]) -> list[str]:
    """Fields that a panel's drawing names and its queries do not answer.

    Parameters
    ----------
    columns
        By query, the columns of its answer.
    seen
        Every column that any answer of the panel has had, with whatever was chosen.
    """
    overrides = panel["fieldConfig"]["overrides"]
    shown: dict[str, list[Json]] = {}
    for override in overrides:
        for one in override["properties"]:
            if one["id"] == "displayName":
                shown.setdefault(one["value"], []).append(override["matcher"])
    found = []
    options = panel["options"]
    if panel["type"] == "barchart" and options["xField"] not in columns["A"]:
        found.append(f"xField {options['xField']!r} is no column: {', '.join(columns['A'])}")
    for layer in options.get("layers", []) if panel["type"] == "geomap" else []:
        if layer["type"] == "markers":
            there = columns[layer["filterData"]["options"]]
            found += [
                f"layer {layer['name']!r} names the field {field!r}, which is none of "
                f"{', '.join(there)}"
                for field in _layer_fields(layer)
                if field not in there
                and not any(_matches(one, name) for one in shown.get(field, []) for name in there)
            ]
    names = {one["matcher"]["options"] for one in overrides if one["matcher"]["id"] == "byName"}
    found += [
        f"an override is for the field {name!r}, which no answer has"
        for name in sorted(names - seen - _OF_ANY_MAP)
        if not name.startswith(VALUE)
    ]
    return found


VALUE: Final = "value: "
"""How the fields of the maps of a chosen variable begin; the rest is its name and unit."""
_OF_ANY_MAP: Final = frozenset({"length", "blows to", "years", "size", "cells"})
"""Fields that some map has, and whose overrides all of them share."""


def _layer_fields(layer: Json) -> list[str]:
    style, location = layer["config"]["style"], layer["location"]
    fields = [style[part].get("field") for part in ("size", "color", "rotation")]
    fields += [location.get("latitude"), location.get("longitude")]
    return [field for field in fields if field]


def _matches(matcher: Json, name: str) -> bool:
    if matcher["id"] == "byRegexp":
        return re.search(matcher["options"].strip("/"), name) is not None
    return bool(matcher["options"] == name)
