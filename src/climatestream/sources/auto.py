"""`auto:`: the quickest source that has what is asked for and for which there is a key.

Every candidate is asked what it has and what reading it would take; the quickest is taken, and said
with the reason. Where it fails, the next one goes on with the very slice that failed. A slice is
read whole before a reading of it is passed on, so that no reading comes twice and none is put
together of two sources.

Sources differ in how exactly they write coordinates (the Data Store's daily files are some
thousandths of a degree off the grid). Readings of `auto:` are on the product's grid, so that a cell
is the same one wherever its readings come from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np

from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.model import Cells
from climatestream.progress import say
from climatestream.sources.request import CELLS_A_DEGREE, Request, request_of
from climatestream.sources.selection import time_text
from climatestream.sources.zarr_source import ZarrSource

if TYPE_CHECKING:
    from types import TracebackType

    from climatestream.model import Batch, Slice
    from climatestream.ports import Source
    from climatestream.sources.open import Around
    from climatestream.sources.selection import Selection

PREFIX: Final = "auto:"

BYTES_A_SECOND: Final = 20e6
"""What an archive is taken to send, counted before compression [bytes/s]."""
REQUEST_S: Final = 0.1 / 8
"""What a request costs besides, eight at a time [s]."""
QUEUE_S: Final = 300.0
"""What the Data Store is taken to need for a month's request, queue included [s]: five minutes on a
good day. https://cds.climate.copernicus.eu/live shows the queue."""

LAG_NS: Final = 6 * 86_400_000_000_000
"""How far behind the present the Data Store is [ns]: about five days, and the day itself."""

OFF_GRID: Final = 0.2
"""How far off its place on the grid a cell may be [steps of the grid]."""

Failure = NotServed | SourceUnavailable | SourceError


@dataclass(frozen=True)
class Offer:
    """What taking a source means.

    Parameters
    ----------
    seconds
        About how long reading all of it takes.
    until_ns
        Up to when it has something of what is asked for.
    why
        What the time is made of.
    """

    seconds: float
    until_ns: int
    why: str


class Candidate(Protocol):
    """A source that may be taken."""

    def offer(self, kept: ExitStack) -> Offer:
        """What it has and what that takes; `kept` closes what it opens.

        Raises
        ------
        NotServed, SourceUnavailable, SourceError
            It can't be taken: why.
        """

    def open(self, kept: ExitStack) -> Source:
        """The source, opened."""


@dataclass
class Archive:
    """An archive that is read as Zarr."""

    spec: str
    selection: Selection
    say: Callable[[str], None]
    _said: list[str] = field(default_factory=list)
    _source: ZarrSource | None = None

    def offer(self, kept: ExitStack) -> Offer:
        source = ZarrSource(self.spec, self.selection, say=self._said.append)
        self._source = kept.enter_context(source)
        plan, slices = source.plan, source.slices()
        seconds = plan.size / BYTES_A_SECOND + plan.requests * REQUEST_S
        until_ns = slices[-1].time_ns + source.request.step_ns
        why = f"{plan.requests:,} chunks, {plan.size / 1e6:,.0f} MB before compression"
        return Offer(seconds, until_ns, why)

    def open(self, kept: ExitStack) -> Source:  # noqa: ARG002
        for sentence in self._said:
            self.say(sentence)
        if self._source is None:
            raise RuntimeError("asked for an offer first")
        return self._source


@dataclass
class DataStore:
    """The Climate Data Store: everything, after a queue."""

    request: Request
    selection: Selection
    around: Around
    now_ns: Callable[[], int]

    def offer(self, kept: ExitStack) -> Offer:  # noqa: ARG002
        from climatestream.sources import cds_plan
        from climatestream.sources.cds_client import credentials

        credentials()
        cds_plan.plan(self.request)
        days = (self.request.end_ns - self.request.start_ns) / 86_400e9
        months = max(1, math.ceil(days / 31))
        until_ns = min(self.request.end_ns, self.now_ns() - LAG_NS)
        return Offer(
            QUEUE_S * months, until_ns, f"{months} months in a queue" if months > 1 else "a queue"
        )

    def open(self, kept: ExitStack) -> Source:
        from climatestream.sources.cds import DataStoreRequest, DataStoreSource

        request = DataStoreRequest(
            self.request.dataset, self.selection, self.around.cache(), self.around.stop
        )
        return kept.enter_context(DataStoreSource(request))


def candidates(
    request: Request,
    selection: Selection,
    around: Around,
    *,
    say: Callable[[str], None] = say,
    now_ns: Callable[[], int] = time.time_ns,
) -> dict[str, Candidate]:
    """The sources that `auto:` chooses from. Open-Meteo is none: its values are rounded."""
    return {
        "arco:": Archive(f"arco:{request.dataset}", selection, say),
        "edh:": Archive(f"edh:{request.dataset}", selection, say),
        "cds:": DataStore(request, selection, around, now_ns),
    }


class AutoSource:
    """The source `auto:DATASET`.

    Parameters
    ----------
    dataset
        Ours.
    selection
        With both dates.
    choose
        Makes the candidates.
    say
        Told which is taken and why, and what failed.

    Raises
    ------
    UsageError
        There are no dates, or another dataset is stated.
    """

    def __init__(
        self,
        dataset: str,
        selection: Selection,
        choose: Callable[[Request, Selection], Mapping[str, Candidate]],
        *,
        say: Callable[[str], None] = say,
    ) -> None:
        if selection.dataset not in {None, dataset}:
            raise UsageError(
                f"{PREFIX}{dataset} can't be stated to be {selection.dataset!r}: leave --dataset "
                "out"
            )
        self.request = request_of(dataset, selection)
        self._selection = replace(selection, dataset=None)
        self._choose = choose
        self._say = say
        self._kept = ExitStack()
        self._left: dict[str, tuple[Candidate, Offer]] = {}
        self._failures: dict[str, Failure] = {}
        self._name = ""
        self._source: Source | None = None
        self._there: set[Slice] = set()

    def __enter__(self) -> Self:
        """Ask the candidates, and open the quickest.

        Raises
        ------
        SourceError
            None has it: of each why.
        SourceUnavailable
            None has it now, but one may later.
        """
        try:
            for name, candidate in self._choose(self.request, self._selection).items():
                try:
                    self._left[name] = candidate, candidate.offer(self._kept)
                except (NotServed, SourceUnavailable, SourceError) as error:
                    self._failures[name] = error
            self._next()
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
        self._source = None
        self._kept.close()

    def slices(self) -> Sequence[Slice]:
        """What the source that is taken has."""
        return self._opened.slices()

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The readings of a slice, all of one source.

        Raises
        ------
        SourceError, SourceUnavailable
            As on entering, when the last candidate has failed.
        """
        while True:
            try:
                if slice_ not in self._there:
                    raise NotServed(
                        "time", f"{self._name} does not have {time_text(slice_.time_ns)}"
                    )
                found = [self._on_grid(batch) for batch in self._opened.read(slice_)]
            except (NotServed, SourceUnavailable, SourceError) as error:
                self._failures[self._name] = error
                self._say(f"auto: {self._name} failed at {time_text(slice_.time_ns)}: {error}")
                self._next()
                continue
            yield from found
            return

    # -------------------------------------------------------------------------------- pieces

    @property
    def _opened(self) -> Source:
        if self._source is None:
            raise RuntimeError("the source is not open")
        return self._source

    def _next(self) -> None:
        """Open the best of the candidates that are left."""
        while self._left:
            name = min(self._left, key=self._rank)
            others = self._others(name)
            candidate, offer = self._left.pop(name)
            self._say(
                f"auto: takes {name} for {self.request.dataset}, about {_duration(offer.seconds)} "
                f"({offer.why}){others}"
            )
            try:
                self._source = candidate.open(self._kept)
                self._name = name
                self._there = set(self._source.slices())
            except (NotServed, SourceUnavailable, SourceError) as error:
                self._failures[name] = error
                self._say(f"auto: {name} failed: {error}")
            else:
                return
        said = "; ".join(
            f"{name} {str(error).removeprefix(f'{name} ')}"
            for name, error in self._failures.items()
        )
        sentence = f"no source has {self.request.dataset} as it is asked for: {said}"
        if any(isinstance(error, SourceUnavailable) for error in self._failures.values()):
            raise SourceUnavailable(sentence)
        lacks = {error.lack for error in self._failures.values() if isinstance(error, NotServed)}
        if "time" in lacks and lacks <= {"time", "key", "dataset", "package"}:
            raise NotServed("time", sentence)
        raise SourceError(sentence)

    def _rank(self, name: str) -> tuple[int, float]:
        """First what has more days of those asked for, then what is quicker."""
        _, offer = self._left[name]
        days = min(offer.until_ns, self.request.end_ns) // 86_400_000_000_000
        return -days, offer.seconds

    def _others(self, taken: str) -> str:
        """What was not taken, and why."""
        slower = [
            f"{name} about {_duration(offer.seconds)}"
            + (
                f", up to {time_text(offer.until_ns - 1)}"
                if offer.until_ns < self.request.end_ns
                else ""
            )
            for name, (_, offer) in self._left.items()
            if name != taken
        ]
        failed = [
            f"{name} no {error.lack}" if isinstance(error, NotServed) else f"{name} failed"
            for name, error in self._failures.items()
        ]
        return f"; {'; '.join([*slower, *failed])}" if slower or failed else ""

    def _on_grid(self, batch: Batch) -> Batch:
        """A batch with its cells put on the product's grid; done once for the cells of a grid."""
        cells = batch.cells.cache.get(PREFIX)
        if cells is None:
            step = CELLS_A_DEGREE[self.request.product]
            placed = []
            for axis in (batch.cells.latitude, batch.cells.longitude):
                exact = np.asarray(axis) * step
                whole = np.rint(exact)
                if (np.abs(exact - whole) > OFF_GRID).any():
                    raise SourceError(
                        f"{self._name} has cells off the grid of {1 / step:g} degree: read it by "
                        "itself"
                    )
                placed.append(whole / step)
            cells = Cells(placed[0], placed[1], batch.cells.country)
            batch.cells.cache[PREFIX] = cells
        return replace(batch, cells=cells)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def open_auto(spec: str, selection: Selection, around: Around) -> AutoSource:
    """The source that `auto:DATASET` names; the dataset's name is ours, or the Data Store's."""
    from climatestream.sources import archives, cds_plan

    dataset, _ = cds_plan.dataset_of(archives.dataset_of(spec))
    return AutoSource(
        dataset, selection, lambda request, chosen: candidates(request, chosen, around)
    )
