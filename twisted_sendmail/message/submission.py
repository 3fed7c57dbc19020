"""What a submission client does to a header before it sends.

Adds ``Date`` and ``Message-ID`` where they are missing, takes ``Bcc`` out, and reads the
envelope from the header where the caller gave none.  Fields that are there keep every
octet.

RFC 6409 section 8, RFC 5322 section 3.6.1 to 3.6.6.
"""

from __future__ import annotations

import re
import secrets
from email.utils import format_datetime
from typing import TYPE_CHECKING

from twisted_sendmail.message.addresses import mailboxes
from twisted_sendmail.message.header import Field, Header
from twisted_sendmail.message.header_fields import BLIND
from twisted_sendmail.smtp import (
    ForwardPath,
    InvalidInput,
    InvalidMessage,
    Mailbox,
    ReversePath,
    domain_name,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# What is no field, but would be a blind copy to a reader who is kinder than RFC 5322.
_ALMOST_BLIND = re.compile(rb"(?:resent-)?bcc\s*:[^\n]*\n(?:[ \t][^\n]*\n)*\Z", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[^<>\s]+>")


def completed(header: Header, now: datetime, domain: str) -> Header:
    """*header* without blind copies, and with what every message must have.

    :param now: for a date that is missing; with a time zone.
    :param domain: the right side of a new Message-ID.
    :raises InvalidInput: *now* has no time zone, or *domain* is none.
    """
    fields = [
        field
        for field in header.without(*BLIND).fields
        if field.name or not _ALMOST_BLIND.match(field.octets)
    ]
    resent = header.newest_resent
    missing = [] if "date" in header else [_date("Date", now)]
    missing += [] if "message-id" in header else [_identification("Message-ID", domain)]
    if missing:
        # Behind the fields, as whoever came before put his in front; what follows a line
        # that is no field would be body to some readers.
        end = Header(fields).broken
        end = len(fields) if end is None else end
        fields[end:end] = missing
    if resent.fields:
        missing = [] if "resent-date" in resent else [_date("Resent-Date", now)]
        if "resent-message-id" not in resent:
            missing.append(_identification("Resent-Message-ID", domain))
        begin = next((at for at, f in enumerate(fields) if f.name.startswith("resent-")), 0)
        fields[begin:begin] = missing
    return Header(fields)


def _date(name: str, now: datetime) -> Field:
    if now.tzinfo is None:
        raise InvalidInput("now cannot be used", detail="it has no time zone")
    return _field(name, format_datetime(now))


def _identification(name: str, domain: str) -> Field:
    return _field(name, new_message_id(domain))


def _field(name: str, value: str) -> Field:
    return Field(name.lower(), f"{name}: {value}\r\n".encode("ascii"))


def new_message_id(domain: str) -> str:
    """A Message-ID nobody can guess, and that says nothing about this machine.

    :raises InvalidAddress: *domain* is neither a domain name nor an address literal.
    """
    return f"<{secrets.token_hex(16)}@{domain_name(domain)}>"


def message_id(header: Header) -> str | None:
    """The Message-ID, with its angle brackets, if there is one that can be shown."""
    for value in header.values("message-id"):
        found = _MESSAGE_ID.search(value)
        if found and found[0].isprintable():
            return found[0]
    return None


def sender_of(header: Header) -> ReversePath:
    """Who sends: ``Sender``, or else ``From``; if resent, the newest ``Resent-`` forms.

    :raises InvalidMessage: nobody, or several, or the header is not to be trusted.
    :raises InvalidAddress: an address that cannot be used.
    """
    for name, boxes in _addresses(header, "Sender", "From"):
        if len(boxes) > 1:
            raise InvalidMessage(
                f"the sender is not clear: {name} names {len(boxes)}",
                remedy="give the sender, or add a Sender field",
            )
        if boxes:
            return ReversePath(boxes[0])
    raise InvalidMessage("the message has no sender", remedy="give the sender, or a From field")


def recipients_of(header: Header, domain: str | None = None) -> list[ForwardPath]:
    """The recipients in ``To``, ``Cc`` and ``Bcc``; of a resent message, in the newest ``Resent-`` forms.

    :param domain: appended to an address that has no domain; None: such an address is an error.
    :raises InvalidMessage: a line of the header is not a field.
    :raises InvalidAddress: an address cannot be used.
    """
    fields = _addresses(header, "To", "Cc", "Bcc", domain=domain)
    return [ForwardPath(box) for _, boxes in fields for box in boxes]


def _addresses(
    header: Header, *names: str, domain: str | None = None
) -> Iterator[tuple[str, list[Mailbox]]]:
    broken = header.broken
    if broken is not None:
        shown = printable(header.fields[broken].octets.rstrip(), 60)
        raise InvalidMessage(
            f"the header cannot tell who sends and who receives: '{shown}' is no field",
            remedy="put an empty line between header and body, or give sender and recipients",
        )
    resent = header.newest_resent
    if resent.fields:
        header, names = resent, tuple(f"Resent-{name}" for name in names)
    for name in names:
        values = header.values(name.lower())
        yield name, [box for value in values for box in mailboxes(name, value, domain)]
