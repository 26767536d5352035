"""CrateDB's HTTP endpoint: a statement there, the answer back, over connections that stay open.

Why the standard library's client and no other: docs/decisions/crate-client.md.
"""

from __future__ import annotations

import ssl
import threading
import time
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from select import select
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.stores.crate_errors import RelationBlocked, failure, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from climatestream.stores.crate_address import Address

Reply: TypeAlias = dict[str, Any]
"""An answer as CrateDB gives it: `cols`, `col_types`, `rows`, `rowcount`; of a bulk, `results`."""

_CONNECT_TIMEOUT_S: Final = 10.0
_IDLE_S: Final = 30.0
"""A connection idle for longer, by the clock on the wall, is not used again: a Lambda function is
frozen between two invocations, which stops other clocks, and what stands between it and the server
forgets connections without a word."""

_REFRESH_S: Final = 1.5
"""Time in which a table is refreshed by itself: its refresh interval is a second, unless
`store init` was told another [s]."""

_UNAUTHORIZED: Final = 401
_OK: Final = 200


class CrateHttp:
    """Sends statements to one server, from any thread; each takes a connection for itself.

    Parameters
    ----------
    address
        Its password is asked for when it is needed, and again when the server refuses it.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[tuple[HTTPConnection, float]] = []
        self._guard = threading.Lock()
        self._is_open = False
        self._headers: dict[str, str] = {}
        self._was_let_in = False
        self.tables_were_there = False
        """Whether the tables that statements name have been seen: they may be there again."""
        self.answer_by: float | None = None
        """When answers must be there, by `time.monotonic`; None: each within its timeout."""
        self._tls: ssl.SSLContext | None = None
        self._settled: set[str] = set()
        """Read-only tables whose rows are all visible."""

    def open(self) -> None:
        """Read the password and the certificates; connections come with the first statement.

        A password read before is kept until the server refuses it.

        Raises
        ------
        StoreError
            The certificates can't be read.
        StoreUnavailable
            The password can't be read now.
        """
        self._headers = self._headers or self._with_password()
        if self.address.ssl:
            try:
                self._tls = ssl.create_default_context(cafile=self.address.ca_file)
            except OSError as error:
                raise StoreError(
                    f"the certificates in {self.address.ca_file} for {self.address} can't be "
                    f"read: {error}"
                ) from error
        self._is_open = True

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer is there."""
        with self._guard:
            self._is_open = self._was_let_in = self.tables_were_there = False
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def sql(
        self,
        statement: str,
        arguments: Sequence[Any] = (),
        *,
        bulk: Sequence[Sequence[Any]] | None = None,
        any_table: bool = False,
    ) -> Reply:
        """Run a statement once, or once for each row of `bulk`.

        The answer to a bulk has an entry of `results` for each row; the caller looks at each.

        Parameters
        ----------
        any_table
            The statement may name tables and columns that have never been there.

        Raises
        ------
        StoreUnavailable
            No answer, or one that says later, or a password that held until now is refused. The
            statement may have been run.
        RequestRefused
            The server refuses the whole request.
        """
        return self.send(body(statement, arguments, bulk=bulk), any_table=any_table)

    def refresh(self, table: str) -> None:
        """Make visible to queries what has been written into a table, named as statements do.

        A read-only table allows no refresh. What was written before it became so, the server
        makes visible by itself, which is waited for once.
        """
        try:
            self.sql(f"REFRESH TABLE {table}")
        except RelationBlocked:
            if table not in self._settled:
                # a shard that nobody asks for half a minute is only refreshed once someone does
                self.sql(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608 - a table of ours
                time.sleep(_REFRESH_S)
                self._settled.add(table)
        else:
            self._settled.discard(table)

    def send(self, request: bytes, *, any_table: bool = False) -> Reply:
        """Run what `body` made; see `sql`."""
        status, content = self._exchange(request)
        if status == _UNAUTHORIZED:
            headers = self._with_password()
            if headers != self._headers:  # it was renewed
                self._headers = headers
                status, content = self._exchange(request)
            if status == _UNAUTHORIZED and self._was_let_in and not content.startswith(b"{"):
                raise StoreUnavailable(
                    f"{self.address} no longer takes the password: "
                    f"{words(content.decode(errors='replace'))}; it is read again at each try"
                )
        try:
            reply: Reply = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            if status == _OK:
                raise StoreError(
                    f"{self.address} answers {words(content.decode(errors='replace'))!r}, "
                    "expected JSON: is it CrateDB's HTTP endpoint?"
                ) from error
            reply = {"error": {"code": status, "message": content.decode(errors="replace")}}
        if status != _OK:
            problem = reply.get("error", {})
            raise failure(
                str(self.address),
                problem.get("code", status),
                problem.get("message", ""),
                was_there=self.tables_were_there and not any_table,
            )
        self._was_let_in = True
        return reply

    def _with_password(self) -> dict[str, str]:
        credentials = f"{self.address.user}:{self.address.password() or ''}".encode()
        return {
            "Content-Type": "application/json",
            "Authorization": f"Basic {b64encode(credentials).decode()}",
        }

    # -------------------------------------------------------------------- connections

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and content of the answer.

        Where a connection used before turns out to have been cut, a new one is tried: every
        statement may be repeated.
        """
        connection = self._take()
        try:
            if connection is not None:
                with suppress(ConnectionError):  # RemoteDisconnected is one
                    return self._ask(connection, request)
            return self._ask(self._connect(), request)
        except (OSError, HTTPException) as error:
            raise self._unreached(error) from error

    def _ask(self, connection: HTTPConnection, request: bytes) -> tuple[int, bytes]:
        try:
            connection.sock.settimeout(self._left_s())
            with suppress(BrokenPipeError, ConnectionResetError):
                # A request that is too large is answered before all of it was sent.
                connection.request("POST", "/_sql?types", request, self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        return answer.status, content

    def _take(self) -> HTTPConnection | None:
        """A connection used before that is likely to work, for one exchange."""
        while True:
            with self._guard:
                if not self._is_open:
                    raise StoreError(f"{self.address} is closed: open the store first")
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if 0 <= time.time() - since < _IDLE_S and not _has_ended(connection):
                return connection
            connection.close()

    def _give(self, connection: HTTPConnection) -> None:
        with self._guard:
            if self._is_open:
                self._idle.append((connection, time.time()))
                return
        connection.close()

    def _connect(self) -> HTTPConnection:
        host, port = self.address.host, self.address.port
        timeout_s = min(_CONNECT_TIMEOUT_S, self._left_s())
        connection = (
            HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
            if self._tls
            else HTTPConnection(host, port, timeout=timeout_s)
        )
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _left_s(self) -> float:
        """How long an answer may take that is asked for now [s]."""
        if self.answer_by is None:
            return self.address.timeout_s
        left_s = self.answer_by - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time that there was for it is over")
        return min(self.address.timeout_s, left_s)

    def _unreached(self, error: OSError | HTTPException) -> StoreError | StoreUnavailable:
        """What it means that there was no answer."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return StoreError(
                f"the certificate of {self.address} is not trusted: {error.verify_message}; name "
                "its issuer with ?ca_file=FILE"
            )
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return StoreError(f"{self.address} does not speak TLS: leave ssl=true away")
        if isinstance(error, HTTPException) and not isinstance(error, RemoteDisconnected):
            said = f"{type(error).__name__} {words(str(error))}".rstrip()
            return StoreUnavailable(f"{self.address} gave no whole answer: {said}")
        if isinstance(error, TimeoutError):
            return StoreUnavailable(f"{self.address} did not answer in time: {error}")
        return StoreUnavailable(f"{self.address} is not reached: {error}")


def body(
    statement: str, arguments: Sequence[Any] = (), *, bulk: Sequence[Sequence[Any]] | None = None
) -> bytes:
    """A request: NaN travels as null, a float always with its point, a time as ISO text."""
    request: dict[str, Any] = {"stmt": statement}
    if bulk is not None:
        request["bulk_args"] = bulk
    elif arguments:
        request["args"] = arguments
    return orjson.dumps(request)


def _has_ended(connection: HTTPConnection) -> bool:
    """Whether the server has closed it: between two answers there is nothing to read."""
    if connection.sock is None:
        return True
    with suppress(OSError, ValueError):
        return bool(select([connection.sock], [], [], 0)[0])
    return True
