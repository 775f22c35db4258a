"""A report is one page that loads nothing, and its numbers are those of ``--json``."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from optsched.cli import main
from optsched.commands.onepage import one_page
from optsched.commands.page import Page, Sentences, Table
from optsched.pilot import save_fit
from tests.pilots import DATA, THETAS, TRAIN, made_fit

COMMANDS = {
    "solve": "solve --a 3.5 --b 2 --horizon 300",
    "compare": "compare --a 3.5 --b 2 --horizon 100 --families cosine,linear --peak-only",
    "convex": "compare --judge convex --horizon 100 --families cosine,linear --peak-only",
    "scaling": "scaling --a 3.5 --b 2 --horizons 1e2:1e4:4",
    "phase-diagram": "phase-diagram --a 2:4:2 --b 2:4:2 --horizons 1e2:1e3:2 --families linear"
    " --output sweep --workers 1",
    "fit": "fit " + " ".join(str(DATA / "25M" / f"{name}.csv") for name in TRAIN),
    "plan": "plan --law law.json --horizon 20000",
}
VOID = {"meta", "br", "link", "img"}
LOADING = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "style"}


class Reader(HTMLParser):
    """The tables, the numbers and everything that a page could load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.cells: list[list[str]] = []
        self.numbers = ""
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        assert not any(name.startswith("on") for name in given)
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        if tag == "script":
            assert given["type"] == "application/json"
        self.ids += [given["id"] or ""] if "id" in given else []
        self.loads += [given[name] or "" for name in LOADING & given.keys()]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.numbers += data
        elif self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        self.texts.append(data)


def lasting(numbers: Any) -> Any:
    """Without the times that a run took."""
    if isinstance(numbers, dict):
        return {key: lasting(value) for key, value in numbers.items() if key != "seconds"}
    return [lasting(value) for value in numbers] if isinstance(numbers, list) else numbers


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_fit(made_fit("fsl", members=[THETAS["fsl"]] * 3), tmp_path / "law.json")


@pytest.mark.parametrize("name", COMMANDS)
def test_one_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name].split()
    assert main([*command, "--report", "page.html", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    text = Path("page.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert json.loads(page.numbers) == printed
    # Numbers that stand alone are rows, to their last digit.
    rows = {row[0]: row[1] for row in page.cells if len(row) == 2}
    alone = {key: value for key, value in printed.items() if isinstance(value, float)}
    assert len(alone) >= (0 if name == "phase-diagram" else 1)
    assert {key: json.loads(rows[key]) for key in alone} == alone
    # Nothing is loaded: references are into the page, and styles name no address.
    maps = [one for one in page.loads if one.startswith("data:image/png;base64,")]
    assert not any("//" in one for one in page.loads if one not in maps)
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.startswith("#")
    assert "@import" not in text and "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    inside = set(re.findall(r"url\(#([^)]*)\)", text)) | {
        one[1:] for one in page.loads if one.startswith("#")
    }
    assert inside <= set(page.ids)
    assert [one for one, count in Counter(page.ids).items() if count > 1] == []
    assert text.count("<svg") >= 2
    for image in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(image)
    assert f"optsched {' '.join(command)} --report page.html --json" in "".join(page.texts)
    assert any("Python 3" in one for one in page.texts)


@pytest.mark.parametrize("name", ["solve", "scaling", "plan"])
def test_a_report_says_what_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name].split()
    assert main(command) == 0
    plain = capsys.readouterr()
    assert main([*command, "--report", "page.html"]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("wrote page.html\n") and told.err == plain.err

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if "KKT" not in line]

    assert lines(told.out)[:-1] == lines(plain.out)
    page = Reader(Path("page.html").read_text(encoding="utf-8"))
    shown = {word for text in page.texts for word in text.split()}
    printed = {word for line in lines(plain.out) for word in line.split()}
    assert printed <= shown


def test_a_report_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMANDS["solve"].split(), "--report"]
    Path("page.html").write_text("mine")
    assert main([*command, "page.html"]) == 2
    assert capsys.readouterr().err == "optsched: page.html: exists already; pass --force\n"
    assert Path("page.html").read_text() == "mine"
    assert main([*command, "page.html", "--force"]) == 0
    assert Path("page.html").read_text().startswith("<!doctype html>")
    for bad, why in (("page.htm", "suffix"), ("", "the name of a file"), ("no/page.html", "no/")):
        capsys.readouterr()
        assert main([*command, bad]) == 2
        assert why in capsys.readouterr().err


def test_a_report_is_no_input(capsys: pytest.CaptureFixture[str]) -> None:
    Path("law.json").rename("law.html")
    command = ["plan", "--law", "law.html", "--horizon", "20000", "--report", "law.html", "--force"]
    assert main(command) == 2
    assert "is read by this command" in capsys.readouterr().err
    Path("law.html").rename("law.json")


def test_what_fails_leaves_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "--a", "0", "--b", "2", "--horizon", "9", "--report", "page.html"]) == 2
    assert not Path("page.html").exists()


def test_words_of_files_are_words_alone() -> None:
    """A name of a run can hold anything, and stays text."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = Page(
        [Sentences((evil,)), Table((evil,), ((evil,),), 1, frozenset())],
        [evil],
        numbers={evil: evil, "list": [{"a": evil}]},
    )
    read = Reader(one_page(page, f"optsched fit '{evil}'"))
    assert json.loads(read.numbers) == page.numbers
    assert read.loads == [] and read.cells.count([evil]) == 2
