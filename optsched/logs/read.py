"""Logs of pilot runs: the loss at some steps and the learning rate of every step.

`read_run` takes a log as it is: csv with any column names, JSON lines, text, the folder of a
Trainer of Hugging Face, events of TensorBoard, exports of Weights & Biases; see
`optsched.logs.formats`. What it understood is in ``Run.notes``; what it cannot use raises `BadLog`,
naming file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from optsched.checks import is_number
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.assemble import RateLog, rates_of, runs_of
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.table import RateOf
from optsched.logs.options import Options, PathLike, RateSource, Repeats, Source, Unit
from optsched.logs.run import Run
from optsched.logs.seeds import average_seeds, label_seeds, unique_names
from optsched.schedules.schedule import Schedule

__all__ = ["RateLog", "read_rates", "read_run", "read_runs", "read_schedule"]

Seeds = Literal["apart", "refuse", "keep", "average"]


def read_run(
    path: Source,
    *,
    name: str | None = None,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    steps_per_epoch: float | None = None,
    loss: str = "loss",
    rate_of: RateOf | None = None,
    repeats: Repeats = "later",
    rates: RateSource | None = None,
    format: LogFormat | None = None,
) -> Run:
    """Read the log of one run.

    Parameters
    ----------
    path : path-like, or a pair of them
        A file of one of `FORMATS`, or the folder of a run. A pair: the file of the loss and that
        of the rate, as trackers export them, or ``rates``. Where a file has no rate, that with "lr"
        or "learning_rate" for "loss" in its name is taken, or of TensorBoard that with such a tag
        of the same run.
    name : str, optional
        Name of the run; default: that of its folder or the stem of the file. In a file with several
        runs: which one.
    warmup : int, optional
        The N steps before the first row were a linear ramp from 0 to its rate. If the first row
        is at step N or later, the ramp covers the steps 0 to N and the first row's rate holds
        from there; if it is before, the steps are taken to count from the end of the warm-up and
        are shifted, so that the ramp ends at the first row. None: inferred from the rows, or as a
        configuration beside the log says.
    columns : mapping of str to str, optional
        Column of the file for ``step``, ``lr`` and ``loss``; the rest is found by common names.
    unit : {"steps", "samples", "tokens", "epochs"}
        What the step column counts.
    per_step : float, optional
        How many of them an update covers; needed for samples and tokens.
    steps_per_epoch : float, optional
        Updates of an epoch, needed where rows count epochs and nothing else. Whole epochs are
        known when they have ended, and their rate is held over them.
    loss : str
        ``"loss"``: the training loss, or the validation loss if there is no other; ``"train"`` or
        ``"eval"``: one of them; else the name of a column.
    rate_of : {"next", "last", "mean"}, optional
        Whether the rate of a row with s updates done is that of the next update, number s, of
        the last one, s - 1, or the mean over the updates since the row before. It matters where the
        rate jumps. Default: as the file shows, by a rate of 0 at the end, a ramp or jumps at round
        steps; else "last" for what a Trainer of Hugging Face has written, "next" for others.
    repeats : {"later", "refuse"}
        Steps that come again, as after a restart: the later pass is kept, or an error.
    rates : float or path-like, optional
        The rates of a log without any: a constant, a schedule file of ours, or another log.
    format : LogFormat, optional
        A format of the caller, asked before `FORMATS`.

    Returns
    -------
    Run

    Raises
    ------
    BadLog
        The file cannot be read or is no log: a column is missing or found twice, a field is no
        finite number, a step goes back without a restart, a rate is negative or all are 0, there
        are fewer than 4 losses. The message names the file and the line.
    InvalidProblem
        An argument that is not allowed.
    """
    options = Options(
        warmup, columns, unit, per_step, steps_per_epoch, loss, rate_of, repeats, rates, format
    )
    runs = runs_of(path, options)
    if len(runs) == 1:
        return runs[0] if name is None else replace(runs[0], name=name)
    for run in runs:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in runs)
    file = path[0] if isinstance(path, tuple | list) else path
    raise BadLog(f"{file}: has {len(runs)} runs, expected name=, one of {names}")


def read_runs(
    paths: Iterable[Source],
    *,
    rates: RateSource | Sequence[RateSource] | None = None,
    seeds: Seeds = "apart",
    **reading: Any,
) -> list[Run]:
    """Read the logs of several runs, all in the same way; see `read_run`.

    Parameters
    ----------
    paths : iterable of path-like or of pairs
        A file or folder that holds several runs gives all of them.
    rates : float, path-like, or a sequence of them, optional
        As for `read_run`; a sequence has one for each path.
    seeds : {"apart", "refuse", "keep", "average"}
        Runs of one name: told apart by the folders that they are in; an error; kept as seeds of one
        schedule, ``name#1``, ``name#2``, ...; or averaged, together with all runs of equal
        schedules whatever their names.
    **reading
        The other arguments of `read_run`, without ``name``.

    Raises
    ------
    BadLog
        As for `read_run`; a file that is given twice; two runs of one name, if that is refused or
        they are declared seeds and have different schedules.
    """
    allowed = ("apart", "refuse", "keep", "average")
    if seeds not in allowed:
        raise InvalidProblem("seeds", seeds, "one of " + ", ".join(allowed))
    sources = list(paths)
    several = not (rates is None or isinstance(rates, str | Path) or is_number(rates))
    given: list[Any] = list(rates) if several else [rates]  # type: ignore[arg-type]
    if several and len(given) != len(sources):
        raise InvalidProblem("rates", f"{len(given)} of them", f"one, or {len(sources)} as runs")
    made = [Options(rates=one, **reading) for one in given]
    if not several:
        made *= len(sources)
    runs = [
        run
        for source, options in zip(sources, made, strict=True)
        for run in runs_of(source, options)
    ]
    if seeds in ("keep", "average"):
        runs = label_seeds(runs)
        return [group.mean for group in average_seeds(runs)] if seeds == "average" else runs
    return unique_names(runs, refuse=seeds == "refuse")


def read_schedule(path: PathLike, **reading: Any) -> Schedule:
    """Learning rate of every step from a schedule file of ours, or from a log; see `read_rates`."""
    return read_rates(path, **reading).schedule


def read_rates(path: PathLike, **reading: Any) -> RateLog:
    """Read a schedule, from a file of ours or from a log with or without a loss.

    Parameters
    ----------
    path : path-like
        A file that `optsched.schedules.files.save` wrote, or what `read_run` reads; the loss is
        not looked at.
    **reading
        ``warmup``, ``columns``, ``unit``, ``per_step``, ``steps_per_epoch``, ``rate_of``,
        ``repeats`` and ``format`` of `read_run`. A file of ours is complete: ``warmup`` does not
        change it.

    Raises
    ------
    BadLog, BadFile
        As for `read_run`; two rows are enough.
    """
    return rates_of(Path(path), Options(**reading))
