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
        self._header: bytearray | None = bytearray(b"\r\n")
        #: Received fields; known when the header has ended.
        self.hops = 0
        #: Is the header longer than it may be?
        self.too_long = False

    def feed(self, content: bytes) -> None:
        """Look at the next piece."""
        header = self._header
        if header is None:
            return
        room = self._limit + 8 - len(header)
        start = max(0, len(header) - 3)
        header += content[:room]
        end = header.find(b"\r\n\r\n", start)
        if end >= 0:
            del header[end + 2 :]
            self.finish()
        elif len(header) - 2 > self._limit + 2:
            # Only what is the same for any cutting is looked at.
            del header[self._limit + 2 :]
            self.too_long = self._cut(header) is None
            self._header = None
            self._count(header)

    def finish(self) -> None:
        """The header, or all of the content, has ended."""
        header, self._header = self._header, None
        if header is not None:
            self._cut(header)
            self.too_long = len(header) - 2 > self._limit
            self._count(header)

    @staticmethod
    def _cut(header: bytearray) -> re.Match[bytes] | None:
        """Take off what is body after all."""
        body = _BODY.search(header)
        if body is not None:
            del header[body.start() + 2 :]
        return body

    def _count(self, header: bytearray) -> None:
        self.hops = len(_RECEIVED.findall(header))
