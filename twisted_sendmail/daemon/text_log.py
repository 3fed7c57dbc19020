"""What ``twistd`` writes in the foreground, to the octet, at a quarter of the cost.

Twisted's own observer computes the zone of the clock and fills in a format for each line.
What is told of every message is a line already (``relay.attempt_log``), and many of them
are of the same second.  Everything else is left to Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import ILogObserver, formatTime, textFileLogObserver
from twisted.python.components import Componentized
from zope.interface import implementer

from twisted_sendmail.relay import LINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import LogEvent


@implementer(ILogObserver)
class TextLog:
    """Writes to *file*."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._others = textFileLogObserver(file)
        self._second = -1
        self._stamp = ""

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if event.get("log_format") != LINE or "\n" in event["line"]:
            self._others(event)
            return
        second = int(event["log_time"])
        if second != self._second:
            self._stamp = formatTime(second)
            self._second = second
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        self._file.write(f"{self._stamp} [{system}] {event['line']}\n")
        self._file.flush()


def log_to(file: TextIO, application: object, options: Mapping[str, Any] | None) -> None:
    """Let *application* log to *file*, if it would log there anyhow.

    :param options: those of ``twistd``; None: something else runs it.
    """
    if options is None or not isinstance(application, Componentized):
        return
    elsewhere = options.get("logger") or options.get("syslog")
    name = options.get("logfile")
    foreground = options.get("nodaemon") if not name else name == "-"
    if foreground and not elsewhere and application.getComponent(ILogObserver) is None:  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        application.setComponent(ILogObserver, TextLog(file))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
