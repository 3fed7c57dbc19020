"""Parses a command line into a command, or into the reply that refuses the line.

The grammar is strict, because a line that two programs read differently becomes an attack: no
control characters, no bare line ends, no argument where none belongs.  One leniency: a space after
``FROM:`` and ``TO:``, which many clients send.

State and extensions are decided elsewhere: ``server`` decides whether a command is in
order, ``extensions`` what its parameters mean.

RFC 5321 section 4.1.1, RFC 3207, RFC 4954, RFC 3030, RFC 6531 section 3.3.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.address import ForwardPath, ReversePath
from twisted_sendmail.smtp.commands import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    Data,
    Hello,
    Mail,
    Noop,
    OtherCommand,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Verb,
    upper,
)
from twisted_sendmail.smtp.errors import InvalidAddress, InvalidInput
from twisted_sendmail.smtp.limits import MAX_AUTH_LINE, MAX_CHUNK_DIGITS, MAX_COMMAND_LINE
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.smtp.commands import Parameters

ServerCommand = (
    Hello | StartTLS | Auth | Mail | Rcpt | Data | Bdat | Rset | Noop | Quit | OtherCommand
)

_A = (b"A", b"a")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
#: The first five octets of a line with an address, in capitals.
_ADDRESSED = frozenset({b"MAIL ", b"RCPT ", b"MAIL", b"RCPT"})
# The path: anything but angle brackets, or a quoted string; the address parser judges it.
_WITH_PATH = re.compile(
    r'(?:MAIL (FROM):|RCPT TO:) ?(<[^<>"\\]*(?:"(?:[^"\\]|\\.)*"[^<>"\\]*)*>)(?: (.*))?\Z',
    re.IGNORECASE | re.ASCII,
).match
_SIZE = re.compile(rf"([0-9]{{1,{MAX_CHUNK_DIGITS}}})(?: (LAST))?\Z", re.ASCII | re.IGNORECASE)


def _refuse(code: int, text: str) -> Reply:
    return Reply(code, (text,))


TOO_LONG = _refuse(500, "5.5.6 Line too long")
_DATA = Data()
_UNKNOWN = _refuse(500, "5.5.1 Command not recognized")
_NO_ARGUMENT = "5.5.4 {} takes no argument"


def parse_command(line: bytes) -> ServerCommand | Reply:
    """Return the command in *line*, which has no CRLF, or the reply that refuses it."""
    if line[:5].upper() in _ADDRESSED:
        return _addressed(line)
    if line == b"DATA":
        return _DATA
    text = _text(line)
    if isinstance(text, Reply):
        return text
    name, _, argument = text.partition(" ")
    name = upper(name)
    parse = _PARSERS.get(name)
    if parse is not None:
        return parse(argument)
    if name in _BARE:
        if argument:
            return _refuse(501, _NO_ARGUMENT.format(name))
        return _BARE[name]
    try:
        return OtherCommand(name, argument)
    except InvalidInput:
        return _UNKNOWN


def _text(line: bytes) -> str | Reply:
    if len(line) > MAX_COMMAND_LINE and len(line) > max_length(line):
        return TOO_LONG
    if _CONTROL.search(line):
        return _refuse(500, "5.5.2 Control characters are not allowed in a command")
    try:
        return line.decode("utf-8").rstrip(" ")
    except UnicodeDecodeError:
        return _refuse(500, "5.5.2 A command is ASCII or UTF-8")


def max_length(line: bytes | bytearray) -> int:
    """Return the number of octets that a line with this beginning may have."""
    if line[:1] not in _A:
        return MAX_COMMAND_LINE
    return MAX_AUTH_LINE if line[:5].upper() == b"AUTH " else MAX_COMMAND_LINE


def parse_auth_line(line: bytes) -> AuthLine | AuthCancel | Reply:
    """Return the response in a line of an AUTH exchange: base64, or ``*``."""
    if line == b"*":
        return AuthCancel()
    if len(line) > MAX_AUTH_LINE:
        return TOO_LONG
    response = _unbase64(line)
    if response is None:
        return _refuse(501, "5.5.2 The response is not base64")
    return AuthLine(response)


def _unbase64(text: bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _hello(verb: Verb) -> Callable[[str], Hello | Reply]:
    def parse(argument: str) -> Hello | Reply:
        try:
            return Hello(argument, verb)
        except InvalidAddress:
            return _refuse(501, f"5.5.4 {verb.value} takes a domain name or an address literal")

    return parse


def _auth(argument: str) -> Auth | Reply:
    mechanism, _, text = argument.partition(" ")
    initial: bytes | None = None
    if text == "=":
        initial = b""
    elif text:
        initial = _unbase64(text.encode("utf-8"))
        if initial is None:
            return _refuse(501, "5.5.2 The initial response is not base64")
    try:
        return Auth(upper(mechanism), initial)
    except InvalidInput:
        return _refuse(501, "5.5.4 AUTH takes the name of a mechanism")


# A client sends from the same address again and again.
@lru_cache(maxsize=1024)
def _addressed(line: bytes) -> Mail | Rcpt | Reply:
    """Parse MAIL or RCPT."""
    text = _text(line)
    if isinstance(text, Reply):
        return text
    match = _WITH_PATH(text)
    if match is None:
        form = "MAIL FROM:" if text[:1] in "Mm" else "RCPT TO:"
        return _refuse(501, f"5.5.4 Write it as {form}<user@example.org>")
    is_mail, path, words = match.groups()
    try:
        parsed = (ReversePath if is_mail else ForwardPath).parse(path)
    except InvalidAddress:
        if is_mail:
            return _refuse(553, "5.1.7 The sender's address cannot be read")
        return _refuse(553, "5.1.3 The recipient's address cannot be read")
    parameters = _parameters(words) if words else ()
    if isinstance(parameters, Reply):
        return parameters
    if isinstance(parsed, ReversePath):
        return Mail(parsed, parameters)
    return Rcpt(parsed, parameters)


def _parameters(words: str) -> Parameters | Reply:
    pairs: dict[str, str | None] = {}
    for word in filter(None, words.split(" ")):
        keyword, equals, value = word.partition("=")
        keyword = upper(keyword)
        if keyword in pairs:
            return _refuse(501, "5.5.4 A parameter may be given once")
        pairs[keyword] = value if equals else None
    parameters = tuple(pairs.items())
    try:
        # The command checks the parameters; a path that is always good leaves only them to refuse.
        Mail(ReversePath(), parameters)
    except InvalidInput:
        return _refuse(501, "5.5.4 A parameter cannot be read")
    return parameters


def _bdat(argument: str) -> Bdat | Reply:
    match = _SIZE.match(argument)
    if match is None:
        return _refuse(501, "5.5.4 Write it as BDAT size, or BDAT size LAST")
    return Bdat(int(match[1]), last=match[2] is not None)


def _noop(argument: str) -> Noop:
    return Noop()


_PARSERS: dict[str, Callable[[str], ServerCommand | Reply]] = {
    "EHLO": _hello(Verb.EHLO),
    "HELO": _hello(Verb.HELO),
    "LHLO": _hello(Verb.LHLO),
    "AUTH": _auth,
    "BDAT": _bdat,
    "NOOP": _noop,
}
_BARE: dict[str, ServerCommand] = {
    "STARTTLS": StartTLS(),
    "DATA": _DATA,
    "RSET": Rset(),
    "QUIT": Quit(),
}
