"""The Climate Data Store as a source: fetched into the cache, then read as files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from climatestream.errors import SourceError, UsageError
from climatestream.progress import Spinner, say
from climatestream.sources import cds_plan
from climatestream.sources.cds_fetch import PACE, Fetch, Pace, open_data_store
from climatestream.sources.field import UNSAID
from climatestream.sources.files import FileSource
from climatestream.sources.preliminary import final_before_ns
from climatestream.sources.request import request_of
from climatestream.sources.selection import Selection, time_text

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from climatestream.model import Batch, Slice
    from climatestream.sources.cache import Cache
    from climatestream.sources.cds_client import DataStore
    from climatestream.sources.field import Field

PREFIX = "cds:"


@dataclass(frozen=True)
class Fetched:
    """What a request has become.

    Parameters
    ----------
    dataset
        Ours.
    files
        Of each answer its file in the cache, in order of time.
    asked_at_s
        Of each, when it was asked for [s since 1970].
    asked
        Requests that the service was sent; the others were in the cache, or asked for before.
    downloaded
        What came over the network [bytes].
    newest
        The last day there is, where later ones were asked for; None: all are there.
    """

    dataset: str
    files: tuple[Path, ...]
    asked_at_s: tuple[float, ...]
    asked: int
    downloaded: int
    newest: str | None = None


@dataclass(eq=False)
class DataStoreRequest:
    """What is asked of the Climate Data Store, and how it is taken from there.

    Parameters
    ----------
    name
        The dataset: ours, or the Data Store's.
    selection
        What of it.
    cache
        Where answers are kept.
    stop
        Ends the wait; what is asked for is gone on with the next time.
    """

    name: str
    selection: Selection
    cache: Cache
    stop: threading.Event = field(default_factory=threading.Event)
    pace: Pace = PACE
    open_store: Callable[[], DataStore] = open_data_store
    now_s: Callable[[], float] = time.time

    def fetch(self, kept: ExitStack) -> Fetched:
        """Have all answers in the cache; they stay there until `kept` is closed.

        Says up to when there are values, where later ones are asked for.

        Raises
        ------
        NotServed, SourceError, SourceUnavailable
            The Data Store does not have it, or can't be asked.
        KeyboardInterrupt
            Stopped.
        """
        dataset, named = cds_plan.dataset_of(self.name)
        if self.selection.dataset not in {None, dataset}:
            raise UsageError(
                f"--dataset {self.selection.dataset} states what files are, but cds:{self.name} "
                f"is {dataset}: leave it out, or name cds:{self.selection.dataset}"
            )
        request = request_of(dataset, self.selection)
        asks = cds_plan.plan(request, named)
        asked = downloaded = 0
        for _ in range(2):
            fetch = Fetch(
                asks, self.cache, self.open_store, self.stop, pace=self.pace, now_s=self.now_s
            )
            with Spinner(fetch.progress.said), _told():
                keys = fetch.run()
            asked += fetch.asked
            downloaded += fetch.downloaded
            files = [kept.enter_context(self.cache.reading(key)) for key in keys]
            there = [file for file in files if file is not None]
            if len(there) == len(files):
                times = tuple(self.cache.asked_at_s(key) for key in keys)
                if fetch.newest is not None:
                    say(f"the Climate Data Store has {dataset} up to {fetch.newest}")
                return Fetched(dataset, tuple(there), times, asked, downloaded, fetch.newest)
        raise SourceError(
            f"the cache {self.cache.folder} loses answers as fast as they come: give it more room "
            "with --cache-size"
        )


class _Dated:
    """Says by their date which values are preliminary, where an answer does not.

    Daily statistics have no `expver`. What was preliminary when it was asked for is so in the
    cache, until it is fetched anew.
    """

    def __init__(self, fetched: Fetched) -> None:
        self._fetched = fetched
        self.from_ns: int | None = None
        """The first time that was taken for preliminary."""

    def __call__(self, field: Field) -> Field:
        if (field.preliminary != UNSAID).any():
            return field
        asked_at_s = next(
            at
            for file, at in zip(self._fetched.files, self._fetched.asked_at_s, strict=True)
            if field.file.startswith(str(file))
        )
        early = field.time_ns >= final_before_ns(round(asked_at_s * 1e9))
        if early.any():
            first = int(field.time_ns[early].min())
            self.from_ns = first if self.from_ns is None else min(first, self.from_ns)
        return replace(field, preliminary=early.astype(np.int8))


@contextmanager
def _told() -> Iterator[None]:
    """Say what becomes of requests whose answers nobody waits for any more."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            "stopped; what was asked for goes on at the service, and the same command goes on "
            "with it"
        )
        raise


class DataStoreSource:
    """Readings from the Climate Data Store.

    Entering fetches all of them, and shows how far that is.
    """

    def __init__(self, request: DataStoreRequest) -> None:
        self._request = request
        self._kept = ExitStack()
        self._files: FileSource | None = None

    def __enter__(self) -> Self:
        try:
            fetched = self._request.fetch(self._kept)
            selection = replace(self._request.selection, dataset=fetched.dataset)
            dated = _Dated(fetched)
            files = FileSource([str(file) for file in fetched.files], selection, dated)
            self._files = self._kept.enter_context(files)
            if dated.from_ns is not None:
                say(
                    f"the Climate Data Store does not say which values of {fetched.dataset} are "
                    f"preliminary: those from {time_text(dated.from_ns)} on are taken for it, by "
                    "their date"
                )
        except BaseException:
            self._kept.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files = None
        self._kept.close()

    def slices(self) -> Sequence[Slice]:
        return self._opened.slices()

    def read(self, slice_: Slice) -> Iterator[Batch]:
        return self._opened.read(slice_)

    @property
    def _opened(self) -> FileSource:
        if self._files is None:
            raise RuntimeError("the source is not open")
        return self._files
