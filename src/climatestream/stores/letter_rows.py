"""Dead letters as rows of their table, the same in every store: bytes as base64, times in ms."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import orjson

from climatestream.model import DeadLetter


def row_of(letter: DeadLetter, dead_at_ms: int) -> tuple[Any, ...]:
    """A dead letter as the columns of `DEAD_LETTERS`, in their order; times in ms."""
    headers = orjson.dumps([(name, _encoded(value)) for name, value in letter.headers]).decode()
    return (
        *(letter.topic, letter.partition, letter.offset, letter.published_at_ms),
        *(_encoded(letter.key), _encoded(letter.value), headers),
        *(letter.reason, letter.error, letter.attempt, dead_at_ms, letter.retried_at_ms),
    )


def letter_of(row: Sequence[Any]) -> tuple[DeadLetter, int]:
    """What `row_of` was given."""
    topic, partition, offset, published_at_ms, key, value, headers, *rest = row
    reason, error, attempt, dead_at_ms, retried_at_ms = rest
    letter = DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        published_at_ms=published_at_ms,
        key=_decoded(key),
        value=_decoded(value),
        headers=tuple((name, b64decode(text)) for name, text in orjson.loads(headers)),
        reason=reason,
        error=error,
        attempt=attempt,
        retried_at_ms=retried_at_ms,
    )
    return letter, dead_at_ms


def _encoded(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
