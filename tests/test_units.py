"""Times and rates as people type them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from climatestream import units
from climatestream.errors import UsageError


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (units.duration_s, "15m", 900.0),
        (units.duration_s, "1.5 h", 5_400.0),
        (units.duration_s, "30d", 2_592_000.0),
        (units.duration_s, "250ms", 0.25),
        (units.rate_per_s, "500/s", 500.0),
        (units.rate_per_s, "1,000", 1_000.0),
        (units.rate_per_s, "0.5/s", 0.5),
        (units.speed, "1d/s", 86_400.0),
        (units.speed, "6h", 21_600.0),
        (units.size_bytes, "20GB", 2e10),
        (units.size_bytes, "1.5 mb", 1.5e6),
    ],
)
def test_what_people_type_is_understood(
    read: Callable[[str], float], text: str, value: float
) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "read", [units.duration_s, units.rate_per_s, units.speed, units.size_bytes]
)
@pytest.mark.parametrize("text", ["", "0", "0d", "-1s", "soon", "1d/m", "nan", "1e3 apples"])
def test_anything_else_is_answered_with_an_example(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(UsageError, match="such as"):
        read(text)
