"""GRIB files, edition 1 and 2, message by message, with ecCodes (the optional extra `grib`).

A message is one variable at one time. The file is read once to see what there is; the values
of a message are decoded when they are asked for. Nothing is written beside the file.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from climatestream.errors import SourceError
from climatestream.sources.dataset_name import Evidence
from climatestream.sources.field import Field, Window, check_axis, preliminary_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MISSING = 3.4028234663852886e38
"""What ecCodes is told to put where a bitmap says that there is no value: the largest float32.
Its own default, 9999, is a value that a pressure or a height may have."""

GRIDS = {"regular_ll", "regular_gg"}
"""Grids with one latitude a row and one longitude a column."""

UNNAMED = {"unknown", "~", ""}

_LOCK = threading.Lock()
"""ecCodes makes no promise about threads unless it was built for them."""


def read_fields(
    path: Path, label: str, names: tuple[str, ...], wanted: Callable[[str], bool]
) -> list[Field]:
    """The variables of a file.

    Parameters
    ----------
    path
        A local file.
    label, names
        What to call it in messages, and what may tell the dataset.
    wanted
        Says of a variable's name whether it is asked for; others are left alone.

    Raises
    ------
    SourceError
        ecCodes is not installed, the file is damaged, or of a shape that is no reading for each
        cell and time.
    """
    codes = _eccodes(label)
    found: dict[tuple[str, ...], _Variable] = {}
    try:
        with path.open("rb") as file, _LOCK:
            while (message := codes.codes_grib_new_from_file(file)) is not None:
                try:
                    _note(codes, message, label, wanted, found)
                finally:
                    codes.codes_release(message)
    except codes.CodesInternalError as error:
        what = "cut short" if isinstance(error, codes.PrematureEndOfFileError) else "damaged"
        raise SourceError(f"{label} is {what} ({error}): get it again") from error
    return [variable.field(path, label, names) for variable in found.values()]


def format_of(path: Path) -> str:
    """GRIB1 or GRIB2, by the first message."""
    with path.open("rb") as file:
        return f"GRIB{file.read(8)[7]}"


def _eccodes(label: str) -> Any:
    try:
        import eccodes
    except (ImportError, RuntimeError, OSError):
        raise SourceError(
            f"{label} is GRIB, for which ecCodes is missing: type {sys.executable} -m pip "
            f"install eccodes"
        ) from None
    _silence(eccodes)
    return eccodes


@cache
def _silence(codes: Any) -> IO[str]:
    """Let ecCodes keep its complaints to itself: what matters of them is raised as well.

    It holds on to a duplicate of the file, which lives as long as the object that is returned.
    """
    with Path(os.devnull).open("w") as nowhere:
        codes.codes_context_set_logging(nowhere)
    return nowhere


@dataclass(frozen=True)
class _Place:
    """Where the values of one time are in the file [bytes], and when they are valid."""

    time_ns: int
    offset: int
    length: int
    expver: str


@dataclass
class _Variable:
    """What the messages of one variable on one grid have in common, and where each is."""

    name: str
    units: str | None
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    by_column: bool
    level: tuple[str, int, int]
    evidence: dict[str, str]
    places: list[_Place] = field(default_factory=list)

    def field(self, path: Path, label: str, names: tuple[str, ...]) -> Field:
        places = sorted(self.places, key=lambda place: (place.time_ns, place.offset))
        return Field(
            file=label,
            name=self.name,
            units=self.units,
            latitude=self.latitude,
            longitude=self.longitude,
            time_ns=np.array([place.time_ns for place in places], np.int64),
            preliminary=np.array([preliminary_of(place.expver) for place in places], np.int8),
            expver=tuple(dict.fromkeys(place.expver for place in places)),
            value_bytes=8,
            chunk_times=1,
            evidence=Evidence(names=names, **self.evidence),
            read=_MessageReader(
                path, label, self.by_column, (len(self.latitude), len(self.longitude)), places
            ),
        )


def _note(
    codes: Any,
    message: int,
    label: str,
    wanted: Callable[[str], bool],
    found: dict[tuple[str, ...], _Variable],
) -> None:
    """Note what a message is, without decoding its values."""

    def get(key: str, kind: type = str) -> Any:
        return codes.codes_get(message, key, kind) if codes.codes_is_defined(message, key) else None

    name = next(
        (n for n in (get("cfVarName"), get("shortName")) if n and n not in UNNAMED),
        f"param{get('paramId')}",
    )
    if not wanted(name):
        return
    where = f"{name} in {label}"
    level = (get("typeOfLevel") or "", get("level", int) or 0, get("number", int) or 0)
    key = (name, level[0], get("md5GridSection"))
    variable = found.get(key)
    if variable is None:
        latitude, longitude = _axes(codes, message, get, where, label)
        variable = found[key] = _Variable(
            name=name,
            units=None if get("units") in {None, *UNNAMED} else get("units"),
            latitude=latitude,
            longitude=longitude,
            by_column=bool(get("jPointsAreConsecutive", int)),
            level=level,
            evidence={
                "archive_class": get("class") or "",
                "stream": get("stream") or "",
                "centre": get("centre") or "",
                "step_type": get("stepType") or "",
            },
        )
    for what, here, first in (
        ("levels", level[1], variable.level[1]),
        ("ensemble members", level[2], variable.level[2]),
    ):
        if here != first:
            raise SourceError(
                f"{where} has several {what} ({first}, {here}, ...), expected one value for each "
                "cell and time: choose one, with 'grib_copy -w' for one"
            )
    said = {key: get(key) or "" for key in ("class", "stream")}
    if (said["class"], said["stream"]) != (
        variable.evidence["archive_class"],
        variable.evidence["stream"],
    ):
        raise SourceError(
            f"{where} has messages of several classes or streams: split it, with 'grib_copy "
            f"{label} [class]_[stream].grib' for one"
        )
    variable.places.append(
        _Place(
            time_ns=_time(get("validityDate", int), get("validityTime", int), where),
            offset=int(codes.codes_get_message_offset(message)),
            length=int(codes.codes_get_message_size(message)),
            expver=get("expver") or "",
        )
    )


def _axes(
    codes: Any, message: int, get: Callable[..., Any], where: str, label: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitude and longitude in the order in which the values come."""
    if (grid := get("gridType")) not in GRIDS or get("alternativeRowScanning", int):
        raise SourceError(
            f"{where} is on a {grid} grid, expected regular_ll (rows and columns of latitude and "
            "longitude): ask for such a grid, or convert it with 'cdo remapbil' for one"
        )
    rows, columns = get("Nj", int), get("Ni", int)
    along, across = slice(None, columns), slice(None, None, columns)
    if get("jPointsAreConsecutive", int):
        along, across = slice(None, None, rows), slice(None, rows)
    # Each gives the place of every point, of which the axes are copied: both are large.
    latitude = codes.codes_get_array(message, "latitudes")[across].copy()
    longitude = codes.codes_get_array(message, "longitudes")[along].copy()
    for kind, axis in (("latitude", latitude), ("longitude", longitude)):
        check_axis(kind, axis, label)
    return latitude, longitude


def _time(day: int, clock: int, where: str) -> int:
    """A date 20250328 and a time 1900 as nanoseconds since 1970, UTC."""
    try:
        instant = datetime.strptime(f"{day:08d}{clock:04d}", "%Y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError as error:
        raise SourceError(f"{where} has the time {day} {clock:04d}: {error}") from error
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@dataclass(frozen=True)
class _MessageReader:
    """Reads windows of one variable: a message a time."""

    path: Path
    label: str
    by_column: bool
    shape: tuple[int, int]
    places: list[_Place]

    def __call__(self, times: slice, rows: slice, columns: slice) -> Window:
        raw = [self._values(place)[rows, columns] for place in self.places[times]]
        values = np.stack(raw)
        valid = values != MISSING
        return Window(
            values, valid, None, None, valid.size, valid.size - int(np.count_nonzero(valid))
        )

    def _values(self, place: _Place) -> NDArray[np.float64]:
        codes = _eccodes(self.label)
        try:
            with self.path.open("rb") as file:
                file.seek(place.offset)
                content = file.read(place.length)
            with _LOCK:
                message = codes.codes_new_from_message(content)
                try:
                    codes.codes_set(message, "missingValue", MISSING)
                    values: NDArray[np.float64] = codes.codes_get_values(message)
                finally:
                    codes.codes_release(message)
        except (OSError, codes.CodesInternalError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(
                f"{self.label} can't be read at byte {place.offset:,}: {reason}"
            ) from error
        rows, columns = self.shape
        return values.reshape(columns, rows).T if self.by_column else values.reshape(rows, columns)
