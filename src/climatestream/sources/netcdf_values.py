"""Values of NetCDF variables, read raw, and the open files that they are read from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from climatestream.errors import SourceError
from climatestream.sources.field import Window, mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import netCDF4
    from numpy.typing import NDArray

OPEN_FILES = 64
"""Files kept open at most: a request may have thousands, a process may open 1,024 by default."""

_LOCK = threading.Lock()
"""Neither the NetCDF library nor HDF5, as it is built for it, may be called by two threads."""


class Opened:
    """The NetCDF files of a source: opened when needed, the latest ones kept open."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, netCDF4.Dataset] = OrderedDict()

    @contextmanager
    def use(self, path: Path, label: str) -> Iterator[netCDF4.Dataset]:
        """The open file, for one thread at a time.

        Raises
        ------
        SourceError
            The file can't be opened, or what is done with it fails in the library.
        """
        with _LOCK:
            try:
                yield self._get(path)
            except (OSError, RuntimeError) as error:
                raise SourceError(_said(error, label)) from error

    def _get(self, path: Path) -> netCDF4.Dataset:
        import netCDF4

        if (found := self._files.get(path)) is not None:
            self._files.move_to_end(path)
            return found
        while len(self._files) >= OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        dataset = netCDF4.Dataset(path.resolve(strict=True), "r")
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        self._files[path] = dataset
        return dataset

    def close(self) -> None:
        """Close them all."""
        with _LOCK:
            while self._files:
                # A damaged file may refuse even to be closed; all that was to be said is said.
                with suppress(RuntimeError):
                    self._files.popitem()[1].close()


def _said(error: Exception, label: str) -> str:
    """What to say of an error: the system's have a positive number, the library's none."""
    reason = (getattr(error, "strerror", None) or str(error)).removeprefix("NetCDF: ")
    if (getattr(error, "errno", None) or 0) > 0:
        return f"{label} can't be read: {reason}"
    return (
        f"{label} is damaged or cut short (in the NetCDF library's words: {reason}): get it again"
    )


@dataclass(frozen=True)
class Layout:
    """What the dimensions of a variable are.

    Parameters
    ----------
    dimensions
        All, in the file's order. Those that are named nowhere below have one place.
    times, time_shape
        Those of the times, which may be two (time and step).
    versions, final_first
        The dimension of final and preliminary values, and its places, final first.
    rows, columns
        Latitude and longitude; None where there is a single one for all values.
    """

    dimensions: tuple[str, ...]
    times: tuple[str, ...]
    time_shape: tuple[int, ...]
    versions: str | None
    final_first: tuple[int, ...]
    rows: str | None
    columns: str | None


@dataclass(frozen=True)
class VariableReader:
    """Reads windows of one variable of a file."""

    opened: Opened
    path: Path
    label: str
    name: str
    layout: Layout

    def __call__(self, times: slice, rows: slice, columns: slice) -> Window:
        """The values there; final and preliminary ones combined."""
        with self.opened.use(self.path, self.label) as dataset:
            variable = dataset.variables[self.name]
            if dataset.data_model.startswith("NETCDF4"):
                # Each window is read once: chunks kept by the library would only take memory.
                variable.set_var_chunk_cache(0, 0, 0.0)
            raw = self._raw(variable, times, rows, columns)
            fills, packing = fills_of(variable), packing_of(variable)
        valid = mask(raw, fills.view(raw.dtype))
        missing = valid.size - int(np.count_nonzero(valid))
        if not self.layout.versions:
            return Window(raw[:, 0], valid[:, 0], packing, None, valid.size, missing)
        final, *others = self.layout.final_first
        kept, known, early = raw[:, final], valid[:, final], np.zeros_like(valid[:, final])
        for place in others:
            fresh = valid[:, place] & ~known
            kept = np.where(fresh, raw[:, place], kept)
            known = known | fresh
            early |= fresh
        return Window(kept, known, packing, early, valid.size, missing)

    def _raw(self, variable: Any, times: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """Raw values, shape (time, version, latitude, longitude)."""
        layout = self.layout
        if len(layout.times) > 1:
            places = [
                np.unravel_index(k, layout.time_shape) for k in range(times.start, times.stop)
            ]
            blocks = [
                self._block(
                    variable,
                    {d: slice(int(i), int(i) + 1) for d, i in zip(layout.times, at, strict=True)},
                    rows,
                    columns,
                )
                for at in places
            ]
            return np.concatenate(blocks)
        return self._block(variable, dict.fromkeys(layout.times, times), rows, columns)

    def _block(
        self, variable: Any, times: Mapping[str, slice], rows: slice, columns: slice
    ) -> NDArray[Any]:
        layout = self.layout
        places = {layout.rows: rows, layout.columns: columns}
        grid = {d: place for d, place in places.items() if d is not None}
        chosen = {**times, **grid}
        if layout.versions:
            chosen[layout.versions] = slice(None)
        kept = [d for d in layout.dimensions if d in chosen]
        raw = np.asarray(variable[tuple(chosen.get(d, 0) for d in layout.dimensions)])
        wanted = [*times, *([layout.versions] if layout.versions else []), *grid]
        raw = raw.transpose([kept.index(d) for d in wanted])
        count = raw.shape[0] if len(times) == 1 else 1
        many = len(layout.final_first) or 1
        height, width = (
            1 if d is None else raw.shape[wanted.index(d)] for d in (layout.rows, layout.columns)
        )
        if getattr(variable, "_Unsigned", "false") in {"true", "True"}:
            raw = raw.view(raw.dtype.str.replace("i", "u"))
        return np.ascontiguousarray(raw).reshape(count, many, height, width)


def fills_of(variable: Any) -> NDArray[Any]:
    """The raw values that mark a missing one, of the variable's type.

    Without an attribute the library's default marks what was never written.
    """
    import netCDF4

    dtype = variable.dtype
    names = {"_FillValue", "missing_value"} & set(variable.ncattrs())
    given = np.array(
        [
            value
            for name in names
            for value in np.atleast_1d(variable.getncattr(name))
            # Text such as 'NaN' is no value of any variable.
            if isinstance(value, np.number)
        ]
    )
    if not names and dtype.itemsize > 1:
        given = np.array([netCDF4.default_fillvals[dtype.str[1:]]])
    if np.issubdtype(dtype, np.floating):
        return given.astype(dtype)
    limits = np.iinfo(dtype)
    return given[(given >= limits.min) & (given <= limits.max)].astype(dtype)


def packing_of(variable: Any) -> tuple[float, float] | None:
    """Scale and offset of packed values; None where they are not packed."""
    scale = getattr(variable, "scale_factor", None)
    offset = getattr(variable, "add_offset", None)
    if scale is None and offset is None:
        return None
    return (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
