"""A report to send: what a command said, its figures and its numbers in one file of HTML."""

from __future__ import annotations

import html
import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from optsched.commands.page import Page, Sentences, Table
from optsched.files import PathLike, atomic_path
from optsched.version import installed

__all__ = ["one_page", "write_page"]

LIBRARIES = ("numpy", "scipy", "jax", "casadi", "matplotlib")
MOST_ITEMS = 12  # of a list that is shown whole; the file has the rest
MOST_LEADING = 3  # sentences above the figures
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1a1d21; --soft: #5b636d; --line: #d9dde3;
  --box: #f6f7f9; --warn: #fff4de; --warn-text: #5c3d00; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --text: #e8eaed; --soft: #a3abb5;
  --line: #363c43; --box: #1d2125; --warn: #3a2f16; --warn-text: #ffdf9e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 1rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p, li { overflow-wrap: anywhere; } p { margin: .4rem 0; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  padding: .4rem; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; max-height: 560px; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: right; padding: .22rem .9rem .22rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th.word, td.word { text-align: left; } th { color: var(--soft); font-weight: 500; }
tr.bold td { font-weight: 600; }
.numbers td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.numbers th { text-align: left; }
.warning { background: var(--warn); color: var(--warn-text); padding: .4rem .7rem;
  border-radius: 6px; }
.soft { color: var(--soft); font-size: .88rem; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; }
  details:not([open]) { display: none; } .figures { grid-template-columns: 1fr 1fr; }
  tr { break-inside: avoid; } }
"""


def write_page(page: Page, command: str, path: PathLike, *, overwrite: bool = False) -> None:
    """Write `one_page` as a whole or not at all.

    Raises
    ------
    BadFile
        The file exists and is not to be overwritten, or cannot be written.
    """
    text = one_page(page, command)
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def one_page(page: Page, command: str) -> str:
    """What a command said as one file of HTML, which loads nothing.

    Parameters
    ----------
    page : Page
        With the object of ``--json`` as its numbers: they stand in a table, and whole in an element
        ``<script type="application/json" id="numbers">``.
    command : str
        The command as it was typed.
    """
    title = html.escape(" ".join(word for word in command.split()[:2]))
    first, rest = _first(page)
    parts = [
        f"<h1>{title}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in first),
        *_warnings(page.warnings),
        *_figures(page.figures),
        "<h2>Result</h2>" if rest else "",
        *(_block(block) for block in rest),
        "<h2>Command</h2>",
        f"<pre>{html.escape(command)}</pre>",
        "<h2>Numbers</h2>",
        _numbers(page.numbers),
        f'<p class="soft">{html.escape(_versions())}</p>',
        f'<script type="application/json" id="numbers">{_json(page.numbers)}</script>',
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _first(page: Page) -> tuple[tuple[str, ...], list[Sentences | Table]]:
    """The sentences before the first table, which say what it is about, and the rest."""
    first = page.blocks[0] if page.blocks else None
    if isinstance(first, Sentences) and len(first.lines) <= MOST_LEADING:
        return first.lines, page.blocks[1:]
    return (), page.blocks


def _warnings(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield f'<p class="warning">warning: {html.escape(line)}</p>'


def _figures(figures: list[Any]) -> Iterator[str]:
    if not figures:
        return
    from optsched.plots.panels import panels

    yield '<div class="figures">'
    for figure in figures:
        for image in panels(figure):
            yield f"<figure>{image}</figure>"
    yield "</div>"


def _block(block: Sentences | Table) -> str:
    if isinstance(block, Sentences):
        lines = (html.escape(line) for line in block.lines)
        return "".join(
            f'<p class="warning">{line}</p>' if line.startswith("warning: ") else f"<p>{line}</p>"
            for line in lines
            if not line.startswith("wrote ")
        )
    rows = []
    if any(block.titles):
        rows.append(f"<thead>{_row(block.titles, block.words, 'th')}</thead>")
    rows.append("<tbody>")
    for number, row in enumerate(block.rows):
        kind = ' class="bold"' if number in block.bold else ""
        rows.append(_row(row, block.words, "td", kind))
    return f'<div class="scroll"><table>{"".join(rows)}</tbody></table></div>'


def _row(cells: tuple[str, ...], words: int, tag: str, kind: str = "") -> str:
    made = (
        f"<{tag}{' class=word' if i < words else ''}>{html.escape(cell)}</{tag}>"
        for i, cell in enumerate(cells)
    )
    return f"<tr{kind}>{''.join(made)}</tr>"


def _numbers(numbers: dict[str, Any]) -> str:
    """Every number that stands alone, exactly as JSON has it; longer lists by their length."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(value)}</td></tr>'
        for key, value in _flat("", numbers)
    )
    return (
        "<details><summary>All numbers as <code>--json</code> prints them</summary>"
        f'<div class="scroll"><table class="numbers"><tbody>{rows}</tbody></table></div></details>'
    )


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Rows of a table: the path of a value, and the value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else key, item)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        if len(value) <= MOST_ITEMS:
            for number, item in enumerate(value):
                yield from _flat(f"{name}.{number}", item)
        else:
            yield name, f"{len(value)} entries, in the source of this page"
    elif isinstance(value, list) and len(value) > MOST_ITEMS:
        yield name, f"{len(value)} values, in the source of this page"
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(numbers: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(numbers).replace("<", "\\u003c").replace(">", "\\u003e")


def _versions() -> str:
    """Which optsched on which Python with which libraries, and when."""
    others = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"optsched {installed()}, Python {platform.python_version()}, {others}; {made}"
