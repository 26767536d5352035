"""`climatestream doctor` over real servers: what works, what does not, what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from climatestream.doctor_servers import examine_broker, examine_crate
from climatestream.findings import Finding
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_tables import User
from tests.services.crate import Server
from tests.services.kafka_server import Kafka, new_topic

SCHEMA = "climatestream_test_doctor"
READER, WRITER = "climatestream_test_reader", "climatestream_test_writer"


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def found(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def make(kafka: Kafka, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    admin.create_topics([NewTopic(topic, num_partitions=3, config=config)])[topic].result()


def test_a_topic_that_is_fit_is_ok(kafka: Kafka) -> None:
    topic = new_topic()
    make(kafka, topic, **{"retention.ms": "172800000"})
    findings = examine_broker(kafka.url(topic), "nobody")
    assert set(states(findings).values()) == {"ok"}
    assert found(findings, "topic").found.startswith(f"{topic}: 3 partitions, 1 copies")
    assert found(findings, "cleanup policy").found == "messages are kept 2 days"
    assert found(findings, "rights in Kafka").found == "may read and write the topic"
    assert "0 messages yet, 0 members" in found(findings, "group").found


def test_a_topic_that_is_missing_is_no_fault(kafka: Kafka) -> None:
    findings = examine_broker(kafka.url(new_topic()), "nobody")
    assert states(findings) == {"broker": "ok", "topic": "missing"}


def test_a_compacted_topic_is_broken(kafka: Kafka) -> None:
    topic = new_topic()
    make(kafka, topic, **{"cleanup.policy": "compact"})
    policy = found(examine_broker(kafka.url(topic), "nobody"), "cleanup policy")
    assert policy.state == "broken"
    assert "the key is the cell" in policy.found


@pytest.fixture
def store(cratedb: Server) -> Iterator[CrateStore]:
    """Tables, a writer and a reader."""
    store = CrateStore(cratedb.at(SCHEMA))
    store.drop(users=[READER, WRITER])
    store.init(shards=1, replicas="0", writer=User(WRITER, "w"), reader=User(READER, "r"))
    yield store
    store.drop(users=[READER, WRITER])


def examine(server: Server, user: str = "crate") -> list[Finding]:
    return examine_crate(f"crate://{user}@{server.address.server}/{SCHEMA}")


def test_a_store_that_is_fit_is_ok(
    cratedb: Server, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(examine(cratedb)) == {"store": "ok", "tables": "ok", "rights": "ok"}
    monkeypatch.setenv("CLIMATESTREAM_STORE_PASSWORD", "w")
    assert states(examine(cratedb, WRITER)) == {"store": "ok", "tables": "ok", "rights": "ok"}


def test_a_reader_is_told_what_it_may_not(
    cratedb: Server, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIMATESTREAM_STORE_PASSWORD", "r")
    rights = found(examine(cratedb, READER), "rights")
    assert rights.state == "missing"
    assert "--writer" in rights.todo


def test_a_wrong_password_and_missing_tables_are_broken(
    cratedb: Server, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIMATESTREAM_STORE_PASSWORD", "wrong")
    assert states(examine(cratedb, READER)) == {"store": "broken"}
    monkeypatch.delenv("CLIMATESTREAM_STORE_PASSWORD")
    store.drop()
    tables = found(examine(cratedb), "tables")
    assert tables.state == "broken"
    assert "climatestream store init" in tables.todo


def test_a_table_that_takes_no_writes_is_broken(cratedb: Server, store: CrateStore) -> None:
    cratedb.sql(f'ALTER TABLE {SCHEMA}.dead_letters SET ("blocks.write" = true)')
    try:
        writing = found(examine(cratedb), "writing")
    finally:
        cratedb.sql(f'ALTER TABLE {SCHEMA}.dead_letters RESET ("blocks.write")')
    assert writing.state == "broken"
    assert writing.found == "read-only: dead_letters: blocks.write"
