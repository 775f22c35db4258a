r"""The figures of Bordelon & Mori (arXiv 2602.04774), recomputed.

Every function in `FIGURES` returns the numbers of one figure; `optsched.plots.figures` draws them.
The setting is the paper's: N = 1000, m = 5, sigma = 0.5, eta_max = 1, and (a, b) as listed with
each figure. Beside the exponents of what is drawn there are those of longer horizons with
infinitely many features: local slopes still drift where the paper can draw, and what N = 1000
leaves out is no longer small where they have settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from optsched.control.problem import Problem
from optsched.control.solve import solve
from optsched.errors import InvalidProblem
from optsched.exponents import fit_exponent
from optsched.model.replay import replay
from optsched.schedules.families import FAMILIES
from optsched.studies.compute import ComputeOptimal, compute_optimal, iso_flop
from optsched.studies.finders import SCHEDULES
from optsched.studies.paper import (
    Curve,
    Exponent,
    Panel,
    PaperFigure,
    curve,
    guide,
    losses,
    over_time,
    path,
    profile,
    tens,
    where,
)
from optsched.studies.scaling import scaling, scaling_theory

__all__ = ["FIGURES", "reproduce"]

Told = Callable[[str], None]
Phase = tuple[float, float]

HARD, EASY = (3.5, 5.0), (3.5, 2.0)
LOSS = "loss above the noise floor"
NAMES = {
    "optimal": "optimal",
    "constant": "best constant",
    "power": "best power law",
    "sgd": "SGD",
    "heavy-ball": "heavy ball",
    "qhm": "quasi-hyperbolic",
}


def _horizons(low: float, high: float, count: int) -> list[int]:
    return [round(t) for t in np.geomspace(low, high, count)]


def _power(variable: str, exponent: float) -> str:
    return f"${variable}^{{{exponent:.3g}}}$"


# Figure 1b: final loss against a fixed rate ---------------------------------------------------

FIG1_HORIZONS = _horizons(1e2, 1e6, 5)
FIG1_LONG = _horizons(1e5, 1e10, 6)
RATES = np.geomspace(1e-4, 1.0, 61)


def fig1b(told: Told) -> PaperFigure:
    """Final loss against a fixed rate: the best one moves left as the horizon grows."""
    found = [_fixed_rates(phase, told) for phase in (EASY, HARD)]
    return PaperFigure(
        "fig1b",
        "Final excess loss of a fixed learning rate, on the exact recursion",
        (tuple(panel for panel, _ in found),),
        tuple(exponent for _, exponent in found),
    )


def _fixed_rates(phase: Phase, told: Told) -> tuple[Panel, Exponent]:
    problem, curves, best = Problem(*phase, horizon=1), [], []
    for horizon in FIG1_HORIZONS:
        told(f"{problem.phase} phase: constant rates at T = {horizon:,}")
        values = [_constant_loss(problem, float(rate), horizon) for rate in RATES]
        point = SCHEDULES["constant"](problem.replace(horizon=horizon), {}, None)
        best.append((point.peak_eta, point.excess_loss))
        curves.append(curve(tens("T", horizon), RATES, values))
    curves.append(curve("best rate", *np.array(best).T, kind="mark"))
    long = scaling(problem.replace(features=math.inf), FIG1_LONG, schedule="constant")
    a, b = phase
    theory = (a - 1.0) / (a + b - 1.0)
    assert long.peak_fit is not None
    exponent = Exponent.of("best fixed rate", problem, long.peak_fit, paper=math.nan, theory=theory)
    rate = r"fixed learning rate $\eta$"
    return Panel(problem.phase, where(problem), rate, f"final {LOSS}", tuple(curves)), exponent


def _constant_loss(problem: Problem, rate: float, horizon: int) -> float:
    """Replayed loss of a constant rate; NaN where it diverges."""
    schedule = FAMILIES["constant"](horizon, rate)
    loss = replay(problem.spectrum, problem.dynamics, schedule, max_steps=1000).excess_loss
    return loss if loss < 1e3 else math.nan


# Figures 2 and 3: the optimum beside the best constant rate and power law ---------------------

QUOTED = {
    ("hard", "optimal"): 0.5,
    ("easy", "optimal"): 5.0 / 7.0,
    ("hard", "constant"): 1.0 / 3.0,
    ("easy", "constant"): 5.0 / 9.0,
    ("hard", "power"): 1.0 / 3.0,
    ("easy", "power"): 5.0 / 9.0,
}
FIG2 = ("constant", "power", "optimal")
FIG2_HORIZONS = _horizons(1e2, 1e5, 7)
FIG2_LONG = _horizons(1e6, 1e10, 5)


def fig2(told: Told) -> PaperFigure:
    """Profiles of the optimal rate, loss over time, and final loss against the horizon."""
    rows, exponents = [], []
    for phase in (HARD, EASY):
        problem = Problem(*phase, horizon=1)
        profiles, paths, finals = [], [], []
        for horizon in FIG2_HORIZONS[::2]:
            told(f"{problem.phase} phase: optimum at T = {horizon:,}")
            found = solve(problem.replace(horizon=horizon))
            profiles.append(profile(tens("T", horizon), found.schedule))
            paths.append(path(tens("T", horizon), found.replay))
        for name in FIG2:
            told(f"{problem.phase} phase: {NAMES[name]} along horizons")
            lines, rest = _falling(problem, name)
            finals += lines
            exponents += rest
        title, rate = where(problem), r"optimal rate $\eta^*_T(t)$"
        rows.append(
            (
                Panel(f"{problem.phase} profiles", title, "$t/T$", rate, tuple(profiles), False),
                Panel(f"{problem.phase} over time", title, "step $t$", LOSS, tuple(paths)),
                Panel(
                    f"{problem.phase} final", title, "horizon $T$", f"final {LOSS}", tuple(finals)
                ),
            )
        )
    caption = "Optimal schedules, their loss over time, and final losses against the horizon"
    return PaperFigure("fig2", caption, tuple(rows), tuple(exponents))


def _falling(problem: Problem, name: str) -> tuple[list[Curve], list[Exponent]]:
    """Final losses along horizons with the quoted slope, and the exponents of two ranges."""
    quoted = QUOTED[problem.phase, name]
    drawn = scaling(problem, FIG2_HORIZONS, schedule=name)
    limit = problem.replace(features=math.inf)
    long = scaling(limit, FIG2_LONG, schedule=name, solve_options={"replay_steps": 0})
    theory = long.theory.get("expected", math.nan)
    exponents = [
        Exponent.of(f"loss, {NAMES[name]}", problem, study.fit, paper=quoted, theory=theory)
        for study in (drawn, long)
        if study.fit is not None
    ]
    lines = [losses(NAMES[name], drawn.points)]
    if name != "power":  # that of the constant rate
        above = name == "constant"
        end = (1.3 if above else 0.8) * lines[0].y[-1]
        lines.append(guide(_power("T", -quoted), lines[0].x, quoted, end, above=above))
    return lines, exponents


def fig3(told: Told) -> PaperFigure:
    """Bias and variance over time at T = 3162."""
    rows = []
    for phase in (HARD, EASY):
        problem = Problem(*phase, horizon=3162)
        played = []
        for name in FIG2:
            told(f"{problem.phase} phase: {NAMES[name]}")
            point = SCHEDULES[name](problem, {}, None)
            one = point.solution if point.solution is not None else point.tuned
            assert one is not None
            played.append((NAMES[name], one.replay))
        rows.append(
            tuple(
                Panel(
                    f"{problem.phase} {part}",
                    where(problem),
                    "step $t$",
                    LOSS if part == "excess" else part,
                    tuple(path(name, run, part) for name, run in played),
                )
                for part in ("bias", "variance", "excess")
            )
        )
    return PaperFigure("fig3", "Bias, variance and loss over time at T = 3162", tuple(rows))


# Figure 4: compute ----------------------------------------------------------------------------

FIG4 = ((2.0, 1.5), (1.5, 2.0))
FIG4_DRAWN = tuple(10.0**k for k in range(4, 9))
FIG4_LONG = tuple(10.0**k for k in range(8, 14))
SPLIT = {"loss": "loss", "features": "features N", "horizon": "steps T"}


def fig4(told: Told) -> PaperFigure:
    """Loss against features at fixed compute, and the best split of compute."""
    rows, exponents = [], []
    for a, b in FIG4:
        problem = Problem(a, b, 1000)
        told(f"{problem.phase} phase: losses at fixed compute")
        fixed = [iso_flop(problem, budget) for budget in FIG4_DRAWN]
        curves = [curve(tens("C", one.budget), one.features, one.losses) for one in fixed]
        told(f"{problem.phase} phase: best split of compute")
        study = compute_optimal(problem, FIG4_LONG)
        panel = Panel(
            f"{problem.phase} fixed compute", where(problem), "features $N$", LOSS, tuple(curves)
        )
        rows.append((panel, *_split_panels(problem, study)))
        first, last = FIG4_LONG[0], FIG4_LONG[-1]
        for name, what in SPLIT.items():
            exponents.append(
                Exponent(
                    f"{what} against compute",
                    problem.phase,
                    study.exponent(name),
                    study.fits[name].stderr,
                    study.theory["loss"] if name == "loss" else math.nan,
                    study.theory[name],
                    f"{len(FIG4_LONG)} from C = {first:.3g} to {last:.3g}",
                )
            )
    caption = "Compute-optimal features and steps"
    return PaperFigure("fig4", caption, tuple(rows), tuple(exponents))


def _split_panels(problem: Problem, study: ComputeOptimal) -> tuple[Panel, Panel]:
    budgets = [split.budget for split in study.splits]
    best = [split.best for split in study.splits]

    def lines(name: str, values: list[float], exponent: float) -> tuple[Curve, Curve]:
        slope = guide(_power("C", exponent), budgets, -exponent, 0.6 * values[-1])
        return curve(name, budgets, values, "points"), slope

    theory, title, compute = study.theory, where(problem), "compute $C = N T$"
    falling = lines("best split", [one.excess_loss for one in best], -theory["loss"])
    sizes = lines("features $N$", [float(one.features) for one in best], theory["features"])
    steps = lines("steps $T$", [float(one.horizon) for one in best], theory["horizon"])
    return (
        Panel(f"{problem.phase} loss", title, compute, f"best {LOSS}", falling),
        Panel(f"{problem.phase} split", title, compute, "best $N$ and $T$", (*steps, *sizes)),
    )


# Figure 5: momentum ---------------------------------------------------------------------------

FIG5 = {"sgd": "eta", "heavy-ball": "eta,beta", "qhm": "eta,beta,nu"}
FIG5_HORIZONS = _horizons(1e2, 1e4, 5)


def fig5(told: Told) -> PaperFigure:
    """SGD beside SGD with momentum in the hard phase: schedules and final losses."""
    panels: dict[str, list[Curve]] = {"rate": [], "memory": [], "final": []}
    exponents: list[Exponent] = []
    problem = Problem(*HARD, horizon=1)
    for name, controls in FIG5.items():
        one, label = problem.replace(controls=controls), NAMES[name]
        found: list[Any] = []
        for horizon in FIG5_HORIZONS:
            told(f"{label}: optimum at T = {horizon:,}")
            found.append(solve(one.replace(horizon=horizon), throw=False))
        good = [(s.problem.horizon, s.excess_loss) for s in found if s.converged]
        steps, values = np.array(good, float).T
        panels["final"].append(curve(label, steps, values, "points"))
        panels["rate"].append(over_time(label, found[-1].schedule, "eta"))
        if "beta" in found[-1].schedule.controls:
            panels["memory"].append(over_time(label, found[-1].schedule, "beta"))
        theory = scaling_theory(one)
        expected = theory.get("expected", theory["floor"])
        fit = fit_exponent(steps, values)
        what = f"loss, {label}"
        exponents.append(Exponent.of(what, problem, fit, paper=math.nan, theory=expected))
    title, at = where(problem), f"$T$ = {FIG5_HORIZONS[-1]:,}"
    labels = {
        "rate": ("step $t+1$", r"learning rate $\eta$"),
        "memory": ("step $t+1$", r"forgetting $1-\beta$"),
        "final": ("horizon $T$", f"final {LOSS}"),
    }
    row = tuple(
        Panel(key, title if key == "final" else f"{title}, {at}", *labels[key], tuple(curves))
        for key, curves in panels.items()
    )
    caption = "SGD with momentum, hard phase: optimal schedules and final losses"
    return PaperFigure("fig5", caption, (row,), tuple(exponents))


FIGURES: dict[str, Callable[[Told], PaperFigure]] = {
    one.__name__: one for one in (fig1b, fig2, fig3, fig4, fig5)
}


def reproduce(name: str, *, progress: Told | None = None) -> PaperFigure:
    """Numbers of one of the paper's figures.

    Parameters
    ----------
    name : str
        A name in `FIGURES`.
    progress : callable, optional
        Called with a line about what is computed next.

    Raises
    ------
    InvalidProblem
        For an unknown name.
    """
    if name not in FIGURES:
        raise InvalidProblem("figure", name, ", ".join(FIGURES))
    return FIGURES[name](progress or (lambda text: None))
