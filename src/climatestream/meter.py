"""What the pipeline does, counted: for the progress line, `--json` and `demo.pipeline`."""

from __future__ import annotations

import bisect
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from climatestream.errors import StoreUnavailable, Transient
from climatestream.ingest import Report
from climatestream.model import Messages
from climatestream.ports import PipelineRow, Store

INTERVAL_S = 5.0
"""Time that a row of `demo.pipeline` speaks of [s]."""
FIRST_S = 1.0
"""Time that the first row speaks of [s]: who looks at a page just opened sees a rate."""
KEPT_ROWS = 10_000
"""Rows kept while the store can't take them [rows]; the oldest are dropped: they are telemetry."""


LATENCY_MS = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 6e4, math.inf)
"""Upper bounds of the histogram of event to stored [ms]."""


class Latencies:
    """How long messages took, counted by `LATENCY_MS`: a histogram since the start."""

    def __init__(self) -> None:
        self.counts: Counter[float] = Counter()
        """Messages by the smallest bound that their latency does not exceed."""
        self.sum_ms = 0.0

    def add(self, latency_ms: float, count: int = 1) -> None:
        """Count messages of one latency."""
        self.counts[LATENCY_MS[bisect.bisect_left(LATENCY_MS, latency_ms)]] += count
        self.sum_ms += latency_ms * count


@dataclass
class _Window:
    """What was done with one partition since the last row."""

    offset: int | None = None
    rows: int = 0
    dead: int = 0
    errors: int = 0
    batch_ms: list[float] = field(default_factory=list)
    latency_ms: Counter[int] = field(default_factory=Counter)


class Counts:
    """What a command has done so far."""

    def __init__(self) -> None:
        self.published = 0
        self.stored = 0
        self.dead = 0
        self.expired = 0
        self.retries = 0
        self.waiting_for: Transient | None = None
        """Why the store or the broker is being waited for; None while all is well."""
        self.batch_rows = 0
        """Messages of the newest batch."""
        self.batch_ms = 0.0
        """Time in which the store answered for it [ms]."""
        self.lag: int | None = None
        """Messages published and not done; None where no one knows."""


class Meter(Counts):
    """Counts of one consumer; writes a row a partition and interval into `demo.pipeline`.

    Parameters
    ----------
    store
        Where the rows go, from a thread of its own while the meter is open.
    high_water
        By assigned partition, the offset after the newest message.
    """

    def __init__(
        self,
        store: Store,
        topic: str,
        high_water: Callable[[], Mapping[int, int]],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        super().__init__()
        self._store = store
        self._topic = topic
        self._high_water = high_water
        self._clock_ms = clock_ms
        self._instance = f"{socket.gethostname()}:{os.getpid()}"
        self.latencies = Latencies()
        """From a message's time to the store's answer."""
        self._windows: dict[int, _Window] = {}
        self._unwritten: list[PipelineRow] = []
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write_often, name="meter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._write()

    def saw(self, messages: Sequence[Messages], report: Report, seconds: float) -> None:
        """Count a batch for which the store has answered.

        Raises
        ------
        Exception
            What writing the rows met and time can't mend.
        """
        if self._error is not None:
            raise self._error
        now_ms = self._clock_ms()
        dead = Counter(letter.partition for letter in report.dead)
        with self._lock:
            self.stored += report.stored
            self.dead += len(report.dead)
            self.expired += report.expired
            self.waiting_for = None
            self.batch_rows = sum(map(len, messages))
            self.batch_ms = seconds * 1000.0
            for block in messages:
                window = self._windows.setdefault(block.partition, _Window())
                window.offset = block.offset[-1] + 1
                window.dead += dead[block.partition]
                too_old = report.too_old.get((block.topic, block.partition), 0)
                window.rows += len(block) - dead[block.partition] - too_old
                window.batch_ms.append(seconds * 1000.0)
                for published_at_ms, count in Counter(block.published_at_ms).items():
                    latency_ms = now_ms - published_at_ms
                    window.latency_ms[latency_ms] += count
                    self.latencies.add(latency_ms, count)

    def failed(self, messages: Sequence[Messages], error: Transient) -> None:
        """Count a failure that will be tried again."""
        with self._lock:
            self.retries += 1
            self.waiting_for = error
            for block in messages:
                self._windows.setdefault(block.partition, _Window()).errors += 1

    def _write_often(self) -> None:
        interval_s = FIRST_S
        try:
            while not self._end.wait(interval_s):
                self._write()
                interval_s = INTERVAL_S
        except Exception as error:  # whatever it is, the run must not go on without telemetry
            self._error = error

    def _write(self) -> None:
        high_water: dict[int, int | None]
        try:
            high_water = {**self._high_water()}
        except Transient as error:
            self.waiting_for = error
            high_water = dict.fromkeys(self._windows)
        now_ms = self._clock_ms()
        with self._lock:
            windows = self._windows
            # an idle partition goes on from where it was
            self._windows = {n: _Window(w.offset) for n, w in windows.items() if n in high_water}
        self.lag = _lag(windows, high_water)
        self._unwritten += [
            self._row(
                now_ms, partition, windows.get(partition, _Window()), high_water.get(partition)
            )
            for partition in sorted(high_water.keys() | windows.keys())
        ]
        try:
            self._store.record(self._unwritten)
        except Transient as error:
            self.waiting_for = error
            del self._unwritten[:-KEPT_ROWS]
        else:
            self._unwritten.clear()
            if isinstance(self.waiting_for, StoreUnavailable):
                self.waiting_for = None

    def _row(
        self, now_ms: int, partition: int, window: _Window, high_water: int | None
    ) -> PipelineRow:
        batches = window.batch_ms
        p50, p95, p99 = (percentile(window.latency_ms, share) for share in (0.5, 0.95, 0.99))
        return PipelineRow(
            time_ms=now_ms,
            instance=self._instance,
            topic=self._topic,
            partition=partition,
            offset=window.offset,
            high_water=high_water,
            rows=window.rows,
            batch_ms=sum(batches) / len(batches) if batches else None,
            dead=window.dead,
            errors=window.errors,
            stored_p50_ms=p50,
            stored_p95_ms=p95,
            stored_p99_ms=p99,
        )


def _lag(windows: Mapping[int, _Window], high_water: Mapping[int, int | None]) -> int | None:
    """Messages of the assigned partitions that are not done."""
    lag = 0
    for partition, end in high_water.items():
        done = windows.get(partition, _Window()).offset
        if end is None or done is None:
            return None
        lag += max(0, end - done)
    return lag


def percentile(counts: Counter[int], share: float) -> float | None:
    """The smallest value that at least this share of the counted does not exceed."""
    left = math.ceil(share * counts.total())
    for value, count in sorted(counts.items()):
        left -= count
        if left <= 0:
            return float(value)
    return None
