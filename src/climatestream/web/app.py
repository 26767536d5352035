"""The embedded page's server: a few addresses over a store.

    /                   the page, with its style and modules
    /plotly.js          the library that draws its charts, from its wheel
    /countries.json     the outlines
    /state              what there is now, as JSON
    /live               the same over a WebSocket with the newest field, whenever it changes
    /frame              a field at any time, in binary (frames.py)
    /times              all stored times of a dataset
    /series  /cell      lines for the charts
    /reading            all values of a cell at a time
    /panel/NAME         a panel of `dashboards.panels`, filled in; its query at /sql/NAME
    /export/NAME.csv    a panel as a file; also .parquet
    /field.png          the picture of a variable at a time

The WebSocket never builds a queue: the browser asks, gets one answer when there is something
newer than what it has drawn, draws it, and asks again. A slow one skips frames.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import mimetypes
import secrets
import socket as sockets
import threading
import time
from datetime import datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio
import orjson
import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from climatestream.errors import ClimatestreamError, Transient, UsageError
from climatestream.web.access import Guard, SayHeaders, is_loopback
from climatestream.web.charts import Charts, Look
from climatestream.web.frames import pack
from climatestream.web.page import Page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from starlette.requests import Request

    from climatestream.ports import Store
    from climatestream.web.page import State

HOST: Final = "127.0.0.1"
PORT: Final = 8765
PORTS_TRIED: Final = 100
"""Ports tried from the wanted one up [ports]."""
HEARTBEAT_S: Final = 5.0
"""Time after which an asking browser gets an answer though nothing is new [s]: it takes a longer
silence for a dead server."""
CLOSE_S: Final = 0.4
"""Time that a query under way, and then connections, have to end when the server stops [s]."""
REQUEST_BYTES: Final = 4096
"""Size of a browser's request over the WebSocket at most [bytes]."""
BAD_REQUEST: Final = 1008
"""The WebSocket's code for a request that breaks the rules."""
NAME_LENGTH: Final = 200
"""Length of the name of a dataset or variable at most [characters]."""
BROWSERS: Final = 64
"""WebSockets open at once at most; one more is told to try later."""
TRY_LATER: Final = 1013

STATIC: Final = Path(__file__).parent / "static"

T = TypeVar("T")


def create_app(page: Page, *, host: str = HOST, token: str | None = None) -> Starlette:
    """The page as an ASGI application."""
    answers = {
        "/state": _state,
        "/frame": _frame,
        "/times": _times,
        "/series": _charted(Charts.series),
        "/cell": _charted(Charts.cell),
        "/reading": _charted(Charts.reading),
        "/panel/{name}": _named(Charts.panel),
        "/sql/{name}": _named(Charts.sql),
        "/export/{name}.{form}": _export,
        "/field.png": _field,
        "/plotly.js": _plotly,
        "/countries.json": _countries,
    }
    app = Starlette(
        routes=[
            *(Route(path, answer) for path, answer in answers.items()),
            WebSocketRoute("/live", _live),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[Middleware(SayHeaders), Middleware(Guard, host=host, token=token)],
        exception_handlers={ClimatestreamError: _failure},
    )
    app.state.page = page
    app.state.charts = Charts(page)
    app.state.browsers = 0
    return app


async def _in_thread(ask: Callable[[], T]) -> T:
    """Ask the store without holding up other browsers; a server that stops does not wait."""
    return await to_thread.run_sync(ask, abandon_on_cancel=True)


def _json(content: object, status: int = 200) -> Response:
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY),
        status,
        media_type="application/json",
    )


async def _failure(_: Request, error: Exception) -> Response:
    """A sentence, and the status that tells whose fault it is."""
    status = 400 if isinstance(error, UsageError) else 500
    if isinstance(error, Transient):
        status = 503
    return _json({"error": str(error)}, status)


# ------------------------------------------------------------------------------ parameters


def _required(request: Request, name: str) -> str:
    value = _optional(request, name)
    if value is None:
        raise UsageError(f"parameter {name} of {request.url.path} is missing")
    return value


def _optional(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    if value is not None and len(value) > NAME_LENGTH:
        raise UsageError(
            f"parameter {name} has {len(value)} characters, expected at most {NAME_LENGTH}"
        )
    return value or None


def _instant(request: Request, name: str) -> datetime | None:
    text = _optional(request, name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name} {text!r} is none; expected one like 2025-08-10T00:00Z") from error
    if at.tzinfo is None:
        raise UsageError(f"{name} {text!r} says no offset; expected one like 2025-08-10T00:00Z")
    if not 1900 <= at.year <= 2200:
        raise UsageError(f"{name} {text!r} is outside 1900 to 2200, the times that are stored")
    return at


def _place(request: Request) -> tuple[float, float] | None:
    text = _optional(request, "cell")
    if text is None:
        return None
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"cell {text!r} is none; expected LATITUDE,LONGITUDE") from error
    if not (-90.0 <= latitude <= 90.0 and -360.0 <= longitude <= 720.0):
        raise UsageError(f"cell {text!r} is not on the globe; expected LATITUDE,LONGITUDE")
    return latitude, longitude


def _look(request: Request) -> Look:
    look = Look(
        dataset=_required(request, "dataset"),
        variable=_required(request, "variable"),
        time=_instant(request, "time"),
        since=_instant(request, "from"),
        until=_instant(request, "to"),
        place=_place(request),
    )
    if look.since is not None and look.until is not None and look.since > look.until:
        raise UsageError("from is later than to")
    return look


# --------------------------------------------------------------------------------- answers


async def _state(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable = _optional(request, "dataset"), _optional(request, "variable")
    return _json(await _in_thread(lambda: page.state(dataset, variable)))


async def _frame(request: Request) -> Response:
    page: Page = request.app.state.page
    look = _look(request)
    known = _optional(request, "grid")

    def ask() -> bytes:
        page.check(look.dataset, look.variable)
        at = look.time or page.newest(look.dataset).time
        frame = page.frame(look.dataset, look.variable, at)
        return pack(frame, page.choice(look.dataset, look.variable).factor, known)

    return Response(await _in_thread(ask), media_type="application/octet-stream")


async def _field(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable = (_required(request, name) for name in ("dataset", "variable"))
    text = _required(request, "time")
    at = _instant(request, "time")
    png = await _in_thread(lambda: page.png(dataset, variable, at)) if at else b""
    if not png:
        return _json({"error": f"no {variable} of dataset {dataset} at {text}"}, 404)
    return Response(png, media_type="image/png")


async def _times(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset = _required(request, "dataset")

    def ask() -> Any:
        page.check(dataset)
        return page.times(dataset).times

    return _json(await _in_thread(ask))


def _charted(ask: Callable[[Charts, Look], object]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        charts, look = request.app.state.charts, _look(request)
        return _json(await _in_thread(lambda: ask(charts, look)))

    return answer


def _named(ask: Callable[[Charts, str, Look], object]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        charts, look = request.app.state.charts, _look(request)
        return _json(await _in_thread(lambda: ask(charts, request.path_params["name"], look)))

    return answer


async def _export(request: Request) -> Response:
    charts: Charts = request.app.state.charts
    look, name, form = _look(request), *(request.path_params[key] for key in ("name", "form"))
    if form not in ("csv", "parquet"):
        raise UsageError(f"an export is csv or parquet, not {form!r}")
    content = await _in_thread(lambda: _written(*charts.export(name, look), form))
    file = f"{look.dataset}-{look.variable}-{name}.{form}".replace("/", "-").replace('"', "")
    return Response(
        content,
        media_type="text/csv; charset=utf-8" if form == "csv" else "application/octet-stream",
        headers={
            "Content-Disposition": "attachment; "
            f'filename="{file.encode("ascii", "replace").decode()}"'
        },
    )


def _written(columns: list[str], rows: list[tuple[Any, ...]], form: str) -> bytes:
    import polars as pl

    table = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
    out = io.BytesIO()
    if form == "parquet":
        table.write_parquet(out)
    else:
        plain = [
            pl.col(name).struct.json_encode()
            for name, kind in table.schema.items()
            if isinstance(kind, pl.Struct)
        ]
        table.with_columns(plain).write_csv(out, datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ")
    return out.getvalue()


async def _plotly(request: Request) -> Response:
    return await _packed(request, "plotly", "package_data/plotly.min.js", "text/javascript")


async def _countries(request: Request) -> Response:
    return await _packed(request, "climatestream", "data/countries.json.gz", "application/json")


_packed_files: dict[str, tuple[bytes, str]] = {}


async def _packed(request: Request, package: str, path: str, kind: str) -> Response:
    """A file of an installed package, compressed once and then remembered by the browser."""

    def read() -> tuple[bytes, str]:
        if path not in _packed_files:
            content = files(package).joinpath(path).read_bytes()
            if not path.endswith(".gz"):
                content = gzip.compress(content, 4)
            _packed_files[path] = (
                content,
                f'"{hashlib.blake2b(content, digest_size=8).hexdigest()}"',
            )
        return _packed_files[path]

    content, tag = await _in_thread(read)
    headers = {"ETag": tag, "Cache-Control": "max-age=3600"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(gzip.decompress(content), media_type=kind, headers=headers)
    return Response(content, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})


# modules are refused by browsers under any other type, which a machine's own table may state
mimetypes.add_type("text/javascript", ".js")


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

    A request is `{"dataset": ..., "variable": ..., "seen": token, "frame": version,
    "grid": id}`, each text, null or left out. `frame` is the version of the field that is drawn:
    asking for a `frame` of "-" says that none is wanted.

    An answer is binary: the length of the JSON (32 bits, little endian), the JSON padded to a
    multiple of four, `{"state": ..., "token": ...}` or `{"error": sentence, "token": ...}`, and,
    where the newest field is another than the browser's, that field as `frames` packs it.
    """
    if socket.app.state.browsers >= BROWSERS:
        await socket.accept()
        await socket.close(TRY_LATER, f"{BROWSERS} browsers are connected already")
        return
    socket.app.state.browsers += 1
    try:
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
    finally:
        socket.app.state.browsers -= 1


_ASKED: Final = {"dataset", "variable", "seen", "frame", "grid"}


def _request(text: str) -> dict[str, str | None]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError("a request is a JSON object") from error
    if not isinstance(request, dict) or request.keys() - _ASKED:
        raise UsageError(f"a request is a JSON object with {', '.join(sorted(_ASKED))}")
    if not all(value is None or isinstance(value, str) for value in request.values()):
        raise UsageError("what a request holds are text or null")
    return request


async def _answer(socket: WebSocket, asked: _Asked) -> None:
    page: Page = socket.app.state.page
    while True:
        changed = asked.changed
        if asked.request is None:
            await changed.wait()
            continue
        request = asked.request
        deadline = anyio.current_time() + HEARTBEAT_S
        while request is asked.request:
            content, token = await _in_thread(partial(_news, page, request))
            if token != request.get("seen") or anyio.current_time() >= deadline:
                if request is asked.request:
                    asked.request = None
                    try:
                        await socket.send_bytes(
                            await _in_thread(partial(_message, page, request, content, token))
                        )
                    except WebSocketDisconnect:
                        return
                break
            with anyio.move_on_after(page.beat_s):
                await changed.wait()


def _news(page: Page, request: dict[str, str | None]) -> tuple[State | str, str]:
    """The state that a request is about, or a sentence, and a token that changes with it."""
    content: State | str
    try:
        content = page.state(
            request.get("dataset"), request.get("variable"), picture=request.get("frame") != "-"
        )
    except ClimatestreamError as error:
        content = str(error)
    return content, hashlib.blake2b(orjson.dumps(content), digest_size=8).hexdigest()


def _message(page: Page, request: dict[str, str | None], content: State | str, token: str) -> bytes:
    said: dict[str, Any] = {"token": token}
    field = b""
    if isinstance(content, str):
        said["error"] = content
    else:
        said["state"] = content
        wanted = content.frame is not None and request.get("frame") != content.version
        if wanted and content.frame and content.dataset and content.variable:
            try:
                frame = page.frame(
                    content.dataset,
                    content.variable,
                    content.frame.time,
                    page.newest(content.dataset),
                )
                factor = page.choice(content.dataset, content.variable).factor
                field = pack(frame, factor, request.get("grid"))
            except ClimatestreamError as error:
                said = {"error": str(error), "token": token}
    text = orjson.dumps(said)
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, field])


# ------------------------------------------------------------------------------- the server


class Server:
    """The page, served by a thread while the context lasts.

    Signals stay with the caller. Leaving the context takes less than a second, whatever
    browsers are connected; the store may be closed after it.

    Parameters
    ----------
    store
        Open; asked from any thread.
    port
        The wanted one; the next free one is taken where it is busy. 0: any.
    host
        The address to listen on. Beyond this machine a token is needed, which `url` carries.
    page
        What is served in place of a page over the store: for tests and measurements.

    Raises
    ------
    UsageError
        On entering: no port can be had, or this machine has no such address.
    """

    def __init__(
        self,
        store: Store,
        *,
        port: int = PORT,
        host: str = HOST,
        clock: Callable[[], float] = time.time,
        page: Page | None = None,
    ) -> None:
        self._host = HOST if host == "localhost" else host
        self._port = port
        self._token = None if is_loopback(host) else secrets.token_urlsafe(24)
        self._page = page or Page(store, clock)
        self._config = uvicorn.Config(
            create_app(self._page, host=self._host, token=self._token),
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=REQUEST_BYTES,
            # a field does not get much smaller, and the time to try is missed by everyone
            ws_per_message_deflate=False,
        )

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        any_address = {"0.0.0.0": HOST, "::": "::1"}  # noqa: S104 - said by whoever starts it
        host = any_address.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        query = "" if self._token is None else f"/?token={self._token}"
        return f"http://{host}:{self._port}{query}"

    def __enter__(self) -> Self:
        listener = _listen(self._host, self._port)
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


def _listen(host: str, port: int) -> sockets.socket:
    """A listening socket on the first free port from the wanted one up."""
    last = min(port + PORTS_TRIED, 65536) if port else 1
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    for candidate in range(port, last):
        listener = sockets.socket(family, sockets.SOCK_STREAM)
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except sockets.gaierror as error:
            listener.close()
            raise UsageError(f"host {host!r} is no address of this machine") from error
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"host {host!r} is no address of this machine") from error
            if error.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"port {candidate} can't be used: {error.strerror}; name another with --port"
                ) from error
        else:
            return listener
    raise UsageError(
        f"ports {port} to {last - 1} of {host} are all in use; name another with --port"
    )
