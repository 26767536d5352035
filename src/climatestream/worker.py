"""The consumer as a member of a consumer group: poll, ingest, commit.

Delivery: an offset is committed only after the store has answered for every message below it.
A transient failure is tried again with backoff, for ever, and holds its partitions back; an
unknown error ends the worker with nothing of the batch committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from climatestream.errors import Transient
from climatestream.ingest import Ingest, Prepared, Report
from climatestream.meter import Meter
from climatestream.model import BATCH_ROWS, Messages
from climatestream.ports import Consumer
from climatestream.stages import ahead

T = TypeVar("T")

POLL_S = 0.05
"""Time that a poll waits for messages [s]; what comes sooner is delivered at once."""

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0
"""Backoff between tries at a store or broker that is not available [s]: long enough to let it
recover, short enough that a reading is seen soon after."""


def work(
    consumer: Consumer,
    ingest: Ingest,
    meter: Meter,
    *,
    finished: Callable[[], bool],
    stop: threading.Event,
    max_messages: int = BATCH_ROWS,
) -> None:
    """Take messages to the store until `finished` says so and none is left, or until `stop`.

    Decoding runs ahead of writing, by one batch, on a thread of its own; `stop` is set here when
    writing fails, so that it ends too.
    """
    batches = ahead(_batches(consumer, ingest, meter, finished, stop, max_messages), 1, "decode")
    with closing(batches):
        try:
            for batch in batches:
                began = time.monotonic()
                report = _patiently(partial(_write, batch, ingest), batch.messages, meter, stop)
                if report is None:
                    return
                consumer.commit({b.partition: b.offset[-1] + 1 for b in batch.messages})
                meter.saw(batch.messages, report, time.monotonic() - began)
        except BaseException:
            stop.set()
            raise


def _batches(
    consumer: Consumer,
    ingest: Ingest,
    meter: Meter,
    finished: Callable[[], bool],
    stop: threading.Event,
    max_messages: int,
) -> Iterator[Prepared]:
    """Messages as they come, decoded."""
    while not stop.is_set():
        last = finished()  # asked first: what came before it was true is polled below
        messages = _patiently(partial(consumer.poll, max_messages, POLL_S), (), meter, stop)
        if messages:
            prepared = _patiently(partial(ingest.prepare, messages), messages, meter, stop)
            if prepared is not None:
                yield prepared
        elif last:
            return


def _write(batch: Prepared, ingest: Ingest) -> Report:
    """Write a batch, all of it or not at all."""
    report = ingest.finish(batch)
    if report.error is not None:
        raise report.error
    return report


def _patiently(
    call: Callable[[], T], messages: Sequence[Messages], meter: Meter, stop: threading.Event
) -> T | None:
    """The answer of a call, tried again while it fails transiently; None: stopped before."""

    def failed(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Transient):
            meter.failed(messages, error)

    tries = Retrying(
        retry=retry_if_exception_type(Transient),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=failed,
        retry_error_callback=lambda _: None,
    )
    return tries(call)
