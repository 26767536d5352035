"""Every query of every board on a real CrateDB: answered, and as DuckDB answers it.

Over HTTP as the page asks, and over PostgreSQL's protocol as Grafana does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from climatestream.dashboards import check, grafana, runs
from climatestream.dashboards.grafana_sql import Value
from climatestream.errors import StoreError
from climatestream.ports import Answer, Store
from climatestream.stores.crate import CrateStore
from climatestream.stores.open import open_store
from climatestream.stores.schema import TABLES
from tests.services.crate import Server
from tests.services.test_crate_store import clean

SCHEMA = "climatestream_test_boards"
BOARDS = {name: json.loads(text) for name, text in grafana.build().items()}

OWN = {"Newest dead letters", "Readings by the minute in which they were stored"}
"""Panels whose rows hold when something was stored: no two stores agree."""


@dataclass
class Both:
    """The same readings in a CrateDB and in a DuckDB."""

    crate: CrateStore
    duckdb: Store
    server: Server
    now: datetime


@pytest.fixture(scope="module")
def both(cratedb: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    crate = clean(cratedb, SCHEMA)
    path = tmp_path_factory.mktemp("boards") / "boards.duckdb"
    with crate, open_store(f"duckdb:{path}") as duckdb:
        for store in (crate, duckdb):
            check.fill(store)
        tables = ", ".join(f"{SCHEMA}.{table.name}" for table in TABLES)
        cratedb.sql(f"REFRESH TABLE {tables}")
        yield Both(crate, duckdb, cratedb, datetime.now(UTC) + timedelta(seconds=1))
    crate.drop()


@pytest.fixture(scope="module")
def wire(both: Both) -> Iterator[psycopg.Connection[Any]]:
    """As Grafana connects: PostgreSQL's protocol, no transactions."""
    address = both.server.address
    with psycopg.connect(
        host=address.host,
        port=both.server.psql_port,
        user=address.user,
        password=address.password(),
        dbname=SCHEMA,
        autocommit=True,
    ) as connection:
        yield connection


def over(connection: psycopg.Connection[Any], sql: str) -> Answer:
    """An answer over the wire, by the simple protocol of a query without parameters."""
    text = sql.replace("demo.", f"{SCHEMA}.")
    try:
        cursor = connection.execute(text.encode())
    except psycopg.Error as error:
        raise StoreError(str(error).splitlines()[0]) from error
    columns = tuple(column.name for column in cursor.description or ())
    return Answer(columns, cursor.fetchall())


def comparable(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows in an order that does not hang on the last digits of a number."""
    return sorted(
        rows, key=lambda row: [str(v) for v in row if not isinstance(v, float)] + rounded(row)
    )


def rounded(row: tuple[Any, ...]) -> list[str]:
    return [f"{value:.4f}" for value in row if isinstance(value, float)]


def assert_same(mine: Answer, theirs: Answer) -> None:
    assert mine.columns == theirs.columns
    assert len(mine.rows) == len(theirs.rows)
    for a, b in zip(comparable(mine.rows), comparable(theirs.rows), strict=True):
        for name, x, y in zip(mine.columns, a, b, strict=True):
            if isinstance(x, int | float) and isinstance(y, int | float):
                assert x == pytest.approx(y, rel=1e-6, abs=1e-6), name
            else:
                assert x == y, name


pytestmark = pytest.mark.timeout(300)

CASES = [
    (name, number)
    for name, board in BOARDS.items()
    for number in range(len(check.choices_of(board)))
]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_both_stores_answer_the_same(both: Both, name: str, number: int) -> None:
    board = BOARDS[name]
    chosen, filled = check.choices_of(board)[number]
    time = runs.span(board, both.now)
    values = runs.resolve(board, both.crate.query, time, chosen)
    assert values == runs.resolve(board, both.duckdb.query, time, chosen)
    for query in runs.queries(board, values, time):
        answer = both.crate.query(query.sql)
        if filled:
            assert runs.answer_problems(query, answer) == [], query
        elif answer.rows:
            assert runs.answer_problems(query, answer) in ([], [runs.EMPTY]), query
        if name != "pipeline.json":
            assert_same(answer, both.duckdb.query(query.sql))
        elif query.panel not in OWN:
            assert answer.columns == both.duckdb.query(query.sql).columns


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_way_in_answers_too(both: Both, wire: psycopg.Connection[Any], name: str) -> None:
    board = BOARDS[name]
    time = runs.span(board, both.now)
    values = runs.resolve(board, lambda sql: over(wire, sql), time)
    assert values == runs.resolve(board, both.crate.query, time)
    for query in runs.queries(board, values, time):
        answer = over(wire, query.sql)
        assert runs.answer_problems(query, answer) == [], query
        assert answer.columns == both.crate.query(query.sql).columns


@pytest.mark.parametrize("name", BOARDS)
def test_queries_answer_on_empty_tables(cratedb: Server, name: str, tmp_path: Path) -> None:
    """Nothing stored is no error: panels then say so."""
    store = clean(cratedb, f"{SCHEMA}_empty")
    board = BOARDS[name]
    time = runs.span(board, datetime.now(UTC))
    chosen: dict[str, Value] = {
        "dataset": "",
        "country": [""],
        "variable": "temperature",
        "at": "2200-01-01T00:00:00.000Z",
        "place": "POINT(13 52)",
    }
    try:
        with store, open_store(f"duckdb:{tmp_path / 'empty.duckdb'}") as duckdb:
            for ask in (store.query, duckdb.query):
                values = runs.resolve(board, lenient(ask), time, chosen)
                for query in runs.queries(board, values, time):
                    ask(query.sql)
    finally:
        store.drop()


def lenient(ask: runs.Ask) -> runs.Ask:
    """A variable without a value is an empty text, as Grafana has it."""

    def asked(sql: str) -> Answer:
        answer = ask(sql)
        return answer if answer.rows else Answer(answer.columns, [("",) * len(answer.columns)])

    return asked
