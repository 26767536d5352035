"""Trying again what fails for now, with backoff that an event ends at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from climatestream.errors import Transient

T = TypeVar("T")

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 10.0
"""Wait before the second try, and at most [s]: long enough to let a server recover, short enough
that a reading is seen soon after."""


def patiently(
    call: Callable[[], T], stop: threading.Event, failed: Callable[[Transient], object]
) -> T | None:
    """The answer of a call, tried again while it fails transiently; None: stopped before.

    Parameters
    ----------
    call
        What is tried. Errors that are not transient are raised.
    stop
        Ends the wait between two tries, and with it the trying.
    failed
        Told each failure.
    """
    for wait_s in _waits():
        try:
            return call()
        except Transient as error:
            failed(error)
            if stop.wait(wait_s if error.retry_after_s is None else error.retry_after_s):
                return None
    raise AssertionError("there is always another try")


def _waits() -> Iterator[float]:
    """Exponential backoff with jitter: half to all of a time that doubles up to the longest."""
    longest = FIRST_WAIT_S
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
        longest = min(2 * longest, LONGEST_WAIT_S)
