"""Sphinx: the documentation of twisted_sendmail.

Every warning is an error. The build needs no network: names of other projects are not linked.
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
    "configuration_keys",
    "package_pages",
    "references",
    "state_tables",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# A name is documented in the module that defines it, not in the packages that re-export it.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
# Programs for which the package has an extra; the environment of the documentation has none of them.
autodoc_mock_imports = ["buildbot", "scrapy"]
# Only {doctest} blocks are run here; pytest runs the examples in docstrings.
doctest_test_doctest_blocks = ""

html_theme = "furo"
html_title = f"twisted_sendmail {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# ``make man`` writes these pages to man/, where the package has them.
man_pages = [
    (f"reference/{document}", name, title, [], section)
    for document, name, title, section in (
        ("command-line", "twisted-sendmail", "submit mail, and manage the queue of a relay", 1),
        ("relay-configuration", "twisted-sendmail.toml", "configuration of the relay", 5),
    )
]
