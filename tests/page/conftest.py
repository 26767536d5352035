"""A browser, the page in it, and what no test may leave behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from climatestream.stores.open import open_store
from climatestream.web.server import Server
from tests.page.stores import WARMTH, WEATHER, fill, settle

KEPT = Path(os.environ.get("CLIMATESTREAM_PAGE_PICTURES", "build/page"))
"""Where pictures of the main states are kept."""


def chromium() -> str | None:
    named = [os.environ.get("CLIMATESTREAM_CHROMIUM", "")]
    known = [*named, "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in known if name and (found := shutil.which(name))), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run these where they were asked for, and say why not where they were not."""
    here = Path(__file__).parent
    reason = None
    if not any("page" in argument for argument in config.invocation_params.args):
        reason = "browser tests run by `make test-page`"
    elif chromium() is None:
        reason = "no chromium on this machine: apt-get install chromium"
    for item in items:
        if reason and here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; while it is there, no other event loop can run in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # the sandbox needs rights that root in a container does not have
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


class Opened:
    """A tab that watches what the page does wrong."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.close = tab.context.close
        self.wrong: list[str] = []
        self.foreign: list[str] = []
        self.allowed: re.Pattern[str] | None = None
        tab.on("console", self._console)
        tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        tab.on("request", self._request)

    def _console(self, message: Any) -> None:
        # the tests themselves read pixels, which the map never does
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.wrong.append(message.text)

    def _request(self, request: Any) -> None:
        if not re.match(r"(http|ws)://127\.0\.0\.1:\d+/|data:|blob:", request.url):
            self.foreign.append(request.url)

    def allow(self, pattern: str) -> None:
        """Complaints of the browser that a test brings about."""
        self.allowed = re.compile(pattern)

    def check(self) -> None:
        allowed = self.allowed
        left = [text for text in self.wrong if not (allowed and allowed.search(text))]
        assert left == []
        assert self.foreign == []

    def until(self, script: str, timeout_s: float = 20.0) -> Any:
        """The first true answer of a script; the page's rules forbid the driver's own way."""
        for _ in range(round(timeout_s * 20)):
            answer = self.tab.evaluate(script)
            if answer:
                return answer
            self.tab.wait_for_timeout(50)
        pytest.fail(f"never: {script}")

    def ready(self) -> None:
        """Wait for a field and the charts in sight."""
        self.until("window.climatestream?.field() && climatestream.map.drawn.first")
        self.until("document.querySelectorAll('.js-plotly-plot').length > 1")

    def picture(self, name: str, **said: Any) -> None:
        KEPT.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=KEPT / f"{name}.png", **said)

    def findings(self) -> list[str]:
        """What an accessibility checker finds, with where."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.tab).response["violations"]
        return [
            f"{one['id']} ({one['impact']}): {[node['target'] for node in one['nodes'][:4]]}"
            for one in found
        ]


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open an address in a tab of its own; at the end no tab may have done anything wrong."""
    opened: list[Opened] = []

    def open_(url: str, size: tuple[int, int] = (1440, 900), **said: Any) -> Opened:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, **{"color_scheme": "dark", **said}
        )
        tab = Opened(context.new_page())
        opened.append(tab)
        tab.tab.goto(url)
        return tab

    yield open_
    for tab in opened:
        tab.close()
    for tab in opened:
        tab.check()


@pytest.fixture(scope="session")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hours of weather and thirty years of months, in one file."""
    path = tmp_path_factory.mktemp("page") / "weather.duckdb"
    fill(path, "simulation", 200, "1 hour", WEATHER)
    fill(path, "era5-land/monthly-mean", 360, "1 month", WARMTH, start="1995-01-01")
    settle(path)
    return path


@contextmanager
def serving(path: Path, port: int = 0) -> Iterator[str]:
    with open_store(f"duckdb:{path}") as store, Server(store, port=port) as server:
        yield server.url


@pytest.fixture
def url(weather: Path) -> Iterator[str]:
    with serving(weather) as address:
        yield address
