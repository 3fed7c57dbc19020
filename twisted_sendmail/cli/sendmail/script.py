"""The entry point of the script: what has to be done before anything is imported."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def console() -> NoReturn:
    """Run the command; garbage collection and the interpreter's clean-up would take a fifth of its time."""
    gc.disable()
    import signal

    from twisted_sendmail.cli.output import finish
    from twisted_sendmail.cli.sendmail.command import main
    from twisted_sendmail.cli.sendmail.message import as_utf8

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    os._exit(finish(main([as_utf8(word) for word in sys.argv])))
