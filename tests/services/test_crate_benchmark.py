"""The benchmark of the CrateDB store still runs; what it measures is for `make bench`."""

from __future__ import annotations

from unittest.mock import patch

from tests.benchmarks import timing
from tests.benchmarks.crate import measure
from tests.services.crate import Server


def test_writing_is_measured(cratedb: Server) -> None:
    with patch.object(timing.compare, "__defaults__", (1,)):
        figures = measure(cratedb, 200)
    assert all(figure.ratio > 0 for figure in figures)
