"""The transcript of one connection: bounded, and without secrets.

Every error and report has one. The sessions replace secrets before they add a line (see
:mod:`~twisted_sendmail.smtp.redaction`); of a content only the number of octets is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.escape import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted_sendmail.smtp.reply import Reply

    # The number of lines, and: one line and its side; the lines of a group and the octets of
    # content after them; the octets of a content after DATA; or replies.
    _Entry = (
        tuple[int, str, str | bytes]
        | tuple[int, bytes, int]
        | tuple[int, int]
        | tuple[int, tuple[Reply, ...]]
    )

#: Lines kept from the start (greeting, TLS, AUTH: they explain most failures).
HEAD_LINES = 40
#: Lines kept from the end.
TAIL_LINES = 60
#: Characters kept of a line.
LINE_WIDTH = 256
#: Octets of several lines that are kept in one entry.
_MAX_ENTRY = 1024
#: Entries that are kept until the middle ones are dropped together.
_MAX_ENTRIES = HEAD_LINES + 2 * TAIL_LINES


class Transcript:
    """The first :data:`HEAD_LINES` and the last :data:`TAIL_LINES` lines of a dialogue, in order.

    A line begins with ``C:``, ``S:`` or, for events besides the dialogue, ``--``. Iteration gives
    the lines ready to be shown. They are formatted only then, because most transcripts are never
    shown; lines that were added together are kept together.

    :param watch: called with each line as it is added, ready to be shown.
    """

    __slots__ = ("_dropped", "_entries", "_watch")

    def __init__(self, watch: Callable[[str], None] | None = None) -> None:
        self._watch = watch
        # An entry has a line at least, so the first and the last entries hold the lines to be shown.
        self._entries: list[_Entry] = []
        # Lines of the entries that were dropped after the first ones.
        self._dropped = 0

    def add(self, side: str, line: str | bytes) -> None:
        """Add one line of *side*, which is ``C``, ``S`` or ``--``."""
        self._keep((1, side, line[:LINE_WIDTH]))

    def add_group(self, wire: bytes, octets: int) -> None:
        """Add lines of the client, each with CRLF, and *octets* of content."""
        if len(wire) > _MAX_ENTRY:
            for line in wire.splitlines():
                self.add("C", line)
            if octets:
                self.add("--", _content(octets))
            return
        self._keep((wire.count(b"\n") + (octets > 0), wire, octets))

    def add_content(self, octets: int) -> None:
        """Add a content after DATA, and the dot that ends it."""
        self._keep((2, octets))

    def add_reply(self, *replies: Reply) -> None:
        """Add all lines of a reply, or of several that came together."""
        lines = characters = 0
        for _, texts in replies:
            lines += len(texts)
            for text in texts:
                characters += len(text)
        if characters <= _MAX_ENTRY:
            self._keep((lines, replies))
            return
        for reply in replies:
            for line in _reply_lines(reply):
                self.add("S", line)

    def _keep(self, entry: _Entry) -> None:
        entries = self._entries
        entries.append(entry)
        if len(entries) > _MAX_ENTRIES:
            self._dropped += sum([each[0] for each in entries[HEAD_LINES:-TAIL_LINES]])
            del entries[HEAD_LINES:-TAIL_LINES]
        if self._watch is not None:
            for line in _shown(entry):
                self._watch(line)

    def _parts(self) -> tuple[list[str], int, list[str]]:
        """Return the first lines, the number of lines left out, and the last lines."""
        first: list[str] = []
        last: list[str] = []
        for entry in self._entries[:HEAD_LINES]:
            (first if len(first) < HEAD_LINES else last).extend(_shown(entry))
        for entry in self._entries[HEAD_LINES:]:
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


def _shown(entry: _Entry) -> list[str]:
    if len(entry) == 2:
        _, given = entry
        if isinstance(given, int):
            return [_line("--", _content(given)), _line("C", ".")]
        return [_line("S", line) for reply in given for line in _reply_lines(reply)]
    _, first, second = entry
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
