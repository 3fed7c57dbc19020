"""Sphinx extension: resolve a name in a docstring or signature as its module does.

`Reply` means the class that the module imports as `Reply`, also if only for the type checker. A name of
this package becomes a link to the module that defines it. A name of the standard library or of a
dependency stays plain text, because a link would need the network. Sphinx reports all others.
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

from docutils.nodes import reference
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = "twisted_sendmail"
DEPENDENCIES = {
    "OpenSSL",
    "_pytest",
    "attrs",
    "buildbot",
    "constantly",
    "cryptography",
    "idna",
    "pytest",
    "rich",
    "scramp",
    "scrapy",
    "twisted",
    "zope",
}
FOREIGN = DEPENDENCIES | set(sys.stdlib_module_names) | set(dir(builtins))


@cache
def source(module: str) -> ast.Module:
    """Return the syntax tree of *module*, empty if it has no source."""
    spec = find_spec(module)
    text = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    return ast.parse(text)


@cache
def assigned(module: str) -> set[str]:
    """Return the names that *module* assigns, also if only for the type checker."""
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
    """Return the names that *module* defines or assigns."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return assigned(module) | {node.name for node in source(module).body if isinstance(node, kinds)}


@cache
def imported(module: str) -> dict[str, str]:
    """Return the full name of each name that *module* imports, also if only for the type checker."""
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
    """Return the dotted name of every module of the package."""
    spec = find_spec(ROOT)
    root = Path(spec.origin).parent if spec and spec.origin else Path()
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    return [".".join(path.parts).removesuffix(".__init__") for path in sorted(paths)]


def definition(full: str) -> str:
    """Follow re-exports from *full* to the module that defines the name."""
    seen: set[str] = set()
    while full not in seen:
        seen.add(full)
        module, _, name = full.rpartition(".")
        if module in modules() and name not in defined(module):
            full = imported(module).get(name, full)
    return full


def full_name(name: str, module: str) -> str:
    """Return the full name of *name* in *module*.

    The signature of an inherited method may have names that the module does not import: then the
    other modules of the package decide, if they agree.
    """
    first, dot, rest = name.partition(".")
    if first == ROOT:
        return definition(name)
    if first in imported(module):
        return definition(imported(module)[first]) + dot + rest
    if first in defined(module):
        return f"{module}.{name}"
    elsewhere = {definition(imported(each)[first]) for each in modules() if first in imported(each)}
    return (elsewhere.pop() if len(elsewhere) == 1 else first) + dot + rest


def exists(full: str) -> bool:
    """Return True if *full* is an attribute of a class or module of the package."""
    owner, _, last = full.rpartition(".")
    module, _, name = owner.rpartition(".")
    if owner in modules():
        return last in assigned(owner)
    if module not in modules():
        return False
    found = getattr(import_module(module), name, None)
    return hasattr(found, last) or last in assigned_to_self(found)


def assigned_to_self(owner: object) -> set[str]:
    """Return the attributes that the methods of a class and of its bases assign."""
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
    """Return the link for a reference; None leaves the reference to Sphinx."""
    target = node["reftarget"]
    if node.get("refdomain") != "py" or not target.replace(".", "").isidentifier():
        # For example the annotation `"tuple[A, B]"`.
        return text if "[" in target else None
    module = node.get("py:module") or ROOT
    full = full_name(target, module)
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


class ResolveReferences(SphinxPostTransform):
    """Runs before Sphinx, which takes any of two modules that define the same name."""

    default_priority = 5

    def run(self, **_: object) -> None:
        """Resolve the references to Python names."""
        for node in list(self.document.findall(pending_xref)):
            if node.get("refdomain") != "py":
                continue
            found = resolve(self.app, self.env, node, node[0].deepcopy())
            if found is not None:
                node.replace_self(found)


class PlainReferences(SphinxPostTransform):
    """Leave the text of references to other pages in manual pages, where they would end in ``<>``."""

    builders = ("man",)
    # After Sphinx has resolved them.
    default_priority = 800

    def run(self, **_: object) -> None:
        """Replace the references by their text."""
        for node in list(self.document.findall(reference)):
            if node.get("internal"):
                node.replace_self(node.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_post_transform(ResolveReferences)
    app.add_post_transform(PlainReferences)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
