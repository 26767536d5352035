"""Instances that install themselves: what the producer's and Grafana's have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from aws_cdk import (
    CfnElement,
    Duration,
    Stack,
    Tags,
)
from aws_cdk import (
    aws_autoscaling as autoscaling,
)
from aws_cdk import (
    aws_ec2 as ec2,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk.aws_s3_assets import Asset
from constructs import Construct

from climatestream_aws.network import Network

INSTALL_MINUTES = 15
"""How long an instance may take until it says that it works."""
DISK_GIB = 20


class Instance(Construct):
    """One instance, replaced when it fails: an Auto Scaling group of one.

    It runs `install.sh` of its asset once, with the settings as environment, and then says to
    CloudFormation that it works, or that it does not, which undoes the deploy. There is no SSH;
    AWS Systems Manager opens a shell. Its metadata answers version 2 alone.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        network: Network,
        group: ec2.SecurityGroup,
        kind: str,
        asset: Path,
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(scope, name)
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description=f"climatestream: the instance of the {name.lower()}",
        )
        self.role.add_to_principal_policy(
            iam.PolicyStatement(
                sid="SessionManager",
                # what the agent needs for a shell; none of these can be bound to a resource:
                # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
                actions=[
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                resources=["*"],
            )
        )
        files = Asset(self, "Files", path=str(asset))
        self.role.add_to_principal_policy(
            iam.PolicyStatement(
                sid="Files",
                actions=["s3:GetObject"],
                resources=[files.bucket.arn_for_objects(files.s3_object_key)],
            )
        )
        commands = ec2.UserData.for_linux()
        template = ec2.LaunchTemplate(
            self,
            "Template",
            instance_type=ec2.InstanceType(kind),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(
                cpu_type=ec2.AmazonLinuxCpuType.ARM_64
            ),
            role=self.role,
            user_data=commands,
            security_group=group,
            require_imdsv2=True,
            http_put_response_hop_limit=1,
            detailed_monitoring=True,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        DISK_GIB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
                    ),
                )
            ],
        )
        self.scaling = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=network.private,
            launch_template=template,
            min_capacity=1,
            max_capacity=1,
            signals=autoscaling.Signals.wait_for_all(timeout=Duration.minutes(INSTALL_MINUTES)),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                min_instances_in_service=0, max_batch_size=1
            ),
        )
        Tags.of(self.scaling).add("Name", f"{Stack.of(self).stack_name}-{name.lower()}")
        # a policy that arrives after the instance has started would be too late for it
        self.scaling.node.add_dependency(self.role)
        resource = cast("CfnElement", self.scaling.node.default_child)
        stack = Stack.of(self)
        # an instance that replaces a broken one later has nobody who waits for its signal
        commands.add_commands(
            "set -euo pipefail",
            "say() { aws cloudformation signal-resource --status "
            '"$([ "$1" = 0 ] && echo SUCCESS || echo FAILURE)"'
            f" --region {stack.region} --stack-name {stack.stack_name}"
            f" --logical-resource-id {stack.get_logical_id(resource)}"
            ' --unique-id "$(cat /var/lib/cloud/data/instance-id)" || true; }',
            "trap 'say $?' EXIT",
            "mkdir -p /opt/climatestream && cd /opt/climatestream",
            f"aws s3 cp {files.s3_object_url} files.zip",
            "python3 -m zipfile -e files.zip files",
            *(f"export {key}={shlex.quote(value)}" for key, value in sorted(settings.items())),
            "bash files/install.sh",
        )
