"""A well-formed message from its parts: a text, attachments, a header.

For those who have no message of RFC 5322 yet.  What comes out is ASCII from end to
end (quoted-printable, base64, encoded-words), so that every server takes it.

It adds neither Date nor Message-ID (submission does), and parses no address: who
prepares the message does that, from the header.  RFC 5322, RFC 2045 to 2049, RFC 2231.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP

from twisted_sendmail.smtp import InvalidInput, InvalidMessage, printable

_MEDIA_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\Z")
#: What an attachment is when nobody knows better.
UNKNOWN = "application/octet-stream"
# RFC 2046 section 5: these may not be encoded, so as bytes they are only bytes.
_NOT_ENCODED = frozenset({"message", "multipart"})


@dataclass(frozen=True)
class Attachment:
    """One file that goes along.

    :param name: the name it is saved under: no folder, no control characters.
    :param content: its octets.
    :param media_type: such as ``image/png``.
    :raises InvalidMessage: for a name or type that cannot be used.
    """

    name: str
    content: bytes
    media_type: str = UNKNOWN

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            shown = printable(self.name, 80)
            raise InvalidMessage(f"attachment name '{shown}' cannot be used", remedy="rename it")
        if _MEDIA_TYPE.match(self.media_type) is None:
            shown = printable(self.media_type, 80)
            raise InvalidMessage(
                f"media type '{shown}' cannot be used", remedy="write it as image/png"
            )


def compose(
    *,
    sender: str,
    to: Sequence[str] = (),
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    subject: str = "",
    text: str = "",
    attachments: Iterable[Attachment] = (),
) -> EmailMessage:
    """Build a message.

    :param sender: for From: an address, with or without a display name.
    :param to: for To, each as in a header; likewise *cc* and *bcc*.
    :param text: the body; line ends may be any.
    :returns: the message; its Bcc is still there, for submission to read and remove.
    :raises InvalidInput: for what would not stay in its header field.
    """
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    fields = {"From": [sender], "To": to, "Cc": cc, "Bcc": bcc, "Subject": [subject]}
    for name, values in fields.items():
        value = ", ".join(values)
        if value:
            message[name] = _one_line(name, value)
    message.set_content(text)
    for attachment in attachments:
        _attach(message, attachment)
    return message


def _one_line(name: str, value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise InvalidInput(
            f"{name} '{printable(value, 80)}' cannot be used",
            detail="it holds a line break or NUL",
            remedy="give it in one line",
        )
    return value


def _attach(message: EmailMessage, attachment: Attachment) -> None:
    main, _, sub = attachment.media_type.partition("/")
    if main.lower() in _NOT_ENCODED:
        main, _, sub = UNKNOWN.partition("/")
    message.add_attachment(attachment.content, maintype=main, subtype=sub, filename=attachment.name)
