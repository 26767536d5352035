"""Rows as the ingest hands them to a store, made of single readings, for tests.

rows(Reading({"temperature": 21.5}, published_at_ms=200), Reading({"u10": 3.0}, offset=1))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from climatestream.model import FieldType, Rows, cell_id

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Value: TypeAlias = float | str | bool
Form: TypeAlias = Literal["numpy", "list"]

NOON_MS = 1_754_827_200_000
"""2025-08-10 12:00 UTC [ms]."""


@dataclass(frozen=True)
class Reading:
    """One row: the fields that it names, and where and when. Places in degrees."""

    data: Mapping[str, Value] = field(default_factory=lambda: {"temperature": 20.0})
    latitude: float = 48.1
    longitude: float = 11.6
    time_ms: int = NOON_MS
    dataset: str = "era5-land/daily-mean"
    country: str | None = "DEU"
    preliminary: bool = False
    published_at_ms: int = NOON_MS + 1_000
    source: str = "climate/0"
    offset: int = 0

    @property
    def cell(self) -> str:
        return cell_id(self.latitude, self.longitude)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.dataset, self.cell, self.time_ms

    @property
    def rank(self) -> tuple[bool, int, int, str]:
        return not self.preliminary, self.published_at_ms, self.offset, self.source


def field_type(value: Value) -> FieldType:
    """The type of a field that has this value."""
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def rows(*readings: Reading, form: Form = "numpy") -> Rows:
    """Readings as rows, in their order; a field that one does not name is missing in its row.

    Parameters
    ----------
    readings
        Each field has one type in all of them.
    form
        Numbers and flags as numpy arrays, or plain lists as where numpy is absent.
    """
    types = {name: field_type(value) for r in readings for name, value in r.data.items()}

    def column(values: list[Any], kind: str) -> Any:
        if form == "list" or kind not in _DTYPES:
            return values
        import numpy as np

        return np.array(values, dtype=_DTYPES[kind])

    return Rows(
        dataset=[r.dataset for r in readings],
        cell=[r.cell for r in readings],
        country=[r.country for r in readings],
        time_ms=column([r.time_ms for r in readings], "integer"),
        latitude=column([r.latitude for r in readings], "number"),
        longitude=column([r.longitude for r in readings], "number"),
        preliminary=column([r.preliminary for r in readings], "flag"),
        data={
            name: column([r.data.get(name, _MISSING[kind]) for r in readings], kind)
            for name, kind in types.items()
        },
        types=types,
        published_at_ms=column([r.published_at_ms for r in readings], "integer"),
        source=[r.source for r in readings],
        offset=column([r.offset for r in readings], "integer"),
    )


_DTYPES = {"number": "float64", "integer": "int64", "flag": "bool"}
_MISSING: dict[FieldType, Value | None] = {"number": math.nan, "text": None, "boolean": None}


def colliding_readings(max_size: int = 12) -> SearchStrategy[list[Reading]]:
    """Readings of two cells and two times, with few ranks: most share their key with others."""
    from hypothesis import strategies as st

    number = st.floats(allow_nan=False, allow_infinity=False)
    data = st.fixed_dictionaries(
        {},
        optional={
            "temperature": number,
            "u10": number,
            "original_timestamp": number,
            "station": st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
            "frozen": st.booleans(),
        },
    ).filter(bool)
    return st.lists(
        st.builds(
            Reading,
            data=data,
            latitude=st.sampled_from([48.1, 48.10000000000001, 48.2]),
            time_ms=st.sampled_from([NOON_MS, NOON_MS + 3_600_000]),
            country=st.sampled_from([None, "DEU", "AUT"]),
            preliminary=st.booleans(),
            published_at_ms=st.integers(NOON_MS, NOON_MS + 2),
            source=st.sampled_from(["climate/0", "climate/1"]),
            offset=st.integers(0, 2),
        ),
        max_size=max_size,
    )
