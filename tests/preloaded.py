"""Import what the commands need, in the process that `tests.forked` forks them from.

No module here may choose a reactor, or start a thread.
"""

from __future__ import annotations

import gc
import importlib

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

from twisted_sendmail.cli.main import SUBCOMMANDS

for _name in (
    "tests.durability.forked_relay",
    "tests.queue.writer",
    "tests.scenarios.relay_process",
    "twisted.application.reactors",
    "twisted.internet.endpoints",
    "twisted.internet.epollreactor",
    "twisted.internet.ssl",
    "twisted.scripts.twistd",
    "twisted_sendmail.daemon.service",
    "twisted_sendmail.daemon.tap",
    "twisted_sendmail.queue.postgresql.queue",
    *(
        f"twisted_sendmail.cli.sendmail.{name}"
        for name in ("command", "mailq", "script", "session")
    ),
    *(f"twisted_sendmail.cli.{name}" for name in SUBCOMMANDS),
):
    importlib.import_module(_name)
# Each twistd imports all plugins.
list(getPlugins(IServiceMaker))
# The garbage collector of a forked process must not write to the pages of these objects, which would copy them.
gc.collect()
gc.freeze()
