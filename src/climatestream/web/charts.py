"""What the page's charts and tables hold: panels filled in for what is being looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from climatestream.dashboards import panels
from climatestream.dashboards.panels import (
    BY_NAME,
    FIELD,
    HISTOGRAM,
    VARIABLE_UNIT,
    bucket_of,
    value_of,
)
from climatestream.errors import UsageError
from climatestream.web import places
from climatestream.web.asking import COST_SHARE
from climatestream.web.pace import pipeline_until
from climatestream.web.timetable import ALWAYS, at_ms, buckets, ms_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from climatestream.dashboards.panels import Panel
    from climatestream.ports import Answer
    from climatestream.web.choices import Choice
    from climatestream.web.page import Page

POINTS: Final = 600
"""Points of a line at most: more than a chart has pixels."""
BINS: Final = 120
"""Bars of the histogram."""
SPEED_CLASS: Final = 3.0
"""Width of a class of the wind rose [m/s]: the classes end at the Beaufort numbers 3, 4, 6, 7, 8,
nearly enough."""
PIPELINE_S: Final = 900.0
"""Time that the charts of the pipeline show [s]."""
PIPELINE_STEPS: Final = 180
INTERVAL_S: Final = 5.0
"""Time that a row of `demo.pipeline` speaks of [s]."""
COVERAGE_STEPS: Final = {
    "minute": (60.0, 3 * 3_600.0),
    "hour": (3_600.0, 3 * 86_400.0),
    "day": (86_400.0, math.inf),
}
"""By what coverage may be told [s], and up to which span it is where no one said by what [s]."""
MANY_STEPS: Final = 2_000
"""Steps of coverage at most where someone said by what; days are told of any span."""
MAX_EXPORT: Final = 500_000
"""Rows of an export at most [rows]."""


@dataclass(frozen=True)
class Look:
    """What someone is looking at. Times are aware; a missing one is the newest, or no limit."""

    dataset: str
    variable: str
    time: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    place: tuple[float, float] | None = None
    """Latitude and longitude of a cell [degree]."""
    by: str | None = None
    """Steps in which coverage is told: a key of `COVERAGE_STEPS`."""


class Charts:
    """Panels, filled in and answered."""

    def __init__(self, page: Page) -> None:
        self._page = page

    # --------------------------------------------------------------------------- the series

    def series(self, look: Look) -> dict[str, Any]:
        """Lowest, mean and highest over the span, in the unit shown, at most `POINTS` steps."""
        self._page.check(look.dataset, look.variable)
        table = self._page.series(look.dataset, look.variable)
        since, until = self._span_ms(look)
        first, last = np.searchsorted(table.times, [since, until + 1])
        factor = self._choice(look).factor
        low, mean, high = table.columns[first:last].reshape(last - first, 3).T
        times, low, mean, high = buckets(table.times[first:last], low, mean, high, POINTS)
        return {
            "time": times,
            "min": low * factor,
            "avg": mean * factor,
            "max": high * factor,
            "thinned": bool(last - first > POINTS),
        }

    def cell(self, look: Look) -> dict[str, Any]:
        """The series of the cell nearest to a place, and which cell that is."""
        cell, latitude, longitude = self._cell(look)
        answer = self._answer(panels.CELL, look)
        rows = [(ms_of(at), value) for at, value in answer.rows if value is not None]
        stamps, values = np.array(rows, np.float64).reshape(len(rows), 2).T
        times, _, mean, _ = buckets(stamps.astype(np.int64), values, values, values, POINTS)
        return {
            "cell": cell,
            "latitude": latitude,
            "longitude": longitude,
            "time": times,
            "value": mean * self._choice(look).factor,
        }

    def reading(self, look: Look) -> dict[str, Any]:
        """All values of the cell nearest to a place, in the units shown."""
        cell, latitude, longitude = self._cell(look)
        answer = self._answer(panels.READING, look)
        found: dict[str, Any] = {"cell": cell, "latitude": latitude, "longitude": longitude}
        if not answer.rows:
            return {**found, "country": None, "values": []}
        row = dict(zip(answer.columns, answer.rows[0], strict=True))
        choices, _ = self._page.describe(look.dataset, self._page.newest(look.dataset))
        values = []
        for choice in choices:
            value = row["data"].get(choice.name)
            if value is None and choice.name == "wind_speed":
                wind = [row["data"].get(name) for name in panels.COMPUTED["wind_speed"].of]
                value = None if None in wind else math.hypot(*wind)
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.append([choice.name, choice.label, value * choice.factor, choice.unit])
        return {
            **found,
            "country": row["country"],
            "near": places.near(self._page.asking, latitude, longitude),
            "preliminary": row["preliminary"],
            "source": f"{row['source']}@{row['offset']}",
            "values": values,
        }

    # --------------------------------------------------------------------------- the panels

    def panel(self, name: str, look: Look) -> dict[str, Any]:
        """A panel's rows with times in ms, its texts, and the query as it can be pasted."""
        panel = BY_NAME.get(name)
        if panel is None:
            raise UsageError(f"there is no panel {name!r}; there is: {', '.join(BY_NAME)}")
        self._page.check(look.dataset, look.variable)
        words = self._words(panel, look)
        content: dict[str, Any] = {
            "title": panel.title,
            "unit": self._choice(look).unit if panel.unit == VARIABLE_UNIT else panel.unit,
            "description": panel.description,
            "sql": "" if panel.words() - words.keys() else panel.text(words).strip(),
            "words": {
                name: ms_of(value) if isinstance(value, datetime) else value
                for name, value in words.items()
                if name in ("from", "to", "low", "high", "width", "cells", "step", "by")
            },
        }
        if panel.words() - words.keys():  # nothing in the registry to compare with
            return {**content, "columns": [], "rows": [], "unknown": True}
        answer = self._fresh(panel, words)
        rows = [
            [ms_of(value) if isinstance(value, datetime) else value for value in row]
            for row in answer.rows
        ]
        if panel is panels.QUERYABLE and (not rows or rows[0][0] is None):
            polls = list(self._page.looks.polls_ms)
            if polls:
                rows = [np.percentile(polls, [50, 95, 99]).tolist()]
        return {**content, "columns": answer.columns, "rows": rows}

    def sql(self, name: str, look: Look) -> dict[str, Any]:
        """The texts of a panel and its query, unanswered."""
        panel = BY_NAME.get(name)
        if panel is None:
            raise UsageError(f"there is no panel {name!r}; there is: {', '.join(BY_NAME)}")
        self._page.check(look.dataset, look.variable)
        return {
            "title": panel.title,
            "description": panel.description,
            "sql": panel.text(self._known_words(panel, look)).strip(),
        }

    def export(self, name: str, look: Look) -> tuple[list[str], list[tuple[Any, ...]]]:
        """A panel's answer as a table, in the units of the store.

        Raises
        ------
        UsageError
            There is no such panel, or its answer is too large for a browser.
        """
        panel = BY_NAME.get(name)
        if panel is None:
            raise UsageError(f"there is no panel {name!r}; there is: {', '.join(BY_NAME)}")
        self._page.check(look.dataset, look.variable)
        if panel is FIELD:
            at = look.time or self._page.newest(look.dataset).time
            cells = self._page.looks.slice(look.dataset, at).cells
            if cells > MAX_EXPORT:
                raise UsageError(
                    f"a field of {cells} cells is more than the {MAX_EXPORT} that the page "
                    "exports: copy its query and ask the store"
                )
        answer = self._answer(panel, look)
        names = {"value": look.variable} if panel.unit == VARIABLE_UNIT else {}
        return [names.get(column, column) for column in answer.columns], answer.rows

    def _answer(self, panel: Panel, look: Look) -> Answer:
        return self._fresh(panel, self._known_words(panel, look))

    def _known_words(self, panel: Panel, look: Look) -> dict[str, Any]:
        words = self._words(panel, look)
        if panel.words() - words.keys():
            raise UsageError(
                f"panel {panel.name} has nothing to compare {look.variable!r} with: the registry "
                "does not know this variable"
            )
        return words

    def _fresh(self, panel: Panel, words: dict[str, Any]) -> Answer:
        """Whole-table panels are asked one at a time, and rarely where they cost much."""
        narrow = "time" in panel.words() or "cell" in panel.words()

        def ask() -> Answer:
            if narrow:
                return self._page.asking.panel(panel, words)
            with self._page.slow:
                return self._page.asking.panel(panel, words)

        # a span that moves with the present is asked for once, not anew at each step
        key = (
            panel.name,
            *(
                value
                if narrow or not isinstance(value, datetime)
                else value.timestamp() // INTERVAL_S
                for _, value in sorted(words.items())
            ),
        )
        return self._page.asking.fresh(
            ("panel", *key), ask, 1.0, cost_share=0.0 if narrow else COST_SHARE
        )

    # ----------------------------------------------------------------------- what is filled in

    def _words(self, panel: Panel, look: Look) -> dict[str, Any]:
        """What fills in a panel's words; without those that nothing is known for."""
        known: dict[str, Callable[[], dict[str, Any]]] = {
            "dataset": lambda: {"dataset": look.dataset},
            "value": lambda: {"value": value_of(look.variable)},
            "time": lambda: {"time": look.time or self._page.newest(look.dataset).time},
            "cell": lambda: {"cell": self._cell(look)[0]},
            "from": lambda: self._span_words(panel, look),
            "cells": lambda: {"cells": self._whole(look.dataset)},
            "step": lambda: {"step": self._step_s(look.dataset)},
            "low": lambda: self._bins(look) if panel is HISTOGRAM else self._plausible(look),
        }
        words: dict[str, Any] = {"width": SPEED_CLASS} if panel is panels.ROSE else {}
        for word in panel.words() & known.keys():
            words |= known[word]()
        return words

    def _span_words(self, panel: Panel, look: Look) -> dict[str, Any]:
        if panel.board == "Pipeline":
            return self._pipeline_words(panel.words())
        since, until = self._span_ms(look)
        whole = look.since is None and look.until is None
        words = dict(
            zip(("from", "to"), ALWAYS if whole else (at_ms(since), at_ms(until)), strict=True)
        )
        if panel is panels.COVERAGE:
            return {**words, **_coverage_words((until - since) / 1000.0, look.by)}
        return {**words}

    def _plausible(self, look: Look) -> dict[str, float]:
        choice = self._choice(look)
        if choice.plausible is None:
            return {}
        low, high = choice.plausible
        return {"low": low / choice.factor, "high": high / choice.factor}

    def _pipeline_words(self, wanted: frozenset[str]) -> dict[str, Any]:
        words: dict[str, Any] = {}
        if "from" in wanted:
            until = pipeline_until(self._page.asking)
            width = max(INTERVAL_S, math.ceil(PIPELINE_S / PIPELINE_STEPS / 5.0) * 5.0)
            words = {"from": until - timedelta(seconds=PIPELINE_S), "to": until}
            words |= {"bucket": bucket_of(width), "width": width}
        return {word: value for word, value in words.items() if word in wanted}

    def _bins(self, look: Look) -> dict[str, float]:
        """Bars that stay where they are while time moves: across all values of the dataset."""
        columns = self._page.series(look.dataset, look.variable).columns
        low, high = (
            (float(columns[:, 0].min()), float(columns[:, 2].max()))
            if len(columns)
            else (
                0.0,
                1.0,
            )
        )
        return {"low": low, "width": (high - low) / BINS or 1.0}

    def _whole(self, dataset: str) -> int:
        columns = self._page.times(dataset).columns
        return int(columns[:, 0].max()) if len(columns) else 1

    def _step_s(self, dataset: str) -> float:
        times = self._page.times(dataset).times
        return float(np.median(np.diff(times))) / 1000.0 if len(times) > 1 else 1.0

    def _span_ms(self, look: Look) -> tuple[int, int]:
        times = self._page.times(look.dataset).times
        first, last = (int(times[0]), int(times[-1])) if len(times) else (0, 0)
        since = first if look.since is None else max(first, ms_of(look.since))
        until = last if look.until is None else ms_of(look.until)
        return since, until

    def _choice(self, look: Look) -> Choice:
        return self._page.choice(look.dataset, look.variable)

    def _cell(self, look: Look) -> tuple[str, float, float]:
        if look.place is None:
            raise UsageError("the place of a cell is missing: cell=LATITUDE,LONGITUDE")
        self._page.check(look.dataset, look.variable)
        slice_ = (
            self._page.looks.slice(look.dataset, look.time)
            if look.time
            else self._page.newest(look.dataset)
        )
        return self._page.fields.nearest(look.dataset, look.variable, slice_, look.place)


def _coverage_words(seconds: float, by: str | None) -> dict[str, Any]:
    """The steps asked for, unless they are too many; else those that suit the span."""
    suits = next(name for name, (_, span) in COVERAGE_STEPS.items() if seconds < span)
    if by is None or (by != "day" and seconds > MANY_STEPS * COVERAGE_STEPS[by][0]):
        by = suits
    width, _ = COVERAGE_STEPS[by]
    return {"bucket": bucket_of(width), "by": by, "width": width}
