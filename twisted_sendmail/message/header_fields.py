"""The header fields with a meaning here, and the syntax of each: one table.

Everything that writes or changes a header field looks up here how the field is built.  A
field that is not in the table is unstructured text (RFC 5322 section 2.2.1).
"""

from __future__ import annotations

import enum


class FieldKind(enum.Enum):
    """The syntax of a field's value."""

    #: Text; encoded-words may stand anywhere (RFC 2047 section 5 (1)).
    UNSTRUCTURED = enum.auto()
    #: Mailboxes and groups: display names, comments and addresses (RFC 5322 section 3.4).
    ADDRESSES = enum.auto()
    #: A comma-separated list of phrases, perhaps with something in angle brackets.
    PHRASES = enum.auto()
    #: A token and parameters (RFC 2045 section 5.1, RFC 2183, RFC 2231).
    PARAMETERS = enum.auto()
    #: Message-IDs in angle brackets (RFC 5322 section 3.6.4).
    MESSAGE_IDS = enum.auto()
    #: Trace (RFC 5321 section 4.4).
    RECEIVED = enum.auto()
    #: A date (RFC 5322 section 3.3).
    DATE = enum.auto()
    #: Other words with a syntax, and comments.
    TOKENS = enum.auto()


def _both(*names: str) -> tuple[str, ...]:
    """*names*, and the fields of the same meaning in a block of a resent message."""
    return (*names, *(f"resent-{name}" for name in names))


_NAMES: dict[FieldKind, tuple[str, ...]] = {
    FieldKind.ADDRESSES: (
        *_both("from", "sender", "reply-to", "to", "cc", "bcc"),
        "apparently-to",
        "delivered-to",
        "disposition-notification-to",
        "errors-to",
        "mail-followup-to",
        "mail-reply-to",
        "return-path",
        "return-receipt-to",
    ),
    FieldKind.PHRASES: ("keywords", "list-id"),
    FieldKind.PARAMETERS: ("content-type", "content-disposition"),
    FieldKind.MESSAGE_IDS: (
        *_both("message-id"),
        "in-reply-to",
        "references",
        "content-id",
        "original-message-id",
        "supersedes",
    ),
    FieldKind.RECEIVED: ("received",),
    FieldKind.DATE: (
        *_both("date"),
        "deferred-delivery",
        "delivery-date",
        "expires",
        "expiry-date",
    ),
    FieldKind.TOKENS: (
        "accept-language",
        "arc-authentication-results",
        "authentication-results",
        "auto-submitted",
        "autocrypt",
        "content-language",
        "content-location",
        "content-transfer-encoding",
        "importance",
        "list-archive",
        "list-help",
        "list-owner",
        "list-post",
        "list-subscribe",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "mime-version",
        "precedence",
        "priority",
        "received-spf",
        "sensitivity",
        "x-priority",
    ),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}

#: Recipients that the others are not told of (RFC 5322 section 3.6.3).
BLIND = ("bcc", "resent-bcc")
#: Signatures over the octets of the message: any change breaks them (RFC 6376, RFC 8617).
SIGNATURES = ("dkim-signature", "arc-message-signature", "arc-seal", "domainkey-signature")


def kind_of(name: str) -> FieldKind:
    """The syntax of the field *name*.

    :param name: lower-case.
    """
    return _KINDS.get(name, FieldKind.UNSTRUCTURED)
