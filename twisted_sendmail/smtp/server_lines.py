"""Octets from the client, cut into command lines.

A line ends with CRLF and nothing else.  One that holds another CR or LF, or is too
long, is refused once, as soon as that is certain, and read on to its CRLF: so any
cutting of the octets gives the same lines, and no half of a line is ever obeyed.

RFC 5321 sections 2.3.8 and 4.5.3.1.4.
"""

from __future__ import annotations

import re

from twisted_sendmail.smtp.command_parser import TOO_LONG
from twisted_sendmail.smtp.reply import Reply

_BARE = re.compile(rb"\n|\r")
_BAD_LINE_END = Reply(500, ("5.5.2 A line ends with CRLF, and holds no other CR or LF",))


class LineBuffer:
    """What has arrived and is not yet read."""

    def __init__(self) -> None:
        #: The octets; content is taken from here directly.
        self.octets = bytearray()
        self._skipping = False

    def take(self, limit: int) -> bytes | Reply | None:
        """One line without CRLF, or the refusal of one; None when more octets are needed.

        :param limit: octets a line may have.
        """
        end = self.octets.find(b"\r\n")
        if 0 <= end <= limit and not self._skipping:
            line = bytes(self.octets[:end])
            if b"\n" not in line and b"\r" not in line:
                del self.octets[: end + 2]
                return line
        return self._take_with_care(limit)

    def _take_with_care(self, limit: int) -> bytes | Reply | None:
        while True:
            end = self.octets.find(b"\r\n")
            whole = end >= 0
            if not whole:
                # A CR at the end may be half of a CRLF.
                end = len(self.octets) - self.octets.endswith(b"\r")
            fault: Reply | None = None
            if _BARE.search(self.octets, 0, min(end, limit + 1)):
                fault = _BAD_LINE_END
            elif end > limit:
                fault = TOO_LONG
            if not (whole or fault or self._skipping):
                return None
            line = bytes(self.octets[:end])
            del self.octets[: end + 2 if whole else end]
            skipped, self._skipping = self._skipping, not whole
            if not skipped:
                return fault or line
            if not whole:
                return None
