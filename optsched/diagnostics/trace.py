"""The sharpness of a run, from its log."""

from __future__ import annotations

import os

import numpy as np

from optsched.diagnostics.log import read_log
from optsched.errors import BadFile, InvalidProblem
from optsched.rules.stability import SharpnessTrace

__all__ = ["read_trace"]


def read_trace(path: str | os.PathLike[str]) -> SharpnessTrace:
    """Read the sharpness of a run from a csv file.

    Parameters
    ----------
    path : path-like
        Columns ``step`` and ``sharpness``; ``sharpness_error`` and ``lr`` where it has them, and
        others, which are not read: the log of `optsched.diagnostics.recorder` is such a file. Rows
        without a sharpness are passed over.

    Returns
    -------
    SharpnessTrace

    Raises
    ------
    BadFile
        Naming file, line or column, and what is expected.
    """
    log = read_log(path, required=("step", "sharpness"))
    kept = log.present.get("sharpness")
    if kept is None or not kept.any():
        raise BadFile(f"{path}: column sharpness: empty; expected a number in one row at least")
    error = log.columns.get("sharpness_error", np.zeros(len(kept)))[kept]
    lr = log.columns.get("lr")
    lr = None if lr is None or np.isnan(lr[kept]).any() else lr[kept]
    try:
        return SharpnessTrace(
            log.columns["step"][kept], log.columns["sharpness"][kept], np.nan_to_num(error), lr
        )
    except InvalidProblem as problem:
        raise BadFile(f"{path}: {problem}") from None
