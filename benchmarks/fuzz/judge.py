"""One problem solved, and its solution judged: nothing here trusts what the library says of it."""

from __future__ import annotations

import json
import math
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.fuzz.draw import options_of, said
from benchmarks.fuzz.recursion import every_step, sgd
from optsched import Problem, Solution, SolveFailed, solve

STEPS = {"rate": 5000, "joint": 1500}  # up to which it is judged step by step
AGREES = 1e-7  # relative difference of two replays of all steps and modes
NODES_AGREE = 2e-3  # of two quadratures of the spectrum, or of two ways to run blocks
TINY = 1e-200  # losses that rounding may have reached
PLAIN = 1e-6  # a joint optimum may be so much above the plain one it contains


@dataclass
class Verdict:
    """What became of a problem."""

    kind: str
    seed: int
    number: int
    problem: str
    outcome: str = "converged"
    faults: list[str] = field(default_factory=list)
    message: str = ""
    loss: float = math.nan
    gap: float = math.nan
    over_floor: float = math.nan
    off: float = math.nan  # relative difference to the loss of the recursion of our own
    residual: float = math.nan
    seconds: float = 0.0

    def row(self) -> str:
        return json.dumps(asdict(self))


class TooLong(Exception):
    """The limit of time is over."""


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def over(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def judged(kind: str, seed: int, number: int, limit: float, long_check: bool) -> Verdict:
    """Draw, solve and judge one problem.

    Parameters
    ----------
    kind : {"rate", "joint"}
    seed, number : int
    limit : float
        Seconds of processor time after which it counts as a fault.
    long_check : bool
        Whether horizons beyond `STEPS` are judged by a recursion too.
    """
    options = options_of(kind, seed, number)
    verdict = Verdict(kind, seed, number, said(options))
    began = time.process_time()
    with warnings.catch_warnings(record=True) as told, _limit(limit):
        warnings.simplefilter("always")
        try:
            problem = Problem(**options)
            solution = _solved(problem, verdict)
            verdict.seconds = time.process_time() - began
            if solution is not None:
                _judge(options, problem, solution, verdict, long_check)
        except TooLong:
            verdict.faults.append(f"not finished after {limit:g} s")
        except Exception:
            verdict.faults.append("raised " + traceback.format_exc().strip().splitlines()[-1])
            verdict.message = traceback.format_exc()
    verdict.seconds = verdict.seconds or time.process_time() - began
    verdict.faults += [f"warned: {one.category.__name__}: {one.message}" for one in told]
    if verdict.faults:
        verdict.outcome = "fault"
    return verdict


def _solved(problem: Problem, verdict: Verdict) -> Solution | None:
    try:
        return solve(problem, replay_steps=10**4)
    except SolveFailed as error:
        verdict.outcome, verdict.message = "refused", str(error)
        if error.solution is None:
            return None
        if error.solution.converged:
            verdict.faults.append("refused, and converged")
        return error.solution


def _judge(
    options: dict[str, Any],
    problem: Problem,
    solution: Solution,
    verdict: Verdict,
    long_check: bool,
) -> None:
    faults, proof, loss = verdict.faults, solution.certificate, solution.excess_loss
    verdict.loss, verdict.gap = loss, proof.certified_gap
    verdict.residual = proof.kkt_residual
    numbers = (loss, solution.bias, solution.variance, proof.lower_bound, proof.floor)
    if not all(math.isfinite(x) and x >= 0.0 for x in numbers):
        faults.append(f"a loss or a bound is no number: {numbers}")
    more = [proof.kkt_residual, proof.replay_error, *solution.residuals, *proof.block_errors]
    if np.isnan([proof.certified_gap, proof.replay_gap, *more]).any():
        faults.append("nan in the certificate")
    if verdict.outcome == "converged" and not proof.kkt_residual <= solution.stats["tolerance"]:
        faults.append(f"converged with a residual of {proof.kkt_residual:.1e}")
    faults += broken(options, solution)
    slack = 1.0 - 1e-9 - 3.0 * proof.replay_error
    for name, bound in (("lower bound", proof.lower_bound), ("floor", proof.floor)):
        if loss < bound * slack:
            faults.append(f"loss {loss:.9g} is below the {name} {bound:.9g}")
    if proof.floor > 0.0:
        verdict.over_floor = loss / proof.floor
    _replay(options, solution, verdict, long_check)
    if problem.contains_plain and verdict.outcome == "converged":
        plain = solve(problem.plain, throw=False, gap=1e3)
        allowed = PLAIN + plain.replay.error + proof.replay_error
        if plain.converged and loss > plain.excess_loss * (1.0 + allowed):
            faults.append(f"loss {loss:.9g} is above {plain.excess_loss:.9g} of the rate alone")


def broken(options: dict[str, Any], solution: Solution) -> list[str]:
    """Constraints that the schedule does not keep."""
    schedule, found = solution.schedule, []
    steps, eta = schedule.steps, schedule.controls["eta"]
    if any(not np.isfinite(values).all() for values in schedule.controls.values()):
        return ["a schedule that is not finite"]
    cap, low = options.get("eta_max", math.inf), options.get("eta_min", 0.0)
    if eta.max() > cap * (1.0 + 1e-9) or eta.min() < 0.0:
        found.append(f"rates from {eta.min():.9g} to {eta.max():.9g}, of {cap:.9g}")
    warmup = options.get("warmup", 0)
    if eta[steps >= warmup].min() < low * (1.0 - 1e-9):
        found.append(f"a rate of {eta[steps >= warmup].min():.9g} below {low:.9g}")
    change = options.get("max_change")
    if change is not None and len(eta) > 1:
        most = float(np.abs(np.diff(eta) / np.diff(steps)).max())
        if most > change * (1.0 + 1e-6):
            found.append(f"a change of {most:.9g}, over {change:.9g}")
    if warmup:
        top = float(schedule(warmup))
        for step in np.unique(np.geomspace(1, warmup, 50).astype(int)) - 1:
            if abs(float(schedule(int(step))) - (step + 1) / (warmup + 1) * top) > 1e-6 * top:
                found.append(f"step {step} of the warm-up is off its line")
                break
    for name, (least, most) in {"beta": (0, 1), "nu": (0, 1), "ema": (0, 1)}.items():
        values = schedule.controls.get(name, np.zeros(1))
        if values.min() < least or values.max() > most or (name != "nu" and values.max() == 1):
            found.append(f"{name} from {values.min()} to {values.max()}")
    if "batch" in options.get("controls", ""):
        budget = options["batch_size"] * options["horizon"]
        used = schedule.sum("batch_size")
        if used > budget * (1.0 + 1e-8) or schedule.controls["batch_size"].min() < 1.0 - 1e-9:
            found.append(f"{used:.9g} samples of {budget:.9g}")
    return found


def _replay(
    options: dict[str, Any], solution: Solution, verdict: Verdict, long_check: bool
) -> None:
    """Compare the loss with that of the recursion of our own."""
    horizon, size = options["horizon"], options["features"]
    given = options["a"], options["b"], size, options["noise"] ** 2
    m, schedule = options["batch_size"], solution.schedule
    moving = {"beta", "nu", "ema"} & set(schedule.controls) or options.get("weight_decay")
    allowed = NODES_AGREE + 3.0 * solution.certificate.replay_error
    with np.errstate(all="ignore"):
        if horizon <= STEPS[verdict.kind]:
            controls = {name: schedule.array(name) for name in schedule.controls}
            own = every_step(*given, controls, m, options)
            if size <= 1000:
                allowed = AGREES
        elif moving or not long_check:
            return
        else:
            rest = schedule.steps, schedule.controls, m
            coarse, fine = sgd(*given, *rest, 1), sgd(*given, *rest, 2)
            own = fine + (fine - coarse) / 3.0
            allowed += abs(fine / coarse - 1.0) if coarse > 0.0 else math.inf
    if min(own, solution.excess_loss) < TINY:
        return
    verdict.off = solution.excess_loss / own - 1.0
    if not abs(verdict.off) <= allowed:
        verdict.faults.append(f"loss {solution.excess_loss:.9g}, by our recursion {own:.9g}")
