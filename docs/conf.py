"""Sphinx: the documentation of twisted_sendmail.

Built with every warning as an error. It needs no network: names of other projects stay plain text.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "twisted_sendmail"
author = "The twisted_sendmail authors"
copyright = f"2026, {author}"
version = release = installed("twisted_sendmail")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "names",
    "rooms",
    "transitions",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# A name has one page, that of the module that owns it, whoever else lists it in __all__.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
# Doctests are written with {doctest}; what looks like one inside a plain block is only shown. Those of docstrings
# are run by pytest, in their modules.
doctest_test_doctest_blocks = ""

html_theme = "furo"
html_title = f"twisted_sendmail {release}"
html_show_sphinx = False
