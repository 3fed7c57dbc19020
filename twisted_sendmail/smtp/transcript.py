"""The dialogue of one connection: bounded, redacted, kept as evidence.

It hangs on every error and report.  What may be secret is replaced by the code
that writes it down (``client_session``), so it never gets in here; content is
noted as a number of bytes only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.escape import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted_sendmail.smtp.reply import Reply

    # How many lines, whose, and what: one line, or the lines of a group and the octets of
    # content after it, or a content of so many octets and its end, or replies.
    _Noted = tuple[int, str, "str | bytes | tuple[bytes, int] | int | list[Reply]"]

#: Lines kept from the start (greeting, TLS, AUTH: what explains most failures).
HEAD = 40
#: Lines kept from the end.
TAIL = 60
#: Characters kept of a line.
WIDTH = 256
#: Octets up to which several lines are kept as they are.
TOGETHER = 1024


class Transcript:
    """The first :data:`HEAD` and last :data:`TAIL` lines of a dialogue.

    Lines are ``C:``, ``S:`` or ``--`` (what happened beside the dialogue) and
    the text; iterating gives them in order, ready to show.
    """

    __slots__ = ("_behind", "_head", "_kept", "_room", "_tail", "_watch")

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        """:param watch: is called with each line as it is added, ready to show."""
        self._watch = watch
        self._head: list[_Noted] = []
        # Lines for which the head has room.
        self._room = HEAD
        self._tail: deque[_Noted] = deque()
        # Lines in the tail, which is trimmed now and then, and before it is shown.
        self._kept = 0
        # Lines that ever were in the tail.
        self._behind = 0

    def add(self, who: str, line: str | bytes) -> None:
        """Note one line; *who* is ``C``, ``S`` or ``--``."""
        # Escaped only when shown: most transcripts never are.
        line = line[:WIDTH]
        if self._watch is not None:
            self._watch(_shown(who, line))
        self._keep((1, who, line))

    def add_group(self, wire: bytes, octets: int) -> None:
        """Note what the client said: lines that all end with CRLF, and *octets* of content."""
        if len(wire) <= TOGETHER and not self._room and self._watch is None:
            self._keep((wire.count(b"\n") + (octets > 0), "C", (wire, octets)))
            return
        for line in wire.splitlines():
            self.add("C", line)
        if octets:
            self.add("--", _content(octets))

    def add_content(self, octets: int) -> None:
        """Note a content, and the dot that ends it."""
        if self._room or self._watch is not None:
            self.add("--", _content(octets))
            self.add("C", ".")
        else:
            self._keep((2, "C", octets))

    def add_reply(self, reply: Reply) -> None:
        """Note every line of what the server said."""
        lines = len(reply.lines)
        if lines == 1 and self._watch is None:
            self._keep((1, "S", [reply]))
            return
        if lines <= self._room and self._watch is None and sum(map(len, reply.lines)) <= TOGETHER:
            self._head.append((lines, "S", [reply]))
            self._room -= lines
            return
        *head, tail = reply.lines
        for line in head:
            self.add("S", f"{reply.code}-{line}")
        self.add("S", f"{reply.code} {tail}")

    def add_replies(self, replies: list[Reply]) -> None:
        """Note what the server said; *replies* does not change any more."""
        if (
            not self._room
            and self._watch is None
            and {1} == {len(reply.lines) for reply in replies}
        ):
            self._keep((len(replies), "S", replies))
            return
        for reply in replies:
            self.add_reply(reply)

    def _keep(self, noted: _Noted) -> None:
        if self._room:  # then it is one line
            self._head.append(noted)
            self._room -= 1
            return
        self._tail.append(noted)
        self._behind += noted[0]
        self._kept += noted[0]
        if self._kept > 2 * TAIL:
            _ = self._trimmed()

    def _trimmed(self) -> int:
        """Drop what is not shown; the lines that are left.

        What was noted together goes together, so a few more may be kept than are shown.
        """
        tail = self._tail
        kept = self._kept
        while tail and kept - tail[0][0] >= TAIL:
            kept -= tail.popleft()[0]
        self._kept = kept
        return kept

    def __iter__(self) -> Iterator[str]:
        for noted in self._head:
            yield from _lines(noted)
        kept = self._trimmed()
        shown = min(TAIL, kept)
        if self._behind > shown:
            yield f"-- {self._behind - shown} lines left out"
        surplus = kept - shown
        for noted in list(self._tail):
            yield from _lines(noted)[surplus:]
            surplus = 0

    def __len__(self) -> int:
        return HEAD - self._room + min(TAIL, self._trimmed())

    def __str__(self) -> str:
        return "\n".join(self)

    def __repr__(self) -> str:
        return f"<Transcript of {HEAD - self._room + self._behind} lines>"


def _lines(noted: _Noted) -> list[str]:
    _, who, what = noted
    if isinstance(what, int):
        return [_shown("--", _content(what)), _shown("C", ".")]
    if isinstance(what, list):
        return [_shown(who, line) for reply in what for line in _said(reply)]
    if isinstance(what, tuple):
        wire, octets = what
        lines = [_shown(who, line[:WIDTH]) for line in wire.splitlines()]
        return [*lines, _shown("--", _content(octets))] if octets else lines
    return [_shown(who, what)]


def _said(reply: Reply) -> list[str]:
    *head, tail = reply.lines
    if not head:
        return [f"{reply.code} {tail[:WIDTH]}"]
    return [line[:WIDTH] for line in (*(f"{reply.code}-{h}" for h in head), f"{reply.code} {tail}")]


def _content(octets: int) -> str:
    return f"{octets} octets of content"


def _shown(who: str, line: str | bytes) -> str:
    return f"{who} {printable(line, WIDTH)}" if who == "--" else f"{who}: {printable(line, WIDTH)}"
