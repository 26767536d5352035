"""Alerts on a real CrateDB: the very text that Grafana sends fires where it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from climatestream.dashboards.alerts import ALERTS
from climatestream.ports import Store
from climatestream.stores.crate import CrateStore
from climatestream.stores.schema import DEAD_LETTERS, PIPELINE, READINGS
from tests import alert_cases as cases
from tests.services.crate import Server
from tests.services.test_crate_store import clean
from tests.test_alerts import FIRES_FOR

SCHEMA = "climatestream_test_alerts"


@pytest.fixture(scope="module", autouse=True)
def schema(cratedb: Server) -> Iterator[None]:
    yield
    CrateStore(cratedb.at(SCHEMA)).drop()


def fired(server: Server, put: Callable[[Store, int], None]) -> dict[str, set[tuple[str, ...]]]:
    """By alert, what it fires for."""
    with clean(server, SCHEMA) as store:
        put(store, _now_ms())
        for table in (READINGS, PIPELINE, DEAD_LETTERS):
            server.sql(f"REFRESH TABLE {SCHEMA}.{table.name}")
        # a store stamps dead letters with its own present, which is later than the rest
        asked_ms = _now_ms()
        return {alert.name: cases.fired(store, alert, asked_ms) for alert in ALERTS}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_each_alert_fires_for_what_is_wrong_and_names_it(cratedb: Server) -> None:
    assert fired(cratedb, cases.fire) == FIRES_FOR


def test_no_alert_fires_where_all_is_well(cratedb: Server) -> None:
    assert fired(cratedb, cases.stay_quiet) == {alert.name: set() for alert in ALERTS}


def test_an_empty_store_lacks_data_and_nothing_else(cratedb: Server) -> None:
    found = fired(cratedb, lambda store, now_ms: None)
    assert found == {alert.name: set() for alert in ALERTS} | {"no-data": {()}}
