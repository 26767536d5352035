"""Finding rows of CrateDB's table of readings by their keys."""

# ruff: noqa: S608 - SQL is put together of our own tables' names

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from climatestream.stores.crate_http import CrateHttp
from climatestream.stores.crate_tables import table_name
from climatestream.stores.schema import READINGS

Key: TypeAlias = tuple[str, str, int]
"""dataset, cell, time [ms]."""

_GROUPS: Final = 100
"""Alternatives of a look-up's condition at most; each is one time, or one cell."""


@dataclass(frozen=True)
class LookUp:
    """Finds rows by their keys, among those that a refresh has made visible.

    Parameters
    ----------
    schema
        Where the table is.
    """

    http: CrateHttp
    schema: str

    def refresh(self) -> None:
        """Make visible what has been written. Costs milliseconds where nothing has."""
        self.http.refresh(table_name(self.schema, READINGS))

    def __call__(
        self, keys: Collection[Key], expressions: Sequence[str]
    ) -> dict[Key, Sequence[Any]]:
        """By key the values of SQL expressions; what has no row is not there."""
        selected = ", ".join(["dataset", "cell", '"timestamp"', *expressions])
        found: dict[Key, Sequence[Any]] = {}
        for condition, arguments in _conditions(keys):
            reply = self.http.sql(
                f"SELECT {selected} FROM {table_name(self.schema, READINGS)} WHERE {condition}",
                arguments,
            )
            for dataset, cell, time_ms, *values in reply["rows"]:
                found[dataset, cell, time_ms] = values
        return found


def _conditions(keys: Collection[Key]) -> Iterator[tuple[str, list[Any]]]:
    """Conditions with their arguments that together hold for these keys and few others.

    Times with all their cells, or cells with all their times, whichever are fewer.
    """
    by_dataset: dict[str, list[tuple[str, int]]] = {}
    for dataset, cell, time_ms in keys:
        by_dataset.setdefault(dataset, []).append((cell, time_ms))
    for dataset, places in by_dataset.items():
        cells_of: dict[int, list[str]] = {}
        times_of: dict[str, list[int]] = {}
        for cell, time_ms in places:
            cells_of.setdefault(time_ms, []).append(cell)
            times_of.setdefault(cell, []).append(time_ms)
        groups: list[tuple[Any, list[Any]]]
        if len(cells_of) <= len(times_of):
            alternative, groups = '"timestamp" = ? AND cell = ANY(?)', list(cells_of.items())
        else:
            alternative, groups = 'cell = ? AND "timestamp" = ANY(?)', list(times_of.items())
        years = sorted({_year_ms(time_ms) for time_ms in cells_of})
        for start in range(0, len(groups), _GROUPS):
            chosen = groups[start : start + _GROUPS]
            some = " OR ".join([f"({alternative})"] * len(chosen))
            values = [value for group in chosen for value in group]
            # The year names the partitions to look into, which the server can't tell by itself.
            yield f'dataset = ? AND "year" = ANY(?) AND ({some})', [dataset, years, *values]


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _year_ms(time_ms: int) -> int:
    """The partition that a time is in: when its year began [ms]."""
    year = (_EPOCH + timedelta(milliseconds=time_ms)).year
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
