"""What is imported, and when: commands and the package itself load what they need."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import optsched

HEAVY = ("jax", "casadi", "matplotlib")


def loaded_by(code: str, cwd: Path) -> set[str]:
    """Packages that a fresh process has after it ran some code."""
    packages = "{name.partition('.')[0] for name in sys.modules}"
    tell = f"\nimport sys, json; print(json.dumps(sorted({packages})))"
    run = subprocess.run(
        [sys.executable, "-c", code + tell], capture_output=True, text=True, cwd=cwd, check=True
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_package_alone_is_light(tmp_path: Path) -> None:
    assert not loaded_by("import optsched", tmp_path) & {*HEAVY, "scipy", "numpy", "rich"}
    code = "import optsched; optsched.Schedule; optsched.InvalidProblem; optsched.__version__"
    assert not loaded_by(code, tmp_path) & {*HEAVY}


def test_public_names_are_where_type_checkers_look() -> None:
    tree = ast.parse(Path(optsched.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    told = {name.name: f"{node.module}" for node in imports for name in node.names}
    assert told == {name: f"optsched.{home}" for name, home in optsched._HOME.items()}
    assert sorted(told) == sorted(optsched.__all__)
    for name, home in told.items():
        value = getattr(optsched, name)
        assert getattr(value, "__module__", home) == home, name
    assert {*optsched.__all__, "__version__"} <= {*dir(optsched)}


def test_unknown_names_are_said_as_always() -> None:
    with pytest.raises(AttributeError, match="module 'optsched' has no attribute 'Shedule'"):
        optsched.Shedule  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Shedule'"):
        exec("from optsched import Shedule")
