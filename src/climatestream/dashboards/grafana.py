"""The boards as Grafana's JSON, which `deploy/grafana/boards` holds for Grafana to load."""

from __future__ import annotations

import json
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from climatestream.dashboards.boards import TAG, Board, Strip, all_boards

SCHEMA: Final = 42
"""Version of the v1 dashboard's JSON, as Grafana 12.3 writes it."""

COLUMNS: Final = 24


def dashboard(board: Board) -> dict[str, Any]:
    """A board as JSON values."""
    made = models.Dashboard(
        uid=board.uid,
        title=board.title,
        description=board.description,
        tags=[TAG],
        timezone="utc",
        editable=False,
        graph_tooltip=models.DashboardCursorSync.CROSSHAIR,
        time=models.DashboardDashboardTime(from_val=board.since, to="now"),
        timepicker=models.TimePickerConfig(
            hidden=False,
            refresh_intervals=["5s", "10s", "30s", "1m", "5m", "15m", "1h"],
        ),
        refresh=board.refresh,
        schema_version=SCHEMA,
        panels=_placed(board.strips),
        templating=models.DashboardDashboardTemplating(list_val=list(board.variables)),
        annotations=models.AnnotationContainer(list_val=[]),
        links=[
            models.DashboardLink(
                title="Boards",
                type_val=models.DashboardLinkType.DASHBOARDS,
                tags=[TAG],
                as_dropdown=False,
                include_vars=True,
                keep_time=True,
                target_blank=False,
                icon="external link",
                tooltip="With the time range and what is chosen",
            )
        ],
    )
    content: dict[str, Any] = json.loads(json.dumps(made, cls=JSONEncoder))
    return content


def _placed(strips: tuple[Strip, ...] | Any) -> list[models.Panel | models.RowPanel]:
    """The panels with their numbers and places, strip below strip."""
    placed: list[models.Panel | models.RowPanel] = []
    y = 0

    def put(panel: models.Panel, x: int, top: int, width: int, height: int) -> None:
        panel.id_val = len(placed) + 1
        panel.grid_pos = models.GridPos(h=height, w=width, x=x, y=top)
        placed.append(panel)

    for strip in strips:
        if strip.heading is not None:
            placed.append(
                models.RowPanel(
                    title=strip.heading,
                    collapsed=False,
                    id_val=len(placed) + 1,
                    grid_pos=models.GridPos(h=1, w=COLUMNS, x=0, y=y),
                    panels=[],
                )
            )
            y += 1
        x = 0
        for width, content in strip.panels:
            stack = content if isinstance(content, list) else [(strip.height, content)]
            top = y
            for height, panel in stack:
                put(panel, x, top, width, height)
                top += height
            x += width
        y += strip.height
    return placed


def text(content: dict[str, Any]) -> str:
    """A board as it is checked in."""
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def build(tiles: str | None = None) -> dict[str, str]:
    """By file name, the content of every board."""
    return {
        f"{board.uid.removeprefix(f'{TAG}-')}.json": text(dashboard(board))
        for board in all_boards(tiles)
    }
