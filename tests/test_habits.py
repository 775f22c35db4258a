"""What a release and a newcomer rely on: versions, bounds, hooks and pages that agree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from benchmarks.lower_bounds import EXTRAS, TESTS, declared, lower_bounds
from tests.test_rooms import ROOMS

ROOT = Path(__file__).parent.parent
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text("pyproject.toml"))["project"]


def test_changelog() -> None:
    """What is unreleased first, then versions, falling, the newest that of the package."""
    headings = re.findall(r"^## (.*)$", text("CHANGELOG.md"), re.M)
    assert headings[0] == "[Unreleased]"
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", h) for h in headings[1:]]
    assert all(found), headings
    released = [(tuple(map(int, m.groups()[:3])), m[4]) for m in found if m]
    assert released == sorted(set(released), reverse=True)
    assert ".".join(map(str, released[0][0])) == project()["version"]
    kinds = re.findall(r"^### (.*)$", text("CHANGELOG.md"), re.M)
    assert set(kinds) <= KINDS


def test_citation_is_of_the_newest_version() -> None:
    fields = dict(re.findall(r"^([\w-]+): (.*)$", text("CITATION.cff"), re.M))
    assert fields["version"] == project()["version"]
    assert f"## [{fields['version']}] - {fields['date-released']}\n" in text("CHANGELOG.md")
    assert fields["license"] == project()["license"]


def test_every_dependency_has_a_lower_bound_that_is_tested() -> None:
    """All but torch, whose old versions are gigabytes."""
    bounds = declared()
    assert len(bounds) >= len(project()["dependencies"]) + len(EXTRAS) - 1
    assert all((ROOT / test.split("::")[0]).is_file() for test in TESTS)
    for test in TESTS:
        path, _, function = test.partition("::")
        assert not function or f"\ndef {function}(" in text(path)


def test_lower_bounds_are_read() -> None:
    given = ["numpy>=2.0", "pyright[nodejs] >= 1.1.390", "optsched[dask]", "a-b>=1,<2"]
    assert lower_bounds(given) == {"numpy": "2.0", "pyright": "1.1.390", "a-b": "1"}
    for bad in ("numpy", "numpy==2.0", "numpy<3"):
        with pytest.raises(ValueError, match="expected NAME>=VERSION"):
            lower_bounds([bad])


def test_contributing_shows_every_room_in_order() -> None:
    table = text("CONTRIBUTING.md").split("## Where things go")[1].split("\n## ")[0]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert tuple(re.findall(r"`(\w+)/?`", cells)) == ROOMS


def test_hooks_need_nothing_but_the_extras_of_a_developer() -> None:
    hooks = text(".pre-commit-config.yaml")
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    tools = set(re.findall(r"entry: (\S+)", hooks))
    assert tools == {"ruff", "pyright"}
    developer = " ".join(project()["optional-dependencies"]["dev"])
    assert all(tool in developer for tool in (*tools, "pre-commit"))


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution")
    subprocess.run(["bash", "-n", str(script)], check=True)
    found = re.search(r"^command=(\$\(.*\))$", text(".ci/run"), re.M)
    assert found
    line = f'printf %s "{found[1]}"'
    shown = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"<!-- test-command -->\n```console\n$ {shown}\n```" in text("README.md")
    for part in ("ruff check", "ruff format --check", "pyright", "sphinx-build -W", "lower_bounds"):
        assert part in text(".ci/run")
