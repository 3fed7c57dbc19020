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
# The path after the colon of nearly every MAIL and RCPT: printable ASCII, no quotes, no parameters.
_USUAL_PATH = re.compile(rb"<[!#-;=?-\[\]-~]*>\Z").match
# A path: anything but angle brackets, or a quoted string; the address parser judges it.
_PATH = re.compile(r' ?(<(?:[^<>"\\]|"(?:[^"\\]|\\.)*")*>)(?: (.*))?\Z', re.IGNORECASE)
_SIZE = re.compile(rf"([0-9]{{1,{MAX_CHUNK_DIGITS}}})(?: (LAST))?\Z", re.IGNORECASE)


def _refuse(code: int, text: str) -> Reply:
    return Reply(code, (text,))


TOO_LONG = _refuse(500, "5.5.6 Line too long")
_DATA = Data()
_UNKNOWN = _refuse(500, "5.5.1 Command not recognized")
_NO_ARGUMENT = "5.5.4 {} takes no argument"


def parse_command(line: bytes) -> ServerCommand | Reply:
    """Return the command in *line*, which has no CRLF, or the reply that refuses it."""
    if line == b"DATA":
        return _DATA
    if len(line) <= MAX_COMMAND_LINE:
        begin = line[:10].upper()
        if begin == b"MAIL FROM:" and _USUAL_PATH(line, 10):
            return _mail_from(line[10:].decode("ascii"), "")
        if begin.startswith(b"RCPT TO:") and _USUAL_PATH(line, 8):
            return _rcpt_to(line[8:].decode("ascii"), "")
    text = _text(line)
    if isinstance(text, Reply):
        return text
    name, _, argument = text.partition(" ")
    name = name.upper()
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
    if len(line) > max_length(line):
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
        return Auth(mechanism.upper(), initial)
    except InvalidInput:
        return _refuse(501, "5.5.4 AUTH takes the name of a mechanism")


def _mail(argument: str) -> Mail | Reply:
    found = _path(argument, "FROM:")
    if isinstance(found, Reply):
        return found
    return _mail_from(*found)


@lru_cache(maxsize=1024)
def _mail_from(path: str, words: str) -> Mail | Reply:
    try:
        sender = ReversePath.parse(path)
    except InvalidAddress:
        return _refuse(553, "5.1.7 The sender's address cannot be read")
    parameters = _parameters(words)
    return parameters if isinstance(parameters, Reply) else Mail(sender, parameters)


def _rcpt(argument: str) -> Rcpt | Reply:
    found = _path(argument, "TO:")
    if isinstance(found, Reply):
        return found
    return _rcpt_to(*found)


def _rcpt_to(path: str, words: str) -> Rcpt | Reply:
    try:
        recipient = ForwardPath.parse(path)
    except InvalidAddress:
        return _refuse(553, "5.1.3 The recipient's address cannot be read")
    parameters = _parameters(words)
    return parameters if isinstance(parameters, Reply) else Rcpt(recipient, parameters)


def _path(argument: str, keyword: str) -> tuple[str, str] | Reply:
    if argument[: len(keyword)].upper() == keyword:
        match = _PATH.match(argument, len(keyword))
        if match:
            return match[1], match[2] or ""
    verb = "MAIL" if keyword == "FROM:" else "RCPT"
    return _refuse(501, f"5.5.4 Write it as {verb} {keyword}<user@example.org>")


def _parameters(words: str) -> Parameters | Reply:
    if not words:
        return ()
    pairs: dict[str, str | None] = {}
    for word in words.split():
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
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
    "MAIL": _mail,
    "RCPT": _rcpt,
    "BDAT": _bdat,
    "NOOP": _noop,
}
_BARE: dict[str, ServerCommand] = {
    "STARTTLS": StartTLS(),
    "DATA": _DATA,
    "RSET": Rset(),
    "QUIT": Quit(),
}
