"""What a panel says of each time of a dataset, kept in memory and brought up to date cheaply."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from climatestream.web.asking import COST_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from climatestream.dashboards.panels import Panel
    from climatestream.web.asking import Asking

ALWAYS: Final = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
"""The times that a reading can have."""
WHOLE_S: Final = 2.0
"""Time after which all times are asked for again at the earliest [s]: readings of the past arrive
too. In between only the newest are."""
OVERLAP: Final = 3
"""Newest times that are asked for again each time: they may still have been growing."""


class TimeTable:
    """The rows of a panel that is grouped by time, as columns.

    Parameters
    ----------
    panel
        Its first column is the time, all others are numbers; takes `$from` and `$to`.
    values
        Its other words.
    """

    def __init__(self, asking: Asking, panel: Panel, values: Mapping[str, Any]) -> None:
        self._asking = asking
        self._panel = panel
        self._values = values
        self._whole_at = -math.inf
        self._seconds = 0.0
        self._asked: NDArray[np.int64] = np.empty(0, np.int64)
        self.times: NDArray[np.int64] = np.empty(0, np.int64)
        """Milliseconds since the epoch, ascending."""
        self.columns: NDArray[np.float64] = np.empty((0, 1))
        """Shape (times, columns)."""

    def refresh(self, horizon_ms: int, stored: NDArray[np.int64] | None = None) -> None:
        """Ask for what is new, and forget what is older than the horizon.

        Parameters
        ----------
        stored
            All times of the dataset, where they are known: those that were never asked for are
            asked for now, though they be of the past.
        """
        now = self._asking.clock()
        age = now - self._whole_at
        if not 0.0 <= age < max(WHOLE_S, COST_SHARE * self._seconds) or not len(self.times):
            began = time.perf_counter()
            self.times, self.columns = self._ask(*ALWAYS)
            self._seconds = time.perf_counter() - began
            self._whole_at = now
        else:
            self._replace(int(self.times[-min(OVERLAP, len(self.times))]), None)
            if stored is not None:
                missing = np.setdiff1d(stored, self._asked, assume_unique=True)
                if len(missing):
                    self._replace(int(missing[0]), int(missing[-1]))
        if stored is not None:
            self._asked = stored
        first = int(np.searchsorted(self.times, horizon_ms))
        self.times, self.columns = self.times[first:], self.columns[first:]

    def _replace(self, since: int, until: int | None) -> None:
        """Ask anew for the times from `since` to `until`; None: to the end [ms]."""
        times, columns = self._ask(at_ms(since), ALWAYS[1] if until is None else at_ms(until))
        first = int(np.searchsorted(self.times, since))
        last = len(self.times) if until is None else int(np.searchsorted(self.times, until + 1))
        self.times = np.concatenate([self.times[:first], times, self.times[last:]])
        self.columns = np.concatenate([self.columns[:first], columns, self.columns[last:]])

    def _ask(self, since: datetime, until: datetime) -> tuple[NDArray[np.int64], Any]:
        answer = self._asking.panel(self._panel, {**self._values, "from": since, "to": until})
        width = len(answer.columns) - 1
        if not answer.rows:
            return np.empty(0, np.int64), np.empty((0, width))
        times, *columns = zip(*answer.rows, strict=True)
        stamps = np.array([ms_of(at) for at in times], np.int64)
        return stamps, np.array(columns, np.float64).T.reshape(len(stamps), width)


def buckets(
    times: NDArray[np.int64], low: NDArray[Any], mean: NDArray[Any], high: NDArray[Any], most: int
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same in at most this many steps of equal length, lowest, mean and highest of each."""
    if len(times) <= most:
        return times, low, mean, high
    place = (times - times[0]) * most // (times[-1] - times[0] + 1)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    lengths = np.diff(starts, append=len(times))
    return (
        times[starts],
        np.minimum.reduceat(low, starts),
        np.add.reduceat(mean, starts) / lengths,
        np.maximum.reduceat(high, starts),
    )


def ms_of(at: datetime) -> int:
    """A time in milliseconds since the epoch."""
    return (at - _EPOCH) // _MS


def at_ms(ms: int) -> datetime:
    """The time of milliseconds since the epoch."""
    return _EPOCH + ms * _MS


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
