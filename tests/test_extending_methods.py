"""Methods from outside the package: followed to the letter, and named for what they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Method, Pontryagin, Problem, Shooting, Solution, solve
from optsched.control.methods.descent import strict_tolerance
from optsched.control.methods.registry import METHODS, find_method
from optsched.control.task import Iterate, Task
from optsched.errors import BadPart

# --- a method of a user's, as short as it gets ----------------------------------------------------


@dataclass(frozen=True)
class Diagonal(Method):
    """Newton steps with the metric as the Hessian, halved until the loss falls."""

    knots: int = 60
    max_iterations: int = 3000

    name = "diagonal"
    joint = True

    def run(self, task: Task) -> Iterate:
        x = task.start
        value, gradient, metric = task.objective(x)
        history = []
        for _ in range(task.iterations(self.max_iterations)):
            inside = np.clip(x - gradient, task.lower, task.upper)
            residual = float(np.abs(np.where(inside == x, 0.0, gradient)).max())
            history.append((value, residual))
            if residual <= strict_tolerance(task.tol, metric):
                return Iterate(x, True, "small gradient", history)
            step = gradient / np.maximum(metric, 1e-3 * np.median(metric))
            size = 1.0
            while size > 1e-9:
                trial = np.clip(x - size * step, task.lower, task.upper)
                new = task.objective(trial)
                if new[0] < value:
                    break
                size /= 2.0
            else:
                break
            x, (value, gradient, metric) = trial, new
        return Iterate(x, False, "out of iterations", history)


@dataclass(frozen=True)
class Idle(Method):
    """Returns what it is given, and says that it is converged."""

    knots: int = 60
    found: Any = None

    name = "idle"
    joint = True

    def run(self, task: Task) -> Iterate:
        x = task.start if self.found is None else self.found(task)
        return Iterate(x, True, "of course")


def small(**options: Any) -> Problem:
    return Problem(2.5, 1.5, 60, features=40, **options)


def test_a_method_of_ones_own_finds_the_optimum_under_its_own_name() -> None:
    ours, theirs = solve(small()), solve(small(), Diagonal(), tol=1e-5)
    assert theirs.method == "diagonal" and theirs.converged
    assert theirs.excess_loss == pytest.approx(ours.excess_loss, rel=1e-6)
    assert theirs.certificate.lower_bound > 0.0  # the bound is of the problem, not of the method


def test_the_polish_is_named_where_it_did_the_work() -> None:
    found = solve(small(), Idle())
    assert found.converged
    assert found.method == found.summary()["method"] == "idle, finished by pontryagin"
    start = solve(small(), Pontryagin(knots=60))
    again = solve(small(), Idle(), initial=start)  # nothing was left to do
    assert again.method == "idle" and again.converged
    assert start.method == "pontryagin"


def test_a_lazy_relative_does_not_get_the_name() -> None:
    class Lazy(Pontryagin):
        def run(self, task: Task) -> Iterate:
            return Iterate(task.start, True, "of course")

    assert solve(small(), Lazy()).method == "pontryagin, finished by pontryagin"


def test_refined_meshes_remember_who_finished() -> None:
    problem = Problem(2.5, 1.5, 3000, features=40)
    found = solve(problem, Idle(knots=12))
    assert len(found.t) > 16 and found.method == "idle, finished by pontryagin"


def test_a_method_for_several_controls_follows_the_contract() -> None:
    problem = small(controls="eta,batch")
    found = solve(problem, Diagonal(), tol=1e-3, throw=False)
    plain = solve(problem.plain)
    assert found.method == "diagonal"
    assert found.excess_loss <= plain.excess_loss * (1.0 + 1e-6)
    idle = solve(problem, Idle(), throw=False)
    assert not idle.converged and not idle.certificate.local_optimum and idle.method == "idle"


def test_several_controls_tune_a_method() -> None:
    assert Pontryagin().coupled().memory > Pontryagin().memory
    assert Pontryagin(memory=500).coupled() == Pontryagin(memory=500)
    assert Shooting().coupled() == Shooting() and Idle().coupled() is not None


def test_a_limit_of_the_task_counts() -> None:
    seen: list[Task] = []

    class Watched(Pontryagin):
        def run(self, task: Task) -> Iterate:
            seen.append(task)
            return super().run(task)

    solve(small(), Watched())
    task = seen[0]
    assert task.max_iterations is not None and task.iterations(7) == 7
    assert task.iterations(10**9) == task.max_iterations
    few = Task(**{**vars(task), "max_iterations": 2})
    for method in (Pontryagin(), Shooting()):
        assert method.run(few).stats["iterations"] <= 2 < method.run(task).stats["iterations"]


BROKEN = [
    (lambda task: task.start[:-1], "of shape"),
    (lambda task: np.full_like(task.start, np.nan), "NaN"),
    (lambda task: "rates", "of shape"),
    (lambda task: task.upper + 1.0, "within task.lower and task.upper"),
]


@pytest.mark.parametrize(("found", "rule"), BROKEN, ids=["short", "nan", "words", "outside"])
@pytest.mark.parametrize("controls", ["eta", "eta,batch"])
def test_a_broken_rule_is_named(found: Any, rule: str, controls: str) -> None:
    with pytest.raises(BadPart, match=f"method idle.*{rule}"):
        solve(small(controls=controls), Idle(found=found))


def test_a_method_returns_an_iterate_and_has_a_name() -> None:
    class Tuple(Idle):
        def run(self, task: Task) -> Any:
            return task.start, True

    with pytest.raises(BadPart, match="must return an Iterate; got tuple"):
        solve(small(), Tuple())

    class Nameless(Method):
        knots = 3

        def run(self, task: Task) -> Iterate:
            raise AssertionError

    with pytest.raises(BadPart, match=r"Nameless.*name"):
        solve(small(), Nameless())


def test_a_method_says_what_it_can_do() -> None:
    with pytest.raises(InvalidProblem, match="max_change"):
        solve(small(max_change=0.01), Idle())

    class Alone(Idle):
        joint = False

    with pytest.raises(InvalidProblem, match="eta,batch_size"):
        solve(small(controls="eta,batch"), Alone())


def test_methods_have_names() -> None:
    for name in METHODS:
        assert find_method(name).name == name
    solution: Solution = solve(small(), "shooting")
    assert solution.method == "shooting"
    assert solve(small(), "pontryagin").excess_loss == solve(small()).excess_loss
    for bad in ("simplex", "", Pontryagin, 3):
        with pytest.raises(InvalidProblem, match="pontryagin, collocation, shooting"):
            solve(small(), bad)  # type: ignore[arg-type]
