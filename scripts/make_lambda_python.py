"""A Python 3.13 with AWS's runtime client: `make env-lambda` puts it into .venv-lambda.

`climatestream lambda` then runs the zip that AWS gets under the Python that AWS has. The client and
what it needs are those of requirements.lock, with their hashes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements.lock"
FOLDER: Final = ROOT / ".venv-lambda"
VERSION: Final = "3.13"
"""That of the Lambda runtime in deploy/event-source.yaml."""
CLIENT: Final = ("awslambdaric", "simplejson", "snapshot-restore-py")


class NotMade(Exception):
    """There is no such Python, or the client can't be installed: why."""


def candidates(named: str | None) -> Iterator[str]:
    """Where a Python of that version may be: as named, on the path, or pyenv's."""
    if named is not None:
        yield named
        return
    if found := shutil.which(f"python{VERSION}"):
        yield found
    pyenv = Path.home() / ".pyenv" / "versions"
    yield from map(str, sorted(pyenv.glob(f"{VERSION}*/bin/python{VERSION}"), reverse=True))


def python(named: str | None = None) -> str:
    """A Python of that version that runs.

    Raises
    ------
    NotMade
        There is none.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates(named):
        try:
            said = subprocess.run(  # noqa: S603 - the Python that the user names
                [candidate, "-c", code], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if said.stdout.strip() == VERSION:
            return candidate
    raise NotMade(
        f"{named or f'python{VERSION}'} is no Python {VERSION} that runs: install one, or name it "
        f"with --python; without it the zip for this Python is run"
    )


def requirements(lock: str) -> str:
    """The part of a lock that the client needs."""
    found = [
        re.search(rf"^{name}==[^\n]*(?:\n    --hash[^\n]*)+", lock, re.MULTILINE) for name in CLIENT
    ]
    missing = [name for name, match in zip(CLIENT, found, strict=True) if match is None]
    if missing:
        raise NotMade(f"{LOCK.name} has no {' and no '.join(missing)}: run `make lock`")
    return "\n".join(match[0] for match in found if match is not None) + "\n"


def make(folder: Path, named: str | None = None) -> Path:
    """An environment with the client alone; its Python.

    Raises
    ------
    NotMade
        As `python`, or pip fails.
    """
    made = folder / "bin" / "python"
    with tempfile.TemporaryDirectory() as name:
        lock = Path(name, "requirements.txt")
        lock.write_text(requirements(LOCK.read_text()))
        install = ["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        for command in (
            [python(named), "-m", "venv", "--clear", str(folder)],
            [str(made), "-m", "pip", *install, "--require-hashes", "-r", str(lock)],
        ):
            ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
            if ended.returncode:
                raise NotMade(f"{' '.join(command[:4])} failed: {ended.stderr.strip()[-500:]}")
    return made


def main() -> int:
    """Make it; the exit code."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--python", help=f"a Python {VERSION}; default: the one on the path")
    try:
        print(make(FOLDER, options.parse_args().python))
    except NotMade as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
