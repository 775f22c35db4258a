r"""Weight averaging against decay of the rate.

A constant rate leaves a variance that only a smaller rate or an average of the iterates removes.
`compare_averaging` puts both cures side by side on one problem, each at its best:

====================  ============  ===========================================================
row                   rate          average
====================  ============  ===========================================================
decay                 scheduled     none
constant              constant      none
constant, ema         constant      decay rho held
constant, growing     constant      :math:`1 - \rho_t = c / (t + c)`: a window of a share of t
constant, scheduled   constant      rho scheduled
scheduled, ema        scheduled     decay rho held
both                  scheduled     rho scheduled
====================  ============  ===========================================================

The growing window is the polynomial-decay average of Shamir & Zhang ("Stochastic gradient descent
for non-smooth optimization", ICML 2013); c = 1 is the uniform average of all iterates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from optsched.arrays import Brief, Floats, Ints
from optsched.control.certificate import UNREFINED
from optsched.control.problem import Problem
from optsched.control.solve import solve
from optsched.errors import InvalidProblem
from optsched.model.dynamics import Dynamics, knot_blocks
from optsched.model.grading import graded_steps
from optsched.model.propagate import block_maps, run_chain
from optsched.model.replay import MAX_STEPS, Replay, replay
from optsched.numerics import jax_settings
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.baselines import best_baselines

__all__ = [
    "ROWS",
    "AveragingRow",
    "AveragingStudy",
    "check_plain",
    "compare_averaging",
    "growing_window",
]


# What a row contains, as a special case: it is started from there if it ends above.
ROWS: dict[str, tuple[str, ...]] = {
    "decay": (),
    "constant": (),
    "constant, ema": ("constant",),
    "constant, growing": (),
    "constant, scheduled": ("constant, ema", "constant, growing"),
    "scheduled, ema": ("decay", "constant, ema"),
    "both": ("constant, growing", "decay", "constant, scheduled", "scheduled, ema"),
}
SLOW = ("constant, scheduled", "scheduled, ema")  # many solves: a start only where they are made
BLOCKS = 96  # between knots, graded towards both ends, while a row is tuned
KNOTS = 2000  # of a growing window
GRID = 7
MAX_SHARE = 64.0  # largest c of a growing window
TUNING = 6  # solves, beside the first
ROOM = 1.0  # in the logarithm of a value tuned by solves, on both sides of the first guess
FINE_TOL = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class AveragingRow(Brief):
    """One way to train, at its best.

    Attributes
    ----------
    name : str
        In `ROWS`.
    schedule : Schedule
        With ``ema`` where there is an average.
    replay : Replay
        On the exact recursion.
    ratio : float
        Excess loss over that of the optimal decay without averaging.
    tuned : dict
        Values tuned outside of a solve: ``eta``, ``ema`` (rho), ``c`` of a growing window.
    converged : bool
        Whether the solve met its tolerance; True where there is none.
    """

    name: str
    schedule: Schedule
    replay: Replay
    ratio: float
    tuned: dict[str, float]
    converged: bool

    def summary(self) -> dict[str, Any]:
        """Numbers of the row as a JSON-able dict."""
        return {
            "excess_loss": self.replay.excess_loss,
            "bias": self.replay.bias,
            "variance": self.replay.variance,
            "ratio": self.ratio,
            "tuned": dict(self.tuned),
            "converged": self.converged,
            "replay": self.replay.how,
        }


@dataclass(frozen=True, eq=False, repr=False)
class AveragingStudy(Brief):
    """Rows of `compare_averaging`.

    Attributes
    ----------
    problem : Problem
    rows : dict of str to AveragingRow
        In the order of `ROWS`.
    """

    problem: Problem
    rows: dict[str, AveragingRow]

    def summary(self) -> dict[str, Any]:
        """Problem and rows as a JSON-able dict."""
        problem = self.problem
        return {
            "a": problem.a,
            "b": problem.b,
            "horizon": problem.horizon,
            "batch_size": problem.batch_size,
            "noise": problem.noise,
            "phase": problem.phase,
            "rows": {name: row.summary() for name, row in self.rows.items()},
        }

    def table(self) -> str:
        """The rows as text."""
        lines = [f"{'':20} {'excess loss':>11} {'bias':>9} {'variance':>9} {'ratio':>6}  tuned"]
        for name, row in self.rows.items():
            played = row.replay
            tuned = ", ".join(f"{key} {value:.4g}" for key, value in row.tuned.items())
            line = (
                f"{name:20} {played.excess_loss:11.4g} {played.bias:9.3g} "
                f"{played.variance:9.3g} {row.ratio:6.3f}  {tuned}"
            )
            lines.append(line.rstrip() + ("" if row.converged else " (not converged)"))
        return "\n".join(lines)


def growing_window(steps: Ints, c: float) -> Floats:
    r"""Decay :math:`\rho_t = t / (t + c)` at update t: the average reaches back over t / c steps.

    >>> growing_window(np.array([0, 1, 9]), 1.0).tolist()
    [0.0, 0.5, 0.9]
    """
    return steps / (steps + c)


def _averaged(problem: Problem) -> Dynamics:
    """Dynamics that take ``eta`` and ``ema``."""
    return problem.replace(controls="eta,ema", ema=None).dynamics


class _Rival:
    """Constant rate with an average of one shape: its loss, on few blocks."""

    def __init__(self, problem: Problem, shape: Callable[[Ints, float], Floats]) -> None:
        self.problem, self.shape = problem, shape
        self.steps = graded_steps(problem.horizon, BLOCKS)
        pad = BLOCKS + 1 - len(self.steps)
        self.edges = np.append(self.steps, np.full(pad, problem.horizon))
        self.length = np.diff(self.edges).astype(float)
        self.dynamics = _averaged(problem).for_blocks(self.length)
        self.modes = problem.modes.padded()

    def log_loss(self, log_eta: float, value: float) -> float:
        """Logarithm of the final excess loss."""
        ema = self.shape(self.edges, value)
        knots: Any = {"eta": np.full(len(ema), math.exp(log_eta)), "ema": ema}
        with jax_settings():
            blocks = knot_blocks(self.length, knots)  # type: ignore[arg-type]
            maps = block_maps(self.dynamics, self.modes, blocks)
            excess = float(run_chain(self.dynamics, self.modes, maps)[1][-1])
        return math.log(excess) if 0.0 < excess < math.inf else math.inf

    def best(self, values: Floats, lowest: float) -> tuple[float, float]:
        """Rate and value of least loss: a grid, then Nelder-Mead around its best point."""
        high = math.log(self.problem.eta_cap)
        rates = np.linspace(math.log(lowest), high, GRID)
        grid = [(float(x), float(v)) for x in rates for v in values]
        losses = [self.log_loss(*point) for point in grid]
        x, v = grid[int(np.argmin(losses))]
        dx, dv = float(rates[1] - rates[0]), float(values[1] - values[0])
        bounds = [(rates[0], high), (values[0], values[-1])]
        corners = [(x, v), (x - 0.5 * dx if x > rates[0] else x + 0.5 * dx, v)]
        corners += [(x, v - 0.5 * dv if v > values[0] else v + 0.5 * dv)]
        end = minimize(
            lambda p: self.log_loss(*p),
            (x, v),
            method="Nelder-Mead",
            bounds=bounds,
            options={"initial_simplex": corners, "xatol": 5e-3, "fatol": 1e-6, "maxfev": 120},
        )
        return float(end.x[0]), float(end.x[1])


class _Study:
    """Rows of one problem, each made when it is asked for."""

    def __init__(self, problem: Problem, replay_steps: int) -> None:
        self.problem, self.replay_steps = problem, replay_steps
        self.rows: dict[str, AveragingRow] = {}
        self.makers: dict[str, Callable[[], AveragingRow]] = {
            "decay": self.decay,
            "constant": self.constant,
            "constant, ema": lambda: self.rival("constant, ema"),
            "constant, growing": lambda: self.rival("constant, growing"),
            "constant, scheduled": self.constant_scheduled,
            "scheduled, ema": self.scheduled_ema,
            "both": self.both,
        }

    def row(self, name: str) -> AveragingRow:
        """The row of a name."""
        if name not in self.rows:
            self.rows[name] = self.makers[name]()
        return self.rows[name]

    def made(
        self,
        name: str,
        schedule: Schedule,
        tuned: dict[str, float],
        played: Replay | None = None,
        converged: bool = True,
    ) -> AveragingRow:
        """A row, replayed unless it has been."""
        problem = self.problem
        if played is None:
            dynamics = _averaged(problem)
            played = replay(problem.spectrum, dynamics, schedule, max_steps=self.replay_steps)
        best = played if name == "decay" else self.row("decay").replay
        ratio = played.excess_loss / best.excess_loss
        return AveragingRow(name, schedule, played, ratio, tuned, converged)

    def solved(
        self, name: str, tuned: dict[str, float], initial: Schedule | None = None, **changes: Any
    ) -> AveragingRow:
        """A row from a solve."""
        problem = self.problem.replace(**changes)
        solution = solve(
            problem, throw=False, gap=UNREFINED, initial=initial, replay_steps=self.replay_steps
        )
        found = solution.schedule
        if problem.ema is not None:
            controls = {**found.controls, "ema": np.full(len(found.steps), problem.ema)}
            found = Schedule(found.horizon, found.steps, controls)
        return self.made(name, found, tuned, solution.replay, solution.converged)

    def kept(self, row: AveragingRow, **changes: Any) -> AveragingRow:
        """The row, unless a row that it contains is a better start, or better still."""
        for name in ROWS[row.name]:
            if name in SLOW and name not in self.rows:
                continue
            inner = self.row(name)
            if inner.replay.excess_loss < row.replay.excess_loss * (1.0 - FINE_TOL):
                again = self.solved(row.name, inner.tuned, inner.schedule, **changes)
                own = self.made(row.name, inner.schedule, inner.tuned, inner.replay, False)
                row = min(row, again, own, key=lambda one: one.replay.excess_loss)
        return row

    def decay(self) -> AveragingRow:
        return self.solved("decay", {})

    def constant(self) -> AveragingRow:
        best = best_baselines(self.problem, ("constant",), replay_steps=self.replay_steps)[0]
        return self.made("constant", best.schedule, {"eta": best.peak}, best.replay)

    def rival(self, name: str) -> AveragingRow:
        """Constant rate with an average of one parameter, both tuned."""
        problem, held = self.problem, name == "constant, ema"
        horizon = problem.horizon
        shapes: dict[bool, Callable[[Ints, float], Floats]] = {
            True: lambda t, window: np.full(len(t), -math.expm1(-window)),  # log of the window
            False: lambda t, share: growing_window(t, math.exp(share)),
        }
        shape = shapes[held]
        values = np.linspace(0.0, math.log(horizon + 1.0) if held else math.log(MAX_SHARE), GRID)
        least = 0.3 * self.row("constant").tuned["eta"]
        log_eta, value = _Rival(problem, shape).best(values, min(least, 0.3 * problem.eta_cap))
        eta = min(math.exp(log_eta), problem.eta_cap)
        steps = graded_steps(horizon, KNOTS)
        schedule = Schedule(
            horizon, steps, {"eta": np.full(len(steps), eta), "ema": shape(steps, value)}
        )
        tuned = {"ema": -math.expm1(-value)} if held else {"c": math.exp(value)}
        return self.made(name, schedule, {"eta": eta, **tuned})

    def constant_scheduled(self) -> AveragingRow:
        """Constant rate with a scheduled average: the rate by Brent's method, a solve each."""
        start, problem = self.row("constant, growing"), self.problem
        # A held rate has to be below the stability limit.
        cap = min(problem.eta_cap, (1.0 - 1e-9) * problem.stability_limit)

        def at(log_eta: float) -> AveragingRow:
            tuned = {"eta": min(math.exp(log_eta), cap)}
            changes = {"controls": "ema", "eta_max": tuned["eta"]}
            return self.solved("constant, scheduled", tuned, start.schedule, **changes)

        row = _least(at, math.log(start.tuned["eta"]), -math.inf, math.log(cap))
        return self.kept(row, controls="ema", eta_max=row.tuned["eta"])

    def scheduled_ema(self) -> AveragingRow:
        """Scheduled rate with a held average: the window by Brent's method, a solve each."""

        def at(log_window: float) -> AveragingRow:
            rho = -math.expm1(-log_window)
            return self.solved("scheduled, ema", {"ema": rho}, ema=rho)

        first = -math.log1p(-self.row("constant, ema").tuned["ema"])
        row = _least(at, first, 0.0, math.log(self.problem.horizon + 1.0))
        return self.kept(row, ema=row.tuned["ema"])

    def both(self) -> AveragingRow:
        return self.kept(self.solved("both", {}, controls="eta,ema"), controls="eta,ema")


def _least(
    at: Callable[[float], AveragingRow], first: float, low: float, high: float
) -> AveragingRow:
    """Best row over one tuned value, near a first guess."""
    tried = [at(min(first, high))]

    def loss(x: float) -> float:
        tried.append(at(float(x)))
        return math.log(tried[-1].replay.excess_loss)

    near = max(first - ROOM, low), min(first + ROOM, high)
    if near[0] < near[1]:
        options = {"xatol": 0.01, "maxiter": TUNING}
        minimize_scalar(loss, bounds=near, method="bounded", options=options)
    return min(tried, key=lambda row: row.replay.excess_loss)


def check_plain(problem: Problem) -> None:
    """Refuse problems that are not about the rate of plain SGD alone."""
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    if not problem.rate_only:
        allowed = "eta alone, without momentum, averaging or weight decay"
        raise InvalidProblem("controls", ",".join(problem.controls), allowed)
    problem.refuse_objective()
    for name in ("warmup", "eta_min", "max_change"):
        if getattr(problem, name):
            raise InvalidProblem(name, getattr(problem, name), "nothing in this study")


def compare_averaging(
    problem: Problem, names: Iterable[str] = tuple(ROWS), *, replay_steps: int = MAX_STEPS
) -> AveragingStudy:
    """Averaging of the weights against decay of the rate, each way at its best.

    Parameters
    ----------
    problem : Problem
        Of the rate of plain SGD alone; averages are added to it.
    names : iterable of str
        Rows, of `ROWS`. Rows they are compared with or started from are made as well.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    AveragingStudy

    Raises
    ------
    InvalidProblem
        If the problem has other controls or constraints, or a row is not known.
    """
    check_plain(problem)
    wanted = list(names)
    for name in wanted:
        if name not in ROWS:
            raise InvalidProblem("names", name, "rows " + "; ".join(ROWS))
    study = _Study(problem, replay_steps)
    for name in wanted:
        study.row(name)
    rows = {name: study.rows[name] for name in ROWS if name in study.rows}
    return AveragingStudy(problem, rows)
