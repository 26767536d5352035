"""The WebSocket: each browser is told the newest when it asks, and never more.

It asks, gets one answer when there is something newer than what it has drawn, draws it, and asks
again. A slow one skips frames; nothing queues for it.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import orjson
from starlette.websockets import WebSocketDisconnect

from climatestream.errors import ClimatestreamError, UsageError
from climatestream.web.asking import in_thread
from climatestream.web.frames import pack

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from climatestream.web.page import Page, State

HEARTBEAT_S: Final = 5.0
"""Time after which an asking browser gets an answer though nothing is new [s]: it takes a longer
silence for a dead server."""
REQUEST_BYTES: Final = 4096
"""Size of a browser's request at most [bytes]."""
BROWSERS: Final = 64
"""Connections at once at most; one more is told to try later."""
BAD_REQUEST: Final = 1008
"""The WebSocket's code for a request that breaks the rules."""
TRY_LATER: Final = 1013


class _Asked:
    """The newest request of a browser; an older one that has no answer yet is forgotten."""

    def __init__(self) -> None:
        self.request: dict[str, str | None] | None = None
        self.changed = anyio.Event()

    def put(self, request: dict[str, str | None]) -> None:
        self.request = request
        self.changed.set()
        self.changed = anyio.Event()


async def live(socket: WebSocket) -> None:
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
            content, token = await in_thread(partial(_news, page, request))
            if token != request.get("seen") or anyio.current_time() >= deadline:
                if request is asked.request:
                    asked.request = None
                    try:
                        await socket.send_bytes(
                            await in_thread(partial(_message, page, request, content, token))
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
