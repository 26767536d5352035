"""Tests with real servers: they run where their folder is named, as in `pytest tests/services`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.crate import cratedb  # noqa: F401 - a fixture
from tests.services.kafka_server import kafka, own_kafka  # noqa: F401 - fixtures

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave them out of a plain `pytest`, which needs no service."""
    named = [Path(config.invocation_params.dir, arg.split("::")[0]) for arg in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True
