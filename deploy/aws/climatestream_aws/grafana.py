"""Grafana behind TLS, over CrateDB, with the boards that are checked in."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import (
    Duration,
    Stack,
)
from aws_cdk import (
    aws_certificatemanager as acm,
)
from aws_cdk import (
    aws_elasticloadbalancingv2 as elb,
)
from aws_cdk import (
    aws_route53 as route53,
)
from aws_cdk import (
    aws_route53_targets as targets,
)
from aws_cdk.aws_secretsmanager import ISecret
from constructs import Construct

from climatestream_aws.config import Config
from climatestream_aws.instances import Instance
from climatestream_aws.network import CRATE_PG_PORT, GRAFANA_PORT, HTTPS, Network

VERSION = "12.3.3"
"""As in the stack of containers, whose panels and options were observed with it."""


class Grafana(Construct):
    """One instance that speaks TLS with a certificate that it makes itself.

    With a domain, an Application Load Balancer shows the domain's own certificate to browsers
    and speaks TLS to the instance. Without, a Network Load Balancer passes bytes through, so that
    browsers meet the instance's certificate and warn of it; nothing is ever sent in the clear.
    Boards, data source and alerts are files; nothing on the instance needs to be kept.
    """

    def __init__(
        self,
        scope: Construct,
        config: Config,
        network: Network,
        reader: ISecret,
        admin: ISecret,
        files: Path,
    ) -> None:
        super().__init__(scope, "Grafana")
        self.instance = Instance(
            self,
            "Instance",
            network=network,
            group=network.peers.grafana,
            kind=config.grafana_type,
            asset=files,
            settings={
                "GRAFANA_VERSION": VERSION,
                "READER_SECRET": reader.secret_arn,
                "ADMIN_SECRET": admin.secret_arn,
                "CRATEDB_POSTGRES": f"{config.address.host}:{CRATE_PG_PORT}",
                "CRATEDB_READER": "climatestream_reader",
                "CLIMATESTREAM_ALERT_EMAIL": config.email or "",
                "AWS_REGION": Stack.of(self).region,
            },
        )
        reader.grant_read(self.instance.role)
        admin.grant_read(self.instance.role)
        if config.domain:
            self.address = f"https://{config.domain}"
            self._application(config, config.domain, network)
        else:
            balancer = self._pass_through(network)
            self.address = f"https://{balancer.load_balancer_dns_name}"

    def _application(self, config: Config, domain: str, network: Network) -> None:
        zone = route53.HostedZone.from_hosted_zone_attributes(
            self, "Zone", hosted_zone_id=config.hosted_zone or "", zone_name=_parent(domain)
        )
        certificate = acm.Certificate(
            self,
            "Certificate",
            domain_name=domain,
            validation=acm.CertificateValidation.from_dns(zone),
        )
        balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            vpc_subnets=network.public,
            internet_facing=True,
            security_group=network.peers.balancer,
            drop_invalid_header_fields=True,
        )
        listener = balancer.add_listener(
            "Https",
            port=HTTPS,
            protocol=elb.ApplicationProtocol.HTTPS,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            open=False,
        )
        listener.add_targets(
            "Grafana",
            port=GRAFANA_PORT,
            protocol=elb.ApplicationProtocol.HTTPS,
            targets=[self.instance.scaling],
            health_check=elb.HealthCheck(
                path="/api/health", protocol=elb.Protocol.HTTPS, interval=Duration.seconds(30)
            ),
        )
        route53.ARecord(
            self,
            "Name",
            zone=zone,
            record_name=f"{domain}.",
            target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(balancer)),
        )

    def _pass_through(self, network: Network) -> elb.NetworkLoadBalancer:
        balancer = elb.NetworkLoadBalancer(
            self,
            "Balancer",
            vpc=network.vpc,
            vpc_subnets=network.public,
            internet_facing=True,
            security_groups=[network.peers.balancer],
            cross_zone_enabled=True,
        )
        listener = balancer.add_listener("Tls", port=HTTPS, protocol=elb.Protocol.TCP)
        listener.add_targets(
            "Grafana",
            port=GRAFANA_PORT,
            protocol=elb.Protocol.TCP,
            targets=[self.instance.scaling],
            health_check=elb.HealthCheck(
                path="/api/health", protocol=elb.Protocol.HTTPS, interval=Duration.seconds(30)
            ),
        )
        return balancer


def _parent(domain: str) -> str:
    return domain.split(".", 1)[1]
