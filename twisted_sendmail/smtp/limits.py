"""Limits of lines, headers and replies that do not depend on settings.

A server's limits that can be set are in ``server_settings``. RFC 5321 section 4.5.3.1.
"""

from __future__ import annotations

# -- commands ---------------------------------------------------------------------------------

#: Octets of a command line without CRLF.  RFC 5321 section 4.5.3.1.4 requires 512, the
#: extensions add some (RFC 3461: 500 for ORCPT); a path alone may have 900 here.
MAX_COMMAND_LINE = 2048
#: Octets of a line of AUTH without CRLF (RFC 4954 section 4).
MAX_AUTH_LINE = 12_288
#: Digits of the size of a BDAT chunk; ``ServerSettings`` limits the size itself.
MAX_CHUNK_DIGITS = 19
#: Octets of a path. RFC 5321 section 4.5.3.1.3 asks servers for 256; longer paths exist, and the
#: server decides about them, but a command line must stay a line.
MAX_PATH = 900
#: Octets of a domain (RFC 5321 section 4.5.3.1.2).
MAX_DOMAIN = 255
#: Characters of ENVID (RFC 3461 section 4.4).
MAX_ENVID = 100
#: Characters of ORCPT (RFC 3461 section 4.2).
MAX_ORCPT = 500

# -- replies ----------------------------------------------------------------------------------

#: Octets of a line of a reply. RFC 5321 section 4.5.3.1.5 allows 512; extensions need more.
MAX_REPLY_LINE = 8192
#: Octets of a line with a challenge: 334, a space and base64 (RFC 4954 section 4).
MAX_CHALLENGE_LINE = 4 + MAX_AUTH_LINE
#: Octets of a reply; there are EHLO replies of 50 KB.
MAX_REPLY = 128 * 1024
#: Lines of a reply.
MAX_REPLY_LINES = 8192

# -- content ----------------------------------------------------------------------------------

#: Octets of a line without its end (RFC 5321 section 4.5.3.1.6).
MAX_TEXT_LINE = 998
#: Octets of a header section that is parsed.
MAX_HEADER = 1024 * 1024
#: Fields of a header: ten times as many as mail has.  Each costs a few µs wherever it is read.
MAX_FIELDS = 2000
#: Received fields of a header; RFC 5321 section 6.3 asks for at least 100.
MAX_HOPS = 100
