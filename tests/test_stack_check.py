"""`make stack-check` against a Grafana that answers as 12.3 does, and against ones that do not."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from scripts import stack_check, stack_env
from scripts.stack_check import Finding, Grafana, Patience

from climatestream.dashboards import generate
from climatestream.stores.open import open_store

PASSWORD = "of-a-test"  # noqa: S105 - of this fake
BOARD = {"uid": "climate", "title": "Climate", "panels": [{"id": 1}, {"id": 2}]}


class FakeGrafana(ThreadingHTTPServer):
    """Answers by path; what is not among its answers is 404, as in Grafana."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeGrafana

    def do_GET(self) -> None:
        pair = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {pair}":
            self._say(401, {"message": "Invalid username or password"})
        elif self.path in self.server.answers:
            self._say(200, self.server.answers[self.path])
        else:
            self._say(404, {"message": "not found"})

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Nothing: tests have output of their own."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As deploy/grafana, with one board."""
    generate.build(tmp_path, generate.files())
    (tmp_path / "boards").mkdir(exist_ok=True)
    for board in (tmp_path / "boards").iterdir():
        board.unlink()
    (tmp_path / "boards/climate.json").write_text(json.dumps(BOARD))
    return tmp_path


def rules(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "provisioning/alerting/rules.json").read_text()
    return [rule for group in json.loads(text)["groups"] for rule in group["rules"]]


@pytest.fixture
def grafana(folder: Path) -> Iterator[FakeGrafana]:
    """One in which everything is there."""
    api = "/api/v1/provisioning"
    answers: dict[str, Any] = {
        "/api/health": {"database": "ok", "version": "12.3.3"},
        "/api/datasources/uid/cratedb/health": {
            "status": "OK",
            "message": "Database Connection OK",
        },
        "/api/dashboards/uid/climate": {
            "dashboard": BOARD | {"version": 1},
            "meta": {"provisioned": True},
        },
        f"{api}/policies": {"receiver": "climatestream"},
        f"{api}/contact-points": [{"name": "climatestream", "type": "email"}],
    }
    for rule in rules(folder):
        answers[f"{api}/alert-rules/{rule['uid']}"] = {
            "title": rule["title"],
            "provenance": "file",
        }
    server = FakeGrafana(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def look(grafana: FakeGrafana, folder: Path, password: str = PASSWORD) -> dict[str, str]:
    found = stack_check.grafana_findings(Grafana(grafana.url, password), folder)
    return {finding.name: finding.wrong for finding in found}


def test_a_whole_grafana_is_found_right(grafana: FakeGrafana, folder: Path) -> None:
    found = look(grafana, folder)
    assert set(found.values()) == {""}
    assert {"data source cratedb", "board Climate", "alert Heat", "notification policy"} <= set(
        found
    )
    assert len(found) == 3 + len(rules(folder))
    assert Grafana(grafana.url, PASSWORD).health() == ""


API = "/api/v1/provisioning"
BROKEN: list[tuple[str, Any, str, str]] = [
    ("/api/dashboards/uid/climate", None, "board Climate", "answers 404"),
    (
        "/api/dashboards/uid/climate",
        {"dashboard": BOARD | {"panels": []}, "meta": {"provisioned": True}},
        "board Climate",
        "with 0 panels, expected 'Climate' with 2",
    ),
    (
        "/api/dashboards/uid/climate",
        {"dashboard": BOARD, "meta": {"provisioned": False}},
        "board Climate",
        "no provisioned board",
    ),
    (
        "/api/datasources/uid/cratedb/health",
        {"status": "ERROR", "message": "password authentication failed"},
        "data source cratedb",
        "password authentication failed",
    ),
    (f"{API}/alert-rules/climatestream-storm", None, "alert Storm", "answers 404"),
    (
        f"{API}/alert-rules/climatestream-storm",
        {"title": "Storm", "provenance": ""},
        "alert Storm",
        "no provisioned rule",
    ),
    (
        f"{API}/policies",
        {"receiver": "grafana-default-email"},
        "notification policy",
        "alerts go to 'grafana-default-email'",
    ),
    (f"{API}/contact-points", [], "notification policy", "no contact point"),
]


@pytest.mark.parametrize(("path", "answer", "name", "wrong"), BROKEN)
def test_what_is_missing_or_other_is_named(
    grafana: FakeGrafana, folder: Path, path: str, answer: Any, name: str, wrong: str
) -> None:
    grafana.answers.pop(path)
    if answer is not None:
        grafana.answers[path] = answer
    found = look(grafana, folder)
    assert wrong in found.pop(name)
    assert set(found.values()) == {""}


def test_a_wrong_password_is_said(grafana: FakeGrafana, folder: Path) -> None:
    found = look(grafana, folder, "another")
    assert all("answers 401" in wrong for wrong in found.values())
    assert PASSWORD not in str(found)


def test_no_boards_at_all_is_wrong(grafana: FakeGrafana, folder: Path) -> None:
    (folder / "boards/climate.json").unlink()
    assert "dashboards build" in look(grafana, folder)["boards"]


def test_patience_asks_until_it_is_right_or_time_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = [0.0]

    def sleep(step: float) -> None:
        seconds[0] += step

    patience = Patience(5.0, lambda: seconds[0], sleep)
    answers = iter(["not yet", "not yet", ""])
    assert patience.wait("page", lambda: next(answers)) == Finding("page")
    assert seconds == [2.0]
    assert patience.wait("page", lambda: "not yet").wrong == "not yet, after 5 s"
    assert seconds == [7.0]
    said = capsys.readouterr().err.splitlines()
    assert said == ["page: not yet; waiting 5 s at most"] * 2


def test_a_page_that_wants_its_token_is_there(grafana: FakeGrafana) -> None:
    assert stack_check.page(str(grafana.server_port)) == ""  # without a password it answers 401


def test_nobody_there_is_said_in_a_sentence() -> None:
    assert "no answer from 127.0.0.1:9" in stack_check.page("9")
    assert "http://127.0.0.1:9/api/health" in Grafana("http://127.0.0.1:9", "x").health()


def test_a_command_that_is_not_well_says_why(tmp_path: Path) -> None:
    store = f"duckdb:{tmp_path}/no/folder.duckdb"
    found = stack_check.command("doctor", ["doctor", "--store", store], {})
    assert "store: " in found.wrong
    store = f"duckdb:{tmp_path}/a.duckdb"
    with open_store(store):
        pass
    refused = stack_check.command("audit", ["audit", "--broker", "nonsense:", "--store", store], {})
    assert "nonsense:" in refused.wrong


def test_the_places_are_those_that_a_user_of_this_machine_has() -> None:
    settings = stack_check.DEFAULTS | {"KAFKA_PORT": "19092"}
    broker, store = stack_check.places(settings)
    assert broker == "kafka://127.0.0.1:19092/era5"
    assert store == "crate://writer@127.0.0.1:4200/demo"


def test_findings_stop_at_a_grafana_that_never_answers(tmp_path: Path) -> None:
    """Twenty lines that say the same would hide the one that matters."""
    settings = dict.fromkeys(stack_check.DEFAULTS, "9") | dict.fromkeys(stack_env.PASSWORDS, "x")
    asked: list[str] = []

    class Once(Patience):
        def wait(self, name: str, ask: Any) -> Finding:
            asked.append(name)
            return Finding(name, "no answer")

    found = list(stack_check.findings(settings, Once(0.0), datetime.now(UTC), tmp_path))
    assert asked == ["page", "doctor", "Grafana"]
    assert [finding.name for finding in found] == ["page", "doctor", "audit", "Grafana"]
    assert all(finding.wrong for finding in found)


def test_without_a_stack_the_command_that_starts_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stack_check.main(["--env", str(tmp_path / ".env")]) == 2
    assert "make stack" in capsys.readouterr().err


# ------------------------------------------------------------------------------- passwords


def test_passwords_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    example = stack_check.DEPLOY / ".env.example"
    (tmp_path / ".env.example").write_text(example.read_text())
    assert stack_env.make(tmp_path)
    made = tmp_path / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    values = dotenv_values(made)
    passwords = [values[name] for name in stack_env.PASSWORDS]
    assert len(set(passwords)) == 3
    assert all(password and len(password) >= 32 for password in passwords)
    text = made.read_text()
    assert not stack_env.make(tmp_path)
    assert made.read_text() == text


def test_two_stacks_have_no_password_in_common(tmp_path: Path) -> None:
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        example = (stack_check.DEPLOY / ".env.example").read_text()
        (tmp_path / name / ".env.example").write_text(example)
        stack_env.make(tmp_path / name)
        values = dotenv_values(tmp_path / name / ".env")
        found |= {values[password] for password in stack_env.PASSWORDS}
    assert len(found) == 6
