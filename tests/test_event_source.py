"""The local event source mapping, over a broker in this process and functions that are scripted."""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream.aws.answers import FunctionError, Outcome
from climatestream.aws.destination import Destination, Discarded, FolderDestination, Form
from climatestream.aws.event_source import EventPollers
from climatestream.aws.mapping_event import PAYLOAD_BYTES, EventSource, records_of
from climatestream.aws.mapping_settings import EventSourceMapping
from climatestream.brokers.memory import MemoryBroker
from climatestream.errors import Transient
from climatestream.model import Messages

SOURCE = EventSource("127.0.0.1:9092", "arn:aws:kafka:us-east-1:000000000000:cluster/laptop/0")
QUICK = EventSourceMapping(batch_size=100, window_s=0.0)
PATIENCE_S = 20.0

Place = tuple[int, int]
"""Partition and offset."""
Function = Callable[[list[Place]], Any]
"""Given the records of an event in order, its answer; what it raises is an error of it."""


def report(*places: Place, topic: str = "") -> dict[str, Any]:
    """The answer that names these records as failed."""
    return {
        "batchItemFailures": [
            {"itemIdentifier": {"topic-partition": f"{topic}-{partition}", "offset": offset}}
            for partition, offset in places
        ]
    }


class Scripted:
    """A function that is called in this process, and remembers its events."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._lock = threading.Lock()
        self.events: list[list[Place]] = []
        self.done: Counter[Place] = Counter()
        """How often each record was answered for as done."""
        self.order: dict[int, list[int]] = {}
        """By partition, the offsets as they were done for the first time."""

    def __call__(self, event: bytes) -> Outcome:
        parsed = orjson.loads(event)
        topic = next(iter(parsed["records"])).rpartition("-")[0]
        records = [
            (r["partition"], r["offset"]) for part in parsed["records"].values() for r in part
        ]
        with self._lock:
            self.events.append(records)
        try:
            answer = self._function(records)
        except ValueError as error:
            return Outcome("id", error=FunctionError("ValueError", str(error)))
        failed: set[Place] = set()
        if isinstance(answer, set):
            failed, answer = answer, report(*sorted(answer), topic=topic)
        with self._lock:
            for partition, offset in records:
                if (partition, offset) not in failed:
                    if not self.done[partition, offset]:
                        self.order.setdefault(partition, []).append(offset)
                    self.done[partition, offset] += 1
        return Outcome("id", orjson.dumps(answer))


class Kept:
    """A destination that keeps what it is given in memory, after failing some times."""

    def __init__(self, failures: int = 0) -> None:
        self.discarded: list[Discarded] = []
        self._failures = failures

    def write(self, discarded: Discarded) -> None:
        if self._failures:
            self._failures -= 1
            raise Transient("the destination is full: this test says so")
        self.discarded.append(discarded)

    @property
    def places(self) -> list[Place]:
        return [(r.partition, r.offset) for one in self.discarded for r in one.records]


class World:
    """A topic, and a mapping that takes it to a function."""

    def __init__(self, partitions: int = 2) -> None:
        self.broker = MemoryBroker("era5", partitions=partitions)
        self.published = 0

    def publish(self, count: int, size: int = 10) -> None:
        """Publish so many more messages."""
        with self.broker.producer() as producer:
            numbers = range(self.published, self.published + count)
            producer.publish(
                [b"%d" % number for number in numbers], [b"%0*d" % (size, n) for n in numbers]
            )
        self.published += count

    @property
    def committed(self) -> int:
        return sum(self.broker.committed("g").values())

    @contextmanager
    def running(
        self,
        invoke: Callable[[bytes], Outcome],
        mapping: EventSourceMapping = QUICK,
        destination: Destination | None = None,
        **more: Any,
    ) -> Iterator[EventPollers]:
        """Run the mapping while the block runs; what it raises is raised here."""
        pollers = EventPollers(mapping, SOURCE, invoke, destination, waits_s=(0.001, 0.004), **more)
        stop = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            try:
                with self.broker.consumer("g") as consumer:
                    pollers.run(consumer, finished=lambda: False, stop=stop)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield pollers
        finally:
            stop.set()
            thread.join()
        if raised:
            raise raised[0]

    def deliver(
        self,
        invoke: Callable[[bytes], Outcome],
        mapping: EventSourceMapping = QUICK,
        destination: Destination | None = None,
        **more: Any,
    ) -> EventPollers:
        """Run the mapping until all that is published is done with."""
        with self.running(invoke, mapping, destination, **more) as pollers:
            self.wait(lambda: self.committed == self.published)
        return pollers

    @staticmethod
    def wait(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.002)


def all_done_in_order(scripted: Scripted, world: World) -> None:
    """Every record was done, each partition's in order."""
    assert len(scripted.done) == world.published
    for offsets in scripted.order.values():
        assert offsets == list(range(len(offsets)))


# ------------------------------------------------------------------------------- batching


def test_every_record_is_sent_once_and_in_order() -> None:
    world = World(partitions=4)
    world.publish(1_000)
    scripted = Scripted(lambda _: None)
    pollers = world.deliver(scripted)
    all_done_in_order(scripted, world)
    assert set(scripted.done.values()) == {1}
    assert max(map(len, scripted.events)) == QUICK.batch_size
    assert pollers.counted.delivered == 1_000
    assert pollers.counted.invocations == len(scripted.events)


def test_a_batch_holds_records_of_several_partitions_side_by_side() -> None:
    world = World(partitions=4)
    world.publish(40)
    scripted = Scripted(lambda _: None)
    world.deliver(scripted, replace(QUICK, window_s=0.2))
    assert len(scripted.events) == 1
    partitions = [partition for partition, _ in scripted.events[0]]
    assert partitions == sorted(partitions, key=partitions.index)
    assert len(set(partitions)) == 4


def test_a_partition_has_one_batch_under_way_at_most() -> None:
    under_way: Counter[int] = Counter()
    most: Counter[int] = Counter()
    lock = threading.Lock()

    def watch(records: list[Place]) -> None:
        partitions = {partition for partition, _ in records}
        with lock:
            under_way.update(partitions)
            most.update({p: max(0, under_way[p] - most[p]) for p in partitions})
        time.sleep(0.001)
        with lock:
            under_way.subtract(partitions)

    world = World(partitions=4)
    world.publish(600)
    scripted = Scripted(watch)
    world.deliver(scripted, replace(QUICK, batch_size=7))
    all_done_in_order(scripted, world)
    assert set(most.values()) == {1}


def test_a_poller_has_five_invocations_under_way_at_most() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def watch(_: list[Place]) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    world = World(partitions=12)
    world.publish(600)
    world.deliver(Scripted(watch), replace(QUICK, batch_size=5))
    assert most[0] == 5


def test_a_batch_waits_for_the_window_and_no_longer_once_it_is_full() -> None:
    world = World(partitions=1)
    scripted = Scripted(lambda _: None)
    with world.running(scripted, replace(QUICK, batch_size=50, window_s=PATIENCE_S * 10)):
        world.publish(49)
        time.sleep(0.1)
        assert scripted.events == []
        world.publish(1)
        world.wait(lambda: world.committed == 50)
    assert [len(event) for event in scripted.events] == [50]


def test_an_event_has_six_megabytes_at_most_with_base64_counted() -> None:
    sizes = []

    def measure(event: bytes) -> Outcome:
        sizes.append((len(event), len(orjson.loads(event)["records"])))
        return Outcome("id")

    world = World(partitions=1)
    world.publish(30, size=1_000_000)
    world.deliver(measure, replace(QUICK, batch_size=10_000))
    assert len(sizes) == 8  # four messages of a megabyte are 5.3 MB of base64
    assert max(size for size, _ in sizes) <= PAYLOAD_BYTES
    assert sorted(sizes)[1][0] > 5_000_000


def test_a_record_too_large_for_an_event_goes_to_the_destination_unsent() -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(1)
    world.publish(1, size=5_000_000)
    world.publish(1)
    scripted = Scripted(lambda _: None)
    world.deliver(scripted, destination=kept)
    assert [one.condition for one in kept.discarded] == ["MaximumPayloadSizeExceeded"]
    assert kept.discarded[0].invocations == 0
    assert sorted(scripted.done) == [(0, 0), (0, 2)]


# -------------------------------------------------------------------------------- answers

OVER: Sequence[Any] = (None, {}, [], "", {"batchItemFailures": []}, {"batchItemFailures": None})
STRANGE: Sequence[Any] = (
    7,
    True,
    "done",
    [1],
    {"batchItemFailures": "all"},
    {"batchItemFailures": [{}]},
    {"batchItemFailures": [None]},
    {"batchItemFailures": [{"itemIdentifier": None}]},
    {"batchItemFailures": [{"itemIdentifier": ""}]},
    {"batchItemFailures": [{"itemIdentifier": {"partition": "era5-0", "offset": 1}}]},
    {"batchItemFailures": [{"itemIdentifier": {"topic-partition": "era5-0", "offset": "1"}}]},
    report((0, 1), topic="another"),
)


@pytest.mark.parametrize("answer", [*OVER, {"statusCode": 200}], ids=repr)
def test_an_answer_that_names_no_failure_is_a_success(answer: Any) -> None:
    world = World()
    world.publish(50)
    scripted = Scripted(lambda _: answer)
    world.deliver(scripted)
    assert set(scripted.done.values()) == {1}


@pytest.mark.parametrize("answer", STRANGE, ids=repr)
def test_an_answer_that_is_malformed_fails_the_whole_batch(answer: Any) -> None:
    world = World(partitions=1)
    world.publish(20)
    answers = [answer, answer, None]
    scripted = Scripted(lambda _: answers.pop(0))
    pollers = world.deliver(scripted)
    assert scripted.events == [scripted.events[0]] * 3
    assert pollers.counted.errors == 2


def test_one_identifier_that_was_not_sent_fails_the_whole_batch() -> None:
    world = World(partitions=1)
    world.publish(20)
    answers: list[Any] = [{(0, 3), (0, 99)}, None]
    scripted = Scripted(lambda _: answers.pop(0))
    world.deliver(scripted)
    assert scripted.events == [scripted.events[0]] * 2


def test_without_the_response_type_an_answer_is_not_read() -> None:
    world = World()
    world.publish(20)
    scripted = Scripted(set)
    world.deliver(scripted, replace(QUICK, partial=False))
    assert len({len(event) for event in scripted.events}) <= 2
    assert sum(map(len, scripted.events)) == 20


def test_from_the_first_record_that_an_answer_names_all_comes_again() -> None:
    world = World(partitions=1)
    world.publish(20)
    answers: list[Any] = [{(0, 13), (0, 17)}, {(0, 18)}, None]
    scripted = Scripted(lambda _: answers.pop(0))
    world.deliver(scripted)
    assert scripted.events[1:] == [[(0, n) for n in range(13, 20)], [(0, 18), (0, 19)]]


def test_taken_literally_what_an_answer_names_comes_again_and_nothing_else() -> None:
    world = World(partitions=1)
    world.publish(20)
    answers: list[Any] = [{(0, 3), (0, 7)}, {(0, 7)}, None]
    scripted = Scripted(lambda _: answers.pop(0))
    world.deliver(scripted, again="listed")
    assert scripted.events[1:] == [[(0, 3), (0, 7)], [(0, 7)]]


def test_nothing_after_a_failed_record_is_committed_before_it() -> None:
    world = World(partitions=1)
    world.publish(20)
    broken = threading.Event()

    def until_mended(records: list[Place]) -> Any:
        return set() if broken.is_set() else {(0, 5)} & set(records)

    scripted = Scripted(until_mended)
    with world.running(scripted):
        world.wait(lambda: world.committed == 5)
        seen = len(scripted.events)
        world.wait(lambda: len(scripted.events) > seen + 20)
        assert world.committed == 5
        broken.set()
        world.wait(lambda: world.committed == 20)


def test_a_failure_in_the_middle_of_a_partition_holds_up_no_other() -> None:
    world = World(partitions=2)
    world.publish(200)
    mended = threading.Event()

    def of_partition_0(records: list[Place]) -> Any:
        return set() if mended.is_set() else {p for p in records if p[0] == 0 and p[1] >= 10}

    scripted = Scripted(of_partition_0)
    with world.running(scripted, replace(QUICK, batch_size=25)):
        world.wait(lambda: world.broker.committed("g")[0] == 10)
        world.publish(2_000)  # more than is held of the partition that is held up
        ends = {block.partition: block.offset[-1] + 1 for block in world.broker.read()}
        world.wait(lambda: world.broker.committed("g")[1] == ends[1])
        assert world.broker.committed("g")[0] == 10
        mended.set()
        world.wait(lambda: world.committed == world.published)
    all_done_in_order(scripted, world)


# -------------------------------------------------------------------------------- retries


def poison(*bad: Place) -> Function:
    """A function that fails as a whole where these records are in its event."""

    def function(records: list[Place]) -> None:
        if set(bad) & set(records):
            raise ValueError("poison")

    return function


def test_retries_go_on_for_ever_by_default() -> None:
    world = World(partitions=1)
    world.publish(10)
    tries = iter(range(40))
    scripted = Scripted(lambda _: None if next(tries, None) is None else 7)
    world.deliver(scripted)
    assert len(scripted.events) == 41


@pytest.mark.parametrize(("retries", "sent"), [(0, 1), (1, 2), (3, 4)])
def test_so_many_retries_are_made_and_then_the_batch_is_given_up(retries: int, sent: int) -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(10)
    scripted = Scripted(poison((0, 3)))
    pollers = world.deliver(scripted, replace(QUICK, retries=retries), kept)
    assert len(scripted.events) == sent
    assert kept.places == [(0, offset) for offset in range(10)]
    assert kept.discarded[0].condition == "RetryAttemptsExhausted"
    assert kept.discarded[0].invocations == sent
    assert pollers.counted.discarded == {"RetryAttemptsExhausted": 10}


def test_unlimited_retries_with_a_destination_are_ten() -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(10)
    scripted = Scripted(poison((0, 3)))
    world.deliver(scripted, replace(QUICK, destination="folder"), kept)
    assert len(scripted.events) == 11


def test_without_a_destination_what_is_given_up_is_dropped() -> None:
    world = World(partitions=1)
    world.publish(10)
    pollers = world.deliver(Scripted(poison((0, 3))), replace(QUICK, retries=1))
    assert pollers.counted.delivered == 0


def test_bisecting_gives_up_the_poison_alone() -> None:
    """Splitting is no retry: one is enough to isolate it."""
    world, kept = World(partitions=2), Kept()
    world.publish(128)
    scripted = Scripted(poison((0, 3), (1, 9)))
    world.deliver(scripted, replace(QUICK, bisect=True, retries=1, batch_size=128), kept)
    assert sorted(kept.places) == [(0, 3), (1, 9)]
    assert len(scripted.done) == 126
    for partition, offsets in scripted.order.items():
        assert offsets == sorted(offsets), partition
    assert set(scripted.done.values()) == {1}


def test_a_partial_failure_is_not_bisected() -> None:
    world = World(partitions=1)
    world.publish(20)
    answers: list[Any] = [{(0, n) for n in range(4, 20)}, None]
    scripted = Scripted(lambda _: answers.pop(0))
    world.deliver(scripted, replace(QUICK, bisect=True))
    assert [len(event) for event in scripted.events] == [20, 16]


def test_a_record_that_is_too_old_is_not_sent() -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(10)
    later_ms = time.time_ns() // 1_000_000 + 61_000
    scripted = Scripted(lambda _: None)
    world.deliver(scripted, replace(QUICK, record_age_s=60), kept, clock_ms=lambda: later_ms)
    assert scripted.events == []
    assert [one.condition for one in kept.discarded] == ["RecordAgeExceeded"]
    assert len(kept.places) == 10


def test_a_record_that_becomes_too_old_is_not_sent_again() -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(10)
    now = [time.time_ns() // 1_000_000]
    scripted = Scripted(poison((0, 3)))

    def fail_and_age(event: bytes) -> Outcome:
        now[0] += 31_000
        return scripted(event)

    world.deliver(fail_and_age, replace(QUICK, record_age_s=60), kept, clock_ms=lambda: now[0])
    assert len(scripted.events) == 2
    assert len(kept.places) == 10


def test_a_destination_that_takes_nothing_holds_the_partition() -> None:
    world, kept = World(partitions=1), Kept(failures=3)
    world.publish(10)
    world.deliver(Scripted(poison((0, 3))), replace(QUICK, retries=0), kept)
    assert len(kept.places) == 10


def test_latency_is_that_of_what_is_done_and_to_the_answer_by_which_it_is() -> None:
    world, kept = World(partitions=1), Kept()
    world.publish(10)
    (published_ms,) = {at for block in world.broker.read() for at in block.published_at_ms}
    now = [published_ms]
    scripted = Scripted(poison((0, 3)))

    def slow(event: bytes) -> Outcome:
        now[0] += 400
        return scripted(event)

    mapping = replace(QUICK, retries=0, bisect=True)
    counted = world.deliver(slow, mapping, kept, clock_ms=lambda: now[0]).counted
    assert kept.places == [(0, 3)]
    assert sum(counted.latencies.counts.values()) == counted.delivered == 9
    assert counted.latencies.counts[500.0] == 0
    assert counted.latencies.sum_ms > 9 * 400


# ------------------------------------------------------------------------ stop and restart


def test_a_restart_goes_on_from_what_was_done() -> None:
    world = World(partitions=2)
    world.publish(300)
    first = Scripted(lambda records: {place for place in records if place[1] >= 40})
    with world.running(first):
        world.wait(lambda: world.committed == 80)
    second = Scripted(lambda _: None)
    world.deliver(second)
    assert (
        set(first.done) | set(second.done)
        == {(block.partition, offset) for block in world.broker.read() for offset in block.offset}
        or world.committed == 300
    )
    assert min(offset for _, offset in second.done) == 40
    assert len(second.done) == 220


def test_a_stop_waits_for_what_is_under_way_and_sends_nothing_more() -> None:
    world = World(partitions=1)
    world.publish(100)
    began, go_on = threading.Event(), threading.Event()

    def slow(_: list[Place]) -> None:
        began.set()
        go_on.wait(PATIENCE_S)

    scripted = Scripted(slow)
    with world.running(scripted, replace(QUICK, batch_size=10)):
        assert began.wait(PATIENCE_S)
        threading.Timer(0.05, go_on.set).start()
    assert len(scripted.events) == 1
    assert world.committed == 10


def test_a_stop_sends_no_second_half_before_the_first_is_done() -> None:
    world = World(partitions=1)
    world.publish(8)
    failed, go_on = threading.Event(), threading.Event()

    def fail(_: list[Place]) -> None:
        failed.set()
        go_on.wait(PATIENCE_S)
        raise ValueError("poison")

    scripted = Scripted(fail)
    with world.running(scripted, replace(QUICK, bisect=True)):
        assert failed.wait(PATIENCE_S)
        threading.Timer(0.05, go_on.set).start()
    assert [len(event) for event in scripted.events] == [8]
    assert world.committed == 0


def test_a_bug_of_the_mapping_ends_it() -> None:
    def broken(_: bytes) -> Outcome:
        raise RuntimeError("a bug")

    world = World()
    world.publish(10)
    with pytest.raises(RuntimeError, match="a bug"), world.running(broken) as pollers:
        world.wait(lambda: pollers._error is not None)
    assert world.committed == 0


# ---------------------------------------------------------------------------------- forms


def test_a_record_is_as_aws_writes_it() -> None:
    block = Messages(
        "era5", 3, [7, 8, 9], [1_756_000_000_000] * 3, [b"54.9,8.6", None, b""],
        [b'{"a":1}', b"", None], [(("units", b"\xffK"), ("units", b"")), (), ()], [1, 2, 1],
    )  # fmt: skip
    event = orjson.loads(SOURCE.event(records_of(block)))
    assert list(event) == ["eventSource", "eventSourceArn", "bootstrapServers", "records"]
    assert event["eventSource"] == "aws:kafka"
    first, second, third = event["records"]["era5-3"]
    assert first == {
        "topic": "era5",
        "partition": 3,
        "offset": 7,
        "timestamp": 1_756_000_000_000,
        "timestampType": "CREATE_TIME",
        "key": base64.b64encode(b"54.9,8.6").decode(),
        "value": base64.b64encode(b'{"a":1}').decode(),
        "headers": [{"units": [255, 75]}, {"units": []}],
    }
    assert second["timestampType"] == "LOG_APPEND_TIME"
    assert "key" not in second
    assert second["value"] == ""
    assert third["key"] == ""
    assert "value" not in third


def test_a_self_managed_kafka_has_no_arn() -> None:
    event = orjson.loads(EventSource("b:9092").event([]))
    assert event == {"eventSource": "SelfManagedKafka", "bootstrapServers": "b:9092", "records": {}}


def test_a_folder_keeps_batches_as_s3_would(tmp_path: Path) -> None:
    world = World(partitions=1)
    world.publish(10)
    folder = FolderDestination(tmp_path, Form(SOURCE, "climatestream", lambda: 1_756_000_000.5))
    world.deliver(Scripted(poison((0, 3))), replace(QUICK, retries=2), folder)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    found = orjson.loads(file.read_bytes())
    assert found["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert found["requestContext"]["approximateInvokeCount"] == 3
    assert found["responseContext"]["functionError"] == "Unhandled"
    assert found["timestamp"] == "2025-08-24T01:46:40.500Z"
    info = found["KafkaBatchInfo"]
    assert info["batchSize"] == 10
    place = f"{world.broker.topic}-0"
    assert info["recordsInfo"][place]["firstRecordOffset"] == "0"
    assert info["recordsInfo"][place]["lastRecordOffset"] == "9"
    event = orjson.loads(found["payload"])
    assert info["payloadSize"] == len(found["payload"])
    assert [record["offset"] for record in event["records"][place]] == list(range(10))
