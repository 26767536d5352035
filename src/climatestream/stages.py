"""Stages of the pipeline on threads of their own, so many items ahead at most."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Failed(Generic[T]):
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def ahead(items: Iterable[T], depth: int, name: str) -> Generator[T, None, None]:
    """The same items, made on a thread of its own ahead of who takes them.

    Besides the item that was taken last, up to `depth` exist: those that wait to be taken, and
    the one that is being made, which is not begun before there is room for it. What making an
    item raises is raised here, after the items that came before it. Closing the generator ends
    the thread after the item that it is at.
    """
    room = threading.Semaphore(depth)
    made: queue.SimpleQueue[object] = queue.SimpleQueue()
    unwanted = threading.Event()

    def make() -> None:
        remaining = iter(items)
        item: object = None
        while item is not _END:
            item = None  # it is the taker's by now, who is to be the last that holds it
            room.acquire()
            if unwanted.is_set():
                return
            try:
                item = next(remaining, _END)
            except BaseException as error:  # whatever it is, it belongs to who takes the items
                made.put(_Failed(error))
                return
            made.put(item)

    thread = threading.Thread(target=make, name=name, daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            room.release()
            yield item  # type: ignore[misc]  # made is only given items, _END and _Failed
    finally:
        unwanted.set()
        room.release()
        thread.join()
