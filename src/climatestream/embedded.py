"""The pipeline in one process: a broker in memory between a source and a store, and the page."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from climatestream import pipeline
from climatestream.audit import Auditor
from climatestream.brokers.memory import MemoryBroker
from climatestream.fastcodec import decode
from climatestream.ingest import UNSTATED, Ingest
from climatestream.keep import Keeper
from climatestream.meter import Meter
from climatestream.model import BATCH_ROWS
from climatestream.progress import Progress, Spinner
from climatestream.replay import cut
from climatestream.stores.open import open_store

if TYPE_CHECKING:
    from climatestream.interrupt import Interrupt
    from climatestream.model import Batch
    from climatestream.ports import Store

TEMPORARY = "climatestream-"


@contextmanager
def embedded(
    store: str,
    interrupt: Interrupt,
    *,
    dataset: str | None = None,
    keep_s: float | None = None,
    port: int | None = None,
    host: str = "127.0.0.1",
    batch_rows: int = BATCH_ROWS,
    duckdb_memory: str | None = None,
    audited: bool = False,
) -> Iterator[Embedded]:
    """Open all that a run in one process needs; leaving it closes all.

    Parameters
    ----------
    store
        As it is typed: `duckdb:FILE`.
    interrupt
        Ends a run.
    dataset
        What a message is that names none.
    keep_s
        How long readings are kept [s]; None: for ever.
    port
        Where the page is served; None: no page.
    host
        On which address; beyond this machine it wants a token, which `url` carries.
    batch_rows
        Readings handled at once, at most.
    audited
        Messages are kept for `Embedded.audit`.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_store(store, duckdb_memory=duckdb_memory))
        kept = stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY))
        broker = stack.enter_context(
            MemoryBroker(capacity=max(1, batch_rows // 2), keep=Path(kept) if audited else None)
        )
        ingest = Ingest(opened, dataset or UNSTATED, decode)
        keeper = None
        if keep_s is not None:
            keeper = stack.enter_context(Keeper(opened, keep_s, lambda: set(ingest.datasets)))
            ingest.horizon_ms = keeper.horizon_ms
        url = ""
        if port is not None:
            from climatestream import places
            from climatestream.web.server import Server

            places.settle(opened)
            url = stack.enter_context(Server(opened, port=port, host=host)).url
        partitions = list(broker.committed(pipeline.GROUP))
        meter = stack.enter_context(
            Meter(opened, broker.topic, lambda: broker.high_water(partitions))
        )
        yield Embedded(opened, broker, ingest, meter, keeper, interrupt, batch_rows, url)


@dataclass(eq=False)
class Embedded:
    """A run in one process."""

    store: Store
    broker: MemoryBroker
    ingest: Ingest
    meter: Meter
    keeper: Keeper | None
    interrupt: Interrupt
    batch_rows: int
    url: str
    """The page's address; empty where there is none."""
    seconds: float = 0.0

    def run(self, batches: Iterable[Batch], *, slices: int | None) -> None:
        """Take all readings to the store, or those until the interrupt."""
        began = time.monotonic()
        with Progress(self.meter, slices) as progress:
            pipeline.run(
                progress.watch(cut(batches, self.batch_rows)),
                self.broker,
                self.ingest,
                self.meter,
                stop=self.interrupt.stop,
                abandon=self.interrupt.abandon,
                batch_rows=self.batch_rows,
            )
        self.seconds += time.monotonic() - began

    def caught_up(self) -> bool:
        """Whether the store has answered for all that was published."""
        meter = self.meter
        return meter.published == meter.stored + meter.dead + meter.expired

    def audit(self) -> dict[str, Any]:
        """What became of every message of the run, as `audit --json` says it."""
        if self.keeper is not None:
            self.keeper.drop()
        auditor = Auditor(
            self.broker,
            self.store,
            pipeline.GROUP,
            self.ingest.dataset,
            self.ingest.decode,
            self.interrupt.stop.is_set,
        )
        with Spinner(auditor.said):
            return auditor.audit().as_json()

    def result(self) -> dict[str, Any]:
        """What `--json` prints of a run."""
        return {
            "published": self.meter.published,
            "stored": self.meter.stored,
            "dead_letters": self.meter.dead,
            "expired": self.meter.expired,
            "seconds": round(self.seconds, 3),
            "datasets": sorted(self.ingest.datasets),
        }
