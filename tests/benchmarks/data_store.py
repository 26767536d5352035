"""What the Climate Data Store is asked for Germany, against one naive request; time to resume.

`python -m tests.benchmarks.data_store` prints both. Bytes are derived from the grid: values times
four bytes (float32), times `DEFLATED`. Times are against the fake service on loopback.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from climatestream.region import parse_region
from climatestream.sources.cds_plan import Ask, plan
from climatestream.sources.request import request_of
from climatestream.sources.selection import Selection, end_of, start_of
from tests.fake_cds import FakeDataStore

DEFLATED = 0.75
"""Bytes of an answer, as a share of its values at four bytes: the four sample files of Germany
(`germany-land-daily`: 91 x 77 cells, 5 days) have 419,378 of 560,560."""

GLOBE = 1801 * 3600
SPANS = {"one month": ("2024-08-01", "2024-08-31"), "one year": ("2024-01-01", "2024-12-31")}
DATASETS = ("era5-land/daily-mean", "era5-land/hourly")
ASK = (
    *("fetch", "era5-land/hourly", "--region", "west=6,south=47.3,east=15,north=55"),
    *("--variables", "temperature", "--from", "2024-08-01", "--to", "2024-08-31", "--json"),
)


def asks(dataset: str, since: str, until: str) -> list[Ask]:
    """The requests for Germany and the four variables of the wire format."""
    region = parse_region("DEU")
    selection = Selection(region=region, start_ns=start_of(since), end_ns=end_of(until))
    return plan(request_of(dataset, selection))


def cells(ask: Ask) -> int:
    """Cells of a request's box."""
    north, west, south, east = ask.inputs["area"]
    return int((round((north - south) * 10) + 1) * (round((east - west) * 10) + 1))


def table() -> Iterator[str]:
    """Requests and bytes by dataset and span."""
    yield "| dataset | span | requests | values each | all bytes | naive: one request, the globe |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for dataset in DATASETS:
        for name, span in SPANS.items():
            planned = asks(dataset, *span)
            fields = [ask.values for ask in planned]
            ours = sum(ask.values * cells(ask) for ask in planned) * 4 * DEFLATED
            naive = sum(fields) * GLOBE * 4 * DEFLATED
            yield (
                f"| {dataset} | {name} | {len(planned)} | {max(fields):,} fields of "
                f"{cells(planned[0]):,} cells | {ours / 1e6:,.1f} MB | {sum(fields):,} fields, "
                f"{naive / 1e9:,.1f} GB |"
            )


@contextmanager
def started(store: FakeDataStore, home: str) -> Iterator[subprocess.Popen[str]]:
    """A fetch as a user starts it."""
    environment = {**os.environ, **store.environment, "HOME": home, "XDG_CACHE_HOME": home}
    command = [sys.executable, "-m", "climatestream.cli", *ASK]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process


def resume() -> tuple[float, float]:
    """From the start of a command to its end, after a kill in the queue: first, and again [s].

    The first time the answer is ready at once, too: what differs is what is asked.
    """
    took = []
    for killed in (False, True):
        with FakeDataStore() as store, tempfile.TemporaryDirectory() as home:
            if killed:
                store.moods.looks_queued = 10**9
                with started(store, home) as process:
                    while not store.asked("/jobs/"):
                        time.sleep(0.01)
                    process.send_signal(signal.SIGKILL)
                store.moods.looks_queued = 0
            began = time.monotonic()
            with started(store, home) as process:
                process.communicate()
            took.append(time.monotonic() - began)
            assert process.returncode == 0
            assert len(store.jobs) == 1
            assert math.isclose(store.served, sum(len(j.content) for j in store.jobs.values()))
    return took[0], took[1]


def main() -> None:
    """Print Markdown."""
    for line in table():
        print(line)
    whole, again = resume()
    print(f"\nfetched in {whole:.1f} s, after a kill in the queue in {again:.1f} s: asked once")


if __name__ == "__main__":
    main()
