"""Domains for addresses of the header that have none, as in the mail of cron and sudo: ``To: root``.

Only mail of programs of this machine is qualified. RFC 5322 section 3.4.1, RFC 6409 section 4.2.
"""

from __future__ import annotations

import re

import attrs

from twisted_sendmail.message.addresses import ENCODED_WORD, address_specs
from twisted_sendmail.message.header import LONG_HEADER, Field, Header
from twisted_sendmail.smtp import InvalidAddress, Mailbox

# Fields of senders and of recipients, also with "Resent-" (RFC 5322 section 3.6).
_OF_SENDERS = frozenset({"from", "sender", "reply-to"})
_OF_RECIPIENTS = frozenset({"to", "cc", "bcc"})
_VALUES_OF_ADDRESSES = re.compile(
    rb"\n(?:resent-)?(?:from|sender|reply-to|to|cc)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
)


@attrs.frozen
class Qualification:
    """The domains for addresses that have none.

    An address in a group, ``<>``, a quoted local part and words that are no address stay, and so does
    a field with a syntax error.
    """

    #: For senders.
    sender: str
    #: For recipients.
    recipient: str

    def concerns(self, section: bytes) -> bool:
        """Return False if it is clear at a glance that a header stays as it is.

        :param section: the header after a line feed, in lower case.
        """
        # Only an address that is not in a comment, and after a quoted name, is looked for.
        return any(
            b"@" not in each.rpartition(b"<")[2] or b"(" in each
            for value in _VALUES_OF_ADDRESSES.findall(section)
            for each in value.split(b",")
        )

    def header(self, header: Header) -> Header:
        """Return *header* with the domains; unchanged if it is longer than :data:`LONG_HEADER`."""
        if len(bytes(header)) > LONG_HEADER:
            return header
        return Header([*map(self._field, header.fields[: header.broken]), *header.rest])

    def _field(self, field: Field) -> Field:
        name = field.name.removeprefix("resent-")
        if name not in _OF_SENDERS and name not in _OF_RECIPIENTS:
            return field
        domain = self.sender if name in _OF_SENDERS else self.recipient
        value = field.folded_value
        try:
            specs = address_specs(field.name, value)
        except InvalidAddress:
            return field
        for spec in reversed(specs):
            if not spec.in_group and is_local_part(spec.text):
                end = spec.begin + len(spec.text)
                value = f"{value[:end]}@{domain}{value[end:]}"
        return field.with_folded_value(value)


def is_local_part(text: str) -> bool:
    """Return True if *text* needs only a domain to be an address in ASCII."""
    if not text.isascii() or "@" in text or text.startswith('"') or ENCODED_WORD.search(text):
        return False
    try:
        return bool(Mailbox.parse(f"{text}@localhost"))
    except InvalidAddress:
        return False
