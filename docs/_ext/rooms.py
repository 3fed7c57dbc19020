"""Write one reference page a package, from the modules that there are.

A module is documented by being there: `reference/modules/` is made at each build and is in no commit.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

OURS = "twisted_sendmail"


def page(package: str) -> str:
    """The page of *package*, a dotted name: its docstring, then each of its modules."""
    room = import_module(package)
    lines = [f"# {package}", "", (room.__doc__ or "").strip(), ""]
    for module in walk_packages(room.__path__, f"{package}."):
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
    """Make the folder of generated pages; a page that did not change is left as it is."""
    folder = Path(app.srcdir) / "reference" / "modules"
    folder.mkdir(exist_ok=True)
    packages = [m.name for m in iter_modules(import_module(OURS).__path__) if m.ispkg]
    wanted = {folder / f"{name}.md": page(f"{OURS}.{name}") for name in packages}
    for old in set(folder.glob("*.md")) - set(wanted):
        old.unlink()
    for path, text in wanted.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
