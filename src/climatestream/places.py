"""The cities of the world: names, countries, coordinates, inhabitants.

GeoNames (https://www.geonames.org, CC BY 4.0), from a file that `scripts/make_places.py` makes:
cities of 30,000 inhabitants and more, and capitals.
"""

from __future__ import annotations

import csv
import gzip
from importlib.resources import files
from typing import TYPE_CHECKING

from climatestream.model import Place

if TYPE_CHECKING:
    from climatestream.ports import Store


def cities() -> list[Place]:
    """All of them, by country, the largest first."""
    content = (files("climatestream") / "data/places.csv.gz").read_bytes()
    rows = csv.DictReader(gzip.decompress(content).decode().splitlines())
    return [
        Place(
            row["name"],
            row["country"],
            float(row["latitude"]),
            float(row["longitude"]),
            int(row["population"]),
        )
        for row in rows
    ]


def keep(store: Store) -> None:
    """Fill `demo.places`: all cities, those that are there already as they are known now."""
    store.keep_places(cities())


def settle(store: Store) -> None:
    """Fill `demo.places` where there is no city: in a file that was made just now."""
    if not store.query("SELECT count(*) FROM demo.places").rows[0][0]:
        keep(store)
