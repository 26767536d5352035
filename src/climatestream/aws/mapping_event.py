"""Kafka's messages as the event that AWS's event source mappings send, to the byte.

The shape is that of https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html and
https://docs.aws.amazon.com/lambda/latest/dg/with-kafka.html: records by `topic-partition`, key
and value in base64, headers as arrays of byte values. Not documented, and assumed from what
functions were seen to get: a message without a key, or without a value, has no such field.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from climatestream.model import Messages

PAYLOAD_BYTES: Final = 6 * 1024 * 1024
"""An event, and an answer, at most: 6 MB, base64 counted [bytes].
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

TIMESTAMP_TYPES: Final = {0: "NO_TIMESTAMP_TYPE", 1: "CREATE_TIME", 2: "LOG_APPEND_TIME"}
"""By the client's number, the name that Kafka and AWS have for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A message of a batch.

    Parameters
    ----------
    place
        `topic-partition`, as the event names it.
    json
        The record within the event, encoded.
    """

    place: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    json: bytes

    @property
    def size(self) -> int:
        """What it adds to an event [bytes]."""
        return len(self.json) + 1


def records_of(block: Messages) -> list[Record]:
    """The messages of a block as records."""
    place = f"{block.topic}-{block.partition}"
    kinds = block.timestamp_type or itertools.repeat(1, len(block))
    columns = zip(
        block.offset,
        block.published_at_ms,
        kinds,
        block.key,
        block.value,
        block.headers,
        strict=True,
    )
    return [
        Record(
            place,
            block.partition,
            offset,
            timestamp_ms,
            key,
            orjson.dumps(
                {
                    "topic": block.topic,
                    "partition": block.partition,
                    "offset": offset,
                    "timestamp": timestamp_ms,
                    "timestampType": TIMESTAMP_TYPES[kind],
                    **({} if key is None else {"key": _text(key)}),
                    **({} if value is None else {"value": _text(value)}),
                    "headers": [{name: list(content)} for name, content in headers],
                }
            ),
        )
        for offset, timestamp_ms, kind, key, value, headers in columns
    ]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@dataclass(frozen=True)
class EventSource:
    """Where events say that they come from.

    Parameters
    ----------
    servers
        `host:port[,host:port]`.
    arn
        Of an Amazon MSK cluster; None: a self-managed Kafka.
    """

    servers: str
    arn: str | None = None

    def event(self, records: Sequence[Record]) -> bytes:
        """The event of some records, those of a partition in offset order and side by side."""
        parts = [
            orjson.dumps(place) + b":[" + b",".join(record.json for record in run) + b"]"
            for place, run in itertools.groupby(records, lambda record: record.place)
        ]
        return self._head + b",".join(parts) + b"}}"

    @property
    def _head(self) -> bytes:
        source: dict[str, str] = {"eventSource": "aws:kafka" if self.arn else "SelfManagedKafka"}
        if self.arn:
            source["eventSourceArn"] = self.arn
        return orjson.dumps(source | {"bootstrapServers": self.servers})[:-1] + b',"records":{'

    def room(self, places: int) -> int:
        """What an event of records of so many partitions has left for them, at least [bytes]."""
        longest_place = 249 + len('-2147483647:[],""')
        return PAYLOAD_BYTES - len(self._head) - 2 - places * longest_place
