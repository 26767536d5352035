"""What can fail later, asked first: each answer is one sentence, with the next step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from climatestream.errors import ClimatestreamError, UsageError
from climatestream.stores.crate_http import CrateHttp
from climatestream_aws.config import Config

Session: TypeAlias = Any
"""A session of AWS's SDK, which has no types of its own."""

BOOTSTRAP: Final = "/cdk-bootstrap/hnb659fds/version"
"""Where the CDK keeps the version of what it needs in an account and region."""
LEFT_FOR_OTHERS: Final = 100
"""Lambda's concurrency that no function may reserve:
https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html"""

QUOTAS: Final = {
    "VPCs": ("vpc", "L-F678F1CE"),
    "Elastic IP addresses": ("ec2", "L-0263D0A3"),
}
"""Service and code of the quotas that a new network meets first."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what is wrong with it; None: nothing."""

    what: str
    problem: str | None = None


def account(session: Session) -> str:
    """The number of the account that the credentials are of.

    Raises
    ------
    UsageError
        There are none, or AWS does not take them.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(session.client("sts").get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise UsageError(
            f"AWS does not know who you are: {error}; run `aws configure sso`, or set AWS_PROFILE"
        ) from error


def look(config: Config, session: Session) -> Iterator[Finding]:
    """Look at one thing after the other; without credentials, at nothing more."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        number = account(session)
    except UsageError as error:
        yield Finding("credentials", str(error))
        return
    yield Finding(f"credentials: account {number}")
    for check in (_zones, _bootstrapped, _network_quotas, _concurrency, _kafka, _domain):
        try:
            yield check(config, session)
        except (BotoCoreError, ClientError) as error:
            name = check.__name__.strip("_").replace("_", " ")
            yield Finding(name, f"AWS does not tell: {error}")
    yield store(config)


def _zones(config: Config, session: Session) -> Finding:
    found = session.client("ec2").describe_availability_zones()["AvailabilityZones"]
    names = {zone["ZoneName"] for zone in found if zone["State"] == "available"}
    lacking = [zone for zone in config.zones if zone not in names]
    if lacking:
        return Finding(
            "zones",
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not to be had in "
            f"{config.region} for this account: name some of {', '.join(sorted(names))}",
        )
    return Finding(f"zones: {', '.join(config.zones)}")


def _bootstrapped(config: Config, session: Session) -> Finding:
    ssm = session.client("ssm")
    try:
        version = ssm.get_parameter(Name=BOOTSTRAP)["Parameter"]["Value"]
    except ssm.exceptions.ParameterNotFound:
        return Finding(
            "CDK bootstrap",
            f"{config.region} of this account is not prepared for the CDK: "
            f"run `make bootstrap` once",
        )
    return Finding(f"CDK bootstrap: version {version}")


def _network_quotas(config: Config, session: Session) -> Finding:
    if config.vpc is not None:
        return Finding(f"network: {config.vpc.id}")
    ec2 = session.client("ec2")
    used = {
        "VPCs": len(ec2.describe_vpcs()["Vpcs"]),
        "Elastic IP addresses": len(ec2.describe_addresses()["Addresses"]),
    }
    needed = {"VPCs": 1, "Elastic IP addresses": config.nat_gateways}
    quotas = session.client("service-quotas")
    for what, (service, code) in QUOTAS.items():
        quota = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
        if used[what] + needed[what] > quota:
            return Finding(
                "quotas",
                f"{needed[what]} more {what} are needed, {used[what]} of {quota:g} are used: free "
                f"some, or ask for more at Service Quotas, {service} {code}",
            )
    return Finding("quotas: room for a network")


def _concurrency(config: Config, session: Session) -> Finding:
    limits = session.client("lambda").get_account_settings()["AccountLimit"]
    free = limits["UnreservedConcurrentExecutions"] - LEFT_FOR_OTHERS
    if config.reserved_concurrency > free:
        return Finding(
            "concurrency",
            f"reserved_concurrency is {config.reserved_concurrency}, but only {max(free, 0)} can "
            f"still be reserved: lower it, or ask for more at Service Quotas, lambda L-B99A9384",
        )
    return Finding(f"concurrency: {config.reserved_concurrency} of {free} can be reserved")


def _kafka(config: Config, session: Session) -> Finding:
    kafka = session.client("kafka")
    if config.kafka == "serverless":
        kafka.list_clusters_v2(ClusterTypeFilter="SERVERLESS")
        return Finding("Amazon MSK: serverless")
    versions = {
        version["Version"]: version["Status"]
        for page in kafka.get_paginator("list_kafka_versions").paginate()
        for version in page["KafkaVersions"]
    }
    if versions.get(config.kafka_version) != "ACTIVE":
        active = sorted(name for name, status in versions.items() if status == "ACTIVE")
        return Finding(
            "Amazon MSK",
            f"kafka_version {config.kafka_version} is not offered in {config.region}: choose one "
            f"of {', '.join(active)}",
        )
    return Finding(f"Amazon MSK: {config.kafka_version}")


def _domain(config: Config, session: Session) -> Finding:
    if config.domain is None:
        return Finding("domain: none, so browsers warn of a self-signed certificate")
    zone = session.client("route53").get_hosted_zone(Id=config.hosted_zone)["HostedZone"]
    name = zone["Name"].rstrip(".")
    if zone["Config"]["PrivateZone"] or not config.domain.endswith(f".{name}"):
        return Finding(
            "domain",
            f"{config.domain} can't be proven in hosted zone {config.hosted_zone}, which is "
            f"{'private, ' if zone['Config']['PrivateZone'] else ''}of {name}: name its public "
            f"zone",
        )
    return Finding(f"domain: {config.domain}")


def store(config: Config) -> Finding:
    """Whether CrateDB lets its administrator in, over TLS."""
    http = CrateHttp(config.address)
    try:
        http.open()
        http.sql("SELECT 1")
    except ClimatestreamError as error:
        return Finding("CrateDB", str(error))
    finally:
        http.close()
    return Finding(f"CrateDB: {config.address}")
