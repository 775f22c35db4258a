"""Options: one word for one thing, old spellings, completion; errors in those words."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete

from optsched import Schedule, cli
from optsched.cli import main
from optsched.commands.command import MANY, Command, spoken
from optsched.commands.options import Choice, Grid, Number
from optsched.commands.words import THEMES, old_values, old_words, theme_of
from optsched.errors import InvalidProblem, SolveFailed
from tests.test_startup import COMMANDS

BY_NAME = {" ".join(words): command for words, command in COMMANDS}
OPTIONS = [
    pytest.param(name, option, id=f"{name} {option.opts[0]}")
    for name, command in BY_NAME.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def options_of(*kinds: type) -> list[Any]:
    """The options whose values are of some types, but for those that are only completed."""
    return [
        one
        for one in OPTIONS
        if isinstance(kind := getattr(one.values[1], "type", None), kinds)
        and not (isinstance(kind, Choice) and kind.free)
    ]


# One value that an option of each type takes, as text.
TAKEN = {Number: "7", Grid: "1.5,2", click.Path: "x.npz"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


def words_of(command: click.Command) -> set[str]:
    return {word for one in command.params if isinstance(one, click.Option) for word in one.opts}


def parsed(command: click.Command, *args: str) -> dict[str, Any]:
    context = click.Context(command, info_name=command.name)
    command.parse_args(context, [*args])
    return context.params


def a_value(option: click.Parameter) -> str:
    """A value that the option takes."""
    kind = option.type
    if isinstance(kind, Choice):
        return kind.look_up()[-1]
    return next((text for known, text in TAKEN.items() if isinstance(kind, known)), "text")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of an error, without the name of the program."""
    code = main([*argv])
    shown = capsys.readouterr()
    assert code == 2 and shown.out == "" and shown.err.count("\n") == 1, (argv, shown)
    return shown.err.removeprefix("optsched: ").rstrip("\n")


# ---------------------------------------------------------------- words


RENAMED = [
    pytest.param(name, old, word, id=f"{name} {old}")
    for name, command in BY_NAME.items()
    for old, word in old_words(str(command.name), words_of(command))
]


@pytest.mark.parametrize(("name", "old", "word"), RENAMED)
def test_old_spellings_still_work(name: str, old: str, word: str) -> None:
    command = BY_NAME[name]
    option = next(one for one in command.params if word in one.opts)
    required = ["text"] * sum(isinstance(one, click.Argument) for one in command.params)
    value = a_value(option)
    assert parsed(command, *required, old, value) == parsed(command, *required, word, value)
    assert parsed(command, *required, f"{old}={value}")[str(option.name)] is not None
    text = command.get_help(click.Context(command, info_name=command.name))
    assert not re.search(rf"{old}(?![\w-])", text)


def test_every_old_spelling_is_known() -> None:
    """Those that README and docs showed before: a list of its own, so that none is lost."""
    was = {
        "solve": "eta-max eta-min batch-size beta momentum",
        "spectrum": "eta-max batch-size window",
        "export": "momentum per-update",
        "fit": "per-step",
        "predict": "per-step",
        "plan": "momentum from-step",
        "rules lmo": "from-steps to-steps lr momentum batch",
        "rules batch": "batch from-batch lr",
        "rules ema": "batch from-batch steps window",
        "rules extend": "from-steps to-steps peak",
        "rules diffusion": "kind steps loss",
        "rules stability": "error momentum lr peak",
        "rules noise-scale": "small big batch momentum lr",
    }
    for study in ("verify", "scaling", "compute", "phase-diagram"):
        was[study] = was["solve"]
    was["compare"] = "eta-max batch-size beta momentum"
    for name, options in was.items():
        command = BY_NAME[name]
        words = words_of(command)
        known = words | {old for old, _ in old_words(str(command.name), words)}
        assert {f"--{option}" for option in options.split()} <= known, name


def test_kinds_of_momentum_by_their_old_option() -> None:
    command = BY_NAME["solve"]
    for kind in ("none", "heavy-ball", "nesterov", "qhm"):
        for args in (["--momentum", kind], [f"--momentum={kind}"], ["--optimiser", kind]):
            given = parsed(command, *args)
            assert (given["momentum"], given["beta"]) == (kind, None)
    given = parsed(command, "--momentum", "0.9", "--optimiser", "sgd")
    assert (given["momentum"], given["beta"]) == ("none", 0.9)
    assert parsed(BY_NAME["rules lmo"], "--momentum", "0.9")["momentum"] == 0.9
    assert [*old_values({"--momentum"})] == []


def test_one_thing_has_one_word() -> None:
    """The same argument in Python has the same option in every command."""
    word_of: dict[str, set[str]] = {}
    for command in BY_NAME.values():
        for option in command.params:
            if isinstance(option, click.Option):
                word_of.setdefault(str(option.name), set()).add(option.opts[0])
    for name in ("eta_max", "eta_min", "batch_size", "beta", "per_step", "horizon", "level"):
        assert len(word_of[name]) == 1, word_of[name]
    for name, command in BY_NAME.items():
        for option in command.params:
            if "--momentum" in option.opts:  # a value of beta, everywhere
                assert isinstance(option.type, Number), name
            if "--peak" in option.opts and name != "plan":
                assert isinstance(option.type, Number), name


def test_help_is_grouped_by_theme() -> None:
    for name, command in BY_NAME.items():
        shown = [one for one in command.params if isinstance(one, click.Option)]
        if len(command.params) > MANY:
            assert not [one.opts for one in shown if theme_of(one.opts[0]) is None], name
    text = BY_NAME["solve"].get_help(click.Context(BY_NAME["solve"], info_name="solve"))
    places = [
        text.index(f"\n{heading}:\n") for heading in ("The problem", "Rates", "Method", "Output")
    ]
    assert places == sorted(places)
    assert text.index("--floor") > text.index("\nRates:") > text.index("--horizon")
    known = {f"--{word}" for words in THEMES.values() for word in words.split()}
    assert known <= {word for one in BY_NAME.values() for word in words_of(one)}


def test_help_says_what_an_option_takes() -> None:
    """Every name of a short list, wherever it is written; and arguments are in the usage alone."""
    for name, command in BY_NAME.items():
        text = " ".join(command.get_help(click.Context(command, info_name=name)).split())
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.type, Choice):
                start = text.index(f" {option.opts[0]} ")
                shown = text[start : start + 500]
                assert [one for one in option.type.known if one not in shown] == [], option.opts
        assert "]..." not in text.split("--", 1)[1]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_errors_name_options(
    name: str, option: click.Option, monkeypatch: Any, capsys: Any
) -> None:
    """A field of the library, which is an argument in Python, is said as the option it is here."""
    command = BY_NAME[name]

    def fails(**_: Any) -> None:
        raise InvalidProblem(str(option.name), np.float64(0.5), "what is allowed")

    monkeypatch.setattr(command, "callback", fails)
    monkeypatch.setattr(
        command, "params", [p for p in command.params if isinstance(p, click.Option)]
    )
    assert refused(capsys, *name.split()) == f"{option.opts[0]}: got 0.5, allowed: what is allowed"


@pytest.mark.parametrize(("name", "option"), options_of(Number, Grid))
def test_what_is_no_number(name: str, option: click.Option, capsys: Any) -> None:
    line = refused(capsys, *name.split(), option.opts[0], "soon")
    assert re.fullmatch(rf"{option.opts[0]}: got 'soon', allowed: .+", line), line
    line = refused(capsys, *name.split(), option.opts[0], "1_0")
    assert line.startswith(f"{option.opts[0]}: got '1_0', allowed: "), line


@pytest.mark.parametrize(("name", "option"), options_of(Choice))
def test_what_is_no_choice(name: str, option: click.Option, capsys: Any) -> None:
    kind = option.type
    assert isinstance(kind, Choice)
    line = refused(capsys, *name.split(), option.opts[0], "magic")
    assert line == f"{option.opts[0]}: got 'magic', allowed: one of {', '.join(kind.look_up())}"


SOLVE = "solve --a 2.5 --b 2 --horizon 50 --features 50"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (f"{SOLVE} --peak 0", "--peak: got 0.0, allowed: "),
        (f"{SOLVE} --eta-max 0", "--eta-max: got 0.0, allowed: "),  # as it was typed
        (f"{SOLVE} --batch 0.5", "--batch: got 0.5, allowed: "),
        (f"{SOLVE} --momentum 1.5 --control eta", "--momentum: got 1.5, allowed: "),
        (f"{SOLVE} --max-change -1", "--max-change: got -1.0, allowed: "),
        (f"{SOLVE} --control eta,lr", "--control: got "),
        (f"{SOLVE} --floor 2", "--floor: got 2.0, allowed: "),
        ("solve --b 2 --horizon 50", "--a: got nothing, allowed: "),
        (
            "rules lmo --regime joint --lr 1 --momentum 0.9 --batch 9 --from-horizon 10",
            "--to-horizon: got nothing",
        ),
        ("rules batch --from-batch 0 --to-batch 2 --lr 1", "--from-batch: got 0.0, allowed: "),
        ("rules batch --from-batch 1 --batch 0 --lr 1", "--batch: got 0.0, allowed: "),
        ("rules batch --from-batch 1 --to-batch 2 --lr 1 --rule sgd", "--noise-scale: got nothing"),
        ("rules diffusion --schedule edm --levels 9 --sigma-min 90", "--sigma-max: got 80.0"),
        ("rules diffusion --schedule linear --levels 20", "--levels: got 20, allowed: at least 21"),
        ("rules extend --from-horizon 100 --to-horizon 50", "--to-horizon: got 50.0, allowed: "),
        (
            "rules cooldown --horizon 9 --from-cooldown 3 --to-cooldown 1",
            "--from-cooldown: got 3.0",
        ),
        ("rules ema --decay 0.5 --window 3", "options: got '--decay and --window', allowed: "),
        ("rules convex in.npz --norm 0", "--norm: got 0.0, allowed: "),
        ("verify in.npz --a 2 --b 2 --horizon 9", "--horizon: got 9"),
        ("export in.npz --format csv --points 1", "--points: got 1.0, allowed: "),
        ("export in.npz --format csv --per-update 0.5", "--per-update: got 0.5, allowed: "),
        ("export in.npz --format csv --momentum ignore", "--momentum: got 'ignore', allowed: none"),
        ("export in.npz", "--format: got nothing, allowed: one of torch-snippet"),
        ("compare --judge convex --horizon 9 --eta-max 3", "--eta-max: got 3.0, allowed: none"),
        ("scaling --a 2 --b 2 --horizons 10:5:3", "--horizons: got '10:5:3', allowed: LOW below"),
        ("scaling --a 2 --b 2 --horizons 1e2,1e3 --schedule nine", "--schedule: got 'nine'"),
        ("phase-diagram --a 1.5,2 --b 1.5:1:3 --output d", "--b: got '1.5:1:3', allowed: LOW"),
        ("predict cosine --law law.json --peak -2", "--peak: got -2.0, allowed: "),
        ("plan --law law.json --horizon 0.5", "--horizon: got 0.5, allowed: a whole number"),
        ("fit", "RUNS: got 'none', allowed: "),
        ("reproduce fig9 --output d", "FIGURE: got 'fig9', allowed: one of fig1b"),
        ("spectrum a.npy", "files: got 'a.npy', allowed: FEATURES and TARGETS"),
        ("solve --peek 1", "No such option"),
    ],
)
def test_bad_input_in_the_words_of_the_command(argv: str, line: str, capsys: Any) -> None:
    Schedule.from_array(np.linspace(0.5, 0.1, 20)).save("in.npz")
    told = refused(capsys, *argv.split())
    assert told.startswith(line), told
    said = told.split(", allowed: ")[-1]
    names = {str(p.name) for command in BY_NAME.values() for p in command.params}
    python = {name for name in names if "_" in name} - {"batch_size", "weight_decay"}
    assert not python & set(re.findall(r"\w+", said)), told


def test_sentences_of_the_library_name_options(capsys: Any, monkeypatch: Any) -> None:
    context = click.Context(BY_NAME["solve"], info_name="solve")
    said = {
        "pass points=N or use .json": "pass --points N or use .json",
        "a file exists; pass overwrite=True": "a file exists; pass --force",
        "shooting with max_change": "shooting with --max-change",
        "eta_max is above, by eta_min": "--peak is above, by --floor",
        "a schedule with batch_size": "a schedule with batch_size",  # a column
        "my_max_change.npz: no": "my_max_change.npz: no",
        "'max_change': what was written": "'max_change': what was written",
        "horizon of a problem": "horizon of a problem",
    }
    for python, words in said.items():
        assert spoken(python, context) == words
    assert spoken("pass points=N") == "pass points=N"  # no command speaks

    def fails(**_: Any) -> None:
        raise SolveFailed("no; try a larger eta_max, or tol=...")

    monkeypatch.setattr(BY_NAME["solve"], "callback", fails)
    assert main(["solve"]) == 1
    assert capsys.readouterr().err == "optsched: no; try a larger --peak, or --tol\n"


# ---------------------------------------------------------------- paths


PATHS = [
    pytest.param(name, option, id=f"{name} {option.opts[0]}")
    for name, command in BY_NAME.items()
    for option in command.params
    if isinstance(option.type, click.Path) and isinstance(option, click.Option)
]


def _arguments(command: click.Command) -> list[str]:
    return ["in.npz"] * sum(isinstance(one, click.Argument) for one in command.params)


@pytest.mark.parametrize(("name", "option"), PATHS)
def test_an_empty_path_is_refused(name: str, option: click.Option, capsys: Any) -> None:
    figure = ["fig2"] if name == "reproduce" else _arguments(BY_NAME[name])
    told = refused(capsys, *name.split(), *figure, option.opts[0], "")
    assert told == f"{option.opts[0]}: got '', allowed: the name of a file or folder"


def test_an_empty_input_is_refused(capsys: Any) -> None:
    assert refused(capsys, "export", "", "--format", "csv").startswith("FILE: got ''")
    assert refused(capsys, "fit", "a.csv", "").startswith("RUNS: got ''")


@pytest.mark.parametrize(
    "argv",
    [
        "export {} --output in.npz --format csv",
        "fit in.npz {} --output in.npz",
        "predict {} --law law.json --output in.npz",
        "plan --law {} --horizon 9 --output in.npz",
        "plan --law law.json --history {} --horizon 9 --output in.npz",
        "rules stability --trace {} --output in.npz",
        "rules convex {} --plot in.npz",
        "spectrum {} targets.npy --horizon 9 --output in.npz",
        "dashboard {} --plot in.npz",
    ],
)
@pytest.mark.parametrize("spelling", ["in.npz", "./in.npz", "link.npz", "hard.npz"])
def test_an_input_is_never_written_over(argv: str, spelling: str, capsys: Any) -> None:
    Path("in.npz").write_bytes(b"precious")
    Path("link.npz").symlink_to("in.npz")
    os.link("in.npz", "hard.npz")
    told = refused(capsys, *argv.format(spelling).split(), "--force")
    assert told == "in.npz: is read by this command; give another file to write"
    assert Path("in.npz").read_bytes() == b"precious"


def test_two_outputs_are_two_files(capsys: Any) -> None:
    told = refused(capsys, *SOLVE.split(), "--output", "x.json", "--plot", "./x.json")
    assert told == "x.json: is to hold --output and --plot; give two files"
    assert [*Path().iterdir()] == []


# ---------------------------------------------------------------- completion


def completed(*words: str) -> list[str]:
    """What the shell is offered for the last word."""
    complete = ShellComplete(cli.cli, {}, "optsched", "_OPTSCHED_COMPLETE")
    return [item.value for item in complete.get_completions([*words[:-1]], words[-1])]


def test_completion_of_commands_options_and_values() -> None:
    assert completed("pha") == ["phase-diagram"]
    assert completed("rules", "st") == ["stability"]
    assert {"lmo", "ema", "noise-scale"} <= {*completed("rules", "")}
    assert completed("solve", "--method", "") == ["pontryagin", "collocation", "shooting"]
    assert completed("solve", "--optimiser", "n") == ["nesterov"]
    assert completed("solve", "--control", "eta,b") == ["eta,beta", "eta,batch"]
    assert completed("solve", "--control", "beta,b") == ["beta,batch"]
    assert completed("export", "x", "--format", "t") == ["torch-snippet"]
    assert "wsd_sqrt" in completed("compare", "--families", "cosine,wsd")[0:9] or any(
        name.endswith("wsd_sqrt") for name in completed("compare", "--families", "cosine,wsd")
    )
    assert {"cosine", "constant"} <= {*completed("predict", "co")}
    assert "optimal" in completed("scaling", "--schedule", "o")
    assert "--peak" in completed("solve", "--pe")
    assert completed("solve", "--eta") == []  # old spellings are not offered
    files = ShellComplete(cli.cli, {}, "optsched", "").get_completions(["verify"], "sch")
    assert [(item.type, item.value) for item in files] == [("file", "sch")]


def test_every_name_that_an_option_takes_is_completed() -> None:
    for name, command in BY_NAME.items():
        for option in command.params:
            if isinstance(option, click.Option) and isinstance(option.type, Choice):
                names = {*option.type.look_up()}
                assert names <= {*completed(*name.split(), option.opts[0], "")}, option.opts


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_in_a_shell(shell: str) -> None:
    """The script that the shell reads, and what it asks for then."""
    run = [sys.executable, "-m", "optsched.cli"]
    env = os.environ | {"_OPTSCHED_COMPLETE": f"{shell}_source"}
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash")
    script = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout
    assert "_OPTSCHED_COMPLETE=" in script and "optsched" in script
    env |= {"_OPTSCHED_COMPLETE": f"{shell}_complete", "COMP_WORDS": "optsched solve --method c"}
    env["COMP_CWORD"] = "c" if shell == "fish" else "3"
    if shell == "fish":
        env["COMP_WORDS"] = "optsched solve --method"
    asked = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout
    assert "collocation" in asked and "shooting" not in asked


def test_choices_are_those_of_the_library() -> None:
    from typing import get_args, get_type_hints

    from optsched.logs.options import Unit
    from optsched.measure.exponents import KINDS
    from optsched.pilot.laws import LAWS
    from optsched.pilot.laws.norm import OPTIMISERS as ADAPTIVE
    from optsched.rules.batch.scaling import RULES
    from optsched.rules.diffusion.capacity import WEIGHTS
    from optsched.rules.diffusion.schedules import FORMS
    from optsched.rules.diffusion.schedules import KINDS as NOISE
    from optsched.rules.lmo.bound import EXPONENTS
    from optsched.rules.precision import FORMATS as PRECISIONS
    from optsched.rules.stability import OPTIMISERS, UpdateRule
    from optsched.studies.figures import FIGURES
    from optsched.studies.finders import SCHEDULES

    def names(command: str, word: str) -> list[str]:
        option = next(one for one in BY_NAME[command].params if word in (*one.opts, one.name))
        assert isinstance(option.type, Choice)
        return sorted(option.type.look_up())

    convention = get_args(get_type_hints(UpdateRule)["convention"])
    told = {
        ("reproduce", "figure"): [*FIGURES, "all"],
        ("scaling", "--schedule"): SCHEDULES,
        ("fit", "--law-name"): LAWS,
        ("fit", "--optimiser"): ADAPTIVE,
        ("fit", "--unit"): get_args(Unit),
        ("spectrum", "--kind"): KINDS,
        ("rules batch", "--rule"): RULES,
        ("rules precision", "--dtype"): PRECISIONS,
        ("export", "--dtype"): PRECISIONS,
        ("rules diffusion", "--weighting"): WEIGHTS,
        ("rules diffusion", "--schedule"): NOISE,
        ("rules diffusion", "--form"): FORMS,
        ("rules lmo", "--regime"): {regime for regime, _ in EXPONENTS},
        ("rules stability", "--optimiser"): OPTIMISERS,
        ("rules stability", "--convention"): convention,
    }
    for (command, word), expected in told.items():
        assert names(command, word) == sorted(expected), word


def test_every_command_is_ours() -> None:
    assert all(isinstance(command, Command) for command in BY_NAME.values())


def test_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing but files, JSON, warnings and errors; the same file as otherwise."""
    assert all("--quiet" in one.params[-1].opts for one in BY_NAME.values())
    solve = ["solve", "--a", "3.5", "--b", "2", "--horizon", "30", "--output"]
    for name, extra in (("loud.csv", []), ("quiet.csv", ["-q"])):
        assert cli.main([*solve, str(tmp_path / name), *extra]) == 0
        told = capsys.readouterr()
        assert not told.err and bool(told.out) == (not extra)
    loud, quiet = (Schedule.load(tmp_path / name) for name in ("loud.csv", "quiet.csv"))
    np.testing.assert_array_equal(loud.eta, quiet.eta)
    assert cli.main([*solve[:-1], "--json", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith('{"a": 3.5')
    assert cli.main([*solve, str(tmp_path / "loud.csv"), "-q"]) == 2
    assert "exists already" in capsys.readouterr().err
