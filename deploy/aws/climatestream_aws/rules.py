"""cdk-nag's rules for AWS, and each exception with its reason.

An exception names the construct, so that the rule holds everywhere else. One that is no longer
needed fails a test.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import aws_cdk as cdk
import cdk_nag

PREFIX: Final = "AwsSolutions::AwsSolutions-"


class Exception_(NamedTuple):  # noqa: N801 - the word, but not Python's
    """A rule that does not hold at a construct."""

    path: str
    rule: str
    reason: str


INTERFACES: Final = (
    "the actions on network interfaces and of Session Manager's agent can't be bound to resources"
)
ROTATED: Final = "the other stack's function rotates it, which the rule can't see from here"
EXCEPTIONS: Final = (
    Exception_("Secrets/writer/Resource", "SMG4", ROTATED),
    Exception_("Secrets/reader/Resource", "SMG4", ROTATED),
    Exception_(
        "Pipeline/Producer/Execution/DefaultPolicy/Resource",
        "IAM5[Resource::*]",
        "ecr:GetAuthorizationToken can't be bound to a resource",
    ),
    Exception_(
        "Pipeline/Producer/Task/Resource",
        "ECS2",
        "these variables are addresses and names; the key is read from Secrets Manager",
    ),
    Exception_(
        "Secrets/admin/Resource",
        "SMG4",
        "Grafana's administrator has no interface by which Secrets Manager could rotate it; a new "
        "value put into the secret is taken within five minutes",
    ),
    Exception_("Secrets/cds/Resource", "SMG4", "ECMWF issues this key, on its own page alone"),
    Exception_("Pipeline/Consumer/Role/DefaultPolicy/Resource", "IAM5[Resource::*]", INTERFACES),
    Exception_("Pipeline/Rotation/Role/DefaultPolicy/Resource", "IAM5[Resource::*]", INTERFACES),
    Exception_(
        "Pipeline/Producer/Instance/Role/DefaultPolicy/Resource", "IAM5[Resource::*]", INTERFACES
    ),
    Exception_(
        "Pipeline/Grafana/Instance/Role/DefaultPolicy/Resource", "IAM5[Resource::*]", INTERFACES
    ),
    Exception_(
        "Pipeline/Producer/Instance/Group/ASG",
        "AS3",
        "the group only ever replaces its one instance; the alarm on lag tells when that fails",
    ),
    Exception_(
        "Pipeline/Grafana/Instance/Group/ASG",
        "AS3",
        "the group only ever replaces its one instance",
    ),
    Exception_(
        "Pipeline/Consumer/Function/Resource",
        "L1",
        "the zip holds wheels for Python 3.13; a newer runtime comes with a newer zip",
    ),
    Exception_(
        "Pipeline/Rotation/Function/Resource",
        "L1",
        "the zip holds wheels for Python 3.13; a newer runtime comes with a newer zip",
    ),
    Exception_(
        "Pipeline/Grafana/Balancer/Resource",
        "ELB2",
        "Grafana logs who asks for what; a balancer that passes bytes through sees less",
    ),
)


def judge(app: cdk.App) -> None:
    """Let synthesis fail where a rule is broken that is not excepted here."""
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app, verbose=True))
    for exception in EXCEPTIONS:
        construct = app.node.try_find_child(exception.path.split("/")[0])
        for name in exception.path.split("/")[1:]:
            construct = construct.node.try_find_child(name) if construct else None
        if construct is not None:
            cdk.Validations.of(construct).acknowledge(
                cdk.Acknowledgment(id=PREFIX + exception.rule, reason=exception.reason)
            )
