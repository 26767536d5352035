"""Times and rates as people type them: 15m, 30d, 500/s, 1d/s."""

from __future__ import annotations

import re
from typing import Final

from climatestream.errors import UsageError

SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def duration_s(text: str) -> float:
    """A duration in seconds: `15m`, `30d`, `1.5h`.

    Raises
    ------
    UsageError
        The text is no positive duration.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)\s*", text)
    if match is None or float(match[1]) == 0.0:
        raise UsageError(
            f"{text!r} is no duration: expected a positive number and a unit, such as 15m, 12h, 30d"
        )
    return float(match[1]) * SECONDS[match[2]]


SIZES: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_bytes(text: str) -> int:
    """A size in bytes: `500MB`, `20GB`.

    Raises
    ------
    UsageError
        The text is no size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]B)\s*", text.upper())
    if match is None:
        raise UsageError(f"{text!r} is no size: expected a number and a unit, such as 500MB, 20GB")
    return round(float(match[1]) * SIZES[match[2]])


def rate_per_s(text: str) -> float:
    """Readings a second: `500/s` or `500`.

    Raises
    ------
    UsageError
        The text is no positive rate.
    """
    match = re.fullmatch(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(?:/\s*s)?\s*", text)
    rate = float(match[1].replace(",", "").replace("_", "")) if match else 0.0
    if rate == 0.0:
        raise UsageError(f"{text!r} is no rate: expected readings a second, such as 1000/s")
    return rate


def speed(text: str) -> float:
    """Seconds of the data's time that pass in a second: `1d/s` or `1d`.

    Raises
    ------
    UsageError
        The text is no speed.
    """
    match = re.fullmatch(r"\s*(.+?)\s*(?:/\s*s)?\s*", text)
    try:
        return duration_s(match[1] if match else "")
    except UsageError:
        raise UsageError(
            f"{text!r} is no speed: expected the data's time that passes in a second, such as 1d/s"
        ) from None
