"""The header on its way in: how long it is, and how many hops the message has behind it.

A message that goes round in circles grows a Received field each time; RFC 5321
section 6.3 has it refused at a count of 100 or so.  The header is held in memory
until it ends, and no longer than it may be.  It ends at the empty line, or at a line
that is no field: what has no header is all body.
"""

from __future__ import annotations

import re

# A whole line that neither is a field nor goes on with one (RFC 5322 section 2.2).
_BODY = re.compile(rb"\r\n(?![!-9;-~]+[ \t]*:|[ \t])[^\r\n]*\r\n")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)


class HeaderCounter:
    """Counts over pieces of content.

    :param limit: octets a header may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._header: bytearray | None = None
        self._over = False
        #: Received fields; known when the header has ended.
        self.hops = 0
        #: Is the header longer than it may be?
        self.too_long = False

    def feed(self, content: bytes) -> None:
        """Look at the next piece."""
        if self._over:
            return
        header = self._header
        if header is None:
            # Most headers come in one piece.
            end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n") + 2
            if end != 1 and end <= self._limit:
                self._judge(b"\r\n" + content[:end])
                return
            header = self._header = bytearray(b"\r\n")
        room = self._limit + 8 - len(header)
        start = max(0, len(header) - 3)
        header += content[:room]
        end = header.find(b"\r\n\r\n", start)
        if end >= 0:
            self._judge(bytes(header[: end + 2]))
        elif len(header) - 2 > self._limit + 2:
            # Only what is the same for any cutting is looked at.
            del header[self._limit + 2 :]
            self._judge(bytes(header), cut=True)

    def finish(self) -> None:
        """The header, or all of the content, has ended."""
        if not self._over:
            self._judge(b"\r\n" if self._header is None else bytes(self._header))

    def _judge(self, header: bytes, *, cut: bool = False) -> None:
        """Look at the header, which begins behind a CRLF.

        :param cut: it goes on.
        """
        self._over, self._header = True, None
        body = _BODY.search(header)
        if body is not None:
            # It is body after all.
            header = header[: body.start() + 2]
        self.too_long = body is None if cut else len(header) - 2 > self._limit
        if b"\nreceived" in header.lower():
            self.hops = len(_RECEIVED.findall(header))
