"""The deployed zip under AWS's runtime client, between a real Kafka and a real CrateDB.

Faults happen to real processes; `climatestream audit` judges, and raw counts: nothing is lost,
nothing is doubled, and each partition's records are done in their order.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import re
import shutil
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import orjson
import psutil
import pytest
from scripts import make_lambda_python

from climatestream.aws.laptop import MACHINES
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.open import open_broker
from tests import howto
from tests.crate_double import CrateDouble
from tests.lambda_zip import build
from tests.services.crate import Node, Server
from tests.services.faults import (
    DRAIN_S,
    QUICK,
    Command,
    CrateSchema,
    Foreign,
    Place,
    Topic,
    World,
    key_of,
    messages_in,
    poisoned,
    simulated,
    until,
)
from tests.services.kafka import free_ports
from tests.services.kafka_server import Kafka, new_topic

ROOT: Final = Path(__file__).resolve().parents[2]
FAULT: Final = Path(__file__).with_name("lambda_fault.py")
READINGS: Final = int(os.environ.get("CLIMATESTREAM_LAMBDA_READINGS", "4000"))
"""Readings that a fault meets."""
AWAY_S: Final = float(os.environ.get("CLIMATESTREAM_LAMBDA_AWAY_S", "4"))
"""How long the store is away [s]."""
PARTITIONS: Final = 4
HOUR_MS: Final = 3_600_000
SMALL: Final = ("--BatchSize", "200")
TINY: Final = ("--BatchSize", "10")

pytestmark = pytest.mark.timeout(300)


# ------------------------------------------------------------------------------ the artefact


@dataclass(frozen=True)
class Artefact:
    """What is deployed, with the Python that runs it.

    Parameters
    ----------
    file
        The zip for AWS where there is a Python 3.13, else that for this Python.
    faulty
        The same with `lambda_fault` in front of its handler.
    """

    file: Path
    faulty: Path
    python: str


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Built as `make lambda` and `make env-lambda` do."""
    if not sys.platform.startswith("linux"):
        pytest.skip("AWS builds its runtime client for Linux alone: run with --in-process")
    folder = tmp_path_factory.mktemp("dist")
    target, python = "local", sys.executable
    with suppress(make_lambda_python.NotMade):
        machine = MACHINES[platform.machine()]
        target, python = machine, str(make_lambda_python.make(folder / "python"))
    build(folder, target)
    (file,) = folder.glob("*.zip")
    faulty = folder / "faulty.zip"
    shutil.copy(file, faulty)
    with zipfile.ZipFile(faulty, "a") as archive:
        archive.write(FAULT, FAULT.name)
    return Artefact(file, faulty, python)


# ------------------------------------------------------------------------------------ worlds

_schemas = itertools.count()


class Double:
    """A stand-in for CrateDB that keeps its tables in memory, and may be frozen."""

    def __init__(self, crate: CrateDouble) -> None:
        self.crate = crate
        self.url = f"crate://writer@127.0.0.1:{crate.port}/demo"
        self._awake = threading.Event()
        self._awake.set()
        crate.respond(self._wait, times=math.inf)

    def _wait(self, _: Any) -> None:
        self._awake.wait()

    def freeze(self) -> None:
        self._awake.clear()

    def thaw(self) -> None:
        self._awake.set()

    def rows_and_keys(self) -> tuple[int, int]:
        return len(self.crate.rows), len(self.crate.rows)

    def letters(self) -> list[tuple[int, int, str]]:
        rows = self.crate.others.get("dead_letters", [])
        return [(row["partition"], row["offset"], row["reason"]) for row in rows]

    def sql(self, statement: str) -> list[Any]:
        raise NotImplementedError(statement)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Server | None:
    """A CrateDB; None where there is none."""
    try:
        found: Server = request.getfixturevalue("cratedb")
    except pytest.skip.Exception:
        return None
    return found


@pytest.fixture
def store(server: Server | None) -> Iterator[Place]:
    """An empty store: in CrateDB where there is one, else in its double."""
    if server is None:
        with CrateDouble().serving() as crate:
            yield Double(crate)
        return
    schema = CrateSchema(server, f"climatestream_test_lambda_{next(_schemas)}")
    yield schema
    schema.drop()


@contextmanager
def frozen(store: Place) -> Iterator[None]:
    """The store takes connections and answers nothing."""
    frozen = store if isinstance(store, Double) else getattr(store, "server", None)
    if not isinstance(frozen, Double | Node):
        pytest.skip("a CrateDB that was named is not frozen by tests")
    frozen.freeze()
    try:
        yield
    finally:
        frozen.thaw()


def make_topic(kafka: Kafka, partitions: int = PARTITIONS) -> str:
    name = new_topic()
    with open_broker(kafka.url(name)) as broker:
        broker.ensure_topic(TopicSettings(partitions=partitions))
    return name


def publish(kafka: Kafka, topic: str, lines: list[bytes], at_ms: int = 0) -> None:
    foreign = Foreign(kafka, topic)
    for line in lines:
        foreign.send(key_of(orjson.loads(line)), line, at_ms)
    foreign.flush()


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The readings as messages."""
    return simulated(READINGS)[:READINGS]


@pytest.fixture(scope="module")
def poison(kafka: Kafka, lines: list[bytes]) -> Topic:
    """A topic in which one message in a hundred can never be stored, for each reason."""
    return poisoned(kafka, make_topic(kafka), lines, refuses=True)


@pytest.fixture(scope="module")
def good(kafka: Kafka, lines: list[bytes]) -> Topic:
    """A topic of readings that can all be stored."""
    name = make_topic(kafka)
    publish(kafka, name, lines)
    return Topic(name, len(lines), len(lines))


class Mapped(World):
    """A topic, a store, and `climatestream lambda` between them."""

    def __init__(
        self,
        kafka: Kafka,
        topic: Topic,
        store: Place,
        stack: ExitStack,
        folder: Path,
        artefact: Artefact,
    ) -> None:
        super().__init__(kafka, topic, store, stack)
        self.folder = folder
        self._artefact = artefact
        self.plan()

    def plan(self, *faults: str, **rule: Any) -> None:
        """Say how the next invocations fail, and what holds of all; nothing: it is the handler."""
        part = self.folder / "plan.part"
        part.write_text(json.dumps({"faults": faults, **rule}))
        part.replace(self.folder / "plan.json")

    def start(self, *arguments: str, plain: bool = False, **mapping: Any) -> Command:
        """The mapping, in a process of its own: over the plain zip, or over the faulty one."""
        function = {} if plain else {"Handler": "lambda_fault.handler"}
        variables = {"FAULT_FOLDER": str(self.folder)}
        config = self.folder / "mapping.yaml"
        config.write_text(
            json.dumps(
                {
                    "Function": {
                        **function,
                        "Timeout": 20,
                        "MemorySize": 192,
                        "Environment": {"Variables": variables},
                    },
                    "EventSourceMapping": {
                        "MaximumBatchingWindowInSeconds": 0,
                        "FunctionResponseTypes": ["ReportBatchItemFailures"],
                        "ProvisionedPollerConfig": {},
                        **mapping,
                    },
                }
            )
        )
        broker = self.kafka.url(self.topic.name, **QUICK)
        return self.command(
            *("lambda", *self._both(broker), *self._of_group, "--config", str(config)),
            *("--zip", str(self._artefact.file if plain else self._artefact.faulty)),
            *("--python", self._artefact.python, "--json", *arguments),
        )

    def deliver(self, *arguments: str, **more: Any) -> dict[str, Any]:
        """The mapping until all that is there is done with; what it says."""
        return self.start("--until-caught-up", *arguments, **more).ended()

    def processes(self, command: Command) -> list[psutil.Process]:
        """The function's processes."""
        children: list[psutil.Process] = psutil.Process(command.process.pid).children()
        return [child for child in children if "awslambdaric" in child.cmdline()]

    def in_order(self) -> None:
        """Every partition's records were done in order, each for the first time."""
        order: dict[int, dict[int, None]] = {}
        for line in (self.folder / "done.txt").read_text().splitlines():
            partition, offset = map(int, line.split())
            order.setdefault(partition, {})[offset] = None
        assert sum(map(len, order.values())) == self.topic.messages
        for offsets in order.values():
            assert list(offsets) == sorted(offsets)


@pytest.fixture
def mapped(
    kafka: Kafka, store: Place, tmp_path: Path, artefact: Artefact
) -> Iterator[Callable[[Topic], Mapped]]:
    with ExitStack() as stack:
        yield lambda topic: Mapped(kafka, topic, store, stack, tmp_path, artefact)


# --------------------------------------------------------------------------------- the page


def test_every_command_of_the_page_does_what_it_says(
    kafka: Kafka, store: Place, artefact: Artefact, tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    shutil.copy(artefact.file, tmp_path / "dist")
    if artefact.python != sys.executable:
        (tmp_path / ".venv-lambda").symlink_to(Path(artefact.python).parents[1])
    replacing = {
        "127.0.0.1:9092/era5": f"{kafka.servers}/{new_topic()}",
        "crate://crate@127.0.0.1:4200/demo": store.url,
    }
    howto.run(ROOT / "docs" / "lambda.md", tmp_path, replacing)
    assert int((tmp_path / "invocations.txt").read_text()) > 0


# ----------------------------------------------------------------------------------- faults


def test_what_is_deployed_takes_a_topic_to_the_store(
    mapped: Callable[[Topic], Mapped], poison: Topic
) -> None:
    """And says so: in metrics on 127.0.0.1, in a log for machines, and at the end."""
    here = mapped(poison)
    port = free_ports(1)
    log = ("--log-format", "json", "--log", str(here.folder / "function.log"))
    command = here.start("--metrics-port", str(port), *log, plain=True)

    def metric(name: str) -> float:
        with suppress(URLError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
            found = re.search(rf"^climatestream_{name} (\S+)$", text, re.MULTILINE)
            return float(found[1]) if found else math.nan
        return math.nan

    until(lambda: metric("delivered_total") == poison.messages, "all is done")
    until(lambda: metric("lag_messages") == 0, "it has seen so")
    assert metric("event_to_stored_seconds_count") == poison.messages
    assert metric("cold_starts_total") >= 1
    command.interrupt(signal.SIGINT)
    done = command.ended(130)
    assert done["delivered"] == poison.messages
    assert done["errors"] == done["partial_failures"] == done["discarded"] == 0
    assert 1 <= done["cold_starts"] <= 5
    lines = [orjson.loads(line) for line in command.errors().splitlines()]
    assert any(line["message"] == "progress" and "delivered" in line for line in lines)
    here.prove()


def test_a_function_that_fails_after_it_has_stored_loses_and_doubles_nothing(
    mapped: Callable[[Topic], Mapped], poison: Topic
) -> None:
    """It crashes, raises, answers nonsense, takes too much memory or time: all comes again."""
    here = mapped(poison)
    here.plan("exit", "raise", "malformed", "memory", "sleep")
    done = here.deliver(*SMALL, "--Timeout", "2")
    assert done["errors"] == done["retries"] == 5
    assert done["delivered"] == poison.messages
    assert done["cold_starts"] > 3
    here.prove()
    here.in_order()


def test_a_function_killed_or_stopped_from_outside_loses_and_doubles_nothing(
    mapped: Callable[[Topic], Mapped], poison: Topic
) -> None:
    """SIGKILL, and SIGSTOP until its time is over."""
    here = mapped(poison)
    command = here.start(*SMALL, "--Timeout", "2", "--until-caught-up", plain=True)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        before = here.committed()
        here.wait_for_progress(command, beyond=before)
        for process in here.processes(command):
            process.send_signal(number)
    done = command.ended()
    assert done["errors"] > 0
    here.prove()


def test_a_store_that_is_away_for_a_while_costs_no_reading(
    mapped: Callable[[Topic], Mapped], poison: Topic
) -> None:
    """The handler reports what it could not store, in time; nothing is given up."""
    here = mapped(poison)
    command = here.start(*SMALL, "--Timeout", "3", "--until-caught-up")
    here.wait_for_progress(command)
    with frozen(here.store):
        time.sleep(AWAY_S)
        assert command.running
    done = command.ended()
    assert done["partial_failures"] > 0
    assert done["errors"] == done["discarded"] == 0
    here.prove()
    here.in_order()


def test_bisecting_gives_up_poisons_alone(
    mapped: Callable[[Topic], Mapped], good: Topic, lines: list[bytes], tmp_path: Path
) -> None:
    """What is given up is missing, unless audit is told where it went."""
    here = mapped(good)
    cells = [key_of(orjson.loads(line)).decode() for line in lines]
    keys = {cells[7], cells[len(lines) // 2]}
    poisons = sum(cell in keys for cell in cells)
    here.plan(poison=sorted(keys))
    where = ("--on-failure", str(tmp_path / "bucket"))
    options = ("--BatchSize", "500", "--MaximumRetryAttempts", "1", *where)
    done = here.deliver(*options, "--BisectBatchOnFunctionError")
    assert done["conditions"] == {"RetryAttemptsExhausted": poisons}
    assert here.audit(1)["missing"] == poisons
    found = here.audit(0, *where)
    assert (found["dead"], found["stored"]) == (poisons, good.messages - poisons)


def test_without_bisecting_a_poison_takes_its_batch_along_and_all_can_be_published_again(
    mapped: Callable[[Topic], Mapped], kafka: Kafka, lines: list[bytes]
) -> None:
    """Retries that are exhausted end in a topic, from which `dead-letters retry` takes them."""
    name, letters = make_topic(kafka, 1), make_topic(kafka, 1)
    some = lines[:300]
    publish(kafka, name, some)
    here = mapped(Topic(name, len(some), len(some)))
    here.plan(poison=[key_of(orjson.loads(some[150])).decode()])
    where = ("--on-failure", f"kafka://{letters}")
    done = here.deliver("--BatchSize", "100", "--MaximumRetryAttempts", "2", *where)
    assert done["conditions"] == {"RetryAttemptsExhausted": 100}
    assert done["errors"] == 3
    assert messages_in(kafka, letters) == 100
    here.plan()
    retried = here.dead_letters("retry", *where)
    assert retried == {"published": 100, "left_dead": 0}
    here.deliver()
    audit = here.audit()
    assert (audit["dead"], audit["stored"], audit["messages"]) == (100, 300, 400)
    assert here.store.rows_and_keys() == (300, 300)


def test_records_that_are_too_old_are_not_sent_and_a_start_passes_them_over(
    mapped: Callable[[Topic], Mapped], kafka: Kafka, lines: list[bytes], tmp_path: Path
) -> None:
    name = make_topic(kafka, 2)
    publish(kafka, name, lines[:100], time.time_ns() // 1_000_000 - HOUR_MS)
    publish(kafka, name, lines[100:400])
    here = mapped(Topic(name, 400, 300))
    folder = tmp_path / "bucket"
    done = here.deliver("--MaximumRecordAgeInSeconds", "600", "--on-failure", str(folder))
    assert done["conditions"] == {"RecordAgeExceeded": 100}
    assert done["delivered"] == 300
    assert here.store.rows_and_keys() == (300, 300)
    here.group += "-at"  # a new group, which begins after them
    since = str(int(time.time()) - HOUR_MS // 2000)
    at = ("--StartingPosition", "AT_TIMESTAMP", "--StartingPositionTimestamp", since)
    assert here.deliver(*at)["delivered"] == 300


def test_a_failure_in_the_middle_of_partition_0_does_not_hold_up_partition_1(
    mapped: Callable[[Topic], Mapped], kafka: Kafka, good: Topic
) -> None:
    here = mapped(good)
    here.plan(hold=[0, 100])
    command = here.start(*SMALL)
    with open_broker(kafka.url(good.name)) as broker:
        ends = {block.partition: block.offset[-1] + 1 for block in broker.read()}
        until(
            lambda: all(broker.committed(here.group)[n] == ends[n] for n in ends if n != 0),
            "the other partitions are done",
        )
        until(lambda: broker.committed(here.group)[0] == 100, "partition 0 is done so far")
        assert ends[0] > 200, "too few records to hold any up"
        here.plan()
        until(lambda: broker.committed(here.group) == ends, "partition 0 goes on")
    assert command.interrupt(signal.SIGTERM) < DRAIN_S
    assert command.ended(130)["partial_failures"] > 0
    here.prove()
    here.in_order()


def test_a_mapping_that_is_killed_or_ends_in_order_leaves_the_rest_to_another(
    mapped: Callable[[Topic], Mapped], poison: Topic
) -> None:
    """SIGKILL costs no reading; a signal ends it, and its function's processes, in ten seconds."""
    here = mapped(poison)
    command = here.start(*TINY)
    here.wait_for_progress(command)
    processes = here.processes(command)
    assert processes
    command.kill()
    until(lambda: not any(p.is_running() for p in processes), "the function's processes end too")
    until(lambda: here.members() == 0, "its session is over")
    first, second = here.start(*TINY), here.start(*TINY)
    until(lambda: here.members() == 2, "both have partitions")
    assert here.committed() < poison.messages, "too few messages for two mappings"
    processes = here.processes(first)
    assert first.interrupt(signal.SIGINT) < DRAIN_S
    assert first.ended(130)["errors"] == 0
    assert not any(process.is_running() for process in processes)
    until(lambda: here.committed() == poison.messages, "the other does all")
    assert second.interrupt(signal.SIGTERM) < DRAIN_S
    here.prove()
