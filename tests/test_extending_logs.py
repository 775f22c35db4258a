"""A format of logs from outside the package, and what happens to one that breaks its contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from optsched.diagnostics.log import read_log
from optsched.errors import InvalidProblem
from optsched.logs import FORMATS, File, LogFormat, Table, read_run, read_runs


# [example]
class Blocks(LogFormat):
    """A block of ``name = value`` lines for every row, with a line of dashes between."""

    usual = ("progress.blocks",)

    def recognises(self, file: File) -> bool:
        return file.path.suffix == ".blocks"

    def read(self, file: File) -> list[Table]:
        rows: list[tuple[int, dict[str, str]]] = [(1, {})]
        for number, line in enumerate(file.text.splitlines(), 1):
            if line.startswith("---"):
                rows.append((number + 1, {}))
            elif "=" in line:
                name, _, value = line.partition("=")
                rows[-1][1][name.strip()] = value.strip()
        facts = {"weight_decay": 0.1}
        return [Table.of_rows(file.path, "blocks", rows, rate_of="last", facts=facts)]


# [example]


def write(path: Path) -> Path:
    """A drop of the rate at update 20, as the rate of the last update."""
    blocks = [
        f"count = {s}\nrate = {0.1 if s <= 20 else 0.01}\nloss = {4.0 - s / 100}\n"
        for s in range(10, 60, 10)
    ]
    path.write_text("---\n".join(blocks))
    return path


def test_a_format_of_the_user(tmp_path: Path) -> None:
    path = write(tmp_path / "a.blocks")
    columns = {"step": "count", "lr": "rate"}
    run = read_run(path, format=Blocks(), columns=columns)
    assert run.name == "a" and run.metadata == {"weight_decay": 0.1}
    assert_array_equal(run.steps, [10, 20, 30, 40, 50])
    assert_allclose(run.schedule.eta[:50], [0.1] * 20 + [0.01] * 30)
    assert "Read as blocks: training loss in 'loss' and rate in 'rate'" in run.summary()
    log = read_log(path, format=Blocks(), columns=columns)
    assert_array_equal(log.steps, run.steps)


def test_others_are_still_read_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a.blocks")
    (tmp_path / "b.csv").write_text(
        "count,rate,loss\n" + "".join(f"{k},0.1,{3 - k / 100}\n" for k in range(5))
    )
    paths = [tmp_path / "a.blocks", tmp_path / "b.csv"]
    runs = read_runs(paths, format=Blocks(), columns={"step": "count", "lr": "rate"})
    assert [run.name for run in runs] == ["a", "b"]


def test_it_is_found_in_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "progress.blocks")
    columns = {"step": "count", "lr": "rate"}
    assert read_run(tmp_path / "mine", format=Blocks(), columns=columns).name == "mine"


class NoList(Blocks):
    def read(self, file: File) -> Any:
        return None


class NoTables(Blocks):
    def read(self, file: File) -> Any:
        return [{"step": [1, 2]}]


class Ragged(Blocks):
    def read(self, file: File) -> list[Table]:
        return [Table(file.path, "ragged", {"step": [1, 2], "loss": [1.0]}, [1, 2])]


@pytest.mark.parametrize(
    "broken, rule",
    [
        (NoList(), "format NoList: got None, allowed: read.. gives a list of one Table or more"),
        (NoTables(), "format NoTables: got 'dict', allowed: read.. gives a list of Table"),
        (Ragged(), "format Ragged: got \"1 fields of 'loss'\", allowed: one for each of the 2"),
        (Blocks, "format: got .*Blocks.*, allowed: an object of a subclass of LogFormat"),
    ],
)
def test_a_format_that_breaks_its_contract(tmp_path: Path, broken: Any, rule: str) -> None:
    with pytest.raises(InvalidProblem, match=rule):
        read_run(write(tmp_path / "a.blocks"), format=broken)


def test_ours_obey_the_same_contract() -> None:
    """All of them are objects of the class, and nothing else in the package names their classes."""
    assert all(isinstance(one, LogFormat) for one in FORMATS)
    package = Path(__file__).parents[1] / "optsched"
    formats = package / "logs" / "formats"
    names = {type(one).__name__ for one in FORMATS}
    for path in package.rglob("*.py"):
        if path.parent != formats:
            text = path.read_text()
            assert not [name for name in names if f"import {name}" in text or f"{name}()" in text]


def test_the_example_is_short() -> None:
    example = Path(__file__).read_text().split("# [example]")[1]
    assert len([line for line in example.splitlines() if line.strip()]) <= 40


def test_steps_of_a_table_are_as_long_as_its_rows() -> None:
    table = Table.of_rows(Path("x"), "x", [(1, {"a": 1}), (3, {"b": 2}), (4, {"a": 3})])
    assert table.columns == {"a": [1, None, 3], "b": [None, 2, None]}
    assert_array_equal(table.column("a").values, np.array([1.0, 3.0]))
    assert table.where(1) == "x: line 3"
