r"""Fit a law to the logs of a few runs, with its uncertainty.

The objective is the Huber loss of the residuals of :math:`\ln L`, over their own size, and of the
priors of the law, so that runs that contradict a prior win in the end. Residuals of a law are
smooth in time, since what is left is what the law cannot say, so that the rows of a log are far
from independent: a prior weighs as much as 60 rows.
Uncertainty is that of the objective's curvature (Laplace), by a factor that makes intervals hold
on models that were left out; it is carried by an ensemble of parameters with that covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.checks import whole
from optsched.errors import InvalidProblem
from optsched.logs.run import Run
from optsched.logs.seeds import average_seeds
from optsched.pilot.halves import NO_SLIP, slip
from optsched.pilot.identify import at_ends, ruled, unidentified
from optsched.pilot.judge import judged
from optsched.pilot.laws import Law, NormLaw
from optsched.pilot.laws.contract import check_curve, checked_law
from optsched.pilot.pieces import Scale, cut
from optsched.pilot.search import ROWS, Data, ensemble, fit_one, scale_of
from optsched.pilot.stated import stated

__all__ = ["LOSSES", "Fit", "RunNote", "early_rows", "fit"]

LEAST_ROWS = 4  # that are kept of a run
EARLY = 0.08  # of the shortest run: early training, of which laws know nothing
SEED_NOISE = 4e-4  # relative, between two runs of one schedule: 1.2e-3 nats at a loss of 3
LOSSES = 1e-7, 1e3  # what the ranges of the parameters are for
MEMBERS = 64


@dataclass(frozen=True)
class RunNote:
    """What a fit keeps of a run: name, steps, peak and last rate, last loss, steps of warm-up."""

    name: str
    horizon: int
    peak: float
    last_rate: float
    last_loss: float
    warmup: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Brief):
    r"""A fitted law with its uncertainty.

    Attributes
    ----------
    law : Law
        With the priors that it had of these runs.
    theta : numpy.ndarray, shape (p,)
        Parameters, those of the smallest objective.
    members : numpy.ndarray, shape (K, p)
        Ensemble about ``theta`` whose covariance is that of the parameters.
    scale : Scale
        Units of the parameters.
    runs : tuple of RunNote
    misfit : float
        Root mean square of the residuals, in nats: what the law cannot say.
    seed_noise : float
        Standard deviation of the loss between two runs of one schedule, relative.
    warnings : tuple of str
        What the runs do not determine, and what looks wrong, in sentences.
    cost : float
        Objective, in units of the squared size of the residuals.
    notes : tuple of str
        What the fit took for given and what it left out, in sentences.
    failed : str
        Why the law does not describe the runs, so that nothing should rest on it; else empty.
    slip : float
        Relative error of the ends of the runs as a fit to their first halves predicts them, in a
        doubling of the steps; 0 where that is as usual (`optsched.pilot.halves`).
    pilot_decay : float, optional
        Weight decay of the runs, of a fit that was carried to another one (`at_decay`).
    decay_shift : float
        By what that moves the logarithm of the effective rate at the end of the longest run.
    """

    law: Law
    theta: Floats
    members: Floats
    scale: Scale
    runs: tuple[RunNote, ...]
    misfit: float
    seed_noise: float
    warnings: tuple[str, ...] = ()
    cost: float = field(default=math.nan)
    notes: tuple[str, ...] = ()
    failed: str = ""
    slip: float = 0.0
    pilot_decay: float | None = None
    decay_shift: float = 0.0

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """Value and standard error of every parameter, in the units of the scale."""
        spread = self.members.std(0, ddof=1) if len(self.members) > 1 else np.zeros(len(self.theta))
        rows = zip(self.law.parameters, self.theta, spread, strict=True)
        return {name: (float(value), float(error)) for name, value, error in rows}

    @property
    def exponents(self) -> dict[str, tuple[float, float]]:
        r"""Exponents of the power-law model that the law would have.

        With :math:`s = (a-1)/b` and a tail :math:`q = 1 - 1/b`: a and b with standard errors, empty
        where the law has no such exponents or q >= 1, which no b gives.
        """
        names = self.law.parameters
        if "s" not in names or "q" not in names or "q" in self.law.held:
            return {}
        s, q = names.index("s"), names.index("q")
        rows = np.vstack([self.theta[None], self.members])
        rows = rows[rows[:, q] < 1.0]
        if len(rows) < 1 + 0.9 * len(self.members) or self.theta[q] >= 1.0:
            return {}
        b = 1.0 / (1.0 - rows[:, q])
        a = 1.0 + rows[:, s] * b
        error = (lambda v: float(v[1:].std(ddof=1))) if len(rows) > 2 else (lambda v: math.nan)
        return {"a": (float(a[0]), error(a)), "b": (float(b[0]), error(b))}

    @property
    def peaks(self) -> tuple[float, float]:
        """Smallest and largest peak rate of the runs."""
        peaks = [run.peak for run in self.runs]
        return min(peaks), max(peaks)

    @property
    def horizon(self) -> int:
        """Steps of the longest run."""
        return max(run.horizon for run in self.runs)

    @property
    def warmup(self) -> int:
        """Steps of warm-up of the runs; the longest, if they differ."""
        return max(run.warmup for run in self.runs)


def early_rows(runs: Sequence[Run]) -> int:
    """First step of the rows that are used: 8 % of the shortest run, at least the warm-ups."""
    shortest = min(int(run.steps[-1]) for run in runs)
    return max(math.ceil(EARLY * shortest), *(run.warmup for run in runs), 1)


def _late(run: Run, first: int) -> Run:
    """The rows from a step on, the last four in any case, without one before the first update."""
    keep = run.steps >= min(first, int(run.steps[-LEAST_ROWS:][0]))
    keep &= run.steps > 0
    return replace(run, steps=run.steps[keep], loss=run.loss[keep])


def _checked(runs: Sequence[Run]) -> list[Run]:
    runs = list(runs)
    if not runs:
        raise InvalidProblem("runs", 0, "one run or more")
    for run in runs:
        if not isinstance(run, Run):
            raise InvalidProblem("runs", type(run).__name__, "runs as read_run returns them")
        for worst in (float(run.loss.min()), float(run.loss.max())):
            if not LOSSES[0] <= worst <= LOSSES[1]:
                allowed = f"{LOSSES[0]:g} to {LOSSES[1]:g}; multiply the column by a constant"
                raise InvalidProblem(f"loss of {run.name}", worst, allowed)
    return runs


def fit(
    runs: Sequence[Run],
    law: Law | str | None = None,
    *,
    members: int = MEMBERS,
    seed: int = 0,
    start: Floats | None = None,
) -> Fit:
    r"""Fit a law to pilot runs.

    Minimises :math:`\sum h((\ln L_\theta - \ln L)/\epsilon) + \text{priors}` with the Huber loss h
    over at most 40 bin means a run, from several starts in which level, bias and noise are solved
    for; :math:`\epsilon` is the root mean square of the residuals, found in two rounds. Rows of
    early training are left out: before 8 % of the shortest run, and within a warm-up.

    Parameters
    ----------
    runs : sequence of Run
        One or more; three with different schedules are a good start. Peak rates may differ.
    law : Law or str, optional
        A law, or the name of one of `LAWS`; the functional scaling law in rates over the norm of
        the weights if not given. Of a law that has alternatives (a decay of the weights that is
        not known), the one that describes the runs best.
    members : int
        Size of the ensemble that carries the uncertainty; 0 for none.
    seed : int
        Of the ensemble.
    start : numpy.ndarray, optional
        Parameters to start from, instead of several starts.

    Returns
    -------
    Fit

    Raises
    ------
    InvalidProblem
        No runs, what is none, or losses that are not from 1e-7 to 1e3; a law that is none.
    BadPart
        If a law of the user's breaks its contract, naming the rule.
    """
    runs = _checked(runs)
    members = whole("members", members, 0, 10_000)
    first = early_rows(runs)
    late = [_late(run, first) for run in runs]
    thin = [run.thin(ROWS, "equal") for run in late]
    scale = scale_of(thin, runs)
    data = [Data(cut(run.schedule, run.steps, scale), run.loss) for run in thin]
    finals = [float(run.loss[-1]) for run in runs]
    told = stated(NormLaw() if law is None else checked_law(law), runs)
    laws = [(one.for_runs(scale, finals), one) for one in told.law.alternatives()]
    check_curve(laws[0][0], laws[0][0].starts()[0], data[0].pieces)
    tried = [(fit_one(mine, data, start), one) for mine, one in laws]
    found, chosen = min(tried, key=lambda pair: pair[0].score)
    left_out = sum(len(run.steps) - len(kept.steps) for run, kept in zip(runs, late, strict=True))
    notes = [*found.law.assumptions(), *told.notes]
    if left_out:
        notes.append(
            f"rows before step {first:,} left out ({left_out} of"
            f" {sum(len(run.steps) for run in runs)}): early training"
        )
    draws = ensemble(found, max(finals), members, np.random.default_rng(seed))
    priors = ruled(found.law, draws)
    notes += [] if priors is None else [priors]
    seen = tuple(_note(run) for run in runs)
    ends = np.array([run.last_rate / run.peak for run in seen])
    misfits = found.residuals * np.concatenate([run.loss for run in thin])
    verdict = judged(thin, found.residuals, at_ends(found.law, found.theta))
    ahead = NO_SLIP if not members or verdict.failed else slip(late, chosen)
    return Fit(
        law=found.law,
        theta=found.theta,
        members=draws,
        scale=scale,
        runs=seen,
        misfit=float(np.sqrt(np.mean(misfits**2))),
        seed_noise=_seed_noise(runs),
        warnings=(
            *told.warnings,
            *verdict.warnings,
            *unidentified(found.law, found.theta, draws, ends),
            *ahead.warnings,
        ),
        cost=found.cost,
        notes=tuple(notes),
        failed=verdict.failed,
        slip=ahead.size,
    )


def _note(run: Run) -> RunNote:
    last = int(run.steps[-1])
    return RunNote(
        run.name,
        last,
        run.schedule.peak,
        float(run.schedule(last)),
        float(run.loss[-1]),
        min(run.warmup, last),
    )


def _seed_noise(runs: Sequence[Run]) -> float:
    """Relative noise between runs of one schedule: measured where there are such, else assumed."""
    found = [
        group.noise / float(np.median(group.mean.loss))
        for group in average_seeds(runs)
        if group.noise is not None
    ]
    return float(np.sqrt(np.mean(np.square(found)))) if found else SEED_NOISE
