"""Which columns of a table hold the step, the learning rate and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optsched.errors import BadLog
from optsched.logs.formats.table import Table, is_empty
from optsched.logs.names import COUNTS, EPOCHS, EVAL, RATES, STEPS, TRAIN, is_rate, plain
from optsched.logs.options import Options

__all__ = ["Series", "find_loss", "find_rate", "find_step", "first_of", "no_rate"]


@dataclass(frozen=True)
class Series:
    """Where the numbers of one quantity stand.

    Attributes
    ----------
    table : Table
    step, value : str
        Names of the two columns.
    unit : str
        What the column of the steps counts: steps, samples, tokens or epochs.
    kind : str
        "training loss", "validation loss", "loss" or "rate".
    given : bool
        Whether the caller named the column.
    """

    table: Table
    step: str
    value: str
    unit: str
    kind: str
    given: bool = False


def find_loss(table: Table, options: Options) -> Series:
    """Column of the loss: ``options.loss`` is "loss", "train", "eval" or the name of a column.

    Raises
    ------
    BadLog
        No such column, or several.
    """
    loss = options.loss
    step, unit = find_step(table, options)
    if table.only is not None:
        kind = {"train": "training loss", "eval": "validation loss"}.get(loss, "loss")
        return Series(table, step, table.only, unit, kind)
    given = options.names.get("loss") or (None if loss in ("loss", "train", "eval") else loss)
    if given is not None:
        return Series(table, step, _given(table, "loss", given), unit, "loss", True)
    wanted = {"train": (TRAIN,), "eval": (EVAL,)}.get(loss, (TRAIN, EVAL))
    what = "the loss" if loss == "loss" else f"the {loss} loss"
    for names in wanted:
        found = first_of(table, names, what, "loss")
        if found is not None:
            kind = "training loss" if names is TRAIN else "validation loss"
            return Series(table, step, found, unit, kind)
    raise _missing(table, what, "loss")


def find_rate(table: Table, options: Options, *, alone: bool = False) -> Series | None:
    """Column of the learning rate, or None if the table has none.

    ``alone`` says that the table was given for its rates, so that a file of one quantity holds
    those.

    Raises
    ------
    BadLog
        Several columns that could be it; a given name that is not there; no step.
    """
    if table.only is not None:
        return Series(table, *_pair(table, options, table.only), "rate") if alone else None
    if "lr" in options.names:
        name = _given(table, "lr", options.names["lr"])
        return Series(table, *_pair(table, options, name), "rate", True)
    found = [one for one in table.columns if plain(one) in RATES and not _is_bare(table, one)]
    found = found or [column for column in table.columns if is_rate(column)]
    if not found:
        return None
    # Of groups, or under two names: any of them, if they are the same.
    if any(table.columns[one] != table.columns[found[0]] for one in found[1:]):
        raise _several(table, found, "the learning rate", "lr")
    return Series(table, *_pair(table, options, found[0]), "rate")


def no_rate(table: Table, *, beside: bool = True) -> BadLog:
    """Error for a log without a learning rate, which may stand beside it."""
    error = _missing(table, "the learning rate", "lr")
    if not beside:
        return error
    return BadLog(f"{error}; or the rates beside it, rates=..., a file or a constant")


def _pair(table: Table, options: Options, value: str) -> tuple[str, str, str]:
    step, unit = find_step(table, options)
    return step, value, unit


def find_step(table: Table, options: Options) -> tuple[str, str]:
    """Column of the steps, and what it counts."""
    unit = options.unit
    if "step" in options.names:
        name = _given(table, "step", options.names["step"])
        return name, _checked(table, name, "epochs" if plain(name) in EPOCHS else unit, options)
    names = COUNTS[unit] if unit == "epochs" else (*COUNTS[unit], *STEPS)
    found = first_of(table, names, "the step", "step")
    if found is not None:
        return found, unit
    epoch = first_of(table, EPOCHS, "the epoch", "step")
    if epoch is None:
        raise _missing(table, "the step", "step")
    return epoch, _checked(table, epoch, "epochs", options)


def _checked(table: Table, name: str, unit: str, options: Options) -> str:
    if unit == "epochs" and options.steps_per_epoch is None:
        raise BadLog(
            f"{table.path}: {name!r} counts epochs, and an epoch is not an update; give "
            "steps_per_epoch=N, the number of updates in one"
        )
    return unit


def _given(table: Table, key: str, name: str) -> str:
    if name not in table.columns:
        raise BadLog(f"{table.path}: no column {name!r}, given for {key}; found {_shown(table)}")
    return name


def first_of(table: Table, names: Sequence[str], what: str, key: str) -> str | None:
    """Column with the first of the names; one that holds nothing at all does not count."""
    columns: dict[str, list[str]] = {}
    for column in table.columns:
        columns.setdefault(plain(column), []).append(column)
    for name in names:
        found = [one for one in columns.get(name, ()) if not _is_bare(table, one)]
        if len(found) > 1:
            raise _several(table, found, what, key)
        if found:
            return found[0]
    return None


def _is_bare(table: Table, column: str) -> bool:
    return all(map(is_empty, table.columns[column]))


def _several(table: Table, found: Sequence[str], what: str, key: str) -> BadLog:
    return BadLog(
        f"{table.path}: columns {', '.join(found)} could all be {what}, expected one: give "
        f"columns={{{key!r}: ...}}"
    )


def _missing(table: Table, what: str, key: str) -> BadLog:
    return BadLog(
        f"{table.path}: no column of {what}; found {_shown(table)}; give columns={{{key!r}: ...}}"
    )


def _shown(table: Table) -> str:
    names = [*table.columns]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
