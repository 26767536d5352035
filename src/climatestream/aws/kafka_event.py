"""The event of a Kafka event source mapping as blocks of messages, and the answer to it.

The event (Amazon MSK and self-managed Kafka send the same, but for `eventSource`):
https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html#msk-sample-event
https://docs.aws.amazon.com/lambda/latest/dg/with-kafka.html#smaa-sample-event

    {"eventSource": "aws:kafka", "eventSourceArn": "arn:...", "bootstrapServers": "b-1...:9098",
     "records": {"climate-0": [
        {"topic": "climate", "partition": 0, "offset": 15, "timestamp": 1545084650987,
         "timestampType": "CREATE_TIME", "key": "NTQuOTAzMCw4LjY4ODM=", "value": "eyJ0...",
         "headers": [{"units": [123, 34, 125]}]}]}}

Keys and values are base64; null and absent are the same, and empty text is an empty key or value.
The bytes of headers are Java's, so that one above 127 may come as a negative number.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from climatestream.errors import UsageError
from climatestream.model import Headers, Messages

TopicPartition: TypeAlias = tuple[str, int]
"""Topic and partition."""
Answer: TypeAlias = dict[str, list[dict[str, dict[str, str | int]]]]
"""What the function returns."""

SOURCES: Final = ("aws:kafka", "SelfManagedKafka", "aws:SelfManagedKafka")


def blocks(event: Mapping[str, Any]) -> list[Messages]:
    """The messages of an event, a block for each topic-partition, in the event's order.

    Raises
    ------
    UsageError
        The event is another service's: the function is wired to what it was not made for.
    """
    records = event.get("records") if isinstance(event, Mapping) else None
    if not isinstance(records, Mapping) or event.get("eventSource") not in SOURCES:
        source = event.get("eventSource") if isinstance(event, Mapping) else type(event).__name__
        raise UsageError(
            f"the event is from {source!r}, expected that of a Kafka event source mapping "
            f"({' or '.join(SOURCES[:2])}, with records): look at the function's triggers"
        )
    return [_block(of_one) for of_one in records.values() if of_one]


def _block(records: Sequence[Mapping[str, Any]]) -> Messages:
    return Messages(
        topic=records[0]["topic"],
        partition=int(records[0]["partition"]),
        offset=[record["offset"] for record in records],
        published_at_ms=[record["timestamp"] for record in records],
        key=[_bytes(record.get("key")) for record in records],
        value=[_bytes(record.get("value")) for record in records],
        headers=[_headers(record.get("headers")) for record in records],
        timestamp_type=_timestamp_types(record.get("timestampType") for record in records),
    )


def _timestamp_types(names: Iterable[str | None]) -> Sequence[int]:
    kinds = [1 if name == "CREATE_TIME" else 2 for name in names]
    return kinds if 2 in kinds else ()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else a2b_base64(text)


def _headers(headers: Sequence[Mapping[str, Sequence[int] | None]] | None) -> Headers:
    if not headers:
        return ()
    return tuple(
        (name, bytes(byte & 0xFF for byte in value or ()))
        for header in headers
        for name, value in header.items()
    )


def place_of(block: Messages) -> TopicPartition:
    """Where the messages of a block are."""
    return block.topic, block.partition


def cut(messages: Sequence[Messages], count: int) -> Iterator[list[Messages]]:
    """The same messages in parts of at most so many, each partition's in order."""
    part: list[Messages] = []
    room = count
    for block in messages:
        start = 0
        while start < len(block):
            stop = min(len(block), start + room)
            part.append(_slice(block, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield part
                part, room = [], count
    if part:
        yield part


def _slice(block: Messages, start: int, stop: int) -> Messages:
    if stop - start == len(block):
        return block
    return Messages(
        block.topic,
        block.partition,
        block.offset[start:stop],
        block.published_at_ms[start:stop],
        block.key[start:stop],
        block.value[start:stop],
        block.headers[start:stop],
        block.timestamp_type[start:stop],
    )


def answer(messages: Sequence[Messages], failed: Mapping[TopicPartition, int]) -> Answer:
    """The partial batch response: of each partition the first message not done, and all after.

    As https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html has it (whose
    schema says `topic-partition`, where Powertools writes `partition`):

    - an empty document: the batch is done;
    - an item that is not of the event, or another form: the whole batch is sent again;
    - items of the event: Lambda retries "just those specific items". Of streams everything from
      the lowest on is sent again, whatever else is listed
      (https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html);
      of Kafka that is not said. So all that follows the first is listed with it: taken either
      way, nothing is lost, and a partition goes on in order.

    Parameters
    ----------
    messages
        The event's.
    failed
        By topic and partition, the offset of the first message that is not done.
    """
    return {
        "batchItemFailures": [
            {"itemIdentifier": {"topic-partition": f"{block.topic}-{block.partition}", "offset": n}}
            for block in messages
            if place_of(block) in failed
            for n in block.offset
            if n >= failed[place_of(block)]
        ]
    }
