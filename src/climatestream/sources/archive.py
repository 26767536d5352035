"""ZIP archives: their data files unpacked where nothing else can be touched.

The Climate Data Store sends a ZIP, whatever the file's name, as soon as an answer has more than
one part. Members are written under names of our own making; an archive that would fill the disk
or reach out of its folder is refused before anything is written.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from climatestream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = 10_000
"""Members at most: a request's answer has one for each variable and stream."""

RATIO = 100
"""Unpacked by packed size at most, where it matters (`RATIO_FROM`). NetCDF-4 and GRIB are
compressed already (ratio about 1); half-empty float32 fields pack 20 times; deflate can reach
1,032, which is what bombs are made of."""

RATIO_FROM = 64 * 1024 * 1024
"""Unpacked size up to which no ratio is suspicious [bytes]."""

BYTES = 200 * 1024**3
"""Unpacked size at most [bytes]: ten times the largest answer of the Climate Data Store."""

BLOCK = 1024 * 1024


def unpack(
    path: Path, label: str, into: Path, kind_of: Callable[[bytes], str | None]
) -> list[tuple[Path, str]]:
    """Unpack the data files of an archive.

    Parameters
    ----------
    path, label
        The archive, and what to call it in messages.
    into
        A folder that exists and is ours alone.
    kind_of
        Says of a file's first bytes what it is; None: not data, left out.

    Returns
    -------
    list[tuple[Path, str]]
        Each data file, and its name in the archive, by name.

    Raises
    ------
    SourceError
        No archive, damaged, encrypted, unsafe, or without data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpack(archive, path, label, into, kind_of)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(f"{label} can't be unpacked into {into}: {error.strerror}") from error
        raise SourceError(f"{label} is a damaged ZIP ({error}): get it again") from error


def _unpack(
    archive: zipfile.ZipFile,
    path: Path,
    label: str,
    into: Path,
    kind_of: Callable[[bytes], str | None],
) -> list[tuple[Path, str]]:
    members = sorted(
        (m for m in archive.infolist() if not m.is_dir()), key=lambda member: member.filename
    )
    _check(members, path.stat().st_size, label, shutil.disk_usage(into).free)
    found = []
    for number, member in enumerate(members):
        with archive.open(member) as file:
            head = file.read(8)
            kind = kind_of(head)
            if kind == "zip":
                raise SourceError(
                    f"{label} holds another ZIP, {member.filename}: unpack the outer one first"
                )
            if kind is None:
                continue
            target = into / f"{number:05d}"
            with target.open("xb") as out:
                out.write(head)
                shutil.copyfileobj(file, out, BLOCK)
            found.append((target, member.filename))
    if not found:
        names = ", ".join(member.filename for member in members[:5]) or "nothing"
        raise SourceError(f"{label} is a ZIP that holds {names}: expected NetCDF or GRIB files")
    return found


def _check(members: list[zipfile.ZipInfo], packed: int, label: str, free: int) -> None:
    if len(members) > MEMBERS:
        raise SourceError(f"{label} holds {len(members):,} files, expected at most {MEMBERS:,}")
    for member in members:
        name = member.filename
        outside = (
            PurePosixPath(name).is_absolute()
            or PureWindowsPath(name).anchor
            or ".." in PureWindowsPath(name).parts
        )
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(
                f"{label} is refused: its member {name!r} points out of the archive; unpack it "
                "yourself if you trust it"
            )
        if member.flag_bits & 1:
            raise SourceError(f"{label} is encrypted: unpack it with its password first")
    size = sum(member.file_size for member in members)
    if size > BYTES or (size > RATIO_FROM and size > RATIO * packed):
        raise SourceError(
            f"{label} is refused: its {packed:,} bytes would unpack to {size:,}; unpack it "
            "yourself if you trust it"
        )
    if size > free:
        raise SourceError(
            f"{label} unpacks to {size:,} bytes, and the folder for temporary files has "
            f"{free:,}: set TMPDIR to a larger one"
        )
