"""Resolve a name in a docstring or a signature the way its module would.

Inside a module, `Reply` is what the module imports as `Reply`, for the type checker or for all. A name of
ours becomes a link to the module that owns it. A name of the standard library or of a dependency stays
plain text, because to link it would need the network. What neither is, Sphinx reports.
"""

from __future__ import annotations

import ast
import builtins
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

OURS = "twisted_sendmail"
DEPENDENCIES = {
    "OpenSSL",
    "constantly",
    "cryptography",
    "idna",
    "rich",
    "scramp",
    "twisted",
    "zope",
}
FOREIGN = DEPENDENCIES | set(sys.stdlib_module_names) | set(dir(builtins))


@cache
def source(module: str) -> ast.Module:
    """The syntax tree of *module*; an empty one where there is no source."""
    spec = find_spec(module)
    text = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    return ast.parse(text)


@cache
def assigned(module: str) -> set[str]:
    """The names that *module* gives to something that is no class or function: aliases, type variables."""
    names: set[str] = set()
    for node in source(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@cache
def imported(module: str) -> dict[str, str]:
    """What each name that *module* imports stands for, those for the type checker included."""
    names: dict[str, str] = {}
    for node in ast.walk(source(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name
    return names


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: TextElement
) -> Element | None:
    """Answer Sphinx's question where a reference leads that it could not follow."""
    if node.get("refdomain") != "py":
        return None
    first, dot, rest = node["reftarget"].partition(".")
    module = node.get("py:module") or OURS
    full = imported(module).get(first, first) + dot + rest
    if full.partition(".")[0] in FOREIGN:
        return text
    domain = env.domains.python_domain
    known = [full] if full in domain.objects else []
    known = known or [name for name in domain.objects if name.endswith(f".{full}")]
    owners = {name for name in known if not domain.objects[name].aliased}
    if not owners and (first in assigned(module) or full.rpartition(".")[2].startswith("_")):
        return text
    if len(owners) != 1:
        return None
    (owner,) = owners
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", owner, node, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
