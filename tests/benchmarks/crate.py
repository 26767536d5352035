"""The CrateDB store against a bare loop: `python -m tests.benchmarks.crate`.

Starts a CrateDB of its own, as tests/services does. The bare loop sends ready rows, 10,000 a
request, with the statement that costs the server least, and reads nothing but the count.
"""

from __future__ import annotations

import itertools
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import orjson

from climatestream.model import Rows, cell_id
from climatestream.stores import crate_merge
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_tables import table_name
from climatestream.stores.schema import READINGS
from tests.benchmarks.timing import HEADER, ROUNDS, Figure, compare
from tests.services.crate import Server, started

SCHEMA = "climatestream_bench"
CALL_ROWS = 50_000
BARE_ROWS = 10_000
CELLS = 4_500
FIRST_MS, HOUR_MS = 1_640_995_200_000, 3_600_000
FIELDS = ("temperature", "u10", "v10", "pressure")


class Bench:
    """Rows for an open store, each hour of a grid of Germany's size after the other."""

    def __init__(self, store: CrateStore) -> None:
        self.store = store
        self._next = 0
        self._random = np.random.default_rng(0)
        self._places = [(47 + 0.1 * (n // 100), 5 + 0.1 * (n % 100)) for n in range(CELLS)]
        self._connection = HTTPConnection(store.address.host, store.address.port, timeout=120)
        self._bare, _ = crate_merge._statements(table_name(store.address.schema, READINGS))

    def close(self) -> None:
        """Close the bare loop's connection."""
        self._connection.close()

    def rows(self, count: int, first: int | None = None, published_at_ms: int = 1) -> list[Rows]:
        """As many readings as calls of the store take them: new ones, or those from `first` on."""
        if first is None:
            first, self._next = self._next, self._next + count
        ends = [*range(first, first + count, CALL_ROWS), first + count]
        return [
            self._call(np.arange(start, stop), published_at_ms)
            for start, stop in itertools.pairwise(ends)
        ]

    def _call(self, numbers: np.ndarray, published_at_ms: int) -> Rows:
        places = [self._places[n % CELLS] for n in numbers.tolist()]
        latitude, longitude = np.array(places).T
        return Rows(
            dataset=["era5-land/hourly"] * len(numbers),
            cell=[cell_id(*place) for place in places],
            country=["DEU"] * len(numbers),
            time_ms=FIRST_MS + numbers // CELLS * HOUR_MS,
            latitude=latitude,
            longitude=longitude,
            preliminary=np.zeros(len(numbers), bool),
            data={name: self._random.normal(10, 5, len(numbers)) for name in FIELDS},
            types=dict.fromkeys(FIELDS, "number"),
            published_at_ms=np.full(len(numbers), published_at_ms),
            source=["climate/0"] * len(numbers),
            offset=numbers,
        )

    def write(self, calls: list[Rows]) -> None:
        """With the store."""
        for rows in calls:
            assert self.store.write(rows) == []

    def ready(self, calls: list[Rows]) -> list[crate_merge.Parameters]:
        """As the bare loop takes them."""
        return [row for rows in calls for row in crate_merge.parameters(rows)]

    def loop(self, ready: list[crate_merge.Parameters]) -> None:
        """With the bare loop."""
        for start in range(0, len(ready), BARE_ROWS):
            part = ready[start : start + BARE_ROWS]
            self._connection.request(
                "POST",
                "/_sql",
                orjson.dumps({"stmt": self._bare, "bulk_args": part}),
                {"Content-Type": "application/json"},
            )
            results = orjson.loads(self._connection.getresponse().read())["results"]
            assert all(result["rowcount"] >= 0 for result in results)


def new_rows(bench: Bench, count: int) -> Figure:
    """Readings that the store has not."""
    rounds = ROUNDS + 1
    mine = iter([bench.rows(count) for _ in range(rounds)])
    bare = iter([bench.ready(bench.rows(count)) for _ in range(rounds)])
    ours, theirs = compare(lambda: bench.write(next(mine)), lambda: bench.loop(next(bare)))
    return Figure("rows to CrateDB, new", "bare loop", ours, theirs, count, "0.9x")


def replay(bench: Bench, count: int) -> Figure:
    """Readings that the store has, message by message."""
    calls = bench.rows(count)
    bench.write(calls)
    ready = bench.ready(calls)
    ours, theirs = compare(lambda: bench.write(calls), lambda: bench.loop(ready))
    return Figure("rows to CrateDB, a replay", "bare loop", ours, theirs, count, "0.7x")


def newer(bench: Bench, count: int) -> Figure:
    """Readings of higher rank than the rows that they meet: no yardstick's reach, but a cost."""
    first = bench.rows(count)
    bench.write(first)
    ready = bench.ready(first)
    ranks = itertools.count(2)
    start = int(first[0].offset[0])
    ours, theirs = compare(
        lambda: bench.write(bench.rows(count, start, next(ranks))), lambda: bench.loop(ready), 2
    )
    return Figure("rows to CrateDB, newer", "bare loop, a replay", ours, theirs, count, "-")


def measure(server: Server, count: int) -> list[Figure]:
    """All of them, `count` rows a run."""
    store = CrateStore(server.at(SCHEMA))
    store.drop()
    store.init(replicas="0")
    try:
        with store, closing(Bench(store)) as bench:
            bench.loop(bench.ready(bench.rows(count)))  # the server compiles its code
            return [of(bench, count) for of in (new_rows, replay, newer)]
    finally:
        store.drop()


def main() -> None:
    """Print a Markdown table."""
    print(HEADER)
    with started() as server:
        for figure in measure(server, 50_000):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
