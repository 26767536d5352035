"""The page's addresses: a few addresses over a store.

    /                   the page, with its style and modules
    /plotly.js          the library that draws its charts, from its wheel
    /countries.json     the outlines
    /state              what there is now, as JSON
    /live               the same over a WebSocket with the newest field, whenever it changes
    /frame              a field at any time, or the part in a box, in binary (frames.py)
    /times              all stored times of a dataset
    /series  /cell      lines for the charts
    /reading            all values of a cell at a time
    /places             the largest cities in a box
    /panel/NAME         a panel of `dashboards.panels`, filled in; its query at /sql/NAME
    /export/NAME.csv    a panel as a file; also .parquet
    /field.png          the picture of a variable at a time

Whom they answer: access.py; what they take: parameters.py.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from climatestream.errors import ClimatestreamError, Transient, UsageError
from climatestream.web import places
from climatestream.web.access import Guard, SayHeaders
from climatestream.web.asking import in_thread
from climatestream.web.charts import Charts
from climatestream.web.frames import pack
from climatestream.web.live import live
from climatestream.web.parameters import box, instant, look, optional, required

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from climatestream.web.charts import Look
    from climatestream.web.page import Page

HOST: Final = "127.0.0.1"
STATIC: Final = Path(__file__).parent / "static"
KINDS: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""Types of the page's own files, whatever this machine's table says: browsers refuse modules under
any other."""


def create_app(page: Page, *, host: str = HOST, token: str | None = None) -> Starlette:
    """The page as an ASGI application."""
    answers = {
        "/state": _state,
        "/frame": _frame,
        "/times": _times,
        "/series": _charted(Charts.series),
        "/cell": _charted(Charts.cell),
        "/reading": _charted(Charts.reading),
        "/places": _places,
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
            WebSocketRoute("/live", live),
            Route("/", _part),
            Route("/{name}", _part),
        ],
        middleware=[Middleware(SayHeaders), Middleware(Guard, host=host, token=token)],
        exception_handlers={ClimatestreamError: _failure},
    )
    app.state.page = page
    app.state.charts = Charts(page)
    # kept in memory: a first frame waits for all of them, beside a pipeline that is busy
    app.state.parts = {
        file.name: file.read_bytes() for file in STATIC.iterdir() if file.suffix in KINDS
    }
    app.state.browsers = 0
    return app


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


# --------------------------------------------------------------------------------- answers


async def _state(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable = optional(request, "dataset"), optional(request, "variable")
    return _json(await in_thread(lambda: page.state(dataset, variable)))


async def _frame(request: Request) -> Response:
    page: Page = request.app.state.page
    asked, part = look(request), box(request)
    known = optional(request, "grid")

    def ask() -> bytes:
        page.check(asked.dataset, asked.variable)
        at = asked.time or page.newest(asked.dataset).time
        frame = page.frame(asked.dataset, asked.variable, at, box=part)
        return pack(frame, page.choice(asked.dataset, asked.variable).factor, known)

    return Response(await in_thread(ask), media_type="application/octet-stream")


async def _field(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset, variable = (required(request, name) for name in ("dataset", "variable"))
    text = required(request, "time")
    at = instant(request, "time")
    png = await in_thread(lambda: page.png(dataset, variable, at)) if at else b""
    if not png:
        return _json({"error": f"no {variable} of dataset {dataset} at {text}"}, 404)
    return Response(png, media_type="image/png")


async def _times(request: Request) -> Response:
    page: Page = request.app.state.page
    dataset = required(request, "dataset")

    def ask() -> Any:
        page.check(dataset)
        return page.times(dataset).times

    return _json(await in_thread(ask))


async def _places(request: Request) -> Response:
    page: Page = request.app.state.page
    part = box(request)
    if part is None:
        raise UsageError("parameter box of /places is missing")
    return _json(await in_thread(lambda: places.largest(page.asking, part)))


def _charted(ask: Callable[[Charts, Look], object]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        charts, asked = request.app.state.charts, look(request)
        return _json(await in_thread(lambda: ask(charts, asked)))

    return answer


def _named(ask: Callable[[Charts, str, Look], object]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        charts, asked = request.app.state.charts, look(request)
        return _json(await in_thread(lambda: ask(charts, request.path_params["name"], asked)))

    return answer


async def _export(request: Request) -> Response:
    charts: Charts = request.app.state.charts
    asked, name, form = look(request), *(request.path_params[key] for key in ("name", "form"))
    if form not in ("csv", "parquet"):
        raise UsageError(f"an export is csv or parquet, not {form!r}")
    content = await in_thread(lambda: _written(*charts.export(name, asked), form))
    file = f"{asked.dataset}-{asked.variable}-{name}.{form}".replace("/", "-").replace('"', "")
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


async def _part(request: Request) -> Response:
    """A file of the page's own, the page itself without a name; asked for anew at each visit."""
    name = request.path_params.get("name", "index.html")
    content = request.app.state.parts.get(name)
    if content is None:
        raise HTTPException(404)
    return _tagged(request, content, KINDS[Path(name).suffix], _tag(content), "no-cache")


def _tag(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'


def _tagged(request: Request, content: bytes, kind: str, tag: str, keep: str) -> Response:
    """A file, or that the browser has it."""
    headers = {"ETag": tag, "Cache-Control": keep}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


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
            _packed_files[path] = content, _tag(content)
        return _packed_files[path]

    content, tag = await in_thread(read)
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    if not zipped:
        content = gzip.decompress(content)
    answer = _tagged(request, content, kind, tag, "max-age=3600")
    if zipped and answer.status_code == 200:
        answer.headers["Content-Encoding"] = "gzip"
    return answer
