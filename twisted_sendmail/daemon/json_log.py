"""The relay's log as one JSON object a line, besides whatever ``twistd`` writes.

Only what this package logs, so that a program that reads it finds its events and no others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    PredicateResult,
    globalLogPublisher,
    jsonFileLogObserver,
)
from zope.interface import provider

if TYPE_CHECKING:
    from pathlib import Path

    from twisted.logger import ILogObserver, LogEvent


class JsonLog:
    """Writes from :meth:`open` to :meth:`close`."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._observer: ILogObserver | None = None

    def open(self, path: Path) -> None:
        """Add to the file at *path*, which only its owner may read; close what was open.

        :raises OSError: it cannot be opened; then it is as it was before.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8")
        self.close()
        write = jsonFileLogObserver(file, recordSeparator="")
        self._file = file
        self._observer = FilteringLogObserver(write, [_ours])
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
def _ours(event: LogEvent) -> Any:
    ours = str(event.get("log_namespace", "")).startswith("twisted_sendmail")
    return PredicateResult.yes if ours else PredicateResult.no
