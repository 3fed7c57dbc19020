"""MIME: a message from its parts (:func:`compose`), and a MIME object as octets (:func:`written`).

RFC 5322, RFC 2045 to 2049, RFC 2231, RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from email.headerregistry import Address, AddressHeader, Group
from email.message import EmailMessage
from email.message import Message as MIMEMessage
from email.policy import SMTP, EmailPolicy
from typing import Any

import attrs

from twisted_sendmail.message.header import Header, header_end
from twisted_sendmail.smtp import InvalidInput, InvalidMessage, ascii_domain, printable

_MEDIA_TYPE = re.compile(r"([A-Za-z0-9!#$&^_.+-]+)/([A-Za-z0-9!#$&^_.+-]+)\Z")
#: The media type of an attachment when none is known.
OCTET_STREAM = "application/octet-stream"
# RFC 2046 section 5: these may not be encoded, so they are attached as octets only.
_NOT_ENCODED = frozenset({"message", "multipart"})


@attrs.frozen
class Attachment:
    """A file to attach.

    :param name: the name under which it is saved: no folder, no control characters.
    :param content: its octets.
    :param media_type: such as ``image/png``.
    :raises InvalidMessage: the name or the type cannot be used.
    """

    name: str
    content: bytes
    media_type: str = OCTET_STREAM

    def __attrs_post_init__(self) -> None:
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
    """Build a message in ASCII (quoted-printable, base64, encoded-words), for any server.

    Date and Message-ID are added and addresses are checked when the message is sent.

    :param sender: for From: an address, with or without a display name.
    :param to: for To, each as in a header; likewise *cc* and *bcc*.
    :param text: the body; line ends may be any.
    :returns: the message, with its Bcc, which is removed when the message is sent.
    :raises InvalidInput: an argument does not fit into a header field.
    """
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    fields = {"From": [sender], "To": to, "Cc": cc, "Bcc": bcc, "Subject": [subject]}
    for name, values in fields.items():
        value = ", ".join(values)
        if any(character in value for character in "\r\n\0"):
            raise InvalidInput(
                f"{name} '{printable(value, 80)}' cannot be used",
                detail="it holds a line break or NUL",
                remedy="give it in one line",
            )
        if value:
            message[name] = value
    message.set_content(text)
    for each in attachments:
        main, _, sub = each.media_type.partition("/")
        if main.lower() in _NOT_ENCODED:
            main, _, sub = OCTET_STREAM.partition("/")
        message.add_attachment(each.content, maintype=main, subtype=sub, filename=each.name)
    return message


def bulk(message: MIMEMessage) -> int:
    """Return about how many octets :func:`written` will return."""
    payloads = (part.get_payload() for part in message.walk())
    return sum(len(payload) for payload in payloads if isinstance(payload, str))


def written(message: MIMEMessage) -> bytes:
    """Return the octets of *message*, as the ``email`` library writes them, with CRLF.

    8-bit text stays 8-bit, and the header is ASCII unless an address cannot be. *message* is not
    changed.

    :raises InvalidMessage: the library cannot write it, or one of its header fields would become
        several.
    """
    try:
        octets = _written(message)
    except InvalidInput:
        raise
    except Exception as e:
        raise InvalidMessage(
            "the message cannot be written out",
            detail=f"{type(e).__name__}: {printable(str(e), 200)}",
        ) from e
    _check_fields(message, octets)
    return octets


def _written(message: MIMEMessage) -> bytes:
    settings: dict[str, Any] = {"linesep": "\r\n"}
    # The library sets the boundary of a multipart while it writes, in the object itself.
    own = message.is_multipart()
    copied = copy.deepcopy(message) if own else message
    policy = message.policy
    if isinstance(policy, EmailPolicy):
        addressed = _not_ascii(copied)
        settings["utf8"] = any(
            not address.username.isascii()
            for field in addressed.values()
            for address in field.addresses
        )
        if addressed and not settings["utf8"]:
            copied = copied if own else copy.deepcopy(message)
            _set_ascii_domains(copied, addressed, policy)
    return copied.as_bytes(policy=policy.clone(**settings))


def _not_ascii(message: MIMEMessage) -> dict[int, AddressHeader]:
    """Return the address fields with an address that is not ASCII, by their index."""
    found: dict[int, AddressHeader] = {}
    for at, (name, raw) in enumerate(message.raw_items()):
        if str(raw).isascii():
            continue
        field = message.policy.header_fetch_parse(name, raw)
        if isinstance(field, AddressHeader) and any(
            not address.addr_spec.isascii() for address in field.addresses
        ):
            found[at] = field
    return found


def _set_ascii_domains(
    message: MIMEMessage, addressed: dict[int, AddressHeader], policy: EmailPolicy[Any]
) -> None:
    """Write domains as A-labels (RFC 5890): the library would make encoded-words of them."""
    items = list(message.raw_items())
    for name in {name.lower() for name, _ in items}:
        del message[name]
    for at, (name, raw) in enumerate(items):
        field = addressed.get(at)
        value = policy.header_factory(name, _groups(field)) if field else raw
        message.set_raw(name, value)


def _groups(field: AddressHeader) -> list[Group]:
    return [
        Group(
            group.display_name,
            [
                Address(address.display_name, address.username, ascii_domain(address.domain))
                for address in group.addresses
            ],
        )
        for group in field.groups
    ]


def _check_fields(message: MIMEMessage, octets: bytes) -> None:
    """Check that no value has become a field of its own by a line break (RFC 5322 section 2.2)."""
    given = [name.lower() for name in message.keys()]  # noqa: SIM118 - iterating gives other names
    header = Header.parse(octets[: header_end(octets, whole=True)])
    made = [field.name for field in header.fields]
    # The library adds this field when it has to encode.
    encoding = "content-transfer-encoding"
    if [name for name in given if name != encoding] != [name for name in made if name != encoding]:
        raise InvalidMessage(
            "the message's header cannot be used",
            detail="one of its values holds a line break",
            remedy="take line breaks out of header values",
        )
