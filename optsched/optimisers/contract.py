"""Rules that a user's optimiser has to keep, each broken one told by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.errors import BadPart
from optsched.model.dynamics import BlockMaps, Blocks, Dynamics, timed
from optsched.model.spectrum import Modes, Spectrum
from optsched.numerics import jax_settings
from optsched.optimisers.base import Limit, Optimiser, Setting

__all__ = ["check_blocks", "check_dynamics", "checked_limit", "checked_values", "switch_steps"]

SAMPLE = 16  # modes that the rules are tried on
SMALL = 1e-3  # a rate, in units of 1 / largest eigenvalue
LIKE = {"beta": 0.5, "nu": 0.5, "ema": 0.5}
AGREE = 1e-9


def _sample(spectrum: Spectrum) -> Modes:
    modes = spectrum.modes(1.0 / spectrum.largest)
    return Modes(*(np.asarray(column, float)[:SAMPLE] for column in modes))


def _controls(names: Sequence[str], setting: Setting) -> dict[str, float]:
    rate = SMALL / setting.spectrum.largest
    known = {"eta": rate, "batch_size": setting.batch_size, "step": 0.0, **LIKE}
    return {name: known[name] for name in names}


def switch_steps(part: str, dynamics: Dynamics, horizon: int) -> Ints:
    """`Dynamics.switches`, if they are numbers of steps."""
    rule = f"switches({horizon}) must be whole numbers of steps, 0 to {horizon}"
    given = dynamics.switches(horizon)
    try:
        found = np.asarray(given, float).reshape(-1)
    except (TypeError, ValueError):
        raise BadPart(part, rule, f"got {type(given).__name__}") from None
    bad = found[~((found == np.floor(found)) & (found >= 0.0) & (found <= horizon))]
    if len(bad):
        raise BadPart(part, rule, f"got {bad[0]:g}")
    if len(found) and "step" not in dynamics.takes:
        raise BadPart(part, "dynamics that switch take step", f"takes is {dynamics.takes!r}")
    return np.unique(found).astype(np.int64)


def checked_values(optimiser: Optimiser, controls: Sequence[str]) -> dict[str, float]:
    """`Optimiser.values`, if they are numbers of controls."""
    part, found = f"optimiser {optimiser.name}", optimiser.values(controls)
    good = isinstance(found, Mapping) and all(
        name in LIKE and isinstance(value, (int, float)) and math.isfinite(value)
        for name, value in found.items()
    )
    if not good:
        rule = f"values() must be a dict of finite numbers by {', '.join(LIKE)}"
        raise BadPart(part, rule, f"got {found!r}")
    return dict(found)


def checked_limit(optimiser: Optimiser, setting: Setting) -> Limit:
    """`Optimiser.limit`, if it is one."""
    part, found = f"optimiser {optimiser.name}", optimiser.limit(setting)
    if not isinstance(found, Limit):
        raise BadPart(part, "limit() must be a Limit(rate)", f"got {type(found).__name__}")
    if not found.rate > 0.0:
        raise BadPart(
            part, "some constant rate > 0 must be stable", f"limit() is Limit({found.rate!r})"
        )
    return found


def check_dynamics(part: str, dynamics: Any, setting: Setting) -> None:
    """Refuse what is no recursion of second moments: type, pytree, controls, shapes, numbers.

    Parameters
    ----------
    part : str
        What it belongs to, for the message.
    dynamics : object
    setting : Setting

    Raises
    ------
    BadPart
    """
    import jax

    if not isinstance(dynamics, Dynamics):
        raise BadPart(part, "dynamics() must be a Dynamics", f"got {type(dynamics).__name__}")
    leaves = jax.tree.leaves(dynamics)
    if any(isinstance(leaf, Dynamics) for leaf in leaves):
        rule = "its dynamics must be a JAX pytree: decorate the class with @pytree"
        raise BadPart(part, rule, f"{type(dynamics).__name__} is none")
    for leaf in leaves:
        if not isinstance(leaf, (int, float, np.ndarray, np.generic, jax.Array)):
            rule = "data fields of its dynamics must be numbers or arrays, others static"
            raise BadPart(part, rule, f"one is of type {type(leaf).__name__}")
    missing = [name for name in setting.controls if name not in dynamics.takes]
    if missing:
        rule = f"its dynamics must take the scheduled controls {', '.join(setting.controls)}"
        raise BadPart(part, rule, f"takes is {dynamics.takes!r}")
    modes = _sample(setting.spectrum)
    with jax_settings():
        size = _check_state(part, dynamics, modes)
        _check_change(part, dynamics, modes, setting, size)


def _finite(part: str, what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuse arrays of another shape, or with NaN."""
    rule = f"{what} must be finite, of shape {shape}"
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise BadPart(part, rule, f"got {type(value).__name__}") from None
    if array.shape != shape:
        raise BadPart(part, rule, f"got shape {array.shape}")
    if not np.isfinite(array).all():
        raise BadPart(part, rule, "got NaN or infinity")


def _check_state(part: str, dynamics: Dynamics, modes: Modes) -> int:
    first = np.asarray(dynamics.initial(modes))
    if first.ndim != 2 or first.shape[0] != len(modes.lam):
        rule = "initial(modes) must have shape (J, d), a row of d numbers for each mode"
        raise BadPart(part, rule, f"got shape {first.shape} for J = {len(modes.lam)}")
    for what, value in (
        ("initial(modes)", first),
        ("readout(modes)", dynamics.readout(modes)),
        ("feedback(modes)", dynamics.feedback(modes)),
    ):
        _finite(part, what, value, first.shape)
    if not float((np.asarray(dynamics.readout(modes)) * first).sum()) > 0.0:
        raise BadPart(part, "the excess loss at step 0 must be > 0", "readout * initial sums to 0")
    return first.shape[1]


def _check_change(part: str, dynamics: Dynamics, modes: Modes, setting: Setting, size: int) -> None:
    """One step at a small rate, with every control that is taken and with the scheduled ones."""
    ends = (0.0, setting.horizon - 1.0) if "step" in dynamics.takes else (0.0,)
    for names, step in product((setting.controls, dynamics.takes), ends):
        controls = {"eta": SMALL / setting.spectrum.largest} | _controls(names, setting)
        controls = timed(dynamics, controls, step)
        _check_transition(part, dynamics, modes, controls)
        try:
            change, source = dynamics.change(modes, controls)  # type: ignore[arg-type]
        except KeyError as error:
            raise _not_taken(part, dynamics, error) from error
        rule = f"change() must give {size} x {size} entries C and {size} entries s, as initial()"
        rows = [len(row) for row in change]
        if rows != [size] * size or len(source) != size:
            raise BadPart(part, rule, f"got rows of {rows} and {len(source)} sources")
        for entry in [*source, *(x for row in change for x in row)]:
            if entry is not None:
                full = np.asarray(entry, float) + np.zeros(len(modes.lam))
                _finite(part, "entries of change()", full, (len(modes.lam),))


def _not_taken(part: str, dynamics: Dynamics, error: KeyError) -> BadPart:
    rule = "takes of its dynamics must name every control that a step reads"
    return BadPart(part, rule, f"{error} is read, and takes is {dynamics.takes!r}")


def _check_transition(
    part: str, dynamics: Dynamics, modes: Modes, controls: dict[str, Any]
) -> None:
    """The step of a linear optimiser on one mode: a matrix and a vector of its variables."""
    from optsched.model.moments import LinearOptimiser, Transition

    if not isinstance(dynamics, LinearOptimiser):
        return
    held = {name: getattr(dynamics, name) for name in dynamics.held}
    try:
        found = dynamics.transition(modes.lam, {**held, **controls})  # type: ignore[arg-type]
    except KeyError as error:
        raise _not_taken(part, dynamics, error) from error
    size = dynamics.size
    rule = f"transition() must be a Transition of {size} x {size} and {size} entries, as begin"
    if not isinstance(found, Transition):
        raise BadPart(part, rule, f"got {type(found).__name__}")
    rows = [len(row) for row in found.change]
    if rows != [size] * size or len(found.kick) != size:
        raise BadPart(part, rule, f"got rows of {rows} and {len(found.kick)} kicks")


def _close(x: Floats, y: Floats) -> bool:
    return bool(np.abs(x - y).max() <= AGREE * max(float(np.abs(y).max()), 1e-300))


def check_blocks(part: str, dynamics: Dynamics, setting: Setting) -> None:
    """Refuse block maps that are not those of the step: shapes, numbers, blocks of one step.

    Raises
    ------
    BadPart
    """
    import jax.numpy as jnp

    modes, controls = _sample(setting.spectrum), _controls(setting.controls, setting)
    held = timed(dynamics, {"eta": SMALL / setting.spectrum.largest} | controls, 0.0)
    with jax_settings():
        length = jnp.asarray([1.0, 4.0, 0.0])
        knots = {name: jnp.full(3, value) for name, value in held.items()}
        blocks = Blocks(length, knots, knots)
        maps = dynamics.for_blocks(np.asarray(length)).blocks(modes, blocks, blocks)
        if not isinstance(maps, BlockMaps):
            raise BadPart(part, "blocks() must be a BlockMaps", f"got {type(maps).__name__}")
        j, d = np.asarray(dynamics.initial(modes)).shape
        for name, shape in (("phi", (3, j, d, d)), ("w", (3, 3, j, d))):
            for field in (f"half_{name}", name):
                _finite(part, f"{field} of blocks()", getattr(maps, field), shape)
        step, source = (np.asarray(x) for x in dynamics.step(modes, held))  # type: ignore[arg-type]
    first, fed = np.asarray(maps.phi[0]), np.asarray(maps.w[0, 0])
    if not (_close(first, step) and _close(fed, source)):
        rule = "a block of one step must be the step of change()"
        off = max(float(np.abs(first - step).max()), float(np.abs(fed - source).max()))
        raise BadPart(part, rule, f"they differ by {off:.1e}")
    # Four equal steps without feedback: the fourth power.
    power = np.linalg.matrix_power(step, 4)
    if not np.allclose(maps.phi[1], power, rtol=1e-6, atol=1e-6 * float(np.abs(power).max())):
        off = float(np.abs(np.asarray(maps.phi[1]) - power).max())
        raise BadPart(part, "a block of four equal steps must be four steps", f"off by {off:.1e}")
    if not np.allclose(maps.phi[2], np.eye(d), atol=AGREE):
        raise BadPart(part, "a block of no steps must change nothing", "it does")
