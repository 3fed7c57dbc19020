"""Commands: one class a verb, which formats the line on the wire.

A command refuses, when it is made, everything that could end its line early.
``str()`` of a command never holds a secret.

RFC 5321 section 4.1, RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3030 (BDAT).
"""

from __future__ import annotations

import enum
import re
from base64 import b64encode
from typing import TYPE_CHECKING, ClassVar

from attrs import define, field, frozen

from twisted_sendmail.smtp.address import ForwardPath, ReversePath, domain_name
from twisted_sendmail.smtp.errors import InvalidInput
from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verb(enum.Enum):
    """The kind of a command, which decides what a reply to it means.

    Besides the verbs of the RFCs: the greeting, which answers no command; a line of
    an AUTH exchange; the content; the dot that ends a content without recipients; and a command
    of an extension, which may reset the session.
    """

    # Verbs are hashed for every command: the __hash__ of Enum is a Python function and
    # costs more than the look-up.
    __hash__ = object.__hash__

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    AUTH_LINE = "AUTH response"
    AUTH_CANCEL = "AUTH cancel"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    LONE_DOT = "lone dot"
    BDAT = "BDAT"
    BDAT_LAST = "BDAT LAST"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"
    OTHER = "other"
    RESTART = "restart"


# Looking up a member of an Enum takes longer than the rest of ``Bdat.verb``.
_BDAT, _BDAT_LAST = Verb.BDAT, Verb.BDAT_LAST


class Command:
    """A line, or a content, that gets one reply."""

    __slots__ = ()
    verb: ClassVar[Verb]

    def line(self) -> bytes:
        """Return the octets on the wire, with CRLF."""
        return str(self).encode() + b"\r\n"


def upper(text: str) -> str:
    """Return *text* in upper case if it is ASCII.

    Only ASCII letters have two cases in SMTP: ``str.upper`` would make ``QUIT`` of ``QU\u0131T``, which
    other servers refuse.
    """
    return text.upper() if text.isascii() else text


def _encode(text: str) -> bytes:
    return text.encode("utf-8") + b"\r\n"


@frozen
class Greeting(Command):
    """Nothing is sent: the server sends first (RFC 5321 section 3.1)."""

    verb = Verb.GREETING

    def line(self) -> bytes:
        """Nothing."""
        return b""

    def __str__(self) -> str:
        return "greeting"


@frozen
class Hello(Command):
    """EHLO, HELO or LHLO.

    :param domain: a domain name or address literal.
    :raises InvalidAddress: when it is neither.
    """

    domain: str = field(converter=domain_name)
    verb: Verb = Verb.EHLO  # type: ignore[misc]  # the one family whose verb is a choice

    def __str__(self) -> str:
        return f"{self.verb.value} {self.domain}"


_BARE_LINES = {verb: _encode(verb.value) for verb in Verb}


class _Bare(Command):
    __slots__ = ()

    def line(self) -> bytes:
        return _BARE_LINES[self.verb]

    def __str__(self) -> str:
        return self.verb.value


@frozen
class StartTLS(_Bare):
    """STARTTLS (RFC 3207)."""

    verb = Verb.STARTTLS


@frozen
class Data(_Bare):
    """DATA."""

    verb = Verb.DATA


@frozen
class Rset(_Bare):
    """RSET."""

    verb = Verb.RSET


@frozen
class Noop(_Bare):
    """NOOP."""

    verb = Verb.NOOP


@frozen
class Quit(_Bare):
    """QUIT."""

    verb = Verb.QUIT


#: The name of a SASL mechanism (RFC 4422 section 3.1), in upper case.
MECHANISM_NAME = re.compile(r"[A-Z0-9_-]{1,20}\Z")


@frozen(repr=False)
class Auth(Command):
    """AUTH (RFC 4954 section 4).

    :param mechanism: a SASL mechanism name (RFC 4422 section 3.1).
    :param initial: the initial response, not encoded; None for none, ``b""`` for an empty one.
    """

    mechanism: str
    initial: bytes | None = None
    verb: ClassVar[Verb] = Verb.AUTH

    def __attrs_post_init__(self) -> None:
        if not MECHANISM_NAME.match(self.mechanism):
            msg = f"'{printable(self.mechanism, 40)}' is no SASL mechanism name"
            raise InvalidInput(msg)

    def line(self) -> bytes:
        """With the initial response: a secret."""
        if self.initial is None:
            return _encode(f"AUTH {self.mechanism}")
        return (
            f"AUTH {self.mechanism} ".encode("ascii") + (b64encode(self.initial) or b"=") + b"\r\n"
        )

    def __repr__(self) -> str:
        return f"AUTH {self.mechanism}" + (f" {MASK}" if self.initial is not None else "")


@frozen(repr=False)
class AuthLine(Command):
    """The answer to a challenge, not encoded."""

    response: bytes
    verb: ClassVar[Verb] = Verb.AUTH_LINE

    def line(self) -> bytes:
        """A secret."""
        return b64encode(self.response) + b"\r\n"

    def __repr__(self) -> str:
        return MASK


@frozen
class AuthCancel(Command):
    """``*``: cancels the exchange."""

    verb = Verb.AUTH_CANCEL

    def __str__(self) -> str:
        return "*"


#: The keyword of an extension, or of a parameter of MAIL and RCPT (RFC 5321 sections 4.1.1.1 and 4.1.2).
KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z")

Parameters = tuple[tuple[str, "str | None"], ...]


def _parameters(given: Mapping[str, str | None] | Parameters) -> Parameters:
    pairs = given if isinstance(given, tuple) else tuple(given.items())
    for keyword, value in pairs:
        if not KEYWORD.match(keyword):
            msg = f"'{printable(keyword, 40)}' is no parameter keyword"
            raise InvalidInput(msg)
        # RFC 5321 section 4.1.2, with UTF-8 by RFC 6531 section 3.3.
        if value is not None and (
            not value or " " in value or "=" in value or not value.isprintable()
        ):
            msg = f"the value of {keyword} cannot be used"
            raise InvalidInput(msg, detail="it is empty, or holds blanks, = or control characters")
    return pairs


def _spelled(pairs: Parameters) -> str:
    text = ""
    for keyword, value in pairs:
        text += f" {keyword}={value}" if value is not None else f" {keyword}"
    return text


# MAIL, RCPT and BDAT are made for each message and not frozen: setting a field of a frozen class
# takes three times as long.


@define(init=False, unsafe_hash=True)
class Mail(Command):
    """MAIL FROM, with its parameters in order.

    :param sender: the reverse-path; text is parsed.
    :param parameters: keyword to value, None for a keyword alone; values already encoded.
    """

    sender: ReversePath
    parameters: Parameters
    verb: ClassVar[Verb] = Verb.MAIL

    def __init__(
        self,
        sender: str | ReversePath,
        parameters: Mapping[str, str | None] | Parameters = (),
    ) -> None:
        self.sender = sender if isinstance(sender, ReversePath) else ReversePath.parse(sender)
        self.parameters = _parameters(parameters) if parameters else ()

    def line(self) -> bytes:
        """``MAIL FROM:<user@example.org> SIZE=1000``."""
        return f"MAIL FROM:{self.sender.wire}{_spelled(self.parameters)}\r\n".encode()

    def __str__(self) -> str:
        return f"MAIL FROM:{self.sender.wire}{_spelled(self.parameters)}"


@define(init=False, unsafe_hash=True)
class Rcpt(Command):
    """RCPT TO, with its parameters in order."""

    recipient: ForwardPath
    parameters: Parameters
    verb: ClassVar[Verb] = Verb.RCPT

    def __init__(
        self,
        recipient: str | ForwardPath,
        parameters: Mapping[str, str | None] | Parameters = (),
    ) -> None:
        path = recipient if isinstance(recipient, ForwardPath) else ForwardPath.parse(recipient)
        self.recipient = path
        self.parameters = _parameters(parameters) if parameters else ()

    def line(self) -> bytes:
        """``RCPT TO:<user@example.org>``."""
        return f"RCPT TO:{self.recipient.wire}{_spelled(self.parameters)}\r\n".encode()

    def __str__(self) -> str:
        return f"RCPT TO:{self.recipient.wire}{_spelled(self.parameters)}"


@frozen
class ContentCommand(Command):
    """The content after a 354; its octets are written apart, its end is the final dot."""

    verb = Verb.CONTENT

    def line(self) -> bytes:
        """Nothing: the content is not a line."""
        return b""

    def __str__(self) -> str:
        return "content"


@frozen
class LoneDot(Command):
    """The end of the content after a 354, when no recipient was accepted (RFC 2920 section 3.1)."""

    verb = Verb.LONE_DOT

    def __str__(self) -> str:
        return "."


@define(unsafe_hash=True)
class Bdat(Command):
    """BDAT (RFC 3030): the chunk follows the line at once.

    :param size: octets of the chunk.
    :param last: it is the last one.
    """

    size: int
    last: bool = False

    @property
    def verb(self) -> Verb:  # type: ignore[override]  # the last chunk is answered differently
        """BDAT, or BDAT LAST, whose reply is the verdict."""
        return _BDAT_LAST if self.last else _BDAT

    def line(self) -> bytes:
        """``BDAT 1000 LAST``, without the chunk."""
        return b"BDAT %d LAST\r\n" % self.size if self.last else b"BDAT %d\r\n" % self.size

    def __str__(self) -> str:
        return f"BDAT {self.size}{' LAST' if self.last else ''}"


@frozen
class OtherCommand(Command):
    """A verb that has no class of its own (VRFY, ETRN, XCLIENT …): one line, one reply.

    :raises InvalidInput: for a verb that has a class, or text that would not stay one line.
    """

    name: str = field(converter=upper)
    argument: str = ""
    verb: ClassVar[Verb] = Verb.OTHER

    def __attrs_post_init__(self) -> None:
        name = self.name
        if not re.fullmatch(r"[A-Z0-9]{1,20}", name):
            msg = f"'{printable(self.name, 40)}' is no verb"
            raise InvalidInput(msg)
        if name in {v.value for v in Verb}:
            msg = f"{name} cannot be sent as a raw command"
            raise InvalidInput(msg, remedy=f"use the method {name.lower()}()")
        if self.argument and not self.argument.isprintable():
            msg = f"the argument of {name} cannot be used"
            raise InvalidInput(msg, detail="it holds control characters")

    def __str__(self) -> str:
        return f"{self.name} {self.argument}".rstrip()


class RestartCommand(OtherCommand):
    """A command of an extension that resets the session when it succeeds (XCLIENT)."""

    verb: ClassVar[Verb] = Verb.RESTART
