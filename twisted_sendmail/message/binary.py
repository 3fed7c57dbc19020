"""Content that has no lines: declared as binary, and not to be made canonical.

Only BDAT can carry it, and only to a server with BINARYMIME.  A message that says it is
binary but has CRLF lines all the same is like any other.

RFC 3030 section 3, RFC 2045 section 6.2.
"""

from __future__ import annotations

import re

from twisted_sendmail.message.header import MAX_HEADER

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_DECLARED = re.compile(
    rb"(?:\A|\n)content-transfer-encoding[ \t]*:[ \t]*binary[ \t]*\r?\n", re.IGNORECASE
)


def parted(octets: bytes) -> tuple[bytes, bytes] | None:
    """The header section with its empty line, and the binary body behind it.

    :returns: None when the message does not say that it is binary, or need not be.
    """
    empty_line = _EMPTY_LINE.search(octets, 0, MAX_HEADER)
    if empty_line is None or not _DECLARED.search(octets, 0, empty_line.end()):
        return None
    head, body = octets[: empty_line.end()], octets[empty_line.end() :]
    lines = body.replace(b"\r", b"").replace(b"\n", b"\r\n") == body
    return None if lines and b"\0" not in body else (head, body)
