"""ZIPs give their data files, and nothing of them reaches out of the folder that we made."""

from __future__ import annotations

import shutil
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from climatestream.errors import SourceError
from climatestream.sources import archive
from climatestream.sources.locate import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = b"CDF\x01" + bytes(60)


def _zip(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED, **options) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path / "a.zip"


def _unpack(path: Path, into: Path) -> list[tuple[Path, str]]:
    into.mkdir(exist_ok=True)
    return archive.unpack(path, "a.zip", into, kind_of)


def test_members_are_written_under_names_of_our_own(tmp_path: Path) -> None:
    into = tmp_path / "into"
    path = _zip(tmp_path, {"deep/er/b.nc": DATA + b"b", "a b.nc": DATA, "notes.txt": b"text"})
    found = _unpack(path, into)
    assert [name for _, name in found] == ["a b.nc", "deep/er/b.nc"]
    assert [file.read_bytes() for file, _ in found] == [DATA, DATA + b"b"]
    assert sorted(into.iterdir()) == sorted(file for file, _ in found)


@pytest.mark.parametrize(
    "name",
    ["../a.nc", "x/../../a.nc", "/etc/a.nc", "C:\\a.nc", "..\\a.nc", "\\\\host\\a.nc"],
)
def test_a_member_that_points_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    into = tmp_path / "into"
    with pytest.raises(SourceError, match="points out of the archive"):
        _unpack(_zip(tmp_path, {"good.nc": DATA, name: DATA}), into)
    assert list(into.iterdir()) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.nc")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match="points out of the archive"):
        _unpack(tmp_path / "a.zip", tmp_path / "into")


def _bomb(path: Path) -> Path:
    with (
        zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made,
        made.open("a.nc", "w") as member,
    ):
        member.write(DATA)
        for _ in range(80):
            member.write(bytes(1024 * 1024))
    return path / "a.zip"


def _nested(path: Path) -> Path:
    inner = _zip(path, {"a.nc": DATA}).rename(path / "inner.zip")
    return _zip(path, {"inner.zip": inner.read_bytes()})


def _encrypted(path: Path) -> Path:
    made = _zip(path, {"a.nc": DATA})
    content = bytearray(made.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    made.write_bytes(content)
    return made


def _damaged(path: Path) -> Path:
    made = _zip(path, {"a.nc": DATA * 9})
    content = bytearray(made.read_bytes())
    content[40:44] = b"\xff\x00\xff\x00"
    made.write_bytes(content)
    return made


def _truncated(path: Path) -> Path:
    made = _zip(path, {"a.nc": DATA * 9})
    made.write_bytes(made.read_bytes()[:60])
    return made


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a bomb": (_bomb, r"is refused: its [\d,]+ bytes would unpack to 83,886,144"),
    "a ZIP in a ZIP": (_nested, "holds another ZIP, inner.zip"),
    "a password": (_encrypted, "is encrypted"),
    "a damaged member": (_damaged, "is a damaged ZIP"),
    "cut short": (_truncated, "is a damaged ZIP"),
    "no data": (lambda path: _zip(path, {"b.txt": b"text"}), "holds b.txt: expected NetCDF"),
    "nothing": (lambda path: _zip(path, {}), "holds nothing"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_unsafe_or_useless_archive_is_refused(tmp_path: Path, name: str) -> None:
    make, word = CASES[name]
    with pytest.raises(SourceError, match=word):
        _unpack(make(tmp_path), tmp_path / "into")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MEMBERS", 2)
    with pytest.raises(SourceError, match="holds 3 files, expected at most 2"):
        _unpack(_zip(tmp_path, {f"{i}.nc": DATA for i in range(3)}), tmp_path / "into")


def test_what_the_disk_can_t_take_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SourceError, match=r"unpacks to 64 bytes.*has 10: set TMPDIR"):
        _unpack(_zip(tmp_path, {"a.nc": DATA}), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_disk_that_fills_up_all_the_same_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(SourceError, match=r"can't be unpacked into .*: No space left on device"):
        _unpack(_zip(tmp_path, {"a.nc": DATA}), tmp_path / "into")
