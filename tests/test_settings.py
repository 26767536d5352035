"""Settings: option, then environment, then .env, then default; all of them documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from dotenv import dotenv_values

from climatestream import settings
from climatestream.brokers import kafka_options
from climatestream.cli import cli
from climatestream.settings import SECRETS, SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_lists_each_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    named = re.findall(r"^#? ?([A-Z]+_\w+)=", text, flags=re.MULTILINE)
    assert named == [setting.environment for setting in (*SETTINGS, *SECRETS)]
    assert all(f"# {setting.meaning}\n" in text for setting in (*SETTINGS, *SECRETS))
    values = dotenv_values(ROOT / ".env.example")
    assert values == {s.environment: s.default for s in SETTINGS if s.default is not None}


def test_the_secrets_are_those_that_the_code_reads() -> None:
    """Whatever reads a password reads one of these."""
    files = set((ROOT / "src/climatestream").rglob("*.py")) - {Path(settings.__file__)}
    named = re.compile(r"CLIMATESTREAM_\w+_PASSWORD\b|\b[A-Z]+_?API_KEY\b")
    read = {name for file in files for name in named.findall(file.read_text())}
    read |= {f"CLIMATESTREAM_KAFKA_{word.upper()}" for word in kafka_options.SECRETS.values()}
    assert read == {secret.environment for secret in SECRETS}


def test_each_setting_is_an_option_of_a_command_that_reads_its_variable() -> None:
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    options = {
        parameter.name.replace("_", "-"): parameter.envvar
        for command in (*cli.commands.values(), *(c for g in groups for c in g.commands.values()))
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name and parameter.envvar
    }
    assert options == {setting.name: setting.environment for setting in SETTINGS}


@pytest.mark.parametrize(
    ("option", "environment", "dotenv", "port"),
    [
        ("1001", "1002", "1003", 1001),
        (None, "1002", "1003", 1002),
        (None, None, "1003", 1003),
        (None, None, None, 8420),
    ],
    ids=["option", "environment", "dotenv", "default"],
)
def test_the_nearest_word_counts(
    tmp_path: Path, option: str | None, environment: str | None, dotenv: str | None, port: int
) -> None:
    """An option beats the environment, that beats .env, that beats the default."""
    if dotenv:
        (tmp_path / ".env").write_text(f"CLIMATESTREAM_PORT={dotenv}\n")
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "climatestream.cli",
            "doctor",
            *(["--port", option] if option else []),
        ],
        cwd=tmp_path,
        env={"PATH": "", **({"CLIMATESTREAM_PORT": environment} if environment else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(rf"\b{port}\b", said.stdout), said
