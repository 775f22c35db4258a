"""``optsched spectrum``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import save_figure
from optsched.commands.options import Choice, Number
from optsched.commands.show import print_json
from optsched.errors import BadFile, InvalidProblem
from optsched.files import check_input

if TYPE_CHECKING:
    from optsched.control.solution import Solution
    from optsched.measure.exponents import MeasuredSpectrum

__all__ = ["spectrum"]

FOR_SOLVE = ("batch_size", "eta_max", "noise", "warmup", "output")


@click.command(cls=Command)
@click.argument("features", type=click.Path(), required=False)
@click.argument("targets", type=click.Path(), required=False)
@click.option("--kernel", type=click.Path(), help="A kernel matrix, in place of FEATURES.")
@click.option("--eigenvalues", type=click.Path(), help="Eigenvalues, with coefficients as TARGETS.")
@click.option("--samples", type=Number("a number"), help="Samples that --eigenvalues come from.")
@click.option("--features-total", type=Number("a number"), help="Features behind a kernel.")
@click.option("--modes", "window", help="FIRST:LAST, modes that are fitted.  [default: chosen]")
@click.option("--center", is_flag=True, help="Take off the means of features and targets.")
@click.option("--horizon", type=Number("a number of steps"), help="Solve for this many steps too.")
@click.option(
    "--kind",
    type=Choice(("measured", "power-law")),
    default="measured",
    show_default=True,
    help="What is solved: measured (in the units of the data) or power-law.",
)
@click.option(
    "--batch", "batch_size", type=Number("a number >= 1"), help="Of the solve.  [default: 5]"
)
@click.option("--peak", "eta_max", type=Number("a number > 0"), help="Of the solve.  [default: 1]")
@click.option("--noise", type=Number("a number >= 0"), help="Of the solve.  [default: measured]")
@click.option("--warmup", type=Number("a number of steps"), help="Of the solve.  [default: 0]")
@click.option("--output", type=click.Path(), help="Schedule file: .npz, .csv, .json.")
@click.option("--plot", type=click.Path(), help="Figure of the spectra: .png, .pdf, .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing output files.")
def spectrum(**options: Any) -> None:
    """Measure a and b from FEATURES (n x p) and TARGETS (n), .npy or .csv files."""
    from optsched.files import PLOT_SUFFIXES, SUFFIXES, check_writable

    for key, suffixes in (("output", SUFFIXES), ("plot", PLOT_SUFFIXES)):
        if options[key]:
            check_writable(options[key], options["force"], suffixes=suffixes)
    for name in FOR_SOLVE:
        if options["horizon"] is None and options[name] is not None:
            raise InvalidProblem(name, options[name], "nothing without --horizon")
    measured = _measure(options)
    solution = None if options["horizon"] is None else _solve(measured, options)
    if options["plot"]:
        from optsched.plots.measured import plot_measured

        save_figure(plot_measured(measured), options["plot"], options["force"])
    if options["as_json"]:
        solved = {} if solution is None else {"solution": solution.summary()}
        print_json(measured.summary() | solved)
    else:
        _report(measured, solution, options)


def _window(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise InvalidProblem("window", text, "FIRST:LAST, two whole numbers") from None
    return first, last


def _measure(options: dict[str, Any]) -> MeasuredSpectrum:
    from optsched.measure import exponents as measured

    window = _window(options["window"])
    other = [name for name in ("kernel", "eigenvalues") if options[name]]
    if len(other) > 1:
        raise InvalidProblem("eigenvalues", options["eigenvalues"], "nothing beside --kernel")
    for name, owners in (("samples", ["eigenvalues"]), ("features_total", other)):
        if options[name] is not None and not set(owners) & set(other):
            raise InvalidProblem(name, options[name], "nothing with a file of features")
    files = [path for path in (options["features"], options["targets"]) if path]
    if other:
        files.insert(0, options[other[0]])
    if len(files) != 2:
        allowed = "FEATURES and TARGETS, or --kernel or --eigenvalues and TARGETS"
        raise InvalidProblem("files", " ".join(files) or None, allowed)
    left, right = (_read(path) for path in files)
    total = options["features_total"]
    if options["eigenvalues"]:
        if options["center"]:
            raise InvalidProblem("center", True, "nothing with --eigenvalues")
        samples = options["samples"]
        return measured.measure_spectrum(
            left, right, samples=samples, features=total, window=window
        )
    if options["kernel"]:
        return measured.measure_kernel(
            left, right, features=total, window=window, center=options["center"]
        )
    return measured.measure_features(left, right, window=window, center=options["center"])


def _read(path: str) -> Any:
    """An array from a .npy or .csv file; a csv of one column is a vector."""
    import warnings

    import numpy as np

    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise BadFile(f"{path}: suffix {suffix!r}, expected .npy or .csv")
    check_input(Path(path), math.inf)
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline()
        try:
            [float(cell) for cell in first.split(",")]
            skip = 0
        except ValueError:
            skip = 1  # names of columns
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no rows: said below
            table = np.loadtxt(path, delimiter=",", ndmin=2, skiprows=skip, encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise BadFile(f"{path}: {error}; expected an array of numbers") from None
    if not table.size:
        raise BadFile(f"{path}: no rows; expected an array of numbers")
    return table[:, 0] if table.shape[1] == 1 else table


def _solve(measured: MeasuredSpectrum, options: dict[str, Any]) -> Solution:
    names = [name for name in FOR_SOLVE if name != "output" and options[name] is not None]
    given = {name: options[name] for name in names}
    problem = measured.problem(options["horizon"], kind=options["kind"], **given)
    use_compilation_cache()
    from optsched.control.solve import solve

    solution = solve(problem)
    if options["output"]:
        solution.schedule.save(options["output"], overwrite=options["force"])
    return solution


def _report(measured: MeasuredSpectrum, solution: Solution | None, options: dict[str, Any]) -> None:
    from optsched.commands.show import show

    phase = {"easy": "easy phase", "hard": "hard phase"}.get(measured.phase, "phase not decided")
    first, last = measured.window
    rows = [
        ("a (target)", measured.a, measured.a_stderr),
        ("b (eigenvalues)", measured.b, measured.b_stderr),
        ("noise sigma", measured.noise, measured.noise_stderr),
    ]
    notes = [f"warning: {line}" for line in measured.warnings]
    if solution is not None:
        problem, peak = solution.problem, solution.schedule.peak
        bound = " (at bound)" if peak >= problem.eta_cap * (1.0 - 1e-9) else ""
        notes.append(
            f"T = {problem.horizon:,}, m = {problem.batch_size:g}: excess loss"
            f" {solution.excess_loss:.6g}, within {100 * solution.certificate.certified_gap:.2g} %"
            f" of optimal; peak rate {peak:.4g}{bound}"
        )
    notes += [f"wrote {path}" for path in (options["output"], options["plot"]) if path]
    samples = "exact" if math.isinf(measured.samples) else f"n = {measured.samples:g}"
    show(
        {},
        False,
        title=f"{samples}, p = {measured.features:g}, modes {first} to {last}: {phase}",
        columns=("", "value", "standard error"),
        rows=rows,
        notes=notes,
    )
