"""The function and the worker give the same rows for the same messages, in any cut into batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climatestream import fastcodec
from climatestream.aws import attempt as attempts
from climatestream.aws.handler import Function
from climatestream.ingest import UNSTATED, Ingest
from climatestream.meter import Meter
from climatestream.model import Messages
from climatestream.stores.crate import CrateStore
from climatestream.worker import work
from tests.crate_answers import BY_NAME
from tests.crate_double import CrateDouble, Reply, Request
from tests.lambda_events import NS, event, invoke

HOUR_NS = 3_600 * 10**9
LATITUDES = {0: [48.1, 48.10000000000001], 1: [48.2], 2: [48.3, 48.4, 95.0]}
"""Of each partition: a cell's messages are all in one, as its id is their key."""

number = st.floats(-1e6, 1e6, allow_nan=False)


def documents(partition: int) -> st.SearchStrategy[dict[str, Any]]:
    """Messages that share their keys, and a field whose first type is to hold."""
    return st.fixed_dictionaries(
        {
            "timestamp": st.sampled_from([NS, NS + 1, NS + HOUR_NS]),
            "latitude": st.sampled_from(LATITUDES[partition]),
            "longitude": st.sampled_from([11.6, 350]),
            "temperature": number,
        },
        optional={
            "u10": number | st.none(),
            "v10": number,
            f"station{partition}": st.sampled_from(["a", "b", 5]),
            "dataset": st.sampled_from(["era5/hourly", "era5-land/hourly", None]),
            "country": st.sampled_from(["DEU", "AUT", None]),
            "preliminary": st.booleans(),
        },
    )


poison = st.sampled_from([None, b"", b"{broken", b"[1]", b'{"timestamp":1}'])
headers = st.sampled_from(
    [
        (),
        (("units", b'{"v10":"m s**-1"}'),),
        (("origin", b'["climate",0,1,1700000000000,2]'),),
        (("trace", b"\x00\xff"),),
    ]
)
messages = st.lists(
    st.integers(0, max(LATITUDES)).flatmap(
        lambda partition: st.tuples(
            st.just(partition),
            st.integers(0, 4).flatmap(
                lambda n: documents(partition).map(orjson.dumps) if n else poison
            ),
            headers,
            st.integers(0, 3),
        )
    ),
    max_size=24,
)


def blocks_of(made: Sequence[tuple[int, bytes | None, Any, int]]) -> list[Messages]:
    """A topic's partitions, whole; offsets have gaps, and times do not always ascend."""
    columns: dict[int, list[tuple[Any, ...]]] = {}
    for partition, value, header, jitter in made:
        column = columns.setdefault(partition, [])
        offset = column[-1][0] + 1 + jitter if column else jitter
        column.append((offset, NS // 10**6 + 1_000 * (jitter % 2), b"key", value, header))
    return [
        Messages("climate", partition, *map(list, zip(*columns[partition], strict=True)))
        for partition in sorted(columns)
    ]


def part(block: Messages, start: int, count: int) -> Messages:
    columns = {
        name: list(getattr(block, name))[start : start + count]
        for name in ("offset", "published_at_ms", "key", "value", "headers")
    }
    return Messages(block.topic, block.partition, **columns)


class Replay:
    """A consumer that delivers messages in batches of some sizes, as a broker would."""

    def __init__(self, blocks: Sequence[Messages], sizes: Sequence[int]) -> None:
        self._batches = list(cuts(blocks, sizes))
        self.committed: dict[int, int] = {}

    def poll(self, max_messages: int, timeout_s: float) -> list[Messages]:
        return self._batches.pop(0) if self._batches else []

    def commit(self, positions: Mapping[int, int]) -> None:
        self.committed |= positions

    @property
    def is_empty(self) -> bool:
        return not self._batches


class Cut:
    """How many of a partition's messages go into a batch: sizes in turn, 0 not for ever."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._turn = 0

    def batch(self, blocks: Sequence[Messages], places: Sequence[int]) -> dict[int, Messages]:
        """By place in `blocks`, the messages of the next batch."""
        taken = {}
        for n, block in enumerate(blocks):
            size = self._sizes[self._turn % len(self._sizes)] or self._turn % 7 // 6
            self._turn += 1
            if size and places[n] < len(block):
                taken[n] = part(block, places[n], size)
        return taken


def cuts(blocks: Sequence[Messages], sizes: Sequence[int]) -> Iterator[list[Messages]]:
    """All messages in batches."""
    cut = Cut(sizes)
    places = [0] * len(blocks)
    while any(place < len(block) for place, block in zip(places, blocks, strict=True)):
        batch = cut.batch(blocks, places)
        for n, taken in batch.items():
            places[n] += len(taken)
        if batch:
            yield list(batch.values())


def by_worker(blocks: Sequence[Messages], sizes: Sequence[int]) -> CrateDouble:
    """What the worker leaves, with the codec that it uses."""
    with CrateDouble().serving() as double, CrateStore(double.address) as store:
        consumer = Replay(blocks, sizes)
        ingest = Ingest(store, UNSTATED, fastcodec.decode)
        meter = Meter(store, "climate", dict)
        work(
            consumer,  # type: ignore[arg-type]
            ingest,
            meter,
            finished=lambda: consumer.is_empty,
            stop=threading.Event(),
        )
    return double


@contextmanager
def function_on(double: CrateDouble) -> Iterator[Function]:
    function = Function({"CLIMATESTREAM_STORE": f"crate://127.0.0.1:{double.port}/demo"})
    try:
        yield function
    finally:
        function.close()


def by_function(
    blocks: Sequence[Messages], sizes: Sequence[int], faults: Sequence[bool], rows: int
) -> CrateDouble:
    """What the function leaves, invoked as a mapping does.

    Each partition's next messages are sent; of those that the answer names, the first and what
    follows it are sent again.
    """
    faulty = iter(faults)

    def fault(request: Request) -> Reply | None:
        if request.get("bulk_args") and next(faulty, False):
            if "climate_data" not in request["stmt"]:
                return 503, b""
            bad = ["?" if n % 3 == 1 else "" for n in range(len(request["bulk_args"]))]
            return double.write(request, bad, BY_NAME["a shard is away"])
        return None

    places = [0] * len(blocks)
    cut = Cut(sizes)
    with (
        CrateDouble().serving() as double,
        function_on(double) as function,
        patch.object(attempts, "PART", rows),
    ):
        double.respond(fault, times=len(faults))
        while any(place < len(block) for place, block in zip(places, blocks, strict=True)):
            sent = cut.batch(blocks, places)
            again = invoke(function, event(*sent.values()))
            for n, block in sent.items():
                at = again.get(f"climate-{block.partition}")
                places[n] += len(block) if at is None else list(block.offset).index(at)
    return double


def left(double: CrateDouble) -> tuple[Any, Any, Any]:
    """Readings, dead letters and descriptions, without the times of the wall clock."""
    readings = {
        key: {name: value for name, value in row.items() if name != "stored_at"}
        for key, row in double.rows.items()
    }
    letters = sorted(
        (
            {k: v for k, v in row.items() if k != "dead_at"}
            for row in double.others.get("dead_letters", [])
        ),
        key=lambda row: (row["partition"], row["offset"]),
    )
    described = {
        (row["dataset"], row["variable"], row["unit"]) for row in double.others.get("datasets", [])
    }
    return readings, letters, described


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    made=messages,
    mine=sizes,
    theirs=sizes,
    faults=st.lists(st.booleans(), max_size=6),
    rows=st.sampled_from([2, 5, 5_000]),
)
def test_worker_and_function_leave_the_same(
    made: list[Any], mine: list[int], theirs: list[int], faults: list[bool], rows: int
) -> None:
    """Whatever fails on the way; so no message overtakes another of its partition."""
    blocks = blocks_of(made)
    assert left(by_function(blocks, mine, faults, rows)) == left(by_worker(blocks, theirs))
