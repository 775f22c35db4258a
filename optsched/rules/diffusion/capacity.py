r"""Where on the scale of log SNR a noise schedule spends its levels and a loss its weight.

Training picks a level at random, so its density over :math:`\lambda` is
:math:`p(\lambda) = |dt/d\lambda|/T`: steep schedules pass a range of it quickly. With a loss that
weights the squared error of the predicted noise by w, the weight over :math:`\lambda` is
:math:`p\,w`, and only that product matters, not the schedule alone (Kingma & Gao, "Understanding
diffusion objectives as the ELBO with simple data augmentation", arXiv 2303.00848).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from optsched.arrays import Floats
from optsched.checks import choice, number
from optsched.errors import InvalidProblem
from optsched.rules.diffusion.schedules import NoiseSchedule

__all__ = ["WEIGHTS", "Capacity", "capacity", "loss_weight"]

# Of the squared error of the predicted noise, by what a network is trained to predict: as functions
# of log SNR and a parameter. Errors of x are errors of the noise times sigma/alpha.
WEIGHTS: dict[str, Callable[[Floats, float], Floats]] = {
    "epsilon": lambda x, p: np.ones_like(x),
    "x0": lambda x, p: np.exp(-x),
    "v": lambda x, p: 1.0 + np.exp(-x),
    "min-snr": lambda x, p: np.minimum(1.0, p * np.exp(-x)),
    "edm": lambda x, p: 1.0 + np.exp(-x) / p**2,
}
PARAMETERS = {"min-snr": 5.0, "edm": 0.5}


class Capacity(NamedTuple):
    r"""Density over :math:`\lambda`, one value between each two levels, shape (T - 1,).

    Attributes
    ----------
    log_snr : numpy.ndarray of float64
        Middles of the intervals, falling.
    width : numpy.ndarray of float64
        Their widths.
    density : numpy.ndarray of float64
        The sum of density times width is 1.
    """

    log_snr: Floats
    width: Floats
    density: Floats


def loss_weight(log_snr: Floats, loss: str = "epsilon", parameter: float | None = None) -> Floats:
    r"""Weight that a loss puts on the squared error of the predicted noise.

    ============ ====================================== ===========================================
    loss         weight                                 of
    ============ ====================================== ===========================================
    epsilon      1                                      squared error of the noise (DDPM)
    x0           :math:`e^{-\lambda}`                   that of the data
    v            :math:`1 + e^{-\lambda}`               that of v = alpha eps - sigma x
    min-snr      :math:`\min(1, \gamma e^{-\lambda})`   data with weight min(SNR, gamma)
    edm          :math:`1 + e^{-\lambda}/\sigma_d^2`    data with weight 1/sigma^2 + 1/sigma_d^2
    ============ ====================================== ===========================================

    Parameters
    ----------
    log_snr : numpy.ndarray
        :math:`\lambda`.
    loss : str
        A name in the table.
    parameter : float, optional
        :math:`\gamma` of min-snr, 5 if not given; standard deviation :math:`\sigma_d` of the data
        for edm, 0.5.

    Notes
    -----
    v: Salimans & Ho, arXiv 2202.00512, up to the factor that makes it a squared error; min-snr:
    Hang et al., arXiv 2303.09556; edm: Karras et al., arXiv 2206.00364, table 1.
    """
    choice("loss", loss, tuple(WEIGHTS))
    if parameter is not None and loss not in PARAMETERS:
        raise InvalidProblem("parameter", parameter, f"none with the loss {loss}")
    value = PARAMETERS.get(loss, 1.0) if parameter is None else parameter
    value = number("parameter", value, 0.0, 1e6, above=True)
    return WEIGHTS[loss](np.asarray(log_snr, np.float64), value)


def capacity(
    schedule: NoiseSchedule, loss: str | None = None, parameter: float | None = None
) -> Capacity:
    r"""Density of the levels over :math:`\lambda`, or of the weight of a loss.

    Parameters
    ----------
    schedule : NoiseSchedule
        Of two levels or more.
    loss : str, optional
        As for `loss_weight`; without it every level counts the same.
    parameter : float, optional
        Of the loss.

    Returns
    -------
    Capacity
        Each interval between two levels has the same share of the levels, 1/(T - 1), and the
        weight at its middle.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise InvalidProblem("schedule", type(schedule).__name__, "a NoiseSchedule")
    if len(schedule) < 2:
        raise InvalidProblem("schedule", f"{len(schedule)} level", "two levels or more")
    x = schedule.log_snr
    middle, width = 0.5 * (x[1:] + x[:-1]), -np.diff(x)
    weight = np.ones(len(middle)) if loss is None else loss_weight(middle, loss, parameter)
    # Weights span many decades; the largest is the unit.
    weight = weight / weight.max()
    return Capacity(middle, width, weight / weight.sum() / width)
