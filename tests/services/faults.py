"""Commands in processes of their own that tests kill, and what is left in topic and store.

What is counted here by-passes the project: Kafka's own client, CrateDB's own SQL, DuckDB's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, Protocol, Self, TypeVar

import duckdb
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from climatestream.audit import CLASSES
from climatestream.stores.crate import CrateStore
from tests.services.crate import Server
from tests.services.kafka_server import Kafka

READINGS: Final = int(os.environ.get("CLIMATESTREAM_FAULT_READINGS", "20000"))
"""Readings that each fault meets, at least."""
KILLS: Final = int(os.environ.get("CLIMATESTREAM_FAULT_KILLS", "1"))
"""How often a process is killed where it is killed at random moments."""
SEED: Final = int(os.environ.get("CLIMATESTREAM_FAULT_SEED", "0"))
"""Of those moments."""
PATIENCE_S: Final = 60.0 + READINGS / 1000
"""Time that a command has to end, and anything else to happen, on a busy machine [s]."""
DRAIN_S: Final = 10.0
"""Time in which an interrupted command has ended: the promise of design section 5 [s]."""

QUICK: Final[dict[str, Any]] = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500}
"""A killed member's partitions are others' after six seconds, which is the broker's least."""

REQUEST_S: Final = 10.0
"""Time that Kafka has for one answer [s]."""
LATER: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.GROUP_ID_NOT_FOUND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)
"""Kafka's answers after which the same question has another one soon."""

T = TypeVar("T")

Position = tuple[int, int]
"""Partition and offset."""


def until(happened: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until something has happened; fail where it does not."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.02)


# ------------------------------------------------------------------------------- commands


class Command:
    """A `climatestream` command in a process of its own, ended when it is left."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self._out = TemporaryFile()  # noqa: SIM115 - closed when the command is left
        self._err = TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "climatestream", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._out.close()
        self._err.close()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def listens(self) -> bool:
        """Whether it handles SIGTERM by now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self.process.kill()
        self.process.wait()

    def interrupt(self, number: signal.Signals) -> float:
        """Send a signal; how long it then took to end [s]."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.wait()
        return time.monotonic() - began

    def wait(self) -> int:
        """Wait until it ends; its exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended:\n{self.errors()[-3000:]}") from None

    def ended(self, code: int = 0) -> dict[str, Any]:
        """What it printed as JSON, once it has ended with this exit code."""
        found = self.wait()
        said = f"{self.errors()[-3000:]}\n{self.output()[-3000:]!r}"
        assert found == code, f"{self} ended with {found}:\n{said}"
        lines = self.output().splitlines()
        return orjson.loads(lines[-1]) if lines else {}

    def output(self) -> bytes:
        return self._whole(self._out)

    def errors(self) -> str:
        return self._whole(self._err).decode(errors="replace")

    @staticmethod
    def _whole(file: Any) -> bytes:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def __str__(self) -> str:
        return " ".join(("climatestream", *self.arguments))


# --------------------------------------------------------------------------------- topics

START: Final = "2025-08-10T00:00"


def slices(readings: int) -> list[str]:
    """Arguments for hours of `simulation:` with at least so many readings (4,500 an hour)."""
    hours = -(-readings // 4_400)
    end = f"2025-08-{10 + (hours - 1) // 24:02}T{(hours - 1) % 24:02}:00"
    return ["simulation:?days=21", "--from", START, "--to", end]


@dataclass(frozen=True)
class Topic:
    """A topic whose messages are known.

    Parameters
    ----------
    messages
        All of them.
    keys
        Different keys of the good ones: as many rows as there are to be.
    dead
        The reason of each that can never be stored.
    superseded
        Good ones with a newer one of the same key.
    """

    name: str
    messages: int
    keys: int
    dead: Mapping[Position, str] = field(default_factory=dict)
    superseded: int = 0


class Foreign:
    """Another program that publishes into the topic, with its own clock."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.servers,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "enable.idempotence": True,
                "log_level": 0,  # a broker that a test kills is no news
            }
        )
        self._undelivered: list[str] = []

    def send(
        self,
        key: bytes,
        value: bytes | None,
        at_ms: int = 0,
        told: Callable[[Position], object] = lambda _: None,
    ) -> None:
        """Send a message; 0: stamped with the clock; `told` gets its place."""

        def report(error: Any, message: Any) -> None:
            if error is not None:
                self._undelivered.append(str(error))
            else:
                told((message.partition(), message.offset()))

        while True:
            try:
                self._producer.produce(self.topic, value, key, timestamp=at_ms, on_delivery=report)
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self._producer.poll(0)

    def flush(self) -> None:
        self._producer.flush()
        assert not self._undelivered, self._undelivered[:3]


def key_of(document: Mapping[str, Any]) -> bytes:
    """The cell, as a producer writes it that rounds as the design says."""
    return f"{document['latitude']:.4f},{document['longitude']:.4f}".encode()


def simulated(readings: int, seed: int = 0) -> list[bytes]:
    """The messages of a simulation, as `publish` prints them."""
    source, *dates = slices(readings)
    arguments = ["publish", f"{source}&seed={seed}", *dates, "--broker", "-"]
    with Command(*arguments) as command:
        assert command.wait() == 0, command.errors()
        return command.output().splitlines()


def _changed(line: bytes, **changes: Any) -> bytes:
    document = orjson.loads(line) | changes
    return orjson.dumps({name: v for name, v in document.items() if v is not ...})


POISON: Final[Sequence[tuple[str, Callable[[bytes], bytes | None]]]] = (
    ("empty", lambda _: None),
    ("empty", lambda _: b""),
    ("not-json", lambda line: line[:-7]),
    ("not-json", lambda _: b"\xff\xfe"),
    ("not-an-object", lambda line: b"[" + line + b"]"),
    ("missing-field", lambda line: _changed(line, latitude=...)),
    ("wrong-type", lambda line: _changed(line, temperature="warm")),
    ("out-of-range", lambda line: _changed(line, latitude=95.2)),
    ("out-of-range", lambda line: _changed(line, timestamp=9_000_000_000_000_000_000)),
    (
        "no-value",
        lambda line: _changed(line, temperature=None, u10=..., v10=None, pressure=None),
    ),
    ("bad-field-name", lambda line: _changed(line, **{"soil.moisture": 1.0})),
    ("wrong-type", lambda line: _changed(line, levels=[1, 2])),
)
"""Messages that can never be stored, made of a good one, with the reason."""

REFUSED: Final = "refused"
"""The reason of what only the store can tell: CrateDB's longest ordinary text has 32,766 bytes."""


def _too_long(line: bytes) -> bytes:
    return _changed(line, note="x" * 40_000)


def noting(dead: dict[Position, str], reason: str) -> Callable[[Position], None]:
    """Notes a message that is sent as one that can never be stored."""

    def note(place: Position) -> None:
        dead[place] = reason

    return note


def poisoned(kafka: Kafka, name: str, lines: Sequence[bytes], *, refuses: bool) -> Topic:
    """A topic in which one message in a hundred is a poison."""
    kinds = [*POISON, *([(REFUSED, _too_long)] if refuses else [])]
    dead: dict[Position, str] = {}
    foreign = Foreign(kafka, name)
    for number, line in enumerate(lines):
        key = key_of(orjson.loads(line))
        foreign.send(key, line)
        if number % 99 == 98:
            reason, made = kinds[number // 99 % len(kinds)]
            foreign.send(key, made(line), told=noting(dead, reason))
    foreign.flush()
    return Topic(name, len(lines) + len(lines) // 99, len(lines), dead)


# --------------------------------------------------------------------------------- stores


class Place(Protocol):
    """A store, seen by-passing the project."""

    url: str

    def rows_and_keys(self) -> tuple[int, int]:
        """Rows of readings, and different keys among them."""

    def letters(self) -> list[tuple[int, int, str]]:
        """Partition, offset and reason of every dead letter."""

    def sql(self, statement: str) -> list[Any]:
        """The rows of a query; `{schema}` in it is the store's."""


KEYS: Final = 'SELECT count(*) FROM (SELECT DISTINCT dataset, cell, "timestamp" FROM {}) AS k'


class CrateSchema:
    """A schema of its own on a CrateDB server."""

    def __init__(self, server: Server, schema: str) -> None:
        self.server = server
        self.schema = schema
        self.store = CrateStore(server.at(schema))
        self.store.init(shards=1, replicas="0")
        self.url = f"crate://{server.address.user}@{server.address.server}/{schema}"

    def rows_and_keys(self) -> tuple[int, int]:
        table = f"{self.schema}.climate_data"
        self.server.sql(f"REFRESH TABLE {table}")
        [[rows]] = self.sql(f"SELECT count(*) FROM {table}")
        [[keys]] = self.sql(KEYS.format(table))
        return rows, keys

    def letters(self) -> list[tuple[int, int, str]]:
        self.server.sql(f"REFRESH TABLE {self.schema}.dead_letters")
        rows = self.sql('SELECT "partition", "offset", reason FROM {schema}.dead_letters')
        return [(partition, offset, reason) for partition, offset, reason in rows]

    def sql(self, statement: str) -> list[Any]:
        rows: list[Any] = self.server.sql(statement.format(schema=self.schema))["rows"]
        return rows

    def set(self, table: str, setting: str) -> None:
        """Switch a setting of a table on."""
        self.server.sql(f'ALTER TABLE {self.schema}.{table} SET ("{setting}" = true)')

    def reset(self, table: str, setting: str) -> None:
        """Switch it off again."""
        self.server.sql(f'ALTER TABLE {self.schema}.{table} RESET ("{setting}")')

    def drop(self) -> None:
        self.store.drop()


class DuckFile:
    """A DuckDB file, which belongs to one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"duckdb:{path}"

    def rows_and_keys(self) -> tuple[int, int]:
        [[rows]] = self.sql("SELECT count(*) FROM {schema}.climate_data")
        [[keys]] = self.sql(KEYS.format("{schema}.climate_data"))
        return rows, keys

    def letters(self) -> list[tuple[int, int, str]]:
        return [tuple(row) for row in self.sql(LETTERS)]

    def sql(self, statement: str) -> list[Any]:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH '{self.path}' AS store (READ_ONLY)")
            statement = statement.format(schema="store.demo")
            return connection.execute(statement).fetchall()


LETTERS: Final = 'SELECT "partition", "offset", reason FROM {schema}.dead_letters'


# ---------------------------------------------------------------------------------- world


class World:
    """A topic, a store, and a group that takes the one to the other.

    Parameters
    ----------
    stack
        Ends the commands that are still running when the test ends.
    """

    def __init__(self, kafka: Kafka, topic: Topic, store: Place, stack: ExitStack) -> None:
        self.kafka = kafka
        self.topic = topic
        self.store = store
        self.group = f"faults-{time.time_ns()}"
        self._stack = stack
        quiet: dict[str, Any] = {"bootstrap.servers": kafka.servers, "log_level": 0}
        self._admin = AdminClient(quiet)
        # of the group, but no member: it does not subscribe
        self._onlooker = Consumer(quiet | {"group.id": self.group})
        stack.callback(self._onlooker.close)
        partitions = self._onlooker.list_topics(topic.name).topics[topic.name].partitions
        self._places = [TopicPartition(topic.name, number) for number in partitions]

    # -------------------------------------------------------------------------- commands

    def command(self, *arguments: str) -> Command:
        return self._stack.enter_context(Command(*arguments))

    def consume(self, *arguments: str, **options: Any) -> Command:
        """A worker; options are those of the broker's URL."""
        broker = self.kafka.url(self.topic.name, **{**QUICK, **options})
        return self.command("consume", *self._both(broker), *self._of_group, "--json", *arguments)

    def finish(self, **options: Any) -> dict[str, Any]:
        """A worker that does what is left."""
        return self.consume("--until-caught-up", **options).ended()

    def audit(self, code: int = 0, *more: str) -> dict[str, Any]:
        arguments = [*self._both(self.kafka.url(self.topic.name)), *self._of_group, *more]
        return self.command("audit", *arguments, "--json").ended(code)

    def dead_letters(self, verb: str, *arguments: str) -> dict[str, Any]:
        places = self._both(self.kafka.url(self.topic.name)) if verb == "retry" else self._store
        return self.command("dead-letters", verb, *arguments, *places, "--json").ended()

    def _both(self, broker: str) -> list[str]:
        return ["--broker", broker, *self._store]

    @property
    def _store(self) -> list[str]:
        return ["--store", self.store.url]

    @property
    def _of_group(self) -> list[str]:
        return ["--group", self.group]

    # ---------------------------------------------------------------------------- Kafka

    def committed(self) -> int:
        """Messages that the group has done."""
        places = _answer(lambda: self._onlooker.committed(self._places, timeout=REQUEST_S))
        return sum(max(0, place.offset) for place in places)

    def members(self) -> int:
        """Members of the group that have partitions."""

        def ask() -> Any:
            return self._admin.describe_consumer_groups([self.group])[self.group].result()

        group = _answer(ask)
        return sum(bool(member.assignment.topic_partitions) for member in group.members)

    def wait_for_progress(self, *workers: Command, beyond: int = 0) -> None:
        """Wait until the group has done more than so many messages, while all workers run."""

        def happened() -> bool:
            for worker in workers:
                assert worker.running, f"{worker} ended:\n{worker.errors()[-3000:]}"
            return self.committed() > beyond

        until(happened, f"group {self.group} gets on")

    # ----------------------------------------------------------------------------- proof

    def prove(self) -> None:
        """Nothing is lost, nothing is doubled, and every poison is a dead letter."""
        topic = self.topic
        audit = self.audit()
        assert audit["ok"] is True
        found = {name: audit[name] for name in CLASSES if audit[name]}
        expected = {
            "dead": len(topic.dead),
            "stored": topic.messages - len(topic.dead) - topic.superseded,
            "superseded": topic.superseded,
        }
        assert found == {name: count for name, count in expected.items() if count}, audit
        assert audit["messages"] == topic.messages == messages_in(self.kafka, topic.name)
        assert self.store.rows_and_keys() == (topic.keys, topic.keys)
        letters = self.store.letters()
        assert {(partition, offset): why for partition, offset, why in letters} == topic.dead
        assert len(letters) == len(topic.dead)


def _answer(ask: Callable[[], T]) -> T:
    """What Kafka answers, once it does: leaders and coordinators are elected before they do."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except KafkaException as exception:
            if exception.args[0].code() not in LATER or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def messages_in(kafka: Kafka, topic: str) -> int:
    """Messages that the topic holds, as Kafka counts them."""
    client = Consumer(
        {"bootstrap.servers": kafka.servers, "group.id": "faults-counting", "log_level": 0}
    )
    try:
        partitions = client.list_topics(topic).topics[topic].partitions

        def ends() -> list[tuple[int, int]]:
            return [client.get_watermark_offsets(TopicPartition(topic, n)) for n in partitions]

        return sum(high - low for low, high in _answer(ends))
    finally:
        client.close()


def whole(
    kafka: Kafka, topic: str
) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]:
    """Key, value and headers of every message of a topic."""
    count = messages_in(kafka, topic)
    client = Consumer(
        {
            "bootstrap.servers": kafka.servers,
            "group.id": f"faults-reading-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    found: list[Any] = []
    try:
        client.subscribe([topic])
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages of {topic}"
            some = client.consume(count, 0.2)
            found += [(one.key(), one.value(), one.headers() or []) for one in some]
        return found
    finally:
        client.close()


@contextmanager
def away(kafka: Kafka) -> Iterator[None]:
    """The broker is killed, and started again afterwards with what it had written."""
    kafka.run("stop", "--kill")
    try:
        yield
    finally:
        kafka.run("start", "--properties", f"{kafka.folder}/extra.properties")


def reasons(topic: Topic) -> Counter[str]:
    """How many poisons there are of each reason."""
    return Counter(topic.dead.values())
