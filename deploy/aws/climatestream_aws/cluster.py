"""Amazon MSK: the cluster, its topic, and who may do what with both."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Final

from aws_cdk import (
    Aws,
    CfnResource,
    Fn,
    RemovalPolicy,
    Stack,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk import (
    aws_logs as logs,
)
from aws_cdk import (
    aws_msk as msk,
)
from constructs import Construct

from climatestream_aws.config import Config
from climatestream_aws.network import Network, retention

DAY_MS: Final = 86_400_000


class Cluster(Construct):
    """A Kafka cluster that speaks TLS with IAM, and nothing else.

    Provisioned (KRaft, `brokers` of them) or serverless. The topic of a provisioned cluster is a
    resource of the template; a serverless one has no interface for it
    (https://docs.aws.amazon.com/msk/latest/developerguide/msk-topic-operations-information.html),
    so the producer makes its topic before the consumer is connected.

    Its data goes with it: whatever the topic holds can be published again.
    """

    def __init__(self, scope: Construct, config: Config, network: Network, topic: str) -> None:
        super().__init__(scope, "Cluster")
        self.topic_name = topic
        self.topic: CfnResource | None = None
        self.name = config.name
        if config.kafka == "serverless":
            self._cluster: CfnResource = self._serverless(network)
        else:
            self._cluster = self._provisioned(config, network)
            self.topic = self._made_topic(config)
        self._cluster.apply_removal_policy(RemovalPolicy.DESTROY)
        self.arn = self._cluster.ref

    def _serverless(self, network: Network) -> CfnResource:
        return msk.CfnServerlessCluster(
            self,
            "Serverless",
            cluster_name=self.name,
            client_authentication=msk.CfnServerlessCluster.ClientAuthenticationProperty(
                sasl=msk.CfnServerlessCluster.SaslProperty(
                    iam=msk.CfnServerlessCluster.IamProperty(enabled=True)
                )
            ),
            vpc_configs=[
                msk.CfnServerlessCluster.VpcConfigProperty(
                    subnet_ids=network.vpc.select_subnets(
                        subnet_type=network.private.subnet_type
                    ).subnet_ids,
                    security_groups=[network.peers.kafka.security_group_id],
                )
            ],
        )

    def _provisioned(self, config: Config, network: Network) -> CfnResource:
        settings = msk.CfnConfiguration(
            self,
            "Settings",
            name=f"{config.name}-settings",
            server_properties="\n".join(
                (
                    # the topic is declared: a typo must not make another one
                    "auto.create.topics.enable=false",
                    f"default.replication.factor={config.replication}",
                    f"min.insync.replicas={max(1, config.replication - 1)}",
                    "unclean.leader.election.enable=false",
                )
            ),
        )
        log = logs.LogGroup(
            self,
            "BrokerLogs",
            retention=retention(config.log_days),
            removal_policy=RemovalPolicy.DESTROY,
        )
        return msk.CfnCluster(
            self,
            "Provisioned",
            cluster_name=self.name,
            kafka_version=config.kafka_version,
            number_of_broker_nodes=config.brokers,
            broker_node_group_info=msk.CfnCluster.BrokerNodeGroupInfoProperty(
                instance_type=config.broker_type,
                client_subnets=network.vpc.select_subnets(
                    subnet_type=network.private.subnet_type
                ).subnet_ids,
                security_groups=[network.peers.kafka.security_group_id],
                connectivity_info=msk.CfnCluster.ConnectivityInfoProperty(
                    public_access=msk.CfnCluster.PublicAccessProperty(type="DISABLED")
                ),
                storage_info=msk.CfnCluster.StorageInfoProperty(
                    ebs_storage_info=msk.CfnCluster.EBSStorageInfoProperty(
                        volume_size=config.broker_disk_gib
                    )
                ),
            ),
            client_authentication=msk.CfnCluster.ClientAuthenticationProperty(
                sasl=msk.CfnCluster.SaslProperty(iam=msk.CfnCluster.IamProperty(enabled=True)),
                unauthenticated=msk.CfnCluster.UnauthenticatedProperty(enabled=False),
            ),
            encryption_info=msk.CfnCluster.EncryptionInfoProperty(
                encryption_in_transit=msk.CfnCluster.EncryptionInTransitProperty(
                    client_broker="TLS", in_cluster=True
                ),
                # at rest Amazon MSK encrypts always; without a key named here, with its own
            ),
            enhanced_monitoring="PER_BROKER",
            configuration_info=msk.CfnCluster.ConfigurationInfoProperty(
                arn=settings.attr_arn, revision=settings.attr_latest_revision_revision
            ),
            logging_info=msk.CfnCluster.LoggingInfoProperty(
                broker_logs=msk.CfnCluster.BrokerLogsProperty(
                    cloud_watch_logs=msk.CfnCluster.CloudWatchLogsProperty(
                        enabled=True, log_group=log.log_group_name
                    )
                )
            ),
        )

    def _made_topic(self, config: Config) -> CfnResource:
        topic = msk.CfnTopic(
            self,
            "Topic",
            cluster_arn=self._cluster.ref,
            topic_name=self.topic_name,
            partition_count=config.partitions,
            replication_factor=config.replication,
            configs=base64.b64encode(
                json.dumps(
                    {
                        "cleanup.policy": "delete",
                        "retention.ms": str(config.retention_days * DAY_MS),
                        "min.insync.replicas": str(max(1, config.replication - 1)),
                    },
                    sort_keys=True,
                ).encode()
            ).decode(),
        )
        topic.apply_removal_policy(RemovalPolicy.DESTROY)
        return topic

    # -------------------------------------------------------------------------- permissions
    # Names of actions and resources:
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_apachekafkaapisforamazonmskclusters.html

    def _of(self, kind: str, name: str) -> str:
        """The ARN of a topic or a group of this cluster, whose id is known when it is made."""
        path = Fn.select(1, Fn.split(":cluster/", self.arn))
        return (
            f"arn:{Aws.PARTITION}:kafka:{Stack.of(self).region}:{Aws.ACCOUNT_ID}:"
            f"{kind}/{path}/{name}"
        )

    def let_produce(self, grantee: iam.IGrantable, *, make_topic: bool) -> None:
        """Publish to the topic; where it is the producer that makes it, make it too."""
        grant = grantee.grant_principal.add_to_principal_policy
        grant(
            iam.PolicyStatement(
                sid="Connect",
                actions=[
                    "kafka-cluster:Connect",
                    "kafka-cluster:DescribeCluster",
                    "kafka-cluster:WriteDataIdempotently",
                ],
                resources=[self.arn],
            )
        )
        actions = [
            "kafka-cluster:DescribeTopic",
            "kafka-cluster:DescribeTopicDynamicConfiguration",
            "kafka-cluster:WriteData",
        ]
        if make_topic:
            actions.append("kafka-cluster:CreateTopic")
        grant(
            iam.PolicyStatement(
                sid="Topic", actions=actions, resources=[self._of("topic", self.topic_name)]
            )
        )
        grant(
            iam.PolicyStatement(
                sid="FindBrokers", actions=["kafka:GetBootstrapBrokers"], resources=[self.arn]
            )
        )

    def let_consume(self, grantee: iam.IGrantable, groups: Sequence[str]) -> None:
        """Consume the topic by an event source mapping, in one of these groups.

        The list is that of
        https://docs.aws.amazon.com/lambda/latest/dg/with-msk-permissions.html and
        https://docs.aws.amazon.com/lambda/latest/dg/msk-cluster-auth.html.
        """
        grant = grantee.grant_principal.add_to_principal_policy
        grant(
            iam.PolicyStatement(
                sid="Cluster",
                actions=[
                    "kafka-cluster:Connect",
                    "kafka-cluster:DescribeClusterDynamicConfiguration",
                    "kafka:DescribeClusterV2",
                    "kafka:GetBootstrapBrokers",
                ],
                resources=[self.arn],
            )
        )
        grant(
            iam.PolicyStatement(
                sid="Topic",
                actions=["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"],
                resources=[self._of("topic", self.topic_name)],
            )
        )
        grant(
            iam.PolicyStatement(
                sid="Group",
                actions=["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"],
                resources=[self._of("group", group) for group in groups],
            )
        )
