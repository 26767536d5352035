"""The words of the project as types: cells, batches, messages, rows. No I/O.

A column is a numpy array in bulk work and a plain list where numpy is absent (the Lambda
handler); numbers are float64 with NaN for missing in both forms, text is None where missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64] | list[float]
    Ints: TypeAlias = NDArray[np.int64] | list[int]
    Flags: TypeAlias = NDArray[np.bool_] | list[bool]
    Texts: TypeAlias = list[str] | list[str | None] | pl.Series
    Column: TypeAlias = Floats | Ints | Flags | Texts | list[bool | None]

FieldType = Literal["number", "text", "boolean"]
"""The type of a field of `data` in the store. Numbers always travel as float64."""

Headers: TypeAlias = tuple[tuple[str, bytes], ...]
"""The headers of a Kafka message, in order."""

BATCH_ROWS = 50_000
"""Rows of a batch at most: memory then does not grow with the file or the grid [readings]."""

NS_PER_MS = 1_000_000


def cell_id(latitude: float, longitude: float) -> str:
    """The id of a cell: `"54.9030,8.6883"`.

    Both coordinates are rounded to 4 decimals by scaling to ten-thousandths and rounding half to
    even, in this order, so that the bulk form (`numpy.rint` of the same product) gives the same
    id to the last digit. Longitude is normalised to [-180, 180) after rounding. There is no
    negative zero, since the rounded value is an integer.

    Parameters
    ----------
    latitude, longitude
        Degrees north and east, finite; longitude in any turn of the circle.
    """
    lat = round(latitude * 10_000.0)
    lon = (round(longitude * 10_000.0) + 1_800_000) % 3_600_000 - 1_800_000
    return f"{lat / 10_000:.4f},{lon / 10_000:.4f}"


def normal_longitude(longitude: float) -> float:
    """A longitude of -180..360 as the store has it: in [-180, 180), otherwise unchanged."""
    return longitude - 360.0 if longitude >= 180.0 else longitude


@dataclass(frozen=True, eq=False)
class Cells:
    """The places of a batch, as columns of one length.

    Made once for a grid and shared by the batches of all its times, so that whatever depends on
    the place alone (cell ids, the text of the coordinates, the partition) can be kept with it.

    Parameters
    ----------
    latitude, longitude
        Degrees, float64, as the file has them: not rounded, not normalised.
    country
        ISO 3166-1 alpha-3 code of each cell, None at sea or where it was not looked up.
    """

    latitude: Floats
    longitude: Floats
    country: list[str | None]
    cache: dict[str, Any] = field(default_factory=dict, repr=False)
    """What others derived from the cells, by the deriver's name."""

    def __len__(self) -> int:
        return len(self.latitude)


@dataclass(frozen=True, eq=False)
class Batch:
    """Readings on their way to the broker: one dataset, one time, at most `BATCH_ROWS` cells.

    Parameters
    ----------
    dataset
        What the readings are values of: `era5-land/daily-mean`.
    time_ns
        Nanoseconds since the epoch, UTC.
    cells
        The n places.
    values
        By our variable name, columns of length n in the unit of the file, NaN = missing. Each
        row has at least one finite value.
    preliminary
        None where the source does not say; otherwise for each row whether it is ERA5-Land-T.
    units
        Unit in the file of the variables that the registry does not know.
    extra
        Numbers that every reading of the batch carries and that are no variables
        (`original_timestamp`).
    """

    dataset: str
    time_ns: int
    cells: Cells
    values: Mapping[str, Floats]
    preliminary: Flags | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    def part(self, start: int, stop: int) -> Batch:
        """The rows start..stop as a batch of their own."""
        cells = Cells(
            self.cells.latitude[start:stop],
            self.cells.longitude[start:stop],
            self.cells.country[start:stop],
        )
        return replace(
            self,
            cells=cells,
            values={name: column[start:stop] for name, column in self.values.items()},
            preliminary=None if self.preliminary is None else self.preliminary[start:stop],
        )


@dataclass(frozen=True, order=True)
class Slice:
    """All readings of one dataset at one time: the unit in which a source is read."""

    time_ns: int
    dataset: str


@dataclass(frozen=True, eq=False)
class Messages:
    """Messages of one partition in offset order, as columns of one length.

    Offsets ascend and may have gaps. `published_at_ms` is the Kafka timestamp. A null key or
    value is None. The message's place is written `topic/partition` (`source`).
    """

    topic: str
    partition: int
    offset: Sequence[int]
    published_at_ms: Sequence[int]
    key: Sequence[bytes | None]
    value: Sequence[bytes | None]
    headers: Sequence[Headers]
    timestamp_type: Sequence[int] = ()
    """Of `published_at_ms`, as Kafka has it: 1 CREATE_TIME, 2 LOG_APPEND_TIME; empty: all are 1."""

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def source(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True)
class Position:
    """Where a message is: what a report speaks of."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class DeadLetter:
    """A message that can never be stored, whole, with the reason."""

    topic: str
    partition: int
    offset: int
    published_at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str
    error: str
    attempt: int = 1
    retried_at_ms: int | None = None
    """When it was published again; None: never. The new message is another one."""

    @property
    def position(self) -> Position:
        return Position(self.topic, self.partition, self.offset)


@dataclass(frozen=True, eq=False)
class Rows:
    """Valid readings on their way to the store, as columns of one length, in delivery order.

    Parameters
    ----------
    dataset, cell
        Text, never missing. With `time_ms` the key.
    country
        ISO 3166-1 alpha-3 or None.
    time_ms
        Milliseconds since the epoch, UTC (the message's nanoseconds, cut).
    latitude, longitude
        Degrees; longitude in [-180, 180).
    preliminary
        True: ERA5-Land-T.
    data
        By field name: variables and whatever else arrived, in the unit of the store. Float
        columns have NaN, text and boolean ones None where a message does not name the field.
    types
        The type of each field of `data`.
    published_at_ms, source, offset
        With `preliminary` the rank: see `Rank`.
    """

    dataset: Texts
    cell: Texts
    country: Texts
    time_ms: Ints
    latitude: Floats
    longitude: Floats
    preliminary: Flags
    data: Mapping[str, Column]
    types: Mapping[str, FieldType]
    published_at_ms: Ints
    source: Texts
    offset: Ints

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: Sequence[int]) -> Rows:
        """The rows at these places, in this order."""
        chosen = {
            f.name: _take(getattr(self, f.name), index)
            for f in fields(self)
            if f.name not in ("data", "types")
        }
        data = {name: _take(column, index) for name, column in self.data.items()}
        return Rows(**chosen, data=data, types=self.types)


def _take(column: Any, index: Sequence[int]) -> Any:
    return [column[i] for i in index] if isinstance(column, list) else column[list(index)]


def distinct(texts: Texts) -> set[str]:
    """The different texts of a column, whichever form it has; None is left out."""
    values = texts if isinstance(texts, list) else texts.unique().to_list()
    return {text for text in values if text is not None}


def earliest(times: Ints) -> int:
    """The smallest integer of a column, whichever form it has."""
    return min(times) if isinstance(times, list) else int(times.min())


@dataclass(frozen=True, eq=False)
class History:
    """What is stored of some cells of one dataset, as columns of one length.

    Parameters
    ----------
    first, last
        The cells lie between them in the order of their ids, both included, and no other
        history of the same reading has one that does.
    cell
        Text, never missing; in no order.
    time_ms
        Milliseconds since the epoch, UTC.
    data
        By field name float64 in the unit of the store, NaN = missing.
    """

    first: str
    last: str
    cell: Texts
    time_ms: Ints
    data: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.time_ms)


@dataclass(frozen=True, eq=False)
class Normals:
    """What is normal of one variable at some cells by day of year, as columns of one length.

    Parameters
    ----------
    dataset, variable
        What the readings are of.
    period
        The years that they are of: `1991-2020`.
    first, last
        The normals of all cells between them in the order of their ids, both included, are
        these; a cell without a row has none.
    cell
        Text, never missing. With `day_of_year` a key.
    day_of_year
        1..366, as `extract(doy FROM "timestamp")` gives it.
    years
        How many years have a value.
    mean, deviation, p10, p50, p90
        In the unit of the store; the deviation of a single value is NaN.
    """

    dataset: str
    variable: str
    period: str
    first: str
    last: str
    cell: Texts
    day_of_year: Ints
    years: Ints
    mean: Floats
    deviation: Floats
    p10: Floats
    p50: Floats
    p90: Floats

    def __len__(self) -> int:
        return len(self.day_of_year)


class Place(NamedTuple):
    """A city, as `demo.places` has it: ISO 3166-1 alpha-3, degrees, inhabitants."""

    name: str
    country: str
    latitude: float
    longitude: float
    population: int


Rank: TypeAlias = tuple[bool, int, int, str]
"""Which of two messages for one key is the newer: (final, published_at_ms, offset, source)."""
