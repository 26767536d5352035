"""The templates of three configurations, and the texts by which a reviewer sees a change.

`python -m tests.aws.templates` writes those texts again.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from climatestream.aws.mapping_settings import read_deployment
from climatestream_aws import config as configs
from climatestream_aws import stacks
from climatestream_aws.config import CHECKOUT
from climatestream_aws.rules import judge
from climatestream_aws.stacks import Artefacts

HERE: Final = Path(__file__).parent
NAMES: Final = ("smallest", "default", "production")
STORE: Final = "crate://admin@db.example.com:4200/demo?ssl=true"
ALLOW: Final = ("203.0.113.0/24",)
"""A network that is nobody's: https://www.rfc-editor.org/rfc/rfc5737"""
CONTEXT: Final[dict[str, dict[str, Any]]] = {
    "production": {"domain": "climate.example.com", "hosted_zone": "Z0123456789EXAMPLE"}
}
EVENT_SOURCE: Final = CHECKOUT / "deploy/event-source.yaml"

Template = dict[str, Any]


def config(name: str, **more: Any) -> configs.Config:
    """One of the configurations that are checked in."""
    path = CHECKOUT / "deploy/aws/config" / f"{name}.yaml"
    given = CONTEXT.get(name, {}) | more
    return configs.read(path, store=STORE, grafana_allow=ALLOW, **given)


def artefacts(folder: Path) -> Artefacts:
    """Files in place of what is built, so that a template says nothing of the code inside."""
    archive = folder / "function.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(zipfile.ZipInfo("handler.py"), "")
    for name in ("producer", "grafana", "checkout/deploy"):
        (folder / name).mkdir(parents=True)
    (folder / "producer/install.sh").write_text("")
    (folder / "grafana/install.sh").write_text("")
    (folder / "checkout/deploy/Dockerfile").write_text("FROM scratch\n")
    return Artefacts(archive, folder / "producer", folder / "grafana", folder / "checkout")


@dataclass(frozen=True)
class Synthesis:
    """What came out.

    Parameters
    ----------
    templates
        By the name of the stack.
    excepted
        Path and rule of each exception from the rules that was needed.
    """

    templates: dict[str, Template]
    excepted: frozenset[tuple[str, str]]


def synthesise(given: configs.Config) -> Synthesis:
    """Both stacks, judged by the rules.

    Raises
    ------
    RuntimeError
        A rule is broken that is not excepted.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        app = stacks.new_app(str(out))
        (files := Path(folder, "files")).mkdir()
        stacks.build(app, given, read_deployment(EVENT_SOURCE), artefacts(files))
        judge(app)
        app.synth()
        report = json.loads((out / "validation-report.json").read_text())
        return Synthesis(
            {
                name: json.loads((out / f"{name}.template.json").read_text())
                for name in ("Secrets", "Pipeline")
            },
            frozenset(
                (violation["acknowledgedAt"], violation["acknowledgedId"])
                for plugin in report["pluginReports"]
                if plugin["pluginName"] == "AwsSolutions"
                for violation in plugin.get("suppressedViolations", [])
            ),
        )


@cache
def synthesis(name: str) -> Synthesis:
    """Of a configuration that is checked in."""
    return synthesise(config(name))


def templates(name: str) -> dict[str, Template]:
    """Both templates of a configuration that is checked in."""
    return synthesis(name).templates


def resources(name: str, kind: str) -> dict[str, Template]:
    """The resources of a type in both stacks, by logical id."""
    return {
        key: resource
        for template in templates(name).values()
        for key, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def text(name: str) -> str:
    """Both templates as YAML, without what every machine and every build makes anew."""
    found = yaml.safe_dump(templates(name), sort_keys=True, width=100)
    return re.sub(r"[0-9a-f]{64}", "ASSET", found)


def permissions(name: str) -> str:
    """Who may do what with what, a line each."""
    lines = []
    for template in templates(name).values():
        for key, resource in template["Resources"].items():
            if resource["Type"] == "AWS::IAM::ManagedPolicy":
                raise AssertionError(f"{key} is a managed policy: put it at its role")
            if resource["Type"] != "AWS::IAM::Policy":
                continue
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                for action in _listed(statement["Action"]):
                    for of in _listed(statement["Resource"]):
                        where = re.sub(r"[0-9a-f]{64}", "ASSET", _short(of))
                        lines.append(f"{key.removesuffix('DefaultPolicy')}: {action} on {where}")
    return "\n".join(sorted(re.sub(r"DefaultPolicy[0-9A-F]{8}", "", line) for line in lines)) + "\n"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short(value: Any) -> str:
    """A value of CloudFormation as one reads it."""
    match value:
        case str():
            return value
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_short(part) for part in parts)
        case {"Fn::Select": [index, {"Fn::Split": [by, of]}]}:
            return f"{_short(of)} split at {by!r}, part {index}"
        case {"Fn::If": [condition, yes, no]}:
            return f"({condition} ? {_short(yes)} : {_short(no)})"
        case {"Fn::ImportValue": name}:
            return f"${{{_short(name)}}}"
        case _:
            return json.dumps(value, sort_keys=True)


def main() -> None:
    """Write the texts."""
    for name in NAMES:
        (HERE / f"{name}.yaml").write_text(text(name))
        (HERE / f"{name}.permissions").write_text(permissions(name))


if __name__ == "__main__":
    sys.exit(main())
