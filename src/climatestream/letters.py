"""Dead letters as people and scripts read them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from climatestream.errors import UsageError
from climatestream.model import DeadLetter
from climatestream.tables import console

if TYPE_CHECKING:
    from climatestream.ports import Store

FIRST_BYTES: Final = 60
"""Bytes of a message that a list shows [bytes]."""


def parse_position(text: str) -> tuple[str, int, int]:
    """`topic/partition@offset` as its three parts.

    Raises
    ------
    UsageError
        The text is not of that form.
    """
    match = re.fullmatch(r"(.+)/([0-9]+)@([0-9]+)", text)
    if match is None:
        raise UsageError(f"{text!r} names no message: expected TOPIC/PARTITION@OFFSET")
    return match[1], int(match[2]), int(match[3])


def find(
    store: Store, position: tuple[str, int, int], *, again: bool = False
) -> tuple[DeadLetter, int]:
    """The dead letter at a topic, partition and offset, and when it died [ms].

    Raises
    ------
    UsageError
        There is none, or, to be published `again`, it was already.
    """
    text = "{}/{}@{}".format(*position)
    found = store.dead_letters(position=position)
    if not found:
        raise UsageError(
            f"{text} is no dead letter of the store; `climatestream dead-letters list` has them"
        )
    # a topic that was made anew has the same offsets again
    letter, dead_at_ms = next((one for one in found if one[0].retried_at_ms is None), found[0])
    if again and letter.retried_at_ms is not None:
        raise UsageError(
            f"{text} was published again at {time_of(letter.retried_at_ms)} already: what became "
            f"of that message is another dead letter, or a reading"
        )
    return letter, dead_at_ms


def as_json(letter: DeadLetter, dead_at_ms: int, *, whole: bool = False) -> dict[str, Any]:
    """A dead letter as a JSON object; with its whole value, in base64, where asked for."""
    shown: dict[str, Any] = {
        "message": _place(letter),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "published_at": time_of(letter.published_at_ms),
        "dead_at": time_of(dead_at_ms),
        "reason": letter.reason,
        "error": letter.error,
        "attempt": letter.attempt,
        "retried_at": None if letter.retried_at_ms is None else time_of(letter.retried_at_ms),
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "bytes": None if letter.value is None else len(letter.value),
        "begins": _first_bytes(letter.value),
    }
    if whole:
        shown["value_base64"] = _base64(letter.value)
        shown["headers"] = [[name, _base64(value)] for name, value in letter.headers]
    return shown


def print_table(letters: Sequence[tuple[DeadLetter, int]]) -> None:
    """Print dead letters as a table, the newest first."""
    if not letters:
        console().print("no dead letters")
        return
    table = Table()
    table.add_column("message", overflow="fold")  # whole: it is what `show` and `retry` take
    for name in ("published", "retried", "reason", "error", "begins"):
        table.add_column(name)
    for letter, _ in letters:
        table.add_row(
            _place(letter),
            time_of(letter.published_at_ms),
            "" if letter.retried_at_ms is None else time_of(letter.retried_at_ms),
            letter.reason,
            Text(letter.error.partition(": ")[2]),
            Text(_first_bytes(letter.value)),
        )
    console().print(table)


def print_whole(letter: DeadLetter, dead_at_ms: int) -> None:
    """Print a dead letter, its value as it is where that is text."""
    out = console()
    for name, shown in as_json(letter, dead_at_ms).items():
        if name != "begins":
            out.print(f"{name}:", Text(str(shown)))
    for name, value in letter.headers:
        out.print(f"header {name}:", Text(value.decode(errors="backslashreplace")))
    out.print("value:", Text((letter.value or b"").decode(errors="backslashreplace")))


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}/{letter.partition}@{letter.offset}"


def time_of(time_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _first_bytes(value: bytes | None) -> str:
    return (value or b"")[:FIRST_BYTES].decode(errors="backslashreplace")


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
