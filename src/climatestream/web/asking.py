"""How the page asks a store: panels by name, each answer remembered for as long as it is fresh."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar, cast

from anyio import to_thread

from climatestream.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from climatestream.dashboards.panels import Panel
    from climatestream.ports import Answer, Store

KEPT_ANSWERS = 400
"""Answers remembered at most; the one not used for longest is forgotten."""
COST_SHARE = 50.0
"""What reads a whole table is asked again after this many times what it took: 2 % of a core."""

T = TypeVar("T")


class Asking:
    """Questions to a store from any number of threads; equal ones are asked once.

    Parameters
    ----------
    store
        Opened by the caller, who closes it after `close`.
    clock
        Seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self.clock = clock
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way = 0
        self._idle = threading.Condition()
        self._closed = False

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        """The store's answer.

        Raises
        ------
        StoreUnavailable, StoreError
            The store does not answer, or refuses; or the page is closed.
        """
        with self._idle:
            if self._closed:
                raise StoreUnavailable("the page is closed")
            self._under_way += 1
        try:
            return self._store.query(sql, parameters)
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def panel(self, panel: Panel, values: Mapping[str, Any]) -> Answer:
        """The answer to a panel's query."""
        return self.query(*panel.query(values))

    def fresh(
        self, key: Hashable, ask: Callable[[], T], age_s: float, *, cost_share: float = 0.0
    ) -> T:
        """The answer of `ask`, at most this old; older by `cost_share` times what it took.

        Of several threads with one key one asks and the others wait for it.
        """
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT_ANSWERS:
                self._kept.popitem(last=False)
        with kept.lock:
            age = self.clock() - kept.at
            if not 0.0 <= age < max(age_s, cost_share * kept.seconds):
                began = time.perf_counter()
                kept.answer = ask()
                kept.seconds = time.perf_counter() - began
                kept.at = self.clock()
            return cast("T", kept.answer)

    def forget(self, key: Hashable) -> None:
        """Ask anew the next time."""
        with self._lock:
            self._kept.pop(key, None)

    def close(self, timeout_s: float) -> None:
        """Ask the store nothing more; wait this long for queries that are under way [s]."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._under_way, timeout_s)


async def in_thread(ask: Callable[[], T]) -> T:
    """Ask without holding up other browsers; a server that stops does not wait."""
    return await to_thread.run_sync(ask, abandon_on_cancel=True)


class _Kept:
    """An answer, when it was given, and what it took [s]."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at = -math.inf
        self.seconds = 0.0
        self.answer: Any = None
