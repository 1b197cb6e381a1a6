"""Sphinx builds the pages under docs/ with this; `make docs` calls it. Nothing is downloaded and no notebook is run."""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent

project = "bayesmix"
author = "The bayesmix founders"
copyright = author  # noqa: A001
version = release = version_of("bayesmix")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

# Single backticks in docstrings link where they name something that there is.
default_role = "autolink"
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc's sections say types, in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Reference by hand (`[text](page.md#heading)`) needs anchors at headings.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]

# Notebooks keep the outputs that they were committed with; tests/docs/test_notebooks.py runs them.
nb_execution_mode = "off"

html_theme = "pydata_sphinx_theme"
html_title = "bayesmix"
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2, "use_edit_page_button": False}
html_show_sourcelink = False


def bring_notebooks(app: object) -> None:
    """Copy notebooks/ to tutorials/, since Sphinx takes pages from below its own folder only."""
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        copy = HERE / "tutorials" / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copy)


def setup(app):
    app.connect("config-inited", lambda app, config: bring_notebooks(app))
