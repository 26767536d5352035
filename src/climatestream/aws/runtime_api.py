"""Lambda's Runtime API on this machine, for one execution environment.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. It listens on 127.0.0.1 alone; on
AWS it is within the environment, here another user of the machine could ask it for an event.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, NamedTuple

VERSION: Final = "/2018-06-01/runtime/"


class Event(NamedTuple):
    """What happens in an environment: its process asks, answers, fails, or ends."""

    kind: Literal["next", "response", "error", "init", "exit"]
    request_id: str = ""
    body: bytes = b""
    said: str = ""
    """The error's type, or how the process ended."""


class RuntimeApi(ThreadingHTTPServer):
    """A server of the Runtime API, from its making until it is closed.

    `events` tells what the process did; an invocation that is given to `send` is the answer to
    its next question.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._next: queue.SimpleQueue[tuple[bytes, Mapping[str, str]] | None] = queue.SimpleQueue()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.server_address[1]}"

    def send(self, event: bytes, headers: Mapping[str, str]) -> None:
        """Give the process an event, with what the headers tell of the invocation."""
        self._next.put((event, headers))

    def take(self) -> tuple[bytes, Mapping[str, str]] | None:
        """Wait for the next invocation; None: there is none any more."""
        return self._next.get()

    def close(self) -> None:
        """Stop listening, and leave a process that waits without an answer."""
        self._next.put(None)
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that is killed leaves its connection: no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RuntimeApi

    def do_GET(self) -> None:
        if self.path != f"{VERSION}invocation/next":
            self._answer(404, b"{}")
            return
        self.server.events.put(Event("next"))
        invocation = self.server.take()
        if invocation is None:
            self.close_connection = True
        else:
            self._answer(200, *invocation)

    def do_POST(self) -> None:
        body = self._body()
        said = self.headers.get("Lambda-Runtime-Function-Error-Type", "")
        match self.path.removeprefix(VERSION).split("/"):
            case ["invocation", request_id, "response"]:
                event = Event("response", request_id, body)
            case ["invocation", request_id, "error"]:
                event = Event("error", request_id, body, said)
            case ["init", "error"]:
                event = Event("init", body=body, said=said)
            case _:
                self._answer(404, b"{}")
                return
        self.server.events.put(event)
        self._answer(202, b'{"status":"OK"}')

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
