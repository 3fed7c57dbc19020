"""Messages re-encoded for a server without 8BITMIME or without SMTPUTF8.

Only what has to change changes. For a server without 8BITMIME (:func:`seven_bit`), a body with 8-bit
octets becomes quoted-printable or base64, its ``Content-Transfer-Encoding`` tells so, and 8-bit
fields are encoded. For a server with 8BITMIME and without SMTPUTF8 (:class:`HeaderEncoder`), the 8-bit
fields of the message and of its parts are encoded, and bodies stay. Everything else keeps its octets.
A message with a DKIM or ARC signature is changed only if the server cannot take it otherwise, as that
breaks the signature: readers treat the message as unsigned then (RFC 6376 section 6.1). What is inside
``multipart/signed`` and ``multipart/encrypted`` is never changed.

RFC 2045 section 6, RFC 2046 section 5, RFC 6152 section 3, RFC 2047, RFC 1428, RFC 6532, RFC 6533.
"""

from __future__ import annotations

import base64
import binascii
import re

from twisted_sendmail.message.field_encoding import NotEncodable, content_type, field_in_ascii
from twisted_sendmail.message.header import MAX_HEADER, SIGNATURES, Field, Header, header_end
from twisted_sendmail.smtp import InvalidMessage

# Levels of parts in parts.
_MAX_DEPTH = 30
# Octets of a delimiter line (RFC 2046 section 5.1.1: a boundary has up to 70), with some white space.
_MAX_DELIMITER = 200
_NOT_ENCODED = frozenset({"", "7bit", "8bit", "binary"})
# These may be encoded, unlike other types of message: RFC 6532 section 3.7, RFC 6533 section 6.
_INTERNATIONAL = frozenset(
    {"global-delivery-status", "global-disposition-notification", "global-headers"}
)


def seven_bit(octets: bytes, *, signed: bool = False) -> bytes | None:
    """Return the message in ASCII, or None if that cannot be done.

    :param octets: the whole message, canonical.
    :param signed: encode a message with a signature in its header as well.
    """
    if octets.isascii():
        return octets
    try:
        encoded = _BodyEncoder(signed=signed).entity(octets, (), 0, is_message=True)
    except (NotEncodable, InvalidMessage):
        return None
    return encoded if encoded.isascii() else None


class HeaderEncoder:
    """Encodes the 8-bit fields of a message and of its parts as it streams; bodies stay.

    An attached message is a body, with its header. A part keeps a header that cannot be encoded. A
    signed message is changed only if its header holds UTF-8, which needs SMTPUTF8. Any cutting of
    the octets gives the same result.
    """

    #: A field was encoded.
    changed = False
    #: The message is signed; valid after its header.
    signed = False
    #: The header of the message has not ended.
    in_header = True

    def __init__(self) -> None:
        self._held = b""
        self._made: list[bytes] = []
        self._in_part_header = False
        self._in_line = False
        self._boundaries: list[bytes] = []
        self._delimiter: re.Pattern[bytes] | None = None

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Read the next octets, canonical; return those that are ready to be passed on.

        :param last: the message ends with *data*.
        :raises NotEncodable: an address in the message's header has no form in ASCII.
        """
        self._held += data
        go_on = True
        while go_on and self._held:
            header = self.in_header or self._in_part_header
            go_on = self._read_header(last=last) if header else self._read_body(last=last)
        made, self._made = b"".join(self._made), []
        return made

    def _pass_on(self, length: int) -> None:
        self._made.append(self._held[:length])
        self._held = self._held[length:]

    def _read_header(self, *, last: bool) -> bool:
        """Encode a header, if it is complete; return True to go on."""
        held = self._held
        end = 0 if held.startswith(b"\r\n") else held.find(b"\r\n\r\n") + 2
        if end == 1:
            if not last and len(held) < MAX_HEADER + 2:
                return False
            end = len(held)
        if end > MAX_HEADER or (self._delimiter and self._delimiter.search(held, 0, end)):
            end = 0  # too long, or a part without the empty line: there is no header to read
        section, self._held = held[:end], held[end:]
        self._made.append(self._encoded(section))
        self.in_header = self._in_part_header = False
        return True

    def _encoded(self, section: bytes) -> bytes:
        header = Header.parse(section)
        preamble = section[: len(section) - len(bytes(header))]
        if self.in_header:
            self.signed = _is_signed(header)
            if self.signed and not header.international:
                return section
        try:
            main, sub, boundary = _content_type(header)
            if main == "multipart" and sub not in {"signed", "encrypted"} and boundary:
                self._set_boundaries([*self._boundaries, boundary])
        except NotEncodable:
            pass  # its parts are not known
        if section.isascii():
            return section
        fields = list(header.fields)
        try:
            for at, field in enumerate(fields[: header.broken]):
                fields[at] = field_in_ascii(field)
        except NotEncodable:
            if self.in_header:
                raise
            return section
        encoded = preamble + bytes(Header(fields))
        self.changed = self.changed or encoded != section
        return encoded

    def _read_body(self, *, last: bool) -> bool:
        """Pass a body on, up to the next delimiter line; return True to go on."""
        held, delimiter = self._held, self._delimiter
        if delimiter is None:
            self._pass_on(len(held))
            return False
        begin = held.find(b"\n") + 1 if self._in_line else 0
        match = delimiter.search(held, begin) if begin or not self._in_line else None
        if match is None:
            # The last line may be the beginning of a delimiter line.
            end = begin if self._in_line and not begin else held.rfind(b"\n") + 1
            self._in_line = last or len(held) - end > _MAX_DELIMITER
            self._pass_on(len(held) if self._in_line else end)
            return False
        self._pass_on(match.end())
        self._in_line = False
        at = self._boundaries.index(match[1])
        self._in_part_header = not match[2]
        self._set_boundaries(self._boundaries[: at + self._in_part_header])
        return True

    def _set_boundaries(self, boundaries: list[bytes]) -> None:
        self._boundaries = boundaries[:_MAX_DEPTH]
        either = b"|".join(map(re.escape, self._boundaries))
        self._delimiter = (
            re.compile(rb"^--(" + either + rb")(--)?[ \t]*\r\n", re.MULTILINE) if either else None
        )


def _is_signed(header: Header) -> bool:
    return any(name in header for name in SIGNATURES)


class _BodyEncoder:
    """Encodes bodies and headers in ASCII, but no part of ``multipart/signed``.

    :param signed: also those of messages with a signature in the header.
    """

    def __init__(self, *, signed: bool) -> None:
        self._signed = signed

    def entity(
        self,
        octets: bytes,
        boundaries: tuple[bytes, ...],
        depth: int,
        *,
        is_message: bool = False,
    ) -> bytes:
        """Encode a message or a part of one: header, empty line, body.

        :raises NotEncodable: that cannot be done.
        """
        if octets.isascii():
            return octets
        if depth > _MAX_DEPTH:
            raise NotEncodable
        end = header_end(octets, whole=True)
        header, body = Header.parse(octets[:end]), octets[end:]
        if boundaries and not end and not octets.startswith(b"\r\n"):
            raise NotEncodable  # readers differ about where the body of such a part begins
        if header.broken is not None or (_is_signed(header) and not self._signed):
            raise NotEncodable
        if not body.isascii():
            blank, content = (body[:2], body[2:]) if body.startswith(b"\r\n") else (b"\r\n", body)
            if is_message:
                header = _as_mime(header, content)
            header, content = self._encoded(header, content, boundaries, depth)
            body = blank + content
        return bytes(Header(field_in_ascii(field) for field in header.fields)) + body

    def _encoded(
        self, header: Header, body: bytes, boundaries: tuple[bytes, ...], depth: int
    ) -> tuple[Header, bytes]:
        main, sub, boundary = _content_type(header)
        if main == "multipart":
            if not boundary or sub in {"signed", "encrypted"}:
                raise NotEncodable
            return _marked(header, "7bit"), self._multipart(body, (*boundaries, boundary), depth)
        if (main, sub) in {("message", "rfc822"), ("message", "global")}:
            try:
                inner = self.entity(body, boundaries, depth + 1, is_message=True)
            except NotEncodable:
                if sub == "rfc822":
                    raise
            else:
                return _marked(header, "7bit"), inner
        elif main == "message" and sub not in _INTERNATIONAL:
            raise NotEncodable  # RFC 2046 section 5.2: these may not be encoded
        name, content = _body(main, body, boundaries)
        return _marked(header, name), content

    def _multipart(self, body: bytes, boundaries: tuple[bytes, ...], depth: int) -> bytes:
        """Encode each part between the delimiter lines (RFC 2046 section 5.1.1)."""
        delimiter = re.compile(
            rb"(?:\A|\r\n|(?<=\r\n))--" + re.escape(boundaries[-1]) + rb"(--)?[ \t]*(?:\r\n|\Z)"
        )
        made, at, in_parts = [], 0, False
        for match in delimiter.finditer(body):
            between = body[at : match.start()]
            made += [
                self.entity(between, boundaries, depth + 1) if in_parts else between,
                match[0],
            ]
            at, in_parts = match.end(), not match[1]
            if match[1]:
                break
        # The text before the first delimiter and after the last one is shown by no reader.
        made.append(self.entity(body[at:], boundaries, depth + 1) if in_parts else body[at:])
        return b"".join(made)


def _content_type(header: Header) -> tuple[str, str, bytes]:
    """Return main type, subtype and boundary.

    :raises NotEncodable: the types are not clear, or the body is encoded and yet 8-bit.
    """
    encoding = " ".join(header.values("content-transfer-encoding")).lower()
    values = header.values("content-type")
    if len(values) > 1 or encoding not in _NOT_ENCODED:
        raise NotEncodable
    if not values:
        return "text", "plain", b""
    main, sub, boundary = content_type(values[0])
    if not boundary.isascii():
        raise NotEncodable
    return main, sub, boundary.encode("ascii")


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
