"""Make the picture of the explorer: ``python docs/make_screenshot.py``.

Needs the extra ``browser`` and a Chromium; writes docs/figures/explore.png.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FIGURES = Path(__file__).parent / "figures"
WIDTH, HEIGHT = 1200, 1000


def main() -> None:
    """Start the explorer, wait for all that it shows, and keep the first screen."""
    command = [sys.executable, "-m", "optsched", "explore", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
            )
            page.goto(address)
            page.wait_for_selector("#rivals table")
            page.wait_for_timeout(1000)
            page.screenshot(path=FIGURES / "explore.png")
            browser.close()
        process.send_signal(signal.SIGINT)
        process.stdout.read()


if __name__ == "__main__":
    main()
