"""What a broker is asked about a topic: its partitions, offsets and groups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, but not by name
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from climatestream.brokers.kafka_errors import TRANSIENT, Events, error_of, translate
from climatestream.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from climatestream.brokers.kafka_clients import Clients
    from climatestream.ports import Start

EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # theirs
LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # theirs

REQUEST_S: Final = 15.0
"""Time that a broker has to answer [s]: an election of a leader takes a few."""
GROUP_S: Final = 1.0
"""Time that a group's coordinator has before it is looked for again [s]."""
LOOK_S: Final = 0.1
"""How often a call that waits looks whether an answer is still to be expected [s]."""

PARTITIONS: Final = 4
"""Of a topic that is created without a number: as many workers share it at most, and adding
partitions later moves cells."""


@dataclass(frozen=True)
class TopicSettings:
    """What a topic is created with; None: the default (`PARTITIONS`, and else the broker's).

    Parameters
    ----------
    partitions
        Their count.
    replication
        Copies of each.
    retention_ms
        How long messages are kept [ms]; -1: for ever.
    """

    partitions: int | None = None
    replication: int | None = None
    retention_ms: int | None = None


@dataclass(frozen=True)
class TopicState:
    """A topic that exists.

    Parameters
    ----------
    partitions
        Their count.
    replication
        Copies of each.
    in_sync
        Copies that must have a message before it is acknowledged.
    short
        Partitions without a leader, or with fewer copies in sync than that.
    cleanup_policy
        As Kafka has it: `delete`, `compact` or both.
    retention_ms
        How long messages are kept [ms]; -1: for ever.
    operations
        What we may do with it, in capitals; None: the broker does not say.
    """

    partitions: int
    replication: int
    in_sync: int
    short: tuple[int, ...]
    cleanup_policy: str
    retention_ms: int
    operations: frozenset[str] | None

    @property
    def compacted(self) -> str:
        """Why it is no topic for readings; empty where it is one."""
        if "compact" not in self.cleanup_policy:
            return ""
        return (
            f"cleanup.policy={self.cleanup_policy}: the key is the cell, so compaction would "
            f"delete all but one reading of each"
        )


class KafkaAdmin:
    """Questions about one topic. May be called from any thread.

    Every method raises BrokerUnavailable where the broker does not answer, and BrokerError where
    it refuses.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._place = clients.options
        self.topic = clients.options.topic
        self._lock = threading.Lock()
        self._client: AdminClient
        self._events: Events
        self._groups: dict[str, tuple[Consumer, Events]] = {}

    def __enter__(self) -> Self:
        self._client, self._events = self._clients.admin()
        return self

    def __exit__(self, *_: object) -> None:
        for client, _events in self._groups.values():
            client.close()
        self._groups.clear()
        del self._client

    def greet(self) -> int:
        """See that there is a broker, and that it lets us in; how many brokers there are."""
        cluster = self._ask("no answer", lambda client: client.describe_cluster(**_TIMEOUT))
        self._clients.let_in = True
        return len(cluster.nodes)

    # -------------------------------------------------------------------------- the topic

    def partitions(self) -> list[int]:
        """The numbers of the topic's partitions."""
        found = self._describe()
        if found is None:
            raise BrokerError(
                f"topic {self.topic} does not exist on {self._place.servers}: `climatestream "
                f"publish` creates it"
            )
        return sorted(partition.id for partition in found.partitions)

    def ensure_topic(self, settings: TopicSettings) -> list[str]:
        """Create the topic where it is missing; a sentence for each setting that is another.

        A topic that exists is never changed.

        Raises
        ------
        BrokerError
            It is a compacted topic: it would keep one reading of each cell.
        """
        found = self._describe()
        if found is None:
            if self._create(settings):
                return []
            found = self._describe()
        return self._differences(found, settings)

    def _create(self, settings: TopicSettings) -> bool:
        """Whether it was created here, and not by another at the same time."""
        config = {"cleanup.policy": "delete"}
        if settings.retention_ms is not None:
            config["retention.ms"] = str(settings.retention_ms)
        new = NewTopic(
            self.topic,
            num_partitions=settings.partitions or PARTITIONS,
            replication_factor=settings.replication or -1,
            config=config,
        )
        try:
            self._ask(
                f"topic {self.topic} could not be created",
                lambda client: client.create_topics([new], **_TIMEOUT)[self.topic],
            )
        except BrokerError as error:
            if _code(error) == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise
        deadline = time.monotonic() + REQUEST_S
        while (found := self._describe()) is None or any(
            partition.leader is None for partition in found.partitions
        ):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"topic {self.topic} was created on {self._place.servers}, but has no leaders "
                    f"after {REQUEST_S:.0f} s: look at the broker's log"
                )
            time.sleep(LOOK_S)
        return True

    def state(self) -> TopicState | None:
        """What the topic is like; None where there is none."""
        found = self._describe()
        return None if found is None else self._state(found)

    def _state(self, found: Any) -> TopicState:
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        config: Mapping[str, Any] = self._ask(
            f"the settings of topic {self.topic} could not be read",
            lambda client: client.describe_configs([resource], **_TIMEOUT)[resource],
        )
        in_sync = int(config["min.insync.replicas"].value)
        operations = found.authorized_operations
        return TopicState(
            partitions=len(found.partitions),
            replication=len(found.partitions[0].replicas),
            in_sync=in_sync,
            short=tuple(
                sorted(
                    partition.id
                    for partition in found.partitions
                    if partition.leader is None or len(partition.isr) < in_sync
                )
            ),
            cleanup_policy=config["cleanup.policy"].value,
            retention_ms=int(config["retention.ms"].value),
            operations=None if operations is None else frozenset(op.name for op in operations),
        )

    def _differences(self, found: Any, asked: TopicSettings) -> list[str]:
        state = self._state(found)
        if state.compacted:
            raise BrokerError(
                f"topic {self.topic} has {state.compacted}; publish to another topic, or set "
                f"cleanup.policy=delete"
            )
        return [
            f"topic {self.topic} exists with {name}={actual}, not {wanted}: left as it is"
            for name, wanted in vars(asked).items()
            if wanted is not None and wanted != (actual := getattr(state, name))
        ]

    def _describe(self) -> Any:
        """The topic's description; None where there is no such topic."""
        try:
            return self._ask(
                f"topic {self.topic} could not be looked up",
                lambda client: client.describe_topics(
                    TopicCollection([self.topic]), include_authorized_operations=True, **_TIMEOUT
                )[self.topic],
            )
        except BrokerError as error:
            if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise

    # ---------------------------------------------------------------------------- offsets

    def begins(self, partitions: Sequence[int], start: Start) -> dict[int, int]:
        """By partition, the offset of the first message to read."""
        if start == "earliest":
            return self._offsets(partitions, EARLIEST)
        ends = self.ends(partitions)
        if start == "latest":
            return ends
        found = self._offsets(partitions, OffsetSpec.for_timestamp(start))
        return {n: found[n] if found[n] >= 0 else ends[n] for n in partitions}

    def ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """By partition, the offset after the newest message that a consumer can get."""
        return self._offsets(partitions, LATEST)

    def _offsets(self, partitions: Sequence[int], spec: OffsetSpec) -> dict[int, int]:
        places = {TopicPartition(self.topic, n): spec for n in partitions}
        if not places:
            return {}
        answers = self._ask_all(
            f"the offsets of topic {self.topic} could not be read",
            lambda client: client.list_offsets(
                places, isolation_level=IsolationLevel.READ_COMMITTED, **_TIMEOUT
            ),
        )
        return {place.partition: answer.offset for place, answer in answers.items()}

    # ----------------------------------------------------------------------------- groups

    def committed(self, group: str, partitions: Sequence[int]) -> dict[int, int]:
        """By partition, the offset that a group goes on from; only where it has committed one."""
        what = f"the offsets of group {group} could not be read on {self._place.servers}"
        places = [TopicPartition(self.topic, n) for n in partitions]
        with self._lock:
            # not asked of the admin client: librdkafka 2.16 crashes where a coordinator answers
            # it that another is the coordinator now, as after a restart
            if group not in self._groups:
                self._groups[group] = self._clients.onlooker(group)
            client, events = self._groups[group]
            events.clear()
            deadline = time.monotonic() + REQUEST_S
            while True:
                client.poll(0)
                try:
                    found = client.committed(places, timeout=GROUP_S)
                    offsets = {place.partition: _offset(place) for place in found}
                    return {n: offset for n, offset in offsets.items() if offset >= 0}
                except KafkaException as exception:
                    error = error_of(exception)
                    trouble = events.trouble()
                    if trouble is not None:
                        raise trouble from exception
                    if error.code() not in TRANSIENT or time.monotonic() > deadline:
                        raise translate(error, what) from exception
                    time.sleep(LOOK_S)

    def set_committed(self, group: str, offsets: Mapping[int, int]) -> bool:
        """Set offsets of a group without members; False: it has some, and nothing is changed."""
        request = ConsumerGroupTopicPartitions(
            group, [TopicPartition(self.topic, n, offset) for n, offset in offsets.items()]
        )
        what = f"the offsets of group {group} could not be set"
        try:
            answer = self._ask(
                what,
                lambda client: client.alter_consumer_group_offsets([request], **_TIMEOUT)[group],
            )
            for place in _places(answer):
                if place.error is not None:
                    raise translate(place.error, what) from KafkaException(place.error)
        except BrokerError as error:
            if _code(error) in (KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID):
                return False
            raise
        return True

    def members(self, group: str) -> list[str]:
        """The members that a group has now, each with its host."""
        try:
            found = self._ask(
                f"group {group} could not be looked up",
                lambda client: client.describe_consumer_groups([group], **_TIMEOUT)[group],
            )
        except BrokerError as error:
            if _code(error) == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise
        if found.state in (ConsumerGroupState.DEAD, ConsumerGroupState.EMPTY):
            return []
        return [f"{member.client_id} at {member.host.lstrip('/')}" for member in found.members]

    # ---------------------------------------------------------------------------- helpers

    def _ask(self, what: str, call: Callable[[AdminClient], Any]) -> Any:
        return self._ask_all(what, lambda client: {None: call(client)})[None]

    def _ask_all(
        self, what: str, call: Callable[[AdminClient], Mapping[Any, Any]]
    ) -> dict[Any, Any]:
        """The answers of some futures, or why there are none."""
        what = f"{what} on {self._place.servers}"
        with self._lock:
            self._client.poll(0)
            self._events.clear()
            deadline = time.monotonic() + REQUEST_S
            while True:
                try:
                    return {name: self._wait(future) for name, future in call(self._client).items()}
                except KafkaException as exception:
                    error = error_of(exception)
                    # a broker's own "not yet": a leader was just elected, or is about to be
                    if (
                        error.code() > 0
                        and error.code() in TRANSIENT
                        and time.monotonic() < deadline
                    ):
                        time.sleep(LOOK_S)
                        continue
                    self._client.poll(0)
                    raise self._events.trouble() or translate(error, what) from exception

    def _wait(self, future: Future[Any]) -> Any:
        while True:
            self._client.poll(0)
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                trouble = self._events.trouble()
                if trouble is not None:
                    raise trouble from None


_TIMEOUT: Final[dict[str, Any]] = {"request_timeout": REQUEST_S}


def _offset(place: TopicPartition) -> int:
    if place.error is not None:
        raise KafkaException(place.error)
    return place.offset


def _places(answer: ConsumerGroupTopicPartitions) -> list[TopicPartition]:
    return answer.topic_partitions or []


def _code(error: BrokerError) -> int | None:
    """The code of Kafka's error that one of ours was made from."""
    cause = error.__cause__
    return error_of(cause).code() if isinstance(cause, KafkaException) else None
