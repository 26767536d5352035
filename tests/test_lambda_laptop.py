"""The deployed handler behind the local event source mapping, and the command around both."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from climatestream.audit import Auditor
from climatestream.aws.answers import Again, Outcome
from climatestream.aws.destination import (
    FolderDestination,
    Form,
    discarded_offsets,
    read_destination,
    topic_of,
)
from climatestream.aws.environments import unpack
from climatestream.aws.event_source import EventPollers
from climatestream.aws.handler import Function
from climatestream.aws.laptop import artefact, variables_of
from climatestream.aws.mapping_event import EventSource, records_of
from climatestream.aws.mapping_settings import EventSourceMapping
from climatestream.brokers.memory import MemoryBroker
from climatestream.cli import invoke
from climatestream.codec import decode
from climatestream.errors import UsageError
from climatestream.model import Messages
from climatestream.stores.duckdb import DuckDBStore
from tests.crate_answers import BY_NAME
from tests.crate_double import CrateDouble
from tests.lambda_events import Context, message

SOURCE = EventSource("127.0.0.1:9092")
BROKER = "kafka://127.0.0.1:1/era5"
STORE = "crate://crate@127.0.0.1:1/demo"


@pytest.fixture
def double() -> Iterator[CrateDouble]:
    with CrateDouble().serving() as served:
        yield served


@pytest.mark.parametrize("again", ["onwards", "listed"])
def test_the_handler_loses_nothing_however_aws_reads_its_answers(
    double: CrateDouble, again: Again
) -> None:
    """The store refuses a row in the middle for now, and is away altogether for a while."""
    broker = MemoryBroker("era5", partitions=3)
    with broker.producer() as producer:
        for number in range(600):
            value = message(latitude=number / 100)
            producer.publish([b"%d" % number], [b"poison" if number % 50 == 7 else value])
    double.script(BY_NAME["the write queue is full"], times=6, offset=33)
    double.script(BY_NAME["code 5030"], times=4)
    environment = {"CLIMATESTREAM_STORE": f"crate://writer@127.0.0.1:{double.port}/demo"}
    function = Function(environment)
    partial = []

    def invoked(event: bytes) -> Outcome:
        answer = function(orjson.loads(event), Context(seconds=0.3))
        partial.append(len(answer["batchItemFailures"]))
        return Outcome("id", orjson.dumps(answer))

    mapping = EventSourceMapping(batch_size=90, window_s=0.0)
    pollers = EventPollers(
        mapping, SOURCE, invoked, concurrency=1, again=again, waits_s=(0.001, 0.004)
    )
    stop = threading.Event()
    with broker.consumer("g") as consumer:
        pollers.run(
            consumer,
            finished=lambda: sum(broker.committed("g").values()) == 600,
            stop=stop,
        )
    function.close()
    letters = double.others["dead_letters"]
    assert any(partial), "no answer was partial: the test shows nothing"
    assert len(double.rows) == 588
    assert len({(one["partition"], one["offset"]) for one in letters}) == len(letters) == 12


# ------------------------------------------------------------------- on-failure destinations


def discard(folder: Path, block: Messages) -> None:
    """Give the messages of a block up, into a folder."""
    from climatestream.aws.destination import Discarded

    form = Form(SOURCE, "climatestream")
    discarded = Discarded(records_of(block), "RetryAttemptsExhausted", "id", 3)
    FolderDestination(folder, form).write(discarded)


BLOCK = Messages(
    "era5",
    1,
    [4, 6],
    [1_756_000_000_000, 1_756_000_000_001],
    [b"54.9,8.6", None],
    [b'{"a":1}', None],
    [(("units", b"\xff"),), ()],
)


def test_what_was_given_up_is_read_again_whole(tmp_path: Path) -> None:
    discard(tmp_path, BLOCK)
    first, second = read_destination(str(tmp_path), BROKER)
    assert first.key == b"54.9,8.6"
    assert first.value == b'{"a":1}'
    assert first.headers == (("units", b"\xff"),)
    assert (first.topic, first.partition, first.offset) == ("era5", 1, 4)
    assert first.published_at_ms == 1_756_000_000_000
    assert first.reason == "discarded"
    assert first.error == "era5[1]@4: RetryAttemptsExhausted after 3 invocations"
    assert (second.key, second.value) == (None, None)
    assert discarded_offsets(str(tmp_path), BROKER, "era5") == {1: {4, 6}}
    assert discarded_offsets(str(tmp_path), BROKER, "another") == {}


def test_audit_counts_what_a_destination_holds_as_dead(tmp_path: Path) -> None:
    broker = MemoryBroker("era5", partitions=1, keep=tmp_path)
    with (
        broker,
        DuckDBStore(tmp_path / "s.duckdb") as store,
        broker.producer() as producer,
        broker.consumer("g") as consumer,
    ):
        producer.publish([b"a", b"b", b"c"], [message(), message(), message()])
        consumer.commit({0: 3})
        auditor = Auditor(broker, store, "g", "d", decode)
        assert auditor.audit().total == {"missing": 3}
        auditor.discarded = {0: {0, 2}}
        assert auditor.audit().total == {"missing": 1, "dead": 2}


def test_a_destination_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no destination of discarded records"):
        list(read_destination(str(tmp_path / "absent"), BROKER))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="is no record of a discarded batch"):
        list(read_destination(str(tmp_path), BROKER))


def test_a_topic_destination_is_in_the_same_cluster_with_the_same_options() -> None:
    url = "kafka://a:1,b:2/era5?security.protocol=SSL"
    assert topic_of("kafka://letters", url) == "kafka://a:1,b:2/letters?security.protocol=SSL"


# ------------------------------------------------------------------------------- the command


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What the command says as it ends with this exit code."""
    assert invoke(["lambda", *arguments]) == code
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--BatchSize", "0"), "EventSourceMapping.BatchSize is 0: expected an integer of 1 to"),
        (("--batch-size", "0"), "EventSourceMapping.BatchSize is 0"),
        (("--maximum-record-age-in-seconds", "5"), "60 to 604800"),
        (("--Timeout", "900"), "Function.Timeout is 900: expected an integer of 1 to 840"),
        (("--StartingPosition", "EARLIEST"), "TRIM_HORIZON, LATEST or AT_TIMESTAMP"),
        (("--keep", "soon"), "soon"),
        (("--in-process", "--python", "python3"), "leave out --zip, --python and --log"),
        (("--zip", "absent.zip"), "`make lambda` builds it"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    found = said(capsys, "--broker", BROKER, "--store", STORE, *arguments)
    assert expected in found
    assert len(found.strip().splitlines()) == 1


def test_a_store_that_the_function_can_not_write_to_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = said(capsys, "--broker", BROKER, "--store", "duckdb:a.duckdb")
    assert "the function writes to CrateDB alone" in found


def test_what_is_deployed_runs_where_there_is_the_python_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    local = Path("dist/climatestream-lambda-local.zip")
    assert artefact(None, None) == (local, sys.executable)
    for file in ("dist/climatestream-lambda-arm64.zip", ".venv-lambda/bin/python"):
        assert artefact(None, None) == (local, sys.executable)
        Path(file).parent.mkdir(parents=True)
        Path(file).touch()
    deployed = Path("dist/climatestream-lambda-arm64.zip")
    assert artefact(None, None) == (deployed, str(tmp_path / ".venv-lambda/bin/python"))
    assert artefact(Path("a.zip"), None) == (Path("a.zip"), sys.executable)
    assert artefact(None, "python3") == (local, "python3")


def test_a_file_that_is_no_zip_is_told(tmp_path: Path) -> None:
    file = tmp_path / "function.zip"
    file.write_bytes(b"no zip")
    with pytest.raises(UsageError, match="can't be unpacked"):
        unpack(file, tmp_path / "code")


def test_the_function_is_told_the_store_and_how_to_get_in() -> None:
    environment = {"CLIMATESTREAM_STORE_PASSWORD": "secret", "HOME": "/root"}
    assert variables_of(STORE, "era5", None, environment) == {
        "CLIMATESTREAM_STORE": STORE,
        "CLIMATESTREAM_STORE_PASSWORD": "secret",
        "CLIMATESTREAM_DATASET": "era5",
    }


def test_an_event_as_aws_documents_it_is_what_we_send() -> None:
    """The self-managed example of AWS's page, but for its made-up key and headers."""
    (record,) = records_of(
        Messages("mytopic", 0, [15], [1545084650987], [b"k"], [b"Hello, this is a test."],
                 [(("headerKey", b"headerValue"),)])
    )  # fmt: skip
    event = orjson.loads(EventSource("b-2:9092,b-1:9092").event([record]))
    assert event == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": "b-2:9092,b-1:9092",
        "records": {
            "mytopic-0": [
                {
                    "topic": "mytopic",
                    "partition": 0,
                    "offset": 15,
                    "timestamp": 1545084650987,
                    "timestampType": "CREATE_TIME",
                    "key": base64.b64encode(b"k").decode(),
                    "value": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                    "headers": [
                        {"headerKey": [104, 101, 97, 100, 101, 114, 86, 97, 108, 117, 101]}
                    ],
                }
            ]
        },
    }
