"""The header section of a message: where it ends, and whether its Received fields show a mail loop.

RFC 5322 section 2.1, RFC 5321 section 6.3 (loops).
"""

from __future__ import annotations

import re

from twisted_sendmail.smtp.reply import Reply

#: A mail loop (RFC 3463 section 3.5).
TOO_MANY_HOPS = Reply(554, ("5.4.6 Too many hops",))

_RECEIVED = re.compile(rb"\nreceived[ \t]*:")


def section_end(octets: bytes | bytearray, start: int = 0, stop: int | None = None) -> int:
    """Return where the header section ends, before the empty line; -1 if *octets* do not hold that.

    :param octets: a message from its beginning; canonical.
    :param start: where to search from, in a section that does not end before.
    :param stop: where to end the search.
    """
    if octets.startswith(b"\r\n"):
        return 0
    end = octets.find(b"\r\n\r\n", start, stop)
    return end if end < 0 else end + 2


def hop_count(header: bytes) -> int:
    """Return the number of Received fields in a header section."""
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def is_loop(hops: int, limit: int) -> bool:
    """Return True if a message with *hops* Received fields, without our own, is in a mail loop."""
    return hops > limit
