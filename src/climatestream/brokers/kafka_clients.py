"""librdkafka's clients for a `kafka://` URL: what each is told, and why."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from climatestream.brokers.kafka_errors import LOGGER, Events, misconfigured
from climatestream.brokers.kafka_iam import Signer, signer, token_callback
from climatestream.brokers.kafka_options import BOTH, OF_CONSUMERS, OF_PRODUCERS, KafkaOptions
from climatestream.errors import BrokerError

C = TypeVar("C")

OnCommit: TypeAlias = Callable[[KafkaError | None, list[TopicPartition]], None]

# Defaults, under what the URL says.

EVERY_CLIENT: Final = {
    "client.id": "climatestream",
    # a broker that comes back is found within two seconds, not ten [ms]
    "reconnect.backoff.max.ms": 2_000,
    "log.connection.close": False,
    # less is said on standard error, past the logger, as a client is closed
    "log_level": 4,
    "socket.keepalive.enable": True,
}

PRODUCER: Final = {
    # batches large enough for the codec, and a tenth of the latency that we promise [ms]
    "linger.ms": 20,
    "compression.type": "lz4",
    # what a producer may hold: with librdkafka's own 250 bytes a message about 90 MB
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
}

CONSUMER: Final = {
    # after its queue was full librdkafka waits so long before it fetches on; its default of a
    # second halves the throughput [ms]
    "fetch.queue.backoff.ms": 5,
    # what a consumer may hold fetched, this many of each partition: a message takes about 600
    # bytes besides its own
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.max.bytes": 16_777_216,
    "check.crcs": True,
}

# What the delivery guarantee rests on, over what the URL says.

DELIVERY: Final = {
    "acks": "all",
    "enable.idempotence": True,
    # Kafka's own, so that every producer places a cell in the same partition
    "partitioner": "murmur2_random",
    # librdkafka still makes a report of every message; only those of failed ones reach Python
    "delivery.report.only.error": True,
}

OFFSETS: Final = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # of a group that starts elsewhere the offsets are committed before it starts; so this holds
    # for a group without offsets, and for one whose offsets were deleted: nothing is skipped
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
}


class Clients:
    """Makes the clients of a broker.

    Parameters
    ----------
    options
        What the URL says.
    sign
        Signs tokens of AWS IAM; None: the package of Amazon MSK does, where they are needed.
    """

    def __init__(self, options: KafkaOptions, sign: Signer | None = None) -> None:
        self.options = options
        self.let_in = False
        """Whether the broker has taken the credentials."""
        self._token: Callable[[str], tuple[str, float]] | None = None
        if options.aws_region is not None:
            self._token = token_callback(options.aws_region, sign or signer())

    def admin(self) -> tuple[AdminClient, Events]:
        """A client that asks the broker about topics, offsets and groups.

        Raises
        ------
        UsageError
            The options don't fit together.
        BrokerError
            No token can be had.
        """
        if self._token is not None:
            try:
                self._token("")
            except Exception as error:  # whatever the signer's libraries raise
                raise BrokerError(
                    f"no token for {self.options} could be signed: {error}; check the AWS "
                    f"credentials of this process"
                ) from error
        return self._make(AdminClient, EVERY_CLIENT, self.options.of(BOTH))

    def producer(self) -> tuple[Producer, Events]:
        """A producer, connecting by itself.

        Raises
        ------
        UsageError
            The options don't fit together.
        """
        typed = self.options.of(BOTH, OF_PRODUCERS)
        return self._make(Producer, EVERY_CLIENT, PRODUCER, typed, DELIVERY)

    def member(self, group: str, on_commit: OnCommit) -> tuple[Consumer, Events]:
        """A consumer in a group, not yet subscribed.

        Parameters
        ----------
        on_commit
            Told the answer to a commit, while the consumer is polled.

        Raises
        ------
        UsageError
            The options don't fit together.
        """
        typed = self.options.of(BOTH, OF_CONSUMERS)
        fixed: dict[str, object] = {**OFFSETS, "group.id": group, "on_commit": on_commit}
        if typed.get("group.protocol", "classic").lower() == "classic":
            fixed["partition.assignment.strategy"] = "cooperative-sticky"
        return self._make(Consumer, EVERY_CLIENT, CONSUMER, typed, fixed)

    def reader(self) -> tuple[Consumer, Events]:
        """A consumer outside any group, which says where a partition ends."""
        fixed = {
            "enable.partition.eof": True,
            # a fetch of the partition before holds up the next one's for so long [ms]
            "fetch.wait.max.ms": 10,
        }
        return self._outside(f"climatestream-reader-{secrets.token_hex(4)}", fixed)

    def onlooker(self, group: str) -> tuple[Consumer, Events]:
        """A consumer that asks for a group's offsets, and never joins it."""
        return self._outside(group, {})

    def _outside(self, group: str, fixed: Mapping[str, object]) -> tuple[Consumer, Events]:
        of_members = ("group.instance.id", "group.protocol", "group.remote.assignor")
        names = tuple(name for name in OF_CONSUMERS if name not in of_members)
        typed = self.options.of(BOTH, names)
        return self._make(
            Consumer, EVERY_CLIENT, CONSUMER, typed, OFFSETS, {"group.id": group, **fixed}
        )

    def _make(self, client: Callable[..., C], *settings: Mapping[str, object]) -> tuple[C, Events]:
        events = Events(self.options.servers, let_in=self.let_in)
        config: dict[str, Any] = {"error_cb": events}
        for layer in settings:
            config |= layer
        if self._token is not None:
            config["oauth_cb"] = self._token
        try:
            return client(config, logger=LOGGER), events
        except KafkaException as error:
            raise misconfigured(error, self.options) from error
