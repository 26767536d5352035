"""Ctrl-C and SIGTERM: first end in order, then at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Self

DRAIN_S: Final = 1.2
"""Time that what is under way has to end by itself [s]: with closing all, two seconds."""

WAKE_S: Final = 0.2
"""Time after which someone who waits for a signal looks whether there was one [s]."""

EXIT_CODE: Final = 130


class Interrupt:
    """While it is open, the first signal sets `stop`, and `abandon` soon after.

    `stop` asks for no more to be begun; `abandon` ends what still waits. A second signal ends
    the process at once.

    Parameters
    ----------
    drain_s
        Time from the one to the other [s].
    abandoned
        Called when that time is over, besides.
    """

    def __init__(
        self, drain_s: float = DRAIN_S, abandoned: Callable[[], object] = lambda: None
    ) -> None:
        self.stop = threading.Event()
        self.abandon = threading.Event()
        self.interrupted = False
        """Whether a signal came; `stop` may be set for other reasons too."""
        self._drain_s = drain_s
        self._abandoned = abandoned
        self._before: dict[signal.Signals, object] = {}
        self._timer: threading.Timer | None = None
        self._at_once = False

    def wait(self) -> None:
        """Wait for a signal.

        In short steps: Polars has the system go on with a wait that a signal interrupts, so that
        Python would hear of the signal only when the wait is over.
        """
        while not self.stop.wait(WAKE_S):
            pass

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While it lasts, a signal raises KeyboardInterrupt: nothing is under way yet."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal() gave it

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            os._exit(EXIT_CODE)
        self.interrupted = True
        self.stop.set()
        if self._at_once:
            raise KeyboardInterrupt
        self._timer = threading.Timer(self._drain_s, self._abandon)
        self._timer.daemon = True
        self._timer.start()

    def _abandon(self) -> None:
        self.abandon.set()
        self._abandoned()
