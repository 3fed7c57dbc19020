"""Mail loops: the count of Received fields and the reply to a message with too many of them.

RFC 5321 section 6.3.
"""

from __future__ import annotations

import re

from twisted_sendmail.smtp.reply import Reply

#: A mail loop (RFC 3463 section 3.5).
TOO_MANY_HOPS = Reply(554, ("5.4.6 Too many hops",))

_RECEIVED = re.compile(rb"\nreceived[ \t]*:")


def hop_count(header: bytes) -> int:
    """Return the number of Received fields in a header section."""
    return len(_RECEIVED.findall(b"\n" + header.lower()))


def is_loop(hops: int, limit: int) -> bool:
    """Return True if a message with *hops* Received fields, without our own, is in a mail loop."""
    return hops > limit
