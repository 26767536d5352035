"""The Kafka broker against a real server."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, but not by name
    AdminClient,
    NewPartitions,
    NewTopic,
)

from climatestream.brokers import kafka_consumer
from climatestream.brokers.kafka import KafkaBroker
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.kafka_clients import CONSUMER
from climatestream.brokers.kafka_consumer import CHUNK, POLL_BYTES, KafkaConsumer
from climatestream.brokers.kafka_options import parse
from climatestream.brokers.kafka_producer import KafkaProducer
from climatestream.brokers.open import open_broker
from climatestream.errors import BrokerError, BrokerUnavailable, DeliveryFailed
from climatestream.model import Headers
from climatestream.ports import Broker
from climatestream.testing.brokers import KEYS, BrokerTests, ends, flat, numbered, values
from tests.services.kafka_server import PASSWORD, USER, Kafka, new_topic

QUICK: dict[str, str | int] = {
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 200,
    "fetch_wait_max_ms": 20,
}
"""Members that notice within a blink that others come and go."""

PARTITIONS = 3

STATIC = "static"
"""A group that no other test has: static members do not leave it, their sessions end."""


class KafkaTests(BrokerTests):
    """What the tests of this file share with the contract: its helpers."""

    __test__ = False
    patience_s = 30.0
    quiet_s = 0.25

    @pytest.fixture
    def broker(self, kafka: Kafka) -> Iterator[KafkaBroker]:
        with self.opened(kafka) as broker:
            yield broker

    @pytest.fixture(autouse=True)
    def producers(self) -> Iterator[None]:
        """One producer for all that a test publishes: each new one waits half a second."""
        self.kept: dict[int, KafkaProducer] = {}
        with ExitStack() as self.stack:
            yield

    def publish(
        self,
        broker: Broker,
        contents: Sequence[bytes],
        *,
        keys: Sequence[bytes] = KEYS,
        headers: Headers = (),
    ) -> None:
        assert isinstance(broker, KafkaBroker)
        producer = self.kept.get(id(broker))
        if producer is None:
            producer = self.kept[id(broker)] = self.stack.enter_context(broker.producer())
        before = producer.flush()
        of_values = [keys[number % len(keys)] for number in range(len(contents))]
        producer.publish(of_values, contents, headers)
        assert producer.flush() == before + len(contents)

    def opened(self, kafka: Kafka, **options: str | int) -> KafkaBroker:
        """A broker over a topic of its own, which is made."""
        url = kafka.url(new_topic(), **QUICK | options)
        with open_broker(url) as broker:
            assert broker.ensure_topic(TopicSettings(partitions=PARTITIONS)) == []
        return open_broker(url)


class TestKafkaBroker(KafkaTests):
    """`kafka://` keeps the promises of a broker."""

    __test__ = True


class Promises(KafkaTests):
    """The helpers without the promises of every broker, which run above."""


for _name in [name for name in dir(BrokerTests) if name.startswith("test_")]:
    setattr(Promises, _name, None)


class TestNextGenerationGroups(Promises):
    """KIP-848: the same promises of a member, with the group led by the broker."""

    __test__ = True
    test_two_members_share_the_partitions = BrokerTests.test_two_members_share_the_partitions
    test_a_member_takes_over_from_one_that_leaves = (
        BrokerTests.test_a_member_takes_over_from_one_that_leaves
    )
    test_a_group_goes_on_from_what_was_committed = (
        BrokerTests.test_a_group_goes_on_from_what_was_committed
    )
    test_a_partition_given_up_while_it_was_paused_delivers_when_it_comes_back = (
        BrokerTests.test_a_partition_given_up_while_it_was_paused_delivers_when_it_comes_back
    )
    test_a_group_may_begin_at_the_latest = BrokerTests.test_a_group_may_begin_at_the_latest

    @pytest.fixture
    def broker(self, kafka: Kafka) -> Iterator[KafkaBroker]:
        url = kafka.url(new_topic(), group_protocol="consumer", fetch_wait_max_ms=20)
        with open_broker(url) as broker:
            assert broker.ensure_topic(TopicSettings(partitions=PARTITIONS)) == []
            yield broker


# ------------------------------------------------------------------------------- producing

MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Keys and their hashes, as the tests of Kafka's own clients have them."""


class TestProducer(Promises):
    """Nothing is lost on the way in, or it is said what."""

    __test__ = True

    def test_a_key_is_placed_as_javas_clients_place_it(self, broker: KafkaBroker) -> None:
        """In both ways of handing messages over."""
        for headers in ((), (("a", b"1"),)):
            self.publish(broker, numbered(6), keys=list(MURMUR2), headers=headers)
        found = {(m.key, m.partition) for m in flat(broker.read())}
        assert found == {(k, (h & 0x7FFFFFFF) % PARTITIONS) for k, h in MURMUR2.items()}

    @pytest.mark.parametrize("headers", [(), (("a", b"1"),)])
    def test_a_full_buffer_makes_publish_wait_and_keeps_the_order(
        self, kafka: Kafka, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """With room for a hundredth of what is published at once."""
        contents = numbered(30_000)
        with self.opened(kafka, queue_buffering_max_messages=300) as broker:
            self.publish(broker, contents, headers=headers)
            by_key = defaultdict(list)
            for message in flat(broker.read()):
                by_key[message.key].append(message.value)
        assert sum(map(len, by_key.values())) == 30_000
        for found in by_key.values():
            assert found == sorted(found, key=lambda value: value or b"")

    @pytest.mark.parametrize("headers", [(), (("a", b"1"),)])
    def test_a_message_that_is_refused_is_named_and_others_arrive(
        self, broker: KafkaBroker, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """Publishing on is refused too: a run that lost a message must not end well."""
        sizes = {b"one": 10, b"huge": 3_000_000, b"two": 900_000, b"huger": 4_000_000}
        with broker.producer() as producer:
            with pytest.raises(DeliveryFailed, match="2 of 4 messages of topic") as caught:
                producer.publish(list(sizes), [b"x" * n for n in sizes.values()], headers)
            assert [key for _, key in caught.value.failed] == [b"huge", b"huger"]
            for call in (producer.flush, lambda: producer.publish([b"a"], [b"b"])):
                with pytest.raises(DeliveryFailed, match="the first with key b'huge'"):
                    call()
        assert {m.key for m in flat(broker.read())} == {b"one", b"two"}

    def test_a_topic_that_is_missing_is_said_with_what_makes_it(self, kafka: Kafka) -> None:
        with open_broker(kafka.url("climatestream-absent")) as broker:
            for made in (broker.producer(), broker.consumer("g")):
                with pytest.raises(BrokerError, match="does not exist .* publish` creates it"):
                    made.__enter__()


class TestOutage(Promises):
    """A broker that is killed and comes back; one server for all, since each start takes long."""

    __test__ = True

    def test_nothing_is_lost_or_doubled(self, own_kafka: Kafka) -> None:
        """Published before, while and after it is down; a member takes it all and commits it.

        A producer that can't deliver in time says how many and which.
        """
        own_kafka.run("start")
        given_up = own_kafka.url(new_topic(), delivery_timeout_ms=1_500, linger_ms=5)
        with (
            ThreadPoolExecutor(1) as pool,
            self.opened(own_kafka) as broker,
            broker.producer() as producer,
            broker.consumer("g") as consumer,
        ):
            producer.publish([b"a", b"b", b"c"], numbered(3))
            producer.flush()
            seen = set(values(self.take_all(consumer, 3)))
            with open_broker(given_up) as other:
                other.ensure_topic(TopicSettings())
                with other.producer() as impatient:
                    own_kafka.run("stop", "--kill")
                    impatient.publish([b"k1", b"k2"], numbered(2))
                    with pytest.raises(DeliveryFailed, match="2 of 2 messages") as caught:
                        impatient.flush()
                    assert sorted(key for _, key in caught.value.failed) == [b"k1", b"k2"]
            for start in range(0, 40_000, 1_000):
                contents = numbered(1_000, b"%03d " % (start // 1_000))
                producer.publish([b"%d" % (n % 97) for n in range(1_000)], contents)
            restarted = pool.submit(own_kafka.run, "start")
            assert producer.flush() == 40_003
            restarted.result()
            kept = values(flat(broker.read()))
            assert len(kept) == len(set(kept)) == 40_003
            seen |= self.take_and_commit(broker, consumer)
            assert seen == set(kept)

    def take_and_commit(self, broker: KafkaBroker, consumer: KafkaConsumer) -> set[bytes | None]:
        """Work as a worker does until the group has caught up; what was delivered."""
        caught_up = broker.caught_up("g")
        taken: set[bytes | None] = set()
        deadline = time.monotonic() + 180.0
        while not caught_up():
            assert time.monotonic() < deadline
            try:
                messages = flat(consumer.poll(1_000, 0.1))
                consumer.commit(ends(messages))
            except BrokerUnavailable:
                continue
            taken |= set(values(messages))
        return taken

    def test_closing_ends_a_publish_that_waits(self, own_kafka: Kafka) -> None:
        """As Ctrl-C does while the broker is down: in the time of a look, not of a delivery."""
        own_kafka.run("start")
        with self.opened(own_kafka, queue_buffering_max_messages=1_000) as broker:
            producer = broker.producer()
            producer.__enter__()
            own_kafka.run("stop", "--kill")
            with ThreadPoolExecutor(1) as pool:
                publishing = pool.submit(producer.publish, [b"k"] * 5_000, numbered(5_000))
                time.sleep(0.5)
                assert not publishing.done()
                producer.__exit__()
                with pytest.raises(BrokerError, match="is closed"):
                    publishing.result(timeout=20)


# ------------------------------------------------------------------------------ a member


class TestMember(Promises):
    """Partitions come and go; what was not committed is delivered again, and nothing else."""

    __test__ = True

    def test_a_partition_given_up_is_not_committed_any_more(self, broker: KafkaBroker) -> None:
        """Quietly: its new owner does it again."""
        self.publish(broker, numbered(60))
        with broker.consumer("g") as first:
            taken = self.take_all(first, 60)
            with broker.consumer("g") as second:
                self.settle_taking(broker, first, second)
                kept = set(first.high_water())
                first.commit(ends(taken))
                expected = {n: end if n in kept else 0 for n, end in ends(taken).items()}
                assert broker.committed("g") == expected

    def settle_taking(self, broker: KafkaBroker, *members: KafkaConsumer) -> None:
        """Like `settle`, where the partitions are not empty."""
        deadline = time.monotonic() + self.patience_s
        while not all(m.high_water() for m in members) or sorted(
            n for m in members for n in m.high_water()
        ) != list(range(PARTITIONS)):
            assert time.monotonic() < deadline
            for member in members:
                member.poll(1_000, 0.05)

    def test_a_batch_from_before_is_not_committed_when_its_partition_comes_back(
        self, broker: KafkaBroker
    ) -> None:
        """Another did it meanwhile, and further: the group's offset never goes back."""
        self.publish(broker, numbered(60))
        with broker.consumer("g") as first:
            old = self.take_all(first, 60)
            with broker.consumer("g") as second:
                self.settle_taking(broker, first, second)
                self.publish(broker, numbered(60, b"more"))
                theirs = sorted(second.high_water())
                got: dict[int, int] = {}
                deadline = time.monotonic() + self.patience_s
                while got != {n: second.high_water()[n] for n in theirs}:
                    assert time.monotonic() < deadline
                    got |= ends(flat(second.poll(1_000, 0.05)))
                second.commit(got)
            deadline = time.monotonic() + self.patience_s
            while len(first.high_water()) < PARTITIONS:
                assert time.monotonic() < deadline
                first.poll(1_000, 0.05)
            self.publish(broker, numbered(60, b"last"))
            self.take([first], 60)
            first.commit({n: end for n, end in ends(old).items() if n in theirs})
            committed = broker.committed("g")
            assert {n: committed[n] for n in theirs} == got

    def test_a_member_hears_what_it_gives_up_and_may_commit_it(self, broker: KafkaBroker) -> None:
        """So that no other does it again."""
        self.publish(broker, numbered(60))
        heard: list[tuple[frozenset[int], bool]] = []
        done: dict[int, int] = {}

        def finish(numbers: frozenset[int], lost: bool) -> None:
            heard.append((numbers, lost))
            first.commit({n: done[n] for n in numbers})

        with broker.consumer("g", on_revoke=finish) as first:
            done |= ends(self.take_all(first, 60))
            with broker.consumer("g") as second:
                self.settle_taking(broker, first, second)
                theirs = set(second.high_water())
                assert heard == [(frozenset(theirs), False)]
                committed = broker.committed("g")
                assert {n: committed[n] for n in theirs} == {n: done[n] for n in theirs}

    def test_a_quiet_member_gives_way_and_goes_on_later(
        self, broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its store is down: nobody polls it. Another gets its share, and no message is lost."""
        monkeypatch.setattr(kafka_consumer, "QUIET_S", 0.5)
        with broker.consumer("g") as first:
            self.settle(broker, first)
            self.publish(broker, numbered(300))
            time.sleep(1.0)
            with broker.consumer("g") as second:
                theirs: list[bytes | None] = []
                deadline = time.monotonic() + self.patience_s
                while not theirs or not second.high_water():
                    assert time.monotonic() < deadline
                    theirs += values(flat(second.poll(1_000, self.quiet_s)))
                theirs += values(flat(second.poll(1_000, 1.0)))
                ours = values(flat(first.poll(1_000, 5.0)))
                while len(ours) + len(theirs) < 300:
                    assert time.monotonic() < deadline
                    ours += values(flat(first.poll(1_000, self.quiet_s)))
                assert sorted((*ours, *theirs), key=lambda value: value or b"") == numbered(300)

    def test_a_member_that_was_thought_dead_goes_on(
        self, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its partitions are lost: it hears so, commits nothing, and gets them again."""
        monkeypatch.setattr(kafka_consumer, "QUIET_S", 3_600.0)
        heard = []
        with (
            self.opened(kafka, max_poll_interval_ms=6_000) as broker,
            broker.consumer("g", on_revoke=lambda *told: heard.append(told)) as consumer,
        ):
            self.publish(broker, numbered(30))
            taken = self.take_all(consumer, 30)
            time.sleep(7.5)
            again: list[bytes | None] = []
            deadline = time.monotonic() + self.patience_s
            while len(again) < 30:
                assert time.monotonic() < deadline
                try:
                    again += values(flat(consumer.poll(1_000, self.quiet_s)))
                    if not again:
                        consumer.commit(ends(taken))
                except BrokerUnavailable:
                    continue
            assert sorted(again, key=lambda value: value or b"") == numbered(30)
            assert heard == [(frozenset(range(PARTITIONS)), True)]
            assert set(broker.committed("g").values()) == {0}

    def test_a_static_member_comes_back_to_its_partitions(self, kafka: Kafka) -> None:
        """Restarted within its session, without a rebalance of the others."""
        url = kafka.url(new_topic(), group_instance_id="one", **QUICK)
        with open_broker(url) as broker, ExitStack() as stack:
            broker.ensure_topic(TopicSettings(partitions=PARTITIONS))
            told = []
            other = stack.enter_context(open_broker(url.replace("=one", "=two"))).consumer(
                STATIC, on_revoke=lambda *what: told.append(what)
            )
            with other:
                with broker.consumer(STATIC) as first:
                    self.settle(broker, first, other)
                    before = set(first.high_water())
                told.clear()
                with broker.consumer(STATIC) as first:
                    self.settle(broker, first, other)
                    assert set(first.high_water()) == before
                    assert told == []

    def test_a_second_member_of_the_same_name_ends_the_first(self, kafka: Kafka) -> None:
        """Its error is final: it must not fight for the name."""
        with self.opened(kafka, group_instance_id="one") as broker:
            group = f"{STATIC}-2"
            first, second = broker.consumer(group), broker.consumer(group)
            with first:
                self.settle(broker, first)
                with second:
                    self.settle(broker, second)
                    with pytest.raises(BrokerError, match="can't go on"):
                        first.poll(1, self.patience_s)

    def test_polls_and_commits_of_two_threads_do_not_starve_each_other(
        self, broker: KafkaBroker
    ) -> None:
        """As the worker has them: one thread polls without end, another commits."""
        self.publish(broker, numbered(60))
        stop = threading.Event()

        def poll_on() -> None:
            while not stop.is_set():
                consumer.poll(10, 0.05)

        with broker.consumer("g") as consumer, ThreadPoolExecutor(1) as pool:
            end = ends(self.take_all(consumer, 60))
            polling = pool.submit(poll_on)
            try:
                for number in range(1, 31):
                    consumer.commit({n: min(number, end[n]) for n in end})
            finally:
                stop.set()
            polling.result()
            assert broker.committed("g") == {n: min(30, end[n]) for n in end}

    def test_a_poll_is_bounded_by_bytes(self, broker: KafkaBroker) -> None:
        """Fifty thousand messages of 900 kB would be 45 GB."""
        with broker.producer() as producer:
            producer.publish([b"%d" % n for n in range(80)], [b"x" * 900_000] * 80)
            assert producer.flush() == 80
        got, largest = 0, 0
        with broker.consumer("g") as consumer:
            deadline = time.monotonic() + self.patience_s
            while got < 80:
                assert time.monotonic() < deadline
                sizes = [len(m.value or b"") for m in flat(consumer.poll(50_000, 1.0))]
                got += len(sizes)
                largest = max(largest, sum(sizes))
        fetched = int(str(CONSUMER["queued.max.messages.kbytes"])) * 1024
        assert got == 80
        assert largest <= POLL_BYTES + 3 * fetched
        assert 4 * (POLL_BYTES + 3 * fetched) < CHUNK * 900_000


class TestStart(Promises):
    """Where a group begins, and how it is made to begin elsewhere."""

    __test__ = True

    def test_a_start_is_remembered_though_nothing_was_done(self, broker: KafkaBroker) -> None:
        """A group at the latest whose first member dies at once misses nothing after its start."""
        self.publish(broker, numbered(30, b"old"))
        with broker.consumer("g", "latest") as consumer:
            self.settle(broker, consumer)
        self.publish(broker, numbered(30, b"new"))
        with broker.consumer("g", "latest") as consumer:
            assert values(self.take_all(consumer, 30)) == numbered(30, b"new")

    def test_a_partition_added_later_begins_at_its_first_message(
        self, kafka: Kafka, broker: KafkaBroker
    ) -> None:
        """Whatever the group's start was: what is in it came after that."""
        with broker.consumer("g", "latest") as consumer:
            self.settle(broker, consumer)
        admin = AdminClient({"bootstrap.servers": kafka.servers})
        admin.create_partitions([NewPartitions(broker.topic, PARTITIONS + 1)])[
            broker.topic
        ].result()
        producer = Producer({"bootstrap.servers": kafka.servers})
        producer.produce(broker.topic, b"new", partition=PARTITIONS)
        producer.flush()
        with broker.consumer("g", "latest") as consumer:
            assert values(self.take_all(consumer, 1)) == [b"new"]

    def test_a_group_is_reset_anywhere_but_not_under_its_members(self, broker: KafkaBroker) -> None:
        """A member would go on from where it is, and commit that."""
        time_ms = self.publish_old_and_new(broker)
        assert not broker.has_committed("g")
        with broker.consumer("g") as consumer:
            end = ends(self.take_all(consumer, 80))
            consumer.commit(end)
            with pytest.raises(BrokerError, match=r"while it has members \(climatestream at"):
                broker.reset("g", "earliest")
        assert broker.has_committed("g")
        assert broker.committed("g") == end
        assert broker.reset("g", "earliest") == dict.fromkeys(end, 0) == broker.committed("g")
        assert broker.reset("g", "latest") == end == broker.committed("g")
        broker.reset("g", time_ms)
        assert values(self.group(broker, "g", 40)) == numbered(40, b"new")

    def test_a_group_has_caught_up_when_its_offsets_say_so(self, broker: KafkaBroker) -> None:
        """Whoever does the work, and whatever is published meanwhile; an empty topic at once."""
        assert broker.caught_up("g")()
        self.publish(broker, numbered(60))
        caught_up = broker.caught_up("g")
        with broker.consumer("g") as consumer:
            taken = self.take_all(consumer, 60)
            self.publish(broker, numbered(60, b"later"))
            assert not caught_up()
            end = ends(taken)
            first, *_ = end
            consumer.commit({n: at for n, at in end.items() if n != first})
            time.sleep(0.6)
            assert not caught_up()
            consumer.commit({first: end[first]})
            time.sleep(0.6)
            assert caught_up()


class TestTransactions(Promises):
    """Another writes in transactions: their markers take offsets, and are no messages."""

    __test__ = True

    def publish_in_transactions(self, kafka: Kafka, topic: str) -> None:
        producer = Producer(
            {"bootstrap.servers": kafka.servers, "transactional.id": f"{topic}-writer"}
        )
        producer.init_transactions()
        for number, end in enumerate(("commit", "abort", "commit", "abort", "abort")):
            producer.begin_transaction()
            for _ in range(3):
                producer.produce(topic, b"%d %s" % (number, end.encode()), partition=0)
            producer.flush()
            getattr(producer, f"{end}_transaction")()

    def test_reading_ends_though_the_last_offsets_hold_no_message(
        self, kafka: Kafka, broker: KafkaBroker
    ) -> None:
        """And a group has caught up that can never commit the offset after a marker."""
        self.publish_in_transactions(kafka, broker.topic)
        found = flat(broker.read())
        assert [m.value for m in found] == [b"0 commit"] * 3 + [b"2 commit"] * 3
        assert found[-1].offset < 19
        caught_up = broker.caught_up("g")
        assert not caught_up()
        with broker.consumer("g") as consumer:
            consumer.commit(ends(self.take_all(consumer, 6)))
            time.sleep(0.6)
            assert caught_up()


# -------------------------------------------------------------------------------- topics


class TestTopics(Promises):
    """A topic is made once, and never changed."""

    __test__ = True

    def test_a_topic_is_made_as_asked_and_then_left_alone(self, kafka: Kafka) -> None:
        """Other wishes are answered with a sentence each."""
        asked = TopicSettings(partitions=2, replication=1, retention_ms=86_400_000)
        with open_broker(kafka.url(new_topic())) as broker:
            assert broker.ensure_topic(asked) == []
            assert broker.ensure_topic(asked) == broker.ensure_topic(TopicSettings()) == []
            others = TopicSettings(partitions=5, replication=3, retention_ms=-1)
            said = broker.ensure_topic(others)
            assert [sentence.split(" exists with ")[1] for sentence in said] == [
                "partitions=2, not 5: left as it is",
                "replication=1, not 3: left as it is",
                "retention_ms=86400000, not -1: left as it is",
            ]
            assert len(broker.committed("g")) == 2

    @pytest.mark.parametrize("policy", ["compact", "compact,delete"])
    def test_a_compacted_topic_is_refused_with_the_reason(self, kafka: Kafka, policy: str) -> None:
        topic = new_topic()
        admin = AdminClient({"bootstrap.servers": kafka.servers})
        new = NewTopic(topic, 1, 1, config={"cleanup.policy": policy})
        admin.create_topics([new])[topic].result()
        refused = pytest.raises(BrokerError, match="delete all but one reading of each")
        with open_broker(kafka.url(topic)) as broker, refused:
            broker.ensure_topic(TopicSettings())

    def test_what_the_broker_can_not_make_is_said_in_its_words(self, kafka: Kafka) -> None:
        refused = pytest.raises(BrokerError, match=r"could not be created on .*replication")
        with open_broker(kafka.url(new_topic())) as broker, refused:
            broker.ensure_topic(TopicSettings(replication=30))


# ------------------------------------------------------------------------------ security


class TestSecurity(Promises):
    """Who is let in, and how it is said when one is not."""

    __test__ = True

    @pytest.fixture
    def folder(self, kafka: Kafka) -> Path:
        if kafka.folder is None:
            pytest.skip("the named broker has no listeners with security of ours")
        return kafka.folder

    def round_trip(self, kafka: Kafka, broker: KafkaBroker) -> None:
        """Every kind of client is let in."""
        with open_broker(kafka.url(broker.topic)) as plain:
            plain.ensure_topic(TopicSettings(partitions=1))
        with broker:
            self.publish(broker, numbered(5))
            assert values(self.group(broker, "g", 5)) == numbered(5)
            assert values(flat(broker.read())) == numbered(5)

    def scram(self, kafka: Kafka, folder: Path, ca: str = "ca.pem") -> str:
        return kafka.url(
            new_topic(),
            servers=kafka.sasl,
            security_protocol="SASL_SSL",
            sasl_mechanisms="SCRAM-SHA-512",
            sasl_username=USER,
            ssl_ca_location=str(folder / ca),
        )

    def test_scram_over_tls(
        self, kafka: Kafka, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CLIMATESTREAM_KAFKA_PASSWORD", PASSWORD)
        self.round_trip(kafka, open_broker(self.scram(kafka, folder)))

    def test_a_wrong_password_is_one_sentence_without_it(
        self,
        kafka: Kafka,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("CLIMATESTREAM_KAFKA_PASSWORD", "hunter2")
        with pytest.raises(BrokerError, match="does not let us in: .*uthentication") as caught:
            open_broker(self.scram(kafka, folder)).__enter__()
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_a_server_of_an_unknown_authority_is_not_trusted(
        self, kafka: Kafka, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CLIMATESTREAM_KAFKA_PASSWORD", PASSWORD)
        with pytest.raises(BrokerError, match=r"does not let us in: .*certificate"):
            open_broker(self.scram(kafka, folder, "stranger.pem")).__enter__()

    def test_a_certificate_of_the_client(self, kafka: Kafka, folder: Path) -> None:
        """With one it is let in, without one it is not."""
        tls: dict[str, str] = {
            "servers": kafka.ssl,
            "security_protocol": "SSL",
            "ssl_ca_location": str(folder / "ca.pem"),
        }
        with pytest.raises(BrokerUnavailable, match="alert bad certificate.* security options"):
            open_broker(kafka.url(new_topic(), **tls)).__enter__()
        own = {
            "ssl_certificate_location": str(folder / "client.pem"),
            "ssl_key_location": str(folder / "client.key"),
        }
        self.round_trip(kafka, open_broker(kafka.url(new_topic(), **tls | own)))

    def test_tokens_let_in_and_are_renewed_on_an_open_connection(
        self, kafka: Kafka, folder: Path
    ) -> None:
        """The broker ends a connection whose token has expired: a fake signer's, after 3 s."""
        signed = []

        def sign(region: str) -> tuple[str, int]:
            signed.append(region)
            return unsecured_token(lifetime_s=3)

        topic = new_topic()
        url = kafka.url(
            topic,
            servers=kafka.sasl,
            sasl_mechanisms="AWS_MSK_IAM",
            aws__region="eu-central-1",
            ssl_ca_location=str(folder / "ca.pem"),
        )
        with open_broker(kafka.url(topic)) as plain:
            plain.ensure_topic(TopicSettings(partitions=1))
        with KafkaBroker(parse(url), sign) as broker, broker.producer() as producer:
            producer.publish([b"a"], [b"1"])
            assert producer.flush() == 1
            before = len(signed)
            time.sleep(5.0)
            producer.publish([b"a"], [b"2"])
            assert producer.flush() == 2
            assert len(signed) > before
        assert set(signed) == {"eu-central-1"}


def unsecured_token(lifetime_s: int) -> tuple[str, int]:
    """A token that a test broker takes as it is, and when it expires [ms]."""
    import base64
    import json

    now = time.time()
    claims = {"sub": USER, "iat": now, "exp": now + lifetime_s}
    parts = ({"alg": "none"}, claims)
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return (b".".join(texts) + b".").decode(), int((now + lifetime_s) * 1000)
