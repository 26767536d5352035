"""Requests to the Climate Data Store, taken to files in the cache; resumed where they stopped.

Each request is a thread's: look into the cache, ask, wait, download. What the service calls a
request is kept in the cache before anything else is done, so that nothing is asked twice, whatever
happens in between; an answer's bytes are kept as they arrive.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from climatestream.errors import NotServed, SourceError, SourceUnavailable
from climatestream.sources import cds_client
from climatestream.sources.cache import Asked, Cache, Slot
from climatestream.sources.cds_client import (
    Answer,
    DataStore,
    Failed,
    Gone,
    Job,
    QueueFull,
    TooLarge,
)
from climatestream.sources.download import download
from climatestream.sources.locate import Kind, opened_kind
from climatestream.sources.preliminary import final_before_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from climatestream.sources.cds_plan import Ask

T = TypeVar("T")

SERVICE: Final = "cds"
IN_FLIGHT: Final = 2
"""Requests at the service at once. It says of no number what it allows, but rejects those that are
too many of one dataset; users saw four rejected and two taken, and ECMWF asks for few at a time
(https://github.com/ecmwf/cdsapi/issues/17). After a rejection it is one."""

TRIES: Final = 3
"""How often a request is asked for that fails at the service, or is forgotten by it."""

DAY_S: Final = 86_400.0

SUFFIXES: Final[Mapping[Kind, str]] = {"zip": ".zip", "grib": ".grib", "netcdf": ".nc"}


@dataclass(frozen=True)
class Pace:
    """How long to wait for what, seconds.

    Parameters
    ----------
    poll_first_s, poll_s
        Between two looks at a request: at first, and at most; half as long again each time.
    retry_first_s, retry_s
        Before another try of what failed for now, doubled each time up to the second.
    retries
        How many tries in a row may fail.
    queue_s
        Before a request is asked for again that was rejected as too many wait.
    """

    poll_first_s: float = 1.0
    poll_s: float = 60.0
    retry_first_s: float = 1.0
    retry_s: float = 60.0
    retries: int = 10
    queue_s: float = 120.0


PACE: Final = Pace()


@dataclass
class Progress:
    """What is being fetched: state, bytes, time. Read by another thread while it changes.

    Parameters
    ----------
    states
        Of each request, in order of time, one of `STATES`.
    waiting_for
        What is being tried again, and why; None: nothing.
    """

    states: dict[str, str] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    waiting_for: str | None = None
    began_s: float = field(default_factory=time.monotonic)

    STATES = ("waiting", "elsewhere", "accepted", "running", "downloading", "here")

    def said(self) -> str:
        """One line: `12 requests: 3 here, 1 running, 8 waiting; 4.2 of 9.9 MB; 0:02:10`."""
        states = dict(self.states)
        counts = Counter(states.values())
        words = []
        for state in reversed(self.STATES):
            if counts[state]:
                named = [label for label, at in states.items() if at == state]
                few = state != "here" and len(named) <= 3
                shown = " (" + ", ".join(named) + ")" if few else ""
                words.append(f"{counts[state]} {IN_WORDS[state]}{shown}")
        size = sum(self.sizes.values())
        received = sum(self.received.values())
        bytes_ = f"; {received / 1e6:,.1f} of {size / 1e6:,.1f} MB" if size else ""
        spent = timedelta(seconds=round(time.monotonic() - self.began_s))
        many = f"{len(states)} request{'s' if len(states) != 1 else ''}"
        trouble = self.waiting_for
        again = "" if trouble is None else f"; trying again: {trouble}"
        return f"{many}: {', '.join(words) or 'none'}{bytes_}; {spent}{again}"


IN_WORDS: Final = {
    "waiting": "not yet asked for",
    "elsewhere": "fetched by another process",
    "accepted": "in the service's queue",
    "running": "running",
    "downloading": "downloading",
    "here": "here",
}


class Gate:
    """How many requests are at the service at once; the earlier in time go first."""

    def __init__(self, limit: int, stop: threading.Event) -> None:
        self._limit = limit
        self._inside = 0
        self._waiting: list[date] = []
        self._stop = stop
        self._changed = threading.Condition()

    @contextmanager
    def inside(self, day: date) -> Iterator[None]:
        """Waits until there is room, and no earlier day waits."""
        with self._changed:
            self._waiting.append(day)
            try:
                while self._inside >= self._limit or min(self._waiting) < day:
                    self._changed.wait(0.2)
                    if self._stop.is_set():
                        raise Stopped
                self._inside += 1
            finally:
                self._waiting.remove(day)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._changed:
            return len(self._waiting)

    def lower(self) -> None:
        """The service has said that it was too many."""
        with self._changed:
            self._limit = max(1, self._limit - 1)


class Stopped(Exception):
    """Someone asked to stop, or another request has failed."""


class Fetch:
    """Takes requests to files.

    Parameters
    ----------
    asks
        In order of time.
    cache
        Where answers are kept.
    open_store
        The service; called only where something has to be asked for.
    stop
        Ends all that waits. What is asked for goes on at the service.
    """

    def __init__(
        self,
        asks: Sequence[Ask],
        cache: Cache,
        open_store: Callable[[], DataStore],
        stop: threading.Event,
        *,
        pace: Pace = PACE,
        now_s: Callable[[], float] = time.time,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._asks = asks
        self._cache = cache
        self._open_store = open_store
        self._store: DataStore | None = None
        self._opening = threading.Lock()
        self._stop = stop
        self._end = threading.Event()
        self._pace = pace
        self._now_s = now_s
        self._workers = in_flight * 2
        self._gate = Gate(in_flight, self._end)
        self._fits: dict[str, int] = {}
        self._keys: set[str] = set()
        self.progress = Progress(states=dict.fromkeys((ask.label for ask in asks), "waiting"))
        self.asked = 0
        """Requests that the service was sent."""
        self.downloaded = 0
        """Bytes that came over the network."""
        self.newest: str | None = None
        """The last day there is, where later ones were asked for."""

    def run(self) -> list[str]:
        """The keys of the answers, in order of time.

        Raises
        ------
        NotServed, SourceError, SourceUnavailable
            A request can't be had; the others that were asked for are kept for the next time.
        KeyboardInterrupt
            Stopped.
        """
        # Daemons: a thread that waits for the network holds nobody up who has pressed Ctrl-C.
        left = deque(enumerate(self._asks))
        found: dict[int, list[str]] = {}
        errors: list[BaseException] = []
        threads = [
            threading.Thread(
                target=self._work, args=(left, found, errors), name=f"fetch-{i}", daemon=True
            )
            for i in range(min(self._workers, len(self._asks)))
        ]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                if self._stop.wait(0.05) or errors:
                    break
        finally:
            self._end.set()
        if errors:
            raise errors[0]
        if len(found) < len(self._asks):
            raise KeyboardInterrupt
        keys = [key for number in sorted(found) for key in found[number]]
        if not keys:
            first, last = self._asks[0], self._asks[-1]
            raise NotServed(
                "time",
                f"the Climate Data Store has nothing of {first.collection} for {first.label}"
                + (f" to {last.label}" if last is not first else "")
                + " yet: ERA5-Land and ERA5 follow the present by about five days",
            )
        return keys

    def _work(
        self,
        left: deque[tuple[int, Ask]],
        found: dict[int, list[str]],
        errors: list[BaseException],
    ) -> None:
        """Take requests until there are no more, or one can't be had."""
        while True:
            try:
                number, ask = left.popleft()
            except IndexError:
                return
            try:
                found[number] = self._fetch(ask)
            except (Stopped, KeyboardInterrupt):
                return
            except BaseException as error:
                errors.append(error)
                return

    # ------------------------------------------------------------------------ one request

    def _fetch(self, ask: Ask) -> list[str]:
        """The keys of a request's answers: one, or those of its parts; none: not there yet."""
        label = ask.label
        some = self._there_is(ask)
        if some is None:
            self.progress.states.pop(label, None)
            return []
        if some.label != label:
            self._rename(label, [some])
        taken = partial(self._set, some, "elsewhere")
        self._keys.add(some.key)
        with self._cache.writing(some.key, self._end, taken) as slot:
            parts = self._parts(some, slot)
            if parts is None:
                try:
                    self._take(some, slot)
                    self._set(some, "here")
                except TooLarge as error:
                    # The service's own estimate said less.
                    parts = self._divided(some, slot, str(error))
        if parts is None:
            self._cache.trim(keep=self._keys)
            return [some.key]
        self._rename(some.label, parts)
        return [key for part in parts for key in self._fetch(part)]

    def _there_is(self, ask: Ask) -> Ask | None:
        """The part of a request that the service has; what is long past it has all."""
        if _final(_end_s(ask), self._now_s()) or self._here(ask) or ask.month is None:
            return ask
        days = self._call(lambda store: store.days(ask))
        if days is None:
            return ask
        asked = ask.inputs["day"]
        found = [day for day in asked if day in days]
        if len(found) < len(asked) and (days or self.newest is None):
            self.newest = f"{'-'.join(ask.month)}-{days[-1]}" if days else self.newest
        return ask.on_days(found) if found else None

    def _here(self, ask: Ask) -> bool:
        with self._cache.reading(ask.key) as path:
            return path is not None

    def _parts(self, ask: Ask, slot: Slot) -> Sequence[Ask] | None:
        """The parts that a request has to be asked for in; None: it can be asked for as it is."""
        asked = slot.asked()
        if asked is not None and asked.parts:
            return ask.halves()
        if asked is not None and (slot.answer() or asked.request_id):
            return None
        fits = self._fits.get(ask.collection, 0)
        if ask.values <= fits:
            return None
        cost, limit = self._call(lambda store: store.cost(ask))
        if cost > limit:
            return self._divided(ask, slot, f"it costs {cost:g}, and {limit:g} is the most")
        self._fits[ask.collection] = max(ask.values, fits)
        return None

    def _divided(self, ask: Ask, slot: Slot, why: str) -> Sequence[Ask]:
        halves = ask.halves()
        if halves is None:
            raise NotServed(
                "limit",
                f"the Climate Data Store does not give {ask.collection} for {ask.label} at once "
                f"({why}), and it can't be divided: name a smaller --region",
            )
        slot.note(replace(self._new(ask), parts=tuple(half.key for half in halves)))
        return halves

    def _take(self, ask: Ask, slot: Slot) -> None:
        """Have the answer of a request in its slot."""
        failed = rejected = 0
        while True:
            asked = slot.asked()
            if asked is not None and self._stale(asked):
                slot.clear()
            elif slot.answer() is not None:
                return
            try:
                with self._gate.inside(ask.last_day):
                    job = self._ask(ask, slot)
                    answer = self._wait(ask, job)
                self._download(ask, slot, answer)
                return
            except QueueFull as error:
                self._forget(ask, slot)
                self._gate.lower()
                self.progress.waiting_for = str(error)
                self._sleep(self._pace.queue_s * min(2.0**rejected, 8.0))
                rejected += 1
            except (Gone, Failed):
                self._forget(ask, slot)
                failed += 1
                if failed == TRIES:
                    raise
                self._sleep(self._pace.retry_first_s)

    def _ask(self, ask: Ask, slot: Slot) -> Job:
        """The job of a request: the one that there is, or a new one."""
        asked = slot.asked()
        if asked is not None and asked.request_id is not None:
            self._set(ask, "accepted")
            known = asked.request_id
            return self._call(lambda store: store.job(ask, known))
        # Where it was sent and no answer came, the service may have it all the same.
        sent = asked is not None
        asked = asked or self._new(ask)
        slot.note(asked)
        since_s = asked.asked_at_s

        def send(store: DataStore) -> Job:
            nonlocal sent
            found = store.lost(ask, since_s) if sent else None
            sent = True
            if found is None:
                found = store.submit(ask)
                self.asked += 1
            return found

        job = self._call(send)
        slot.note(replace(asked, request_id=job.id))
        self._set(ask, "accepted")
        return job

    def _wait(self, ask: Ask, job: Job) -> Answer:
        """Where the answer is, once it is there."""
        pause = self._pace.poll_first_s
        while (state := self._call(lambda _: job.state())) != "successful":
            self._set(ask, state)
            self._sleep(pause)
            pause = min(pause * 1.5, self._pace.poll_s)
        return self._call(lambda _: job.answer())

    def _download(self, ask: Ask, slot: Slot, answer: Answer) -> None:
        """Have the bytes of an answer, whole."""
        asked = replace(slot.asked() or self._new(ask), size=answer.size)
        slot.note(asked)
        self.progress.sizes[ask.label] = answer.size
        self._set(ask, "downloading")

        def received(count: int, total: int) -> None:
            self.downloaded += count
            self.progress.received[ask.label] = total
            if self._end.is_set():
                raise Stopped

        failures = 0
        while True:
            before = slot.part.stat().st_size if slot.part.exists() else 0
            try:
                download(answer.url, slot.part, answer.size, received)
                break
            except SourceUnavailable as error:
                now = slot.part.stat().st_size if slot.part.exists() else 0
                failures = 0 if now > before else failures + (error.retry_after_s is None)
                self._again(error, failures)
        try:
            kind = opened_kind(
                slot.part, f"the Climate Data Store's answer to {ask.collection} for {ask.label}"
            )
        except SourceError as error:
            raise Failed(str(error)) from error
        slot.complete(asked, ask.collection + SUFFIXES[kind])

    def _stale(self, asked: Asked) -> bool:
        """Whether an answer was fetched while its values were preliminary, and are final now."""
        then, now = (_final(asked.last_day_s, at) for at in (asked.asked_at_s, self._now_s()))
        return asked.name is not None and now and not then

    def _forget(self, ask: Ask, slot: Slot) -> None:
        slot.clear()
        self._set(ask, "waiting")

    def _new(self, ask: Ask) -> Asked:
        return Asked(SERVICE, ask.collection, ask.inputs, ask.label, self._now_s(), _end_s(ask))

    # ----------------------------------------------------------------------------- waiting

    def _call(self, call: Callable[[DataStore], T]) -> T:
        """What a call of the service gives, tried again while it can't answer."""
        failures = 0
        while True:
            self._sleep(0.0)
            try:
                answer = call(self._opened())
            except (QueueFull, Failed):
                raise
            except SourceUnavailable as error:
                # Being told when to come back is no failure.
                failures += error.retry_after_s is None
                self._again(error, failures)
            else:
                self.progress.waiting_for = None
                return answer

    def _again(self, error: SourceUnavailable, failures: int) -> None:
        """Wait before another try; raise where there have been enough."""
        if failures > self._pace.retries:
            raise error
        self.progress.waiting_for = str(error)
        if error.retry_after_s is not None:
            self._sleep(error.retry_after_s)
        else:
            pause = self._pace.retry_first_s * 2.0 ** max(failures - 1, 0)
            self._sleep(min(pause, self._pace.retry_s))

    def _sleep(self, seconds: float) -> None:
        if self._end.is_set() or (seconds > 0.0 and self._end.wait(seconds)):
            raise Stopped

    def _opened(self) -> DataStore:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    def _set(self, ask: Ask, state: str) -> None:
        self.progress.states[ask.label] = state

    def _rename(self, label: str, asks: Sequence[Ask]) -> None:
        """Show requests in the place of the one that they are of."""
        states = dict(self.progress.states)
        self.progress.states = {
            name: state
            for old, at in states.items()
            for name, state in ([(ask.label, at) for ask in asks] if old == label else [(old, at)])
        }


def _final(end_s: float, now_s: float) -> bool:
    """Whether values up to this time are final by their date."""
    return end_s * 1e9 <= final_before_ns(round(now_s * 1e9))


def _end_s(ask: Ask) -> float:
    """The end of the last day that a request is for [s since 1970]."""
    return datetime.combine(ask.last_day, day_time(), UTC).timestamp() + DAY_S


def open_data_store() -> DataStore:
    """The Data Store of the user's credentials."""
    return DataStore(cds_client.credentials())
