"""What is published: a wheel and a source archive that work where nothing else of ours is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_metadata() -> None:
    """What an index shows of the package, and every version of Python that is promised."""
    oldest = int(PROJECT["requires-python"].removeprefix(">=3."))
    promised = {
        int(line.rpartition(".")[2])
        for line in PROJECT["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    }
    assert min(promised) == oldest
    assert sys.version_info[0] == 3 and sys.version_info[1] >= oldest
    assert (ROOT / PROJECT["readme"]).is_file() and (ROOT / "SECURITY.md").is_file()
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Output of a command; its errors are shown when it fails. Nothing of ours is on its path."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(folder: str) -> set[str]:
    return set(run(["git", "ls-files", folder], ROOT).split())


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the unpacked source archive as an installer would, and that archive."""
    folder = tmp_path_factory.mktemp("packages")
    venv.create(folder / "tools", with_pip=True)
    python = folder / "tools" / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "build"], folder)
    run([python, "-m", "build", "--outdir", folder / "dist", ROOT], folder)
    (wheel,), (source,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, source


@pytest.mark.slow
def test_archives_hold_every_file_of_the_package_and_no_other(archives: tuple[Path, Path]) -> None:
    wheel, source = archives
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == tracked("optsched")
    with tarfile.open(source) as file:
        unpacked = {name.partition("/")[2] for name in file.getnames()}
    assert tracked("optsched") | tracked("tests") | {"README.md", "SECURITY.md"} <= unpacked


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["wheel", "source archive"])
def test_archive_works_in_a_clean_environment(
    archives: tuple[Path, Path], which: int, tmp_path: Path
) -> None:
    venv.create(tmp_path / "clean", with_pip=True)
    tools = tmp_path / "clean" / "bin"
    run([tools / "python", "-m", "pip", "install", "-q", archives[which]], tmp_path)
    run([tools / "python", "-m", "pip", "check"], tmp_path)
    assert run([tools / "optsched", "--version"], tmp_path).split()[-1] == PROJECT["version"]
    command = "solve --a 3.5 --b 2 --horizon 100 --json --output schedule.npz --plot schedule.png"
    answer = json.loads(run([tools / "optsched", *command.split()], tmp_path))
    assert answer["lower_bound"] <= answer["excess_loss"] <= 1.02 * answer["lower_bound"]
    assert (tmp_path / "schedule.png").stat().st_size > 10_000
    code = "import optsched; print(optsched.Schedule.load('schedule.npz').horizon)"
    assert run([tools / "python", "-c", code], tmp_path).strip() == "100"
