"""``optsched verify``."""

from __future__ import annotations

from typing import Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import make_problem
from optsched.commands.options import problem_options
from optsched.commands.show import print_json
from optsched.errors import InvalidProblem

__all__ = ["verify"]


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@problem_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(file: str, **options: Any) -> None:
    """Replay a schedule file on the exact recursion of a problem."""
    from optsched.schedules.schedule import Schedule

    schedule = Schedule.load(file)
    if options["horizon"] is None:
        options["horizon"] = schedule.horizon
    problem = make_problem(options)
    if schedule.horizon != problem.horizon:
        raise InvalidProblem("horizon", problem.horizon, f"{schedule.horizon}, as in {file}")
    use_compilation_cache()
    from optsched.studies.verify import verify as run

    result = run(problem, schedule)
    if options["as_json"]:
        print_json(result.summary())
    else:
        from optsched.commands.report import verification_report

        verification_report(result, file)
