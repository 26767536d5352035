"""The DuckDB store: the contract of every store, and what is DuckDB's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC
from pathlib import Path

import duckdb
import pytest

from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.rows import Reading
from climatestream.testing.stores import Stored, StoreTests


class TestDuckDBStore(StoreTests):
    """`duckdb:FILE` keeps the promises of a store."""

    @pytest.fixture
    def new_place(self, tmp_path: Path) -> Callable[[], Path]:
        numbers = itertools.count()
        return lambda: tmp_path / f"demo{next(numbers)}.duckdb"

    def store(self, place: Path) -> DuckDBStore:
        return DuckDBStore(place, threads=1)

    def stored(self, place: Path) -> list[Stored]:
        with duckdb.connect(str(place), read_only=True) as connection:
            found = connection.execute(
                """SELECT data, epoch_ms("timestamp"), dataset, country, preliminary,
                    epoch_ms(published_at), source, "offset", geo_location, year,
                    epoch_ms(stored_at), cell FROM demo.climate_data"""
            ).fetchall()
        return [stored_row(row) for row in found]


def stored_row(row: tuple) -> Stored:
    data, time_ms, dataset, country, preliminary, published, source, offset, *rest = row
    location, year, stored_at_ms, cell = rest
    values = {name: value for name, value in data.items() if value is not None}
    latitude, longitude = values.pop("latitude"), values.pop("longitude")
    reading = Reading(
        values,
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
    return Stored(reading, location, year.replace(tzinfo=UTC), stored_at_ms)
