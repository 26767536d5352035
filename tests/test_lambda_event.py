"""The events that AWS documents, as messages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream.aws.kafka_event import answer, blocks, cut
from climatestream.errors import UsageError
from climatestream.model import Messages
from tests.lambda_events import block, event, message

EVENTS = Path(__file__).parent / "events"
VALUE = orjson.dumps(
    {
        "timestamp": 1756684800000000000,
        "temperature": 295.6215515136719,
        "latitude": 40.90000000000115,
        "longitude": 31.100000000000172,
    }
)


def recorded(name: str) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads((EVENTS / f"{name}.json").read_bytes())
    return event


def only(name: str) -> Messages:
    (one,) = blocks(recorded(name))
    return one


@pytest.mark.parametrize("name", ["msk", "self_managed"])
def test_both_kinds_of_kafka_send_the_same(name: str) -> None:
    assert asdict(only(name)) == {
        "topic": "climate",
        "partition": 0,
        "offset": [15],
        "published_at_ms": [1756684812345],
        "key": [b"40.9000,31.1000"],
        "value": [VALUE],
        "headers": [()],
        "timestamp_type": (),
    }


def test_every_topic_partition_is_a_block_in_offset_order() -> None:
    found = blocks(recorded("partitions"))
    assert [(b.topic, b.partition, b.offset) for b in found] == [
        ("climate", 0, [0, 1]),
        ("climate", 3, [300, 301]),
        ("climate", 11, [1100, 1101]),
    ]


def test_a_key_may_be_absent_or_null_or_empty() -> None:
    assert only("keys").key == [None, None, b"", b"40.9000,31.1000"]


def test_a_tombstone_is_a_message_without_value() -> None:
    assert only("tombstones").value == [None, None, b"", VALUE]


def test_headers_are_bytes_whether_java_counts_them_with_a_sign_or_not() -> None:
    assert only("headers").headers == [
        (("units", b'{"swvl1":"m3 m-3"}'),),
        (("trace", b"\x00\x7f\x80\xff"), ("trace", b"\xff\x80"), ("empty", b""), ("null", b"")),
        (),
    ]


def test_the_time_of_appending_counts_as_the_time_of_publishing() -> None:
    one = only("log_append_time")
    assert (one.published_at_ms, one.timestamp_type) == ([1756684899999], [2])


def test_a_partition_may_come_as_text() -> None:
    """As the documentation of self-managed Kafka has it in places."""
    as_text = recorded("self_managed")
    as_text["records"]["climate-0"][0]["partition"] = "0"
    assert blocks(as_text)[0].partition == 0


@pytest.mark.parametrize(
    "other",
    [
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"eventSource": "aws:kafka"},
        {"eventSource": "aws:kafka", "records": []},
        {"eventSource": "aws:rmq", "records": {}},
        {},
        [],
        "ping",
        None,
    ],
)
def test_another_services_event_is_wrong_usage(other: Any) -> None:
    with pytest.raises(UsageError, match=r"expected that of a Kafka event source mapping"):
        blocks(other)


def test_an_event_without_records_has_no_messages() -> None:
    assert blocks({"eventSource": "aws:kafka", "records": {}}) == []
    assert blocks({"eventSource": "aws:kafka", "records": {"t-0": []}}) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 100])
def test_parts_keep_all_messages_in_order(count: int) -> None:
    whole = [
        block([message(latitude=n) for n in range(3)], 0),
        block([message(latitude=n) for n in range(2)], 1, offsets=[7, 9]),
    ]
    parts = list(cut(whole, count))
    assert all(sum(map(len, part)) == count for part in parts[:-1])
    for place, of_one in enumerate(whole):
        pieces = [b for part in parts for b in part if b.partition == place]
        for name in ("offset", "published_at_ms", "key", "value", "headers", "timestamp_type"):
            assert [one for b in pieces for one in getattr(b, name)] == list(getattr(of_one, name))


def test_an_answer_names_what_is_to_be_sent_again_as_the_event_does() -> None:
    """Of a partition the first that is not done, and all after it: right however AWS reads it."""
    messages = [
        block([message()] * 3, 0, topic="a-topic-with-dashes"),
        block([message()] * 3, 3, topic="a-topic-with-dashes", offsets=[4, 8, 9]),
    ]
    sent = event(*messages)
    said = answer(blocks(sent), {("a-topic-with-dashes", 3): 8})["batchItemFailures"]
    assert said == [
        {"itemIdentifier": {"topic-partition": "a-topic-with-dashes-3", "offset": offset}}
        for offset in (8, 9)
    ]
    assert "a-topic-with-dashes-3" in sent["records"]
    assert answer(blocks(sent), {}) == {"batchItemFailures": []}
