r"""The largest stable constant rate of any dynamics, found numerically.

At constant controls the second moments take the step :math:`x_j \leftarrow M_j x_j + s_j L` with
:math:`L = \sigma^2 + \sum_j f_j \cdot x_j`. They preserve a cone (of covariances), so that the
recursion contracts if and only if every :math:`M_j` does and the loss that a unit of loss keeps up,

.. math:: \sum_j f_j \cdot (1 - M_j)^{-1} s_j ,

is below 1: the criterion of `optsched.model.stability`, with the matrices in place of formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from optsched.arrays import Floats
from optsched.model.dynamics import Dynamics
from optsched.model.spectrum import Modes, Spectrum
from optsched.numerics import jax_settings

__all__ = ["loss_gain", "rate_limit"]

MAX_MODES = 3000  # spectra up to this size are summed mode by mode, larger ones over nodes
LEAST = 1e-8  # of the largest eigenvalue: where the rest of the trace is put
FIRST = 1e-3  # in units of 1 / largest eigenvalue
WIDEST = 2.0**60
ROUNDING = 1e-9  # of a spectral radius that is 1 for every rate


def _modes(spectrum: Spectrum) -> Modes:
    if spectrum.size <= MAX_MODES:
        return spectrum.full()
    modes = spectrum.modes(1e4 / spectrum.largest)
    keep = modes.nu > 0.0
    lam, mu, nu = (np.asarray(column)[keep] for column in modes)
    # Modes that are lumped keep their sum of squares; what that leaves of the trace is noise too.
    rest = max(spectrum.trace - float((nu / lam).sum()), 0.0)
    tiny = LEAST * spectrum.largest
    return Modes(np.append(lam, tiny), np.append(mu, 0.0), np.append(nu, rest * tiny))


def _step(
    dynamics: Dynamics, modes: Modes, controls: Mapping[str, float]
) -> tuple[Floats, Floats, Floats]:
    """Change (J, d, d), source (J, d) and feedback (J, d), without what never changes."""
    change, source = dynamics.change(modes, dict(controls))  # type: ignore[arg-type]
    size = len(source)
    matrix, kick = np.zeros((len(modes.lam), size, size)), np.zeros((len(modes.lam), size))
    for i in range(size):
        kick[:, i] = 0.0 if source[i] is None else np.asarray(source[i], float)
        for j in range(size):
            entry = change[i][j]
            matrix[:, i, j] = 0.0 if entry is None else np.asarray(entry, float)
    moving = np.any(matrix != 0.0, axis=(0, 2)) | np.any(kick != 0.0, axis=0)
    feedback = np.asarray(dynamics.feedback(modes), float)
    return matrix[:, moving][:, :, moving], kick[:, moving], feedback[:, moving]


def loss_gain(dynamics: Dynamics, modes: Modes, controls: Mapping[str, float]) -> float:
    """Excess loss that a unit of loss keeps up at constant controls; infinite if a mode diverges.

    Parameters
    ----------
    dynamics : Dynamics
    modes : Modes
    controls : mapping of str to float
        All that the dynamics needs.

    Returns
    -------
    float
        The recursion contracts where it is below 1.
    """
    with jax_settings():
        change, source, feedback = _step(dynamics, modes, controls)
    if not (np.isfinite(change).all() and np.isfinite(source).all()):
        return math.inf
    radius = np.abs(np.linalg.eigvals(np.eye(change.shape[-1]) + change))
    if not radius.max(initial=0.0) <= 1.0 + ROUNDING:
        return math.inf
    try:
        rest = np.linalg.solve(-change, source[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return math.inf
    gain = float((feedback * rest).sum())
    return gain if gain >= 0.0 else math.inf


def rate_limit(
    dynamics: Dynamics, spectrum: Spectrum, held: Mapping[str, float] | None = None
) -> float:
    """Largest constant learning rate at which a recursion of second moments does not diverge.

    Parameters
    ----------
    dynamics : Dynamics
    spectrum : Spectrum
    held : mapping of str to float, optional
        Values of controls besides ``eta``.

    Returns
    -------
    float
        Infinite where no rate up to 2^60 over the largest eigenvalue diverges, 0 where the
        smallest one that is tried does.
    """
    modes, unit = _modes(spectrum), 1.0 / spectrum.largest
    others = {name: value for name, value in (held or {}).items() if name in dynamics.takes}
    if "step" in dynamics.takes:
        others = {"step": 0.0, **others}

    def stable(rate: float) -> bool:
        return loss_gain(dynamics, modes, {**others, "eta": rate * unit}) < 1.0

    low = FIRST
    while not stable(low):
        low /= 16.0
        if low < FIRST * 2.0**-40:
            return 0.0
    high = 2.0 * low
    while stable(high):
        low, high = high, 2.0 * high
        if high > WIDEST:
            return math.inf
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low * unit
