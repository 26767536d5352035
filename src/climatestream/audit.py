"""Proof that nothing is lost: every message of the topic, read again, against the store.

Each message is exactly one of `CLASSES`, tried in that order. It reads the broker and the store
through their Protocols alone, block by block, so that memory does not grow with the topic.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from rich.table import Table

from climatestream.model import BATCH_ROWS
from climatestream.tables import console

if TYPE_CHECKING:
    from climatestream.ingest import Decode
    from climatestream.model import FieldType, Messages, Rows
    from climatestream.ports import Broker, Found, Start, Store

CLASSES: Final = ("dead", "stored", "superseded", "expired", "pending", "missing")
"""dead: in the dead-letter table, or in an on-failure destination. stored: its key's row carries
its rank and source, and its values. superseded: its key's row carries a higher rank and a value for
every field that the message names. expired: older than the horizon. pending: at or above the
committed offset. missing: none of these."""


@dataclass(frozen=True)
class Audit:
    """What became of every message read: counts by partition, and which are missing."""

    partitions: Mapping[int, Counter[str]]
    missing: Mapping[int, list[int]]
    """By partition, the offsets of missing messages, ascending."""

    @property
    def ok(self) -> bool:
        return not any(self.missing.values())

    @property
    def total(self) -> Counter[str]:
        return sum(self.partitions.values(), Counter())

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints: the six classes in all and by partition, and `ok`."""
        return {
            **_counts(self.total),
            "messages": self.total.total(),
            "ok": self.ok,
            "partitions": {str(n): _counts(count) for n, count in sorted(self.partitions.items())},
            "missing_offsets": {
                str(number): [list(ends) for ends in ranges(offsets)]
                for number, offsets in sorted(self.missing.items())
                if offsets
            },
        }


def _counts(count: Counter[str]) -> dict[str, int]:
    return {name: count[name] for name in CLASSES}


def ranges(offsets: list[int]) -> Iterator[tuple[int, int]]:
    """Ascending offsets as ranges (first, last)."""
    for _, run in itertools.groupby(enumerate(offsets), key=lambda pair: pair[1] - pair[0]):
        members = [offset for _, offset in run]
        yield members[0], members[-1]


def print_table(audit: Audit) -> None:
    """Print the classes by partition, and the offsets that are missing."""
    table = Table("partition", *CLASSES)
    for number, counts in sorted(audit.partitions.items()):
        table.add_row(str(number), *(f"{counts[name]:,}" for name in CLASSES))
    table.add_row("all", *(f"{audit.total[name]:,}" for name in CLASSES))
    out = console()
    out.print(table)
    for number, offsets in sorted(audit.missing.items()):
        for first, last in ranges(offsets):
            out.print(f"missing in partition {number}: offsets {first} to {last}")
    out.print("nothing is missing" if audit.ok else "messages are missing")


@dataclass(eq=False)
class Auditor:
    """Reads a topic again and holds it against a store.

    Parameters
    ----------
    broker, store
        Both open. Nothing is changed in either.
    group
        Whose committed offsets tell pending from missing.
    dataset
        What a message is that names no dataset: as the consumer had it.
    decode
        As for `Ingest`.
    """

    broker: Broker
    store: Store
    group: str
    dataset: str
    decode: Decode
    stop: Callable[[], bool] = lambda: False
    """Asked between blocks; ends an audit with KeyboardInterrupt: half a proof is none."""
    discarded: Mapping[int, set[int]] = field(default_factory=dict)
    """By partition, the offsets that an on-failure destination holds: they are dead too."""
    read: int = 0
    """Messages read so far."""
    expected: int = 0
    """Messages that are to be read, as far as their offsets tell."""
    _types: dict[str, FieldType] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def said(self) -> str:
        """How far it is, what it reads a second, and what is left."""
        seconds = time.monotonic() - self._began
        rate = self.read / seconds if self.read else RATE_PER_S
        left = (self.expected - self.read) / rate
        said = f"audit: {self.read:,} of {self.expected:,} messages read, {rate:,.0f}/s"
        return f"{said}, about {left:,.0f} s left"

    def audit(self, start: Start = "earliest") -> Audit:
        """Classify every message from a place on, up to those there now."""
        self.expected = self.broker.count(start)
        committed = self.broker.committed(self.group)
        horizons = self.store.horizons()
        self._types = self.store.field_types()
        dead: dict[int, set[int]] = {}
        partitions: dict[int, Counter[str]] = {}
        missing: dict[int, list[int]] = {}
        for blocks in _together(self.broker.read(start)):
            if self.stop():
                raise KeyboardInterrupt
            number = blocks[0].partition
            if number not in dead:
                dead[number] = self.store.dead_offsets(blocks[0].topic, number)
                dead[number] |= self.discarded.get(number, set())
            classes = self._classify(blocks, dead[number], horizons, committed.get(number, 0))
            partitions.setdefault(number, Counter()).update(classes["class"].to_list())
            missing.setdefault(number, []).extend(
                classes.filter(pl.col("class") == "missing")["offset"].to_list()
            )
            self.read += len(classes)
        return Audit(partitions, missing)

    def _classify(
        self,
        blocks: Sequence[Messages],
        dead: set[int],
        horizons: Mapping[str, int],
        committed: int,
    ) -> pl.DataFrame:
        """For every message of some blocks its offset and class."""
        decoded = self.decode(blocks, self.dataset, self._types)
        found = self._compare(decoded.rows, horizons).with_columns(
            pl.Series("place", decoded.index, dtype=pl.Int64)
        )
        messages = pl.DataFrame(
            {
                "offset": pl.Series(
                    [offset for block in blocks for offset in block.offset], dtype=pl.Int64
                ),
                "place": pl.Series(range(sum(map(len, blocks))), dtype=pl.Int64),
            }
        )
        return messages.join(found, on="place", how="left", maintain_order="left").select(
            "offset",
            pl.when(pl.col("offset").is_in(list(dead)))
            .then(pl.lit("dead"))
            .when(pl.col("found").is_not_null())
            .then("found")
            .when(pl.col("offset") >= committed)
            .then(pl.lit("pending"))
            .otherwise(pl.lit("missing"))
            .alias("class"),
        )

    def _compare(self, rows: Rows, horizons: Mapping[str, int]) -> pl.DataFrame:
        """For every row stored, superseded, expired or null."""
        if not len(rows):
            return pl.DataFrame(schema={"found": pl.String})
        found = self.store.find(rows)
        frame = pl.DataFrame(
            {
                "present": pl.Series(found.present, dtype=pl.Boolean),
                **_ranks("mine", rows),
                **_ranks("stored", found),
                "expired": _expired(rows, horizons),
                "same": _every(rows, found, lambda mine, stored: mine == stored),
                "filled": _every(rows, found, lambda _, stored: stored.is_not_null()),
            }
        )
        return frame.select(
            pl.when(pl.col("present") & _equal_rank() & pl.col("same"))
            .then(pl.lit("stored"))
            .when(pl.col("present") & _higher_rank() & pl.col("filled"))
            .then(pl.lit("superseded"))
            .when("expired")
            .then(pl.lit("expired"))
            .alias("found"),
        )


def _together(blocks: Iterable[Messages]) -> Iterator[list[Messages]]:
    """Successive blocks of a partition, of `BATCH_ROWS` messages unless one has more.

    The blocks of a long series of a few places hold a message or two, and each look into a store
    costs milliseconds.
    """
    some: list[Messages] = []
    rows = 0
    for block in blocks:
        other = bool(some) and block.partition != some[0].partition
        if some and (other or rows + len(block) > BATCH_ROWS):
            yield some
            some, rows = [], 0
        some.append(block)
        rows += len(block)
    if some:
        yield some


RATE_PER_S: Final = 100_000
"""Messages a second that an audit reads at least on two cores, to say beforehand how long it
takes; from then on its own rate counts."""

RANK: Final = ("final", "published_at_ms", "offset", "source")


def _ranks(prefix: str, columns: Rows | Found) -> dict[str, pl.Series]:
    return {
        f"{prefix} final": ~pl.Series(columns.preliminary, dtype=pl.Boolean),
        f"{prefix} published_at_ms": pl.Series(columns.published_at_ms, dtype=pl.Int64),
        f"{prefix} offset": pl.Series(columns.offset, dtype=pl.Int64),
        f"{prefix} source": pl.Series(columns.source, dtype=pl.String),
    }


def _equal_rank() -> pl.Expr:
    return pl.all_horizontal(pl.col(f"mine {name}") == pl.col(f"stored {name}") for name in RANK)


def _higher_rank() -> pl.Expr:
    """The stored rank is higher than the message's, compared part by part."""
    higher = pl.lit(False)
    for name in reversed(RANK):
        mine, stored = pl.col(f"mine {name}"), pl.col(f"stored {name}")
        higher = (stored > mine) | ((stored == mine) & higher)
    return higher


def _every(rows: Rows, found: Found, test: Any) -> pl.Series:
    """Whether a test holds for every field that a message names."""
    result = pl.repeat(True, len(rows), eager=True)
    for name, column in rows.data.items():
        mine = _nulled(column)
        stored = _nulled(found.data[name])
        result &= mine.is_null() | test(mine, stored).fill_null(False)
    return result


def _nulled(column: Any) -> pl.Series:
    series = pl.Series(column, nan_to_null=True, strict=False)
    return series.fill_nan(None) if series.dtype == pl.Float64 else series


def _expired(rows: Rows, horizons: Mapping[str, int]) -> pl.Series:
    horizon = pl.Series(rows.dataset, dtype=pl.String).replace_strict(
        list(horizons), list(horizons.values()), default=None, return_dtype=pl.Int64
    )
    return (pl.Series(rows.time_ms, dtype=pl.Int64) < horizon).fill_null(False)
