"""Execution environments: processes of AWS's own runtime client over the unpacked zip.

Their life is that of https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html:

- one is made at the first invocation that finds no idle one (a cold start), and used again;
- its init phase may take ten seconds; where it fails, it is tried once more within the
  invocation, whose time it then takes;
- an exception of the function is an answer like another: the environment is used again;
- at the end of the invocation's time, above its memory, or when the process ends by itself, it is
  killed, and the next invocation makes a new one.

Memory is that of the process, as the kernel counts what is resident. A limit of the address space
(RLIMIT_AS) would count what threads and libraries reserve and never use, and turn AWS's kill into
a MemoryError that the function can catch; a cgroup needs rights that a laptop's user has not. The
resident memory is looked at every 20 ms and once more, with its peak, when the function answers:
an answer that took more is none.

Not simulated: a read-only file system, IAM, billing, and freezing between invocations.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

import psutil

from climatestream.aws.answers import FunctionError, Outcome
from climatestream.aws.mapping_event import PAYLOAD_BYTES
from climatestream.aws.mapping_settings import Function
from climatestream.aws.runtime_api import Event, RuntimeApi
from climatestream.errors import UsageError

INIT_S: Final = 10.0
"""What the init phase may take [s]."""
LOOK_S: Final = 0.02
"""How often the memory of a busy process is looked at [s]."""
END_S: Final = 2.0
"""Time that an idle process has to end by itself [s]."""
MB: Final = 1024 * 1024

CLIENT: Final = ("awslambdaric", "simplejson", "snapshot_restore_py", "runtime_client")
SDK: Final = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""What AWS's runtime has beside the function: its client, and AWS's SDK where there is one."""
CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""What a function's role gives it on AWS; here they are ours, where we have any."""


@dataclass(frozen=True)
class Runtime:
    """What the environments of a function share.

    Parameters
    ----------
    function
        As it is deployed.
    code
        The folder of the unpacked zip: LAMBDA_TASK_ROOT.
    python
        The interpreter.
    packages
        A folder with the runtime client, and nothing else of the interpreter's packages.
    version
        Of Python: `3.13`.
    log
        Where the function's output goes.
    """

    function: Function
    code: Path
    python: str
    packages: Path
    version: str
    log: IO[bytes]

    def variables(self, api: str) -> dict[str, str]:
        """The environment of a process: AWS's variables and the function's, and none of ours.

        https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
        """
        name = self.function.name
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        day = time.strftime("%Y/%m/%d", time.gmtime())
        return {
            **{key: os.environ[key] for key in CREDENTIALS if key in os.environ},
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PYTHONPATH": os.pathsep.join((str(self.code), str(self.packages))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "_HANDLER": self.function.handler,
            "LAMBDA_TASK_ROOT": str(self.code),
            "LAMBDA_RUNTIME_DIR": str(self.packages),
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{self.version}",
            "AWS_LAMBDA_RUNTIME_API": api,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.function.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[$LATEST]{uuid.uuid4().hex}",
            **self.function.variables,
        }

    def say(self, line: str) -> None:
        """Write a line of the platform's into the function's log."""
        self.log.write(f"{line}\n".encode())
        self.log.flush()


def unpack(file: Path, folder: Path) -> None:
    """Put the contents of a zip into a folder.

    Raises
    ------
    UsageError
        It is not there, or no zip.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    except FileNotFoundError:
        raise UsageError(
            f"{file} is not there: `make lambda` builds it; or name another with --zip, or run "
            f"the handler without it with --in-process"
        ) from None
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} can't be unpacked: {error}") from error


def lay_out(python: str, folder: Path) -> str:
    """Put links to the runtime client of an interpreter into a folder; the interpreter's version.

    Raises
    ------
    UsageError
        It has none, or is no Python.
    """
    code = (
        "import json, sys, importlib.util as u; "
        "found = {name: getattr(u.find_spec(name), 'origin', None) for name in sys.argv[1:]}; "
        "print(json.dumps(['%d.%d' % sys.version_info[:2], found]))"
    )
    try:
        said = subprocess.run(  # noqa: S603 - the interpreter that the user names
            [python, "-c", code, *CLIENT, *SDK], capture_output=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{python} runs no Python: {error}; name one with --python") from error
    version, found = json.loads(said)
    missing = [name for name in CLIENT if not found[name]]
    if missing:
        raise UsageError(
            f"{python} has no {' and no '.join(missing)}: pip install 'climatestream[lambda]' "
            f"(Linux alone), or run with --in-process"
        )
    for origin in filter(None, found.values()):
        file = Path(origin)
        target = file.parent if file.name == "__init__.py" else file
        (folder / target.name).symlink_to(target)
    return str(version)


class _Sandbox:
    """A process of the runtime client, with the Runtime API that it asks."""

    def __init__(self, runtime: Runtime) -> None:
        self._function = runtime.function
        self._api = RuntimeApi()
        self._process = subprocess.Popen(  # noqa: S603 - the user's own function
            # -S: none of the interpreter's other packages, as on AWS
            [runtime.python, "-S", "-m", "awslambdaric", runtime.function.handler],
            cwd=runtime.code,
            env=runtime.variables(self._api.address),
            stdin=subprocess.DEVNULL,
            stdout=runtime.log,
            stderr=runtime.log,
            start_new_session=True,  # Ctrl-C is ours: what is under way ends in order
        )
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _watch(self) -> None:
        code = self._process.wait()
        said = f"exit status {code}" if code >= 0 else f"signal: {signal.Signals(-code).name}"
        self._api.events.put(Event("exit", said=said))

    def init(self, deadline: float) -> FunctionError | None:
        """Wait until it asks for an event; why it does not."""
        while True:
            try:
                event = self._api.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return FunctionError("Sandbox.Timedout", "the init phase timed out")
            if event.kind == "next":
                return None
            if event.kind == "init":
                return _error_of(event)
            if event.kind == "exit":
                return FunctionError(
                    "Runtime.ExitError", f"runtime exited with {event.said} in its init phase"
                )

    def ended(self) -> bool:
        """Whether the process has ended while it was idle."""
        # without memory it is dead, though the thread that waits for it may not know it yet
        return self._process.poll() is not None or _memory(self.pid) == 0

    def invoke(self, request_id: str, event: bytes) -> tuple[Outcome, int, bool]:
        """Send an event; what becomes of it, the memory at its peak [bytes], whether it lives."""
        timeout_s = self._function.timeout_s
        deadline = time.monotonic() + timeout_s
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{self._function.name}"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(round(1000 * (time.time() + timeout_s))),
            "Lambda-Runtime-Invoked-Function-Arn": arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}",
        }
        self._api.send(event, headers)
        highest = 0
        while True:
            left_s = deadline - time.monotonic()
            try:
                found = self._api.events.get(timeout=max(0.0, min(LOOK_S, left_s)))
            except queue.Empty:
                found = None
            highest = max(highest, _memory(self.pid))
            ends = self._end(found, request_id, left_s, highest)
            if ends is not None:
                return Outcome(request_id, error=ends), highest, False
            if found is not None and found.request_id == request_id:
                return self._answered(found), highest, True

    def _end(
        self, found: Event | None, request_id: str, left_s: float, highest: int
    ) -> FunctionError | None:
        """Why the process is at its end; None: it is not."""
        allowed = self._function.memory_mb
        if highest > allowed * MB:
            return FunctionError(
                "Runtime.ExitError",
                f"runtime exited with signal: killed, at {highest // MB} MB of {allowed} MB",
            )
        if found is not None and found.kind == "exit":
            return FunctionError("Runtime.ExitError", f"runtime exited with {found.said}")
        if left_s <= 0 and (found is None or found.request_id != request_id):
            return FunctionError(
                "Sandbox.Timedout", f"task timed out after {self._function.timeout_s} seconds"
            )
        return None

    @staticmethod
    def _answered(found: Event) -> Outcome:
        if found.kind == "error":
            return Outcome(found.request_id, error=_error_of(found))
        if len(found.body) > PAYLOAD_BYTES:
            size = f"{len(found.body):,} bytes, {PAYLOAD_BYTES:,} are allowed"
            error = FunctionError("Function.ResponseSizeTooLarge", f"the answer has {size}")
            return Outcome(found.request_id, error=error)
        return Outcome(found.request_id, found.body)

    def kill(self, grace_s: float = 0.0) -> None:
        """End the process: after a time to end by itself, or at once."""
        if grace_s:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._api.close()


class Environment:
    """An execution environment: one process at a time, one invocation at a time.

    Parameters
    ----------
    runtime
        What it shares with the others.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sandbox: _Sandbox | None = None
        self.inits = 0
        """Processes that were started."""

    def invoke(self, event: bytes) -> Outcome:
        """Send an event to the function, and wait for what becomes of it.

        Never raises for what the function does.
        """
        request_id = str(uuid.uuid4())
        if self._sandbox is not None and self._sandbox.ended():
            self.kill()
        init_ms, peak = None, 0
        if self._sandbox is None:
            began = time.monotonic()
            sandbox = self._init(INIT_S)
            if isinstance(sandbox, FunctionError):  # once more, in the invocation's time
                sandbox = self._init(float(self._runtime.function.timeout_s))
            init_ms = 1000 * (time.monotonic() - began)
            if isinstance(sandbox, FunctionError):
                outcome = Outcome(request_id, error=sandbox)
                self._report(outcome, init_ms, init_ms, peak)
                return outcome
            self._sandbox = sandbox
        began = time.monotonic()
        outcome, peak, lives = self._sandbox.invoke(request_id, event)
        self._report(outcome, 1000 * (time.monotonic() - began), init_ms, peak)
        if not lives:
            self.kill()
        return outcome

    def _init(self, timeout_s: float) -> _Sandbox | FunctionError:
        self.inits += 1
        sandbox = _Sandbox(self._runtime)
        failed = sandbox.init(time.monotonic() + timeout_s)
        if failed is None:
            return sandbox
        sandbox.kill()
        return failed

    def _report(
        self, outcome: Outcome, duration_ms: float, init_ms: float | None, peak: int
    ) -> None:
        """Write what AWS writes at the end of an invocation into the function's log."""
        error = outcome.error
        if error is not None:
            self._runtime.say(
                f"RequestId: {outcome.request_id} Error: {error.message} {error.kind}"
            )
        line = (
            f"REPORT RequestId: {outcome.request_id}\tDuration: {duration_ms:.2f} ms\t"
            f"Memory Size: {self._runtime.function.memory_mb} MB\tMax Memory Used: {peak // MB} MB"
        )
        self._runtime.say(line if init_ms is None else f"{line}\tInit Duration: {init_ms:.2f} ms")

    @property
    def pid(self) -> int | None:
        """The process; None where there is none."""
        return None if self._sandbox is None else self._sandbox.pid

    def kill(self, grace_s: float = 0.0) -> None:
        """End the process; the next invocation makes a new one."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.kill(grace_s)


def _error_of(event: Event) -> FunctionError:
    """What the runtime client says of an exception."""
    try:
        said = json.loads(event.body)
        return FunctionError(str(said["errorType"]), str(said["errorMessage"]))
    except (ValueError, TypeError, KeyError):
        return FunctionError(event.said or "Unhandled", event.body.decode(errors="replace"))


def _memory(pid: int) -> int:
    """Resident memory of a process at its peak [bytes]; where no peak is told, now; 0: ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        with suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return 0 if peak is None else int(peak.split()[1]) * 1024


class Environments:
    """The environments of a function: an invocation takes an idle one, or a new one.

    May be used from several threads. The one used last is used first, so that few are warm.

    Parameters
    ----------
    function
        As it is deployed.
    code
        A zip, or the folder of one that is unpacked.
    python
        An interpreter that has the runtime client.
    log
        Where the function's output goes: a file, or None for standard error.
    """

    def __init__(
        self,
        function: Function,
        code: Path,
        python: str = sys.executable,
        log: IO[bytes] | None = None,
    ) -> None:
        self._function = function
        self._code = code
        self._python = python
        self._log = log
        self._runtime: Runtime
        self._idle: list[Environment] = []
        self._all: list[Environment] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="climatestream-lambda-")
        packages, code = Path(self._folder.name, "runtime"), self._code
        packages.mkdir()
        try:
            if not code.is_dir():
                code = Path(self._folder.name, "code")
                unpack(self._code, code)
            version = lay_out(self._python, packages)
        except BaseException:
            self._folder.cleanup()
            raise
        log: IO[bytes] = self._log or sys.stderr.buffer
        self._runtime = Runtime(
            self._function, code.resolve(), self._python, packages, version, log
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            idle = list(self._idle)
        for environment in self._all:
            environment.kill(END_S if environment in idle else 0.0)
        self._folder.cleanup()

    @property
    def cold_starts(self) -> int:
        """Processes that were started so far."""
        return sum(environment.inits for environment in self._all)

    @property
    def pids(self) -> Sequence[int]:
        """The processes that run now."""
        return [environment.pid for environment in self._all if environment.pid is not None]

    def __call__(self, event: bytes) -> Outcome:
        """Invoke the function."""
        with self._lock:
            if self._idle:
                environment = self._idle.pop()
            else:
                environment = Environment(self._runtime)
                self._all.append(environment)
        try:
            return environment.invoke(event)
        finally:
            with self._lock:
                self._idle.append(environment)

    def kill(self) -> None:
        """End every process at once, and leave nothing behind: ours may end next."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(self._folder.name, ignore_errors=True)
