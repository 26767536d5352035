"""Whom the page answers, and what it tells browsers they may do with it."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PLOTLY_STYLE: Final = "sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o="
"""The style sheet of a map library that Plotly carries and adds to a page when it is loaded. A
browser test fails when another version brings another."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; "
        f"style-src 'self' '{PLOTLY_STYLE}'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; manifest-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}
LOOPBACK: Final = ("127.0.0.1", "localhost")
COOKIE: Final = "climatestream"
QUERY_BYTES: Final = 2000
"""Length of an address's parameters at most [bytes]."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SayHeaders:
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


class Guard:
    """Turns away other sites' pages, names that were made to point here, and who has no token.

    Parameters
    ----------
    host
        The address that is listened on.
    token
        What the printed address carries and a cookie keeps; None on this machine alone.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self._app = app
        self._token = token
        self._names = (
            {*LOOPBACK, host}
            if token is None
            else {*LOOPBACK, host, socket.getfqdn(), socket.gethostname()}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await self._refuse(scope, receive, send, *refusal)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if self._token is not None and "token" in query and scope["type"] == "http":
            rest = [(name, one) for name, all_ in query.items() if name != "token" for one in all_]
            answer = RedirectResponse(f"{scope['path']}?{urlencode(rest)}".rstrip("?"), 303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._knows(host):
            return 400, "this page is not served under that name"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "only the page itself may ask"
        if scope["type"] == "websocket" and origin is None:
            return 403, "a browser says from which page it asks"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            navigates = headers.get("sec-fetch-mode") == "navigate"
            if not (navigates and headers.get("sec-fetch-dest") == "document"):
                return 403, "only the page itself may ask"
        if len(scope["query_string"]) > QUERY_BYTES:
            return 414, f"the parameters are longer than {QUERY_BYTES} bytes"
        if self._token is not None and not self._is_known(scope, headers):
            return 401, "open the address that was printed at the start: it carries a token"
        return None

    def _knows(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if name in self._names:
            return True
        try:  # an address can't be made to point elsewhere, as a name can
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._token is not None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        cookies = [part.strip() for part in headers.get("cookie", "").split(";")]
        said = [cookie.partition("=")[2] for cookie in cookies if cookie.startswith(f"{COOKIE}=")]
        token = (self._token or "").encode()
        return any(
            hmac.compare_digest(one.encode(), token) for one in (*said, *query.get("token", ()))
        )

    @staticmethod
    async def _refuse(
        scope: Scope, receive: Receive, send: Send, status: int, sentence: str
    ) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": sentence})
            return
        await PlainTextResponse(sentence, status)(scope, receive, send)
