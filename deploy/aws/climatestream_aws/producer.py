"""The producer: on an instance of its own, or as a container."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from aws_cdk import (
    IgnoreMode,
    RemovalPolicy,
    Stack,
)
from aws_cdk import (
    aws_ecr_assets as ecr_assets,
)
from aws_cdk import (
    aws_ecs as ecs,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk import (
    aws_logs as logs,
)
from aws_cdk.aws_secretsmanager import ISecret
from constructs import Construct

from climatestream_aws.cluster import Cluster
from climatestream_aws.config import Config
from climatestream_aws.instances import Instance
from climatestream_aws.network import Network, retention


class Producer(Construct):
    """`climatestream publish`, kept running.

    It starts as `python -m climatestream.aws.producer`, which asks AWS for the brokers and for
    the key of the Climate Data Store, and becomes the command. Where it dies, it starts again;
    what it then publishes twice changes nothing in the store.
    """

    def __init__(
        self,
        scope: Construct,
        config: Config,
        network: Network,
        cluster: Cluster,
        cds: ISecret,
        files: Path,
        checkout: Path,
    ) -> None:
        super().__init__(scope, "Producer")
        settings = {
            "CLIMATESTREAM_CLUSTER": cluster.arn,
            "CLIMATESTREAM_TOPIC": cluster.topic_name,
            "CLIMATESTREAM_PARTITIONS": str(config.partitions),
            "CLIMATESTREAM_RETENTION": f"{config.retention_days}d",
            "CLIMATESTREAM_CDS_SECRET": cds.secret_arn,
            "CLIMATESTREAM_PUBLISH": shlex.join((config.source, *config.source_options)),
            "AWS_REGION": Stack.of(self).region,
        }
        if config.producer == "fargate":
            grantee: iam.IGrantable = self._container(config, network, settings, checkout)
        else:
            self.instance = Instance(
                self,
                "Instance",
                network=network,
                group=network.peers.producer,
                kind=config.producer_type,
                asset=files,
                settings=settings,
            )
            grantee = self.instance.role
            if cluster.topic is not None:
                self.instance.node.add_dependency(cluster.topic)
        cluster.let_produce(grantee, make_topic=cluster.topic is None)
        cds.grant_read(grantee)

    def _container(
        self, config: Config, network: Network, settings: dict[str, str], checkout: Path
    ) -> iam.IGrantable:
        # ECS would make this group itself, and leave it behind
        insights = logs.LogGroup(
            self,
            "Insights",
            log_group_name=f"/aws/ecs/containerinsights/{config.name}/performance",
            retention=retention(config.log_days),
            removal_policy=RemovalPolicy.DESTROY,
        )
        home = ecs.Cluster(
            self,
            "Home",
            cluster_name=config.name,
            vpc=network.vpc,
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        )
        home.node.add_dependency(insights)
        log = logs.LogGroup(
            self, "Log", retention=retention(config.log_days), removal_policy=RemovalPolicy.DESTROY
        )
        execution = iam.Role(
            self,
            "Execution",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description="climatestream: start the producer's container",
        )
        task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=512,
            memory_limit_mib=1024,
            execution_role=execution,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64,
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
        )
        task.add_container(
            "climatestream",
            image=ecs.ContainerImage.from_docker_image_asset(
                ecr_assets.DockerImageAsset(self, "Image", **image(checkout))
            ),
            entry_point=["python", "-m", "climatestream.aws.producer"],
            environment=settings,
            logging=ecs.LogDriver.aws_logs(stream_prefix="producer", log_group=log),
            readonly_root_filesystem=False,
        )
        service = ecs.FargateService(
            self,
            "Service",
            cluster=home,
            task_definition=task,
            desired_count=1,
            min_healthy_percent=0,
            max_healthy_percent=100,
            circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
            vpc_subnets=network.private,
            security_groups=[network.peers.producer],
            platform_version=ecs.FargatePlatformVersion.LATEST,
        )
        service.node.add_dependency(log)
        return task.task_role


IMAGE_FILES = (
    "deploy/Dockerfile",
    "deploy/requirements.lock",
    "deploy/requirements-build.lock",
    "pyproject.toml",
    "README.md",
    "requirements.lock",
    "scripts/make_lambda.py",
    "src",
)
"""What the image is built from."""


def image(checkout: Path) -> dict[str, Any]:
    """How the image is built from a checkout, for the processor that the task has."""
    return {
        "directory": str(checkout),
        "file": "deploy/Dockerfile",
        "platform": ecr_assets.Platform.LINUX_ARM64,
        "exclude": ["*", *(f"!{path}" for path in IMAGE_FILES), "**/__pycache__"],
        "ignore_mode": IgnoreMode.DOCKER,
    }
