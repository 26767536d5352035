"""Which time of a dataset is the newest worth showing, and how often to look for the next."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from climatestream.dashboards.panels import iso

if TYPE_CHECKING:
    from climatestream.web.asking import Asking

BEAT_S: Final = 0.25
"""Time between two looks for news [s]; however many browsers look, the store is asked once."""
QUICK_BEAT_S: Final = 0.04
"""The same while news comes quickly [s]."""
KEPT_POLLS: Final = 500
"""Measurements of event to queryable that the percentiles are of."""
STEADY_S: Final = 1.0
"""Time between two looks from which the arrival of news is not known well enough [s]."""


@dataclass(frozen=True)
class Slice:
    """A time of a dataset as it is stored now; another version when a row was added or changed."""

    time: datetime
    cells: int
    version: str


class Looks:
    """Looks for news in a store; however many browsers wait for it, at most once in a beat."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self.beat_s = BEAT_S
        """Time between two looks now [s]."""
        self.polls_ms: deque[float] = deque(maxlen=KEPT_POLLS)
        """Event to queryable of the newest fields, as these looks saw them [ms]."""
        self._news_at = -math.inf
        self._looked_at = -math.inf
        self._shown: dict[str, Slice] = {}
        self._growing: dict[str, tuple[Slice, float]] = {}

    def newest(self, dataset: str) -> Slice:
        """The newest slice that is worth showing."""
        return self._asking.fresh(
            ("newest", dataset), lambda: self._ask_newest(dataset), self.beat_s
        )

    def slice(self, dataset: str, at: datetime) -> Slice:
        """A time as it is stored now."""
        return self._asking.fresh(
            ("slice", dataset, at), lambda: self._ask_slice(dataset, at)[0], BEAT_S
        )

    def _ask_newest(self, dataset: str) -> Slice:
        """The newest slice that is worth showing.

        A slice is written in several parts. One that has fewer cells than the one before is
        shown when it stops growing, or when a newer one begins, so that no picture has holes
        for a moment and a quick stream is never waited for.
        """
        shown = self._shown.get(dataset)
        time_ = None
        if shown is not None:
            time_ = self._ask_newest_time(dataset, shown.time)
        if time_ is None:
            time_ = self._ask_newest_time(dataset, None)
        if time_ is None:  # its last readings have expired since the datasets were listed
            self._asking.forget("datasets")
            return Slice(datetime.fromtimestamp(0, UTC), 0, "")
        newest, published_at = self._ask_slice(dataset, time_)
        now = self._asking.clock()
        growing, since = self._growing.pop(dataset, (None, now))
        if shown is not None and newest.time != shown.time and newest.cells < shown.cells:
            if growing is None or (growing.time == newest.time and growing != newest):
                self._growing[dataset] = newest, now
                newest = shown
            elif growing.time != newest.time:
                self._growing[dataset] = newest, now
                newest, published_at = self._ask_slice(dataset, growing.time)
            elif now - since < BEAT_S:
                self._growing[dataset] = growing, since
                newest = shown
        if newest != shown:
            self._saw_news(now, published_at)
        self._looked_at = now
        self._shown[dataset] = newest
        return newest

    def _saw_news(self, now: float, published_at: datetime | None) -> None:
        """Look about ten times between one piece of news and the next."""
        self.beat_s = min(BEAT_S, max(QUICK_BEAT_S, (now - self._news_at) / 10.0))
        self._news_at = now
        if published_at is not None and 0.0 <= now - self._looked_at < STEADY_S:
            self.polls_ms.append(max(0.0, (now - published_at.timestamp()) * 1000.0))

    def _ask_newest_time(self, dataset: str, since: datetime | None) -> datetime | None:
        """The newest time; from a known one on only the end of the table is read."""
        sql = 'SELECT max("timestamp") AS newest FROM demo.climate_data WHERE dataset = ?'
        parameters = [dataset]
        if since is not None:
            sql += ' AND "timestamp" >= ?'
            parameters.append(iso(since))
        ((time_,),) = self._asking.query(sql, parameters).rows
        found: datetime | None = time_
        return found

    def _ask_slice(self, dataset: str, at: datetime) -> tuple[Slice, datetime | None]:
        ((cells, stored_at, published_at),) = self._asking.query(
            "SELECT count(*) AS cells, max(stored_at) AS stored_at, "
            "max(published_at) AS published_at FROM demo.climate_data "
            'WHERE dataset = ? AND "timestamp" = ?',
            [dataset, iso(at)],
        ).rows
        version = f"{cells}.{stored_at.timestamp() if stored_at else 0:.3f}"
        return Slice(at, cells, version), published_at
