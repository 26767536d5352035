"""The benchmarks still run; what they measure is for `make bench`."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from tests.benchmarks import figures, timing

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def _once() -> object:
    with patch.object(timing.compare, "__defaults__", (1,)):
        yield


def test_the_codec_is_measured() -> None:
    for figure in (
        figures.encode(5_000),
        figures.decode(5_000),
        figures.decode(5_000, 100),
        figures.decode_by_message(5_000),
    ):
        assert figure.ratio > 0
        assert figure.line().startswith("| ")


@pytest.mark.parametrize("poison", [0, 100])
def test_the_way_from_file_to_store_is_measured(poison: int) -> None:
    assert figures.file_to_store(20, 20, 3, poison).ratio > 0


def test_memory_is_measured() -> None:
    assert 0.5 < figures.memory(30, 40, 3).ratio < 2
