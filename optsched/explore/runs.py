"""What the second page shows: logs as they were understood, the law of their loss, and a plan."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from optsched.commands.command import spoken
from optsched.commands.fit import fit as fit_command
from optsched.commands.page import Page
from optsched.commands.pilot_common import reading
from optsched.commands.plan import plan as plan_command
from optsched.errors import InvalidProblem, OptschedError
from optsched.explore.asked import FIT, PLAN, arguments, run
from optsched.explore.curves import digits, rate_curve
from optsched.explore.folder import dropped, inside
from optsched.explore.model import said
from optsched.logs import read_runs
from optsched.logs.run import Run
from optsched.pilot import Fit, predict
from optsched.pilot.laws import LAWS
from optsched.pilot.pieces import cut

__all__ = ["fitted", "plan_of", "planned", "understood"]

POINTS, CURVE = 90, 240
LAW, PLANNED = "law.json", "plan.json"


def fitted(body: Mapping[str, Any]) -> dict[str, Any]:
    """Every file as it was understood or not, and the fit to those that were."""
    words = arguments(body.get("options"), FIT)
    with inside():
        rows, good = understood(body.get("files"), words)
        if not good:
            return {"files": rows, "problem": "none of these files is a log that can be read"}
        try:
            page = run(fit_command, words, good)
        except click.ClickException as error:
            return {"files": rows, "problem": error.format_message()}
        found: Fit = page.results["fit"]
        drawn = [_run(one, found) for one in page.results["runs"]]
        law = page.numbers
        law.pop("held_out", None)
        return {
            "files": rows,
            "runs": drawn,
            "law": law,
            "misfit": found.misfit,
            "peak": found.peaks[1],
            "longest": max(one.horizon for one in found.runs),
            "failed": found.failed,
            **said(page),
        }


def understood(files: Any, words: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Write dropped files here, and read each: a row for every one, and the names of the good ones.

    A folder is one run or more, as `fit` reads it; else its files are read by themselves.
    """
    how, rows = _reading(words), []
    for source in dropped(files):
        row = _read(source, how)
        if not row["ok"] and os.path.isdir(source):
            inner = sorted(str(path) for path in Path(source).rglob("*") if path.is_file())
            single = [_read(path, how) for path in inner]
            rows += single if any(one["ok"] for one in single) else [row]
        else:
            rows.append(row)
    return rows, [row["name"] for row in rows if row["ok"]]


def _reading(words: Sequence[str]) -> dict[str, Any]:
    """How a log is read, from the options of the fit."""
    with fit_command.make_context("fit", [*words, "--", "none"]) as context:
        options = {**context.params}
        rates, seeds = options.pop("rates"), options.pop("seeds")
        return {
            **reading(options),
            "rates": float(rates[0]) if rates else None,
            "seeds": seeds,
        }


def _read(source: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """What a file or folder holds, or why it cannot be used."""
    context = click.Context(fit_command)
    try:
        runs = read_runs([source], **how)
    except OptschedError as error:
        text = spoken(" ".join(str(error).split()), context)
        return {"name": source, "ok": False, "lines": [text]}
    lines = [line.strip() for one in runs for line in one.summary().splitlines()]
    return {"name": source, "ok": True, "lines": [spoken(line, context) for line in lines]}


def _run(run: Run, found: Fit) -> dict[str, Any]:
    """Losses of a run, the law at the same steps, and its rates."""
    shown = run.thin(POINTS, "equal") if len(run.steps) > POINTS else run
    late = shown.steps[shown.steps > 0]
    law = found.law.curve(found.theta, cut(run.schedule, late, found.scale))
    loss = shown.loss[shown.steps > 0]
    return {
        "name": run.name,
        "steps": late.tolist(),
        "loss": digits(loss),
        "law": digits(law),
        "residual": digits(law - loss),
        "rate": rate_curve(run.schedule),
    }


def _law_file(given: Any) -> None:
    """Write the law that a fit gave; one of a class of the user's is not loaded here."""
    law = given.get("law") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(law, Mapping):
        raise InvalidProblem("law", None, "that of a fit on this page")
    if law.get("name") not in LAWS or law.get("class"):
        raise InvalidProblem("law", law.get("name"), "one of " + ", ".join(LAWS))
    with open(LAW, "w", encoding="utf-8") as file:
        json.dump(given, file)


def plan_of(body: Mapping[str, Any], *more: str) -> Page:
    """Run the plan of a request in the working directory."""
    words = arguments(body.get("options"), PLAN)
    extra = ["--extrapolate"] if body.get("extrapolate") is True else []
    _law_file(body.get("law"))
    return run(plan_command, [f"--law={LAW}", *words, *extra, f"--output={PLANNED}", *more])


def planned(body: Mapping[str, Any]) -> dict[str, Any]:
    """The plan beside its rivals, with predicted losses and their intervals."""
    with inside():
        page = plan_of(body)
        with open(PLANNED, encoding="utf-8") as file:
            schedule = json.load(file)
    found, table = page.results["fit"], page.results["table"]
    curves = []
    for name, one in page.results["schedules"].items():
        guess = predict(found, one, level=table.level)
        keep = np.unique(np.linspace(0, len(guess.steps) - 1, CURVE).round().astype(int))
        curves.append(
            {
                "name": name,
                "rate": rate_curve(one),
                "steps": guess.steps[keep].tolist(),
                "loss": digits(guess.loss[keep]),
                "lower": digits(guess.lower[keep]),
                "upper": digits(guess.upper[keep]),
            }
        )
    told = said(page)
    told["lines"] = [line for line in told["lines"] if not line.startswith("wrote ")]
    return {
        "curves": curves,
        "schedule": schedule,
        "numbers": page.numbers,
        "level": table.level,
        **told,
    }
