"""The three Protocols that the pipeline is made of: Source, Broker, Store.

Each technology has one file behind one of them. Constructors only keep their arguments;
`open` connects. Every one is a context manager: leaving it closes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from climatestream.model import (
    Batch,
    DeadLetter,
    FieldType,
    Headers,
    History,
    Messages,
    Normals,
    Place,
    Rows,
    Slice,
)

if TYPE_CHECKING:
    from climatestream.model import Flags, Floats, Ints, Texts


class Resource(Protocol):
    """Something that is opened and closed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


# --------------------------------------------------------------------------------- source


class Source(Resource, Protocol):
    """Where readings come from: a sequence of slices that can be read in any order.

    Reading a slice twice gives the same batches. Memory does not grow with the number of
    slices, and for one slice is bounded by the fields of one time.
    """

    def slices(self) -> Sequence[Slice]:
        """What there is, by time and dataset; costs no reading of values.

        May be a lazy sequence of any length; a slice in it may turn out to be empty.
        """

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The readings of a slice: those cells that have at least one finite value.

        Raises
        ------
        SourceError
            The file is damaged or has gone.
        """


# --------------------------------------------------------------------------------- broker

Start = Literal["earliest", "latest"] | int
"""Where a group or a reader begins: or at the first message published at or after a time [ms]."""


class Producer(Resource, Protocol):
    """Publishes messages in order of their key.

    Delivery: at least once, idempotent where the broker offers it; every message is
    acknowledged or reported.
    """

    def publish(
        self, keys: Sequence[bytes], values: Sequence[bytes], headers: Headers = ()
    ) -> None:
        """Hand over messages, one a key; waits while the broker's buffer is full.

        A key's messages stay in order. The call may return before they are delivered.

        Raises
        ------
        BrokerUnavailable
            Nothing of this call was taken.
        DeliveryFailed
            Messages handed over before were not acknowledged.
        """

    def flush(self) -> int:
        """Wait for every message handed over; the count of those acknowledged since `open`.

        Raises
        ------
        DeliveryFailed
            Messages were not acknowledged: how many, and which.
        """


class Consumer(Resource, Protocol):
    """A member of a consumer group. Offsets move only by `commit`."""

    def poll(self, max_messages: int, timeout_s: float) -> list[Messages]:
        """The next messages, at most one block a partition; empty after the timeout.

        Raises
        ------
        BrokerUnavailable
            No answer now.
        """

    def commit(self, positions: Mapping[int, int]) -> None:
        """Say that all messages below these offsets (by partition) are done with."""

    def seek(self, positions: Mapping[int, int]) -> None:
        """Deliver these partitions again, or on, from these offsets."""

    def pause(self, partitions: Collection[int]) -> None:
        """Deliver none of these partitions for now, and all others; what is under way may come."""

    def high_water(self) -> dict[int, int]:
        """By assigned partition, the offset after the newest message."""


class Broker(Resource, Protocol):
    """A topic with partitions, offsets and consumer groups."""

    topic: str

    def producer(self) -> Producer:
        """A producer of the topic, not yet opened."""

    def consumer(self, group: str, start: Start = "earliest") -> Consumer:
        """A member of the group, not yet opened; `start` holds where nothing is committed."""

    def read(self, start: Start = "earliest") -> Iterator[Messages]:
        """Every message kept, up to those there when the call began, outside any group.

        Partition after partition in offset order. `audit` reads with it.
        """

    def count(self, start: Start = "earliest") -> int:
        """How many messages `read` will give, as far as their offsets tell."""

    def committed(self, group: str) -> dict[int, int]:
        """By partition, the offset that the group goes on from; 0 where nothing is committed."""


# ---------------------------------------------------------------------------------- store

HISTORY_ROWS = 500_000
"""Readings that a part of a history holds at most, unless a single cell has more [readings]."""


@dataclass(frozen=True)
class Refusal:
    """A row that was not stored: `transient` says whether the same row may be later."""

    row: int
    transient: bool
    error: str


@dataclass(frozen=True)
class Description:
    """A variable of a dataset, as `demo.datasets` has it."""

    dataset: str
    variable: str
    unit: str
    description: str


@dataclass(frozen=True)
class PipelineRow:
    """What one consumer did with one partition in five seconds: a row of `demo.pipeline`."""

    time_ms: int
    instance: str
    topic: str
    partition: int
    offset: int | None
    high_water: int | None
    rows: int
    batch_ms: float | None
    dead: int
    errors: int
    stored_p50_ms: float | None
    stored_p95_ms: float | None
    stored_p99_ms: float | None
    queryable_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What the store holds for the keys of some rows, aligned with them.

    `present` says whether the key has a row; where it has none, the other columns are
    undefined. `data` has a column for each field that was asked for.
    """

    present: Flags
    preliminary: Flags
    published_at_ms: Ints
    offset: Ints
    source: Texts
    data: Mapping[str, Sequence[Any] | Floats]


@dataclass(frozen=True)
class Answer:
    """The answer to a query: column names, and rows as tuples of plain Python values.

    Timestamps are aware datetimes in UTC, objects dicts, geo points (longitude, latitude).
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Store(Resource, Protocol):
    """Where readings come to rest, and the dead letters, and what the pipeline did.

    Delivery: writing the same messages again, in any cut into calls, changes nothing. A row
    carries one rank, the highest that has reached it. A message of higher rank than its row
    overrides the fields that it names and gives the row its rank and source; one of equal or
    lower rank only fills what is absent. Rows of one call are applied in their order.

    Every method may raise StoreUnavailable, after which the same call may succeed, and may be
    called from any thread.
    """

    def write(self, rows: Rows) -> list[Refusal]:
        """Store rows; the answer names every row that was not stored, and speaks for all.

        When it returns, every other row survives a crash of the process. When it raises,
        any part of the rows may have been stored.
        """

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one that is there already stays as it is."""

    def field_types(self) -> dict[str, FieldType]:
        """The types that hold: of every field of `data` that was ever stored."""

    def describe(self, entries: Sequence[Description]) -> None:
        """Keep what the variables of datasets are; the newest description of each stays."""

    def record(self, rows: Sequence[PipelineRow]) -> None:
        """Append to `demo.pipeline`."""

    def expire(self, dataset: str, before_ms: int) -> None:
        """Drop the readings of a dataset with a time before this, and remember the horizon."""

    def horizons(self) -> dict[str, int]:
        """By dataset, the time before which readings were dropped [ms]."""

    def find(self, rows: Rows) -> Found:
        """What is stored for the keys of these rows, with the fields that the rows have."""

    def dead_offsets(self, topic: str, partition: int) -> set[int]:
        """The offsets of the partition that are in the dead-letter table."""

    def dead_letters(
        self, *, limit: int | None = None, position: tuple[str, int, int] | None = None
    ) -> list[tuple[DeadLetter, int]]:
        """Dead letters, newest first, each with the time at which it was buried [ms]."""

    def mark_retried(self, letters: Sequence[tuple[DeadLetter, int]], at_ms: int) -> None:
        """Note when dead letters, as `dead_letters` gave them, were published again; they stay."""

    def years(self) -> dict[str, list[int]]:
        """By dataset, the years of whose days there are readings, ascending."""

    def history(
        self,
        dataset: str,
        names: Sequence[str],
        start_ms: int,
        end_ms: int,
        *,
        rows: int = HISTORY_ROWS,
    ) -> Iterator[History]:
        """The readings of a dataset, cell after cell: each part has all of its cells.

        Parameters
        ----------
        names
            The fields asked for; one that was never stored is missing everywhere.
        start_ms, end_ms
            Times from the one, up to but without the other.
        rows
            How many a part holds at most, unless a single cell has more.
        """

    def keep_normals(self, normals: Normals) -> None:
        """Keep what is normal, in place of what was kept of the variable for these cells."""

    def keep_places(self, places: Sequence[Place]) -> None:
        """Keep cities; one that is there already gets its inhabitants anew."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        """Answer a panel's query: CrateDB's SQL, reading only, `?` for parameters.

        Raises
        ------
        StoreError
            The query can't be answered: the store's own words.
        """
