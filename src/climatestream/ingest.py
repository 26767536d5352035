"""Messages to stored rows: decode, validate, convert, write, and say what became of each.

The one core of every consumer: the worker and the Lambda handler are thin around it. It holds
no connection of its own, never waits, and imports nothing heavier than orjson.

Delivery: nothing is reported as done before the store has answered for it. Ingesting the same
messages again, in any cut into calls, changes nothing.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from climatestream import codec, variables
from climatestream.codec import Decoded
from climatestream.errors import BadMessage, Transient
from climatestream.model import (
    DeadLetter,
    FieldType,
    Messages,
    Position,
    Rows,
    distinct,
    earliest,
)
from climatestream.ports import Description, Store

ORIGINAL_TIME = "original_timestamp"
"""The number [ms] in which a replayed reading carries its own time; no variable."""
UNSTATED = "unstated"
"""The dataset of a message that names none, where no `--dataset` says otherwise."""

Decode: TypeAlias = Callable[[Sequence[Messages], str, dict[str, FieldType]], Decoded]


@dataclass(frozen=True)
class Report:
    """What became of the messages of one call.

    Every message is exactly one of: to be retried (`retry`), a dead letter (`dead`), older than
    the horizon (`expired`), or stored.
    """

    stored: int = 0
    too_old: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """By (topic, partition), how many are older than the horizon."""
    dead: Sequence[DeadLetter] = ()
    retry: Sequence[Position] = ()
    error: Transient | None = None
    """Why the messages in `retry` were not done: the first reason."""

    @property
    def expired(self) -> int:
        """How many are older than the horizon."""
        return sum(self.too_old.values())

    def first_retry(self) -> dict[tuple[str, int], int]:
        """By (topic, partition), the first offset that is not done."""
        first: dict[tuple[str, int], int] = {}
        for position in self.retry:
            place = (position.topic, position.partition)
            first[place] = min(position.offset, first.get(place, position.offset))
        return first


@dataclass(frozen=True, eq=False)
class Prepared:
    """Messages decoded and validated, not yet written."""

    messages: Sequence[Messages]
    decoded: Decoded
    too_old: Mapping[tuple[str, int], int]


@dataclass(eq=False)
class Ingest:
    """Takes messages to a store.

    Parameters
    ----------
    store
        An open store.
    dataset
        What a message is that names no dataset.
    decode
        `codec.decode`, or `fastcodec.decode` where numpy is at hand.
    horizon_ms
        The time before which readings of a dataset are not stored: `--keep`. None: no limit.
    copy
        Told the dead letters once they are in their table; may be told them again.
    """

    store: Store
    dataset: str = UNSTATED
    decode: Decode = codec.decode
    horizon_ms: Callable[[str], int | None] = lambda _: None
    copy: Callable[[Sequence[DeadLetter]], object] = lambda _: None
    datasets: set[str] = field(default_factory=set)
    """Every dataset that a valid message belonged to."""
    _types: dict[str, FieldType] | None = None
    _described: set[Description] = field(default_factory=set)

    def __call__(self, messages: Sequence[Messages]) -> Report:
        """Store messages of some partitions, each block in offset order.

        Never raises for the store being unavailable: that is a report with `retry`.
        """
        try:
            prepared = self.prepare(messages)
        except Transient as error:
            return Report(retry=_positions(messages), error=error)
        return self.finish(prepared)

    def prepare(self, messages: Sequence[Messages]) -> Prepared:
        """Decode, validate and convert. May run while `finish` writes what came before.

        Raises
        ------
        Transient
            The store did not say which types of fields hold; nothing has happened.
        """
        if self._types is None:
            self._types = self.store.field_types()
        decoded = self.decode(messages, self.dataset, self._types)
        self.datasets |= distinct(decoded.rows.dataset)
        kept = self._within_horizon(decoded)
        return Prepared(messages, kept, _left_out(messages, decoded, kept))

    def finish(self, prepared: Prepared) -> Report:
        """Write what was prepared. May be called again with the same after a transient failure."""
        rows = prepared.decoded.rows
        dead = list(prepared.decoded.dead)
        try:
            self._describe(prepared.messages, rows)
            refusals = self.store.write(rows) if len(rows) else []
            refused = [refusal for refusal in refusals if not refusal.transient]
            dead += [_letter(prepared, refusal.row, refusal.error) for refusal in refused]
            if dead:
                self.store.bury(dead)
                self.copy(dead)
        except Transient as error:
            return Report(retry=_positions(prepared.messages), error=error)
        again = [refusal for refusal in refusals if refusal.transient]
        return Report(
            stored=len(rows) - len(refusals),
            too_old=prepared.too_old,
            dead=dead,
            retry=[_letter(prepared, refusal.row, "").position for refusal in again],
            error=Transient(again[0].error) if again else None,
        )

    def _within_horizon(self, decoded: Decoded) -> Decoded:
        """Those readings that are not older than what is kept."""
        rows = decoded.rows
        limits = {dataset: self.horizon_ms(dataset) for dataset in distinct(rows.dataset)}
        horizons = {dataset: limit for dataset, limit in limits.items() if limit is not None}
        if not horizons or earliest(rows.time_ms) >= max(horizons.values()):
            return decoded
        keep = [
            row
            for row, (dataset, time_ms) in enumerate(zip(rows.dataset, rows.time_ms, strict=True))
            if time_ms >= horizons.get(dataset, time_ms)
        ]
        return Decoded(rows.take(keep), [decoded.index[row] for row in keep], decoded.dead)

    def _describe(self, messages: Sequence[Messages], rows: Rows) -> None:
        """Tell the store of variables that it has not heard of, with their units."""
        units: dict[str, str] = {}
        for headers in {headers for block in messages for headers in set(block.headers)}:
            units.update(codec.decode_units(headers))
        datasets = distinct(rows.dataset)
        news = {
            entry
            for name, kind in rows.types.items()
            if kind == "number" and name != ORIGINAL_TIME
            for dataset in datasets
            if (entry := Description(dataset, name, _unit(name, units), _label(name)))
            not in self._described
            and (len(datasets) == 1 or _names(rows, dataset, name))
        }
        if news:
            self.store.describe(sorted(news, key=lambda entry: (entry.dataset, entry.variable)))
            self._described |= news


def _names(rows: Rows, dataset: str, name: str) -> bool:
    """Whether a row of the dataset has a value for the field."""
    values = zip(rows.dataset, rows.data[name], strict=True)
    return any(of == dataset and not math.isnan(value) for of, value in values)


def _unit(name: str, units: Mapping[str, str]) -> str:
    variable = variables.by_name(name)
    return variable.store_unit if variable else units.get(name, "")


def _label(name: str) -> str:
    variable = variables.by_name(name)
    return variable.label if variable else ""


def _left_out(
    messages: Sequence[Messages], decoded: Decoded, kept: Decoded
) -> dict[tuple[str, int], int]:
    """By (topic, partition), how many of the decoded rows are not kept."""
    if len(kept.index) == len(decoded.index):
        return {}
    stay = set(kept.index)
    ends = list(itertools.accumulate(map(len, messages)))
    blocks = Counter(bisect.bisect(ends, place) for place in decoded.index if place not in stay)
    left_out: Counter[tuple[str, int]] = Counter()
    for block, count in blocks.items():
        left_out[messages[block].topic, messages[block].partition] += count
    return left_out


def _positions(messages: Sequence[Messages]) -> list[Position]:
    return [Position(b.topic, b.partition, offset) for b in messages for offset in b.offset]


def _letter(prepared: Prepared, row: int, error: str) -> DeadLetter:
    """The message of a row as the dead letter that the store's refusal makes of it."""
    place = prepared.decoded.index[row]
    for block in prepared.messages:
        if place < len(block):
            return codec.bury(block, place, BadMessage("refused", error))
        place -= len(block)
    raise IndexError(f"row {row} belongs to no message")
