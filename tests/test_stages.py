"""Stages on threads of their own: order, bound, errors, and an end."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from climatestream.stages import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 2


def stages(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_the_same_items_come_in_the_same_order() -> None:
    """Whatever they are: None and other empty ones too."""
    items = [*range(500), None, "", [], 0, False]
    assert list(ahead(items, DEPTH, "same")) == items
    assert list(ahead([], DEPTH, "none")) == []


def test_an_item_is_made_while_the_one_before_is_in_work() -> None:
    """On another thread, that has the stage's name."""
    second = threading.Event()
    threads = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        yield 1
        second.set()
        yield 2

    with closing(ahead(items(), 1, "overlapping")) as taken:
        assert next(taken) == 1
        assert second.wait(10)
        assert next(taken) == 2
    assert [thread.name for thread in threads] == ["overlapping"]
    assert threads[0] is not threading.current_thread()


def test_no_more_is_made_than_fits() -> None:
    """However slow the taker is: so many besides the one that it has."""
    made = 0
    waiting = threading.Event()

    def items() -> Iterator[int]:
        nonlocal made
        for made in range(1, 1_000):
            if made == taken + DEPTH:
                waiting.set()
            yield made

    taken = 0
    with closing(ahead(items(), DEPTH, "bounded")) as numbers:
        for taken in numbers:
            waiting.clear()
            if taken > 50:
                break
            assert waiting.wait(10)
            assert made == taken + DEPTH


def test_nothing_is_made_before_it_is_asked_for() -> None:
    def items() -> Iterator[int]:
        raise AssertionError("was asked")
        yield 1

    with closing(ahead(items(), DEPTH, "lazy")):
        assert stages("lazy") == []


def test_an_error_is_raised_to_the_taker_after_the_items_before_it() -> None:
    """The very error, with the trace of where it was raised."""
    error = OSError("the file has gone")

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    taken = ahead(items(), DEPTH, "failing")
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(OSError, match="has gone") as caught:
        next(taken)
    assert caught.value is error
    assert any(entry.name == "items" for entry in caught.traceback)
    assert stages("failing") == []


def test_closing_ends_the_thread_though_it_waits_for_room() -> None:
    """After the item that it is at: no other is made."""
    made = []

    def items() -> Iterator[int]:
        for number in range(1_000):
            made.append(number)
            yield number

    with closing(ahead(items(), DEPTH, "closed")) as taken:
        assert next(taken) == 0
        assert len(stages("closed")) == 1
    assert stages("closed") == []
    assert len(made) <= 1 + DEPTH


def test_closing_waits_for_the_item_that_is_being_made() -> None:
    """So that what an item is made from can be closed next."""
    asked, go_on = threading.Event(), threading.Event()
    ended = []

    def items() -> Iterator[int]:
        yield 1
        asked.set()
        assert go_on.wait(10)
        ended.append(True)
        yield 2

    taken = ahead(items(), DEPTH, "slow")
    assert next(taken) == 1
    assert asked.wait(10)
    threading.Timer(0.01, go_on.set).start()
    taken.close()
    assert ended == [True]
    assert stages("slow") == []


def test_an_error_of_the_taker_ends_the_thread() -> None:
    def take() -> None:
        with closing(ahead(range(1_000), DEPTH, "abandoned")) as taken:
            for number in taken:
                if number == 3:
                    raise LookupError("the taker's own")

    with pytest.raises(LookupError, match="own"):
        take()
    assert stages("abandoned") == []


def test_a_stage_may_take_from_another() -> None:
    squares = ahead((n * n for n in ahead(range(1_000), DEPTH, "inner")), DEPTH, "outer")
    assert list(squares) == [n * n for n in range(1_000)]
    assert stages("outer") == stages("inner") == []
