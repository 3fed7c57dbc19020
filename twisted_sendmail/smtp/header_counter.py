"""The header on its way in: how long it is, and how many hops the message has behind it.

A message that goes round in circles grows a Received field each time; RFC 5321
section 6.3 has it refused at a count of 100 or so.  The header is held in memory
until it ends, and no longer than it may be.
"""

from __future__ import annotations

import re

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
            self.too_long = True
            self._header = None

    def finish(self) -> None:
        """The header, or all of the content, has ended."""
        header, self._header = self._header, None
        if header is not None:
            self.too_long = len(header) - 2 > self._limit
            self.hops = len(_RECEIVED.findall(header))
