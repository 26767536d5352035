"""Execution environments: AWS's own runtime client, behind our Runtime API."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from climatestream.aws import environments as module
from climatestream.aws.environments import Environments, lay_out
from climatestream.aws.in_process import InProcess
from climatestream.aws.mapping_event import PAYLOAD_BYTES
from climatestream.aws.mapping_settings import Function
from climatestream.aws.runtime_api import RuntimeApi
from climatestream.errors import UsageError

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="AWS builds its runtime client for Linux alone"
)

CODE = """
import os, sys, time

print("cold start")
calls = 0

def handler(event, context):
    global calls
    calls += 1
    what = event.get("do")
    if what == "sleep":
        time.sleep(60)
    if what == "raise":
        raise ValueError("of the function")
    if what == "exit":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "memory":
        taken = bytearray(200 * 1024 * 1024)
        taken[::4096] = b"x" * len(taken[::4096])
    if what == "large":
        return "x" * event["bytes"]
    return {
        "event": event,
        "calls": calls,
        "pid": os.getpid(),
        "id": context.aws_request_id,
        "left_ms": context.get_remaining_time_in_millis(),
        "function": context.function_name,
        "memory": context.memory_limit_in_mb,
        "environment": dict(os.environ),
        "path": sys.path,
        "cwd": os.getcwd(),
    }
"""

Make = Callable[..., Environments]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "app.py").write_text(CODE)
    (folder / "broken.py").write_text("raise RuntimeError('at import')")
    (folder / "dies.py").write_text("import os; os._exit(4)")
    (folder / "hangs.py").write_text("import time; time.sleep(60)")
    return folder


@pytest.fixture
def make(code: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes environments; what they print is in log.txt."""
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log.txt").open("ab"))

        def make(**function: Any) -> Environments:
            settings = Function(**{"handler": "app.handler", "memory_mb": 128, **function})
            return stack.enter_context(Environments(settings, code, log=log))

        yield make


def call(environments: Environments, **event: Any) -> Any:
    """What the function answers."""
    outcome = environments(orjson.dumps(event))
    assert outcome.error is None, outcome.error
    return orjson.loads(outcome.answer)


def failure(environments: Environments, **event: Any) -> tuple[str, str]:
    """What kind of error the invocation ends with, and what it says."""
    outcome = environments(orjson.dumps(event))
    assert outcome.error is not None
    return outcome.error.kind, outcome.error.message


def test_a_process_is_started_once_and_used_again(make: Make, tmp_path: Path) -> None:
    environments = make()
    assert environments.cold_starts == 0
    answers = [call(environments, number=n) for n in range(3)]
    assert [answer["calls"] for answer in answers] == [1, 2, 3]
    assert [answer["event"] for answer in answers] == [{"number": n} for n in range(3)]
    assert len({answer["id"] for answer in answers}) == 3
    assert environments.cold_starts == 1
    log = (tmp_path / "log.txt").read_text()
    assert log.count("cold start") == 1
    assert log.count("REPORT RequestId: ") == 3
    assert log.count("Init Duration: ") == 1


def test_invocations_at_once_have_a_process_each(make: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    environments = make()
    with ThreadPoolExecutor(3) as pool:
        pids = {a["pid"] for a in pool.map(lambda n: call(environments, n=n), range(12))}
    assert 1 <= len(pids) == environments.cold_starts <= 3


def test_the_function_finds_what_aws_gives_it_and_nothing_of_ours(
    make: Make, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_OF_OURS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the role")
    answer = call(make(memory_mb=256, timeout_s=7, variables={"CLIMATESTREAM_KEEP": "5d"}))
    environment = answer["environment"]
    assert environment["LAMBDA_TASK_ROOT"] == answer["cwd"] == str(code)
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == answer["function"] == "climatestream"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == answer["memory"] == "256"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["CLIMATESTREAM_KEEP"] == "5d"
    assert environment["AWS_SECRET_ACCESS_KEY"] == "of the role"  # noqa: S105 - none
    assert environment["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert "A_SECRET_OF_OURS" not in environment
    assert 6_000 < answer["left_ms"] <= 7_001
    assert not any("site-packages" in entry for entry in answer["path"])


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("exit", "Runtime.ExitError", "exit status 3"),
        ("kill", "Runtime.ExitError", "SIGKILL"),
        ("sleep", "Sandbox.Timedout", "timed out after 1 seconds"),
        ("memory", "Runtime.ExitError", "signal: killed"),
    ],
)
def test_a_process_that_is_at_its_end_is_replaced(
    make: Make, what: str, kind: str, said: str
) -> None:
    environments = make(timeout_s=1)
    before = call(environments)["pid"]
    found = failure(environments, do=what)
    assert found[0] == kind
    assert said in found[1]
    assert not psutil.pid_exists(before)
    assert call(environments)["calls"] == 1
    assert environments.cold_starts == 2


def test_an_exception_is_an_answer_and_the_process_is_used_again(make: Make) -> None:
    environments = make()
    before = call(environments)["pid"]
    assert failure(environments, do="raise") == ("ValueError", "of the function")
    assert call(environments)["pid"] == before


def test_a_process_that_died_while_it_was_idle_is_replaced(make: Make) -> None:
    environments = make()
    process = psutil.Process(call(environments)["pid"])
    process.kill()
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert call(environments)["calls"] == 1


def test_an_answer_has_six_megabytes_at_most(make: Make) -> None:
    environments = make(memory_mb=512)
    assert failure(environments, do="large", bytes=PAYLOAD_BYTES)[0] == (
        "Function.ResponseSizeTooLarge"
    )
    assert len(call(environments, do="large", bytes=PAYLOAD_BYTES - 2)) == PAYLOAD_BYTES - 2


def test_an_event_of_six_megabytes_arrives_whole(make: Make) -> None:
    environments = make(memory_mb=1024)
    answer = call(environments, text="x" * 2_000_000)
    assert len(answer["event"]["text"]) == 2_000_000


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("broken.handler", "RuntimeError"),
        ("dies.handler", "Runtime.ExitError"),
        ("absent.handler", "Runtime.ImportModuleError"),
        ("app.absent", "Runtime.HandlerNotFound"),
    ],
)
def test_a_function_that_does_not_start_is_tried_twice_and_fails_the_invocation(
    make: Make, handler: str, kind: str
) -> None:
    environments = make(handler=handler)
    assert failure(environments)[0] == kind
    assert environments.cold_starts == 2
    assert environments.pids == []


def test_an_init_phase_that_hangs_times_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INIT_S", 0.2)
    assert failure(make(handler="hangs.handler", timeout_s=1))[0] == "Sandbox.Timedout"


def test_a_zip_is_unpacked_while_it_is_needed(code: Path, tmp_path: Path) -> None:
    """Also when all is ended at once, as before the process itself ends."""
    file = tmp_path / "function.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(code / "app.py", "app.py")
    with (
        (tmp_path / "log.txt").open("ab") as log,
        Environments(Function(handler="app.handler"), file, log=log) as environments,
    ):
        answer = call(environments)
        root = Path(answer["environment"]["LAMBDA_TASK_ROOT"])
        assert (root / "app.py").exists()
        environments.kill()
        assert not root.exists()


def test_closing_ends_every_process(code: Path, tmp_path: Path) -> None:
    with (
        (tmp_path / "log.txt").open("ab") as log,
        Environments(Function(handler="app.handler"), code, log=log) as environments,
    ):
        pid = call(environments)["pid"]
    assert not psutil.pid_exists(pid)


def test_an_interpreter_without_the_runtime_client_is_told(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(UsageError, match="has no awslambdaric.*--in-process"):
        lay_out(str(bare), tmp_path)
    with pytest.raises(UsageError, match="runs no Python"):
        lay_out(str(tmp_path / "absent"), tmp_path)


def test_the_runtime_api_knows_its_own_addresses_alone() -> None:
    api = RuntimeApi()
    try:
        for method, path in (("GET", "invocation/last"), ("POST", "invocation/x/y"), ("GET", "")):
            request = urllib.request.Request(
                f"http://{api.address}/2018-06-01/runtime/{path}", method=method, data=b""
            )
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=5)  # noqa: S310 - http:
        assert api.server_address[0] == "127.0.0.1"
    finally:
        api.close()


def test_in_process_an_exception_is_an_outcome_too(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with InProcess(Function(handler="app.handler", variables={"SAID": "yes"})) as function:
        outcome = function(b'{"a":1}')
        assert orjson.loads(outcome.answer)["event"] == {"a": 1}
        assert os.environ["SAID"] == "yes"
        failed = function(b'{"do":"raise"}').error
        assert failed is not None
        assert failed.kind == "ValueError"
    with (
        pytest.raises(UsageError, match="can't be imported"),
        InProcess(Function(handler="absent.handler")),
    ):
        pass
