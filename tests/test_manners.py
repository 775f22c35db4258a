"""Results with manners: a line, a table, a figure; equality and hashes that do not raise."""

from __future__ import annotations

import pickle
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from optsched import Certificate, Problem, Solution, SolveFailed, Status, replay, solve
from optsched.control.methods.pontryagin import Pontryagin


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
