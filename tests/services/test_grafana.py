"""Every board in a real Grafana, as a reader sees it: no panel fails, pictures are kept.

    CLIMATESTREAM_TEST_GRAFANA=http://admin:PASSWORD@127.0.0.1:3000 \
        python -m pytest tests/services/test_grafana.py

Its data source with the uid `cratedb` must reach a CrateDB with readings: the stack's does. Boards
that are not provisioned are imported.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from climatestream.dashboards import grafana
from tests.page.conftest import chromium

NAMED = "CLIMATESTREAM_TEST_GRAFANA"
KEPT = Path(os.environ.get("CLIMATESTREAM_GRAFANA_PICTURES", "build/grafana"))
BOARDS = {name: json.loads(text) for name, text in grafana.build().items()}
TIMEOUT_S = 90.0
QUIET_S = 3.0
"""No query under way for so long: the board is drawn [s]."""
SPANS_H = {"pipeline.json": 1, "quality.json": 30 * 24}
"""Hours before the newest reading that a board shows; others six."""

ARGUMENTS = [
    # maps are drawn by WebGL, which a machine without a graphics card computes
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


@dataclass
class Grafana:
    """A Grafana that answers, and who may look at it."""

    address: str
    user: str
    password: str

    def api(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=30)
        secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        body = None if content is None else json.dumps(content)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def ask(self, sql: str) -> list[list[Any]]:
        """The columns of what the boards' data source answers."""
        query = {
            "refId": "A",
            "datasource": {"uid": "cratedb", "type": "grafana-postgresql-datasource"},
            "rawQuery": True,
            "format": "table",
            "rawSql": sql,
        }
        status, answer = self.api(
            "POST", "/api/ds/query", {"queries": [query], "from": "now-1h", "to": "now"}
        )
        assert status == 200, answer
        columns: list[list[Any]] = answer["results"]["A"]["frames"][0]["data"]["values"]
        return columns


@pytest.fixture(scope="module")
def server() -> Grafana:
    named = os.environ.get(NAMED)
    if not named:
        pytest.skip(f"no Grafana: name one with {NAMED}=http://user:password@host:port")
    if chromium() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    parts = urlsplit(named)
    port = f":{parts.port}" if parts.port else ""
    address = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
    found = Grafana(address, unquote(parts.username or "admin"), unquote(parts.password or "admin"))
    try:
        status, answer = found.api("GET", "/api/health")
    except OSError as error:
        pytest.skip(f"no Grafana answers at {address}: {error}")
    assert status == 200, answer
    status, answer = found.api("GET", "/api/datasources/uid/cratedb")
    assert status == 200, f"{address} has no data source with the uid cratedb: {answer}"
    return found


@pytest.fixture(scope="module")
def newest(server: Grafana) -> int:
    """The time of the newest reading [ms]."""
    columns = server.ask('SELECT max("timestamp") AS "time" FROM demo.climate_data')
    if not columns or not columns[0] or columns[0][0] is None:
        pytest.skip(f"{server.address} reaches a CrateDB without readings: publish some")
    return int(columns[0][0])


@pytest.fixture(scope="module")
def context(server: Grafana) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    KEPT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=[*ARGUMENTS, *sandbox]
        )
        context = browser.new_context(viewport={"width": 1440, "height": 900}, timezone_id="UTC")
        answer = context.request.post(
            f"{server.address}/login", data={"user": server.user, "password": server.password}
        )
        assert answer.ok, f"{server.user} may not log in: {answer.status} {answer.text()}"
        yield context
        browser.close()


@dataclass
class Watched:
    """What a board asks for, and what goes wrong."""

    tab: Any
    home: str
    pending: int = 0
    asked: int = 0
    moved: float = field(default_factory=time.monotonic)
    wrong: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    finished: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tab.on("request", self._request)
        self.tab.on("requestfinished", self._finished)
        self.tab.on("requestfailed", self._done)
        self.tab.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))

    def _request(self, request: Any) -> None:
        if _asks(request):
            self.pending += 1
            self.asked += 1
            self.moved = time.monotonic()
        if request.resource_type == "image" and not request.url.startswith(
            (self.home, "data:", "blob:")
        ):
            self.foreign.append(request.url)

    def _done(self, request: Any) -> None:
        if _asks(request):
            self.pending -= 1
            self.moved = time.monotonic()

    def _finished(self, request: Any) -> None:
        self._done(request)
        self.finished.append(request)

    def look(self) -> None:
        """Read the answers since the last look."""
        while self.finished:
            request = self.finished.pop()
            answer = request.response()
            path = urlsplit(request.url).path
            if answer is None:
                continue
            if answer.status < 400:
                self.loaded.add(path.rpartition("/")[2])
            elif "/public/" in path:
                self.wrong.append(f"{path}: status {answer.status}")
            if _asks(request):
                self._look_at(request, answer)

    def _look_at(self, request: Any, answer: Any) -> None:
        queries = [query.get("rawSql", "")[:300] for query in _queries(request)]
        if answer.status != 200:
            self.wrong.append(f"status {answer.status} {answer.text()[:300]} of {queries}")
            return
        for ref, result in answer.json().get("results", {}).items():
            if result.get("error"):
                self.wrong.append(f"query {ref}: {result['error']} of {queries}")

    def settle(self) -> None:
        """Wait until nothing has been asked for a while."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.tab.wait_for_timeout(250)
            quiet = time.monotonic() - self.moved
            if self.asked and self.pending <= 0 and quiet > QUIET_S:
                self.look()
                return
        raise AssertionError(f"{self.pending} queries of {self.asked} are under way")


def _asks(request: Any) -> bool:
    return "/api/ds/query" in request.url


def _queries(request: Any) -> list[Any]:
    content = request.post_data
    found: list[Any] = json.loads(content).get("queries", []) if content else []
    return found


def present(server: Grafana, board: Any) -> None:
    """See that Grafana has the board: it is provisioned, or imported now."""
    status, found = server.api("GET", f"/api/dashboards/uid/{board['uid']}")
    if status == 200 and found["meta"].get("provisioned"):
        kept = found["dashboard"]
        assert [panel["title"] for panel in kept["panels"]] == [
            panel["title"] for panel in board["panels"]
        ], "the provisioned board is another version"
        return
    status, answer = server.api(
        "POST", "/api/dashboards/db", {"dashboard": board | {"id": None}, "overwrite": True}
    )
    assert status == 200, answer


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_drawn_without_an_error(
    server: Grafana, newest: int, context: Any, name: str
) -> None:
    board = BOARDS[name]
    present(server, board)
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * 38 + 400
    until = max(newest + 1000, round(time.time() * 1000)) if name == "pipeline.json" else newest + 1
    since = until - SPANS_H.get(name, 6) * 3_600_000
    address = f"{server.address}/d/{board['uid']}?from={since}&to={until}&timezone=utc&refresh="
    tab = context.new_page()
    try:
        watched = Watched(tab, server.address)
        tab.goto(address, wait_until="domcontentloaded")
        watched.settle()
        tab.screenshot(path=KEPT / f"{board['uid']}-1440x900.png")
        # panels out of sight are not asked for: make all of the board fit
        tab.set_viewport_size({"width": 1440, "height": height})
        watched.settle()
        tab.screenshot(path=KEPT / f"{board['uid']}.png")
        failed = tab.locator('[data-testid="data-testid Panel status error"]')
        titles = tab.locator('[data-testid^="data-testid Panel header "]').evaluate_all(
            "found => found.map(one => one.dataset.testid)"
        )
        assert failed.count() == 0, watched.wrong
        assert watched.wrong == []
        assert watched.foreign == []
        assert len(titles) >= len(panels), titles
        assert not [title for title in titles if "${" in title]
        if any(panel["type"] == "geomap" for panel in panels):
            assert "countries.geojson" in watched.loaded
            assert tab.locator("canvas").count() > 0
    finally:
        tab.close()
