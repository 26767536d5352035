"""Arrays of a Zarr store behind HTTP: opened lazily, each chunk that is needed read once.

xarray says what is there (dimensions, attributes, chunks) and reads; obstore brings the chunks,
tries again what fails, and keeps connections open: docs/decisions/zarr.md.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from climatestream.errors import NotServed, SourceError, SourceUnavailable
from climatestream.sources.field import Window, mask

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

EXTRA: Final = "zarr"

CONCURRENT_BYTES: Final = 64 * 1024 * 1024
"""What the chunks that are decoded at one time may take [bytes]."""
CONCURRENT: Final = 16
"""Chunks that are asked for at one time, at most [requests]."""

BLOCKS: Final = 2
"""Blocks of an array that are kept: a window may lie across two."""

GIVE_UP_S: Final = 2.0
"""How long it is waited for requests that are given up [s]; a moment will do."""

TRIES: Final = 3
"""How often a read is tried whose chunk came cut short, after obstore's own tries."""

_DIMENSIONS: Final = {
    "time": ("time", "valid_time"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}


@dataclass(frozen=True)
class Patience:
    """How long a service is waited for.

    Parameters
    ----------
    timeout_s
        For one answer.
    retries
        Further tries of a request that fails, or is answered 429 or 5xx.
    wait_s
        Before the second try; doubled before each other, to a minute at most.
    sleep
        What waits between two tries of a chunk that came cut short.
    """

    timeout_s: float = 120.0
    retries: int = 6
    wait_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep


PATIENCE: Final = Patience()


@dataclass
class Traffic:
    """What was really asked for."""

    requests: int = 0
    size: int = 0
    """Of the answers [bytes], compressed as they come."""
    asking: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that wait for the answer to a request."""

    @contextmanager
    def asked(self) -> Iterator[None]:
        """While the present task waits for the answer to a request."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("asked outside of a task")
        self.requests += 1
        self.asking.add(task)
        try:
            yield
        finally:
            self.asking.discard(task)

    def give_up(self) -> None:
        """Ask for nothing any more, and come back when nothing is awaited.

        Where one request fails, zarr leaves those beside it to themselves; an answer that comes
        while Python ends would be printed with its insides, or end the process with a signal.
        """
        end_s = time.monotonic() + GIVE_UP_S
        for task in list(self.asking):
            with suppress(RuntimeError):  # the loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)
        while self.asking and time.monotonic() < end_s:
            time.sleep(0.001)


@dataclass(frozen=True, eq=False)
class ZarrStore:
    """A store, opened: its metadata is read, no coordinate and no value.

    Parameters
    ----------
    url
        Without a key.
    """

    url: str
    dataset: xr.Dataset
    patience: Patience = PATIENCE

    def coordinate(self, kind: str) -> NDArray[Any]:
        """The values of an axis, raw."""
        name = self.name_of(kind)
        found: NDArray[Any] = _patiently(
            self.dataset.variables[name].to_numpy, self.url, self.patience
        )
        return found

    def name_of(self, kind: str) -> str:
        """What a dimension is called: `time`, `latitude` or `longitude`.

        Raises
        ------
        SourceError
            There is none.
        """
        for name in _DIMENSIONS[kind]:
            if name in self.dataset.sizes:
                return name
        raise SourceError(
            f"{self.url} has no {kind}, only {', '.join(map(str, self.dataset.sizes))}"
        )


def open_store(
    url: str, headers: dict[str, str], traffic: Traffic, patience: Patience = PATIENCE
) -> ZarrStore:
    """Open a store; reads its consolidated metadata, in one request or a few.

    Parameters
    ----------
    headers
        Sent with each request; hold the key.
    traffic
        Counts.

    Raises
    ------
    NotServed
        The extra is not installed, or the key is not taken.
    SourceUnavailable
        The service does not answer.
    SourceError
        There is no Zarr store.
    """
    try:
        import xarray as xr
        import zarr.errors
        from obstore.store import HTTPStore
    except ImportError as error:
        raise NotServed(
            "package",
            f"{error.name}, which reads Zarr, is not installed: "
            f"pip install 'climatestream[{EXTRA}]'",
        ) from error
    from zarr.storage import ObjectStore

    from climatestream.sources.zarr_traffic import CountedStore

    store = HTTPStore.from_url(
        url,
        client_options={
            "allow_http": url.startswith("http://127.0.0.1:"),
            "default_headers": headers,
            "timeout": f"{patience.timeout_s}s",
        },
        retry_config={
            "max_retries": patience.retries,
            "retry_timeout": timedelta(seconds=patience.timeout_s * (patience.retries + 1)),
            "backoff": {
                "init_backoff": timedelta(seconds=patience.wait_s),
                "max_backoff": timedelta(minutes=1),
                "base": 2,
            },
        },
    )

    def opened() -> xr.Dataset:
        with warnings.catch_warnings():
            # Consolidated metadata of Zarr 3 is what makes one request of hundreds.
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            found: xr.Dataset = xr.open_zarr(
                CountedStore(ObjectStore(store, read_only=True), traffic),
                chunks=None,
                consolidated=True,
                decode_cf=False,
                create_default_indexes=False,
            )
            return found

    return ZarrStore(url, _patiently(opened, url, patience), patience)


def _patiently(call: Callable[[], Any], url: str, patience: Patience) -> Any:
    """The answer of a call; what fails says whose fault it is.

    obstore has tried again by itself what is worth it, but for a body that ends too early.
    """
    import obstore.exceptions as problems
    from zarr.errors import GroupNotFoundError

    for attempt in range(TRIES):
        try:
            return call()
        except (problems.UnauthenticatedError, problems.PermissionDeniedError) as error:
            # What obstore says of it may show headers.
            raise NotServed(
                "key", f"{url} does not take the key ({type(error).__name__}): is it still valid?"
            ) from None
        except (problems.NotFoundError, GroupNotFoundError, FileNotFoundError) as error:
            raise SourceError(f"{url} is no Zarr store, or no longer there") from error
        except problems.BaseError as error:
            if attempt == TRIES - 1:
                raise SourceUnavailable(f"{url} does not answer: {_words(error)}") from error
        except (RuntimeError, ValueError, TypeError) as error:
            # what the codecs say of bytes that are none of theirs
            if attempt == TRIES - 1:
                raise SourceError(f"{url} gives a damaged chunk: {_words(error)}") from error
        patience.sleep(patience.wait_s * 2**attempt)
    raise AssertionError("the last try answers or raises")


def _words(error: Exception) -> str:
    """A library's first line, which says all; obstore's others are its insides."""
    return str(error).split("\n", maxsplit=1)[0].strip() or type(error).__name__


# ----------------------------------------------------------------------------------- arrays


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of an array that is asked for, as places along its axes.

    Parameters
    ----------
    times, rows
        Successive ones.
    columns
        In any order: from west to east, around the end of the axis if need be.
    """

    times: slice
    rows: slice
    columns: NDArray[np.intp]

    @property
    def runs(self) -> list[slice]:
        """The columns as successive ones: two runs where they go around."""
        breaks = np.flatnonzero(np.diff(self.columns) != 1) + 1
        return [
            slice(int(run[0]), int(run[-1]) + 1)
            for run in np.split(self.columns, breaks)
            if len(run)
        ]


@dataclass(frozen=True)
class Plan:
    """What reading a part of an array takes: chunks, and their size before compression."""

    requests: int
    size: int

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.requests + other.requests, self.size + other.size)


@dataclass(frozen=True, eq=False)
class Array:
    """A variable of a store.

    Parameters
    ----------
    variable
        Lazy; dimensions in any order.
    """

    store: ZarrStore
    name: str

    @property
    def variable(self) -> xr.Variable:
        return self.store.dataset.variables[self.name]

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of its dimensions are time, latitude and longitude.

        Raises
        ------
        SourceError
            It has others.
        """
        names = [self.store.name_of(kind) for kind in _DIMENSIONS]
        dimensions = self.variable.dims
        if sorted(map(str, dimensions)) != sorted(names):
            raise SourceError(
                f"{self.name} in {self.store.url} lies along {', '.join(map(str, dimensions))}, "
                f"expected {', '.join(names)}"
            )
        time_, row, column = (dimensions.index(name) for name in names)
        return time_, row, column

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Times, rows and columns that are compressed together."""
        said = self.variable.encoding.get("chunks") or self.variable.shape
        time_, row, column = (int(said[place]) for place in self.order)
        return time_, row, column

    @property
    def chunk_bytes(self) -> int:
        """A chunk's size before compression [bytes]."""
        return math.prod(self.chunks) * int(self.variable.dtype.itemsize)

    @property
    def at_once(self) -> int:
        """How many chunks are asked for, and decoded, at one time."""
        return min(CONCURRENT, max(2, CONCURRENT_BYTES // self.chunk_bytes))

    def plan(self, cut: Cut) -> Plan:
        """What reading a part takes; nothing is read."""
        count = chunks_of(cut, self.chunks)
        return Plan(count, count * self.chunk_bytes)

    def read(self, times: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """Raw values, shape (time, latitude, longitude)."""
        order = self.order
        key: list[Any] = [slice(None)] * 3
        for place, part in zip(order, (times, rows, columns), strict=True):
            key[place] = part

        def values() -> Any:
            import zarr

            with zarr.config.set({"async.concurrency": self.at_once}):
                return self.variable[tuple(key)].to_numpy()

        raw: NDArray[Any] = _patiently(values, self.store.url, self.store.patience)
        return raw.transpose(order)

    @property
    def fills(self) -> NDArray[Any]:
        """The raw values that mark a missing one."""
        attributes = {**self.variable.attrs, **self.variable.encoding}
        given = [attributes.get(name) for name in ("_FillValue", "missing_value")]
        found = [value for value in given if isinstance(value, int | float | np.number)]
        return np.array(found).astype(self.variable.dtype)

    @property
    def packing(self) -> tuple[float, float] | None:
        """Scale and offset of packed values."""
        attributes = {**self.variable.attrs, **self.variable.encoding}
        if not {"scale_factor", "add_offset"} & attributes.keys():
            return None
        return float(attributes.get("scale_factor", 1.0)), float(attributes.get("add_offset", 0.0))


def chunks_of(cut: Cut, chunks: tuple[int, int, int]) -> int:
    """How many chunks of an array a part of it lies in."""
    times, rows, columns = chunks
    across = {column for run in cut.runs for column in _touched(run, columns)}
    return len(_touched(cut.times, times)) * len(_touched(cut.rows, rows)) * len(across)


def _touched(span: slice, step: int) -> range:
    """The chunks along an axis that a span lies in."""
    return range(span.start // step, -(-span.stop // step))


class _Block:
    """Values at some successive times, in a temporary file.

    Parameters
    ----------
    begins
        The place of the first time.
    shape
        Times, rows and columns.
    """

    def __init__(
        self, folder: str, begins: int, dtype: np.dtype[Any], shape: tuple[int, int, int]
    ) -> None:
        self.begins = begins
        size = math.prod(shape) * dtype.itemsize
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            self._mapped = mmap.mmap(file.fileno(), size)
        self.values: NDArray[Any] = np.frombuffer(self._mapped, dtype).reshape(shape)

    def let_go(self) -> None:
        """Let the system have the memory: else a span of years stays in it as it is read."""
        if (free := getattr(mmap, "MADV_DONTNEED", None)) is not None:
            self._mapped.madvise(free)


class CutReader:
    """Reads windows of a part of an array, each chunk once if the windows go on in time.

    What it has read waits, narrowed to the part, in a temporary file: a chunk may span years, of
    which a window is some hours.

    Parameters
    ----------
    folder
        For the temporary files; the owner removes it.
    """

    def __init__(self, array: Array, cut: Cut, folder: str) -> None:
        self._array = array
        self._cut = cut
        self._folder = folder
        self._fills, self._packing = array.fills, array.packing
        times, rows, columns = array.chunks
        across = len(_touched(cut.rows, rows)) * sum(len(_touched(r, columns)) for r in cut.runs)
        # Small chunks are read several at a time, so that a service's delay is waited for once.
        self._step = times * max(1, array.at_once // across)
        self._blocks: OrderedDict[int, _Block] = OrderedDict()

    def __call__(self, times: slice, rows: slice, columns: slice) -> Window:
        """The values there, counted from the beginning of the part."""
        first = self._cut.times.start
        start, stop = times.start + first, times.stop + first
        parts = []
        for number in _touched(slice(start, stop), self._step):
            block = self._block(number)
            first_of_part = max(start - block.begins, 0)
            parts.append(block.values[first_of_part : stop - block.begins, rows, columns].copy())
            block.let_go()
        raw = np.concatenate(parts)
        valid = mask(raw, self._fills)
        missing = valid.size - int(np.count_nonzero(valid))
        return Window(raw, valid, self._packing, None, valid.size, missing)

    def _block(self, number: int) -> _Block:
        """The part's values at some successive times."""
        start = max(number * self._step, self._cut.times.start)
        stop = min((number + 1) * self._step, self._cut.times.stop)
        if (held := self._blocks.get(number)) is not None:
            self._blocks.move_to_end(number)
            return held
        while len(self._blocks) >= BLOCKS:
            self._blocks.popitem(last=False)
        rows = self._cut.rows
        shape = (stop - start, rows.stop - rows.start, len(self._cut.columns))
        block = _Block(self._folder, start, self._array.variable.dtype, shape)
        done = 0
        for run in self._cut.runs:
            width = run.stop - run.start
            for part in self._rows_at_once(run):
                place = slice(part.start - rows.start, part.stop - rows.start)
                block.values[:, place, done : done + width] = self._array.read(
                    slice(start, stop), part, run
                )
                block.let_go()
            done += width
        self._blocks[number] = block
        return block

    def _rows_at_once(self, run: slice) -> Iterator[slice]:
        """The rows, in parts whose chunks are asked for together: whole chunks each."""
        _, height, width = self._array.chunks
        span = self._cut.rows
        step = height * max(1, self._array.at_once // len(_touched(run, width)))
        for number in _touched(span, step):
            yield slice(max(number * step, span.start), min((number + 1) * step, span.stop))


def total(plans: Sequence[Plan]) -> Plan:
    """What several parts take."""
    return sum(plans, Plan(0, 0))
