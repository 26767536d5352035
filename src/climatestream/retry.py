"""`climatestream dead-letters retry`: publish dead letters again, as they were or corrected.

A letter is published with its origin in the headers, by which it is ranked: an old reading never
overwrites a newer one. The letter itself stays in its table, which is what `audit` reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from climatestream import codec
from climatestream.errors import BadMessage, UsageError
from climatestream.model import DeadLetter, Headers
from climatestream.ports import Producer, Store

ATTEMPTS: Final = 3
"""Times that a message is tried, the first included; then it stays dead."""

Correct = Callable[[DeadLetter], bytes | None]
"""Gives the value to publish; None, or a `UsageError`, where there is none to be had."""


@dataclass(frozen=True)
class Retried:
    """What became of dead letters: published again, or left dead.

    Those in `unmended`, a sentence each, are left for want of a value to publish; the others
    after so many attempts.
    """

    published: int
    left: int
    unmended: tuple[str, ...] = ()


def retry(
    store: Store,
    producer: Producer,
    letters: Sequence[tuple[DeadLetter, int]],
    correct: Correct = lambda letter: letter.value,
    *,
    named: bool = False,
) -> Retried:
    """Publish dead letters again, those that were not yet and have attempts left.

    One that can't be mended does not keep the others from being published, unless they were
    `named`.

    Delivery: at least once. A letter is marked only after the broker has acknowledged it: when
    the command dies in between, the next one publishes it again, with the same rank.

    Raises
    ------
    UsageError
        A named letter can't be mended; nothing is published.
    """
    fresh = [pair for pair in letters if pair[0].retried_at_ms is None]
    due = [pair for pair in fresh if pair[0].attempt < ATTEMPTS]
    mended: list[tuple[tuple[DeadLetter, int], bytes]] = []
    unmended: list[str] = []
    for pair in due:
        try:
            mended.append((pair, _mended(pair[0], correct)))
        except UsageError as error:
            if named:
                raise
            unmended.append(str(error))
    for (letter, _), value in mended:
        producer.publish([_key(letter, value)], [value], _headers(letter))
    producer.flush()
    if mended:
        store.mark_retried([pair for pair, _ in mended], time.time_ns() // 1_000_000)
    return Retried(len(mended), len(fresh) - len(mended), tuple(unmended))


def _mended(letter: DeadLetter, correct: Correct) -> bytes:
    value = correct(letter)
    if value is None:
        raise UsageError(
            f"{letter.topic}/{letter.partition}@{letter.offset} has no value: give one with "
            f"--from FILE"
        )
    return value


def with_fields(changes: Mapping[str, Any]) -> Correct:
    """A correction that sets fields of the JSON document; None takes a field out.

    Raises
    ------
    UsageError
        When it meets a letter whose value is no JSON object.
    """

    def correct(letter: DeadLetter) -> bytes:
        try:
            document = orjson.loads(letter.value or b"")
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise UsageError(
                f"{letter.topic}/{letter.partition}@{letter.offset} is no JSON object, so --set "
                f"can't mend it: give the whole document with --from FILE"
            )
        document.update(changes)
        return orjson.dumps({name: v for name, v in document.items() if v is not None})

    return correct


def parse_change(text: str) -> tuple[str, Any]:
    """`field=value` of `--set`: the value is JSON, or else text.

    Raises
    ------
    UsageError
        There is no `=`.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--set {text!r}: expected FIELD=VALUE, such as latitude=52.5")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


def _headers(letter: DeadLetter) -> Headers:
    first = codec.origin_of(letter.headers)
    origin = codec.Origin(
        topic=first.topic if first else letter.topic,
        partition=first.partition if first else letter.partition,
        offset=first.offset if first else letter.offset,
        published_at_ms=first.published_at_ms if first else letter.published_at_ms,
        attempt=letter.attempt + 1,
    )
    others = tuple(pair for pair in letter.headers if pair[0] != codec.ORIGIN_HEADER)
    return (*others, *origin.headers())


def _key(letter: DeadLetter, value: bytes) -> bytes:
    """The cell of the corrected message, so that it follows the cell's other readings."""
    try:
        return codec.read(value, "", {}).cell.encode()
    except BadMessage:
        return letter.key or b""
