"""Parts from outside the package: they work, and nothing is claimed of them that is not true."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from optsched import InvalidProblem, PowerLawSpectrum, Problem, Solution, replay, solve
from optsched.errors import BadPart
from optsched.model import dynamics as model
from optsched.model.dynamics import Dynamics
from optsched.model.moments import LinearOptimiser, Transition, pytree
from optsched.model.qhm import QHMDynamics
from optsched.model.stability import momentum_limit
from optsched.optimisers.base import Limit, Optimiser, Setting
from optsched.optimisers.limits import rate_limit
from optsched.optimisers.momentum import QHM, SGD, HeavyBall, Nesterov
from optsched.optimisers.registry import OPTIMISERS, find_optimiser

Floats = np.ndarray

# --- an optimiser of a user's, as short as it gets ------------------------------------------------


@pytree
class NoisyStep(LinearOptimiser):
    """SGD whose gradient noise has the covariance lam^(1 + power) in place of the features' own."""

    batch_size: Array | float
    sigma2: Array | float
    power: Array | float = 0.0

    def transition(self, lam: Array, controls: dict[str, Array]) -> Transition:
        return Transition([[-controls["eta"] * lam]], [-controls["eta"]])

    def sample_noise(self, lam: Array, nu: Array) -> tuple[None, Array]:
        return None, nu * jnp.where(lam > 0.0, lam, 1.0) ** (self.power - 1.0)


@dataclass(frozen=True)
class NoisySGD(Optimiser):
    power: float = 0.0

    def dynamics(self, setting: Setting) -> Dynamics:
        return NoisyStep(setting.batch_size, setting.sigma2, self.power)


def noisy_recursion(problem: Problem, eta: Floats, power: float) -> float:
    """The same by a loop over the steps."""
    lam, mu, nu = problem.spectrum.full()
    e, m = mu.copy(), problem.batch_size
    for rate in eta:
        loss = problem.noise**2 + e.sum()
        e = (1 - rate * lam) ** 2 * e + rate**2 / m * nu * lam ** (power - 1) * loss
    return float(e.sum())


def small(**options: Any) -> Problem:
    return Problem(2.5, 1.5, 60, features=40, **options)


@pytest.fixture(scope="module")
def noisy() -> Solution:
    return solve(small(optimiser=NoisySGD(0.5)))


def test_an_optimiser_of_ones_own_is_solved_and_replayed(noisy: Solution) -> None:
    eta = noisy.schedule.eta
    own = noisy_recursion(noisy.problem, eta, 0.5)
    assert noisy.excess_loss == pytest.approx(own, rel=1e-9)
    assert abs(noisy.certificate.replay_gap) < 1e-3
    assert noisy.converged and noisy.certificate.local_optimum
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 1.0, len(eta))
    for _ in range(40):
        wave = np.sin(rng.uniform(1, 9) * t + rng.uniform(0, 7)) * 10 ** rng.uniform(-2.0, -0.5)
        moved = np.minimum(eta * np.exp(wave), noisy.problem.eta_cap)
        assert noisy_recursion(noisy.problem, moved, 0.5) >= own * (1.0 - 2e-3)


def assert_no_bound(solution: Solution) -> None:
    proof = solution.certificate
    assert proof.lower_bound == 0.0 and proof.certified_gap == math.inf
    assert any("global optimality" in line for line in proof.not_checked)
    assert math.isnan(solution.ode_excess_loss)
    summary = solution.summary()
    assert summary["lower_bound"] == 0.0 and summary["certified_gap"] is None


def test_its_certificate_says_what_is_true(noisy: Solution) -> None:
    assert_no_bound(noisy)
    assert noisy.summary()["optimiser"] == "NoisySGD" and noisy.summary()["momentum"] is None
    assert noisy.certificate.kkt_residual <= 1e-5 and len(noisy.certificate.starts) >= 2
    assert pickle.loads(pickle.dumps(noisy)).problem == noisy.problem


# --- adversarial relatives of plain SGD -----------------------------------------------------------


class Quiet(SGD):
    """A subclass with less noise: a bound of plain SGD would be above its loss."""

    def dynamics(self, setting: Setting) -> Dynamics:
        return model.SGDDynamics(1e6, 0.0)


class Same(SGD):
    """A subclass that changes nothing: that cannot be known."""


class Borrowed(Optimiser):
    """No relative, with the very dynamics of the library at other numbers."""

    def dynamics(self, setting: Setting) -> Dynamics:
        return model.SGDDynamics(setting.batch_size * 1e3, setting.sigma2 * 1e-3)


class Louder(model.SGDDynamics):
    """Dynamics that are a subclass of the library's."""

    def change(self, modes: Any, controls: Any) -> Any:
        change, source = super().change(modes, controls)
        return change, [0.01 * s for s in source if s is not None]


class OtherDynamics(Problem):
    @property
    def dynamics(self) -> Dynamics:
        return model.SGDDynamics(1e6, 0.0)


class SameProblem(Problem):
    pass


ADVERSARIES = {
    "subclass": lambda: small(optimiser=Quiet()),
    "same": lambda: small(optimiser=Same()),
    "borrowed": lambda: small(optimiser=Borrowed()),
    "problem": lambda: OtherDynamics(2.5, 1.5, 60, features=40),
    "same problem": lambda: SameProblem(2.5, 1.5, 60, features=40),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_no_relative_of_plain_sgd_has_its_bound(name: str) -> None:
    problem = ADVERSARIES[name]()
    assert not problem.rate_only and problem.foreign
    assert problem.plain.rate_only and type(problem.plain) is Problem
    assert problem.replace(horizon=50).rate_only is False


@pytest.mark.parametrize("name", ["subclass", "problem"])
def test_a_solve_of_a_relative_has_no_bound_either(name: str) -> None:
    problem = ADVERSARIES[name]()
    solution = solve(problem)
    plain = solve(problem.plain)
    # It is far below anything that plain SGD can reach, so that its bound would be wrong.
    assert solution.excess_loss < 0.5 * plain.certificate.lower_bound
    assert_no_bound(solution)


def test_plain_sgd_keeps_its_bound_however_it_is_asked_for() -> None:
    for options in ({}, {"optimiser": SGD()}, {"momentum": "none"}):
        problem = small(**options)
        assert problem.rate_only and not problem.foreign
        assert solve(problem).certificate.lower_bound > 0.0
    for options in ({"ema": 0.5}, {"weight_decay": 0.1}, {"beta": 0.5}):
        assert not small(**options).rate_only


# --- contracts that are broken --------------------------------------------------------------------


def broken(**changes: Any) -> type[Optimiser]:
    """An optimiser whose dynamics has other methods."""
    made = pytree(type("Step", (NoisyStep,), {"__annotations__": {}, **changes}))

    class Broken(Optimiser):
        def dynamics(self, setting: Setting) -> Any:
            return made(setting.batch_size, setting.sigma2)

    return Broken


def returning(value: Any) -> type[Optimiser]:
    class Returning(Optimiser):
        def dynamics(self, setting: Setting) -> Any:
            return value

    return Returning


class Unregistered(model.SGDDynamics):
    pass


BROKEN: list[tuple[Any, str]] = [
    (returning(None), "must be a Dynamics; got NoneType"),
    (returning(NoisyStep), "must be a Dynamics"),
    (returning(Unregistered(5.0, 0.1)), "must be a JAX pytree"),
    (returning(NoisyStep(5.0, "much")), "data fields of its dynamics must be numbers"),  # type: ignore[arg-type]
    (broken(takes=("batch_size",)), "must take the scheduled controls eta"),
    (
        broken(initial=lambda self, modes: jnp.asarray(modes.mu)),
        r"initial\(modes\) must have shape",
    ),
    (broken(initial=lambda self, modes: jnp.ones((3, 1))), r"initial\(modes\) must have shape"),
    (broken(initial=lambda self, modes: jnp.zeros((len(modes.lam), 1))), "at step 0 must be > 0"),
    (
        broken(readout=lambda self, modes: jnp.ones((len(modes.lam), 2))),
        r"readout\(modes\) must be",
    ),
    (broken(feedback=lambda self, modes: math.nan * self.readout(modes)), "got NaN"),
    (broken(change=lambda self, modes, controls: ([[None]], [1.0, 2.0])), "1 x 1 entries C"),
    (broken(change=lambda self, modes, controls: ([[jnp.nan]], [None])), "entries of change"),
    (broken(sample_noise=lambda self, lam, nu: (None, jnp.inf * nu)), "entries of change"),
]


@pytest.mark.parametrize(("kind", "rule"), BROKEN, ids=[rule for _, rule in BROKEN])
def test_a_broken_rule_is_named(kind: type[Optimiser], rule: str) -> None:
    with pytest.raises(BadPart, match=rule) as error:
        small(optimiser=kind())
    assert f"optimiser {kind.__name__}" in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.part, again.rule) == (error.value.part, error.value.rule)


def test_rules_of_values_and_limit() -> None:
    class Values(NoisySGD):
        def values(self, controls: Sequence[str]) -> Any:
            return {"gamma": 1.0}

    class NoLimit(NoisySGD):
        def limit(self, setting: Setting) -> Any:
            return 0.3

    class Unstable(NoisySGD):
        def limit(self, setting: Setting) -> Limit:
            return Limit(0.0)

    for kind, rule in ((Values, "values"), (NoLimit, "limit"), (Unstable, "must be stable")):
        with pytest.raises(BadPart, match=rule):
            small(optimiser=kind())


def test_rates_without_any_bound_are_refused() -> None:
    class Free(NoisySGD):
        def limit(self, setting: Setting) -> Limit:
            return Limit(math.inf, hard=False)

    with pytest.raises(InvalidProblem, match=r"eta_max.*knows no largest rate"):
        small(optimiser=Free())
    assert small(optimiser=Free(), eta_max=0.5).eta_cap == 0.5


def test_blocks_that_are_not_those_of_the_step() -> None:
    def blocks(factor: float, place: int) -> Any:
        def made(self: Any, modes: Any, blocks: Any, noise: Any) -> Any:
            maps = LinearOptimiser.blocks(self, modes, blocks, noise)
            return maps._replace(phi=maps.phi.at[place].multiply(factor))

        return made

    for place, rule in ((0, "one step"), (1, "four"), (2, "no steps")):
        problem = small(optimiser=broken(blocks=blocks(1.001, place))())
        with pytest.raises(BadPart, match=rule):
            solve(problem)
    with pytest.raises(BadPart, match="must be a BlockMaps"):
        solve(small(optimiser=broken(blocks=lambda self, modes, blocks, noise: None)()))


def test_controls_that_an_optimiser_does_not_have() -> None:
    with pytest.raises(InvalidProblem, match=r"beta.*NoisySGD"):
        small(optimiser=NoisySGD(), controls="eta,beta")
    with pytest.raises(InvalidProblem, match="optimiser"):
        small(optimiser="heavy-ball")
    with pytest.raises(InvalidProblem, match=r"beta.*nothing beside an optimiser"):
        small(optimiser=NoisySGD(), beta=0.9)
    with pytest.raises(InvalidProblem, match="beta"):
        small(optimiser=HeavyBall())
    with pytest.raises(InvalidProblem, match="beta"):
        small(optimiser=HeavyBall(0.9), controls="eta,beta")
    with pytest.raises(InvalidProblem, match="nu"):
        QHM(0.9, 2.0)


# --- the library's own, behind the same contract --------------------------------------------------

KEYWORDS: list[tuple[dict[str, Any], Optimiser]] = [
    ({}, SGD()),
    ({"ema": 0.9, "weight_decay": 0.1}, SGD(ema=0.9, weight_decay=0.1)),
    ({"beta": 0.9}, HeavyBall(0.9)),
    ({"momentum": "nesterov", "beta": 0.9}, Nesterov(0.9)),
    ({"beta": 0.9, "nu": 0.7}, QHM(0.9, 0.7)),
    ({"controls": "eta,beta"}, HeavyBall()),
    ({"controls": "eta,beta,nu"}, QHM()),
    ({"controls": "eta,beta", "nu": 0.3}, QHM(nu=0.3)),
    ({"controls": "beta,ema,eta", "momentum": "nesterov"}, Nesterov()),
]


@pytest.mark.parametrize(("said", "optimiser"), KEYWORDS, ids=[str(o) for _, o in KEYWORDS])
def test_keywords_are_short_for_an_object(said: dict[str, Any], optimiser: Optimiser) -> None:
    short = small(**said)
    controls = said.get("controls", "eta")
    long = small(controls=controls, optimiser=optimiser)
    assert short == long and hash(short) == hash(long)
    assert short.dynamics == long.dynamics and short.eta_cap == long.eta_cap
    assert long.replace(horizon=70) == short.replace(horizon=70)


def test_names_of_the_registry() -> None:
    for name in OPTIMISERS:
        made = find_optimiser(name)()
        assert isinstance(made, Optimiser) and made.name == name
    with pytest.raises(InvalidProblem, match="optimiser"):
        find_optimiser("adam")


@pytest.mark.parametrize("size", [1, 40, math.inf])
@pytest.mark.parametrize(("beta", "nu"), [(0.0, 0.0), (0.9, 1.0), (0.8, 0.8), (0.95, 0.3)])
def test_numerical_limit_is_that_of_the_formula(size: float, beta: float, nu: float) -> None:
    spectrum = PowerLawSpectrum(2.0, 1.5, size)
    dynamics = QHMDynamics(4.0, 0.3, beta, nu, momentum=beta > 0.0)
    exact = momentum_limit(spectrum, 4.0, beta, nu)
    near = 1e-9 if math.isfinite(size) else 1e-4
    assert rate_limit(dynamics, spectrum) == pytest.approx(exact, rel=near)


def test_numerical_limit_with_what_never_changes() -> None:
    """The target of a weight decay is a variable that stays; an average does not matter."""
    spectrum = PowerLawSpectrum(2.0, 1.5, 40)
    decayed = QHMDynamics(4.0, 0.3, momentum=False, decayed=True, averaged=True, ema=0.9)
    assert rate_limit(decayed, spectrum) == pytest.approx(momentum_limit(spectrum, 4.0), rel=1e-9)


def test_a_limit_is_where_a_replay_diverges() -> None:
    problem = small(optimiser=NoisySGD(0.5), eta_max=1e3)
    assert problem.eta_cap == problem.stability_limit
    for factor, grows in ((0.99, False), (1.01, True)):
        rate = factor * problem.stability_limit
        losses = [noisy_recursion(problem, np.full(n, rate), 0.5) for n in (20000, 40000)]
        assert (losses[1] > 1.5 * losses[0]) == grows


def test_dataclasses_can_be_optimisers_with_helpers(noisy: Solution) -> None:
    """Replace, equality and hashes are those of the user's dataclass."""
    assert noisy.problem == small(optimiser=NoisySGD(0.5)) != small(optimiser=NoisySGD(0.4))
    assert dataclasses.replace(NoisySGD(0.5), power=0.1) == NoisySGD(0.1)
    played = replay(noisy.problem.spectrum, noisy.problem.dynamics, noisy.schedule)
    assert played.excess_loss == noisy.excess_loss


def test_a_spectrum_is_a_spectrum() -> None:
    for given in (np.array([1.0, 0.5]), [1.0, 0.5], "power", PowerLawSpectrum):
        with pytest.raises(InvalidProblem, match=r"spectrum.*TabulatedSpectrum"):
            Problem(horizon=30, spectrum=given)  # type: ignore[arg-type]


def test_an_objective_by_steps_is_the_same_in_words() -> None:
    assert small(objective={20: 1, 60: 2}).terms == small(objective="20:1,60:2").terms
    with pytest.raises(InvalidProblem, match="objective"):
        small(objective={20: -1.0, 60: 2.0})


def _step(result: Any) -> Optimiser:
    @pytree
    class Step(NoisyStep):
        def transition(self, lam: Array, controls: dict[str, Array]) -> Any:
            return result(-controls["eta"] * lam, controls)

    class Own(NoisySGD):
        def dynamics(self, setting: Setting) -> Dynamics:
            return Step(setting.batch_size, setting.sigma2)

    return Own()


@pytest.mark.parametrize(
    ("result", "rule"),
    [
        (lambda x, c: Transition([[x, 0.0]], [x]), "1 x 1 and 1 entries.*rows of .2."),
        (lambda x, c: Transition([[x], [x]], [x]), "1 x 1 and 1 entries.*rows of .1, 1."),
        (lambda x, c: Transition([[x]], [x, x]), "1 x 1 and 1 entries.*2 kicks"),
        (lambda x, c: [[x]], "must be a Transition.*got list"),
        (
            lambda x, c: Transition([[x * c["beta"]]], [x]),
            "takes of its dynamics must name every.*'beta'",
        ),
        (
            lambda x, c: Transition([[x * c["step"]]], [x]),
            "takes of its dynamics must name every.*'step'",
        ),
    ],
)
def test_a_step_of_another_form_is_told(result: Any, rule: str) -> None:
    """Also one with an entry too many, which would be left out without a word."""
    with pytest.raises(BadPart, match=f"optimiser Own.*{rule}"):
        small(optimiser=_step(result))
