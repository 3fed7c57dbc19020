"""What a message asks of the server, as the parameters of MAIL and RCPT.

The sending side's mirror of ``extensions``.  It decides, from what the message
needs and what the server offers, which extensions are used; and refuses, before
MAIL, what the server cannot do.

RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 3461 (DSN),
RFC 8689 (REQUIRETLS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.commands import Mail, Rcpt, xtext
from twisted_sendmail.smtp.errors import ExtensionUnavailable, MessageTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.smtp.capabilities import Capabilities
    from twisted_sendmail.smtp.envelope import Envelope, Recipient


def mail_command(
    envelope: Envelope,
    offered: Capabilities,
    *,
    size: int | None,
    eight_bit: bool | None,
    smtputf8: bool,
    binary: bool = False,
) -> Mail:
    """MAIL with what the message needs of what is offered.

    :param size: octets of the content, None if unknown.
    :param eight_bit: does the content have octets above 127?  None if unknown.
    :param smtputf8: does the header, or an address, need RFC 6531?
    :param binary: has the content no lines (RFC 3030)?
    :raises MessageTooLarge: it is larger than the server's SIZE.
    :raises ExtensionUnavailable: it needs what is not offered.
    """
    limit = offered.size
    if size is not None and limit is not None and size > limit:
        msg = "message too large"
        raise MessageTooLarge(
            msg, phase="MAIL", detail=f"it has {size} octets, the server takes {limit}"
        )
    parameters: list[tuple[str, str | None]] = []
    if size is not None and "SIZE" in offered:
        parameters.append(("SIZE", str(size)))
    if binary:
        if not (offered.chunking and offered.pipelining and "BINARYMIME" in offered):
            raise _missing(
                "BINARYMIME",
                "the message is declared as binary, and is",
                "encode it as base64",
            )
        parameters.append(("BODY", "BINARYMIME"))
    elif eight_bit is not False and "8BITMIME" in offered:
        parameters.append(("BODY", "8BITMIME"))
    elif eight_bit:
        raise _missing(
            "8BITMIME",
            "the message has 8-bit content",
            "encode it as quoted-printable or base64",
        )
    if smtputf8:
        if "SMTPUTF8" not in offered:
            raise _missing(
                "SMTPUTF8",
                "an address or the header is not ASCII",
                "use ASCII addresses and RFC 2047 words",
            )
        parameters.append(("SMTPUTF8", None))
    return Mail(envelope.sender, (*parameters, *_wishes(envelope, offered)))


def _wishes(envelope: Envelope, offered: Capabilities) -> Iterator[tuple[str, str | None]]:
    """What the envelope asks for beyond delivery."""
    if envelope.require_tls:
        if "REQUIRETLS" not in offered:
            raise _missing(
                "REQUIRETLS",
                "the envelope asks for it",
                "leave out require_tls, or use another server",
            )
        yield ("REQUIRETLS", None)
    # Notifications: a server without DSN still delivers (RFC 3461 section 5.2.1).
    if "DSN" in offered:
        if envelope.ret is not None:
            yield ("RET", envelope.ret)
        if envelope.envid is not None:
            yield ("ENVID", xtext(envelope.envid))


def rcpt_command(recipient: Recipient, offered: Capabilities) -> Rcpt:
    """RCPT with the recipient's DSN parameters, where they are offered."""
    if not recipient.has_dsn or "DSN" not in offered:
        return Rcpt(recipient.path)
    parameters: list[tuple[str, str | None]] = []
    if recipient.notify:
        parameters.append(("NOTIFY", ",".join(sorted(recipient.notify))))
    if recipient.orcpt is not None:
        kind, _, address = recipient.orcpt.partition(";")
        parameters.append(("ORCPT", f"{kind};{xtext(address)}"))
    return Rcpt(recipient.path, tuple(parameters))


def _missing(keyword: str, why: str, remedy: str) -> ExtensionUnavailable:
    return ExtensionUnavailable(
        f"{keyword} is needed and not offered", phase="MAIL", detail=why, remedy=remedy
    )
