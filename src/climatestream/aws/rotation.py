"""A new password for a user of CrateDB, as Secrets Manager rotates it: a Lambda function.

The user changes its own password, as CrateDB lets each user do, so no administrator's is kept
anywhere. Between the change and the moment at which Secrets Manager calls the new one current,
whoever logs in is refused for a second or two; the consumer hands its messages back then, and
they come again: nothing is lost.

Steps, in the order and with the meaning that
https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
gives them. Each may be called again after it has worked.
"""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias

import orjson

from climatestream.errors import StoreError
from climatestream.stores.crate_address import parse
from climatestream.stores.crate_errors import RequestRefused
from climatestream.stores.crate_http import CrateHttp
from climatestream.stores.schema import quoted

_LETTERS: Final = string.ascii_letters + string.digits
LENGTH: Final = 32
"""190 bits: 32 of 62 characters."""

CURRENT: Final = "AWSCURRENT"
PENDING: Final = "AWSPENDING"

Client: TypeAlias = Any
"""A client of AWS's SDK for Secrets Manager, which has no types of its own."""
Secret: TypeAlias = dict[str, Any]
"""`{"username": ..., "password": ...}`, and whatever else its owner keeps there."""


def handler(event: dict[str, str], _context: object) -> None:
    """Do one step of a rotation.

    Parameters
    ----------
    event
        `Step`, `SecretId`, `ClientRequestToken`, from Secrets Manager.

    Raises
    ------
    StoreError
        Neither the old nor the new password is taken.
    StoreUnavailable
        CrateDB is not reached; Secrets Manager calls again later.
    """
    import boto3

    step, of, token = event["Step"], event["SecretId"], event["ClientRequestToken"]
    steps: dict[str, Callable[[Client, str, str], None]] = {
        "createSecret": create,
        "setSecret": change,
        "testSecret": test,
        "finishSecret": finish,
    }
    if step not in steps:
        raise ValueError(f"step is {step!r}, expected one of {', '.join(steps)}")
    steps[step](boto3.client("secretsmanager"), of, token)


def create(client: Client, of: str, token: str) -> None:
    """Keep a new password as pending, unless there is one already."""
    if _read(client, of, PENDING, token) is not None:
        return
    current = _current(client, of)
    password = "".join(secrets.choice(_LETTERS) for _ in range(LENGTH))
    client.put_secret_value(
        SecretId=of,
        ClientRequestToken=token,
        SecretString=orjson.dumps(current | {"password": password}).decode(),
        VersionStages=[PENDING],
    )


def change(client: Client, of: str, token: str) -> None:
    """Let the user take the pending password, unless it has it already."""
    pending = _pending(client, of, token)
    if _takes(pending):
        return
    current = _current(client, of)
    http = _as(current)
    try:
        # the name is an identifier, which can't be a parameter; the password is one
        http.sql(
            f"ALTER USER {quoted(pending['username'])} SET (password = ?)", [pending["password"]]
        )
    finally:
        http.close()


def test(client: Client, of: str, token: str) -> None:
    """See that the pending password is taken."""
    pending = _pending(client, of, token)
    if not _takes(pending):
        raise StoreError(
            f"user {pending['username']} is not let in with its new password: set the password in "
            f"secret {of} to the one that it has in CrateDB, and rotate again"
        )


def finish(client: Client, of: str, token: str) -> None:
    """Call the pending password the current one."""
    stages = client.describe_secret(SecretId=of)["VersionIdsToStages"]
    before = next(version for version, names in stages.items() if CURRENT in names)
    if before != token:
        client.update_secret_version_stage(
            SecretId=of,
            VersionStage=CURRENT,
            MoveToVersionId=token,
            RemoveFromVersionId=before,
        )


# ---------------------------------------------------------------------------------- helpers


def _read(client: Client, of: str, stage: str, token: str | None = None) -> Secret | None:
    version = {} if token is None else {"VersionId": token}
    try:
        found = client.get_secret_value(SecretId=of, VersionStage=stage, **version)
    except client.exceptions.ResourceNotFoundException:
        return None
    secret: Secret = orjson.loads(found["SecretString"])
    return secret


def _current(client: Client, of: str) -> Secret:
    secret = _read(client, of, CURRENT)
    if secret is None:
        raise StoreError(f"secret {of} has no current version: put one in first")
    return secret


def _pending(client: Client, of: str, token: str) -> Secret:
    secret = _read(client, of, PENDING, token)
    if secret is None:
        raise StoreError(f"secret {of} has no pending version {token}: rotate it from the start")
    return secret


def _as(secret: Secret) -> CrateHttp:
    """CrateDB, as this user; `CLIMATESTREAM_STORE` says where it is."""
    address = parse(os.environ["CLIMATESTREAM_STORE"])
    http = CrateHttp(
        replace(address, user=secret["username"], secret=lambda: str(secret["password"]))
    )
    http.open()
    return http


def _takes(secret: Secret) -> bool:
    """Whether CrateDB lets this user in with this password."""
    http = _as(secret)
    try:
        http.sql("SELECT 1")
    except RequestRefused:
        return False
    finally:
        http.close()
    return True
