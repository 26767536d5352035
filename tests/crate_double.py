"""A stand-in for CrateDB's HTTP endpoint that knows the store's own statements, and no other.

It keeps the table of readings by the design's rule and answers as the real server was seen to;
answers that fail are scripted from `crate_answers`. What the statements really do is for the
tests with the real server to show (tests/services).
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import orjson

from climatestream.stores.crate_address import Address
from climatestream.stores.crate_tables import _TYPES, FIELD_TYPES
from climatestream.stores.schema import FIELDS, READINGS, TABLES
from tests.crate_answers import BY_NAME, Recorded

SCHEMA: Final = "demo"
LONGEST_TEXT: Final = 32_766
"""Bytes of an ordinary text at most: fact A.3."""
LONGEST_NAME: Final = 50_000
"""Letters of a name in JSON at most: seen on 6.4.3."""
TEXTS: Final = 10
"""Failed rows of an answer that come with a reason: fact A.2."""

_INTO_READINGS: Final = 'INSERT INTO "demo"."climate_data"'
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_WITHOUT_ANSWER: Final = ("REFRESH TABLE", "DELETE FROM", "SELECT values['year']")
"""Nothing is deleted: that is for the tests with the real server."""

Row = dict[str, Any]
Reply = tuple[int, bytes]
Request = dict[str, Any]


class NotOurs(Exception):
    """A statement that the double does not know."""


class Refused(Exception):
    """A request or a row that fails as recorded."""

    def __init__(self, answer: Recorded) -> None:
        self.answer = answer


@dataclass
class Script:
    """An answer given instead of the double's own, some times.

    Parameters
    ----------
    reply
        Makes the answer of a request; None: this request is answered as usual.
    """

    reply: Callable[[Request], Reply | None]
    times: float


@dataclass
class CrateDouble:
    """What the server holds, and what was asked of it.

    `rows` are the readings by their key, `others` the rows of the tables beside them, by table.
    """

    fields: dict[str, str] = field(
        default_factory=lambda: {name: FIELD_TYPES[kind] for name, kind in FIELDS.items()}
    )
    rows: dict[tuple[str, str, int], Row] = field(default_factory=dict)
    others: dict[str, list[Row]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    connections: int = 0
    closed_idle: int = 0
    idle_s: float | None = None
    """How long a connection may be idle before it is closed."""
    sockets: list[socket.socket] = field(default_factory=list)
    scripts: list[Script] = field(default_factory=list)
    clock_ms: int = 1_754_827_300_000
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    # ------------------------------------------------------------------------- for tests

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, schema=SCHEMA, timeout_s=20.0)

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[CrateDouble]:
        """Answer on a free port of 127.0.0.1."""
        double = self

        class Handler(_Handler):
            crate = double

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def inserts(self) -> list[Request]:
        """The requests that wrote readings."""
        return [r for r in self.asked if r["stmt"].startswith(_INTO_READINGS)]

    def script(
        self, answer: Recorded, *, times: float = 1, statement: str = "INSERT", offset: int = -1
    ) -> None:
        """Answer requests with a statement that begins so as recorded.

        Parameters
        ----------
        offset
            Only where a row has this offset; -1: every row fails, or the whole request.
        """

        def reply(request: Request) -> Reply | None:
            if not request["stmt"].startswith(statement):
                return None
            bulk = request.get("bulk_args", [])
            bad = [offset < 0 or row[-1] == offset for row in bulk]
            if bulk and not any(bad):
                return None
            if answer.scope == "request":
                return answer.status, answer.content
            return self.write(request, ["?" if is_bad else "" for is_bad in bad], answer)

        self.respond(reply, times)

    def respond(self, reply: Callable[[Request], Reply | None], times: float = 1) -> None:
        """Answer as this says; None: as usual, which does not count."""
        self.scripts.append(Script(reply, times))

    def cut(self) -> None:
        """Reset every connection, as what stands between does that has forgotten it."""
        for connection in self.sockets:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                connection.shutdown(socket.SHUT_RD)
                connection.close()
        self.sockets.clear()

    # ------------------------------------------------------------------------- answering

    def answer(self, request: Request) -> Reply:
        """Status and content."""
        with self.lock:
            self.asked.append(request)
            for script in self.scripts:
                if script.times > 0 and (scripted := script.reply(request)) is not None:
                    script.times -= 1
                    return scripted
            try:
                return self._answer(request)
            except Refused as refused:
                return refused.answer.status, refused.answer.content

    def _answer(self, request: Request) -> Reply:
        statement = request["stmt"]
        if "information_schema.columns" in statement:
            return _rows(self._columns())
        if statement.startswith(_WITHOUT_ANSWER):
            return _rows([])
        if statement.startswith(_INTO_READINGS):
            return self.write(request)
        if kept := re.match(r'INSERT INTO "demo"\."(\w+)" \(([^)]*)\)', statement):
            return self._keep(kept[1], kept[2].replace('"', "").split(", "), request["bulk_args"])
        if re.match(
            r'SELECT .* FROM "demo"."climate_data" WHERE dataset = \?', statement, re.DOTALL
        ):
            return _rows(self._found(statement, request["args"]))
        if statement.startswith('SELECT DISTINCT dataset, "year" FROM "demo"."climate_data"'):
            return _rows(
                [list(pair) for pair in sorted({(key[0], _year_ms(key[2])) for key in self.rows})]
            )
        if asked := re.match(
            r'SELECT ([^()]*) FROM "demo"."(\w+)" *(?:WHERE (.*?))?\s*(?:ORDER BY .*)?$',
            " ".join(statement.split()),
        ):
            return _rows(self._select(asked[1], asked[2], asked[3], request.get("args", [])))
        if retried := re.match(r'UPDATE "demo"."(\w+)" SET (\w+) = \? WHERE (.*)', statement):
            return self._update(retried[1], retried[2], retried[3], request["bulk_args"])
        raise NotOurs(statement)

    def _select(
        self, names: str, table: str, where: str | None, arguments: list[Any]
    ) -> list[list[Any]]:
        """Columns of a table beside the readings, in no order; a LIMIT is not known."""
        rows = self._where(table, where, arguments)
        return [[row[name] for name in _names(names)] for row in rows]

    def _update(self, table: str, name: str, where: str, bulk: list[list[Any]]) -> Reply:
        results = []
        for value, *arguments in bulk:
            rows = self._where(table, where, arguments)
            for row in rows:
                row[name] = value
            results.append({"rowcount": len(rows)})
        return 200, orjson.dumps({"cols": [], "duration": 1.0, "results": results})

    def _where(self, table: str, where: str | None, arguments: list[Any]) -> list[Row]:
        """The rows of a table whose columns equal the arguments, as `a = ? AND b = ?` says."""
        columns = _names(where.replace(" = ?", "").replace(" AND ", ", ")) if where else []
        wanted = dict(zip(columns, arguments, strict=True))
        rows = self.others.get(table, [])
        return [row for row in rows if all(row[n] == value for n, value in wanted.items())]

    def _columns(self) -> list[list[Any]]:
        columns = [
            [table.name, column.name, [], _TYPES[column.kind]]
            for table in TABLES
            for column in table.columns
        ]
        return columns + [
            [READINGS.name, "data", [name], kind] for name, kind in self.fields.items()
        ]

    def _keep(self, name: str, columns: list[str], bulk: list[list[Any]]) -> Reply:
        """Keep rows of a table beside the readings; of a key that is there, the first."""
        key = next(table.key for table in TABLES if table.name == name)
        kept = self.others.setdefault(name, [])
        for values in bulk:
            row = dict(zip(columns, values, strict=True))
            if not key or not any(all(row[n] == other[n] for n in key) for other in kept):
                kept.append(row)
        return 200, orjson.dumps({"cols": [], "results": [{"rowcount": 1}] * len(bulk)})

    def write(
        self, request: Request, bad: list[str] | None = None, why: Recorded | None = None
    ) -> Reply:
        """Store the rows of a bulk, each by itself; `bad` ones fail for `why`."""
        bulk = request["bulk_args"]
        overwrites = "DO UPDATE" in request["stmt"]
        for row in bulk:
            self._check_request(row)
        results: list[dict[str, Any]] = []
        had = dict(self.fields)
        news: set[str] = set()
        for row, is_bad in zip(bulk, bad or [""] * len(bulk), strict=True):
            if is_bad and why is not None:
                results.append(why.result)
                continue
            if overwrites and (row[0], row[1], row[3]) in self.rows and news & set(row[5]):
                # Seen on 6.4.3: what an earlier row of the request made a field is lost.
                row[5] = {name: value for name, value in row[5].items() if name in had}
            news |= set(row[5]) - set(had)
            try:
                results.append({"rowcount": self._store(row, overwrites)})
            except Refused as refused:
                results.append(refused.answer.result)
        failed = [result for result in results if result["rowcount"] == -2]
        for result in failed[TEXTS:]:
            del result["error"]
        return 200, orjson.dumps({"cols": [], "duration": 1.0, "results": results})

    def _check_request(self, row: list[Any]) -> None:
        """What fails while parameters are bound: nothing of the request is stored."""
        (_, cell, _, _, (longitude, latitude), data, *_) = row
        if cell is None:
            raise Refused(BY_NAME["null in the key"])
        if any(len(name) > LONGEST_NAME for name in data):
            raise Refused(BY_NAME["a name of 60,000 letters"])
        if latitude is None or abs(latitude) > 90 or abs(longitude) > 180:
            raise Refused(BY_NAME["a latitude of 95"])
        for name, value in data.items():
            if self.fields.get(name) == "double precision" and not isinstance(value, int | float):
                raise Refused(BY_NAME["text in a number"])

    def _store(self, row: list[Any], overwrites: bool) -> int:
        dataset, cell, country, time_ms, location, data, *rank = row
        for name, value in data.items():
            if "." in name:
                raise Refused(BY_NAME["a name with a dot"])
            if isinstance(value, str) and len(value.encode()) > LONGEST_TEXT:
                raise Refused(BY_NAME["a text of 40,000 letters"])
            kind = _kind(value)
            if self.fields.setdefault(name, kind) != kind and self.fields[name] != "text":
                raise Refused(BY_NAME["another type in one request"])
            if self.fields[name] == "text":
                data[name] = str(value)  # A.3: any scalar fits a text, without a word
        mine = {
            "country": country,
            "location": location,
            "data": data,
            "rank": rank,
            "stored_at": self.clock_ms,
        }
        self.clock_ms += 1
        key = (dataset, cell, time_ms)
        stored = self.rows.get(key)
        if stored is None:
            self.rows[key] = mine
            return 1
        if not overwrites:
            return 0
        newer = _order(rank) > _order(stored["rank"])
        winner, other = (mine, stored) if newer else (stored, mine)
        self.rows[key] = {
            **winner,
            "data": {**other["data"], **winner["data"]},
            "country": winner["country"] or other["country"],
        }
        return 1

    def _found(self, statement: str, arguments: list[Any]) -> list[list[Any]]:
        dataset, _, *pairs = arguments
        keys = []
        for one, many in zip(pairs[::2], pairs[1::2], strict=True):
            by_time = '"timestamp" = ? AND cell = ANY(?)' in statement
            keys += [(dataset, other, one) if by_time else (dataset, one, other) for other in many]
        selected = statement.removeprefix("SELECT ").split(" FROM ")[0]
        expressions = re.findall(r"(?:[^,']|'(?:[^']|'')*')+", selected)[3:]
        return [
            [*key, *(_value(expression.strip(), self.rows[key]) for expression in expressions)]
            for key in dict.fromkeys(keys)
            if key in self.rows
        ]


def _year_ms(time_ms: int) -> int:
    """The generated column: when the year of a time began [ms]."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    year = (epoch + timedelta(milliseconds=time_ms)).year
    return (datetime(year, 1, 1, tzinfo=UTC) - epoch) // timedelta(milliseconds=1)


_RANK: Final = {"preliminary": 0, "published_at": 1, "source": 2, '"offset"': 3}


def _order(rank: list[Any]) -> tuple[Any, ...]:
    preliminary, published_at, source, offset = rank
    return not preliminary, published_at, offset, source


def _value(expression: str, row: Mapping[str, Any]) -> Any:
    subject, is_asked, _ = expression.partition(" IS NOT NULL")
    if subject in _RANK:
        value = row["rank"][_RANK[subject]]
    elif subject == "country":
        value = row["country"]
    else:
        name = subject.removeprefix("data['").removesuffix("']").replace("''", "'")
        value = row["data"].get(name)
    return value is not None if is_asked else value


def _names(text: str) -> list[str]:
    return text.replace('"', "").split(", ")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "bigint"  # A.3: the trap of a number that travels without its point
    return "text" if isinstance(value, str) else "double precision"


def _rows(rows: list[list[Any]]) -> Reply:
    return 200, orjson.dumps({"cols": [], "col_types": [], "rows": rows, "rowcount": len(rows)})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    crate: CrateDouble

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.crate.idle_s)
        self.crate.connections += 1
        self.crate.sockets.append(self.connection)

    def log_error(self, *_: Any) -> None:
        """A connection was idle for too long: what the base class has to say, once each."""
        self.crate.closed_idle += 1

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.crate.authorizations.append(self.headers["Authorization"])
        status, answer = self.crate.answer(orjson.loads(content))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
