"""Tables of numbers as csv files."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

from optsched.files import atomic_path

__all__ = ["write_table"]


def write_table(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write rows as csv, as a whole or not at all; None and missing keys are empty fields.

    Parameters
    ----------
    path : path-like
    rows : sequence of mapping
    columns : sequence of str, optional
        All keys in their order; those of the first row if not given.
    overwrite : bool

    Raises
    ------
    BadFile
        If the file exists and is not to be overwritten, or cannot be written.
    """
    with (
        atomic_path(path, overwrite=overwrite) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
