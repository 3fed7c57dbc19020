"""A reply: a three-digit code, lines of text, perhaps an enhanced status code.

Only values; :mod:`~twisted_sendmail.smtp.reply_parser` makes them from octets.

RFC 5321 section 4.2 (replies), RFC 2034 and RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from twisted_sendmail.smtp.escape import printable

_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:\s|\Z)")


@dataclass(frozen=True)
class EnhancedStatus:
    """``class.subject.detail``, such as 5.1.1 (RFC 3463 section 2)."""

    class_: int
    subject: int
    detail: int

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus | None:
        """Parse the code at the start of *text*; return None if there is none."""
        match = _ENHANCED.match(text)
        return _status(match[1], match[2], match[3]) if match else None

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"


@lru_cache(maxsize=256)
def _status(class_: str, subject: str, detail: str) -> EnhancedStatus:
    """Make a status; nearly all replies have one of a few."""
    return EnhancedStatus(int(class_), int(subject), int(detail))


class Reply(NamedTuple):
    """The reply to one command; a tuple, because one is made for each command of each message."""

    #: 200 to 599.
    code: int
    #: The text of each line, without code and line end; never empty. It is not escaped: show it with
    #: :func:`~twisted_sendmail.smtp.escape.printable`.
    lines: tuple[str, ...] = ("",)

    @property
    def positive(self) -> bool:
        """2yz: the command succeeded."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3yz: more is expected from the client (354, 334)."""
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        """4yz: refused; the same command may succeed later."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5yz: refused permanently."""
        return self.code >= 500

    @property
    def text(self) -> str:
        """All lines, separated by line feeds."""
        return "\n".join(self.lines)

    @property
    def enhanced(self) -> EnhancedStatus | None:
        """The enhanced status code of the first line, if its class fits the code.

        RFC 2034 section 4: the class must agree with the first digit.
        """
        match = _ENHANCED.match(self.lines[0])
        if match is None or int(match[1]) != self.code // 100:
            return None
        return _status(match[1], match[2], match[3])

    def __str__(self) -> str:
        """Return one line that is safe to show, such as ``550 5.1.1 User unknown``."""
        return f"{self.code} {printable(' / '.join(filter(None, self.lines)))}".rstrip()

    def to_bytes(self) -> bytes:
        """Return the reply as a server writes it; every line ends with CRLF.

        :raises ValueError: the code is out of range, or the text holds CR, LF or NUL.
        """
        if not 200 <= self.code < 600:
            msg = f"a reply code is 200 to 599, not {self.code}"
            raise ValueError(msg)
        for line in self.lines:
            if not line.isprintable() and any(c in line for c in "\r\n\0"):
                msg = f"the text of a {self.code} reply holds CR, LF or NUL"
                raise ValueError(msg)
        code = self.code
        *head, last = self.lines or ("",)
        text = "".join([f"{code}-{line}\r\n" for line in head]) if head else ""
        return f"{text}{code} {last}\r\n".encode("utf-8", "surrogateescape")
