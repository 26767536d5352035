"""The producer's start on AWS: brokers and key come from AWS, then it is the command."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from climatestream.aws import producer
from climatestream.brokers.kafka_options import parse
from climatestream.errors import UsageError
from tests.aws.test_instances import PRODUCER

SERVERS = "b-1.x.kafka.eu-central-1.amazonaws.com:9098,b-2.x.kafka.eu-central-1.amazonaws.com:9098"


def stubbed(service: str, method: str, answer: dict[str, Any]) -> Any:
    client = boto3.client(
        service,
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106 - none
    )
    stubber = Stubber(client)
    stubber.add_response(method, answer)
    stubber.activate()
    return client


def test_the_address_has_all_brokers_and_iam() -> None:
    kafka = stubbed("kafka", "get_bootstrap_brokers", {"BootstrapBrokerStringSaslIam": SERVERS})
    options = parse(producer.broker(kafka, PRODUCER))
    assert options.servers == SERVERS
    assert options.topic == "era5"
    assert options.aws_region == "eu-central-1"


def test_a_cluster_without_iam_is_said_to_have_none() -> None:
    kafka = stubbed("kafka", "get_bootstrap_brokers", {"BootstrapBrokerStringTls": SERVERS})
    with pytest.raises(UsageError, match="no brokers that take IAM"):
        producer.broker(kafka, PRODUCER)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"key": ""}, {}),
        ({"key": "k"}, {"CDSAPI_KEY": "k"}),
        ({"key": "k", "url": "u"}, {"CDSAPI_KEY": "k", "CDSAPI_URL": "u"}),
    ],
)
def test_the_key_comes_from_its_secret_and_none_while_that_is_empty(
    held: dict[str, str], expected: dict[str, str]
) -> None:
    manager = stubbed(
        "secretsmanager", "get_secret_value", {"SecretString": json.dumps(held), "Name": "cds"}
    )
    assert producer.key(manager, PRODUCER) == expected


def test_the_command_is_one_that_climatestream_takes() -> None:
    line = producer.command(PRODUCER, "kafka://b:9098/era5")
    assert line[:3] == ["publish", "auto:era5-land/daily-mean", "--region"]
    told = subprocess.run(
        [sys.executable, "-m", "climatestream", *line, "--help"], capture_output=True, check=True
    )
    assert b"Usage: climatestream publish" in told.stdout


def test_an_environment_that_lacks_something_is_told_what() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "climatestream.aws.producer"],
        capture_output=True,
        text=True,
        check=False,
        env={"CLIMATESTREAM_TOPIC": "era5"},
    )
    assert done.returncode == 1
    assert "the environment lacks CLIMATESTREAM_CLUSTER, CLIMATESTREAM_PARTITIONS" in done.stderr
