"""What can be downloaded: schedules, code for trainers, reports."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optsched.commands.export import export as export_command
from optsched.commands.fit import fit as fit_command
from optsched.commands.solve import solve as solve_command
from optsched.errors import InvalidProblem
from optsched.explore.asked import FIT, arguments, run
from optsched.explore.folder import inside
from optsched.explore.model import problem_of
from optsched.explore.runs import plan_of, understood
from optsched.schedules import Schedule

__all__ = ["exported", "reported"]

SUFFIXES = {"json": ".json", "csv": ".csv", "npz": ".npz"}
SNIPPETS = {"torch-snippet": ".py", "optax-snippet": ".py", "keras-snippet": ".py"}
MOST_ROWS = 100_000  # of a csv or npz; a longer schedule is thinned
REPORT = "report.html"


def _file(path: Path, name: str) -> dict[str, Any]:
    return {"name": name, "data": base64.b64encode(path.read_bytes()).decode()}


def exported(body: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule as a file or as code.

    The request has ``schedule``, as a JSON file holds it, or the ``problem`` that it solves.
    """
    form = body.get("format")
    if form not in {**SUFFIXES, **SNIPPETS}:
        raise InvalidProblem("format", form, "one of " + ", ".join({**SUFFIXES, **SNIPPETS}))
    with inside() as here:
        source = Path("schedule.json")
        if body.get("schedule") is not None:
            source.write_text(json.dumps(body["schedule"]), encoding="utf-8")
        else:
            from optsched.control.solve import solve

            solve(problem_of(body.get("problem"))).save(source)
        if form in SNIPPETS:
            target = here / f"schedule{SNIPPETS[form]}"
            run(export_command, [f"--format={form}", f"--output={target.name}"], [source.name])
            return _file(target, f"schedule_{form.partition('-')[0]}.py")
        schedule = Schedule.load(source)
        target = here / f"out{SUFFIXES[form]}"
        few = None if form == "json" or schedule.horizon <= MOST_ROWS else MOST_ROWS
        schedule.save(target, points=few)
        return _file(target, f"schedule{SUFFIXES[form]}")


def reported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a solve, a fit or a plan: that of the command."""
    what = body.get("what")
    with inside() as here:
        if what == "solve":
            problem = problem_of(body.get("problem"))
            words = [
                f"--a={problem.a!r}",
                f"--b={problem.b!r}",
                f"--horizon={problem.horizon}",
                f"--features={problem.features}",
                f"--batch={problem.batch_size!r}",
                f"--noise={problem.noise!r}",
                f"--peak={problem.eta_max!r}",
            ]
            run(solve_command, [*words, f"--report={REPORT}"])
        elif what == "fit":
            words = arguments(body.get("options"), FIT)
            _, good = understood(body.get("files"), words)
            run(fit_command, [*words, f"--report={REPORT}"], good)
        elif what == "plan":
            plan_of(body, f"--report={REPORT}")
        else:
            raise InvalidProblem("what", what, "solve, fit or plan")
        return _file(here / REPORT, f"optsched-{what}.html")
