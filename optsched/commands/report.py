"""What the command line prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from optsched.control.budget import BudgetSolution
    from optsched.control.problem import Problem
    from optsched.control.solution import Solution
    from optsched.studies.compare.tuning import Tuned
    from optsched.studies.verify import Verification

__all__ = ["describe", "new_table", "solution_report", "verification_report"]


def _percent(x: float) -> str:
    return f"{100 * x:+.3g} %"


def new_table(*titles: str, words: int = 1) -> Table:
    """A table without lines; its first columns hold words, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < words else "right")
    return table


def describe(problem: Problem) -> str:
    """A problem in one line."""
    p = problem
    return (
        f"a = {p.a:g}, b = {p.b:g} ({p.phase} phase), T = {p.horizon:,} steps, "
        f"N = {p.features:g}, m = {p.batch_size:g}, sigma = {p.noise:g}"
    ) + _update(problem)


def _update(p: Problem) -> str:
    """The optimiser, where it is not plain SGD with its rate scheduled."""
    if p.rate_only:
        return ""
    parts = [f"schedules {', '.join(p.controls)}"]
    if told := str(p.optimiser):
        parts.append(told)
    if p.samples:
        parts.append(f"samples {p.samples:g}")
    return "; " + ", ".join(parts)


def solution_report(
    solution: Solution,
    baselines: Sequence[Tuned],
    output: str | None = None,
    plot: str | None = None,
    *,
    chosen: BudgetSolution | None = None,
    rounded: Mapping[str, Any] | None = None,
) -> None:
    """Print a solution, its certificate and the tuned baselines."""
    console = Console(highlight=False, soft_wrap=True)
    problem, proof = solution.problem, solution.certificate
    console.print(describe(problem))
    titles = "peak rate", "excess loss", "bias", "variance", "to optimum"
    table = new_table("schedule", *titles)
    eta = solution.controls["eta"]
    table.add_row(
        "optimal" if problem.rate_only else "best found",
        f"{eta.max():.4g}",
        f"{solution.excess_loss:.6g}",
        f"{solution.bias:.3g}",
        f"{solution.variance:.3g}",
        "",
        style="bold",
    )
    for b in baselines:
        note = " (at bound)" if b.at_bound else ""
        what = "" if problem.rate_only else " of plain SGD"
        table.add_row(
            f"best {b.name}{what}{note}",
            f"{b.peak:.4g}",
            f"{b.replay.excess_loss:.6g}",
            f"{b.replay.bias:.3g}",
            f"{b.replay.variance:.3g}",
            _percent(b.replay.excess_loss / solution.excess_loss - 1.0),
        )
    console.print(table)
    if problem.rate_only:
        console.print(
            f"no schedule is below {proof.lower_bound:.6g}: "
            f"certified within {100 * proof.certified_gap:.2g} % of optimal"
        )
    else:
        kind = "local optimum" if proof.local_optimum else "not shown to be a local optimum"
        console.print(
            f"{kind}, the best from {len(proof.starts)} starts;"
            f" lowest curvature {proof.curvature:+.1e} of the largest"
        )
    console.print(
        f"KKT residual {proof.kkt_residual:.1e}; replay {proof.replayed}"
        f" ({_percent(proof.replay_gap)} to the solver's loss);"
        f" {solution.method}, {len(solution.t)} knots, {solution.stats['seconds']:.2f} s"
    )
    if problem.eta_cap < problem.eta_max:
        console.print(
            f"eta_max {problem.eta_max:g} is above the stability limit:"
            f" rates are bounded by {problem.eta_cap:.6g}"
        )
    if chosen is not None:
        console.print(_chosen(chosen))
    if rounded:
        console.print(_rounded(rounded, solution.excess_loss))
    for path in (output, plot):
        if path:
            console.print(f"wrote {path}")


def _chosen(found: BudgetSolution) -> str:
    """How the number of steps came about."""
    why = "of the least loss"
    if found.tolerance > 0.0:
        why = f"the fewest within {100 * found.tolerance:g} % of the least loss"
    text = f"{found.horizon:,} steps: {why}, from {len(found.trials)} trials"
    if found.at_bound:
        text += f" (at bound: the {found.at_bound} allowed)"
    if found.budget.cost is not None:
        text += f"; {found.samples:g} samples, cost {found.cost:g}"
    return text


def _rounded(numbers: Mapping[str, Any], before: float) -> str:
    """What rounding the batch sizes did."""
    loss = numbers["rounded_excess_loss"]
    shown = (
        "diverges" if loss is None else f"excess loss {loss:.6g} ({_percent(loss / before - 1)})"
    )
    return (
        f"whole batch sizes: {shown}, {numbers['rounded_horizon']:,} steps in"
        f" {numbers['stages']} stages, {numbers['rounded_samples']:g} samples,"
        f" peak rate {numbers['rounded_peak']:.4g}"
    )


def verification_report(result: Verification, file: str) -> None:
    """Print what a replay found."""
    console = Console(highlight=False, soft_wrap=True)
    played, problem = result.replay, result.problem
    console.print(describe(problem))
    if result.status == "diverges":
        console.print(
            f"{file}: the recursion diverges (peak rate {result.schedule.peak:.4g},"
            f" stability limit {problem.stability_limit:.4g})"
        )
        return
    console.print(
        f"{file}: excess loss [bold]{played.excess_loss:.8g}[/bold]"
        f" = bias {played.bias:.4g} + variance {played.variance:.4g}"
    )
    error = f", relative error about {played.error:.0e}" if played.error else ""
    console.print(f"replayed {played.how}{error}")
    for line in result.violations:
        console.print(f"breaks a constraint: {line}")
    if not problem.rate_only:
        console.print("no lower bound is known for this problem")
    elif result.gap is None:
        console.print(
            f"lower bound for rates up to {problem.eta_cap:.4g}:"
            f" {result.lower_bound:.6g} (this schedule goes higher)"
        )
    else:
        console.print(
            f"lower bound {result.lower_bound:.6g}: within {100 * result.gap:.2g} % of optimal"
        )
