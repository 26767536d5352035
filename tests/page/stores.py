"""Stores for the page's tests, filled by the engine itself: millions of readings in seconds."""

from __future__ import annotations

import math
import re
from pathlib import Path

import duckdb

from climatestream.stores.open import open_store

CELLS = 2500


def fill(
    path: Path,
    dataset: str,
    times: int,
    step: str,
    fields: str,
    *,
    start: str = "2025-08-01",
    cells: int = CELLS,
) -> None:
    """Add `times` fields of this many cells from Germany north and east to a DuckDB file.

    Parameters
    ----------
    step
        An interval: `1 hour`.
    fields
        SQL of the members of `data`, of `t` (number of the time), `la`, `lo` (degrees).
    """
    side = math.isqrt(cells)
    with open_store(f"duckdb:{path}"):
        pass  # makes the tables
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{path}' AS store")
    connection.execute("SET threads = 2")
    row = connection.execute(
        "SELECT data_type FROM duckdb_columns() "
        "WHERE table_name = 'climate_data' AND column_name = 'data'"
    ).fetchone()
    assert row is not None
    given = set(re.findall(r"'(\w+)':", fields)) | {"latitude", "longitude"}
    struct = ", ".join(
        (f"'{name}': made['{name}']::DOUBLE" if name in given else f"'{name}': NULL::DOUBLE")
        for name in re.findall(r'"?(\w+)"? DOUBLE', row[0])
    )
    connection.execute(
        f"""INSERT INTO store.demo.climate_data BY NAME
        SELECT '{dataset}' AS dataset, format('{{:.4f}},{{:.4f}}', la, lo) AS cell,
            'DEU' AS country, TIMESTAMP '{start}' + t * INTERVAL '{step}' AS "timestamp",
            [lo, la]::DOUBLE[2] AS geo_location, {{{struct}}} AS data, false AS preliminary,
            TIMESTAMP '{start}' + t * INTERVAL '{step}' AS published_at,
            TIMESTAMP '{start}' + t * INTERVAL '{step}' + INTERVAL '40 ms' AS stored_at,
            'made/0' AS source, n AS "offset"
        FROM (SELECT *, {{{fields}, 'latitude': la, 'longitude': lo}} AS made FROM
            (SELECT t, n, 48.0 + (n // {side}) / 10.0 AS la, 7.0 + (n % {side}) / 10.0 AS lo
             FROM range({times}) AS times(t), range({cells}) AS cells(n)))"""
    )
    connection.close()


def settle(path: Path) -> None:
    """Add some cities to a store in a DuckDB file."""
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{path}' AS store")
    connection.executemany(
        "INSERT INTO store.demo.places BY NAME SELECT ? AS name, 'DEU' AS country, "
        "? AS latitude, ? AS longitude, ? AS population",
        CITIES,
    )
    connection.close()


CITIES = [
    ("München", 48.137, 11.575, 1_512_000),
    ("Frankfurt am Main", 50.110, 8.682, 773_000),
    ("Stuttgart", 48.775, 9.182, 632_000),
    ("Leipzig", 51.340, 12.375, 616_000),
    ("Dresden", 51.050, 13.737, 563_000),
    ("Nürnberg", 49.452, 11.077, 523_000),
    ("Offenbach", 50.101, 8.766, 134_000),
]


WEATHER = """'temperature': 12 + 8 * sin(t / 3.8) + 4 * cos(la + t / 9.0) * sin(lo),
'u10': 6 * cos(t / 11.0 + lo / 2), 'v10': 6 * sin(t / 13.0 + la / 2),
'pressure': 95000 + 2000 * sin(t / 21.0) + 300 * la"""
WARMTH = "'temperature': 9 + 12 * sin(t * 3.14159 / 6) + la / 10 + (t / 120.0)"
