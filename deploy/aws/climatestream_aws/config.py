"""What one deployment is made of: a frozen, checked description, read from a YAML file.

Everything has a default that is safe and works, but the store's address: nobody can guess that.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args

import yaml

from climatestream.errors import UsageError
from climatestream.stores.crate_address import Address, parse

Kafka = Literal["provisioned", "serverless"]
Producer = Literal["ec2", "fargate"]

CHECKOUT: Final = Path(__file__).parents[3]
"""The repository. It is here, where nothing of the CDK is imported, which wants Node at once."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,24}")
"""Short enough for every name that is made of it: a load balancer's may have 32 characters."""

PUBLIC_PREFIX: Final = 8
"""The widest network that may be let in to Grafana [bits]: 0.0.0.0/0 is everybody."""


@dataclass(frozen=True)
class Vpc:
    """A network that exists already. Its private subnets need a way out to CrateDB."""

    id: str
    private_subnets: tuple[str, ...]
    public_subnets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A deployment.

    Parameters
    ----------
    name
        Of both stacks and of what they hold.
    region, zones
        Where; a zone is one of the region's availability zones. Amazon MSK spreads its brokers
        evenly over the zones: their number is a multiple of that of the zones.
    vpc
        A network to use; None: one is made, with `nat_gateways` ways out.
    interface_endpoints
        Whether calls to AWS's own services keep off the NAT gateways, for a price by the hour.
    kafka, kafka_version, broker_type, brokers, broker_disk_gib
        The cluster; only the first counts for a serverless one.
    partitions, retention_days
        Of the topic, which deploy/event-source.yaml names. A partition is also the unit in which
        Lambda works side by side.
    store
        CrateDB's address for the administrator, as `climatestream store init` takes it; TLS is
        on. Writer and reader get users of their own.
    private_link
        The service name of CrateDB Cloud's AWS PrivateLink endpoint; None: over the NAT gateway.
    producer, producer_type
        Where the producer runs, and on which instance (EC2 alone).
    source, source_options
        What it publishes, as `climatestream publish` takes it.
    grafana_type, grafana_allow
        Its instance, and the networks from which a browser may reach it.
    domain, hosted_zone
        Grafana's name, and the Route 53 zone (id) in which it and its certificate are proven;
        without: a self-signed certificate, with the browser's warning.
    email
        Who is told of alarms and of the budget; None: nobody but the topic's subscribers.
    budget_usd
        The month's cost of the whole account from which on an alarm is sent.
    log_days
        How long logs are kept.
    reserved_concurrency
        How many invocations run at once at most, which also bounds CrateDB's connections.
    """

    store: str
    name: str = "climatestream"
    region: str = "eu-central-1"
    zones: tuple[str, ...] = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
    vpc: Vpc | None = None
    cidr: str = "10.42.0.0/16"
    nat_gateways: int = 1
    interface_endpoints: bool = False
    kafka: Kafka = "provisioned"
    kafka_version: str = "3.9.x.kraft"
    broker_type: str = "kafka.m7g.large"
    brokers: int = 3
    broker_disk_gib: int = 100
    partitions: int = 6
    retention_days: int = 7
    private_link: str | None = None
    producer: Producer = "ec2"
    producer_type: str = "t4g.small"
    source: str = "auto:era5-land/daily-mean"
    source_options: tuple[str, ...] = ("--region", "DEU", "--follow")
    grafana_type: str = "t4g.small"
    grafana_allow: tuple[str, ...] = ()
    domain: str | None = None
    hosted_zone: str | None = None
    email: str | None = None
    budget_usd: int = 500
    log_days: int = 30
    reserved_concurrency: int = 12
    address: Address = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", parse(self.store))
        for value, name in ((self.kafka, "kafka"), (self.producer, "producer")):
            choices = get_args({"kafka": Kafka, "producer": Producer}[name])
            if value not in choices:
                raise UsageError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"name is {self.name!r}, expected up to 25 lower-case letters, digits and hyphens"
            )
        if not self.address.ssl:
            raise UsageError(
                f"store {self.address} would be reached without TLS, over networks that are not "
                f"yours: add ?ssl=true"
            )
        if len(set(self.zones)) < 2:
            raise UsageError(
                "zones are fewer than two, expected two or three: Amazon MSK needs two"
            )
        for zone in self.zones:
            if not zone.startswith(self.region):
                raise UsageError(f"zone {zone} is not in region {self.region}: name its own zones")
        if self.kafka == "provisioned" and self.brokers % len(self.zones):
            raise UsageError(
                f"brokers are {self.brokers}, expected a multiple of the {len(self.zones)} zones "
                f"over which Amazon MSK spreads them"
            )
        if self.kafka == "serverless" and self.producer == "fargate":
            raise UsageError(
                "kafka=serverless with producer=fargate: a serverless cluster has no interface "
                "that makes topics, so the producer's EC2 instance makes it before the consumer "
                "starts; choose producer=ec2 or kafka=provisioned"
            )
        if (self.domain is None) != (self.hosted_zone is None):
            raise UsageError("domain and hosted_zone go together: name both, or neither")
        for network in self.grafana_allow:
            _checked_network(network)
        if self.vpc is not None and len(self.vpc.private_subnets) != len(self.zones):
            raise UsageError(
                f"vpc {self.vpc.id} names {len(self.vpc.private_subnets)} private subnets, "
                f"expected one for each of the {len(self.zones)} zones"
            )

    @property
    def replication(self) -> int:
        """Copies of each message: one a zone, at most three."""
        return min(3, len(self.zones))


def _checked_network(text: str) -> None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"grafana_allow has {text!r}, expected a network such as 203.0.113.7/32: {error}"
        ) from error
    if network.prefixlen < PUBLIC_PREFIX:
        raise UsageError(
            f"grafana_allow has {text}, which is nearly everybody: name the networks that you use"
        )


def chosen(checkout: Path, context: Mapping[str, str]) -> Config:
    """The deployment that words mean: a file's name, and what goes before what it says.

    Raises
    ------
    UsageError
        As `read`.
    """
    allow = context.get("allow")
    return read(
        checkout / "deploy/aws/config" / f"{context.get('config', 'default')}.yaml",
        grafana_allow=allow.split(",") if allow else None,
        **{name: context.get(name) for name in ("store", "email", "domain", "hosted_zone")},
    )


def read(path: Path, **overrides: Any) -> Config:
    """The deployment that a YAML file describes; `overrides` go first.

    Raises
    ------
    UsageError
        The file is not there, is no YAML, or names something that is not known or not possible.
    """
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UsageError(f"the configuration {path} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(
            f"the configuration {path} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(given, dict):
        raise UsageError(f"the configuration {path} is no table of names and values")
    given |= {name: value for name, value in overrides.items() if value is not None}
    known = [item.name for item in dataclasses.fields(Config) if item.init]
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise UsageError(f"the configuration {path} names {name!r}: {hint}")
    if "store" not in given:
        raise UsageError(
            f"the configuration {path} names no store: add STORE=crate://admin@HOST:4200/demo"
            f"?ssl=true, the address of your CrateDB"
        )
    if isinstance(given.get("vpc"), dict):
        given["vpc"] = _vpc(given["vpc"], path)
    for name in ("zones", "source_options", "grafana_allow"):
        if name in given:
            given[name] = tuple(str(item) for item in given[name])
    return Config(**given)


def _vpc(given: dict[str, Any], path: Path) -> Vpc:
    try:
        return Vpc(
            id=given["id"],
            private_subnets=tuple(given["private_subnets"]),
            public_subnets=tuple(given.get("public_subnets", ())),
        )
    except KeyError as error:
        raise UsageError(f"the vpc in {path} has no {error.args[0]}") from error
