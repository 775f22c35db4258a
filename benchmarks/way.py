"""The way through the house: which modules a command enters until its result, and how often again.

``python -m benchmarks.way [solve fit plan compare export] [--list]`` runs a command under
`sys.setprofile`. A module is *entered* where a function of another module calls one of its own; the
two functions are counted once, so that a loop counts as its first round. A *return* is to enter a
module that was entered before: what a reader has left and has to come back to. The ground (errors,
checks, files, numbers, types) is where everyone walks, and does not count.

The file runs by its path with any version of the package before it: ``PYTHONPATH=OLD python
benchmarks/way.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

RUNS = "tests/data/llm-loss-curves/100M"
PILOTS = [f"{RUNS}/{name}.csv" for name in ("cosine_24000", "constant_24000", "wsdcon_9")]
PROBLEM = ["--a", "3.5", "--b", "2", "--horizon", "1000"]
COMMANDS = {
    "solve": ["solve", *PROBLEM, "--output", "{}/solved.npz"],
    "fit": ["fit", *PILOTS, "--warmup", "2160", "--law", "fsl", "--output", "{}/law.json"],
    "plan": [
        "plan",
        "--law",
        "{}/law.json",
        "--horizon",
        "3000",
        "--families",
        "cosine,linear",
        "--output",
        "{}/planned.npz",
    ],
    "compare": ["compare", *PROBLEM, "--families", "cosine", "--features", "100"],
    "export": ["export", "{}/solved.npz", "--format", "torch-snippet"],
}
# By their last names, those of today and those of the first version.
GROUND = {"errors", "checks", "arrays", "files", "numerics", "controls", "version", "cache"}
TOP = ("__init__", "cli", "__main__")


class Entry(NamedTuple):
    """One module entered from another.

    By which function, which one, how deep below the command, and whether it waits for itself: it is
    already on the way that led here.
    """

    before: str
    caller: str
    module: str
    called: str
    depth: int
    tangled: bool


class Way:
    """Entries into modules of the package, in their order, while it is active."""

    def __init__(self, home: Path, command: str) -> None:
        self.command = command
        self.home = str(home) + os.sep
        self.entries: list[Entry] = []
        self._seen: set[tuple[Any, Any]] = set()
        self._names: dict[str, str | None] = {}

    def module(self, frame: FrameType) -> str | None:
        """Name of the module of a frame; None for others than ours, for the ground and imports."""
        path = frame.f_code.co_filename
        if path not in self._names:
            inside = path.startswith(self.home)
            name = path[len(self.home) : -3].replace(os.sep, ".") if inside else None
            known = name is not None and name.split(".")[-1] not in GROUND
            self._names[path] = name if known else None
        return None if frame.f_code.co_name == "<module>" else self._names[path]

    def _caller(self, frame: FrameType) -> FrameType | None:
        """The nearest frame that counts, if it runs and does not import."""
        back = frame.f_back
        while back is not None and self.module(back) is None:
            if back.f_code.co_name == "<module>" and back.f_code.co_filename.startswith(self.home):
                return None
            back = back.f_back
        return back

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        name = self.module(frame)
        if name is None or name in TOP:
            return
        caller = self._caller(frame)
        before = self.module(caller) if caller is not None else None
        if caller is None or before is None or before == name or self._read(frame):
            return
        pair = (caller.f_code, frame.f_code)
        depth, tangled = self._above(frame)
        if pair not in self._seen and depth:
            self._seen.add(pair)
            called = frame.f_code.co_qualname
            self.entries.append(
                Entry(before, caller.f_code.co_qualname, name, called, depth, tangled)
            )

    @staticmethod
    def _read(frame: FrameType) -> bool:
        """Whether a property is read, or an object shows itself: no place to go to."""
        name = frame.f_code.co_name
        owner = type(frame.f_locals.get("self"))
        member = next((vars(one)[name] for one in owner.__mro__ if name in vars(one)), None)
        return isinstance(member, (property, cached_property))

    def _above(self, frame: FrameType) -> tuple[int, bool]:
        """How often the way has changed the module since the command's own function; 0 above it.

        And whether it comes back to a module that it has not left for good.
        """
        found, now, tangled = 0, frame, False
        while (back := self._caller(now)) is not None:
            changes = self.module(back) != self.module(now)
            found += changes
            tangled |= changes and found > 1 and self.module(back) == self.module(frame)
            if self.module(back) == f"commands.{self.command}":
                return found, tangled
            now = back
        return 0, False


def walked(argv: list[str]) -> Way:
    """The way of a command, which must end well."""
    import optsched
    from optsched.cli import main

    way = Way(Path(str(optsched.__file__)).parent, argv[0])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        sys.setprofile(way)
        try:
            code = main(argv)
        finally:
            sys.setprofile(None)
    assert not code, (argv, code)
    return way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=[*COMMANDS])
    parser.add_argument("--list", action="store_true", help="print every entry")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'command':8}  depth  modules  entered  returns  tangled  most")
        for name, argv in COMMANDS.items():
            way = walked([part.format(folder) for part in argv])
            if name not in given.commands:  # later ones may need what it wrote
                continue
            for deepest in (2, 3, 99):
                entries = [one for one in way.entries if one.depth <= deepest]
                count = Counter(one.module for one in entries)
                most = ", ".join(f"{module} {n}" for module, n in count.most_common(3))
                entered, returns = len(entries), len(entries) - len(count)
                tangled = sum(one.tangled for one in entries)
                numbers = f"{len(count):7}  {entered:7}  {returns:7}  {tangled:7}"
                print(f"{name:8}  {deepest:5}  {numbers}  {most}")
            if given.list:
                for one in way.entries:
                    mark = "  (tangled)" if one.tangled else ""
                    print(f"  {'  ' * one.depth}{one.module}.{one.called}  from {one.caller}{mark}")


if __name__ == "__main__":
    main()
