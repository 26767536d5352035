"""Measure and print every figure: `python -m tests.benchmarks [part of a name]`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import boards, figures
from tests.benchmarks.timing import HEADER, Figure

FIGURES: dict[str, Callable[[], Figure]] = {
    "encode": lambda: figures.encode(200_000),
    "decode": lambda: figures.decode(200_000),
    "decode poison": lambda: figures.decode(200_000, figures.POISON_EVERY),
    "decode by message": lambda: figures.decode_by_message(50_000),
    "file to store, Germany": lambda: figures.file_to_store(67, 67, 120),
    "file to store, large": lambda: figures.file_to_store(200, 250, 12),
    "file to store, poison": lambda: figures.file_to_store(200, 250, 12, figures.POISON_EVERY),
    "memory": lambda: figures.memory(1801, 3600, 24),
}


def main() -> None:
    """Print a Markdown table."""
    wanted = " ".join(sys.argv[1:])
    print(HEADER)
    for name, measure in FIGURES.items():
        if wanted in name:
            figure = measure()
            print(figure.line(), flush=True)
            if name.startswith("file to store"):
                per_s = figure.count / figure.ours
                times = per_s / figures.REFERENCE_PER_S
                print(f"| the same | 500 readings/s | {times:,.0f}x | 400x | {per_s:,.0f}/s | |")
    if wanted in "boards":
        boards.main()
    if wanted in "demo":
        print(f"\n`climatestream demo`: first reading after {figures.first_reading_s():.2f} s")


if __name__ == "__main__":
    main()
