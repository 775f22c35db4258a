"""Speed: the default method against what people do today, and against itself over horizons.

Run with one thread: ``OMP_NUM_THREADS=1 python -m benchmarks.speed``.

The rival optimises all T rates with SciPy's L-BFGS-B on the exact recursion, N = 1000 modes, in a
jitted JAX scan with reverse-mode gradients: float64, log rates as variables (the best of the
parametrisations tried), a start within 10 % in loss, no per-step Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from optsched import Collocation, Problem, Shooting, solve


def full_lbfgs(problem: Problem, max_iterations: int = 400) -> tuple[float, float]:
    """Loss and warm seconds of L-BFGS on all T rates."""
    assert problem.spectrum is not None
    lam, mu, nu = problem.spectrum.full()
    m, sigma2, cap = problem.batch_size, problem.noise**2, problem.eta_cap

    @jax.jit
    def value_and_grad(log_eta):
        def loss(x):
            def step(e, rate):
                factor = 1 - 2 * rate * lam + rate**2 * (1 + 1 / m) * lam**2
                return factor * e + rate**2 / m * nu * (sigma2 + e.sum()), None

            return jnp.log(jax.lax.scan(step, jnp.asarray(mu), jnp.exp(x))[0].sum())

        return jax.value_and_grad(loss)(log_eta)

    t = np.arange(problem.horizon) / problem.horizon
    start = np.log(0.3 * cap * np.maximum(1 - t, 1e-3) ** 2)
    with jax.enable_x64(True):

        def function(x):
            value, gradient = value_and_grad(x)
            return float(value), np.asarray(gradient)

        function(start)  # compile
        began = time.perf_counter()
        found = minimize(
            function,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, float(np.log(cap)))] * problem.horizon,
            options={
                "maxiter": max_iterations,
                "maxfun": 2 * max_iterations,
                "ftol": 1e-12,
                "gtol": 1e-7,
                "maxcor": 20,
            },
        )
        return float(np.exp(found.fun)), time.perf_counter() - began


def warm(problem: Problem, method: object = None, repeat: int = 5, **options: object) -> tuple:
    """Median warm seconds of a solve, and its solution."""
    solution = solve(problem, method, **options)  # type: ignore[arg-type]
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        solution = solve(problem, method, **options)  # type: ignore[arg-type]
        times.append(time.perf_counter() - began)
    return float(np.median(times)), solution


def rival() -> None:
    """Table (i)."""
    print("(i) default method against L-BFGS on all rates (N = 1000)")
    for a, b, horizon in ((3.5, 2.0, 1000), (3.5, 5.0, 1000), (3.5, 2.0, 10_000)):
        problem = Problem(a, b, horizon)
        seconds, solution = warm(problem)
        loss, slow = full_lbfgs(problem)
        print(
            f"  a={a} b={b} T={horizon}: {seconds:.3f} s, loss {solution.excess_loss:.8g}; "
            f"L-BFGS {slow:.2f} s, loss {loss:.8g}: {slow / seconds:.0f} times faster, "
            f"loss ratio {solution.excess_loss / loss:.5f}"
        )


def horizons() -> None:
    """Table (ii)."""
    print("(ii) warm seconds over horizons (solve, bound and replay)")
    for a, b in ((3.5, 2.0), (3.5, 5.0)):
        base = None
        for horizon in (10**3, 10**4, 10**5, 10**7, 10**9):
            seconds, _ = warm(Problem(a, b, horizon), replay_steps=10_000)
            base = base or seconds
            print(
                f"  a={a} b={b} T=10^{round(np.log10(horizon))}: {1e3 * seconds:.0f} ms, "
                f"{seconds / base:.2f} times T=10^3"
            )


def plane() -> None:
    """Table (iii)."""
    times = []
    for a in np.linspace(1.3, 4.0, 6):
        for b in np.linspace(1.2, 4.0, 6):
            for horizon in (10**3, 10**5):
                problem = Problem(a, b, horizon)
                solve(problem, replay_steps=1000)
                began = time.perf_counter()
                solve(problem, replay_steps=1000)
                times.append(time.perf_counter() - began)
    median, high = np.percentile(times, [50, 90])
    print(
        f"(iii) phase plane, {len(times)} solves warm: median {1e3 * median:.0f} ms, "
        f"90 % {1e3 * high:.0f} ms"
    )


def methods() -> None:
    """Table (iv)."""
    print("(iv) methods, warm")
    for a, b, horizon in ((3.5, 2.0, 10**5), (3.5, 5.0, 10**5), (1.5, 2.0, 10**5)):
        base, reference = warm(Problem(a, b, horizon), replay_steps=1000)
        for method in (Shooting(), Collocation()):
            seconds, solution = warm(Problem(a, b, horizon), method, 1, replay_steps=1000)
            print(
                f"  a={a} b={b} T={horizon} {method.name}: {seconds:.2f} s "
                f"({seconds / base:.0f} times the default), loss ratio "
                f"{solution.excess_loss / reference.excess_loss:.6f}"
            )


def command_line() -> None:
    """Table (v)."""
    command = [
        sys.executable,
        "-m",
        "optsched.cli",
        "solve",
        "--a",
        "3.5",
        "--b",
        "2",
        "--horizon",
        "3162",
        "--json",
    ]
    with tempfile.TemporaryDirectory() as cache:
        times = []
        for _ in range(4):
            began = time.perf_counter()
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                env={**os.environ, "XDG_CACHE_HOME": cache},
            )
            times.append(time.perf_counter() - began)
    print(f"(v) command line: first run {times[0]:.2f} s, later {min(times[1:]):.2f} s")


FIRST = """
import sys, time
from optsched import Problem, solve
problem = Problem(**eval(sys.argv[1]))
times = []
for _ in range(2):
    began = time.perf_counter()
    solve(problem)
    times.append(time.perf_counter() - began)
print(*times)
"""


def first_solves() -> None:
    """Table (vi)."""
    print("(vi) first and second solve of a process, no compiled code at hand")
    for problem in (
        {"a": 3.5, "b": 2.0, "horizon": 1000},
        {"a": 1.5, "b": 2.0, "horizon": 10**9},
        {"a": 3.5, "b": 5.0, "horizon": 300, "controls": "eta,beta,nu"},
    ):
        command = [sys.executable, "-c", FIRST, repr(problem)]
        env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        first, second = map(float, done.stdout.split())
        print(f"  {problem}: {first:.1f} s, then {second:.2f} s")


def main() -> None:
    """Run the tables asked for."""
    tables = {
        "rival": rival,
        "horizons": horizons,
        "plane": plane,
        "methods": methods,
        "cli": command_line,
        "first": first_solves,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=list(tables), help=", ".join(tables))
    for name in parser.parse_args().tables:
        tables[name]()


if __name__ == "__main__":
    main()
