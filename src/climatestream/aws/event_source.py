"""A local event source mapping: from a topic to a function, as AWS's does it.

Polling, batches and order
(https://docs.aws.amazon.com/lambda/latest/dg/with-msk-configure.html,
https://docs.aws.amazon.com/lambda/latest/dg/kafka-scaling-modes.html):

- a partition's records are sent in order, one batch at a time; a batch may have records of
  several partitions;
- an event poller has up to five invocations under way. Not documented, and assumed: partitions
  belong to the pollers in turn, and a batch takes first what has waited longest. AWS scales the
  pollers between MinimumPollers and MaximumPollers; here MinimumPollers run.

When a batch is sent
(https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html): at BatchSize
records, at 6 MB of event, or when the batching window ends, which begins with the first record,
or with the end of the batch before.

What happens to a batch that fails
(https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html, `answers` and
`destination`):

- what failed is sent again, up to MaximumRetryAttempts times; with BisectBatchOnFunctionError a
  batch that failed as a whole is first cut in two, each sent by itself, the first half first,
  which does not count as a retry
  (https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html);
- a record older than MaximumRecordAgeInSeconds is not sent (again);
- what is given up goes to the on-failure destination, or is dropped.

Not documented, and assumed: retries wait 0.1 s, doubling up to 10 s; what a batch still has after
a partial success counts its retries on; a destination that takes nothing holds the partition.

Delivery: at least once. A partition's offset is committed only up to the first record that is
neither done nor kept by the destination.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from climatestream.aws.answers import Again, Outcome, judge
from climatestream.aws.destination import Condition, Destination, Discarded
from climatestream.aws.mapping_event import PAYLOAD_BYTES, EventSource, Record, records_of
from climatestream.aws.mapping_settings import EventSourceMapping
from climatestream.errors import Transient
from climatestream.logs import LOGGER
from climatestream.meter import Latencies
from climatestream.model import Messages
from climatestream.patience import FIRST_WAIT_S, LONGEST_WAIT_S, patiently
from climatestream.ports import Consumer

INVOCATIONS: Final = 5
"""Invocations that a poller has under way at most: kafka-scaling-modes.html."""
POLL_S: Final = 0.02
"""Time that a poll waits for messages [s]; what comes sooner is taken at once."""
POLL_MESSAGES: Final = 5_000
HELD_BATCHES: Final = 2
"""Batches of a partition that are held ahead; then it is paused until half of it is sent."""
HELD_LEAST: Final = 500
"""Records of a partition that are held ahead at least, as pausing costs a fetch [records]."""

Invoke: TypeAlias = Callable[[bytes], Outcome]


class Counted:
    """What a mapping has done so far."""

    def __init__(self) -> None:
        self.delivered = 0
        """Records that the function has done."""
        self.discarded: Counter[str] = Counter()
        """Records given up, by condition."""
        self.invocations = 0
        self.errors = 0
        """Invocations that failed as a whole."""
        self.partial = 0
        """Invocations that reported some records as failed."""
        self.retries = 0
        """Batches sent again."""
        self.batch_records = 0
        """Records of the newest batch."""
        self.batch_ms = 0.0
        """Time in which it was answered [ms]."""
        self.latencies = Latencies()
        """From the time of a record to the answer by which it is done."""
        self.trouble: str | None = None
        """Why something is tried again; None while all is well."""


@dataclass(eq=False)
class _Partition:
    """A partition that is ours, and how far it is."""

    number: int
    buffer: deque[Record] = field(default_factory=deque)
    size: int = 0
    """Of what is buffered [bytes]."""
    since: float = 0.0
    """When the first of the buffered records came, or the batch before ended."""
    under_way: set[int] = field(default_factory=set)
    """The offsets of its records that were sent, and are neither done nor discarded."""
    end: int = 0
    """The offset after the last that was sent."""
    committed: int = 0

    @property
    def done(self) -> int:
        """The offset below which all is done."""
        return min(self.under_way, default=self.end)


class EventPollers:
    """The event pollers of a mapping.

    Parameters
    ----------
    mapping
        Its settings.
    source
        What events say of where they come from.
    invoke
        Sends an event to the function; may be called from several threads.
    destination
        Takes what is given up; None: it is dropped.
    concurrency
        Invocations at once at most; None: five a poller.
    again
        What comes again of what a partial answer names: `answers`.
    clock_ms
        The time that the age of records is measured by.
    waits_s
        Before the first retry, and at most [s].
    """

    def __init__(
        self,
        mapping: EventSourceMapping,
        source: EventSource,
        invoke: Invoke,
        destination: Destination | None = None,
        *,
        concurrency: int | None = None,
        again: Again = "onwards",
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        waits_s: tuple[float, float] = (FIRST_WAIT_S, LONGEST_WAIT_S),
    ) -> None:
        self.counted = Counted()
        self._mapping = mapping
        self._source = source
        self._invoke = invoke
        self._destination = destination
        self._concurrency = concurrency or INVOCATIONS * mapping.pollers
        self._again: Again = again
        self._clock_ms = clock_ms
        self._waits_s = waits_s
        self._partitions: dict[int, _Partition] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._consumer: Consumer
        self._paused: frozenset[int] = frozenset()
        self._held = max(HELD_LEAST, HELD_BATCHES * mapping.batch_size)

    # ---------------------------------------------------------------------------- polling

    def run(
        self, consumer: Consumer, *, finished: Callable[[], bool], stop: threading.Event
    ) -> None:
        """Take records to the function until `finished` says so, or until `stop`.

        After `stop` nothing is sent any more; what is under way is waited for.
        """
        self._consumer, self._stop = consumer, stop
        workers = [
            threading.Thread(target=self._work, args=(number,), name=f"invoker {number}")
            for number in range(self._concurrency)
        ]
        for worker in workers:
            worker.daemon = True
            worker.start()
        try:
            while not (stop.is_set() or self._error is not None or finished()):
                self._commit(stop)
                self._pause()
                blocks = patiently(
                    partial(consumer.poll, POLL_MESSAGES, POLL_S), stop, self._trouble
                )
                self._add(blocks or ())
        finally:
            stop.set()
            with self._changed:
                self._changed.notify_all()
            for worker in workers:
                worker.join()
        if self._error is not None:
            raise self._error
        self._commit(threading.Event())

    def revoked(self, numbers: Iterable[int], lost: bool) -> None:
        """Leave partitions to another member: what is under way of them is no longer ours."""
        if not lost:
            with suppress(Transient):  # their next owner does them again
                self._consumer.commit(self._due(numbers))
        with self._changed:
            for number in numbers:
                self._partitions.pop(number, None)

    def _add(self, blocks: Sequence[Messages]) -> None:
        """Hold messages for the next batches."""
        fresh = [(block, records_of(block)) for block in blocks]
        if not fresh:
            return
        now = time.monotonic()
        with self._changed:
            for block, records in fresh:
                first = block.offset[0]
                found = self._partitions.get(block.partition)
                if found is None:
                    found = _Partition(block.partition, end=first, committed=first)
                    self._partitions[block.partition] = found
                if not found.buffer:
                    found.since = max(found.since, now)
                found.buffer.extend(records)
                found.size += sum(record.size for record in records)
            self._changed.notify_all()

    def _pause(self) -> None:
        """Take no more of partitions that hold enough already."""
        with self._changed:
            paused = frozenset(
                number
                for number, found in self._partitions.items()
                if len(found.buffer) > self._held // (2 if number in self._paused else 1)
                or found.size > 2 * self._source.room(1)
            )
        if paused != self._paused:
            self._consumer.pause(paused)
            self._paused = paused

    def _due(self, numbers: Iterable[int] | None = None) -> dict[int, int]:
        """The offsets to commit, which are taken to be committed from now on."""
        with self._changed:
            due = {
                number: found.done
                for number, found in self._partitions.items()
                if found.done > found.committed and (numbers is None or number in numbers)
            }
            for number, offset in due.items():
                self._partitions[number].committed = offset
        return due

    def _commit(self, stop: threading.Event) -> None:
        due = self._due()
        if due:
            patiently(partial(self._consumer.commit, due), stop, self._trouble)

    def _trouble(self, error: Transient) -> None:
        self.counted.trouble = str(error)

    # ---------------------------------------------------------------------------- batches

    def _work(self, number: int) -> None:
        """Send one batch after the other."""
        try:
            while True:
                batch = self._next(number % self._mapping.pollers)
                if batch is None:
                    return
                self._deliver(*batch)
        except BaseException as error:  # it ends the run
            self._error = self._error or error
            self._stop.set()

    def _next(self, poller: int) -> tuple[list[Record], dict[int, _Partition]] | None:
        """The next batch of a poller, with whose it is, once it is to be sent; None: no more."""
        with self._changed:
            while not self._stop.is_set():
                ready = [
                    found
                    for number, found in self._partitions.items()
                    if number % self._mapping.pollers == poller
                    and found.buffer
                    and not found.under_way
                ]
                wait_s = self._window_left(ready)
                if wait_s is not None and wait_s <= 0:
                    batch = self._cut(sorted(ready, key=lambda found: found.since))
                    return batch, {found.number: found for found in ready}
                self._changed.wait(wait_s)
        return None

    def _window_left(self, ready: Sequence[_Partition]) -> float | None:
        """How long a batch still waits for more [s]; None: for its first record."""
        if not ready:
            return None
        full = sum(len(found.buffer) for found in ready) >= self._mapping.batch_size
        if full or sum(found.size for found in ready) >= self._source.room(len(ready)):
            return 0.0
        first = min(found.since for found in ready)
        return first + self._mapping.window_s - time.monotonic()

    def _cut(self, ready: Sequence[_Partition]) -> list[Record]:
        """Take the records of a batch from partitions, which are then under way."""
        batch: list[Record] = []
        room = self._source.room(len(ready))
        for found in ready:
            while found.buffer and len(batch) < self._mapping.batch_size:
                record = found.buffer[0]
                if batch and record.size > room:
                    return batch
                room -= record.size
                found.size -= record.size
                batch.append(found.buffer.popleft())
                found.under_way.add(record.offset)
                found.end = record.offset + 1
        return batch

    # --------------------------------------------------------------------------- delivery

    def _deliver(
        self,
        records: Sequence[Record],
        owners: Mapping[int, _Partition],
        retries: int = 0,
        invocations: int = 0,
    ) -> None:
        """Send records until each is done or given up, or another member's, or until the stop."""
        wait_s, longest_s = self._waits_s
        while records := self._young(self._ours(records, owners), owners, invocations):
            if invocations and self._stop.is_set():
                return
            event = self._source.event(records)
            if len(event) > PAYLOAD_BYTES:  # of one record: batches are cut to fit
                self._discard(records, owners, "MaximumPayloadSizeExceeded", None, 0)
                return
            outcome = self._send(event, len(records))
            invocations += 1
            verdict = judge(outcome, records, partial=self._mapping.partial, again=self._again)
            failed = {(record.place, record.offset) for record in verdict.failed}
            done = [record for record in records if (record.place, record.offset) not in failed]
            self._count(outcome, verdict.invalid, len(verdict.failed), done)
            self._resolve(done, owners)
            records = verdict.failed
            if not records:
                return
            limit = self._mapping.most_retries
            split = self._mapping.bisect and verdict.whole and len(records) > 1
            if not split and limit is not None and retries >= limit:
                self._discard(records, owners, "RetryAttemptsExhausted", outcome, invocations)
                return
            with self._changed:
                self.counted.retries += 1
            if split:
                half = len(records) // 2
                self._deliver(records[:half], owners, retries, invocations)
                self._deliver(records[half:], owners, retries, invocations)
                return
            retries += 1
            if self._stop.wait(wait_s):
                return
            wait_s = min(2 * wait_s, longest_s)

    def _send(self, event: bytes, count: int) -> Outcome:
        began = time.monotonic()
        outcome = self._invoke(event)
        with self._changed:
            self.counted.batch_records = count
            self.counted.batch_ms = 1000 * (time.monotonic() - began)
        return outcome

    def _count(
        self, outcome: Outcome, invalid: str | None, failed: int, done: Sequence[Record]
    ) -> None:
        counted, error = self.counted, outcome.error
        now_ms = self._clock_ms()
        times_ms = Counter(record.timestamp_ms for record in done)
        with self._changed:
            counted.invocations += 1
            counted.delivered += len(done)
            for time_ms, count in times_ms.items():
                counted.latencies.add(now_ms - time_ms, count)
            counted.trouble = None
            if error is not None:
                counted.errors += 1
                counted.trouble = f"the function failed: {error.kind}: {error.message}"
            elif invalid is not None:
                counted.errors += 1
                counted.trouble = f"the function's answer was not understood: {invalid}"
            elif failed:
                counted.partial += 1
                counted.trouble = (
                    f"the function reports {failed} of {failed + len(done)} records as failed"
                )
        if counted.trouble is not None:
            LOGGER.info("%s (%s)", counted.trouble, outcome.request_id)

    def _ours(
        self, records: Sequence[Record], owners: Mapping[int, _Partition]
    ) -> Sequence[Record]:
        """Those whose partition was not given up since they were taken.

        One that was, and came back, is read anew from its commit: it is another owner.
        """
        with self._changed:
            gone = {n for n, owner in owners.items() if self._partitions.get(n) is not owner}
        return [record for record in records if record.partition not in gone] if gone else records

    def _resolve(self, records: Sequence[Record], owners: Mapping[int, _Partition]) -> None:
        """Records are done with; a partition of which nothing is left may go on."""
        now = time.monotonic()
        with self._changed:
            for record in records:
                owner = owners[record.partition]
                owner.under_way.discard(record.offset)
                owner.since = now
            self._changed.notify_all()

    def _young(
        self, records: Sequence[Record], owners: Mapping[int, _Partition], invocations: int
    ) -> Sequence[Record]:
        """Those that are not too old; the others are given up."""
        if self._mapping.record_age_s is None:
            return records
        oldest_ms = self._clock_ms() - 1000 * self._mapping.record_age_s
        old = [record for record in records if record.timestamp_ms < oldest_ms]
        if not old:
            return records
        self._discard(old, owners, "RecordAgeExceeded", None, invocations)
        return [record for record in records if record.timestamp_ms >= oldest_ms]

    def _discard(
        self,
        records: Sequence[Record],
        owners: Mapping[int, _Partition],
        condition: Condition,
        outcome: Outcome | None,
        invocations: int,
    ) -> None:
        """Give records up, once the destination has them; where there is none, at once."""
        discarded = Discarded(
            records,
            condition,
            outcome.request_id if outcome else str(uuid.uuid4()),
            invocations,
            outcome.error if outcome else None,
        )
        if self._destination is not None:
            kept = patiently(
                partial(self._kept, self._destination, discarded), self._stop, self._trouble
            )
            if kept is None:
                return  # stopped before: they are not done, and come again
        with self._changed:
            self.counted.discarded[condition] += len(records)
        LOGGER.warning(
            "%d records given up, the first %s@%d: %s%s",
            len(records),
            records[0].place,
            records[0].offset,
            condition,
            "" if self._destination else "; there is no on-failure destination",
        )
        self._resolve(records, owners)

    @staticmethod
    def _kept(destination: Destination, discarded: Discarded) -> bool:
        destination.write(discarded)
        return True
