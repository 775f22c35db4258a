"""Make the figures of the documentation: ``python docs/make_figures.py``.

Writes to docs/figures: readme, first, momentum, batch-size and averaging by the command line,
phases, and those of the rules, lmo-valley, batch-rules, convex and diffusion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched import Problem, Solution, cli, solve
from optsched.plots.batch_rules import plot_rate_rules, plot_tradeoff
from optsched.plots.convex import plot_along, plot_cooldowns
from optsched.plots.diffusion import plot_noise_figure
from optsched.plots.lmo import plot_valley
from optsched.rules.batch.scaling import fit_critical_batch
from optsched.rules.convex.bound import convex_bound
from optsched.rules.diffusion.schedules import cosine as cosine_noise
from optsched.rules.diffusion.schedules import edm
from optsched.rules.diffusion.schedules import linear as linear_noise
from optsched.rules.lmo.tuned import LMOBound
from optsched.rules.lmo.valley import valley
from optsched.schedules.families import constant, cosine, linear, wsd

FIGURES = Path(__file__).parent / "figures"
HORIZONS = (10**3, 10**5, 10**7)
COMMANDS = {
    "readme": "--a 3.5 --b 2 --horizon 3162",
    "first": "--a 3.5 --b 2 --horizon 1000",
    "momentum": "--a 3.5 --b 5 --horizon 1000 --control eta,beta,nu",
    "batch-size": "--a 2.5 --b 1.5 --horizon 600 --control batch --samples 1e4 --peak 0.3",
    "averaging": "--a 2.5 --b 1.5 --horizon 1000 --control eta,ema",
}
COLOURS = ("#56B4E9", "#0072B2", "#000000")
LOSS = {"easy": r"$T^{-(a-1)/a}$", "hard": r"$T^{-(a-1)/b}$"}


def shapes(ax: Axes, solutions: list[Solution]) -> None:
    """Optimal rates against the share of training that is done."""
    for solution, colour in zip(solutions, COLOURS, strict=True):
        done = (solution.t + 0.5) / solution.problem.horizon
        exponent = round(np.log10(solution.problem.horizon))
        ax.plot(done, solution.controls["eta"], color=colour, label=f"$T = 10^{exponent}$")
    problem = solutions[0].problem
    ax.set_title(f"{problem.phase} phase: a = {problem.a:g}, b = {problem.b:g}", fontsize=10)
    ax.set_yscale("log")
    ax.set_ylim(1e-4, 2.0)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("share of the steps, $t/T$")
    ax.set_ylabel(r"optimal rate $\eta^*$")
    ax.legend(frameon=False)


def losses(ax: Axes, cases: list[list[Solution]]) -> None:
    """Optimal excess loss against the horizon, with the slopes of the theory."""
    for solutions, marker in zip(cases, "os", strict=True):
        problem = solutions[0].problem
        horizon = np.array([solution.problem.horizon for solution in solutions], float)
        excess = np.array([solution.excess_loss for solution in solutions])
        below = problem.a if problem.phase == "easy" else problem.b
        slope = -(problem.a - 1.0) / below
        ax.plot(horizon, excess, marker, color="black", label=f"{problem.phase}, optimum")
        line = excess[-1] * (horizon / horizon[-1]) ** slope
        ax.plot(horizon, line, "--", color="#D55E00", linewidth=1.2)
        ax.annotate(
            LOSS[problem.phase],
            (horizon[1], line[1]),
            xytext=(6, 6),
            textcoords="offset points",
            color="#D55E00",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("horizon $T$")
    ax.set_ylabel("excess loss $E(T)$")
    ax.legend(frameon=False)


def rules() -> None:
    """Draw the flat valley, and what another batch size changes."""
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    plot_valley(figure.subplots(), valley(LMOBound(), 1e9, np.geomspace(1.0, 3e4, 41)))
    figure.savefig(FIGURES / "lmo-valley.png", dpi=120)
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    batches = np.geomspace(16.0, 65536.0, 7)
    plot_tradeoff(left, fit_critical_batch(batches, 5000.0 * (1.0 + 1000.0 / batches)))
    plot_rate_rules(right, 1000.0, 64.0)
    figure.savefig(FIGURES / "batch-rules.png", dpi=120)


def bounds() -> Figure:
    """The convex bound along runs, and the best peak against the cooldown."""
    shapes = {
        "constant": constant(4000, 1.0),
        "WSD, cooldown 20 %": wsd(4000, 1.0, cooldown=0.2),
        "cosine": cosine(4000, 1.0),
        "linear": linear(4000, 1.0),
    }
    tuned = [(name, shape.scaled(convex_bound(shape).scale)) for name, shape in shapes.items()]
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1.0))
    plot_along(left, tuned)
    plot_cooldowns(right)
    return figure


def main() -> None:
    """Solve and draw."""
    FIGURES.mkdir(exist_ok=True)
    rules()
    for name, options in COMMANDS.items():
        arguments = f"solve {options} --force --json --plot".split()
        if cli.main([*arguments, str(FIGURES / f"{name}.png")]):
            raise SystemExit(1)
    cases = [
        [solve(Problem(3.5, b, horizon), replay_steps=10**4) for horizon in HORIZONS]
        for b in (2.0, 5.0)
    ]
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    shapes(axes[0], cases[0])
    shapes(axes[1], cases[1])
    losses(axes[2], cases)
    figure.savefig(FIGURES / "phases.png", dpi=120)
    bounds().savefig(FIGURES / "convex.png", dpi=120)
    kinds = [("linear", linear_noise()), ("cosine", cosine_noise()), ("EDM, $T$ = 18", edm())]
    plot_noise_figure(kinds).savefig(FIGURES / "diffusion.png", dpi=120)


if __name__ == "__main__":
    main()
