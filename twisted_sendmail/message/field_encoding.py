"""Header fields in ASCII: words that are not ASCII are encoded, everything else is kept.

Display names, comments and text become encoded-words (RFC 2047), values of parameters become extended
values (RFC 2231), and domains become A-labels (RFC 5890). Octets that are not UTF-8 get the charset
``unknown-8bit`` (RFC 1428). :func:`~twisted_sendmail.message.header.field_kind` gives the syntax of
each field.

The cost is linear in the length of the field. A value is cut into tokens from left to right; each
token is read once, and no regular expression reads far ahead and then fails.

RFC 5322 section 3.2 (tokens), section 3.4 (addresses), RFC 2047 section 5 (places of encoded-words),
RFC 6532 (UTF-8 in headers).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import TYPE_CHECKING

from twisted_sendmail.message.addresses import comment_end
from twisted_sendmail.message.header import FOLD_WIDTH, Field, FieldKind, field_kind
from twisted_sendmail.smtp import (
    MAX_DOMAIN,
    MAX_TEXT_LINE,
    InvalidAddress,
    ascii_domain,
    printable,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Characters of an encoded-word (RFC 2047 section 2).
MAX_ENCODED_WORD = 75
#: Domains beyond ASCII in one field; each costs some 30 µs.
MAX_U_LABEL_DOMAINS = 5000
# An encoded-word with less space left begins a new line.
_MIN_ROOM = 35

_BLANK = " \t\r\n"
_BLANK_OCTETS = (b" ", b"\t")
# Pieces of a word; a longer word counts as several, as each piece costs 300 octets of memory.
_PIECES = 200
_QUOTED = r'"(?:[^"\\]+|\\.?)*"?'
_LITERAL = r"\[[^][\\]*\]?"
_TEXT_WORD = re.compile(r"([ \t\r\n]*)([^ \t\r\n]+)")
# White space, and a word, an angle bracket with its content, or a special.
_ADDRESS_TOKEN = re.compile(
    rf'([ \t\r\n]*)(?:((?:[^][ \t\r\n"(),:;<\\]+|{_QUOTED}|{_LITERAL}|\\.?|\]){{1,{_PIECES}}})'
    r'|(<[^<>"(),;\\]*>?)|([(),:;]))',
    re.DOTALL,
)
# White space, and a word in which specials have no meaning here, or the begin of a comment.
_TOKEN = re.compile(
    rf'([ \t\r\n]*)(?:((?:[^ \t\r\n"(\\]+|{_QUOTED}|\\.?){{1,{_PIECES}}})|\()', re.DOTALL
)
_COMMENT_TOKEN = re.compile(r"([ \t\r\n]*)(?:((?:[^()\\ \t\r\n]+|\\.?)+)|([()]))", re.DOTALL)
# Addresses in ASCII without quotes, comments and literals.
_PLAIN_ADDRESSES = re.compile(r"[\t\r\n !#-'*-Z^-~]*")
_PARAMETER = re.compile(rf'(?:[^";(\\]+|{_QUOTED}|\\.?){{1,{_PIECES}}}', re.DOTALL)
_PARAMETER_NAME = re.compile(r"[ \t\r\n]*([!#-'+.0-9A-Z^-~-]+)(?:\*([0-9]+))?(\*?)[ \t\r\n]*=")
_ENCODED_WORD = re.compile(r"=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?=")
_ENCODED_BEGIN = "=?"
_QUOTED_OR_PAIR = re.compile(rf"{_QUOTED}|\\.?", re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
# A word and the white space before it, in text and where a quoted string is one word.
_FOLDABLE_TEXT = re.compile(rb"[ \t]*[^ \t]*")
_FOLDABLE = re.compile(
    rb'[ \t]*(?:[^ \t"\\]+|"(?:[^"\\]+|\\.?)*"?|\\.?){0,%d}' % _PIECES, re.DOTALL
)
# An item of a list without white space, and the separator after it.
_LIST_ITEM = re.compile(
    rb'(?:[^",;>\\]+|"(?:[^"\\]+|\\.?)*"?|\\.?|>(?!<))*(?:[,;]|>(?=<))?', re.DOTALL
)
_NOT_ASCII = re.compile("[^\x00-\x7f]+")

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def _escapes(mark: str, safe: str) -> dict[str, str]:
    table = {chr(octet): f"{mark}{octet:02X}" for octet in range(128)}
    return table | {character: character for character in _LETTERS + safe}


# For an encoded-word in any place (RFC 2047 section 5 (3)), and for an extended value (RFC 2231
# section 7).
_Q = _escapes("=", "!*+-/") | {" ": "_"}
_Q_SAFE = "".join(character for character, escape in _Q.items() if len(escape) == 1).encode("ascii")
_PERCENT = _escapes("%", "!#$&+-.^_`{|}~")


class NotEncodable(Exception):
    """An address has no form in ASCII: the field needs SMTPUTF8 (RFC 6531).

    Its text names the field and the address; its cause is an ``InvalidAddress`` if the domain is at
    fault.
    """


def field_in_ascii(field: Field) -> Field:
    """Return *field* in ASCII, except for the boundary of a multipart, which stays as in the body.

    :raises NotEncodable: an address has a local part beyond ASCII, or a domain without
        A-labels; or *field* is no field.
    """
    if field.octets.isascii():
        return field
    if not field.name:
        raise NotEncodable
    name, _, value = field.octets.decode("utf-8", "surrogateescape").partition(":")
    line_end = "\r\n" if value.endswith("\r\n") else ""
    value = value.removesuffix(line_end)
    writer = _Writer(len(name) + 1)
    kind = field_kind(field.name)
    if kind is FieldKind.UNSTRUCTURED:
        _encode_text(value, writer)
    elif kind is FieldKind.ADDRESSES or kind is FieldKind.PHRASES:
        try:
            _AddressList(value, writer, bare_is_address=kind is FieldKind.ADDRESSES).encode()
        except NotEncodable as e:
            raise NotEncodable(f"the {name} header has {e}") from e.__cause__
    elif kind is FieldKind.PARAMETERS:
        _encode_parameters(value, writer)
    else:
        _encode_tokens(value, writer)
    octets = f"{name}:{writer.text()}{line_end}".encode("utf-8", "surrogateescape")
    return folded_field(Field(field.name, octets))


def sendable_field(field: Field) -> Field:
    """Return *field* folded, and in ASCII unless an address cannot be.

    :raises InvalidAddress: a domain has no form in ASCII.
    """
    try:
        field = field_in_ascii(field)
    except NotEncodable as e:
        if isinstance(e.__cause__, InvalidAddress):
            raise e.__cause__ from None
    return folded_field(field)


def text_field(name: str, text: str) -> Field:
    """Return a field of text in ASCII that a reader decodes to *text*.

    A word that looks like an encoded-word, or is too long for SMTP, is encoded too. Other long words
    stay: programs that read a token or an object of JSON in a field do not decode it.

    :param text: in one line, without control characters; runs of blanks become one.
    """
    writer = _Writer(len(name) + 1)
    for word in filter(None, text.split(" ")):
        too_long = len(name) + 2 + len(word) > MAX_TEXT_LINE
        writer.word(" ", word, encode=_ENCODED_BEGIN in word or too_long)
    return folded_field(Field(name.lower(), f"{name}:{writer.text()}\r\n".encode("ascii")))


def parameter_field(name: str, value: str, parameters: Mapping[str, str]) -> Field:
    """Return a field with a *value* and *parameters* in ASCII, such as Content-Disposition.

    :param parameters: texts without control characters.
    """
    writer = _Writer(len(name) + 1)
    writer.raw(f" {value}")
    for key, text in parameters.items():
        # Some readers decode encoded-words within quotes.
        if text.isascii() and _ENCODED_BEGIN not in text:
            writer.folded(f"{key}={quoted(text)}")
        else:
            _encode_parameter(key, text, writer)
    return Field(name.lower(), f"{name}:{writer.text()}\r\n".encode("ascii"))


def folded_field(field: Field, longest: int = FOLD_WIDTH) -> Field:
    """Return *field* with its lines longer than *longest* octets folded at 78 characters.

    A line is folded at white space, which stays: not within a quoted string, and within an address
    only if it has to be. A word without white space stays whole (RFC 5322 section 2.2.3), unless it
    is too long for SMTP, and a list: then white space is added after a comma or semicolon.
    """
    lines = field.octets.split(b"\r\n")
    if max(map(len, lines)) <= longest:
        return field
    kind = field_kind(field.name)
    return Field(
        field.name,
        b"\r\n".join(
            b"\r\n".join(_fold(line, kind)) if len(line) > longest else line for line in lines
        ),
    )


def _fold(line: bytes, kind: FieldKind) -> Iterator[bytes]:
    """Yield the lines that *line* is folded to."""
    current = b""
    for piece in _foldable(line, kind):
        fits = len(current) + len(piece) <= FOLD_WIDTH
        # White space alone makes no line, nor should the name of the field.
        if (
            fits
            or not piece.startswith(_BLANK_OCTETS)
            or current.endswith(b":")
            or not current.strip()
        ):
            current += piece
        else:
            yield current
            current = piece
    yield current


def _foldable(line: bytes, kind: FieldKind) -> Iterator[bytes]:
    """Cut *line* into the pieces that should not be folded, each with the white space before it."""
    word = _FOLDABLE_TEXT if kind is FieldKind.UNSTRUCTURED else _FOLDABLE
    pieces = word.findall(line)
    if kind is not FieldKind.UNSTRUCTURED and max(map(len, pieces)) > MAX_TEXT_LINE:
        pieces = [part for piece in pieces for part in _list_items(piece)]
    if kind is not FieldKind.ADDRESSES:
        yield from pieces
        return
    address: list[bytes] = []
    for piece in pieces:
        address.append(piece)
        if not piece or piece.endswith((b",", b";")):  # the last one is empty
            whole = b"".join(address)
            yield from [whole] if len(whole) <= FOLD_WIDTH else address
            address = []


def encoded_words(text: str, first: int = MAX_ENCODED_WORD) -> list[str]:
    """Return *text* as encoded-words (RFC 2047), none of which ends within a character.

    :param text: octets that are not UTF-8 as surrogates (PEP 383).
    :param first: the maximum of characters of the first encoded-word; at least 35.
    """
    octets, text, charset = _decoded(text)
    safe = len(octets) - len(octets.translate(None, _Q_SAFE))
    quoted = 3 * len(octets) - 2 * safe <= len(octets) * 4 // 3 + 3
    begin = f"=?{charset}?q?" if quoted else f"=?{charset}?b?"
    first -= len(begin) + 2
    if not quoted and len(octets) * 4 <= (first - 4) * 3:
        return [f"{begin}{b2a_base64(octets, newline=False).decode('ascii')}?="]
    rooms = first, MAX_ENCODED_WORD - len(begin) - 2
    pieces = (
        _escaped(text, charset, _Q, "=", *rooms) if quoted else _base64(octets, charset, *rooms)
    )
    return [f"{begin}{piece}?=" for piece in pieces]


def content_type(value: str) -> tuple[str, str, str]:
    """Return main type, subtype and boundary of the *value* of a Content-Type field.

    The types are in lower case, and ``text`` and ``plain`` if they cannot be parsed (RFC 2045
    section 5.2). The boundary is empty if there is none.
    """
    kind, *parameters = _segments(value)
    main, slash, sub = without_comments(kind).lower().partition("/")
    main, sub = main.rstrip(_BLANK), sub.lstrip(_BLANK)
    boundary = ""
    for parameter in parameters:
        name = _PARAMETER_NAME.match(parameter)
        if name and not (boundary or name[2] or name[3]) and name[1].lower() == "boundary":
            boundary = _unquoted(without_comments(parameter[name.end() :]))
    if not (slash and main and sub) or any(c in main + sub for c in _BLANK):
        return "text", "plain", boundary
    return main, sub, boundary


def _list_items(piece: bytes) -> list[bytes]:
    if len(piece) <= MAX_TEXT_LINE:
        return [piece]
    first, *others = [match[0] for match in _LIST_ITEM.finditer(piece) if match[0]]
    return [first, *(b" " + each for each in others)]


# -- fields by their syntax ---------------------------------------------------


def _encode_text(value: str, writer: _Writer) -> None:
    text = value.rstrip(_BLANK)
    for word in _TEXT_WORD.finditer(text):
        writer.word(word[1], word[2])
    writer.raw(value[len(text) :])


def _encode_tokens(value: str, writer: _Writer) -> None:
    """Encode words and comments, in a field without phrases."""
    at = 0
    while token := _TOKEN.match(value, at):
        word = token[2]
        if word is None:
            at = _encode_comment(token[1], value, token.end() - 1, writer)
            continue
        at = token.end()
        if word.startswith("<"):
            # A URI or a Message-ID, in which an encoded-word has no meaning.
            word = _NOT_ASCII.sub(_percent_encoded, word)
        writer.word(token[1], word)
    writer.raw(value[at:])


def _encode_comment(space: str, value: str, at: int, writer: _Writer) -> int:
    """Encode the comment that begins at *at*; return where it ends."""
    end = _comment_end(value, at)
    comment = value[at:end]
    if comment.isascii():
        writer.word(space, comment)
        return end
    writer.raw(space + "(")
    at = 1
    while token := _COMMENT_TOKEN.match(comment, at):
        at = token.end()
        if token[2] is None:
            writer.raw(token[0], in_comment=True)
        else:
            word = token[2] if token[2].isascii() else _PAIR.sub(r"\1", token[2])
            writer.word(token[1], word, in_comment=True)
    writer.raw(comment[at:], in_comment=True)
    return end


class _AddressList:
    """Addresses or phrases separated by commas, from the value of one field.

    The angle bracket, colon, comma or semicolon after a word decides whether the word belongs to a
    display name or to an address.

    :param bare_is_address: words without an angle bracket are an address, not a phrase.
    """

    def __init__(self, value: str, writer: _Writer, *, bare_is_address: bool) -> None:
        self._value = value
        self._writer = writer
        self._bare_is_address = bare_is_address
        # Words and comments since the last special, each with the white space before it.
        self._words: list[tuple[str, str]] = []
        # An angle bracket that is not closed yet, and what follows it.
        self._angle: list[str] = []
        self._named = False
        self._has_at_sign = "@" in value
        self._plain_until = 0
        self._domains_left = MAX_U_LABEL_DOMAINS

    def encode(self) -> None:
        """Encode the whole value."""
        at, value = 0, self._value
        while True:
            if at >= self._plain_until and not self._words and not self._angle:
                at = self._copy_plain(at)
            token = _ADDRESS_TOKEN.match(value, at)
            if token is None:
                break
            at = token.end()
            space, word, bracket, special = token.groups()
            if special == "(":
                end = _comment_end(value, at - 1)
                comment, at = (space, value[at - 1 : end]), end
                (self._angle.extend(comment) if self._angle else self._words.append(comment))
            elif self._angle:
                self._go_on_in_angle(token[0], word or bracket or "")
            elif word is not None:
                self._words.append((space, word))
            elif bracket is not None:
                self._begin_angle(space, bracket)
            else:
                self._separate(token[0], special)
        if self._angle:
            self._writer.raw(self._bracket("".join(self._angle)))
        self._end_address()
        self._writer.raw(value[at:])

    def _copy_plain(self, at: int) -> int:
        """Copy plain addresses, which make most of a long field."""
        self._plain_until = _PLAIN_ADDRESSES.match(self._value, at).end() + 1  # type: ignore[union-attr]
        comma = self._value.rfind(",", at, self._plain_until)
        if comma < 0:
            return at
        self._writer.raw(self._value[at : comma + 1])
        self._named = False
        return comma + 1

    def _begin_angle(self, space: str, bracket: str) -> None:
        self._end_phrase()
        self._named = True
        if bracket.endswith(">"):
            self._writer.raw(space + self._bracket(bracket))
        else:
            self._angle = [space, bracket]

    def _go_on_in_angle(self, token: str, text: str) -> None:
        self._angle.append(token)
        if ">" in text:
            self._writer.raw(self._bracket("".join(self._angle)))
            self._angle = []

    def _separate(self, token: str, special: str) -> None:
        if self._words:
            (self._end_phrase if special == ":" else self._end_address)()
        self._writer.raw(token)
        if special != ":":
            self._named = False

    def _end_phrase(self) -> None:
        self._write_words(_unquoted)

    def _end_address(self) -> None:
        words = [word for _, word in self._words if not word.startswith("(")]
        # Without "@" it is a name, as in "Müller, Jürgen <j@x.example>" without quotes; only one word
        # that stands alone may be an address without a domain.
        bare = (
            self._bare_is_address
            and not self._named
            and (any("@" in word for word in words) or (len(words) == 1 and not self._has_at_sign))
        )
        self._write_words(self._address if bare else _unquoted)

    def _write_words(self, changed: Callable[[str], str]) -> None:
        for space, word in self._words:
            if word.startswith("("):
                _encode_comment(space, word, 0, self._writer)
            else:
                self._writer.word(space, word if word.isascii() else changed(word))
        self._words.clear()

    def _bracket(self, text: str) -> str:
        """Return *text*, an address in angle brackets, with its domain as A-labels."""
        if text.isascii():
            return text
        inner, bracket, after = text.rpartition(">")
        if not bracket:
            inner, after = text, ""
        if not after.isascii():
            raise _not_encodable(text)
        return self._address(inner) + bracket + after

    def _address(self, text: str) -> str:
        """Return *text*, which ends with a domain, with A-labels."""
        local, at, domain = text.rpartition("@")
        self._domains_left -= 1
        if not at or not local.isascii() or len(domain) > MAX_DOMAIN or self._domains_left < 0:
            raise _not_encodable(text)
        try:
            return f"{local}@{ascii_domain(domain)}"
        except InvalidAddress as e:
            raise _not_encodable(text) from e


def _not_encodable(address: str) -> NotEncodable:
    return NotEncodable(printable(address.strip(_BLANK).removeprefix("<"), 100))


def _encode_parameters(value: str, writer: _Writer) -> None:
    kind, *parameters = _segments(value)
    _encode_tokens(kind, writer)
    names = [_PARAMETER_NAME.match(each) for each in parameters]
    # If one part of a parameter has to follow RFC 2231, all its parts have to.
    extended: set[str] = set()
    starred: set[str] = set()
    for name, each in zip(names, parameters, strict=True):
        if name is not None and name[3]:
            starred.add(name[1].lower())
        if (
            name is not None
            and not each.isascii()
            and not without_comments(each[name.end() :]).isascii()
        ):
            extended.add(name[1].lower())
    for name, each in zip(names, parameters, strict=True):
        if name is None or name[1].lower() not in extended:
            writer.raw(";")
            (writer.raw(each) if each.isascii() else _encode_tokens(each, writer))
        elif name[1].lower() == "boundary":
            # The delimiter lines of the body hold the same octets.
            writer.raw(f";{each}")
        elif name[3]:
            # This is an extended value already, except for some octets.
            octets = _NOT_ASCII.sub(_percent_encoded, without_comments(each[name.end() :]))
            writer.raw(f";{each[: name.end()]}{octets}")
        elif name[2]:
            text = _unquoted(without_comments(each[name.end() :]))
            _, text, charset = _decoded(text)
            begin = f"{charset}''" if not int(name[2][:9]) else ""
            piece = "".join(_escaped(text, charset, _PERCENT, "%", len(each) * 9, 0))
            writer.folded(f"{name[1]}*{name[2]}*={begin}{piece}")
        elif name[1].lower() not in starred:
            _encode_parameter(name[1], _unquoted(without_comments(each[name.end() :])), writer)


def _encode_parameter(name: str, text: str, writer: _Writer) -> None:
    """Write ``name*=utf-8''…``, in several parts if it is long (RFC 2231 section 4.1)."""
    _, text, charset = _decoded(text)
    room = max(FOLD_WIDTH - len(f" {name}*9999*={charset}'';"), 20)
    pieces = list(_escaped(text, charset, _PERCENT, "%", room, room))
    if len(pieces) == 1:
        writer.folded(f"{name}*={charset}''{pieces[0]}")
        return
    for number, piece in enumerate(pieces):
        begin = "" if number else f"{charset}''"
        writer.folded(f"{name}*{number}*={begin}{piece}")


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogateescape"))


# -- tokens -------------------------------------------------------------------


def _comment_end(value: str, at: int) -> int:
    end = comment_end(value, at)
    return len(value) if end < 0 else end


def _segments(value: str) -> list[str]:
    """Cut *value* at the semicolons that are not in comments or quoted strings."""
    segments, begin, at = [], 0, 0
    while at < len(value):
        if value[at] == ";":
            segments.append(value[begin:at])
            begin = at = at + 1
        elif value[at] == "(":
            at = _comment_end(value, at)
        else:
            at = _PARAMETER.match(value, at).end()  # type: ignore[union-attr]
    segments.append(value[begin:])
    return segments


def without_comments(value: str) -> str:
    """Return *value* without comments, line ends, and white space around it."""
    if "(" not in value:
        return _unfolded(value).strip(_BLANK)
    kept, at = [], 0
    while at < len(value):
        if value[at] == "(":
            at = _comment_end(value, at)
            continue
        end = at + 1 if value[at] == ";" else _PARAMETER.match(value, at).end()  # type: ignore[union-attr]
        kept.append(value[at:end])
        at = end
    return _unfolded("".join(kept)).strip(_BLANK)


def _unquoted(text: str) -> str:
    """Return the meaning of a word, without quotes and backslashes."""
    return _QUOTED_OR_PAIR.sub(_meaning, text) if '"' in text or "\\" in text else text


def _meaning(match: re.Match[str]) -> str:
    return _PAIR.sub(r"\1", match[0].removeprefix('"').removesuffix('"'))


def _unfolded(text: str) -> str:
    return text.replace("\r\n", "") if "\n" in text else text


# -- encoding -----------------------------------------------------------------


def _decoded(text: str) -> tuple[bytes, str, str]:
    """Return octets of *text*, its characters, and the charset of both."""
    try:
        return text.encode("utf-8"), text, "utf-8"
    except UnicodeEncodeError:
        octets = text.encode("utf-8", "surrogateescape")
        return octets, octets.decode("latin-1"), "unknown-8bit"


def _escaped(  # noqa: PLR0917 - the last two are one range
    text: str, charset: str, table: dict[str, str], mark: str, first: int, room: int
) -> Iterator[str]:
    """Yield *text* with unsafe characters escaped, in pieces cut between characters."""
    codec = "utf-8" if charset == "utf-8" else "latin-1"
    piece: list[str] = []
    left = first
    for character in text:
        escape = table.get(character)
        if escape is None:
            escape = "".join([f"{mark}{octet:02X}" for octet in character.encode(codec)])
        left -= len(escape)
        if left < 0:
            yield "".join(piece)
            piece, left = [], room - len(escape)
        piece.append(escape)
    yield "".join(piece)


def _base64(octets: bytes, charset: str, first: int, room: int) -> Iterator[str]:
    at, size = 0, first // 4 * 3
    while at < len(octets):
        end = at + size
        while charset == "utf-8" and end < len(octets) and octets[end] & 0xC0 == 0x80:
            end -= 1
        yield b2a_base64(octets[at:end], newline=False).decode("ascii")
        at, size = end, room // 4 * 3


class _Writer:
    """Writes a new value: words in ASCII unchanged, others encoded, and those folded.

    :param column: characters of the first line so far.
    """

    def __init__(self, column: int) -> None:
        self._made: list[str] = []
        self._column = column
        # Words to be encoded together, and the white space before them.
        self._waiting: list[str] = []
        self._space = ""
        self._in_comment = False
        # The last word is an encoded-word of the old value, or of the new one.
        self._was_encoded = self._encoded = False

    def text(self) -> str:
        """Return the new value."""
        self._encode()
        return "".join(self._made)

    def raw(self, text: str, *, in_comment: bool = False) -> None:
        """Add *text* unchanged: specials, and the white space around them."""
        if self._waiting:
            self._encode()
        if not text:
            return
        if self._encoded and not in_comment and text[0] not in _BLANK:
            self._add(" ")  # RFC 2047 section 5 (3)
        self._encoded = self._was_encoded = False
        self._add(text)

    def folded(self, parameter: str) -> None:
        """Add a *parameter*, on a line of its own if it needs one."""
        fits = self._column + 2 + len(parameter) < FOLD_WIDTH
        self.raw(f"; {parameter}" if fits else f";\r\n {parameter}")

    def word(
        self, space: str, word: str, *, in_comment: bool = False, encode: bool = False
    ) -> None:
        """Add a *word* and the white space before it.

        :param encode: encode the word even if it is ASCII.
        """
        if encode or not word.isascii():
            if self._waiting:
                self._waiting.append(_unfolded(space))
            elif self._was_encoded and space:
                # A reader drops the white space between two encoded-words.
                self._waiting.append(_unfolded(space))
                self._space = " "
            else:
                self._space = space
            self._waiting.append(word)
            self._in_comment = in_comment
            return
        was_encoded = word.startswith("=?") and _ENCODED_WORD.fullmatch(word) is not None
        if self._waiting:
            if was_encoded and space:
                self._waiting.append(_unfolded(space))
                space = " "
            self._encode()
        if self._encoded and not (space or in_comment):
            space = " "
        self._encoded, self._was_encoded = False, was_encoded
        self._add(space + word)

    def _encode(self) -> None:
        if not self._waiting:
            return
        space = self._space
        if not space and not self._in_comment:
            space = " "
        room = FOLD_WIDTH - self._column - len(space)
        if "\n" in space:
            room = FOLD_WIDTH - len(space) + space.rfind("\n") + 1
        elif not self._made:
            # The first line must not be empty (RFC 5322 section 3.2.2).
            room = max(room, _MIN_ROOM)
        elif room < _MIN_ROOM:
            space = "\r\n" + (space or " ")
            room = FOLD_WIDTH - len(space) + 2
        text = self._waiting[0] if len(self._waiting) == 1 else "".join(self._waiting)
        words = encoded_words(
            text, min(room, MAX_ENCODED_WORD) if room >= _MIN_ROOM else MAX_ENCODED_WORD
        )
        if len(words) == 2 and self._made and "\n" not in space:
            # People and programs read a name better in one piece.
            whole = encoded_words(text)
            if len(whole) == 1:
                space, words = "\r\n" + (space or " "), whole
        self._add(space + "\r\n ".join(words))
        self._waiting.clear()
        self._encoded, self._was_encoded = True, False

    def _add(self, text: str) -> None:
        self._made.append(text)
        line = text.rfind("\n")
        self._column = self._column + len(text) if line < 0 else len(text) - line - 1
