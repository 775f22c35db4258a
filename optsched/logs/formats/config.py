"""What files beside a log say of its run: weight decay, optimiser, warm-up.

Flat names are looked for in the files that trackers and launchers write: ``name: value`` a line of
YAML (also ``name:`` with ``value: ...`` below, as Weights & Biases has it) and JSON. YAML is not
parsed beyond that, and what is not understood is left out. ``training_args.bin`` of a Trainer is a
pickle: its opcodes are read, nothing in it is ever run.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optsched.errors import BadFile
from optsched.files import check_input, read_bytes
from optsched.logs.formats.table import number

__all__ = ["facts_beside", "facts_of"]

FILES = (
    "hparams.yaml", "config.yaml", "training_args.yaml", "args.yaml", "training_args.json",
    "hparams.json", "args.json", "files/config.yaml", "training_args.bin",
)  # fmt: skip
LARGEST = 1_000_000
_OPTIM = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
NAMES: dict[str, tuple[str, ...]] = {
    "weight_decay": ("weight_decay", "wd", "optimizer_weight_decay"),
    "optimizer": ("optim", "optimizer", "optimizer_name", "optimiser", "opt"),
    "warmup": ("warmup_steps", "num_warmup_steps", "warmup_iters", "lr_warmup_iters"),
    "horizon": ("max_steps", "max_iters", "train_iters", "total_steps"),
    "peak": ("learning_rate", "lr", "max_lr"),
    "batch_size": ("global_batch_size", "total_train_batch_size"),
}
_LINE = re.compile(r"^( *)([A-Za-z_][\w./-]*):[ \t]*(.*?)[ \t]*(?:#.*)?$")


def facts_beside(folder: Path) -> dict[str, Any]:
    """Facts of `Table.facts` from the configuration in a folder; the first file with one counts."""
    found: dict[str, Any] = {}
    for name in FILES:
        path = folder / name
        if path.is_file():
            found = {**facts_of(_entries(path)), **found}
    return found


def facts_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from names and values as programs have them; odd values are left out."""
    found: dict[str, Any] = {}
    for fact, names in NAMES.items():
        given = next((entries[name] for name in names if entries.get(name) not in (None, "")), None)
        if fact == "optimizer":
            if isinstance(given, str) and re.fullmatch(r"[\w.+-]+", given):
                found[fact] = given
            continue
        value = number(given)
        if value is None or not 0.0 <= value < 1e18:  # max_steps is -1 where epochs count
            continue
        if fact in ("warmup", "horizon", "batch_size"):
            if value == int(value) and (value > 0 or fact == "warmup"):
                found[fact] = int(value)
        else:
            found[fact] = value
    return found


def _entries(path: Path) -> dict[str, Any]:
    if path.suffix == ".bin":
        return _pickled(path)
    try:
        text = read_bytes(path, LARGEST).decode("utf-8")
        value = json.loads(text) if path.suffix == ".json" else _flat_yaml(text)
    except (BadFile, ValueError, RecursionError):
        return {}  # no part of the log: a run without a configuration is a run
    return value if isinstance(value, dict) else {}


def _pickled(path: Path) -> dict[str, Any]:
    """Numbers and words that follow the names we know in a pickle, which is not run."""
    wanted = {name for names in NAMES.values() for name in names} | {"warmup_ratio"}
    found: dict[str, Any] = {}
    key: str | None = None
    try:
        check_input(path, LARGEST)
        with zipfile.ZipFile(path) as archive:
            (member,) = (one for one in archive.infolist() if one.filename.endswith("/data.pkl"))
            if member.file_size > LARGEST:
                return {}
            for code, given, _ in pickletools.genops(archive.read(member)):
                if "PUT" in code.name or code.name == "MEMOIZE":
                    continue
                if key == "optim" and not (isinstance(given, str) and _OPTIM.fullmatch(given)):
                    # The word of an enumeration stands after the name of its class.
                    if code.name in ("REDUCE", "NONE"):
                        key = None
                elif key is not None:
                    if isinstance(given, float | int | str) and "GET" not in code.name:
                        found.setdefault(key, given)
                    key = None
                elif isinstance(given, str) and given in wanted:
                    key = given
    except (BadFile, OSError, ValueError, zipfile.BadZipFile):
        return {}
    if found.pop("warmup_ratio", 0):
        found.pop("warmup_steps", None)  # it is 0 then, and the ratio counts
    return found


def _flat_yaml(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    above: str | None = None
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent, name, value = match.groups()
        value = value.strip("\"'")
        if not indent:
            above = name if not value else None
            if value:
                found[name] = value
        elif above is not None and name == "value" and value:
            found[above] = value
    return found
