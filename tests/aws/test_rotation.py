"""A user of a real CrateDB gets a new password, step by step, as Secrets Manager asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from climatestream.aws.rotation import handler
from climatestream.errors import StoreError
from tests.services.crate import Server

USER = "rotated"
NAME = "climatestream/writer"


@pytest.fixture
def manager(cratedb: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Secrets Manager, which holds the password that the user has."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("CLIMATESTREAM_STORE", f"crate://nobody@{cratedb.address.server}/demo")
    cratedb.sql(f"CREATE USER {USER} WITH (password = 'first')")
    with mock_aws():
        client = boto3.client("secretsmanager")
        client.create_secret(
            Name=NAME, SecretString=json.dumps({"username": USER, "password": "first"})
        )
        yield client
    cratedb.sql(f"DROP USER {USER}")


def password(manager: Any, stage: str = "AWSCURRENT") -> str:
    text = manager.get_secret_value(SecretId=NAME, VersionStage=stage)["SecretString"]
    return str(json.loads(text)["password"])


def step(name: str, token: str = "a" * 32) -> None:
    handler({"Step": name, "SecretId": NAME, "ClientRequestToken": token}, None)


STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


def test_the_user_has_the_new_password_and_secrets_manager_calls_it_current(manager: Any) -> None:
    for name in STEPS:
        step(name)
    assert password(manager) != "first"
    assert len(password(manager)) == 32
    step("testSecret")


def test_every_step_may_come_twice(manager: Any) -> None:
    for name in STEPS:
        step(name)
        before = password(manager, "AWSPENDING" if name != "finishSecret" else "AWSCURRENT")
        step(name)
        assert password(manager, "AWSPENDING" if name != "finishSecret" else "AWSCURRENT") == before


def test_a_password_that_was_changed_by_hand_is_told_and_not_called_current(
    manager: Any, cratedb: Server
) -> None:
    step("createSecret")
    cratedb.sql(f"ALTER USER {USER} SET (password = 'by hand')")
    with pytest.raises(StoreError, match="rotated"):
        step("setSecret")
    with pytest.raises(StoreError, match=f"user {USER} is not let in with its new password"):
        step("testSecret")
    assert password(manager) == "first"
