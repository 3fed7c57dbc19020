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
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

OURS = "twisted_sendmail"
DEPENDENCIES = {
    "OpenSSL",
    "_pytest",
    "constantly",
    "cryptography",
    "idna",
    "pytest",
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
    """The names that *module* gives to something that is no class or function: aliases, type variables.

    Those for the type checker included.
    """
    names: set[str] = set()
    body = list(source(module).body)
    for node in source(module).body:
        body += node.body if isinstance(node, ast.If) else []
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@cache
def defined(module: str) -> set[str]:
    """The names of the classes and functions of *module*, and those it assigns."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return assigned(module) | {node.name for node in source(module).body if isinstance(node, kinds)}


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


@cache
def modules() -> list[str]:
    """Every module of ours, by its dotted name."""
    spec = find_spec(OURS)
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    return [".".join(path.parts).removesuffix(".__init__") for path in sorted(paths)]


def owned(full: str) -> str:
    """The full name of *full* in the module that defines it: packages re-export their modules' names."""
    module, _, name = full.rpartition(".")
    while module in modules() and name not in defined(module) and name in imported(module):
        full = imported(module)[name]
        module, _, name = full.rpartition(".")
    return full


def meant(name: str, module: str) -> str:
    """The full name of what *module* calls *name*.

    An inherited method is shown in a module that need not import what its signature names: then it
    is what our other modules mean by it, if they agree.
    """
    first, dot, rest = name.partition(".")
    if first == OURS and rest in imported(OURS):
        return owned(imported(OURS)[rest])
    if first in imported(module):
        return owned(imported(module)[first]) + dot + rest
    if first in defined(module):
        return f"{module}.{name}"
    elsewhere = {owned(imported(each)[first]) for each in modules() if first in imported(each)}
    return (elsewhere.pop() if len(elsewhere) == 1 else first) + dot + rest


def exists(full: str) -> bool:
    """Is *full* an attribute of a class or module of ours?  One that is inherited has no page."""
    owner, _, last = full.rpartition(".")
    module, _, name = owner.rpartition(".")
    if owner in modules():
        return last in assigned(owner)
    if module not in modules():
        return False
    found = getattr(import_module(module), name, None)
    return hasattr(found, last) or last in given_to_self(found)


def given_to_self(owner: object) -> set[str]:
    """The attributes that the methods of the class *owner*, and of its bases, give to ``self``."""
    names: set[str] = set()
    for each in owner.__mro__ if isinstance(owner, type) else ():
        if each.__module__ in modules():
            names |= {
                node.attr
                for node in ast.walk(source(each.__module__))
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }
    return names


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: TextElement
) -> Element | None:
    """Answer Sphinx's question where a reference leads."""
    target = node["reftarget"]
    if node.get("refdomain") != "py" or not target.replace(".", "").isidentifier():
        # A string in an annotation, `"tuple[A, B]"`, is no name.
        return text if "[" in target else None
    module = node.get("py:module") or OURS
    full = meant(target, module)
    inside = f"{module}.{node.get('py:class')}.{target}"
    if "." not in target and node["reftype"] in {"meth", "attr"} and exists(inside):
        full = inside
    if full.partition(".")[0] in FOREIGN:
        return text
    domain = env.domains.python_domain
    known = [full] if full in domain.objects else []
    known = known or [name for name in domain.objects if name.endswith(f".{full}")]
    owners = {name for name in known if not domain.objects[name].aliased}
    if len(owners) == 1:
        (owner,) = owners
        return domain.resolve_xref(
            env, node.get("refdoc", env.docname), app.builder, "obj", owner, node, text
        )
    if not owners and (exists(full) or full.rpartition(".")[2].startswith("_")):
        return text
    return None


class First(SphinxPostTransform):
    """Asks us before Sphinx, which takes a name that two modules have for either of them."""

    default_priority = 5

    def run(self, **_: object) -> None:
        """Resolve what can be; the rest is for Sphinx."""
        for node in list(self.document.findall(pending_xref)):
            if node.get("refdomain") != "py":
                continue
            found = resolve(self.app, self.env, node, node[0].deepcopy())
            if found is not None:
                node.replace_self(found)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_post_transform(First)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
