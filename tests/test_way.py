"""The count of a way through modules, on a house of three."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks.way import Way

GO = """
from toyhouse import a

def go():
    return a.start(tell)

def tell():
    pass
"""
A = """
from toyhouse import b, errors

def start(tell):
    errors.check()
    found = [b.one() for _ in range(3)]
    b.two(mine)
    tell()
    return b.Thing().size, found

def mine():
    pass
"""
B = """
def one():
    return 1

def two(call):
    call()

class Thing:
    @property
    def size(self):
        return 3
"""
FILES = {"__init__": "", "commands/__init__": "", "commands/go": GO, "a": A, "b": B}
FILES["errors"] = "def check(): pass"


def test_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops count once; the ground, properties and what is above the command do not."""
    home = tmp_path / "toyhouse"
    for name, text in FILES.items():
        path = home / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    go = importlib.import_module("toyhouse.commands.go").go
    way = Way(home, "go")
    before = sys.getprofile()
    sys.setprofile(way)
    try:
        go()
    finally:
        sys.setprofile(before)
    found = [(one.before, one.module, one.called, one.depth, one.tangled) for one in way.entries]
    assert found == [
        ("commands.go", "a", "start", 1, False),
        ("a", "b", "one", 2, False),
        ("a", "b", "two", 2, False),
        ("b", "a", "mine", 3, True),
        ("a", "commands.go", "tell", 2, True),
    ]
