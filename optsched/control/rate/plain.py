"""The final loss of plain SGD on a mesh, with its derivatives, in NumPy: nothing is compiled."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Bools, Floats
from optsched.control.certificate import UNDERFLOW
from optsched.control.goal import Audit
from optsched.control.mesh import StepMesh
from optsched.control.variables import FreeRates, Variables
from optsched.model.dynamics import Dynamics, SGDDynamics
from optsched.model.sgd.chain import PlainChain, plain_parts, pull_back
from optsched.model.spectrum import Modes
from optsched.objectives import KnotSum, Terms

__all__ = ["PlainObjective"]


class PlainObjective:
    r"""The log of the objective as a function of the log rates at the free knots of a mesh.

    The same as `optsched.control.traced.TracedObjective` for plain SGD with its rate alone, which
    is solved by the hundreds, and first of all problems: there the compiler would cost more than
    the solve.

    Parameters
    ----------
    dynamics : SGDDynamics
    modes : Modes
    mesh : StepMesh
    terms : Terms, optional
        Of the objective; the final excess loss if not given.
    """

    dynamics: Dynamics
    variables: Variables

    def __init__(
        self, dynamics: SGDDynamics, modes: Modes, mesh: StepMesh, terms: Terms | None = None
    ) -> None:
        self.dynamics, self.modes, self.mesh = dynamics, modes, mesh
        self.variables = FreeRates(mesh)
        self.evaluations = 0
        self._length = np.diff(np.append(mesh.steps, mesh.horizon)).astype(float)
        self._sum = None
        if terms is not None and not terms.final:
            self._sum = KnotSum(terms, np.append(mesh.steps, mesh.horizon))
        self._last: tuple[Floats, tuple[float, Floats, Floats]] | None = None

    def _knots(self, x: Floats) -> Floats:
        """Rates at the knots, and at the end of the last block, where they do not matter."""
        return self.variables.knots(x)["eta"][: len(self._length) + 1]

    def controls(self, x: Floats) -> dict[str, Floats]:
        """Controls at the knots of the mesh."""
        return {"eta": self._knots(x)[:-1]}

    def _chain(self, length: Floats, first: Floats, last: Floats) -> PlainChain:
        assert isinstance(self.dynamics, SGDDynamics)
        parts = plain_parts(self.dynamics, self.modes, length, {"eta": first}, {"eta": last})
        return PlainChain(self.dynamics, parts)

    def _pull(self, x: Floats, ends: Floats, diagonal: bool = False) -> Floats:
        """Derivatives in the variables from those at both ends of the blocks."""
        knots = np.zeros(self.mesh.padded + 1)
        n = len(self._length)
        knots[:n] += ends[0]
        knots[1 : n + 1] += ends[1]
        return self.variables.pull(x, {"eta": knots}, diagonal=diagonal)

    def _costates(self, chain: PlainChain, scale: float) -> Floats:
        """Derivatives of the objective in the states, times a factor."""
        size = chain.parts.phi.shape[1]
        if self._sum is None:
            return chain.costates(np.full(size, scale))
        weights = scale * self._sum.weights
        return chain.costates(np.full(size, weights[-1]), weights[:-1])

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric of log E.

        The metric is what the rate contributes as drift: where drift and diffusion balance, at an
        optimum, it is the diagonal curvature in a log rate.
        """
        if self._last is not None and np.array_equal(self._last[0], x):
            return self._last[1]
        self.evaluations += 1
        eta = self._knots(x)
        with np.errstate(all="ignore"):  # rates on the way may diverge, energies underflow
            chain = self._chain(self._length, eta[:-1], eta[1:])
            states = chain.states(self.modes.mu)
            excess = float(states[-1].sum() if self._sum is None else self._sum(states.sum(1)))
            if abs(excess) <= UNDERFLOW:  # rounding: flat from here on down
                flat = np.zeros_like(x)
                self._last = x.copy(), (math.log(UNDERFLOW), flat, flat)
                return self._last[1]
            costates = self._costates(chain, 1.0 / excess)
            drift, noise = pull_back(chain, self.modes, states, costates)
            value = float(np.log(excess))
        gradient = self._pull(x, drift + noise)
        metric = self._pull(x, drift, diagonal=True)
        self._last = x.copy(), (value, gradient, metric)
        return self._last[1]

    def coarse(self, x: Floats, margin: float = 0.0) -> Bools:
        """Which blocks of several steps are too coarse for the rates, or within ``margin`` of it.

        Where the rates are near the stability limit of a mode, or pass the fold of its step
        factor, within a block, the quadratic between its three losses can turn a source negative.
        Such rates have no loss on this mesh, and what holds an optimiser back may be the mesh.
        """
        eta = self._knots(x)
        with np.errstate(all="ignore"):
            chain = self._chain(self._length, eta[:-1], eta[1:])
        return ~((chain.margin >= margin) & (chain.gain < 1.0)) & (self._length > 1.0)

    def audit(self, x: Floats) -> Audit:
        """States, costates, excess losses and block errors at the given variables."""
        eta, count = self._knots(x), self._length
        with np.errstate(all="ignore"):
            chain = self._chain(count, eta[:-1], eta[1:])
            states = chain.states(self.modes.mu)
            excess = states.sum(1)
            value = float(excess[-1]) if self._sum is None else self._sum(excess)
            costates = self._costates(chain, 1.0)
            # Every block once more as two halves, from the same state.
            half = np.floor(count / 2.0)
            middle = eta[:-1] + (eta[1:] - eta[:-1]) * (half / count)
            inside = self._chain(half, eta[:-1], middle).advanced(states[:-1])
            halved = self._chain(count - half, middle, eta[1:]).advanced(inside)
            errors = ((halved - states[1:]) * costates[1:]).sum(1) / value
            if self._sum is not None:
                errors = errors + self._sum.errors(excess, inside.sum(1)) / value
            if abs(value) <= UNDERFLOW:
                errors = np.zeros_like(errors)
        return Audit(states[..., None], costates[..., None], excess, errors, value)
