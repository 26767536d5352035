"""The wire format in bulk: whole chunks as columns, exactly as `codec` has it.

Decoding never decides that a message is bad. It takes the messages whose text is proven to be of
one shape by a regular expression made from the first of them: that object, those keys once each
and in that order, each value of its type and nothing else. What does not match (another shape,
an escape, a poison message) or lies outside a range goes to `codec`, message by message. So both
give the same rows, unknown fields and dead letters, and one bad message costs only itself.

Guarantees and errors are those of `codec`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import numpy as np
import orjson
import polars as pl

from climatestream import codec, variables
from climatestream.arrow import ArrowStream
from climatestream.errors import BadMessage, SourceError
from climatestream.model import NS_PER_MS, Batch, Cells, FieldType, Messages, Rows

if TYPE_CHECKING:
    from climatestream.codec import Decoded
    from climatestream.model import DeadLetter, Floats

Array: TypeAlias = "np.ndarray[Any, Any]"

SHAPES = 8
"""Shapes of message that a chunk is tried for; what is left is read message by message."""

FEW = 100
"""Rows below which documents are written one by one: the columns' way costs 0.3 ms beforehand, as
much as these rows, which counts where a series of a point has a batch for every hour [rows]."""

# ------------------------------------------------------------------------------- writing


def keys(cells: Cells) -> list[bytes]:
    """The Kafka keys of some cells: their ids, in UTF-8. Kept with the cells."""
    kept: list[bytes] | None = cells.cache.get("keys")
    if kept is None:
        kept = cell_ids(cells.latitude, cells.longitude).cast(pl.Binary).to_list()
        cells.cache["keys"] = kept
    return kept


def encode(batch: Batch) -> list[bytes]:
    """The JSON documents of a batch, one a row, whichever way is the quicker.

    Raises
    ------
    SourceError
        A value is infinite: JSON has no word for it, and to leave it out would lose it.
    """
    for name, values in batch.values.items():
        _refuse_infinite(batch, name, np.asarray(values, dtype=np.float64))
    return codec.encode(batch) if len(batch) < FEW else encode_columns(batch)


def encode_columns(batch: Batch) -> list[bytes]:
    """What `codec.encode` says of finite values, in other words."""
    head = orjson.dumps(
        {"timestamp": batch.time_ns, "dataset": batch.dataset, **batch.extra}
    ).decode()
    columns: dict[str, Any] = {}
    parts = [pl.lit(head[:-1])]
    if batch.preliminary is not None:
        columns["preliminary"] = np.asarray(batch.preliminary)
        parts.append(pl.lit(',"preliminary":'))
        parts.append(pl.col("preliminary").cast(pl.String))
    for number, (name, values) in enumerate(batch.values.items()):
        array = np.asarray(values, dtype=np.float64)
        columns[f"value {number}"] = pl.Series(array, nan_to_null=True)
        parts.append(pl.lit(f",{_quoted(name)}:"))
        parts.append(pl.col(f"value {number}").cast(pl.String).fill_null("null"))
    columns["place"] = _places(batch.cells)
    parts.append(pl.col("place"))
    documents = pl.DataFrame(columns).select(pl.concat_str(parts).cast(pl.Binary).alias("json"))
    return documents["json"].to_list()


def _places(cells: Cells) -> pl.Series:
    """The end of the documents of some cells: what does not change with time. Kept with them."""
    kept: pl.Series | None = cells.cache.get("places")
    if kept is None:
        frame = pl.DataFrame(
            {
                "latitude": np.asarray(cells.latitude, dtype=np.float64),
                "longitude": np.asarray(cells.longitude, dtype=np.float64),
                "country": pl.Series(cells.country, dtype=pl.String),
            }
        )
        kept = frame.select(
            pl.concat_str(
                pl.lit(',"latitude":'),
                pl.col("latitude").cast(pl.String),
                pl.lit(',"longitude":'),
                pl.col("longitude").cast(pl.String),
                pl.lit(',"country":'),
                pl.concat_str(pl.lit('"'), pl.col("country"), pl.lit('"')).fill_null("null"),
                pl.lit("}"),
            ).alias("place")
        )["place"]
        cells.cache["places"] = kept
    return kept


def _refuse_infinite(batch: Batch, name: str, array: Array) -> None:
    if np.isinf(array).any():
        row = int(np.flatnonzero(np.isinf(array))[0])
        raise SourceError(
            f"{name} of {batch.dataset} is infinite at latitude {batch.cells.latitude[row]}, "
            f"longitude {batch.cells.longitude[row]}, time {batch.time_ns} ns: expected a finite "
            f"number or a missing value; mend the file"
        )


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


# ------------------------------------------------------------------------------- reading


def decode(messages: Sequence[Messages], dataset: str, types: dict[str, FieldType]) -> Decoded:
    """The readings among messages of some partitions: what `codec.decode` says, in columns."""
    messages = [block for block in messages if len(block)]
    if not messages:
        return codec.decode(messages, dataset, types)
    chunk = _Chunk(messages, dataset, types)
    chunk.read_shapes()
    chunk.read_rest()
    rows, index = chunk.rows()
    return codec.Decoded(rows, index, chunk.dead)


_SQL_TYPES = {"integer": "VARCHAR", "number": "DOUBLE", "text": "VARCHAR", "boolean": "BOOLEAN"}


@dataclass(frozen=True)
class _Shape:
    """Keys in order, each with the type of its value, as one valid message has them."""

    kinds: tuple[tuple[str, str], ...]
    blank: str
    """What may stand between its parts; nothing where the first message has nothing there."""

    @classmethod
    def of(cls, value: bytes, types: dict[str, FieldType]) -> _Shape | None:
        """The shape of a message that `codec.read` took; None where it is no common one."""
        kinds = []
        for name in orjson.loads(value):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                return None
            if name == "timestamp":
                kind = "integer"
            elif name in ("latitude", "longitude") or variables.by_name(name):
                kind = "number"
            elif name in codec.LABELS:
                kind = "text" if codec.LABELS[name] is str else "boolean"
            elif name in types:
                kind = types[name]
            else:
                return None  # an unknown field that is null: no type is known
            kinds.append((name, kind))
        same = {name.lower() for name, _ in kinds}
        blank = r"[ \t\r\n]*" if re.search(rb"\s", value) else ""
        return cls(tuple(kinds), blank) if len(same) == len(kinds) else None

    def pattern(self) -> str:
        """A regular expression that, whole, takes JSON objects of this shape and nothing else."""
        blank = self.blank
        number = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
        values = {
            "integer": r"-?(?:0|[1-9][0-9]*)",
            "number": f"(?:{number}|null)",
            "text": r'(?:"[^"\\\x00-\x1f]*"|null)',
            "boolean": r"(?:true|false|null)",
        }
        members = (f'"{name}"{blank}:{blank}{values[kind]}' for name, kind in self.kinds)
        return rf"{blank}\{{{blank}{f'{blank},{blank}'.join(members)}{blank}\}}{blank}"

    def schema(self) -> str:
        """What DuckDB's json_transform is to make of it."""
        return orjson.dumps({name: _SQL_TYPES[kind] for name, kind in self.kinds}).decode()


_PLACE = pl.selectors.by_name("latitude", "longitude", require_all=False)
_PLACE_AND_LABELS = pl.selectors.by_name(*codec.PLACE_AND_TIME, *codec.LABELS, require_all=False)


@functools.cache
def _engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 1})


class _Chunk:
    """The messages of one call of `decode`, and what has become of them so far."""

    def __init__(
        self, messages: Sequence[Messages], dataset: str, types: dict[str, FieldType]
    ) -> None:
        self._messages = messages
        self._dataset = dataset
        self._types = types
        self._values = [value for block in messages for value in block.value]
        self._starts = np.cumsum([0] + [len(block) for block in messages])
        self._pending = np.arange(len(self._values))
        self._frames: list[pl.DataFrame] = []
        self.dead: list[DeadLetter] = []

    # Types are given out in delivery order, as the message path does it: the message whose shape
    # is tried is always the first of those pending, so no later one has named its fields before.

    def read_shapes(self) -> None:
        """Take the messages of the most common shapes as columns."""
        text = _texts(self._values)
        for _ in range(SHAPES):
            shape = self._next_shape()
            if shape is None:
                return
            candidates = text.gather(self._pending) if len(self._pending) < len(text) else text
            matches = candidates.str.contains(rf"\A{shape.pattern()}\z").fill_null(False).to_numpy()
            taken = self._pending[matches]
            columns = candidates if len(taken) == len(candidates) else text.gather(taken)
            good = self._keep(taken, self._columns(shape, columns))
            self._pending = np.setdiff1d(self._pending, taken[good], assume_unique=True)

    def read_rest(self) -> None:
        """Take every other message alone."""
        for index in self._pending.tolist():
            self._read_alone(index)
        self._pending = self._pending[:0]

    def _next_shape(self) -> _Shape | None:
        """The shape of the first pending message that has one; those before it are taken alone."""
        for place, index in enumerate(self._pending.tolist()):
            shape = self._shape_of(self._values[index])
            if shape is not None:
                self._pending = self._pending[place:]
                return shape
            self._read_alone(index)
        self._pending = self._pending[:0]
        return None

    def _shape_of(self, value: bytes | None) -> _Shape | None:
        if value is None:
            return None
        try:
            codec.read(value, self._dataset, self._types)
        except BadMessage:
            return None
        shape = _Shape.of(value, self._types)
        if shape is None or not re.fullmatch(shape.pattern(), value.decode()):
            return None
        return shape

    def _read_alone(self, index: int) -> None:
        block = int(np.searchsorted(self._starts, index, side="right")) - 1
        one = _one(self._messages[block], index - int(self._starts[block]))
        decoded = codec.decode([one], self._dataset, self._types)
        self.dead.extend(decoded.dead)
        if len(decoded.rows):
            self._frames.append(_frame(np.array([index]), decoded.rows))

    def _columns(self, shape: _Shape, text: pl.Series) -> pl.DataFrame:
        cursor = _engine().cursor()
        cursor.register("chunk", ArrowStream(text.rename("json").to_frame()))
        schema = shape.schema().replace("'", "''")
        return pl.DataFrame(
            cursor.sql(f"SELECT unnest(json_transform(json, '{schema}')) FROM chunk")  # noqa: S608 - names in the schema are plain identifiers
        )

    def _keep(self, index: Array, columns: pl.DataFrame) -> Array:
        """Keep those rows of a shape that are within the ranges; which they are."""
        time = _times(columns["timestamp"])
        latitude = _floats(columns["latitude"])
        longitude = _floats(columns["longitude"])
        good = (
            (time >= codec.FIRST_NS)
            & (time < codec.END_NS)
            & (np.abs(latitude) <= 90.0)
            & (longitude >= -180.0)
            & (longitude <= 360.0)
        )
        finite = np.zeros(len(columns), dtype=bool)
        for column in columns.select(pl.selectors.float() - _PLACE).iter_columns():
            values = _floats(column)
            good &= ~np.isinf(values)
            finite |= ~np.isnan(values)
        good &= finite
        for name in {"dataset", "country"} & set(columns.columns):
            good &= (columns[name] != "").fill_null(True).to_numpy()
        if not good.all():
            columns = columns.filter(pl.Series(good))
            index, time = index[good], time[good]
            latitude, longitude = latitude[good], longitude[good]
        rows = self._rows(columns, time, latitude, longitude)
        self._frames.append(_frame(index, rows))
        # a known variable has its type from the registry, any other from the shape's message
        self._types.update({name: "number" for name in rows["data"] if variables.by_name(name)})
        return good

    def _rows(
        self,
        columns: pl.DataFrame,
        time_ns: Array,
        latitude: Array,
        longitude: Array,
    ) -> dict[str, Any]:
        """What messages themselves say, as columns of `Rows`."""

        def label(name: str, absent: str | bool | None) -> pl.Series:
            if name not in columns.columns:
                dtype: pl.DataType = _FRAME_TYPES[name]
                return pl.repeat(absent, len(columns), dtype=dtype, eager=True)
            return columns[name] if absent is None else columns[name].fill_null(pl.lit(absent))

        return {
            "dataset": label("dataset", self._dataset),
            "cell": cell_ids(latitude, longitude),
            "country": label("country", None),
            "time_ms": time_ns // NS_PER_MS,
            "latitude": latitude,
            "longitude": np.where(longitude >= 180.0, longitude - 360.0, longitude),
            "preliminary": label("preliminary", False),
            "data": {
                column.name: column
                if column.dtype != pl.Float64
                else variables.to_store(column.name, _floats(column))
                for column in columns.select(~_PLACE_AND_LABELS).iter_columns()
                if column.null_count() < len(column)
            },
        }

    def rows(self) -> tuple[Rows, Sequence[int]]:
        """All readings, in delivery order, and the places of their messages."""
        if not self._frames:
            return codec.decode([], self._dataset, self._types).rows, []
        frame = self._frames[0]
        if len(self._frames) > 1:
            frame = pl.concat(self._frames, how="diagonal").sort("index")
        index = frame["index"].to_numpy()
        everything = len(index) == len(self._values)
        published, source, offset = self._ranks()
        data = {
            name.removeprefix("data:"): _column(frame[name])
            for name in frame.columns
            if name.startswith("data:")
        }
        rows = Rows(
            dataset=frame["dataset"],
            cell=frame["cell"],
            country=frame["country"],
            time_ms=frame["time_ms"].to_numpy(),
            latitude=frame["latitude"].to_numpy(),
            longitude=frame["longitude"].to_numpy(),
            preliminary=frame["preliminary"].to_numpy(),
            data=data,
            types={name: self._types[name] for name in data},
            published_at_ms=published if everything else published[index],
            source=source if everything else source.gather(index),
            offset=offset if everything else offset[index],
        )
        return rows, range(len(rows)) if everything else index.tolist()

    def _ranks(self) -> tuple[Array, pl.Series, Array]:
        """When and where each message was published first, as `codec` has it."""
        published = _joined([block.published_at_ms for block in self._messages])
        offset = _joined([block.offset for block in self._messages])
        lengths = [len(block) for block in self._messages]
        source = pl.Series([block.source for block in self._messages]).gather(
            np.repeat(np.arange(len(lengths)), lengths)
        )
        for start, block in zip(self._starts, self._messages, strict=False):
            for index, origin in codec.origins(block).items():
                place = int(start) + index
                published[place], offset[place] = origin.published_at_ms, origin.offset
                source[place] = origin.source
        return published, source, offset


def _frame(index: Array, rows: Rows | dict[str, Any]) -> pl.DataFrame:
    """What messages themselves say, as a frame, with their places among the messages."""
    get = rows.__getitem__ if isinstance(rows, dict) else functools.partial(getattr, rows)
    columns: dict[str, Any] = {"index": index}
    for name in ("dataset", "cell", "country", "time_ms", "latitude", "longitude", "preliminary"):
        columns[name] = pl.Series(get(name), dtype=_FRAME_TYPES[name])
    for name, values in get("data").items():
        columns[f"data:{name}"] = values
    return pl.DataFrame(columns)


_FRAME_TYPES: dict[str, Any] = {
    "dataset": pl.String,
    "cell": pl.String,
    "country": pl.String,
    "time_ms": pl.Int64,
    "preliminary": pl.Boolean,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
}


def _texts(values: Sequence[bytes | None]) -> pl.Series:
    """Values as text; null where they are none."""
    binary = pl.Series("json", values, dtype=pl.Binary)
    try:
        return binary.cast(pl.String)
    except pl.exceptions.ComputeError:  # one is no UTF-8, and the cast is all or nothing
        return pl.Series("json", [_text(value) for value in values], dtype=pl.String)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _times(texts: pl.Series) -> Array:
    """Integer texts as int64; what does not fit lies outside every range anyhow."""
    return texts.cast(pl.Int64, strict=False).fill_null(codec.END_NS).to_numpy()


def _floats(column: pl.Series) -> Array:
    """A float column with null as NaN."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _column(column: pl.Series) -> Any:
    if column.dtype == pl.Float64:
        return _floats(column)
    return column if column.dtype == pl.String else column.to_list()


def _joined(columns: Sequence[Sequence[int]]) -> Array:
    arrays = [
        np.arange(c.start, c.stop, c.step) if isinstance(c, range) else np.asarray(c, np.int64)
        for c in columns
    ]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _one(block: Messages, index: int) -> Messages:
    part = slice(index, index + 1)
    return Messages(
        block.topic,
        block.partition,
        block.offset[part],
        block.published_at_ms[part],
        block.key[part],
        block.value[part],
        block.headers[part],
    )


# ------------------------------------------------------------------------------ cell ids


def cell_ids(latitude: Floats, longitude: Floats) -> pl.Series:
    """The ids of cells, as `model.cell_id` has them, to the last digit."""
    lat = np.rint(np.asarray(latitude, np.float64) * 10_000.0).astype(np.int64)
    lon = np.rint(np.asarray(longitude, np.float64) * 10_000.0).astype(np.int64)
    lon = (lon + 1_800_000) % 3_600_000 - 1_800_000
    frame = pl.DataFrame({"lat": _degrees(lat), "lon": _degrees(lon)})
    return frame.select(pl.concat_str("lat", pl.lit(","), "lon").alias("cell"))["cell"]


def _degrees(ten_thousandths: Array) -> pl.Series:
    """Text with 4 decimals; each distinct value is written once, since a grid has few."""
    distinct, place = np.unique(ten_thousandths, return_inverse=True)
    return pl.Series([f"{value / 10_000:.4f}" for value in distinct.tolist()]).gather(place)
