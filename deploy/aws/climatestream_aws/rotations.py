"""New passwords for CrateDB's users, every month, without a deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.aws_secretsmanager import ISecret, RotationSchedule
from constructs import Construct

from climatestream.aws.mapping_settings import Deployment
from climatestream_aws.config import Config
from climatestream_aws.network import Network, retention

EVERY: Final = Duration.days(30)
CONCURRENCY: Final = 2
"""One for each user."""


class Rotation(Construct):
    """A function of the consumer's zip, which lets a user take a new password.

    The consumer reads the secret again when it is refused, Grafana's instance looks every five
    minutes.
    """

    def __init__(
        self,
        scope: Construct,
        config: Config,
        network: Network,
        users: dict[str, ISecret],
        event_source: Deployment,
        archive: Path,
    ) -> None:
        super().__init__(scope, "Rotation")
        log = logs.LogGroup(
            self, "Log", retention=retention(config.log_days), removal_policy=RemovalPolicy.DESTROY
        )
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description="Rotation: the users' secrets, and its log",
        )
        role.add_to_principal_policy(interfaces_of_a_function())
        log.grant_write(role)
        address = config.address
        function = lambda_.Function(
            self,
            "Function",
            description="climatestream: a new password for a user of CrateDB",
            runtime=lambda_.Runtime(event_source.function["Runtime"], lambda_.RuntimeFamily.PYTHON),
            architecture=lambda_.Architecture.custom(event_source.function["Architectures"][0]),
            handler="climatestream.aws.rotation.handler",
            code=lambda_.Code.from_asset(str(archive)),
            memory_size=256,
            timeout=Duration.seconds(60),
            reserved_concurrent_executions=CONCURRENCY,
            role=role,
            log_group=log,
            vpc=network.vpc,
            vpc_subnets=network.private,
            security_groups=[network.peers.consumer],
            environment={
                "CLIMATESTREAM_STORE": f"crate://{address.server}/{address.schema}?ssl=true"
            },
        )
        for name, secret in users.items():
            # lets the function read and write this secret, and no other
            RotationSchedule(
                self,
                f"Of{name.capitalize()}",
                secret=secret,
                rotation_lambda=function,
                automatically_after=EVERY,
                rotate_immediately_on_update=False,
            )
        for permission in function.node.find_all():
            if isinstance(permission, lambda_.CfnPermission):
                permission.source_account = Stack.of(self).account


def interfaces_of_a_function() -> iam.PolicyStatement:
    """What a function in a VPC needs for its network interfaces.

    None of these can be bound to a resource that is known before:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    """
    return iam.PolicyStatement(
        sid="NetworkInterfaces",
        actions=[
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ],
        resources=["*"],
    )
