"""What proofs rest on, each in a test that a fault in it fails (`benchmarks.faults`)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optsched import Problem, Schedule, replay
from optsched.control.bounds import certified
from optsched.control.bounds.floor import label_floor
from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.certificate import global_floor, kkt_residual
from optsched.control.mesh import graded_mesh, split_mesh
from optsched.control.methods.descent import projected_gradient
from optsched.control.rate.plain import PlainObjective
from optsched.model.dynamics import SGDDynamics
from optsched.studies.verify import verify

NONE = np.zeros(3, bool)


@pytest.mark.parametrize(
    ("gradient", "lower", "upper", "residual"),
    [
        ([0.1, -0.2, 0.3], NONE, NONE, 0.3),
        # At an upper bound the loss may fall outwards, and not inwards.
        ([0.1, -0.2, 0.01], NONE, NONE | [False, True, False], 0.1),
        ([0.1, 0.2, 0.01], NONE, NONE | [False, True, False], 0.2),
        ([0.1, 0.2, 0.01], NONE | [False, True, False], NONE, 0.1),
        ([0.1, -0.2, 0.01], NONE | [False, True, False], NONE, 0.2),
    ],
)
@pytest.mark.parametrize("active", [None, np.array([[0.0, 0.0, 1.0]])])
def test_what_pushes_inwards_from_a_bound_is_no_optimum(
    gradient: list[float],
    lower: np.ndarray,
    upper: np.ndarray,
    residual: float,
    active: np.ndarray | None,
) -> None:
    given = np.array(gradient)
    if active is None:
        found = projected_gradient(np.zeros(3), given, -1.0 + lower, 1.0 - upper)
        assert np.abs(found).max() == residual
    else:
        given[2] = -5.0  # held by the constraint
        residual = float(np.abs(np.delete(given, 2))[~(lower | upper)[:2]].max(initial=0.0))
        wrong = (upper & (given > 0.0)) | (lower & (given < 0.0))
        residual = max(residual, float(np.abs(given[wrong]).max(initial=0.0)))
    assert kkt_residual(given, lower, upper, active) == pytest.approx(residual)


def test_a_refined_bound_is_lowered_by_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than what the tables and the quadrature of the test of them are off: 1e-4."""
    seen: list[float] = []

    def spied(*args: object) -> list[float]:
        seen.extend(refine(*args))  # type: ignore[arg-type]
        return seen

    refine = certified._refine
    monkeypatch.setattr(certified, "_refine", spied)
    problem, best = Problem(3.5, 2.0, 1000), 0.00146174
    found = certified.certified_bound(problem.modes, 5.0, 0.25, 1.0, 1000, best)
    assert seen and found.cells == len(seen)
    assert found.value <= min(seen) * (1.0 - 1e-4) < best


def test_error_of_a_replay_is_what_halving_its_blocks_changed() -> None:
    problem = Problem(2.0, 1.5, 30_000)
    falling = Schedule.from_knots([0, 29_999], eta=[0.5, 1e-3])
    given = problem.spectrum, problem.dynamics, falling
    first, second, third = (replay(*given, max_steps=0, tol=tol) for tol in (math.inf, 1e3, 1e-12))
    change = abs(second.excess_loss / first.excess_loss - 1.0)
    assert change > 1e-6
    assert second.error == pytest.approx(change + 1e-7, rel=1e-6)
    exact = replay(*given).excess_loss
    assert abs(second.excess_loss / exact - 1.0) <= second.error
    assert abs(third.excess_loss / exact - 1.0) <= 1e-6


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_a_rate_a_little_below_the_floor_is_a_breach(share: float) -> None:
    problem = Problem(3.5, 2.0, 100, eta_min=0.01)
    eta = np.full(100, 0.02)
    assert verify(problem, Schedule.from_array(eta)).violations == ()
    eta[60] = share * 0.01
    assert "below eta_min" in verify(problem, Schedule.from_array(eta)).violations[0]


def test_batches_between_whole_sizes_have_more_samples_in_the_floor() -> None:
    problem = Problem(3.5, 2.0, 100, batch_size=4.0 / 3.0)
    floor = label_floor(problem.spectrum, 0.25, 150.0, 200.0)
    assert global_floor(problem) == pytest.approx(floor, rel=1e-12)
    assert floor < label_floor(problem.spectrum, 0.25, 400.0 / 3.0)


def test_errors_of_blocks_are_what_halving_them_all_changes() -> None:
    problem = Problem(2.5, 1.8, 5000)
    path = relaxed_geodesic(problem.modes, 5.0, 0.25, 1.0, 5000)
    mesh = graded_mesh(path, 5000, 14, 1.0)
    assert isinstance(problem.dynamics, SGDDynamics)
    x = np.log(np.interp(mesh.free_steps, path.t, path.eta))
    objective = PlainObjective(problem.dynamics, problem.modes, mesh)
    audit = objective.audit(x)
    half = split_mesh(mesh, np.diff(np.append(mesh.steps, 5000)) > 1)
    halved = PlainObjective(problem.dynamics, problem.modes, half)
    change = halved(np.log(mesh.rates(np.exp(x), half.free_steps)))[0] - objective(x)[0]
    assert abs(change) > 1e-6
    assert audit.errors.sum() == pytest.approx(change, rel=0.1)


def test_modes_without_noise_do_not_make_a_block_coarse() -> None:
    problem = Problem(3.5, 2.0, 10**6, features=math.inf)
    assert (problem.modes.nu == 0.0).any()
    path = relaxed_geodesic(problem.modes, 5.0, 0.25, 0.1, 10**6)
    mesh = graded_mesh(path, 10**6, 60, 1.0)
    assert isinstance(problem.dynamics, SGDDynamics)
    objective = PlainObjective(problem.dynamics, problem.modes, mesh)
    assert not objective.coarse(np.log(np.full(mesh.controls, 0.01)), 0.5).any()
