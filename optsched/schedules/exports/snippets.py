"""A schedule as stand-alone code: knots and interpolation, for machines without optsched."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from optsched.checks import whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.exports.common import check_exportable, simplified
from optsched.schedules.files import MAX_ROWS
from optsched.schedules.schedule import Schedule

__all__ = ["FORMATS", "MAX_KNOTS", "Snippet", "csv_rows", "snippet"]

FORMATS = ("torch-snippet", "optax-snippet", "keras-snippet")
MAX_KNOTS = 4096
LAST = 2**31 - 1  # optax and Keras count updates in 32 bits


class Snippet(NamedTuple):
    """Code, the number of knots in it, and what fewer knots cost, relative to the largest value."""

    text: str
    knots: int
    error: float


def snippet(
    schedule: Schedule, form: str, *, points: int | None = None, momentum: str | None = None
) -> Snippet:
    r"""Write stand-alone code that gives the values of a schedule.

    Parameters
    ----------
    schedule : Schedule
        In updates.
    form : {"torch-snippet", "optax-snippet", "keras-snippet"}
        Code for which framework.
    points : int, optional
        Most knots to write. Default: all up to 4096, or what rounding needs of them.
    momentum : {"ignore", "write", "heavy-ball"}, optional
        What becomes of ``beta``, as for `optsched.schedules.exports.torch.to_torch`; to be chosen
        if the schedule has it. In Keras ``"ignore"``.

    Returns
    -------
    Snippet

    Raises
    ------
    InvalidProblem
        A setting that does not fit, or more knots than 4096 without ``points``.
    """
    if form not in FORMATS:
        raise InvalidProblem("format", form, "one of " + ", ".join(FORMATS))
    check_exportable(schedule)
    _check_momentum(schedule, form, momentum)
    kept = ["eta"] if momentum in (None, "ignore") else ["eta", "beta", "nu"]
    controls = {name: v for name, v in schedule.controls.items() if name in kept}
    full = schedule.replace(controls=controls)
    if form != FORMATS[0] and full.horizon > LAST:
        steps = np.append(full.steps[full.steps < LAST], LAST)
        cut = {name: full(steps, name) for name in controls}
        full = full.replace(horizon=LAST + 1, steps=steps, controls=cut)
    if points is not None:
        points = whole("points", points, min(2, len(full.steps)), MAX_HORIZON)
    thin, error = full, 0.0
    if len(full.steps) > (points or MAX_KNOTS):
        thin, error = simplified(full, points)
    if points is None and len(thin.steps) > MAX_KNOTS:
        allowed = f"the knots to keep: {len(thin.steps)} are too many, {MAX_KNOTS} the most"
        raise InvalidProblem("points", None, allowed + " without; csv has them all")
    body = {FORMATS[0]: _torch, FORMATS[1]: _optax, FORMATS[2]: _keras}[form]
    lines = _head(schedule, thin, len(full.steps), error)
    return Snippet(body(thin, momentum, lines), len(thin.steps), error)


def csv_rows(schedule: Schedule, points: int | None = None) -> Iterator[str]:
    """Lines of a csv: names, then a row a step, or of ``points`` steps; no other header."""
    if points is None and schedule.horizon > MAX_ROWS:
        allowed = f"the rows to keep, as {schedule.horizon} steps are too many"
        raise InvalidProblem("points", None, allowed)
    blocks = schedule.blocks(1 << 16) if points is None else [schedule.thin(points)]

    def lines() -> Iterator[str]:
        yield ",".join(["step", *schedule.controls]) + "\n"
        for steps, controls in blocks:
            columns = [map(repr, values.tolist()) for values in controls.values()]
            rows = zip(map(str, steps.tolist()), *columns, strict=True)
            yield "".join(",".join(row) + "\n" for row in rows)

    return lines()


def _check_momentum(schedule: Schedule, form: str, momentum: str | None) -> None:
    if "beta" not in schedule.controls:
        if momentum not in (None, "ignore"):
            raise InvalidProblem("momentum", momentum, "none, as the schedule has no beta")
        return
    choices = ["ignore"] if form == FORMATS[2] else ["ignore", "write", "heavy-ball"]
    if "nu" in schedule.controls:
        choices = [choice for choice in choices if choice != "heavy-ball"]
    if momentum not in choices:
        allowed = f"{' or '.join(choices)}, as the schedule has beta"
        raise InvalidProblem("momentum", momentum, allowed)


def _head(schedule: Schedule, thin: Schedule, knots: int, error: float) -> str:
    """Comment and tables."""
    ends = {
        "hold": "the last value holds",
        "zero": "the rate is 0",
        "raise": "there is no value",
    }
    lines = [
        f"# Schedule of {schedule.horizon} updates, written by optsched; "
        f"digest {schedule.digest[:16]}.",
        "# Update k, from 0, uses the value of step k. Between the knots values are linear;",
        f"# past the end {ends[schedule.extend]}.",
    ]
    if len(thin.steps) < knots:
        lines.append(
            f"# {len(thin.steps)} of {knots} knots: off by {error:.1e} of the peak at most."
        )
    tables = {"STEPS": thin.steps.tolist()}
    tables |= {name.upper(): values.tolist() for name, values in thin.controls.items()}
    for name, values in tables.items():
        text = textwrap.wrap(", ".join(map(repr, values)), 94, break_on_hyphens=False)
        lines += [f"{name} = [", *(f"    {line}" for line in text), "]"]
    return "\n".join(lines) + "\n"


_VALUE = '''
def value(values, step):
    """Value of a table at a step."""
    if step >= STEPS[-1]:
        return values[-1]
    i = bisect_right(STEPS, step) - 1
    slope = (values[i + 1] - values[i]) / (STEPS[i + 1] - STEPS[i])
    low, high = sorted(values[i : i + 2])
    return min(max(values[i] + slope * (step - STEPS[i]), low), high)
'''

_TORCH = '''

class ScheduleLR(torch.optim.lr_scheduler.LRScheduler):
    """scheduler = ScheduleLR(optimizer); call scheduler.step() after each update."""

    def get_lr(self):
        step, groups = self.last_epoch, self.optimizer.param_groups
{past}        rate = value(ETA, step)
{momentum}        return [rate] * len(groups)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr()):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
'''

_TORCH_RAISE = """\
        if step > STEPS[-1] + 1:  # the call after the last update passes
            raise ValueError(f"step {step} is past the end of the schedule")
"""
_TORCH_ZERO = """\
        if step > STEPS[-1]:
            rate = 0.0
"""
_TORCH_WRITE = """\
        for group in groups:
            if "betas" in group:
                group["betas"] = (value(BETA, step), *group["betas"][1:])
            else:
                group["momentum"] = value(BETA, step)
"""
_TORCH_NU = """\
            group["nu"] = value(NU, step)
"""
_TORCH_HEAVY = """\
        # Heavy ball v = beta v + (1 - beta) g; torch's buffer has no factor 1 - beta.
        now, before = 1.0 - value(BETA, step), 1.0 - value(BETA, max(step - 1, 0))
        rate *= now
        for group in groups:
            # Not 0: torch would keep a stale buffer.
            group["momentum"] = max((1.0 - now) * before / now, 1e-30)
"""


def _torch(schedule: Schedule, momentum: str | None, head: str) -> str:
    lines = ""
    if momentum == "write":
        lines = _TORCH_WRITE + (_TORCH_NU if "nu" in schedule.controls else "")
    elif momentum == "heavy-ball":
        lines = _TORCH_HEAVY
    if schedule.extend == "zero":
        lines = _TORCH_ZERO + lines
    past = _TORCH_RAISE if schedule.extend == "raise" else ""
    code = _TORCH.replace("{past}", past).replace("{momentum}", lines)
    return f"from bisect import bisect_right\n\nimport torch\n\n{head}\n{_VALUE}{code}"


_OPTAX = '''
def value(values, count, past):
    """Value of a table at a count of updates; weakly typed, so that bf16 stays bf16."""
    count = jnp.asarray(count)
    k = jnp.clip(count, 0, STEPS[-1]).astype(int)
    steps, table = jnp.asarray(STEPS, int), jnp.asarray(values, float)
    pairs = zip(STEPS, STEPS[1:], values, values[1:])
    slopes = jnp.asarray([(v - u) / (t - s) for s, t, u, v in pairs] or [0.0], float)
    i = jnp.clip(jnp.searchsorted(steps, k, side="right") - 1, 0, len(slopes) - 1)
    j = jnp.minimum(i + 1, len(STEPS) - 1)
    left, right = k - steps[i], steps[j] - k
    found = jnp.where(left <= right, table[i] + slopes[i] * left, table[j] - slopes[i] * right)
    found = jnp.clip(found, min(values), max(values))
    found = jnp.where(count > STEPS[-1], table[-1] if past is None else past, found)
    return jnp.full(found.shape, 0.0).at[...].set(found)
'''

_OPTAX_CONTROL = '''

def {name}(count):
    """For a number of past updates."""
    return value({table}, count, {past})
'''

_OPTAX_HEAVY = '''

def learning_rate(count):
    """Rate of optax.sgd, whose buffer has no factor 1 - beta."""
    return eta(count) * (1.0 - beta(count))


def momentum(count):
    """Momentum of optax.sgd: optax.inject_hyperparams(optax.sgd)(learning_rate, momentum)."""
    count = jnp.asarray(count)
    before = jnp.where(count > 0, 1.0 - beta(jnp.maximum(count - 1, 0)), 0.0)
    return beta(count) * before / (1.0 - beta(count))
'''


def _optax(schedule: Schedule, momentum: str | None, head: str) -> str:
    code = _OPTAX
    for name in schedule.controls:
        past = {"hold": "None", "zero": "0.0" if name == "eta" else "None", "raise": "jnp.nan"}
        control = _OPTAX_CONTROL.replace("{name}", name).replace("{table}", name.upper())
        code += control.replace("{past}", past[schedule.extend])
    if momentum == "heavy-ball":
        code += _OPTAX_HEAVY
    return f"import jax.numpy as jnp\n\n{head}\n{code}"


_KERAS = '''
@keras.saving.register_keras_serializable("schedule")
class ScheduleRate(keras.optimizers.schedules.LearningRateSchedule):
    """optimizer = keras.optimizers.SGD(learning_rate=ScheduleRate())."""

    def __call__(self, step):
        ops = keras.ops
        asked = ops.cast(step, "int32")
        k = ops.clip(asked, 0, STEPS[-1])
        ends = list(zip(STEPS, STEPS[1:], ETA, ETA[1:])) or [(0, 1, ETA[0], ETA[0])]
        slopes = [(v - u) / (t - s) for s, t, u, v in ends]
        inner = ops.convert_to_tensor(STEPS[1:-1] or [STEPS[-1] + 1], "int32")
        i = ops.sum(ops.cast(inner <= ops.expand_dims(k, -1), "int32"), axis=-1)
        s, t, u, v = (
            ops.take(ops.convert_to_tensor(column, kind), i)
            for column, kind in zip(zip(*ends), ("int32", "int32", "float32", "float32"))
        )
        slope = ops.take(ops.convert_to_tensor(slopes, "float32"), i)
        rise = u + slope * ops.cast(k - s, "float32")
        fall = v - slope * ops.cast(t - k, "float32")
        rate = ops.clip(ops.where(k - s <= t - k, rise, fall), min(ETA), max(ETA))
{past}        return rate

    def get_config(self):
        return {}
'''

_KERAS_PAST = {
    "hold": "",
    "zero": "        rate = ops.where(asked > STEPS[-1], 0.0, rate)\n",
    "raise": '        rate = ops.where(asked > STEPS[-1], float("nan"), rate)\n',
}


def _keras(schedule: Schedule, momentum: str | None, head: str) -> str:
    return f"import keras\n\n{head}\n{_KERAS}".replace("{past}", _KERAS_PAST[schedule.extend])
