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
import mimetypes
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

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
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[Middleware(SayHeaders), Middleware(Guard, host=host, token=token)],
        exception_handlers={ClimatestreamError: _failure},
    )
    app.state.page = page
    app.state.charts = Charts(page)
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

    content, tag = await in_thread(read)
    headers = {"ETag": tag, "Cache-Control": "max-age=3600"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(gzip.decompress(content), media_type=kind, headers=headers)
    return Response(content, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})


# modules are refused by browsers under any other type, which a machine's own table may state
mimetypes.add_type("text/javascript", ".js")
