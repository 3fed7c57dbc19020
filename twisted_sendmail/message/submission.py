"""What a submission client does to a header before it sends (RFC 6409 section 8).

Adds ``Date`` and ``Message-ID`` where missing, takes ``Bcc`` out, and reads the
envelope from the header where the caller gave none.  Addresses in a header are parsed
by the ``email`` library; what it has to guess about is refused.

RFC 5322 section 3.4 (addresses), 3.6 (fields), 3.6.3 (Bcc), 3.6.6 (Resent-).
"""

from __future__ import annotations

import secrets
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, cast

from twisted_sendmail.message.header import Field, Header
from twisted_sendmail.smtp.address import Mailbox, ReversePath, ascii_domain
from twisted_sendmail.smtp.printable import printable
from twisted_sendmail.smtp.root_error import InvalidAddress, InvalidInput, InvalidMessage

if TYPE_CHECKING:
    from datetime import datetime

BLIND = ("bcc", "resent-bcc")
# Dots in an unquoted display name and the like are obsolete, not ambiguous; a local part
# beyond ASCII is no defect where RFC 6532 holds, and `Mailbox` judges it.
_HARMLESS = (ObsoleteHeaderDefect, NonASCIILocalPartDefect)


def completed(header: Header, now: datetime, domain: str) -> Header:
    """*header* without blind copies, and with what every message must have.

    :param now: with a time zone.
    :param domain: the right side of a new Message-ID.
    """
    kept = header.without(*BLIND)
    fields = list(kept.fields)
    if any(field.name.startswith("resent-") for field in header.fields):
        block = header.newest_resent()
        top = []
        if "resent-date" not in block:
            top.append(_field("Resent-Date", format_datetime(now)))
        if "resent-message-id" not in block:
            top.append(_field("Resent-Message-ID", new_message_id(domain)))
        at = next((i for i, f in enumerate(fields) if f.name.startswith("resent-")), 0)
        fields[at:at] = top
    if "date" not in kept:
        fields.append(_field("Date", format_datetime(now)))
    if "message-id" not in kept:
        fields.append(_field("Message-ID", new_message_id(domain)))
    return Header(fields)


def _field(name: str, value: str) -> Field:
    return Field(name.lower(), f"{name}: {value}\r\n".encode("ascii"))


def new_message_id(domain: str) -> str:
    """A Message-ID nobody can guess, and that says nothing about this machine."""
    return f"<{secrets.token_hex(16)}@{ascii_domain(domain)}>"


def message_id(header: Header) -> str | None:
    """The Message-ID, with its angle brackets, if there is one."""
    return next(iter(header.values("message-id")), None)


def sender_of(header: Header) -> ReversePath:
    """Who sends, by the header: the newest ``Resent-`` block, or ``Sender``, or ``From``.

    :raises InvalidMessage: nobody, or several.
    :raises InvalidAddress: an address that cannot be used.
    """
    block = header.newest_resent()
    if block:
        sources = [
            ("Resent-Sender", block.get("resent-sender", [])),
            ("Resent-From", block.get("resent-from", [])),
        ]
    else:
        sources = [("Sender", header.values("sender")), ("From", header.values("from"))]
    for name, values in sources:
        boxes = [box for value in values for box in mailboxes(name, value)]
        if len(boxes) > 1:
            raise InvalidMessage(
                f"the sender is not clear: {name} names {len(boxes)}",
                remedy="give sender=, or add a Sender field",
            )
        if boxes:
            return ReversePath(boxes[0])
    raise InvalidMessage("the message has no sender", remedy="give sender=, or a From field")


def recipients_of(header: Header) -> list[str]:
    """Who receives, by the header: ``To``, ``Cc`` and ``Bcc``, or their newest ``Resent-`` forms.

    :raises InvalidAddress: an address that cannot be used.
    """
    block = header.newest_resent()
    found = []
    for name in ("To", "Cc", "Bcc"):
        values = block.get(f"resent-{name.lower()}", []) if block else header.values(name.lower())
        shown = f"Resent-{name}" if block else name
        found += [str(box) for value in values for box in mailboxes(shown, value)]
    return found


def mailboxes(name: str, value: str) -> list[Mailbox]:
    """The mailboxes in the *value* of an address field called *name*; groups are opened.

    :raises InvalidAddress: when anything in it has to be guessed.
    """
    if not value:
        return []
    if not value.isprintable():
        raise _bad(name, value, "it holds control characters or octets that are not UTF-8")
    try:
        parsed = cast("Any", SMTP.header_factory("to", value))
        if any(not isinstance(defect, _HARMLESS) for defect in parsed.defects):
            raise _bad(name, value, "it is not a list of addresses as RFC 5322 writes them")
        specs = [address.addr_spec for address in parsed.addresses]
    except InvalidInput:
        raise
    except Exception:  # noqa: BLE001 - the library's parser may fail in any way on what is no address
        raise _bad(name, value, "it cannot be parsed") from None
    found = []
    for spec in specs:
        if spec not in value:
            # Encoded words, comments or blanks inside: the library put it together.
            raise _bad(name, value, f"the address {spec!r} does not stand in it as such")
        try:
            found.append(Mailbox.parse(spec))
        except InvalidAddress as e:
            raise _bad(name, value, e.detail) from None
    return found


def _bad(name: str, value: str, why: str) -> InvalidAddress:
    return InvalidAddress(
        f"the field {name}: '{printable(value, 100)}' cannot be used",
        detail=why,
        remedy="correct it, or give sender= and recipients=",
    )
