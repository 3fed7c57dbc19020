"""Messages re-encoded for a server without 8BITMIME, SMTPUTF8 or BINARYMIME, and lines that are too long.

Only what has to change changes. :func:`reencoded` encodes bodies as quoted-printable or base64, with a
matching ``Content-Transfer-Encoding``: those with 8-bit octets for a server without 8BITMIME,
binary ones for a server without BINARYMIME, and those with a line that is too long. It also encodes
8-bit fields, and folds long ones. :class:`HeaderEncoder` is for a server with 8BITMIME and without
SMTPUTF8: it encodes the 8-bit fields of the message and of its parts, and bodies stay. Everything else
keeps its octets.
A message with a DKIM or ARC signature is changed only if the server cannot take it otherwise, as that
breaks the signature: readers treat the message as unsigned then (RFC 6376 section 6.1). The inside of
``multipart/signed`` and ``multipart/encrypted`` is never changed.

RFC 5321 section 4.5.3.1.6 (lines), RFC 3030 section 3 (binary), RFC 2045 section 6, RFC 2046
section 5, RFC 6152 section 3, RFC 2047, RFC 1428, RFC 6532, RFC 6533.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import partial
from typing import NamedTuple

from twisted_sendmail.message.field_encoding import (
    NotEncodable,
    content_type,
    encoded_words,
    field_in_ascii,
    folded_field,
    without_comments,
)
from twisted_sendmail.message.header import SIGNATURES, Field, Header, header_end
from twisted_sendmail.smtp import (
    MAX_HEADER,
    MAX_TEXT_LINE,
    InvalidMessage,
    LineBreaker,
    is_canonical,
    long_line,
    section_end,
)

# Levels of parts in parts.
_MAX_DEPTH = 30
# Octets of a delimiter line (RFC 2046 section 5.1.1: a boundary has up to 70), with some white space.
_MAX_DELIMITER = 200
_NOT_ENCODED = frozenset({"", "7bit", "8bit", "binary"})
_ENCODED = frozenset({"quoted-printable", "base64"})
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*=*")
# Text for people: encoded if it cannot be folded.
_TEXT_FIELDS = frozenset({"subject", "comments", "content-description"})
_SIGNED_PARTS = re.compile(
    rb"^content-type[ \t]*:\s*multipart/(?:signed|encrypted)", re.IGNORECASE | re.MULTILINE
)
# These may be encoded, unlike other types of message: RFC 6532 section 3.7, RFC 6533 section 6.
_INTERNATIONAL = frozenset(
    {"global-delivery-status", "global-disposition-notification", "global-headers"}
)


class Form(NamedTuple):
    """The form of content that a server takes."""

    #: Octets above 127 in bodies (8BITMIME).
    eight_bit: bool = False
    #: Octets above 127 in headers too (SMTPUTF8).
    utf8: bool = False


#: The form for a server without any of these extensions.
SEVEN_BIT = Form()


def reencoded(octets: bytes, form: Form = SEVEN_BIT, *, signed: bool = False) -> bytes | None:
    """Return the message in the *form* that a server takes, or None if that cannot be done.

    :param octets: the whole message; canonical, except for a binary body.
    :param signed: encode a message with a signature in its header as well.
    """
    encoder = _Encoder(form, binary=not is_canonical(octets), signed=signed)
    if encoder.fits(octets) and (form.utf8 or octets.isascii()):
        return octets
    try:
        made = encoder.entity(octets, (), 0, is_message=True)
    except (NotEncodable, InvalidMessage):
        return None
    return made if encoder.fits(made) else None


class HeaderEncoder:
    """Encodes the 8-bit fields of a message and of its parts as it streams; bodies stay.

    An attached message is a body, with its header. A part keeps a header that cannot be encoded. A
    signed message is changed only if its header holds UTF-8, which needs SMTPUTF8. Any cutting of
    the octets gives the same result.
    """

    #: A field was encoded.
    changed = False
    #: Octets that were added so far.
    growth = 0
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
        end = section_end(held)
        if end < 0:
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
        self.growth += len(encoded) - len(section)
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


def broken_lines(octets: bytes) -> bytes:
    """Return *octets* with lines that are too long broken."""
    if long_line(octets) is None:
        return octets
    breaker = LineBreaker()
    return breaker.feed(octets) + breaker.finish()


def may_be_signed(octets: bytes) -> bool:
    """Return True if a message that begins with *octets* may have a signature that any change breaks."""
    end = section_end(octets)
    header = Header.parse(octets if end < 0 else octets[:end])
    return _is_signed(header) or _SIGNED_PARTS.search(octets) is not None


def _is_signed(header: Header) -> bool:
    return any(name in header for name in SIGNATURES)


class _Encoder:
    """Encodes bodies and headers, but nothing inside ``multipart/signed``.

    :param binary: the message has a binary body: each part has to be looked at.
    :param signed: encode messages with a signature in the header as well.
    """

    def __init__(self, form: Form, *, binary: bool, signed: bool) -> None:
        self._form = form
        self._binary = binary
        self._signed = signed

    def fits(self, octets: bytes) -> bool:
        """Return True if the server can take *octets* in a body."""
        return (
            (self._form.eight_bit or octets.isascii())
            and long_line(octets) is None
            and not (self._binary and not is_canonical(octets))
        )

    def entity(
        self,
        octets: bytes,
        boundaries: tuple[bytes, ...],
        depth: int,
        *,
        is_message: bool = False,
        in_digest: bool = False,
    ) -> bytes:
        """Encode a message or a part of one: header, empty line, body.

        :param in_digest: a part of ``multipart/digest``.
        :raises NotEncodable: that cannot be done.
        """
        if depth and not self._binary and self.fits(octets):
            return octets
        if depth > _MAX_DEPTH:
            raise NotEncodable
        end = header_end(octets, whole=True)
        header, body = Header.parse(octets[:end]), octets[end:]
        if boundaries and not end and not octets.startswith(b"\r\n"):
            raise NotEncodable  # readers differ about where the body of such a part begins
        if header.broken is not None or (_is_signed(header) and not self._signed):
            raise NotEncodable
        if self._binary and not depth and not {"mime-version", "content-type"} <= _names(header):
            raise NotEncodable  # not MIME: the encoding would have no meaning
        if not self.fits(body):
            blank, content = (body[:2], body[2:]) if body.startswith(b"\r\n") else (b"\r\n", body)
            if is_message:
                header = _as_mime(header, content)
            header, content = self._encoded(header, content, boundaries, depth, in_digest=in_digest)
            body = blank + content
        elif self._binary and transfer_encoding(header) == "binary":
            header = _marked(header, "7bit" if body.isascii() else "8bit")
        return bytes(Header(map(self._field, header.fields))) + body

    def _field(self, field: Field) -> Field:
        if not self._form.utf8:
            field = field_in_ascii(field)
        field = folded_field(field, MAX_TEXT_LINE)
        if field.name in _TEXT_FIELDS and long_line(field.octets) is not None:
            words = "\r\n ".join(encoded_words(field.value))
            name = field.octets.partition(b":")[0]
            field = Field(field.name, name + f": {words}\r\n".encode("ascii"))
        return Field(field.name, broken_lines(field.octets))

    def _encoded(
        self,
        header: Header,
        body: bytes,
        boundaries: tuple[bytes, ...],
        depth: int,
        *,
        in_digest: bool,
    ) -> tuple[Header, bytes]:
        main, sub, boundary = _content_type(header, in_digest=in_digest)
        encoding = transfer_encoding(header)
        if encoding in _ENCODED and main not in {"multipart", "message"} and body.isascii():
            encoding, content = _wrapped(encoding, body, boundaries)
            return _marked(header, encoding), content
        if encoding not in _NOT_ENCODED:
            raise NotEncodable  # it is encoded and nevertheless 8-bit
        if main == "multipart":
            if not boundary or sub in {"signed", "encrypted"}:
                raise NotEncodable
            content = self._multipart(
                body, (*boundaries, boundary), depth + 1, in_digest=sub == "digest"
            )
            return self._marked_container(header), content
        if (main, sub) in {("message", "rfc822"), ("message", "global")}:
            try:
                inner = self.entity(body, boundaries, depth + 1, is_message=True)
            except NotEncodable:
                if sub == "rfc822":
                    raise
            else:
                return self._marked_container(header), inner
        elif main == "message" and sub not in _INTERNATIONAL:
            raise NotEncodable  # RFC 2046 section 5.2: these may not be encoded
        name, content = _body(main, body, boundaries)
        return _marked(header, name), content

    def _marked_container(self, header: Header) -> Header:
        if not self._form.eight_bit:
            return _marked(header, "7bit")
        return _marked(header, "8bit") if transfer_encoding(header) == "binary" else header

    def _multipart(
        self, body: bytes, boundaries: tuple[bytes, ...], depth: int, *, in_digest: bool
    ) -> bytes:
        """Encode each part between the delimiter lines (RFC 2046 section 5.1.1)."""
        delimiter = re.compile(
            rb"(?:\A|\r\n|(?<=\r\n))--" + re.escape(boundaries[-1]) + rb"(--)?[ \t]*(?:\r\n|\Z)"
        )
        part = partial(self.entity, boundaries=boundaries, depth=depth, in_digest=in_digest)
        made, at, in_parts = [], 0, False
        for match in delimiter.finditer(body):
            between = body[at : match.start()]
            made += [part(between) if in_parts else between, match[0]]
            at, in_parts = match.end(), not match[1]
            if match[1]:
                break
        # The text before the first delimiter and after the last one is shown by no reader.
        made.append(part(body[at:]) if in_parts else body[at:])
        return b"".join(made)


def _names(header: Header) -> set[str]:
    return {field.name for field in header.fields}


def transfer_encoding(header: Header) -> str:
    """Return the Content-Transfer-Encoding in lower case, without comments; ``""`` if there is none.

    Several fields that differ are several words (RFC 2045 section 6.1 allows one).
    """
    values = header.values("content-transfer-encoding")
    return " ".join({without_comments(value).lower(): None for value in values})


def _content_type(header: Header, *, in_digest: bool = False) -> tuple[str, str, bytes]:
    """Return main type, subtype and boundary.

    :param in_digest: of a part of ``multipart/digest`` (RFC 2046 section 5.1.5).
    :raises NotEncodable: they are not clear.
    """
    values = header.values("content-type")
    if len(values) > 1:
        raise NotEncodable
    if not values:
        return ("message", "rfc822", b"") if in_digest else ("text", "plain", b"")
    main, sub, boundary = content_type(values[0])
    return main, sub, boundary.encode("utf-8", "surrogateescape")


def _wrapped(encoding: str, body: bytes, boundaries: tuple[bytes, ...]) -> tuple[str, bytes]:
    """Return the name of an encoding, and a *body* that is encoded already with shorter lines.

    :raises NotEncodable: it is not what *encoding* says.
    """
    if encoding == "quoted-printable":
        return _body("text", binascii.a2b_qp(body), boundaries)
    octets = b"".join(body.split())
    if not _BASE64.fullmatch(octets):
        raise NotEncodable
    lines = [octets[at : at + 76] for at in range(0, len(octets), 76)]
    return encoding, b"\r\n".join(lines) + (b"\r\n" if body.endswith(b"\r\n") else b"")


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
            charset = b"us-ascii" if body.isascii() else b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"  # RFC 1428
        added.append(
            Field("content-type", b"Content-Type: text/plain; charset=" + charset + b"\r\n")
        )
    return Header((*header.fields, *added))
