"""Sphinx extension: write one reference page for each package, with all of its modules, and each module.

The pages are written to ``reference/modules/`` at each build and are not in the repository.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = "twisted_sendmail"


def _documented(module: str) -> list[str]:
    return ["```{eval-rst}", f".. automodule:: {module}", "```", ""]


def page(name: str, *, package: bool) -> str:
    """Return the page of *name*, dotted: a module, or a package and then each of its modules."""
    lines = [f"# {name}", ""]
    if not package:
        return "\n".join(lines + _documented(name))
    imported = import_module(name)
    lines += [(imported.__doc__ or "").strip(), ""]
    for module in walk_packages(imported.__path__, f"{name}."):
        if not module.ispkg:
            lines += [f"## {module.name.removeprefix(f'{name}.')}", "", *_documented(module.name)]
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write all pages; leave a page that did not change, and remove old ones."""
    folder = Path(app.srcdir) / "reference" / "modules"
    folder.mkdir(exist_ok=True)
    pages = {
        folder / f"{module.name}.md": page(f"{ROOT}.{module.name}", package=module.ispkg)
        for module in iter_modules(import_module(ROOT).__path__)
    }
    for old in set(folder.glob("*.md")) - set(pages):
        old.unlink()
    for path, text in pages.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
