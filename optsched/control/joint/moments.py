"""The objective of several controls on a mesh, with its gradient, in NumPy: nothing compiles."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.control.certificate import UNDERFLOW
from optsched.control.goal import Audit
from optsched.control.joint.nodes import ControlNodes
from optsched.control.mesh import StepMesh
from optsched.control.variables import Table
from optsched.model.dynamics import Dynamics
from optsched.model.linear.chain import MomentChain, judged
from optsched.model.linear.step import first_state
from optsched.model.moments import LinearOptimiser
from optsched.model.spectrum import Modes
from optsched.objectives import KnotSum, Terms

__all__ = ["MomentObjective"]


class MomentObjective:
    r"""The log of the objective as a function of the nodes of several controls.

    The same as `optsched.control.traced.TracedObjective` for optimisers whose transition is plain
    arithmetic.

    Parameters
    ----------
    dynamics : LinearOptimiser
    modes : Modes
    mesh : StepMesh
    variables : ControlNodes
    smoothing : float
        Weight of the roughness of the variables, which is added.
    terms : Terms, optional
        Of the objective; the final excess loss if not given.
    """

    dynamics: Dynamics

    def __init__(
        self,
        dynamics: LinearOptimiser,
        modes: Modes,
        mesh: StepMesh,
        variables: ControlNodes,
        smoothing: float = 0.0,
        terms: Terms | None = None,
    ) -> None:
        self.dynamics, self._optimiser, self.modes = dynamics, dynamics, modes
        self.mesh, self.variables, self.smoothing = mesh, variables, smoothing
        self.evaluations = 0
        self._length = np.diff(np.append(mesh.steps, mesh.horizon)).astype(float)
        self._start = first_state(dynamics, modes).ravel()
        self._judged = judged(dynamics, modes)
        self._sum = None
        if terms is not None and not terms.final:
            self._sum = KnotSum(terms, np.append(mesh.steps, mesh.horizon))
        self._last: tuple[Floats, tuple[float, Floats, Floats]] | None = None

    def controls(self, x: Floats) -> dict[str, Floats]:
        """Controls at the knots of the mesh."""
        n = len(self._length)
        return {name: value[:n] for name, value in self.variables.knots(x).items()}

    def _ends(self, knots: Table) -> tuple[Table, Table]:
        """Controls at both ends of the blocks."""
        n = len(self._length)
        first = {name: value[:n] for name, value in knots.items()}
        return first, {name: value[1 : n + 1] for name, value in knots.items()}

    def _chain(
        self, length: Floats, ends: tuple[Table, Table], derivatives: bool = True
    ) -> MomentChain:
        return MomentChain(self._optimiser, self.modes, length, *ends, derivatives=derivatives)

    def _costates(self, chain: MomentChain, scale: float) -> Floats:
        """Derivatives of the objective in the states, times a factor."""
        if self._sum is None:
            return chain.costates(scale * self._judged)
        weights = scale * self._sum.weights[:, None] * self._judged
        return chain.costates(weights[-1], weights[:-1])

    def _value(self, states: Floats) -> float:
        excess = states @ self._judged
        return float(excess[-1] if self._sum is None else self._sum(excess))

    def _at_knots(self, ends: Table) -> Table:
        """Derivatives at the knots from those at both ends of the blocks."""
        n, total = len(self._length), {}
        for name, (first, last) in ends.items():
            total[name] = np.zeros(self.mesh.padded + 1)
            total[name][:n] += first
            total[name][1 : n + 1] += last
        return total

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric of the log of the objective.

        The metric is what the controls contribute as drift or as diffusion, whichever is more:
        where the two balance, at an optimum, it is the diagonal curvature in a log control.
        """
        if self._last is not None and np.array_equal(self._last[0], x):
            return self._last[1]
        self.evaluations += 1
        with np.errstate(all="ignore"):  # rates on the way may diverge, energies underflow
            chain = self._chain(self._length, self._ends(self.variables.knots(x)))
            states = chain.states(self._start)
            found = self._value(states)
            if abs(found) <= UNDERFLOW:  # rounding: flat from here on down
                return self._kept(x, math.log(UNDERFLOW), np.zeros_like(x), np.zeros_like(x))
            if not found > 0.0:  # NaN too
                unknown = np.full_like(x, np.nan)
                return self._kept(x, math.nan, unknown, unknown)
            costates = self._costates(chain, 1.0 / found)
            drift, noise = chain.pull_back(states[:-1], costates[1:])
            parts = self._at_knots(drift), self._at_knots(noise)
            total = {name: value + parts[1][name] for name, value in parts[0].items()}
            gradient = self.variables.pull(x, total)
            sizes = (self.variables.pull(x, part, diagonal=True) for part in parts)
            metric = np.maximum(*sizes)
        value = math.log(found)
        if self.smoothing:
            roughness, slope, bend = self.variables.roughness(x)
            value += self.smoothing * roughness
            gradient = gradient + self.smoothing * slope
            metric = metric + self.smoothing * bend
        return self._kept(x, value, gradient, metric)

    def _kept(
        self, x: Floats, value: float, gradient: Floats, metric: Floats
    ) -> tuple[float, Floats, Floats]:
        self._last = x.copy(), (value, gradient, metric)
        return self._last[1]

    def audit(self, x: Floats) -> Audit:
        """States, costates, excess losses and block errors at the given variables."""
        count, (first, last) = self._length, self._ends(self.variables.knots(x))
        n, shape = len(count), (-1, len(self._optimiser.pairs), len(self.modes.lam))
        with np.errstate(all="ignore"):
            chain = self._chain(count, (first, last), False)
            states = chain.states(self._start)
            excess, value = states @ self._judged, self._value(states)
            costates = self._costates(chain, 1.0)
            # Every block once more as two halves, from the same state.
            half = np.floor(count / 2.0)
            middle = {name: v + (last[name] - v) * (half / count) for name, v in first.items()}
            inside = self._chain(half, (first, middle), False).advanced(states[:-1])
            halved = self._chain(count - half, (middle, last), False).advanced(inside)
            errors = ((halved - states[1:]) * costates[1:]).sum(1) / value
            if self._sum is not None:
                errors = errors + self._sum.errors(excess, inside @ self._judged) / value
            if abs(value) <= UNDERFLOW:
                errors = np.zeros(n)
        # As the methods have them: knots, modes, moments.
        states, costates = (np.swapaxes(s.reshape(shape), 1, 2) for s in (states, costates))
        return Audit(states, costates, excess, errors, value)
