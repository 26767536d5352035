"""The Lambda function says what is to be sent again, whatever the store does, and in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from climatestream.aws import attempt as attempts
from climatestream.aws import handler as handlers
from climatestream.aws.handler import Function, handler
from climatestream.errors import StoreError, UsageError
from climatestream.model import Messages
from climatestream.stores import crate_http
from tests.crate_answers import BY_NAME
from tests.crate_double import CrateDouble, Reply, Request
from tests.lambda_events import Context, block, event, invoke, message

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def double() -> Iterator[CrateDouble]:
    with CrateDouble().serving() as served:
        yield served


def environment(double: CrateDouble, **more: str) -> dict[str, str]:
    return {"CLIMATESTREAM_STORE": f"crate://writer@127.0.0.1:{double.port}/demo", **more}


@pytest.fixture
def told(double: CrateDouble) -> Iterator[Callable[..., Function]]:
    """Makes functions that are told more than where the store is."""
    made: list[Function] = []

    def make(**more: str) -> Function:
        made.append(Function(environment(double, **more)))
        return made[-1]

    yield make
    for function in made:
        function.close()


@pytest.fixture
def function(told: Callable[..., Function]) -> Function:
    return told()


def readings(count: int, partition: int = 0, first: int = 0) -> Messages:
    """Messages of different cells."""
    values = [message(latitude=partition + n / 1000) for n in range(first, first + count)]
    return block(values, partition, offsets=range(first, first + count))


def stored(double: CrateDouble) -> set[tuple[str, int]]:
    """Where the rows come from: source and offset."""
    return {(row["rank"][2], row["rank"][3]) for row in double.rows.values()}


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged."""
    return [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]


# ------------------------------------------------------------------------------- one event


def test_all_partitions_of_an_event_are_stored_at_once(
    double: CrateDouble, function: Function
) -> None:
    messages = [readings(3, partition) for partition in (0, 3, 11)]
    assert function(event(*messages), Context()) == {"batchItemFailures": []}
    assert len(double.inserts()) == 1
    assert stored(double) == {(f"climate/{p}", n) for p in (0, 3, 11) for n in range(3)}


def test_the_function_is_found_by_its_name_and_kept(
    double: CrateDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Lambda setting `climatestream.aws.handler.handler` has it."""
    monkeypatch.setattr(handlers, "_function", None)
    monkeypatch.setenv("CLIMATESTREAM_STORE", environment(double)["CLIMATESTREAM_STORE"])
    monkeypatch.delenv("CLIMATESTREAM_STORE_PASSWORD", raising=False)
    for first in (0, 5):
        assert handler(event(readings(5, first=first)), Context()) == {"batchItemFailures": []}
    assert len(double.rows) == 10
    assert double.connections == 1
    assert handlers._function is not None
    handlers._function.close()


def test_what_can_never_be_stored_is_a_dead_letter_and_done(
    double: CrateDouble, function: Function
) -> None:
    """Whole, with its key and headers, so that it can be published again."""
    poison = Messages(
        topic="climate",
        partition=2,
        offset=[4, 5, 6, 7],
        published_at_ms=[10, 11, 12, 13],
        key=[b"k", None, b"", b"k"],
        value=[message(), None, b"{broken", message(latitude=95)],
        headers=[(), (("trace", b"\xff"),), (), ()],
    )
    assert function(event(poison), Context()) == {"batchItemFailures": []}
    letters = double.others["dead_letters"]
    assert stored(double) == {("climate/2", 4)}
    assert [(one["offset"], one["reason"]) for one in letters] == [
        (5, "empty"),
        (6, "not-json"),
        (7, "out-of-range"),
    ]
    assert letters[0]["headers"] == '[["trace","/w=="]]'
    assert [one["key"] for one in letters] == [None, "", "aw=="]
    assert letters[1]["value"] == "e2Jyb2tlbg=="


def test_an_event_again_changes_nothing(double: CrateDouble, function: Function) -> None:
    sent = event(readings(20), block([b"poison"], 1))
    function(sent, Context())
    before = dict(double.rows), list(double.others["dead_letters"])
    assert function(sent, Context()) == {"batchItemFailures": []}
    assert (double.rows, double.others["dead_letters"]) == before


def test_an_event_without_records_is_done(function: Function) -> None:
    assert function(event(), Context()) == {"batchItemFailures": []}


# --------------------------------------------------------------------------------- failure


def test_a_store_that_is_away_has_every_partition_sent_again_from_its_first_offset(
    double: CrateDouble, function: Function
) -> None:
    double.script(BY_NAME["a proxy's 503"], statement="", times=1_000)
    sent = event(readings(3, 0, first=40), readings(2, 1, first=7))
    assert invoke(function, sent) == {"climate-0": 40, "climate-1": 7}
    double.scripts.clear()
    assert invoke(function, sent) == {}
    assert len(double.rows) == 5


def test_a_failure_in_one_partition_does_not_hold_up_another(
    double: CrateDouble, function: Function
) -> None:
    """What comes after the failed message in its own partition is sent again with it."""
    double.script(BY_NAME["a shard is away"], offset=12)
    sent = event(readings(5, 0, first=10), readings(5, 1, first=90))
    assert invoke(function, sent) == {"climate-0": 12}
    assert {offset for source, offset in stored(double) if source == "climate/1"} == set(
        range(90, 95)
    )
    again = event(readings(3, 0, first=12))
    assert invoke(function, again) == {}
    assert len(double.rows) == 10


def test_the_offset_that_is_reported_is_one_of_the_event(
    double: CrateDouble, function: Function
) -> None:
    """Offsets have gaps: after compaction, and where transactions ended."""
    gaps = block([message(latitude=n) for n in range(4)], offsets=[3, 8, 20, 21])
    double.script(BY_NAME["the disk is full"], offset=20)
    assert invoke(function, event(gaps)) == {"climate-0": 20}


def test_a_dead_letter_that_cannot_be_kept_holds_its_partition(
    double: CrateDouble, function: Function
) -> None:
    statement = 'INSERT INTO "demo"."dead_letters"'
    double.script(BY_NAME["a proxy's 503"], statement=statement)
    sent = event(block([message(), b"poison"]))
    assert invoke(function, sent) == {"climate-0": 0}
    assert invoke(function, sent) == {}
    assert len(double.others["dead_letters"]) == 1


@pytest.mark.parametrize("name", ["no table", "a wrong password", "a reader writes"])
def test_what_the_operator_must_mend_is_reported_until_it_is(
    double: CrateDouble, function: Function, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost meanwhile, and the log says what to do."""
    double.script(BY_NAME[name], statement="", times=1_000)
    sent = event(readings(2))
    assert invoke(function, sent) == {"climate-0": 0}
    (line,) = lines(capsys)
    assert (line["level"], line["Failed"]) == ("ERROR", 2)
    assert BY_NAME[name].message in line["error"]
    double.scripts.clear()
    assert invoke(function, sent) == {}


@pytest.mark.parametrize(
    "name", ["an error that nobody has seen", "a row's error that nobody has seen"]
)
def test_what_nobody_has_seen_is_raised(double: CrateDouble, function: Function, name: str) -> None:
    """It is a bug of one of us: the whole batch comes again, and Lambda counts an error."""
    sent = event(readings(2))
    double.script(BY_NAME[name], statement='INSERT INTO "demo"."climate_data"')
    with pytest.raises(StoreError, match="NullPointerException"):
        function(sent, Context())
    assert invoke(function, sent) == {}


def test_a_bug_is_raised_with_its_traceback(function: Function) -> None:
    sent = event(readings(1))
    with (
        patch.object(attempts.Consumer, "ingest", side_effect=ZeroDivisionError("bug")),
        pytest.raises(ZeroDivisionError, match="bug") as raised,
    ):
        function(sent, Context())
    assert any(frame.name == "_ingest" for frame in raised.traceback)


# ------------------------------------------------------------------------------ many parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PART", 4)


@pytest.mark.usefixtures("small_parts")
def test_a_large_event_is_done_in_parts(double: CrateDouble, function: Function) -> None:
    sent = event(readings(10, 0), readings(3, 1))
    assert invoke(function, sent) == {}
    assert [len(request["bulk_args"]) for request in double.inserts()] == [4, 4, 4, 1]
    assert len(double.rows) == 13


@pytest.mark.usefixtures("small_parts")
def test_after_a_failed_message_no_later_part_of_its_partition_is_tried(
    double: CrateDouble, function: Function
) -> None:
    double.script(BY_NAME["a shard is away"], offset=1)
    sent = event(readings(10, 0), readings(3, 1, first=50))
    assert invoke(function, sent) == {"climate-0": 1}
    assert stored(double) == {
        *(("climate/0", n) for n in (0, 2, 3)),
        *(("climate/1", n) for n in (50, 51, 52)),
    }


@pytest.mark.usefixtures("small_parts")
def test_a_store_that_goes_away_in_the_middle_keeps_what_was_done(
    double: CrateDouble, function: Function
) -> None:
    def away_from_the_second_on(request: Request) -> Reply | None:
        if request.get("bulk_args") and len(double.inserts()) > 1:
            return 503, b""
        return None

    double.respond(away_from_the_second_on, times=1_000)
    sent = event(readings(6, 0), readings(6, 1, first=20))
    assert invoke(function, sent) == {"climate-0": 4, "climate-1": 20}
    assert len(double.inserts()) == 2


# ----------------------------------------------------------------------------------- time


def slow(seconds: float) -> Callable[[Request], Reply | None]:
    def wait(request: Request) -> Reply | None:
        if request.get("bulk_args"):
            time.sleep(seconds)
        return None

    return wait


def test_without_time_nothing_is_begun(double: CrateDouble, function: Function) -> None:
    sent = event(readings(3, 0, first=5), readings(2, 1))
    assert invoke(function, sent, Context(seconds=0.0)) == {"climate-0": 5, "climate-1": 0}
    assert not double.asked


@pytest.mark.usefixtures("small_parts")
def test_what_there_is_no_time_for_is_left(
    double: CrateDouble, function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part is begun only if one took no longer than what is left; the next event goes on."""
    function(event(readings(1, 9)), Context())
    double.respond(slow(0.4), times=1_000)
    context = Context(seconds=1.5)
    from_offset = invoke(function, event(readings(40, 0)), context)["climate-0"]
    assert context.get_remaining_time_in_millis() > 0
    assert 0 < from_offset < 40
    assert from_offset % 4 == 0
    assert {n for source, n in stored(double) if source == "climate/0"} == set(range(from_offset))
    assert "time was over" in lines(capsys)[-1]["error"]


def test_a_store_that_does_not_answer_is_not_waited_for_too_long(
    double: CrateDouble, function: Function
) -> None:
    answered = threading.Event()

    def hang(_: Request) -> Reply | None:
        answered.wait(20)
        return None

    double.respond(hang, times=1)
    sent = event(readings(3, 0, first=5), readings(2, 1))
    context = Context(seconds=1.0)
    assert invoke(function, sent, context) == {"climate-0": 5, "climate-1": 0}
    assert context.get_remaining_time_in_millis() > 0
    answered.set()
    assert invoke(function, sent) == {}
    assert len(double.rows) == 5


def test_a_name_server_that_does_not_answer_is_not_waited_for_either(
    told: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    """And no second thread waits beside the first: memory does not grow while it lasts."""
    function = told()
    found = threading.Event()
    resolve = socket.getaddrinfo

    def hang(*arguments: Any, **more: Any) -> Any:
        found.wait(20)
        return resolve(*arguments, **more)

    sent = event(readings(3))
    with patch.object(socket, "getaddrinfo", hang):
        for _ in range(3):
            context = Context(seconds=0.5)
            assert invoke(function, sent, context) == {"climate-0": 0}
            assert context.get_remaining_time_in_millis() > 0
            assert sum(thread.name == "ingest" for thread in threading.enumerate()) == 1
        found.set()
        assert invoke(function, sent) == {}
    assert {line["error"] for line in lines(capsys)[:3]} == {"the store did not answer in time"}


# ---------------------------------------------------------------------------- connections


def test_a_connection_that_was_cut_without_a_word_is_not_noticed_in_the_answer(
    double: CrateDouble, function: Function
) -> None:
    """The next event succeeds, on a new connection: what stands between forgets idle ones."""
    function(event(readings(1)), Context())
    with patch.object(crate_http, "_has_ended", return_value=False):
        double.cut()
        assert invoke(function, event(readings(1, first=1))) == {}
    assert len(double.rows) == 2
    assert double.connections == 2


IDLE_S = 0.3

CLIENT = """
import sys
import orjson
from climatestream.aws.handler import handler
from tests.lambda_events import Context
for line in sys.stdin:
    print("answer", orjson.dumps(handler(orjson.loads(line), Context())).decode(), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system freezes no process")
def test_a_function_frozen_past_the_servers_idle_timeout_goes_on(double: CrateDouble) -> None:
    """As Lambda does between two invocations, with SIGSTOP and SIGCONT."""
    double.idle_s = IDLE_S
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment(double), "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def invoke(first: int) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(orjson.dumps(event(readings(3, first=first))) + b"\n")
            process.stdin.flush()
            return next(
                orjson.loads(line.removeprefix(b"answer "))
                for line in process.stdout
                if line.startswith(b"answer ")
            )

        assert invoke(0) == {"batchItemFailures": []}
        before = double.connections
        process.send_signal(signal.SIGSTOP)
        time.sleep(5 * IDLE_S)
        assert double.closed_idle == before
        process.send_signal(signal.SIGCONT)
        assert invoke(3) == {"batchItemFailures": []}
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    assert len(double.rows) == 6
    assert double.connections == before + 1


# ------------------------------------------------------------------------ what it is told


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "CLIMATESTREAM_STORE is not set: expected the store, as in crate://"),
        ({"CLIMATESTREAM_STORE": ""}, "CLIMATESTREAM_STORE is not set"),
        (
            {"CLIMATESTREAM_STORE": "duckdb:x.duckdb"},
            "CLIMATESTREAM_STORE is 'duckdb:x.duckdb', expected crate://",
        ),
        ({"CLIMATESTREAM_STORE": "crate:///demo"}, "is not known: expected crate://"),
        (
            {"CLIMATESTREAM_STORE": "crate://h/demo?sll=true"},
            "unknown option 'sll': did you mean 'ssl'",
        ),
        (
            {"CLIMATESTREAM_STORE": "crate://h/demo", "CLIMATESTREAM_KEEP": "a while"},
            "'a while' is no duration",
        ),
        (
            {
                "CLIMATESTREAM_STORE": "crate://h/demo",
                "CLIMATESTREAM_STORE_SECRET": "name",
                "CLIMATESTREAM_STORE_PASSWORD": "word",
            },
            "CLIMATESTREAM_STORE_SECRET is set, and so is another password",
        ),
    ],
)
def test_wrong_configuration_is_said_in_a_sentence(variables: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(").replace("?", r"\?")):
        Function(variables)


def test_wrong_configuration_is_an_error_of_every_invocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of the import, which would end the process, and have its reason looked for in vain."""
    monkeypatch.setattr(handlers, "_function", None)
    monkeypatch.delenv("CLIMATESTREAM_STORE", raising=False)
    for _ in range(2):
        with pytest.raises(UsageError, match="CLIMATESTREAM_STORE is not set"):
            handler(event(readings(1)), Context())


def test_a_message_without_dataset_gets_the_one_that_is_set(
    double: CrateDouble, told: Callable[..., Function]
) -> None:
    function = told(CLIMATESTREAM_DATASET="era5-land/hourly")
    named = message(latitude=51, dataset="era5/hourly")
    function(event(block([message(), named])), Context())
    assert {dataset for dataset, _, _ in double.rows} == {"era5-land/hourly", "era5/hourly"}


def test_without_a_dataset_it_is_unstated(double: CrateDouble, function: Function) -> None:
    function(event(readings(1)), Context())
    assert {dataset for dataset, _, _ in double.rows} == {"unstated"}


def test_what_is_older_than_is_kept_is_neither_stored_nor_sent_again(
    double: CrateDouble, told: Callable[..., Function], capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was stored before is dropped, at the first event and then now and again."""
    function = told(CLIMATESTREAM_KEEP="1h")
    now_ns = time.time_ns()
    messages = block([message(timestamp=now_ns), message(timestamp=now_ns - 7_200 * 10**9)])
    for _ in range(2):
        assert invoke(function, event(messages)) == {}
    assert len(double.rows) == 1
    assert [line["Expired"] for line in lines(capsys)] == [1, 1]
    deletes = [r for r in double.asked if r["stmt"].startswith("DELETE")]
    assert len(deletes) == 1
    assert deletes[0]["args"][0] == "unstated"
    assert abs(deletes[0]["args"][1] - (now_ns // 10**6 - 3_600_000)) < 60_000


# ------------------------------------------------------------------------------- telemetry


def test_every_invocation_leaves_a_row_for_each_partition(
    double: CrateDouble, told: Callable[..., Function]
) -> None:
    """`high_water` is null: the function does not know how far the topic goes."""
    function = told(AWS_LAMBDA_LOG_STREAM_NAME="2026/11/25/[1]abc")
    function(
        event(block([message(), b"poison", message(latitude=51)], 4), readings(1, 5)), Context()
    )
    rows = double.others["pipeline"]
    assert [(r["partition"], r["offset"], r["rows"], r["dead"], r["errors"]) for r in rows] == [
        (4, 3, 2, 1, 0),
        (5, 1, 1, 0, 0),
    ]
    for row in rows:
        assert (row["instance"], row["topic"]) == ("2026/11/25/[1]abc", "climate")
        assert row["high_water"] is row["queryable_ms"] is None
        assert row["batch_ms"] > 0
        assert row["stored_p50_ms"] > 0


def test_rows_that_the_store_could_not_take_come_with_the_next_event(
    double: CrateDouble, function: Function
) -> None:
    double.script(BY_NAME["a shard is away"], offset=0)
    function(event(readings(2)), Context())
    assert "pipeline" not in double.others
    function(event(readings(2)), Context())
    rows = double.others["pipeline"]
    assert [(row["errors"], row["offset"], row["rows"]) for row in rows] == [(1, 0, 0), (0, 2, 2)]


def test_telemetry_that_fails_fails_no_message(
    double: CrateDouble, function: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    double.script(BY_NAME["a proxy's 503"], statement='INSERT INTO "demo"."pipeline"')
    assert invoke(function, event(readings(2))) == {}
    assert [line["level"] for line in lines(capsys)] == ["INFO", "WARN"]
