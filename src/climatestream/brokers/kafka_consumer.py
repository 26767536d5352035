"""A member of a consumer group, and the columns that Kafka's messages become.

Delivery: at least once. Offsets move only by `commit`. A partition that another member has by
now is never committed: it delivers again what was not committed, and writing it twice changes
nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, Self, TypeAlias, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from climatestream.brokers.kafka_errors import (
    LOGGER,
    NOT_THE_OWNER,
    Events,
    error_of,
    translate,
)
from climatestream.model import Headers, Messages

if TYPE_CHECKING:
    from climatestream.brokers.kafka_admin import KafkaAdmin
    from climatestream.brokers.kafka_clients import Clients
    from climatestream.ports import Start

CHUNK: Final = 500
"""Messages taken from the client at once: 700 new ones would start Python's collector, which
then walks all that lives [messages]."""

POLL_BYTES: Final = 16_777_216
"""Values that one poll gives at most, but for the last chunk [bytes]: a poll of 50,000
messages of 900 kB must not be."""

SLICE_S: Final = 0.01
"""Time that a poll holds the client while it waits for messages [s]: a commit waits so long."""

COMMIT_S: Final = 5.0
"""Time that a commit waits for its answer before it fails transiently [s]."""
COMMIT_SLICE_S: Final = 0.002
"""How often it looks for the answer [s], which takes about 2 ms."""

QUIET_S: Final = 5.0
"""A member that was not polled for so long keeps its partitions without taking messages [s]."""

OnRevoke: TypeAlias = Callable[[frozenset[int], bool], None]
"""Told which partitions a member gives up, before others get them, and whether they are lost
already: where they are not, it may still commit them."""


class Columns:
    """Messages of one partition, growing."""

    def __init__(self) -> None:
        self.offset: list[int] = []
        self.published_at_ms: list[int] = []
        self.key: list[bytes | None] = []
        self.value: list[bytes | None] = []
        self.headers: list[Headers] = []
        self.timestamp_type: list[int] = []

    def add(self, messages: list[Message]) -> int:
        """Take messages in; the bytes of their values. No Python code runs for each of them."""
        self.offset += cast("Iterable[int]", map(Message.offset, messages))
        times = list(map(Message.timestamp, messages))
        self.timestamp_type += map(_TYPE, times)
        self.published_at_ms += map(_TIME, times)
        self.key += map(Message.key, messages)
        self.value += map(Message.value, messages)
        headers = list(map(Message.headers, messages))
        self.headers += map(_headers, headers) if any(headers) else repeat((), len(messages))
        return sum(map(len, messages))

    def block(self, topic: str, partition: int) -> Messages:
        """As the pipeline has them."""
        return Messages(topic, partition, **vars(self))


_TYPE, _TIME = itemgetter(0), itemgetter(1)


def _headers(found: object) -> Headers:
    pairs = cast("list[tuple[str, bytes | None]]", found or ())
    return tuple((name, value or b"") for name, value in pairs)


class Turns:
    """A lock that is given in the order of asking, and again to the thread that holds it.

    Calls of one client wait for each other anyway, in no order: a thread that polls in a loop
    would let no other in.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._serving = 0
        self._holder: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if self._holder != me:
                ticket = next(self._tickets)
                self._changed.wait_for(lambda: self._serving == ticket)
                self._holder = me
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._holder = None
                self._serving += 1
                self._changed.notify_all()


class KafkaConsumer:
    """A member of a group.

    May be used from several threads, but closed only when no other uses it any more. A member
    that is not polled for `QUIET_S` (its store is down) goes on as a member: it stops fetching,
    and gives up partitions where the group asks for them.

    Parameters
    ----------
    on_revoke
        Called within `poll`, or on the thread of a quiet member. It may call `commit`; another
        thread's commit waits until it returns.
    """

    def __init__(
        self, clients: Clients, admin: KafkaAdmin, group: str, start: Start, on_revoke: OnRevoke
    ) -> None:
        self._clients = clients
        self._admin = admin
        self._topic = clients.options.topic
        self._group = group
        self._start = start
        self._on_revoke = on_revoke
        self._client: Consumer
        self._events: Events
        self._turns = Turns()
        self._assigned: dict[int, int | None] = {}
        """By assigned partition, the first offset that was delivered since it is ours."""
        self._columns: dict[int, Columns] = {}
        """What the poll under way has so far."""
        self._held: list[Message] = []
        """What came while no one polled: during a commit, or to a quiet member."""
        self._awaited: dict[int, int] | None = None
        """The offsets whose commit is not answered yet."""
        self._answer: KafkaError | None = None
        self._revoking = False
        self._quiet = False
        self._paused: frozenset[int] = frozenset()
        self._polled = time.monotonic()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="kafka member", daemon=True)

    def __enter__(self) -> Self:
        partitions = self._admin.partitions()
        if self._start != "earliest":
            self._begin(partitions)
        self._client, self._events = self._clients.member(self._group, self._answered)
        self._client.subscribe(
            [self._topic],
            on_assign=self._take_over,
            on_revoke=lambda _, places: self._give_up(places, lost=False),
            on_lost=lambda _, places: self._give_up(places, lost=True),
        )
        self._polled = time.monotonic()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._keeper.join()
        with self._turns:
            self._client.close()
            self._assigned.clear()

    def _begin(self, partitions: list[int]) -> None:
        """Commit where a new group starts, so that it starts there once and not at each start.

        A group that has members is left alone: the first of them did this.
        """
        if not self._admin.committed(self._group, partitions):
            self._admin.set_committed(self._group, self._admin.begins(partitions, self._start))

    # ----------------------------------------------------------------------------- polling

    def poll(self, max_messages: int, timeout_s: float) -> list[Messages]:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._turns:
                self._wake()
                wait_s = min(SLICE_S, max(0.0, deadline - time.monotonic()))
                blocks = self._take(max_messages, wait_s)
                self._polled = time.monotonic()
                trouble = None if blocks else self._events.trouble()
            if trouble is not None:
                self._events.clear()
                raise trouble
            if blocks or self._polled >= deadline:
                return blocks

    def _take(self, max_messages: int, wait_s: float) -> list[Messages]:
        """What is there, waiting for the first message alone."""
        self._columns = {}
        left, size = max_messages, 0
        messages = self._held[:left] or self._client.consume(1, wait_s)
        del self._held[:left]
        while messages:
            size += self._add(messages)
            left -= len(messages)
            if left <= 0 or size >= POLL_BYTES:
                break
            messages = self._client.consume(min(CHUNK, left), 0)
        columns, self._columns = self._columns, {}
        return [found.block(self._topic, number) for number, found in columns.items()]

    def _add(self, messages: list[Message]) -> int:
        size = 0
        for number, run in itertools.groupby(messages, Message.partition):
            good = list(run)
            if any(map(Message.error, good)):
                good = [message for message in good if not self._is_error(message)]
            # what was fetched before a partition was given up is the new owner's
            if number not in self._assigned or not good:
                continue
            if self._assigned[number] is None:
                self._assigned[number] = good[0].offset()
            size += self._columns.setdefault(number, Columns()).add(good)
        return size

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            self._events(error)
        return error is not None

    # ---------------------------------------------------------------------------- offsets

    def commit(self, positions: Mapping[int, int]) -> None:
        """Say that all messages below these offsets (by partition) are done with.

        Left out, without a word, is what this member no longer owns: partitions that it gave up
        or lost, and messages that it got before it did. Their owner does them again.

        Raises
        ------
        BrokerUnavailable
            No answer: the same call may succeed.
        """
        with self._turns:
            own = [
                TopicPartition(self._topic, number, offset)
                for number, offset in positions.items()
                if (first := self._assigned.get(number)) is not None and offset >= first
            ]
            if len(own) < len(positions):
                LOGGER.info("group %s: offsets %s are others' by now", self._group, positions)
            if not own:
                return
            error = self._commit_now(own) if self._revoking else self._commit(own)
        if error is not None and error.code() not in NOT_THE_OWNER:
            raise translate(error, f"the offsets of group {self._group} were not committed")

    def _commit(self, own: list[TopicPartition]) -> KafkaError | None:
        """What the coordinator answers; no answer is an error too.

        Not the client's own wait for it: without a coordinator that takes as long as the
        session, during which no one could poll.
        """
        self._awaited = _offsets(own)
        deadline = time.monotonic() + COMMIT_S
        try:
            self._client.commit(offsets=own, asynchronous=True)
        except KafkaException as exception:
            return error_of(exception)
        while self._awaited is not None:
            if time.monotonic() > deadline:
                self._awaited = None
                return KafkaError(KafkaError._TIMED_OUT, f"no answer in {COMMIT_S:.0f} s")
            self._hold(self._client.consume(CHUNK, COMMIT_SLICE_S))
        return self._answer

    def _answered(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """The client's word on a commit, maybe on one that is no longer waited for."""
        if self._awaited == _offsets(places):
            self._awaited = None
            errors = (place.error for place in places if place.error is not None)
            self._answer = next(errors, error)

    def _commit_now(self, own: list[TopicPartition]) -> KafkaError | None:
        """The same within a callback of the client's, which must not poll."""
        try:
            answers = self._client.commit(offsets=own, asynchronous=False)
        except KafkaException as exception:
            return error_of(exception)
        return next((place.error for place in answers or () if place.error is not None), None)

    def seek(self, positions: Mapping[int, int]) -> None:
        with self._turns:
            for number, offset in positions.items():
                if number not in self._assigned:
                    continue
                try:
                    self._client.seek(TopicPartition(self._topic, number, offset))
                except KafkaException as exception:
                    raise translate(
                        error_of(exception), f"partition {number} of {self._topic} was not sought"
                    ) from exception
                self._assigned[number] = None
                self._held = [m for m in self._held if m.partition() != number]

    def pause(self, partitions: Collection[int]) -> None:
        with self._turns:
            before, self._paused = self._paused, frozenset(partitions)
            if not self._quiet:
                ours = frozenset(self._assigned)
                self._client.pause(self._places((self._paused - before) & ours))
                self._client.resume(self._places((before - self._paused) & ours))

    def _places(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]

    def high_water(self) -> dict[int, int]:
        return self._admin.ends(list(self._assigned))

    # ------------------------------------------------------------------------- rebalancing

    def _take_over(self, client: Consumer, places: list[TopicPartition]) -> None:
        client.incremental_assign(places)
        silent = [p for p in places if self._quiet or p.partition in self._paused]
        client.pause(silent)
        # librdkafka keeps a partition paused that was given up while it was, and comes back
        client.resume([p for p in places if p not in silent])
        self._assigned.update(dict.fromkeys(map(_number, places)))
        LOGGER.info("group %s: given partitions %s", self._group, sorted(map(_number, places)))

    def _give_up(self, places: list[TopicPartition], *, lost: bool) -> None:
        numbers = frozenset(map(_number, places))
        LOGGER.info("group %s: %s %s", self._group, "lost" if lost else "gives up", sorted(numbers))
        try:
            if not self._closing.is_set():
                self._revoking = True
                self._on_revoke(numbers, lost)
        finally:
            self._revoking = False
            for number in numbers:
                self._assigned.pop(number, None)
                self._columns.pop(number, None)
            self._held = [m for m in self._held if m.partition() not in numbers]

    # ---------------------------------------------------------------------- a quiet member

    def _keep(self) -> None:
        """Serve the group while nobody polls."""
        while not self._closing.wait(QUIET_S / 5):
            if time.monotonic() - self._polled < QUIET_S:
                continue
            with self._turns:
                if time.monotonic() - self._polled < QUIET_S:
                    continue
                if not self._quiet:
                    self._quiet = True
                    self._client.pause(self._client.assignment())
                self._hold(self._client.consume(CHUNK, 0))

    def _hold(self, messages: list[Message]) -> None:
        """Keep messages for the next poll."""
        self._held += messages

    def _wake(self) -> None:
        if self._quiet:
            self._quiet = False
            assigned = self._client.assignment()
            self._client.resume([p for p in assigned if p.partition not in self._paused])


_number = attrgetter("partition")


def _offsets(places: list[TopicPartition]) -> dict[int, int]:
    return {place.partition: place.offset for place in places}


def forget(_numbers: Iterable[int], _lost: bool) -> None:
    """Leave what is under way to the next owner: it does it again, which changes nothing."""
