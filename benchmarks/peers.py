"""The same problem as a user would write it with other tools of optimal control, in one run.

``python -m benchmarks.peers --horizon 1000``: the reduced ODE of 40 to 60 modes with dymos (Radau
collocation, segments solved forward, SLSQP), rockit (direct collocation, IPOPT), plain CasADi
(multiple shooting with RK4, IPOPT) and JAX (L-BFGS-B on all T rates of the recursion), on even
grids of the time as their examples have them. Each schedule is replayed on the exact recursion.
Times are seconds of CPU without imports, lines those of the function without its docstring. dymos
and rockit are extras (``pip install dymos rockit-meco``); what is missing is said. Not part of the
suite.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from optsched import Problem, Schedule, solve
from optsched.model.replay import replay

Array = np.ndarray
INTERVALS = 60


def with_casadi(lam: Array, mu: Array, nu: Array, m: float, s2: float, cap: float, t: int) -> Array:
    """Multiple shooting."""
    ca: Any = importlib.import_module("casadi")

    n, step = len(lam), t / INTERVALS
    e, u = ca.MX.sym("e", n), ca.MX.sym("u")
    flow = (-2 * u * lam + u**2 * (1 + 1 / m) * lam**2) * e + u**2 / m * nu * (ca.sum1(e) + s2)
    f = ca.Function("f", [e, u], [flow])
    x, inner = e, int(np.ceil(step * 2 * cap * lam.max()))  # stable for RK4
    h = step / inner
    one = ca.MX.sym("one", n)
    k1 = f(one, u)
    k2 = f(one + h / 2 * k1, u)
    k3 = f(one + h / 2 * k2, u)
    k4 = f(one + h * k3, u)
    rk4 = ca.Function("rk4", [one, u], [one + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)])
    for _ in range(inner):
        x = rk4(x, u)
    move = ca.Function("move", [e, u], [x])
    opti = ca.Opti()
    states, rates = opti.variable(n, INTERVALS + 1), opti.variable(INTERVALS)
    opti.subject_to(states[:, 0] == mu)
    guess = mu
    for k in range(INTERVALS):
        opti.subject_to((states[:, k + 1] - move(states[:, k], rates[k])) / (mu + nu) == 0)
        opti.set_initial(states[:, k], guess)
        guess = np.ravel(move(guess, 0.1 * cap))
    opti.set_initial(states[:, INTERVALS], guess)
    opti.set_initial(rates, 0.1 * cap)
    opti.subject_to(opti.bounded(1e-6 * cap, rates, cap))
    opti.minimize(ca.log(ca.sum1(states[:, INTERVALS])))
    opti.solver("ipopt", {"print_time": False}, {"print_level": 0, "max_iter": 500})
    found = opti.solve().value(rates)
    return found[np.minimum(np.arange(t) // step, INTERVALS - 1).astype(int)]


def with_rockit(lam: Array, mu: Array, nu: Array, m: float, s2: float, cap: float, t: int) -> Array:
    """Direct collocation."""
    ca: Any = importlib.import_module("casadi")
    rockit: Any = importlib.import_module("rockit")

    ocp = rockit.Ocp(T=t)
    scale = mu + nu
    share, u = ocp.state(len(lam)), ocp.control()
    e = share * scale
    flow = (-2 * u * lam + u**2 * (1 + 1 / m) * lam**2) * e + u**2 / m * nu * (ca.sum1(e) + s2)
    ocp.set_der(share, flow / scale)
    ocp.subject_to(ocp.at_t0(share) == mu / scale)
    ocp.subject_to(1e-6 * cap <= (u <= cap))
    ocp.add_objective(ca.log(ocp.at_tf(ca.sum1(e))))
    ocp.set_initial(u, 0.1 * cap)
    ocp.set_initial(share, 0.5 * mu / scale)
    ocp.solver("ipopt", {"print_time": False, "ipopt": {"print_level": 0, "max_iter": 500}})
    ocp.method(rockit.DirectCollocation(N=INTERVALS, degree=3))
    _, found = ocp.solve().sample(u, grid="control")
    step = t / INTERVALS
    return found[np.minimum(np.arange(t) // step, INTERVALS - 1).astype(int)]


def with_dymos(lam: Array, mu: Array, nu: Array, m: float, s2: float, cap: float, t: int) -> Array:
    """Radau collocation."""
    dm: Any = importlib.import_module("dymos")
    om: Any = importlib.import_module("openmdao.api")

    n, scale = len(lam), mu + nu

    class Flow(om.ExplicitComponent):
        def initialize(self) -> None:
            self.options.declare("num_nodes", types=int)

        def setup(self) -> None:
            nodes = self.options["num_nodes"]
            self.add_input("share", shape=(nodes, n))
            self.add_input("u", shape=(nodes,))
            self.add_output("flow", shape=(nodes, n))
            self.add_output("loss", shape=(nodes,))
            self.declare_partials("*", "*", method="cs")
            self.declare_coloring(wrt="*", method="cs", num_full_jacs=2, show_summary=False)

        def compute(self, inputs: Any, outputs: Any) -> None:
            e, u = inputs["share"] * scale, inputs["u"][:, None]
            noise = u**2 / m * nu * (e.sum(1, keepdims=True) + s2)
            outputs["flow"] = ((-2 * u * lam + u**2 * (1 + 1 / m) * lam**2) * e + noise) / scale
            outputs["loss"] = np.log(e.sum(1))

    problem = om.Problem()
    problem.driver = om.ScipyOptimizeDriver(optimizer="SLSQP", maxiter=200, tol=1e-8, disp=False)
    segments = INTERVALS // 3
    transcription = dm.Radau(num_segments=segments, order=3, solve_segments="forward")
    phase = dm.Phase(ode_class=Flow, transcription=transcription)
    trajectory = dm.Trajectory()
    trajectory.add_phase("run", phase)
    problem.model.add_subsystem("all", trajectory)
    phase.set_time_options(fix_initial=True, fix_duration=True)
    phase.add_state("share", shape=(n,), rate_source="flow", targets="share", fix_initial=True)
    phase.add_control("u", lower=1e-6 * cap, upper=cap, targets="u", rate_continuity=False)
    phase.add_timeseries_output("loss")
    phase.add_objective("loss", loc="final")
    problem.setup()
    phase.set_time_val(0.0, float(t))
    phase.set_state_val("share", [mu / scale, 0.5 * mu / scale])
    phase.set_control_val("u", [0.1 * cap, 0.1 * cap])
    problem.run_driver()
    at = np.ravel(problem.get_val("all.run.timeseries.time"))
    found = np.ravel(problem.get_val("all.run.timeseries.u"))
    return np.interp(np.arange(t) + 0.5, at, found)


def with_jax(lam: Array, mu: Array, nu: Array, m: float, s2: float, cap: float, t: int) -> Array:
    """All T rates."""
    import jax
    import jax.numpy as jnp
    from scipy.optimize import minimize

    jax.config.update("jax_enable_x64", True)

    def loss(log_rates: jax.Array) -> jax.Array:
        def step(e: jax.Array, rate: jax.Array) -> tuple[jax.Array, None]:
            x = rate * lam
            new = ((1 - x) ** 2 + x**2 / m) * e + rate**2 / m * nu * (e.sum() + s2)
            return new, None

        return jnp.log(jax.lax.scan(step, jnp.asarray(mu), jnp.exp(log_rates))[0].sum())

    both = jax.jit(jax.value_and_grad(loss))
    found = minimize(
        lambda x: tuple(np.asarray(value, float) for value in both(x)),
        np.full(t, np.log(0.1 * cap)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(np.log(1e-6 * cap), np.log(cap))] * t,
        options={"maxiter": 2000, "maxcor": 20, "ftol": 1e-12},
    )
    return np.exp(found.x)


RIVALS: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "dymos": (with_dymos, ("dymos", "openmdao")),
    "rockit": (with_rockit, ("rockit", "casadi")),
    "CasADi": (with_casadi, ("casadi",)),
    "L-BFGS in JAX": (with_jax, ("jax", "scipy")),
}


def _lines(function: Callable[..., Array]) -> int:
    source = inspect.getsource(function).splitlines()
    return sum(bool(line.strip()) for line in source) - 2  # signature and docstring


def _worked(name: str, given: tuple, limit: float, pipe: Connection, folder: str) -> None:
    """In a process and a folder of its own, with its imports done before the clock starts."""
    os.chdir(folder)  # OpenMDAO writes reports where it stands
    function, modules = RIVALS[name]
    warnings.simplefilter("ignore")
    for module in modules:
        importlib.import_module(module)
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(began + limit) + 1, int(began + limit) + 1))
    try:
        pipe.send((function(*given), time.process_time() - began, ""))
    except Exception as error:
        pipe.send((None, time.process_time() - began, str(error).strip().splitlines()[0][:90]))


def _rival(name: str, given: tuple, limit: float) -> tuple[Array | None, float, str]:
    """Rates, seconds, and why there are none."""
    here, there = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=_worked, args=(name, given, limit, there, folder)
        )
        process.start()
        there.close()
        try:
            return here.recv()
        except EOFError:
            return None, limit, "not finished"
        finally:
            process.kill()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--a", type=float, default=3.5)
    parser.add_argument("--b", type=float, default=2.0)
    parser.add_argument("--horizon", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of CPU for a rival")
    parser.add_argument("--only", default="", help="rivals with this word in their names")
    args = parser.parse_args()
    problem = Problem(args.a, args.b, args.horizon)
    solve(problem.replace(horizon=args.horizon - 1))  # as imports are not counted
    began = time.process_time()
    solution = solve(problem)
    own = time.process_time() - began
    modes, m, s2 = problem.modes, problem.batch_size, problem.noise**2
    print(f"a = {args.a:g}, b = {args.b:g}, T = {args.horizon:,}, {len(modes.lam)} modes")
    print(f"{'':<16}{'loss':>13}{'above':>10}{'seconds':>10}{'times':>8}{'lines':>7}")
    print(f"{'optsched':<16}{solution.excess_loss:>13.6g}{'':>10}{own:>10.2f}{'':>8}{2:>7}")
    given = (modes.lam, modes.mu, modes.nu, m, s2, problem.eta_cap, args.horizon)
    for name, (function, modules) in RIVALS.items():
        if args.only not in name:
            continue
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name:<16}not installed: {', '.join(missing)}")
            continue
        rates, seconds, why = _rival(name, given, args.limit)
        if rates is None:
            print(f"{name:<16}{why} ({seconds:.0f} s of CPU)", flush=True)
            continue
        schedule = Schedule.from_array(np.clip(rates, 0.0, problem.eta_cap))
        loss = replay(problem.spectrum, problem.dynamics, schedule).excess_loss
        above = 100.0 * (loss / solution.excess_loss - 1.0)
        print(
            f"{name:<16}{loss:>13.6g}{above:>9.3f}%{seconds:>10.1f}{seconds / own:>8.0f}"
            f"{_lines(function):>7}",
            flush=True,
        )


if __name__ == "__main__":
    main()
