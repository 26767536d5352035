"""What every broker promises, as tests to inherit, and consumers that fail on purpose."""

# asserts are what tests are made of

from __future__ import annotations

import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import TYPE_CHECKING, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

import pytest

from climatestream.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from climatestream.model import Headers, Messages
    from climatestream.ports import Broker, Consumer

T = TypeVar("T")
P = ParamSpec("P")

KEYS = [b"key %d" % number for number in range(40)]
"""Enough keys that every partition of a small topic gets some of them."""

NEVER_S = 3_600.0
"""The timeout of a poll that a message is to end [s]."""

CLOCKS_MS = 60_000
"""How far the clock of a broker may be from ours [ms]."""


class Message(NamedTuple):
    """A message as a consumer or reader gets it, alone."""

    partition: int
    offset: int
    published_at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def flat(blocks: Iterable[Messages]) -> list[Message]:
    """The messages of some blocks, one by one."""
    return [
        Message(block.partition, *columns)
        for block in blocks
        for columns in zip(
            block.offset, block.published_at_ms, block.key, block.value, block.headers, strict=True
        )
    ]


def values(messages: Iterable[Message]) -> list[bytes | None]:
    """Their values, in an order that does not depend on how they were delivered."""
    return sorted((message.value for message in messages), key=lambda value: value or b"")


def ends(messages: Iterable[Message]) -> dict[int, int]:
    """By partition, the offset after the last of some messages: what is committed for them."""
    after: dict[int, int] = {}
    for message in messages:
        after[message.partition] = max(after.get(message.partition, 0), message.offset + 1)
    return after


def numbered(count: int, prefix: bytes = b"") -> list[bytes]:
    """So many different values."""
    return [b"%s%06d" % (prefix, number) for number in range(count)]


def in_background(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Make a call on a thread of its own, which does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:  # whatever it is, it belongs to who asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class BrokerTests:
    """The promises of `climatestream.ports.Broker`.

    A broker's tests inherit them and supply the fixture `broker`: open, over a topic of its own
    that is empty, has at least two partitions and holds some thousand small messages.
    """

    patience_s: ClassVar[float] = 10.0
    """Time in which what was published arrives, and a member gets its partitions [s]."""
    quiet_s: ClassVar[float] = 0.01
    """Time without a message after which there is none [s]."""

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        """The broker under test."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `broker`")

    # --------------------------------------------------------------------------- helpers

    def publish(
        self,
        broker: Broker,
        contents: Sequence[bytes],
        *,
        keys: Sequence[bytes] = KEYS,
        headers: Headers = (),
    ) -> None:
        """Publish values, each with the next of the keys, and wait until they are acknowledged."""
        with broker.producer() as producer:
            of_values = [keys[number % len(keys)] for number in range(len(contents))]
            producer.publish(of_values, contents, headers)
            assert producer.flush() == len(contents)

    def settle(self, broker: Broker, *members: Consumer) -> None:
        """Wait until some members have all partitions among them, each one once."""
        partitions = sorted(broker.committed("nobody"))
        deadline = time.monotonic() + self.patience_s
        while True:
            assigned = [n for member in members for n in member.high_water()]
            if sorted(assigned) == partitions and all(m.high_water() for m in members):
                return
            assert time.monotonic() < deadline, f"of {partitions} only {assigned} are assigned"
            for member in members:
                assert member.poll(1, self.quiet_s) == []

    def take(self, members: Sequence[Consumer], count: int) -> list[list[Message]]:
        """Poll some members in turn until they have so many messages in all; those of each."""
        taken: list[list[Message]] = [[] for _ in members]
        deadline = time.monotonic() + self.patience_s
        while sum(map(len, taken)) < count:
            assert time.monotonic() < deadline, f"of {count} only {sum(map(len, taken))} came"
            for member, own in zip(members, taken, strict=True):
                own.extend(flat(member.poll(count, self.quiet_s)))
        assert sum(map(len, taken)) == count
        return taken

    def take_all(self, consumer: Consumer, count: int) -> list[Message]:
        """Poll until so many messages have come, and see that no other follows."""
        (taken,) = self.take([consumer], count)
        assert consumer.poll(count, self.quiet_s) == []
        return taken

    def group(self, broker: Broker, group: str, count: int) -> list[Message]:
        """What a new member of a group gets, which commits nothing."""
        with broker.consumer(group) as consumer:
            return self.take_all(consumer, count)

    # -------------------------------------------------------------------------- messages

    def test_offsets_of_a_partition_are_consecutive_from_zero(self, broker: Broker) -> None:
        """Each partition counts for itself, over any number of publishes and producers."""
        for _ in range(3):
            self.publish(broker, numbered(50))
        offsets = defaultdict(list)
        for message in flat(broker.read()):
            offsets[message.partition].append(message.offset)
        assert sorted(offsets) == sorted(broker.committed("nobody"))
        for found in offsets.values():
            assert found == list(range(len(found)))
        assert sum(map(len, offsets.values())) == 150

    def test_a_message_comes_back_byte_for_byte(self, broker: Broker) -> None:
        """Key, value and headers are bytes: empty, no UTF-8, and large ones too."""
        contents = [b"", b"\xff\xfe\x00", b'{"a": 1}\n', b"x" * 200_000, b"\x00"]
        keys = [b"54.9030,8.6883", b"", b"\xff\x00", b"k" * 500, b"\n"]
        headers = (("units", b'{"x":"K"}'), ("none", b""), ("twice", b"1"), ("twice", b"\xff"))
        self.publish(broker, contents, keys=keys, headers=headers)
        expected = sorted(zip(keys, contents, strict=True))
        for found in (flat(broker.read()), self.group(broker, "g", len(contents))):
            assert sorted((m.key or b"", m.value or b"") for m in found) == expected
            assert {m.headers for m in found} == {headers}

    def test_headers_belong_to_the_messages_of_their_call(self, broker: Broker) -> None:
        """Messages published before and after have their own, or none."""
        self.publish(broker, [b"with"], headers=(("a", b"1"),))
        self.publish(broker, [b"without"])
        assert {m.value: m.headers for m in self.group(broker, "g", 2)} == {
            b"with": (("a", b"1"),),
            b"without": (),
        }

    def test_a_key_stays_in_its_partition_and_in_order(self, broker: Broker) -> None:
        """Whichever producer publishes it, and however its messages are cut into calls."""
        contents = numbered(300)
        for start in range(0, 300, 100):
            self.publish(broker, contents[start : start + 100])
        by_key = defaultdict(list)
        for message in self.group(broker, "g", 300):
            by_key[message.key].append(message)
        assert by_key.keys() == set(KEYS)
        for found in by_key.values():
            assert len({message.partition for message in found}) == 1
            assert [m.value for m in found] == sorted(m.value or b"" for m in found)

    def test_published_at_is_the_time_of_publishing(self, broker: Broker) -> None:
        """It never decreases within a partition, and consumer and reader see the same."""
        began_ms = time.time_ns() // 1_000_000
        for _ in range(3):
            self.publish(broker, numbered(40))
        ended_ms = time.time_ns() // 1_000_000
        times = defaultdict(list)
        for message in flat(broker.read()):
            times[message.partition].append(message.published_at_ms)
        for found in times.values():
            assert found == sorted(found)
            assert began_ms - CLOCKS_MS <= found[0] <= found[-1] <= ended_ms + CLOCKS_MS
        assert sorted(self.group(broker, "g", 120)) == sorted(flat(broker.read()))

    def test_flush_counts_what_was_acknowledged_since_open(self, broker: Broker) -> None:
        """The count goes on over calls, and a new producer begins at zero."""
        with broker.producer() as producer:
            assert producer.flush() == 0
            producer.publish([b"a", b"b"], [b"1", b"2"])
            producer.publish([], [])
            assert producer.flush() == 2
            producer.publish([b"a"], [b"3"])
            assert producer.flush() == 3
        with broker.producer() as producer:
            assert producer.flush() == 0
        assert values(flat(broker.read())) == [b"1", b"2", b"3"]

    # -------------------------------------------------------------------------- a member

    def test_a_member_gets_every_message_once(self, broker: Broker) -> None:
        """Without a commit too: what a poll gave, the next one does not give again."""
        self.publish(broker, numbered(100))
        with broker.consumer("g") as consumer:
            taken = self.take_all(consumer, 100)
            assert values(taken) == numbered(100)
            self.publish(broker, [b"news"])
            assert values(self.take_all(consumer, 1)) == [b"news"]

    def test_a_poll_gives_one_block_a_partition_in_offset_order(self, broker: Broker) -> None:
        """The offsets of a block ascend, and the next block goes on where it ended."""
        for _ in range(4):
            self.publish(broker, numbered(50))
        after: dict[int, int] = defaultdict(int)
        with broker.consumer("g") as consumer:
            deadline = time.monotonic() + self.patience_s
            while sum(after.values()) < 200:
                assert time.monotonic() < deadline
                blocks = consumer.poll(30, self.quiet_s)
                assert len({block.partition for block in blocks}) == len(blocks)
                for block in blocks:
                    assert (block.topic, len(block) > 0) == (broker.topic, True)
                    first = after[block.partition]
                    after[block.partition] = first + len(block)
                    assert list(block.offset) == list(range(first, first + len(block)))

    def test_a_poll_gives_at_most_as_many_messages_as_asked_for(self, broker: Broker) -> None:
        """In all partitions together; what is left comes with the next polls."""
        self.publish(broker, numbered(100))
        taken: list[Message] = []
        with broker.consumer("g") as consumer:
            deadline = time.monotonic() + self.patience_s
            while len(taken) < 100:
                assert time.monotonic() < deadline
                polled = flat(consumer.poll(7, self.quiet_s))
                assert len(polled) <= 7
                taken += polled
        assert values(taken) == numbered(100)

    def test_a_poll_with_nothing_to_give_waits_and_is_empty(self, broker: Broker) -> None:
        """It does not come back before its timeout: who polls in a loop does not spin."""
        with broker.consumer("g") as consumer:
            self.settle(broker, consumer)
            began = time.monotonic()
            assert consumer.poll(10, 0.03) == []
            assert time.monotonic() - began >= 0.02

    def test_a_waiting_poll_gets_what_is_published(self, broker: Broker) -> None:
        """A message ends the wait: it is not held back until the timeout."""
        with broker.consumer("g") as consumer:
            self.settle(broker, consumer)
            poll = in_background(consumer.poll, 10, NEVER_S)
            self.publish(broker, [b"news"])
            assert values(flat(poll.result(self.patience_s))) == [b"news"]

    def test_no_partition_starves(self, broker: Broker) -> None:
        """A message comes, though another partition always has more than a poll takes."""
        self.publish(broker, numbered(len(KEYS)))
        keys: dict[int, bytes] = {}
        for message in flat(broker.read()):
            keys.setdefault(message.partition, message.key or b"")
        with broker.consumer("g") as consumer:
            self.take_all(consumer, len(KEYS))
            for busy in keys.values():
                others = [key for key in keys.values() if key != busy]
                waiting = set(others)
                self.publish(broker, numbered(20), keys=[busy])
                self.publish(broker, others, keys=others)
                for _ in range(200):
                    waiting -= {m.key or b"" for m in flat(consumer.poll(10, self.quiet_s))}
                    if not waiting:
                        break
                    self.publish(broker, numbered(10), keys=[busy])
                assert not waiting

    # --------------------------------------------------------------------- groups, offsets

    def test_what_was_not_committed_is_delivered_again(self, broker: Broker) -> None:
        """A member that ends without a commit has done nothing for its group."""
        self.publish(broker, numbered(60))
        assert values(self.group(broker, "g", 60)) == numbered(60)
        assert values(self.group(broker, "g", 60)) == numbered(60)
        assert set(broker.committed("g").values()) == {0}

    def test_a_group_goes_on_from_what_was_committed(self, broker: Broker) -> None:
        """In each partition for itself; whatever the new member's `start` is."""
        self.publish(broker, numbered(80))
        with broker.consumer("g") as consumer:
            taken = self.take_all(consumer, 80)
            done = {partition: end // 2 for partition, end in ends(taken).items()}
            consumer.commit(done)
        assert broker.committed("g") == done
        left = [message for message in taken if message.offset >= done[message.partition]]
        assert sorted(self.group(broker, "g", len(left))) == sorted(left)
        with broker.consumer("g", "latest") as consumer:
            assert sorted(self.take_all(consumer, len(left))) == sorted(left)

    def test_a_commit_moves_only_the_partitions_that_it_names(self, broker: Broker) -> None:
        """And moves on with the next one."""
        self.publish(broker, numbered(80))
        with broker.consumer("g") as consumer:
            end = ends(self.take_all(consumer, 80))
            first, second, *_ = sorted(end)
            consumer.commit({first: 1})
            consumer.commit({second: end[second]})
            assert broker.committed("g") == dict.fromkeys(end, 0) | {first: 1, second: end[second]}
            consumer.commit({first: 2})
            assert broker.committed("g")[first] == 2

    def test_groups_are_independent(self, broker: Broker) -> None:
        """Each gets every message, and the offsets of one are not those of another."""
        self.publish(broker, numbered(40))
        with broker.consumer("one") as one, broker.consumer("two") as two:
            taken = self.take_all(one, 40)
            one.commit(ends(taken))
            assert sorted(self.take_all(two, 40)) == sorted(taken)
        assert broker.committed("one") == ends(taken)
        assert set(broker.committed("two").values()) == {0}

    def test_committed_has_every_partition(self, broker: Broker) -> None:
        """Zero where nothing is committed, for a group that no one has heard of too."""
        committed = broker.committed("nobody")
        assert sorted(committed) == list(range(len(committed)))
        assert len(committed) >= 2
        assert set(committed.values()) == {0}

    def test_two_members_share_the_partitions(self, broker: Broker) -> None:
        """Both get some, no message comes twice, and none is left out."""
        with broker.consumer("g") as first, broker.consumer("g") as second:
            self.settle(broker, first, second)
            self.publish(broker, numbered(200))
            of_first, of_second = self.take([first, second], 200)
            assert values(of_first + of_second) == numbered(200)
            assert not {m.partition for m in of_first} & {m.partition for m in of_second}
            assert of_first
            assert of_second

    def test_a_member_takes_over_from_one_that_leaves(self, broker: Broker) -> None:
        """All that the other had not committed, and whatever comes later."""
        with broker.consumer("g") as first:
            with broker.consumer("g") as second:
                self.settle(broker, first, second)
                self.publish(broker, numbered(200))
                of_first, of_second = self.take([first, second], 200)
                first.commit(ends(of_first))
            assert sorted(self.take_all(first, len(of_second))) == sorted(of_second)
            self.publish(broker, numbered(200, b"later"))
            assert values(self.take_all(first, 200)) == numbered(200, b"later")

    def test_seek_delivers_again_or_on(self, broker: Broker) -> None:
        """From the offset on, in the partitions that it names; nothing is committed by it."""
        self.publish(broker, numbered(80))
        with broker.consumer("g") as consumer:
            taken = self.take_all(consumer, 80)
            partition, end = max(ends(taken).items(), key=lambda item: item[1])
            consumer.seek({partition: 2})
            again = self.take_all(consumer, end - 2)
            assert {message.partition for message in again} == {partition}
            assert [message.offset for message in again] == list(range(2, end))
            consumer.seek(dict.fromkeys(ends(taken), 0) | {partition: end})
            on = self.take_all(consumer, 80 - end)
            assert sorted(on) == sorted(m for m in taken if m.partition != partition)
        assert set(broker.committed("g").values()) == {0}

    def test_a_paused_partition_holds_up_no_other_and_loses_nothing(self, broker: Broker) -> None:
        """Once it is paused it delivers nothing; afterwards it goes on where it was."""
        with broker.consumer("g") as consumer:
            self.settle(broker, consumer)
            paused = min(broker.committed("g"))
            consumer.pause({paused})
            self.publish(broker, numbered(80))
            everything = flat(broker.read())
            others = [message for message in everything if message.partition != paused]
            assert sorted(self.take_all(consumer, len(others))) == sorted(others)
            assert consumer.poll(1, self.quiet_s) == []
            consumer.pause(())
            rest = self.take_all(consumer, len(everything) - len(others))
            assert rest == [message for message in everything if message.partition == paused]

    def test_a_partition_given_up_while_it_was_paused_delivers_when_it_comes_back(
        self, broker: Broker
    ) -> None:
        """What was paused of it goes with it."""
        with broker.consumer("g") as first:
            self.settle(broker, first)
            first.pause(set(broker.committed("g")))
            with broker.consumer("g") as second:
                self.settle(broker, first, second)
                first.pause(())
            self.settle(broker, first)
            self.publish(broker, numbered(80))
            assert values(self.take_all(first, 80)) == numbered(80)

    def test_high_water_is_the_offset_after_the_newest_message(self, broker: Broker) -> None:
        """By assigned partition; zero where there is none."""
        with broker.consumer("g") as consumer:
            self.settle(broker, consumer)
            assert consumer.high_water() == dict.fromkeys(broker.committed("g"), 0)
            self.publish(broker, numbered(80))
            end = ends(self.take_all(consumer, 80))
            assert consumer.high_water() == end
            self.publish(broker, [b"one more"], keys=KEYS[:1])
            assert sum(consumer.high_water().values()) == 81

    # ----------------------------------------------------------------------------- start

    def test_a_group_may_begin_at_the_latest(self, broker: Broker) -> None:
        """It gets what is published once it has its partitions, and nothing older."""
        self.publish(broker, numbered(40))
        with broker.consumer("g", "latest") as consumer:
            self.settle(broker, consumer)
            self.publish(broker, numbered(40, b"new"))
            assert values(self.take_all(consumer, 40)) == numbered(40, b"new")

    def test_a_group_may_begin_at_a_time(self, broker: Broker) -> None:
        """At the first message that was published at it or after it."""
        time_ms = self.publish_old_and_new(broker)
        with broker.consumer("g", time_ms) as consumer:
            assert values(self.take_all(consumer, 40)) == numbered(40, b"new")
        with broker.consumer("later", time_ms + 1_000_000) as consumer:
            self.settle(broker, consumer)
            assert consumer.poll(1, self.quiet_s) == []

    def publish_old_and_new(self, broker: Broker) -> int:
        """Publish 40 messages at one time and 40 at a later one; the later time [ms]."""
        self.publish(broker, numbered(40, b"old"))
        old_ms = max(message.published_at_ms for message in flat(broker.read()))
        while True:
            time.sleep(0.002)
            if time.time_ns() // 1_000_000 > old_ms:
                break
        self.publish(broker, numbered(40, b"new"))
        found = flat(broker.read())
        return min(m.published_at_ms for m in found if (m.value or b"").startswith(b"new"))

    # ------------------------------------------------------------------------------ read

    def test_read_gives_every_message_partition_after_partition(self, broker: Broker) -> None:
        """In offset order, and again when it is asked again; an empty topic has none."""
        assert flat(broker.read()) == []
        self.publish(broker, numbered(100))
        blocks = list(broker.read())
        partitions = [block.partition for block in blocks]
        assert partitions == sorted(partitions)
        assert {block.topic for block in blocks} == {broker.topic}
        assert values(flat(blocks)) == numbered(100)
        assert [m[:2] for m in flat(blocks)] == sorted(m[:2] for m in flat(blocks))
        assert flat(broker.read()) == flat(blocks)

    def test_read_ends_with_what_was_there_at_the_call(self, broker: Broker) -> None:
        """What comes while it reads is left out: a reader ends though producers go on."""
        self.publish(broker, numbered(40))
        before_the_first = broker.read()
        under_way = broker.read()
        taken = [next(under_way)]
        self.publish(broker, numbered(40, b"later"))
        assert values(flat(before_the_first)) == numbered(40)
        assert values(flat([*taken, *under_way])) == numbered(40)

    def test_read_may_begin_later(self, broker: Broker) -> None:
        """At a time, or at the end, where there is nothing."""
        time_ms = self.publish_old_and_new(broker)
        assert values(flat(broker.read(time_ms))) == numbered(40, b"new")
        assert flat(broker.read(time_ms + 1_000_000)) == []
        assert flat(broker.read("latest")) == []

    def test_read_and_groups_do_not_see_each_other(self, broker: Broker) -> None:
        """Reading takes nothing from a group, and what a group has taken is read all the same."""
        self.publish(broker, numbered(40))
        with broker.consumer("g") as consumer:
            self.take_all(consumer, 40)
            assert values(flat(broker.read())) == numbered(40)
            assert consumer.poll(1, self.quiet_s) == []
        assert set(broker.committed("g").values()) == {0}
        assert values(self.group(broker, "g", 40)) == numbered(40)


class UnavailableConsumer:
    """A consumer whose broker does not answer at first: then it is the one that it wraps.

    Parameters
    ----------
    consumer
        The consumer that it is when the broker is back.
    polls, commits
        How many of its first polls and commits raise BrokerUnavailable, and do nothing.
    """

    def __init__(self, consumer: Consumer, *, polls: int = 0, commits: int = 0) -> None:
        self._consumer = consumer
        self._polls = polls
        self._commits = commits

    def __enter__(self) -> Self:
        self._consumer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.__exit__(None, None, None)

    def poll(self, max_messages: int, timeout_s: float) -> list[Messages]:
        """Messages, once the broker answers."""
        if self._polls:
            self._polls -= 1
            raise BrokerUnavailable("the broker does not answer a poll: this test says so")
        return self._consumer.poll(max_messages, timeout_s)

    def commit(self, positions: Mapping[int, int]) -> None:
        """Move the group's offsets, once the broker answers."""
        if self._commits:
            self._commits -= 1
            raise BrokerUnavailable("the broker does not answer a commit: this test says so")
        self._consumer.commit(positions)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Move the positions."""
        self._consumer.seek(positions)

    def pause(self, partitions: Collection[int]) -> None:
        """Leave partitions out."""
        self._consumer.pause(partitions)

    def high_water(self) -> dict[int, int]:
        """What the broker said last."""
        return self._consumer.high_water()
