"""Publishing into Kafka: idempotent, in batches, every message accounted for.

Delivery: a message that `flush` counts is on every in-sync replica; each other one is named by
DeliveryFailed. A key's messages stay in order, and a retry of the client's makes no second copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from climatestream.brokers.kafka_errors import Events, error_of, words
from climatestream.errors import BrokerError, DeliveryFailed
from climatestream.model import Headers

if TYPE_CHECKING:
    from climatestream.brokers.kafka_admin import KafkaAdmin
    from climatestream.brokers.kafka_clients import Clients

CHUNK: Final = 500
"""Messages handed over in one call: 1.5 to 2 µs of CPU each, against 2.4 one by one; and as many
new objects as do not yet start Python's collector [messages]."""

WAIT_S: Final = 0.1
"""How long a call waits before it looks whether the producer was closed [s]."""

NAMED: Final = 1_000
"""Messages that DeliveryFailed names at most; all are counted."""


class KafkaProducer:
    """Publishes into a topic.

    librdkafka makes a report of each message. Those that were not delivered are counted one by
    one; what is neither among them nor still held was acknowledged.

    Closing it, from any thread, ends a `publish` or `flush` that waits; messages not
    acknowledged by then are given up.
    """

    def __init__(self, clients: Clients, admin: KafkaAdmin) -> None:
        self._clients = clients
        self._admin = admin
        self._topic = clients.options.topic
        self._client: Producer
        self._events: Events
        self._handed = 0
        self._failed = 0
        self._named: list[tuple[int, bytes]] = []
        self._reason = ""
        self._closed = False

    def __enter__(self) -> Self:
        self._admin.partitions()  # the topic exists, and the broker lets us see it
        self._client, self._events = self._clients.producer()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # what was not flushed was not promised; without this the client would still send it
        self._client.purge(blocking=False)
        self._client.poll(0)

    def publish(
        self, keys: Sequence[bytes], values: Sequence[bytes], headers: Headers = ()
    ) -> None:
        self._raise_failed()
        hand_over = self._hand_over_each if headers else self._hand_over
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            messages: list[dict[str, Any]] = [
                {"key": key, "value": value}
                for key, value in zip(keys[part], values[part], strict=True)
            ]
            while messages:
                messages = hand_over(messages, headers)
                self._client.poll(WAIT_S if messages else 0)
                if self._closed:
                    raise BrokerError(f"the producer of topic {self._topic} is closed")
                self._raise_failed()

    def flush(self) -> int:
        if left := self._wait():
            raise DeliveryFailed(
                f"{left} messages of topic {self._topic} were not acknowledged before the "
                f"producer was closed: publish them again"
            )
        self._raise_failed()
        return self._handed - self._failed

    def _hand_over(self, messages: list[dict[str, Any]], _headers: Headers) -> list[dict[str, Any]]:
        """Give messages to the client; those for which it has no room, which are the last ones."""
        taken = self._client.produce_batch(self._topic, messages, on_delivery=self._report)
        self._handed += taken
        if taken == len(messages):
            return []
        left = []
        for message in messages:
            error = message.pop("_error", None)
            if error is None:
                continue
            if error.code() == KafkaError._QUEUE_FULL:
                left.append(message)
            else:
                self._handed += 1
                self._fail(error, -1, message["key"])
        return left

    def _hand_over_each(
        self, messages: list[dict[str, Any]], headers: Headers
    ) -> list[dict[str, Any]]:
        """The same with headers, for which `produce_batch` has no room."""
        own: list[tuple[str, str | bytes | None]] = list(headers)
        for place, message in enumerate(messages):
            try:
                self._client.produce(self._topic, **message, headers=own, on_delivery=self._report)
            except BufferError:
                return messages[place:]
            except KafkaException as exception:
                self._fail(error_of(exception), -1, message["key"])
            self._handed += 1
        return []

    def _report(self, error: KafkaError | None, message: Message) -> None:
        """The report of a message that was not delivered."""
        if error is not None:
            partition = message.partition()
            self._fail(error, -1 if partition is None else partition, message.key() or b"")

    def _fail(self, error: KafkaError, partition: int, key: bytes) -> None:
        self._failed += 1
        self._reason = self._reason or f"{words(error)} ({error.name()})"
        if len(self._named) < NAMED:
            self._named.append((partition, key))

    def _wait(self) -> int:
        """Wait until the client holds no message or the producer is closed; what it still holds.

        `len` of the client won't do: it counts each error that is to be told of as a message.
        """
        while (left := self._client.flush(WAIT_S)) and not self._closed:
            self._raise_fatal()
        return left

    def _raise_failed(self) -> None:
        if self._failed:
            # what is still held is told of too, once it is acknowledged or its time is over
            failed = self._wait() + self._failed
            partition, key = self._named[0]
            where = f" of partition {partition}" if partition >= 0 else ""
            raise DeliveryFailed(
                f"{failed} of {self._handed} messages of topic {self._topic} were not "
                f"acknowledged, the first with key {key[:80]!r}{where}: {self._reason}; publish "
                f"them again once the reason is mended",
                failed=self._named,
            )
        self._raise_fatal()

    def _raise_fatal(self) -> None:
        if self._events.fatal is not None:
            raise self._events.fatal
