"""Stages of the pipeline on threads of their own, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.1
"""How often a stage that waits for room looks whether it is still wanted [s]."""


class _Failed(Generic[T]):
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def ahead(items: Iterable[T], depth: int, name: str) -> Generator[T, None, None]:
    """The same items, made on a thread of its own ahead of who takes them.

    Up to `depth` items wait to be taken, and the thread holds the next one until there is room.
    What it raises is raised here, after the items that came before it. Closing the generator
    ends the thread after the item that it is at.
    """
    room: queue.Queue[object] = queue.Queue(maxsize=depth)
    unwanted = threading.Event()

    def put(item: object) -> bool:
        while not unwanted.is_set():
            try:
                room.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # whatever it is, it belongs to who takes the items
            put(_Failed(error))
        else:
            put(_END)

    thread = threading.Thread(target=make, name=name, daemon=True)
    thread.start()
    try:
        while (item := room.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]  # put() is only given items, _END and _Failed
    finally:
        unwanted.set()
        thread.join()
