"""Packages that import a name from its module on first use.

A program that needs a part of a package, such as the ``sendmail`` command, does not load the rest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of *package* (PEP 562).

    :param modules: the names to import, separated by blanks, by their module in *package*.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        # The next look-up finds it without this function.
        setattr(sys.modules[package], name, value)
        return value

    return get
