"""Reading a topic outside any group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final, cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from climatestream.brokers.kafka_consumer import CHUNK, POLL_BYTES, Columns
from climatestream.brokers.kafka_errors import Events, translate
from climatestream.errors import BrokerError, BrokerUnavailable
from climatestream.model import BATCH_ROWS, Messages

if TYPE_CHECKING:
    from confluent_kafka import Message

    from climatestream.brokers.kafka_clients import Clients

LOOK_S: Final = 0.5
PATIENCE_S: Final = 30.0
"""Time without an answer after which a broker that was reading is taken to be gone [s]: it may be
restarted meanwhile."""

WIDEN: Final = 64
"""By what a search for the last message goes further back each time."""


def read(
    clients: Clients, begins: Mapping[int, int], ends: Mapping[int, int]
) -> Iterator[Messages]:
    """The messages at begins..ends by partition, partition after partition in offset order.

    Offsets that hold none (a transaction's marker, a message compacted away) are passed over.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer for half a minute.
    """
    topic = clients.options.topic
    client, events = clients.reader()
    with closing(client):
        for number in sorted(begins):
            columns, size = Columns(), 0
            for messages in _chunks(client, events, topic, number, begins[number], ends[number]):
                size += columns.add(messages)
                if size >= POLL_BYTES or len(columns.offset) >= BATCH_ROWS:
                    yield columns.block(topic, number)
                    columns, size = Columns(), 0
            if columns.offset:
                yield columns.block(topic, number)


def ends_of_messages(
    clients: Clients, begins: Mapping[int, int], ends: Mapping[int, int]
) -> dict[int, int]:
    """By partition, the offset after its last message below `ends`; 0 where there is none.

    It is lower than the high watermark where a transaction's marker follows the last message.
    """
    topic = clients.options.topic
    client, events = clients.reader()
    after = {}
    with closing(client):
        for number, end in ends.items():
            back, last = 1, 0
            while not last and end - back // WIDEN > begins[number]:
                begin = max(begins[number], end - back)
                for messages in _chunks(client, events, topic, number, begin, end):
                    last = _offset(messages[-1]) + 1
                back *= WIDEN
            after[number] = last
    return after


def _chunks(
    client: Consumer, events: Events, topic: str, number: int, begin: int, end: int
) -> Iterator[list[Message]]:
    """The messages of a partition at begin..end."""
    if begin >= end:
        return
    client.assign([TopicPartition(topic, number, begin)])
    answered = time.monotonic()
    while True:
        messages = client.consume(1, LOOK_S)
        messages += client.consume(CHUNK - 1, 0)
        if messages:
            answered = time.monotonic()
        elif time.monotonic() - answered > PATIENCE_S:
            raise _silent(events, f"{topic}/{number}")
        wanted = []
        ended = False
        for message in messages:
            error = message.error()
            if error is None:
                if _offset(message) < end:
                    wanted.append(message)
                ended = ended or _offset(message) >= end - 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = ended or _offset(message) >= end
            else:
                failure = translate(error, f"{topic}/{number} can't be read")
                if isinstance(failure, BrokerError):
                    raise failure
        if wanted:
            yield wanted
        if ended:
            return


def _silent(events: Events, place: str) -> BrokerError | BrokerUnavailable:
    return events.trouble() or BrokerUnavailable(
        f"{place} gives no messages for {PATIENCE_S:.0f} s: look at the broker's log"
    )


def _offset(message: Message) -> int:
    return cast("int", message.offset())
