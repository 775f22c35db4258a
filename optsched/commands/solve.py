"""``optsched solve``."""

from __future__ import annotations

from typing import Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import (
    check_rows,
    draw,
    kept_rows,
    make_problem,
)
from optsched.commands.options import Choice, Number, control_option, points_option, problem_options
from optsched.commands.page import current_page, report_option
from optsched.commands.show import tell
from optsched.control.methods.registry import METHODS, find_method
from optsched.errors import InvalidProblem

__all__ = ["solve"]

CLI_GAP = 0.005  # one solve at a time can afford a bound that is refined further
HALVINGS = 8  # of the largest rate, where whole batch sizes make the loss grow
MOST_KNOTS = 10_000
WORSE = 2.0  # times the optimum, what they may cost


def _budget(options: dict[str, Any]) -> Any:
    """The budget of a solve that chooses its number of steps, if it is one.

    Its problem then gets the largest number of steps as its horizon.
    """
    prices = {name: options[name] for name in ("latency", "sample_cost")}
    prices = {name: value for name, value in prices.items() if value is not None}
    if options["cost"] is None:
        for name, value in prices.items():
            raise InvalidProblem(name, value, "nothing without --cost")
        if options["horizon"] is not None or options["samples"] is None:
            return None
    elif options["horizon"] is not None:
        allowed = "nothing beside --cost, which chooses the number of steps"
        raise InvalidProblem("horizon", options["horizon"], allowed)
    if not {"batch", "batch_size"} & {name.strip() for name in options["controls"].split(",")}:
        name = "samples" if options["cost"] is None else "cost"
        raise InvalidProblem(name, options[name], "nothing, unless batch is a control")
    from optsched.control.budget import Budget

    budget = Budget(options["samples"], options["cost"], **prices)
    options |= {"horizon": budget.most_steps, "samples": None}
    return budget


def _check_smooth(options: dict[str, Any], budget: Any) -> None:
    """Refuse a wish for smoothness that no solve would hear."""
    named = {name.strip() for name in options["controls"].split(",")}
    if options["smooth"] is not None and (budget is not None or not named & {"beta", "nu", "ema"}):
        allowed = "nothing, unless beta, nu or ema are controls"
        raise InvalidProblem("smooth", options["smooth"], allowed)


def _horizon_of_objective(options: dict[str, Any], budget: Any) -> None:
    """Take the horizon from an objective that names it."""
    if options["objective"] == "final":
        return
    from optsched.objectives import ExcessAt, find_objective

    objective = find_objective(options["objective"])
    if budget is not None:
        allowed = "final, where the number of steps is chosen"
        raise InvalidProblem("objective", options["objective"], allowed)
    if options["horizon"] is None and isinstance(objective, ExcessAt):
        options["horizon"] = objective.last


def _sizes(options: dict[str, Any], problem: Any) -> list[int] | None:
    """Whole batch sizes that are allowed in the file, if any were asked for."""
    from optsched.checks import whole
    from optsched.optimisers.momentum import SGD
    from optsched.schedules.batches import MAX_DIVIDED, divisors

    given, listed = options["divisors"], options["batch_sizes"]
    if given is None and listed is None:
        return None
    name = "divisors" if listed is None else "batch_sizes"
    if given is not None and listed is not None:
        raise InvalidProblem("batch_sizes", listed, "nothing beside --divisors")
    if not isinstance(problem.optimiser, SGD) or not {"batch_size"} <= {*problem.controls} <= {
        "eta",
        "batch_size",
    }:
        allowed = "nothing, unless the controls are batch, or eta and batch, without momentum"
        raise InvalidProblem(name, listed or given, allowed)
    if listed is None:
        return divisors(whole(name, given, 1, MAX_DIVIDED))
    try:
        sizes = [int(size) for size in listed.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise InvalidProblem(name, listed, "whole numbers >= 1 with commas, such as 1,2,4,8")
    return sizes


def _method(options: dict[str, Any], problem: Any) -> Any:
    """The method that was asked for, with its first number of knots; None for the default."""
    name, knots = options["method"], options["knots"]
    if knots is None:
        return name and find_method(name)
    if not problem.rate_only:
        raise InvalidProblem("knots", knots, "nothing, unless for the rate of plain SGD alone")
    from dataclasses import replace

    from optsched.checks import whole
    from optsched.control.rate.search import rate_method

    method: Any = find_method(name) if name else rate_method(problem)
    return replace(method, knots=whole("knots", knots, 2, MOST_KNOTS))


@click.command(cls=Command)
@problem_options
@control_option("What is scheduled: any of eta, beta, nu, batch, ema, with commas.")
@click.option(
    "--objective",
    default="final",
    show_default=True,
    help="What is minimised: the final excess loss; its mean over the steps, for runs that may be"
    " stopped at any time; or STEP:WEIGHT,... for a weighted sum after some numbers of steps, the"
    " last of which is the horizon.",
)
@click.option(
    "--method",
    type=Choice(list(METHODS)),
    help=f"{', '.join(METHODS)}.  [default: pontryagin; shooting with --max-change]",
)
@click.option(
    "--tol",
    type=Number("a number > 0"),
    default=None,
    help="Largest allowed KKT residual.  [default: 1e-6; 1e-5 with other controls than eta]",
)
@click.option(
    "--knots",
    type=Number("a whole number from 2 to 10000"),
    default=None,
    help="Knots of the first mesh, where the rate of plain SGD alone is scheduled; more are added"
    " where the error asks for them.  [default: pontryagin 60, shooting 80, collocation 48]",
)
@click.option(
    "--smooth",
    type=Number("a number, 0 to 1"),
    default=None,
    help="Share of the best loss found that a schedule of momentum may give up to be smooth; 0 for"
    " the best itself.  [default: 0.001]",
)
@click.option(
    "--cost",
    type=Number("a number > 0"),
    default=None,
    help="Budget of cost, in any unit, where batch is a control; the number of steps is chosen.",
)
@click.option(
    "--latency",
    type=Number("a number >= 0"),
    default=None,
    help="Cost of a step, whatever its batch size; with --cost.  [default: 0]",
)
@click.option(
    "--sample-cost",
    type=Number("a number > 0"),
    default=None,
    help="Cost of a sample; with --cost.  [default: 1]",
)
@click.option(
    "--divisors",
    type=Number("a whole number from 1 to 10^12"),
    default=None,
    help="Write whole batch sizes that divide this number, with the rates matched.",
)
@click.option(
    "--batch-sizes",
    default=None,
    help="Write these whole batch sizes, with commas, and rates to match.",
)
@click.option("--output", type=click.Path(), default=None, help="Schedule file: .npz, .csv, .json.")
@points_option
@click.option(
    "--plot",
    type=click.Path(),
    default=None,
    help="Figure of the schedule and its loss: .png, .pdf, .svg.",
)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing output files.")
def solve(**options: Any) -> None:
    """Solve for the schedules that minimise the loss after T steps, with proof."""
    from optsched.files import PLOT_SUFFIXES, SUFFIXES, check_writable

    budget = _budget(options)
    _horizon_of_objective(options, budget)
    _check_smooth(options, budget)
    problem = make_problem(options)
    method = _method(options, problem)
    sizes = _sizes(options, problem)
    points = kept_rows(options["points"])
    for key, suffixes in (("output", SUFFIXES), ("plot", PLOT_SUFFIXES)):
        if options[key]:
            check_writable(options[key], options["force"], suffixes=suffixes)
    if budget is None:
        check_rows(options["output"], points, problem.horizon)
    use_compilation_cache()
    if budget is None:
        from optsched.control.solve import solve as run

        smooth = {} if options["smooth"] is None else {"smooth": options["smooth"]}
        solution, chosen = run(problem, method, tol=options["tol"], gap=CLI_GAP, **smooth), None
    else:
        from optsched.control.budget import solve_budget

        chosen = solve_budget(problem, budget, method, tol=options["tol"])
        solution = chosen.solution
    name = "divisors" if options["batch_sizes"] is None else "batch_sizes"
    schedule, rounded = _rounded(solution, sizes, (name, options[name]))
    if options["output"]:
        check_rows(options["output"], points, schedule.horizon)
        schedule.save(options["output"], points=points, overwrite=options["force"])
    page = current_page()
    baselines = []
    if options["plot"] or not options["as_json"] or (page is not None and page.draws):
        from optsched.studies.compare.baselines import best_baselines

        baselines = best_baselines(solution.problem.plain)

    def figure() -> Any:
        from optsched.plots.solution import plot_solution

        return plot_solution(solution, baselines)

    def report() -> None:
        from optsched.commands.report import solution_report

        files = options["output"], options["plot"]
        solution_report(solution, baselines, *files, chosen=chosen, rounded=rounded)
        if page is not None:
            page.add_lines([f"not checked: {text}" for text in solution.certificate.not_checked])

    draw(figure, options["plot"], options["force"])
    tell(options["as_json"], (chosen or solution).summary() | rounded, report)


def _rounded(solution: Any, sizes: list[int] | None, given: Any) -> tuple[Any, dict[str, Any]]:
    """The schedule to write, and what rounding its batch sizes does.

    Rates that match keep to the bound of a scheduled rate, and to less where they diverge.
    """
    if sizes is None:
        return solution.schedule, {}
    from optsched.model.replay import replay
    from optsched.schedules.batches import batch_stages, integer_batches

    problem, found = solution.problem, solution.schedule
    untrained = float(problem.modes.mu.sum())
    caps = [] if problem.rate_held else [problem.eta_cap]
    caps += [found.peak * 0.5**k for k in range(HALVINGS)]
    for cap in [None, *caps] if problem.rate_held else caps:
        schedule = integer_batches(found, sizes, eta_max=cap)
        loss = replay(problem.spectrum, problem.dynamics, schedule).excess_loss
        if loss <= max(untrained, WORSE * solution.excess_loss):  # not so if it is NaN
            break
    else:
        size = found.controls["batch_size"]
        allowed = f"sizes nearer to the optimal ones, {size.min():.4g} to {size.max():.4g}"
        allowed += ": with these the recursion diverges"
        raise InvalidProblem(given[0], given[1], allowed)
    note = schedule.metadata["integer_batches"]
    return schedule, {
        "rounded_excess_loss": loss,
        "rounded_horizon": schedule.horizon,
        "rounded_samples": schedule.sum("batch_size"),
        "rounded_peak": schedule.peak,
        "rounded_cut": note.get("cut", 0.0),
        "stages": len(batch_stages(schedule)),
    }
