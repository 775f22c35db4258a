r"""The functional scaling law in rates over the norm of the weights: the default.

Adaptive optimisers move relative to the weights. With W the squared norm of the weights over that
at the start (`optsched.pilot.laws.state`), the effective rate of a step and the law are

.. math:: x_i = \eta_i (W_*/W_i)^h , \qquad u_i = x_i^p , \qquad
   T_n = \sum_{i<n} \left(\frac{x_i}{1+\sigma x_i}\right)^g , \\
   L = L_0 + A\,(T_n + T_0)^{-s} + B \sum_{i<n} u_i \left[(1 + C (T_n - T_{i+1}))^{-q}
   - (1 + C (T_n - T_i))^{-q}\right] ,

rates over the largest peak of the runs, steps over those of the longest, :math:`W_*` the norm
after so many steps at that rate. At a held rate W settles where :math:`x` is a power 1 - h of the
rate times that of the decay: near h = 1/2 the square root, which is why laws of the rate itself
fit a clock exponent near 0.55, and why only the product of rate and decay counts in the long run.
Without decay, or with h = 0 (plain SGD), x is the rate but for slow changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.checks import at_least, choice, positive
from optsched.errors import InvalidProblem
from optsched.pilot.laws.kernel import LEAST_CLOCK, Kernel
from optsched.pilot.laws.law import Final, Law, Prior, known
from optsched.pilot.laws.state import Norm, reference, squared_norm
from optsched.pilot.laws.tails import power_tail
from optsched.pilot.pieces import Pieces, Scale
from optsched.pilot.separable import Separable, Weights

__all__ = ["DECAYS", "OPTIMISERS", "Normed", "NormLaw", "fsl_norm"]

OPTIMISERS = ("adamw", "adam", "sgd", "other")
DECAYS = (0.1, 0.01, 0.0)  # that a fit tries where the decay is not known
INIT_STD = 0.02
KAPPA = 0.8  # squared size of a normalised update, each entry
SURE = 1.0  # of the log growth, where the initial weights are known
USUAL = Prior(3.3, 1.5)  # of the log growth, where nothing is: 2 around it are common
NODES = np.array([1.0, 4.0, 1.0])[:, None] / 6.0  # of Simpson's rule

PRIORS = {
    "s": Prior(0.52, 0.05),
    "q": Prior(0.3, 0.1),
    "clock": Prior(1.07, 0.05),
    "amplitude": Prior(0.82, 0.07),
    "norm": Prior(0.5, 0.15),
    "saturation": Prior(0.1, 0.1),
    "offset": Prior(0.0, 0.03),
}
SGD = {
    "s": Prior(0.5, 0.3),
    "q": Prior(0.6, 0.3),
    "clock": Prior(1.0, 0.0),
    "amplitude": Prior(1.0, 0.0),
    "norm": Prior(0.0, 0.0),
    "saturation": Prior(0.0, 0.0),
    "offset": Prior(0.0, 0.03),
}
SPEED = Prior(math.log(0.06), 0.7)  # of ln C, over the number of steps
NOISE = Prior(math.log(0.1), 1.5)  # of ln B, over the loss


@dataclass(frozen=True)
class Normed(Kernel):
    """Parameters of a `NormLaw` by name."""

    log_growth: float
    decay: float
    norm: float
    saturation: float

    @property
    def growth(self) -> float:
        """Growth of the squared norm in a span at the reference rate."""
        return math.exp(self.log_growth)


@dataclass(frozen=True, eq=False)
class Path:
    """What a schedule is to the law, at three nodes (start, middle, end) of every piece.

    Attributes
    ----------
    log_x : numpy.ndarray, shape (3, n)
        Logarithm of the effective rate.
    log_tick, in_x : numpy.ndarray, shape (3, n)
        Logarithm of the clock's rate to the power 1/g, and its derivative in that of x.
    weights : Norm
    """

    log_x: Floats
    log_tick: Floats
    in_x: Floats
    weights: Norm


def _sums(values: Floats, length: Floats) -> Floats:
    """Integral of what is known at the nodes, at all edges: (n + 1,)."""
    return np.append(0.0, np.cumsum((NODES * values).sum(0) * length))


@dataclass(frozen=True)
class NormLaw(Law):
    r"""The functional scaling law in rates over the norm of the weights.

    Parameters of the law, in units of a `Scale`: ``level`` :math:`L_0`, ``log_bias``
    :math:`\ln A`, ``s``, ``log_noise`` :math:`\ln B`, ``log_speed`` :math:`\ln C`, ``q``,
    ``clock`` g, ``amplitude`` p, ``offset`` :math:`T_0` (in spans at the reference rate),
    ``log_growth`` :math:`\ln(c\,\eta_{ref}^2 N)`, ``decay`` :math:`\lambda \eta_{ref} N` (held),
    ``norm`` h and ``saturation`` :math:`\sigma`.

    Parameters
    ----------
    priors : mapping of str to Prior
    optimiser : {"adamw", "adam", "sgd", "other"}
        ``adam``: without decay; ``sgd``: updates in proportion to the rate, whatever the norm;
        ``other``: normalised updates of unknown size, as of Muon or Lion.
    weight_decay : float, optional
        If not given, a fit takes that of `DECAYS` which describes the runs best.
    coupled : bool
        Whether the decay is multiplied by the learning rate, as in AdamW of torch and optax.
    init_std : float, optional
        Standard deviation of the weight matrices at the start, over the rate of the matrices over
        the logged rate (muP).
    chosen : bool
        Whether a fit has chosen the decay.
    """

    priors: Mapping[str, Prior] = field(default_factory=dict)
    optimiser: str = "adamw"
    weight_decay: float | None = None
    coupled: bool = True
    init_std: float | None = None
    chosen: bool = False
    name: str = "fsl-norm"

    parameters: ClassVar[tuple[str, ...]] = Normed.names()
    low: ClassVar[Floats] = np.array(
        [0.0, -20.0, 0.02, -20.0, -3.0, 0.02, 0.1, 0.1, -0.9, -12.0, 0.0, -0.2, 0.0]
    )
    high: ClassVar[Floats] = np.array(
        [1e3, 20.0, 4.0, 20.0, 15.0, 5.0, 2.0, 2.0, 9.0, 20.0, 1e9, 1.2, 8.0]
    )
    plannable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("optimiser", self.optimiser, OPTIMISERS)
        known(dict(self.priors), self.parameters)
        if self.weight_decay is not None:
            at_least("weight_decay", self.weight_decay, 0.0)
        if self.init_std is not None:
            positive("init_std", self.init_std)
        if self.optimiser in ("adam", "sgd"):
            if self.weight_decay:
                allowed = f"0, or none, with {self.optimiser}: a decay within the gradient is not"
                raise InvalidProblem("weight_decay", self.weight_decay, f"{allowed} in the law")
            object.__setattr__(self, "weight_decay", 0.0)

    @property
    def carries(self) -> bool:
        return self.optimiser != "sgd"

    def named(self, theta: Floats) -> Normed:
        """The parameters by name."""
        return Normed(*theta.tolist())

    def settings(self) -> dict[str, Any]:
        names = ("optimiser", "weight_decay", "coupled", "init_std", "chosen")
        return {name: getattr(self, name) for name in names}

    def assumptions(self) -> tuple[str, ...]:
        if self.optimiser in ("adam", "sgd") or self.weight_decay is None:
            return (f"optimiser {self.optimiser}, without decay of the weights",)
        how = "" if self.coupled else ", not multiplied by the rate"
        tried = ", ".join(f"{one:g}" for one in sorted(DECAYS))
        why = f": the one of {tried} that describes the runs best" if self.chosen else ""
        return (f"optimiser {self.optimiser}, weight decay {self.weight_decay:g}{how}{why}",)

    def alternatives(self) -> Iterable[NormLaw]:
        if self.weight_decay is not None:
            return (self,)
        return [replace(self, weight_decay=one, chosen=True) for one in DECAYS]

    def as_fitted(self, fitted: Law) -> NormLaw:
        if not isinstance(fitted, NormLaw):
            return self
        return replace(self, weight_decay=fitted.weight_decay, chosen=fitted.chosen)

    def for_runs(self, scale: Scale, losses: Sequence[float]) -> NormLaw:
        own = dict(SGD if self.optimiser == "sgd" else PRIORS)
        own["log_speed"] = Prior(SPEED.mean + math.log(scale.span), SPEED.spread)
        own["log_noise"] = Prior(NOISE.mean + math.log(float(np.median(losses))), NOISE.spread)
        own["log_growth"] = self._growth(scale)
        own["decay"] = Prior(self._unit_decay(scale), 0.0)
        return replace(self, priors={**own, **self.priors})

    def _unit_decay(self, scale: Scale) -> float:
        """Weight decay in a span at the reference rate."""
        return (self.weight_decay or 0.0) * scale.span * (scale.rate if self.coupled else 1.0)

    def at_decay(self, thetas: Floats, decay: float, scale: Scale) -> tuple[Law, Floats]:
        r"""The law and its parameters for runs of another weight decay.

        The parameters are in units of :math:`x = \eta (W_*/W)^h` with the norm :math:`W_*` that
        the decay of the runs leads to; with that of the other decay x is smaller by
        :math:`f = (W_*'/W_*)^h`, and the parameters take its powers.
        """
        if decay == self.weight_decay:
            return self, thetas
        if not self.weight_decay:
            allowed = "none, as the runs of the fit had no decay to compare it with"
            raise InvalidProblem("weight_decay", decay, allowed)
        law = replace(self, weight_decay=decay, chosen=False)
        unit = law._unit_decay(scale)
        law = replace(law, priors={**self.priors, "decay": Prior(unit, 0.0)})
        return law, np.array([self._at(theta, unit) for theta in thetas]).reshape(thetas.shape)

    def shift(self, one: Floats, other: Floats) -> float:
        """Log of the effective rate after a span at the reference rate, from one to the other."""
        p, q = self.named(one), self.named(other)
        old, new = (reference(at.growth, at.decay).value for at in (p, q))
        return p.norm * math.log(old / new)

    def _at(self, theta: Floats, decay: float) -> Floats:
        """Parameters in the units of another decay."""
        p = self.named(theta)
        old, new = (reference(p.growth, one).value for one in (p.decay, decay))
        log_f = p.norm * math.log(old / new)
        moved = {
            "log_bias": p.log_bias - p.s * p.clock * log_f,
            "log_noise": p.log_noise + p.amplitude * log_f,
            "log_speed": p.log_speed + p.clock * log_f,
            "offset": p.offset * math.exp(-p.clock * log_f),
            "saturation": p.saturation * math.exp(log_f),
            "decay": decay,
        }
        return np.array([moved.get(name, getattr(p, name)) for name in self.parameters])

    def _growth(self, scale: Scale) -> Prior:
        """Prior of the log growth, from what is known of the initial weights."""
        if self.optimiser == "sgd":
            return Prior(USUAL.mean, 0.0)
        std = INIT_STD if self.init_std is None else self.init_std
        mean = math.log(KAPPA * (scale.rate / std) ** 2 * scale.span)
        if self.init_std is not None:
            return Prior(mean, SURE)
        if self.optimiser == "other":
            return USUAL
        # People train at rates that change the weights in the course of a run, but not all of it.
        return Prior(min(max(mean, USUAL.mean - 2.0), USUAL.mean + 2.0), SURE)

    def path(self, theta: Floats, pieces: Pieces) -> Path:
        """Effective rates and clock along pieces."""
        p = self.named(theta)
        weights = squared_norm(pieces, p.growth, p.decay, coupled=self.coupled)
        against = reference(p.growth, p.decay)
        log_x = np.log(pieces.rate) - p.norm * np.log(weights.value / against.value)
        x = np.exp(log_x)
        full = 1.0 + p.saturation * x
        return Path(log_x, log_x - np.log(full), 1.0 / full, weights)

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        p, pieces = self.named(theta), pieces.fine
        path = self.path(theta, pieces)
        clock = _sums(np.exp(p.clock * path.log_tick), pieces.length)
        u = (NODES * np.exp(p.amplitude * path.log_x)).sum(0)
        seen = clock[pieces.observed]
        tail = power_tail(p.speed * np.maximum(seen[:, None] - clock, 0.0), p.q)[0]
        bias = self._time(seen, p, pieces.first) ** -p.s
        return p.level + p.bias * bias + p.noise * (np.diff(tail) @ u)

    def _time(self, clock: Floats, p: Normed, first: float) -> Floats:
        """Clock of the bias, kept above 0."""
        return np.maximum(clock + p.offset, LEAST_CLOCK * first)

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        p, pieces = self.named(theta), pieces.fine
        path = self.path(theta, pieces)
        against = reference(p.growth, p.decay)
        weights, length = path.weights, pieces.length
        tick, noisy = np.exp(p.clock * path.log_tick), np.exp(p.amplitude * path.log_x)
        clock, u = _sums(tick, length), (NODES * noisy).sum(0)
        seen = clock[pieces.observed]
        gap = seen[:, None] - clock
        later = gap > 0.0
        z = p.speed * np.where(later, gap, 0.0)
        tail, slope, in_q = power_tail(z, p.q)
        weight = np.diff(tail)
        time = self._time(seen, p, pieces.first)
        bias = time**-p.s
        inside = time > LEAST_CLOCK * pieces.first
        bias_slope = -p.bias * p.s * bias / time * inside
        # The noise as a sum over edges: its derivative in the clock at each of them.
        jump = -np.diff(u, prepend=0.0, append=0.0)
        at_edge = p.noise * p.speed * slope * jump * later
        at_seen = at_edge.sum(1) + bias_slope

        def moved(by: Floats) -> Floats:
            """Derivative in what moves the clock at the nodes by so much."""
            shift = _sums(by, length)
            return at_seen * shift[pieces.observed] - at_edge @ shift

        def through(log_x: Floats) -> Floats:
            """Derivative in what moves the logarithm of x at the nodes by so much."""
            louder = (NODES * p.amplitude * noisy * log_x).sum(0)
            return moved(p.clock * tick * path.in_x * log_x) + p.noise * (weight @ louder)

        value = weights.value
        louder = p.noise * (weight @ (NODES * noisy * path.log_x).sum(0))
        grows = weights.in_growth / value - against.in_growth / against.value
        decays = np.zeros_like(value)  # held, as a rule: then nobody looks
        if "decay" not in self.held:
            decays = weights.in_decay / value - against.in_decay / against.value
        columns = {
            "level": np.ones(len(seen)),
            "log_bias": p.bias * bias,
            "s": -p.bias * np.log(time) * bias,
            "log_noise": p.noise * (weight @ u),
            "log_speed": p.noise * ((slope * z) @ jump),
            "q": p.noise * (in_q @ jump),
            "clock": moved(tick * path.log_tick),
            "amplitude": louder,
            "offset": bias_slope,
            "log_growth": through(-p.norm * grows),
            "decay": through(-p.norm * decays),
            "norm": through(-np.log(value / against.value)),
            "saturation": moved(-p.clock * tick * np.exp(path.log_x) * path.in_x),
        }
        loss = p.level + p.bias * bias + p.noise * (weight @ u)
        return loss, np.column_stack([columns[name] for name in self.parameters])

    def final(self, theta: Floats, rate: Floats, length: Floats, first: float) -> Final:
        p = self.named(theta)
        whole = Pieces(np.tile(rate, (3, 1)), length, np.array([len(rate)]), first)
        path = self.path(theta, whole)
        tick, noisy = np.exp(p.clock * path.log_tick), np.exp(p.amplitude * path.log_x)
        ticks, u = (NODES * tick).sum(0) * length, (NODES * noisy).sum(0)
        togo = np.append(np.cumsum(ticks[::-1])[::-1], 0.0)
        tail, slope, _ = power_tail(p.speed * togo, p.q)
        weight = p.noise * np.diff(tail)
        time = self._time(np.array([ticks.sum()]), p, first)
        bias = float(time[0] ** -p.s)
        inside = float(time[0] > LEAST_CLOCK * first)
        push = -p.bias * p.s * bias / time[0] * inside - p.noise * p.speed * np.cumsum(
            np.diff(u, prepend=0.0) * slope[:-1]
        )
        moves = NODES * p.clock * tick * path.in_x * (push * length)
        louder = NODES * p.amplitude * noisy * weight
        through = path.weights.backwards(-p.norm * (moves + louder) / path.weights.value)
        loss = p.level + p.bias * bias + float(weight @ u)
        return Final(loss, moves.sum(0) + through, louder.sum(0))

    def separable(self, theta: Floats, first: float) -> Separable | None:
        p = self.named(theta)
        if p.decay and not self.coupled:
            return None  # weights would shrink while the clock stands still

        def tail(gap: Floats) -> tuple[Floats, Floats]:
            value, slope, _ = power_tail(p.speed * gap, p.q)
            return p.noise * value, p.noise * p.speed * slope

        weights = Weights(
            p.decay, p.growth, reference(p.growth, p.decay).value, p.norm, p.saturation
        )
        return Separable(
            level=p.level,
            clock=p.clock,
            amplitude=p.amplitude,
            bias=lambda clock: p.bias * self._time(clock, p, first) ** -p.s,
            tail=tail,
            weights=weights if p.norm or p.saturation else None,
        )

    def starts(self) -> list[Floats]:
        """From the means of the priors; where there are none, from common values."""
        common = {name: prior.mean for name, prior in PRIORS.items()}
        common |= {"log_speed": 7.0, "log_growth": USUAL.mean, "decay": 0.0}
        common |= {name: prior.mean for name, prior in self.priors.items()}
        one = np.array([common.get(name, 0.0) for name in self.parameters])
        two = one.copy()
        if "log_speed" not in self.held:
            two[self.parameters.index("log_speed")] -= 1.5
        return [one, two]


def fsl_norm(**priors: Prior) -> NormLaw:
    """The law with other priors."""
    return NormLaw(priors)
