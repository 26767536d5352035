"""Where tables for people are printed."""

from __future__ import annotations

from typing import Final

from rich.console import Console

PIPE_COLUMNS: Final = 160
"""Width of a table that goes into a file or a pipe: no terminal cuts it [characters]."""


def console() -> Console:
    """Standard output, as wide as its terminal, or wide where it is none."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPE_COLUMNS)
