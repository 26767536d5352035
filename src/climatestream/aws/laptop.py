"""`climatestream lambda`: the function behind its event source mapping, on this machine."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from climatestream import metrics
from climatestream.aws.answers import Outcome
from climatestream.aws.destination import Form, open_destination
from climatestream.aws.event_source import Counted, EventPollers
from climatestream.aws.mapping_event import EventSource
from climatestream.aws.mapping_settings import EventSourceMapping, Function, not_the_source
from climatestream.errors import BrokerError, Transient, UsageError
from climatestream.interrupt import EXIT_CODE
from climatestream.logs import LOGGER
from climatestream.progress import Spinner

if TYPE_CHECKING:
    from climatestream.brokers.kafka import KafkaBroker
    from climatestream.interrupt import Interrupt

DRAIN_S: Final = 9.0
"""Time that invocations under way have after a signal [s]: what they did not answer comes again."""
LAG_S: Final = 5.0
"""Time between two looks at the lag [s]: each asks the broker for three lists of offsets."""
DIST: Final = Path("dist")
"""Where `make lambda` puts its zips."""
PYTHON: Final = Path(".venv-lambda/bin/python")
"""The Python of AWS's runtime, with its client, from `make env-lambda`."""
MACHINES: Final = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
"""By Python's name of a machine, AWS's."""


class Invoker(Protocol):
    """A function, ready to be invoked."""

    @property
    def cold_starts(self) -> int:
        """Processes that were started so far."""

    def __call__(self, event: bytes) -> Outcome:
        """Send it an event."""

    def kill(self) -> None:
        """End at once what is under way."""


def artefact(file: Path | None, python: str | None) -> tuple[Path, str]:
    """The zip and the Python that run: as named, or what is deployed, or what is made for here.

    What is deployed runs where there is the Python for it; else the zip for this Python.
    """
    deployed = DIST / f"climatestream-lambda-{MACHINES.get(platform.machine(), 'none')}.zip"
    if file is None and python is None and PYTHON.exists() and deployed.exists():
        return deployed, str(PYTHON.absolute())
    return file or DIST / "climatestream-lambda-local.zip", python or sys.executable


def variables_of(
    store: str, dataset: str | None, keep: str | None, environment: Mapping[str, str]
) -> dict[str, str]:
    """What the function is told in its environment.

    Raises
    ------
    UsageError
        It could not write to that store.
    """
    if not store.startswith("crate://"):
        raise UsageError(
            f"--store {store}: the function writes to CrateDB alone, expected "
            f"crate://user@host:port/schema"
        )
    secrets = ("CLIMATESTREAM_STORE_PASSWORD", "CLIMATESTREAM_STORE_SECRET")
    found = {name: environment[name] for name in secrets if name in environment}
    found["CLIMATESTREAM_STORE"] = store
    if dataset is not None:
        found["CLIMATESTREAM_DATASET"] = dataset
    if keep is not None:
        found["CLIMATESTREAM_KEEP"] = keep
    return found


class Lag:
    """How many messages a group has not done, asked every few seconds while it is open.

    By a thread of its own: while the broker is away, metrics and progress do not wait for it.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self.messages: int | None = None
        """None: the broker has not said. What is wrong with it, polling tells."""
        self._ask = ask
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask_often, name="lag", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask_often(self) -> None:
        while True:
            try:
                self.messages = self._ask()
            except (Transient, BrokerError):
                self.messages = None
            if self._end.wait(LAG_S):
                return


@dataclass(frozen=True)
class Laptop:
    """A mapping between a topic and a function.

    Parameters
    ----------
    broker, url
        Open, and its URL.
    servers
        Its addresses, as events name them.
    group
        Whose offsets it moves.
    mapping, function
        Their settings.
    until_caught_up
        End when the group has done all messages there are at the start.
    metrics_port, metrics_host
        Where Prometheus metrics are served; None: nowhere.
    """

    broker: KafkaBroker
    url: str
    servers: str
    group: str
    mapping: EventSourceMapping
    function: Function
    until_caught_up: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"

    def run(self, invoke: Invoker, interrupt: Interrupt, *, alone: bool) -> dict[str, Any]:
        """Deliver until the interrupt, or until caught up; what `--json` prints.

        Parameters
        ----------
        alone
            Whether the function takes one invocation at a time.
        """
        began = time.monotonic()
        not_the_source(self.mapping.destination, self.broker.topic)
        source = EventSource(self.servers, self.mapping.event_source_arn)
        form = Form(source, self.function.name)
        with ExitStack() as stack:
            destination = stack.enter_context(
                open_destination(self.mapping.destination, self.url, form)
            )
            pollers = EventPollers(
                self.mapping, source, invoke, destination, concurrency=1 if alone else None
            )
            counted = pollers.counted
            consumer = self.broker.consumer(
                self.group, self.mapping.start, on_revoke=pollers.revoked
            )
            stack.enter_context(consumer)
            lag = stack.enter_context(Lag(lambda: self.broker.lag(self.group)))
            if self.metrics_port is not None:
                collector = metrics.MappingCollector(
                    counted, lambda: invoke.cold_starts, lambda: lag.messages
                )
                stack.enter_context(metrics.served(collector, self.metrics_port, self.metrics_host))
            stack.enter_context(
                Spinner(
                    lambda: said(counted, invoke, began, lag.messages),
                    lambda: fields(counted, invoke, began, lag.messages),
                )
            )
            pollers.run(consumer, finished=self._finished(), stop=interrupt.stop)
        return result(counted, invoke, time.monotonic() - began)

    def _finished(self) -> Callable[[], bool]:
        if not self.until_caught_up:
            return lambda: False
        return self.broker.caught_up(self.group)


def result(counted: Counted, invoke: Invoker, seconds: float) -> dict[str, Any]:
    """What was done, as `--json` prints it."""
    return {
        "delivered": counted.delivered,
        "discarded": sum(counted.discarded.values()),
        "invocations": counted.invocations,
        "errors": counted.errors,
        "partial_failures": counted.partial,
        "retries": counted.retries,
        "cold_starts": invoke.cold_starts,
        "seconds": round(seconds, 3),
        "conditions": dict(counted.discarded),
    }


def fields(counted: Counted, invoke: Invoker, began: float, lag: int | None) -> dict[str, Any]:
    """What is done so far, for a log that machines read."""
    return {
        **result(counted, invoke, time.monotonic() - began),
        "lag": lag,
        "batch_records": counted.batch_records,
        "batch_ms": round(counted.batch_ms, 3),
        "waiting_for": counted.trouble,
    }


def said(counted: Counted, invoke: Invoker, began: float, lag: int | None) -> str:
    """What is done so far, in a line."""
    rate = counted.delivered / (time.monotonic() - began)
    line = (
        f"{counted.delivered:,} delivered, {rate:,.0f}/s, {counted.invocations:,} invocations, "
        f"{invoke.cold_starts} cold starts"
    )
    if counted.batch_records:
        line += f", {counted.batch_records:,} records in {counted.batch_ms:,.0f} ms"
    if lag:
        line += f", lag {lag:,}"
    discarded = sum(counted.discarded.values())
    if discarded:
        line += f", {discarded:,} given up"
    if counted.trouble is not None:
        line += f", trying again: {counted.trouble}"
    return line


def give_up(kill: Callable[[], object]) -> None:
    """End the process and the function's: what was not answered will come again."""
    LOGGER.warning("the function did not answer in time: its batches will come again")
    kill()
    os._exit(EXIT_CODE)
