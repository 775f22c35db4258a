"""Which columns of a log hold the step, the learning rate and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.controls import MAX_HORIZON
from optsched.errors import BadLog
from optsched.logs.tables import TENSORBOARD, Table

__all__ = ["KEYS", "Series", "find_loss", "find_rate", "is_tensorboard", "no_rate", "points"]


# In the order of preference; compared in lower case, with "-", " " and "." as "_".
STEPS = (
    "step", "global_step", "steps", "iter", "iters", "iteration", "iterations", "update",
    "updates", "num_updates", "train_step", "train/global_step", "trainer/global_step",
    "train/step", "optimizer_step", "_step",
)  # fmt: skip
COUNTS = {
    "steps": (),
    "samples": ("samples", "examples", "num_samples", "consumed_samples", "samples_seen"),
    "tokens": (
        "tokens", "num_tokens", "consumed_tokens", "tokens_seen", "train_tokens", "total_tokens",
        "num_input_tokens_seen", "throughput/total_tokens",
    ),
}  # fmt: skip
RATES = (
    "lr", "learning_rate", "eta", "train/lr", "train/learning_rate", "optim/lr", "lr/group0",
    "learningrate", "optim/learning_rate_group0",
)  # fmt: skip
TRAIN = (
    "loss", "train_loss", "train/loss", "training_loss", "training/loss", "loss/train",
    "train_loss_step", "train/train_loss", "lm_loss", "train/ce_loss", "train/crossentropyloss",
)  # fmt: skip
EVAL = (
    "val_loss", "eval_loss", "valid_loss", "validation_loss", "eval/loss", "val/loss", "valid/loss",
    "validation/loss", "loss/val", "loss/eval", "loss/validation", "test_loss", "test/loss",
)  # fmt: skip
KEYS = ("step", "lr", "loss")


@dataclass(frozen=True)
class Series:
    """Where the numbers of one quantity stand.

    Attributes
    ----------
    table : Table
    step, value : str
        Names of the two columns.
    kind : str
        "training loss", "validation loss", "loss" or "rate".
    """

    table: Table
    step: str
    value: str
    kind: str


def find_loss(table: Table, columns: Mapping[str, str], loss: str, unit: str) -> Series:
    """Column of the loss; ``loss`` is "loss", "train", "eval" or the name of a column.

    Raises
    ------
    BadLog
        No such column, or several.
    """
    step = _step(table, columns, unit)
    if is_tensorboard(table):
        kind = {"train": "training loss", "eval": "validation loss"}.get(loss, "loss")
        return Series(table, step, _tensorboard_value(table), kind)
    given = columns.get("loss") or (None if loss in ("loss", "train", "eval") else loss)
    if given is not None:
        return Series(table, step, _given(table, "loss", given), "loss")
    wanted = {"train": (TRAIN,), "eval": (EVAL,)}.get(loss, (TRAIN, EVAL))
    for names in wanted:
        found = _first(table, names)
        if found is not None:
            kind = "training loss" if names is TRAIN else "validation loss"
            return Series(table, step, found, kind)
    raise _missing(table, "the loss" if loss == "loss" else f"the {loss} loss", "loss")


def find_rate(table: Table, columns: Mapping[str, str], unit: str) -> Series | None:
    """Column of the learning rate, or None if the table has none.

    Raises
    ------
    BadLog
        Several columns that could be it; a given name that is not there; no step.
    """
    if is_tensorboard(table):
        return Series(table, _step(table, columns, unit), _tensorboard_value(table), "rate")
    if "lr" in columns:
        name = _given(table, "lr", columns["lr"])
        return Series(table, _step(table, columns, unit), name, "rate")
    name = _first(table, RATES)
    if name is None:
        loose = [column for column in table.columns if _is_rate(column)]
        if len(loose) > 1:
            raise BadLog(
                f"{table.path}: columns {', '.join(loose)} could all be the learning rate, "
                "expected one: give columns={'lr': ...}"
            )
        if not loose:
            return None
        name = loose[0]
    return Series(table, _step(table, columns, unit), name, "rate")


def no_rate(table: Table) -> BadLog:
    """Error for a log without a learning rate."""
    error = _missing(table, "the learning rate", "lr")
    return BadLog(f"{error}, or a pair of files, (loss, rate)")


def points(series: Series, unit: str, per_step: float | None) -> tuple[Ints, Floats, Ints]:
    """Numbers of a column with their steps.

    Parameters
    ----------
    series : Series
    unit : str
        What the column of the steps counts.
    per_step : float or None
        How many of them an update covers; None for 1.

    Returns
    -------
    steps : numpy.ndarray of int64, shape (n,)
        In updates, increasing.
    values : numpy.ndarray of float64, shape (n,)
    rows : numpy.ndarray of int64, shape (n,)
        Rows of the table.

    Raises
    ------
    BadLog
        No value, a value without a step, a step that is negative, not whole or not above the one
        before, with file and line.
    """
    table = series.table
    values = table.column(series.value)
    if not values.rows.size:
        raise BadLog(f"{table.path}: column {series.value!r} is empty")
    given = _steps_at(series, values.rows)
    exact = given / (per_step or 1.0)
    steps = np.round(exact)
    # A count of samples or tokens need not be a multiple of the usual batch.
    off = unit == "steps" and np.abs(steps - exact) > 1e-6 * np.maximum(exact, 1.0)
    again = "more than the step before; a resumed run, or two in one file? Remove what is twice"
    for bad, allowed in (
        (steps < 0, "a step >= 0"),
        (steps >= MAX_HORIZON, f"less than {MAX_HORIZON} steps"),
        (off, "a whole number of steps"),
        (np.append(False, np.diff(steps) <= 0), again),
    ):
        at = np.flatnonzero(bad)
        if at.size:
            place = table.where(int(values.rows[at[0]]))
            raise BadLog(f"{place}: {series.step} is {given[at[0]]:.15g}, expected {allowed}")
    return steps.astype(np.int64), values.values, values.rows


def _steps_at(series: Series, rows: Ints) -> Floats:
    """What the column of the steps has in some rows."""
    counts = series.table.column(series.step)
    full = np.full(len(series.table.lines), np.nan)
    full[counts.rows] = counts.values
    lacking = rows[np.isnan(full[rows])]
    if lacking.size:
        place = series.table.where(int(lacking[0]))
        raise BadLog(f"{place}: {series.value} without a {series.step}")
    return full[rows]


def is_tensorboard(table: Table) -> bool:
    """Whether a table is one tag of TensorBoard, so that only its place says what it holds."""
    return tuple(name.lower() for name in table.columns) == TENSORBOARD


def _tensorboard_value(table: Table) -> str:
    return [*table.columns][2]


def _step(table: Table, columns: Mapping[str, str], unit: str) -> str:
    if "step" in columns:
        return _given(table, "step", columns["step"])
    found = _first(table, (*COUNTS[unit], *STEPS))
    if found is None:
        raise _missing(table, "the step", "step")
    return found


def _given(table: Table, key: str, name: str) -> str:
    if name not in table.columns:
        raise BadLog(
            f"{table.path}: no column {name!r}, given for {key}; found {_shown(table.columns)}"
        )
    return name


def _first(table: Table, names: Sequence[str]) -> str | None:
    """Column with the first of the names; one that holds nothing at all does not count."""
    plain: dict[str, str] = {}
    for column, fields in table.columns.items():
        if any(field not in (None, "") for field in fields):
            plain.setdefault(_plain(column), column)
    return next((plain[name] for name in names if name in plain), None)


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")


def _is_rate(column: str) -> bool:
    """As ``optimizer/lr`` or, of Lightning's monitor, ``lr-AdamW``."""
    name = _plain(column)
    return name.rpartition("/")[2] in ("lr", "learning_rate") or name.startswith(("lr_", "lr/"))


def _missing(table: Table, what: str, key: str) -> BadLog:
    return BadLog(
        f"{table.path}: no column of {what}; found {_shown(table.columns)}; "
        f"give columns={{{key!r}: ...}}"
    )


def _shown(columns: Mapping[str, object]) -> str:
    names = [*columns]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
