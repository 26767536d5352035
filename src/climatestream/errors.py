"""What can go wrong, and what a caller does about it.

The first fork is the question that a caller has: again later, or never.

    ClimatestreamError
    ├── Transient            the same call may succeed later: retry with backoff
    │   ├── StoreUnavailable     the store does not answer, is full, or is read-only
    │   ├── BrokerUnavailable    the broker does not answer
    │   └── SourceUnavailable    a service does not answer, or what it was asked for failed there
    └── Permanent            the same call will fail again
        ├── UsageError           a wrong argument or setting (exit 2)
        ├── SourceError          a file or service does not hold what is asked for
        │   └── NotServed            a service does not give it: `lack` says what is missing
        ├── BrokerError          the broker refuses what is asked for
        ├── StoreError           the store refuses what is asked for
        ├── DeliveryFailed       messages were not acknowledged by the broker
        ├── DashboardError       a board, or a query of it, is not what Grafana or a store takes
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
    "discarded",  # an event source mapping gave it up: its on-failure destination has it
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


class SourceUnavailable(Transient):
    """A service that gives data can't answer now, or failed at what it was asked for."""


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


Lack = Literal[
    "dataset",  # the service does not have the dataset
    "variable",  # nor a variable of it
    "region",  # it gives a single point, and a region is asked for, or the other way round
    "time",  # nothing at these times, or not yet
    "key",  # there is no key, or the service does not take it
    "licence",  # its terms are not accepted
    "limit",  # more is asked for than it gives
    "package",  # the extra that speaks with it is not installed
]
"""What a request and a service lack of each other: a word to choose by; the sentence is beside."""


class NotServed(SourceError):
    """A service does not give what is asked for; another one may."""

    def __init__(self, lack: Lack, message: str) -> None:
        super().__init__(message)
        self.lack: Lack = lack


class BrokerError(Permanent):
    """The broker refuses what is asked for."""


class StoreError(Permanent):
    """The store refuses what is asked for: locked, of another program, damaged."""


class DashboardError(Permanent):
    """A board, or a query of it, is not what Grafana or a store takes."""


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
