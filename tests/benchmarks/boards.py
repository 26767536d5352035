"""The boards' queries over a million readings: `python -m tests.benchmarks.boards`.

Each query at its board's default range, with the values that Grafana takes at first, on DuckDB and,
where one is at hand, on a CrateDB of our own over PostgreSQL's protocol, as Grafana asks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from climatestream import places
from climatestream.dashboards import grafana, runs
from climatestream.model import DeadLetter, Normals, Rows, cell_id
from climatestream.ports import Answer, Description, PipelineRow, Store
from climatestream.stores.crate import CrateStore
from climatestream.stores.open import open_store
from climatestream.stores.schema import TABLES
from tests.services.crate import started

SCHEMA = "climatestream_bench_boards"
CELLS = 4_500
TIMES = 223
SPAN = timedelta(hours=6)
"""The narrowest range of the boards of readings: all of the million lie in it."""
CALL_ROWS = 50_000
DAYS = range(1, 367)
NORMAL_CELLS = 200
"""Cells whose normals are kept at once: a year of them has about as many rows as a call."""
FIELDS = ("temperature", "u10", "v10", "pressure")
UNITS = {"temperature": "degC", "u10": "m s-1", "v10": "m s-1", "pressure": "Pa"}
REACH_MS = 250
ROUNDS = 5


def fill(store: Store, now: datetime, cells: int = CELLS, times: int = TIMES) -> None:
    """Readings of Germany's size up to now, normals of a year, reports, dead letters."""
    chance = np.random.default_rng(0)
    side = 65
    latitude = 47.3 + 0.1 * (np.arange(cells) // side)
    longitude = 6.0 + 0.1 * (np.arange(cells) % side) * 2.0
    ids = [cell_id(*place) for place in zip(latitude, longitude, strict=True)]
    last_ms = round(now.timestamp() * 1000)
    step_ms = round(SPAN.total_seconds() * 1000) // times
    slices = max(1, CALL_ROWS // cells)
    for first in range(0, times, slices):
        count = min(slices, times - first)
        rows = count * cells
        at = last_ms - step_ms * (first + np.repeat(np.arange(count), cells)) - 1
        data: dict[str, Any] = {name: chance.normal(10, 5, rows) for name in FIELDS}
        data |= {"latitude": np.tile(latitude, count), "longitude": np.tile(longitude, count)}
        written = store.write(
            Rows(
                dataset=["era5-land/hourly"] * rows,
                cell=ids * count,
                country=["DEU"] * rows,
                time_ms=at,
                latitude=data["latitude"],
                longitude=data["longitude"],
                preliminary=np.zeros(rows, bool),
                data=data,
                types=dict.fromkeys(data, "number"),
                published_at_ms=at,
                source=["era5/0"] * rows,
                offset=np.arange(rows) + first * cells,
            )
        )
        assert written == []
    store.describe([Description("era5-land/hourly", name, UNITS[name], "") for name in FIELDS])
    ids.sort()
    for first in range(0, cells, NORMAL_CELLS):
        _keep_normals(store, ids[first : first + NORMAL_CELLS], chance)
    store.record([_report(last_ms - 5000 * n, p) for n in range(720) for p in range(4)])
    letters = range(200)
    store.bury([DeadLetter("era5", 0, n, last_ms, None, b"x", (), "empty", "no") for n in letters])
    places.keep(store)


def _keep_normals(store: Store, ids: list[str], chance: np.random.Generator) -> None:
    """Normals of each day of a year, as `normals` makes them: one row a cell and day."""
    rows = len(ids) * len(DAYS)
    mean = chance.normal(10, 5, rows)
    store.keep_normals(
        Normals(
            dataset="era5-land/hourly",
            variable="temperature",
            period="1991-2020",
            first=ids[0],
            last=ids[-1],
            cell=ids * len(DAYS),
            day_of_year=np.repeat(DAYS, len(ids)),
            years=np.full(rows, 30),
            mean=mean,
            deviation=np.full(rows, 3.0),
            p10=mean - 4.0,
            p50=mean,
            p90=mean + 4.0,
        )
    )


def _report(time_ms: int, partition: int) -> PipelineRow:
    return PipelineRow(
        time_ms=time_ms,
        instance="worker:1",
        topic="era5",
        partition=partition,
        offset=time_ms % 1_000_000,
        high_water=time_ms % 1_000_000 + 10,
        rows=500,
        batch_ms=20.0,
        dead=0,
        errors=0,
        stored_p50_ms=20.0,
        stored_p95_ms=40.0,
        stored_p99_ms=60.0,
        queryable_ms=300.0,
    )


def measure(
    ask: Callable[[str], Answer], now: datetime, rounds: int = ROUNDS
) -> dict[tuple[str, str], float]:
    """By board and panel, the median time of its slowest query [ms]."""
    found: dict[tuple[str, str], float] = {}
    for name, text in grafana.build().items():
        board = json.loads(text)
        span = runs.span(board, now)
        values = runs.resolve(board, ask, span)
        for query in runs.queries(board, values, span):
            took = []
            for _ in range(rounds):
                began = time.perf_counter()
                ask(query.sql)
                took.append(1000 * (time.perf_counter() - began))
            key = (name.removesuffix(".json"), query.panel)
            found[key] = max(found.get(key, 0.0), statistics.median(took))
    return found


@contextmanager
def over_duckdb(now: datetime) -> Iterator[Callable[[str], Answer]]:
    """A DuckDB with the readings."""
    with (
        tempfile.TemporaryDirectory(prefix="climatestream-") as folder,
        open_store(f"duckdb:{folder}/bench.duckdb") as store,
    ):
        fill(store, now)
        yield store.query


@contextmanager
def over_crate(now: datetime) -> Iterator[Callable[[str], Answer]]:
    """A CrateDB with the readings, asked as Grafana asks."""
    with started() as server:
        store = CrateStore(server.at(SCHEMA))
        store.drop()
        store.init(replicas="0")
        with store:
            fill(store, now)
        tables = ", ".join(f"{SCHEMA}.{table.name}" for table in TABLES)
        server.sql(f"REFRESH TABLE {tables}")
        server.sql(f"OPTIMIZE TABLE {SCHEMA}.climate_data WITH (max_num_segments = 1)")
        address = server.address
        with psycopg.connect(
            host=address.host,
            port=server.psql_port,
            user=address.user,
            password=address.password(),
            dbname=SCHEMA,
            autocommit=True,
        ) as connection:

            def ask(sql: str) -> Answer:
                cursor = connection.execute(sql.replace("demo.", f"{SCHEMA}.").encode())
                columns = tuple(column.name for column in cursor.description or ())
                return Answer(columns, cursor.fetchall())

            yield ask
        store.drop()


def main() -> None:
    """Print a Markdown table."""
    now = datetime.now(UTC)
    found: list[dict[tuple[str, str], float]] = []
    with over_duckdb(now) as ask:
        found.append(measure(ask, now))
    try:
        with over_crate(now) as ask:
            found.append(measure(ask, now))
    except pytest.skip.Exception as reason:
        print(f"CrateDB is left out: {reason}", file=sys.stderr)
    readings = f"{CELLS * TIMES:,} readings"
    print(f"\n{readings}, reach {REACH_MS} ms, load {os.getloadavg()[0]:.1f}\n")
    print("| board | panel | DuckDB [ms] | CrateDB [ms] |\n|---|---|---|---|")
    for key in found[0]:
        times = " | ".join(f"{of[key]:.0f}" for of in found) + (" | -" if len(found) == 1 else "")
        print(f"| {key[0]} | {key[1]} | {times} |", flush=True)


if __name__ == "__main__":
    main()
