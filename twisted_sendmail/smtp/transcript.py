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

    from twisted_sendmail.smtp.reply import Reply

    _Noted = tuple[str, str | bytes | Reply]

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
        self._head: list[_Noted] = []
        self._tail: deque[_Noted] = deque(maxlen=TAIL)
        self._omitted = 0

    def add(self, who: str, line: str | bytes) -> None:
        """Note one line; *who* is ``C``, ``S`` or ``--``."""
        # Escaped only when shown: most transcripts never are.
        line = line[:WIDTH]
        if self._watch is not None:
            self._watch(_shown(who, line))
        self._keep((who, line))

    def add_reply(self, reply: Reply) -> None:
        """Note every line of what the server said."""
        if len(reply.lines) == 1 and self._watch is None:
            self._keep(("S", reply))
            return
        *head, tail = reply.lines
        for line in head:
            self.add("S", f"{reply.code}-{line}")
        self.add("S", f"{reply.code} {tail}")

    def _keep(self, noted: _Noted) -> None:
        if len(self._head) < HEAD:
            self._head.append(noted)
            return
        if len(self._tail) == TAIL:
            self._omitted += 1
        self._tail.append(noted)

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


def _shown(who: str, line: str | bytes | Reply) -> str:
    if isinstance(line, tuple):
        line = f"{line.code} {line.lines[0][:WIDTH]}"
    return f"{who} {printable(line, WIDTH)}" if who == "--" else f"{who}: {printable(line, WIDTH)}"
