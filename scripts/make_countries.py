"""Make `src/climatestream/data/countries.json.gz`: the outlines of countries.

    python scripts/make_countries.py                      # takes the package with npm
    python scripts/make_countries.py countries-50m.json   # takes a file that is there

The source is Natural Earth 1:50m (public domain) as the npm package `world-atlas` has it: a
TopoJSON topology, in which a border is one arc that both neighbours refer to. The result is the
same with alpha-3 ids and without what we do not need. On the way

- every feature gets the alpha-3 code of its ISO numeric id, and what has no code of its own
  there gets one by `CODE_OF_NAME` and `TERRITORIES`;
- rings across the 180th meridian, which the package joins for use on a sphere, are cut there,
  and Antarctica is closed along the pole, so that each ring is a plain polygon in degrees;
- coordinates become multiples of `STEP`.

The same input gives the same bytes (the same zlib provided).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pycountry

PACKAGE = "world-atlas@2.0.2"
MEMBER = "countries-50m.json"
SHA256 = "04342cdc1e3016bcd7db1630de95684d67b79fe3c8c460321e87aef469502394"
TARGET = Path(__file__).parents[1] / "src/climatestream/data/countries.json.gz"

STEP = 400
"""Steps of the result's coordinates in a degree: 280 m, well below the scale's own accuracy."""

MERIDIAN, POLE = 180 * STEP, 90 * STEP
TURN = 2 * MERIDIAN

CODE_OF_NAME = {"Somaliland": "SOM", "Kosovo": "XKX", "N. Cyprus": "CYP", "Siachen Glacier": None}
"""Features without an ISO number. Somaliland and Northern Cyprus are parts of Somalia and Cyprus
in ISO 3166-2; XKX is the user-assigned code under which the EU and the World Bank publish; the
Siachen Glacier is claimed by two countries and is left out."""

TERRITORIES = (
    # code, part of, west, south, east, north
    ("BES", "Netherlands", -69.0, 11.0, -62.0, 18.0),
    ("GLP", "France", -62.0, 15.7, -61.0, 16.6),
    ("GUF", "France", -55.0, 2.0, -51.0, 6.0),
    ("MTQ", "France", -61.3, 14.3, -60.7, 15.0),
    ("MYT", "France", 44.9, -13.1, 45.4, -12.5),
    ("REU", "France", 55.0, -21.5, 56.0, -20.8),
    ("SJM", "Norway", 10.0, 74.0, 34.0, 81.0),
    ("SJM", "Norway", -9.5, 70.5, -7.5, 71.5),
    ("TKL", "New Zealand", -173.0, -10.0, -171.0, -8.0),
    ("CCK", "Indian Ocean Ter.", 96.0, -13.0, 97.5, -11.0),
    ("CXR", "Indian Ocean Ter.", 105.0, -11.0, 106.0, -10.0),
)
"""Territories with an alpha-3 code of their own which Natural Earth draws as part of another
country: the polygons of that feature which lie in the box [degrees]."""

Point: TypeAlias = tuple[int, int]
Arc: TypeAlias = list[Point]
Ring: TypeAlias = list[int]


def main() -> int:
    """Read the source, check it, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", nargs="?", type=Path, help=f"{MEMBER}; else npm brings {PACKAGE}")
    source: Path | None = parser.parse_args().source
    content = source.read_bytes() if source else from_npm()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        sys.exit(f"{source or PACKAGE} has the SHA-256 {digest}, expected {SHA256}: not the file")
    packed = pack(convert(json.loads(content)))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(packed)
    sys.stdout.write(f"{TARGET.name}: {len(packed):,} bytes\n")
    return 0


def from_npm() -> bytes:
    """The file out of the package, which `npm pack` downloads."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["npm", "pack", PACKAGE, "--silent"],  # noqa: S607 - npm is where the user has it
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(Path(folder) / done.stdout.split()[-1]) as package:
            member = package.extractfile(f"package/{MEMBER}")
            assert member is not None  # noqa: S101 - for the types: it is no folder
            return member.read()


def convert(source: dict[str, Any]) -> dict[str, Any]:
    """The source's topology as ours."""
    arcs, pieces = cut_arcs(decode(source))
    countries: dict[str, list[list[Ring]]] = {}
    for feature in source["objects"]["countries"]["geometries"]:
        polygons = feature["arcs"] if feature["type"] == "MultiPolygon" else [feature["arcs"]]
        for polygon in polygons:
            rings = [
                part
                for ring in polygon
                for part in close([a for number in ring for a in replace(number, pieces)], arcs)
            ]
            if code := code_of(feature, rings, arcs):
                # A cut ring becomes several polygons; no polygon with holes is cut.
                joined = [rings] if len(rings) == len(polygon) else [[ring] for ring in rings]
                countries.setdefault(code, []).extend(joined)
    return topology(countries, arcs)


def decode(source: dict[str, Any]) -> list[Arc]:
    """The arcs as points, in steps of the result."""
    (kx, ky), (dx, dy) = source["transform"]["scale"], source["transform"]["translate"]
    arcs = []
    for deltas in source["arcs"]:
        x = y = 0
        arc: Arc = []
        for step_x, step_y in deltas:
            x, y = x + step_x, y + step_y
            point = (round((x * kx + dx) * STEP), round((y * ky + dy) * STEP))
            if not arc or point != arc[-1]:
                arc.append(point)
        arcs.append(arc)
    return arcs


def cut_arcs(whole: list[Arc]) -> tuple[list[Arc], list[list[int]]]:
    """Cut arcs where they jump across the 180th meridian.

    Returns the arcs, and for each of the old ones the numbers of its pieces.
    """
    arcs: list[Arc] = []
    pieces: list[list[int]] = []
    for arc in whole:
        parts: list[Arc] = [[arc[0]]]
        for (x0, y0), (x1, y1) in pairwise(arc):
            if abs(x1 - x0) > MERIDIAN:
                side = MERIDIAN if x0 > 0 else -MERIDIAN
                run = abs(side - x0) + abs(side + x1)
                y = round(y0 + (y1 - y0) * (abs(side - x0) / run if run else 0.0))
                if (side, y) != parts[-1][-1]:
                    parts[-1].append((side, y))
                parts.append([(-side, y)])
            if (x1, y1) != parts[-1][-1]:
                parts[-1].append((x1, y1))
        parts = [part for part in parts if len(part) > 1]
        pieces.append(list(range(len(arcs), len(arcs) + len(parts))))
        arcs += parts
    return arcs, pieces


def replace(number: int, pieces: list[list[int]]) -> list[int]:
    """The pieces of an arc in the ring's direction; ~number is the arc backwards."""
    return pieces[number] if number >= 0 else [~piece for piece in reversed(pieces[~number])]


def points(ring: Ring, arcs: list[Arc]) -> list[Arc]:
    """The arcs of a ring in its direction."""
    return [arcs[number] if number >= 0 else arcs[~number][::-1] for number in ring]


def has_area(lines: list[Arc]) -> bool:
    """Whether lines are more than a part of a meridian or a parallel (the pole is one)."""
    return all(len({point[axis] for line in lines for point in line}) > 1 for axis in (0, 1))


def close(ring: Ring, arcs: list[Arc]) -> list[Ring]:
    """A ring of cut arcs as closed rings; adds the arcs along the meridian that close them."""
    lines = points(ring, arcs)
    breaks = [i for i in range(len(ring)) if lines[i - 1][-1] != lines[i][0]]
    if not breaks:
        return [ring] if has_area(lines) else []
    turned = ring[breaks[0] :] + ring[: breaks[0]]
    cuts = [i - breaks[0] for i in breaks] + [len(ring)]
    parts = [turned[a:b] for a, b in pairwise(cuts)]
    closed = []
    for part in parts:
        lines = points(part, arcs)
        if not has_area(lines):
            continue
        end, start = lines[-1][-1], lines[0][0]
        if len(parts) == 1:  # once round the pole
            closing = [end, (end[0], -POLE), (start[0], -POLE), start]
        elif len(parts) == 2 and end[0] == start[0]:
            closing = [end, start]
        else:
            sys.exit(f"a ring crosses the 180th meridian {len(parts)} times: cut it by hand")
        arcs.append(closing)
        closed.append([*part, len(arcs) - 1])
    return closed


def code_of(feature: dict[str, Any], rings: list[Ring], arcs: list[Arc]) -> str | None:
    """The alpha-3 code of a polygon."""
    name = feature["properties"]["name"]
    if not rings:
        return None
    corners = [point for line in points(rings[0], arcs) for point in line]
    x, y = ([p[axis] / STEP for p in corners] for axis in (0, 1))
    for code, of, west, south, east, north in TERRITORIES:
        if name == of and west < min(x) and max(x) < east and south < min(y) and max(y) < north:
            return code
    if "id" in feature:
        return str(pycountry.countries.lookup(feature["id"]).alpha_3)
    return CODE_OF_NAME[name]


def name_of(code: str) -> str:
    """The name by which people know a country."""
    if code == "XKX":
        return "Kosovo"
    country = pycountry.countries.lookup(code)
    return str(getattr(country, "common_name", country.name))


def topology(countries: dict[str, list[list[Ring]]], arcs: list[Arc]) -> dict[str, Any]:
    """TopoJSON of the arcs that are in use, numbered by their first use."""
    number: dict[int, int] = {}

    def renumbered(arc: int) -> int:
        new = number.setdefault(arc if arc >= 0 else ~arc, len(number))
        return new if arc >= 0 else ~new

    geometries = [
        {
            "type": "MultiPolygon",
            "id": code,
            "properties": {"name": name_of(code)},
            "arcs": [[[renumbered(arc) for arc in ring] for ring in rings] for rings in polygons],
        }
        for code, polygons in sorted(countries.items())
    ]
    return {
        "type": "Topology",
        "transform": {"scale": [1 / STEP, 1 / STEP], "translate": [0, 0]},
        "objects": {"countries": {"type": "GeometryCollection", "geometries": geometries}},
        "arcs": [
            [arcs[old][0], *((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(arcs[old]))]
            for old in number
        ],
    }


def pack(result: dict[str, Any]) -> bytes:
    """Compressed JSON, without a time or a file name in it."""
    text = json.dumps(result, separators=(",", ":"), ensure_ascii=False).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(text)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
