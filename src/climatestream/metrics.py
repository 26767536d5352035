"""What a producer, a consumer or an event source mapping does, as Prometheus metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from climatestream.errors import UsageError
from climatestream.meter import LATENCY_MS, Counts, Latencies, Meter

if TYPE_CHECKING:
    from climatestream.aws.event_source import Counted


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
        yield _lag(meter.lag)
        yield from _batch(meter.batch_rows, meter.batch_ms, "the store")
        yield _event_to_stored(meter.latencies, "the store")


class PublishedCollector(Collector):
    """Reads what `publish` has done when it is scraped."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield CounterMetricFamily(
            "climatestream_published",
            "Readings handed to the broker's client.",
            self._counts.published,
        )


class MappingCollector(Collector):
    """Reads what a local event source mapping has done when it is scraped.

    Parameters
    ----------
    cold_starts
        Processes of the function that were started so far.
    lag
        Messages that the group has not done; None: no one knows.
    """

    def __init__(
        self, counted: Counted, cold_starts: Callable[[], int], lag: Callable[[], int | None]
    ) -> None:
        self._counted = counted
        self._cold_starts = cold_starts
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; of the same name as a worker's where they say the same."""
        counted = self._counted
        for name, value, said in (
            ("delivered", counted.delivered, "Records that the function has done."),
            ("invocations", counted.invocations, "Events that the function was sent."),
            ("invocation_errors", counted.errors, "Invocations that failed as a whole."),
            ("partial_failures", counted.partial, "Invocations that named records as failed."),
            ("retries", counted.retries, "Failures that were tried again."),
            ("cold_starts", self._cold_starts(), "Processes of the function that were started."),
        ):
            yield CounterMetricFamily(f"climatestream_{name}", said, value)
        discarded = CounterMetricFamily(
            "climatestream_discarded", "Records given up, by condition.", labels=["condition"]
        )
        for condition, count in sorted(counted.discarded.items()):
            discarded.add_metric([condition], count)
        yield discarded
        yield _lag(self._lag())
        yield from _batch(counted.batch_records, counted.batch_ms, "the function")
        yield _event_to_stored(counted.latencies, "the function")


def _lag(messages: int | None) -> Metric:
    value = math.nan if messages is None else messages
    return GaugeMetricFamily("climatestream_lag_messages", "Published and not done.", value)


def _batch(rows: int, ms: float, who: str) -> Iterator[Metric]:
    yield GaugeMetricFamily("climatestream_batch_rows", "Messages of the newest batch.", rows)
    yield GaugeMetricFamily(
        "climatestream_batch_seconds", f"Time in which {who} answered for it.", ms / 1000
    )


def _event_to_stored(latencies: Latencies, who: str) -> Metric:
    counts = itertools.accumulate(latencies.counts[bound] for bound in LATENCY_MS)
    buckets = [
        ("+Inf" if math.isinf(bound) else str(bound / 1000), count)
        for bound, count in zip(LATENCY_MS, counts, strict=True)
    ]
    return HistogramMetricFamily(
        "climatestream_event_to_stored_seconds",
        f"From the message's time to the answer of {who}.",
        buckets,
        latencies.sum_ms / 1000,
    )


@contextmanager
def served(collector: Collector, port: int, host: str) -> Iterator[None]:
    """Serve metrics at /metrics while the context lasts.

    Raises
    ------
    UsageError
        The port can't be had.
    """
    registry = CollectorRegistry()
    registry.register(collector)
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
