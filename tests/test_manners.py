"""Results with manners: a line, a table, a figure; equality and hashes that do not raise."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import optsched
from optsched import (
    Budget,
    BudgetSolution,
    Certificate,
    Problem,
    Solution,
    SolveFailed,
    Status,
    replay,
    solve,
)
from optsched.arrays import Brief
from optsched.control.methods.pontryagin import Pontryagin
from optsched.studies.compare.families import Comparison


@pytest.fixture(scope="module")
def solution() -> Solution:
    return solve(Problem(2.5, 1.5, 60, features=40))


def test_equality_and_hashes_do_not_raise(solution: Solution) -> None:
    again = pickle.loads(pickle.dumps(solution))
    played = replay(solution.problem.spectrum, solution.problem.dynamics, solution.schedule)
    for one, other in (
        (solution, again),
        (solution.certificate, again.certificate),
        (solution.replay, played),
    ):
        assert one == one and one != other and len({one, one, other}) == 2
    assert again.problem == solution.problem and again.schedule == solution.schedule


def test_a_line_says_it(solution: Solution) -> None:
    line = repr(solution)
    assert len(line) < 160 and "\n" not in line
    assert f"{solution.excess_loss:.6g}" in line and "% of optimal" in line
    assert len(repr(solution.certificate)) < 120
    assert len(repr(solution.replay)) < 140 and "bias" in repr(solution.replay)
    mean = repr(solve(Problem(2.5, 1.5, 20, features=40, objective="mean")))
    assert "mean 0." in mean


def test_a_page_for_notebooks(solution: Solution) -> None:
    page = solution._repr_html_()
    assert len(page) < 20_000 and f"{solution.excess_loss:.6g}" in page
    root = ET.fromstring(page)
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 1
    heights = [float(pair.split(",")[1]) for pair in lines[0].attrib["points"].split()]
    assert len(heights) == 60 and heights[-1] > heights[0] and min(heights) == 2.0  # it decays
    long = solve(Problem(2.5, 1.5, 10**9, features=40), throw=False, replay_steps=10)
    assert len(long._repr_html_()) < 30_000


def test_a_figure(solution: Solution, tmp_path: Path) -> None:
    figure = solution.plot()
    schedule, loss = figure.axes
    np.testing.assert_allclose(
        np.asarray(schedule.lines[0].get_ydata(), float), solution.schedule.eta
    )
    np.testing.assert_allclose(
        np.asarray(loss.lines[0].get_ydata(), float), solution.replay.excess_curve[1:]
    )
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_status_is_a_sentence(solution: Solution) -> None:
    assert solution.status is Status.CONVERGED and solution.converged
    assert solution.message.startswith(Status.CONVERGED.value)
    assert str(solution.status) == "converged" == solution.summary()["status"]
    for status in Status:
        assert status.value.endswith(("=.", ".")) and status.value[0].isupper()
        assert str(status) == ("converged" if status.converged else "not converged")
    with pytest.raises(SolveFailed) as error:
        solve(Problem(2.5, 1.5, 60, features=40), Pontryagin(max_iterations=1), tol=1e-30)
    left = error.value.solution
    assert isinstance(left, Solution) and left.status is Status.UNFINISHED
    assert "tolerance 1.0e-30" in str(error.value) and "Try another method" in str(error.value)
    assert isinstance(left.certificate, Certificate) and not left.converged


def test_states_have_the_shape_that_is_documented(solution: Solution) -> None:
    n, j = len(solution.t), len(solution.modes)
    assert solution.states.shape == solution.costates.shape == (n + 1, j)
    assert solution.states[-1].sum() == pytest.approx(solution.excess_loss, rel=1e-6)
    held = solve(Problem(2.5, 1.5, 30, features=40, beta=0.5))
    n, j = len(held.t), len(held.modes)
    assert held.states.shape == held.costates.shape == (n + 1, j, 3)


def _results() -> list[type]:
    """Every class of the library whose objects are results."""
    for module in pkgutil.walk_packages(optsched.__path__, "optsched."):
        if module.name != "optsched.__main__":
            importlib.import_module(module.name)
    return Brief.__subclasses__()


def test_every_result_is_equal_to_itself_alone_and_shown_by_one_rule() -> None:
    """Dataclasses make their own methods where a base has them, unless they are told not to."""
    found = [one for one in _results() if one.__module__.startswith("optsched.")]
    assert {"Comparison", "BudgetSolution", "Fit", "Plan", "Ranking"} <= {c.__name__ for c in found}
    for cls in found:
        assert cls.__repr__ is Brief.__repr__ and cls.__eq__ is object.__eq__, cls
        assert cls.__hash__ is object.__hash__, cls
        assert all(hasattr(cls, name) or name in cls.__annotations__ for name in cls.told), cls


@dataclass(frozen=True, eq=False, repr=False)
class _Found(Brief):
    name: str
    loss: float
    steps: Any
    members: tuple[Any, ...]
    at: Any


def test_a_result_in_one_line() -> None:
    one = _Found("x" * 300, np.float64(1 / 3), np.ones((4, 2)), (1, 2, 3), Status.CONVERGED)
    assert repr(one) == (
        f"_Found(name={'x' * 57 + '...'!r}, loss=0.333333, steps=<4 x 2>, members=<3>,"
        " at=CONVERGED)"
    )
    assert one == one and one != _Found(one.name, one.loss, one.steps, one.members, one.at)
    assert len({one, one}) == 1


def test_a_comparison_and_a_budget_in_one_line() -> None:
    solved: Any = SimpleNamespace(problem=SimpleNamespace(horizon=9, samples=99.0), excess_loss=0.1)
    found = BudgetSolution(solved, Budget(samples=99.0), (None,) * 50, 0.0, None)  # type: ignore[arg-type]
    table = Comparison(solved.problem, solved, ())
    for one in (found, table):
        assert "\n" not in repr(one) and len(repr(one)) < 200
        assert f"{type(one).__name__}(" in repr(one)
