"""The wire format: readings to JSON documents and back, message by message.

This module alone says what a message is and when it is a dead letter. It needs orjson and
nothing heavier, so that the Lambda handler can use it; `fastcodec` takes whole chunks in
columns and leaves to this one every message that it is not sure of.

    {"timestamp": 1756684800000000000, "temperature": 295.6215515136719,
     "latitude": 40.90000000000115, "longitude": 31.100000000000172}

Numbers are exact: a float64 comes back bit for bit. A missing value is null or absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import orjson

from climatestream import variables
from climatestream.errors import BadMessage
from climatestream.model import (
    NS_PER_MS,
    Batch,
    DeadLetter,
    FieldType,
    Headers,
    Messages,
    Rows,
    cell_id,
    normal_longitude,
)

if TYPE_CHECKING:
    from climatestream.model import Flags, Floats

T = TypeVar("T", str, bool)
Published: TypeAlias = tuple[int, str, int]
"""When and where a message was published first: its time [ms], source and offset."""

FIRST_NS = -2_208_988_800_000_000_000
"""1900-01-01T00:00Z: no earlier time is stored [ns]."""
END_NS = 7_289_654_400_000_000_000
"""2201-01-01T00:00Z: no time from here on is stored [ns]. A time in a wrong unit would open a
partition of the store that no one can use, and would hide as a reading of another century."""

PLACE_AND_TIME = ("timestamp", "latitude", "longitude")
LABELS = {"dataset": str, "country": str, "preliminary": bool}
"""What a message may say beside place, time and values; null and absent are the same."""

ORIGIN_HEADER = "origin"
"""The header of a message published again: topic, partition, offset, time [ms] and attempt of the
first one, as JSON."""
UNITS_HEADER = "units"
"""The header that carries the units of variables that the registry does not know, as JSON."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The readings among some messages, in delivery order, and the dead letters.

    `index` says for each row which message it is: its place among all messages, block after
    block, from 0.
    """

    rows: Rows
    index: Sequence[int]
    dead: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """One valid message, in the units of the store."""

    dataset: str
    cell: str
    country: str | None
    time_ms: int
    latitude: float
    longitude: float
    preliminary: bool
    data: dict[str, float | str | bool]


# ------------------------------------------------------------------------------- writing


def encode(batch: Batch) -> list[bytes]:
    """The JSON documents of a batch, one a row.

    Values and coordinates are written as they are: in the unit of the file, not rounded.
    """
    constant: dict[str, Any] = {"dataset": batch.dataset, **batch.extra}
    names = tuple(batch.values)
    columns = [_plain(batch.values[name]) for name in names]
    preliminary = None if batch.preliminary is None else _plain(batch.preliminary)
    documents = []
    for row, place in enumerate(
        zip(
            _plain(batch.cells.latitude),
            _plain(batch.cells.longitude),
            batch.cells.country,
            strict=True,
        )
    ):
        document = {"timestamp": batch.time_ns, **constant}
        if preliminary is not None:
            document["preliminary"] = preliminary[row]
        for name, column in zip(names, columns, strict=True):
            document[name] = column[row]  # orjson writes NaN as null
        document["latitude"], document["longitude"], document["country"] = place
        documents.append(orjson.dumps(document))
    return documents


def encode_headers(batch: Batch) -> Headers:
    """The headers of a batch's messages: what a consumer can't know from the registry."""
    if not batch.units:
        return ()
    return ((UNITS_HEADER, orjson.dumps(dict(batch.units))),)


def decode_units(headers: Headers) -> Mapping[str, str]:
    """The units that a message's headers state; empty where they state none.

    A header that is not what `encode_headers` writes is another producer's: no units.
    """
    for name, value in headers:
        if name == UNITS_HEADER:
            try:
                units = orjson.loads(value)
            except orjson.JSONDecodeError:
                return {}
            if isinstance(units, dict):
                return {k: v for k, v in units.items() if isinstance(v, str)}
    return {}


def _plain(column: Floats | Flags) -> list[Any]:
    return column if isinstance(column, list) else list(column.tolist())


# --------------------------------------------------------------------------- provenance


@dataclass(frozen=True)
class Origin:
    """Where a message was first published, when it is published again: a retried dead letter.

    Its rank is that of its origin, so that an old reading never overwrites a newer one.
    """

    topic: str
    partition: int
    offset: int
    published_at_ms: int
    attempt: int

    @property
    def source(self) -> str:
        return f"{self.topic}/{self.partition}"

    @property
    def rank(self) -> Published:
        return self.published_at_ms, self.source, self.offset

    def headers(self) -> Headers:
        """As headers of the message that is published again."""
        place = [self.topic, self.partition, self.offset, self.published_at_ms, self.attempt]
        return ((ORIGIN_HEADER, orjson.dumps(place)),)


def origin_of(headers: Headers) -> Origin | None:
    """The origin that headers state; None where they state none.

    A header that is not what `Origin.headers` writes is another producer's: none.
    """
    for name, value in headers:
        if name == ORIGIN_HEADER:
            try:
                topic, *numbers = orjson.loads(value)
                if isinstance(topic, str) and all(type(n) is int and n >= 0 for n in numbers):
                    return Origin(topic, *numbers)
            except (orjson.JSONDecodeError, TypeError, ValueError):
                return None
    return None


def origins(block: Messages) -> dict[int, Origin]:
    """By place in the block, the origins of the messages that were published again."""
    stated = {h: found for h in set(block.headers) if h and (found := origin_of(h))}
    if not stated:
        return {}
    return {i: stated[h] for i, h in enumerate(block.headers) if h in stated}


# ------------------------------------------------------------------------------- reading


def decode(messages: Sequence[Messages], dataset: str, types: dict[str, FieldType]) -> Decoded:
    """The readings among messages of some partitions.

    Parameters
    ----------
    messages
        Blocks, one a partition, each in offset order.
    dataset
        What a message is that names no dataset.
    types
        The type of each unknown field so far. A field that a valid message names first gets
        that message's type; a later message with another type is a dead letter.
    """
    readings: list[Reading] = []
    ranks: list[Published] = []
    dead: list[DeadLetter] = []
    index: list[int] = []
    first = 0
    for block in messages:
        source, again = block.source, origins(block)
        for place, value in enumerate(block.value):
            try:
                reading = read(value, dataset, types)
            except BadMessage as error:
                dead.append(bury(block, place, error))
            else:
                readings.append(reading)
                rank = (block.published_at_ms[place], source, block.offset[place])
                ranks.append(again[place].rank if place in again else rank)
                index.append(first + place)
        first += len(block)
    return Decoded(_rows(readings, ranks, types), index, dead)


def bury(block: Messages, index: int, error: BadMessage) -> DeadLetter:
    """A message as the dead letter that it is because of an error."""
    offset = block.offset[index]
    origin = origin_of(block.headers[index])
    return DeadLetter(
        topic=block.topic,
        partition=block.partition,
        offset=offset,
        published_at_ms=block.published_at_ms[index],
        key=block.key[index],
        value=block.value[index],
        headers=block.headers[index],
        reason=error.reason,
        error=f"{block.topic}[{block.partition}]@{offset}: {error}",
        attempt=1 if origin is None else origin.attempt,
    )


def read(value: bytes | None, dataset: str, types: dict[str, FieldType]) -> Reading:
    """One message's value as a reading, in the units of the store, as `variables.to_store` has it.

    `dataset` and `types` are as for `decode`.

    Raises
    ------
    BadMessage
        Can never be stored: the reason, and a sentence.
    """
    document = _parse(value)  # what is popped from it is none of its data
    time_ns = _time_ns(document.pop("timestamp", None))
    latitude = _degrees("latitude", document.pop("latitude", None), -90.0, 90.0)
    longitude = _degrees("longitude", document.pop("longitude", None), -180.0, 360.0)
    named = _label("dataset", document.pop("dataset", None), str)
    country = _label("country", document.pop("country", None), str)
    preliminary = _label("preliminary", document.pop("preliminary", None), bool)
    data, new_types = _data(document, types)
    if new_types:
        types.update(new_types)
    return Reading(
        dataset=named or dataset,
        cell=cell_id(latitude, longitude),
        country=country,
        time_ms=time_ns // NS_PER_MS,
        latitude=latitude,
        longitude=normal_longitude(longitude),
        preliminary=preliminary or False,
        data=data,
    )


def _parse(value: bytes | None) -> dict[str, Any]:
    if not value:
        raise BadMessage("empty", "the value is empty: expected a JSON object")
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadMessage("not-json", f"not JSON: {error}") from None
    if type(document) is not dict:
        raise BadMessage("not-an-object", f"a JSON {_json_type(document)}, expected a JSON object")
    return document


def _time_ns(value: object) -> int:
    if type(value) is not int:
        if value is None:
            raise BadMessage("missing-field", "timestamp is missing or null")
        raise BadMessage(
            "wrong-type", f"timestamp is {_shown(value)}, expected integer nanoseconds since 1970"
        )
    if not FIRST_NS <= value < END_NS:
        raise BadMessage(
            "out-of-range",
            f"timestamp {value} is outside the years 1900..2200 in nanoseconds since 1970",
        )
    return value


def _degrees(name: str, value: object, low: float, high: float) -> float:
    if type(value) is float and low <= value <= high:
        return value
    if value is None:
        raise BadMessage("missing-field", f"{name} is missing or null")
    degrees = _number(name, value)
    if not low <= degrees <= high:
        raise BadMessage("out-of-range", f"{name} {degrees} outside {low:.0f}..{high:.0f}")
    return degrees


def _label(name: str, value: Any, kind: type[T]) -> T | None:
    if value is None:
        return None
    if type(value) is not kind:
        expected = "a boolean" if kind is bool else "text"
        raise BadMessage("wrong-type", f"{name} is {_shown(value)}, expected {expected}")
    if value == "":
        raise BadMessage("wrong-type", f"{name} is empty text, expected text or null")
    return value


def _data(
    document: dict[str, Any], types: Mapping[str, FieldType]
) -> tuple[dict[str, float | str | bool], dict[str, FieldType]]:
    """The fields beside place, time and labels, and the types of those that have none yet."""
    data: dict[str, float | str | bool] = {}
    new_types: dict[str, FieldType] = {}
    finite = False
    for name, value in document.items():
        if type(value) is float and types.get(name) == "number" and math.isfinite(value):
            # What nearly all are, as the lines below would have it; a call less each.
            conversion = _CONVERSIONS.get(name)
            data[name] = value if conversion is None else value * conversion[0] + conversion[1]
            finite = True
            continue
        if value is None:
            continue
        kind = types.get(name) or _first_type(name, value, new_types)
        if kind == "number":
            data[name] = _in_store_unit(name, _number(name, value))
            finite = True
        elif not isinstance(value, _PYTHON_TYPES[kind]):
            raise _wrong_type(name, value, kind)
        else:
            data[name] = cast("str | bool", value)
    if not finite:
        raise BadMessage("no-value", "no field holds a finite number: expected at least one")
    return data, new_types


def _first_type(name: str, value: object, new_types: dict[str, FieldType]) -> FieldType:
    """The type of a field that has none yet: the registry's, or that of its first value."""
    kind: FieldType
    if variables.by_name(name) is not None:
        kind = "number"
    elif "." in name or "[" in name or "]" in name:
        raise BadMessage("bad-field-name", f"the name of field {name!r} has a dot or a bracket")
    elif isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, int | float):
        kind = "number"
    elif isinstance(value, str):
        kind = "text"
    else:
        raise BadMessage(
            "wrong-type",
            f"field {name} is {_shown(value)}, expected a number, text, a boolean or null",
        )
    new_types[name] = kind
    return kind


def _in_store_unit(name: str, value: float) -> float:
    conversion = _CONVERSIONS.get(name)
    return value if conversion is None else value * conversion[0] + conversion[1]


def _number(name: str, value: object) -> float:
    if type(value) is float:
        number = value
    elif type(value) is int:
        number = float(value)
    else:
        raise _wrong_type(name, value, "number")
    if not math.isfinite(number):
        raise BadMessage("out-of-range", f"{name} is {number}, expected a finite number")
    return number


def _wrong_type(name: str, value: object, kind: FieldType) -> BadMessage:
    return BadMessage("wrong-type", f"{name} is {_shown(value)}, expected {_KIND_WORDS[kind]}")


_CONVERSIONS = {
    variable.name: (variable.factor, variable.offset)
    for variable in variables.VARIABLES
    if (variable.factor, variable.offset) != (1.0, 0.0)
}
_PYTHON_TYPES: dict[FieldType, type] = {"text": str, "boolean": bool}
_KIND_WORDS: dict[FieldType, str] = {
    "number": "a number",
    "text": "text, as the first value stored in it",
    "boolean": "a boolean, as the first value stored in it",
}


def _json_type(value: object) -> str:
    kinds = {str: "text", bool: "boolean", list: "array", type(None): "null", dict: "object"}
    return kinds.get(type(value), "number")


def _shown(value: object) -> str:
    """A value as an error names it: its JSON type, and as much of it as fits a sentence."""
    text = repr(value)
    return f"the {_json_type(value)} {text if len(text) <= 40 else text[:37] + '...'}"


_ABSENT: dict[FieldType, float | None] = {"number": math.nan, "text": None, "boolean": None}


def _rows(
    readings: Sequence[Reading],
    ranks: Sequence[Published],
    types: Mapping[str, FieldType],
) -> Rows:
    names = list(dict.fromkeys(name for reading in readings for name in reading.data))
    return Rows(
        dataset=[r.dataset for r in readings],
        cell=[r.cell for r in readings],
        country=[r.country for r in readings],
        time_ms=[r.time_ms for r in readings],
        latitude=[r.latitude for r in readings],
        longitude=[r.longitude for r in readings],
        preliminary=[r.preliminary for r in readings],
        data={name: _column(name, types[name], readings) for name in names},
        types={name: types[name] for name in names},
        published_at_ms=[published_at_ms for published_at_ms, _, _ in ranks],
        source=[source for _, source, _ in ranks],
        offset=[offset for _, _, offset in ranks],
    )


def _column(name: str, kind: FieldType, readings: Sequence[Reading]) -> list[Any]:
    absent = _ABSENT[kind]
    return [reading.data.get(name, absent) for reading in readings]
