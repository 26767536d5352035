"""The password of the store, from Secrets Manager or from SSM Parameter Store."""

from __future__ import annotations

from typing import Final

import orjson

from climatestream.errors import StoreUnavailable, UsageError

SSM: Final = "ssm:"
PASSWORD: Final = "password"  # noqa: S105 - the name of a field
"""The field of a secret that is a JSON object, as Secrets Manager makes them for databases."""

CONNECT_TIMEOUT_S: Final = 2
READ_TIMEOUT_S: Final = 3
"""How long to wait for AWS [s]; it is asked twice. Without a route to it, as in a VPC without an
endpoint, nothing answers at all, and the function must still end in time."""


def fetch(name: str) -> str:
    """The password that is kept under a name, as it is now.

    Who keeps it asks again when the store refuses it (`CrateHttp`). AWS's SDK is imported here
    only, from the function's runtime, which has it: it costs several times what all else does.

    Parameters
    ----------
    name
        The name or ARN of a secret, which is the password itself or a JSON object with the field
        `password`; or `ssm:` and the name or ARN of a parameter.

    Raises
    ------
    StoreUnavailable
        AWS does not give it now: not reached, not there, or not for the function's role. Until it
        does, every message is held.
    UsageError
        There is no SDK, or what is kept there is no password.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise UsageError(
            f"the password of the store is in {name!r}, but AWS's SDK for Python is not there "
            f"({error}): Lambda's runtime has it; elsewhere give CLIMATESTREAM_STORE_PASSWORD"
        ) from error
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 2},
    )
    try:
        if name.startswith(SSM):
            ssm = boto3.client("ssm", config=config)
            found = ssm.get_parameter(Name=name.removeprefix(SSM), WithDecryption=True)
            text = found["Parameter"]["Value"]
        else:
            manager = boto3.client("secretsmanager", config=config)
            text = manager.get_secret_value(SecretId=name).get("SecretString")
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailable(
            f"the password of the store can't be read from {name!r}: {error}"
        ) from error
    password = _password(text)
    if not password:
        raise UsageError(
            f"{name!r} holds no password: expected it as text, or as the field {PASSWORD!r} of a "
            "JSON object"
        )
    return password


def _password(text: str | None) -> str | None:
    """The password in a secret's text; None where it has none."""
    if not text or not text.lstrip().startswith("{"):
        return text
    try:
        field = orjson.loads(text).get(PASSWORD)
    except orjson.JSONDecodeError:
        return text
    return field if isinstance(field, str) else None
