"""Check the docs: every link leads somewhere, and the command reference is what --help says.

`python scripts/check_docs.py` fails with what is wrong; with `--write` it writes
docs/commands.md anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click

from climatestream.cli import cli

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "docs" / "commands.md"


def reference() -> str:
    """The command reference, from the commands' own help."""
    parts = ["# Commands\n\nMade from `--help` by `make docs`.\n"]
    for name, command in _commands("climatestream", cli):
        with click.Context(command, info_name=name) as context:
            text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"\n## {name}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for sub, child in command.commands.items():
            yield from _commands(f"{name} {sub}", child)


def broken_links() -> Iterator[str]:
    """Links of Markdown files to files and headings that are not there."""
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, heading = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            where = f"{page.relative_to(ROOT)}: link to {link}"
            if not target.exists():
                yield f"{where}, which is not there"
            elif heading and heading not in _headings(target):
                yield f"{where}: no such heading"


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def main() -> int:
    """Check, or write; the exit code."""
    if "--write" in sys.argv[1:]:
        COMMANDS.write_text(reference())
        return 0
    faults = list(broken_links())
    if not COMMANDS.exists() or COMMANDS.read_text() != reference():
        faults.append("docs/commands.md differs from --help: run `make docs`")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
