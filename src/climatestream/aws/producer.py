"""`climatestream publish` on AWS: finds the brokers and the key, and becomes the command.

Run as `python -m climatestream.aws.producer`, by the instance's service or in its container.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import orjson

from climatestream.errors import ClimatestreamError, UsageError

Client: TypeAlias = Any
"""A client of AWS's SDK, which has no types of its own."""

SETTINGS: Final = (
    "CLIMATESTREAM_CLUSTER",
    "CLIMATESTREAM_TOPIC",
    "CLIMATESTREAM_PARTITIONS",
    "CLIMATESTREAM_RETENTION",
    "CLIMATESTREAM_CDS_SECRET",
    "CLIMATESTREAM_PUBLISH",
    "AWS_REGION",
)
"""What the environment says: the cluster's ARN, its topic, how a topic that is missing is made,
the secret with the key of the Climate Data Store, and the arguments of `publish`."""


def broker(client: Client, environment: Mapping[str, str]) -> str:
    """The `kafka://` address of the cluster's topic, with IAM.

    Raises
    ------
    UsageError
        The cluster has no endpoint for IAM.
    """
    cluster = environment["CLIMATESTREAM_CLUSTER"]
    servers = client.get_bootstrap_brokers(ClusterArn=cluster).get("BootstrapBrokerStringSaslIam")
    if not servers:
        raise UsageError(f"cluster {cluster} has no brokers that take IAM: turn it on")
    options = urlencode(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "AWS_MSK_IAM",
            "aws_region": environment["AWS_REGION"],
        }
    )
    return f"kafka://{servers}/{environment['CLIMATESTREAM_TOPIC']}?{options}"


def key(client: Client, environment: Mapping[str, str]) -> dict[str, str]:
    """CDSAPI_KEY, and CDSAPI_URL where the secret has one; nothing while the secret is empty."""
    text = client.get_secret_value(SecretId=environment["CLIMATESTREAM_CDS_SECRET"])["SecretString"]
    held = orjson.loads(text)
    names = {"CDSAPI_KEY": held.get("key"), "CDSAPI_URL": held.get("url")}
    return {name: value for name, value in names.items() if value}


def command(environment: Mapping[str, str], address: str) -> list[str]:
    """The command line of `climatestream publish`."""
    return [
        "publish",
        *shlex.split(environment["CLIMATESTREAM_PUBLISH"]),
        "--broker",
        address,
        "--partitions",
        environment["CLIMATESTREAM_PARTITIONS"],
        "--retention",
        environment["CLIMATESTREAM_RETENTION"],
        "--log-format",
        "json",
    ]


def main(arguments: Sequence[str] = ()) -> None:
    """Become `climatestream publish`; with `--topic`, make the topic, and no more.

    The command replaces this process, so that signals and its exit code are the service's.
    """
    lacking = [name for name in SETTINGS if not os.environ.get(name)]
    if lacking:
        sys.exit(f"the environment lacks {', '.join(lacking)}: the deployment sets them")
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    # the SDK itself would look for AWS_DEFAULT_REGION
    session = boto3.Session(region_name=os.environ["AWS_REGION"])
    try:
        address = broker(session.client("kafka"), os.environ)
        if "--topic" in arguments:
            _make_topic(address)
            return
        os.environ.update(key(session.client("secretsmanager"), os.environ))
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS does not answer: {error}; look at the role of this instance or task")
    except ClimatestreamError as error:
        sys.exit(str(error))
    climatestream = str(Path(sys.executable).with_name("climatestream"))
    os.execv(climatestream, [climatestream, *command(os.environ, address)])  # noqa: S606 - ours


def _make_topic(address: str) -> None:
    from climatestream import units
    from climatestream.brokers.kafka_admin import TopicSettings
    from climatestream.brokers.open import open_broker

    settings = TopicSettings(
        partitions=int(os.environ["CLIMATESTREAM_PARTITIONS"]),
        retention_ms=round(units.duration_s(os.environ["CLIMATESTREAM_RETENTION"]) * 1e3),
    )
    with open_broker(address) as opened:
        for difference in opened.ensure_topic(settings):
            print(difference)


if __name__ == "__main__":
    main(sys.argv[1:])
