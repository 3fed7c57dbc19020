"""Limits of a header, for everything that reads one."""

from __future__ import annotations

#: Fields of a header: ten times as many as mail has.  Whatever reads the header takes a few µs for
#: each.
MAX_FIELDS = 2000

#: Received fields of a header; RFC 5321 section 6.3 asks for at least 100.
MAX_HOPS = 100
