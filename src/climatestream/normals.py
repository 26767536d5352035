"""What is normal for a place and a day of the year, so that a reading can be called unusual.

The definition follows WMO-No. 1203, "WMO Guidelines on the Calculation of Climate Normals" (2017):
a climatological standard normal is of 30 years, at present those of 1991 to 2020, and is computed
where at least 80 % of the years have a value. Anything of fewer years is an average, no normal, and
is made only if it is asked for.

A day of the year is a sample of 30 values, too few for its 10th percentile. As the Expert Team on
Climate Change Detection and Indices does for its percentiles (Zhang and others 2005,
https://doi.org/10.1175/JCLI3366.1), the values of the two days before and after are added, which
makes 150.

Day D of a year is 1 January and D - 1 days: what `extract(doy FROM "timestamp")` says. So
29 February is day 60 of a leap year, as 1 March is of another; day 366 of a year that has none is
the 1 January after it. Every one of the 366 days has all years, and none is special.

Computed in DuckDB, in memory, a few cells at a time: CrateDB's percentiles are approximate.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import polars as pl

from climatestream import variables
from climatestream.arrow import ArrowStream
from climatestream.errors import SourceError, UsageError
from climatestream.model import History, Normals
from climatestream.ports import HISTORY_ROWS

if TYPE_CHECKING:
    from climatestream.ports import Store

STANDARD_YEARS: Final = 30
"""Years of a climatological standard normal (WMO-No. 1203)."""
SHARE_OF_YEARS: Final = 0.8
"""Of them, those that must have a value (WMO-No. 1203)."""
STANDARD_PERIOD: Final = "1991-2020"
"""The climatological standard normal period at present (WMO-No. 1203)."""

WINDOW_DAYS: Final = 5
"""Days whose values are taken for one day of the year, itself in the middle [days]."""
MAX_WINDOW_DAYS: Final = 61

MEMORY_LIMIT: Final = "400MB"
"""What DuckDB may hold of one part of a history."""

_DAYS: Final = 366
_MS_PER_DAY: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)
_NO_VARIABLES: Final = ("latitude", "longitude", "original_timestamp")


@dataclass(frozen=True)
class Period:
    """The years, both included, whose readings are taken."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @property
    def years(self) -> int:
        return self.last - self.first + 1

    def of(self, years: Sequence[int]) -> list[int]:
        """Those of some years that are in it."""
        return [year for year in years if self.first <= year <= self.last]

    @property
    def span_ms(self) -> tuple[int, int]:
        """When it begins, and when it is over [ms since the epoch, UTC]."""
        ends = (date(self.first, 1, 1), date(self.last + 1, 1, 1))
        first, end = ((day - _EPOCH).days * _MS_PER_DAY for day in ends)
        return first, end


def parse_period(text: str) -> Period:
    """A period as it is typed: `1991-2020`.

    Raises
    ------
    UsageError
        It is none.
    """
    found = re.fullmatch(r"\s*(\d{4})\s*-\s*(\d{4})\s*", text)
    period = Period(int(found[1]), int(found[2])) if found else None
    if period is None or not 1900 <= period.first <= period.last < 2200:
        raise UsageError(f"years {text!r} are no period: expected one such as {STANDARD_PERIOD}")
    return period


@dataclass(frozen=True)
class Rule:
    """How normals are made.

    Parameters
    ----------
    window_days
        Days whose values are taken for one: odd.
    fewer
        Whether an average of fewer years will do.

    Raises
    ------
    UsageError
        The window is even or too wide, or the period is shorter than a normal's.
    """

    period: Period
    window_days: int = WINDOW_DAYS
    fewer: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.window_days <= MAX_WINDOW_DAYS and self.window_days % 2):
            raise UsageError(
                f"window {self.window_days} has no day in its middle: expected an odd number of "
                f"days from 1 to {MAX_WINDOW_DAYS}"
            )
        if self.period.years < STANDARD_YEARS and not self.fewer:
            raise UsageError(
                f"{self.period} is {self.period.years} years, expected {STANDARD_YEARS} for a "
                "normal (WMO-No. 1203): take more, or ask with --allow-fewer for an average that "
                "is none"
            )

    @property
    def least_years(self) -> int:
        """How many years must have a value for a day."""
        return 1 if self.fewer else math.ceil(SHARE_OF_YEARS * self.period.years)

    def days(self) -> pl.DataFrame:
        """Which day's values are taken for which: `day` [days since 1970], `year`, `day_of_year`.

        Days outside the period are among them; they have no readings.
        """
        half = self.window_days // 2
        first = np.array(
            [
                (date(year, 1, 1) - _EPOCH).days
                for year in range(self.period.first, self.period.last + 1)
            ]
        )
        year, of_year, shift = np.meshgrid(
            np.arange(self.period.years), np.arange(_DAYS), np.arange(-half, half + 1)
        )
        return pl.DataFrame(
            {
                "day": (first[year] + of_year + shift).ravel().astype(np.int32),
                "year": (year + self.period.first).ravel().astype(np.int32),
                "day_of_year": (of_year + 1).ravel().astype(np.int32),
            }
        )


@dataclass
class Made:
    """What was done: normals kept, and days of cells left out since they have too few years."""

    kept: int = 0
    left_out: int = 0
    cells: int = 0


def make(
    source: Store,
    target: Store,
    dataset: str,
    names: Sequence[str] | None,
    rule: Rule,
    made: Made,
    stopped: Callable[[], bool] = lambda: False,
    rows: int = HISTORY_ROWS,
) -> None:
    """Make the normals of a dataset out of what a store holds, and keep them in one.

    Memory is bounded by `rows`, whatever the store holds. What was kept before `stopped` or an
    error stays; making them again replaces it.

    Parameters
    ----------
    source, target
        Open; may be the same.
    names
        Our variables; None: every number that is one.
    made
        Counts as it goes.
    rows
        Readings looked at in one go.

    Raises
    ------
    UsageError
        A variable was never stored, or its values are no daily ones.
    SourceError
        There are too few years.
    """
    chosen = _chosen(source, dataset, names)
    _check_years(source, dataset, rule)
    start_ms, end_ms = rule.period.span_ms
    with _Computer(rule) as compute:
        for part in source.history(dataset, chosen, start_ms, end_ms, rows=rows):
            for name in chosen:
                normals, left_out = compute(part, dataset, name)
                target.keep_normals(normals)
                made.kept += len(normals)
                made.left_out += left_out
            made.cells += pl.Series(part.cell).n_unique()
            if stopped():
                return


def datasets(store: Store, period: Period) -> list[str]:
    """The datasets of which there are readings in a period, those of replays left out."""
    return sorted(
        name
        for name, years in store.years().items()
        if not name.endswith("/replay") and period.of(years)
    )


def _chosen(store: Store, dataset: str, names: Sequence[str] | None) -> list[str]:
    """The fields to take; all of them have daily values."""
    kinds = store.field_types()
    numbers = [
        name for name, kind in kinds.items() if kind == "number" and name not in _NO_VARIABLES
    ]
    if names is None:
        return [name for name in numbers if not _is_running_sum(dataset, name)]
    wanted = []
    for asked in names:
        name = asked if asked in numbers else variables.find(asked).name
        if name not in numbers:
            raise UsageError(
                f"variable {asked} is not in the store: expected some of {', '.join(numbers)}"
            )
        if _is_running_sum(dataset, name):
            raise UsageError(
                f"{name} of {dataset} is a sum since 00 UTC, whose mean over a day says nothing: "
                "make the normals of daily values"
            )
        wanted.append(name)
    return wanted


def _is_running_sum(dataset: str, name: str) -> bool:
    if "hourly" not in dataset:
        return False
    try:
        return variables.find(name).accumulated
    except UsageError:
        return False


def _check_years(store: Store, dataset: str, rule: Rule) -> None:
    """Refuse, before anything is kept, what can't become a single normal."""
    if "monthly" in dataset:
        raise UsageError(f"{dataset} has no values of days: expected daily or hourly ones")
    years = rule.period.of(store.years().get(dataset, []))
    if len(years) >= rule.least_years:
        return
    there = f"{len(years)} years ({years[0]} to {years[-1]})" if years else "none"
    more = "" if rule.fewer else "; fetch more, or ask with --allow-fewer for an average"
    raise SourceError(
        f"of {dataset} there are {there} of the years {rule.period}, expected at least "
        f"{rule.least_years}{more}"
    )


class _Computer:
    """DuckDB in memory, with the days of a rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._folder = tempfile.TemporaryDirectory(prefix="climatestream-")
        self._connection = duckdb.connect(
            config={"memory_limit": MEMORY_LIMIT, "temp_directory": self._folder.name}
        )

    def __enter__(self) -> _Computer:
        self._connection.register("rule", ArrowStream(self._rule.days()))
        self._connection.execute("CREATE TABLE days AS FROM rule")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._folder.cleanup()

    def __call__(self, part: History, dataset: str, name: str) -> tuple[Normals, int]:
        """The normals of the part's cells, and how many days of cells have too few years."""
        cell = pl.Series(part.cell, dtype=pl.String)
        ids = cell.unique(maintain_order=True)
        day, hour = np.divmod(np.asarray(part.time_ms, np.int64), _MS_PER_DAY)
        readings = pl.DataFrame(
            {
                "cell": cell.replace_strict(ids, pl.int_range(len(ids), eager=True)),
                "day": day.astype(np.int32),
                "hour": hour,
                "value": pl.Series(part.data[name], dtype=pl.Float64),
            }
        ).filter(pl.col("value").is_not_nan())
        self._connection.register("readings", ArrowStream(readings))
        found = pl.DataFrame(self._connection.sql(_SQL))
        enough = found.filter(pl.col("years") >= self._rule.least_years)
        percentiles = enough["percentiles"].list.to_struct(fields=["p10", "p50", "p90"])
        columns = {
            column: pl.Series(values).to_numpy()
            for column, values in {
                **{c: enough[c] for c in ("day_of_year", "years", "mean")},
                "deviation": enough["deviation"].fill_null(math.nan),
                **{p: percentiles.struct.field(p) for p in ("p10", "p50", "p90")},
            }.items()
        }
        normals = Normals(
            dataset=dataset,
            variable=name,
            period=str(self._rule.period),
            first=part.first,
            last=part.last,
            cell=ids.gather(enough["cell"]),
            **columns,
        )
        return normals, len(found) - len(enough)


_SQL: Final = """
WITH whole AS (
    SELECT cell, count(DISTINCT hour) AS hours FROM readings GROUP BY cell
), daily AS (
    SELECT cell, day, avg(value) AS value FROM readings JOIN whole USING (cell)
    GROUP BY cell, day, hours HAVING count(*) = hours
)
SELECT cell, day_of_year, count(DISTINCT year) AS years, avg(value) AS mean,
    stddev_samp(value) AS deviation, quantile_cont(value, [0.1, 0.5, 0.9]) AS percentiles
FROM daily JOIN days USING (day)
GROUP BY cell, day_of_year ORDER BY cell, day_of_year
"""
"""A day that lacks one of the times of day that its cell has is left out. Percentiles are
interpolated linearly between the values on both sides (Hyndman and Fan's type 7, as numpy's)."""
