"""The reference's own queries: unchanged on our table, and the same numbers as on its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from climatestream import codec
from climatestream.model import Messages
from climatestream.sources.open import open_source
from climatestream.sources.selection import Selection
from climatestream.stores.crate import CrateStore
from tests.services.crate import Server
from tests.services.test_crate_store import clean

REFERENCE = "climatestream_test_reference"

# Grafana 12.3 makes this of $__timeFilter("timestamp"); $__timeFrom() and $__timeTo() are its ends.
FROM, TO = "'2025-08-10T00:00:00Z'", "'2025-08-16T23:59:59Z'"
TIME_FILTER = f'"timestamp" BETWEEN {FROM} AND {TO}'

WIND = "sqrt(data['u10']*data['u10'] + data['v10']*data['v10'])"
VARIABLES = {
    "temperature": "data['temperature']",
    "pressure": "data['pressure']",
    "wind_speed": WIND,
}


def circle(latitude: float, longitude: float, radius: float = 0.5, points: int = 28) -> str:
    """A polygon around Munich, as the reference's board has it."""
    angles = [2 * math.pi * n / points for n in range(points)]
    ring = [
        (longitude + 1.5 * radius * math.sin(a), latitude + radius * math.cos(a)) for a in angles
    ]
    corners = ", ".join(f"{x:.3f} {y:.3f}" for x, y in [*ring, ring[0]])
    return f"within(geo_location, 'POLYGON(({corners}))')"


def queries() -> Iterator[tuple[str, str]]:
    """The twelve queries of the reference's boards, by name."""
    places = "latitude(geo_location) as latitude, longitude(geo_location) as longitude"
    for place, within in {"all": "", "munich": f" AND {circle(48.137, 11.575)}"}.items():
        for name, x in VARIABLES.items():
            between = f"timestamp BETWEEN {FROM} AND {TO}" if name == "wind_speed" else TIME_FILTER
            yield (
                f"map of {name}, {place}",
                f"""SELECT timestamp as time, {places}, {x} as {name}
  FROM demo.climate_data WHERE {between}{within} ORDER BY timestamp""",
            )
            yield (
                f"series of {name}, {place}",
                f"""SELECT timestamp as ts, min({x}) as "min", max({x}) as "max", avg({x}) as "avg"
  FROM demo.climate_data WHERE {TIME_FILTER}{within} GROUP BY timestamp ORDER BY timestamp""",
            )


QUERIES = dict(queries())


@dataclass
class Both:
    """Our table and the reference's, with the same five days of Germany."""

    ours: CrateStore
    server: Server

    def reference(self, sql: str) -> list[list[Any]]:
        """What the query answers on the reference's own table."""
        rows: list[list[Any]] = self.server.sql(sql.replace("demo.", f"{REFERENCE}."))["rows"]
        return rows


@pytest.fixture(scope="module")
def both(cratedb: Server, era5: Path) -> Iterator[Both]:
    # A server of our own has no `demo` of anybody else: there the text is sent unchanged.
    store = clean(cratedb, "demo" if cratedb.own else "climatestream_test_demo")
    table = f"{REFERENCE}.climate_data"
    cratedb.sql(f"DROP TABLE IF EXISTS {table}")
    cratedb.sql(
        f"CREATE TABLE {table} (timestamp TIMESTAMP WITH TIME ZONE, geo_location GEO_POINT, "
        "data OBJECT(DYNAMIC)) WITH (number_of_replicas = 0)"
    )
    with open_source([str(era5 / "germany-land-daily")], Selection()) as source, store:
        for slice_ in source.slices():
            for batch in source.read(slice_):
                documents = codec.encode(batch)
                numbers = range(len(documents))
                block = Messages(
                    topic="climate",
                    partition=0,
                    offset=numbers,
                    published_at_ms=[batch.time_ns // 1_000_000] * len(documents),
                    key=[None] * len(documents),
                    value=documents,
                    headers=[()] * len(documents),
                )
                assert store.write(codec.decode([block], batch.dataset, {}).rows) == []
                cratedb.sql(
                    f"INSERT INTO {table} (timestamp, geo_location, data) VALUES (?, ?, ?)",
                    bulk=[as_the_reference_writes(document) for document in documents],
                )
        cratedb.sql(f"REFRESH TABLE {table}")
        store._look_up.refresh()
        yield Both(store, cratedb)
    cratedb.sql(f"DROP TABLE {table}")
    store.drop()


def as_the_reference_writes(document: bytes) -> list[Any]:
    """Its consumer's row: time in seconds as a float, temperature in degrees Celsius."""
    message = orjson.loads(document)
    place = [message["longitude"], message["latitude"]]
    data = {name: message[name] for name in ("longitude", "latitude", "u10", "v10", "pressure")}
    data["temperature"] = message["temperature"] - 273.15
    return [message["timestamp"] / 1e9, place, data]


def test_there_are_twelve() -> None:
    assert len(QUERIES) == 12


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_reference_gives_the_same_numbers(both: Both, name: str) -> None:
    sql = QUERIES[name]
    mine = np.array([(row[0].timestamp() * 1000, *row[1:]) for row in both.ours.query(sql).rows])
    theirs = np.array(both.reference(sql))
    assert mine.shape == theirs.shape
    assert len(mine) > 0
    mine, theirs = (table[np.lexsort(table.T[::-1])] for table in (mine, theirs))
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-9)


def test_the_places_are_all_of_germany_and_fewer_around_munich(both: Both) -> None:
    everywhere = both.reference(QUERIES["map of pressure, all"])
    munich = both.reference(QUERIES["map of pressure, munich"])
    assert len(everywhere) == 31_275
    assert 100 < len(munich) < 3_000
