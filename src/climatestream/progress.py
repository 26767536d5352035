"""What a long command does, how far it is, its rate and what is left, on standard error."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from climatestream.ingest import ORIGINAL_TIME
from climatestream.logs import FIELDS, LOGGER
from climatestream.meter import Counts
from climatestream.model import Batch

FIRST_S = 2.0
"""Time after which a command shows its progress [s]: shorter ones say only their result."""
TERMINAL_S = 0.2
LINES_S = 5.0
"""Time between two updates [s], on a terminal and where lines are appended to a log."""
RATE_S = 10.0
"""The rate that is shown is that of the last so many seconds [s]."""

COUNTED = (
    *("published", "stored", "dead", "expired", "retries"),
    *("lag", "batch_rows", "batch_ms"),
)


class Progress:
    """Shows counts until it is closed: a bar on a terminal, plain lines elsewhere.

    Parameters
    ----------
    counts
        What is shown.
    slices
        How many slices there are to read; None: no end.
    """

    def __init__(self, counts: Counts, slices: int | None) -> None:
        self._counts = counts
        self._slices = slices
        self._read = 0
        self.datasets: set[str] = set()
        """The datasets of the batches that were watched."""
        self._began = time.monotonic()
        self._seen = deque([(self._began, 0)])
        """When how many messages were done, over the last `RATE_S`."""
        self._end = threading.Event()
        self._console = Console(stderr=True)
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, their slices counted."""
        last = None
        for batch in batches:
            slice_ = (batch.dataset, batch.time_ns, batch.extra.get(ORIGINAL_TIME))
            self._read += slice_ != last
            last = slice_
            self.datasets.add(batch.dataset)
            yield batch

    def _show(self) -> None:
        if self._end.wait(FIRST_S):
            return
        if self._console.is_terminal and not LOGGER.isEnabledFor(logging.INFO):
            self._show_bar()
        else:
            self._show_lines()

    def _show_bar(self) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        if self._slices is not None:
            columns += [BarColumn(20), MofNCompleteColumn(), TextColumn("slices")]
            columns += [TimeRemainingColumn()]
        with Bar(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(self._said(), total=self._slices)
            while not self._end.wait(TERMINAL_S):
                bar.update(task, completed=self._read, description=self._said())

    def _show_lines(self) -> None:
        while True:
            LOGGER.info("progress", extra={FIELDS: self._fields()})
            if not LOGGER.isEnabledFor(logging.INFO):
                print(self._said() + self._left(), file=sys.stderr, flush=True)
            if self._end.wait(LINES_S):
                return

    def _said(self) -> str:
        counts = self._counts
        said = f"{counts.published:,} published, {counts.stored:,} stored, {self._rate():,.0f}/s"
        if counts.batch_rows:
            said += f", {counts.batch_rows:,} rows in {counts.batch_ms:,.0f} ms"
        if counts.lag:
            said += f", lag {counts.lag:,}"
        if counts.dead:
            said += f", {counts.dead:,} dead letters"
        if counts.waiting_for is not None:
            said += f", trying again: {counts.waiting_for}"
        return said

    def _rate(self) -> float:
        """Messages done a second; of a command that only publishes, published."""
        counts, now = self._counts, time.monotonic()
        done = counts.stored + counts.dead + counts.expired or counts.published
        while len(self._seen) > 1 and self._seen[1][0] <= now - RATE_S:
            self._seen.popleft()
        since, before = self._seen[0]
        self._seen.append((now, done))
        return max(0, done - before) / (now - since) if now > since else 0.0

    def _fields(self) -> dict[str, Any]:
        """What is counted, for a log that machines read."""
        counts = {name: value for name, value in vars(self._counts).items() if name in COUNTED}
        trouble = self._counts.waiting_for
        counts["rate_per_s"] = round(self._rate(), 1)
        return {**counts, "slices": self._read, "waiting_for": trouble and str(trouble)}

    def _left(self) -> str:
        if self._slices is None:
            return f", slice {self._read:,}" if self._read else ""
        left = ""
        if self._read:
            seconds = (time.monotonic() - self._began) / self._read * (self._slices - self._read)
            left = f", about {seconds:,.0f} s left"
        return f", slice {self._read:,} of {self._slices:,}{left}"


def say(sentence: str) -> None:
    """Tell the user, who may be piping messages from standard output."""
    print(f"climatestream: {sentence}", file=sys.stderr)


class Spinner:
    """Says what a command is doing while it can't say how far it is.

    Parameters
    ----------
    said
        What it does, in a line.
    fields
        The same for a log that machines read; None: they get the line.
    """

    def __init__(
        self, said: Callable[[], str], fields: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self._said = said
        self._fields = fields
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _show(self) -> None:
        console = Console(stderr=True)
        if self._end.wait(FIRST_S):
            return
        if LOGGER.isEnabledFor(logging.INFO) or not console.is_terminal:
            while True:
                self._show_line()
                if self._end.wait(LINES_S):
                    return
        with console.status(self._said()) as status:
            while not self._end.wait(TERMINAL_S):
                status.update(self._said())

    def _show_line(self) -> None:
        if not LOGGER.isEnabledFor(logging.INFO):
            print(self._said(), file=sys.stderr, flush=True)
        elif self._fields is None:
            LOGGER.info(self._said())
        else:
            LOGGER.info("progress", extra={FIELDS: self._fields()})
