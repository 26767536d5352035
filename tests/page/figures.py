"""The page's figures: `python -m tests.page.figures`. Needs Chromium.

How a demo begins; frames a second and CPU while fields are fed directly at 10 a second, bytes of
an update, time to the first frame; and what each panel's query takes at a million and at ten
million readings.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from climatestream.dashboards.panels import PANELS
from climatestream.stores.open import open_store
from climatestream.web.charts import Charts, Look
from climatestream.web.page import Page
from climatestream.web.server import Server
from tests.page.conftest import chromium
from tests.page.feeding import FedPage, Nothing
from tests.page.stores import WEATHER, fill

RATE = 10.0
SECONDS = 10
WATCH = """async (seconds) => {
  const { map, link } = climatestream;
  const before = { drawn: map.drawn.frames, shown: map.drawn.fields, ...link.taken };
  let frames = 0; const began = performance.now();
  await new Promise((done) => { const tick = () => { frames++;
    performance.now() - began < seconds * 1000 ? requestAnimationFrame(tick) : done(); };
    requestAnimationFrame(tick); });
  const s = (performance.now() - began) / 1000;
  return { frames: frames / s, drawn: (map.drawn.frames - before.drawn) / s,
    fields: (map.drawn.fields - before.shown) / s, first: map.drawn.first,
    bytes: (link.taken.fieldBytes - before.fieldBytes) / (link.taken.fields - before.fields) };
}"""


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes if one.is_running())


def watch(cells: int) -> str:
    server = Server(Nothing(), port=0, page=FedPage(cells, RATE))  # type: ignore[arg-type]
    with server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(server.url)
        tab.wait_for_timeout(4000)
        us = psutil.Process()
        children = us.children(recursive=True)
        before, began = (cpu_s([us]), cpu_s(children)), time.perf_counter()
        seen = tab.evaluate(WATCH, SECONDS)
        took = time.perf_counter() - began
        ours, theirs = (
            100 * (now - then) / took
            for now, then in zip((cpu_s([us]), cpu_s(children)), before, strict=True)
        )
        browser.close()
    return (
        f"{cells:>7,} cells: {seen['frames']:.1f} frames/s ({seen['drawn']:.1f} drawn, "
        f"{seen['fields']:.1f} fields), {seen['bytes']:,.0f} bytes an update, first frame after "
        f"{seen['first']:.0f} ms; CPU of a core: server {ours:.0f} %, browser {theirs:.0f} %"
    )


POINTS = """[...document.querySelectorAll('#climate .js-plotly-plot')].map((plot) =>
  plot.data.reduce((sum, trace) => sum + (trace.y ?? trace.r).length, 0))"""


def demo() -> str:
    """What a newcomer sees: a demo, and the page opened as soon as its address is printed."""
    command = [sys.executable, "-m", "climatestream.cli", "demo", "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        url = next(iter(process.stdout or ())).decode().split()[-1]
        printed = time.perf_counter() - began
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
                )
                tab = browser.new_page(viewport={"width": 1440, "height": 900})
                opened = time.perf_counter()
                tab.goto(url)
                seconds = 0.0
                points: list[int] = []
                while not (len(points) >= 7 and min(points) >= 100) and seconds < 30.0:
                    tab.wait_for_timeout(100)
                    points = tab.evaluate(POINTS)
                    seconds = time.perf_counter() - opened
                first = tab.evaluate("climatestream.map.drawn.first")
                browser.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    return (
        f"demo: address printed after {printed:.1f} s; page opened then: first frame after "
        f"{first:.0f} ms, {len(points)} charts with at least {min(points)} points after "
        f"{seconds:.1f} s"
    )


def queries(times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.duckdb"
        fill(path, "simulation", times, "1 hour", WEATHER)
        with open_store(f"duckdb:{path}") as store:
            page = Page(store)
            look = Look("simulation", "temperature", place=(50.0, 9.5))
            charts = Charts(page)
            page.state("simulation", "temperature")
            print(f"{2500 * times:,} readings, each panel's query over all of them, median of 5:")
            for panel in PANELS:
                words = charts._words(panel, look)
                took = []
                for _ in range(5):
                    began = time.perf_counter()
                    store.query(*panel.query(words))
                    took.append(1000 * (time.perf_counter() - began))
                print(f"    {panel.name:<10} {statistics.median(took):7.1f} ms")


def main() -> None:
    """Print them."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for _ in range(3):
        print(demo(), flush=True)
    for cells in (8_000, 60_000):
        print(watch(cells), flush=True)
    for times in (400, 4000):
        queries(times)


if __name__ == "__main__":
    main()
