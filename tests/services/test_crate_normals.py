"""Normals of a real CrateDB are those of DuckDB, and the boards draw them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from climatestream import normals
from climatestream.cli import invoke
from climatestream.dashboards import grafana, runs
from climatestream.normals import Made, Period, Rule
from climatestream.ports import Description, Store
from climatestream.stores import crate as crate_store
from climatestream.stores.crate import CrateStore
from climatestream.stores.open import open_store
from climatestream.testing.rows import Reading, rows
from tests.services.crate import Server
from tests.services.test_crate_store import RefreshedStore, clean

SCHEMA = "climatestream_test_normals"
RULE = Rule(Period(2019, 2020), fewer=True)
ASK = ("--allow-fewer", "--json", "--years")
CELLS = (48.1, 48.2, 48.3)
EVENING = datetime(2020, 12, 31, 23, tzinfo=UTC)

Table = dict[tuple[Any, ...], tuple[float, ...]]


def fill(store: Store) -> None:
    """Two years of days at three places, with a variable that one of them lacks."""
    random = np.random.default_rng(8)
    first = date(2019, 1, 1)
    readings: list[Reading] = []
    for latitude in CELLS:
        for number in range(731):
            at = datetime.combine(first, datetime.min.time(), UTC) + timedelta(number)
            data = {"temperature": float(random.normal(10.0, 8.0))}
            if latitude != CELLS[1]:
                data["u10"] = float(random.normal())
            time_ms = round(at.timestamp() * 1000)
            readings.append(Reading(data, latitude, time_ms=time_ms, offset=len(readings)))
    assert store.write(rows(*readings)) == []
    store.describe([Description("era5-land/daily-mean", "temperature", "degC", "Temperature")])


def table(store: Store) -> Table:
    found = store.query(
        "SELECT dataset, cell, variable, day_of_year, period, years, mean, deviation, p10, p50, "
        "p90 FROM demo.climate_normals"
    )
    return {row[:5]: row[5:] for row in found.rows}


@pytest.fixture(scope="module")
def crate(cratedb: Server) -> Iterator[RefreshedStore]:
    store = clean(cratedb, SCHEMA)
    with store:
        fill(store)
        yield RefreshedStore(store)
    store.drop()


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """DuckDB's."""
    path = tmp_path_factory.mktemp("normals") / "a.duckdb"
    with open_store(f"duckdb:{path}") as duckdb:
        fill(duckdb)
        normals.make(duckdb, duckdb, "era5-land/daily-mean", None, RULE, Made())
        return table(duckdb)


def assert_same(found: Table, wanted: Table) -> None:
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, rel=1e-6, abs=1e-6), key


@pytest.fixture
def address(crate: RefreshedStore, cratedb: Server) -> str:
    cratedb.sql(f"DELETE FROM {SCHEMA}.climate_normals")
    user, at = cratedb.address.user, cratedb.address
    return f"crate://{user}@{at.host}:{at.port}/{SCHEMA}"


def test_the_command_makes_in_cratedb_what_it_makes_in_duckdb(
    crate: RefreshedStore, address: str, wanted: Table, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert invoke(["normals", "--store", address, *ASK, "2019-2020"]) == 0
        assert f'"normals":{len(wanted)},"left_out":0,"cells":3' in capfd.readouterr().out
        assert_same(table(crate), wanted)


def test_files_fill_cratedbs_normals_as_they_fill_duckdbs(
    crate: RefreshedStore, address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = ["simulation:?step=1d", "--region", "lat=50,lon=8"]
    spec = f"duckdb:{tmp_path}/a.duckdb"
    for target in (address, spec):
        assert invoke(["normals", *source, "--store", target, *ASK, "2020-2020"]) == 0
    with open_store(spec) as duckdb:
        assert_same(table(crate), table(duckdb))
    assert len(table(crate)) == 4 * 366


def test_making_that_was_cut_off_is_made_whole_by_making_it_again(
    crate: RefreshedStore, address: str, wanted: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request then holds the readings of one cell."""
    monkeypatch.setattr(crate_store, "HISTORY_REQUEST_ROWS", 800)
    made = Made()
    with CrateStore(crate.store.address) as store:
        normals.make(
            store, store, "era5-land/daily-mean", None, RULE, made, lambda: made.cells == 2
        )
        some = table(crate)
        assert 0 < len(some) < len(wanted)
        normals.make(store, store, "era5-land/daily-mean", None, RULE, Made())
    assert_same(table(crate), wanted)


def test_too_few_years_are_refused_and_nothing_is_kept(
    crate: RefreshedStore, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["normals", "--store", address]) == 1
    assert (
        "of era5-land/daily-mean there are 2 years (2019 to 2020) of the years 1991-2020, "
        "expected at least 24"
    ) in capfd.readouterr().err
    assert table(crate) == {}


def test_the_board_draws_readings_against_their_normal(crate: RefreshedStore, address: str) -> None:
    assert invoke(["normals", "--store", address, *ASK, "2019-2020"]) == 0
    board = json.loads(grafana.build()["climate.json"])
    span = replace(runs.span(board, EVENING), start=EVENING - timedelta(days=10))
    chosen: dict[str, Any] = {"dataset": "era5-land/daily-mean", "variable": "temperature"}
    values = runs.resolve(board, crate.query, span, chosen)
    drawn = {
        query.panel: crate.query(query.sql)
        for query in runs.queries(board, values, span)
        if "climate_normals" in query.sql
    }
    against, unusual = sorted(drawn, key=lambda panel: "against its normal" not in panel)
    assert drawn[against].columns == ("time", "value", "normal", "p10", "p90")
    assert len(drawn[against].rows) == 10
    assert len(drawn[unusual].rows) == len(CELLS)
