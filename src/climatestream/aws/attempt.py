"""One event's messages on their way to the store, and how far they have got."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from climatestream.aws.configuration import Configuration
from climatestream.aws.kafka_event import TopicPartition, cut, place_of
from climatestream.errors import StoreError, StoreUnavailable, Transient
from climatestream.ingest import Ingest, Report
from climatestream.keep import Keeper
from climatestream.meter import percentile
from climatestream.model import NS_PER_MS, DeadLetter, Messages
from climatestream.ports import PipelineRow
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_errors import RequestRefused, Verdict
from climatestream.stores.crate_merge import REQUEST_ROWS

PART: Final = REQUEST_ROWS
"""Messages ingested at once at most: the store's own request. An event with more is done in
parts, so that with a slow store it gets on from one invocation to the next."""

KEPT_ROWS: Final = 1_000
"""Rows of `demo.pipeline` kept while the store can't take them; the oldest are dropped."""

EXPIRE_S: Final = 600.0
"""Time between two rounds of dropping what is older than is kept, at most [s]; a tenth of what is
kept where that is shorter."""


@dataclass(frozen=True)
class Progress:
    """How far the messages of an event have got.

    Parameters
    ----------
    done
        By topic and partition, the offset below which every message is done.
    held
        Topics and partitions in which a message failed.
    latency_ms
        By topic and partition, of the messages that are done: from publishing to the store's
        answer.
    error
        Why something is not done: the first reason.
    seconds
        Time that it took.
    """

    done: Mapping[TopicPartition, int] = field(default_factory=dict)
    held: frozenset[TopicPartition] = frozenset()
    stored: int = 0
    expired: int = 0
    dead: tuple[DeadLetter, ...] = ()
    latency_ms: Mapping[TopicPartition, Sequence[int]] = field(default_factory=dict)
    error: Transient | StoreError | None = None
    seconds: float = 0.0

    def failing(self, error: Transient | StoreError) -> Progress:
        """With a reason for which the rest is not done."""
        return replace(self, error=self.error or error)

    def after(self, part: Sequence[Messages], report: Report, seconds: float) -> Progress:
        """With a part of the messages reported on just now, none of them of a held partition.

        Parameters
        ----------
        seconds
            How long it took.
        """
        now_ms = time.time_ns() // NS_PER_MS
        done, latency_ms = dict(self.done), dict(self.latency_ms)
        first = report.first_retry()
        for block in part:
            place = place_of(block)
            done[place] = first.get(place, block.offset[-1] + 1)
            published = block.published_at_ms[: bisect_left(block.offset, done[place])]
            latency_ms[place] = [*latency_ms.get(place, ()), *(now_ms - at for at in published)]
        return Progress(
            done,
            self.held | first.keys(),
            self.stored + report.stored,
            self.expired + report.expired,
            self.dead + tuple(report.dead),
            latency_ms,
            self.error or report.error,
            self.seconds + seconds,
        )


def first_failed(messages: Sequence[Messages], progress: Progress) -> dict[TopicPartition, int]:
    """By topic and partition, the offset of the first message that is not done."""
    failed = {}
    for block in messages:
        place = place_of(block)
        count = bisect_left(block.offset, progress.done.get(place, block.offset[0]))
        if count < len(block):
            failed[place] = block.offset[count]
    return failed


class Consumer:
    """The store, with its connections, and what is known of it: what one event leaves to the next.

    Parameters
    ----------
    configuration
        What the function was told.
    instance
        Who it is, in `demo.pipeline`.
    """

    def __init__(self, configuration: Configuration, instance: str) -> None:
        self.instance = instance
        self._store = CrateStore(configuration.store)
        self._ingest = Ingest(self._store, configuration.dataset)
        self._is_open = False
        self._unwritten: list[PipelineRow] = []
        self._keeper: Keeper | None = None
        self._expire_s = EXPIRE_S
        self._next_expiry = 0.0
        if configuration.keep_s is not None:
            self._keeper = Keeper(self._store, configuration.keep_s, self._ingest.datasets.copy)
            self._ingest.horizon_ms = self._keeper.horizon_ms
            self._expire_s = min(EXPIRE_S, configuration.keep_s / 10)

    def close(self) -> None:
        """Let the connections go; the next event opens them again."""
        self._is_open = False
        self._store.close()

    def ingest(self, messages: Sequence[Messages], end: float) -> Report:
        """Ingest some messages, as the worker does; the store is opened first where it is not.

        Parameters
        ----------
        end
            When the store must have answered, by `time.monotonic` [s].

        Raises
        ------
        Transient
            The store can't be opened now.
        StoreError
            The store is not as it should be.
        """
        self._store.answer_by(end)
        if not self._is_open:
            self._store.open()
            self._is_open = True
        return self._ingest(messages)

    def record(self, rows: Sequence[PipelineRow], *, store_answers: bool) -> None:
        """Write rows of `demo.pipeline`: now, or with the next event's."""
        self._unwritten += rows
        del self._unwritten[:-KEPT_ROWS]
        if store_answers:
            self._store.record(self._unwritten)
            self._unwritten.clear()

    def expire(self) -> None:
        """Drop what is older than is kept, now and then."""
        if self._keeper is not None and time.time() >= self._next_expiry:
            self._next_expiry = time.time() + self._expire_s
            self._keeper.drop()


class Attempt:
    """An invocation's work: `run` may go on while `progress` is read.

    Parameters
    ----------
    messages
        A block for each topic-partition.
    end
        When the invocation must have its answer, by `time.monotonic` [s].
    """

    def __init__(self, consumer: Consumer, messages: Sequence[Messages], end: float) -> None:
        self._consumer = consumer
        self._messages = messages
        self._end = end
        self.progress = Progress()
        """Replaced as a whole after each part."""
        self.trouble: Transient | StoreError | None = None
        """Why rows of `demo.pipeline` were not written, or old readings not dropped."""
        self.bug: BaseException | None = None

    def run(self) -> None:
        """Ingest the messages while there is time; never raises."""
        try:
            self._ingest()
            self._look_after()
        except BaseException as error:  # the invocation raises it
            self.bug = error

    def _ingest(self) -> None:
        longest_s = 0.0
        for part in cut(self._messages, PART):
            ready = [block for block in part if place_of(block) not in self.progress.held]
            if not ready:
                continue
            began = time.monotonic()
            if began + longest_s >= self._end:
                error = StoreUnavailable("the invocation's time was over before all was begun")
                self.progress = self.progress.failing(error)
                return
            try:
                report = self._consumer.ingest(ready, self._end)
            except (Transient, StoreError) as error:
                if _is_unknown(error):
                    raise
                self.progress = self.progress.failing(error)
                return
            seconds = time.monotonic() - began
            self.progress = self.progress.after(ready, report, seconds)
            if len(report.retry) == sum(map(len, ready)):
                return  # what ails all of them ails the others too
            longest_s = max(longest_s, seconds)

    def _look_after(self) -> None:
        """Telemetry, and old readings; neither keeps a message from being done."""
        answers = self.progress.error is None
        try:
            self._consumer.record(self._rows(), store_answers=answers)
            if answers:
                self._consumer.expire()
        except (Transient, StoreError) as error:
            self.trouble = error

    def _rows(self) -> list[PipelineRow]:
        """A row of `demo.pipeline` for each topic-partition."""
        progress = self.progress
        failed = first_failed(self._messages, progress)
        dead = Counter((letter.topic, letter.partition) for letter in progress.dead)
        rows = []
        for block in self._messages:
            place = place_of(block)
            latency_ms = Counter(progress.latency_ms.get(place, ()))
            p50, p95, p99 = (percentile(latency_ms, share) for share in (0.5, 0.95, 0.99))
            rows.append(
                PipelineRow(
                    time_ms=time.time_ns() // NS_PER_MS,
                    instance=self._consumer.instance,
                    topic=block.topic,
                    partition=block.partition,
                    offset=progress.done.get(place),
                    high_water=None,
                    rows=max(0, latency_ms.total() - dead[place]),
                    batch_ms=progress.seconds * 1000.0,
                    dead=dead[place],
                    errors=int(place in failed),
                    stored_p50_ms=p50,
                    stored_p95_ms=p95,
                    stored_p99_ms=p99,
                )
            )
        return rows


def _is_unknown(error: Transient | StoreError) -> bool:
    """Whether nobody knows what it means, as opposed to what time or the operator can mend."""
    return isinstance(error, RequestRefused) and error.verdict is Verdict.UNKNOWN
