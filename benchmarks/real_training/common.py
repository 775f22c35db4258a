"""What the commands of this package share: errors in one line, means with errors, tables."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched import BadFile, InvalidProblem, OptschedError

__all__ = ["command_line", "markdown", "mean_error", "output_folder", "with_error"]


def command_line(body: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> int:
    """Run a command; what optsched raises on purpose is one line on stderr.

    Returns
    -------
    int
        0; 1 if a computation failed; 2 for bad input; 130 if interrupted, which keeps all
        finished runs.
    """
    try:
        body(argv)
    except OptschedError as error:
        print("real_training: " + " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, InvalidProblem | BadFile) else 1
    except KeyboardInterrupt:
        print("real_training: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def output_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option for the folder that everything is written to."""
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for all results; resumes what is in it"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one a core")


def mean_error(values: ArrayLike) -> tuple[float, float]:
    """Mean over runs and its standard error; NaN of a single run."""
    found = np.asarray(values, dtype=np.float64)
    if found.size < 2:
        return float(found.mean()), math.nan
    return float(found.mean()), float(found.std(ddof=1) / math.sqrt(found.size))


def with_error(mean: float, error: float, digits: int = 2) -> str:
    """A mean and its standard error, both to ``digits`` significant digits of the error."""
    if not math.isfinite(mean):
        return "diverged"
    if not (math.isfinite(error) and error > 0.0):
        return f"{mean:.5g}"
    places = max(0, digits - 1 - math.floor(math.log10(error)))
    return f"{mean:.{places}f} +- {error:.{places}f}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a table in Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
