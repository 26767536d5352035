"""A real CrateDB for tests: the one that CLIMATESTREAM_TEST_CRATEDB names, or one of our own.

Our own is started from the distribution in CRATEDB_HOME on free ports of 127.0.0.1, with a data
folder of its own, and ended by its process id. How to get one: README.md beside this file.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import IO, Any

import orjson
import pytest

from climatestream.errors import StoreUnavailable
from climatestream.stores.crate_address import Address, parse
from climatestream.stores.crate_http import CrateHttp

NAMED = "CLIMATESTREAM_TEST_CRATEDB"
HOME = "CRATEDB_HOME"
DEFAULT_HOME = Path("~/.local/share/cratedb")
HEAP = "768m"
SETTINGS = {
    "discovery.type": "single-node",
    "udc.enabled": "false",
    # `crate` from this machine without a password, everybody else with one.
    "auth.host_based.enabled": "true",
    "auth.host_based.config.0.user": "crate",
    "auth.host_based.config.0.address": "_local_",
    "auth.host_based.config.0.method": "trust",
    "auth.host_based.config.99.method": "password",
    # A full disk of the machine that runs tests is none of theirs.
    "cluster.routing.allocation.disk.threshold_enabled": "false",
}
START_TIMEOUT_S = 180.0
USERS = ("crate", "nobody")
"""Whom CrateDB runs as where we are root, which it refuses to: the first that there is."""


_DYING_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
"""Tests that are killed leave no server behind."""


class Server:
    """A CrateDB that answers.

    Parameters
    ----------
    address
        As a user who may do everything.
    """

    own = False
    """Whether it is ours to configure, kill and start again."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.psql_port = 5432
        """Of PostgreSQL's protocol, which Grafana speaks."""

    def at(self, schema: str, user: str | None = None, **options: Any) -> Address:
        """A schema on it, as this user or as the one who may do everything."""
        return replace(self.address, schema=schema, user=user or self.address.user, **options)

    def sql(self, statement: str, arguments: list[Any] | None = None, **more: Any) -> Any:
        """Run a statement as the user who may do everything."""
        http = CrateHttp(self.address)
        http.open()
        try:
            return http.sql(statement, arguments or [], **more)
        finally:
            http.close()


class Node(Server):
    """A CrateDB of our own.

    Parameters
    ----------
    home
        Its distribution.
    folder
        Data, logs and what it prints; the user that it runs as owns it.
    settings
        What it is started with, besides addresses and paths, which are its own.
    """

    own = True

    def __init__(
        self,
        home: Path,
        folder: Path,
        settings: Mapping[str, str] = SETTINGS,
        heap: str = HEAP,
    ) -> None:
        self._home = home
        self._folder = folder
        self._settings = settings
        self._heap = heap
        self._http, self._psql, self._transport = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(Address("127.0.0.1", self._http))
        self.psql_port = self._psql

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            **self._settings,
            "network.host": "127.0.0.1",
            "http.port": self._http,
            "psql.port": self._psql,
            "transport.tcp.port": self._transport,
            "path.data": self._folder / "data",
            "path.logs": self._folder / "logs",
        }
        environment = {
            **os.environ,
            "CRATE_HEAP_SIZE": self._heap,
            "CRATE_DISABLE_GC_LOGGING": "1",
            "CRATE_HOME": str(self._home),
        }
        options = [f"-C{name}={value}" for name, value in settings.items()]
        user = _unprivileged()
        with self._output("ab") as output:
            self._process = subprocess.Popen(
                [*_DYING_WITH_US, self._home / "bin/crate", *options],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers; fail with its last words if it ends or takes too long."""
        assert self._process is not None
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            try:
                self.sql("SELECT 1")
            except StoreUnavailable:
                if self._process.poll() is not None:
                    break
                time.sleep(0.2)
            else:
                return
        with self._output("rb") as output:
            last = output.read()[-2000:].decode(errors="replace")
        raise AssertionError(f"CrateDB in {self._home} did not start:\n{last}")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has ended."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def freeze(self) -> None:
        """Let it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _output(self, mode: str) -> IO[bytes]:
        path = self._folder / "output.txt"
        return path.open(mode)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def _unprivileged() -> str | None:
    """The user to run as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip(f"CrateDB does not run as root, and there is no user {' or '.join(USERS)}")


def _home() -> Path:
    home = Path(os.environ.get(HOME) or DEFAULT_HOME).expanduser()
    if not (home / "bin/crate").is_file():
        pytest.skip(
            f"no CrateDB: {home} holds no bin/crate. Unpack a distribution there, name its folder "
            f"with {HOME}, or name a server with {NAMED}=crate://crate@host:4200"
        )
    return home


@contextmanager
def started() -> Iterator[Server]:
    """A CrateDB that answers; skips with the reason where none can be had."""
    named = os.environ.get(NAMED)
    if named:
        server = Server(parse(named))
        server.sql("SELECT 1")
        yield server
        return
    with own() as node:
        yield node


@contextmanager
def own(settings: Mapping[str, str] = SETTINGS, heap: str = HEAP) -> Iterator[Node]:
    """A CrateDB of our own that answers; skips with the reason where none can be had."""
    home = _home()
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="climatestream-cratedb-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        node = Node(home, folder, settings, heap)
        try:
            node.start()
            yield node
        finally:
            node.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cratedb() -> Iterator[Server]:
    """A CrateDB that answers, the same one for all tests."""
    with started() as server:
        yield server


def raw(server: Server, statement: str, bulk: list[list[Any]] | None = None) -> tuple[int, Any]:
    """Status and content of an answer, whatever they are: by-passes what is tested."""
    address = server.address
    connection = (HTTPSConnection if address.ssl else HTTPConnection)(
        address.host, address.port, timeout=60
    )
    credentials = b64encode(f"{address.user}:{address.password() or ''}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
    request = {"stmt": statement} | ({} if bulk is None else {"bulk_args": bulk})
    try:
        connection.request("POST", "/_sql", orjson.dumps(request), headers)
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())
    finally:
        connection.close()
