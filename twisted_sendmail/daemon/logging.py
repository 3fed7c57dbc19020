"""The relay's logs: as text in the foreground of ``twistd``, and as JSON in a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    PredicateResult,
    formatTime,
    globalLogPublisher,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from zope.interface import implementer, provider

from twisted_sendmail.relay import LINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from twisted.logger import LogEvent


@implementer(ILogObserver)
class TextLog:
    """Writes to *file* what Twisted's observer would write, at a quarter of the cost.

    Twisted computes the time zone and formats each event again. The events of each message are lines
    already (``relay.LINE``), and many fall in the same second. Twisted writes all other events.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._observe_other = textFileLogObserver(file)
        self._second = -1
        self._timestamp = ""

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if event.get("log_format") != LINE or "\n" in event["line"]:
            self._observe_other(event)
            return
        second = int(event["log_time"])
        if second != self._second:
            self._timestamp = formatTime(second)
            self._second = second
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        self._file.write(f"{self._timestamp} [{system}] {event['line']}\n")
        self._file.flush()


def log_to(file: TextIO, application: object, options: Mapping[str, Any] | None) -> None:
    """Make *application* log to *file* by :class:`TextLog`, if ``twistd`` would log to stdout.

    :param options: those of ``twistd``; None: another program runs the application.
    """
    if options is None or not isinstance(application, Componentized):
        return
    elsewhere = options.get("logger") or options.get("syslog")
    name = options.get("logfile")
    foreground = options.get("nodaemon") if not name else name == "-"
    if foreground and not elsewhere and application.getComponent(ILogObserver) is None:  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        application.setComponent(ILogObserver, TextLog(file))  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


class JsonLog:
    """Writes the events of this package to a file, one JSON object a line, until :meth:`close`."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._observer: ILogObserver | None = None

    def open(self, path: Path) -> None:
        """Append to the file at *path*, which only its owner may read; close the file before.

        :raises OSError: the file cannot be opened; then nothing has changed.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8")
        self.close()
        self._file = file
        self._observer = FilteringLogObserver(
            jsonFileLogObserver(file, recordSeparator=""), [_is_from_this_package]
        )
        globalLogPublisher.addObserver(self._observer)

    def close(self) -> None:
        """Write no more."""
        observer, self._observer = self._observer, None
        file, self._file = self._file, None
        if observer is not None:
            globalLogPublisher.removeObserver(observer)
        if file is not None:
            file.close()


@provider(ILogFilterPredicate)
def _is_from_this_package(event: LogEvent) -> Any:
    ours = str(event.get("log_namespace", "")).startswith("twisted_sendmail")
    return PredicateResult.yes if ours else PredicateResult.no
