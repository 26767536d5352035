"""Kafka's figures of docs/benchmarks.md: `python -m tests.benchmarks.kafka [part of a name]`.

Each against Kafka's own tool, which gets the same bytes and settings and says itself how long it
took: the start of its virtual machine does not count. A broker is started for it.
"""

from __future__ import annotations

import gc
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from climatestream import fastcodec, pipeline
from climatestream.brokers.kafka import KafkaBroker
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.open import open_broker
from climatestream.ingest import UNSTATED, Ingest
from climatestream.meter import Counts, Meter
from climatestream.model import BATCH_ROWS, FieldType
from climatestream.ports import Store
from climatestream.stages import ahead
from climatestream.worker import prepared
from tests.benchmarks.figures import batches
from tests.benchmarks.timing import HEADER, ROUNDS, Figure
from tests.services.kafka import java, resolve_jars
from tests.services.kafka_server import Kafka, new_topic, started

PARTITIONS = 4
HEAP = "512m"
BATCH_BYTES = 262_144
"""The batches of Kafka's producer [bytes]: with its default of 16 kB it is slower."""


class NoStore:
    """A store that is only asked what it has."""

    def field_types(self) -> dict[str, FieldType]:
        """Nothing."""
        return {}


def measure(*things: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """Median of the seconds that each thing reports, run in turn; a first run is not counted."""
    kept: list[list[float]] = [[] for _ in things]
    for number in range(rounds + 1):
        for call, times in zip(things, kept, strict=True):
            gc.collect()
            seconds = call()
            if number:
                times.append(seconds)
    return [statistics.median(times) for times in kept]


@contextmanager
def new_broker(kafka: Kafka) -> Iterator[KafkaBroker]:
    """A broker over a topic of its own."""
    with open_broker(kafka.url(new_topic())) as broker:
        broker.ensure_topic(TopicSettings(partitions=PARTITIONS))
        yield broker


def publish(kafka: Kafka, readings: int, rounds: int = ROUNDS) -> list[Figure]:
    """Ready bytes to Kafka, and columns to Kafka."""
    made = batches(readings)
    ready = [(fastcodec.keys(batch.cells), fastcodec.encode(batch)) for batch in made]
    count = sum(map(len, made))
    with tempfile.TemporaryDirectory() as name:
        payload = Path(name) / "payload"
        payload.write_bytes(b"\n".join(value for _, values in ready for value in values))

        def bytes_() -> float:
            with new_broker(kafka) as broker, broker.producer() as producer:
                began = time.perf_counter()
                for keys, values in ready:
                    producer.publish(keys, values)
                assert producer.flush() == count
                return time.perf_counter() - began

        def columns() -> float:
            with new_broker(kafka) as broker, broker.producer() as producer:
                began = time.perf_counter()
                assert pipeline.publish(made, producer, Counts()) == count
                return time.perf_counter() - began

        def tool() -> float:
            with new_broker(kafka) as broker:
                settings = (
                    f"bootstrap.servers={kafka.servers} acks=all enable.idempotence=true "
                    f"compression.type=lz4 linger.ms=20 batch.size={BATCH_BYTES}"
                )
                said = run(
                    *("org.apache.kafka.tools.ProducerPerformance", "--topic", broker.topic),
                    *("--num-records", str(count), "--throughput", "-1"),
                    *("--payload-file", str(payload), "--command-property", *settings.split()),
                )
            match = re.search(r"^\d+ records sent, ([\d.]+) records/sec.*99th", said, re.MULTILINE)
            assert match is not None, said
            return count / float(match[1])

        yardstick = "Kafka's ProducerPerformance"
        ready_s, columns_s, theirs_s = measure(bytes_, columns, tool, rounds=rounds)
        return [
            Figure("JSON bytes to Kafka", yardstick, ready_s, theirs_s, count, ""),
            Figure("columns to Kafka", yardstick, columns_s, theirs_s, count, "1.0x"),
        ]


def consume(kafka: Kafka, readings: int, rounds: int = ROUNDS) -> list[Figure]:
    """Kafka to blocks of bytes, and on to rows; joining a group counts, as it does for the tool."""
    made = batches(readings)
    count = sum(map(len, made))
    with new_broker(kafka) as broker:
        with broker.producer() as producer:
            pipeline.publish(made, producer, Counts())
        groups = iter(range(10_000))

        def take(decode: bool) -> float:
            left = count
            began = time.perf_counter()
            with broker.consumer(f"ours-{next(groups)}") as consumer:
                while left:
                    messages = consumer.poll(BATCH_ROWS, 1.0)
                    left -= sum(map(len, messages))
                    if decode and messages:
                        fastcodec.decode(messages, UNSTATED, {})
                return time.perf_counter() - began

        def to_rows() -> float:
            """As `worker.work` takes them, without the writing."""
            left, never = count, threading.Event()
            store = cast("Store", NoStore())
            ingest = Ingest(store, UNSTATED, fastcodec.decode)
            meter = Meter(store, broker.topic, dict)
            began = time.perf_counter()
            with (
                broker.consumer(f"ours-{next(groups)}") as consumer,
                closing(
                    ahead(
                        prepared(consumer, ingest, meter, lambda: False, never, BATCH_ROWS),
                        *(1, "decode"),
                    )
                ) as decoded,
            ):
                for batch in decoded:
                    left -= sum(map(len, batch.messages))
                    if not left:
                        never.set()
                        return time.perf_counter() - began
            raise AssertionError("the worker ends only when it is told to")

        def tool() -> float:
            said = run(
                *("org.apache.kafka.tools.ConsumerPerformance", "--topic", broker.topic),
                *("--bootstrap-server", kafka.servers, "--num-records", str(count)),
                *("--group", f"theirs-{next(groups)}", "--hide-header"),
            )
            line = next(line for line in said.splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line))
            began, ended = (
                time.mktime(time.strptime(text.strip()[:19], "%Y-%m-%d %H:%M:%S"))
                + int(text.strip()[20:]) / 1000
                for text in line.split(",")[:2]
            )
            return ended - began

        yardstick = "Kafka's ConsumerPerformance"
        blocks_s, one_thread_s, worker_s, theirs_s = measure(
            lambda: take(decode=False), lambda: take(decode=True), to_rows, tool, rounds=rounds
        )
        return [
            Figure("Kafka to blocks of bytes", yardstick, blocks_s, theirs_s, count, "1.0x"),
            Figure("Kafka to rows, on one thread", yardstick, one_thread_s, theirs_s, count, ""),
            Figure(
                "Kafka to rows, as the worker does", yardstick, worker_s, theirs_s, count, "1.0x"
            ),
        ]


def run(*command: str) -> str:
    """What one of Kafka's tools prints."""
    ended = subprocess.run(
        java(resolve_jars("kafka-tools"), HEAP, *command),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


FIGURES: dict[str, Callable[[Kafka, int], list[Figure]]] = {"publish": publish, "consume": consume}


def main() -> None:
    """Print a Markdown table."""
    wanted = " ".join(sys.argv[1:])
    with started() as kafka:
        print(HEADER)
        for name, figure in FIGURES.items():
            if wanted in name:
                for one in figure(kafka, 400_000):
                    print(one.line(), flush=True)


if __name__ == "__main__":
    main()
