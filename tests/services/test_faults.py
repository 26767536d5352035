"""Nothing is lost and nothing is doubled, whatever is killed, refused, slow or wrong.

Each fault happens to real processes; `climatestream audit` judges, and a raw count of rows and
keys. CLIMATESTREAM_FAULT_READINGS and _KILLS say how much of it (`make test-faults`: 200,000
readings, 20 kills); by default each fault happens once, to 20,000 readings.
"""

from __future__ import annotations

import itertools
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.open import open_broker
from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.rows import Reading, rows
from tests.services.crate import Node, Server
from tests.services.faults import (
    DRAIN_S,
    KILLS,
    PATIENCE_S,
    POISON,
    READINGS,
    REFUSED,
    SEED,
    Command,
    CrateSchema,
    DuckFile,
    Foreign,
    Place,
    Topic,
    World,
    away,
    key_of,
    messages_in,
    noting,
    poisoned,
    reasons,
    simulated,
    slices,
    until,
    whole,
)
from tests.services.kafka import free_ports
from tests.services.kafka_server import Kafka, new_topic

pytestmark = pytest.mark.timeout(4 * PATIENCE_S + 10 * KILLS)

PARTITIONS = 4
SMALL = str(max(20, READINGS // (25 * KILLS)))
"""Messages at once where a worker is to be met at work: many batches, many commits."""
TINY = str(max(20, READINGS // (100 * KILLS)))
HOUR_MS = 3_600_000

# -------------------------------------------------------------------------------- servers

_schemas = itertools.count()


@pytest.fixture(scope="module")
def crate(request: pytest.FixtureRequest) -> Server | str:
    """A CrateDB; or why there is none."""
    try:
        server: Server = request.getfixturevalue("cratedb")
    except pytest.skip.Exception as reason:
        return str(reason)
    return server


@pytest.fixture
def store(crate: Server | str, tmp_path: Path) -> Iterator[Place]:
    """An empty store: in CrateDB where there is one, else in DuckDB."""
    if isinstance(crate, str):
        yield DuckFile(tmp_path / "faults.duckdb")
        return
    schema = CrateSchema(crate, f"climatestream_test_fault_{next(_schemas)}")
    yield schema
    schema.drop()


@pytest.fixture
def schema(store: Place, crate: Server | str) -> CrateSchema:
    """One in CrateDB: several workers write to it, and it can refuse."""
    if not isinstance(store, CrateSchema):
        pytest.skip(f"DuckDB is one process's, and no server: {crate}")
    return store


@pytest.fixture
def node(schema: CrateSchema) -> Node:
    """The CrateDB of that schema, which may be killed and frozen."""
    if not isinstance(schema.server, Node):
        pytest.skip("a CrateDB that was named is not killed or frozen by tests")
    return schema.server


@pytest.fixture
def own(kafka: Kafka) -> Kafka:
    """The Kafka of the tests, which may be killed."""
    if kafka.folder is None:
        pytest.skip("a Kafka that was named is not killed by tests")
    return kafka


# --------------------------------------------------------------------------------- topics


def make_topic(kafka: Kafka) -> str:
    name = new_topic()
    with open_broker(kafka.url(name)) as broker:
        assert broker.ensure_topic(TopicSettings(partitions=PARTITIONS)) == []
    return name


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The readings as messages."""
    return simulated(READINGS)


@pytest.fixture(scope="module")
def readings(kafka: Kafka) -> Topic:
    """A topic of readings, as `publish` makes it."""
    name = new_topic()
    url = kafka.url(name)
    with Command("publish", *slices(READINGS), "--broker", url, "--json") as command:
        published = command.ended()["published"]
    assert published >= READINGS
    return Topic(name, published, published)


@pytest.fixture(scope="module")
def poison(kafka: Kafka, lines: list[bytes], crate: Server | str) -> Topic:
    """A topic in which one message in a hundred is a poison, of every kind."""
    return poisoned(kafka, make_topic(kafka), lines, refuses=not isinstance(crate, str))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as commands:
        yield commands


@pytest.fixture
def world(kafka: Kafka, store: Place, stack: ExitStack) -> Callable[[Topic], World]:
    return lambda topic: World(kafka, topic, store, stack)


# --------------------------------------------------------------------------------- workers


def test_a_worker_killed_at_random_moments_loses_and_doubles_nothing(
    world: Callable[[Topic], World], poison: Topic
) -> None:
    """SIGKILL; the next worker takes its place at once, as a static member does."""
    here = world(poison)
    random = Random(SEED)
    at_work = 0
    for number in range(KILLS):
        before = here.committed()
        worker = here.consume("--batch-rows", SMALL, group_instance_id="worker")
        if number % 3 == 2 or before == poison.messages:  # while it starts, or has just begun
            time.sleep(random.uniform(0.0, 3.0))
        else:
            here.wait_for_progress(worker, beyond=before)
            time.sleep(random.uniform(0.0, 0.5))
        worker.kill()
        at_work += before < here.committed() < poison.messages
    assert at_work, "no kill came while it worked"
    here.finish(group_instance_id="worker")
    here.prove()


def test_when_one_of_two_workers_is_killed_the_other_does_all(
    world: Callable[[Topic], World], schema: CrateSchema, poison: Topic
) -> None:
    """A member that is gone keeps its partitions until its session ends; then they are done."""
    here = world(poison)
    workers = [here.consume("--until-caught-up", "--batch-rows", TINY) for _ in range(2)]
    until(lambda: here.members() == 2, "both have partitions")
    assert here.committed() < poison.messages, "too few messages for two workers"
    workers[0].kill()
    assert workers[1].ended()["stored"] > 0
    here.prove()


def test_workers_that_come_and_go_lose_and_double_nothing(
    world: Callable[[Topic], World], schema: CrateSchema, poison: Topic
) -> None:
    """A rebalance storm: of up to three workers one leaves, is killed, or joins, all the time."""
    here = world(poison)
    random = Random(SEED)
    workers = [here.consume("--batch-rows", TINY)]
    here.wait_for_progress(*workers)
    rebalances = 0
    for _ in range(3 * KILLS):
        if len(workers) == 1 or (len(workers) == 2 and random.random() < 0.5):
            workers.append(here.consume("--batch-rows", TINY))
        else:
            gone = workers.pop(random.randrange(len(workers)))
            if not gone.listens() or random.random() < 0.3:
                gone.kill()
            else:
                assert gone.interrupt(signal.SIGTERM) < DRAIN_S
                assert gone.wait() == 130
        rebalances += here.committed() < poison.messages
        time.sleep(random.uniform(0.3, 1.5))
    assert rebalances, "the work was done before the storm"
    for worker in workers:
        worker.kill()
    here.finish()
    here.prove()


def test_a_worker_interrupted_at_any_moment_ends_in_order_within_ten_seconds(
    world: Callable[[Topic], World], poison: Topic
) -> None:
    """Ctrl-C and SIGTERM: what is under way is finished and committed, the exit code is 130."""
    here = world(poison)
    random = Random(SEED)
    stored = dead = 0
    for number in KILLS * (signal.SIGINT, signal.SIGTERM):
        worker = here.consume("--batch-rows", SMALL)
        until(worker.listens, "it handles signals")
        time.sleep(random.uniform(0.0, 3.0))
        assert worker.interrupt(number) < DRAIN_S
        done = worker.ended(130)
        stored += done.get("stored", 0)
        dead += done.get("dead_letters", 0)
        assert here.committed() == stored + dead, "all that was done is committed, and no more"
    rest = here.finish()
    assert stored + rest["stored"] == poison.messages - len(poison.dead)
    assert dead + rest["dead_letters"] == len(poison.dead)
    here.prove()


# ---------------------------------------------------------------------------------- broker


def test_a_broker_killed_and_restarted_while_consuming_loses_and_doubles_nothing(
    world: Callable[[Topic], World], own: Kafka, readings: Topic
) -> None:
    """Twice: the worker waits for it, or is interrupted while it is away, within ten seconds."""
    here = world(readings)
    worker = here.consume("--batch-rows", str(max(20, int(TINY) // 4)))
    here.wait_for_progress(worker)
    before = here.committed()
    with away(own):
        time.sleep(1.0)
        assert worker.running
    here.wait_for_progress(worker, beyond=before)
    assert here.committed() < readings.messages, "it was done before the second fault"
    with away(own):
        time.sleep(1.0)
        assert worker.interrupt(signal.SIGINT) < DRAIN_S
        assert worker.wait() == 130
    here.finish()
    here.prove()


def test_publish_outlives_a_broker_that_is_killed_and_comes_back(
    world: Callable[[Topic], World], own: Kafka
) -> None:
    """Every message is in the topic once: the producer is idempotent across the restart."""
    name = make_topic(own)
    rate = f"{max(1_000, READINGS // 10)}/s"
    with Command(
        "publish", *slices(READINGS), "--broker", own.url(name), "--rate", rate, "--json"
    ) as publish:
        until(lambda: messages_in(own, name) > 0, "the first messages are there")
        with away(own):
            time.sleep(1.0)
            assert publish.running, publish.errors()
        published = publish.ended()["published"]
    assert messages_in(own, name) == published >= READINGS
    here = world(Topic(name, published, published))
    here.finish()
    here.prove()


def test_publish_says_how_many_and_which_when_the_broker_stays_away(
    world: Callable[[Topic], World], own: Kafka
) -> None:
    """It fails loudly once its own timeout is over, and what it did not count as lost is there."""
    name = make_topic(own)
    url = own.url(name, delivery_timeout_ms=5_000, request_timeout_ms=2_000)
    rate = f"{max(1_000, READINGS // 10)}/s"
    with Command(
        "publish", *slices(READINGS), "--broker", url, "--rate", rate, "--json"
    ) as publish:
        until(lambda: messages_in(own, name) > 0, "the first messages are there")
        with away(own):
            assert publish.wait() == 1
        said = publish.errors().strip().splitlines()[-1]
        assert b"published" not in publish.output()
    words = said.split()
    failed = int(words[words.index("of") - 1])
    handed = int(words[words.index("of") + 1])
    assert "were not acknowledged, the first with key b'" in said
    there = messages_in(own, name)
    assert there >= handed - failed > 0
    here = world(Topic(name, there, there))
    here.finish()
    here.prove()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_publish_interrupted_says_what_is_there_and_all_of_that_is_stored(
    world: Callable[[Topic], World], kafka: Kafka, number: signal.Signals
) -> None:
    name = make_topic(kafka)
    rate = f"{max(1_000, READINGS // 40)}/s"
    with Command(
        "publish", *slices(READINGS), "--broker", kafka.url(name), "--rate", rate, "--json"
    ) as publish:
        until(lambda: messages_in(kafka, name) > 0, "the first messages are there")
        assert publish.interrupt(number) < DRAIN_S
        published = publish.ended(130)["published"]
    assert messages_in(kafka, name) == published > 0
    here = world(Topic(name, published, published))
    here.finish()
    here.prove()


def test_publish_whose_broker_is_away_ends_within_ten_seconds_and_says_what_it_leaves(
    own: Kafka,
) -> None:
    name = make_topic(own)
    rate = f"{max(1_000, READINGS // 10)}/s"
    with Command(
        "publish", *slices(READINGS), "--broker", own.url(name), "--rate", rate, "--json"
    ) as publish:
        until(lambda: messages_in(own, name) > 0, "the first messages are there")
        with away(own):
            time.sleep(1.0)
            assert publish.interrupt(signal.SIGTERM) < DRAIN_S
        assert "publish them again" in publish.ended(130)["error"]
        assert "publish them again" in publish.errors()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["publish", "consume", "audit"])
def test_a_command_interrupted_while_it_connects_ends_within_ten_seconds(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Something takes the connection and never answers, as behind a firewall."""
    with DuckDBStore(tmp_path / "x"):
        pass  # an audit reads one that is there
    source = slices(READINGS) if command == "publish" else ["--store", f"duckdb:{tmp_path}/x"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"kafka://127.0.0.1:{silent.getsockname()[1]}/readings"
        with Command(command, *source, "--broker", url) as under_way:
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()
            with connection:
                assert under_way.interrupt(number) < DRAIN_S
                assert under_way.wait() == 130
                assert "Traceback" not in under_way.errors()


def test_a_signal_in_the_first_moments_ends_a_command_without_a_traceback() -> None:
    with Command("consume", "--broker", "kafka://127.0.0.1:9/readings") as command:
        until(command.listens, "it handles signals")
        command.interrupt(signal.SIGTERM)
        assert command.wait() in (1, 130)  # the broker may have refused before
        assert "Traceback" not in command.errors()


# ----------------------------------------------------------------------------------- store

BLOCKS = {
    "read-only": ("climate_data", "blocks.write"),
    "full": ("climate_data", "blocks.read_only_allow_delete"),
    "dead letters read-only": ("dead_letters", "blocks.write"),
}


def test_a_store_that_refuses_for_a_while_holds_the_worker_and_loses_nothing(
    world: Callable[[Topic], World], schema: CrateSchema, poison: Topic
) -> None:
    """Tables that are read-only, or on a full disk; also that of the dead letters alone."""
    here = world(poison)
    worker = here.consume("--until-caught-up", "--batch-rows", SMALL)
    for name, (table, block) in BLOCKS.items():
        here.wait_for_progress(worker, beyond=here.committed())
        schema.set(table, block)
        time.sleep(1.0)
        before = here.committed()
        time.sleep(1.0)
        assert here.committed() == before < poison.messages, f"{name}: it went on without"
        assert worker.running
        schema.reset(table, block)
    assert worker.ended()["retries"] >= len(BLOCKS)
    here.prove()


def test_a_slow_store_slows_the_worker_and_loses_nothing(
    world: Callable[[Topic], World], node: Node, readings: Topic
) -> None:
    """It answers only now and then; some answers come after the worker has given them up.

    Interrupted while it hangs, the worker ends within ten seconds: what is under way comes again.
    """
    here = world(readings)
    quick, slow = here.store.url + "?timeout=2", here.store.url
    here.store.url = quick
    worker = here.consume("--until-caught-up", "--batch-rows", SMALL)
    here.wait_for_progress(worker)
    for frozen_s in (0.5, 3.0):
        _freeze(node, frozen_s)
        time.sleep(0.3)
    assert worker.interrupt(signal.SIGTERM) < DRAIN_S
    assert worker.ended(130)["retries"] > 0
    here.store.url = slow
    worker = here.consume("--batch-rows", SMALL)
    here.wait_for_progress(worker, beyond=here.committed())
    node.freeze()
    try:
        time.sleep(1.0)
        assert worker.interrupt(signal.SIGTERM) < DRAIN_S
        assert worker.wait() == 130
    finally:
        node.thaw()
    here.finish()
    here.prove()


def _freeze(node: Node, seconds: float) -> None:
    node.freeze()
    try:
        time.sleep(seconds)
    finally:
        node.thaw()


def test_a_store_killed_and_restarted_while_writing_loses_and_doubles_nothing(
    world: Callable[[Topic], World], node: Node, poison: Topic
) -> None:
    here = world(poison)
    worker = here.consume("--until-caught-up", "--batch-rows", SMALL)
    here.wait_for_progress(worker)
    node.kill()
    try:
        time.sleep(1.0)
        assert worker.running, worker.errors()
    finally:
        node.start()
    assert worker.ended()["retries"] > 0
    here.prove()


# -------------------------------------------------------------------------------- messages


def test_every_poison_is_a_dead_letter_with_its_reason_and_all_others_are_stored(
    world: Callable[[Topic], World], poison: Topic
) -> None:
    """One in a hundred, in batches as large as they get; the metrics count them.

    They are served on 127.0.0.1, and on no other address.
    """
    here = world(poison)
    assert len(poison.dead) == poison.messages // 100
    assert set(reasons(poison)) >= {reason for reason, _ in POISON}
    port = free_ports(1)
    worker = here.consume("--metrics-port", str(port))
    url = f"http://127.0.0.1:{port}/metrics"

    def scrape() -> dict[str, float]:
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return {sample.name + sample.labels.get("le", ""): sample.value for sample in samples}

    here.wait_for_progress(worker)
    until(lambda: here.committed() == poison.messages, "all is done")
    until(lambda: scrape()["climatestream_lag_messages"] == 0, "it has seen so")
    found = scrape()
    assert found["climatestream_stored_total"] == poison.keys
    assert found["climatestream_dead_letters_total"] == len(poison.dead)
    assert found["climatestream_expired_total"] == 0
    assert found["climatestream_event_to_stored_seconds_count"] == poison.messages
    assert found["climatestream_event_to_stored_seconds_bucket+Inf"] == poison.messages
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    assert worker.interrupt(signal.SIGTERM) < DRAIN_S
    assert worker.ended(130)["stored"] == poison.keys
    here.prove()
    listed = here.dead_letters("list", "--limit", str(poison.messages))["dead_letters"]
    assert {(one["partition"], one["offset"]): one["reason"] for one in listed} == poison.dead
    assert all(one["error"] for one in listed)


def test_of_many_texts_that_are_too_long_for_the_store_each_is_refused(
    schema: CrateSchema,
) -> None:
    """Also the first ones of their field, in rows that exist: CrateDB drops all but one of those.

    (In one request it refuses the first row, and stores the others without the text.)
    """
    first = rows(*(Reading(latitude=n / 100, offset=n) for n in range(30)))
    longer = [
        Reading({"temperature": 1.0, "note": "x" * 40_000}, latitude=n / 100, offset=100 + n)
        for n in range(30)
    ]
    with schema.store as opened:
        assert opened.write(first) == []
        assert {refusal.row for refusal in opened.write(rows(*longer))} == set(range(30))
        assert list(opened.find(first).offset) == list(range(30))


def test_messages_of_900_kb_are_stored_or_dead_and_do_not_stop_others(
    world: Callable[[Topic], World], kafka: Kafka, store: Place, lines: list[bytes]
) -> None:
    """As long for blanks: stored. For a text longer than CrateDB's longest: refused, kept whole."""
    foreign = Foreign(kafka, make_topic(kafka))
    large = max(20, READINGS // 2_000)
    refuses = isinstance(store, CrateSchema)
    dead: dict[tuple[int, int], str] = {}
    for number, line in enumerate(lines):
        document = orjson.loads(line)
        value = line
        told: Callable[[tuple[int, int]], object] = lambda _: None  # noqa: E731
        if number % 20 == 7 and number < 10 * large:
            value = line[:-1] + b" " * 900_000 + b"}"
        if number % 20 == 17 and number < 10 * large:
            value = orjson.dumps(document | {"note": "x" * 900_000})
            if refuses:
                told = noting(dead, REFUSED)
        foreign.send(key_of(document), value, told=told)
    foreign.flush()
    messages = len(lines)
    here = world(Topic(foreign.topic, messages, messages - len(dead), dead))
    here.finish()
    here.prove()
    if dead:
        (partition, offset), *_ = dead
        shown = here.dead_letters("show", f"{foreign.topic}/{partition}@{offset}")
        assert shown["bytes"] > 900_000


def test_messages_of_a_clock_set_back_by_an_hour_are_superseded_and_none_is_missing(
    world: Callable[[Topic], World], kafka: Kafka
) -> None:
    """The same cells and times with other values, published later by a clock that says earlier."""
    first, second = simulated(READINGS // 2, seed=0), simulated(READINGS // 2, seed=1)
    foreign = Foreign(kafka, make_topic(kafka))
    now_ms = time.time_ns() // 1_000_000
    for at_ms, sent in ((now_ms, first), (now_ms - HOUR_MS, second)):
        for line in sent:
            foreign.send(key_of(orjson.loads(line)), line, at_ms)
        foreign.flush()
    here = world(Topic(foreign.topic, len(first) + len(second), len(first), superseded=len(second)))
    here.finish()
    here.prove()
    [[newest]] = here.store.sql(
        "SELECT count(*) FROM {schema}.climate_data WHERE published_at = "
        + (f"{now_ms}" if isinstance(here.store, CrateSchema) else f"epoch_ms({now_ms})")
    )
    assert newest == len(first)


# ----------------------------------------------------------------------------------- retry


def reading(latitude: float, temperature: float, **more: Any) -> bytes:
    document = {
        "timestamp": 1_754_784_000_000_000_000,
        "dataset": "faults",
        "latitude": latitude,
        "longitude": 8.0,
        "temperature": temperature,
    }
    return orjson.dumps(document | more)


def temperatures(store: Place) -> dict[float, float]:
    """By latitude, the temperature [K]."""
    if isinstance(store, CrateSchema):
        store.server.sql(f"REFRESH TABLE {store.schema}.climate_data")
    found = store.sql("SELECT data['latitude'], data['temperature'] FROM {schema}.climate_data")
    return {latitude: round(celsius + 273.15, 6) for latitude, celsius in found}


def test_dead_letters_that_are_retried_are_stored_with_their_own_rank(
    world: Callable[[Topic], World], kafka: Kafka, tmp_path: Path
) -> None:
    """Corrected by field or as a whole; an old one does not overwrite what came since."""
    foreign = Foreign(kafka, make_topic(kafka))
    now_ms = time.time_ns() // 1_000_000
    places: dict[str, str] = {}

    def send(name: str, value: bytes, age_ms: int) -> None:
        def told(place: tuple[int, int]) -> None:
            places[name] = f"{foreign.topic}/{place[0]}@{place[1]}"

        foreign.send(b"the same", value, now_ms - age_ms, told)

    send("old", reading(95.0, 270.0), HOUR_MS)  # was to be at 50.0
    send("lonely", reading(96.0, 280.0), HOUR_MS)  # was to be at 51.0
    send("broken", b"no JSON", HOUR_MS)  # was to be at 52.0
    send("hopeless", b"nothing", HOUR_MS)
    send("new", reading(50.0, 300.0), 0)
    foreign.flush()

    here = world(Topic(foreign.topic, 5, 1))
    assert here.finish()["dead_letters"] == 4
    whole = tmp_path / "whole.json"
    whole.write_bytes(reading(52.0, 290.0))
    one = {"published": 1, "left_dead": 0}
    assert here.dead_letters("retry", places["old"], "--set", "latitude=50.0") == one
    assert here.dead_letters("retry", places["lonely"], "--set", "latitude=51.0") == one
    assert here.dead_letters("retry", places["broken"], "--from", str(whole)) == one
    # what is left: the hopeless one, tried as it is until it has been tried three times
    assert here.dead_letters("retry") == one
    assert here.finish()["dead_letters"] == 1
    assert temperatures(here.store) == {50.0: 300.0, 51.0: 280.0, 52.0: 290.0}
    assert here.dead_letters("retry") == one
    assert here.finish()["dead_letters"] == 1
    assert here.dead_letters("retry") == {"published": 0, "left_dead": 1}

    attempts = {
        letter["message"]: letter["attempt"] for letter in here.dead_letters("list")["dead_letters"]
    }
    assert [attempts.pop(places[name]) for name in ("old", "lonely", "broken", "hopeless")] == [
        1
    ] * 4
    assert sorted(attempts.values()) == [2, 3]
    audit = here.audit()
    assert audit["ok"] is True
    found = {name: audit[name] for name in ("dead", "stored", "superseded", "missing", "pending")}
    assert found == {"dead": 6, "stored": 3, "superseded": 1, "missing": 0, "pending": 0}
    assert here.store.rows_and_keys() == (3, 3)


def test_dead_letters_are_copied_into_a_topic_of_their_own_where_asked_to(
    world: Callable[[Topic], World], kafka: Kafka
) -> None:
    """The table stays the one truth: what Kafka does not take as a copy is in it all the same."""
    foreign = Foreign(kafka, make_topic(kafka))
    poisons: dict[tuple[int, int], bytes | None] = {}
    reasons_of: dict[tuple[int, int], str] = {}
    too_large = b"x" * 999_900  # which the one header more makes too large
    values = [None, b"", b"no JSON", b"[1]", too_large, reading(95.0, 280.0)]
    for value in values:

        def told(place: tuple[int, int], value: bytes | None = value) -> None:
            poisons[place] = value

        foreign.send(b"a key", value, told=told)
    foreign.send(b"good", reading(50.0, 280.0))
    foreign.flush()
    here = world(Topic(foreign.topic, 7, 1))
    worker = here.consume("--until-caught-up", "--copy-dead-letters")
    assert worker.ended()["dead_letters"] == 6
    assert worker.errors().count("has no copy") == 1
    copies = whole(kafka, f"{foreign.topic}.dead")
    for key, value, headers in copies:
        said = orjson.loads(dict(headers)["dead-letter"])
        place = said["partition"], said["offset"]
        assert (key, said["topic"]) == (b"a key", foreign.topic)
        assert (None if said["null"] else value) == poisons[place]
        reasons_of[place] = said["reason"]
    # at least once: those of a batch of which one failed come again
    assert [poisons[place] for place in poisons.keys() - reasons_of.keys()] == [too_large]
    listed = here.dead_letters("list")["dead_letters"]
    buried = {(one["partition"], one["offset"]): one["reason"] for one in listed}
    assert reasons_of.items() <= buried.items()
    assert len(buried) == 6
    assert here.audit()["dead"] == 6


# ---------------------------------------------------------------------------------- offsets


def test_from_resets_a_group_only_if_asked_to_and_only_without_members(
    world: Callable[[Topic], World], kafka: Kafka, stack: ExitStack
) -> None:
    foreign = Foreign(kafka, make_topic(kafka))
    for number in range(100):
        foreign.send(b"%d" % number, reading(number / 10, 280.0))
    foreign.flush()
    here = world(Topic(foreign.topic, 100, 100))
    assert here.finish()["stored"] == 100

    refused = here.consume("--from", "earliest", "--until-caught-up")
    assert refused.wait() == 2
    assert "has offsets in" in refused.errors()
    assert "--yes" in refused.errors()
    assert here.committed() == 100

    member = here.consume()
    until(lambda: here.members() == 1, "a member has the partitions")
    # the store of a member is its own where it is a file
    other = World(kafka, here.topic, _beside(here.store), stack)
    other.group = here.group
    while_members = other.consume("--from", "earliest", "--yes", "--until-caught-up")
    assert while_members.wait() == 1
    assert "members" in while_members.errors()
    assert here.committed() == 100
    member.interrupt(signal.SIGTERM)

    again = here.consume("--from", "earliest", "--yes", "--until-caught-up").ended()
    assert again["stored"] == 100
    here.prove()
    from_now = here.consume("--from", "latest", "--yes", "--until-caught-up").ended()
    assert from_now["stored"] == 0
    here.prove()


def _beside(store: Place) -> Place:
    return DuckFile(store.path.with_suffix(".other")) if isinstance(store, DuckFile) else store
