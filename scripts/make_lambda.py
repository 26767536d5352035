"""The artefact of the Lambda function: `make lambda` writes it to dist/.

    climatestream-lambda-arm64.zip, climatestream-lambda-x86_64.zip    for AWS
    climatestream-lambda-local.zip    for the Python and the machine that build it

Each holds the modules that the handler needs, and the wheels of what they import, as
requirements.lock has them. The same tree and lock give the same bytes on any machine: names are in
order, times are fixed, and nothing is compressed, which each zlib does in a way of its own.

Why it is made so: docs/decisions/lambda-artefact.md.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "src"
LOCK: Final = ROOT / "requirements.lock"

HANDLERS: Final = ("climatestream.aws.handler", "climatestream.aws.rotation")
"""The consumer's, and the one that gives CrateDB's users new passwords."""
PACKAGES: Final = ("orjson",)
"""What the handlers' modules import that Python lacks. AWS's SDK is in Lambda's runtime."""
PYTHON: Final = "3.13"
"""The Lambda runtime `python3.13`: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html"""
GLIBC: Final = 34
"""Minor version of glibc 2 in that runtime, Amazon Linux 2023: wheels may ask for no newer one.
https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html"""
OLDEST_GLIBC: Final = 17

LARGEST_ZIP: Final = 6_000_000
LARGEST_UNPACKED: Final = 20_000_000
"""Bytes at most."""

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""The first that a zip can say."""
_UNIX: Final = 3


class LambdaError(Exception):
    """The artefact can't be made: why, and what to do."""


@dataclass(frozen=True)
class Target:
    """Where an artefact is to run.

    Parameters
    ----------
    machine
        As wheels name it; None: this machine, with this Python.
    """

    name: str
    machine: str | None

    @property
    def file(self) -> str:
        return f"climatestream-lambda-{self.name}.zip"

    def pip_options(self) -> list[str]:
        """What makes pip choose wheels of the target."""
        if self.machine is None:
            return []
        names = [f"manylinux_2_{minor}" for minor in range(GLIBC, OLDEST_GLIBC - 1, -1)]
        platforms = [f"{name}_{self.machine}" for name in [*names, "manylinux2014"]]
        return [
            *("--python-version", PYTHON, "--implementation", "cp"),
            *("--abi", "cp" + PYTHON.replace(".", "")),
            *(option for name in platforms for option in ("--platform", name)),
        ]


TARGETS: Final = {
    target.name: target
    for target in (Target("arm64", "aarch64"), Target("x86_64", "x86_64"), Target("local", None))
}


# ------------------------------------------------------------------------------ our modules


def modules(*first: str) -> dict[str, Path]:
    """The modules of ours that these need, with those that it imports only when it needs them."""
    found: dict[str, Path] = {}
    ahead = [*first]
    while ahead:
        name = ahead.pop()
        path = _file_of(name)
        if name in found or path is None:
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        ahead += [parent] if parent else []
        ahead += _imports(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _file_of(name: str) -> Path | None:
    """The file of a module of ours; None where it is none."""
    path = SOURCES / Path(*name.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it runs, with what may be a name in a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


# ----------------------------------------------------------------------------------- wheels


def locked(lock: str) -> str:
    """The requirements of the artefact, with their hashes, as the lock has them."""
    entries = re.findall(r"^[\w.-]+==(?:[^\n]*\\\n)*[^\n]*", lock, re.MULTILINE)
    by_name = {entry.partition("==")[0]: entry for entry in entries}
    missing = [name for name in PACKAGES if name not in by_name]
    if missing:
        raise LambdaError(f"{LOCK.name} lacks {', '.join(missing)}: make lock")
    return "\n".join(by_name[name] for name in PACKAGES) + "\n"


def wheels(target: Target, folder: Path) -> list[Path]:
    """The wheels of a target, their hashes those of the lock; fetched unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        requirements = Path(name) / "requirements.txt"
        requirements.write_text(locked(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
        options = [
            *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--quiet", "--disable-pip-version-check", "--dest", name),
            *target.pip_options(),
        ]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements)]
        # What a run before has fetched is enough; without it, the registry is asked.
        kept = [*command, "--no-index", "--find-links", str(folder)]
        if _run(kept).returncode:
            asked = _run(command)
            if asked.returncode:
                raise LambdaError(f"no wheels for {target.name}: {asked.stderr.strip()}")
        found = sorted(Path(name).glob("*.whl"))
        return [_kept(wheel, folder) for wheel in found]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - pip


def _kept(wheel: Path, folder: Path) -> Path:
    kept = folder / wheel.name
    if not kept.exists():
        kept.write_bytes(wheel.read_bytes())
    return kept


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel, by name.

    Raises
    ------
    LambdaError
        It needs another package, which would be missing.
    """
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    for name, content in files.items():
        if name.endswith(".dist-info/METADATA"):
            needed = HeaderParser().parsestr(content.decode()).get_all("Requires-Dist") or []
            unmet = [one for one in needed if "extra ==" not in one]
            if unmet:
                raise LambdaError(f"{wheel.name} needs {unmet}: add them to PACKAGES")
    return {name: content for name, content in files.items() if not name.endswith("/")}


# -------------------------------------------------------------------------------- the whole


def archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on these files only."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = _UNIX
            info.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            made.writestr(info, files[name])


def make(target: Target, folder: Path, wheel_folder: Path) -> Path:
    """Write the artefact of a target; where it is.

    Raises
    ------
    LambdaError
        It can't be made, or is too large.
    """
    files = {
        path.relative_to(SOURCES).as_posix(): path.read_bytes()
        for path in modules(*HANDLERS).values()
    }
    for wheel in wheels(target, wheel_folder):
        files |= contents(wheel)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / target.file
    archive(path, files)
    unpacked, zipped = sum(map(len, files.values())), path.stat().st_size
    if zipped > LARGEST_ZIP or unpacked > LARGEST_UNPACKED:
        raise LambdaError(
            f"{path} has {zipped:,} bytes, unpacked {unpacked:,}: expected at most "
            f"{LARGEST_ZIP:,} and {LARGEST_UNPACKED:,}"
        )
    return path


def main() -> int:
    """Make the artefacts that are asked for."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    options.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the zips")
    options.add_argument(
        "--wheels", type=Path, default=ROOT / ".venv/lambda-wheels", help="folder of the wheels"
    )
    arguments = options.parse_args()
    try:
        unknown = set(arguments.target) - TARGETS.keys()
        if unknown:
            raise LambdaError(f"no target {', '.join(unknown)}: expected {', '.join(TARGETS)}")
        for name in arguments.target or TARGETS:
            path = make(TARGETS[name], arguments.out, arguments.wheels)
            print(f"{path} {path.stat().st_size:,} bytes")
    except LambdaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
