"""The network: where each part sits, and which port each may reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aws_cdk import RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from climatestream_aws.config import Config, Vpc

MSK_IAM_PORT: Final = 9098
"""TLS with IAM. https://docs.aws.amazon.com/msk/latest/developerguide/port-info.html"""
CRATE_PG_PORT: Final = 5432
HTTPS: Final = 443
GRAFANA_PORT: Final = 3000

_SERVICES: Final = {
    "Secrets": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "Metrics": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_MONITORING,
    "Sts": ec2.InterfaceVpcEndpointAwsService.STS,
    "Ssm": ec2.InterfaceVpcEndpointAwsService.SSM,
    "SsmMessages": ec2.InterfaceVpcEndpointAwsService.SSM_MESSAGES,
    "Ecr": ec2.InterfaceVpcEndpointAwsService.ECR,
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
}
"""What functions, instances and containers call while they work."""


@dataclass(frozen=True)
class Peers:
    """The security groups, one for each part."""

    kafka: ec2.SecurityGroup
    consumer: ec2.SecurityGroup
    producer: ec2.SecurityGroup
    grafana: ec2.SecurityGroup
    balancer: ec2.SecurityGroup


class Network(Construct):
    """A VPC of its own, or a named one; the ways out of it; one security group a part.

    Nothing listens to the world. In private subnets: brokers, consumer, producer, Grafana. In
    public ones: the NAT gateways, whose addresses CrateDB Cloud can be told to let in, and the
    load balancer in front of Grafana, which lets in the networks of `grafana_allow` alone.

    Outgoing rules name a port, not a peer, where the peer is a service on the internet whose
    addresses are nobody's promise (CrateDB Cloud, the Climate Data Store, package servers).
    """

    def __init__(self, scope: Construct, config: Config) -> None:
        super().__init__(scope, "Network")
        self.vpc: ec2.IVpc = self._named(config, config.vpc) if config.vpc else self._made(config)
        self.private = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        self.public = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC)
        self.peers = self._peers(config)
        if config.interface_endpoints:
            self._endpoints()
        if config.private_link:
            self._private_link(config.private_link, config.address.port)

    def _named(self, config: Config, vpc: Vpc) -> ec2.IVpc:
        return ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=vpc.id,
            vpc_cidr_block=config.cidr,
            availability_zones=list(config.zones),
            private_subnet_ids=list(vpc.private_subnets),
            public_subnet_ids=list(vpc.public_subnets),
        )

    def _made(self, config: Config) -> ec2.Vpc:
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.cidr),
            availability_zones=list(config.zones),
            nat_gateways=config.nat_gateways,
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public",
                    subnet_type=ec2.SubnetType.PUBLIC,
                    cidr_mask=24,
                    map_public_ip_on_launch=False,
                ),
                ec2.SubnetConfiguration(
                    name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=20
                ),
            ],
        )
        group = logs.LogGroup(
            self,
            "FlowLogs",
            retention=retention(config.log_days),
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(
            self, "FlowLogsRole", assumed_by=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com")
        )
        vpc.add_flow_log(
            "Rejected",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(group, role),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )
        vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        return vpc

    def _endpoints(self) -> None:
        """AWS's services inside the network, for the parts alone."""
        group = self._group("Endpoints", "endpoints of services of AWS")
        for peer in (self.peers.consumer, self.peers.producer, self.peers.grafana):
            group.add_ingress_rule(peer, ec2.Port.tcp(HTTPS), "calls to AWS")
        for name, service in _SERVICES.items():
            ec2.InterfaceVpcEndpoint(
                self,
                name,
                vpc=self.vpc,
                service=service,
                open=False,
                security_groups=[group],
                subnets=self.private,
                private_dns_enabled=True,
            )

    def _group(self, name: str, what: str) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            self, name, vpc=self.vpc, description=what, allow_all_outbound=False
        )

    def _peers(self, config: Config) -> Peers:
        peers = Peers(
            kafka=self._group("Kafka", "Amazon MSK brokers, and the pollers of Lambda"),
            consumer=self._group("Consumer", "the Lambda consumer"),
            producer=self._group("Producer", "the producer"),
            grafana=self._group("Grafana", "Grafana"),
            balancer=self._group("Balancer", "the load balancer in front of Grafana"),
        )
        kafka = ec2.Port.tcp(MSK_IAM_PORT)
        # Lambda polls from network interfaces in the cluster's own subnets and security groups:
        # https://docs.aws.amazon.com/lambda/latest/dg/with-msk-cluster-network.html
        peers.kafka.add_ingress_rule(peers.kafka, kafka, "pollers of Lambda")
        peers.kafka.add_egress_rule(peers.kafka, kafka, "pollers of Lambda")
        peers.kafka.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS), "Lambda and STS")
        peers.producer.connections.allow_to(peers.kafka, kafka, "publish")
        _out(peers.producer, HTTPS, "climate data, packages, AWS")
        _out(peers.consumer, config.address.port, "CrateDB over HTTPS")
        _out(peers.grafana, CRATE_PG_PORT, "CrateDB over the PostgreSQL protocol, with TLS")
        for group, what in ((peers.consumer, "Secrets Manager"), (peers.grafana, "packages, AWS")):
            if config.address.port != HTTPS or group is peers.grafana:
                _out(group, HTTPS, what)
        peers.balancer.connections.allow_to(
            peers.grafana, ec2.Port.tcp(GRAFANA_PORT), "to Grafana, with TLS"
        )
        for network in config.grafana_allow:
            peer = ec2.Peer.ipv6(network) if ":" in network else ec2.Peer.ipv4(network)
            peers.balancer.add_ingress_rule(peer, ec2.Port.tcp(HTTPS), "browsers")
        return peers

    def _private_link(self, service: str, port: int) -> None:
        """CrateDB by AWS PrivateLink, under its own name inside the VPC."""
        endpoint = ec2.InterfaceVpcEndpoint(
            self,
            "CrateDb",
            vpc=self.vpc,
            service=ec2.InterfaceVpcEndpointService(service, port),
            private_dns_enabled=True,
            open=False,
            subnets=self.private,
        )
        for group in (self.peers.consumer, self.peers.grafana):
            for number in (port, CRATE_PG_PORT):
                endpoint.connections.allow_from(group, ec2.Port.tcp(number), "to CrateDB")


def _out(group: ec2.SecurityGroup, port: int, what: str) -> None:
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), what)


def retention(days: int) -> logs.RetentionDays:
    """CloudWatch's name of a number of days, which must be one that it knows."""
    known = {
        1: logs.RetentionDays.ONE_DAY,
        7: logs.RetentionDays.ONE_WEEK,
        14: logs.RetentionDays.TWO_WEEKS,
        30: logs.RetentionDays.ONE_MONTH,
        90: logs.RetentionDays.THREE_MONTHS,
        180: logs.RetentionDays.SIX_MONTHS,
        365: logs.RetentionDays.ONE_YEAR,
        731: logs.RetentionDays.TWO_YEARS,
    }
    from climatestream.errors import UsageError

    if days not in known:
        raise UsageError(f"log_days is {days}, expected one of {', '.join(map(str, known))}")
    return known[days]
