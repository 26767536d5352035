"""What the templates promise, for the smallest, the default and the production configuration."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from climatestream_aws.rules import EXCEPTIONS, PREFIX
from tests.aws import templates as made
from tests.aws.templates import NAMES, Template, resources, templates

every = pytest.mark.parametrize("name", NAMES)
KEPT: set[str] = set()
"""Resources that outlive the stack: none."""


def all_of(name: str) -> Iterator[tuple[str, Template]]:
    for template in templates(name).values():
        yield from template["Resources"].items()


def properties(name: str, kind: str) -> list[Template]:
    return [resource["Properties"] for resource in resources(name, kind).values()]


# ------------------------------------------------------------------------------- the whole


@every
def test_a_change_of_the_template_is_seen_by_a_reviewer(name: str) -> None:
    """`python -m tests.aws.templates` writes the text again."""
    assert made.text(name) == (made.HERE / f"{name}.yaml").read_text()


@every
def test_a_change_of_a_permission_is_seen_by_a_reviewer(name: str) -> None:
    assert made.permissions(name) == (made.HERE / f"{name}.permissions").read_text()


def test_two_syntheses_are_identical() -> None:
    assert made.synthesise(made.config("default")) == made.synthesise(made.config("default"))


@every
def test_nothing_that_costs_money_outlives_the_stacks(name: str) -> None:
    kept = {
        key
        for key, resource in all_of(name)
        if resource.get("DeletionPolicy", "Delete") != "Delete"
        or resource.get("UpdateReplacePolicy", "Delete") != "Delete"
    }
    assert kept == KEPT


def test_every_exception_from_the_rules_is_needed_and_has_its_reason() -> None:
    needed = frozenset().union(*(made.synthesis(name).excepted for name in NAMES))
    assert needed == {(exception.path, PREFIX + exception.rule) for exception in EXCEPTIONS}
    assert all(exception.reason for exception in EXCEPTIONS)


@every
def test_the_same_wildcards_and_no_others(name: str) -> None:
    """`*` stands only where AWS knows no resource."""
    unbound = {
        line.split(": ")[1].removesuffix(" on *")
        for line in made.permissions(name).splitlines()
        if line.endswith(" on *")
    }
    assert unbound <= {
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ecr:GetAuthorizationToken",
        "secretsmanager:GetRandomPassword",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }
    assert not any("*" in line.split(" on ")[0] for line in made.permissions(name).splitlines())


@every
def test_no_role_has_a_policy_that_others_wrote(name: str) -> None:
    assert all("ManagedPolicyArns" not in role for role in properties(name, "AWS::IAM::Role"))


# --------------------------------------------------------------------------------- network


@every
def test_nothing_is_let_in_from_everywhere(name: str) -> None:
    groups = properties(name, "AWS::EC2::SecurityGroup")
    rules = [rule for group in groups for rule in group.get("SecurityGroupIngress", [])]
    rules += properties(name, "AWS::EC2::SecurityGroupIngress")
    assert rules
    for rule in rules:
        assert rule.get("CidrIp") != "0.0.0.0/0"
        assert rule.get("CidrIpv6") != "::/0"
        assert rule["IpProtocol"] == "tcp"
        assert rule["FromPort"] == rule["ToPort"]


@every
def test_browsers_come_only_from_the_networks_that_are_named_and_only_to_the_balancer(
    name: str,
) -> None:
    groups = resources(name, "AWS::EC2::SecurityGroup")
    reached = {
        (group["Properties"]["GroupDescription"], rule["CidrIp"], rule["FromPort"])
        for group in groups.values()
        for rule in group["Properties"].get("SecurityGroupIngress", [])
        if "CidrIp" in rule
    }
    assert reached == {("the load balancer in front of Grafana", made.ALLOW[0], 443)}


@every
def test_outgoing_traffic_is_bound_to_ports(name: str) -> None:
    for group in properties(name, "AWS::EC2::SecurityGroup"):
        for rule in group.get("SecurityGroupEgress", []):
            # the rule by which CDK says "none": nothing is sent to this address
            if rule["CidrIp"] != "255.255.255.255/32":
                assert rule["IpProtocol"] == "tcp"
                assert rule["FromPort"] == rule["ToPort"] in {443, 4200, 5432, 9098}


@every
def test_instances_have_no_public_address_and_answer_metadata_only_with_a_token(name: str) -> None:
    for template in properties(name, "AWS::EC2::LaunchTemplate"):
        data = template["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        assert "KeyName" not in data
    assert all(not subnet["MapPublicIpOnLaunch"] for subnet in properties(name, "AWS::EC2::Subnet"))


@every
def test_a_balancer_speaks_tls_or_passes_it_through(name: str) -> None:
    for listener in properties(name, "AWS::ElasticLoadBalancingV2::Listener"):
        assert listener["Port"] == 443
        assert listener["Protocol"] in {"HTTPS", "TCP"}
    for target in properties(name, "AWS::ElasticLoadBalancingV2::TargetGroup"):
        assert target["HealthCheckProtocol"] == "HTTPS"


# ----------------------------------------------------------------------------------- Kafka


@pytest.mark.parametrize("name", ["default", "production"])
def test_brokers_are_private_encrypted_and_take_iam_alone(name: str) -> None:
    [cluster] = properties(name, "AWS::MSK::Cluster")
    assert cluster["ClientAuthentication"] == {
        "Sasl": {"Iam": {"Enabled": True}},
        "Unauthenticated": {"Enabled": False},
    }
    assert cluster["EncryptionInfo"] == {
        "EncryptionInTransit": {"ClientBroker": "TLS", "InCluster": True}
    }
    nodes = cluster["BrokerNodeGroupInfo"]
    assert nodes["ConnectivityInfo"] == {"PublicAccess": {"Type": "DISABLED"}}
    assert cluster["NumberOfBrokerNodes"] % len(nodes["ClientSubnets"]) == 0
    assert cluster["KafkaVersion"].endswith(".kraft")


def test_a_serverless_cluster_takes_iam_alone() -> None:
    [cluster] = properties("smallest", "AWS::MSK::ServerlessCluster")
    assert cluster["ClientAuthentication"] == {"Sasl": {"Iam": {"Enabled": True}}}


def test_the_consumer_of_a_serverless_cluster_waits_until_the_producer_has_made_the_topic() -> None:
    [mapping] = resources("smallest", "AWS::Lambda::EventSourceMapping").values()
    groups = resources("smallest", "AWS::AutoScaling::AutoScalingGroup")
    producer = next(key for key in groups if key.startswith("Producer"))
    assert producer in mapping["DependsOn"]
    assert groups[producer]["CreationPolicy"]["ResourceSignal"]["Count"] == 1


@pytest.mark.parametrize("name", ["default", "production"])
def test_the_topic_is_made_by_the_deploy_and_is_not_compacted(name: str) -> None:
    [topic] = properties(name, "AWS::MSK::Topic")
    settings = base64.b64decode(topic["Configs"])
    assert b'"cleanup.policy": "delete"' in settings
    assert topic["ReplicationFactor"] == 3
    assert topic["PartitionCount"] == made.config(name).partitions


# ---------------------------------------------------------------------------------- Lambda


@every
def test_the_mapping_is_the_one_of_the_yaml_file(name: str) -> None:
    [mapping] = properties(name, "AWS::Lambda::EventSourceMapping")
    said = yaml.safe_load(made.EVENT_SOURCE.read_text())["EventSourceMapping"]
    own = {"StartingPosition", "AmazonManagedKafkaEventSourceConfig"}
    assert {key: value for key, value in mapping.items() if key in said and key not in own} == {
        key: value for key, value in said.items() if key not in own
    }
    assert mapping["StartingPosition"]["Fn::If"][2] == said["StartingPosition"]
    assert len(mapping["Topics"]) == 1


@every
def test_what_the_linters_let_pass_of_a_mapping_holds(name: str) -> None:
    """facts: fewer maximum than minimum pollers, no topic, retries without pollers."""
    [mapping] = properties(name, "AWS::Lambda::EventSourceMapping")
    pollers = mapping["ProvisionedPollerConfig"]
    assert 1 <= pollers["MinimumPollers"] <= pollers["MaximumPollers"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["MaximumRetryAttempts"] == -1
    assert mapping["MaximumRecordAgeInSeconds"] == -1
    assert "DestinationConfig" not in mapping


@every
def test_a_replay_has_a_group_of_its_own_and_begins_at_its_time(name: str) -> None:
    [mapping] = properties(name, "AWS::Lambda::EventSourceMapping")
    group = mapping["AmazonManagedKafkaEventSourceConfig"]["ConsumerGroupId"]["Fn::If"]
    of = made.config(name).name
    assert group[1:] == [{"Fn::Join": ["-", [of, {"Ref": "ReplayFrom"}]]}, of]
    assert mapping["StartingPosition"]["Fn::If"][1] == "AT_TIMESTAMP"
    assert mapping["StartingPositionTimestamp"]["Fn::If"][1:] == [
        {"Ref": "ReplayFrom"},
        {"Ref": "AWS::NoValue"},
    ]
    assert templates(name)["Pipeline"]["Parameters"]["ReplayFrom"]["Default"] == 0


@every
def test_the_function_is_the_zip_with_bounded_concurrency_and_no_password(name: str) -> None:
    functions = properties(name, "AWS::Lambda::Function")
    consumer = next(f for f in functions if f["Handler"] == "climatestream.aws.handler.handler")
    assert consumer["Architectures"] == ["arm64"]
    assert consumer["Runtime"] == "python3.13"
    assert consumer["ReservedConcurrentExecutions"] == made.config(name).reserved_concurrency
    variables = consumer["Environment"]["Variables"]
    assert set(variables) == {"CLIMATESTREAM_STORE", "CLIMATESTREAM_STORE_SECRET"}
    assert "climatestream_writer@db.example.com" in variables["CLIMATESTREAM_STORE"]


# --------------------------------------------------------------------- secrets and watching


@every
def test_passwords_are_generated_and_those_of_cratedb_change_every_month(name: str) -> None:
    for secret in properties(name, "AWS::SecretsManager::Secret"):
        assert "SecretString" not in secret
        assert "GenerateSecretString" in secret
    rotated = properties(name, "AWS::SecretsManager::RotationSchedule")
    assert len(rotated) == 2
    assert all(r["RotationRules"]["ScheduleExpression"] == "rate(30 days)" for r in rotated)


@every
def test_somebody_is_told_of_what_stands_still_and_of_what_it_costs(name: str) -> None:
    watched = {
        alarm.get("MetricName") or alarm["Metrics"][0]["Label"]
        for alarm in properties(name, "AWS::CloudWatch::Alarm")
    }
    expected = {"Errors", "Throttles", "OffsetLag", "DeadLetters", "Failed"}
    if name != "smallest":
        expected |= {
            "OfflinePartitionsCount",
            "ActiveControllerCount",
            "KafkaDataLogsDiskUsed",
            "UnderReplicatedPartitions",
        }
    assert watched == expected
    for alarm in properties(name, "AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"]
        assert alarm["AlarmDescription"]
    [budget] = properties(name, "AWS::Budgets::Budget")
    assert budget["Budget"]["BudgetLimit"]["Amount"] == made.config(name).budget_usd


def test_the_alarms_watch_metrics_that_the_function_writes() -> None:
    from climatestream.aws import handler, log

    watched = {
        alarm["MetricName"]
        for alarm in properties("default", "AWS::CloudWatch::Alarm")
        if alarm.get("Namespace") == log.NAMESPACE
    }
    assert watched == {"DeadLetters", "Failed"}
    assert watched <= handler._UNITS.keys()


@every
def test_every_log_ends_some_day(name: str) -> None:
    groups = properties(name, "AWS::Logs::LogGroup")
    assert groups
    assert {group["RetentionInDays"] for group in groups} == {made.config(name).log_days}


def test_without_a_domain_the_address_is_the_balancer_s_and_with_one_it_is_the_domain() -> None:
    def address(name: str) -> Any:
        return templates(name)["Pipeline"]["Outputs"]["GrafanaAddress"]["Value"]

    assert "DNSName" in str(address("default"))
    assert address("production") == "https://climate.example.com"
    assert resources("production", "AWS::CertificateManager::Certificate")


def test_a_network_that_is_there_already_is_used() -> None:
    from climatestream_aws.config import Vpc

    given = made.config("default")
    private, public = ([f"subnet-{n:08x}" for n in of] for of in (range(3), range(3, 6)))
    vpc = Vpc("vpc-00000001", tuple(private), tuple(public))
    template = made.synthesise(replace(given, vpc=vpc)).templates["Pipeline"]
    kinds = {resource["Type"] for resource in template["Resources"].values()}
    assert "AWS::EC2::VPC" not in kinds
    assert private[0] in str(template)


def test_cratedb_is_reached_over_a_private_link_where_one_is_named() -> None:
    given = replace(
        made.config("default"), private_link="com.amazonaws.vpce.eu-central-1.vpce-svc-1"
    )
    found = made.synthesise(given).templates["Pipeline"]["Resources"].values()
    links = [r["Properties"] for r in found if r["Type"] == "AWS::EC2::VPCEndpoint"]
    [link] = [link for link in links if given.private_link == link["ServiceName"]]
    assert link["PrivateDnsEnabled"] is True
