"""Cities, from `demo.places`: those in sight, and the one that is near."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from climatestream.web.fields import Box, turned

if TYPE_CHECKING:
    from climatestream.web.asking import Asking

MOST: Final = 150
"""Cities at most for one view: more names than a screen has room for."""
STEADY_S: Final = 60.0
"""Age of an answer at most [s]: cities hardly change."""
NEAR_DEGREES: Final = 0.2
"""How far a cell is from its city at most [degree of latitude]: 22 km."""


def largest(asking: Asking, box: Box) -> list[dict[str, Any]]:
    """The cities in a box, the largest first."""
    return [
        {"name": name, "latitude": latitude, "longitude": longitude}
        for name, latitude, longitude in _within(asking, box)
    ]


def near(asking: Asking, latitude: float, longitude: float) -> str | None:
    """The name of the city that is nearest to a place; None where none is near."""
    squeeze = max(math.cos(math.radians(latitude)), 0.05)
    wide = NEAR_DEGREES / squeeze
    box = Box(latitude - NEAR_DEGREES, latitude + NEAR_DEGREES, turned(longitude - wide), 0.0)
    found = _within(asking, box._replace(east=box.west + 2.0 * wide))
    away = {
        math.hypot(lat - latitude, turned(lon - longitude) * squeeze): name
        for name, lat, lon in found
    }
    nearest = min(away, default=math.inf)
    return away[nearest] if nearest <= NEAR_DEGREES else None


def _within(asking: Asking, box: Box) -> list[tuple[Any, ...]]:
    beyond = box.east - 360.0
    return asking.fresh(
        ("places", *(round(edge, 2) for edge in box)),
        lambda: (
            asking.query(
                "SELECT name, latitude, longitude FROM demo.places "
                "WHERE latitude BETWEEN ? AND ? AND (longitude BETWEEN ? AND ? OR longitude < ?) "
                "ORDER BY population DESC, name LIMIT ?",
                [box.south, box.north, box.west, box.east, beyond, MOST],
            ).rows
        ),
        STEADY_S,
    )
