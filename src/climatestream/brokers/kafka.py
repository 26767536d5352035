"""Apache Kafka as the broker.

Delivery: at least once. The producer is idempotent with `acks=all`; offsets are committed only
when the consumer's user says so. A message's `published_at` is its Kafka timestamp: CreateTime,
the producer's clock. Adding partitions to a topic moves cells to other ones: from then on only
the rank orders the messages of a cell across the change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from climatestream.brokers.kafka_admin import KafkaAdmin, TopicSettings, TopicState
from climatestream.brokers.kafka_clients import Clients
from climatestream.brokers.kafka_consumer import KafkaConsumer, OnRevoke, forget
from climatestream.brokers.kafka_producer import KafkaProducer
from climatestream.brokers.kafka_reader import ends_of_messages, read
from climatestream.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from climatestream.brokers.kafka_iam import Signer
    from climatestream.brokers.kafka_options import KafkaOptions
    from climatestream.model import Messages
    from climatestream.ports import Start

ASK_S: Final = 0.5
"""How often a group's offsets are asked for to see whether it has caught up [s]."""


class KafkaBroker:
    """A topic of a Kafka cluster.

    Every method raises BrokerUnavailable where the cluster does not answer, and BrokerError where
    it refuses or the topic does not exist.

    Parameters
    ----------
    options
        What the `kafka://` URL says.
    sign
        Signs tokens of AWS IAM, in tests; None: the package of Amazon MSK.
    """

    def __init__(self, options: KafkaOptions, sign: Signer | None = None) -> None:
        self.topic = options.topic
        self._options = options
        self._sign = sign
        self._clients = Clients(options, sign)
        self._admin = KafkaAdmin(self._clients)

    def beside(self, suffix: str) -> KafkaBroker:
        """The topic whose name has this suffix, on the same cluster, not yet opened."""
        return KafkaBroker(replace(self._options, topic=self.topic + suffix), self._sign)

    def __repr__(self) -> str:
        return f"KafkaBroker({str(self._clients.options)!r})"

    def __enter__(self) -> Self:
        self._admin.__enter__()
        try:
            self._admin.greet()
        except BaseException:
            self._admin.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.__exit__()

    # ---------------------------------------------------------------------------- messages

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self._clients, self._admin)

    def consumer(
        self, group: str, start: Start = "earliest", *, on_revoke: OnRevoke = forget
    ) -> KafkaConsumer:
        """A member of the group, not yet opened.

        Parameters
        ----------
        start
            Where a group begins that has committed nothing; other than the earliest, it is
            committed as the member is opened. A partition that is added later begins at its first
            message.
        on_revoke
            Told which partitions the member gives up.
        """
        return KafkaConsumer(self._clients, self._admin, group, start, on_revoke)

    def count(self, start: Start = "earliest") -> int:
        partitions = self._admin.partitions()
        begins, ends = self._admin.begins(partitions, start), self._admin.ends(partitions)
        return sum(ends[number] - begins[number] for number in partitions)

    def read(self, start: Start = "earliest") -> Iterator[Messages]:
        partitions = self._admin.partitions()
        ends = self._admin.ends(partitions)
        begins = self._admin.begins(partitions, start)
        return read(self._clients, begins, ends)

    def ends(self) -> dict[int, int]:
        """By partition, the offset after the newest message."""
        return self._admin.ends(self._admin.partitions())

    # ----------------------------------------------------------------------------- groups

    def committed(self, group: str) -> dict[int, int]:
        partitions = self._admin.partitions()
        return dict.fromkeys(partitions, 0) | self._admin.committed(group, partitions)

    def lag(self, group: str) -> int:
        """Messages of the topic that a group has not done; those that are gone do not count."""
        partitions = self._admin.partitions()
        begins, ends = self._admin.begins(partitions, "earliest"), self._admin.ends(partitions)
        done = begins | self._admin.committed(group, partitions)
        return sum(max(0, end - max(done[n], begins[n])) for n, end in ends.items())

    def has_committed(self, group: str) -> bool:
        """Whether a group has an offset in the topic: then `start` no longer counts."""
        return bool(self._admin.committed(group, self._admin.partitions()))

    def reset(self, group: str, start: Start) -> dict[int, int]:
        """Let a group go on from elsewhere; by partition, the offset that it goes on from.

        Raises
        ------
        BrokerError
            The group has members, which would go on from where they are; nothing is changed.
        """
        offsets = self._admin.begins(self._admin.partitions(), start)
        members = self._admin.members(group)
        if members or not self._admin.set_committed(group, offsets):
            raise BrokerError(
                f"group {group} can't be reset while it has members"
                + (f" ({', '.join(sorted(members)[:5])})" if members else "")
                + ": stop them, or wait until the session of a killed one has ended"
            )
        return offsets

    def caught_up(self, group: str) -> Callable[[], bool]:
        """Asks whether a group has done all messages there are now, whoever of it does them."""
        partitions = self._admin.partitions()
        ends = self._admin.ends(partitions)
        begins = self._admin.begins(partitions, "earliest")
        return _CaughtUp(self, group, ends_of_messages(self._clients, begins, ends))

    # ------------------------------------------------------------------------------ topics

    def ensure_topic(self, settings: TopicSettings) -> list[str]:
        """Create the topic where it is missing; a sentence for each setting that is another.

        Raises
        ------
        BrokerError
            It is a compacted topic, or the broker creates none like that.
        """
        return self._admin.ensure_topic(settings)

    def brokers(self) -> int:
        """How many brokers the cluster has."""
        return self._admin.greet()

    def topic_state(self) -> TopicState | None:
        """What the topic is like; None where there is none."""
        return self._admin.state()

    def members(self, group: str) -> list[str]:
        """The members that a group has now, each with its host."""
        return self._admin.members(group)


class _CaughtUp:
    """Whether the offsets of a group have reached some ends."""

    def __init__(self, broker: KafkaBroker, group: str, ends: Mapping[int, int]) -> None:
        self._broker = broker
        self._group = group
        self._ends = ends
        self._asked = -ASK_S
        self._done = False

    def __call__(self) -> bool:
        if self._done or time.monotonic() - self._asked < ASK_S:
            return self._done
        self._asked = time.monotonic()
        try:
            committed = self._broker.committed(self._group)
        except BrokerUnavailable:
            return False  # not known to have: the consumer says what is wrong with the broker
        self._done = all(committed.get(n, 0) >= end for n, end in self._ends.items())
        return self._done
