"""Run a program of others with one import replaced, in the interpreter of its environment.

    python replaced_import.py MODULE PROGRAM ARGUMENTS...

MODULE is loaded from its file as if ``twisted.mail.smtp`` in it read ``twisted_sendmail.compat``; nothing
else is changed, and no file is written.  PROGRAM is a module that is run as with ``python -m``, or the
function of a command, as ``module:function``.
"""

from __future__ import annotations

import re
import runpy
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

_IMPORT = re.compile(rb"^(\s*from )twisted\.mail\.smtp( import )", re.MULTILINE)


class _Replacing(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compile the source each time: a cached file would be that of the original."""
        replaced, count = _IMPORT.subn(rb"\1twisted_sendmail.compat\2", self.get_data(self.path))
        if count == 0:
            raise ImportError(f"{fullname} does not import from twisted.mail.smtp")
        return self.source_to_code(replaced, self.path)


class Finder(MetaPathFinder):
    """Finds one module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """See ``MetaPathFinder``."""
        found = PathFinder.find_spec(fullname, path, target) if fullname == self._module else None
        if found is not None:
            found.loader = _Replacing(fullname, str(found.origin))
        return found


if __name__ == "__main__":
    _, module, program, *arguments = sys.argv
    sys.meta_path.insert(0, Finder(module))
    sys.argv = [program, *arguments]
    name, _, function = program.partition(":")
    if function:
        getattr(import_module(name), function)()
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
