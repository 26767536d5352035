"""The cache: atomic, shared, bounded."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from climatestream.errors import UsageError
from climatestream.sources.cache import Asked, Cache

NEVER = threading.Event()


def keep(cache: Cache, key: str, size: int, used_s: float) -> None:
    """An answer of this size, last used at this time."""
    with cache.writing(key, NEVER) as slot:
        asked = Asked("cds", "c", {}, key, 0.0, 0.0, "id", size)
        slot.note(asked)
        slot.part.write_bytes(bytes(size))
        slot.complete(asked, "answer.nc")
    os.utime(cache.folder / key / "asked.json", (used_s, used_s))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10_000)


def test_longest_unused_goes_first(cache: Cache) -> None:
    for i, key in enumerate("abc"):
        keep(cache, key, 4_000, 100.0 + i)
    with cache.reading("a") as path:
        assert path is not None
    assert [entry.key for entry in cache.trim()] == ["b"]
    assert [entry.key for entry in cache.entries()] == ["c", "a"]


def test_what_is_read_stays_whatever_the_bound(cache: Cache) -> None:
    keep(cache, "a", 9_000, 100.0)
    keep(cache, "b", 9_000, 200.0)
    with cache.reading("a") as path:
        assert [entry.key for entry in cache.trim()] == ["b"]
        assert path is not None
        assert path.exists()
        assert not cache.remove("a")
    assert cache.remove("a")


def test_requests_that_have_not_arrived_are_not_trimmed(cache: Cache) -> None:
    """They are small, and what the service calls them must not be lost."""
    with cache.writing("a", NEVER) as slot:
        slot.note(Asked("cds", "c", {}, "a", 0.0, 0.0, "id"))
        slot.part.write_bytes(bytes(20_000))
    assert cache.trim() == []


def test_answer_that_is_not_whole_is_none(cache: Cache) -> None:
    keep(cache, "a", 4_000, 100.0)
    (cache.folder / "a" / "answer.nc").write_bytes(bytes(3_999))
    with cache.reading("a") as path:
        assert path is None


def test_damaged_entry_is_none(cache: Cache) -> None:
    keep(cache, "a", 4_000, 100.0)
    (cache.folder / "a" / "asked.json").write_bytes(b"{")
    with cache.reading("a") as path:
        assert path is None
    assert cache.entries() == []


def test_wait_for_another_ends_when_asked_to(cache: Cache) -> None:
    stop = threading.Event()
    with (
        cache.writing("a", NEVER),
        pytest.raises(KeyboardInterrupt),
        cache.writing("a", stop, stop.set),
    ):
        pass


def test_what_one_thread_reads_another_may_close(cache: Cache) -> None:
    """The thread that reads opens what `auto:` turns to, the first one closes it."""
    keep(cache, "a", 4_000, 100.0)
    kept = ExitStack()
    thread = threading.Thread(target=kept.enter_context, args=(cache.reading("a"),))
    thread.start()
    thread.join()
    assert not cache.remove("a"), "it is being read"
    kept.close()
    assert cache.remove("a")


def test_the_cache_of_another_user_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "a.lock")

    monkeypatch.setattr("climatestream.sources.cache.ReadWriteLock", denied)
    says = "is another user's .*a.lock can't be opened.*: name a folder of your own with --cache"
    with pytest.raises(UsageError, match=says), cache.reading("a"):
        pass
    with pytest.raises(UsageError, match=says), cache.writing("a", threading.Event()):
        pass
    with pytest.raises(UsageError, match=says):
        cache.remove("a")


def test_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be made: .*; name another folder with --cache"):
        Cache(tmp_path / "file" / "cache", 1)
