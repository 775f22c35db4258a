"""Plots take and return Axes, and show what they say."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from optsched import Problem, solve
from optsched.pilot.prediction import Prediction
from optsched.plots.pilot import plan_figure, prediction_figure
from optsched.plots.solution import plot_loss, plot_schedule, plot_solution
from optsched.schedules.families import linear, wsd
from optsched.studies.compare.baselines import best_baselines
from tests.pilots import chosen


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


def test_a_plan_is_seen_before_its_rivals() -> None:
    """Above the others, its cooldown marked, its interval alone; the best final loss on top."""
    schedules = {
        "plan": wsd(1000, 0.1, cooldown=0.25, shape="1-sqrt"),
        "linear": linear(1000, 0.1),
    }
    steps, flat = np.arange(0, 1001, 10), np.full(101, 0.1)
    curves = {
        name: Prediction(
            steps, flat, low + np.exp(-steps / 300), low - flat, low + 20.0 * flat, 0.8, ()
        )
        for name, low in (("plan", 2.1), ("linear", 2.0))
    }
    rates, losses, finals = plan_figure(schedules, curves).axes
    widths = {str(line.get_label()): line.get_linewidth() for line in rates.lines}
    assert widths["plan"] > widths["linear"]
    assert "falls after step 749" in {text.get_text() for text in rates.texts}
    assert losses.get_xlim()[0] == 749 - 125 and losses.get_xlim()[1] == 1000
    assert len(losses.collections) == 1  # one band
    assert [text.get_text() for text in finals.get_yticklabels()] == ["linear", "plan"]
    point = np.asarray(finals.lines[0].get_xdata(), float)
    assert point[0] == curves["linear"].loss[-1]


def test_what_was_measured_is_drawn_beside_its_prediction() -> None:
    run = chosen("25M", ["wsdcon_9"])[0]
    line = np.full(len(run.steps), 3.0)
    curve = Prediction(run.steps, line, line, line - 0.1, line + 0.1, 0.8, ())
    (ax,) = prediction_figure({run.name: curve}, {run.name: run}).axes
    points = ax.lines[-1]
    shown = np.asarray(points.get_ydata(), float)
    assert points.get_linestyle() == "None" and len(shown) >= 40
    assert run.loss.min() <= shown.min() < 3.5 < shown.max() <= run.loss.max()
