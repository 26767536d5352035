"""The metrics say what the meter has counted, where they were asked to be served and nowhere else.

A scrape sees the newest counts, and nothing of the process but them.
"""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, cast
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from climatestream import metrics
from climatestream.aws.event_source import Counted
from climatestream.errors import StoreUnavailable, UsageError
from climatestream.ingest import Report
from climatestream.meter import LATENCY_MS, Meter
from climatestream.model import DeadLetter, Messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from climatestream.ports import Store

NOW_MS = 1_800_000_000_000
HOST = "127.0.0.1"


class NoStore:
    """Takes the rows of `demo.pipeline`."""

    def record(self, _: object) -> None:
        pass


def block(partition: int, first: int, latencies_ms: Sequence[int]) -> Messages:
    n = len(latencies_ms)
    times = [NOW_MS - latency for latency in latencies_ms]
    return Messages(
        "t", partition, range(first, first + n), times, [None] * n, [b"v"] * n, [()] * n
    )


def letter(offset: int) -> DeadLetter:
    return DeadLetter("t", 0, offset, NOW_MS, None, b"v", (), "not-json", "not JSON")


@pytest.fixture
def meter() -> Meter:
    return Meter(cast("Store", NoStore()), "t", lambda: {0: 30}, lambda: NOW_MS)


@pytest.fixture
def port() -> int:
    with socket.create_server((HOST, 0)) as free:
        found: int = free.getsockname()[1]
        return found


def scrape(port: int) -> Mapping[str, float]:
    """By name of a sample, and the bound of a bucket or the condition, its value."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {sample.name + "".join(sample.labels.values()): sample.value for sample in samples}


def test_counters_are_what_the_meter_has_counted_so_far(meter: Meter, port: int) -> None:
    with metrics.served(metrics.MeterCollector(meter), port, HOST):
        before = scrape(port)
        meter.saw(
            [block(0, 0, [5] * 10)], Report(stored=7, too_old={("t", 0): 2}, dead=[letter(3)]), 0.25
        )
        meter.failed([block(0, 10, [5])], StoreUnavailable("gone"))
        after = scrape(port)
    names = ("stored", "dead_letters", "expired", "retries")
    assert [before[f"climatestream_{name}_total"] for name in names] == [0, 0, 0, 0]
    assert [after[f"climatestream_{name}_total"] for name in names] == [7, 1, 2, 1]
    assert after["climatestream_batch_rows"] == 10
    assert after["climatestream_batch_seconds"] == 0.25


def test_event_to_stored_is_a_histogram_in_seconds(meter: Meter, port: int) -> None:
    """A bucket counts what is not above its bound, and so all that the smaller ones count."""
    meter.saw([block(0, 0, [-3, 5, 6, 100, 101, 90_000])], Report(stored=6), 0.1)
    with metrics.served(metrics.MeterCollector(meter), port, HOST):
        found = scrape(port)
    name = "climatestream_event_to_stored_seconds"
    buckets = {
        float(key.removeprefix(f"{name}_bucket")): value
        for key, value in found.items()
        if key.startswith(f"{name}_bucket")
    }
    assert list(buckets) == [bound / 1000 for bound in LATENCY_MS]
    assert (buckets[0.005], buckets[0.01], buckets[0.05]) == (2, 3, 3)
    assert (buckets[0.1], buckets[0.25], buckets[60.0], buckets[float("inf")]) == (4, 5, 5, 6)
    assert found[f"{name}_count"] == 6
    assert found[f"{name}_sum"] == pytest.approx(90.209)


def test_lag_is_not_a_number_until_it_is_known(meter: Meter, port: int) -> None:
    with metrics.served(metrics.MeterCollector(meter), port, HOST):
        assert scrape(port)["climatestream_lag_messages"] != 0
        meter.lag = 20
        assert scrape(port)["climatestream_lag_messages"] == 20


def test_a_mapping_says_what_it_has_counted(port: int) -> None:
    """What says the same as a worker's has the worker's name."""
    counted, lag = Counted(), [None, 12]
    collector = metrics.MappingCollector(counted, lambda: 3, lambda: lag.pop(0))
    with metrics.served(collector, port, HOST):
        before = scrape(port)
        counted.delivered, counted.invocations, counted.errors, counted.partial = 900, 10, 2, 1
        counted.retries, counted.batch_records, counted.batch_ms = 3, 100, 250.0
        counted.discarded["RetryAttemptsExhausted"] = 4
        counted.latencies.add(80, 900)
        after = {name.removeprefix("climatestream_"): n for name, n in scrape(port).items()}
    assert before["climatestream_delivered_total"] == 0
    assert math.isnan(before["climatestream_lag_messages"])
    names = ("delivered", "invocations", "invocation_errors", "partial_failures", "retries")
    assert [after[f"{name}_total"] for name in names] == [900, 10, 2, 1, 3]
    assert after["cold_starts_total"] == 3
    assert after["discarded_totalRetryAttemptsExhausted"] == 4
    assert after["lag_messages"] == 12
    assert (after["batch_rows"], after["batch_seconds"]) == (100, 0.25)
    assert after["event_to_stored_seconds_bucket0.05"] == 0
    assert after["event_to_stored_seconds_bucket0.1"] == 900


def test_a_publisher_serves_what_it_has_published_while_it_does(port: int) -> None:
    command = ("publish", "simulation:", "--broker", "-", "--rate", "50/s")
    with subprocess.Popen(
        [sys.executable, "-m", "climatestream", *command, "--metrics-port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as publish:
        try:
            deadline = time.monotonic() + 30
            published = 0.0
            while published < 20:
                assert publish.poll() is None
                assert time.monotonic() < deadline
                with suppress(ConnectionError, URLError):
                    published = scrape(port)["climatestream_published_total"]
                time.sleep(0.05)
        finally:
            publish.terminate()


def test_only_our_own_metrics_are_served(meter: Meter, port: int) -> None:
    """None of the process or of another meter: what is there is documented."""
    with metrics.served(metrics.MeterCollector(meter), port, HOST):
        assert {name.split("_")[0] for name in scrape(port)} == {"climatestream"}


def test_metrics_are_served_on_the_address_that_was_named_alone(meter: Meter, port: int) -> None:
    with (
        metrics.served(metrics.MeterCollector(meter), port, HOST),
        pytest.raises(ConnectionRefusedError),
    ):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


def test_the_port_is_free_again_afterwards(meter: Meter, port: int) -> None:
    for _ in range(2):
        with metrics.served(metrics.MeterCollector(meter), port, HOST):
            assert scrape(port)


def test_a_port_that_is_taken_is_wrong_usage_with_the_next_step(meter: Meter) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"{HOST}:{port}.*--metrics-port"),
            metrics.served(metrics.MeterCollector(meter), port, HOST),
        ):
            pass
