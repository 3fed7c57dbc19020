"""Sphinx extension: write one reference page for each package, with all of its modules.

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


def package_page(package: str) -> str:
    """Return the page of *package*, a dotted name: its docstring, then each of its modules."""
    imported = import_module(package)
    lines = [f"# {package}", "", (imported.__doc__ or "").strip(), ""]
    for module in walk_packages(imported.__path__, f"{package}."):
        if not module.ispkg:
            name = module.name
            lines += [
                f"## {name.removeprefix(f'{package}.')}",
                "",
                "```{eval-rst}",
                f".. automodule:: {name}",
                "```",
                "",
            ]
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write the pages of all packages; leave a page that did not change, and remove old ones."""
    folder = Path(app.srcdir) / "reference" / "modules"
    folder.mkdir(exist_ok=True)
    packages = [m.name for m in iter_modules(import_module(ROOT).__path__) if m.ispkg]
    pages = {folder / f"{name}.md": package_page(f"{ROOT}.{name}") for name in packages}
    for old in set(folder.glob("*.md")) - set(pages):
        old.unlink()
    for path, text in pages.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
