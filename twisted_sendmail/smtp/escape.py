"""Text of others, made safe to show.

Text of a server, a message or a user may hold terminal escapes, line breaks or bidirectional marks.
It is kept unchanged, and escaped once, where it is shown: in an error, a log line, a terminal. The
escaped text never goes on the wire.
"""

from __future__ import annotations

import re

#: Characters that are shown; a hostile reply may be 128 KiB long.
SHOWN = 512

# Characters that move a cursor, break a line or reorder text: C0, DEL, C1, line and paragraph
# separators, bidirectional controls, zero-width marks, the byte-order mark, lone surrogates, tags.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str | bytes, limit: int = SHOWN) -> str:
    r"""Return *text* in one line that cannot act on a terminal or forge a log line.

    :param text: bytes are decoded as UTF-8, and octets that are not UTF-8 are shown as ``\xNN``.
    :param limit: characters kept; further characters are counted.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text  # the usual case, at a fraction of the cost
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    shown = _UNSAFE.sub(_escape, text)
    return f"{shown}… ({cut} more characters)" if cut > 0 else shown
