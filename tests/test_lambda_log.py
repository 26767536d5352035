"""The function's log: one JSON object a line, metrics as CloudWatch's format asks for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from climatestream.aws import log
from climatestream.aws.handler import Function
from tests.crate_answers import BY_NAME
from tests.crate_double import CrateDouble
from tests.lambda_events import Context, block, event, message


@pytest.fixture
def double() -> Iterator[CrateDouble]:
    with CrateDouble().serving() as served:
        yield served


@pytest.fixture
def function(double: CrateDouble) -> Iterator[Function]:
    made = Function(
        {
            "CLIMATESTREAM_STORE": f"crate://writer@127.0.0.1:{double.port}/demo",
            "AWS_LAMBDA_FUNCTION_NAME": "climate-writer",
        }
    )
    yield made
    made.close()


def only_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    said: dict[str, Any] = orjson.loads(line)
    return said


UNITS = {
    *("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second", "None"),
    *(
        f"{size}{what}{per}"
        for size in ("", "Kilo", "Mega", "Giga", "Tera")
        for what in ("bytes",)
        for per in ("", "/Second")
    ),
}


def check_format(document: dict[str, Any]) -> dict[str, Any]:
    """Whether a document keeps the rules of the Embedded Metric Format; its metrics' values.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    metadata = document["_aws"]
    assert set(metadata) == {"Timestamp", "CloudWatchMetrics"}
    assert type(metadata["Timestamp"]) is int
    values: dict[str, Any] = {}
    for directive in metadata["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 255
        assert directive["Dimensions"]
        for dimensions in directive["Dimensions"]:
            assert len(dimensions) <= 30
            for name in dimensions:
                assert isinstance(document[name], str)
                assert 1 <= len(document[name]) <= 1024
        assert 1 <= len(directive["Metrics"]) <= 100
        for definition in directive["Metrics"]:
            assert set(definition) <= {"Name", "Unit", "StorageResolution"}
            assert 1 <= len(definition["Name"]) <= 1024
            assert definition["Unit"] in UNITS
            value = document[definition["Name"]]
            of_many = value if isinstance(value, list) else [value]
            assert 1 <= len(of_many) <= 100
            assert all(type(one) in (int, float) for one in of_many)
            values[definition["Name"]] = value
    assert len(orjson.dumps(document)) < 256 * 1024
    return values


def test_an_invocation_is_one_line_with_its_counts_and_latency(
    function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = time.time_ns() // 10**6
    values_of = [message(), message(latitude=51), b"poison"]
    function(
        event(block(values_of, 2, published_at_ms=now_ms - 500)), Context(aws_request_id="r-1")
    )
    line = only_line(capsys)
    values = check_format(line)
    duration, latency = values.pop("Duration"), values.pop("EventToStored")
    assert values == {
        "Messages": 3,
        "Stored": 2,
        "DeadLetters": 1,
        "Expired": 0,
        "Failed": 0,
        "ColdStart": 1,
    }
    assert 0 < duration < 30_000
    assert len(latency) == 3
    assert all(500 <= one < 30_000 for one in latency)
    assert (line["FunctionName"], line["requestId"]) == ("climate-writer", "r-1")
    assert (line["level"], line["message"]) == ("INFO", "3 messages are done")
    assert line["firstDeadLetter"].startswith("climate[2]@2: not JSON")
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


def test_a_failure_says_from_where_and_why(
    double: CrateDouble, function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    double.script(BY_NAME["a shard is away"], offset=1)
    values_of = [[message(latitude=n + 9 * p) for n in range(3)] for p in (0, 1)]
    sent = event(block(values_of[0]), block(values_of[1], 1, offsets=[50, 51, 52]))
    function(sent, Context())
    line = only_line(capsys)
    values = check_format(line)
    assert (values["Messages"], values["Failed"], line["level"]) == (6, 2, "WARN")
    assert line["failedFrom"] == {"climate-0": 1}
    assert "UnavailableShardsException" in line["error"]
    assert line["message"] == "2 of 6 messages are to be sent again"


def test_without_an_answered_message_there_is_no_latency(
    double: CrateDouble, function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    """A metric without a value is no metric."""
    double.script(BY_NAME["a proxy's 503"], statement="", times=100)
    function(event(block([message()])), Context())
    assert "EventToStored" not in check_format(only_line(capsys))


def test_only_the_first_invocation_of_a_process_is_a_cold_start(
    function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    for cold in (1, 0, 0):
        function(event(block([message()])), Context())
        assert check_format(only_line(capsys))["ColdStart"] == cold


@pytest.mark.parametrize("count", [1, 99, 100, 101, 10_000])
def test_of_many_values_a_line_holds_a_hundred_spread_over_all(count: int) -> None:
    values = log.metrics("f", {"x": "Count"}, {"x": list(range(count))[::-1]})["x"]
    assert len(values) == min(count, 100)
    assert (values[0], values[-1]) == (0, count - 1)
    assert values == sorted(values)
    assert abs(values[len(values) // 2] - count / 2) <= count / 100 + 1
