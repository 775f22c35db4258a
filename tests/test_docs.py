"""The examples of the documentation run, and it names every option and key of the command line."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from math import isclose
from pathlib import Path
from typing import cast

import click
import pytest

import optsched
from optsched import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [path for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))] if path.name[0] != "_"]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Pages name the data by its place in the repository.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")  # leave the settings of JAX alone


def files_of(page: Path) -> dict[str, str]:
    """The Python files that a page shows whole, by the name in their first line."""
    shown = (match[2] for match in FENCE.finditer(page.read_text(encoding="utf-8")))
    named = ((re.match(r"# (\w+\.py)\n", text), text) for text in shown)
    return {found[1]: text for found, text in named if found}


def examples(page: Path) -> str:
    """The Python examples of a page, every other line blank so that line numbers stay."""
    text = page.read_text(encoding="utf-8")
    kept = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        if ">>> " in match[2]:
            first = text.count("\n", 0, match.start(2))
            lines = match[2].splitlines()
            kept[first : first + len(lines)] = lines
    return "\n".join(kept)


def commands(page: Path) -> Iterator[tuple[list[str], str]]:
    """Arguments of the ``$ optsched`` lines of a page, joined over line ends, and their output."""
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match[1] == "console":
            for part in re.split(r"^\$ ", match[2], flags=re.MULTILINE):
                line, _, output = part.replace("\\\n", "").partition("\n")
                if line.startswith("optsched "):
                    yield shlex.split(line)[1:], output


def takes_long(arguments: list[str], shown: str) -> bool:
    """Long horizons are replayed by blocks, which compiles for half a minute."""
    solved = arguments[0] != "rules" and "1e9" in arguments
    return solved and not shown.startswith("optsched: ")


def agree(shown: str, out: str) -> bool:
    """The same words, and numbers to 5 %; how well and how fast a solve converged may differ."""
    for expected, line in zip_longest(shown.splitlines(), out.splitlines(), fillvalue=""):
        if expected.startswith("KKT residual"):
            continue
        if NUMBER.sub("#", expected).split() != NUMBER.sub("#", line).split():
            return False
        pairs = zip(NUMBER.findall(expected), NUMBER.findall(line), strict=True)
        if not all(isclose(float(x), float(y), rel_tol=0.05) for x, y in pairs):
            return False
    return True


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=name)
def test_python_examples(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file, text in files_of(page).items():
        Path(file).write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(file).stem, raising=False)
    monkeypatch.syspath_prepend(Path.cwd())
    test = doctest.DocTestParser().get_doctest(examples(page), {}, name(page), str(page), 0)
    assert test.examples, "the page has >>> outside of fenced blocks"
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert results.failed == 0, "".join(report)


def test_parts_of_ones_own_are_short() -> None:
    files = files_of(DOCS / "extending.md")
    assert len(files) >= 6
    assert all(len(text.splitlines()) <= 41 for text in files.values())  # the first is the name


@pytest.mark.parametrize("page", [p for p in PAGES if [*commands(p)]], ids=name)
def test_commands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run in order in one folder; compare what the page shows."""
    run(capsys, [command for command in commands(page) if not takes_long(*command)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(takes_long(*c) for c in commands(p))], ids=name
)
def test_long_commands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, [*commands(page)])


def run(capsys: pytest.CaptureFixture[str], lines: list[tuple[list[str], str]]) -> None:
    for arguments, shown in lines:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        if shown.startswith("optsched: "):  # an error
            assert code != 0, arguments
            assert err == shown
        else:
            assert code == 0, f"{arguments}: {err}"
            assert out, arguments
            assert not shown or agree(shown, out), f"{arguments}:\n{out}"


def test_module_examples() -> None:
    finder, report, failed = doctest.DocTestFinder(), [], 0
    for module in pkgutil.walk_packages(optsched.__path__, "optsched."):
        if module.name.endswith("__main__"):
            continue
        for test in finder.find(importlib.import_module(module.name)):
            if test.examples:
                runner = doctest.DocTestRunner(optionflags=FLAGS)
                failed += runner.run(test, out=report.append).failed
    assert failed == 0, "".join(report)


def test_every_option_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    every: dict[str, click.Command] = {}
    groups: list[tuple[str, click.Command | None]] = [("", cli.cli)]
    for before, group in groups:
        assert isinstance(group, click.Group)
        context = click.Context(group)
        for name in group.list_commands(context):
            every[before + name] = body = cast(click.Command, group.get_command(context, name))
            if isinstance(body, click.Group):
                groups.append((f"{name} ", body))
    assert len(every) > 20
    for command, body in every.items():
        assert f"## optsched {command}\n" in page
        for parameter in body.params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts:
                    assert f"`{option}`" in page, (command, option)


def test_every_key_is_documented(tmp_path: Path) -> None:
    from optsched import Problem, solve
    from optsched.studies.verify import verify

    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    solved, verified = page.split("The JSON object of `solve --json`:")[1].split(
        "The JSON object of `verify --json`:"
    )
    solution = solve(Problem(a=3.5, b=2, horizon=1000))
    judged = verify(solution.problem, solution.schedule)
    for part, keys in ((solved, solution.summary()), (verified, judged.summary())):
        table = part.split("\n## ")[0].split("Where the number of steps is chosen")[0]
        first_cells = " ".join(row.split("|")[1] for row in table.splitlines() if "|" in row)
        assert set(re.findall(r"`(\w+)`", first_cells)) == set(keys)


def test_every_field_of_the_certificate_is_documented() -> None:
    page = (DOCS / "certificate.md").read_text(encoding="utf-8")
    for field in optsched.Certificate.__dataclass_fields__:
        assert f"\n`{field}`\n: " in page


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api" / "index.rst").read_text(encoding="utf-8")
    assert set(optsched.__all__) <= set(page.split())


def test_menu() -> None:
    """Every page stands in one menu, and none is longer than one can take in."""
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix(): path
        for path in DOCS.rglob("*.md")
        if "_build" not in path.parts
    }
    entries = []
    for path in pages.values():
        for menu in re.findall(r"^```\{toctree\}\n(.*?)^```", path.read_text(), re.M | re.S):
            found = [line for line in menu.splitlines() if line and line[0] != ":"]
            assert len(found) <= 8, (path.name, found)
            entries += found
    assert len(entries) == len(set(entries))
    assert set(entries) == set(pages) - {"index"} | {"api/index"}


def test_gallery_shows_every_figure() -> None:
    shown = set(re.findall(r"figures/([\w-]+\.png)", (DOCS / "gallery.md").read_text()))
    assert shown == {path.name for path in (DOCS / "figures").glob("*.png")}


@pytest.mark.slow
def test_build(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path / "html")], check=True
    )
    html = tmp_path / "html"
    assert (html / "index.html").exists()
    assert not re.search(
        r'<(?:script|link|img)[^>]+(?:src|href)="https?:', (html / "theory.html").read_text()
    )
    listed = (html / "llms.txt").read_text(encoding="utf-8")
    assert all(
        f"({page.stem}.html)" in listed for page in DOCS.glob("*.md") if page.stem != "index"
    )
