"""Sphinx configuration."""

from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

project = "optsched"
author = "the optsched authors"
copyright = "2026, the optsched authors"
version = release = installed_version("optsched")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without the network
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
]
html_theme = "furo"
html_title = f"optsched {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Notebooks are text; the build runs them, and an error in one is an error of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # on a machine that does much else
if find_spec("transformers") is None:  # shown, not run
    nb_execution_excludepatterns = ["notebooks/engineer.md"]
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# A source distribution may come without them.
for page in ("changelog", "contributing"):
    if not (Path(__file__).parents[1] / f"{page.upper()}.md").exists():
        exclude_patterns.append(f"{page}.md")
        suppress_warnings = ["toc.not_readable"]


def _first_paragraph(page: nodes.document) -> str:
    for paragraph in page.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.table | nodes.entry | addnodes.compact_paragraph):
            return " ".join(paragraph.astext().split())
    return ""


def _write_index_for_models(app: Sphinx, error: Exception | None) -> None:
    """llms.txt: every page with its title and first words, for readers that are programs."""
    if error is not None or app.builder.format != "html":
        return
    lines = [
        f"# {project}",
        "",
        f"> {_first_paragraph(app.env.get_doctree('index'))}",
        "",
        "## Pages",
        "",
    ]
    for name in sorted(app.env.found_docs - {"index"}):
        if not name.startswith("api/generated"):
            text = _first_paragraph(app.env.get_doctree(name))
            link = f"[{app.env.titles[name].astext()}]({app.builder.get_target_uri(name)})"
            lines.append(f"- {link}: {text}" if text else f"- {link}")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Hook of Sphinx."""
    app.connect("build-finished", _write_index_for_models)
