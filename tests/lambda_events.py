"""Events of a Kafka event source mapping, made of messages, and the context of an invocation."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from climatestream.model import Messages

NS = 1_756_684_800_000_000_000


@dataclass
class Context:
    """An invocation's context: so much time is left when it is made."""

    seconds: float = 30.0
    aws_request_id: str = "5b0f0fd8-request"

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round(1000 * (self._end - time.monotonic())))


def event(*blocks: Messages, source: str = "aws:kafka") -> dict[str, Any]:
    """The event that a mapping sends for these messages, through JSON."""
    made = {
        "eventSource": source,
        "bootstrapServers": "b-1.example:9098",
        "records": {f"{b.topic}-{b.partition}": _records(b) for b in blocks if len(b)},
    }
    parsed: dict[str, Any] = orjson.loads(orjson.dumps(made))
    return parsed


def _records(block: Messages) -> list[dict[str, Any]]:
    return [
        {
            "topic": block.topic,
            "partition": block.partition,
            "offset": offset,
            "timestamp": block.published_at_ms[n],
            "timestampType": "CREATE_TIME",
            "key": _text(block.key[n]),
            "value": _text(block.value[n]),
            "headers": [{name: list(value)} for name, value in block.headers[n]],
        }
        for n, offset in enumerate(block.offset)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def message(**fields: Any) -> bytes:
    """A valid message's value; by its latitude it is told apart from others."""
    return orjson.dumps(
        {"timestamp": NS, "temperature": 280.0, "latitude": 50.0, "longitude": 8.0, **fields}
    )


def block(
    values: Sequence[bytes | None],
    partition: int = 0,
    *,
    offsets: Sequence[int] | None = None,
    topic: str = "climate",
    published_at_ms: int = NS // 10**6 + 12_345,
) -> Messages:
    """Messages of a partition, from offset 0 unless said otherwise."""
    n = len(values)
    return Messages(
        topic=topic,
        partition=partition,
        offset=list(range(n) if offsets is None else offsets),
        published_at_ms=[published_at_ms] * n,
        key=[None] * n,
        value=list(values),
        headers=[()] * n,
    )


def invoke(
    function: Callable[[dict[str, Any], Context], Any],
    sent: dict[str, Any],
    context: Context | None = None,
) -> dict[str, int]:
    """By topic-partition, the first offset that the answer names; all after it are named too."""
    answer = orjson.loads(orjson.dumps(function(sent, context or Context())))
    assert set(answer) == {"batchItemFailures"}
    named: dict[str, list[int]] = {}
    for item in answer["batchItemFailures"]:
        identifier = item["itemIdentifier"]
        assert set(item) == {"itemIdentifier"}
        assert set(identifier) == {"topic-partition", "offset"}
        named.setdefault(identifier["topic-partition"], []).append(identifier["offset"])
    for name, offsets in named.items():
        all_of_it = [record["offset"] for record in sent["records"][name]]
        assert offsets == all_of_it[all_of_it.index(offsets[0]) :]
    return {name: offsets[0] for name, offsets in named.items()}
