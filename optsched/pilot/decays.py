"""A fit for runs of another weight decay than that of the runs it was made from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from optsched.checks import at_least
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import NormLaw

__all__ = ["at_decay"]


def at_decay(found: Fit, weight_decay: float | None) -> Fit:
    """The fit for runs of another weight decay than its own.

    Parameters
    ----------
    found : Fit
    weight_decay : float, optional
        None, or that of the fit, for the fit as it is.

    Returns
    -------
    Fit
        Its parameters are those of the same law in the units of runs with that decay.

    Raises
    ------
    InvalidProblem
        A number below 0, a law that does not know the decay, or runs without one.
    """
    if weight_decay is None:
        return found
    decay = at_least("weight_decay", weight_decay, 0.0)
    both = np.vstack([found.theta[None], found.members])
    law, moved = found.law.at_decay(both, decay, found.scale)
    if law is found.law:
        return found
    assert isinstance(law, NormLaw) and isinstance(found.law, NormLaw)
    pilots = found.law.weight_decay if found.pilot_decay is None else found.pilot_decay
    return replace(
        found,
        law=law,
        theta=moved[0],
        members=moved[1:],
        pilot_decay=None if decay == pilots else pilots,
        decay_shift=found.decay_shift + law.shift(found.theta, moved[0]),
    )
