"""MIME objects into octets: as the ``email`` library writes them, fit for SMTP.

Every line ends with CRLF, 8-bit text stays 8-bit (``seven_bit`` is for servers that do
not take it), and the header is ASCII unless an address cannot be.  The caller's object
is never changed.

RFC 5322, RFC 2045, RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import copy
from email.headerregistry import Address, AddressHeader, Group
from email.message import Message as MIMEMessage
from email.policy import EmailPolicy
from typing import Any

from twisted_sendmail.message.header import Header, header_end
from twisted_sendmail.smtp import InvalidInput, InvalidMessage, ascii_domain, printable


def written(message: MIMEMessage) -> bytes:
    """The octets of *message*, with CRLF.

    :raises InvalidMessage: the library cannot write it, or one of its header fields
        would become several.
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


def bulk(message: MIMEMessage) -> int:
    """About how many octets :func:`written` will write."""
    payloads = (part.get_payload() for part in message.walk())
    return sum(len(payload) for payload in payloads if isinstance(payload, str))


def _written(message: MIMEMessage) -> bytes:
    settings: dict[str, Any] = {"linesep": "\r\n"}
    # The library gives a multipart its boundary while it writes, in the object itself.
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
    """The address fields in which an address is not ASCII, by their places."""
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
    """Domains as A-labels (RFC 5890): the library would make encoded-words of them."""
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
    """A value with a line break in it would make fields of its own (RFC 5322 section 2.2)."""
    given = [name.lower() for name in message.keys()]  # noqa: SIM118 - iterating tells other things
    header = Header.parse(octets[: header_end(octets, whole=True)])
    made = [field.name for field in header.fields]
    # The library adds this one when it has to encode.
    encoding = "content-transfer-encoding"
    if [name for name in given if name != encoding] != [name for name in made if name != encoding]:
        raise InvalidMessage(
            "the message's header cannot be used",
            detail="one of its values holds a line break",
            remedy="take line breaks out of header values",
        )
