"""Runs the commands of a page of docs/, so that what it shows is what happens.

Fences of `bash` are run, all of a page in one shell, in an empty folder; the shell ends at the
first command that fails. A fence of `text` right after one is what it prints: each line must come
in the output, in this order, where `...` stands for anything; other lines may come between.
Fences of other kinds are only shown.

    howto.run(Path("docs/page.md"), tmp_path, {"127.0.0.1:9092": kafka.servers})
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "---- the next block of the page ----"


@dataclass(frozen=True)
class Block:
    """Commands, and the lines that they print."""

    commands: str
    prints: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """The blocks of a page that are run."""
    found: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        kind, content = fence.groups()
        if kind == "bash":
            found.append(Block(content, ()))
        elif kind == "text" and found and not text[end : fence.start()].strip():
            found[-1] = Block(found[-1].commands, tuple(content.splitlines()))
        end = fence.end()
    return found


def run(
    page: Path,
    folder: Path,
    replacing: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 300.0,
    **environment: str,
) -> None:
    """Run a page's commands; fails with what they printed.

    Parameters
    ----------
    folder
        Where they run.
    replacing
        What stands for something else in this run: addresses of servers.
    """
    text = page.read_text()
    for old, new in (replacing or {}).items():
        assert old in text, f"{page.name} does not hold {old!r}"
        text = text.replace(old, new)
    parts = blocks(text)
    script = "".join(f"{block.commands}\necho '{MARK}'\n" for block in parts)
    bin_ = Path(sys.executable).parent
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # what it leaves running in the background ends with it
    )
    try:
        output, _ = shell.communicate(timeout=timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert shell.returncode == 0, f"{page.name} failed:\n{output}"
    printed = output.split(f"{MARK}\n")
    for block, said in zip(parts, printed, strict=False):
        lines = iter(said.splitlines())
        for expected in block.prints:
            pattern = ".*".join(map(re.escape, expected.rstrip().split("...")))
            assert any(re.fullmatch(pattern, line.rstrip()) for line in lines), (
                f"{page.name}: {expected!r} is not printed by\n{block.commands}\nbut\n{said}"
            )
