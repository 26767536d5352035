"""One variable of one file, and values of it: what every kind of file is read into.

A field says all that can be known without reading values, so that a request of many files is
understood, merged and refused before the first value is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from climatestream.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from climatestream.sources.dataset_name import Evidence

FINAL, PRELIMINARY = 1, 5
"""Experiment versions (`expver`) of ERA5 and ERA5-Land; preliminary values (ERA5T, ERA5-Land-T)
may still be replaced: https://confluence.ecmwf.int/display/CKB/ERA5 and its question 'expver'."""

UNSAID = -1
"""In a column of flags: the file does not say whether the values are preliminary."""


def preliminary_of(expver: object) -> int:
    """1 preliminary, 0 final, `UNSAID` for another version; `5`, `'0005'` and `5.0` are one."""
    text = str(expver).strip()
    try:
        version = int(float(text))
    except ValueError:
        return UNSAID
    return {FINAL: 0, PRELIMINARY: 1}.get(version, UNSAID)


@dataclass(frozen=True, eq=False)
class Window:
    """Values of a field at successive times, on its grid or a rectangle of it.

    Parameters
    ----------
    raw
        Shape (time, latitude, longitude), of the file's own type: packed values are packed.
    valid
        Of the same shape: False where the file marks a value as missing.
    packing
        Scale and offset, where the values are packed.
    preliminary
        Of the same shape, where final and preliminary values are mixed within a time.
    in_file, missing
        Counts of values as the file has them, before final and preliminary ones are combined.
    """

    raw: NDArray[Any]
    valid: NDArray[np.bool_]
    packing: tuple[float, float] | None
    preliminary: NDArray[np.bool_] | None = None
    in_file: int = 0
    missing: int = 0

    def values(self, time: int, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """The values at these places of the flattened field; NaN where missing.

        float32 is widened; packed values are unpacked in float64, after masking.
        """
        values: NDArray[np.float64] = self.raw[time].reshape(-1)[index].astype(np.float64)
        if self.packing is not None:
            scale, offset = self.packing
            values *= scale
            values += offset
        values[~self.valid[time].reshape(-1)[index]] = np.nan
        return values

    def take(self, rows: NDArray[np.intp] | slice, columns: NDArray[np.intp] | slice) -> Window:
        """The same on other rows and columns."""

        def taken(array: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(array[:, rows][:, :, columns])

        early = None if self.preliminary is None else taken(self.preliminary)
        return Window(
            taken(self.raw), taken(self.valid), self.packing, early, self.in_file, self.missing
        )


class Reader(Protocol):
    """Reads a window of a field: successive times, successive rows and columns.

    Raises
    ------
    SourceError
        The file is damaged or has gone.
    """

    def __call__(self, times: slice, rows: slice, columns: slice) -> Window:
        """The values there."""


@dataclass(frozen=True, eq=False)
class Field:
    """A variable of a file.

    Parameters
    ----------
    file
        The file as the user named it, for messages; a ZIP's member after its ZIP.
    name, units
        The variable's, in the file; None where it states no unit.
    latitude, longitude
        The axes, float64 degrees, in the file's order.
    time_ns
        Of each time, in the file's order [ns, UTC].
    preliminary
        Of each time 1, 0 or `UNSAID`. Where final and preliminary values are mixed within a
        time, the window says it.
    expver
        The experiment versions that the file names.
    value_bytes
        What a value takes while it is read [bytes].
    chunk_times
        Times that the file compresses together.
    evidence
        What tells the dataset.
    read
        Reads values.
    """

    file: str
    name: str
    units: str | None
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    time_ns: NDArray[np.int64]
    preliminary: NDArray[np.int8]
    expver: tuple[str, ...]
    value_bytes: int
    chunk_times: int
    evidence: Evidence
    read: Reader

    @property
    def where(self) -> str:
        """What to call it in a message."""
        return f"{self.name} in {self.file}"


RANGE = {"latitude": (-90.0, 90.0), "longitude": (-180.0, 360.0)}
"""What the wire format takes [degree]."""


def ten_thousandths(kind: str, axis: NDArray[np.float64]) -> NDArray[np.int64]:
    """An axis rounded as cell ids are, so that equal numbers are the same place."""
    places = np.rint(axis * 10_000.0).astype(np.int64)
    return places if kind == "latitude" else (places + 1_800_000) % 3_600_000 - 1_800_000


def check_axis(kind: str, axis: NDArray[np.float64], label: str) -> None:
    """Refuse an axis that is none: empty, out of range, or with a place twice.

    Raises
    ------
    SourceError
        What is wrong with it.
    """
    low, high = RANGE[kind]
    if not len(axis):
        raise SourceError(f"{label} has an empty {kind}: expected at least one place")
    if axis.min() < low or axis.max() > high:
        raise SourceError(
            f"{label} has {kind} {axis.min():g}..{axis.max():g}, expected degrees within "
            f"{low:g}..{high:g}"
        )
    if len(np.unique(ten_thousandths(kind, axis))) < len(axis):
        raise SourceError(
            f"{label} has {kind} {axis[0]:g}..{axis[-1]:g} with a place twice (0 and 360 degrees "
            "are one): drop one, with 'cdo selindexbox' or 'ncks -d' for one"
        )


def mask(raw: NDArray[Any], fills: NDArray[Any]) -> NDArray[np.bool_]:
    """Which raw values are values: finite, and none of the fill values.

    Parameters
    ----------
    raw
        As in the file, not unpacked.
    fills
        Of the same type as `raw`.
    """
    floating = np.issubdtype(raw.dtype, np.floating)
    valid = np.isfinite(raw) if floating else np.ones(raw.shape, np.bool_)
    for fill in fills:
        if fill == fill:  # noqa: PLR0124 a NaN is masked already
            valid &= raw != fill
    return valid
