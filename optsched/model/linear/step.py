r"""One step of a linear optimiser on all modes, and its derivative in the controls.

Every entry of the step's matrix is a quadratic in the eigenvalue, as the moments are those of
:math:`(I + A)\xi` with A linear in it, and so is the source per noise mass. Three eigenvalues
say all: the controls are handled there, and modes are a product of matrices away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optsched.arrays import Floats
from optsched.model.spectrum import Modes

if TYPE_CHECKING:
    from optsched.model.dynamics import Dynamics
    from optsched.model.moments import LinearOptimiser

__all__ = ["Steps", "Table", "arithmetic", "first_state", "one_step", "step_slopes"]

Table = dict[str, Floats]

NUDGE = 1e-20  # imaginary: far below rounding, so that the derivative is exact


def arithmetic(dynamics: Dynamics) -> bool:
    """Whether it is a linear optimiser whose own class promises that NumPy is enough."""
    return bool(type(dynamics).__dict__.get("arithmetic", False))


class Steps(NamedTuple):
    """One step at N values of the controls.

    Attributes
    ----------
    maps : numpy.ndarray, shape (d, d + 1, N, J)
        Change of the moments, and as last column their source per unit of loss.
    basis : numpy.ndarray, shape (3, J)
        Quadratics that are 1 at one of the three eigenvalues.
    mass : numpy.ndarray, shape (J,)
        Noise mass of the modes.
    """

    maps: Floats
    basis: Floats
    mass: Floats


def _nodes(optimiser: LinearOptimiser, top: float, controls: Table, noise: Table) -> Floats:
    """Change and source at the eigenvalues 0, top / 2 and top, shape (d, d + 1, 3, N)."""
    lam = top * np.array([[0.0], [0.5], [1.0]])
    change, source = optimiser.moments(lam, 1.0, controls, noise)  # type: ignore[arg-type]
    given = [*controls.values(), *noise.values()]
    kind = np.result_type(*given)
    out = np.zeros((len(source), len(source) + 1, 3, len(given[0])), kind)
    for i, row in enumerate(change):
        for j, entry in enumerate([*row, source[i]]):
            if entry is not None:
                out[i, j] = entry
    return out


def one_step(optimiser: LinearOptimiser, modes: Modes, controls: Table) -> Steps:
    """The step at controls of shape (N,)."""
    top = float(modes.lam.max())
    t = modes.lam / top
    basis = np.stack([(1.0 - 2.0 * t) * (1.0 - t), 4.0 * t * (1.0 - t), t * (2.0 * t - 1.0)])
    nodes = _nodes(optimiser, top, controls, controls)
    maps = np.swapaxes(nodes, 2, 3) @ basis
    maps[:, -1] *= modes.nu
    return Steps(maps, basis, modes.nu)


def step_slopes(
    optimiser: LinearOptimiser, modes: Modes, controls: Table, steps: Steps, pull: Floats
) -> tuple[Table, Table]:
    """Derivatives in the controls, as drift and as diffusion see them.

    Parameters
    ----------
    pull : numpy.ndarray, shape (d, d + 1, N, J)
        Derivatives in the steps' maps.
    """
    top = float(modes.lam.max())
    weighted = pull.copy()
    weighted[:, -1] *= steps.mass
    at_nodes = np.swapaxes(weighted @ steps.basis.T, 2, 3)
    # All nudges in one go: of each control as drift sees it, then as diffusion does.
    names, count = list(controls), 2 * len(controls)
    nudge = NUDGE * 1j * np.eye(count)
    both = [{}, {}]
    for k, name in enumerate(names):
        for half, table in enumerate(both):
            table[name] = (controls[name] + nudge[:, k + half * len(names), None]).ravel()
    slope = _nodes(optimiser, top, *both).imag.reshape(*at_nodes.shape[:3], count, -1) / NUDGE
    found = np.einsum("ijpn,ijpkn->kn", at_nodes, slope)
    drift, noise = (dict(zip(names, half, strict=True)) for half in np.split(found, 2))
    return drift, noise


def first_state(optimiser: LinearOptimiser, modes: Modes) -> Floats:
    """Moments at step 0, shape (d, J)."""
    begin = optimiser.begin
    weight = np.array([begin[i] * begin[j] for i, j in optimiser.pairs])
    return weight[:, None] * np.asarray(modes.mu, float)
