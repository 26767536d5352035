"""The Lambda function's figures: `python -m tests.benchmarks.lambda_function [double|crate|start]`.

The store double runs in a process of its own, so that its work is not counted as the function's;
of the real CrateDB one is started, as tests/services does. Start and memory are of processes that
run the zip and nothing else.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from climatestream import fastcodec
from climatestream.aws.handler import Function
from climatestream.model import Messages
from climatestream.stores.crate import CrateStore
from tests.benchmarks.figures import batches
from tests.lambda_events import event, invoke
from tests.lambda_zip import LAMBDA_PYTHON, build, interpreter, unpack

SIZES = (1, 100, 1_000, 10_000)
PARTITIONS = 4
SCHEMA = "climatestream_bench_lambda"
YARDSTICK = "import ssl, http.client, orjson"
IMPORT = "import climatestream.aws.handler"
DOUBLE = """
import sys
from tests.crate_double import CrateDouble
with CrateDouble().serving() as double:
    print(double.port, flush=True)
    sys.stdin.read()
"""
PEAK = "print(open('/proc/self/status').read())"
FIRST_EVENT = """
import json, sys, time
def handle():
    from climatestream.aws.handler import handler
    class Context:
        aws_request_id = "r"
        def get_remaining_time_in_millis(self):
            return 60_000
    with open(sys.argv[1]) as file:
        event = json.load(file)
    assert handler(event, Context()) == {"batchItemFailures": []}
handle()
"""


@dataclass(frozen=True)
class Rate:
    """Batches of one size through the function.

    Parameters
    ----------
    seconds, cpu_seconds
        Of a batch, median: on the wall, and of this process alone.
    """

    store: str
    size: int
    seconds: float
    cpu_seconds: float

    def line(self) -> str:
        """As a row of a Markdown table."""
        return (
            f"| {self.store} | {self.size:,} | {self.size / self.seconds:,.0f}/s "
            f"| {self.seconds * 1e3:,.1f} ms | {self.cpu_seconds / self.size * 1e6:,.1f} µs |"
        )


def events(size: int, count: int) -> Iterator[dict[str, Any]]:
    """Events of so many messages, all different, in several partitions."""
    values = [v for batch in batches(size * count) for v in fastcodec.encode(batch)]
    for n in range(count):
        part = values[n * size : (n + 1) * size]
        yield event(
            *(
                _block(part[p::PARTITIONS], p, n * size)
                for p in range(PARTITIONS)
                if part[p::PARTITIONS]
            )
        )


def _block(values: Sequence[bytes], partition: int, first: int) -> Messages:
    n = len(values)
    now_ms = time.time_ns() // 10**6
    keys = [b"54.9030,8.6883"] * n
    offsets = range(first, first + n)
    return Messages("climate", partition, offsets, [now_ms] * n, keys, values, [()] * n)


def rate(store: str, url: str, size: int, rounds: int) -> Rate:
    """Batches of new readings of this size, after one that does not count."""
    function = Function({"CLIMATESTREAM_STORE": url})
    walls, cpus = [], []
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            for number, sent in enumerate(events(size, rounds + 1)):
                began, cpu = time.perf_counter(), time.process_time()
                assert invoke(function, sent) == {}
                if number:
                    walls.append(time.perf_counter() - began)
                    cpus.append(time.process_time() - cpu)
    finally:
        function.close()
    return Rate(store, size, statistics.median(walls), statistics.median(cpus))


@contextmanager
def double() -> Iterator[str]:
    """The URL of a store double in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", DOUBLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"crate://127.0.0.1:{int(process.stdout.readline())}/demo"
        process.stdin.close()


def rates_on_double(rounds: int, sizes: Sequence[int] = SIZES) -> list[Rate]:
    """Against the store double."""
    found = []
    for size in sizes:
        with double() as url:
            found.append(rate("double", url, size, rounds))
    return found


def rates_on_crate(rounds: int, sizes: Sequence[int] = SIZES) -> list[Rate]:
    """Against a real CrateDB."""
    from tests.services.crate import started

    found = []
    with started() as server:
        for size in sizes:
            store = CrateStore(server.at(SCHEMA))
            store.drop()
            store.init(replicas="0")
            found.append(rate("CrateDB", str(store.address), size, rounds))
            store.drop()
    return found


# ------------------------------------------------------------------------ start and memory


@dataclass(frozen=True)
class Process:
    """What a process took as a whole: seconds on the wall, seconds of CPU, MB at its peak."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(python: str, folder: Path, code: str, *arguments: str, **environment: str) -> Process:
    """A process that has the zip's contents and the standard library; it says its own peak.

    What the system accounts for a process includes what its parent held when it was started.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            python,
            "-I",
            "-S",
            "-B",
            "-c",
            f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}\n{PEAK}",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    peak = re.search(r"^VmHWM:\s+(\d+) kB", process.stdout.read(), re.MULTILINE)
    process.stdout.close()
    assert peak is not None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Process(
        time.perf_counter() - began, usage.ru_utime + usage.ru_stime, int(peak[1]) / 1024
    )


def starts(rounds: int) -> list[str]:
    """Rows of a Markdown table: import, first event, memory, by the Pythons that there are."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, "x86_64", "local")
        pythons = {"local": sys.executable, "x86_64": interpreter(LAMBDA_PYTHON)}
        sent = {size: folder / f"{size}.json" for size in (1, 10_000)}
        for size, path in sent.items():
            path.write_bytes(orjson.dumps(next(events(size, 1))))
        for target, python in pythons.items():
            if python is None:
                continue
            zipped = folder / f"climatestream-lambda-{target}.zip"
            task = unpack(zipped, folder / target)
            with double() as url:
                kinds: dict[str, list[Process]] = {"yard": [], "import": [], "1": [], "10000": []}
                for number in range(rounds + 1):
                    for kind, processes in kinds.items():
                        code = {"yard": YARDSTICK, "import": IMPORT}.get(kind, FIRST_EVENT)
                        arguments = [str(sent[int(kind)])] if kind.isdigit() else []
                        done = run(python, task, code, *arguments, CLIMATESTREAM_STORE=url)
                        if number:
                            processes.append(done)
            cpu = {k: statistics.median(p.cpu_seconds for p in ps) for k, ps in kinds.items()}
            wall = {k: statistics.median(p.seconds for p in ps) for k, ps in kinds.items()}
            peak = {k: statistics.median(p.peak_mb for p in ps) for k, ps in kinds.items()}
            lines.append(
                f"| {target} zip, {zipped.stat().st_size:,} bytes "
                f"| {cpu['import'] / cpu['yard']:.2f}x "
                f"({cpu['import'] * 1e3:.0f} against {cpu['yard'] * 1e3:.0f} ms) "
                f"| {wall['1'] * 1e3:.0f} ms, CPU {cpu['1'] * 1e3:.0f} ms "
                f"| {peak['1']:.0f} MB | {peak['10000']:.0f} MB |"
            )
    return lines


def main() -> None:
    """Print Markdown tables."""
    wanted = sys.argv[1:] or ["double", "crate", "start"]
    rates = {"double": rates_on_double, "crate": rates_on_crate}
    if set(wanted) & rates.keys():
        print("| store | messages a batch | rate | a batch | own CPU a message |")
        print("|---|---|---|---|---|", flush=True)
    for name, measure in rates.items():
        if name in wanted:
            for one in measure(10):
                print(one.line(), flush=True)
    if "start" in wanted:
        print(
            "\n| zip | import against ssl, http.client, orjson | start and first event "
            "| peak, 1 message | peak, 10,000 |\n|---|---|---|---|---|"
        )
        for line in starts(7):
            print(line, flush=True)


if __name__ == "__main__":
    main()
