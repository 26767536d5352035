"""The CrateDB store against a real server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from climatestream.stores.crate import CrateStore
from climatestream.stores.schema import TABLES
from climatestream.testing.rows import Reading, rows
from climatestream.testing.stores import Stored, StoreTests, WrappedStore
from tests.services.crate import Server, raw

SCHEMAS = tuple(f"climatestream_test_{number}" for number in range(3))


class RefreshedStore(WrappedStore):
    """Makes what was written visible before a query: CrateDB does so within a second."""

    def __init__(self, store: CrateStore) -> None:
        super().__init__(store, calls=["query"])
        self.store = store

    def before(self, call: str) -> None:
        tables = (f"{self.store.address.schema}.{table.name}" for table in TABLES)
        self.store._http.sql(f"REFRESH TABLE {', '.join(tables)}")


def clean(server: Server, schema: str) -> CrateStore:
    """A store over the schema, with all tables, and nothing in them."""
    store = CrateStore(server.at(schema))
    server.sql(f"DROP TABLE IF EXISTS {schema}.climate_data")
    existed = store.init(shards=1, replicas="0").existing
    if existed:
        server.sql(f"REFRESH TABLE {', '.join(existed)}")
    for table in existed:
        server.sql(f"DELETE FROM {table}")
    return store


@pytest.fixture(scope="module", autouse=True)
def schemas(cratedb: Server) -> Iterator[None]:
    yield
    for schema in SCHEMAS:
        CrateStore(cratedb.at(schema)).drop()


class TestCrateStore(StoreTests):
    """`crate://` keeps the promises of a store."""

    SEEN_WHOLE = False  # shards are refreshed one by one

    @pytest.fixture
    def new_place(self, cratedb: Server) -> Callable[[], Any]:
        names = itertools.cycle(SCHEMAS)

        def made() -> tuple[Server, str]:
            schema = next(names)
            clean(cratedb, schema)
            return cratedb, schema

        return made

    def store(self, place: Any) -> RefreshedStore:
        server, schema = place
        return RefreshedStore(CrateStore(server.at(schema)))

    def stored(self, place: Any) -> list[Stored]:
        server, schema = place
        table = f"{schema}.climate_data"
        server.sql(f"REFRESH TABLE {table}")
        found = raw(
            server,
            f"""SELECT data, "timestamp", dataset, country, preliminary, published_at, source,
                "offset", geo_location, "year", stored_at, cell FROM {table}""",
        )[1]["rows"]
        return [stored_row(row) for row in found]

    def test_what_is_written_is_seen_by_queries_within_some_seconds(self, place: Any) -> None:
        """Without a refresh by hand: the table's own comes once a second."""
        server, schema = place
        with CrateStore(server.at(schema)) as store:
            store.write(rows(Reading()))
            end = time.monotonic() + 30
            while store.query("SELECT count(*) FROM demo.climate_data").rows != [(1,)]:
                assert time.monotonic() < end
                time.sleep(0.05)


def stored_row(row: list[Any]) -> Stored:
    data, time_ms, dataset, country, preliminary, published, source, offset, *rest = row
    location, year_ms, stored_at_ms, cell = rest
    latitude, longitude = data.pop("latitude"), data.pop("longitude")
    reading = Reading(
        data,
        latitude,
        longitude,
        time_ms,
        dataset,
        country,
        preliminary,
        published,
        source,
        offset,
    )
    assert reading.cell == cell
    year = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=year_ms)
    return Stored(reading, tuple(location), year, stored_at_ms)
