"""The extensions that a server offers in its reply to EHLO.

Keywords are compared without regard to case; the old form ``AUTH=LOGIN`` is accepted; a line that is
no keyword is ignored.  The first line is the server's greeting and never a keyword.

RFC 5321 section 4.1.1.1, RFC 1870 (SIZE), RFC 4954 (AUTH), RFC 9422 (LIMITS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.commands import KEYWORD, MECHANISM_NAME, upper
from twisted_sendmail.smtp.escape import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.smtp.reply import Reply

# A keyword, and perhaps "=" or blanks and text.
_LINE = re.compile(r"([A-Za-z0-9-]+)(?:[ =]+(.*))?\Z")
# Never changed.
_NO_WORDS: Mapping[str, str] = MappingProxyType({})
_NO_LIMITS: Mapping[str, int] = MappingProxyType({})
#: Characters of a reply that is parsed once for all connections.
_MAX_CACHED_REPLY = 4096


class Capabilities:
    """An immutable mapping of upper-case keyword to its parameter text."""

    __slots__ = (
        "_keywords",
        "auth",
        "binarymime",
        "chunking",
        "dsn",
        "eight_bit_mime",
        "greeting",
        "limits",
        "pipelining",
        "size",
        "smtputf8",
        "withheld",
    )

    def __init__(
        self,
        keywords: Mapping[str, str] | None = None,
        greeting: str = "",
        withheld: frozenset[str] = frozenset(),
    ) -> None:
        self._keywords = found = keywords or _NO_WORDS
        #: The text of the first line: the server's name, and perhaps more.
        self.greeting = greeting
        #: Keywords of extensions and of parameters that are not to be used.
        self.withheld = withheld
        self.pipelining = "PIPELINING" in found
        self.chunking = "CHUNKING" in found
        self.eight_bit_mime = "8BITMIME" in found
        self.smtputf8 = "SMTPUTF8" in found
        self.dsn = "DSN" in found
        #: BINARYMIME is offered and can be used: the content goes by BDAT (RFC 3030 section 3).
        self.binarymime = self.chunking and self.pipelining and "BINARYMIME" in found
        #: The largest message in octets (RFC 1870); None without a limit.
        self.size = _number(self._keywords.get("SIZE", "")) or None
        #: ``MAILMAX``, ``RCPTMAX``, ``RCPTDOMAINMAX`` … (RFC 9422), those that are numbers above zero.
        self.limits = _limits(found["LIMITS"]) if "LIMITS" in found else _NO_LIMITS
        #: SASL mechanisms in the server's order, upper-case, each once.
        self.auth = _mechanisms(found["AUTH"]) if "AUTH" in found else ()

    @classmethod
    def from_reply(cls, reply: Reply) -> Capabilities:
        """Parse the reply to EHLO, without malformed lines; the same reply gives the same object."""
        short = sum(map(len, reply.lines)) <= _MAX_CACHED_REPLY
        return _read(reply.lines) if short else cls.of_lines(reply.lines)

    @classmethod
    def of_lines(cls, lines: tuple[str, ...]) -> Capabilities:
        """Parse the texts of the lines of the reply to EHLO."""
        found: dict[str, str] = {}
        auth: list[str] = []
        for line in lines[1:]:
            match = _LINE.match(line.strip())
            if match is None or not KEYWORD.match(match[1]):
                continue
            keyword, text = match[1].upper(), (match[2] or "").strip()
            if keyword == "AUTH":
                # Doubled, old form and new form together: the union.
                auth.append(text)
            found.setdefault(keyword, text)
        if auth:
            found["AUTH"] = " ".join(filter(None, auth))
        return cls(found, lines[0])

    def __contains__(self, keyword: str) -> bool:
        return keyword in self._keywords

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __getitem__(self, keyword: str) -> str:
        return self._keywords[keyword]

    def without(self, *keywords: str) -> Capabilities:
        """Return the capabilities without *keywords*, of extensions or of parameters."""
        if not keywords:
            return self
        left = {k: v for k, v in self._keywords.items() if k not in keywords}
        return Capabilities(left, self.greeting, self.withheld.union(keywords))

    def __repr__(self) -> str:
        return f"<Capabilities {printable(' '.join(self._keywords)) or 'none'}>"


# A server sends the same reply on each connection.
@lru_cache(maxsize=64)
def _read(lines: tuple[str, ...]) -> Capabilities:
    return Capabilities.of_lines(lines)


def _mechanisms(text: str) -> tuple[str, ...]:
    words = map(upper, text.replace("=", " ").split())
    return tuple(dict.fromkeys(filter(MECHANISM_NAME.match, words)))


def _limits(text: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        number = _number(value)
        if number:
            found[name.upper()] = number
    return MappingProxyType(found)


def _number(text: str) -> int | None:
    # RFC 1870: up to 20 digits.  isdigit() alone would let other scripts' digits pass.
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


#: Nothing is offered, or it is not known yet.
NO_CAPABILITIES = Capabilities()
