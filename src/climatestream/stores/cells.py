"""Cells in the order of their ids, cut into ranges that hold about as many readings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

CELLS_AT_ONCE: Final = 20_000
"""Cells whose readings are counted in one query [cells]."""

Counted: TypeAlias = Callable[[str], Sequence[Sequence[object]]]
"""Given a cell's id, the next `CELLS_AT_ONCE` after it in order, each with its readings."""


def ranges(counted: Counted, rows: int) -> Iterator[tuple[str, str]]:
    """The first and the last cell of each range, in order; all cells are in one.

    Parameters
    ----------
    counted
        Asked again and again, each time for what comes after the last cell that it gave.
    rows
        How many readings a range holds at most, unless a single cell has more.
    """
    first, last, held = "", "", 0
    page = counted("")
    while page:
        for cell, readings in page:
            number = int(str(readings))
            if held and held + number > rows:
                yield first, last
                held = 0
            if not held:
                first = str(cell)
            last, held = str(cell), held + number
        page = counted(last) if len(page) == CELLS_AT_ONCE else ()
    if held:
        yield first, last
