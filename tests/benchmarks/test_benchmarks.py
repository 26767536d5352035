"""The benchmarks still run; what they measure is for `make bench`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from climatestream.stores.open import open_store
from tests.benchmarks import boards, data_store, figures, lambda_function, timing

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


def test_the_boards_queries_are_measured(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with open_store(f"duckdb:{tmp_path / 'bench.duckdb'}") as store:
        boards.fill(store, now, cells=130, times=3)
        found = boards.measure(store.query, now, rounds=1)
    assert {board for board, _ in found} == {"climate", "place", "pipeline", "quality"}
    assert all(ms > 0 for ms in found.values())


def test_memory_is_measured() -> None:
    assert 0.5 < figures.memory(30, 40, 3).ratio < 2


def test_the_lambda_function_is_measured() -> None:
    (rate,) = lambda_function.rates_on_double(1, (10,))
    assert rate.cpu_seconds > 0
    assert rate.line().startswith("| double | 10 | ")


def test_the_data_stores_requests_are_those_of_the_page() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "sources.md").read_text()
    rows = [line.split(" | ") for line in list(data_store.table())[2:]]
    assert len(rows) == 4
    for _, _, requests, _, size, naive in rows:
        assert any(
            f"| {requests}" in line and size in line and naive.strip(" |") in line
            for line in page.splitlines()
        )
