"""What can go wrong, and what a caller does about it.

The first fork is the question that a caller has: again later, or never.

    ClimatestreamError
    ├── Transient            the same call may succeed later: retry with backoff
    │   ├── StoreUnavailable     the store does not answer, is full, or is read-only
    │   └── BrokerUnavailable    the broker does not answer
    └── Permanent            the same call will fail again
        ├── UsageError           a wrong argument or setting (exit 2)
        ├── SourceError          a file or service does not hold what is asked for
        ├── BrokerError          the broker refuses what is asked for
        ├── StoreError           the store refuses what is asked for
        ├── DeliveryFailed       messages were not acknowledged by the broker
        └── BadMessage           a message that can never be stored: a dead letter

Everything else that is raised is a bug and stops the run.

A message is one sentence: what, where, got, expected, next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

Reason = Literal[
    "empty",  # no value, or a null one
    "not-json",  # does not parse
    "not-an-object",  # parses, but is no JSON object
    "missing-field",  # timestamp, latitude or longitude absent or null
    "wrong-type",  # a field is not of the type that it has
    "out-of-range",  # a coordinate or a time outside its range, a number that is not finite
    "no-value",  # no finite value at all
    "bad-field-name",  # an unknown field whose name has a dot or a bracket
    "refused",  # the store refuses the row
]
"""Why a message is a dead letter: a word to group by; the sentence is beside it."""


class ClimatestreamError(Exception):
    """Base of every error that climatestream raises on purpose."""

    exit_code: ClassVar[int] = 1


class Transient(ClimatestreamError):
    """Failed now; the same call may succeed later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreUnavailable(Transient):
    """The store can't take or answer anything now."""


class BrokerUnavailable(Transient):
    """The broker can't take or answer anything now."""


class Permanent(ClimatestreamError):
    """Will fail again however often it is tried."""


class UsageError(Permanent):
    """A wrong argument or setting."""

    exit_code = 2


class SourceError(Permanent):
    """A file or a service does not hold what is asked for."""


class BrokerError(Permanent):
    """The broker refuses what is asked for."""


class StoreError(Permanent):
    """The store refuses what is asked for: locked, of another program, damaged."""


class DeliveryFailed(Permanent):
    """Messages were not acknowledged; `failed` says which, as (partition, key) pairs."""

    def __init__(self, message: str, *, failed: Sequence[tuple[int, bytes]] = ()) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class BadMessage(Permanent):
    """A message that can never be stored."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
