"""Odd parameters of rules and of measured spectra: refused by name, before anything overflows."""

from __future__ import annotations

import numpy as np
import pytest

from optsched import cli
from optsched.errors import InvalidProblem
from optsched.measure.exponents import measure_features
from optsched.rules.batch.noise_scale import LARGEST, RunningNoiseScale, per_example, two_batch
from optsched.rules.batch.scaling import rate_factor

COOLDOWN = "cooldown --horizon 100 --from-cooldown .2 --to-cooldown .4"
EXTEND = "extend --from-horizon 100 --to-horizon 400"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (f"{COOLDOWN} --peak 0", "--peak: got 0.0, allowed: a finite number > 0"),
        (f"{COOLDOWN} --peak nan", "--peak: got nan"),
        (f"{EXTEND} --peak -1", "--peak: got -1.0"),
        (f"{EXTEND} --peak nan", "--peak: got nan"),
        ("batch --from-batch 1e-300 --batch 8 --lr 1", "--from-batch: got 1e-300, allowed: num"),
        ("batch --from-batch 4 --batch 1e300 --lr 1 --rule sqrt", "--batch: got 1e+300"),
        ("batch --from-batch 4 --batch 8 --lr 1 --rule sgd --noise-scale 1e-300", "--noise-scale:"),
    ],
)
def test_numbers_of_rules(argv: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rules", *argv.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"optsched: {said}")
    assert len(err.splitlines()) == 1


def test_ratios_of_batches_up_to_the_limit_are_finite() -> None:
    for rule in ("linear", "sgd", "sqrt", "sign"):
        assert np.isfinite(rate_factor([1e100, 1e-100], 1e-100, rule, noise_scale=1e-100)).all()


def test_gradients_up_to_the_limit_have_a_noise_scale() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 4))
    rows *= LARGEST / np.abs(rows).max()
    assert per_example(rows).value == pytest.approx(per_example(rows / LARGEST).value)
    with pytest.raises(InvalidProblem, match=r"gradients: .* at most 1e\+60 in size"):
        per_example(3.0 * rows)


def test_squared_norms_are_bounded() -> None:
    top = LARGEST**2
    assert two_batch([top, 0.9 * top], [0.5 * top, 0.4 * top], 1, 4).value > 0.0
    with pytest.raises(InvalidProblem, match="big_square: got 1e\\+200, allowed: squared norms"):
        two_batch([1.0], [1e200], 1, 4)
    with pytest.raises(InvalidProblem, match="trace: got 1e\\+200"):
        RunningNoiseScale(0.9).added(1e200, 1.0)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_size_of_targets(size: float) -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((60, 30))
    targets = features @ rng.standard_normal(30)
    with pytest.raises(InvalidProblem, match=r"targets: .* from 1e-100 to 1e100"):
        measure_features(features, size * targets)
