"""The embedded page's server: a few addresses over a store, on this machine alone.

    /            the page, with its style and script
    /state       what it shows now, as JSON
    /live        the same over a WebSocket, whenever it changes
    /field.png   the picture of a variable at a time
    /series      lowest, mean and highest value of the newest times

The WebSocket never builds a queue: the browser asks, gets one answer when there is something
newer than what it has drawn, draws it, and asks again. A slow one skips frames.
"""

from __future__ import annotations

import errno
import hashlib
import socket as sockets
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import anyio
import orjson
import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from climatestream.errors import ClimatestreamError, Transient, UsageError
from climatestream.web.page import BEAT_S, Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from climatestream.ports import Store

HOST = "127.0.0.1"
PORT = 8765
PORTS_TRIED = 100
"""Ports tried from the wanted one up [ports]."""
HEARTBEAT_S = 5.0
"""Time after which an asking browser gets an answer though nothing is new [s]: it takes a longer
silence for a dead server."""
CLOSE_S = 0.4
"""Time that a query under way, and then connections, have to end when the server stops [s]."""
REQUEST_BYTES = 4096
"""Size of a browser's request over the WebSocket at most [bytes]."""
BAD_REQUEST = 1008
"""The WebSocket's code for a request that breaks the rules."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

T = TypeVar("T")


def create_app(page: Page) -> Starlette:
    """The page as an ASGI application."""
    app = Starlette(
        routes=[
            Route("/state", _state),
            Route("/field.png", _field),
            Route("/series", _series),
            WebSocketRoute("/live", _live),
            Mount("/", StaticFiles(directory=Path(__file__).parent / "static", html=True)),
        ],
        middleware=[
            Middleware(_Headers),
            # another name for this address means a foreign page that had its name point here
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        ],
        exception_handlers={ClimatestreamError: _failure},
    )
    app.state.page = page
    return app


class _Headers:
    """Says in every answer what a browser may do with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


async def _in_thread(ask: Callable[[], T]) -> T:
    """Ask the store without holding up other browsers; a server that stops does not wait."""
    return await to_thread.run_sync(ask, abandon_on_cancel=True)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _failure(_: Request, error: Exception) -> Response:
    """A sentence, and the status that tells whose fault it is."""
    status = 400 if isinstance(error, UsageError) else 500
    if isinstance(error, Transient):
        status = 503
    return _json({"error": str(error)}, status)


async def _state(request: Request) -> Response:
    page: Page = request.app.state.page
    wanted = request.query_params
    return _json(
        await _in_thread(lambda: page.state(wanted.get("dataset"), wanted.get("variable")))
    )


async def _field(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable, text = (_required(request, n) for n in ("dataset", "variable", "time"))
    version = request.query_params.get("version")
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"time {text!r} is none; expected one like 2025-08-10T00:00Z") from error
    if at.tzinfo is None:
        raise UsageError(f"time {text!r} says no offset; expected one like 2025-08-10T00:00Z")
    png = await _in_thread(lambda: page.png(dataset, variable, at, version))
    if not png:
        return _json({"error": f"no {variable} of dataset {dataset} at {text}"}, 404)
    return Response(png, media_type="image/png")


async def _series(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable = (_required(request, name) for name in ("dataset", "variable"))
    return _json(await _in_thread(lambda: page.series(dataset, variable)))


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise UsageError(f"parameter {name} of {request.url.path} is missing")
    return value


# ----------------------------------------------------------------------------- live updates


class _Asked:
    """The newest request of a browser; an older one that has no answer yet is forgotten."""

    def __init__(self) -> None:
        self.request: dict[str, str | None] | None = None
        self.changed = anyio.Event()

    def put(self, request: dict[str, str | None]) -> None:
        self.request = request
        self.changed.set()
        self.changed = anyio.Event()


async def _live(socket: WebSocket) -> None:
    """Answer each request when there is something that the browser has not seen.

    A request is `{"dataset": ..., "variable": ..., "seen": token}`, each text or null; an answer
    is the state with a token, or `{"error": sentence}`.
    """
    origin = socket.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != socket.headers.get("host"):
        await socket.close(BAD_REQUEST, "only the page itself may ask")
        return
    await socket.accept()
    asked = _Asked()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_answer, socket, asked)
        try:
            while True:
                asked.put(_request(await socket.receive_text()))
        except UsageError as error:
            await socket.close(BAD_REQUEST, str(error))
        except WebSocketDisconnect:
            pass
        tasks.cancel_scope.cancel()


def _request(text: str) -> dict[str, str | None]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError("a request is a JSON object") from error
    if not isinstance(request, dict) or request.keys() - {"dataset", "variable", "seen"}:
        raise UsageError("a request is a JSON object with dataset, variable and seen")
    if not all(value is None or isinstance(value, str) for value in request.values()):
        raise UsageError("dataset, variable and seen of a request are text or null")
    return request


async def _answer(socket: WebSocket, asked: _Asked) -> None:
    while True:
        changed = asked.changed
        if asked.request is None:
            await changed.wait()
            continue
        request = asked.request
        deadline = anyio.current_time() + HEARTBEAT_S
        while request is asked.request:
            message, token = await _news(socket.app.state.page, request)
            if token != request.get("seen") or anyio.current_time() >= deadline:
                if request is asked.request:
                    asked.request = None
                    try:
                        await socket.send_text(message)
                    except WebSocketDisconnect:
                        return
                break
            with anyio.move_on_after(BEAT_S):
                await changed.wait()


async def _news(page: Page, request: dict[str, str | None]) -> tuple[str, str]:
    """The state that a request is about, as JSON, and a token that changes with it."""
    try:
        state = await _in_thread(
            lambda: page.state(request.get("dataset"), request.get("variable"))
        )
        content: dict[str, Any] = {"state": state}
    except ClimatestreamError as error:
        content = {"error": str(error)}
    token = hashlib.blake2b(orjson.dumps(content), digest_size=8).hexdigest()
    return orjson.dumps({**content, "token": token}).decode(), token


# ------------------------------------------------------------------------------- the server


class Server:
    """The page on 127.0.0.1, served by a thread while the context lasts.

    Signals stay with the caller. Leaving the context takes less than a second, whatever
    browsers are connected; the store may be closed after it.

    Parameters
    ----------
    store
        Open; asked from any thread.
    port
        The wanted one; the next free one is taken where it is busy. 0: any.

    Raises
    ------
    UsageError
        On entering: no port can be had.
    """

    def __init__(
        self, store: Store, *, port: int = PORT, clock: Callable[[], float] = time.time
    ) -> None:
        self._port = port
        self._page = Page(store, clock)
        self._config = uvicorn.Config(
            create_app(self._page),
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=REQUEST_BYTES,
        )

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        listener = _listen(self._port)
        self._port = listener.getsockname()[1]
        self._uvicorn = uvicorn.Server(self._config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([listener],), name="page", daemon=True
        )
        self._thread.start()
        while not self._uvicorn.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._page.close(CLOSE_S)
        self._uvicorn.should_exit = True
        self._thread.join(CLOSE_S)
        self._uvicorn.force_exit = True
        self._thread.join()


def _listen(port: int) -> sockets.socket:
    """A listening socket on the first free port from the wanted one up."""
    last = min(port + PORTS_TRIED, 65536) if port else 1
    for candidate in range(port, last):
        listener = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM)
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"port {candidate} can't be used: {error.strerror}; name another with --port"
                ) from error
        else:
            return listener
    raise UsageError(
        f"ports {port} to {last - 1} of {HOST} are all in use; name another with --port"
    )
