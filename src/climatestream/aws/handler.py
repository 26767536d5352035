"""The consumer as an AWS Lambda function: `climatestream.aws.handler.handler`.

Around the same `Ingest` as the worker: unwrap the event of a Kafka event source mapping, ingest
it, and say which messages are to be sent again.

Delivery: a message is left out of `batchItemFailures` only after the store has answered for it and
for all before it in its partition. Dead letters are kept in the store's table and count as done.
What fails for now is reported, never raised, from the first offset of each partition that is not
done; what is raised is a wrong configuration, or a bug, and then the whole batch comes again.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from climatestream.aws import log
from climatestream.aws.attempt import Attempt, Consumer, Progress, first_failed
from climatestream.aws.configuration import Configuration
from climatestream.aws.kafka_event import Answer, TopicPartition, answer, blocks, place_of
from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import Messages

RESERVE: Final = 0.2
RESERVE_S: Final = 2.0
"""Share of the invocation's time, and seconds at most, that are left for saying what was done."""

_FUNCTION: Final = "AWS_LAMBDA_FUNCTION_NAME"
_INSTANCE: Final = "AWS_LAMBDA_LOG_STREAM_NAME"
"""What Lambda tells: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""

_UNITS: Final[dict[str, log.Unit]] = {
    "Messages": "Count",
    "Stored": "Count",
    "DeadLetters": "Count",
    "Expired": "Count",
    "Failed": "Count",
    "ColdStart": "Count",
    "Duration": "Milliseconds",
    "EventToStored": "Milliseconds",
}
"""The metrics of an invocation. `Failed` counts the messages that are to be sent again, some of
which may have been stored; `EventToStored` is from a message's publishing to the store's answer."""

_function: Function | None = None
"""What the next invocation of this process finds again."""


class Context(Protocol):
    """What Lambda's runtime tells of the invocation.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Time until the invocation is ended by force [ms]."""


def handler(event: Mapping[str, Any], context: Context) -> Answer:
    """Take the messages of an event to the store; those to be sent again.

    Raises
    ------
    UsageError
        The function's configuration is wrong, or the event is none of Kafka's.
    Exception
        A bug.
    """
    global _function  # noqa: PLW0603 - Lambda keeps the process, and calls a function by its name
    if _function is None:
        _function = Function(os.environ)
    return _function(event, context)


class Function:
    """The function as it stays between invocations.

    Parameters
    ----------
    environment
        Its environment variables.

    Raises
    ------
    UsageError
        One of them is missing or wrong.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        configuration = Configuration.of(environment)
        self._name = environment.get(_FUNCTION, "climatestream")
        instance = environment.get(_INSTANCE, f"{self._name}:{os.getpid()}")
        self._consumer = Consumer(configuration, instance)
        self._work = threading.Thread()
        self._cold = True

    def __call__(self, event: Mapping[str, Any], context: Context) -> Answer:
        """See `handler`.

        The work is done on a thread of its own, so that nothing, not even a name server that does
        not answer, keeps this one from answering in time. There is one such thread at most.
        """
        began = time.monotonic()
        left_s = context.get_remaining_time_in_millis() / 1000.0
        end = began + left_s - min(RESERVE_S, RESERVE * left_s)
        messages = blocks(event)
        attempt = Attempt(self._consumer, messages, end)
        if self._ended(end):
            self._work = threading.Thread(target=attempt.run, name="ingest", daemon=True)
            self._work.start()
        ended = self._ended(end)
        if attempt.bug is not None:
            raise attempt.bug
        progress = attempt.progress  # what was answered for by now, whatever comes after
        if not ended and progress.error is None:
            progress = progress.failing(StoreUnavailable("the store did not answer in time"))
        failed = first_failed(messages, progress)
        self._say(messages, progress, failed, context.aws_request_id, time.monotonic() - began)
        if attempt.trouble is not None:
            log.line("WARN", f"the rows of demo.pipeline are late: {attempt.trouble}")
        self._cold = False
        return answer(messages, failed)

    def close(self) -> None:
        """Let the connections go: Lambda never asks for it, a process that goes on does."""
        self._consumer.close()

    def _ended(self, by: float) -> bool:
        """Whether the work has ended, at a time by `time.monotonic` at the latest."""
        if self._work.ident is not None:
            self._work.join(max(0.0, by - time.monotonic()))
        return not self._work.is_alive()

    def _say(
        self,
        messages: Sequence[Messages],
        progress: Progress,
        failed: Mapping[TopicPartition, int],
        request_id: str,
        seconds: float,
    ) -> None:
        """Write what was done as one line of the log, with its metrics."""
        count = sum(map(len, messages))
        again = sum(
            len(block) - bisect_left(block.offset, failed[place_of(block)])
            for block in messages
            if place_of(block) in failed
        )
        values: dict[str, float | Sequence[float]] = {
            "Messages": count,
            "Stored": progress.stored,
            "DeadLetters": len(progress.dead),
            "Expired": progress.expired,
            "Failed": again,
            "ColdStart": int(self._cold),
            "Duration": round(seconds * 1000.0, 3),
        }
        if latency_ms := [ms for of_one in progress.latency_ms.values() for ms in of_one]:
            values["EventToStored"] = latency_ms
        level: log.Level = "INFO"
        said = f"{count} messages are done"
        more: dict[str, Any] = {"requestId": request_id}
        if failed:
            level = "ERROR" if isinstance(progress.error, StoreError) else "WARN"
            said = f"{again} of {count} messages are to be sent again"
            more["failedFrom"] = {f"{topic}-{number}": at for (topic, number), at in failed.items()}
            more["error"] = str(progress.error)
        if progress.dead:
            more["firstDeadLetter"] = progress.dead[0].error
        log.line(level, said, **more, **log.metrics(self._name, _UNITS, values))
