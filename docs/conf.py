"""How Sphinx makes the site of these pages; CONTRIBUTING.md has the command."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "returns_pipeline"
author = "The returns_pipeline developers"
copyright = f"2026, {author}"  # noqa: A001  # Sphinx calls it so
version = release = installed("returns-pipeline")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "site_layout",
    "site_reference",
    "site_try_it",
]
exclude_patterns = ["_build"]

# Pages. A heading can be linked to, as on the forge.
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}

# The reference. `x` in a docstring is a reference, which must lead to something.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
maximum_signature_line_length = 76
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"returns_pipeline {release}"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "sidebar_hide_name": False,
    "navigation_with_keys": True,
}
