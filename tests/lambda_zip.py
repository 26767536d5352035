"""The function's zips, built for tests, and interpreters to run them with."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKE = ROOT / "scripts/make_lambda.py"
LAMBDA_PYTHON = "3.13"


def build(folder: Path, *targets: str, **environment: str) -> None:
    """Build zips as `make lambda` does; skips where their wheels can't be had."""
    done = subprocess.run(
        [sys.executable, MAKE, "--out", folder, *targets],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )
    if "no wheels for" in done.stderr:
        pytest.skip(f"the registry is not reached: run `make lambda` once ({done.stderr[-200:]})")
    assert done.returncode == 0, done.stderr


def unpack(file: Path, folder: Path) -> Path:
    """The contents of a zip in a folder."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def interpreter(version: str) -> str | None:
    """A Python of a version on this machine: on the path, or installed by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    installed = sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}")))
    for candidate in (f"python{version}", *installed):
        try:
            said = subprocess.run(
                [candidate, "-c", "import sys, ssl; print(*sys.version_info[:2], sep='.')"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            continue
        if said.stdout.strip() == version:
            return candidate
    return None
