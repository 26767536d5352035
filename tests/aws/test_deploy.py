"""`make deploy`, `undeploy` and `replay`, with an account and a CDK that only take notes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import click
import pytest
from click.testing import CliRunner
from moto import mock_aws

from climatestream.errors import UsageError
from climatestream.stores.crate_address import parse
from climatestream_aws import __main__ as commands
from climatestream_aws import checks
from climatestream_aws.checks import Finding
from tests.aws.templates import STORE, config, templates
from tests.services.crate import Server

ACCOUNT = "123456789012"
"""The one that the double of AWS has."""


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.Session(region_name="eu-central-1")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The CDK's verbs, as they were called; what it would write is there."""
    lines: list[str] = []

    def run(command: Sequence[str]) -> None:
        words = list(command)
        assert words[:3] == ["npx", "--yes", "aws-cdk@2.1148.1"]
        lines.append(" ".join(word for word in words[3:] if not word.startswith("/")))
        for name, template in templates("default").items():
            (tmp_path / f"{name}.template.json").write_text(json.dumps(template))
        (tmp_path / "outputs.json").write_text(
            json.dumps({"climatestream": {"GrafanaAddress": "https://grafana.example.com"}})
        )

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(commands, "OUT", tmp_path)
    return lines


def verbs(lines: list[str]) -> list[str]:
    return [line.split(" --app")[0] + _rest(line) for line in lines]


def _rest(line: str) -> str:
    return "".join(f" {name}" for name in ("Secrets", "Pipeline") if f" {name} " in f"{line} ")


def invoke(*words: str, answer: str = "") -> click.testing.Result:
    return CliRunner().invoke(commands.main, [*words, "--store", STORE], input=answer)


@pytest.fixture
def all_is_well(monkeypatch: pytest.MonkeyPatch, session: Any) -> list[str]:
    """Checks that find nothing, and a CrateDB that takes the users."""
    made: list[str] = []
    monkeypatch.setattr(commands, "_session", lambda _: session)
    monkeypatch.setattr(checks, "look", lambda *_: iter([Finding("everything")]))
    monkeypatch.setattr(commands, "make_users", lambda given, _: made.append(given.name))
    monkeypatch.setenv("CLIMATESTREAM_STORE_PASSWORD", "admin's")
    return made


def test_deploy_makes_secrets_then_users_then_the_rest_and_says_where_grafana_is(
    ran: list[str], all_is_well: list[str]
) -> None:
    done = invoke("deploy", "--yes", "--allow", "203.0.113.1/32")
    assert done.exit_code == 0, done.output
    assert verbs(ran) == ["synth", "deploy Secrets", "deploy Pipeline"]
    assert all_is_well == ["climatestream"]
    assert "AWS::MSK::Cluster" in done.output
    assert "broker_hour" in done.output
    assert "Grafana is at https://grafana.example.com" in done.output


def test_deploy_asks_and_a_no_makes_nothing(ran: list[str], all_is_well: list[str]) -> None:
    done = invoke("deploy", answer="n\n")
    assert done.exit_code == 1
    assert verbs(ran) == ["synth"]
    assert all_is_well == []
    assert "Grafana will let nobody in: add ALLOW=" in done.output


def test_deploy_stops_at_what_would_fail_later(
    ran: list[str], all_is_well: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "look", lambda *_: iter([Finding("zones", "none is to be had")]))
    done = invoke("deploy", "--yes")
    assert done.exit_code == 1
    assert " no  none is to be had" in done.output
    assert ran == []


def test_the_password_is_asked_once_and_shown_nowhere(
    ran: list[str], all_is_well: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLIMATESTREAM_STORE_PASSWORD")
    done = invoke("deploy", "--yes", answer="very-secret\n")
    assert done.exit_code == 0, done.output
    assert "very-secret" not in done.output + " ".join(ran)


def test_undeploy_takes_both_stacks_away_and_says_what_is_left(
    ran: list[str], all_is_well: list[str]
) -> None:
    done = invoke("undeploy", "--yes")
    assert done.exit_code == 0, done.output
    assert verbs(ran) == ["destroy Secrets Pipeline"]
    assert "--force" in ran[0]
    assert "Left on purpose:" in done.output


def test_undeploy_asks(ran: list[str], all_is_well: list[str]) -> None:
    assert invoke("undeploy", answer="n\n").exit_code == 1
    assert ran == []


def test_a_replay_is_a_parameter_of_the_pipeline(ran: list[str], all_is_well: list[str]) -> None:
    done = invoke("replay", "2025-08-10T06:00:00Z")
    assert done.exit_code == 0, done.output
    assert "--parameters Pipeline:ReplayFrom=1754805600" in ran[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("never", 0), ("2025-08-10", 1754784000), ("2025-08-10T08:00:00+02:00", 1754805600)],
)
def test_a_time_is_a_date_or_more(text: str, seconds: int) -> None:
    assert commands.replayed_from(text) == seconds


@pytest.mark.parametrize("text", ["yesterday", "2999-01-01"])
def test_no_time_and_one_to_come_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"FROM is '?{text}"):
        commands.replayed_from(text)
    assert datetime.now(UTC).year < 2999


# ------------------------------------------------------------------------------ the checks


def problems(session: Any, **changes: Any) -> dict[str, str]:
    given = replace(config("default"), **changes)
    found = list(checks.look(given, session))
    return {finding.what: finding.problem for finding in found if finding.problem}


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, wherever they are looked for."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


@pytest.mark.parametrize("words", [["bootstrap"], ["undeploy", "--yes"], ["replay", "2025-08-10"]])
@pytest.mark.parametrize("profile", [None, "of-nobody"])
def test_without_credentials_nothing_is_begun(
    ran: list[str],
    nobody: None,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    profile: str | None,
) -> None:
    """One sentence says so, with the next step, before the CDK is called."""
    if profile is not None:
        monkeypatch.setenv("AWS_PROFILE", profile)
    error = invoke(*words).exception
    assert isinstance(error, UsageError)
    assert "AWS_PROFILE" in str(error) if profile is None else profile in str(error)
    assert "aws configure" in str(error)
    assert ran == []


def test_without_node_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"npx is not found: install Node\.js"):
        commands.run(["npx", "--version"])


def test_without_credentials_nothing_more_is_asked(nobody: None) -> None:
    [finding] = checks.look(config("default"), boto3.Session(region_name="eu-central-1"))
    assert finding.problem is not None
    assert "AWS does not know who you are" in finding.problem
    assert "aws configure sso" in finding.problem


def test_an_account_that_is_not_prepared_is_told_to_be(session: Any) -> None:
    assert "run `make bootstrap` once" in problems(session)["CDK bootstrap"]


def test_a_zone_that_is_not_there_is_named_with_those_that_are(session: Any) -> None:
    zones = ("eu-central-1a", "eu-central-1b", "eu-central-1z")
    found = problems(session, zones=zones)
    assert "eu-central-1z is not to be had" in found["zones"]
    assert "eu-central-1c" in found["zones"]


def test_a_database_that_is_not_reached_is_a_problem(session: Any) -> None:
    assert "db.example.com" in problems(session)["CrateDB"]


def test_concurrency_that_can_t_be_reserved_is_a_problem(session: Any) -> None:
    class Lambda:
        def get_account_settings(self) -> dict[str, Any]:
            return {"AccountLimit": {"UnreservedConcurrentExecutions": 105}}

    class Session:
        def client(self, service: str) -> Any:
            return Lambda() if service == "lambda" else session.client(service)

    found = problems(Session(), reserved_concurrency=12)
    assert "only 5 can still be reserved" in found["concurrency"]


def test_a_zone_of_another_domain_is_a_problem(session: Any) -> None:
    route53 = session.client("route53")
    made = route53.create_hosted_zone(Name="example.org", CallerReference="1")
    zone = made["HostedZone"]["Id"].removeprefix("/hostedzone/")
    found = problems(session, domain="climate.example.com", hosted_zone=zone)
    assert "can't be proven in hosted zone" in found["domain"]


# --------------------------------------------------------------------- a database that is real


def test_users_get_the_passwords_of_their_secrets_also_when_they_exist(
    session: Any, cratedb: Server
) -> None:
    manager = session.client("secretsmanager")
    for name in ("writer", "reader"):
        held = {"username": f"climatestream_{name}", "password": f"{name}-1"}
        manager.create_secret(Name=f"climatestream/{name}", SecretString=json.dumps(held))
    schema = "deployed"
    given = replace(config("default"))
    object.__setattr__(given, "address", cratedb.at(schema))
    try:
        commands.make_users(given, session)
        held = {"username": "climatestream_writer", "password": "writer-2"}
        manager.put_secret_value(SecretId="climatestream/writer", SecretString=json.dumps(held))
        commands.make_users(given, session)
        for name, password in (("writer", "writer-2"), ("reader", "reader-1")):
            user = replace(
                parse(f"crate://climatestream_{name}@{cratedb.address.server}/{schema}"),
                secret=lambda password=password: password,
            )
            finding = checks.store(_at(given, user))
            assert finding.problem is None, finding.problem
    finally:
        from climatestream.stores.crate_http import CrateHttp
        from climatestream.stores.crate_tables import Tables

        http = CrateHttp(cratedb.at(schema))
        http.open()
        Tables(http, schema).drop(users=("climatestream_writer", "climatestream_reader"))
        http.close()


def _at(given: Any, address: Any) -> Any:
    other = replace(given)
    object.__setattr__(other, "address", address)
    return other


def test_the_commands_start_without_the_cdk() -> None:
    """It wants Node as it is imported, and takes seconds: a wrong argument is told at once."""
    code = "import sys, climatestream_aws.__main__; sys.exit('jsii' in sys.modules)"
    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False)
    assert done.returncode == 0
