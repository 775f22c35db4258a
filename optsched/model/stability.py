r"""The largest stable constant learning rate of quasi-hyperbolic momentum, exactly.

On a mode of eigenvalue :math:`\lambda` the error e and the momentum v take the step
:math:`\xi \leftarrow A\xi + b\zeta` with

.. math::
   A = \begin{pmatrix} 1 - p\lambda & -q \\ (1-\beta)\lambda & \beta \end{pmatrix}, \qquad
   b = \begin{pmatrix} -p \\ 1-\beta \end{pmatrix}, \qquad
   p = \eta(1-\nu\beta), \quad q = \eta\nu\beta , \qquad
   E\zeta^2 = (\lambda^2 E e^2 + \lambda L)/m .

Without noise, A is stable under the conditions of Jury, of which one can fail:
:math:`\kappa\eta\lambda < 2(1+\beta)` with :math:`\kappa = 1 + \beta - 2\nu\beta`.

With noise, let :math:`h = \sum_t (e_1^T A^t b)^2` be the stationary :math:`E e^2` under a noise of
unit variance. The response from noise to error has the transfer function
:math:`-(pz - \rho\eta) / (z^2 - (1+\beta-p\lambda) z + \beta - \rho\eta\lambda)`,
:math:`\rho = \beta(1-\nu)`, whose square integral over the unit circle is rational. With
:math:`x = \eta\lambda`,

.. math::
   \lambda^2 h = x F(x), \qquad
   F(x) = \frac{1 - \beta^2 + \rho\kappa x}{(1-\beta+\rho x)\,(2(1+\beta) - \kappa x)} .

A mode turns the loss L into the excess :math:`g L` at rest, its own feedback included, with
:math:`g = (xF/m) / (1 - xF/m)`. The map of all second moments preserves the cone of positive
semidefinite covariances, so its spectral radius r is an eigenvalue with a covariance as
eigenvector (Krein & Rutman); above the spectral radii of the single modes, the eigenvalues are
the r at which the total gain, which falls with r, is 1. Hence the recursion contracts if and only
if every :math:`x F/m < 1` and

.. math:: \sum_k g_k = \sum_k \frac{x_k F(x_k)}{m - x_k F(x_k)} < 1 .

:math:`x F(x)` rises from 0 to infinity on the interval where A is stable, so the limit is the
one root of a monotone function.

Notes
-----
For plain SGD, :math:`F = 1/(2-x)`: the condition of Bordelon & Pehlevan, "Learning curves for SGD
on structured features" (2022). For heavy ball, :math:`F = 1/(2 - x(1-\beta)/(1+\beta))`, which
tends to 1/2: the noise bounds the rate whatever beta. The recursion is that of Ma & Yarats,
"Quasi-hyperbolic momentum and Adam for deep learning" (ICLR 2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from optsched.arrays import Floats
from optsched.checks import at_least, within
from optsched.numerics import monotone_root, quiet

if TYPE_CHECKING:
    from optsched.model.spectrum import Spectrum

__all__ = [
    "curvature_limit",
    "deterministic_limit",
    "momentum_limit",
    "noise_gain",
    "noise_limit",
    "stability_limit",
]

# Spectra up to this size are summed mode by mode, larger ones over quadrature nodes.
MAX_MODES = 10**5


def _momentum(beta: Any, nu: Any) -> tuple[float, float]:
    below_one = math.nextafter(1.0, 0.0)
    return (
        within("beta", beta, 0.0, below_one, "a number >= 0 and < 1"),
        within("nu", nu, 0.0, 1.0, "a number, 0 to 1"),
    )


def _batch(batch_size: Any) -> float:
    return within("batch_size", batch_size, 1.0, 1e15, "a number >= 1, up to 1e15")


def _shape(beta: float, nu: float) -> tuple[float, float]:
    """Rho and kappa; kappa as a sum of terms >= 0, so that it keeps its digits at beta near 1."""
    rho = beta * (1.0 - nu)
    return rho, (1.0 - beta) + 2.0 * rho


def _response(x: Floats, beta: float, nu: float) -> Floats:
    """F at x = eta * lam; infinite where the mode is unstable without noise."""
    rho, kappa = _shape(beta, nu)
    fast = 1.0 - beta + rho * x
    margin = 2.0 * (1.0 + beta) - kappa * x
    safe = np.where(margin > 0.0, margin, 1.0)
    value = ((1.0 - beta) * (1.0 + beta) + rho * kappa * x) / (fast * safe)
    return np.where(margin > 0.0, value, np.inf)


def _nodes(spectrum: Spectrum, beta: float, nu: float) -> tuple[Floats, Floats]:
    """Eigenvalues in units of the largest, and what each node has of the trace in those units."""
    if spectrum.size <= MAX_MODES:
        lam = spectrum.full().lam
        return lam / spectrum.largest, lam / spectrum.largest
    # F varies where x is of order 1 and where rho x passes 1 - beta; nodes must resolve both.
    rho, _ = _shape(beta, nu)
    reach = 10.0 * deterministic_limit(spectrum, beta, nu) * max(1.0, rho / (1.0 - beta))
    modes = spectrum.modes(reach)
    keep = modes.nu > 0.0
    lam, share = modes.lam[keep], modes.nu[keep] / modes.lam[keep]
    # Modes that are lumped in the tail keep their sum of squares; the rest of the trace is at 0.
    rest = max(spectrum.trace - float(share.sum()), 0.0)
    return np.append(lam, 0.0) / spectrum.largest, np.append(share, rest) / spectrum.largest


def _gain(rate: float, lam: Floats, share: Floats, m: float, beta: float, nu: float) -> float:
    """Total gain at a rate in units of 1 / lam_1."""
    x = rate * lam
    response = _response(x, beta, nu)
    own = x * response / m
    if not np.all(own < 1.0):  # a mode that is unstable by itself
        return math.inf
    return float((rate / m * share * response / (1.0 - own)).sum())


@quiet
def noise_gain(
    spectrum: Spectrum, batch_size: float, eta: float, beta: float = 0.0, nu: float = 0.0
) -> float:
    r"""Excess loss that the gradient noise of a unit of loss keeps up, at constant controls.

    .. math:: \sum_k \frac{x_k F(x_k)}{m - x_k F(x_k)}, \qquad x_k = \eta\lambda_k ,

    with F as in the notes of this module. At label noise of variance :math:`\sigma^2` the excess
    loss of the recursion tends to :math:`\sigma^2 g/(1-g)` for a gain g below 1, and diverges
    from 1 on.

    Parameters
    ----------
    spectrum : Spectrum
    batch_size : float
        Minibatch size m.
    eta : float
        Learning rate.
    beta, nu : float
        Momentum and its weight.

    Returns
    -------
    float
        Infinite where a mode is unstable by itself.

    Raises
    ------
    InvalidProblem
        Unless 1 <= batch_size <= 1e15, eta is finite and >= 0, 0 <= beta < 1 and 0 <= nu <= 1.
    """
    m, (beta, nu) = _batch(batch_size), _momentum(beta, nu)
    eta = at_least("eta", eta, 0.0)
    return _gain(eta * spectrum.largest, *_nodes(spectrum, beta, nu), m, beta, nu)


@quiet
def momentum_limit(
    spectrum: Spectrum, batch_size: float, beta: float = 0.0, nu: float = 0.0
) -> float:
    r"""Largest constant learning rate for which quasi-hyperbolic momentum does not diverge.

    The rate at which `noise_gain` is 1. It rises with the batch size, and for heavy ball
    (nu = 1) with beta. It is not monotone in nu: a weight inside (0, 1) can allow several times
    the rate of either end.

    Parameters
    ----------
    spectrum : Spectrum
    batch_size : float
        Minibatch size m.
    beta, nu : float
        Momentum and its weight: nu = 0 is SGD, 1 heavy ball, beta Nesterov's momentum.

    Returns
    -------
    float
        Limit of the learning rate, below `deterministic_limit`.

    Raises
    ------
    InvalidProblem
        Unless 1 <= batch_size <= 1e15, 0 <= beta < 1 and 0 <= nu <= 1.
    """
    m, (beta, nu) = _batch(batch_size), _momentum(beta, nu)
    lam, share = _nodes(spectrum, beta, nu)

    def excess(rate: float) -> float:
        """A bounded, monotone function of the gain, with its zero at a gain of 1."""
        return 0.5 - 1.0 / (1.0 + _gain(rate, lam, share, m, beta, nu))

    edge = deterministic_limit(spectrum, beta, nu) * spectrum.largest
    if excess(edge) <= 0.0:  # nothing but rounding is between the two limits (huge batches)
        return edge / spectrum.largest
    return monotone_root(excess, 0.0, edge) / spectrum.largest


def curvature_limit(beta: float = 0.0, nu: float = 0.0) -> float:
    r"""Largest product of constant learning rate and curvature that is stable without noise.

    .. math:: \eta\,\lambda = \frac{2 (1+\beta)}{1 + \beta - 2\nu\beta} ,

    from the conditions of Jury on the 2 x 2 matrix of a mode: 2 for SGD,
    :math:`2(1+\beta)/(1-\beta)` for heavy ball.

    Parameters
    ----------
    beta, nu : float
        Momentum and its weight.

    Returns
    -------
    float

    Raises
    ------
    InvalidProblem
        Unless 0 <= beta < 1 and 0 <= nu <= 1.
    """
    beta, nu = _momentum(beta, nu)
    _, kappa = _shape(beta, nu)
    return 2.0 * (1.0 + beta) / kappa


def deterministic_limit(spectrum: Spectrum, beta: float = 0.0, nu: float = 0.0) -> float:
    """Largest constant learning rate at which every mode is stable without gradient noise.

    `curvature_limit` over the largest eigenvalue.

    Parameters
    ----------
    spectrum : Spectrum
    beta, nu : float
        Momentum and its weight.

    Returns
    -------
    float

    Raises
    ------
    InvalidProblem
        Unless 0 <= beta < 1 and 0 <= nu <= 1.
    """
    return curvature_limit(beta, nu) / spectrum.largest


def noise_limit(spectrum: Spectrum, batch_size: float) -> float:
    r"""Leading-order limit :math:`2m / \sum_k \lambda_k` that gradient noise sets to the rate.

    It drops the second order in :math:`\eta\lambda` and a mode's feedback on itself, and
    is then the same for SGD and for heavy ball at every beta. The exact limits of both are below
    it; a weight 0 < nu < 1 can be stable above it.

    Parameters
    ----------
    spectrum : Spectrum
    batch_size : float
        Minibatch size m.

    Returns
    -------
    float

    Raises
    ------
    InvalidProblem
        Unless 1 <= batch_size <= 1e15.
    """
    return 2.0 * _batch(batch_size) / spectrum.trace


def stability_limit(spectrum: Spectrum, batch_size: float) -> float:
    r"""Largest constant learning rate for which the recursion of plain SGD does not diverge.

    .. math:: \frac{\eta}{m} \sum_k \frac{\lambda_k}{2 - \eta (1 + 1/m) \lambda_k} < 1 ,

    with every term positive: `momentum_limit` at nu = 0.

    Parameters
    ----------
    spectrum : Spectrum
    batch_size : float
        Minibatch size m.

    Returns
    -------
    float
        Limit of the learning rate.

    Notes
    -----
    Bordelon & Pehlevan, "Learning curves for SGD on structured features" (2022).
    """
    return momentum_limit(spectrum, batch_size)
