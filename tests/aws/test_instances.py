"""The instances' scripts, run for real in a plain folder; what only Amazon Linux has is noted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ecr_assets as ecr_assets

from climatestream_aws import artefacts, producer
from climatestream_aws.config import CHECKOUT
from climatestream_aws.stacks import Artefacts

NOTED = ("dnf", "systemctl", "aws", "grafana", "chgrp")
"""Commands that write down how they were called, and answer what the test says."""


class Machine:
    """A folder in place of a machine.

    Parameters
    ----------
    root
        Its `/`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._commands = root / "noted"
        self._commands.mkdir(parents=True)
        self._calls = root / "calls"
        self._calls.touch()
        for name in NOTED:
            self.answers(name, "")

    def answers(self, command: str, what: str, *, status: int = 0) -> None:
        """From now on this command prints this."""
        path = self._commands / command
        path.write_text(
            f'#!/bin/sh\necho "{command} $*" >>{self._calls}\ncat <<"END"\n{what}\nEND\n'
            f"exit {status}\n"
        )
        path.chmod(0o755)

    def run(self, script: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a script on it."""
        environment = {
            "PATH": f"{self._commands}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "HOME": str(self.root),
            **settings,
        }
        return subprocess.run(
            ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        """How the commands were called."""
        return self._calls.read_text().splitlines()


@pytest.fixture(scope="module")
def made() -> Artefacts:
    return artefacts.assemble()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    return Machine(tmp_path / "machine")


PRODUCER = {
    "CLIMATESTREAM_CLUSTER": "arn:aws:kafka:eu-central-1:111122223333:cluster/climatestream/1",
    "CLIMATESTREAM_TOPIC": "era5",
    "CLIMATESTREAM_PARTITIONS": "6",
    "CLIMATESTREAM_RETENTION": "7d",
    "CLIMATESTREAM_CDS_SECRET": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:cds",
    "CLIMATESTREAM_PUBLISH": "auto:era5-land/daily-mean --region DEU --follow",
    "AWS_REGION": "eu-central-1",
}


def test_the_producer_is_installed_from_its_wheel_and_lock(
    made: Artefacts, machine: Machine
) -> None:
    """It goes as far as asking AWS for the brokers, at an address where nobody answers."""
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    done = machine.run(
        made.producer / "install.sh", PYTHON=sys.executable, **nobody, **keys, **PRODUCER
    )
    assert done.returncode != 0
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/v1/clusters/' in done.stderr
    python = machine.root / "opt/climatestream/venv/bin/python"
    version = subprocess.run(
        [str(python), "-m", "pip", "show", "climatestream"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Name: climatestream" in version.stdout
    settings = (machine.root / "etc/climatestream/producer.env").read_text()
    assert 'CLIMATESTREAM_PUBLISH="auto:era5-land/daily-mean --region DEU --follow"' in settings
    assert len(settings.splitlines()) == len(PRODUCER)


def test_the_lock_of_the_producer_has_what_it_needs_on_aws(made: Artefacts) -> None:
    lock = (made.producer / "requirements.lock").read_text()
    for package in ("boto3", "confluent-kafka", "aws-msk-iam-sasl-signer-python", "duckdb"):
        assert f"\n{package}==" in lock
    [wheel] = made.producer.glob("*.whl")
    assert wheel.name.startswith("climatestream-")


def test_the_same_sources_give_the_same_wheel(made: Artefacts) -> None:
    def content() -> bytes:
        [wheel] = made.producer.glob("*.whl")
        return wheel.read_bytes()

    before = content()
    artefacts.assemble()
    assert content() == before


def test_the_producer_s_service_is_one_that_systemd_takes(made: Artefacts) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    units = [*made.producer.glob("*.service"), *made.grafana.glob("*.service")]
    for unit in [*units, *made.grafana.glob("*.timer")]:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            check=False,
        )
        complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
        assert not [line for line in complaints if unit.name in line and "Unknown" in line]


GRAFANA = {
    "GRAFANA_VERSION": "12.3.3",
    "READER_SECRET": "arn:reader",
    "ADMIN_SECRET": "arn:admin",
    "CRATEDB_POSTGRES": "db.example.com:5432",
    "CRATEDB_READER": "climatestream_reader",
    "CLIMATESTREAM_ALERT_EMAIL": "",
    "AWS_REGION": "eu-central-1",
}


def test_grafana_is_installed_with_its_files_behind_its_own_certificate(
    made: Artefacts, machine: Machine
) -> None:
    done = machine.run(made.grafana / "install.sh", **GRAFANA)
    assert done.returncode == 0, done.stderr
    etc = machine.root / "etc/grafana"
    assert (etc / "provisioning/datasources").is_dir()
    assert (etc / "provisioning/alerting/rules.json").is_file()
    assert (etc / "boards").is_dir()
    certificate = subprocess.run(
        ["openssl", "x509", "-noout", "-subject", "-in", str(etc / "tls/certificate.pem")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "climatestream Grafana" in certificate.stdout
    assert (etc / "tls/key.pem").stat().st_mode & 0o777 == 0o640
    settings = (etc / "climatestream.env").read_text()
    assert 'GF_AUTH_ANONYMOUS_ENABLED="false"' in settings
    assert 'CRATEDB_SSLMODE="verify-full"' in settings
    assert "dnf install --assumeyes --quiet grafana-12.3.3" in machine.calls()
    assert machine.calls()[-1] == "systemctl enable --now grafana-server"


def secrets(machine: Machine, reader: str) -> subprocess.CompletedProcess[str]:
    machine.answers("aws", f'{{"username": "x", "password": "{reader}"}}')
    (machine.root / "etc/grafana").mkdir(parents=True, exist_ok=True)
    script = CHECKOUT / "deploy/aws/instance/grafana/climatestream-grafana-secrets"
    return machine.run(script, **GRAFANA)


def test_a_new_password_is_taken_and_grafana_started_again_and_an_old_one_changes_nothing(
    machine: Machine,
) -> None:
    first = secrets(machine, "first")
    assert first.returncode == 0, first.stderr
    kept = machine.root / "etc/grafana/secrets.env"
    assert 'CRATEDB_READER_PASSWORD="first"' in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert machine.calls()[-1] == "systemctl restart grafana-server"
    secrets(machine, "first")
    assert machine.calls()[-1].startswith("aws secretsmanager get-secret-value")
    secrets(machine, "second")
    assert 'CRATEDB_READER_PASSWORD="second"' in kept.read_text()
    assert machine.calls()[-1] == "systemctl restart grafana-server"


def test_a_password_is_in_no_output_and_on_no_command_line(machine: Machine) -> None:
    done = secrets(machine, "very-secret")
    assert "very-secret" not in done.stdout + done.stderr + "\n".join(machine.calls())


def test_a_secret_that_can_t_be_read_leaves_the_old_password(machine: Machine) -> None:
    secrets(machine, "first")
    machine.answers("aws", "", status=254)
    script = CHECKOUT / "deploy/aws/instance/grafana/climatestream-grafana-secrets"
    done = machine.run(script, **GRAFANA)
    assert done.returncode != 0
    assert "first" in (machine.root / "etc/grafana/secrets.env").read_text()


def test_the_producer_s_image_gets_all_that_its_dockerfile_copies_and_no_more(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    app = cdk.App(outdir=str(out), analytics_reporting=False)
    stack = cdk.Stack(app, "Image")
    ecr_assets.DockerImageAsset(stack, "Producer", **producer.image(CHECKOUT))
    app.synth()
    [folder] = [path for path in out.iterdir() if path.name.startswith("asset.")]
    got = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    copies = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (CHECKOUT / "deploy/Dockerfile").read_text(), re.MULTILINE
    )
    wanted = {source for line in copies for source in line.split()} | {"deploy/Dockerfile"}
    for source in wanted:
        assert any(path == source or path.startswith(f"{source}/") for path in got), source
    assert not any("__pycache__" in path for path in got)
    for path in got - {".dockerignore"}:
        assert any(path == source or path.startswith(f"{source}/") for source in wanted), path
