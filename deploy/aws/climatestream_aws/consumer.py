"""The consumer: the Lambda function, and the mapping that feeds it from Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aws_cdk import (
    CfnCondition,
    CfnParameter,
    CfnResource,
    Duration,
    Fn,
    RemovalPolicy,
    Token,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk import (
    aws_lambda as lambda_,
)
from aws_cdk import (
    aws_logs as logs,
)
from aws_cdk.aws_secretsmanager import ISecret
from constructs import Construct

from climatestream.aws.mapping_settings import Deployment
from climatestream_aws.cluster import Cluster
from climatestream_aws.config import Config
from climatestream_aws.network import Network, retention
from climatestream_aws.rotations import interfaces_of_a_function

NEVER: Final = 0
"""The parameter ReplayFrom where nothing is replayed [s since the epoch]."""


class Consumer(Construct):
    """Amazon MSK to CrateDB, by the very zip that runs on a laptop.

    The mapping's properties are those of the YAML file, unchanged. To begin again at another
    time, a new mapping with a group of its own takes the place of the old one, since neither the
    starting position nor the group of a mapping can be changed, and since a group that has
    committed offsets ignores the position
    (https://docs.aws.amazon.com/lambda/latest/dg/kafka-consumer-group-id.html). While both work,
    messages arrive twice, which the store's key makes harmless. The time is a parameter of the
    stack, in seconds since the epoch, so that later deploys keep it.
    """

    def __init__(
        self,
        scope: Construct,
        config: Config,
        network: Network,
        cluster: Cluster,
        writer: ISecret,
        event_source: Deployment,
        archive: Path,
    ) -> None:
        super().__init__(scope, "Consumer")
        self.log = logs.LogGroup(
            self, "Log", retention=retention(config.log_days), removal_policy=RemovalPolicy.DESTROY
        )
        replay = CfnParameter(
            self,
            "ReplayFrom",
            type="Number",
            default=NEVER,
            description="Seconds since the epoch from which the topic is consumed again; 0: not",
        )
        replay.override_logical_id("ReplayFrom")
        asked = CfnCondition(
            self,
            "Replayed",
            expression=Fn.condition_not(Fn.condition_equals(replay.value_as_number, NEVER)),
        )
        # a replay is a condition of the template: what begins again has a group of its own
        self._replay, self._asked = replay, asked
        group = Token.as_string(
            Fn.condition_if(
                asked.logical_id,
                Fn.join("-", [config.name, Fn.ref(replay.logical_id)]),
                config.name,
            )
        )
        role = self._role(cluster, [config.name, group], writer)
        function = event_source.function
        self.function = lambda_.Function(
            self,
            "Function",
            description="climatestream: readings from Kafka into CrateDB",
            runtime=lambda_.Runtime(function["Runtime"], lambda_.RuntimeFamily.PYTHON),
            architecture=lambda_.Architecture.custom(function["Architectures"][0]),
            handler=function["Handler"],
            code=lambda_.Code.from_asset(str(archive)),
            memory_size=function["MemorySize"],
            timeout=Duration.seconds(function["Timeout"]),
            reserved_concurrent_executions=config.reserved_concurrency,
            role=role,
            log_group=self.log,
            vpc=network.vpc,
            vpc_subnets=network.private,
            security_groups=[network.peers.consumer],
            environment={
                "CLIMATESTREAM_STORE": _store_of(config, "climatestream_writer"),
                "CLIMATESTREAM_STORE_SECRET": writer.secret_arn,
            },
        )
        self.mapping = self._mapping(cluster, event_source, group)
        self.mapping.node.add_dependency(role)

    def _role(self, cluster: Cluster, groups: list[str], writer: ISecret) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="The consumer: read the topic, read its password, write its log",
        )
        cluster.let_consume(role, groups)
        role.add_to_principal_policy(interfaces_of_a_function())
        self.log.grant_write(role)
        writer.grant_read(role)
        return role

    def _mapping(self, cluster: Cluster, event_source: Deployment, group: str) -> CfnResource:
        properties: dict[str, Any] = dict(event_source.mapping)
        position = properties.pop("StartingPosition")
        at = properties.pop("StartingPositionTimestamp", None)
        no_value = {"Ref": "AWS::NoValue"}
        properties |= {
            "FunctionName": self.function.function_name,
            "EventSourceArn": cluster.arn,
            "AmazonManagedKafkaEventSourceConfig": {"ConsumerGroupId": group},
            "StartingPosition": Fn.condition_if(self._asked.logical_id, "AT_TIMESTAMP", position),
            "StartingPositionTimestamp": Fn.condition_if(
                self._asked.logical_id,
                Fn.ref(self._replay.logical_id),
                no_value if at is None else at,
            ),
        }
        mapping = CfnResource(
            self, "Mapping", type="AWS::Lambda::EventSourceMapping", properties=properties
        )
        if cluster.topic is not None:
            mapping.add_resource_dependency(cluster.topic)
        mapping.apply_removal_policy(RemovalPolicy.DESTROY)
        return mapping


def _store_of(config: Config, user: str) -> str:
    address = config.address
    return f"crate://{user}@{address.server}/{address.schema}?ssl=true"
