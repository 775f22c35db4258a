"""Sphinx configuration."""

from importlib.metadata import version as installed_version
from pathlib import Path

project = "optsched"
author = "the optsched authors"
copyright = "2026, the optsched authors"
version = release = installed_version("optsched")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
html_theme = "furo"
html_title = f"optsched {version}"
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say it, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# A source distribution may come without them.
for page in ("changelog", "contributing"):
    if not (Path(__file__).parents[1] / f"{page.upper()}.md").exists():
        exclude_patterns.append(f"{page}.md")
        suppress_warnings = ["toc.not_readable"]
