"""The four boards: which panels, how drawn, in which order and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from climatestream.dashboards import board_panels as more
from climatestream.dashboards import board_variables as chosen
from climatestream.dashboards import geomap, panels, visuals
from climatestream.dashboards.geomap import PANEL_HEIGHT, world_map
from climatestream.dashboards.visuals import RANGE, color, link, series, stat, steps, table

if TYPE_CHECKING:
    from grafana_foundation_sdk.models import dashboard as models

TAG: Final = "climatestream"
CLIMATE: Final = "climatestream-climate"
PLACE: Final = "climatestream-place"
PIPELINE: Final = "climatestream-pipeline"
QUALITY: Final = "climatestream-quality"

NO_TIME: Final = "No reading up to this time: another dataset or country?"
NO_PLACE: Final = "No cell lies in the place: a larger radius, or another polygon?"
NO_NORMAL: Final = (
    "No normal for this dataset and variable: `climatestream normals` computes them from readings "
    "of several years."
)
NO_PIPELINE: Final = "No consumer has reported in this span: is one running?"
NO_LAG: Final = (
    "No consumer reports a lag. That of a Lambda function is in CloudWatch: metric OffsetLag."
)
NO_LETTERS: Final = "No dead letter in this span."

TEMPERATURE: Final = "in ${temperature_unit:text}"
PRESSURE: Final = "in ${pressure_unit:text}"
WIND: Final = "in ${wind_unit:text}"
CHOSEN: Final = "${variable:text}, in ${unit}"

_KEPT: Final = (
    "dataset", "country", "variable", "resolution", "temperature_unit", "pressure_unit",
    "wind_unit",
)  # fmt: skip


@dataclass(frozen=True)
class Strip:
    """Panels side by side, each (columns of 24, panel); a list stacks panels over each other.

    With a heading the strip begins a row of the board, never a collapsed one.
    """

    height: int
    panels: Sequence[tuple[int, models.Panel | list[tuple[int, models.Panel]]]]
    heading: str | None = None


@dataclass(frozen=True)
class Board:
    """A board.

    Parameters
    ----------
    since
        The default time range begins here and ends now: `now-6h`.
    """

    uid: str
    title: str
    description: str
    since: str
    refresh: str
    variables: Sequence[models.VariableModel]
    strips: Sequence[Strip]
    kept: Sequence[str] = ()
    """Variables that links of this board's own values carry along."""


def to_climate(time: str) -> str:
    """The address of the Climate board at a time, with all else as it is chosen."""
    kept = "&".join(f"${{{name}:queryparam}}" for name in _KEPT)
    return f"/d/{CLIMATE}?${{__url_time_range}}&{kept}&var-at={time}"


_AT_POINT: Final = [link("Show this time on the maps", to_climate("${__value.time:date:iso}"))]
_COVERED: Final = steps((None, "#c9343c"), (50.0, "#f79a4c"), (90.0, "#fbf7cf"), (99.5, "#4e9fd7"))
_SIGMA: Final = steps(
    (None, "#2b2a8c"), (-3.0, "#3064c3"), (-2.0, "#4e9fd7"), (-1.0, "#99d2dc"), (-0.5, "#fbf7cf"),
    (0.5, "#fcdb96"), (1.0, "#f79a4c"), (2.0, "#e0553c"), (3.0, "#86123c"),
)  # fmt: skip


def _quantity_map(panel: panels.Panel, quantity: str, shown: str, tiles: str | None) -> Any:
    units = {"temperature": TEMPERATURE, "pressure": PRESSURE, "wind": WIND}
    return world_map(
        panel,
        shown,
        geomap.of_quantity(quantity, shown),
        title=f"{panel.title}, {units[quantity]}",
        unit="none",
        tiles=tiles,
        no_data=NO_TIME,
        arrows=more.ARROWS if quantity == "wind" else None,
    )


def _over_time(of: Sequence[panels.Panel]) -> list[tuple[int, models.Panel]]:
    return [
        (
            8,
            series(
                panel,
                "none",
                title=f"{panel.title}: lowest, mean and highest, {unit}",
                names=RANGE,
                band=("min", "max"),
                links=_AT_POINT,
            ),
        )
        for panel, unit in zip(of, (TEMPERATURE, PRESSURE, WIND), strict=True)
    ]


_BELOW: Final = "10 % of years below"
"""What is filled below is named as it is shown."""


def _normal(panel: panels.Panel) -> models.Panel:
    return series(
        panel,
        "none",
        title=f"{CHOSEN}: against its normal",
        no_data=NO_NORMAL,
        band=(_BELOW, "p90"),
        names={
            "value": {"color": color("fixed", "#fbbc62")},
            "normal": {
                "color": color("fixed", "#b5a2e0"),
                "custom__lineStyle": {"fill": "dash", "dash": [6, 4]},
            },
            "p10": {
                "displayName": _BELOW,
                "color": color("fixed", "#7456b9"),
                "custom__lineWidth": 0,
            },
            "p90": {
                "displayName": "10 % of years above",
                "color": color("fixed", "#7456b9"),
                "custom__lineWidth": 0,
            },
        },
    )


def climate(tiles: str | None = None) -> Board:
    """Maps and series of a country."""
    step: dict[str, dict[str, Any]] = {
        name: {
            "unit": "dateTimeAsIso" if name == "shown" else "string",
            "links": [
                link(said, to_climate("${__value.raw}" if name != "newest" else more.NEWEST))
            ],
        }
        for name, said in (
            ("earlier", "The stored time before"),
            ("later", "The stored time after"),
            ("newest", "Follow what arrives"),
        )
    }
    step["shown"] = {"unit": "dateTimeAsIso", "custom__cellOptions": {"type": "color-text"}}
    return Board(
        CLIMATE,
        "Climate",
        "Temperature, pressure and wind of a country: maps of one time, and series over the span.",
        "now-6h",
        "30s",
        [*chosen.CHOSEN, chosen.RESOLUTION, chosen.AT, *chosen.UNSEEN],
        [
            Strip(
                4,
                [
                    (12, table(more.TIME_SHOWN, "none", columns=step, no_data=NO_TIME)),
                    (
                        12,
                        stat(
                            more.NOW,
                            "none",
                            title=f"Lowest, mean, highest {TEMPERATURE}; fastest wind {WIND}",
                            no_data=NO_TIME,
                            decimals=1,
                        ),
                    ),
                ],
            ),
            Strip(
                PANEL_HEIGHT,
                [
                    (8, _quantity_map(more.TEMPERATURE_MAP, "temperature", "Temperature", tiles)),
                    (8, _quantity_map(more.PRESSURE_MAP, "pressure", "Pressure", tiles)),
                    (8, _quantity_map(more.WIND_MAP, "wind", "Wind speed", tiles)),
                ],
                "At the time shown",
            ),
            Strip(8, _over_time(more.CLIMATE_SERIES), "Over time"),
            Strip(
                PANEL_HEIGHT,
                [
                    (
                        8,
                        world_map(
                            more.VARIABLE_MAP,
                            "Value",
                            geomap.of_any_variable("Value"),
                            title=f"{CHOSEN}: at the time shown",
                            unit="none",
                            tiles=tiles,
                            no_data=NO_TIME,
                        ),
                    ),
                    (
                        8,
                        world_map(
                            more.ANOMALY_MAP,
                            "Anomaly",
                            [
                                visuals.override(
                                    "anomaly",
                                    displayName="Anomaly",
                                    unit=f"suffix: {more.SIGMA}",
                                    decimals=1,
                                    thresholds=_SIGMA,
                                )
                            ],
                            title="${variable:text}: standard deviations from normal "
                            "(value in ${unit})",
                            unit=f"suffix: {more.SIGMA}",
                            tiles=tiles,
                            no_data=NO_NORMAL,
                        ),
                    ),
                    (
                        8,
                        [
                            (
                                7,
                                series(
                                    more.CLIMATE_VARIABLE,
                                    "none",
                                    title=f"{CHOSEN}: lowest, mean and highest",
                                    names=RANGE,
                                    band=("min", "max"),
                                    links=_AT_POINT,
                                ),
                            ),
                            (8, _normal(more.CLIMATE_ANOMALY)),
                        ],
                    ),
                ],
                "${variable:text}",
            ),
        ],
        _KEPT,
    )


def place(tiles: str | None = None) -> Board:
    """A city and its surroundings, or a polygon."""
    speeds = ("#4e9fd7", "#99d2dc", "#fbf7cf", "#f79a4c", "#c9343c")
    return Board(
        PLACE,
        "Place",
        "A city with a radius, or a polygon: its series, distribution, wind rose and extremes.",
        "now-6h",
        "30s",
        [
            *chosen.CHOSEN,
            chosen.PLACE,
            chosen.RADIUS,
            chosen.POLYGON,
            chosen.RESOLUTION,
            chosen.AT,
            *chosen.UNSEEN,
            chosen.AREA,
        ],
        [
            Strip(
                PANEL_HEIGHT,
                [
                    (
                        8,
                        world_map(
                            more.SURROUNDINGS,
                            "Value",
                            geomap.of_any_variable("Value"),
                            title=f"{CHOSEN}: the place at the time shown",
                            unit="none",
                            tiles=tiles,
                            no_data=NO_PLACE,
                        ),
                    ),
                    (
                        8,
                        [
                            (
                                5,
                                stat(
                                    more.HERE,
                                    "none",
                                    title="Means at the time shown: temperature "
                                    f"{TEMPERATURE}, pressure {PRESSURE}, wind {WIND}",
                                    decimals=1,
                                ),
                            ),
                            (
                                10,
                                table(
                                    more.EXTREMES,
                                    "none",
                                    decimals=1,
                                    columns={"when": {"unit": "dateTimeAsIso"}},
                                ),
                            ),
                        ],
                    ),
                    (
                        8,
                        [
                            (
                                7,
                                series(
                                    more.PLACE_VARIABLE,
                                    "none",
                                    title=f"{CHOSEN}: lowest, mean and highest",
                                    names=RANGE,
                                    band=("min", "max"),
                                    links=_AT_POINT,
                                ),
                            ),
                            (8, _normal(more.PLACE_ANOMALY)),
                        ],
                    ),
                ],
            ),
            Strip(8, _over_time(more.PLACE_SERIES), "Over time"),
            Strip(
                10,
                [
                    (
                        12,
                        visuals.bars(
                            more.DISTRIBUTION,
                            "short",
                            "from",
                            title=f"{CHOSEN}: how many readings have which value",
                        ),
                    ),
                    (
                        12,
                        visuals.bars(
                            more.WIND_ROSE,
                            "percent",
                            "from",
                            stacked=True,
                            decimals=1,
                            names={
                                name: {"color": color("fixed", paint)}
                                for (name, *_), paint in zip(more.SPEEDS, speeds, strict=True)
                            },
                        ),
                    ),
                ],
                "Over the span",
            ),
        ],
        _KEPT,
    )


def pipeline(_: str | None = None) -> Board:
    """What consumers do, from what they report."""
    dead = steps((None, "text"), (1.0, "#e0553c"))
    return Board(
        PIPELINE,
        "Pipeline",
        "How fast readings arrive, how far consumers are behind, and what could not be stored.",
        "now-15m",
        "5s",
        [chosen.DATASET],
        [
            Strip(
                4,
                [
                    (
                        12,
                        stat(
                            more.TOTALS,
                            "short",
                            title="Readings, dead letters and errors in the span",
                            no_data=NO_PIPELINE,
                        ),
                    ),
                    (
                        6,
                        stat(
                            panels.DELAY,
                            "ms",
                            title="Published to stored at the newest time, by two clocks",
                            decimals=0,
                        ),
                    ),
                    (
                        6,
                        stat(
                            panels.QUERYABLE,
                            "ms",
                            title="Published until a query finds it",
                            decimals=0,
                            no_data="No consumer polls for what it has stored.",
                        ),
                    ),
                ],
            ),
            Strip(
                9,
                [
                    (
                        12,
                        series(
                            panels.RATE,
                            "suffix: /s",
                            title="Readings a second, of all consumers",
                            no_data=NO_PIPELINE,
                            interval="5s",
                            calcs=["mean", "max"],
                            low=0,
                        ),
                    ),
                    (
                        12,
                        series(
                            more.LAGS,
                            "short",
                            title="Messages behind, by partition",
                            no_data=NO_LAG,
                            interval="5s",
                            calcs=["lastNotNull", "max"],
                            low=0,
                        ),
                    ),
                ],
                "Flow",
            ),
            Strip(
                9,
                [
                    (
                        8,
                        series(
                            panels.LATENCY,
                            "ms",
                            title="Published to stored by minute: p50, p95, p99 of the slowest",
                            no_data=NO_PIPELINE,
                            interval="1m",
                            low=0,
                        ),
                    ),
                    (8, series(more.BATCH_TIME, "ms", no_data=NO_PIPELINE, interval="5s", low=0)),
                    (8, series(more.BATCHES, "short", no_data=NO_PIPELINE, interval="5s", low=0)),
                ],
                "Time and size",
            ),
            Strip(
                9,
                [
                    (
                        8,
                        series(
                            more.ERRORS,
                            "short",
                            title="Times that the store did not take a batch",
                            no_data=NO_PIPELINE,
                            interval="5s",
                            bars=True,
                            stacked=True,
                            low=0,
                        ),
                    ),
                    (
                        8,
                        series(
                            more.LETTERS_OVER_TIME,
                            "short",
                            title="Dead letters by reason over time",
                            no_data=NO_LETTERS,
                            interval="5s",
                            bars=True,
                            stacked=True,
                            low=0,
                        ),
                    ),
                    (
                        8,
                        table(
                            panels.LETTERS,
                            "short",
                            title="Dead letters by reason, of all time",
                            no_data="No dead letter.",
                            columns={
                                "newest": {"unit": "dateTimeAsIso"},
                                "letters": {"color": color("thresholds"), "thresholds": dead},
                            },
                        ),
                    ),
                ],
                "What went wrong",
            ),
            Strip(
                9,
                [
                    (
                        12,
                        table(
                            more.NEWEST_LETTERS,
                            "none",
                            no_data=NO_LETTERS,
                            columns={
                                "buried": {"unit": "dateTimeAsIso"},
                                "retried": {"unit": "dateTimeAsIso", "noValue": "no"},
                            },
                        ),
                    ),
                    (
                        12,
                        series(
                            more.ARRIVALS,
                            "short",
                            title="Readings by the minute in which they were stored",
                            bars=True,
                            stacked=True,
                            low=0,
                        ),
                    ),
                ],
            ),
        ],
    )


def quality(_: str | None = None) -> Board:
    """What is missing, and what can't be right."""
    moments = {
        name: {"unit": "dateTimeAsIso"}
        for name in ("oldest", "newest", "newest final", "from", "to", "time")
    }
    return Board(
        QUALITY,
        "Data quality",
        "Which days are whole, which times are missing, what is implausible, what is preliminary.",
        "now-30d",
        "1m",
        [*chosen.CHOSEN, *chosen.UNSEEN, chosen.LOW, chosen.HIGH],
        [
            Strip(
                4,
                [
                    (
                        24,
                        table(
                            more.FRESHNESS,
                            "short",
                            columns={
                                name: moments[name] for name in ("oldest", "newest", "newest final")
                            },
                        ),
                    )
                ],
            ),
            Strip(
                9,
                [
                    (
                        12,
                        table(
                            more.CALENDAR,
                            "percent",
                            title="${variable:text}: coverage by day, in % of a whole day",
                            colored=True,
                            thresholds=_COVERED,
                            decimals=0,
                            columns={
                                "week of": {
                                    "unit": "time:YYYY-MM-DD",
                                    "custom__cellOptions": {"type": "auto"},
                                }
                            },
                        ),
                    ),
                    (
                        12,
                        series(
                            panels.TIMES, "short", title="Cells with a reading, at each time", low=0
                        ),
                    ),
                ],
                "Coverage",
            ),
            Strip(
                9,
                [
                    (
                        8,
                        table(
                            panels.GAPS,
                            "dtdurations",
                            title="Gaps: the next time is later than one and a half steps",
                            no_data="No gap in this span.",
                            columns={name: moments[name] for name in ("from", "to")},
                        ),
                    ),
                    (
                        8,
                        stat(
                            panels.RANGE,
                            "none",
                            title=f"{CHOSEN}: values, and those outside the plausible range",
                            units={"values": "short", "outside": "short"},
                        ),
                    ),
                    (
                        8,
                        table(
                            panels.OUTSIDE,
                            "none",
                            title=f"{CHOSEN}: cells outside the plausible range, newest first",
                            no_data="Every value is plausible.",
                            columns={"time": moments["time"]},
                        ),
                    ),
                ],
                "Gaps and implausible values",
            ),
            Strip(
                9,
                [
                    (12, series(more.PRELIMINARY, "short", stacked=True, low=0)),
                    (
                        12,
                        series(
                            more.PRELIMINARY_DAYS,
                            "none",
                            title=f"{CHOSEN}: mean of preliminary and of final readings",
                        ),
                    ),
                ],
                "Preliminary against final",
            ),
        ],
        _KEPT,
    )


def all_boards(tiles: str | None = None) -> tuple[Board, ...]:
    """All four; `tiles` is the address of map tiles, `https://host/{z}/{x}/{y}.png`."""
    return climate(tiles), place(tiles), pipeline(tiles), quality(tiles)
