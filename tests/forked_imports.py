"""The modules that ``tests.forked`` has ready; none of them may choose a reactor, or start a thread."""

from __future__ import annotations

import sys
from importlib import import_module

from twisted_sendmail.cli.main import SUBCOMMANDS

for _name in SUBCOMMANDS:
    import_module(f"twisted_sendmail.cli.{_name}")
for _name in (
    "twisted.application.reactors",
    "twisted.internet.endpoints",
    "twisted.internet.epollreactor",
    "twisted.internet.ssl",
    "twisted.scripts.twistd",
    "twisted_sendmail.daemon.service",
    "twisted_sendmail.daemon.tap",
):
    import_module(_name)

assert "twisted.internet.reactor" not in sys.modules
