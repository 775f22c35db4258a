"""Lines that loops print: ``key:value``, ``key=value`` or ``key value``, with a step in each.

As llm.c, nanoGPT, Megatron-LM, torchtitan, fairseq and many others write them, with times and
names of loggers around, and lines without a step between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.table import Table
from optsched.logs.names import EPOCHS, EVAL, RATES, STEPS, TRAIN, plain

__all__ = ["TextLines"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_WORD = r"[A-Za-z_][\w./\-]*"
_PAIR = re.compile(
    rf"""(?P<key>{_WORD}(?:[ ]{_WORD})*)          # one word or several: "lm loss"
    ["']?\s*(?P<mark>[:=]|(?<=\s))\s*[\[("']?      # a mark or a space; lr=[1e-4]
    (?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b)
    (?![\w]|[.:]\d)                               # not 251.10ms, nor a time, nor a version
    (?:\s*/\s*(?P<total>\d+))?""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
# What llm.c calls them; in a table `s` could be seconds.
_SHORT = {"s": "step", "trl": "train_loss", "tel": "val_loss"}
_KNOWN = {*STEPS, *EPOCHS, *RATES, *TRAIN, *EVAL, *_SHORT}
# "skipped iterations", "time per step", "warmup steps" are no steps, nor "best loss" a loss.
_OTHERS = {
    "per", "skipped", "nan", "max", "total", "num", "warmup", "every", "best", "min", "remaining",
    "smoothed", "aux", "last",
}  # fmt: skip
_FEWEST = 2


class TextLines(LogFormat):
    """Text of which some lines have a step and another number."""

    usual = ("train.log", "main.log", "output.log", "log.txt", "stdout.log", "stdout.txt", "*.log")

    def recognises(self, file: File) -> bool:
        """A few lines with a step, or a share of an epoch, and a loss or a rate."""
        if not file.is_text or _is_object(file.head):
            return False
        found = 0
        for _, row, _ in _rows(file.text):
            found += len(row) > 1 and any(name in _KNOWN for name in map(plain, row))
            if found >= _FEWEST:
                return True
        return False

    def read(self, file: File) -> list[Table]:
        """One table: the rows are the lines with a step, and those below that are set in."""
        rows: list[tuple[int, dict[str, Any]]] = []
        total = None
        for line, row, last in _rows(file.text):
            rows.append((line, row))
            total = last if total is None else max(total, last or 0)
        facts = {} if total is None else {"horizon": total}
        return [Table.of_rows(file.path, "lines of text", rows, facts=facts)]


def _is_object(head: str) -> bool:
    """JSON, which has a reader of its own; a dictionary that Python printed has none."""
    return bool(re.match(r'\s*(\{\s*("|$|\})|\[\s*([\[{"\]]|$))', head))


def _rows(text: str) -> Iterator[tuple[int, dict[str, Any], int | None]]:
    """Line, numbers by name, and the number of steps in all where it says so."""
    step: tuple[str, str] | None = None
    for i, raw in enumerate(text.split("\n"), 1):
        line = _COLOUR.sub("", raw)
        row, total = _pairs(line)
        key = next((name for name in row if name in ("step", "epoch")), None)
        if "step" in row:
            key = "step"
        if key is not None:
            step = key, row[key]
            if len(row) > 1:
                yield i, row, total
        elif step is not None and row and line[:1] in " \t" and line.strip():
            yield i, {step[0]: step[1], **row}, None
        else:
            step = None


def _pairs(line: str) -> tuple[dict[str, Any], int | None]:
    found: dict[str, Any] = {}
    total, rank = None, len(STEPS)
    for match in _PAIR.finditer(line):
        name, known = _name(match["key"])
        if name == "step":
            # "update 1.02 ... num_updates 100": the likelier; of equals the first.
            if known >= rank:
                continue
            rank = known
            found.pop("step", None)
        if name in found and name == "epoch":
            continue
        if name in found and found[name] != match["value"]:
            found[f"{name} (again)"] = match["value"]
            continue
        found[name] = match["value"]
        if name == "step" and match["total"]:
            total = int(match["total"])
    return found, total


def _name(key: str) -> tuple[str, int]:
    """The longest end of a key that is a known name: of "INFO root step" it is "step".

    With its rank among the names of steps.
    """
    words = key.strip().split(" ")
    for i in range(len(words)):
        name = plain(" ".join(words[i:]))
        if name not in _KNOWN or (i and words[i - 1].lower() in _OTHERS):
            continue
        short = _SHORT.get(name, name)
        if short in STEPS:
            return "step", STEPS.index(short)
        shown = short if name in _SHORT else " ".join(words[i:])
        return ("epoch" if name in EPOCHS else shown), len(STEPS)
    return " ".join(words), len(STEPS)
