"""The page, served by a thread of its own."""

from __future__ import annotations

import errno
import secrets
import socket as sockets
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import uvicorn

from climatestream.errors import UsageError
from climatestream.web.access import is_loopback
from climatestream.web.app import HOST, create_app
from climatestream.web.live import REQUEST_BYTES
from climatestream.web.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from climatestream.ports import Store

PORT: Final = 8765
PORTS_TRIED: Final = 100
"""Ports tried from the wanted one up [ports]."""
CLOSE_S: Final = 0.4
"""Time that a query under way, and then connections, have to end when the server stops [s]."""


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
