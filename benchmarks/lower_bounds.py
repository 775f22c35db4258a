"""Whether the library works with the oldest versions that pyproject.toml allows.

A fresh virtual environment gets exactly the lower bound of every dependency and of every extra, and
a selection of the tests that touches each of them runs there. Only torch is left out: its old
versions are gigabytes. Run: ``python -m benchmarks.lower_bounds``, some three minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("test", "dask", "explore", "optax", "keras", "real-training")
TESTS = (
    *("tests/test_schedule.py", "tests/test_files.py", "tests/test_model.py"),  # numpy, scipy, jax
    "tests/test_collocation.py",  # casadi
    *("tests/test_cli.py", "tests/test_startup.py"),  # click, rich, lazy_loader
    "tests/test_plots.py",  # matplotlib
    "tests/test_explore.py",  # starlette, uvicorn, anyio
    "tests/test_export_optax.py",
    "tests/test_export_keras.py",
    "tests/test_sweep.py::test_dask",
    "tests/test_sweep.py::test_dask_workers_keep_their_memory_and_have_one_thread",  # threadpoolctl
    "tests/test_real_training.py::test_images_are_the_same_every_time_and_moved_as_they_should",
)


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Names and their least versions; extras of optsched itself are left out.

    Raises
    ------
    ValueError
        A requirement states no least version.
    """
    bounds = {}
    for requirement in requirements:
        if requirement.startswith("optsched["):
            continue
        found = re.match(r"([\w.-]+) *(?:\[[\w, -]+\])? *>= *([\w.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement}: expected NAME>=VERSION")
        bounds[found[1]] = found[2]
    return bounds


def declared(extras: Iterable[str] = EXTRAS) -> dict[str, str]:
    """Lower bounds of the dependencies and extras in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return lower_bounds([*project["dependencies"], *(r for name in extras for r in optional[name])])


def main() -> int:
    """Install, test, and return the exit code of the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes of tests")
    workers = parser.parse_args().workers
    bounds = declared()
    print("\n".join(f"{name:16}{version}" for name, version in bounds.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="lower-bounds-") as folder:
        venv.create(folder, with_pip=True)
        place = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        python = str(Path(folder) / place)
        install = [python, "-m", "pip", "install", "-q"]
        pins = [f"{name}=={version}" for name, version in bounds.items()]
        subprocess.run([*install, *pins], check=True)
        subprocess.run([*install, "--no-deps", str(ROOT)], check=True)
        # Old versions warn of each other: that is no fault of the library here.
        tests = ["-m", "pytest", "-q", "-n", str(workers), "-o", "filterwarnings=ignore", *TESTS]
        return subprocess.run([python, *tests], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
