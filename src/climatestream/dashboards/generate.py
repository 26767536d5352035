"""The files that Grafana is provisioned with, made from the lists of panels and alerts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from climatestream.dashboards import alerts, grafana
from climatestream.errors import UsageError

FOLDER: Final = Path("deploy/grafana")
ALERTING: Final = "provisioning/alerting"
BOARDS: Final = "boards"


_FORMS: Final = {
    "map-tiles": (
        r"https?://(?=.*\{z\})(?=.*\{x\})(?=.*\{-?y\})\S+",
        "https://host/{z}/{x}/{y}.png",
    ),
    "alert-email": (r"[^@\s]+@[^@\s]+", "someone@example.org"),
    "alert-webhook": (r"https?://\S+", "https://host/path"),
}
"""By setting, what its text must be, and an example: Grafana takes anything without a word."""


def files(given: Mapping[str, str | None] | None = None) -> dict[str, bytes]:
    """All generated files by their path in the folder.

    Parameters
    ----------
    given
        By name, what the settings of alerts and maps are; the rest have their defaults.

    Raises
    ------
    UsageError
        One is not what it must be. It is not repeated: a webhook's address is a secret.
    """
    given = given or {}
    for name, (form, example) in _FORMS.items():
        text = given.get(name)
        if text and not re.fullmatch(form, text):
            raise UsageError(f"--{name} is not of the form {example}")
    rules = alerts.files(
        given, email=bool(given.get("alert-email")), webhook=bool(given.get("alert-webhook"))
    )
    boards = grafana.build(given.get("map-tiles"))
    return {
        **{f"{ALERTING}/{name}": content for name, content in rules.items()},
        **{f"{BOARDS}/{name}": text.encode() for name, text in boards.items()},
    }


def build(folder: Path, made: Mapping[str, bytes]) -> list[str]:
    """Write what differs; the paths written.

    Raises
    ------
    UsageError
        A file can't be written.
    """
    written = different(folder, made)
    for name in written:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made[name])
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
    return written


def different(folder: Path, made: Mapping[str, bytes]) -> list[str]:
    """The paths whose file is missing or is not as made."""
    return [name for name, content in made.items() if _content(folder / name) != content]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
