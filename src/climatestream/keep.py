"""`--keep`: readings older than so long are dropped, and not written when they arrive older."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from climatestream.errors import Transient

if TYPE_CHECKING:
    from climatestream.ports import Store

LONGEST_WAIT_S = 60.0
"""Time between two rounds, at most [s]; a tenth of what is kept where that is shorter."""


class Keeper:
    """Drops old readings of the datasets seen, on a thread of its own, while it is open.

    Parameters
    ----------
    store
        An open store.
    keep_s
        How long readings are kept, by their own time [s].
    datasets
        Those to look after: what has been ingested so far.
    """

    def __init__(
        self,
        store: Store,
        keep_s: float,
        datasets: Callable[[], set[str]],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._keep_ms = round(keep_s * 1000)
        self._datasets = datasets
        self._clock_ms = clock_ms
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._rounds, name="keep", daemon=True)
        self._wait_s = min(LONGEST_WAIT_S, keep_s / 10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        with suppress(Transient):  # the next run drops what this one could not
            self.drop()

    def horizon_ms(self, _dataset: str) -> int:
        """The time before which a reading is not written."""
        return self._clock_ms() - self._keep_ms

    def drop(self) -> None:
        """Drop what is too old, and let the store remember up to when.

        Raises
        ------
        Transient
            The store can't now.
        """
        for dataset in sorted(self._datasets()):
            self._store.expire(dataset, self.horizon_ms(dataset))

    def _rounds(self) -> None:
        while not self._end.wait(self._wait_s):
            with suppress(Transient):  # the next round drops what this one could not
                self.drop()
