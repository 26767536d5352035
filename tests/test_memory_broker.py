"""The in-process broker: what every broker promises, and what this one alone does."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from climatestream.brokers.memory import MemoryBroker
from climatestream.errors import BrokerError, BrokerUnavailable
from climatestream.testing.brokers import (
    NEVER_S,
    BrokerTests,
    UnavailableConsumer,
    ends,
    flat,
    in_background,
    numbered,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from climatestream.ports import Broker, Consumer, Producer

PATIENCE_S = 10.0
"""Time in which what waits no more is done [s]."""
A_LITTLE_S = 0.02
"""Time after which what waits is taken to wait [s]."""


class TestMemoryBroker(BrokerTests):
    """The promises of every broker."""

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with MemoryBroker() as broker:
            yield broker


class TestKeptMemoryBroker(BrokerTests):
    """The same, where messages are kept in files."""

    @pytest.fixture
    def broker(self, tmp_path: Path) -> Iterator[Broker]:
        with MemoryBroker(keep=tmp_path) as broker:
            yield broker


def publish(producer: Producer, contents: list[bytes], key: bytes = b"key") -> None:
    """Publish values in one partition."""
    producer.publish([key] * len(contents), contents)


def take(consumer: Consumer, count: int = 100_000) -> list[bytes | None]:
    """Poll once and commit all of it."""
    messages = flat(consumer.poll(count, 0.0))
    consumer.commit(ends(messages))
    return [message.value for message in messages]


def see_waiting(call: Future[None]) -> None:
    with pytest.raises(TimeoutError):
        call.result(A_LITTLE_S)


# ----------------------------------------------------------------------------- bounded memory


def test_a_full_partition_makes_publish_wait_until_a_commit_makes_room() -> None:
    broker = MemoryBroker(partitions=1, capacity=10)
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:
        publish(producer, numbered(5))
        publish(producer, numbered(5))
        more = in_background(publish, producer, [b"more"])
        see_waiting(more)
        assert len(flat(consumer.poll(100, 0.0))) == 10
        see_waiting(more)  # taken is not done with
        consumer.commit({0: 5})
        more.result(PATIENCE_S)
        assert take(consumer) == [b"more"]
        assert producer.flush() == 11


def test_a_publish_takes_all_its_messages_or_waits_with_all() -> None:
    """While one of the partitions is full, nothing is put into the others either."""
    broker = MemoryBroker(partitions=2, capacity=10)
    keys = [b"a", b"b", b"c", b"d"]
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:
        producer.publish(keys, numbered(4))
        full, other = (block.key[0] or b"" for block in broker.read())
        publish(producer, numbered(9), full)
        both = in_background(producer.publish, [full, other], [b"to full", b"to other"])
        see_waiting(both)
        assert b"to other" not in values(flat(broker.read()))
        take(consumer)
        both.result(PATIENCE_S)
        assert sorted(take(consumer), key=str) == [b"to full", b"to other"]


def test_closing_the_producer_releases_a_publish_that_waits() -> None:
    """From another thread, with BrokerError; nothing of it is in the topic."""
    broker = MemoryBroker(partitions=1, capacity=10)
    with broker:
        with broker.producer() as producer:
            publish(producer, numbered(10))
            more = in_background(publish, producer, [b"more"])
            see_waiting(more)
        with pytest.raises(BrokerError, match="closed"):
            more.result(PATIENCE_S)
        with pytest.raises(BrokerError, match="closed"):
            publish(producer, [b"more"])
        assert producer.flush() == 10
        assert values(flat(broker.read())) == numbered(10)


def test_a_batch_larger_than_a_partition_is_taken_when_the_partition_is_empty() -> None:
    broker = MemoryBroker(partitions=1, capacity=10)
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:
        publish(producer, numbered(25))
        more = in_background(publish, producer, numbered(25, b"next"))
        assert take(consumer, 24) == numbered(25)[:24]
        see_waiting(more)
        assert take(consumer) == numbered(25)[24:]
        more.result(PATIENCE_S)
        assert take(consumer) == numbered(25, b"next")


def test_messages_are_dropped_once_every_group_has_committed_them() -> None:
    broker = MemoryBroker(partitions=1)
    with broker, broker.producer() as producer:
        with broker.consumer("one") as one, broker.consumer("two") as two:
            publish(producer, numbered(10))
            publish(producer, numbered(10, b"more"))
            assert len(take(one)) == 20
            assert len(flat(broker.read())) == 20
            take(two, 10)
            assert values(flat(broker.read())) == numbered(10, b"more")
            take(two)
            assert flat(broker.read()) == []
        publish(producer, [b"after"])
        assert [m.offset for m in flat(broker.read())] == [20]


def test_a_group_that_comes_late_begins_with_what_is_held(tmp_path: Path) -> None:
    """And its polls wait where nothing is: not for ever giving what was dropped."""
    for keep in (None, tmp_path):
        broker = MemoryBroker(partitions=1, keep=keep)
        with broker, broker.producer() as producer, broker.consumer("early") as early:
            publish(producer, numbered(10))
            take(early)
            with broker.consumer("late") as late:
                poll = in_background(late.poll, 100, NEVER_S)
                with pytest.raises(TimeoutError):
                    poll.result(A_LITTLE_S)
                publish(producer, [b"new"])
                assert [m.offset for m in flat(poll.result(PATIENCE_S))] == [10]
                late.seek({0: 3})
                assert [m.offset for m in flat(late.poll(100, 0.0))] == [10]


def test_memory_does_not_grow_with_the_messages_that_went_through() -> None:
    """Whatever their keys are: nothing of a message is left when it is dropped."""
    broker = MemoryBroker(capacity=5_000)
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:

        def pass_through(first: int) -> int:
            keys = [b"%d" % number for number in range(first, first + 1_000)]
            producer.publish(keys, [b"x" * 100] * 1_000)
            assert len(take(consumer)) == 1_000
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            after_one = pass_through(0)
            after_many = [pass_through(number * 1_000) for number in range(1, 40)][-1]
        finally:
            tracemalloc.stop()
    assert after_many - after_one < 50_000


def test_producers_and_members_on_many_threads_lose_nothing() -> None:
    """Four producers and two members at once, with little room: all arrives, in key order."""
    broker = MemoryBroker(partitions=3, capacity=50)
    rounds = 60
    expected = 4 * rounds * 10

    def produce(name: bytes) -> None:
        with broker.producer() as producer:
            for number in range(rounds):
                keys = [b"%s %d" % (name, key) for key in range(10)]
                producer.publish(keys, [b"%06d" % number] * 10)

    got: list[tuple[int, int, bytes | None, bytes | None]] = []
    finished = threading.Event()

    def consume(member: Consumer) -> None:
        while not finished.is_set():
            messages = flat(member.poll(40, 0.01))
            got.extend((m.partition, m.offset, m.key, m.value) for m in messages)
            member.commit(ends(messages))
            if len(got) >= expected:
                finished.set()

    with broker, broker.consumer("g") as one, broker.consumer("g") as two:
        work = [in_background(consume, member) for member in (one, two)]
        work += [in_background(produce, b"producer %d" % number) for number in range(4)]
        for part in work:
            part.result(2 * PATIENCE_S)
    assert len(got) == len(set(got)) == expected
    by_key: dict[bytes | None, list[bytes | None]] = {}
    for _, _, key, value in got:
        by_key.setdefault(key, []).append(value)
    assert len(by_key) == 40
    assert all(found == [b"%06d" % n for n in range(rounds)] for found in by_key.values())


def test_keys_and_values_of_different_number_are_refused() -> None:
    """A caller's mistake must not lose what has no partner."""
    with MemoryBroker() as broker, broker.producer() as producer:
        with pytest.raises(ValueError, match="shorter"):
            producer.publish([b"a", b"b"], [b"1"])
        assert flat(broker.read()) == []


# ------------------------------------------------------------------------------ members


def test_a_member_that_has_left_gets_nothing_more() -> None:
    """What it would take then, another member takes as well."""
    with MemoryBroker() as broker, broker.producer() as producer:
        with broker.consumer("g") as consumer:
            pass
        publish(producer, [b"later"])
        assert consumer.poll(10, 0.0) == []


def test_seek_gives_a_member_no_partition_of_another() -> None:
    with (
        MemoryBroker(partitions=2) as broker,
        broker.consumer("g") as one,
        broker.consumer("g") as two,
    ):
        one.seek({0: 0, 1: 0})
        two.seek({0: 0, 1: 0})
        assert sorted([*one.high_water(), *two.high_water()]) == [0, 1]


def test_an_unavailable_consumer_fails_so_often_and_is_then_the_one_it_wraps() -> None:
    """The double that workers are tested with."""
    with MemoryBroker(partitions=1) as broker, broker.producer() as producer:
        publish(producer, [b"a", b"b"])
        with UnavailableConsumer(broker.consumer("g"), polls=2, commits=1) as consumer:
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    consumer.poll(10, 0.0)
            assert values(flat(consumer.poll(10, 0.0))) == [b"a", b"b"]
            with pytest.raises(BrokerUnavailable):
                consumer.commit({0: 2})
            assert broker.committed("g") == {0: 0}
            consumer.commit({0: 2})
            assert broker.committed("g") == {0: 2}
            assert consumer.high_water() == {0: 2}


# ----------------------------------------------------------------------- times and names


def test_published_at_is_never_lower_than_the_last_when_the_clock_goes_back() -> None:
    """In any partition: it is the topic's last that counts."""
    times = iter([100, 1_000, 400, 999, 1_001])
    broker = MemoryBroker(clock_ms=lambda: next(times))
    with broker, broker.producer() as producer:
        for number, key in enumerate([b"a", b"b", b"c", b"a"]):
            publish(producer, [b"%d" % number], key)
        found = {m.value: m.published_at_ms for m in flat(broker.read())}
    assert found == {b"0": 1_000, b"1": 1_000, b"2": 1_000, b"3": 1_001}


def test_published_at_is_the_time_when_a_publish_that_waited_was_taken() -> None:
    now_ms = 5
    broker = MemoryBroker(partitions=1, capacity=1, clock_ms=lambda: now_ms)
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:
        publish(producer, [b"a"])
        more = in_background(publish, producer, [b"b"])
        see_waiting(more)
        now_ms = 9
        take(consumer)
        more.result(PATIENCE_S)
        assert [m.published_at_ms for m in flat(broker.read())] == [9]


def test_the_name_of_a_topic_never_repeats() -> None:
    """Also where two are made within one millisecond: a place is one message's for ever."""
    topics = [MemoryBroker("era5", clock_ms=lambda: 7).topic for _ in range(200)]
    assert len(set(topics)) == 200
    assert all(topic.startswith("era5-") for topic in topics)


# --------------------------------------------------------------------------- kept messages


def test_kept_messages_are_all_read_after_they_were_dropped(tmp_path: Path) -> None:
    """As published, though members took them in parts that cut what was published together."""
    headers = (("units", b"\xff"), ("größe", b""))
    with MemoryBroker(partitions=2, keep=tmp_path) as broker, broker.producer() as producer:
        with broker.consumer("g") as consumer:
            for number in range(20):
                keys = [b"%d" % key for key in range(7)]
                producer.publish(keys, [b"%d %d" % (number, key) for key in range(7)], headers)
            published = flat(broker.read())
            assert len(published) == 140
            while messages := flat(consumer.poll(3, 0.0)):
                consumer.commit(ends(messages))
                assert flat(broker.read()) == published
        assert broker.committed("g") == ends(published)
        time_ms = published[70].published_at_ms
        later = [message for message in published if message.published_at_ms >= time_ms]
        assert flat(broker.read(time_ms)) == later
        assert {message.headers for message in published} == {headers}


def test_kept_messages_do_not_fill_the_partition(tmp_path: Path) -> None:
    """They are on disk: room is what the groups leave."""
    broker = MemoryBroker(partitions=1, capacity=10, keep=tmp_path)
    with broker, broker.producer() as producer, broker.consumer("g") as consumer:
        for number in range(30):
            publish(producer, [b"%d %d" % (number, n) for n in range(10)])
            assert len(take(consumer)) == 10
        assert len(flat(broker.read())) == 300


def test_a_reader_never_meets_the_half_of_what_is_being_written(tmp_path: Path) -> None:
    """Behind what a publish has finished, a file may end in the middle of anything."""
    with MemoryBroker(partitions=1, keep=tmp_path) as broker, broker.producer() as producer:
        publish(producer, numbered(10))
        (file,) = tmp_path.iterdir()
        whole = file.read_bytes()
        for half in (1, 39, 40, 41, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole + whole[:half])
            assert values(flat(broker.read())) == numbered(10)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path

from climatestream.brokers.memory import MemoryBroker
from climatestream.errors import BrokerUnavailable
from climatestream.testing.brokers import flat

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
broker = MemoryBroker(partitions=2, keep=Path(sys.argv[1]))
with broker, broker.producer() as producer, broker.consumer("g") as consumer:
    keys = [b"%d" % key for key in range(8)]
    producer.publish(keys, [b"before"] * 8)
    before = flat(broker.read())
    sizes = [file.stat().st_size for file in Path(sys.argv[1]).iterdir()]
    small, large = (b"" if m.partition == 0 else b"x" * 100_000 for m in (before[0], before[-1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    try:
        producer.publish([before[0].key, before[-1].key], [small, large])
    except BrokerUnavailable as error:
        print(error)
    assert flat(broker.read()) == before, flat(broker.read())
    assert [file.stat().st_size for file in Path(sys.argv[1]).iterdir()] == sizes
    assert producer.flush() == 8
    assert sum(consumer.high_water().values()) == 8

    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    producer.publish([before[0].key, before[-1].key], [small, large])
    after = flat(broker.read())
    assert sorted(m.value for m in after) == sorted([b"before"] * 8 + [small, large])
    assert sorted(flat(consumer.poll(100, 0.0))) == sorted(after)
    assert producer.flush() == 10
"""


def test_a_full_disk_takes_nothing_of_a_publish_and_harms_no_other(tmp_path: Path) -> None:
    """BrokerUnavailable, in no partition a part of it; once there is room, all goes on."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    (sentence,) = run.stdout.splitlines()
    assert str(tmp_path) in sentence
    assert "File too large" in sentence
    assert "without --audit" in sentence
