"""The relay's logs: as text, on stdout or in a file, and as JSON in another file.

``log.level`` limits both. Both files are opened again on SIGHUP, for programs that rotate them.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogLevel,
    formatEvent,
    formatTime,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from zope.interface import implementer

from twisted_sendmail.relay import LINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import LogEvent

#: The levels of ``log.level``.
LEVELS = ("debug", "info", "warn", "error")


def levels_from(name: str) -> frozenset[Any]:
    """Return the level *name*, and all above it."""
    least = LogLevel.levelWithName(name)
    return frozenset(level for level in LogLevel.iterconstants() if level >= least)


def _open(path: Path) -> TextIO:
    """Open a file to append to, which only its owner may read if it is new.

    :raises OSError: the file cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace")


@implementer(ILogObserver)
class TextLog:
    """Writes what Twisted's observer would write, at a quarter of the cost.

    Twisted computes the time zone and formats each event again. The events of each message are lines
    already (``relay.LINE``), and many fall in the same second. Twisted writes all other events.

    :param file: a stream, or the path of a file to append to.
    :raises OSError: the file cannot be opened.
    """

    def __init__(self, file: TextIO | Path) -> None:
        #: The events of these levels are written.
        self.levels = levels_from("info")
        #: None: a stream that was open.
        self.path = file.absolute() if isinstance(file, Path) else None
        self._second = -1
        self._timestamp = ""
        self._use(_open(file) if isinstance(file, Path) else file)

    def _use(self, file: TextIO) -> None:
        self._file = file
        self._observe_other = textFileLogObserver(file)

    def reopen(self) -> None:
        """Open the file of this path again; a stream stays.

        :raises OSError: the file cannot be opened; then the open one stays in use.
        """
        if self.path is not None:
            before = self._file
            self._use(_open(self.path))
            before.close()

    def close(self) -> None:
        """Close the file of the path; a stream stays open."""
        if self.path is not None:
            self._file.close()

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if event.get("log_level", LogLevel.info) not in self.levels:
            return
        if event.get("log_format") != LINE or "\n" in event["line"]:
            if not _names_class_only(event):
                self._observe_other(_by_program(event))
            return
        second = int(event["log_time"])
        if second != self._second:
            self._timestamp = formatTime(second)
            self._second = second
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        self._file.write(f"{self._timestamp} [{system}] {event['line']}\n")
        self._file.flush()


def _names_class_only(event: LogEvent) -> bool:
    """Return True for a line of Twisted that names a class: of its reactor, or of a listener.

    ``listeners.listen`` writes another line for a listener.
    """
    if event.get("log_namespace") == "log_legacy":
        return " starting on " in event["log_text"]
    return str(event.get("log_format", "")).startswith("reactor class: ")


def _by_program(event: LogEvent) -> LogEvent:
    """Return an event of another program under the program's name, not that of a class in it."""
    name = str(event.get("log_namespace", ""))
    if name.startswith("twisted_sendmail") or "." not in name:
        return event
    return {**event, "log_namespace": name.partition(".")[0]}


def log_to(
    stdout: TextIO, application: object, options: Mapping[str, Any] | None
) -> TextLog | None:
    """Make *application* log by a :class:`TextLog`, to where ``twistd`` would log.

    :param options: those of ``twistd``; None: another program runs the application.
    :returns: None: the application logs by something else, as with ``--syslog`` and ``--logger``.
    :raises OSError: the file of ``--logfile`` cannot be opened.
    """
    if options is None or not isinstance(application, Componentized):
        return None
    elsewhere = options.get("logger") or options.get("syslog")
    if elsewhere or application.getComponent(ILogObserver) is not None:  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        return None
    name = options.get("logfile")
    foreground = options.get("nodaemon")
    if name == "-" and not foreground:
        return None  # twistd reports it
    in_file = name != "-" and (name or not foreground)
    log = TextLog(Path(name or "twistd.log") if in_file else stdout)
    application.setComponent(ILogObserver, log)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
    return log


@implementer(ILogObserver)
class JsonLog:
    """Writes the events of this package to a file, one JSON object a line, until :meth:`close`.

    An object has ``time``, ``level``, ``logger`` and ``message``, the fields of the event, and
    ``traceback`` for an error that was not expected.
    """

    def __init__(self) -> None:
        #: The events of these levels are written.
        self.levels = levels_from("info")
        self._file: TextIO | None = None

    def open(self, path: Path) -> None:
        """Append to the file at *path*, which only its owner may read; close the file before.

        :raises OSError: the file cannot be opened; then nothing has changed.
        """
        file = _open(path)
        self.close()
        self._file = file
        globalLogPublisher.addObserver(self)

    def close(self) -> None:
        """Write no more."""
        file, self._file = self._file, None
        if file is not None:
            globalLogPublisher.removeObserver(self)
            file.close()

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        ours = str(event.get("log_namespace", "")).startswith("twisted_sendmail")
        if self._file is not None and ours and event["log_level"] in self.levels:
            self._file.write(json_line(event))
            self._file.flush()


def json_line(event: LogEvent) -> str:
    """Return *event* as one line of JSON."""
    message = formatEvent(event)
    at = datetime.fromtimestamp(event["log_time"], timezone.utc)
    record: dict[str, Any] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event["log_level"].name,
        "logger": event["log_namespace"],
        "message": message,
    }
    failure = event.get("log_failure")
    if failure is not None:
        record["traceback"] = failure.getTraceback()
    for name, value in event.items():
        # A field that is the whole message would only repeat it.
        if not name.startswith("log_") and name not in record and value != message:
            record[name] = value
    return json.dumps(record, default=str) + "\n"
