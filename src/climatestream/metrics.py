"""What a consumer does, as Prometheus metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from climatestream.errors import UsageError
from climatestream.meter import LATENCY_MS, Meter


class MeterCollector(Collector):
    """Reads a meter when it is scraped."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        meter = self._meter
        for name, value, said in (
            ("stored", meter.stored, "Messages that the store has answered for."),
            ("dead_letters", meter.dead, "Messages that can never be stored."),
            ("expired", meter.expired, "Messages older than what is kept."),
            ("retries", meter.retries, "Failures that were tried again."),
        ):
            yield CounterMetricFamily(f"climatestream_{name}", said, value)
        lag = math.nan if meter.lag is None else meter.lag
        yield GaugeMetricFamily("climatestream_lag_messages", "Published and not done.", lag)
        yield GaugeMetricFamily(
            "climatestream_batch_rows", "Messages of the newest batch.", meter.batch_rows
        )
        yield GaugeMetricFamily(
            "climatestream_batch_seconds",
            "Time in which the store answered for it.",
            meter.batch_ms / 1000,
        )
        counts = itertools.accumulate(meter.latency_ms[bound] for bound in LATENCY_MS)
        buckets = [
            ("+Inf" if math.isinf(bound) else str(bound / 1000), count)
            for bound, count in zip(LATENCY_MS, counts, strict=True)
        ]
        yield HistogramMetricFamily(
            "climatestream_event_to_stored_seconds",
            "From the message's time to the store's answer.",
            buckets,
            meter.latency_sum_ms / 1000,
        )


@contextmanager
def served(meter: Meter, port: int, host: str) -> Iterator[None]:
    """Serve a meter's metrics at /metrics while the context lasts.

    Raises
    ------
    UsageError
        The port can't be had.
    """
    registry = CollectorRegistry()
    registry.register(MeterCollector(meter))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"metrics can't be served on {host}:{port}: {error.strerror}; name another port with "
            f"--metrics-port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
