"""What was fetched from services, kept on disk: shared by processes, bounded, never half.

A folder a request, named by its key:

    KEY/asked.json     what was asked for, and what the service calls it
    KEY/part           what has arrived so far
    KEY/NAME           the answer, whole: renamed from `part` when its size is right
    locks/KEY.lock     held for writing while it is fetched or removed, for reading while it is read

Whoever holds the lock may rely on what is there. A crash leaves no lock: the system lets it go.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from filelock import ReadWriteLock, Timeout
from platformdirs import user_cache_path

from climatestream.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

ASKED: Final = "asked.json"
PART: Final = "part"
LOCKS: Final = "locks"
LOCK_POLL_S: Final = 0.5
"""How long a wait for another process lasts before it is seen whether to go on [s]."""


@dataclass(frozen=True)
class Asked:
    """What an entry is of, and how far it is.

    Parameters
    ----------
    service, collection, inputs
        What was asked for, of whom.
    label
        For people.
    asked_at_s
        When it was first asked for [s since 1970].
    last_day_s
        The end of the last day of data that it is for [s since 1970].
    request_id
        The service's name of it; None: not known, or not asked for yet.
    size
        Of the answer [bytes]; None: not known yet.
    name
        The answer's file; None: it has not arrived.
    parts
        Keys of the requests that were made of it, as it was too large for the service.
    """

    service: str
    collection: str
    inputs: Mapping[str, Any]
    label: str
    asked_at_s: float
    last_day_s: float
    request_id: str | None = None
    size: int | None = None
    name: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """An entry as `list` shows it.

    Parameters
    ----------
    bytes
        On disk.
    used_at_s
        When it was last read or written [s since 1970].
    """

    key: str
    asked: Asked
    bytes: int
    used_at_s: float

    @property
    def complete(self) -> bool:
        return self.asked.name is not None


def default_folder() -> Path:
    """Where the system keeps what can be had again."""
    return user_cache_path("climatestream")


class Cache:
    """Answers of services in a folder.

    Parameters
    ----------
    folder
        Made where it is not there.
    size
        How much it holds at most [bytes]. What is being fetched or read stays all the same.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        try:
            (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the cache {folder} can't be made: {error.strerror}; name another folder with "
                "--cache"
            ) from error

    @contextmanager
    def writing(
        self, key: str, stop: threading.Event, taken: Callable[[], object] = lambda: None
    ) -> Iterator[Slot]:
        """An entry for this thread alone; waits while another process has it.

        Parameters
        ----------
        stop
            Ends the wait.
        taken
            Told each time that it is still not free.

        Raises
        ------
        KeyboardInterrupt
            `stop` is set before it is free.
        """
        lock = self._lock(key)
        while True:
            try:
                lock.acquire_write(timeout=LOCK_POLL_S)
                break
            except Timeout:
                taken()
                if stop.is_set():
                    lock.close()
                    raise KeyboardInterrupt from None
        try:
            yield Slot(self.folder / key)
        finally:
            lock.release()
            lock.close()

    @contextmanager
    def reading(self, key: str) -> Iterator[Path | None]:
        """The answer of an entry, which stays while it is read; None: it is not there.

        May be left by another thread than entered it: `auto:` turns to the Data Store in the thread
        that reads, and is closed by the one that started it.
        """
        lock = self._lock(key)
        try:
            lock.acquire_read()
            yield Slot(self.folder / key).answer()
        finally:
            lock.close()

    def asked_at_s(self, key: str) -> float:
        """When an entry that is being read was asked for [s since 1970]."""
        asked = Slot(self.folder / key).asked()
        return 0.0 if asked is None else asked.asked_at_s

    def entries(self) -> list[Entry]:
        """What there is, by time of last use, oldest first."""
        found = []
        for folder in self.folder.iterdir():
            slot = Slot(folder)
            asked = slot.asked()
            if asked is not None:
                found.append(Entry(folder.name, asked, slot.bytes(), slot.used_at_s()))
        return sorted(found, key=lambda entry: entry.used_at_s)

    def remove(self, key: str) -> bool:
        """Remove an entry; False: another process or thread is at it."""
        lock = self._lock(key)
        try:
            lock.acquire_write(blocking=False)
        except (Timeout, RuntimeError):
            lock.close()
            return False
        try:
            shutil.rmtree(self.folder / key, ignore_errors=True)
        finally:
            lock.release()
            lock.close()
        return not (self.folder / key).exists()

    def trim(self, keep: Container[str] = ()) -> list[Entry]:
        """Remove answers, the longest unused first, until what is there fits; what was removed.

        Those that are being read stay, and those with the keys to keep.
        """
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        removed = []
        for entry in entries:
            if total <= self.size:
                break
            if entry.complete and entry.key not in keep and self.remove(entry.key):
                total -= entry.bytes
                removed.append(entry)
        return removed

    def _lock(self, key: str) -> ReadWriteLock:
        try:
            return ReadWriteLock(self.folder / LOCKS / f"{key}.lock", is_singleton=False)
        except PermissionError as error:
            raise UsageError(
                f"the cache {self.folder} is another user's ({error.filename} can't be opened): "
                "name a folder of your own with --cache"
            ) from error


class Slot:
    """The folder of an entry, for whoever holds its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def part(self) -> Path:
        """Where an answer arrives."""
        return self._folder / PART

    def asked(self) -> Asked | None:
        """What is known of it; None: nothing, or nothing that can be read."""
        try:
            said = orjson.loads((self._folder / ASKED).read_bytes())
            return Asked(**{**said, "parts": tuple(said["parts"])})
        except (OSError, orjson.JSONDecodeError, TypeError, KeyError):
            return None

    def note(self, asked: Asked) -> None:
        """Keep what is known of it, at once and whole."""
        try:
            self._folder.mkdir(exist_ok=True)
            new = self._folder / f"{ASKED}.new"
            with new.open("wb") as file:
                file.write(orjson.dumps(asdict(asked), option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._folder / ASKED)
        except OSError as error:
            raise self._full(error) from error

    def answer(self) -> Path | None:
        """The answer's file, marked as used now; None: it is not there, whole."""
        asked = self.asked()
        if asked is None or asked.name is None:
            return None
        path = self._folder / asked.name
        try:
            if path.stat().st_size != asked.size:
                return None
            os.utime(self._folder / ASKED)
        except OSError:
            return None
        return path

    def complete(self, asked: Asked, name: str) -> Path:
        """Make the part that has arrived the answer."""
        path = self._folder / name
        try:
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            self.part.replace(path)
        except OSError as error:
            raise self._full(error) from error
        self.note(replace(asked, name=name))
        return path

    def clear(self) -> None:
        """Forget what is known of it and what has arrived."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def bytes(self) -> int:
        """What it takes on disk."""
        try:
            return sum(_size(path) for path in self._folder.iterdir())
        except OSError:
            return 0

    def used_at_s(self) -> float:
        try:
            return (self._folder / ASKED).stat().st_mtime
        except OSError:
            return 0.0

    def _full(self, error: OSError) -> SourceError:
        return SourceError(
            f"the cache {self._folder.parent} can't be written: {error.strerror}; make room with "
            "'climatestream cache clear', or name another folder with --cache"
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
