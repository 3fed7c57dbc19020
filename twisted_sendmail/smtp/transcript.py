"""The transcript of one connection: bounded, and without secrets.

Every error and report has one. The sessions replace secrets before they add a line (see
:mod:`~twisted_sendmail.smtp.redaction`); of a content only the number of octets is added.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # One line and its side; the lines of a group and the octets of content after them; the octets
    # of a content after DATA; or replies.
    _Entry = tuple[str, str | bytes] | tuple[bytes, int] | int | tuple[Reply, ...]

#: Lines kept from the start (greeting, TLS, AUTH: they explain most failures).
HEAD_LINES = 40
#: Lines kept from the end.
TAIL_LINES = 60
#: Characters kept of a line.
LINE_WIDTH = 256
#: Octets of several lines that are kept in one entry.
_MAX_ENTRY = 1024


class Transcript:
    """The first :data:`HEAD_LINES` and the last :data:`TAIL_LINES` lines of a dialogue, in order.

    A line begins with ``C:``, ``S:`` or, for events besides the dialogue, ``--``. Iteration gives
    the lines ready to be shown. They are formatted only then, because most transcripts are never
    shown; lines that were added together are kept together.

    :param watch: called with each line as it is added, ready to be shown.
    """

    __slots__ = ("_entries", "_head", "_head_lines", "_lines", "_tail", "_watch")

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        self._watch = watch
        self._head: list[_Entry] = []
        self._head_lines = 0
        # An entry has a line at least, so the last lines are in the last entries.
        self._tail: deque[_Entry] = deque(maxlen=TAIL_LINES)
        # Takes the next entry, and is the head until that is full.
        self._entries: list[_Entry] | deque[_Entry] = self._head
        # All lines that were added.
        self._lines = 0

    def add(self, side: str, line: str | bytes) -> None:
        """Add one line of *side*, which is ``C``, ``S`` or ``--``."""
        self._keep(1, (side, line[:LINE_WIDTH]))

    def add_group(self, wire: bytes, lines: int, octets: int) -> None:
        """Add so many *lines* of the client, each with CRLF, and *octets* of content."""
        if len(wire) > _MAX_ENTRY:
            for line in wire.splitlines():
                self.add("C", line)
            if octets:
                self.add("--", _content(octets))
            return
        self._keep(lines + 1 if octets else lines, (wire, octets))

    def add_content(self, octets: int) -> None:
        """Add a content after DATA, and the dot that ends it."""
        self._keep(2, octets)

    def add_reply(self, *replies: Reply) -> None:
        """Add all lines of a reply, or of several that came together."""
        lines = characters = 0
        for _, texts in replies:
            lines += len(texts)
            for text in texts:
                characters += len(text)
        if characters <= _MAX_ENTRY:
            self._keep(lines, replies)
            return
        for reply in replies:
            for line in _reply_lines(reply):
                self.add("S", line)

    def _keep(self, lines: int, entry: _Entry) -> None:
        self._lines += lines
        self._entries.append(entry)
        if self._head_lines < HEAD_LINES:
            self._head_lines += lines
            if self._head_lines >= HEAD_LINES:
                self._entries = self._tail
        if self._watch is not None:
            for line in _shown(entry):
                self._watch(line)

    def __iter__(self) -> Iterator[str]:
        for entry in self._head:
            yield from _shown(entry)
        left_out = self._lines - len(self)
        if left_out:
            yield f"-- {left_out} lines left out"
        tail = [line for entry in self._tail for line in _shown(entry)]
        yield from tail[-TAIL_LINES:]

    def __len__(self) -> int:
        return min(self._lines, self._head_lines + TAIL_LINES)

    def __str__(self) -> str:
        return "\n".join(self)

    def __repr__(self) -> str:
        return f"<Transcript of {self._lines} lines>"


def _shown(entry: _Entry) -> list[str]:
    if isinstance(entry, int):
        return [_line("--", _content(entry)), _line("C", ".")]
    if isinstance(entry[0], Reply):
        return [_line("S", line) for reply in entry for line in _reply_lines(reply)]
    first, second = entry
    if isinstance(second, int):
        lines = [_line("C", line) for line in first.splitlines()]
        return [*lines, _line("--", _content(second))] if second else lines
    return [_line(str(first), second)]


def _line(side: str, line: str | bytes) -> str:
    text = printable(line[:LINE_WIDTH], LINE_WIDTH)
    return f"{side} {text}" if side == "--" else f"{side}: {text}"


def _reply_lines(reply: Reply) -> Iterator[str]:
    *head, last = reply.lines
    for line in head:
        yield f"{reply.code}-{line}"
    yield f"{reply.code} {last}"


def _content(octets: int) -> str:
    return f"{octets} octets of content"
