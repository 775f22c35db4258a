"""The house: imports run downwards and in no circle; folders and files stay small.

The graph is read from the source, so that an import inside a function, or one for the type checker
alone, counts like any other.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import optsched

HOME = Path(optsched.__file__).parent
# From the ground up; a room may import from those before it.
ROOMS = (
    *("errors", "version", "cache"),
    *("arrays", "checks", "objectives", "controls", "files", "numerics", "exponents"),
    *("model", "schedules", "optimisers", "control", "logs", "pilot", "measure", "rules"),
    *("diagnostics", "studies", "plots", "commands", "explore", "cli", "__main__"),
)
MOST_FILES = 12  # in a folder, without its face
UNIFORM = ("plots", "commands")  # lists of files of one kind, of any length
MOST_LINES = 475

Graph = dict[str, set[str]]


def name_of(file: Path, home: Path) -> str:
    parts = file.relative_to(home.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            # A module, or a name in one.
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in full]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == package)


def graph_of(home: Path) -> Graph:
    files = {name_of(file, home): file for file in home.rglob("*.py")}
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in files.items()}
    graph = {
        name: set(imported(tree, home.name, set(files))) - {name} for name, tree in trees.items()
    }
    for stub in home.rglob("__init__.pyi"):  # a face that loads its names when they are used
        name = name_of(stub, home)
        graph[name] |= {f"{name}.{module}" for module, _ in shown(stub)}
    return graph


def shown(stub: Path) -> list[tuple[str, str]]:
    """The names of a face that loads them when they are used, each with its module."""
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 1 and node.module for node in imports), stub
    return [(str(node.module), alias.name) for node in imports for alias in node.names]


def circle(graph: Graph) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def upwards(graph: Graph, rooms: tuple[str, ...] = ROOMS) -> list[str]:
    """Imports from a later room; the package's own face counts as the last."""
    floor = {room: number for number, room in enumerate(rooms)}

    def height(module: str) -> int:
        inside = module.split(".")[1:]
        return floor[inside[0]] if inside else len(floor)

    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if height(other) > height(name)
    ]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(HOME)


def test_no_circle(graph: Graph) -> None:
    assert circle(graph) is None


def test_no_import_upwards(graph: Graph) -> None:
    assert upwards(graph) == []


def test_every_room_is_known(graph: Graph) -> None:
    found = {name.split(".")[1] for name in graph if "." in name}
    assert found <= set(ROOMS)


def test_folders_are_small() -> None:
    files = Counter(file.parent for file in HOME.rglob("*.py") if file.name != "__init__.py")
    crowded = {folder.name: n for folder, n in files.items() if n > MOST_FILES}
    assert set(crowded) <= set(UNIFORM), crowded


def test_modules_are_short() -> None:
    lines = {
        file: len(file.read_text(encoding="utf-8").splitlines()) for file in HOME.rglob("*.py")
    }
    assert not {file: n for file, n in lines.items() if n >= MOST_LINES}


def test_every_folder_has_a_face_of_a_sentence() -> None:
    for folder in {file.parent for file in HOME.rglob("*.py")}:
        face = folder / "__init__.py"
        assert face.exists(), folder
        said = ast.get_docstring(ast.parse(face.read_text(encoding="utf-8")))
        assert said and said.split("\n\n")[0].endswith("."), folder


STUBS = sorted(HOME.rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: name_of(stub, HOME))
def test_names_of_a_face(stub: Path) -> None:
    """Each is there, is public where it comes from, and is no module, which would hide it."""
    face = importlib.import_module(name_of(stub, HOME))
    modules = {path.stem for path in stub.parent.iterdir()}
    for module, name in shown(stub):
        home = importlib.import_module(f"{face.__name__}.{module}")
        assert name in home.__all__, (module, name)
        assert getattr(face, name) is getattr(home, name)
        assert name not in modules
        assert name in dir(face)


@pytest.mark.parametrize("room", ["pilot", "logs", "plots", "commands", "schedules.families"])
def test_a_face_is_light(room: str) -> None:
    """A room costs what is taken from it, not all that it shows."""
    code = f"import optsched.{room}, sys; assert not {{'numpy', 'jax', 'scipy'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_readers_of_logs_are_still_known_where_they_were() -> None:
    from optsched import logs, pilot

    assert pilot.read_runs is logs.read_runs  # type: ignore[attr-defined]
    assert "read_runs" not in dir(pilot)
    with pytest.raises(AttributeError, match="read_run_s"):
        pilot.read_run_s  # type: ignore[attr-defined]


def test_the_graph_sees_what_is_hidden(tmp_path: Path) -> None:
    """Circles and imports upwards within functions and under TYPE_CHECKING are found."""
    home = tmp_path / "house"
    (home / "upper").mkdir(parents=True)
    (home / "__init__.py").write_text('"""Face."""\n')
    (home / "upper" / "__init__.py").write_text('"""Face."""\n')
    (home / "upper" / "a.py").write_text("import house.ground\n")
    ground = home / "ground.py"
    rooms = ("ground", "upper")
    ground.write_text("import os\n")
    assert circle(graph_of(home)) is None
    assert upwards(graph_of(home), rooms) == []
    for hidden in (
        "def f():\n    from house.upper import a\n",
        "def f():\n    from house.upper.a import g\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.upper.a\n",
    ):
        ground.write_text(hidden)
        found = graph_of(home)
        assert set(circle(found) or ()) == {"house.ground", "house.upper.a"}
        assert upwards(found, rooms) == ["house.ground imports house.upper.a"]
    ground.write_text("import os\n")
    (home / "upper" / "a.py").write_text("import house.upper\n")
    (home / "upper" / "__init__.pyi").write_text("from .a import g as g\n")
    assert set(circle(graph_of(home)) or ()) == {"house.upper", "house.upper.a"}
    ground.write_text("def f():\n    from house import VERSION\n")
    assert upwards(graph_of(home), rooms) == ["house.ground imports house"]
