"""The Lambda function against a real CrateDB: the same rows as the worker, and outages survived."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from climatestream import fastcodec
from climatestream.aws import configuration
from climatestream.aws.handler import Function
from climatestream.ingest import UNSTATED, Ingest
from climatestream.model import Messages
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_tables import User
from tests.lambda_events import NS, Context, block, event, invoke, message
from tests.services.crate import Server
from tests.services.test_crate_store import clean

SCHEMA = "climatestream_test_lambda"
WORKERS = "climatestream_test_lambda_worker"
WRITER = User("climatestream_test_lambda_writer", "the first password")


@pytest.fixture(autouse=True)
def store(cratedb: Server) -> Iterator[CrateStore]:
    with clean(cratedb, SCHEMA) as opened:
        yield opened
    CrateStore(cratedb.at(SCHEMA)).drop(users=[WRITER.name])


@pytest.fixture
def own(cratedb: Server) -> Any:
    """A server that is ours to kill and freeze."""
    if not cratedb.own:
        pytest.skip("a server that was named is not killed or frozen by tests")
    return cratedb


def variables(server: Server, user: str | None = None, **more: str) -> dict[str, str]:
    address = server.at(SCHEMA, user)
    tls = "?ssl=true" if address.ssl else ""
    return {"CLIMATESTREAM_STORE": f"{address}{tls}", **more}


@pytest.fixture
def function(cratedb: Server) -> Iterator[Function]:
    made = Function(variables(cratedb, AWS_LAMBDA_LOG_STREAM_NAME="the log stream"))
    yield made
    made.close()


def readings(count: int, first: int = 0, partition: int = 0) -> Messages:
    values = [
        message(latitude=n / 1000, longitude=partition, u10=n + 0.5)
        for n in range(first, first + count)
    ]
    return block(values, partition, offsets=range(first, first + count))


def select(server: Server, sql: str, schema: str = SCHEMA) -> list[list[Any]]:
    for table in ("climate_data", "dead_letters", "pipeline", "datasets"):
        server.sql(f"REFRESH TABLE {schema}.{table}")
    rows: list[list[Any]] = server.sql(sql.replace("demo.", f"{schema}."))["rows"]
    return rows


def offsets(server: Server) -> list[int]:
    """The offset of every row: one twice would be a reading doubled."""
    rows = select(server, 'SELECT "offset" FROM demo.climate_data ORDER BY 1')
    return [offset for (offset,) in rows]


ALL = """SELECT dataset, cell, country, "timestamp", data, preliminary, published_at, source,
    "offset" FROM demo.climate_data ORDER BY dataset, cell, "timestamp" """
DEAD = """SELECT topic, "partition", "offset", "key", "value", headers, reason, error
    FROM demo.dead_letters ORDER BY 2, 3"""
DESCRIBED = "SELECT * FROM demo.datasets ORDER BY dataset, variable"


def test_it_leaves_what_the_worker_leaves(cratedb: Server, function: Function) -> None:
    """Rows, dead letters and descriptions; of the same messages, in other batches."""
    mixed = [
        message(dataset="era5/hourly", country="DEU", station="a", calm=True),
        message(station=5),
        None,
        message(temperature=281.0),
        message(timestamp=NS + 3_600 * 10**9, preliminary=True, swvl1=0.3),
        b"{broken",
        message(latitude=95),
    ]
    whole = [block(mixed, 0, offsets=[2, 3, 5, 8, 13, 21, 34]), block([message(longitude=20)], 1)]
    with clean(cratedb, WORKERS) as workers:
        Ingest(workers, UNSTATED, fastcodec.decode)(whole)
        expected = [select(cratedb, sql, WORKERS) for sql in (ALL, DEAD, DESCRIBED)]
    CrateStore(cratedb.at(WORKERS)).drop()
    for n in range(len(mixed)):
        assert invoke(function, event(block(mixed[n : n + 1], offsets=[whole[0].offset[n]]))) == {}
    assert invoke(function, event(whole[1])) == {}
    assert [select(cratedb, sql) for sql in (ALL, DEAD, DESCRIBED)] == expected
    assert len(expected[0]) == 4
    assert [row[6] for row in expected[1]] == ["wrong-type", "empty", "not-json", "out-of-range"]


def test_an_invocation_leaves_a_row_of_telemetry_for_each_partition(
    cratedb: Server, function: Function
) -> None:
    invoke(function, event(readings(300), block([b"poison"], 1)))
    rows = select(
        cratedb,
        """SELECT instance, topic, "partition", "offset", high_water, rows, dead, errors,
            batch_ms > 0, stored_p95_ms > 0 FROM demo.pipeline ORDER BY "partition" """,
    )
    assert rows == [
        ["the log stream", "climate", 0, 300, None, 300, 0, 0, True, True],
        ["the log stream", "climate", 1, 1, None, 0, 1, 0, True, True],
    ]


def test_a_store_that_is_away_for_a_while_loses_and_doubles_nothing(
    own: Any, function: Function
) -> None:
    """Killed between two events, and started again: then the same event goes through."""
    assert invoke(function, event(readings(500))) == {}
    own.kill()
    again = event(readings(500, 500), readings(500, 5_000, 1))
    for _ in range(3):
        context = Context(seconds=5.0)
        assert invoke(function, again, context) == {"climate-0": 500, "climate-1": 5_000}
        assert context.get_remaining_time_in_millis() > 0
    own.start()
    deadline = time.monotonic() + 30
    while invoke(function, again):  # it answers before it shows its tables
        assert time.monotonic() < deadline
    assert offsets(own) == [*range(1_000), *range(5_000, 5_500)]


def test_a_store_that_stands_still_is_left_in_time(own: Any, function: Function) -> None:
    """What it took without saying so is sent again, and not doubled."""
    assert invoke(function, event(readings(100))) == {}
    sent = event(readings(2_000, 100))
    own.freeze()
    try:
        context = Context(seconds=2.0)
        began = time.monotonic()
        assert invoke(function, sent, context) == {"climate-0": 100}
        assert context.get_remaining_time_in_millis() > 0
        assert time.monotonic() - began < 2.0
    finally:
        own.thaw()
    assert invoke(function, sent) == {}
    assert offsets(own) == list(range(2_100))


def test_a_server_that_stops_in_the_middle_of_an_event_is_gone_on_with(
    own: Any, function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    """Invoked as a mapping does, from where the answer says, while the server stands still."""
    total, done = 6_000, 0
    stop = threading.Timer(0.2, own.freeze)
    go_on = threading.Timer(3.0, own.thaw)
    stop.start()
    go_on.start()
    try:
        while done < total:
            count = min(500, total - done)
            answer = invoke(function, event(readings(count, done)), Context(seconds=1.0))
            done = answer.get("climate-0", done + count)
    finally:
        stop.join()
        go_on.join()
        own.thaw()
    assert offsets(own) == list(range(total))
    logged = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line["Failed"] for line in logged if "Failed" in line) > 0


def test_a_password_that_is_renewed_costs_no_message_a_second_try(
    cratedb: Server, store: CrateStore
) -> None:
    """Of a user who may only write, as the function's should be."""
    CrateStore(cratedb.at(SCHEMA)).init(replicas="0", writer=WRITER)
    kept = [WRITER.password]
    with patch.object(configuration, "fetch", lambda _: kept[-1]):
        function = Function(
            variables(cratedb, WRITER.name) | {configuration.SECRET: "climate/writer"}
        )
        assert invoke(function, event(readings(3))) == {}
        cratedb.sql(f"ALTER USER {WRITER.name} SET (password = 'the second password')")
        assert invoke(function, event(readings(3, 3))) == {"climate-0": 3}
        kept.append("the second password")
        assert invoke(function, event(readings(3, 3))) == {}
        function.close()
    assert offsets(cratedb) == list(range(6))


def test_what_is_older_than_is_kept_is_dropped(cratedb: Server, function: Function) -> None:
    now_ns = time.time_ns()
    old, new = now_ns - 7_200 * 10**9, now_ns
    assert invoke(function, event(block([message(timestamp=old), message(timestamp=new)]))) == {}
    keeping = Function(variables(cratedb, CLIMATESTREAM_KEEP="1h"))
    later = block([message(timestamp=old, latitude=1), message(timestamp=new, latitude=2)], 1)
    assert invoke(keeping, event(later)) == {}
    keeping.close()
    rows = select(cratedb, 'SELECT "timestamp" FROM demo.climate_data')
    assert rows == [[new // 10**6]] * 2
