"""Replies from the octets of the server: bounded, in linear time, with any cutting.

A reply is complete with its last line. Octets that cannot be a reply are a breach of protocol at the
first wrong octet, not only at a line end or a timeout.

RFC 5321 section 4.2. A line may also end with a bare LF, as some servers write.
"""

from __future__ import annotations

import re
from functools import lru_cache

from twisted_sendmail.smtp.errors import ProtocolBreach
from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.limits import (
    MAX_CHALLENGE_LINE,
    MAX_REPLY,
    MAX_REPLY_LINE,
    MAX_REPLY_LINES,
)
from twisted_sendmail.smtp.reply import Reply

#: Octets of a reply of one line that is remembered: servers repeat a few replies.
KNOWN_LINE = 80
#: Octets of an EHLO reply that is remembered: a server gives the same to each connection.
KNOWN_LINES = 4096

# A line without its end, and what the first four octets of an unfinished one can be.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL).fullmatch
_BEGINNING = re.compile(rb"(?:[2-5](?:[0-9](?:[0-9][ -]?)?)?)?").fullmatch


class ReplyParser:
    """Parses the octets that are fed; after :attr:`breach` is set it parses no more."""

    __slots__ = ("_code", "_lines", "_octets", "_rest", "breach", "pending", "quoting")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._code = b""
        self._octets = 0
        #: There is an unfinished reply.
        self.pending = False
        #: The breach of protocol, or None.
        self.breach: ProtocolBreach | None = None
        #: :attr:`breach` may quote the wrong octets.
        self.quoting = True

    @property
    def unfinished(self) -> bytes:
        """The octets of a reply that is not complete."""
        if not self._lines:
            return self._rest
        return "\n".join(self._lines).encode() + self._rest

    def may_be(self, code: bytes) -> bool:
        """Return True if the unfinished reply can still have *code*."""
        begun = self._code if self._lines else self._rest[:3]
        return code.startswith(begun)

    @property
    def begins_refusal(self) -> bool:
        """True if the unfinished reply is a 4yz or 5yz."""
        return (self._code if self._lines else self._rest)[:1] in {b"4", b"5"}

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that *data* completes; may set :attr:`breach`."""
        if self.breach:
            return []
        if data[:4] == b"250-" and len(data) <= KNOWN_LINES and not self.pending:
            whole = _whole(data)
            if whole is not None:
                return [whole]
        return self._read(data)

    def _read(self, data: bytes) -> list[Reply]:
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = rest = lines.pop()
        replies: list[Reply] = []
        for line in lines:
            # A line within a reply is not a reply of one line.
            reply = None if self._lines or len(line) > KNOWN_LINE else _reply_of_one_line(line)
            if reply is None:
                reply = self._line(line[:-1] if line.endswith(b"\r") else line)
                if self.breach:
                    break
                if reply is None:
                    continue
            replies.append(reply)
        else:
            if rest:
                self._look_ahead(rest)
        self.pending = bool(rest or self._lines)
        return replies

    def _look_ahead(self, rest: bytes) -> None:
        """Check an unfinished line."""
        # A CR at its end does not count.
        line = rest[:-1] if rest.endswith(b"\r") else rest
        if len(line) > _longest(line):
            self._break(f"a line of its reply is longer than {_longest(line)} octets")
        elif self._octets + len(line) > MAX_REPLY:
            self._break(f"its reply is longer than {MAX_REPLY} octets")
        elif not _BEGINNING(line[:4]) or (line != rest and len(line) < 3):
            self._malformed(rest)
        elif self._lines and not self._code.startswith(line[:3]):
            self._break("the code changes within one reply", self._code + b" and " + line[:3])

    def _line(self, line: bytes) -> Reply | None:
        match = _LINE(line)
        if match is None:
            self._malformed(line)
            return None
        code, separator, text = match.groups(b"")
        self._octets += len(line) + 2
        if self._lines and code != self._code:
            self._break("the code changes within one reply", self._code + b" and " + code)
            return None
        if len(line) > MAX_REPLY_LINE and len(line) > _longest(line):
            self._break(f"a line of its reply is longer than {_longest(line)} octets")
            return None
        if self._octets > MAX_REPLY or len(self._lines) >= MAX_REPLY_LINES:
            self._break(f"its reply is longer than {MAX_REPLY} octets or {MAX_REPLY_LINES} lines")
            return None
        self._lines.append(text.decode("utf-8", "replace"))
        if separator == b"-":
            self._code = code
            return None
        self._octets = 0
        reply = Reply(int(code), tuple(self._lines))
        self._lines = []
        return reply

    def _malformed(self, line: bytes) -> None:
        self._break("it sent what is no SMTP reply", line)

    def _break(self, what: str, seen: bytes = b"") -> None:
        detail = what + (f": '{printable(seen, 80)}'" if seen and self.quoting else "")
        self.breach = ProtocolBreach("protocol broken", detail=detail)


def _longest(line: bytes) -> int:
    return MAX_CHALLENGE_LINE if line.startswith(b"334") else MAX_REPLY_LINE


@lru_cache(maxsize=256)
def _reply_of_one_line(line: bytes) -> Reply | None:
    """Return the reply that is *line*; None if it is no whole reply."""
    match = _LINE(line[:-1] if line.endswith(b"\r") else line)
    if match is None:
        return None
    code, separator, text = match.groups(b"")
    return None if separator == b"-" else Reply(int(code), (text.decode("utf-8", "replace"),))


@lru_cache(maxsize=64)
def _whole(data: bytes) -> Reply | None:
    """Return the one reply in *data*; None if it is anything else."""
    parser = ReplyParser()
    replies = parser._read(data)  # noqa: SLF001 - the same class
    return None if parser.breach or parser.pending or len(replies) != 1 else replies[0]
