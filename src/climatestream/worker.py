"""The consumer as a member of a consumer group: poll, ingest, commit.

Delivery: an offset is committed only after the store has answered for every message below it.
A transient failure is tried again with backoff, for ever, and holds its partitions back; an
unknown error ends the worker with nothing of the batch committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from climatestream.ingest import Ingest, Prepared, Report
from climatestream.meter import Meter
from climatestream.model import BATCH_ROWS, Messages
from climatestream.patience import patiently
from climatestream.ports import Consumer
from climatestream.stages import ahead

POLL_S = 0.05
"""Time that a poll waits for messages [s]; what comes sooner is delivered at once."""


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

    Polling and decoding run ahead of writing, by one batch each, on threads of their own; `stop`
    is set here when writing fails, so that they end too. After `stop` the batch under way is
    finished; those ahead of it are left uncommitted, and come again.
    """
    batches = ahead(prepared(consumer, ingest, meter, finished, stop, max_messages), 1, "decode")
    with closing(batches):
        try:
            for batch in batches:
                failed = partial(meter.failed, batch.messages)
                began = time.monotonic()
                report = patiently(partial(_write, batch, ingest), stop, failed)
                if report is None:
                    return
                meter.saw(batch.messages, report, time.monotonic() - began)
                done = {block.partition: block.offset[-1] + 1 for block in batch.messages}
                patiently(partial(consumer.commit, done), stop, failed)
                if stop.is_set():
                    return
        except BaseException:
            stop.set()
            raise


def prepared(
    consumer: Consumer,
    ingest: Ingest,
    meter: Meter,
    finished: Callable[[], bool],
    stop: threading.Event,
    max_messages: int,
) -> Iterator[Prepared]:
    """Messages as they come, decoded while the next ones are polled; ends as `work` does."""
    polled = ahead(_polled(consumer, meter, finished, stop, max_messages), 1, "poll")
    with closing(polled):
        for messages in polled:
            prepare, failed = partial(ingest.prepare, messages), partial(meter.failed, messages)
            batch = patiently(prepare, stop, failed)
            if batch is None:
                return
            yield batch


def _polled(
    consumer: Consumer,
    meter: Meter,
    finished: Callable[[], bool],
    stop: threading.Event,
    max_messages: int,
) -> Iterator[list[Messages]]:
    """Messages as they come."""
    while not stop.is_set():
        last = finished()  # asked first: what came before it was true is polled below
        poll = partial(consumer.poll, max_messages, POLL_S)
        messages = patiently(poll, stop, partial(meter.failed, ()))
        if messages:
            yield messages
        elif last:
            return


def _write(batch: Prepared, ingest: Ingest) -> Report:
    """Write a batch, all of it or not at all."""
    report = ingest.finish(batch)
    if report.error is not None:
        raise report.error
    return report
