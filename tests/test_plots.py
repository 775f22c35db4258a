"""Plots take and return Axes, and show what they say."""

from __future__ import annotations

from matplotlib.figure import Figure

from optsched import Problem, solve
from optsched.plots.solution import plot_loss, plot_schedule, plot_solution
from optsched.studies.compare.baselines import best_baselines


def test_plots() -> None:
    problem = Problem(2.5, 2.0, 200, features=100)
    solution = solve(problem)
    baselines = best_baselines(problem)
    left, right = Figure().subplots(1, 2)
    others = [(b.name, b.schedule) for b in baselines]
    assert plot_schedule(left, solution.schedule, others) is left
    assert plot_loss(right, solution) is right
    assert [line.get_label() for line in left.lines][:3] == ["constant", "linear", "cosine"]
    assert right.get_xscale() == right.get_yscale() == "log"
    excess = right.lines[0].get_ydata()
    assert excess[-1] == solution.excess_loss  # type: ignore[index]
    figure = plot_solution(solution, baselines)
    assert len(figure.axes) == 2 and "easy" in figure.get_suptitle()


def test_baselines_are_tuned_and_beaten() -> None:
    for a, b in ((2.5, 2.0), (1.5, 3.0)):
        problem = Problem(a, b, 300, features=200)
        best = solve(problem).excess_loss
        for baseline in best_baselines(problem):
            assert baseline.replay.excess_loss >= best * (1 - 1e-9)
            assert baseline.peak <= problem.eta_cap
            from optsched import replay
            from optsched.schedules.families import FAMILIES

            for factor in (0.8, 1.25):
                peak = min(factor * baseline.peak, problem.eta_cap)
                other = FAMILIES[baseline.name](300, peak)
                loss = replay(problem.spectrum, problem.dynamics, other).excess_loss  # type: ignore[arg-type]
                assert loss >= baseline.replay.excess_loss * (1 - 1e-4)
