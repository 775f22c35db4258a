"""A command that speaks of its options: grouped help, old spellings, errors in its own words."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from optsched.commands.page import REPORT, start_page
from optsched.commands.values import Choice
from optsched.commands.words import THEMES, old_values, old_words, theme_of
from optsched.errors import BadFile, InvalidProblem, OptschedError

__all__ = ["Command", "Failed", "Refused", "is_quiet", "spoken"]

QUIET = "optsched.quiet"
OUTPUTS = ("output", "plot", "report")
MANY = 8  # options; fewer stand in one list
# Names of arguments in Python that are called otherwise here, or are columns of files too.
ALIASES = {"overwrite": "force", "norms": "norm", "batch": "batch_size"}
COLUMNS = {"batch_size", "weight_decay"}


class Refused(click.ClickException):
    """Bad input, in the words of a command."""

    exit_code = 2


class Failed(click.ClickException):
    """What could not be done, in the words of a command."""

    exit_code = 1


class Command(click.Command):
    """A command of optsched.

    Its help groups the options by theme; options that were renamed are known by their old names;
    a path that is empty, or an output that would overwrite an input, is refused; and errors name
    options where the library names arguments. Every command can be told to be ``--quiet``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--quiet", "-q"],
                is_flag=True,
                expose_value=False,
                callback=_set_quiet,
                help="No report and no progress: files, --json, warnings, errors.",
            )
        )

    def make_parser(self, ctx: click.Context) -> Any:
        parser = super().make_parser(ctx)
        options = _by_word(self)
        for old, word in old_words(self.name or "", {*options}):
            option = options[word]
            parser.add_option(obj=option, opts=[old], dest=option.name, nargs=option.nargs)
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = list(self._renewed(args))
        ctx.meta["optsched.typed"] = [*args]
        try:
            return super().parse_args(ctx, args)
        except OptschedError as error:
            raise _refused(error, ctx) from error

    def _renewed(self, args: list[str]) -> Iterator[str]:
        """Arguments, in which an option that is two today has the name that fits its value."""
        renamed = {(old, value): new for old, value, new in old_values({*_by_word(self)})}
        for i, text in enumerate(args):
            option, equals, value = text.partition("=")
            following = value if equals else args[i + 1] if i + 1 < len(args) else ""
            yield renamed.get((option, following), option) + equals + value

    def invoke(self, ctx: click.Context) -> Any:
        try:
            self._check_paths(ctx)
            path = ctx.meta.get(REPORT)
            return super().invoke(ctx) if path is None else self._reported(ctx, path)
        except OptschedError as error:
            raise _refused(error, ctx) from error

    def _reported(self, ctx: click.Context, path: str) -> Any:
        """Run, and write what is said on one page."""
        from optsched.files import check_writable

        check_writable(path, ctx.params["force"], suffixes=(".html",))
        page = start_page(ctx)
        page.draws = True
        found = super().invoke(ctx)
        from optsched.commands.onepage import write_page

        write_page(page, _line(ctx), path, overwrite=ctx.params["force"])
        if not (page.silent or is_quiet() or ctx.params["as_json"]):
            click.echo(f"wrote {path}")
        return found

    def _check_paths(self, ctx: click.Context) -> None:
        """Refuse an empty path, and to write over what is read: that cannot be made again."""
        read: list[str] = []
        written: dict[str, str] = {}
        for parameter in self.params:
            name = str(parameter.name)
            given: Any = ctx.meta.get(REPORT) if name == "report" else ctx.params.get(name)
            if given is None or not isinstance(parameter.type, click.Path):
                continue
            paths: tuple[str, ...] = given if isinstance(given, tuple) else (given,)
            if "" in paths:
                raise InvalidProblem(name, "", "the name of a file or folder")
            if name in OUTPUTS:
                written[parameter.opts[0]] = paths[0]
            else:
                read += paths
        for option, path in written.items():
            if any(_same(path, other) for other in read):
                raise BadFile(f"{path}: is read by this command; give another file to write")
            twice = [name for name, other in written.items() if _same(path, other)]
            if twice != [option]:
                raise BadFile(f"{path}: is to hold {' and '.join(twice)}; give two files")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*THEMES, "Options")}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and row is not None:
                theme = theme_of(parameter.opts[0]) if len(self.params) > MANY else None
                rows[theme or "Options"].append((row[0], _with_names(parameter, row[1])))
        width = min(max(len(row[0]) for part in rows.values() for row in part), 28)
        for heading, part in rows.items():
            if part:
                with formatter.section(heading):
                    formatter.write_dl([(f"{word:{width}}", text) for word, text in part])


def is_quiet() -> bool:
    """Whether the command that runs was told to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def _set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[QUIET] = value


def _line(ctx: click.Context) -> str:
    """The command as it was typed."""
    return shlex.join([*ctx.command_path.split(), *ctx.meta["optsched.typed"]])


def _by_word(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their words, ``--peak``."""
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {word: option for option in options for word in option.opts}


def _with_names(option: click.Option, text: str) -> str:
    """The help of an option, with the names that it takes if it does not say them."""
    names = option.type.known if isinstance(option.type, Choice) else ()
    if all(name in text for name in names):
        return text
    told, gap, default = text.partition("  [default")
    return f"{told.rstrip()} One of {', '.join(names)}.{gap}{default}"


def _same(one: str, other: str) -> bool:
    """Whether two paths are one file."""
    if Path(one).resolve() == Path(other).resolve():
        return True
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _parameter(command: click.Command, field: str) -> click.Parameter | None:
    """The option or argument that a field of an error, an argument in Python, stands for."""
    for name in (field, ALIASES.get(field)):
        for parameter in command.params:
            words = [word.lstrip("-").replace("-", "_") for word in parameter.opts]
            if name is not None and name in (parameter.name, *words):
                return parameter
    return None


def _word(parameter: click.Parameter, ctx: click.Context) -> str:
    """An option as it was typed, an argument as the help calls it."""
    if not isinstance(parameter, click.Option):
        return parameter.human_readable_name
    word = parameter.opts[0]
    typed = {text.partition("=")[0] for text in ctx.meta.get("optsched.typed", ())}
    known = old_words(ctx.command.name or "", {*_by_word(ctx.command)})
    old = [before for before, now in known if now == word and before in typed]
    return old[0] if old and word not in typed else word


def spoken(text: str, ctx: click.Context | None = None) -> str:
    """A sentence of the library with options in place of arguments: ``points=N``, ``max_change``.

    Parameters
    ----------
    text : str
    ctx : click.Context, optional
        Of the command that speaks; the current one if not given.
    """
    context = ctx or click.get_current_context(silent=True)
    if context is None:
        return text

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        parameter = _parameter(context.command, name)
        if not isinstance(parameter, click.Option) or (not value and name in COLUMNS):
            return match[0]
        return _word(parameter, context) + (f" {value}" if value and value.isupper() else "")

    text = re.sub(r"\bcolumns=\{([^{}]*)\}", _columns, text)
    assigned = r"\b(?P<name>[a-z_]+)=(?P<value>True\b|[A-Z]\b|\.{3}|(?=[\s,;.)]|$))"
    text = re.sub(assigned, option, text)
    return re.sub(r"(?<![-\w'/.])(?P<name>[a-z]+_[a-z_]+)(?P<value>)?(?![-\w'/.=(])", option, text)


def _columns(match: re.Match[str]) -> str:
    """Names of columns as the option takes them, ``lr=NAME,loss=NAME``."""
    return "--columns " + ",".join(f"{key}=NAME" for key in re.findall(r"'(\w+)':", match[1]))


def _refused(error: OptschedError, ctx: click.Context) -> click.ClickException:
    """An error of the library as one of the command line."""
    if not isinstance(error, InvalidProblem):
        kind = Refused if isinstance(error, BadFile) else Failed
        return kind(spoken(str(error), ctx))
    parameter, value = _parameter(ctx.command, error.field), error.value
    field = error.field if parameter is None else _word(parameter, ctx)
    if value is not None and getattr(value, "ndim", None) == 0:
        value = value.item()  # np.float64(0.5) is Python's way to say 0.5
    got = "nothing" if value is None else repr(value)
    return Refused(f"{field}: got {got}, allowed: {spoken(error.allowed, ctx)}")
