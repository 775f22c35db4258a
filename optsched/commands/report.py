"""What the command line prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optsched.commands.command import spoken
from optsched.commands.show import percent, print_lines, print_table
from optsched.control.rate.constraints import beyond_words

if TYPE_CHECKING:
    from optsched.control.budget import BudgetSolution
    from optsched.control.problem import Problem
    from optsched.control.solution import Solution
    from optsched.studies.compare.tuning import Tuned
    from optsched.studies.verify import Verification

__all__ = ["cells", "describe", "floor_words", "solution_report", "verification_report"]


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


def cells(name: str, peak: float, played: Any, objective: bool = False) -> list[str]:
    """Cells of a row, from what has a loss with its parts, and another objective if asked for."""
    parts = f"{played.excess_loss:.6g}", f"{played.bias:.3g}", f"{played.variance:.3g}"
    return [name, f"{peak:.4g}", *([f"{played.value:.6g}"] if objective else []), *parts]


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
    problem, proof = solution.problem, solution.certificate
    print_lines(describe(problem))
    titles = ["peak rate", "excess loss", "bias", "variance", "to optimum"]
    other = not problem.terms.final
    judged = str(problem.terms.objective) if other else ""
    if other:
        titles[1:2] = [judged, "final excess"]
    best = "optimal" if problem.rate_only else "best found"
    rows = [cells(best, solution.controls["eta"].max(), solution, other)]
    for b in baselines:
        note = " (at bound)" if b.at_bound else ""
        what = "" if problem.rate_only else " of plain SGD"
        regret = percent(b.value / solution.value - 1.0)
        rows.append([*cells(f"best {b.name}{what}{note}", b.peak, b.replay, other), regret])
    print_table(("schedule", *titles), rows, bold=(0,))
    if problem.rate_only:
        print_lines(
            f"no schedule with rates up to {problem.eta_top:.6g} is below"
            f" {proof.lower_bound:.6g}{' of ' * other}{judged}: "
            f"certified within {100 * proof.certified_gap:.2g} % of optimal"
        )
    else:
        kind = "local optimum" if proof.local_optimum else "not shown to be a local optimum"
        print_lines(
            f"{kind}, the best from {len(proof.starts)} starts;"
            f" lowest curvature {proof.curvature:+.1e} of the largest"
        )
        print_lines(*batch_words(problem, proof.lower_bound, proof.certified_gap))
        print_lines(*floor_words(proof.floor, solution.excess_loss))
    print_lines(
        f"KKT residual {proof.kkt_residual:.1e}; replay {proof.replayed}"
        f" ({percent(proof.replay_gap)} to the solver's loss);"
        f" {solution.method}, {len(solution.t)} knots, {solution.stats['seconds']:.2f} s"
    )
    if problem.eta_cap < problem.eta_max:
        print_lines(f"--peak {beyond_words(problem)}")
    if chosen is not None:
        print_lines(_chosen(chosen))
    if rounded:
        print_lines(_rounded(rounded, solution.excess_loss))
    for path in (output, plot):
        if path:
            print_lines(f"wrote {path}")


def batch_words(problem: Problem, bound: float, gap: float | None) -> list[str]:
    """What no schedule of rate and batch size with as many samples can pass, where it is known."""
    if bound <= 0.0:
        return []
    rates = (
        f"at the rate {problem.eta_top:.6g}" if problem.rate_held else "of rates and batch sizes"
    )
    most = "" if problem.rate_held else f" with rates up to {problem.eta_top:.6g}"
    within = "" if gap is None else f": certified within {100 * gap:.2g} % of optimal"
    return [f"no schedule {rates}{most} is below {bound:.6g} with these samples{within}"]


def floor_words(floor: float, excess_loss: float) -> list[str]:
    """What no momentum, batch size or averaging can pass, where it is known."""
    if floor <= 0.0:
        return []
    return [
        f"no optimiser that is linear in the labels is below {floor:.6g} with these samples:"
        f" within a factor of {excess_loss / floor:.3g}"
    ]


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
    loss, cut = numbers["rounded_excess_loss"], numbers["rounded_cut"]
    shown = f"excess loss {loss:.6g} ({percent(loss / before - 1)})"
    less = f" (cut there: {100.0 * cut:.2g} % less in sum)" if cut > 1e-6 else ""
    return (
        f"whole batch sizes: {shown}, {numbers['rounded_horizon']:,} steps in"
        f" {numbers['stages']} stages, {numbers['rounded_samples']:g} samples,"
        f" peak rate {numbers['rounded_peak']:.4g}{less}"
    )


def verification_report(result: Verification, file: str) -> None:
    """Print what a replay found."""
    played, problem = result.replay, result.problem
    print_lines(describe(problem))
    if result.status == "diverges":
        print_lines(
            f"{file}: the recursion diverges (peak rate {result.schedule.peak:.4g},"
            f" stability limit {problem.stability_limit:.4g})"
        )
        return
    print_lines(
        f"{file}: excess loss {played.excess_loss:.8g}"
        f" = bias {played.bias:.4g} + variance {played.variance:.4g}"
    )
    error = f", relative error about {played.error:.0e}" if played.error else ""
    print_lines(f"replayed {played.how}{error}")
    for line in result.violations:
        print_lines(f"breaks a constraint: {spoken(line)}")
    if not problem.rate_only:
        if result.lower_bound > 0.0:
            print_lines(*batch_words(problem, result.lower_bound, result.gap))
        else:
            print_lines("no lower bound is known for schedules of this problem")
        print_lines(*floor_words(result.floor, played.excess_loss))
    elif result.gap is None:
        print_lines(
            f"lower bound for rates up to {problem.eta_top:.6g}:"
            f" {result.lower_bound:.6g} (this schedule goes higher)"
        )
    else:
        print_lines(
            f"lower bound for rates up to {problem.eta_top:.6g}: {result.lower_bound:.6g},"
            f" within {100 * result.gap:.2g} % of optimal"
        )
