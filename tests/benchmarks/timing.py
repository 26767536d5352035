"""Timing one thing against another in one go, since machines are noisy and ratios are not."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """A measured line: ours against its yardstick, each in seconds (or MB) for `count` units."""

    name: str
    yardstick: str
    ours: float
    theirs: float
    count: int
    reach: str
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """How many times the yardstick's speed (for memory: size) ours is."""
        return self.ours / self.theirs if self.unit == "MB" else self.theirs / self.ours

    def line(self) -> str:
        """The figure as a row of a Markdown table."""
        if self.unit == "MB":
            return (
                f"| {self.name} | {self.yardstick} | {self.ratio:.2f}x | {self.reach} "
                f"| {self.ours:,.0f} MB | {self.theirs:,.0f} MB |"
            )
        rates = (
            f"{self.count / seconds:,.0f}/s ({seconds / self.count * 1e6:.2f} µs)"
            for seconds in (self.ours, self.theirs)
        )
        ours, theirs = rates
        return (
            f"| {self.name} | {self.yardstick} | {self.ratio:.2f}x | {self.reach} "
            f"| {ours} | {theirs} |"
        )


HEADER = "| what | yardstick | ratio | reach | ours | yardstick's |\n|---|---|---|---|---|---|"


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Median seconds of two things, run in turn; a first run of each is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, kept in zip((ours, theirs), times, strict=True):
            gc.collect()
            began = time.perf_counter()
            call()
            if number:
                kept.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_mb(arguments: Sequence[str]) -> float:
    """The most memory that a command of ours had resident, as the system accounts it [MB]."""
    process = subprocess.Popen(
        [sys.executable, "-m", "climatestream.cli", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments} exited {process.returncode}"
    return usage.ru_maxrss / 1024
