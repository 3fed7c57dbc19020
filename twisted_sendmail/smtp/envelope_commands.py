"""The parameters of MAIL and RCPT that a message needs, of those that the server offers.

A message that needs an extension which is not offered is refused before MAIL is sent.  The formats
of the parameters are in ``extensions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.smtp.commands import Mail, Rcpt
from twisted_sendmail.smtp.errors import ExtensionUnavailable, InvalidInput, MessageTooLarge
from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.extensions import STANDARD_TABLE
from twisted_sendmail.smtp.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_sendmail.smtp.capabilities import Capabilities
    from twisted_sendmail.smtp.commands import Parameters
    from twisted_sendmail.smtp.envelope import Envelope, Recipient
    from twisted_sendmail.smtp.extensions import ExtensionParameter, ExtensionTable


_ASCII_REMEDY = "use an address in ASCII, or another server"


def mail_command(
    envelope: Envelope,
    offered: Capabilities,
    *,
    size: int | None,
    eight_bit: bool | None,
    smtputf8: bool,
    not_in_ascii: str = "",
    binary: bool = False,
    extensions: ExtensionTable = STANDARD_TABLE,
) -> Mail:
    """Return MAIL with the parameters that the message needs.

    :param size: octets of the content, None if unknown.
    :param eight_bit: True if the content has octets above 127, None if unknown.
    :param smtputf8: True if the header, or an address, needs RFC 6531.
    :param not_in_ascii: the address of the header that does, and its field, for the error.
    :param binary: True if the content has no lines (RFC 3030).
    :param extensions: the parameters that are known.
    :raises MessageTooLarge: the message is larger than the server's SIZE.
    :raises ExtensionUnavailable: the message needs an extension that is not offered.
    :raises InvalidInput: ``envelope.others`` has a parameter that no extension has.
    """
    limit = offered.size
    if size is not None and limit is not None and size > limit:
        msg = "message too large"
        raise MessageTooLarge(
            msg, phase="MAIL", detail=f"it has {size} octets, the server takes {limit}"
        )
    if smtputf8 and not offered.smtputf8:
        why = _address_not_in_ascii(envelope) or not_in_ascii or "the header has an address"
        raise _missing("SMTPUTF8", f"{why}, which cannot be written in ASCII", _ASCII_REMEDY)
    values: list[tuple[str, Any]] = []
    if size is not None and "SIZE" in offered:
        values.append(("SIZE", size))
    if binary:
        if not offered.binarymime:
            raise _missing(
                "BINARYMIME",
                "the message is declared as binary, and is",
                "encode it as base64",
            )
        values.append(("BODY", "BINARYMIME"))
    elif eight_bit is not False and offered.eight_bit_mime:
        values.append(("BODY", "8BITMIME"))
    elif eight_bit:
        raise _missing(
            "8BITMIME",
            "the message has 8-bit content",
            "encode it as quoted-printable or base64",
        )
    if smtputf8:
        values.append(("SMTPUTF8", True))
    if envelope.require_tls or envelope.ret is not None or envelope.envid is not None:
        values += _requests(envelope, offered)
    return Mail(envelope.sender, _formatted(values, envelope.others, extensions.mail, offered))


def _address_not_in_ascii(envelope: Envelope) -> str:
    if envelope.sender.needs_smtputf8:
        return f"the sender is {envelope.sender}"
    found = [str(each) for each in envelope.recipients if each.path.needs_smtputf8]
    return f"the recipient is {found[0]}" if found else ""


def _requests(envelope: Envelope, offered: Capabilities) -> list[tuple[str, Any]]:
    """Return the parameters that the envelope asks for beyond delivery."""
    values: list[tuple[str, Any]] = []
    if envelope.require_tls:
        if "REQUIRETLS" not in offered:
            raise _missing(
                "REQUIRETLS",
                "the envelope asks for it",
                "leave out require_tls, or use another server",
            )
        values.append(("REQUIRETLS", True))
    # Notifications: a server without DSN still delivers (RFC 3461 section 5.2.1).
    if offered.dsn:
        if envelope.ret is not None and "RET" not in offered.withheld:
            values.append(("RET", envelope.ret))
        if envelope.envid is not None and "ENVID" not in offered.withheld:
            values.append(("ENVID", envelope.envid))
    return values


def rcpt_command(
    recipient: Recipient, offered: Capabilities, extensions: ExtensionTable = STANDARD_TABLE
) -> Rcpt:
    """Return RCPT with the recipient's parameters.

    :raises ExtensionUnavailable: ``recipient.others`` needs an extension that is not offered.
    :raises InvalidInput: ``recipient.others`` has a parameter that no extension has.
    """
    if not recipient.has_dsn and not recipient.others:
        return Rcpt(recipient.path)
    values: list[tuple[str, Any]] = []
    if offered.dsn:
        if recipient.notify:
            values.append(("NOTIFY", recipient.notify))
        if recipient.orcpt is not None and "ORCPT" not in offered.withheld:
            values.append(("ORCPT", recipient.orcpt))
    return Rcpt(recipient.path, _formatted(values, recipient.others, extensions.rcpt, offered))


def _formatted(
    values: Iterable[tuple[str, Any]],
    others: Mapping[str, Any],
    known: Mapping[str, tuple[str, ExtensionParameter]],
    offered: Capabilities,
) -> Parameters:
    """Return *values*, and *others* of an application, with the texts for the wire."""
    parameters: list[tuple[str, str | None]] = []
    for keyword, value in values:
        parameters.append((keyword, known[keyword][1].format(value)))
    for keyword, value in others.items():
        extension, parameter = known.get(keyword.upper(), ("", None))
        if parameter is None or parameter.attribute is not None:
            raise InvalidInput(
                f"the parameter {keyword} cannot be used",
                remedy="declare it by an Extension, and give that to the server's extensions",
            )
        if extension not in offered:
            raise _missing(extension, f"the envelope has {keyword}", "leave it out")
        parameters.append((parameter.keyword, parameter.format(value)))
    return tuple(parameters)


def smtputf8_refusal(recipient: Recipient) -> Reply:
    """Return the reply for a recipient that needs SMTPUTF8, which is not offered (RFC 6531 section 3.5)."""
    address = printable(str(recipient), 320)
    return Reply(
        553, (f"5.6.7 {address} is not ASCII; the server has no SMTPUTF8: {_ASCII_REMEDY}",)
    )


def _missing(keyword: str, why: str, remedy: str) -> ExtensionUnavailable:
    return ExtensionUnavailable(
        f"{keyword} is needed and not offered", phase="MAIL", detail=why, remedy=remedy
    )
