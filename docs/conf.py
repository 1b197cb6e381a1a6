"""Sphinx builds the pages under docs/ with this; `make docs` calls it. Nothing is downloaded and no notebook is run."""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent

project = "bayesmix"
author = "The bayesmix founders"
copyright = author
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

# The outputs that notebooks hold are shown; tests/docs/test_notebooks.py runs them.
nb_execution_mode = "off"

html_theme = "pydata_sphinx_theme"
html_title = "bayesmix"
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2, "use_edit_page_button": False}
html_show_sourcelink = False


# Every reference must lead somewhere. Those that cannot:
nitpick_ignore_regex = [
    # other libraries; their lists of names would have to be downloaded
    ("py:.*", r"(pymc|nutpie|arviz_stats|arviz_plots|xarray|pandas|numpy|sklearn)\..*"),
    # modules without a page, which docstrings name for those who read the sources
    ("py:obj", r"bayesmix\.(inference\.\w+|moments|checkpoint|diagnostics|symmetry)"),
    # parameters that have the name of a module
    ("py:obj", r"data|checkpoint"),
]


def bring_notebooks(app: object) -> None:
    """Copy notebooks/ to tutorials/, since Sphinx takes pages from below its own folder only."""
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        copy = HERE / "tutorials" / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copy)


def find_in_package(app, env, node, contnode):
    """`Fit.impute` in a module that is not the package's first: look it up as `bayesmix.Fit.impute`."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or target.startswith("bayesmix."):
        return None
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", f"bayesmix.{target}", node, contnode)


def leave_out(app, what, name, obj, skip, options):
    """Methods that scikit-learn adds to every estimator, such as `set_fit_request`; its own pages describe them."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    app.connect("missing-reference", find_in_package)
    app.connect("config-inited", lambda app, config: bring_notebooks(app))
