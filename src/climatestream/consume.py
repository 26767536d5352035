"""`climatestream consume`: a worker between Kafka and a store."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from climatestream import metrics
from climatestream.dead_copies import DeadCopies
from climatestream.errors import UsageError
from climatestream.fastcodec import decode
from climatestream.ingest import UNSTATED, Ingest
from climatestream.interrupt import EXIT_CODE
from climatestream.keep import Keeper
from climatestream.logs import LOGGER
from climatestream.meter import Meter
from climatestream.progress import Progress
from climatestream.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable

    from climatestream.brokers.kafka import KafkaBroker
    from climatestream.interrupt import Interrupt
    from climatestream.ports import Start, Store

CONSUMED_ROWS: Final = 20_000
"""Messages handled at once, unless asked. Into CrateDB 50,000 are no faster and take 390 MB in
place of 300, 10,000 are a fifth slower."""

DRAIN_S: Final = 9.0
"""Time that a batch under way has to be answered for after a signal [s]: it is not committed
otherwise, and comes again."""


def give_up() -> None:
    """End the process: nothing of the batch under way is committed."""
    LOGGER.warning("the store did not answer in time: the batch under way will come again")
    os._exit(EXIT_CODE)


@dataclass(frozen=True)
class Worker:
    """A member of a consumer group that takes messages to a store.

    Parameters
    ----------
    broker, store
        Both open.
    group
        Whose offsets it moves.
    start
        Where the group begins that has committed nothing.
    dataset
        What a message is that names none.
    keep_s
        How long readings are kept [s]; None: for ever.
    until_caught_up
        End when the group has done all messages there are at the start, whoever of it does them.
    copy_dead_letters
        Each dead letter goes into the topic `<topic>.dead` too.
    metrics_port, metrics_host
        Where Prometheus metrics are served; None: nowhere.
    """

    broker: KafkaBroker
    store: Store
    group: str
    start: Start = "earliest"
    dataset: str | None = None
    keep_s: float | None = None
    until_caught_up: bool = False
    batch_rows: int = CONSUMED_ROWS
    copy_dead_letters: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Work until the interrupt, or until caught up; what `--json` prints."""
        began = time.monotonic()
        with ExitStack() as stack:
            ingest = Ingest(self.store, self.dataset or UNSTATED, decode)
            if self.keep_s is not None:
                datasets = ingest.datasets
                keeper = stack.enter_context(Keeper(self.store, self.keep_s, datasets.copy))
                ingest.horizon_ms = keeper.horizon_ms
            if self.copy_dead_letters:
                ingest.copy = stack.enter_context(DeadCopies(self.broker))
            consumer = stack.enter_context(self.broker.consumer(self.group, self.start))
            meter = stack.enter_context(Meter(self.store, self.broker.topic, consumer.high_water))
            if self.metrics_port is not None:
                collector = metrics.MeterCollector(meter)
                stack.enter_context(metrics.served(collector, self.metrics_port, self.metrics_host))
            stack.enter_context(Progress(meter, None))
            work(
                consumer,
                ingest,
                meter,
                finished=self._finished(interrupt),
                stop=interrupt.stop,
                max_messages=self.batch_rows,
            )
        return {
            "published": 0,
            "stored": meter.stored,
            "dead_letters": meter.dead,
            "expired": meter.expired,
            "retries": meter.retries,
            "seconds": round(time.monotonic() - began, 3),
            "datasets": sorted(ingest.datasets),
        }

    def _finished(self, interrupt: Interrupt) -> Callable[[], bool]:
        """Ends the work once the group has caught up, also while more messages come."""
        if not self.until_caught_up:
            return lambda: False
        caught_up = self.broker.caught_up(self.group)

        def finished() -> bool:
            if caught_up():
                interrupt.stop.set()
            return interrupt.stop.is_set()

        return finished


def reset(broker: KafkaBroker, group: str, start: Start, *, agreed: Callable[[], bool]) -> None:
    """Let a group that has offsets go on from elsewhere, if someone agrees.

    Raises
    ------
    UsageError
        No one does; nothing is changed.
    BrokerError
        The group has members.
    """
    if not broker.has_committed(group):
        return
    if not agreed():
        raise UsageError(
            f"group {group} has offsets in {broker.topic} already, and --from would leave them: "
            f"add --yes, or name another group with --group"
        )
    broker.reset(group, start)
