"""The schedule: values at the steps that matter, sums, limits, JAX, immutability."""

import copy
import pickle
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched.errors import InvalidProblem
from optsched.schedules import Schedule


@st.composite
def schedules(draw, max_horizon=400):
    horizon = draw(st.integers(1, max_horizon))
    inner = draw(st.sets(st.integers(0, horizon - 1), max_size=8))
    steps = sorted(inner | {0, horizon - 1})

    def values(low, high, **more):
        numbers = st.floats(low, high, allow_nan=False, **more)
        return draw(st.lists(numbers, min_size=len(steps), max_size=len(steps)))

    controls = {"eta": values(0.0, 1e300)}
    if draw(st.booleans()):
        controls["beta"] = values(0.0, 1.0, exclude_max=True)
    if draw(st.booleans()):
        controls["nu"] = values(0.0, 1.0)
    if draw(st.booleans()):
        controls["batch_size"] = values(1.0, 1e6)
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(max_size=5)  # fmt: skip
    json_values = st.recursive(
        leaves,
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=6,
    )
    return Schedule(
        horizon,
        steps,
        controls,
        unit=draw(st.sampled_from(["steps", "samples", "tokens"])),
        extend=draw(st.sampled_from(["hold", "raise", "zero"])),
        metadata=draw(st.dictionaries(st.text(max_size=5), json_values, max_size=3)),
    )


KNOTS = Schedule.from_knots([0, 10, 99], eta=[0.0, 1.0, 0.0], beta=[0.9, 0.9, 0.5])


# Values


def test_value_at_step_k_is_used_by_update_k():
    eta = np.array([0.4, 0.3, 0.2])
    schedule = Schedule.from_array(eta)
    assert [schedule(k) for k in range(3)] == eta.tolist()
    assert np.array_equal(schedule.eta, eta)
    assert len(schedule) == schedule.horizon == 3


def test_linear_between_knots():
    assert KNOTS(5) == 0.5
    assert KNOTS(10) == 1.0
    assert KNOTS(99) == 0.0
    assert KNOTS(99, "beta") == 0.5
    np.testing.assert_array_equal(
        KNOTS.eta, np.interp(np.arange(100), [0, 10, 99], [0.0, 1.0, 0.0])
    )


@pytest.mark.parametrize("horizon", [1, 2, 3, 1000])
@pytest.mark.parametrize("extend", ["hold", "raise", "zero"])
def test_first_last_and_past_the_end(horizon, extend):
    eta = np.linspace(1.0, 0.25, horizon)
    schedule = Schedule.from_array(eta, batch_size=8, extend=extend)
    assert schedule(0) == eta[0]
    assert schedule(min(1, horizon - 1)) == eta[min(1, horizon - 1)]
    assert schedule(horizon - 1) == eta[-1]
    for step in (horizon, horizon + 1, 10**30):
        if extend == "raise":
            for argument in (step, np.array([0, min(step, 2**62)])):
                with pytest.raises(InvalidProblem, match="step: got"):
                    schedule(argument)
        else:
            end = eta[-1] if extend == "hold" else 0.0
            assert schedule(step) == end
            assert schedule(np.array([0, min(step, 2**62)])).tolist() == [eta[0], end]
            assert schedule(step, "batch_size") == 8.0


def test_types_in_and_out():
    assert type(KNOTS(3)) is float
    assert type(KNOTS(np.int64(3))) is float
    assert type(KNOTS(np.uint64(3))) is float
    assert type(KNOTS(np.uint8(3))) is float
    assert type(KNOTS(3.0)) is float
    out = KNOTS(np.array([[3, 4]], dtype=np.int32))
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float64
    assert out.shape == (1, 2)
    assert isinstance(KNOTS(np.array(3)), np.ndarray)
    assert KNOTS(np.array([], dtype=int)).shape == (0,)
    assert KNOTS([3, 4]).tolist() == [KNOTS(3), KNOTS(4)]


@pytest.mark.parametrize("step", [-1, np.array([3, -1]), 0.5, np.array([0.5]), np.nan, True, "3",
                                  None, -(10**30), np.array([True])])  # fmt: skip
def test_bad_step(step):
    with pytest.raises(InvalidProblem, match="step"):
        KNOTS(step)


def test_unknown_control():
    with pytest.raises(InvalidProblem, match="control: got 'nu', allowed: one of eta, beta"):
        KNOTS(0, "nu")
    assert KNOTS.nu is None
    assert KNOTS.batch_size is None
    assert KNOTS.beta is not None


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_scalar_array_and_blocks_agree(schedule):
    for name in schedule.controls:
        dense = schedule.array(name)
        assert dense.tolist() == [schedule(k, name) for k in range(len(schedule))]
        joined = np.concatenate([values[name] for _, values in schedule.blocks(7)])
        assert np.array_equal(joined, dense)
        knots = schedule.controls[name]
        assert np.array_equal(dense[schedule.steps], knots)
        assert dense.min() == knots.min()
        assert dense.max() == knots.max()
    assert np.concatenate([k for k, _ in schedule.blocks(7)]).tolist() == list(range(len(schedule)))


def test_array_ranges():
    assert KNOTS.array(start=5, stop=8).tolist() == [KNOTS(5), KNOTS(6), KNOTS(7)]
    assert KNOTS.array("beta", start=98, stop=101).tolist() == [KNOTS(98, "beta"), 0.5, 0.5]
    assert KNOTS.array(start=5, stop=5).size == 0
    with pytest.raises(InvalidProblem, match="start"):
        KNOTS.array(start=6, stop=5)


# Sums and sampling


@settings(max_examples=80, deadline=None)
@given(schedules())
def test_total_is_the_sum(schedule):
    np.testing.assert_allclose(schedule.total, schedule.eta.sum(), rtol=1e-12)
    assert schedule.peak == schedule.eta.max()


def test_huge_horizon_costs_nothing():
    horizon = 10**15
    schedule = Schedule.from_knots([0, horizon - 1], eta=[1.0, 0.0])
    assert schedule.total == horizon / 2
    assert schedule(horizon - 1) == 0.0
    assert schedule(horizon // 2) == pytest.approx(0.5)
    assert schedule(10**30) == 0.0
    assert len(schedule.thin(50)[0]) == 50
    assert "peak 1" in schedule.table()
    with pytest.raises(InvalidProblem, match=r"use array\(start=, stop=\) or blocks\(\)"):
        _ = schedule.eta
    steps, controls = next(schedule.blocks(100))
    assert steps[-1] == 99
    assert controls["eta"].shape == (100,)
    # Values stay in range next to the end, where rounding is as large as they are.
    assert (schedule.array(start=horizon - 1000) >= 0.0).all()


@pytest.mark.parametrize(
    ("f", "integral"),
    [
        (lambda t: np.sqrt(t), lambda n: n**1.5 / 1.5),
        (lambda t: (1 - t / 37) ** 1.7, lambda n: 37 / 2.7 * (1 - (1 - n / 37) ** 2.7)),
        (lambda t: t**-0.5 if np.all(t > 0) else np.full(t.shape, np.nan), lambda n: 2 * n**0.5),
        (lambda t: 0.1, lambda n: 0.1 * n),
        (lambda t: np.exp(-t), lambda n: 1 - np.exp(-n)),
    ],
)
@pytest.mark.parametrize("horizon", [1, 2, 37])
def test_average_keeps_the_integral(f, integral, horizon):
    schedule = Schedule.from_function(f, horizon)
    assert schedule.total == pytest.approx(integral(horizon), rel=2e-8)


def test_sampling():
    average = Schedule.from_function(lambda t: t, 5)
    left = Schedule.from_function(lambda t: t, 5, sampling="left")
    np.testing.assert_allclose(average.eta, [0.5, 1.5, 2.5, 3.5, 4.5], rtol=1e-15)
    assert left.eta.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    table = Schedule.from_function(lambda t: np.array([float(x) for x in t]), 5)
    assert table == average
    assert Schedule.from_function(lambda t: 0.1, 40000).eta.tolist() == [0.1] * 40000
    long = Schedule.from_function(lambda t: 1 - t / 40000, 40000)
    np.testing.assert_allclose(long.eta, 1 - (np.arange(40000) + 0.5) / 40000, rtol=1e-10)


@pytest.mark.parametrize("f", [lambda t: "x", lambda t: np.ones(3), lambda t: 1 if t > 2 else 0])
def test_from_function_wants_an_array_function(f):
    with pytest.raises(InvalidProblem, match=r"f: got .* a function of an array"):
        Schedule.from_function(f, 10)


def test_from_function_fields():
    with pytest.raises(InvalidProblem, match="sampling"):
        Schedule.from_function(lambda t: t, 10, sampling="right")  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="horizon"):
        Schedule.from_function(lambda t: t, 10**9)
    with pytest.raises(InvalidProblem, match="eta: got -"):
        Schedule.from_function(lambda t: -t, 3)


# Thinning and printing


@settings(max_examples=80, deadline=None)
@given(schedules(), st.integers(2, 500))
def test_thin(schedule, points):
    steps, controls = schedule.thin(points)
    assert steps.dtype == np.int64
    assert len(steps) == min(points, len(schedule))
    assert steps[0] == 0
    assert steps[-1] == len(schedule) - 1
    assert (np.diff(steps) > 0).all()
    shared = np.isin(schedule.steps, steps).sum()
    assert shared == min(len(steps), len(schedule.steps))
    for name, values in controls.items():
        assert np.array_equal(values, schedule(steps, name))


def test_thin_is_even():
    steps, _ = Schedule.from_knots([0, 10**9 - 1], eta=1.0).thin(1002)
    assert np.diff(steps).max() < 2 * np.diff(steps)[1:-1].min()
    steps, _ = Schedule.from_array(np.ones(101)).thin(11)
    assert steps.tolist() == list(range(0, 101, 10))
    with pytest.raises(InvalidProblem, match="points: got 1"):
        KNOTS.thin(1)


def test_table_and_repr():
    lines = KNOTS.table(rows=5).splitlines()
    assert lines[0].split() == ["steps", "eta", "beta"]
    assert len(lines) == 7
    assert lines[-1] == "peak 1, total 49.5"
    assert repr(KNOTS) == (
        "Schedule(horizon=100, knots=3, controls=eta+beta, peak=1, unit='steps')"
    )
    assert Schedule.from_array([0.5]).table().count("\n") == 2


# Construction and validation


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("eta", {"eta": [1.0, np.nan, 0.0]}),
        ("eta", {"eta": [1.0, np.inf, 0.0]}),
        ("eta", {"eta": [1.0, -1e-9, 0.0]}),
        ("eta", {"eta": [1.0, 2.0]}),
        ("eta", {"eta": ["a", "b", "c"]}),
        ("eta", {"eta": [1.0, None, 2.0]}),
        ("eta", {"eta": [[1.0], [1.0, 2.0]]}),
        ("eta", {"eta": [10**400, 1.0, 2.0]}),
        ("eta", {"eta": [True, False, True]}),
        ("eta", {"eta": [1j, 1.0, 1.0]}),
        ("beta", {"beta": [0.9, 1.0, 0.9]}),
        ("beta", {"beta": [0.9, -0.1, 0.9]}),
        ("nu", {"nu": [0.9, 1.1, 0.9]}),
        ("batch_size", {"batch_size": [1, 0.5, 1]}),
        ("batch_size", {"batch_size": [1, 2]}),
        ("steps", {"steps": [0, 5, 5]}),
        ("steps", {"steps": [0, 5, 4]}),
        ("steps", {"steps": [1, 5, 9]}),
        ("steps", {"steps": [0, 5.5, 9]}),
        ("steps", {"steps": [0, np.nan, 9]}),
        ("steps", {"steps": []}),
        ("steps", {"steps": [[0, 5, 9]]}),
        ("steps", {"steps": "abc"}),
        ("steps", {"steps": [0, 5, 2**80]}),
        ("horizon", {"horizon": 9}),
        ("horizon", {"horizon": 11}),
        ("horizon", {"horizon": 0}),
        ("horizon", {"horizon": 10.5}),
        ("horizon", {"horizon": True}),
        ("horizon", {"horizon": 10**16}),
        ("horizon", {"steps": [0, 5, 10**15]}),
        ("controls", {"controls": {"gamma": 1.0}}),
        ("unit", {"unit": "epochs"}),
        ("extend", {"extend": "periodic"}),
        ("metadata", {"metadata": {"a": object()}}),
        ("metadata", {"metadata": {"a": np.inf}}),
        ("metadata", {"metadata": 5}),
        ("metadata", {"metadata": {1: 2, "a": {3}}}),
    ],
)
def test_validation_names_the_field(field, arguments):
    with pytest.raises(InvalidProblem) as caught:
        Schedule.from_knots(**({"steps": [0, 5, 9], "eta": [1.0, 2.0, 0.0]} | arguments))
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_validation_of_arrays():
    for bad in ([], [[1.0, 2.0]], [-1.0]):
        with pytest.raises(InvalidProblem):
            Schedule.from_array(bad)
    with pytest.raises(InvalidProblem, match=r"beta: got 'shape \(3,\)'"):
        Schedule.from_array([1.0, 2.0], beta=[0.5, 0.5, 0.5])
    with pytest.raises(InvalidProblem, match="controls"):
        Schedule(1, [0], {})


def test_from_knots_by_mapping_or_keyword():
    one = Schedule.from_knots([0, 9], {"eta": [1, 0], "nu": 0.5}, horizon=10)
    assert one == Schedule.from_knots(np.array([0.0, 9.0]), eta=[1, 0], nu=[0.5, 0.5])
    with pytest.raises(
        InvalidProblem, match="controls: got 'list', allowed: a mapping, or use eta"
    ):
        Schedule.from_knots([0, 9], [1, 0])  # type: ignore[arg-type]
    assert Schedule(10, (0, 9), {"nu": 0.5, "eta": np.array([1, 0], dtype=np.float32)}) == one


def test_immutable():
    eta = np.array([1.0, 2.0])
    metadata = {"a": [1]}
    schedule = Schedule.from_array(eta, metadata=metadata)
    eta[0] = 7.0
    metadata["a"].append(2)
    schedule.metadata["a"].append(3)
    assert schedule(0) == 1.0
    assert schedule.metadata == {"a": [1]}
    with pytest.raises(FrozenInstanceError):
        schedule.horizon = 5
    with pytest.raises(FrozenInstanceError):
        del schedule.steps
    with pytest.raises(TypeError):
        schedule.controls["eta"] = eta  # type: ignore[index]
    for array in (schedule.steps, schedule.controls["eta"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    schedule.eta[0] = 5.0
    assert schedule(0) == 1.0


@settings(max_examples=30, deadline=None)
@given(schedules())
def test_pickle_copy_equality_hash(schedule):
    for twin in (
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        copy.copy(schedule),
    ):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert twin.digest == schedule.digest
    assert schedule != schedule.replace(metadata={"other": "x" * 9})
    assert schedule != 3


def test_digest_is_stable():
    # Pinned: files of other machines and versions carry it.
    assert KNOTS.digest == KNOTS.replace(metadata={"a": 1}).digest
    assert KNOTS.digest == "dd3a64fe56dd3f99fc59a86d41cf610be5723f08716ddcd65fbc8eaa67ae61ed"
    zero = Schedule.from_array([0.0, 1.0])
    minus = Schedule.from_array([-0.0, 1.0])
    assert zero == minus
    assert zero.digest == minus.digest
    others = {s.digest for s in (KNOTS, KNOTS.replace(unit="tokens"), KNOTS.scaled(2), zero)}
    assert len(others) == 4


def test_scaled_and_replace():
    double = KNOTS.scaled(2.0)
    np.testing.assert_array_equal(double.eta, 2.0 * KNOTS.eta)
    np.testing.assert_array_equal(double.controls["beta"], KNOTS.controls["beta"])
    assert double.scaled(3).metadata == {"scaled": 6.0}
    for bad in (-1.0, np.nan, np.inf, "2"):
        with pytest.raises(InvalidProblem, match="factor"):
            KNOTS.scaled(bad)  # type: ignore[arg-type]
    assert list(KNOTS.replace(beta=None).controls) == ["eta"]
    assert KNOTS.replace(nu=0.5)(7, "nu") == 0.5
    assert KNOTS.replace(extend="zero")(100) == 0.0
    assert KNOTS.replace(horizon=2, steps=[0, 1], controls={"eta": [1, 2]}).horizon == 2
    with pytest.raises(TypeError):
        KNOTS.replace(color=1)


def test_metadata_of_numpy_and_tuples_is_plain():
    metadata = {"x": np.float64(0.1), "n": np.int64(3), "v": np.arange(2), "t": (1, 2)}
    schedule = Schedule.from_array([1.0], metadata=metadata)
    assert schedule.metadata == {"x": 0.1, "n": 3, "v": [0, 1], "t": [1, 2]}


def test_dense_lookup_is_fast():
    schedule = Schedule.from_array(np.ones(10**6))
    start = time.perf_counter()
    for k in range(200):
        schedule(k)
    assert time.perf_counter() - start < 0.5


# JAX


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("horizon", [1, 50])
def test_jax_values_and_types(x64, horizon):
    eta = np.random.default_rng(0).uniform(size=horizon)
    for schedule, name in (
        (Schedule.from_array(eta), "eta"),
        (Schedule.from_array(eta, batch_size=8.0, extend="zero"), "batch_size"),
        (KNOTS.replace(extend="zero"), "eta"),
    ):
        steps = np.arange(len(schedule) + 3)
        expected = schedule(steps, name)
        with jax.enable_x64(x64):
            value = lambda k, s=schedule, n=name: s(k, n)  # noqa: E731
            real, rtol = (jnp.float64, 1e-13) if x64 else (jnp.float32, 3e-7)
            for f, k in (
                (jax.jit(value), jnp.asarray(steps)),
                (value, jnp.asarray(steps)),
                (jax.jit(value), jnp.asarray(1, dtype=jnp.int32)),
                (value, jnp.asarray(1, dtype=jnp.uint8)),
            ):
                out = f(k)
                assert isinstance(out, jax.Array)
                assert out.dtype == real
                assert out.shape == k.shape
                np.testing.assert_allclose(out, expected[np.asarray(k)], rtol=rtol, atol=1e-16)


@pytest.mark.parametrize("horizon", [10**9, 10**12])
def test_jax_long_horizon_without_x64(horizon):
    # In float32 the last 20 knots are one number.
    late = [2.0**i for i in range(20)]
    steps = [0, *(horizon - 1 - int(x) for x in reversed(late)), horizon - 1]
    schedule = Schedule.from_knots(steps, eta=[1.0, *np.geomspace(0.9, 0.01, 20), 0.0])
    asked = np.array([0, 1, 10**8, 2**31 - 1, *(k - 1 for k in steps[-6:]), *steps[-6:]])
    asked = asked[asked < 2**31]
    out = jax.jit(schedule)(jnp.asarray(asked, dtype=jnp.int32))
    np.testing.assert_allclose(out, schedule(asked), rtol=1e-6)


def test_jax_relative_accuracy_of_a_decay_in_float32():
    schedule = Schedule.from_knots([0, 10**6 - 1], eta=[1.0, 0.0])
    asked = np.arange(10**6 - 50, 10**6)
    out = jax.jit(schedule)(jnp.asarray(asked))
    np.testing.assert_allclose(out, schedule(asked), rtol=1e-6, atol=1e-15)


def test_jax_errors():
    schedule = KNOTS.replace(extend="raise")
    traced = jax.jit(schedule)(jnp.array([-1, 0, 99, 100]))
    assert np.isnan(np.asarray(traced)).tolist() == [True, False, False, True]
    with pytest.raises(InvalidProblem, match="step"):
        schedule(jnp.asarray(100))
    with pytest.raises(InvalidProblem, match="step"):
        schedule(jnp.asarray(-1))
    for f in (schedule, jax.jit(schedule)):
        with pytest.raises(
            InvalidProblem, match="step: got 'float32', allowed: an array of an int"
        ):
            f(jnp.asarray(1.0))


def test_jax_in_scan_and_vmap():
    _, out = jax.lax.scan(lambda c, k: (c, KNOTS(k)), 0, jnp.arange(100))
    np.testing.assert_allclose(out, KNOTS.eta, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(KNOTS)(jnp.arange(100)), out, rtol=1e-6)


def test_import_is_light():
    code = (
        "import sys; from optsched.schedules.schedule import Schedule;"
        "Schedule.from_array([1.0])(0);"
        "assert not {'torch', 'optax', 'matplotlib', 'rich', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
