"""A part of the earth: a country, a bounding box, a point, or GeoJSON polygons."""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from climatestream import countries
from climatestream.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

EDGE = 1e-6
"""How far outside a box or polygon a point still counts as on its edge [degree]: coordinates of
grids are off by float noise, cells are no nearer than a thousandth."""

SIDES = ("west", "south", "east", "north")
BOX_EXAMPLE = "west=5,south=47,east=15,north=55"
POINT_EXAMPLE = "latitude=50.11,longitude=8.68"

LONE_STEP = 0.25
"""The step taken for an axis of one place [degree]: the coarser of ERA5's and ERA5-Land's."""


@dataclass(frozen=True)
class Region:
    """A part of the earth.

    Parameters
    ----------
    name
        For people: the code, the box as it can be typed, or the file's name.
    geometry
        Polygon or MultiPolygon, longitude in [-180, 180]: cut where it crosses the date line. Of
        a point, that Point.
    country
        The alpha-3 code where the region is a country.
    """

    name: str
    geometry: BaseGeometry
    country: str | None = None

    @property
    def point(self) -> tuple[float, float] | None:
        """Latitude and longitude where the region is a point: on a grid, its nearest cell."""
        if self.geometry.geom_type != "Point":
            return None
        return float(self.geometry.y), float(self.geometry.x)

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees: the narrowest box that holds the region.

        Longitudes are in [-180, 180]; west > east where the box crosses the date line.
        """
        import shapely

        _, south, _, north = self.geometry.bounds
        west, east = -180.0, 180.0
        spans = sorted((b[0], b[2]) for b in shapely.bounds(shapely.get_parts(self.geometry)))
        # The widest gap between the parts, on the circle, is what the box leaves out.
        widest = -1.0
        reach = spans[0][1]
        for start, end in [*spans[1:], (spans[0][0] + 360.0, 0.0)]:
            if start - reach >= widest:
                widest, west, east = start - reach, start, reach
            reach = max(reach, end)
        west = west - 360.0 if west >= 180.0 else west
        return float(west), float(south), float(east), float(north)

    def contains(
        self, latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which points of a grid are in the region.

        Points on the edge of a box or a polygon are, by `EDGE`; a border between two countries
        belongs to one of them, as in `countries.lookup`. A point has the nearest cell, where it
        is in the grid or within half a step of it.

        Parameters
        ----------
        latitude, longitude
            The axes, degrees, in any order; longitude in any turn of the circle.

        Returns
        -------
        NDArray[np.bool_]
            Shape (latitude, longitude).
        """
        import shapely

        from climatestream.raster import paint

        if self.point is not None:
            return _nearest(self.point, latitude, longitude)
        area = self.geometry
        if self.country is None:
            area = _cut(shapely.buffer(area, EDGE, join_style="mitre"))
        rings = [shapely.get_coordinates(r) for r in shapely.get_rings(shapely.get_parts(area))]
        return paint(rings, [1] * len(rings), latitude, longitude) > 0


def parse_region(text: str) -> Region:
    """A region as a user writes it.

    Parameters
    ----------
    text
        An ISO 3166-1 alpha-3 code in either case (`DEU`); a bounding box whose sides are named,
        in any order (`west=5,south=47,east=15,north=55`; west > east crosses the date line); a
        point (`latitude=50.11,longitude=8.68`); the path of a GeoJSON file (`.json`,
        `.geojson`); or GeoJSON itself.

    Raises
    ------
    UsageError
        It is none of these, or a wrong one.
    """
    text = text.strip()
    if text.startswith("{"):
        return _geojson("GeoJSON", "the GeoJSON given as region", text)
    if Path(text).suffix.lower() in {".json", ".geojson"}:
        path = Path(text)
        try:
            content = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise UsageError(f"the region's file {text} can't be read: {reason}") from error
        return _geojson(path.name, f"the region's file {text}", content)
    if "=" in text:
        return _point(text) if re.search(r"\blat(itude)?\s*=", text, re.IGNORECASE) else _box(text)
    if re.fullmatch(r"[-+.\d]+([\s,;/]+[-+.\d]+)+", text):
        raise UsageError(
            f"region {text!r} is numbers whose order can't be known: name each, as in "
            f"{BOX_EXAMPLE} or {POINT_EXAMPLE}"
        )
    return _country(text)


def _country(text: str) -> Region:
    code = text.upper()
    if code in countries.NAMES:
        return Region(code, countries.geometry(code), code)
    raise UsageError(_unknown(text))


def _unknown(text: str) -> str:
    """What to say of a text that is no code of a country with an outline."""
    import pycountry

    folded = text.casefold()
    by_name = {name.casefold(): code for code, name in countries.NAMES.items()}
    known = by_name.get(folded)
    if known is None:
        try:
            known = str(pycountry.countries.lookup(text).alpha_3)
        except LookupError:
            near = [code for name, code in by_name.items() if folded and name.startswith(folded)]
            near += [by_name[n] for n in difflib.get_close_matches(folded, by_name, 2, 0.6)]
            near += difflib.get_close_matches(text.upper(), countries.CODES, 3, 0.6)
            nearest = [f"{code} ({countries.NAMES[code]})" for code in dict.fromkeys(near)]
            return (
                f"region {text!r} is no ISO 3166-1 alpha-3 code (nearest: "
                f"{', '.join(nearest[:4]) or 'none'}): give a code such as DEU, a bounding box "
                f"({BOX_EXAMPLE}), or a GeoJSON file"
            )
    if known not in countries.NAMES:
        return (
            f"region {text!r} ({known}) is too small for the outlines at hand: give a bounding "
            f"box ({BOX_EXAMPLE}) or a GeoJSON file"
        )
    return (
        f"region {text!r} is {countries.NAMES[known]}, but a country is given by its "
        f"ISO 3166-1 alpha-3 code: write {known}"
    )


def _box(text: str) -> Region:
    import shapely

    given: dict[str, float] = {}
    for part in re.split(r"[,;]", text):
        name, _, number = (word.strip() for word in part.partition("="))
        side = name.lower()
        if side not in SIDES or side in given:
            what = "twice" if side in given else "which is no side"
            raise UsageError(
                f"bounding box {text!r} has {name!r} {what}: expected {', '.join(SIDES)} once "
                f"each, as in {BOX_EXAMPLE}"
            )
        try:
            given[side] = float(number)
        except ValueError:
            raise UsageError(
                f"bounding box {text!r} has {side}={number!r}, expected degrees, as in "
                f"{BOX_EXAMPLE}"
            ) from None
    if missing := [side for side in SIDES if side not in given]:
        raise UsageError(
            f"bounding box {text!r} lacks {' and '.join(missing)}: give all four, as in "
            f"{BOX_EXAMPLE}"
        )
    west, south, east, north = (given[side] for side in SIDES)
    if not (-90.0 <= south < north <= 90.0):
        raise UsageError(
            f"bounding box {text!r} has south={south:g} and north={north:g}, expected "
            "-90 <= south < north <= 90"
        )
    if not all(math.isfinite(x) and -180.0 <= x <= 360.0 for x in (west, east)) or west == east:
        raise UsageError(
            f"bounding box {text!r} has west={west:g} and east={east:g}, expected two different "
            "longitudes of -180..360"
        )
    name = ",".join(f"{side}={given[side]:.10g}" for side in SIDES)
    east += 360.0 if east < west else 0.0
    if east - west > 360.0:
        raise UsageError(
            f"bounding box {text!r} is {east - west:g} degrees wide, expected at most 360"
        )
    return Region(name, _cut(shapely.box(west, south, east, north)))


def _point(text: str) -> Region:
    import shapely

    given: dict[str, float] = {}
    for part in re.split(r"[,;]", text):
        name, _, number = (word.strip() for word in part.partition("="))
        kind = {"lat": "latitude", "lon": "longitude"}.get(name.lower(), name.lower())
        try:
            given[kind] = float(number)
        except ValueError:
            given[kind] = math.nan
    latitude, longitude = given.get("latitude", math.nan), given.get("longitude", math.nan)
    if len(given) != 2 or not (-90.0 <= latitude <= 90.0 and -180.0 <= longitude <= 360.0):
        raise UsageError(
            f"point {text!r} is none, expected a latitude of -90..90 and a longitude of "
            f"-180..360, as in {POINT_EXAMPLE}"
        )
    name = f"latitude={latitude:.10g},longitude={longitude:.10g}"
    return Region(name, shapely.Point((longitude + 180.0) % 360.0 - 180.0, latitude))


def _nearest(
    point: tuple[float, float], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """The one cell of a grid that is nearest to a point; none where the point is off the grid."""
    import numpy as np

    inside = np.zeros((len(latitude), len(longitude)), np.bool_)
    turned = (longitude - point[1] + 180.0) % 360.0 - 180.0
    away = np.abs(latitude - point[0]), np.abs(turned)
    found = [int(np.argmin(axis)) for axis in away]
    for axis, off, place in zip((latitude, longitude), away, found, strict=True):
        step = float(np.median(np.abs(np.diff(axis)))) if len(axis) > 1 else LONE_STEP
        if off[place] > step / 2.0 + EDGE:
            return inside
    inside[found[0], found[1]] = True
    return inside


def _geojson(name: str, where: str, text: str) -> Region:
    import shapely

    try:
        json.loads(text)
        given = shapely.from_geojson(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except shapely.errors.GEOSException as error:
        raise UsageError(
            f"{where} is no GeoJSON that can be understood: {_plain(error)}; expected a Polygon, "
            "MultiPolygon, Feature or FeatureCollection"
        ) from error
    parts = shapely.get_parts(shapely.get_parts(given))
    others = sorted({part.geom_type for part in parts} - {"Polygon"})
    if others or not len(parts) or shapely.is_empty(parts).any():
        raise UsageError(
            f"{where} holds {', '.join(others) or 'nothing'}: expected polygons, and nothing else"
        )
    for part in parts:
        west, south, east, north = part.bounds
        if west < -360.0 or east > 360.0 or south < -90.0 or north > 90.0:
            raise UsageError(
                f"{where} has coordinates in longitude {west:g}..{east:g} and latitude "
                f"{south:g}..{north:g}, expected degrees (WGS 84), longitude first, within "
                "-360..360 and -90..90"
            )
        if not part.is_valid:
            raise UsageError(
                f"{where} has a polygon that is not valid: {shapely.is_valid_reason(part)} "
                "(longitude latitude); mend it, with QGIS's 'Fix geometries' for one"
            )
    return Region(name, _cut(shapely.union_all(parts)))


def _plain(error: Exception) -> str:
    """The words of a library without its exception's name."""
    return re.sub(r"^\w+: |\[json[.\w]+\] ", "", str(error))


def _cut(geometry: BaseGeometry) -> BaseGeometry:
    """A geometry in any turn of the circle as one in [-180, 180]."""
    import shapely
    from shapely.affinity import translate

    west, _, east, _ = geometry.bounds
    if west >= -180.0 and east <= 180.0:
        return geometry
    whole = shapely.box(-180.0, -91.0, 180.0, 91.0)
    turned = [
        shapely.intersection(translate(geometry, turn), whole) for turn in (-360.0, 0.0, 360.0)
    ]
    parts = shapely.get_parts(shapely.get_parts(turned))
    return shapely.union_all(parts[shapely.area(parts) > 0.0])
