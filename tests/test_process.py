"""``optsched`` as a process: interrupts, closed pipes, full disks, terminals, damaged caches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import Schedule
from optsched.commands.show import percent, print_json, print_lines, print_table, show


@pytest.fixture(autouse=True)
def _listens_to_ctrl_c() -> None:
    """Jobs in the background ignore Ctrl-C, and so would what they start: not here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


RUN = [sys.executable, "-m", "optsched"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


def optsched(*argv: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OPTSCHED_NO_CACHE": "1"} | more.pop("env", {})
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.run([*RUN, *argv], cwd=cwd, env=env, check=False, **settings)


# ---------------------------------------------------------------- Ctrl-C


def interrupted(code: str, cwd: Path) -> tuple[int, str]:
    """Exit code and standard error of a process that gets Ctrl-C where the code says so."""
    head = "import os, signal, sys\nctrl_c = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
    process = subprocess.run(
        [sys.executable, "-c", head + code], cwd=cwd, capture_output=True, text=True, check=False
    )
    return process.returncode, process.stderr


IN_AN_IMPORT = """
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                ctrl_c()
            except KeyboardInterrupt:  # as a library may take it for something else
                raise ImportError("no such thing") from None
sys.meta_path.insert(0, Slow())
sys.argv = ["optsched", *{argv!r}.split()]
from optsched.__main__ import run
run()
"""
IN_A_COMMAND = """
import optsched.commands.rules.ema as module
def stop(**_):
    {body}
module.ema.callback = stop
sys.argv = ["optsched", "rules", "ema", "--decay", "0.9"]
from optsched.__main__ import run
run()
"""


@POSIX
@pytest.mark.parametrize(
    "module",
    ["optsched.cli", "click", "optsched.commands.rules.ema", "numpy", "optsched.rules.averaging"],
)
def test_ctrl_c_while_it_starts(module: str, tmp_path: Path) -> None:
    code = IN_AN_IMPORT.format(module=module, argv="rules ema --decay 0.9")
    assert interrupted(code, tmp_path) == (130, "optsched: interrupted\n")


@POSIX
@pytest.mark.parametrize(
    "body",
    [
        "ctrl_c()",
        "import threading; threading.Thread(target=__import__('time').sleep, args=(60,)).start();"
        " ctrl_c()",  # nobody waits for a thread that compiles
        "import weakref; x = set(); w = weakref.ref(x, lambda _: ctrl_c()); del x;"
        " __import__('time').sleep(60)",  # Python ignores what a callback raises
    ],
    ids=["work", "thread", "callback"],
)
def test_ctrl_c_while_it_works(body: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    found = interrupted(IN_A_COMMAND.format(body=body), tmp_path)
    assert found == (130, "optsched: interrupted\n")
    assert time.monotonic() - begin < 30.0


@POSIX
def test_ctrl_c_takes_away_what_is_half_written(tmp_path: Path) -> None:
    body = (
        "from optsched.files import atomic_path\n"
        "    with atomic_path('x.csv', overwrite=False) as path: path.write_text('1'); ctrl_c()"
    )
    assert interrupted(IN_A_COMMAND.format(body=body), tmp_path)[0] == 130
    assert [*tmp_path.iterdir()] == []


@POSIX
def test_a_job_in_the_background_ignores_ctrl_c(tmp_path: Path) -> None:
    body = "ctrl_c(); print('done')"
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + IN_A_COMMAND.format(body=body)
    assert interrupted(code, tmp_path) == (0, "")


# ---------------------------------------------------------------- pipes and disks


@POSIX
@pytest.mark.parametrize("argv", ["export long.csv --format csv", "rules convex long.csv"])
def test_nobody_reads_to_the_end(argv: str, tmp_path: Path) -> None:
    """As with ``| head``, or with a reader that is gone before the first line."""
    Schedule.from_array(np.linspace(0.5, 0.1, 100_000)).save(tmp_path / "long.csv")
    read, write = os.pipe()
    os.close(read)
    found = optsched(*argv.split(), cwd=tmp_path, stdout=write)
    os.close(write)
    assert (found.returncode, found.stderr) == (141, "")
    head = f"{' '.join(RUN)} {argv} | head -n 2"
    found = subprocess.run(
        ["sh", "-c", head], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.stdout.count("\n") == 2 and found.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("argv", ["--help", "rules ema --decay 0.9"])
def test_a_full_disk_is_one_line(argv: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        found = optsched(*argv.split(), cwd=tmp_path, stdout=full)
    assert found.returncode == 1 and found.stderr == "optsched: output: No space left on device\n"


# ---------------------------------------------------------------- what is printed


@POSIX
@pytest.mark.parametrize("columns", ["20", "60", "300"])
def test_numbers_are_whole_on_every_terminal(columns: str, tmp_path: Path) -> None:
    """A terminal of any width gets the same lines as a file."""
    import pty

    argv = ["compare", "--judge", "convex", "--horizon", "123457", "--families", "constant"]
    wide = optsched(*argv, cwd=tmp_path, env={"COLUMNS": "500"}).stdout
    assert optsched(*argv, cwd=tmp_path, env={"COLUMNS": columns}).stdout == wide
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(columns), 0, 0))
    process = subprocess.Popen([*RUN, *argv], stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert process.wait() == 0
    plain = shown.replace(b"\x1b[1m", b"").replace(b"\x1b[0m", b"").decode()
    assert plain.replace("\r\n", "\n") == wide and "…" not in wide and "123,457" in wide


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("optimal", 0.25, 1_234_567), ("名前", None, True), ("[bold]e\x1b[31m\nx", "+3 %")]
    print_table(("schedule", "rate", "n"), rows, bold=(0,))
    assert capsys.readouterr().out == (
        "schedule        rate          n\n"
        "optimal         0.25  1,234,567\n"
        "名前               -        yes\n"
        "[bold]e [31m x  +3 %\n"
    )
    print_table(("", ""), [("half life", 6.5788), ("n", 3)])
    assert capsys.readouterr().out == "half life  6.579\nn              3\n"
    print_table(("a", "b"), [])
    print_table(("", ""), [])
    assert capsys.readouterr().out == "a  b\n"
    print_table(("a", "b"), [("x", "y")], words=2)
    assert capsys.readouterr().out == "a  b\nx  y\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {
        "a": np.float64(np.nan),
        "b": [np.inf, 1.0, np.int64(2), np.bool_(True)],
        "c": np.array([[0.5, -np.inf]]),
        "d": {1: ("x", None)},
    }
    print_json(numbers)
    line = capsys.readouterr().out
    assert json.loads(line, parse_constant=lambda x: pytest.fail(x)) == {
        "a": None,
        "b": [None, 1.0, 2, True],
        "c": [[0.5, None]],
        "d": {"1": ["x", None]},
    }
    assert line.count("\n") == 1


def test_a_result_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"lr_low": 0.1, "curve": [1, 2], "unit": None, "stable": True}
    show(numbers, False, title="title [x]", notes=["note"])
    lines = ["title [x]", "lr low  0.1", "unit      -", "stable  yes", "note"]
    assert capsys.readouterr().out.splitlines() == lines
    print_lines("a", "b")
    assert capsys.readouterr().out == "a\nb\n"
    assert [percent(x) for x in (0.1234, -0.5, 1e-16, -0.0)] == ["+12.3 %", "-50 %", "+0 %", "+0 %"]


# ---------------------------------------------------------------- compiled code


def test_a_damaged_cache_heals_by_itself(tmp_path: Path) -> None:
    """Cut entries are compiled again without a word, and are whole for the next process."""
    code = (
        "from optsched.cache import use_compilation_cache\n"
        "assert use_compilation_cache() is not None\n"
        "import jax, jax.numpy as jnp\n"
        "def one(x): return jnp.sin(x) + 1.0\n"
        "def two(x): return jnp.cos(x) * 2.0\n"
        "print(jax.jit(one)(1.0) + jax.jit(two)(1.0))\n"
    )
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "OPTSCHED_NO_CACHE"):
        env.pop(name, None)

    def run() -> tuple[str, str]:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    def sizes() -> dict[str, int]:
        found = {path.name: path.stat().st_size for path in folder.glob("*-cache")}
        return {name: size for name, size in found.items() if name.startswith(("jit_one", "jit_t"))}

    folder = tmp_path / "optsched" / "jax"
    first, whole = run(), sizes()
    assert len(whole) == 2 and min(whole.values()) > 100
    for name in whole:
        (folder / name).write_bytes((folder / name).read_bytes()[: 50 if "one" in name else 0])
    assert run() == (first[0], "") == first
    again = sizes()
    assert again.keys() == whole.keys() and min(again.values()) > 100
    stamp = {name: (folder / name).stat().st_mtime_ns for name in again}
    assert run() == first
    assert stamp == {name: (folder / name).stat().st_mtime_ns for name in again}


def test_other_warnings_are_shown(tmp_path: Path) -> None:
    code = (
        "import os, warnings; os.environ['XDG_CACHE_HOME'] = os.getcwd()\n"
        "from optsched.cache import heal_cache; heal_cache(); heal_cache()\n"
        "warnings.warn('mine', stacklevel=1)\n"
        "warnings.warn(\"Error reading persistent compilation cache entry for 'gone': x\")\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "UserWarning: mine" in run.stderr and "entry for 'gone'" in run.stderr


@POSIX
@pytest.mark.slow  # where a solve is after two seconds depends on the machine
def test_signal_of_a_terminal_ends_a_solve(tmp_path: Path) -> None:
    """The real thing once: a long solve that is interrupted after it has begun."""
    argv = ["solve", "--a", "3.5", "--b", "5", "--horizon", "300", "--control", "eta,beta,nu"]
    process = subprocess.Popen(
        [*RUN, *argv], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "optsched: interrupted\n")
