"""The YAML that drives the deploy and the laptop, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from climatestream.aws.mapping_settings import (
    OURS,
    REPORT,
    EventSourceMapping,
    Function,
    function_of,
    mapping_of,
    not_the_source,
    read_deployment,
)
from climatestream.errors import UsageError

DEPLOYED = Path(__file__).resolve().parent.parent / "deploy" / "event-source.yaml"
POLLERS: dict[str, Any] = {"ProvisionedPollerConfig": {"MinimumPollers": 1}}


def test_the_file_that_is_deployed_never_discards_a_reading() -> None:
    """Unlimited retries, unlimited age, no destination; failures by record."""
    mapping = mapping_of(read_deployment(DEPLOYED).mapping)
    assert mapping.most_retries is None
    assert mapping.record_age_s is None
    assert mapping.destination is None
    assert mapping.partial


def test_without_a_file_the_same_holds_but_for_the_names() -> None:
    deployed = read_deployment(DEPLOYED)
    named = mapping_of(deployed.mapping)
    assert named.topics == ("era5",)
    assert named.group == "climatestream"
    default = mapping_of(OURS.mapping)
    assert (
        default
        == EventSourceMapping()
        == EventSourceMapping(**{**vars(named), "topics": (), "group": None})
    )
    assert function_of(deployed.function) == function_of({}) == Function()


def test_what_a_file_leaves_out_is_as_aws_has_it_by_default() -> None:
    mapping = mapping_of({})
    assert mapping.batch_size == 100
    assert mapping.window_s == 0.5
    assert mapping.start == "earliest"
    assert not mapping.partial
    assert mapping.event_source_arn is None


def test_unlimited_retries_with_a_destination_are_ten_as_on_aws() -> None:
    failure = {"DestinationConfig": {"OnFailure": {"Destination": "kafka://letters"}}}
    assert mapping_of(POLLERS | failure).most_retries == 10
    assert mapping_of(POLLERS | failure | {"MaximumRetryAttempts": 40}).most_retries == 40
    assert mapping_of(POLLERS | {"MaximumRetryAttempts": -1}).most_retries is None


def test_a_start_at_a_time_is_in_seconds() -> None:
    at = {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1_756_000_000}
    assert mapping_of(at).start == 1_756_000_000_000
    assert mapping_of({"StartingPosition": "LATEST"}).start == "latest"


GOOD: tuple[dict[str, Any], ...] = (
    {"BatchSize": 1},
    {"BatchSize": 10_000, "MaximumBatchingWindowInSeconds": 300},
    POLLERS | {"MaximumRetryAttempts": 0, "MaximumRecordAgeInSeconds": 60},
    POLLERS | {"MaximumRetryAttempts": 10_000, "MaximumRecordAgeInSeconds": 604_800},
    POLLERS | {"BisectBatchOnFunctionError": True, "FunctionResponseTypes": [REPORT]},
    {"ProvisionedPollerConfig": {"MinimumPollers": 200, "MaximumPollers": 2_000}},
    {"DestinationConfig": {"OnFailure": {"Destination": ""}}},
    {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::a-bucket"}}},
    {"EventSourceArn": "arn:aws:kafka:eu-central-1:1:cluster/c/1", "Tags": [], "Enabled": True},
)


@pytest.mark.parametrize("properties", GOOD, ids=str)
def test_the_ends_of_the_ranges_are_taken(properties: dict[str, Any]) -> None:
    mapping_of(properties)


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"BatchSize": 0}, "BatchSize is 0: expected an integer of 1 to 10000"),
    ({"BatchSize": 10_001}, "BatchSize is 10001"),
    ({"BatchSize": "100"}, "BatchSize is '100'"),
    ({"BatchSize": True}, "BatchSize is True"),
    ({"MaximumBatchingWindowInSeconds": 301}, "0 to 300"),
    ({"MaximumBatchingWindowInSeconds": 0.5}, "0 to 300"),
    ({"StartingPosition": "EARLIEST"}, "TRIM_HORIZON, LATEST or AT_TIMESTAMP"),
    ({"StartingPosition": "AT_TIMESTAMP"}, "go together"),
    ({"StartingPositionTimestamp": 5}, "go together"),
    (POLLERS | {"MaximumRetryAttempts": -2}, "0 to 10000, or -1 for no limit"),
    (POLLERS | {"MaximumRetryAttempts": 10_001}, "0 to 10000"),
    (POLLERS | {"MaximumRecordAgeInSeconds": 59}, "60 to 604800, or -1"),
    (POLLERS | {"MaximumRecordAgeInSeconds": 604_801}, "60 to 604800"),
    (POLLERS | {"BisectBatchOnFunctionError": "yes"}, "true or false"),
    (POLLERS | {"FunctionResponseTypes": ["ReportBatchItemFailure"]}, REPORT),
    (POLLERS | {"FunctionResponseTypes": REPORT}, "a list of at most one of"),
    ({"MaximumRetryAttempts": 3}, "provisioned mode"),
    ({"FunctionResponseTypes": [REPORT]}, "provisioned mode"),
    ({"ProvisionedPollerConfig": {"MinimumPollers": 0}}, "1 to 200"),
    ({"ProvisionedPollerConfig": {"MaximumPollers": 2_001}}, "1 to 2000"),
    ({"ProvisionedPollerConfig": {"MinimumPollers": 5, "MaximumPollers": 4}}, "more than"),
    ({"Topics": ["a", "b"]}, "exactly one"),
    ({"Topics": []}, "exactly one"),
    ({"BatchSise": 5}, "did you mean BatchSize?"),
    ({"ParallelizationFactor": 2}, "ParallelizationFactor is no property"),
    ({"FilterCriteria": {"Filters": []}}, "audit then misses"),
    ({"Enabled": False}, "polls nothing"),
    ({"DestinationConfig": {"OnFailure": {"Destination": "s3://bucket"}}}, "kafka://TOPIC"),
    ({"DestinationConfig": {"OnSuccess": {}}}, "OnSuccess is no property"),
    ({"DestinationConfig": {"OnFailure": {"Destination": "kafka://t"}}}, "provisioned mode"),
    (
        POLLERS
        | {"Topics": ["t"], "DestinationConfig": {"OnFailure": {"Destination": "kafka://t"}}},
        "the topic that is read",
    ),
    ({"AmazonManagedKafkaEventSourceConfig": {"ConsumerGroupId": ""}}, "1 to 200 letters"),
    ({"AmazonManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": {}}}, "schema registry"),
)


@pytest.mark.parametrize(("properties", "said"), BAD, ids=str)
def test_what_is_wrong_is_named_with_its_range_and_aws_page(
    properties: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match="EventSourceMapping") as error:
        mapping_of(properties)
    assert said in str(error.value)
    if "audit" not in said and "schema registry" not in said:
        assert "https://docs.aws.amazon.com/" in str(error.value)


BAD_FUNCTION: tuple[tuple[dict[str, Any], str], ...] = (
    ({"MemorySize": 127}, "128 to 10240"),
    ({"Timeout": 841}, "1 to 840"),
    ({"Timeout": 0}, "1 to 840"),
    ({"Runtime": "nodejs22.x"}, "a Python runtime"),
    ({"Architectures": ["arm64", "x86_64"]}, "at most one of"),
    ({"Handler": "handler"}, "MODULE.FUNCTION"),
    ({"Memory": 512}, "did you mean MemorySize?"),
)


@pytest.mark.parametrize(("properties", "said"), BAD_FUNCTION, ids=str)
def test_a_wrong_property_of_the_function_is_named(properties: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match="Function") as error:
        function_of(properties)
    assert said in str(error.value)


def test_a_destination_is_never_the_topic_that_is_read() -> None:
    not_the_source("kafka://letters", "era5")
    not_the_source(None, "era5")
    with pytest.raises(UsageError, match="the topic that is read"):
        not_the_source("kafka://era5", "era5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Function: [", "is no YAML"),
        ("Funktion: {}", "other parts"),
        ("just text", "other parts"),
        ("Function: 5", "other parts"),
        ("", "other parts"),
    ],
)
def test_a_file_that_is_no_such_yaml_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        read_deployment(file)
    assert "\n" not in str(told.value)


def test_a_part_may_be_left_out_or_empty(tmp_path: Path) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text("EventSourceMapping:\n  BatchSize: 5\nFunction:\n")
    found = read_deployment(file)
    assert found.mapping == {"BatchSize": 5}
    assert found.function == {}
