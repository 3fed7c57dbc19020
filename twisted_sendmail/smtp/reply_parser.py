"""Replies from the octets of the server: bounded, in linear time, with any cutting.

A reply is complete with its last line. Octets that cannot be a reply are a breach of protocol at the
first wrong octet, not only at a line end or a timeout.

RFC 5321 section 4.2. A line may also end with a bare LF, as some servers write.
"""

from __future__ import annotations

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

#: Replies of one line that are remembered, and their octets: a server repeats a few replies.
KNOWN = 32
KNOWN_LINE = 80
#: Octets of an EHLO reply that is remembered: a server gives the same to each connection.
KNOWN_LINES = 4096

_FIRST = frozenset((b"2", b"3", b"4", b"5"))
_DIGITS = frozenset(b"0123456789")
_SEPARATORS = frozenset(b" -")


class ReplyParser:
    """Parses the octets that are fed; after :attr:`breach` is set it parses no more."""

    __slots__ = ("_code", "_known", "_lines", "_octets", "_rest", "breach", "quoting")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._code = b""
        self._octets = 0
        self._known: dict[bytes, Reply] = {}
        #: The breach of protocol, or None.
        self.breach: ProtocolBreach | None = None
        #: :attr:`breach` may quote the wrong octets.
        self.quoting = True

    @property
    def pending(self) -> bool:
        """True if there is an unfinished reply."""
        return bool(self._rest or self._lines)

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
        self._rest = lines.pop()
        replies: list[Reply] = []
        known = self._known
        for line in lines:
            # A line within a reply is not a reply of one line.
            reply = known.get(line) if not self._lines else None
            if reply is None:
                reply = self._line(line[:-1] if line.endswith(b"\r") else line)
                if self.breach:
                    return replies
                if reply is None:
                    continue
                if len(reply.lines) == 1 and len(known) < KNOWN and len(line) <= KNOWN_LINE:
                    known[line] = reply
            replies.append(reply)
        if self._rest:
            self._look_ahead(self._rest)
        return replies

    def _look_ahead(self, rest: bytes) -> None:
        """Check an unfinished line."""
        # A CR at its end does not count.
        line = rest[:-1] if rest.endswith(b"\r") else rest
        if len(line) > _longest(line):
            self._break(f"a line of its reply is longer than {_longest(line)} octets")
        elif self._octets + len(line) > MAX_REPLY:
            self._break(f"its reply is longer than {MAX_REPLY} octets")
        elif not _may_begin(line) or (line != rest and len(line) < 3):
            self._malformed(rest)
        elif self._lines and not self._code.startswith(line[:3]):
            self._break("the code changes within one reply", self._code + b" and " + line[:3])

    def _line(self, line: bytes) -> Reply | None:
        code, separator = line[:3], line[3:4]
        if len(code) < 3 or not _may_begin(line):
            self._malformed(line)
            return None
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
        text = line[4:].decode("utf-8", "replace")
        if separator == b"-":
            self._code = code
            self._lines.append(text)
            return None
        self._octets = 0
        if not self._lines:
            return Reply(int(code), (text,))
        self._lines.append(text)
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


def _may_begin(line: bytes) -> bool:
    """Return True if *line*, without its end and perhaps unfinished, can be a line of a reply."""
    return (
        line[:1] in _FIRST
        and (len(line) < 2 or line[1] in _DIGITS)
        and (len(line) < 3 or line[2] in _DIGITS)
        and (len(line) < 4 or line[3] in _SEPARATORS)
    )


@lru_cache(maxsize=64)
def _whole(data: bytes) -> Reply | None:
    """Return the one reply in *data*; None if it is anything else."""
    parser = ReplyParser()
    replies = parser._read(data)  # noqa: SLF001 - the same class
    return None if parser.breach or parser.pending or len(replies) != 1 else replies[0]
