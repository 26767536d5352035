"""The embedded stand-in for Kafka: a topic in this process, with partitions, offsets and groups.

Delivery: at least once within the process; no durability and no server. Memory is bounded: a
full partition makes `publish` wait. A message is dropped once every group has committed it.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from climatestream.errors import BrokerError, BrokerUnavailable
from climatestream.model import Headers, Messages

if TYPE_CHECKING:
    from climatestream.ports import Consumer, Producer, Start

PARTITIONS = 4

CAPACITY = 25_000
"""Messages that a partition holds at most [messages]: four hold two batches, about 40 MB."""


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Messages of one partition from one call of `publish`: consecutive offsets, one time."""

    offset: int
    published_at_ms: int
    headers: Headers
    keys: list[bytes]
    values: list[bytes]

    @property
    def end(self) -> int:
        return self.offset + len(self.values)


@dataclass
class _Partition:
    chunks: deque[_Chunk] = field(default_factory=deque)
    end: int = 0

    def held(self) -> int:
        return self.end - self.chunks[0].offset if self.chunks else 0


@dataclass
class _Group:
    committed: dict[int, int]
    members: list[MemoryConsumer] = field(default_factory=list)


class MemoryBroker:
    """A topic of this process.

    Parameters
    ----------
    name
        The topic's name; the run's id is added, so that a place never repeats.
    partitions
        Their count.
    capacity
        Messages that a partition holds at most.
    keep
        A folder in which every message is also appended, as published, to a file a partition;
        `read` then gives all messages of the run. None: `read` gives those still held.
    clock_ms
        Milliseconds since the epoch.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        partitions: int = PARTITIONS,
        capacity: int = CAPACITY,
        keep: Path | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.topic = f"{name}-{clock_ms():x}-{secrets.token_hex(3)}"
        self._capacity = capacity
        self._clock_ms = clock_ms
        self._last_ms = 0
        self._partitions = [_Partition() for _ in range(partitions)]
        self._groups: dict[str, _Group] = {}
        self._keep = keep
        self._files: list[FileIO] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        if self._keep is not None:
            self._files = [
                (self._keep / f"{partition}.messages").open("w+b", buffering=0)
                for partition in range(len(self._partitions))
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def producer(self) -> Producer:
        return MemoryProducer(self)

    def consumer(self, group: str, start: Start = "earliest") -> Consumer:
        return MemoryConsumer(self, group, start)

    def committed(self, group: str) -> dict[int, int]:
        with self._changed:
            known = self._groups.get(group)
            return dict(known.committed) if known else dict.fromkeys(self._numbers(), 0)

    def count(self, start: Start = "earliest") -> int:
        with self._changed:
            return sum(self._partitions[n].end - self._first(n, start) for n in self._numbers())

    def read(self, start: Start = "earliest") -> Iterator[Messages]:
        with self._changed:
            held = [(p.end, [] if self._files else list(p.chunks)) for p in self._partitions]
        return self._blocks(held, start)

    def _blocks(self, held: list[tuple[int, list[_Chunk]]], start: Start) -> Iterator[Messages]:
        if start == "latest":
            return
        since_ms = 0 if start == "earliest" else start
        for number, (end, chunks) in enumerate(held):
            for chunk in self._kept(number, end) if self._files else chunks:
                if chunk.published_at_ms >= since_ms:
                    yield self._messages(number, [chunk])

    # ------------------------------------------------------------------------ publishing

    def publish(
        self,
        producer: MemoryProducer,
        keys: Sequence[bytes],
        values: Sequence[bytes],
        headers: Headers,
    ) -> None:
        """Append to the partitions; waits until each that gets messages has room for them."""
        parts = self._part(keys, values)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    producer.closed
                    or all(self._room(number, len(part[0])) for number, part in parts.items())
                )
            )
            if producer.closed:
                raise BrokerError(f"the producer of topic {self.topic} is closed: not published")
            self._last_ms = max(self._last_ms, self._clock_ms())
            chunks = {
                number: _Chunk(self._partitions[number].end, self._last_ms, headers, *part)
                for number, part in parts.items()
            }
            if self._files:
                self._keep_all(chunks)
            for number, chunk in chunks.items():
                self._partitions[number].chunks.append(chunk)
                self._partitions[number].end = chunk.end
            self._changed.notify_all()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _part(
        self, keys: Sequence[bytes], values: Sequence[bytes]
    ) -> dict[int, tuple[list[bytes], list[bytes]]]:
        """Keys and values by partition, which is always the same for a key."""
        parts: list[tuple[list[bytes], list[bytes]]] = [([], []) for _ in self._partitions]
        for key, value in zip(keys, values, strict=True):
            part = parts[zlib.crc32(key) % len(parts)]
            part[0].append(key)
            part[1].append(value)
        return {number: part for number, part in enumerate(parts) if part[0]}

    def _room(self, number: int, count: int) -> bool:
        held = self._partitions[number].held()
        return held == 0 or held + count <= self._capacity

    def _keep_all(self, chunks: Mapping[int, _Chunk]) -> None:
        """Append chunks to the files of their partitions: all of them, or none."""
        ends = [file.tell() for file in self._files]
        try:
            for number, chunk in chunks.items():
                _write(self._files[number], chunk)
        except OSError as error:
            for file, end in zip(self._files, ends, strict=True):
                file.seek(end)
                file.truncate()
            raise BrokerUnavailable(
                f"messages could not be kept for audit in {self._keep}: {error.strerror}; free "
                f"space there, or run without --audit"
            ) from error

    # ------------------------------------------------------------------------- consuming

    def join(self, member: MemoryConsumer) -> None:
        """Let a member into its group, and share the partitions out anew."""
        with self._changed:
            group = self._groups.get(member.group)
            if group is None:
                committed = {n: self._first(n, member.start) for n in self._numbers()}
                group = self._groups[member.group] = _Group(committed)
            group.members.append(member)
            self._share_out(group)

    def leave(self, member: MemoryConsumer) -> None:
        """Let a member out of its group: others go on from what is committed."""
        with self._changed:
            group = self._groups[member.group]
            group.members.remove(member)
            member.positions = {}
            self._share_out(group)

    def _share_out(self, group: _Group) -> None:
        for member in group.members:
            member.positions = {}
        for number in self._numbers():
            if group.members:
                member = group.members[number % len(group.members)]
                member.positions[number] = group.committed[number]
        self._changed.notify_all()

    def take(self, member: MemoryConsumer, max_messages: int, timeout_s: float) -> list[Messages]:
        """The next messages of a member's partitions; moves its positions, not the group's."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_news(member), timeout_s)
            blocks = []
            left = max_messages
            for number in member.awake():
                chunks = self._slices(number, member.positions[number], left)
                if not chunks:
                    continue
                # the next poll begins with another partition: none starves
                del member.positions[number]
                member.positions[number] = chunks[-1].end
                blocks.append(self._messages(number, chunks))
                left -= len(blocks[-1])
                if left == 0:
                    break
            return blocks

    def _has_news(self, member: MemoryConsumer) -> bool:
        # a position may lie before what is held: then it is what is held that counts
        return any(
            self._partitions[n].chunks and self._partitions[n].end > member.positions[n]
            for n in member.awake()
        )

    def _slices(self, number: int, position: int, count: int) -> list[_Chunk]:
        slices = []
        for chunk in self._partitions[number].chunks:
            if chunk.end > position and count > 0:
                part = _cut(chunk, max(position, chunk.offset), max(position, chunk.offset) + count)
                slices.append(part)
                count -= len(part.values)
        return slices

    def commit(self, member: MemoryConsumer, positions: Mapping[int, int]) -> None:
        """Move the group's offsets, and drop what every group is done with."""
        with self._changed:
            group = self._groups[member.group]
            for number, position in positions.items():
                group.committed[number] = position
                done = min(other.committed[number] for other in self._groups.values())
                chunks = self._partitions[number].chunks
                while chunks and chunks[0].end <= done:
                    chunks.popleft()
            self._changed.notify_all()

    def seek(self, member: MemoryConsumer, positions: Mapping[int, int]) -> None:
        """Move a member's positions; partitions that it does not have are left alone."""
        with self._changed:
            member.positions.update(
                {n: position for n, position in positions.items() if n in member.positions}
            )
            self._changed.notify_all()

    def assigned(self, member: MemoryConsumer) -> list[int]:
        """The partitions that a member has."""
        with self._changed:
            return list(member.positions)

    def high_water(self, numbers: Sequence[int]) -> dict[int, int]:
        """By partition, the offset after the newest message."""
        with self._changed:
            return {number: self._partitions[number].end for number in numbers}

    # --------------------------------------------------------------------------- helpers

    def _numbers(self) -> range:
        return range(len(self._partitions))

    def _first(self, number: int, start: Start) -> int:
        """The offset at which a group begins that has committed nothing."""
        partition = self._partitions[number]
        if start == "latest":
            return partition.end
        if start == "earliest":
            return 0
        later = (c.offset for c in partition.chunks if c.published_at_ms >= start)
        return next(later, partition.end)

    def _kept(self, number: int, end: int) -> Iterator[_Chunk]:
        """The chunks in a partition's file below an offset; behind it one may be half written."""
        with Path(self._files[number].name).open("rb") as file:
            at = 0
            while at < end:
                chunk = _read(file)
                yield chunk
                at = chunk.end

    def _messages(self, number: int, chunks: Sequence[_Chunk]) -> Messages:
        return Messages(
            topic=self.topic,
            partition=number,
            offset=range(chunks[0].offset, chunks[-1].end),
            published_at_ms=[c.published_at_ms for c in chunks for _ in c.values],
            key=[key for c in chunks for key in c.keys],
            value=[value for c in chunks for value in c.values],
            headers=[c.headers for c in chunks for _ in c.values],
        )


class MemoryProducer:
    """Publishes into a `MemoryBroker`; what `publish` took is delivered.

    Closing it, from any thread, ends a `publish` that waits for room: with BrokerError.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._acknowledged = 0
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
        self._broker.wake()

    def publish(
        self, keys: Sequence[bytes], values: Sequence[bytes], headers: Headers = ()
    ) -> None:
        self._broker.publish(self, keys, values, headers)
        self._acknowledged += len(values)

    def flush(self) -> int:
        return self._acknowledged


class MemoryConsumer:
    """A member of a group of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, group: str, start: Start) -> None:
        self._broker = broker
        self.group = group
        self.start = start
        self.positions: dict[int, int] = {}
        """By assigned partition, the offset that the next poll delivers."""
        self.paused: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        self._broker.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.leave(self)

    def poll(self, max_messages: int, timeout_s: float) -> list[Messages]:
        return self._broker.take(self, max_messages, timeout_s)

    def commit(self, positions: Mapping[int, int]) -> None:
        self._broker.commit(self, positions)

    def seek(self, positions: Mapping[int, int]) -> None:
        self._broker.seek(self, positions)

    def pause(self, partitions: Collection[int]) -> None:
        self.paused = frozenset(partitions)
        self._broker.wake()

    def awake(self) -> list[int]:
        """The assigned partitions that are not paused, those served least lately first."""
        return [number for number in self.positions if number not in self.paused]

    def high_water(self) -> dict[int, int]:
        return self._broker.high_water(self._broker.assigned(self))


def _cut(chunk: _Chunk, first: int, end: int) -> _Chunk:
    """The part of a chunk with offsets in first..end."""
    if first <= chunk.offset and end >= chunk.end:
        return chunk
    part = slice(max(0, first - chunk.offset), max(0, end - chunk.offset))
    return _Chunk(
        max(first, chunk.offset),
        chunk.published_at_ms,
        chunk.headers,
        chunk.keys[part],
        chunk.values[part],
    )


# A kept chunk: five integers (offset, time, count, headers, bytes), then the lengths of header
# names and values, of keys and of values, then all of them one after the other.


def _write(file: FileIO, chunk: _Chunk) -> None:
    texts = [part for name, value in chunk.headers for part in (name.encode(), value)]
    parts = [*texts, *chunk.keys, *chunk.values]
    size = sum(map(len, parts))
    head = (chunk.offset, chunk.published_at_ms, len(chunk.values), len(chunk.headers), size)
    numbers = array("q", (*head, *map(len, parts)))
    rest = memoryview(b"".join((numbers.tobytes(), *parts)))
    while rest:
        rest = rest[file.write(rest) :]


def _read(file: BinaryIO) -> _Chunk:
    offset, published_at_ms, count, headers, size = array("q", file.read(5 * 8))
    lengths = array("q", file.read(8 * (2 * headers + 2 * count)))
    body = file.read(size)
    ends = list(itertools.accumulate(lengths, initial=0))
    parts = [body[a:b] for a, b in itertools.pairwise(ends)]
    texts, keys, values = (
        parts[: 2 * headers],
        parts[2 * headers : 2 * headers + count],
        parts[2 * headers + count :],
    )
    names = [name.decode() for name in texts[::2]]
    return _Chunk(
        offset, published_at_ms, tuple(zip(names, texts[1::2], strict=True)), keys, values
    )
