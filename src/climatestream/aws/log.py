"""What the function writes into its log: JSON objects, one a line, with metrics in them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

NAMESPACE: Final = "climatestream"
"""Of the metrics in CloudWatch."""
DIMENSION: Final = "FunctionName"
VALUES: Final = 100
"""Values of a metric in one line at most."""

Unit = Literal["Count", "Milliseconds"]
Level = Literal["INFO", "WARN", "ERROR"]


def line(level: Level, message: str, **fields: Any) -> None:
    """Write a line. `timestamp` and `level` are the names by which Lambda filters by level.

    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = {"timestamp": now, "level": level, "message": message, **fields}
    print(orjson.dumps(said, default=str).decode(), flush=True)


def metrics(
    function: str, units: Mapping[str, Unit], values: Mapping[str, float | Sequence[float]]
) -> dict[str, Any]:
    """Fields that make a line a document of the Embedded Metric Format.

    CloudWatch makes metrics of it without being called. A sequence is a distribution, of which a
    line may hold 100 values: of a longer one as many are taken, evenly by rank.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    return {
        "_aws": {
            "Timestamp": time.time_ns() // 1_000_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [[DIMENSION]],
                    "Metrics": [{"Name": name, "Unit": units[name]} for name in values],
                }
            ],
        },
        DIMENSION: function,
        **{
            name: value if isinstance(value, int | float) else _some(sorted(value))
            for name, value in values.items()
        },
    }


def _some(values: Sequence[float]) -> Sequence[float]:
    if len(values) <= VALUES:
        return values
    last = len(values) - 1
    return [values[round(n * last / (VALUES - 1))] for n in range(VALUES)]
