"""Copies of dead letters in a topic of their own, for those who read Kafka and not the store.

Delivery: at least once, after the letter is in its table, which stays the one truth. A copy that
Kafka does not take is told in the log, and holds nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self

import orjson

from climatestream.brokers.kafka import KafkaBroker
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.kafka_producer import KafkaProducer
from climatestream.errors import DeliveryFailed
from climatestream.logs import LOGGER
from climatestream.model import DeadLetter, Headers

SUFFIX: Final = ".dead"
"""What the topic's name ends with, after that of the messages."""

HEADER: Final = "dead-letter"
"""The header of a copy: where its message is, and why it is dead, as a JSON object."""


class DeadCopies:
    """The topic `<topic>.dead`, which is created where it is missing, with as many partitions.

    A copy has its message's key, value and headers, and one header more. Kafka's producer makes
    no difference between an empty key or value and none: the header says `"null"` of a value
    that was none.

    Parameters
    ----------
    broker
        That of the messages, open.
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self._messages = broker
        self._broker = broker.beside(SUFFIX)
        self._stack = ExitStack()
        self._producer: KafkaProducer | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(self._broker)
        topic = self._messages.topic_state()
        partitions = None if topic is None else topic.partitions
        self._broker.ensure_topic(TopicSettings(partitions=partitions))
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._stack.close()

    def __call__(self, letters: Sequence[DeadLetter]) -> None:
        """Publish copies, and wait until Kafka has them; where it has not, each alone."""
        error = self._publish(letters)
        if error is None:
            return
        for letter in letters:
            if (error := self._publish([letter])) is not None:
                place = f"{letter.topic}/{letter.partition}@{letter.offset}"
                LOGGER.warning("the dead letter %s has no copy: %s", place, error)

    def _publish(self, letters: Sequence[DeadLetter]) -> DeliveryFailed | None:
        """Why not all of them are there; None where they are."""
        try:
            producer = self._open()
            for letter in letters:
                producer.publish([letter.key or b""], [letter.value or b""], _headers(letter))
            producer.flush()
        except DeliveryFailed as error:
            self._close()  # a producer that failed once says so at every call
            return error
        return None

    def _open(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = self._broker.producer().__enter__()
        return self._producer

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.__exit__()


def _headers(letter: DeadLetter) -> Headers:
    said = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "published_at": letter.published_at_ms,
        "reason": letter.reason,
        "error": letter.error,
        "attempt": letter.attempt,
        "null": letter.value is None,
    }
    return (*letter.headers, (HEADER, orjson.dumps(said)))
