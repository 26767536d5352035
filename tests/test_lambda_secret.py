"""The store's password comes from where AWS keeps it, when it is needed, and is never shown.

AWS's own SDK asks a stand-in on this machine, whose answers are as the services' references have
them: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html and
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
"""

from __future__ import annotations

import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from climatestream.aws.handler import Function
from climatestream.errors import UsageError
from tests.crate_double import CrateDouble, Reply, Request
from tests.lambda_events import Context, block, event, invoke, message

PASSWORD = "s3cret-Pa55"  # noqa: S105 - of a stand-in
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:climate/writer-AbCdEf"
SENT = event(block([message()]))


@dataclass
class Aws:
    """Secrets and parameters by name, and what was asked for."""

    kept: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def answer(self, target: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append((target, asked))
        name = asked.get("SecretId") or asked.get("Name")
        kept = self.kept.get(str(name))
        if kept is None:
            return 400, {"__type": "ResourceNotFoundException", "Message": "it is not there"}
        if isinstance(kept, tuple):
            return kept
        if target == "secretsmanager.GetSecretValue":
            return 200, {"Name": name, "SecretString": kept}
        assert target == "AmazonSSM.GetParameter"
        assert asked["WithDecryption"] is True
        return 200, {"Parameter": {"Name": name, "Type": "SecureString", "Value": kept}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    pytest.importorskip(
        "boto3", reason="AWS's SDK is not installed: pip install climatestream[msk]"
    )
    service = Aws()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, said = service.answer(self.headers["X-Amz-Target"], asked)
            content = orjson.dumps(said)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": url,
        "AWS_ENDPOINT_URL_SSM": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "of nobody",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CLIMATESTREAM_STORE_PASSWORD", raising=False)
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def double() -> Iterator[CrateDouble]:
    with CrateDouble().serving() as served:
        yield served


@pytest.fixture
def functions() -> Iterator[list[Function]]:
    made: list[Function] = []
    yield made
    for function in made:
        function.close()


def function_with(secret: str, double: CrateDouble, functions: list[Function]) -> Function:
    store = f"crate://writer@127.0.0.1:{double.port}/demo"
    functions.append(Function({"CLIMATESTREAM_STORE": store, "CLIMATESTREAM_STORE_SECRET": secret}))
    return functions[-1]


def basic(password: str) -> str:
    return "Basic " + b64encode(f"writer:{password}".encode()).decode()


def takes_only(double: CrateDouble, password: str) -> None:
    """Let the server refuse every other password."""

    def reply(_: Request) -> Reply | None:
        if double.authorizations[-1] == basic(password):
            return None
        return 401, b'password authentication failed for user "writer"'

    double.scripts.clear()
    double.respond(reply, times=1_000)


@pytest.mark.parametrize(
    ("secret", "kept"),
    [
        ("climate/writer", PASSWORD),
        (ARN, PASSWORD),
        (ARN, orjson.dumps({"username": "writer", "password": PASSWORD}).decode()),
        ("ssm:/climate/writer", PASSWORD),
        ("climate/writer", "{no JSON"),
    ],
)
def test_the_password_is_fetched_once(
    aws: Aws, double: CrateDouble, functions: list[Function], secret: str, kept: str
) -> None:
    aws.kept[secret.removeprefix("ssm:")] = kept
    function = function_with(secret, double, functions)
    assert not aws.asked
    for _ in range(3):
        assert invoke(function, SENT) == {}
    assert len(aws.asked) == 1
    password = PASSWORD if PASSWORD in kept else kept
    assert set(double.authorizations) == {basic(password)}


def test_it_is_fetched_once_too_while_the_store_is_away(
    aws: Aws, double: CrateDouble, functions: list[Function]
) -> None:
    aws.kept["name"] = PASSWORD
    double.respond(lambda _: (503, b""), times=3)
    function = function_with("name", double, functions)
    for expected in [{"climate-0": 0}] * 3 + [{}]:
        assert invoke(function, SENT) == expected
    assert len(aws.asked) == 1


def test_it_is_fetched_anew_when_the_store_refuses_it(
    aws: Aws, double: CrateDouble, functions: list[Function]
) -> None:
    """A password that was renewed costs no message a second try."""
    aws.kept["name"] = "the old one"
    takes_only(double, "the old one")
    function = function_with("name", double, functions)
    assert invoke(function, SENT) == {}
    aws.kept["name"] = PASSWORD
    takes_only(double, PASSWORD)
    assert invoke(function, SENT) == {}
    assert invoke(function, SENT) == {}
    assert len(aws.asked) == 2


def test_while_the_old_one_is_kept_everything_is_held(
    aws: Aws, double: CrateDouble, functions: list[Function]
) -> None:
    aws.kept["name"] = "the old one"
    takes_only(double, "the old one")
    function = function_with("name", double, functions)
    assert invoke(function, SENT) == {}
    takes_only(double, PASSWORD)
    assert invoke(function, SENT) == {"climate-0": 0}
    aws.kept["name"] = PASSWORD
    assert invoke(function, SENT) == {}


@pytest.mark.parametrize("secret", ["nowhere", "ssm:/nowhere"])
def test_a_secret_that_is_not_given_holds_everything(
    aws: Aws,
    double: CrateDouble,
    functions: list[Function],
    secret: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not there, or not for the function's role: until the operator mends it nothing is lost."""
    function = function_with(secret, double, functions)
    assert invoke(function, SENT) == {"climate-0": 0}
    assert f"can't be read from '{secret}'" in orjson.loads(capsys.readouterr().out)["error"]
    aws.kept[secret.removeprefix("ssm:")] = PASSWORD
    assert invoke(function, SENT) == {}


@pytest.mark.parametrize("kept", ["", '{"user": "writer"}', '{"password": 5}'])
def test_a_secret_without_password_is_wrong_usage(
    aws: Aws, double: CrateDouble, functions: list[Function], kept: str
) -> None:
    aws.kept["name"] = (200, {"Name": "name", "SecretString": kept})
    function = function_with("name", double, functions)
    with pytest.raises(UsageError, match="'name' holds no password: expected it as text") as raised:
        function(SENT, Context())
    assert "writer" not in str(raised.value)


def test_without_the_sdk_the_error_says_what_to_give_instead(
    double: CrateDouble, functions: list[Function]
) -> None:
    function = function_with("name", double, functions)
    with (
        patch.dict(sys.modules, {"boto3": None}),
        pytest.raises(UsageError, match="elsewhere give CLIMATESTREAM_STORE_PASSWORD"),
    ):
        function(SENT, Context())


def test_the_password_is_shown_nowhere(
    aws: Aws, double: CrateDouble, functions: list[Function], capsys: pytest.CaptureFixture[str]
) -> None:
    aws.kept["name"] = PASSWORD
    function = function_with("name", double, functions)
    function(SENT, Context())
    takes_only(double, "another")
    function(SENT, Context())
    double.respond(lambda _: (500, b"no"), times=1)
    said = capsys.readouterr()
    shown = said.out + said.err + repr(vars(function)) + repr(function._consumer._store.address)
    assert PASSWORD not in shown
    assert basic(PASSWORD).removeprefix("Basic ") not in shown


def test_the_sdk_is_not_imported_without_a_secret() -> None:
    """It costs more than all the rest of a cold start."""
    code = "import sys, climatestream.aws.handler; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"boto3", "botocore", "numpy", "polars", "pyarrow", "duckdb", "pandas"}
    assert not loaded & (heavy | {"confluent_kafka", "click", "asyncio"})
