"""What two linters say of the templates, and why some of it is as it is meant to be.

A finding without a reason here fails; so does a reason without a finding.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

OURS: Final = (
    "AWS encrypts it at rest with a key of its own; one of ours would cost by the month, and"
)
CFN_LINT: Final = {
    "W3005": "the CDK names some dependencies that a reference implies; twice is as good as once",
}
CHECKOV: Final = {
    "CKV_AWS_91": "Grafana logs who asks for what; the balancer sees less",
    "CKV_AWS_111": "network interfaces and Session Manager's channels are bound to no resource",
    "CKV_AWS_116": "such a queue is for asynchronous calls, and nobody makes any: dead letters are "
    "in the store's own table",
    "CKV_AWS_149": f"{OURS} whoever may read these secrets could use it as well",
    "CKV_AWS_158": f"{OURS} these logs hold no reading and no secret",
    "CKV_AWS_173": "the functions' variables are addresses and names of secrets",
}


def lint(templates: Sequence[Path], checkov: Path) -> None:
    """Let both look at the templates.

    Parameters
    ----------
    checkov
        Its command, which lives in an environment of its own: it wants older packages.

    Raises
    ------
    ClickException
        Something was found that has no reason, or a reason is no longer needed.
    """
    _compare("cfn-lint", CFN_LINT, _cfn_lint(templates))
    _compare("checkov", CHECKOV, _checkov(templates, checkov))


def _compare(linter: str, reasons: dict[str, str], found: Iterable[tuple[str, str]]) -> None:
    seen = list(found)
    new = sorted({text for rule, text in seen if rule not in reasons})
    unneeded = sorted(reasons.keys() - {rule for rule, _ in seen})
    if new:
        raise click.ClickException(f"{linter} finds:\n  " + "\n  ".join(new))
    if unneeded:
        raise click.ClickException(
            f"{linter} no longer finds {', '.join(unneeded)}: take the reason away"
        )
    click.echo(f"{linter}: {len(seen)} findings, each with its reason")


def _cfn_lint(templates: Sequence[Path]) -> Iterator[tuple[str, str]]:
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json"]
    for finding in _json([*command, *map(str, templates)]):
        rule = finding["Rule"]["Id"]
        where = "/".join(map(str, finding["Location"]["Path"]))
        yield rule, f"{rule} {finding['Message']} at {where} of {finding['Filename']}"


def _checkov(templates: Sequence[Path], checkov: Path) -> Iterator[tuple[str, str]]:
    files = [word for template in templates for word in ("--file", str(template))]
    options = ["--framework", "cloudformation", "--skip-download", "--output", "json", "--quiet"]
    for finding in _json([str(checkov), *options, *files])["results"]["failed_checks"]:
        rule = finding["check_id"]
        yield rule, f"{rule} {finding['check_name']}: {finding['resource']}"


def _json(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    try:
        return json.loads(done.stdout or "[]")
    except json.JSONDecodeError as error:
        raise click.ClickException(
            f"`{command[0]}` says no JSON: {done.stdout[:500]} {done.stderr[:500]}"
        ) from error
