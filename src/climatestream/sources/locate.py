"""Which data files a user means: files, folders, glob patterns, and what is in ZIPs.

Files are recognised by their first bytes, never by their names.
"""

from __future__ import annotations

import glob
import os
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from climatestream.errors import SourceError, UsageError
from climatestream.sources import archive, grib, netcdf
from climatestream.sources.netcdf_values import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from climatestream.sources.field import Field

Kind = Literal["netcdf", "grib", "zip"]

FIRST_BYTES: dict[bytes, Kind] = {
    b"CDF\x01": "netcdf",
    b"CDF\x02": "netcdf",
    b"CDF\x05": "netcdf",
    b"\x89HDF\r\n\x1a\n": "netcdf",
    b"GRIB": "grib",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
"""What a file is, whatever its name: the CDS's ZIPs come under names that end in .nc."""

OTHERS = {
    b"": "is empty",
    b"\x1f\x8b": "is compressed with gzip",
    b"BZh": "is compressed with bzip2",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd",
    b"Rar!": "is a RAR archive",
    b"7z\xbc\xaf": "is a 7-Zip archive",
    b"BUFR": "is BUFR, which holds observations and no grid",
    b"<": "is text (HTML or XML, perhaps an error message of the server that sent it)",
    b"{": "is text (JSON, perhaps an error message of the server that sent it)",
}
"""What else people have at hand, by its first bytes."""

SUFFIXES = {".nc", ".nc4", ".netcdf", ".cdf", ".grib", ".grb", ".grib2", ".grb2", ".zip"}
"""A file of such a name in a folder that is not what it says is an error, others are skipped."""

EXPECTED = "expected NetCDF or GRIB files, or ZIPs of them"


def kind_of(head: bytes) -> Kind | None:
    """What a file is, by its first eight bytes; None: nothing that can be read."""
    return next((kind for start, kind in FIRST_BYTES.items() if head.startswith(start)), None)


@dataclass(frozen=True)
class DataFile:
    """A file that holds data: as the user named it, or a member of a ZIP.

    Parameters
    ----------
    path
        Where it is, of a member where it was unpacked.
    label
        What to call it.
    names
        File names that may tell the dataset.
    """

    path: Path
    label: str
    names: tuple[str, ...]
    kind: Kind


class Files:
    """The data files that a user named; ZIPs are unpacked, and removed on leaving.

    Parameters
    ----------
    specs
        Files, folders and glob patterns.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        self._specs = specs
        self._opened = Opened()
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        self._axes: dict[bytes, NDArray[np.float64]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()
            self._unpacked = None

    def find(self) -> Iterator[DataFile]:
        """Every data file, by name within a folder; none twice.

        Raises
        ------
        SourceError
            A name stands for nothing, or a file is not what is expected.
        """
        seen: set[Path] = set()
        for spec in self._specs:
            found = False
            for path, named in _expand(spec):
                kind = _kind(path, named)
                if kind is None:
                    continue
                found = True
                real = path.resolve()
                if real not in seen:
                    seen.add(real)
                    yield from self._data_files(path, kind)
            if not found:
                raise SourceError(f"{spec} holds no data: {EXPECTED} in it")

    def _data_files(self, path: Path, kind: Kind) -> Iterator[DataFile]:
        if kind != "zip":
            yield DataFile(path, str(path), (path.name,), kind)
            return
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="climatestream-")
        into = Path(tempfile.mkdtemp(dir=self._unpacked.name))
        for member, name in archive.unpack(path, str(path), into, kind_of):
            inner: Kind = "grib" if _kind(member, named=True) == "grib" else "netcdf"
            yield DataFile(member, f"{path} → {name}", (path.name, Path(name).name), inner)

    def fields(self, file: DataFile, wanted: Callable[[str], bool]) -> list[Field]:
        """The variables of a file that are asked for.

        Raises
        ------
        SourceError
            The file is damaged, or of a shape that is no reading for each cell and time.
        """
        if file.kind == "grib":
            found = grib.read_fields(file.path, file.label, file.names, wanted)
        else:
            found = netcdf.read_fields(file.path, file.label, file.names, self._opened, wanted)
        return [
            replace(
                field,
                latitude=self._shared(field.latitude),
                longitude=self._shared(field.longitude),
            )
            for field in found
        ]

    def _shared(self, axis: NDArray[np.float64]) -> NDArray[np.float64]:
        """An equal axis that was there before: a thousand files have one grid."""
        return self._axes.setdefault(axis.tobytes(), axis)

    def format_of(self, file: DataFile) -> str:
        """The format, as the README of a file would call it: NETCDF4, GRIB1."""
        if file.kind == "grib":
            return grib.format_of(file.path)
        return netcdf.format_of(file.path, file.label, self._opened)


def _expand(spec: str) -> Iterator[tuple[Path, bool]]:
    """The files that a name stands for, and whether it names that very file."""
    if "://" in spec:
        raise UsageError(f"{spec} is an address, expected a local file: download it first")
    if not spec.strip():
        raise UsageError(f"{spec!r} is no name of a file: {EXPECTED}")
    # Path.expanduser raises where a name only begins with a tilde.
    path = Path(os.path.expanduser(spec))  # noqa: PTH111
    try:
        if path.is_dir():
            yield from ((file, False) for file in _walk(path))
        elif os.path.lexists(path):
            yield path, True
        elif not glob.has_magic(spec):
            raise SourceError(f"there is no file or folder {spec}: {EXPECTED}")
        else:
            # Path.glob takes no absolute pattern.
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
            if not matches:
                raise SourceError(f"no file matches {spec}: {EXPECTED}")
            for match in map(Path, matches):
                yield from ((f, False) for f in (_walk(match) if match.is_dir() else [match]))
    except PermissionError as error:
        raise _denied(str(error.filename or spec)) from error


def _walk(folder: Path) -> Iterator[Path]:
    """Files in a folder and those in it, by name, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _denied(path: str) -> SourceError:
    return SourceError(f"{path} may not be read by this user: give read permission (chmod a+r)")


def opened_kind(path: Path, label: str) -> Kind:
    """What a file is that can be opened as such; nothing of its values is read.

    Raises
    ------
    SourceError
        It is none that can be read, or damaged at its head.
    """
    kind = _kind(path, named=True, label=label) or "netcdf"
    if kind == "zip" and not zipfile.is_zipfile(path):
        raise SourceError(f"{label} is a damaged ZIP: get it again")
    if kind == "netcdf":
        opened = Opened()
        try:
            netcdf.format_of(path, label, opened)
        finally:
            opened.close()
    return kind


def _kind(path: Path, named: bool, label: str = "") -> Kind | None:
    """What a file is; None where it may be skipped."""
    label = label or str(path)
    try:
        if not path.is_file():
            if named:
                raise SourceError(f"{label} is no file: {EXPECTED}")
            return None
        with path.open("rb") as file:
            head = file.read(8)
    except PermissionError as error:
        raise _denied(label) from error
    except OSError as error:
        raise SourceError(f"{label} can't be read: {error.strerror}") from error
    kind = kind_of(head)
    if kind is None and (named or path.suffix.lower() in SUFFIXES):
        what = next(
            (text for start, text in OTHERS.items() if start and head.startswith(start)), ""
        )
        if not head:
            what = OTHERS[b""]
        elif not what:
            what = f"begins with {head!r}"
        raise SourceError(f"{label} {what}: {EXPECTED}")
    return kind
