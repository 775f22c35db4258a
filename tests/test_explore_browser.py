"""The explorer in a real Chromium: what it shows, how fast, and that nothing goes wrong unseen."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optsched import Schedule
from tests.explorer import Explorer, explorer
from tests.pilots import DATA, TRAIN
from tests.test_explore_runs import mutated

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:
    pytest.skip("no Chromium", allow_module_level=True)
SLOW = 60_000  # milliseconds that a busy machine may need
FIRST, NEXT = 6.0, 0.150  # seconds to the first picture, and from a slider to a curve


@pytest.fixture(scope="module")
def site() -> Iterator[Explorer]:
    with explorer() as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def busy() -> float:
    """How many processes share a core."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Tab:
    """A tab, and everything that went wrong in it."""

    def __init__(self, browser: Any, site: Explorer, fragment: str = "", **view: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1300, "height": 900}, **view})
        self.context.set_default_timeout(SLOW)
        self.page, self.wrong = self.context.new_page(), []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)
        self.home = f"http://127.0.0.1:{site.port}/"
        self.page.goto(site.app.address + fragment)

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a question that a newer one replaced
            self.wrong.append(f"{request.url}: {request.failure}")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.home, "blob:")):
            self.wrong.append(f"asks for {request.url}")

    def drawn(self) -> int:
        self.page.wait_for_selector("body[data-drawn]")
        return int(self.page.get_attribute("body", "data-drawn") or 0)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        assert error[0] is not None or self.wrong == []


def test_a_slider_moves_the_curves(browser: Any, site: Explorer) -> None:
    """The fastest of some, in the share of the machine that this test has."""
    with Tab(browser, site) as tab:
        page, seconds = tab.page, []
        tab.drawn()
        page.wait_for_selector("#rivals table")
        slider = page.locator("#field-b-slider")
        before = page.get_attribute("#rate-linear [role=img]", "aria-label")
        for _ in range(12):
            drawn = tab.drawn()
            slider.press("ArrowRight")
            page.wait_for_selector(f"body[data-drawn='{drawn + 1}']")
            seconds.append(float(page.get_attribute("body", "data-latency")) / 1000.0)
        assert min(seconds) < NEXT * busy(), sorted(seconds)
        assert page.input_value("#field-b") == "2.6"
        assert page.get_attribute("#rate-linear [role=img]", "aria-label") != before
        page.wait_for_timeout(300)
        assert "b=2.6" in page.url
        for _ in range(20):
            slider.press("ArrowRight")
        page.wait_for_selector("#badge.hard")


def test_the_first_picture_after_the_command(browser: Any) -> None:
    """From the start of the process to the curves, in the share of the machine that this has."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "optsched", "explore", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        page = browser.new_page()
        page.goto(process.stdout.readline().strip())
        page.wait_for_selector("body[data-drawn]", timeout=SLOW)
        seconds = time.perf_counter() - began
        page.close()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith("ended\n")
    assert process.returncode == 0
    assert seconds < FIRST * busy()


def test_a_link_shows_the_same(browser: Any, site: Explorer) -> None:
    with Tab(browser, site, "#a=2&b=4&T=777&m=2&sigma=0.1&peak=0.5&N=inf&axis=share") as tab:
        page = tab.page
        tab.drawn()
        assert page.input_value("#field-T") == "777" and page.input_value("#field-N") == "inf"
        page.wait_for_selector("text=after 777 steps")
        assert page.is_checked("input[name=axis][value=share]")
        said = page.inner_text("#take")
        assert "optsched solve --a 2 --b 4 --horizon 777 --batch 2" in said
        assert "--noise 0.1 --peak 0.5 --features inf" in said
        assert 'horizon=777, batch_size=2, noise=0.1, eta_max=0.5, features=float("inf")' in said
        first = page.inner_text("#status")
    address = page.url
    assert "token" not in address
    with Tab(browser, site, "#" + address.partition("#")[2]) as tab:
        tab.page.wait_for_selector("text=after 777 steps")
        assert tab.page.inner_text("#status") == first


def test_the_phase_diagram_moves_a_and_b(browser: Any, site: Explorer) -> None:
    with Tab(browser, site) as tab:
        page = tab.page
        tab.drawn()
        diagram = page.locator("#phase svg")
        diagram.press("ArrowUp")
        assert page.input_value("#field-b") == "2.05"
        diagram.press("Shift+ArrowLeft")
        assert page.input_value("#field-a") == "3"
        box = diagram.bounding_box()
        page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.1 * box["height"])
        page.wait_for_selector("#badge.hard")
        assert float(page.input_value("#field-b")) > 5.0 > float(page.input_value("#field-a"))


def test_what_is_wrong_stands_beside_its_field(browser: Any, site: Explorer) -> None:
    with Tab(browser, site) as tab:
        page = tab.page
        tab.drawn()
        for key, value, text in (
            ("a", "1", "a finite number greater than 1"),
            ("T", "12.5", "a whole number of steps"),
            ("N", "many", "a whole number >= 1, or inf"),
            ("sigma", "", "got nothing"),
        ):
            old = page.input_value(f"#field-{key}")
            page.fill(f"#field-{key}", value)
            if key != "sigma":
                page.wait_for_selector(f"#field-{key}-error:has-text('{text}')")
                assert page.get_attribute(f"#field-{key}", "aria-invalid") == "true"
            page.fill(f"#field-{key}", old)
            page.wait_for_selector(f"#field-{key}[aria-invalid=false]")
            page.wait_for_selector("text=Excess loss 0.000661")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 400])
def test_nothing_is_wider_than_the_window(
    browser: Any, site: Explorer, width: int, scheme: str
) -> None:
    view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with Tab(browser, site, "#f.warmup=2160", **view) as tab:
        tab.drawn()
        tab.page.wait_for_selector("#rivals table")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        tab.page.click("#tab-runs")
        drop(tab, LOGS)
        tab.page.wait_for_selector("#plan-table table")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        tab.page.click("#tab-own")
        tab.page.wait_for_selector("#own-table table")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width


def some_settings(count: int) -> Iterator[str]:
    """Settings anywhere in the ranges of the sliders, and some that are not allowed."""
    draw = random.Random(17)
    for i in range(count):
        values = {
            "a": round(draw.uniform(1.05, 6), 2),
            "b": round(draw.uniform(1.05, 6), 2),
            "T": round(10 ** draw.uniform(0, 9)),
            "m": round(10 ** draw.uniform(0, 4)),
            "sigma": round(draw.choice([0.0, draw.uniform(0, 2)]), 2),
            "peak": float(f"{10 ** draw.uniform(-3, 2):.3g}"),
            "N": draw.choice(["inf", round(10 ** draw.uniform(0, 6.4))]),
        }
        if i % 10 == 9:
            values[draw.choice([*values])] = draw.choice(["-1", "none", "1e400", "x<b>", "0"])
        yield "&".join(f"{key}={value}" for key, value in values.items())


def settle(tab: Tab, settings: Iterator[str]) -> list[str]:
    """What the page says of each, after its answer."""
    said, page = [], tab.page
    for fragment in settings:
        page.evaluate("document.getElementById('status').textContent = ''")
        page.evaluate(f"location.hash = '#{fragment}'")
        page.wait_for_selector("#status:not(:empty)")
        said.append(page.inner_text("#status"))
        assert page.is_hidden("#trouble"), fragment
    return said


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_random_settings(browser: Any, site: Explorer, count: int) -> None:
    with Tab(browser, site) as tab:
        tab.drawn()
        said = settle(tab, some_settings(count))
        refused = [text for text in said if "allowed:" in text]
        assert len(refused) <= 2 * count // 10
        for text in said:
            assert text in refused or text.startswith(("Excess loss", "Not solved")), text
        tab.page.wait_for_selector("#exponents:not(.stale)")


def drop(tab: Tab, files: list[tuple[str, bytes]]) -> None:
    """Drop files on the page, as a hand would, and wait until they are read."""
    page = tab.page
    before = int(page.get_attribute("body", "data-fits") or 0)
    given = [[name, base64.b64encode(content).decode()] for name, content in files]
    page.evaluate(
        """(given) => {
          const held = new DataTransfer();
          for (const [name, data] of given)
            held.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
          document.getElementById("panel-runs").dispatchEvent(
            new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true }));
        }""",
        given,
    )
    page.wait_for_selector(f"body[data-fits='{before + 1}']", state="attached")


LOGS = [(f"{name}.csv", (DATA / "25M" / f"{name}.csv").read_bytes()) for name in TRAIN]


def test_dropped_logs_become_a_plan(browser: Any, site: Explorer, tmp_path: Path) -> None:
    with Tab(browser, site, "#tab=runs&f.warmup=2160&p.horizon=30000") as tab:
        page = tab.page
        drop(tab, LOGS)
        page.wait_for_selector("#plan-table tbody tr")
        page.wait_for_selector("#plan-lines li:has-text('plan: warm up 2,160 steps')")
        assert "3 read" in page.inner_text("#understood")
        page.fill("#field-p-horizon", "12000")
        page.fill("#field-p-peak", "7")
        page.click("#plan-button")
        page.wait_for_selector("#field-p-peak-error:has-text('highest peak of the runs')")
        page.fill("#field-p-peak", "2e-4")
        page.click("#plan-button")
        page.wait_for_selector("#plan-lines li:has-text('12,000 steps')")
        command = page.inner_text("#plan-command")
        assert "optsched plan --law law.json --horizon 12000 --peak 2e-4" in command
        for button, name in (
            ("Schedule .csv", "schedule.csv"),
            ("PyTorch code", "schedule_torch.py"),
            ("Report", "optsched-plan.html"),
        ):
            with page.expect_download() as got:
                page.click(f"#plan-take button:text-is('{button}')")
            assert got.value.suggested_filename == name
            got.value.save_as(tmp_path / name)
        assert Schedule.load(tmp_path / "schedule.csv").horizon == 12000
        assert "<h1>optsched plan</h1>" in (tmp_path / "optsched-plan.html").read_text()
        assert "p.peak=2e-4" in page.url


@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_any_dropped_file_is_read_or_refused(browser: Any, site: Explorer, count: int) -> None:
    """Good logs, logs with something wrong, and what is no log."""
    draw = random.Random(5)
    others = [b"", b"{}", b"\x00\x01\xff" * 50, b"step,lr,loss\n1,1,1\n", b"<b>no log</b>"]
    with Tab(browser, site, "#tab=runs") as tab:
        page = tab.page
        for i in range(count):
            page.click("#forget") if i else None
            if i % 4 == 3:
                content = draw.choice(others)
            else:
                content = draw.choice(LOGS)[1]
                content = content if i % 4 == 0 else mutated(draw, content)
            drop(tab, [(f"{i}.csv", content)])
            page.wait_for_selector("#fit-status:not(:empty)")
            assert page.is_hidden("#trouble"), i
            said = page.inner_text("#fit-status")
            assert "this did not work" not in said, said
            assert page.locator("#understood .file").count() == 1
            page.wait_for_selector("#plan-button:not([disabled])", state="attached")


def test_a_schedule_is_drawn_with_mouse_and_keys(browser: Any, site: Explorer) -> None:
    with Tab(browser, site, "#tab=own&T=300&knots=0,0.2;1,0") as tab:
        page = tab.page
        page.wait_for_selector("#own-table tbody tr")
        first = page.inner_text("#own-status")
        assert "loses +" in first
        knots = page.locator("svg.editor .knot")
        assert knots.count() == 2
        box = page.locator("svg.editor").bounding_box()
        page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"])
        assert knots.count() == 3
        page.wait_for_selector(f"#own-status:not(:has-text('{first}'))")
        before = page.input_value("#knots input >> nth=3")
        knots.nth(1).press("ArrowUp")
        assert float(page.input_value("#knots input >> nth=3")) > float(before)
        knots.nth(1).press("Delete")
        assert knots.count() == 2
        page.wait_for_selector(f"#own-status:has-text('{first}')")
        page.fill("#csv", "step,lr\n0,0.1\n99,0")
        page.click("#csv-judge")
        page.wait_for_selector("#own-problem:has-text('T = 100 steps')")
        page.fill("#csv", "nothing")
        page.click("#csv-judge")
        page.wait_for_selector("#csv-error:has-text('expected step and one of eta')")


def test_tabs_are_reached_by_keys(browser: Any, site: Explorer) -> None:
    with Tab(browser, site) as tab:
        page = tab.page
        tab.drawn()
        page.focus("#tab-model")
        for key, shown in (("ArrowRight", "runs"), ("End", "own"), ("ArrowRight", "model")):
            page.keyboard.press(key)
            assert page.is_visible(f"#panel-{shown}")
            assert page.get_attribute(f"#tab-{shown}", "aria-selected") == "true"
        # Every field and button has a name.
        for one in page.locator("input, button, select, textarea").all():
            assert one.evaluate(
                "e => Boolean(e.getAttribute('aria-label') || e.labels?.length || e.textContent)"
            ), one.evaluate("e => e.outerHTML")
