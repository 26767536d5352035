"""The countries of the world: their codes, names and outlines, and which one a point is in.

Natural Earth 1:50m (public domain), from a file that `scripts/make_countries.py` makes. Its
borders are de facto ones, grouped by ISO 3166-1: Northern Cyprus is in CYP, Somaliland in SOM,
French Guiana is GUF and not FRA; Kosovo has the user-assigned code XKX; a coast is within about
a kilometre, and islands below a few square kilometres are absent.

`CODES`, `CODES_OR_NONE` and `NAMES` are read with the file, when one of them is first asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from shapely import MultiPolygon

CODES: tuple[str, ...]
"""The alpha-3 codes, sorted. A place in here is what `lookup` answers."""

CODES_OR_NONE: NDArray[np.object_]
"""`CODES` and then None, so that the index -1 gives None."""

NAMES: Mapping[str, str]
"""By code the name by which a country is known, in English."""


def geometry(code: str) -> MultiPolygon:
    """The outline of a country, longitude in [-180, 180].

    Raises
    ------
    KeyError
        There is no such code in `CODES`.
    """
    return _geometry(code)


def lookup(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.int16]:
    """The country of each point of a grid, as its place in `CODES`; -1 at sea or in none.

    A border belongs to one of its two countries.

    Parameters
    ----------
    latitude, longitude
        The axes, degrees, in any order; longitude in any turn of the circle.

    Returns
    -------
    NDArray[np.int16]
        Shape (latitude, longitude).
    """
    from climatestream.raster import paint

    rings, values = [], []
    for place, polygons in enumerate(_world().polygons.values()):
        for polygon in polygons:
            rings += polygon
            values += [place + 1] * len(polygon)
    return paint(rings, values, latitude, longitude) - 1


class _World:
    """The file's content.

    Attributes
    ----------
    polygons
        By code the polygons, each an outer ring and its holes, shape (n, 2) [degree].
    """

    def __init__(self) -> None:
        import gzip
        from importlib.resources import files

        import numpy as np
        import orjson

        packed = files("climatestream").joinpath("data/countries.json.gz").read_bytes()
        topology = orjson.loads(gzip.decompress(packed))
        steps = round(1.0 / topology["transform"]["scale"][0])
        arcs = [np.cumsum(arc, axis=0) / steps for arc in topology["arcs"]]

        def ring(numbers: list[int]) -> NDArray[np.float64]:
            parts = [arcs[n] if n >= 0 else arcs[~n][::-1] for n in numbers]
            # Arcs share their ends.
            return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])

        countries = topology["objects"]["countries"]["geometries"]
        self.names = {country["id"]: country["properties"]["name"] for country in countries}
        self.polygons = {
            country["id"]: [[ring(numbers) for numbers in polygon] for polygon in country["arcs"]]
            for country in countries
        }


@lru_cache(maxsize=1)
def _world() -> _World:
    return _World()


@lru_cache(maxsize=512)
def _geometry(code: str) -> MultiPolygon:
    import shapely

    polygons = [shapely.Polygon(outer, holes) for outer, *holes in _world().polygons[code]]
    merged = shapely.union_all(polygons)
    return merged if merged.geom_type == "MultiPolygon" else shapely.MultiPolygon([merged])


def __getattr__(name: str) -> Any:
    if name == "NAMES":
        value: Any = _world().names
    elif name == "CODES":
        value = tuple(_world().names)
    elif name == "CODES_OR_NONE":
        import numpy as np

        value = np.array([*_world().names, None], dtype=object)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
