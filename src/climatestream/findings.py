"""What `doctor` found, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from climatestream.tables import console

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    state
        ok; missing: something that not everyone needs; broken: commands will fail.
    found
        What is there.
    todo
        What to do; empty where all is well.
    """

    name: str
    state: State
    found: str
    todo: str = ""


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as a JSON object; `ok` where nothing is broken."""
    return {
        "ok": all(finding.state != "broken" for finding in findings),
        "checks": [asdict(finding) for finding in findings],
    }


def print_table(findings: Sequence[Finding]) -> None:
    """Print the findings, a line each."""
    table = Table(box=None)
    for name in ("", "what", "found", "what to do"):
        table.add_column(name, overflow="fold")
    colors = {"ok": "green", "missing": "yellow", "broken": "red"}
    for finding in findings:
        state = Text(finding.state, style=colors[finding.state])
        table.add_row(state, finding.name, Text(finding.found), Text(finding.todo))
    console().print(table)
