"""What the parameters of MAIL and RCPT ask for.

The receiving side: pairs of keyword and value in, a value object or the refusing
reply out.  A parameter whose extension was not offered is unknown (555).

RFC 1870 (SIZE), RFC 6152 and RFC 3030 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (DSN),
RFC 4954 section 5 (AUTH), RFC 8689 (REQUIRETLS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.address import ReversePath
from twisted_sendmail.smtp.envelope import MAX_ENVID, MAX_ORCPT, Recipient
from twisted_sendmail.smtp.errors import InvalidInput
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from twisted_sendmail.smtp.address import ForwardPath
    from twisted_sendmail.smtp.commands import Mail, Rcpt

_XTEXT = re.compile(r"(?:[!-*,-<>-~\u00a1-\U0010ffff]|\+[0-9A-F]{2})*\Z")
_XCHAR = re.compile(r"((?:\+[0-9A-F]{2})+)")


@dataclass(frozen=True)
class MailParameters:
    """What MAIL said besides the sender."""

    #: Octets announced (RFC 1870); None when nothing was.
    size: int | None = None
    #: ``7BIT``, ``8BITMIME`` or ``BINARYMIME``; None when nothing was said.
    body: str | None = None
    smtputf8: bool = False
    #: ``FULL`` or ``HDRS``.
    ret: str | None = None
    #: Decoded.
    envid: str | None = None
    #: Who submitted it, as the peer says (RFC 4954 section 5): a claim, not a proof.  ``<>`` for
    #: nobody known, and for a value that is no mailbox.
    auth: ReversePath | None = None
    require_tls: bool = False


#: Nothing besides the sender.
NOTHING_SAID = MailParameters()


class _BadValueError(Exception):
    pass


def read_mail_parameters(command: Mail, offered: Collection[str]) -> MailParameters | Reply:
    """What *command* asks for, where *offered* holds the EHLO keywords that were said."""
    found = NOTHING_SAID
    for keyword, value in command.parameters:
        extension, read = _MAIL.get(keyword, ("", None))
        if read is None or extension not in offered:
            return _unknown(keyword)
        try:
            found = read(found, value)
        except _BadValueError:
            return _bad(keyword)
    if found.body == "BINARYMIME" and "BINARYMIME" not in offered:
        return _unknown("BODY=BINARYMIME")
    if not _ascii(command.sender) and not found.smtputf8:
        return Reply(550, ("5.6.7 An address beyond ASCII needs the parameter SMTPUTF8",))
    return found


def read_recipient(command: Rcpt, offered: Collection[str], *, smtputf8: bool) -> Recipient | Reply:
    """The recipient *command* names, with what it asks for."""
    notify: frozenset[str] = frozenset()
    orcpt: str | None = None
    for keyword, value in command.parameters:
        if keyword not in {"NOTIFY", "ORCPT"} or "DSN" not in offered:
            return _unknown(keyword)
        if not value:
            return _bad(keyword)
        if keyword == "NOTIFY":
            notify = frozenset(value.upper().split(","))
        else:
            try:
                orcpt = _unxtext(value, MAX_ORCPT)
            except _BadValueError:
                return _bad(keyword)
    path: ForwardPath = command.recipient
    if not _ascii(path) and not smtputf8:
        return Reply(553, ("5.6.7 An address beyond ASCII needs SMTPUTF8 at MAIL",))
    try:
        return Recipient(path, notify, orcpt)
    except InvalidInput:
        return _bad("NOTIFY or ORCPT")


def _ascii(path: ReversePath | ForwardPath) -> bool:
    box = path.mailbox
    return box is None or (box.local_part.isascii() and box.domain.isascii())


def _unknown(keyword: str) -> Reply:
    return Reply(555, (f"5.5.4 {keyword[:40]} is not supported here",))


def _bad(keyword: str) -> Reply:
    return Reply(501, (f"5.5.4 The value of {keyword[:40]} cannot be read",))


def _unxtext(value: str, limit: int) -> str:
    """RFC 3461 section 4: ``+3D`` is ``=``."""
    if not _XTEXT.match(value):
        raise _BadValueError
    try:
        text = _XCHAR.sub(lambda m: bytes.fromhex(m[1].replace("+", "")).decode("utf-8"), value)
    except UnicodeDecodeError:
        raise _BadValueError from None
    if not text.isprintable() or not 0 < len(text) <= limit:
        raise _BadValueError
    return text


def _size(found: MailParameters, value: str | None) -> MailParameters:
    if not value or len(value) > 20 or not (value.isascii() and value.isdigit()):
        raise _BadValueError
    return replace(found, size=int(value))


def _body(found: MailParameters, value: str | None) -> MailParameters:
    body = (value or "").upper()
    if body not in {"7BIT", "8BITMIME", "BINARYMIME"}:
        raise _BadValueError
    return replace(found, body=body)


def _smtputf8(found: MailParameters, value: str | None) -> MailParameters:
    if value is not None:
        raise _BadValueError
    return replace(found, smtputf8=True)


def _require_tls(found: MailParameters, value: str | None) -> MailParameters:
    if value is not None:
        raise _BadValueError
    return replace(found, require_tls=True)


def _ret(found: MailParameters, value: str | None) -> MailParameters:
    ret = (value or "").upper()
    if ret not in {"FULL", "HDRS"}:
        raise _BadValueError
    return replace(found, ret=ret)


def _envid(found: MailParameters, value: str | None) -> MailParameters:
    return replace(found, envid=_unxtext(value or "", MAX_ENVID))


def _auth(found: MailParameters, value: str | None) -> MailParameters:
    text = _unxtext(value or "", MAX_ORCPT)
    try:
        return replace(found, auth=ReversePath.parse(text))
    except InvalidInput:
        # Some servers pass on a login name that is no mailbox.  A server that does not trust
        # the value treats it as <> (RFC 4954 section 5).
        return replace(found, auth=ReversePath())


_MAIL: dict[str, tuple[str, Callable[[MailParameters, str | None], MailParameters]]] = {
    "SIZE": ("SIZE", _size),
    "BODY": ("8BITMIME", _body),
    "SMTPUTF8": ("SMTPUTF8", _smtputf8),
    "RET": ("DSN", _ret),
    "ENVID": ("DSN", _envid),
    "AUTH": ("AUTH", _auth),
    "REQUIRETLS": ("REQUIRETLS", _require_tls),
}
