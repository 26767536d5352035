"""What a function's answer says about each record of its batch.

Documented on https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html:

- an error of the function fails the whole batch;
- without ReportBatchItemFailures, any answer is a success;
- an empty JSON document, or null, is a success;
- `{"batchItemFailures": [{"itemIdentifier": {"topic-partition": "era5-0", "offset": 100}}]}`:
  these records failed, "allowing Lambda to retry just those specific items";
- an identifier of a record that was not in the event fails the whole batch.

Not documented, and assumed, as for streams
(https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html):
`batchItemFailures` that is empty, null or missing is a success; an identifier that is null,
empty or has other keys fails the whole batch; so does an answer that is no object.

"Just those specific items" can be read in two ways, and AWS does not say which one holds. Of
streams, everything from the first reported record on comes again (`onwards`): a partition's order
calls for it, and it is what is assumed here. Taken literally, only what is listed comes again
(`listed`), and what a function left undone without naming it would be lost. A function that names
all that it left undone is right under both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from climatestream.aws.mapping_event import Record


@dataclass(frozen=True)
class FunctionError:
    """An invocation that failed as a whole.

    Parameters
    ----------
    kind
        As AWS names it: `Runtime.ExitError`, `Sandbox.Timedout`, or the exception's name.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended: with an answer, or with an error."""

    request_id: str
    answer: bytes = b"null"
    error: FunctionError | None = None


@dataclass(frozen=True)
class Verdict:
    """What is to be sent again, and why; `whole` when the function did not tell one from another.

    `invalid` is why an answer was not understood.
    """

    failed: Sequence[Record]
    whole: bool = False
    invalid: str | None = None


Again = Literal["onwards", "listed"]
"""What comes again of a partition of which an answer names records: see above."""


def judge(
    outcome: Outcome, records: Sequence[Record], *, partial: bool, again: Again = "onwards"
) -> Verdict:
    """What an outcome means for the records of its event.

    Parameters
    ----------
    partial
        Whether the mapping has ReportBatchItemFailures.
    again
        What comes again of what an answer names.
    """
    if outcome.error is not None:
        return Verdict(records, whole=True)
    if not partial:
        return Verdict(())
    try:
        found = orjson.loads(outcome.answer)
    except orjson.JSONDecodeError as error:
        return Verdict(records, whole=True, invalid=f"it is no JSON: {error}")
    if not found and type(found) not in (bool, int, float):
        return Verdict(())
    if not isinstance(found, dict):
        return Verdict(records, whole=True, invalid="it is no object")
    failures = found.get("batchItemFailures") or []
    if not isinstance(failures, list):
        return Verdict(records, whole=True, invalid="batchItemFailures is no list")
    sent = {(record.place, record.offset) for record in records}
    failed: dict[str, set[int]] = {}
    for failure in failures:
        place = _place(failure)
        if place is None or place not in sent:
            return Verdict(
                records, whole=True, invalid=f"{failure} identifies no record of the event"
            )
        failed.setdefault(place[0], set()).add(place[1])
    if again == "onwards":
        first = {name: min(offsets) for name, offsets in failed.items()}
        return Verdict([r for r in records if r.offset >= first.get(r.place, r.offset + 1)])
    return Verdict([r for r in records if r.offset in failed.get(r.place, ())])


def _place(failure: Any) -> tuple[str, int] | None:
    """The record that a failure identifies; None where it identifies none."""
    identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
    if not isinstance(identifier, dict) or set(identifier) != {"topic-partition", "offset"}:
        return None
    place, offset = identifier["topic-partition"], identifier["offset"]
    return (place, offset) if isinstance(place, str) and type(offset) is int else None
