"""What an address asks for, within limits: anything else is refused with a sentence."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from climatestream.errors import UsageError
from climatestream.web.charts import COVERAGE_STEPS, Look
from climatestream.web.fields import normal_box

if TYPE_CHECKING:
    from starlette.requests import Request

    from climatestream.web.fields import Box

NAME_LENGTH: Final = 200
"""Length of the name of a dataset or variable at most [characters]."""


def required(request: Request, name: str) -> str:
    """A parameter's text."""
    value = optional(request, name)
    if value is None:
        raise UsageError(f"parameter {name} of {request.url.path} is missing")
    return value


def optional(request: Request, name: str) -> str | None:
    """A parameter's text; None where it is missing or empty."""
    value = request.query_params.get(name)
    if value is not None and len(value) > NAME_LENGTH:
        raise UsageError(
            f"parameter {name} has {len(value)} characters, expected at most {NAME_LENGTH}"
        )
    return value or None


def instant(request: Request, name: str) -> datetime | None:
    """A time, with its offset."""
    text = optional(request, name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name} {text!r} is none; expected one like 2025-08-10T00:00Z") from error
    if at.tzinfo is None:
        raise UsageError(f"{name} {text!r} says no offset; expected one like 2025-08-10T00:00Z")
    if not 1900 <= at.year <= 2200:
        raise UsageError(f"{name} {text!r} is outside 1900 to 2200, the times that are stored")
    return at


def _place(request: Request) -> tuple[float, float] | None:
    text = optional(request, "cell")
    if text is None:
        return None
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"cell {text!r} is none; expected LATITUDE,LONGITUDE") from error
    if not (-90.0 <= latitude <= 90.0 and -360.0 <= longitude <= 720.0):
        raise UsageError(f"cell {text!r} is not on the globe; expected LATITUDE,LONGITUDE")
    return latitude, longitude


def look(request: Request) -> Look:
    """What someone is looking at."""
    asked = Look(
        dataset=required(request, "dataset"),
        variable=required(request, "variable"),
        time=instant(request, "time"),
        since=instant(request, "from"),
        until=instant(request, "to"),
        place=_place(request),
        by=optional(request, "by"),
    )
    if asked.by is not None and asked.by not in COVERAGE_STEPS:
        raise UsageError(f"by {asked.by!r} is none of {', '.join(COVERAGE_STEPS)}")
    if asked.since is not None and asked.until is not None and asked.since > asked.until:
        raise UsageError("from is later than to")
    return asked


def box(request: Request) -> Box | None:
    """The part of the globe in parameter `box`: south, north, west, east."""
    text = optional(request, "box")
    if text is None:
        return None
    try:
        south, north, west, east = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"box {text!r} is none; expected SOUTH,NORTH,WEST,EAST") from error
    if not (-90.0 <= south < north <= 90.0 and -720.0 <= west < east <= 720.0):
        raise UsageError(f"box {text!r} is not on the globe; expected SOUTH,NORTH,WEST,EAST")
    return normal_box(south, north, west, east)
