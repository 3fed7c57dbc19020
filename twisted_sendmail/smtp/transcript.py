"""The dialogue of one connection: bounded, redacted, kept as evidence.

It hangs on every error and report.  What may be secret is replaced by the code
that writes it down (``client_session``), so it never gets in here; content is
noted as a number of bytes only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Lines kept from the start (greeting, TLS, AUTH: what explains most failures).
HEAD = 40
#: Lines kept from the end.
TAIL = 60
#: Characters kept of a line.
WIDTH = 256


class Transcript:
    """The first :data:`HEAD` and last :data:`TAIL` lines of a dialogue.

    Lines are ``C:``, ``S:`` or ``--`` (what happened beside the dialogue) and
    the text; iterating gives them in order, ready to show.
    """

    __slots__ = ("_head", "_omitted", "_tail", "_watch")

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        """:param watch: is called with each line as it is added, ready to show."""
        self._watch = watch
        self._head: list[tuple[str, str | bytes]] = []
        self._tail: deque[tuple[str, str | bytes]] = deque(maxlen=TAIL)
        self._omitted = 0

    def add(self, who: str, line: str | bytes) -> None:
        """Note one line; *who* is ``C``, ``S`` or ``--``."""
        # Escaped only when shown: most transcripts never are.
        line = line[:WIDTH]
        if self._watch is not None:
            self._watch(_shown(who, line))
        if len(self._head) < HEAD:
            self._head.append((who, line))
            return
        if len(self._tail) == TAIL:
            self._omitted += 1
        self._tail.append((who, line))

    def __iter__(self) -> Iterator[str]:
        for who, line in self._head:
            yield _shown(who, line)
        if self._omitted:
            yield f"-- {self._omitted} lines left out"
        for who, line in self._tail:
            yield _shown(who, line)

    def __len__(self) -> int:
        return len(self._head) + len(self._tail)

    def __str__(self) -> str:
        return "\n".join(self)

    def __repr__(self) -> str:
        return f"<Transcript of {len(self) + self._omitted} lines>"


def _shown(who: str, line: str | bytes) -> str:
    return f"{who} {printable(line, WIDTH)}" if who == "--" else f"{who}: {printable(line, WIDTH)}"
