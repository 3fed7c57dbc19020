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

    __slots__ = ("_dropped", "_head", "_tail", "_watch")

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        self._watch = watch
        # An entry has a line at least, so these entries hold the lines to be shown, and perhaps more.
        self._head: list[_Entry] = []
        self._tail: deque[_Entry] = deque(maxlen=TAIL_LINES)
        # Lines of the entries between head and tail.
        self._dropped = 0

    def add(self, side: str, line: str | bytes) -> None:
        """Add one line of *side*, which is ``C``, ``S`` or ``--``."""
        self._keep((side, line[:LINE_WIDTH]))

    def add_group(self, wire: bytes, octets: int) -> None:
        """Add lines of the client, each with CRLF, and *octets* of content."""
        if len(wire) > _MAX_ENTRY:
            for line in wire.splitlines():
                self.add("C", line)
            if octets:
                self.add("--", _content(octets))
            return
        self._keep((wire, octets))

    def add_content(self, octets: int) -> None:
        """Add a content after DATA, and the dot that ends it."""
        self._keep(octets)

    def add_reply(self, *replies: Reply) -> None:
        """Add all lines of a reply, or of several that came together."""
        characters = 0
        for _, texts in replies:
            for text in texts:
                characters += len(text)
        if characters <= _MAX_ENTRY:
            self._keep(replies)
            return
        for reply in replies:
            for line in _reply_lines(reply):
                self.add("S", line)

    def _keep(self, entry: _Entry) -> None:
        if len(self._head) < HEAD_LINES:
            self._head.append(entry)
        else:
            tail = self._tail
            if len(tail) == TAIL_LINES:
                self._dropped += _count(tail[0])
            tail.append(entry)
        if self._watch is not None:
            for line in _shown(entry):
                self._watch(line)

    def _parts(self) -> tuple[list[str], int, list[str]]:
        """Return the first lines, the number of lines left out, and the last lines."""
        first: list[str] = []
        last: list[str] = []
        for entry in self._head:
            (first if len(first) < HEAD_LINES else last).extend(_shown(entry))
        for entry in self._tail:
            last += _shown(entry)
        return first, self._dropped + max(0, len(last) - TAIL_LINES), last[-TAIL_LINES:]

    def __iter__(self) -> Iterator[str]:
        first, left_out, last = self._parts()
        yield from first
        if left_out:
            yield f"-- {left_out} lines left out"
        yield from last

    def __len__(self) -> int:
        first, _, last = self._parts()
        return len(first) + len(last)

    def __str__(self) -> str:
        return "\n".join(self)

    def __repr__(self) -> str:
        first, left_out, last = self._parts()
        return f"<Transcript of {len(first) + left_out + len(last)} lines>"


def _count(entry: _Entry) -> int:
    """Return the number of lines that :func:`_shown` would make."""
    if isinstance(entry, int):
        return 2
    if isinstance(entry[0], Reply):
        return sum([len(texts) for _, texts in entry])
    first, second = entry
    return first.count(b"\n") + bool(second) if isinstance(first, bytes) else 1


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
