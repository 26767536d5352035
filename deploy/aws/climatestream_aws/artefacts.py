"""What is built before a deploy: the function's zip, and what the instances install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from climatestream.dashboards import alerts
from climatestream_aws.config import CHECKOUT
from climatestream_aws.stacks import Artefacts

EPOCH = "1735689600"
"""The time of every file in the wheel, 2025-01-01: the same sources give the same bytes."""


def assemble(checkout: Path = CHECKOUT, *, email: bool = False) -> Artefacts:
    """Put together what is uploaded, under `dist/`; the zip is there already (`make lambda`).

    Parameters
    ----------
    email
        Whether Grafana's alerts go to an address.
    """
    dist = checkout / "dist"
    here = checkout / "deploy/aws/instance"
    producer = _copied(here / "producer", dist / "producer")
    shutil.copy2(checkout / "deploy/requirements.lock", producer / "requirements.lock")
    subprocess.run(  # noqa: S603 - our own build
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(producer)],
        cwd=checkout,
        env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH},
        check=True,
        capture_output=True,
    )
    grafana = _copied(here / "grafana", dist / "grafana")
    for part in ("boards", "provisioning/dashboards", "provisioning/datasources"):
        shutil.copytree(checkout / "deploy/grafana" / part, grafana / "files" / part)
    alerting = grafana / "files/provisioning/alerting"
    alerting.mkdir()
    for name, content in alerts.files(email=email).items():
        (alerting / name).write_bytes(content)
    return Artefacts(
        function=dist / "climatestream-lambda-arm64.zip",
        producer=producer,
        grafana=grafana,
        checkout=checkout,
    )


def _copied(source: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(source, to))
