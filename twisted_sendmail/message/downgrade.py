"""A message in ASCII, for a server that takes no 8-bit octets.

Only what has to change changes: a body with 8-bit octets becomes quoted-printable or base64, its
``Content-Transfer-Encoding`` tells so, and 8-bit fields become encoded-words. Everything else keeps
its octets. A signed message is not changed, as that would break the signature.

RFC 2045 section 6, RFC 2046 section 5, RFC 6152 section 3, RFC 2047, RFC 1428, RFC 6532, RFC 6533.
"""

from __future__ import annotations

import base64
import binascii
import re

from twisted_sendmail.message.field_encoding import NotEncodable, content_type, field_in_ascii
from twisted_sendmail.message.header import SIGNATURES, Field, Header, header_end
from twisted_sendmail.smtp import InvalidMessage

# Levels of parts in parts.
_MAX_DEPTH = 30
_NOT_ENCODED = frozenset({"", "7bit", "8bit", "binary"})
# These may be encoded, unlike other types of message: RFC 6532 section 3.7, RFC 6533 section 6.
_INTERNATIONAL = frozenset(
    {"global-delivery-status", "global-disposition-notification", "global-headers"}
)


def seven_bit(octets: bytes) -> bytes | None:
    """Return the message in ASCII, or None if that cannot be done.

    :param octets: the whole message, canonical.
    """
    if octets.isascii():
        return octets
    try:
        encoded = _entity(octets, (), 0, is_message=True)
    except (NotEncodable, InvalidMessage):
        return None
    return encoded if encoded.isascii() else None


def _entity(
    octets: bytes, boundaries: tuple[bytes, ...], depth: int, *, is_message: bool = False
) -> bytes:
    """Encode a message or a part of one: header, empty line, body."""
    if octets.isascii():
        return octets
    if depth > _MAX_DEPTH:
        raise NotEncodable
    end = header_end(octets, whole=True)
    header, body = Header.parse(octets[:end]), octets[end:]
    if boundaries and not end and not octets.startswith(b"\r\n"):
        raise NotEncodable  # readers differ about where the body of such a part begins
    if header.broken is not None or any(name in header for name in SIGNATURES):
        raise NotEncodable
    if not body.isascii():
        blank, content = (body[:2], body[2:]) if body.startswith(b"\r\n") else (b"\r\n", body)
        if is_message:
            header = _as_mime(header, content)
        header, content = _encoded(header, content, boundaries, depth)
        body = blank + content
    return bytes(Header(field_in_ascii(field) for field in header.fields)) + body


def _encoded(
    header: Header, body: bytes, boundaries: tuple[bytes, ...], depth: int
) -> tuple[Header, bytes]:
    main, sub, boundary = _content_type(header)
    encoding = " ".join(header.values("content-transfer-encoding")).lower()
    if encoding not in _NOT_ENCODED:
        raise NotEncodable  # it is encoded and nevertheless 8-bit
    if main == "multipart":
        if sub in {"signed", "encrypted"} or not boundary:
            raise NotEncodable
        return _marked(header, "7bit"), _multipart(body, (*boundaries, boundary), depth)
    if (main, sub) in {("message", "rfc822"), ("message", "global")}:
        try:
            inner = _entity(body, boundaries, depth + 1, is_message=True)
        except NotEncodable:
            if sub == "rfc822":
                raise
        else:
            return _marked(header, "7bit"), inner
    elif main == "message" and sub not in _INTERNATIONAL:
        raise NotEncodable  # RFC 2046 section 5.2: these may not be encoded
    name, content = _body(main, body, boundaries)
    return _marked(header, name), content


def _content_type(header: Header) -> tuple[str, str, bytes]:
    """Return main type, subtype and boundary."""
    values = header.values("content-type")
    if not values:
        return "text", "plain", b""
    if len(values) > 1:
        raise NotEncodable
    main, sub, boundary = content_type(values[0])
    if not boundary.isascii():
        raise NotEncodable
    return main, sub, boundary.encode("ascii")


def _multipart(body: bytes, boundaries: tuple[bytes, ...], depth: int) -> bytes:
    """Encode each part between the delimiter lines (RFC 2046 section 5.1.1)."""
    delimiter = re.compile(
        rb"(?:\A|\r\n|(?<=\r\n))--" + re.escape(boundaries[-1]) + rb"(--)?[ \t]*(?:\r\n|\Z)"
    )
    made, at, in_parts = [], 0, False
    for match in delimiter.finditer(body):
        between = body[at : match.start()]
        made += [_entity(between, boundaries, depth + 1) if in_parts else between, match[0]]
        at, in_parts = match.end(), not match[1]
        if match[1]:
            break
    # The text before the first delimiter and after the last one is shown by no reader.
    made.append(_entity(body[at:], boundaries, depth + 1) if in_parts else body[at:])
    return b"".join(made)


def _body(main: str, body: bytes, boundaries: tuple[bytes, ...]) -> tuple[str, bytes]:
    """Return the name of an encoding, and *body* in it."""
    if main == "text":
        quoted = binascii.b2a_qp(body, istext=True)
        quoted = quoted.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        readable = len(quoted) * 2 <= len(body) * 3 + 32
        # A soft line break may move a boundary to the start of a line.
        if (
            readable
            and binascii.a2b_qp(quoted) == body
            and not any(b"--" + boundary in quoted for boundary in boundaries)
        ):
            return "quoted-printable", quoted
    lines = base64.encodebytes(body).replace(b"\n", b"\r\n")
    return "base64", lines[:-2] if boundaries else lines  # the line end belongs to the delimiter


def _marked(header: Header, encoding: str) -> Header:
    """Return *header* with this Content-Transfer-Encoding in the place of the old one."""
    field = Field(
        "content-transfer-encoding", f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii")
    )
    if field.name not in header:
        return Header(header.fields) if encoding == "7bit" else Header((*header.fields, field))
    return Header(field if old.name == field.name else old for old in header.fields)


def _as_mime(header: Header, body: bytes) -> Header:
    """Return *header* with the MIME fields that give an encoding its meaning."""
    added = []
    if "mime-version" not in header:
        added.append(Field("mime-version", b"MIME-Version: 1.0\r\n"))
    if "content-type" not in header:
        try:
            body.decode("utf-8")
            charset = b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"  # RFC 1428
        added.append(
            Field("content-type", b"Content-Type: text/plain; charset=" + charset + b"\r\n")
        )
    return Header((*header.fields, *added))
