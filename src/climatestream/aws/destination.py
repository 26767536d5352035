"""Where records go that are given up: a Kafka topic, or a folder in place of an S3 bucket.

The shapes are AWS's:
https://docs.aws.amazon.com/lambda/latest/dg/kafka-on-failure-destination.html (a message a record,
with the record's key, and its event as an object) and
https://docs.aws.amazon.com/lambda/latest/dg/kafka-on-failure.html (a file a batch, with its event
as text). The two pages have different words for the same condition; each is followed. Not
documented for Kafka, and assumed: the word for a record that is too old, which is that of
streams, and the names of the files, which are like those of streams.

Delivery: at least once. Records are given up only after the destination has them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import orjson

from climatestream.aws.answers import FunctionError
from climatestream.aws.kafka_event import blocks
from climatestream.aws.mapping_event import EventSource, Record
from climatestream.aws.mapping_settings import KAFKA
from climatestream.codec import bury
from climatestream.errors import BadMessage, Transient, UsageError

if TYPE_CHECKING:
    from climatestream.model import DeadLetter
    from climatestream.ports import Producer

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded", "MaximumPayloadSizeExceeded"]
"""Why records are given up."""

IN_KAFKA: Final = {"RetryAttemptsExhausted": "RetriesExhausted"}
"""What a Kafka destination has for a condition, where it is another word."""


@dataclass(frozen=True)
class Discarded:
    """Records that are given up.

    Parameters
    ----------
    records
        Of one batch.
    condition
        Why.
    request_id
        Of the last invocation; a new one where there was none.
    invocations
        How often they were sent.
    error
        What the function failed with, where it did.
    """

    records: Sequence[Record]
    condition: Condition
    request_id: str
    invocations: int
    error: FunctionError | None = None


class Destination(Protocol):
    """Takes records that are given up."""

    def write(self, discarded: Discarded) -> None:
        """Keep records; when it returns, they are kept.

        Raises
        ------
        Transient
            Not now; any part of them may be kept.
        """


class Form:
    """AWS's invocation records.

    Parameters
    ----------
    source
        Whose events they are.
    function
        The function's name.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self, source: EventSource, function: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function}"
        self.clock = clock

    def metadata(self, discarded: Discarded, condition: str, size: int) -> dict[str, Any]:
        """What every destination is told; `size` is that of the event [bytes]."""
        sent = discarded.invocations > 0
        response: dict[str, Any] = {"statusCode": 200, "executedVersion": "$LATEST"}
        if discarded.error is not None:
            response["functionError"] = "Unhandled"
        batch: dict[str, Any] = {"batchSize": len(discarded.records)}
        if self._source.arn:
            batch["eventSourceArn"] = self._source.arn
        return {
            "requestContext": {
                "requestId": discarded.request_id,
                "functionArn": self._arn,
                "condition": condition,
                "approximateInvokeCount": discarded.invocations,
            },
            "responseContext": response if sent else None,
            "version": "1.0",
            "timestamp": _moment(self.clock()),
            "KafkaBatchInfo": {
                **batch,
                "bootstrapServers": self._source.servers,
                "payloadSize": size,
            },
        }

    def of_record(self, discarded: Discarded, record: Record) -> bytes:
        """The message of a Kafka destination for one record."""
        event = self._source.event([record])
        alone = replace(discarded, records=[record])
        condition = IN_KAFKA.get(discarded.condition, discarded.condition)
        said = self.metadata(alone, condition, len(event))
        said["KafkaBatchInfo"]["recordInfo"] = {
            "offset": str(record.offset),
            "timestamp": _moment(record.timestamp_ms / 1000),
        }
        return orjson.dumps({**said, "payload": orjson.Fragment(event)})

    def of_batch(self, discarded: Discarded) -> bytes:
        """The file of an S3 bucket for a batch."""
        event = self._source.event(discarded.records)
        said = self.metadata(discarded, discarded.condition, len(event))
        places: dict[str, list[Record]] = {}
        for record in discarded.records:
            places.setdefault(record.place, []).append(record)
        said["KafkaBatchInfo"]["recordsInfo"] = {
            place: {
                "firstRecordOffset": str(records[0].offset),
                "lastRecordOffset": str(records[-1].offset),
                "firstRecordTimestamp": _moment(records[0].timestamp_ms / 1000),
                "lastRecordTimestamp": _moment(records[-1].timestamp_ms / 1000),
            }
            for place, records in places.items()
        }
        return orjson.dumps({**said, "payload": event.decode()})


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TopicDestination:
    """A topic of the same cluster.

    Parameters
    ----------
    producer
        Of that topic, open.
    """

    def __init__(self, producer: Producer, form: Form) -> None:
        self._producer = producer
        self._form = form

    def write(self, discarded: Discarded) -> None:
        records = discarded.records
        self._producer.publish(
            # without a key, any partition will do: an empty one is spread by nobody
            [record.key or str(record.offset).encode() for record in records],
            [self._form.of_record(discarded, record) for record in records],
        )
        self._producer.flush()


class FolderDestination:
    """A folder in place of an S3 bucket: a file a batch."""

    def __init__(self, folder: Path, form: Form) -> None:
        self._folder = folder
        self._form = form

    def write(self, discarded: Discarded) -> None:
        now = datetime.fromtimestamp(self._form.clock(), UTC)
        day = self._folder / "aws" / "lambda" / now.strftime("%Y/%m/%d")
        file = day / f"{now.strftime('%Y-%m-%dT%H.%M.%S')}-{uuid.uuid4()}"
        part = file.with_suffix(".part")
        try:
            day.mkdir(parents=True, exist_ok=True)
            part.write_bytes(self._form.of_batch(discarded))
            part.replace(file)
        except OSError as error:
            raise Transient(
                f"{self._folder} takes no discarded records: {error.strerror}; make room there, "
                f"or let this user write"
            ) from error


def topic_of(destination: str, broker: str) -> str:
    """The broker's URL with the topic of a destination `kafka://topic`."""
    before, _, query = broker.partition("?")
    servers = before.removeprefix(KAFKA).partition("/")[0]
    url = f"{KAFKA}{servers}/{destination.removeprefix(KAFKA)}"
    return f"{url}?{query}" if query else url


@contextmanager
def open_destination(
    destination: str | None, broker: str, form: Form
) -> Iterator[Destination | None]:
    """The destination of a mapping, while it is open; of None there is none.

    Raises
    ------
    UsageError
        It is AWS's, and not on this machine.
    """
    if destination is None:
        yield None
    elif destination.startswith("arn:"):
        raise UsageError(
            f"the on-failure destination {destination} is on AWS: give --on-failure FOLDER, which "
            f"takes the place of an S3 bucket, or --on-failure {KAFKA}TOPIC"
        )
    elif destination.startswith(KAFKA):
        from climatestream.brokers.open import open_broker

        with (
            open_broker(topic_of(destination, broker)) as topic,
            topic.producer() as producer,
        ):
            yield TopicDestination(producer, form)
    else:
        yield FolderDestination(Path(destination), form)


def read_destination(destination: str, broker: str) -> Iterator[DeadLetter]:
    """The records that a destination holds, as dead letters; one that came twice, twice.

    Raises
    ------
    UsageError
        It is AWS's, is not there, or holds something else.
    """
    for found in _invocations(destination, broker):
        context = found["requestContext"]
        times = context["approximateInvokeCount"]
        error = BadMessage("discarded", f"{context['condition']} after {times} invocations")
        for block in blocks(found["payload"]):
            for place in range(len(block)):
                yield bury(block, place, error)


def discarded_offsets(destination: str, broker: str, topic: str) -> dict[int, set[int]]:
    """By partition, the offsets of a topic's records that a destination holds.

    Raises
    ------
    UsageError
        As `read_destination`.
    """
    offsets: dict[int, set[int]] = {}
    for letter in read_destination(destination, broker):
        if letter.topic == topic:
            offsets.setdefault(letter.partition, set()).add(letter.offset)
    return offsets


def _invocations(destination: str, broker: str) -> Iterator[dict[str, Any]]:
    """AWS's invocation records, each with its event as `payload`."""
    if destination.startswith(KAFKA):
        from climatestream.brokers.open import open_broker

        with open_broker(topic_of(destination, broker)) as topic:
            for block in topic.read():
                for offset, value in zip(block.offset, block.value, strict=True):
                    yield _invocation(value or b"", f"{block.topic}/{block.partition}@{offset}")
        return
    folder = Path(destination)
    if not folder.is_dir():
        raise UsageError(
            f"{destination} is no destination of discarded records: expected {KAFKA}TOPIC or a "
            f"folder"
        )
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix != ".part":
            found = _invocation(file.read_bytes(), str(file))
            yield {**found, "payload": orjson.loads(found["payload"])}


def _invocation(content: bytes, where: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(content)
        found["requestContext"]["condition"], found["payload"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise UsageError(
            f"{where} is no record of a discarded batch: {error!r}; expected AWS's form, see "
            f"https://docs.aws.amazon.com/lambda/latest/dg/kafka-on-failure-destination.html"
        ) from error
    return found
