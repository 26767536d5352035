"""What the consumers did of late, from `demo.pipeline`, and how much is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from climatestream.dashboards.panels import iso

if TYPE_CHECKING:
    from climatestream.web.asking import Asking

COUNTS_S: Final = 1.0
"""Age of counts, rate and latency at most [s]."""
IDLE_S: Final = 15.0
"""Age of the newest row of `demo.pipeline` from which nothing is running [s]: rows come every 5."""
FIRST_ROW_S: Final = 1.0
"""Time that the first row of a consumer speaks of [s]."""


@dataclass(frozen=True)
class Pace:
    """What the consumers did of late; None where no row tells.

    `p50_ms` is the mean of the partitions' medians weighted by rows, `p95_ms` the highest of the
    partitions: event to stored.
    """

    rate: float
    lag: int | None
    p50_ms: float | None
    p95_ms: float | None


def counts(asking: Asking) -> dict[str, Any]:
    """Readings and dead letters in the store, and the pace, as the state of the page has them."""
    return asking.fresh("counts", lambda: _ask(asking), COUNTS_S)


def pipeline_until(asking: Asking) -> datetime:
    """The end of what `demo.pipeline` tells: now, or its newest row where nothing runs."""
    now = datetime.fromtimestamp(asking.clock(), UTC)
    newest = asking.fresh(
        "pipeline",
        lambda: asking.query('SELECT max("time") AS newest FROM demo.pipeline').rows[0][0],
        COUNTS_S,
    )
    idle = newest is None or (now - newest).total_seconds() > IDLE_S
    return newest if idle and newest is not None else now


def _ask(asking: Asking) -> dict[str, Any]:
    ((readings,),) = asking.query("SELECT count(*) FROM demo.climate_data").rows
    ((dead,),) = asking.query("SELECT count(*) FROM demo.dead_letters").rows
    now = datetime.fromtimestamp(asking.clock(), UTC)
    rows = asking.query(
        'SELECT "time", instance, "rows", "offset", high_water, stored_p50_ms, stored_p95_ms '
        'FROM demo.pipeline WHERE "time" > ? ORDER BY "time" DESC LIMIT 1000',
        [iso(now - timedelta(seconds=4 * IDLE_S))],
    ).rows
    return {"readings": readings, "dead_letters": dead, "pace": _pace(rows, now)}


def _pace(rows: list[tuple[Any, ...]], now: datetime) -> Pace | None:
    """What the newest rows of each instance say; `rows` newest first."""
    if not rows:
        return None
    rate = 0.0
    last: list[tuple[Any, ...]] = []
    for instance in {row[1] for row in rows}:
        times = sorted({row[0] for row in rows if row[1] == instance})
        if (now - times[-1]).total_seconds() > IDLE_S:
            continue
        newest = [row for row in rows if row[1] == instance and row[0] == times[-1]]
        seconds = (times[-1] - times[-2]).total_seconds() if len(times) > 1 else FIRST_ROW_S
        rate += sum(row[2] for row in newest) / seconds
        last += newest
    behind = [row[4] - row[3] for row in last if row[3] is not None and row[4] is not None]
    timed = [row for row in last if row[5] is not None and row[2]]
    return Pace(
        rate=rate,
        lag=sum(behind) if behind else None,
        p50_ms=(
            sum(row[5] * row[2] for row in timed) / sum(row[2] for row in timed) if timed else None
        ),
        p95_ms=max((row[6] for row in timed), default=None),
    )
