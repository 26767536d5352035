"""Make docs/page.png: the page of a demo, a minute after it began."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SIZE = (1440, 900)
WAIT_MS = 12_000
"""Time for two minutes of readings to arrive and be drawn [ms]."""
CELL = (620, 470)
"""Where the pointer rests [pixels]."""


def main() -> None:
    """Start a demo, look at it, and end it."""
    browser = os.environ.get("CLIMATESTREAM_CHROMIUM") or shutil.which("chromium")
    if browser is None:
        sys.exit("there is no chromium on this machine: apt-get install chromium")
    demo = subprocess.Popen(
        [sys.executable, "-m", "climatestream.cli", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        url = next(iter(demo.stdout or ())).split()[-1]
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=browser, args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
            tab = chromium.new_page(
                viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark"
            )
            tab.goto(url)
            tab.wait_for_timeout(WAIT_MS)
            tab.mouse.click(*CELL)
            tab.wait_for_timeout(2500)
            tab.screenshot(path=ROOT / "docs/page.png")
            chromium.close()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(10)


if __name__ == "__main__":
    main()
