"""What is imported, and when: commands and the package itself load what they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import optsched
from optsched import Schedule, cli
from optsched.commands.lazy import LazyGroup

HEAVY = ("jax", "casadi", "matplotlib")


def loaded_by(code: str, cwd: Path) -> list[set[str]]:
    """Packages that a fresh process has, each time that the code calls ``tell()``."""
    head = (
        "import sys, json\n"
        "def tell():\n"
        "    print('>' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, cwd=cwd, check=True,
        env=os.environ | {"OPTSCHED_NO_CACHE": "1"},
    )  # fmt: skip
    return [set(json.loads(x[1:])) for x in run.stdout.splitlines() if x.startswith(">")]


def walk(group: click.Command = cli.cli, *before: str) -> list[tuple[list[str], click.Command]]:
    """Every command with the words that call it."""
    if not isinstance(group, LazyGroup):
        return [([*before], group)]
    context = click.Context(group)
    members = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [pair for name, one in members if one is not None for pair in walk(one, *before, name)]


COMMANDS = walk()


def test_the_package_alone_is_light(tmp_path: Path) -> None:
    code = (
        "import optsched; tell(); optsched.InvalidProblem; optsched.Schedule; optsched.__version__"
        "; tell(); optsched.Collocation; tell()"
    )
    alone, schedule, collocation = loaded_by(code, tmp_path)
    assert not alone & {*HEAVY, "scipy", "numpy", "rich"}
    assert not schedule & {*HEAVY, "scipy"}
    assert "numpy" in schedule and "jax" in collocation  # it is found if it is there


def test_every_public_name_can_be_had() -> None:
    for name in optsched.__all__:
        home = getattr(getattr(optsched, name), "__module__", "")
        assert home.startswith("optsched."), name
    assert {"Problem", "solve", "Dynamics", "Method", "fit", "plan"} <= {*optsched.__all__}
    assert {*optsched.__all__, "__version__"} <= {*dir(optsched)}


def test_unknown_names_are_said_as_always() -> None:
    with pytest.raises(AttributeError, match="module 'optsched' has no attribute 'Shedule'"):
        optsched.Shedule  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Shedule'"):
        exec("from optsched import Shedule")


def _lines(folder: Path) -> list[list[str]]:
    """Command lines that must not wait for a solver or a plot."""
    Schedule.from_array(np.geomspace(1.0, 0.1, 200)).save(folder / "in.csv")
    Schedule.from_array(np.geomspace(1.0, 0.1, 100_000)).save(folder / "long.csv")
    (folder / "trace.csv").write_text("step,sharpness\n" + "".join(f"{k},9\n" for k in range(9)))
    np.save(folder / "gradients.npy", np.random.default_rng(0).normal(size=(9, 4)) + 1.0)
    rows = [
        f"r{r}w{w},{r},{w},{k},{3 - r * w * k}" for r in (1, 2) for w in (1, 2) for k in range(9)
    ]
    (folder / "runs.csv").write_text("\n".join(["name,lr,weight_decay,step,loss", *rows]) + "\n")
    lmo = "rules lmo --regime joint --from-horizon 1e3 --to-horizon 1e4 --lr 0.1 --momentum 0.9"
    lines = [
        lmo + " --batch 1e4",
        "rules noise-scale --lr 0.1 --samples 1e4 --batch 10",
        "rules noise-scale gradients.npy",
        "rules batch --from-batch 1 --to-batch 2 --lr 0.1",
        "rules ema --decay 0.9",
        "rules stability --sharpness 10",
        "rules stability --trace trace.csv --output warm-up.csv",
        "rules extend --from-horizon 100 --to-horizon 200 --output extended.csv",
        "rules cooldown --horizon 100 --from-cooldown 0.1 --to-cooldown 0.2",
        "rules convex in.csv",
        "rules diffusion --schedule cosine --levels 10 --output noise.csv",
        "rules invariance runs.csv",
        "export in.csv --format torch-snippet --output out.py",
        "export in.csv --format csv",
        "verify in.csv --a 2.5 --b 2",
        "verify long.csv --a 2.5 --b 2 --features 100 --json",
    ]
    return [line.split() for line in lines]


@pytest.mark.parametrize("flag", ["--help", "--nonsense"])
def test_help_and_a_wrong_option_import_nothing(tmp_path: Path, flag: str) -> None:
    lines = [["--version"], ["--help"], ["rules", "--help"], ["rules"], ["nonsense"]]
    lines += [[*words, flag] for words, _ in COMMANDS]
    code = f"from optsched.cli import main\nfor x in {lines}: main(x); tell()"
    told = loaded_by(code, tmp_path)
    for line, packages in zip(lines, told, strict=True):
        assert not packages & {*HEAVY, "numpy", "scipy", "rich"}, line


BAD = """
solve --a 1 --b 2 --horizon 10
solve --a 3 --b 2 --horizon 10 --peak 0
solve --a 3 --b 2 --horizon 10 --method magic
solve --a 3 --b 2 --horizon 10 --output x.txt
solve --a 3 --b 2 --horizon 10 --warmup 11
verify gone.npz --a 3 --b 2
compare --a 3 --b 2 --horizon 10 --families nope
compare --judge convex --horizon 10 --a 3
scaling --a 3 --b 2 --horizons 1e2,1e3 --schedule nope
compute --a 3 --b 2 --budgets 1e3 --schedule nope
compute --a 3 --b 0 --budgets 1e3
phase-diagram --a 2,3 --b 2,3 --output d --workers 0
phase-diagram --a 2,3 --b 0.2,3 --output d
reproduce fig2
reproduce fig9 --output d
spectrum gone.npy gone.npy
fit gone.csv
predict cosine --law gone.json
plan --law gone.json --horizon 100
dashboard gone.csv
rules stability --trace gone.csv
"""


def test_the_first_error_waits_for_no_solver_and_no_plots(tmp_path: Path) -> None:
    lines = [line.split() for line in BAD.strip().splitlines()]
    code = f"from optsched.cli import main\nfor x in {lines}: assert main(x) == 2, x; tell()"
    for line, packages in zip(lines, loaded_by(code, tmp_path), strict=True):
        assert not packages & {*HEAVY}, line


def test_light_commands_import_no_solver_and_no_plots(tmp_path: Path) -> None:
    lines = _lines(tmp_path)
    code = f"from optsched.cli import main\nfor x in {lines}: assert main(x) == 0, x; tell()"
    told = loaded_by(code, tmp_path)
    for line, packages in zip(lines, told, strict=True):
        assert not packages & {*HEAVY}, line


def test_lists_of_commands_agree_with_the_commands() -> None:
    """Listed lines stand on one line of a narrow help, and each name is that of its command."""
    for words, command in COMMANDS:
        assert command.name == words[-1]
    context = click.Context(cli.cli)
    for group in (cli.cli, cli.cli.get_command(context, "rules")):
        assert isinstance(group, LazyGroup)
        for name, listed in group.commands.items():
            assert listed.short_help and len(listed.short_help) <= 60, name
            text = group.get_help(click.Context(group))
            assert listed.short_help in text and f"  {name} " in text
