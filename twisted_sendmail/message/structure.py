"""The parts of a message: its header decoded, its structure, and the names and sizes of attachments.

The parser of the standard library reads the message. It keeps everything in memory, so it gets the
beginning of each body only; the rest is counted here. A message of any size takes a few MB, and
garbage is a message with problems, not an error.

RFC 2045 to 2049 (MIME), RFC 2047 and 2231 (encoded text).
"""

from __future__ import annotations

import binascii
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from email.errors import MessageDefect
from email.header import decode_header
from email.message import Message as MIMEMessage
from email.parser import BytesFeedParser, BytesHeaderParser
from email.policy import Compat32
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import attrs

from twisted_sendmail.message.mime import written_pieces
from twisted_sendmail.message.source import Message, PiecesSource, source_of
from twisted_sendmail.smtp import MAX_HEADER, InvalidMessage

_T = TypeVar("_T")

#: Octets from one delimiter line to the next that are parsed: a part's header, and some of its body.
_PARSED_RUN = 16 * 1024
#: Octets and delimiter lines of a message that are parsed.
_PARSED_MESSAGE, _MAX_RUNS = 4 * 1024 * 1024, 10_000
#: Levels of parts, and octets for which a line counts beside its own.
_MAX_DEPTH, _LINE_COST = 30, 30
#: Characters that are decoded at a time, and characters and parameters of a field that are read as
#: parameters: the library takes quadratic time for more.
_DECODED_PIECE, _READ_PARAMETERS, _MAX_PARAMETERS = 8000, 4096, 100
# The blanks between two encoded-words are not shown (RFC 2047 section 6.2).
_PIECE = re.compile(
    rf"(.{{1,{_DECODED_PIECE}}}\?=)\s+(?==\?)|.{{1,{_DECODED_PIECE}}}\s|.{{1,{_DECODED_PIECE}}}",
    re.DOTALL,
)
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_CASE_CHANGE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class _Reading(Compat32):
    """Limits what the library reads of a field to find type, name and boundary; the field stays whole."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Return the value for the methods of a message, with UTF-8 (RFC 6532) as characters."""
        beginning = value[:_READ_PARAMETERS].split(";", _MAX_PARAMETERS)[:_MAX_PARAMETERS]
        return super().header_fetch_parse(name, _characters(";".join(beginning)))


_READING = _Reading()


class _Nested(MIMEMessage):
    """A message as it is parsed; the parser compares each line with the boundaries of all levels."""

    depth = 0

    def attach(self, payload: Any) -> None:
        """Add a part.

        :raises RecursionError: there are too many levels.
        """
        payload.depth = self.depth + 1
        if payload.depth > _MAX_DEPTH:
            raise RecursionError
        super().attach(payload)


@attrs.frozen
class MessagePart:
    """A message, or a part of one."""

    #: Names and values of its header fields, in order: decoded, and in one line each.
    header: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    #: Such as ``text/plain``.
    media_type: str
    charset: str | None
    #: ``attachment``, ``inline`` or another word; None if there is none.
    disposition: str | None
    #: The name of the file, as the sender gave it: it may hold a path, and any character.
    name: str | None
    #: The cid, without angle brackets.
    content_id: str | None
    #: Octets of the content, decoded; of a multipart, those of its parts.
    size: int
    #: The parts of a multipart, or the attached message.
    parts: tuple[MessagePart, ...]
    #: Errors of its syntax, in words.
    problems: tuple[str, ...] = attrs.field(repr=False)

    def walk(self) -> Iterator[MessagePart]:
        """Yield this part and all parts in it, in order."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def attachments(self) -> tuple[MessagePart, ...]:
        """The parts that are files: with a name, or meant to be saved."""
        if self.disposition == "attachment" or self.name is not None:
            return (self,)
        return tuple(found for part in self.parts for found in part.attachments)

    def value(self, name: str) -> str | None:
        """Return the value of the first field *name*, in any case; None if there is none."""
        return next((value for key, value in self.header if key.lower() == name.lower()), None)


def inspect_message(message: Message) -> MessagePart:
    """Return the structure of *message*; blocks while a file is read.

    :param message: bytes, text, an ``EmailMessage``, a path, a binary file, or an iterable of bytes.
    :raises InvalidMessage: it is something else, or its file cannot be opened.
    :raises OSError: its file cannot be read.

    Whatever the content is, it is no error; see :attr:`MessagePart.problems`.
    """
    if isinstance(message, os.PathLike):
        try:
            with Path(os.fsdecode(message)).open("rb", buffering=0) as file:
                return inspect_message(file)
        except (OSError, ValueError) as e:
            detail = getattr(e, "strerror", None) or str(e)
            raise InvalidMessage("the message file cannot be read", detail=detail) from None
    if isinstance(message, MIMEMessage):
        return _inspect(iter(PiecesSource(written_pieces(message)).read, b""))
    source = source_of(message)
    if hasattr(source, "arrive"):
        raise InvalidMessage(
            "message cannot be an asynchronous iterable", remedy="give bytes, a path or a file"
        )
    return _inspect(iter(source.read, b""))


def _inspect(pieces: Iterable[bytes]) -> MessagePart:
    shortened = _Shortened()
    parser: BytesFeedParser[Any] = BytesFeedParser(_Nested, policy=_READING)
    beginning, problems = b"", ""
    try:
        for piece in pieces:
            octets = shortened.feed(piece)
            if len(beginning) <= MAX_HEADER:
                beginning += octets
            parser.feed(octets)
        parser.feed(shortened.finish())
        parsed = parser.close()
        found = _part(parsed, shortened)
    except RecursionError:
        header = BytesHeaderParser(policy=_READING).parsebytes(beginning)
        header.set_payload("")
        found, problems = _part(header, shortened), "its parts are nested too deeply"
    if shortened.unread:
        problems = f"the last {shortened.unread:,} octets were not looked at"
    return attrs.evolve(found, problems=(*found.problems, problems)) if problems else found


# -- the sizes of what is not parsed ------------------------------------------


class _Count(NamedTuple):
    """The sizes of a body, by the encoding that it may have."""

    octets: int = 0
    base64: int = 0
    quoted_printable: int = 0

    @classmethod
    def of(cls, octets: bytes) -> _Count:
        letters = len(octets) - len(octets.translate(None, _BASE64))
        return cls(len(octets), letters, len(binascii.a2b_qp(octets)))

    def plus(self, other: _Count) -> _Count:
        return _Count(*map(sum, zip(self, other, strict=True)))

    def decoded(self, encoding: str) -> int:
        if encoding == "base64":
            return self.base64 * 3 // 4
        return self.quoted_printable if encoding == "quoted-printable" else self.octets


class _Shortened:
    """Shortens the runs of lines that do not begin with ``--``, and counts what is left out.

    A marker replaces the octets that are left out: a line that no message holds.
    """

    def __init__(self) -> None:
        token = secrets.token_hex(16)
        self.marker = re.compile(rf"\n<{token} ([0-9]+)>")
        self._marker = f"\n<{token} %d>".encode("ascii")
        self.left_out: list[_Count] = []
        #: Octets at the end that were not looked at.
        self.unread = 0
        self._held = b""
        # Octets of this run that may be passed on; the first one begins with the message's header.
        self._room = MAX_HEADER
        self._passed = self._runs = 0
        self._count: _Count | None = None

    def feed(self, octets: bytes) -> bytes:
        """Return the octets to be parsed."""
        if self._passed > _PARSED_MESSAGE or self._runs > _MAX_RUNS:
            self.unread += len(octets)
            return b""
        data, made, at = self._held + octets, [], 0
        while (end := data.find(b"\n--", at)) >= 0 and self._runs <= _MAX_RUNS:
            made += [*self._run(data[at : end + 1]), *self._end_run()]
            at, self._room = end + 1, _PARSED_RUN
            self._runs += 1
            # The line itself, so that it is not found again.
            made.append(data[at : at + 2])
            at += 2
        # A line may be cut here; a line end is held for the delimiter that it may belong to.
        end = max(data.rfind(b"\n", at), at) if len(data) - at < _PARSED_RUN else len(data) - 4
        end = max(end - 1 if data[end - 1 : end] == b"\r" else end, at)
        made += self._run(data[at:end])
        self._held = data[end:]
        passed = b"".join(made)
        self._passed += len(passed)
        if self._runs:
            # There may be boundaries, with which each line is compared.
            self._passed += _LINE_COST * passed.count(b"\n")
        return passed

    def finish(self) -> bytes:
        """Return the last octets to be parsed."""
        held, self._held = self._held, b""
        # The line end after the marker belongs to the delimiter, and there is none.
        return b"".join([*self._run(held), *self._end_run()[:1]])

    def _run(self, octets: bytes) -> list[bytes]:
        """Pass on the octets that the limit still allows."""
        if self._count is None and len(octets) <= self._room:
            self._room -= len(octets)
            return [octets] if octets else []
        made = []
        if self._count is None:
            cut = octets.rfind(b"\n", 0, self._room) + 1 or self._room
            made, octets = [octets[:cut]], octets[cut:]
            self._count = _Count()
        self._count = self._count.plus(_Count.of(octets))
        return made

    def _end_run(self) -> list[bytes]:
        if self._count is None:
            return []
        self.left_out.append(self._count)
        self._count = None
        return [self._marker % (len(self.left_out) - 1), b"\n"]

    def count(self, body: bytes) -> _Count:
        """Return the sizes of *body*, which was parsed, with what was left out of it."""
        text = body.decode("latin-1")
        count = _Count.of(self.marker.sub("", text).encode("latin-1"))
        for match in self.marker.finditer(text):
            count = count.plus(self.left_out[int(match[1])])
        return count


# -- what was parsed ----------------------------------------------------------


def _part(parsed: Any, shortened: _Shortened) -> MessagePart:
    header = tuple((name, _decoded(_unfolded(value))) for name, value in parsed.raw_items())
    parts: tuple[MessagePart, ...] = ()
    if parsed.is_multipart():
        parts = tuple(_part(each, shortened) for each in parsed.get_payload())
        size = sum(part.size for part in parts)
    else:
        encoding = str(parsed.get("Content-Transfer-Encoding", "")).strip().lower()
        # Without the field, the octets come as they are.
        del parsed["Content-Transfer-Encoding"]
        body = _quietly(lambda: parsed.get_payload(decode=True), b"")
        size = shortened.count(body or b"").decoded(encoding)
    charset = _quietly(parsed.get_content_charset, None)
    disposition = _quietly(parsed.get_content_disposition, None)
    name = _quietly(lambda: _file_name(parsed), None)
    content_id = str(parsed.get("Content-ID", "")).strip().removeprefix("<").removesuffix(">")
    return MessagePart(
        header=header,
        media_type=_quietly(parsed.get_content_type, "text/plain"),
        charset=None if charset is None else str(charset),
        disposition=None if disposition is None else str(disposition),
        name=None if name is None else _decoded(name),
        content_id=content_id or None,
        size=size,
        parts=parts,
        problems=tuple(map(_in_words, parsed.defects)),
    )


def _file_name(parsed: Any) -> str | None:
    """Return the name of the file; the extended form (RFC 2231) counts more than the plain one."""
    for field, parameter in ("content-disposition", "filename"), ("content-type", "name"):
        found = [value for key, value in parsed.get_params([], field) if key.lower() == parameter]
        extended = [value for value in found if isinstance(value, tuple)]
        for value in extended or found:
            return collapse_rfc2231_value(value).strip()
    return None


def _quietly(get: Callable[[], _T], default: _T) -> _T:
    """Return what the library reads, or *default*: it raises many errors for garbage."""
    try:
        return get()
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - see above
        return default


def _unfolded(value: Any) -> str:
    return "".join(str(value).splitlines()).strip(" \t")


def _decoded(value: str) -> str:
    """Return *value* with its encoded-words decoded, in linear time."""
    if len(value) <= _DECODED_PIECE:
        text = _decoded_piece(value)
    else:
        text = "".join(_decoded_piece(each[1] or each[0]) for each in _PIECE.finditer(value))
    return _characters(text)


def _characters(text: str) -> str:
    """Return *text* with its octets, which are surrogates (PEP 383), read as UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _decoded_piece(value: str) -> str:
    # If no encoded-word ends, the library searches all text after each beginning of one.
    end = value.rfind("?=") + 2
    if end == 1:
        return value
    words = _quietly(
        lambda: "".join(_word(*each) for each in decode_header(value[:end])), value[:end]
    )
    return words + value[end:]


def _word(word: bytes | str, charset: str | None) -> str:
    if isinstance(word, str):
        return word
    if charset is None:
        # The library writes characters beyond ASCII so.
        return word.decode("raw-unicode-escape", "replace")
    try:
        return word.decode(charset, "replace")
    except (LookupError, ValueError):
        return word.decode("latin-1")


def _in_words(defect: MessageDefect) -> str:
    """Return the name of a defect as words: ``StartBoundaryNotFoundDefect`` is "start boundary not found"."""
    return _CASE_CHANGE.sub(" ", type(defect).__name__.removesuffix("Defect")).lower()
