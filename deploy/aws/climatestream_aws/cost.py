"""What a deployment costs: how much of what, by the hour, times a price where one is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Resources = Mapping[str, Mapping[str, Any]]
"""Of a template, by logical id."""

MONTH_H: Final = 730
"""Hours of a month, as AWS counts them in its own examples."""


@dataclass(frozen=True)
class Meter:
    """A line of the bill that grows with time alone, not with use.

    Parameters
    ----------
    name
        Of the price.
    quantity
        How many, at every hour.
    monthly
        Whether the price is by the month.
    """

    name: str
    quantity: float
    monthly: bool = False


@dataclass(frozen=True)
class Price:
    """What one costs, where a page has said so."""

    page: str
    price: float | None = None
    of: str = ""


def prices(path: Path) -> dict[str, Price]:
    """The prices of a file, by meter."""
    return {name: Price(**given) for name, given in yaml.safe_load(path.read_text()).items()}


def meters(resources: Resources) -> list[Meter]:
    """What a template's resources are charged for while they stand there."""
    found: Counter[str] = Counter()
    for resource in resources.values():
        found.update(_charged(resource["Type"], resource.get("Properties", {})))
    monthly = {"broker_gib_month", "secret_month", "alarm_month"}
    return [Meter(name, count, name in monthly) for name, count in sorted(found.items()) if count]


def _charged(kind: str, of: Mapping[str, Any]) -> dict[str, float]:
    match kind:
        case "AWS::MSK::Cluster":
            brokers = of["NumberOfBrokerNodes"]
            disk = of["BrokerNodeGroupInfo"]["StorageInfo"]["EBSStorageInfo"]["VolumeSize"]
            return {"broker_hour": brokers, "broker_gib_month": brokers * disk}
        case "AWS::MSK::ServerlessCluster":
            return {"serverless_cluster_hour": 1}
        case "AWS::EC2::NatGateway":
            return {"nat_hour": 1, "public_ipv4_hour": 1}
        case "AWS::EC2::VPCEndpoint" if of.get("VpcEndpointType") == "Interface":
            return {"endpoint_hour": len(of["SubnetIds"])}
        case "AWS::AutoScaling::AutoScalingGroup":
            return {"instance_hour": int(of["MaxSize"])}
        case "AWS::ECS::Service":
            return {"fargate_task_hour": of["DesiredCount"]}
        case "AWS::ElasticLoadBalancingV2::LoadBalancer":
            return {"balancer_hour": 1, "public_ipv4_hour": len(of["Subnets"])}
        case "AWS::Lambda::EventSourceMapping":
            return {"poller_hour": of.get("ProvisionedPollerConfig", {}).get("MinimumPollers", 0)}
        case "AWS::SecretsManager::Secret":
            return {"secret_month": 1}
        case "AWS::CloudWatch::Alarm":
            return {"alarm_month": 1}
        case _:
            return {}


def table(found: list[Meter], known: Mapping[str, Price]) -> str:
    """The bill as text: each meter, and the sum of those with a price, by hour and month."""
    lines = [f"{'what':<27}{'how many':>9}{'USD/h':>10}{'USD/month':>11}  price of"]
    hour = 0.0
    lacking = []
    for meter in found:
        price = known[meter.name]
        if price.price is None:
            lacking.append(meter)
            lines.append(f"{meter.name:<27}{meter.quantity:>9g}{'?':>10}{'?':>11}  {price.page}")
            continue
        each = price.price / (MONTH_H if meter.monthly else 1) * meter.quantity
        hour += each
        lines.append(
            f"{meter.name:<27}{meter.quantity:>9g}{each:>10.3f}{each * MONTH_H:>11.2f}"
            f"  {price.of}, {price.page}"
        )
    lines.append(f"{'sum of what has a price':<36}{hour:>10.3f}{hour * MONTH_H:>11.2f}")
    if lacking:
        lines.append(
            f"without a price: {', '.join(meter.name for meter in lacking)}. The page beside each "
            "has it; write it into deploy/aws/prices.yaml."
        )
    lines.append(
        "and by use: million_requests and gib_second of Lambda, bytes through NAT and between "
        "zones, logs; formulas in docs/aws.md"
    )
    return "\n".join(lines)
