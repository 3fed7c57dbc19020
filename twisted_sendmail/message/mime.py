"""MIME messages into octets: as the ``email`` library writes them, for SMTP.

Written for a server that takes 8-bit text; ``seven_bit`` is for one that does not.
The caller's object is never changed.

RFC 2045, RFC 6152 (8BITMIME), RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import copy
from email import message_from_bytes
from email.message import Message as MIMEMessage
from email.policy import SMTP
from typing import Any

from twisted_sendmail.smtp.printable import printable
from twisted_sendmail.smtp.root_error import InvalidMessage

_ADDRESSES = (
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-sender",
    "resent-to",
    "resent-cc",
    "resent-bcc",
)


def written(message: MIMEMessage) -> bytes:
    """The octets of *message*, with CRLF.

    :raises InvalidMessage: the library cannot write it.
    """
    settings: dict[str, Any] = {"linesep": "\r\n"}
    if hasattr(message.policy, "utf8"):
        settings["utf8"] = message.policy.utf8 or _international(message)
    try:
        return message.as_bytes(policy=message.policy.clone(**settings))
    except Exception as e:
        raise InvalidMessage(
            "the message cannot be written out",
            detail=f"{type(e).__name__}: {printable(str(e), 200)}",
        ) from e


def _international(message: MIMEMessage) -> bool:
    """Is there an address that is not ASCII, which has no other form than UTF-8?"""
    for name in _ADDRESSES:
        for field in message.get_all(name, []):
            if any(not address.addr_spec.isascii() for address in getattr(field, "addresses", ())):
                return True
    return False


def seven_bit(octets: bytes) -> bytes | None:
    """The same message with its 8-bit parts encoded, or None if that would break it.

    A signature covers the octets as they are, so what is signed stays as it is.
    """
    message = message_from_bytes(octets, policy=SMTP.clone(cte_type="7bit", refold_source="none"))
    if "DKIM-Signature" in message or any(
        part.get_content_type() in {"multipart/signed", "multipart/encrypted"}
        for part in message.walk()
    ):
        return None
    try:
        encoded = copy.copy(message).as_bytes()
    except Exception:  # noqa: BLE001 - what the library cannot write stays as it is
        return None
    return encoded if encoded.isascii() else None
