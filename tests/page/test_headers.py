"""The page's headers, judged by an outside checker: Mozilla's HTTP Observatory, from npm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from climatestream.web.server import Server
from tests.page.feeding import FedPage, Nothing

CHECKER = "@mdn/mdn-http-observatory"
VERSION = "1.4.8"
NEEDS_TLS = {"redirection", "strict-transport-security"}
"""What only a server with TLS can pass; ours has none and listens on this machine."""


@pytest.fixture(scope="module")
def checker() -> Path:
    """The checker's folder, in `build/`; fetched from npm the first time."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine: apt-get install npm")
    folder = Path("build/observatory").resolve()
    found = folder / "node_modules" / CHECKER
    if not (found / "package.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
        fetched = subprocess.run(
            [*command, "--prefix", folder, f"{CHECKER}@{VERSION}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if fetched.returncode:
            pytest.skip(f"{CHECKER} could not be fetched: {fetched.stderr.strip()[-200:]}")
    # the domains that browsers know to have TLS, which no address of this machine is among
    (found / "conf/hsts-preload.json").write_text("{}")
    return found


def test_mozillas_observatory_finds_nothing_but_that_there_is_no_tls(checker: Path) -> None:
    with Server(Nothing(), port=0, page=FedPage(100, 1.0)) as server:  # type: ignore[arg-type]
        host = server.url.removeprefix("http://")
        scan = ["node", "src/scan.js", host]
        said = subprocess.run(
            scan, check=False, cwd=checker, capture_output=True, text=True, timeout=60
        )
    found: dict[str, Any] = json.loads(said.stdout)
    assert "tests" in found, found
    failed = {name for name, test in found["tests"].items() if not test["pass"]}
    assert failed == NEEDS_TLS
    policy = found["tests"]["content-security-policy"]
    assert policy["result"] == "csp-implemented-with-no-unsafe-default-src-none"
