"""Damaged logs of every format: each is refused in one line of ours, or read without a shift.

    python -m benchmarks.mutated_logs [--logs 10000] [--seed 0]

A log of known numbers is written in every format, damaged once or twice as editors, disks and
crashes do it (a character or a line that is lost, typed, doubled or moved, a quote, a name that is
misspelt or exchanged, a key twice, an end that is missing), and read. Three things are faults:

* an exception that is not one of ours, or has more than one line;
* numbers in a run that its file does not have at that step in the columns it was read from, beyond
  the rows that were damaged: a shift of columns, an exchange of names, rows that are joined;
* rows that are lost without a word, beyond those that were damaged and those behind a cut.

A column that was given the name of another is what its name says: no file tells otherwise. Its
numbers have to be those of one column still, each at its own step.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optsched.errors import BadFile, InvalidProblem
from optsched.logs import Run, read_run

ROWS = 40
Numbers = dict[str, list[Any]]


def numbers() -> Numbers:
    """A run with a warm-up and a decay, as columns that cannot be mistaken for one another."""
    steps = np.arange(25, 25 * ROWS + 1, 25)
    rate = 1e-3 * np.minimum(steps / 150, 1.0) * np.minimum(1.0, (1100 - steps) / 500)
    loss = 2.0 + 9.0 * steps**-0.4
    return {
        "step": steps.tolist(),
        "rate": [float(f"{x:.6g}") for x in rate],
        "loss": [float(f"{x:.6g}") for x in loss],
        "val": [float(f"{x + 0.111:.6g}") for x in loss],
        "norm": [float(f"{x:.6g}") for x in 20.0 + np.cos(steps)],
    }


def _rows(n: Numbers) -> list[tuple[float, ...]]:
    return list(zip(*n.values(), strict=True))


def _csv(n: Numbers, mark: str = ",") -> str:
    lines = [mark.join(["step", "lr", "loss", "val_loss", "grad_norm"])]
    return "\n".join(lines + [mark.join(map(str, row)) for row in _rows(n)]) + "\n"


def _wandb(n: Numbers) -> str:
    head = "_step,train/loss,train/learning_rate,train/grad_norm,train/global_step\n"
    return head + "".join(f"{i},{x},{r},{g},{s}\n" for i, (s, r, x, _, g) in enumerate(_rows(n)))


def _jsonl(n: Numbers) -> str:
    keys = ("step", "lr", "loss", "val_loss", "grad_norm")
    return "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in _rows(n)) + "\n"


def _trainer(n: Numbers) -> str:
    rows = []
    for s, r, x, v, g in _rows(n):
        rows.append({"epoch": s / 300, "grad_norm": g, "learning_rate": r, "loss": x, "step": s})
        rows.append({"epoch": s / 300, "eval_loss": v, "step": s})
    state = {"global_step": n["step"][-1], "log_history": rows, "max_steps": 2000}
    return json.dumps(state, indent=1)


def _lists(n: Numbers) -> str:
    names = {"step": "step", "rate": "lr", "loss": "loss", "val": "val_loss", "norm": "grad_norm"}
    return json.dumps({names[key]: values for key, values in n.items()})


def _factory(n: Numbers) -> str:
    return "".join(
        json.dumps({"current_steps": s, "total_steps": 2000, "loss": x, "lr": r, "epoch": s / 300})
        + "\n"
        for s, r, x, _, _ in _rows(n)
    )


def _llmc(n: Numbers) -> str:
    return "".join(f"s:{s} trl:{x} lr:{r} norm:{g}\n" for s, r, x, _, g in _rows(n))


def _megatron(n: Numbers) -> str:
    return "".join(
        f" [2024-01-01 00:00:00] iteration {s:8d}/    2000 | consumed samples: {64 * s:12d} | "
        f"learning rate: {r:.6E} | lm loss: {x:.6E} | grad norm: {g} |\n"
        for s, r, x, _, g in _rows(n)
    )


def _printed(n: Numbers) -> str:
    return "".join(f"step {s}: loss {x}, lr {r}, norm {g}, 250.1ms\n" for s, r, x, _, g in _rows(n))


def _keras(n: Numbers) -> str:
    head = "epoch,accuracy,learning_rate,loss,val_loss\n"
    return head + "".join(f"{i},0.5,{r},{x},{v}\n" for i, (_, r, x, v, _) in enumerate(_rows(n)))


def _events(n: Numbers) -> bytes:
    from tests.events import scalar, write_events

    with tempfile.TemporaryDirectory() as folder:
        events = [
            (int(s), scalar("lr", r) + scalar("loss", x) + scalar("grad_norm", g))
            for s, r, x, _, g in _rows(n)
        ]
        return write_events(Path(folder) / "e", events).read_bytes()


# File name, how it is written, options of the reader; where the first column counts rows, "first"
# and the name of that of the steps.
FORMATS: dict[str, tuple[str, Callable[[Numbers], str | bytes], dict]] = {
    "csv": ("a.csv", _csv, {}),
    "csv with tabs": ("a.tsv", lambda n: _csv(n, "\t"), {}),
    "history of W&B": ("w.csv", _wandb, {"first": True, "steps": "train/global_step"}),
    "JSON lines": ("a.jsonl", _jsonl, {}),
    "JSON lists": ("a.json", _lists, {}),
    "Trainer state": ("trainer_state.json", _trainer, {}),
    "LLaMA-Factory": ("trainer_log.jsonl", _factory, {}),
    "llm.c": ("main.log", _llmc, {}),
    "Megatron-LM": ("megatron.log", _megatron, {}),
    "printed lines": ("out.log", _printed, {}),
    "Keras CSVLogger": ("k.csv", _keras, {"steps_per_epoch": 25, "first": True, "steps": "epoch"}),
    "TensorBoard": ("events.out.tfevents.1", _events, {}),
}
TYPED = "0159.,;:-+e \t\n\"#{}[]'|=/_nalossteplrNaN\x00é５"
NAMES = ["step", "lr", "loss", "learning_rate", "trl", "grad_norm", "iteration", "epoch"]


@dataclass
class Damage:
    """A file with what was done to it.

    Attributes
    ----------
    raw : bytes
    rows : int
        Rows that it may have spoilt.
    cut : bool
        Whether its end may be missing.
    what : list of str
    """

    raw: bytes
    rows: int
    cut: bool
    what: list[str]


def damage(raw: bytes, rng: np.random.Generator, times: int) -> Damage:
    """A file damaged at random."""
    done = Damage(raw, 0, False, [])
    for _ in range(times):
        if not done.raw:
            break
        kind = KINDS[int(rng.integers(len(KINDS)))]
        done.raw = kind(done, rng)
        done.rows += 2
        done.what.append(kind.__name__.strip("_"))
    return done


def _at(raw: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(raw) + 1))


def _lose(done: Damage, rng: np.random.Generator) -> bytes:
    at = _at(done.raw, rng)
    return done.raw[:at] + done.raw[at + int(rng.integers(1, 4)) :]


def _type(done: Damage, rng: np.random.Generator) -> bytes:
    at = _at(done.raw, rng)
    text = "".join(rng.choice(list(TYPED), size=int(rng.integers(1, 4))))
    return done.raw[:at] + text.encode() + done.raw[at:]


def _flip(done: Damage, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(done.raw)))
    return done.raw[:at] + bytes([done.raw[at] ^ 1 << int(rng.integers(8))]) + done.raw[at + 1 :]


def _digit(done: Damage, rng: np.random.Generator) -> bytes:
    places = [m.start() for m in re.finditer(rb"\d", done.raw)]
    if not places:
        return done.raw
    at = places[int(rng.integers(len(places)))]
    return done.raw[:at] + str(rng.integers(10)).encode() + done.raw[at + 1 :]


def _line(done: Damage, rng: np.random.Generator) -> bytes:
    """A line lost, doubled, moved, or joined with the next."""
    lines = done.raw.split(b"\n")
    i, kind = int(rng.integers(len(lines))), int(rng.integers(4))
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines.insert(i, lines[i])
    elif kind == 2:
        lines.insert(int(rng.integers(len(lines))), lines.pop(i))
    elif i + 1 < len(lines):
        lines[i : i + 2] = [lines[i] + lines[i + 1]]
    return b"\n".join(lines)


def _end(done: Damage, rng: np.random.Generator) -> bytes:
    done.cut = True
    return done.raw[: _at(done.raw, rng)]


def _quote(done: Damage, rng: np.random.Generator) -> bytes:
    """Quotes around a stretch: in a csv they may hold delimiters and lines."""
    one, two = sorted((_at(done.raw, rng), _at(done.raw, rng)))
    if rng.integers(2):
        two = min(two, one + 12)
    return done.raw[:one] + b'"' + done.raw[one:two] + b'"' + done.raw[two:]


def _exchange(done: Damage, rng: np.random.Generator) -> bytes:
    """The names of rate and loss exchanged, everywhere."""
    swap = {b"learning_rate": b"loss", b"lr": b"loss", b"loss": b"lr", b"trl": b"lr"}
    swap |= {b"learning rate": b"lm loss", b"lm loss": b"learning rate"}
    if b"learning_rate" in done.raw:
        swap[b"loss"] = b"learning_rate"
    if b"trl" in done.raw:
        swap[b"lr"] = b"trl"
    longest = sorted(map(re.escape, swap), key=len, reverse=True)
    return re.sub(rb"\b(?<!_)(%s)\b" % b"|".join(longest), lambda m: swap[m[0]], done.raw)


def _name(done: Damage, rng: np.random.Generator) -> bytes:
    """A name of a column put where another is, once."""
    places = list(re.finditer(rb"[a-z_]{2,}", done.raw))
    if not places:
        return done.raw
    match = places[int(rng.integers(len(places)))]
    name = NAMES[int(rng.integers(len(NAMES)))].encode()
    return done.raw[: match.start()] + name + done.raw[match.end() :]


KINDS = (_lose, _type, _flip, _digit, _line, _end, _quote, _exchange, _name)


def fault(run: Run, truth: Numbers, done: Damage, options: dict) -> str | None:
    """What is wrong with a run that was read, or None."""
    misnamed = "name" in done.what
    # A file that is damaged in its names may be read by its other loss, which is said.
    usual = "val" if "validation loss" in run.notes[0] else "loss"
    count = [float(i) for i in range(ROWS)]
    # Two formats have a column that counts their rows, which is read where that of the steps has
    # lost its name, or has its own name changed.
    named = re.search(r"over '([^']*)'", run.notes[0])
    counted = "first" in options and named is not None and named[1] != options["steps"]
    clocks = [truth["step"], count] if counted else [truth["step"]]
    tables = {**truth, "count": count, "accuracy": [0.5] * ROWS}
    losses = [name for name in tables if misnamed or name == usual]
    wrong = min(
        (_off(run.steps, run.loss, clock, tables[name]) for clock in clocks for name in losses),
        key=len,
    )
    if len(wrong) > done.rows:
        return f"losses at steps {wrong[:5]} are not those of the file"
    largest = max(truth["rate"])
    rates = run.schedule(run.steps)
    # With its names exchanged and that of the loss damaged too, a file says what it says.
    told = misnamed or ("exchange" in done.what and usual == "val")
    if (rates > 1.5 * largest).sum() > done.rows and not told:
        return f"rates up to {rates.max():g}, the file has {largest:g} at most"
    said = any("again later" in note for note in run.notes)
    if len(run.steps) < ROWS - done.rows and not (done.cut or said):
        return f"{ROWS - len(run.steps)} rows are lost"
    return None


def _off(steps: Any, values: Any, clock: list[Any], column: list[Any]) -> list[int]:
    """Steps at which a value is not that of a column."""
    known = dict(zip(clock, column, strict=True))
    pairs = zip(steps.tolist(), values.tolist(), strict=True)
    return [s for s, x in pairs if s not in known or abs(known[s] - x) > 1e-5 * abs(x)]


def check(name: str, raw: bytes, done: Damage, truth: Numbers, folder: Path) -> tuple[str, str]:
    """How a damaged file was met, and the error or the fault."""
    file, _, options = FORMATS[name]
    path = folder / file
    path.write_bytes(done.raw)
    try:
        given = {key: value for key, value in options.items() if key not in ("steps", "first")}
        run = read_run(path, warmup=0, **given)
    except (BadFile, InvalidProblem) as error:
        return ("FAULT", f"{error!r} has lines") if "\n" in str(error) else ("refused", str(error))
    except Exception as error:  # what nobody meant
        return "FAULT", f"{type(error).__name__}: {error}"
    found = fault(run, truth, done, options)
    return ("FAULT", found) if found else ("read", "")


def main(argv: list[str] | None = None) -> int:
    """Print a table by format, and every fault with its seed; the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--logs", type=int, default=10_000, help="Damaged logs of each format.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, action="append")
    given = parser.parse_args(argv)
    truth = numbers()
    faults = 0
    print(f"{'format':18}{'read':>8}{'refused':>9}{'faults':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.format or FORMATS:
            made = FORMATS[name][1](truth)
            raw = made.encode() if isinstance(made, str) else made
            counts: Counter[str] = Counter()
            for i in range(given.logs):
                rng = np.random.default_rng([given.seed, i])
                done = damage(raw, rng, 1 + i % 2)
                met, why = check(name, raw, done, truth, Path(folder))
                counts[met] += 1
                if met == "FAULT":
                    print(f"  {name}, log {i}, {' and '.join(done.what)}: {why}")
            faults += counts["FAULT"]
            row = f"{name:18}{counts['read']:8}{counts['refused']:9}{counts['FAULT']:8}"
            print(row, flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(min(main(), 1))
