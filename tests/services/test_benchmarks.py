"""The benchmarks over real servers still run; what they measure is for whoever asks."""

from __future__ import annotations

from unittest.mock import patch

from tests.benchmarks import crate, servers, timing
from tests.benchmarks import kafka as kafka_figures
from tests.services.crate import Server
from tests.services.kafka_server import Kafka


def test_writing_is_measured(cratedb: Server) -> None:
    with patch.object(timing.compare, "__defaults__", (1,)):
        figures = crate.measure(cratedb, 200)
    assert all(figure.ratio > 0 for figure in figures)


def test_publishing_and_consuming_is_measured(kafka: Kafka) -> None:
    found = [*kafka_figures.publish(kafka, 5_000, 1), *kafka_figures.consume(kafka, 5_000, 1)]
    assert all(figure.ratio > 0 for figure in found)


def test_the_way_from_kafka_to_cratedb_is_measured(kafka: Kafka, cratedb: Server) -> None:
    assert servers.kafka_to_crate(kafka, cratedb, 5_000, 1).ratio > 0


def test_latency_is_measured(kafka: Kafka, cratedb: Server) -> None:
    assert "p50/p95/p99" in servers.latency(kafka, cratedb, 1_000, 8)
    assert "p50/p95/p99" in servers.latency_embedded(1_000, 6)


def test_memory_is_measured(kafka: Kafka, cratedb: Server) -> None:
    lines = list(servers.memory(kafka, cratedb, 10_000))
    assert [line.split(",")[0] for line in lines] == [
        "| memory of publish",
        "| memory of consume into CrateDB",
        "| memory of consume into DuckDB",
        "| memory of audit over DuckDB",
    ]
