r"""The continuous limit (ODE) of momentum, its solution along a schedule, and where it holds.

With :math:`C = A - I` the change that one step makes to the variables of a mode and b their kick
by a unit of gradient noise (see `optsched.model.moments`), the second moments
:math:`S = E\xi\xi^T` of the recursion obey
:math:`S \leftarrow S + C S + S C^T + C S C^T + b b^T E\zeta^2`. The flow drops the term of second
order in the step,

.. math:: \dot S = C S + S C^T + b b^T\, E\zeta^2, \qquad
   E\zeta^2 = (\lambda^2 E e^2 + \lambda L)/m ,

time in steps, all modes coupled by L. For plain SGD a spectral energy then has the rate
:math:`2\eta\lambda - \eta^2\lambda^2/m`: between the small-rate ODE of `optsched.model.ode`, which
drops the noise a mode feeds back to itself as well, and its full one, which subtracts
:math:`\eta^2 (1 + 1/m) \lambda^2`.

What decides is :math:`x = \eta\lambda_1`, whatever beta: the relative error is of first order in
x. At constant controls the exact response of a mode to noise is :math:`xF(x)` with F as in
`optsched.model.stability`; the flow has

.. math:: F_{flow}(x) = \frac{1 - \beta + \pi^2 x}{2\,(1 - \beta + \pi x)}, \qquad
   \pi = 1 - \nu\beta .

Both are 1/2 at x = 0. For SGD :math:`F_{flow}/F = 1 - x/2`, for heavy ball it tends to
:math:`1/(1+x)` as beta goes to 1, so the flow has too little noise; and an underdamped mode of
heavy ball falls as :math:`\beta` a step in the recursion, as
:math:`e^{-(1-\beta)(1 + x)}` in the flow, too fast. A :math:`1-\beta` that is not small does no
harm by itself: the second moment of the momentum is then too small by :math:`(1+\beta)/2`,
but the loss sees that only at order x.

Measured on the spectrum (3.5, 5) with N = 1000, m = 5, sigma = 0.5, heavy ball, T = 1000, final
excess loss against the exact recursion, by
``ode_validity(PowerLawSpectrum(3.5, 5.0, 1000), QHM(5.0, 0.25, nu=1.0)).table()``:

=========  =======  =======  =======  =======  =======
eta lam_1  beta 0   0.5      0.9      0.99     0.999
=========  =======  =======  =======  =======  =======
0.01       0.00 %   0.00 %   0.00 %   0.00 %   -0.8 %
0.03       0.00 %   -0.01 %  -0.03 %  -0.03 %  -2.3 %
0.1        -0.5 %   -0.6 %   -0.9 %   -1.0 %   -8.0 %
0.3        -6.5 %   -6.4 %   -8.2 %   -8.8 %   -7.2 %
1          -57 %    -36 %    -41 %    -44 %    -57 %
=========  =======  =======  =======  =======  =======

At beta = 0.999 the bias still rings at the end, so its damping counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.sparse import bmat, csc_matrix, csr_matrix

from optsched.arrays import Brief, Floats
from optsched.errors import InvalidProblem
from optsched.model.dynamics import Controls
from optsched.model.grading import Knots
from optsched.model.moments import LinearOptimiser
from optsched.model.propagate import map_modes
from optsched.model.spectrum import Modes, Spectrum
from optsched.model.unrolled import dense
from optsched.numerics import jax_settings

__all__ = ["OdeValidity", "flow_generator", "momentum_ode_excess_loss", "ode_validity"]


# A loss that has grown by this factor is called divergent.
BLOW_UP = 1e12


class _Constant(NamedTuple):
    horizon: int
    steps: NDArray[np.int64]
    controls: Mapping[str, Floats]


def flow_generator(
    modes: Modes, dynamics: LinearOptimiser, controls: Controls
) -> tuple[Array, Array]:
    r"""Matrix and source of the flow ``dx/dt = M x + s L`` of the moments, per step.

    The change of a step by `LinearOptimiser.change`, without the term :math:`C S C^T`.

    Parameters
    ----------
    modes : Modes
    dynamics : LinearOptimiser
    controls : dict of scalars
        ``eta``, and those that replace the fixed values of the dynamics.

    Returns
    -------
    matrix : Array, shape (J, d, d)
    source : Array, shape (J, d)
        For states that are spectral energies: moments times the eigenvalue.
    """
    fixed = {name: jnp.asarray(getattr(dynamics, name), float) for name in dynamics.held}
    now = {**fixed, **controls}
    size, pairs = dynamics.size, dynamics.pairs
    basis = np.zeros((len(pairs), size, size))
    for d, (i, j) in enumerate(pairs):
        basis[d, i, j] = basis[d, j, i] = 1.0
    rows, columns = np.array(pairs).T

    def one(lam: Array, nu: Array) -> tuple[Array, Array]:
        transition = dynamics.transition(lam, now)
        kick = dense([transition.kick])[0]
        product = jnp.einsum("ij,djk->dik", dense(transition.change), basis)
        moved = product + jnp.swapaxes(product, 1, 2)
        heat = kick[rows] * kick[columns] / now["batch_size"]
        # The first moment is that of the error, whose noise comes back to its own mode.
        matrix = moved[:, rows, columns].T.at[:, 0].add(lam * lam * heat)
        return matrix, nu * heat

    return jax.vmap(one)(jnp.asarray(modes.lam), jnp.asarray(modes.nu))


_compiled_generator = jax.jit(flow_generator)


class _Flow:
    """The flow as SciPy wants it: state of all modes, then the excess loss as one more variable.

    That makes the Jacobian an arrow, blocks of single modes with one row and one column, whose
    sparse factors cost O(J). Runge-Kutta methods keep linear invariants: the loss stays that of
    the state.
    """

    def __init__(self, modes: Modes, dynamics: LinearOptimiser, knots: Floats, values: Any) -> None:
        self.modes, self.dynamics = modes, dynamics
        self.knots, self.values = knots, values
        self.feedback = np.asarray(dynamics.feedback(modes)).ravel()
        self.readout = np.asarray(dynamics.readout(modes)).ravel()
        self.sigma2 = float(dynamics.sigma2)
        start = np.asarray(dynamics.initial(modes), float)
        self.start = np.append(start.ravel(), self.feedback @ start.ravel())
        count, size = start.shape
        self.indices = np.arange(count * size).reshape(count, size).repeat(size, axis=0).ravel()
        self.indptr = np.arange(0, count * size * size + 1, size)
        # Solver stages ask for the same few times again; constant controls are one entry.
        self.parts = lru_cache(maxsize=16)(self._parts)

    def at(self, t: float) -> tuple[csr_matrix, Floats]:
        return self.parts(*(float(np.interp(t, self.knots, v)) for v in self.values.values()))

    def _parts(self, *controls: float) -> tuple[csr_matrix, Floats]:
        now = dict(zip(self.values, controls, strict=True))
        matrix, source = map(
            np.asarray,
            _compiled_generator(self.modes, self.dynamics, jax.tree.map(np.float64, now)),
        )
        blocks = csr_matrix((matrix.ravel(), self.indices, self.indptr))
        return blocks, source.ravel()

    def rhs(self, t: float, y: Floats) -> Floats:
        matrix, source = self.at(t)
        change = matrix @ y[:-1] + source * (y[-1] + self.sigma2)
        return np.append(change, self.feedback @ change)

    def jacobian(self, t: float, y: Floats) -> csc_matrix:
        del y
        matrix, source = self.at(t)
        row = csr_matrix(matrix.T @ self.feedback)
        corner = csr_matrix([[self.feedback @ source]])
        return csc_matrix(bmat([[matrix, csr_matrix(source).T], [row, corner]], format="csc"))


def _corners(edges: Floats, values: dict[str, Floats]) -> Floats:
    """Edges without those at which every control goes on as a straight line."""
    bends = np.zeros(len(edges) - 2, bool)
    for value in values.values():
        slope = np.diff(value) / np.diff(edges)
        tiny = 1e-10 * np.max(np.abs(value)) / np.diff(edges)
        bends |= np.abs(np.diff(slope)) > np.minimum(tiny[1:], tiny[:-1])
    return edges[np.concatenate([[True], bends, [True]])]


def momentum_ode_excess_loss(
    modes: Modes, dynamics: LinearOptimiser, schedule: Knots, *, rtol: float = 1e-6
) -> float:
    """Final excess loss of the flow along a schedule.

    Every control is continuous and piecewise linear through the middle of every knot's step, and
    constant before the first and after the last, as in `optsched.model.ode`. The stiff solver is
    restarted at every knot where a control bends: some 10 ms a knot.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to the schedule's intrinsic time.
    dynamics : LinearOptimiser
        Its fixed values hold for every control that the schedule does not carry.
    schedule : Schedule
        Horizon, knots and controls: ``eta``, and any of the dynamics' own.
    rtol : float
        Relative tolerance of every step of the integrator, 1e-12 to 1e-2.

    Returns
    -------
    float
        Excess loss of the iterate, or of its average if there is one; infinite if it diverges.

    Raises
    ------
    InvalidProblem
        If the schedule has no ``eta``, or a control that the dynamics does not have, or ``rtol``
        is out of range.

    Notes
    -----
    Radau IIA of order 5 (Hairer & Wanner, "Solving Ordinary Differential Equations II", 1996) as
    SciPy implements it.
    """
    names = list(schedule.controls)
    foreign = [name for name in names if name not in ("eta", *dynamics.held)]
    if foreign or "eta" not in names:
        allowed = ", ".join(("eta", *dynamics.held))
        raise InvalidProblem("controls", ", ".join(names), f"eta, and others only of: {allowed}")
    if not 1e-12 <= rtol <= 1e-2:
        raise InvalidProblem("rtol", rtol, "a number, 1e-12 to 1e-2")
    centre = np.asarray(schedule.steps, float) + 0.5
    edges = np.concatenate([[0.0], centre, [float(schedule.horizon)]])
    values = {n: np.interp(edges, centre, np.asarray(schedule.controls[n], float)) for n in names}
    with jax_settings():
        flow = _Flow(modes, dynamics, edges, values)
        return _integrate(flow, _corners(edges, values), rtol)


def _integrate(flow: _Flow, corners: Floats, rtol: float) -> float:
    """Final readout, from corner to corner."""
    ceiling = BLOW_UP * (flow.start[-1] + flow.sigma2)

    def grown(t: float, y: Floats) -> float:
        del t
        return y[-1] - ceiling

    grown.terminal = True  # type: ignore[attr-defined]
    y, step, atol = flow.start, None, 1e-6 * rtol * flow.start[-1]
    for begin, end in pairwise(corners):
        done = solve_ivp(
            flow.rhs,
            (begin, end),
            y,
            method="Radau",
            jac=flow.jacobian,
            events=grown,
            rtol=rtol,
            atol=atol,
            first_step=None if step is None else min(step, end - begin),
        )
        if done.status != 0:  # the loss has grown beyond bounds, or no step is small enough
            return math.inf
        y, sizes = done.y[:, -1], np.diff(done.t)
        # The last step is cut short by the end; the one before is what the solver would take.
        step = float(sizes[-2:].max())
    return float(flow.readout @ y[:-1])


@dataclass(frozen=True, eq=False, repr=False)
class OdeValidity(Brief):
    """The flow against the exact recursion, at constant controls, on a grid.

    Attributes
    ----------
    eta_lam : numpy.ndarray, shape (n,)
        Learning rates times the largest eigenvalue.
    beta : numpy.ndarray, shape (k,)
        Momenta.
    ode, exact : numpy.ndarray, shape (n, k)
        Final excess losses; infinite where they diverge.
    difference : numpy.ndarray, shape (n, k)
        ``ode / exact - 1``; NaN where both diverge.
    inside : numpy.ndarray of bool, shape (n, k)
        Whether the exact loss is finite and the difference within the tolerance.
    horizon : int
        Number of steps T.
    tol : float
        The tolerance.
    """

    eta_lam: Floats
    beta: Floats
    ode: Floats
    exact: Floats
    difference: Floats
    inside: NDArray[np.bool_]
    horizon: int
    tol: float

    def table(self) -> str:
        """Relative differences in per cent as text, one row a rate; ``*`` marks those outside."""
        lines = ["eta*lam_1 | beta " + "".join(f"{b:>11.6g}" for b in self.beta)]
        for x, row, inside in zip(self.eta_lam, self.difference, self.inside, strict=True):
            cells = (
                f"{100 * d:>+9.2f}%{' ' if good else '*'}"
                for d, good in zip(row, inside, strict=True)
            )
            lines.append(f"{x:>16.6g} " + "".join(cells))
        return "\n".join(lines)


@partial(jax.jit, static_argnames="horizon")
def _recursion_end(
    modes: Modes, dynamics: LinearOptimiser, controls: Controls, horizon: int
) -> Array:
    """Excess loss after so many exact steps at constant controls."""
    matrix, source = dynamics.step(modes, controls)
    feedback = dynamics.feedback(modes)

    def one(_: int, x: Array) -> Array:
        loss = dynamics.sigma2 + (feedback * x).sum()
        return map_modes(matrix, x) + source * loss

    x = jax.lax.fori_loop(0, horizon, one, dynamics.initial(modes))
    return (dynamics.readout(modes) * x).sum()


def ode_validity(
    spectrum: Spectrum,
    dynamics: LinearOptimiser,
    *,
    eta_lam: ArrayLike = (0.01, 0.03, 0.1, 0.3, 1.0),
    beta: Sequence[float] | Floats = (0.0, 0.5, 0.9, 0.99, 0.999),
    horizon: int = 1000,
    tol: float = 0.05,
) -> OdeValidity:
    r"""Compare flow and exact recursion over constant controls.

    Parameters
    ----------
    spectrum : Spectrum
    dynamics : LinearOptimiser
        Batch size, label noise, weight nu and the rest; its beta is replaced.
    eta_lam : array_like, shape (n,)
        Learning rates times the largest eigenvalue, > 0.
    beta : array_like, shape (k,)
        Momenta, 0 to below 1.
    horizon : int
        Number of steps T, 1 to 10^6.
    tol : float
        Relative difference of the final excess losses up to which the flow is believed, > 0.

    Returns
    -------
    OdeValidity
        The difference is of first order: halving eta, 1 - beta and m, and doubling T, halves it.

    Raises
    ------
    InvalidProblem
        If an argument is out of its range.
    """
    rates, momenta = np.atleast_1d(np.asarray(eta_lam, float)), np.asarray(beta, float).ravel()
    if rates.ndim != 1 or not np.all((rates > 0.0) & np.isfinite(rates)):
        raise InvalidProblem("eta_lam", eta_lam, "a vector of finite numbers > 0")
    if not np.all((momenta >= 0.0) & (momenta < 1.0)):
        raise InvalidProblem("beta", beta, "numbers >= 0 and < 1")
    if not (1 <= horizon <= 10**6 and float(horizon).is_integer()):
        raise InvalidProblem("horizon", horizon, "a whole number of steps, 1 to 10^6")
    if not tol > 0.0:
        raise InvalidProblem("tol", tol, "a number > 0")
    horizon = int(horizon)
    etas = rates / spectrum.largest
    modes = spectrum.modes(float(etas.max(initial=0.0)) * horizon)
    ode, exact = (np.empty((len(rates), len(momenta))) for _ in range(2))
    for place in np.ndindex(ode.shape):
        controls = {"eta": float(etas[place[0]]), "beta": float(momenta[place[1]])}
        knots = {name: np.array([value]) for name, value in controls.items()}
        constant = _Constant(horizon, np.array([0]), knots)
        ode[place] = momentum_ode_excess_loss(modes, dynamics, constant)
        with jax_settings():
            now = {name: jnp.asarray(value) for name, value in controls.items()}
            end = float(_recursion_end(modes, dynamics, now, horizon))
        start = float(modes.mu.sum()) + float(dynamics.sigma2)
        exact[place] = end if end < BLOW_UP * start else math.inf
    with np.errstate(invalid="ignore"):
        difference = ode / exact - 1.0
    inside = np.isfinite(exact) & (np.abs(difference) <= tol)
    return OdeValidity(rates, momenta, ode, exact, difference, inside, horizon, float(tol))
