"""The handler in this process, without zip and runtime client: for a debugger.

Its time is told, but not enforced; its memory is ours; one invocation at a time, as a handler may
expect that its globals are its own.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Self

import orjson

from climatestream.aws.answers import FunctionError, Outcome
from climatestream.aws.mapping_settings import Function
from climatestream.errors import UsageError
from climatestream.logs import LOGGER


@dataclass(frozen=True)
class Context:
    """What a handler learns of its invocation.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    aws_request_id: str
    function_name: str
    memory_limit_in_mb: str
    deadline: float
    function_version: str = "$LATEST"

    @property
    def invoked_function_arn(self) -> str:
        return f"arn:aws:lambda:us-east-1:000000000000:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Time that is left of the invocation [ms]."""
        return max(0, int(1000 * (self.deadline - time.monotonic())))


class InProcess:
    """The function of a handler's name, called here.

    Parameters
    ----------
    function
        As it is deployed. Its variables become this process's.
    """

    cold_starts = 1

    def __init__(self, function: Function) -> None:
        self._function = function
        self._handler: Callable[[Any, Context], Any]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        module, _, name = self._function.handler.rpartition(".")
        os.environ.update(self._function.variables)
        os.environ["AWS_LAMBDA_FUNCTION_NAME"] = self._function.name
        try:
            self._handler = getattr(importlib.import_module(module.replace("/", ".")), name)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"Function.Handler is {self._function.handler}, which can't be imported: {error}"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def __call__(self, event: bytes) -> Outcome:
        """Call the handler; an exception of it is an outcome, and logged whole."""
        request_id = str(uuid.uuid4())
        # what it prints is its log, and ours is standard error
        with self._lock, redirect_stdout(sys.stderr):
            context = Context(
                request_id,
                self._function.name,
                str(self._function.memory_mb),
                time.monotonic() + self._function.timeout_s,
            )
            try:
                return Outcome(
                    request_id, orjson.dumps(self._handler(orjson.loads(event), context))
                )
            except Exception as error:
                LOGGER.exception("the handler failed")
                return Outcome(request_id, error=FunctionError(type(error).__name__, str(error)))

    def kill(self) -> None:
        """Nothing to end: the process itself ends."""
