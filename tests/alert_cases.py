"""Data on which every alert fires, and data on which none does, for any store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from climatestream.dashboards.alerts import Alert, grafana_sql, limits
from climatestream.dashboards.grafana_sql import Range, expand
from climatestream.model import DeadLetter
from climatestream.ports import PipelineRow
from climatestream.testing.rows import Reading, rows

if TYPE_CHECKING:
    from climatestream.ports import Store

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
DATASET = "simulation"


def reading(now_ms: int, minutes_ago: float, **more: Any) -> Reading:
    """A mild reading about a time and published then."""
    at_ms = now_ms - round(minutes_ago * MINUTE_MS)
    calm = Reading(time_ms=at_ms, published_at_ms=at_ms, dataset=DATASET)
    return replace(calm, **more)


def row(now_ms: int, seconds_ago: float = 5.0, **more: Any) -> PipelineRow:
    """What a consumer wrote that is up to date."""
    calm = PipelineRow(
        time_ms=now_ms - round(seconds_ago * 1000),
        instance="here:1",
        topic="era5",
        partition=0,
        offset=100,
        high_water=100,
        rows=100,
        batch_ms=8.0,
        dead=0,
        errors=0,
        stored_p50_ms=20.0,
        stored_p95_ms=60.0,
        stored_p99_ms=90.0,
    )
    return replace(calm, **more)


def letter(offset: int = 7) -> DeadLetter:
    return DeadLetter("era5", 0, offset, 1, None, b"{", (), "not-json", "it is no JSON")


def fire(store: Store, now_ms: int) -> None:
    """Everything is wrong.

    Heat, frost and storm were published twenty minutes ago, and nothing since; a consumer is far
    behind, the store is slow, there is a dead letter.
    """
    readings = (
        reading(now_ms, 20, data={"temperature": 30.0}, latitude=48.0),
        reading(now_ms, 20, data={"temperature": -0.1}, latitude=60.0, country="FIN"),
        reading(now_ms, 20, data={"u10": -12.5, "v10": 16.7}, latitude=54.0, country=None),
    )
    assert store.write(rows(*readings)) == []
    store.record(
        [
            row(now_ms, partition=0, high_water=25_101),
            row(now_ms, partition=1, high_water=25_101, stored_p95_ms=5_001.0),
        ]
    )
    store.bury([letter()])


def stay_quiet(store: Store, now_ms: int) -> None:
    """All is well: values just within the limits, and extremes that are no news."""
    hot = {"temperature": 45.0, "u10": 40.0, "v10": 0.0}
    readings = (
        reading(now_ms, 9, data={"temperature": 29.99}, latitude=48.0),
        reading(now_ms, 9, data={"temperature": 0.0}, latitude=60.0),
        reading(now_ms, 9, data={"u10": 20.7, "v10": 0.0}, latitude=54.0),
        reading(now_ms, 9, data={"u10": 25.0}, latitude=55.0),  # half a wind has no speed
        reading(now_ms, 61, data=hot, latitude=50.0),  # published before the window
        reading(now_ms, 9, data=hot, latitude=51.0, time_ms=now_ms - 30 * DAY_MS),  # of long ago
    )
    assert store.write(rows(*readings)) == []
    store.record(
        [
            row(now_ms, partition=0, high_water=25_100),
            row(now_ms, partition=1, high_water=25_100, stored_p95_ms=5_000.0),
            row(now_ms, 90, partition=2, high_water=900_000, stored_p95_ms=90_000.0),  # it was so
            row(now_ms, partition=3, high_water=None, stored_p95_ms=None),  # from Lambda
            row(now_ms, partition=4, offset=None, high_water=900_000),  # none taken yet
        ]
    )


def answers(
    store: Store, alert: Alert, now_ms: int, given: Mapping[str, str | None] | None = None
) -> dict[tuple[str, ...], float | None]:
    """By labels, the value that Grafana would get: its very text, its macros filled in."""
    window_s = alert.window_s(limits(given))
    start, end = (
        datetime.fromtimestamp(ms / 1000, UTC) for ms in (now_ms - window_s * 1000, now_ms)
    )
    sql = expand(grafana_sql(alert), {}, Range(start, end))
    answer = store.query(sql)
    assert answer.columns[-1] == "value"
    for found in answer.rows:
        assert all(isinstance(label, str) for label in found[:-1])
    return {tuple(found[:-1]): found[-1] for found in answer.rows}


def fired(
    store: Store, alert: Alert, now_ms: int, given: Mapping[str, str | None] | None = None
) -> set[tuple[str, ...]]:
    """The labels for which it fires; an answer without rows fires where silence is an alert."""
    found = answers(store, alert, now_ms, given)
    if not found:
        return {()} if alert.silence == "Alerting" else set()
    return {labels for labels, value in found.items() if alert.is_over(value, limits(given))}
