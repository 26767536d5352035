"""What a configuration may say, and what is answered where it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from climatestream.errors import UsageError
from climatestream_aws import config as configs
from climatestream_aws.config import CHECKOUT
from tests.aws.templates import STORE, config


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kafka": "pulsar"}, "kafka is 'pulsar', expected one of provisioned, serverless"),
        ({"brokers": 4}, "brokers are 4, expected a multiple of the 3 zones"),
        ({"zones": ["eu-central-1a"]}, "zones are fewer than two"),
        ({"zones": ["us-east-1a", "us-east-1b"]}, "zone us-east-1a is not in region eu-central-1"),
        ({"store": "crate://admin@db:4200/demo"}, "would be reached without TLS"),
        ({"store": "duckdb:x"}, "is not known: expected crate://"),
        ({"grafana_allow": ["0.0.0.0/0"]}, "which is nearly everybody"),
        ({"grafana_allow": ["my house"]}, "expected a network such as 203.0.113.7/32"),
        ({"domain": "a.example.com"}, "domain and hosted_zone go together"),
        ({"kafka": "serverless", "producer": "fargate"}, "choose producer=ec2"),
        ({"name": "Climate Stream"}, "expected up to 25 lower-case letters"),
        (
            {"vpc": {"id": "vpc-1", "private_subnets": ["a"]}},
            "expected one for each of the 3 zones",
        ),
        ({"vpc": {"id": "vpc-1"}}, "has no private_subnets"),
        ({"broker": 3}, "names 'broker': did you mean 'brokers'?"),
    ],
)
def test_what_is_not_possible_is_said_in_a_sentence(
    given: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    import yaml

    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"store": STORE} | given))
    with pytest.raises(UsageError) as caught:
        configs.read(path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "is no YAML"), ("- 1", "is no table"), ("{}", "names no store: add STORE=crate://")],
)
def test_a_file_that_is_no_configuration_is_said_to_be_none(
    text: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        configs.read(path)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml can't be read: No such file"):
        configs.chosen(CHECKOUT, {"config": "nowhere", "store": STORE})


def test_what_the_command_line_says_goes_before_the_file() -> None:
    given = {"store": STORE, "allow": "203.0.113.1/32,198.51.100.0/24", "email": "me@example.com"}
    made = configs.chosen(CHECKOUT, given)
    assert made.grafana_allow == ("203.0.113.1/32", "198.51.100.0/24")
    assert made.email == "me@example.com"


@pytest.mark.parametrize("name", ["smallest", "default", "production"])
def test_each_configuration_that_is_checked_in_is_possible(name: str) -> None:
    assert config(name).partitions >= 1


def test_the_smallest_costs_least_and_says_what_has_no_price() -> None:
    from climatestream_aws import cost
    from tests.aws.templates import templates

    known = cost.prices(CHECKOUT / "deploy/aws/prices.yaml")
    found = {}
    for name in ("smallest", "default", "production"):
        both = templates(name)
        resources = {k: v for template in both.values() for k, v in template["Resources"].items()}
        found[name] = {meter.name: meter.quantity for meter in cost.meters(resources)}
    assert found["default"]["broker_hour"] == 3
    assert found["default"]["broker_gib_month"] == 300
    assert found["default"]["nat_hour"] == 1
    assert found["production"]["nat_hour"] == 3
    assert found["production"]["endpoint_hour"] == 24
    assert found["smallest"]["serverless_cluster_hour"] == 1
    assert found["smallest"]["instance_hour"] == 2
    text = cost.table([cost.Meter("nat_hour", 2), cost.Meter("broker_hour", 3)], known)
    assert "0.090      65.70" in text
    assert "without a price: broker_hour" in text


def test_every_price_names_its_page_and_its_day() -> None:
    from climatestream_aws import cost

    for price in cost.prices(CHECKOUT / "deploy/aws/prices.yaml").values():
        assert price.page.startswith("https://")
        assert price.price is None or "2026" in price.of
