"""The whole path of a reading, on one page.

1. read      a source gives batches: one dataset, one time, columns
2. encode    the codec writes each reading as a JSON document, keyed by its cell
3. publish   the broker takes them, and acknowledges
4. decode    the consumer polls messages; the codec makes columns of them, or dead letters
5. write     the store merges the rows by rank, and answers for each
6. commit    only then the group's offsets move on

Each step runs on a thread of its own (1; 2 and 3; polling; 4; 5 and 6) with bounded queues between:
a slow store slows the reader instead of filling memory. The heavy calls release the GIL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from climatestream.codec import encode_headers
from climatestream.errors import BrokerError
from climatestream.fastcodec import encode, keys
from climatestream.ingest import Ingest
from climatestream.meter import Counts, Meter
from climatestream.model import BATCH_ROWS, Batch
from climatestream.ports import Broker, Producer
from climatestream.stages import ahead
from climatestream.worker import work

GROUP = "climatestream"
"""The consumer group of a run in one process, and the default between processes."""

READ_AHEAD = 2
"""Batches read before they are encoded [batches]."""


def publish(batches: Iterable[Batch], producer: Producer, counts: Counts) -> int:
    """Publish every reading (steps 1 to 3); how many the broker has acknowledged.

    Raises
    ------
    DeliveryFailed
        Messages were not acknowledged.
    """
    with closing(ahead(batches, READ_AHEAD, "read")) as read:
        for batch in read:
            producer.publish(keys(batch.cells), encode(batch), encode_headers(batch))
            counts.published += len(batch)
    return producer.flush()


def run(
    batches: Iterable[Batch],
    broker: Broker,
    ingest: Ingest,
    meter: Meter,
    *,
    stop: threading.Event,
    abandon: threading.Event,
    batch_rows: int = BATCH_ROWS,
) -> None:
    """Take readings from a source to a store through a broker in this process.

    Ends when the batches end and all of them are stored. `stop` is what ends the batches: it is
    set here when writing fails, so that no one waits for what will not come. `abandon` ends all
    at once: what is not stored by then stays uncommitted in the broker.

    Raises
    ------
    SourceError, StoreError
        As reading and writing do, after what was published before is stored.
    """
    with (
        ThreadPoolExecutor(1, "publish") as pool,
        broker.producer() as producer,
        broker.consumer(GROUP) as consumer,
    ):
        publisher = pool.submit(publish, batches, producer, meter)
        try:
            work(
                consumer,
                ingest,
                meter,
                finished=publisher.done,
                stop=abandon,
                max_messages=batch_rows,
            )
        except BaseException:
            stop.set()
            raise
    error = publisher.exception()
    if error is not None and not (abandon.is_set() and isinstance(error, BrokerError)):
        raise error
