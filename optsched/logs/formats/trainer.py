"""Trainers of Hugging Face: the state in a checkpoint, and the lines of LLaMA-Factory."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from optsched.errors import BadLog
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.config import facts_beside
from optsched.logs.formats.file import File
from optsched.logs.formats.json_rows import JsonLines
from optsched.logs.formats.table import Table

__all__ = ["FactoryLines", "TrainerState"]

_ROW = {"epoch", "learning_rate", "loss", "step"}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class TrainerState(LogFormat):
    """``trainer_state.json`` of a checkpoint or of a finished run.

    Its rates are those of the last update since transformers 4.4x, of the next one before; which
    it is shows where the rate ends at 0, rises from 0 or jumps.
    """

    usual = ("trainer_state.json",)

    def recognises(self, file: File) -> bool:
        """An object with the history of the logs, or that history by itself."""
        if not file.starts_json:
            return False
        value = file.json
        if isinstance(value, list):
            return any(isinstance(row, dict) and row.keys() >= _ROW for row in value)
        return isinstance(value, dict) and "log_history" in value

    def read(self, file: File) -> list[Table]:
        """One table."""
        state = file.json if isinstance(file.json, dict) else {"log_history": file.json}
        history = state["log_history"]
        if not isinstance(history, list):
            raise BadLog(f"{file.path}: log_history is no list, expected the state of a Trainer")
        name = _run_name(file.path)
        # The last entry sums up the run: its train_loss is a mean over all steps.
        rows = [
            (i, row)
            for i, row in enumerate(history, 1)
            if not (isinstance(row, dict) and "train_runtime" in row)
        ]
        return [
            Table.of_rows(
                file.path,
                "a Trainer state of Hugging Face",
                rows,
                place="entry",
                run=name,
                rate_of="last",
                facts={**(facts_beside(file.path.parent) if name else {}), **_facts(state)},
            )
        ]

    def find(self, folder: Path) -> Path | None:
        """The state with the most steps: of the folder, or of its newest checkpoint."""
        checkpoints = [
            (int(match[1]), path / "trainer_state.json")
            for path in folder.glob("checkpoint-*")
            if (match := _CHECKPOINT.fullmatch(path.name))
            and (path / "trainer_state.json").is_file()
        ]
        newest = max(checkpoints, default=None)
        own = super().find(folder)
        if own is None or newest is None:
            return own if newest is None else newest[1]
        # A folder that is trained in again still has the state of the run before.
        steps = File(own).json.get("global_step", 0)
        return newest[1] if isinstance(steps, int) and steps < newest[0] else own


class FactoryLines(JsonLines):
    """``trainer_log.jsonl`` of LLaMA-Factory, which passes on what its Trainer logs."""

    usual = ("trainer_log.jsonl",)

    def recognises(self, file: File) -> bool:
        """JSON lines that count ``current_steps``."""
        return '"current_steps"' in file.head and super().recognises(file)

    def read(self, file: File) -> list[Table]:
        """One table, with the habits of the Trainer."""
        (table,) = super().read(file)
        total = table.columns.get("total_steps", [None])[-1]
        facts = {"horizon": total} if isinstance(total, int) else {}
        return [replace(table, form="the log of LLaMA-Factory", rate_of="last", facts=facts)]


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    named = {"horizon": "max_steps", "batch_size": "train_batch_size"}
    return {
        key: state[name]
        for key, name in named.items()
        if isinstance(state.get(name), int) and not isinstance(state[name], bool)
    }


def _run_name(path: Path) -> str | None:
    """The folder of the run, also of a state in one of its checkpoints."""
    if path.name != "trainer_state.json":
        return None
    folder = path.resolve().parent
    return folder.parent.name if _CHECKPOINT.fullmatch(folder.name) else folder.name
