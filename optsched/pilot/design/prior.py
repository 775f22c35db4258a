"""What is known of the law of the loss before the pilots, or after the first of them."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.checks import positive
from optsched.errors import InvalidProblem
from optsched.pilot.design.information import Prior
from optsched.pilot.fitting import EARLY, Fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.laws import Prior as Spread
from optsched.pilot.pieces import Scale
from optsched.pilot.prediction import check_described

__all__ = ["after_fit", "drawn", "from_nothing", "moments"]

DRAWS = 4
HELD = 1e-9  # standard deviation of a parameter that is held
# Of what the law's own priors leave open, over the loss at the end of the longest pilot: what
# public language models have (25M to 370M parameters), with twice their scatter.
LEVEL = Spread(0.87, 0.08)
BIAS = Spread(math.log(0.1), 0.6)


def from_nothing(
    law: NormLaw, peak: float, span: float, loss: float, seed: int = 0, draws: int = DRAWS
) -> Prior:
    """The priors of the norm law, for runs up to a peak and a length.

    Parameters
    ----------
    law : NormLaw
        With what is known of the optimiser; an unknown weight decay is taken to be 0.1.
    peak, span : float
        Largest peak rate and length of the pilots.
    loss : float
        Expected about the end of the longest.
    seed, draws : int
        Of the parameters around which the law is linearised.
    """
    decay = 0.1 if law.weight_decay is None else law.weight_decay
    told = NormLaw(law.priors, law.optimiser, decay, law.coupled, law.init_std)
    scale = Scale(positive("peak", peak), positive("span", span), EARLY)
    made = told.for_runs(scale, [positive("loss", loss)])
    theta, spread = moments(made, loss)
    rng = np.random.default_rng(seed)
    # Half the spread: the linear model knows the rest.
    found = [theta, *(drawn(made, theta, 0.5 * spread, rng) for _ in range(draws - 1))]
    precision = np.diag(1.0 / np.maximum(spread, HELD) ** 2)
    return Prior(made, scale, np.array(found), precision, np.zeros(0))


def moments(law: NormLaw, loss: float) -> tuple[Floats, Floats]:
    """Means and standard deviations of all parameters."""
    own = {
        "level": Spread(LEVEL.mean * loss, LEVEL.spread * loss),
        "log_bias": Spread(BIAS.mean + math.log(loss), BIAS.spread),
    }
    priors = [{**own, **law.priors}[name] for name in law.parameters]
    return np.array([p.mean for p in priors]), np.array([p.spread for p in priors])


def drawn(law: NormLaw, theta: Floats, spread: Floats, rng: np.random.Generator) -> Floats:
    """Parameters about others, within the ranges of the law."""
    low = np.maximum(law.low, np.where([n == "saturation" for n in law.parameters], 0.0, law.low))
    return np.clip(theta + spread * rng.standard_normal(len(theta)), low + 1e-6, law.high - 1e-6)


def after_fit(found: Fit, draws: int = DRAWS) -> Prior:
    """What a fitted law leaves open: the covariance of its members.

    Raises
    ------
    InvalidProblem
        A law without plans, or that does not describe its runs, or without members.
    """
    if not found.law.plannable:
        allowed = "a law whose loss has a least: fsl-norm, fsl, fsl-sgd, features or momentum"
        raise InvalidProblem("law", found.law.name, allowed)
    check_described(found)
    if len(found.members) < 2:
        raise InvalidProblem("law", f"{len(found.members)} members", "a fit with members")
    covariance = np.cov(found.members.T)
    # What is held, and what fewer members than parameters do not span.
    tiny = np.maximum(1e-6 * np.diag(covariance), HELD**2)
    precision = np.linalg.inv(covariance + np.diag(tiny)).astype(np.float64)
    thetas = np.vstack([found.theta, found.members[: draws - 1]])
    peaks = np.array([run.peak for run in found.runs])
    return Prior(found.law, found.scale, thetas, precision, peaks)
