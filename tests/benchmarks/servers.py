"""Throughput, latency and memory over real servers: `python -m tests.benchmarks.servers [NAME]`.

The commands run as a user runs them, in processes of their own. Latency is event to stored, as the
worker itself measures it and `demo.pipeline` keeps it for each partition and five seconds: the
median of these, and the worst, without the first ones. Memory is the most that a process had
resident, as the system accounts it, DuckDB's own included.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from climatestream import fastcodec, pipeline
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.open import open_broker
from climatestream.ingest import UNSTATED, Ingest
from climatestream.meter import Counts, Meter
from climatestream.stores.crate import CrateStore
from climatestream.worker import work
from tests.benchmarks.crate import Bench
from tests.benchmarks.figures import batches
from tests.benchmarks.timing import ROUNDS, Figure, compare, peak_mb
from tests.services import crate, kafka_server
from tests.services.kafka_server import Kafka, new_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from climatestream.model import Batch
    from tests.services.crate import Server

SCHEMA = "climatestream_bench_latency"
HEADER = "| what | reach | measured |\n| --- | --- | --- |"
CELLS = 4_580
"""Readings of an hour of the simulation, at most."""
START = datetime(2025, 1, 1, tzinfo=UTC)
WINDOWS = (
    'SELECT extract(epoch FROM "time"), stored_p50_ms, stored_p95_ms, stored_p99_ms, "rows" '
    'FROM {}.pipeline WHERE "rows" > 0 ORDER BY "time"'
)
WARM_S = 10
"""Time that does not count: group and server start [s]."""
PATIENCE_S = 300


def readings(count: int) -> list[str]:
    """Arguments for hours of simulated readings, so many or a few fewer."""
    hours = max(1, count // CELLS)
    end = START + timedelta(hours=hours - 1)
    return [
        f"simulation:?days={hours // 24 + 1}",
        *("--from", f"{START:%Y-%m-%d}", "--to", f"{end:%Y-%m-%dT%H:00}"),
    ]


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `climatestream` command; interrupted as a user does when it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "climatestream", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


def said(windows: Sequence[Sequence[Any]]) -> str:
    """Median and worst of the windows' percentiles."""
    warm = [row for row in windows if row[0] >= windows[0][0] + WARM_S] or windows
    percentiles = [[row[place] for row in warm] for place in (1, 2, 3)]
    median = "/".join(f"{statistics.median(values):,.0f}" for values in percentiles)
    worst = "/".join(f"{max(values):,.0f}" for values in percentiles)
    count = sum(row[4] for row in warm)
    return f"p50/p95/p99 {median} ms; worst five seconds {worst} ms ({count:,} readings)"


def latency_embedded(rate: int, seconds: int) -> str:
    """`run` at so many readings a second."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.duckdb"
        store = ("--store", f"duckdb:{file}", "--rate", f"{rate}/s")
        with command("run", *readings(rate * seconds), *store) as run:
            assert run.wait() == 0
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{file}' AS store (READ_ONLY)")
            return said(connection.execute(WINDOWS.format("store.demo")).fetchall())


def latency(kafka: Kafka, server: Server, rate: int, seconds: int) -> str:
    """`publish` into Kafka and `consume` into CrateDB at so many readings a second."""
    store = CrateStore(server.at(SCHEMA))
    store.drop()
    store.init(replicas="0")
    topic = new_topic()
    broker = kafka.url(topic)
    with open_broker(broker) as opened:
        opened.ensure_topic(TopicSettings(partitions=4))
    crate_url = f"crate://{server.address.user}@{server.address.server}/{SCHEMA}"
    source = (*readings(rate * seconds), "--broker", broker, "--rate", f"{rate}/s")
    try:
        with command("consume", "--broker", broker, "--store", crate_url) as worker:
            with command("publish", *source) as publish:
                assert publish.wait() == 0
            with open_broker(broker) as opened:
                published = opened.count()
            deadline = time.monotonic() + PATIENCE_S
            rows = _windows(server)
            while sum(row[4] for row in rows) < published:
                assert worker.poll() is None, "the worker ended"
                assert time.monotonic() < deadline, f"{rows} of {published} readings"
                time.sleep(1.0)
                rows = _windows(server)
            worker.send_signal(signal.SIGINT)
            worker.wait()
    finally:
        store.drop()
    return said(rows)


def _windows(server: Server) -> list[list[Any]]:
    server.sql(f"REFRESH TABLE {SCHEMA}.pipeline")
    rows: list[list[Any]] = server.sql(WINDOWS.format(SCHEMA))["rows"]
    return rows


def kafka_to_crate(kafka: Kafka, server: Server, count: int, rounds: int = ROUNDS) -> Figure:
    """Readings in Kafka to rows in CrateDB, joining a group included, against ready rows."""
    store = CrateStore(server.at(SCHEMA))
    store.drop()
    store.init(replicas="0")
    made = batches((count + CELLS) * (rounds + 1))
    published = [_published(kafka, part) for part in _parts(made, count)]
    topics = iter(published)
    never = threading.Event()

    def ours() -> None:
        url, total = next(topics)
        with (
            open_broker(url) as broker,
            broker.consumer("bench") as consumer,
            Meter(store, broker.topic, consumer.high_water) as meter,
        ):
            ingest = Ingest(store, UNSTATED, fastcodec.decode)
            work(consumer, ingest, meter, finished=lambda: meter.stored == total, stop=never)

    try:
        with store, closing(Bench(store)) as bench:
            ready = iter([bench.ready(bench.rows(total)) for _, total in published])
            mine_s, bare_s = compare(ours, lambda: bench.loop(next(ready)), rounds)
    finally:
        store.drop()
    return Figure("Kafka to CrateDB", "bare loop over ready rows", mine_s, bare_s, count, "0.9x")


def _parts(made: list[Batch], count: int) -> Iterator[list[Batch]]:
    """Batches in turn, so many readings each time or a few more; what is left over is left out."""
    part: list[Batch] = []
    for batch in made:
        part.append(batch)
        if sum(map(len, part)) >= count:
            yield part
            part = []


def _published(kafka: Kafka, part: list[Batch]) -> tuple[str, int]:
    """The URL of a new topic that holds them, and how many messages there are."""
    url = kafka.url(new_topic())
    with open_broker(url) as broker:
        broker.ensure_topic(TopicSettings(partitions=4))
        with broker.producer() as producer:
            return url, pipeline.publish(part, producer, Counts())


def memory(kafka: Kafka, server: Server, messages: int) -> Iterator[str]:
    """Peak memory of publish, consume and audit over so many messages."""
    crate_url = f"crate://{server.address.user}@{server.address.server}/{SCHEMA}"
    tables = CrateStore(server.at(SCHEMA))
    tables.drop()
    tables.init(replicas="0")
    with tempfile.TemporaryDirectory() as folder:
        broker = ("--broker", kafka.url(new_topic()))
        embedded = ("--store", f"duckdb:{folder}/bench.duckdb")
        runs = {
            "publish": ("publish", *readings(messages), *broker),
            "consume into CrateDB": (
                *("consume", *broker, "--store", crate_url),
                *("--group", "crate", "--until-caught-up"),
            ),
            "consume into DuckDB": ("consume", *broker, *embedded, "--until-caught-up"),
            "audit over DuckDB": ("audit", *broker, *embedded),
        }
        try:
            for name, arguments in runs.items():
                began = time.monotonic()
                peak = peak_mb(arguments)
                reach = "1 GB" if name.startswith("audit") else "300 MB"
                per_s = messages / (time.monotonic() - began)
                yield (
                    f"| memory of {name}, {messages:,} messages | {reach} "
                    f"| {peak:,.0f} MB ({per_s:,.0f}/s) |"
                )
        finally:
            tables.drop()


def figures(kafka: Kafka, server: Server) -> dict[str, Callable[[], Iterator[str]]]:
    """By name, what prints lines of the table."""

    def latencies() -> Iterator[str]:
        yield f"| event to stored, embedded, 1,000/s | 100 ms | {latency_embedded(1_000, 60)} |"
        for rate, reach in ((1_000, "300 ms"), (20_000, "")):
            found = latency(kafka, server, rate, 60)
            yield f"| event to stored, Kafka to CrateDB, {rate:,}/s | {reach} | {found} |"

    def throughput() -> Iterator[str]:
        figure = kafka_to_crate(kafka, server, 500_000, 3)
        per_s = f"{figure.count / figure.ours:,.0f}/s"
        what = f"{figure.name}, against a bare loop"
        yield f"| {what} | {figure.reach} | {figure.ratio:.2f}x ({per_s}) |"

    return {
        "throughput": throughput,
        "latency": latencies,
        "memory": lambda: memory(kafka, server, 10_000_000),
    }


def main() -> None:
    """Print a Markdown table."""
    wanted = " ".join(sys.argv[1:])
    print(HEADER)
    with kafka_server.started() as kafka, crate.started() as server:
        for name, lines in figures(kafka, server).items():
            if wanted in name:
                for line in lines():
                    print(line, flush=True)


if __name__ == "__main__":
    main()
