"""Compose a message: text, HTML, attachments, images in the HTML, and header fields.

The standard library makes the MIME structure. Header fields and parameters are written here, because
the library decodes words that look encoded, and leaves long words and names as they are. Each field
is in ASCII, unless an address cannot be, and in lines that SMTP takes.

RFC 5322 (fields, dates), RFC 2045 to 2049 and 2387 (MIME), RFC 2183 and 2231 (names of attachments),
RFC 2392 (cid), RFC 2369 and 8058 (List-Unsubscribe).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from email.utils import format_datetime, parsedate_tz
from typing import IO, Any, NoReturn, TypeAlias
from urllib.parse import quote, urlsplit

import attrs

from twisted_sendmail.message.addresses import mailboxes
from twisted_sendmail.message.attached_file import AttachedFile, attached_file, attached_path
from twisted_sendmail.message.field_encoding import (
    folded_field,
    parameter_field,
    sendable_field,
    text_field,
)
from twisted_sendmail.message.header import Field, FieldKind, field_kind
from twisted_sendmail.message.header_fixer import phrase
from twisted_sendmail.message.mime import FilePart
from twisted_sendmail.smtp import (
    MAX_TEXT_LINE,
    InvalidInput,
    InvalidMessage,
    Mailbox,
    check_flag,
    check_type,
    printable,
)

#: An address for a header field: ``jane@example.org``, ``Jane <jane@example.org>``, an ``Address`` of
#: the ``email`` library, or a :class:`~twisted_sendmail.Mailbox`.
AnyAddress: TypeAlias = "str | Address | Mailbox"
#: One address, or several.
AnyAddresses: TypeAlias = "AnyAddress | Iterable[AnyAddress]"

#: The media type of an attachment when none is known.
OCTET_STREAM = "application/octet-stream"
#: Octets of the name of an attachment, as most file systems have.
MAX_NAME = 255

_POLICY = SMTP.clone(cte_type="7bit")
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]+"  # noqa: S105 - of RFC 2045
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})=(?:({_TOKEN})|"([^"\\\x00-\x1f\x7f]*)")')
_MEDIA_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})((?:{_PARAMETER.pattern})*)\Z")
# RFC 2046 section 5: these may not be encoded, so they are attached as octets only.
_NOT_ENCODED = frozenset({"message", "multipart"})
_FIELD_NAME = re.compile(r"[!-9;-~]+\Z")
# C0, DEL, C1, and the separators at which str.splitlines() breaks a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>\Z")
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+\Z")
_CID_SCHEME = re.compile("cid:", re.IGNORECASE)
_CID_IN_HTML = re.compile(r"""\b(?:src|background)\s*=\s*["']?\s*cid:([^"'\s>]+)""", re.IGNORECASE)
# RFC 5545 sections 3.4 and 3.7.2.
_CALENDAR = re.compile(r"\s*BEGIN:VCALENDAR\s", re.IGNORECASE)
_METHOD = re.compile(r"^METHOD:([A-Z-]+)[ \t]*\r?$", re.ASCII | re.IGNORECASE | re.MULTILINE)
_URI = re.compile(r"[!-;=?-~]+\Z")
# Fields that follow from the parts of the message, and that servers add.
_NOT_GIVEN = re.compile(r"(?:mime-version|content-.*|received|return-path)\Z")
#: Characters of a Message-ID or URI.
_MAX_WORD = 900


def _immutable(
    content: bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes],
) -> bytes | os.PathLike[str] | IO[bytes]:
    return bytes(content) if isinstance(content, (bytearray, memoryview)) else content


@attrs.frozen
class Attachment:
    """A file to attach, or an image for the HTML.

    :param content: its octets, the path of a file, or an open binary file, which is read from its
        position and may be closed after :func:`compose`. A content above 64 KiB is read when the
        message is sent: then the file at the path must still exist.
    :param name: the name under which it is saved: no folder, no control characters. None: that of
        the path or of the file.
    :param media_type: such as ``image/png`` or ``text/csv; charset=utf-8``. None: guessed from the
        name. Messages and multiparts are attached as octets.
    :raises InvalidMessage: the name or the type cannot be used, or there is no name.
    """

    content: bytes | os.PathLike[str] | IO[bytes] = attrs.field(repr=False, converter=_immutable)
    name: str | None = None
    media_type: str | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.content, (bytes, os.PathLike)) and not hasattr(self.content, "read"):
            raise InvalidMessage(
                f"the content of an attachment cannot be {type(self.content).__name__}",
                remedy="give bytes, a path or an open binary file",
            )
        if self.name is not None:
            check_type("the name of an attachment", self.name, str, "text")
        _check_file_name(self.file_name)
        if self.media_type is not None:
            check_type("media_type", self.media_type, str, "text such as image/png")
            if _MEDIA_TYPE.match(self.media_type) is None:
                shown = printable(self.media_type, 80)
                raise InvalidMessage(
                    f"media type '{shown}' cannot be used", remedy="write it as image/png"
                )

    @property
    def file_name(self) -> str:
        """The name under which it is saved."""
        if self.name is not None:
            return self.name
        if isinstance(self.content, os.PathLike):
            return os.path.basename(os.fsdecode(self.content))  # noqa: PTH119 - any PathLike
        name = getattr(self.content, "name", None)
        return os.path.basename(name) if isinstance(name, str) else ""  # noqa: PTH119 - text

    def part(self, disposition: str, content_id: str | None = None) -> MIMEPart:
        """Return it as a part of a message; may block while a file is read.

        :param disposition: ``attachment`` or ``inline``.
        :raises InvalidMessage: the file cannot be read.
        """
        name = self.file_name
        content: bytes | AttachedFile
        if isinstance(self.content, bytes):
            content = self.content
        elif isinstance(self.content, os.PathLike):
            content = attached_path(self.content, name)
        else:
            content = attached_file(self.content, name)
        main, sub, parameters = self._media_type()
        if isinstance(content, bytes):
            part = MIMEPart(policy=_POLICY)
            part.set_content(content, main, sub)
        else:
            part = FilePart(_POLICY, content)
        del part["Content-Type"]
        _set(part, parameter_field("Content-Type", f"{main}/{sub}", parameters))
        _set(part, parameter_field("Content-Disposition", disposition, {"filename": name}))
        if content_id is not None:
            _set(part, _folded("Content-ID", f"<{content_id}>"))
        return part

    def _media_type(self) -> tuple[str, str, dict[str, str]]:
        given = self.media_type
        if given is None:
            import mimetypes

            guessed, encoding = mimetypes.guess_type(self.file_name)
            # The type of a .txt.gz is not "text/plain".
            given = OCTET_STREAM if encoding or guessed is None else guessed
        match = _MEDIA_TYPE.match(given)
        if match is None or match[1].lower() in _NOT_ENCODED:
            main, _, sub = OCTET_STREAM.partition("/")
            return main, sub, {}
        parameters = {key: word or text for key, word, text in _PARAMETER.findall(match[3])}
        return match[1], match[2], parameters


def compose(
    *,
    sender: AnyAddress,
    to: AnyAddresses = (),
    cc: AnyAddresses = (),
    bcc: AnyAddresses = (),
    reply_to: AnyAddresses = (),
    subject: str = "",
    text: str | None = None,
    html: str | None = None,
    attachments: Iterable[Attachment | os.PathLike[str]] = (),
    inline: Mapping[str, Attachment | os.PathLike[str]] | None = None,
    calendar: str | None = None,
    headers: Mapping[str, str] | None = None,
    list_unsubscribe: str | Iterable[str] = (),
    one_click: bool = False,
    date: datetime | None = None,
    in_reply_to: str | Iterable[str] = (),
    references: str | Iterable[str] = (),
) -> EmailMessage:
    """Return a message in ASCII (quoted-printable, base64, encoded-words), for any server.

    The message is an ``EmailMessage``, which may be changed like any other. Attachments above
    64 KiB stay on the disk and are read each time the message is sent, in constant memory; the
    methods of the ``email`` library read them into memory.

    ``Message-ID`` is added when the message is sent, and ``Date`` unless it is given. ``Bcc`` is
    in the message, names recipients, and is removed when the message is sent.

    Opens the files of attachments, and reads the small ones: it blocks as long as that takes.

    :param sender: the one address of From, with or without a display name.
    :param to: an address or several; likewise *cc*, *bcc* and *reply_to*.
    :param subject: in one line; runs of blanks become one.
    :param text: the text; line ends may be any. Empty if there is no *html* either.
    :param html: the same as HTML, which readers prefer to the text.
    :param attachments: paths, or :class:`Attachment` for another name or type, octets or open files.
    :param inline: images of the HTML by their cid: ``{"logo": Path("logo.png")}`` is shown by
        ``<img src="cid:logo">``.
    :param calendar: an iCalendar object (RFC 5545) with a METHOD: with ``METHOD:REQUEST`` it is an
        invitation, which readers show with buttons to accept and to decline (RFC 6047).
    :param headers: other fields by name; without control characters.
    :param list_unsubscribe: URIs, ``https:`` or ``mailto:``, that end a subscription (RFC 2369).
    :param one_click: a POST to the one ``https:`` URI ends it without a question (RFC 8058). Readers
        require a DKIM signature over both fields.
    :param date: for Date, with a time zone, which the field shows. None: the time of sending.
    :param in_reply_to: the Message-ID of the message that this one answers, in angle brackets.
    :param references: the Message-IDs of the messages before, oldest first; by default *in_reply_to*.
    :raises InvalidInput: an argument cannot be used; the text says which, and what to give instead.
    :raises InvalidAddress: the same of an address.
    :raises InvalidMessage: the same of an attachment, or its file cannot be read.
    """
    message = EmailMessage(policy=_POLICY)
    fields = _Fields(message)
    fields.addresses("From", "sender", sender, exactly_one=True)
    for name, argument, given in (
        ("To", "to", to),
        ("Cc", "cc", cc),
        ("Bcc", "bcc", bcc),
        ("Reply-To", "reply_to", reply_to),
    ):
        fields.addresses(name, argument, given)
    fields.text("Subject", "subject", subject)
    if date is not None:
        fields.add("Date", _date(date))
    parents = fields.message_ids("In-Reply-To", "in_reply_to", in_reply_to)
    references = fields.listed("references", references)
    fields.message_ids("References", "references", references or parents)
    check_flag("one_click", one_click)
    fields.unsubscribe(list_unsubscribe, one_click=one_click)
    check_type("headers", headers, (Mapping, type(None)), "a dict of names and values")
    for name, value in (headers or {}).items():
        fields.other(name, value)
    _set_body(message, text, html, inline or {}, calendar)
    check_type("attachments", attachments, Iterable, "a list of paths and Attachments")
    parts = [_attachment(each).part("attachment") for each in attachments]
    if parts:
        message.make_mixed()
    _attach(message, parts)
    return message


# -- the body -----------------------------------------------------------------


def _set_body(
    message: EmailMessage,
    text: str | None,
    html: str | None,
    inline: Mapping[str, Attachment | os.PathLike[str]],
    calendar: str | None,
) -> None:
    given = {"text": text, "html": html, "calendar": calendar}
    bodies = {name: body for name, body in given.items() if body is not None} or {"text": ""}
    parts: dict[str, MIMEPart] = {}
    for name, body in bodies.items():
        part = parts[name] = MIMEPart(policy=_POLICY) if parts else message
        _set_text(part, name, body, "plain" if name == "text" else name)
        if part is message and len(bodies) > 1:
            message.make_alternative()
            parts[name] = next(message.iter_parts())
        elif part is not message:
            # Readers show the last one that they can show.
            _attach(message, [part])
    if calendar is not None:
        parts["calendar"].set_param("method", _method(calendar))  # RFC 6047 section 2.4
    check_type("inline", inline, Mapping, 'a dict such as {"logo": Path("logo.png")}')
    source = _CID_SCHEME.sub("cid:", html or "")
    shown = set(_CID_IN_HTML.findall(source))
    for cid in inline:
        _check_content_id(cid, source)
    missing = shown - {quote(cid, safe="") for cid in inline} - set(inline)
    if missing:
        cid = printable(min(missing), 80)
        raise InvalidInput(
            f"the HTML shows cid:{cid}, which is not there",
            remedy="give the image with that cid",
        )
    if inline:
        images = [_attachment(each).part("inline", cid) for cid, each in inline.items()]
        page = parts["html"]
        page.make_related()
        page.set_param("type", "text/html")  # RFC 2387 section 3.1
        _attach(page, images)


def _method(calendar: str) -> str:
    method = _METHOD.search(calendar)
    if not _CALENDAR.match(calendar) or method is None:
        _refuse(
            "calendar",
            calendar,
            "it is no iCalendar object with a METHOD",
            "begin it with BEGIN:VCALENDAR, and add METHOD:REQUEST for an invitation",
        )
    return method[1].upper()


def _attach(multipart: Any, parts: list[MIMEPart]) -> None:
    # The types of the library allow only parts of the same class.
    for part in parts:
        multipart.attach(part)


def _set_text(part: MIMEPart, argument: str, text: str, subtype: str) -> None:
    _check_text(argument, text)
    # The library sends NUL, which SMTP does not take, as it is.
    encoding = "quoted-printable" if "\0" in text else None
    part.set_content(text, subtype=subtype, cte=encoding)


def _attachment(given: object) -> Attachment:
    if isinstance(given, Attachment):
        return given
    if isinstance(given, os.PathLike):
        return Attachment(given)
    shown = type(given).__name__
    raise InvalidMessage(
        f"an attachment cannot be {shown}",
        remedy="give a Path, or Attachment(content, name) for octets and open files",
    )


def _check_content_id(cid: object, html: str) -> None:
    if not isinstance(cid, str) or not _CONTENT_ID.match(cid) or len(cid) > MAX_NAME:
        raise InvalidInput(
            f"the cid '{printable(str(cid), 80)}' cannot be used",
            remedy="write letters, digits, '.', '-' and '_', as in cid:logo",
        )
    if f"cid:{cid}" not in html and f"cid:{quote(cid, safe='')}" not in html:
        raise InvalidInput(
            f"the HTML does not show cid:{cid}",
            remedy=f'write <img src="cid:{cid}"> into it, or attach the file',
        )


def _check_file_name(name: str) -> None:
    remedy = "rename it, or give another name"
    if not name:
        why, remedy = "it is empty", "give a name"
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        why = f"it is longer than {MAX_NAME} octets"
    elif not name.isprintable():
        why = "it holds control or invisible characters"
    elif "/" in name or "\\" in name or name in {".", ".."}:
        why, remedy = "it names a folder", "give the name of the file alone"
    else:
        return
    raise InvalidMessage(
        f"attachment name '{printable(name, 80)}' cannot be used", detail=why, remedy=remedy
    )


# -- the header ---------------------------------------------------------------


class _Fields:
    """Writes header fields into a message, each once."""

    def __init__(self, message: EmailMessage) -> None:
        self._message = message

    def add(self, name: str, value: str, argument: str = "") -> None:
        """Add a field, in ASCII and folded.

        :param argument: for errors; by default the name.
        """
        field = sendable_field(Field(name.lower(), f"{name}: {value}\r\n".encode()))
        if max(map(len, field.octets.split(b"\r\n"))) > MAX_TEXT_LINE:
            _refuse(argument or name, value, "a word in it is too long for a line", "shorten it")
        _set(self._message, field)

    def addresses(
        self, name: str, argument: str, given: object, *, exactly_one: bool = False
    ) -> None:
        """Add a field of addresses, unless there are none."""
        several = [given] if isinstance(given, (str, Address, Mailbox)) else given
        remedy = "an address, or a list of addresses"
        check_type(argument, several, Iterable, remedy)
        words: list[str] = []
        for each in several:  # type: ignore[attr-defined]  # it is an Iterable
            check_type(argument, each, (str, Address, Mailbox), "text such as jane@example.org")
            _check_line(argument, str(each))
            looks_encoded = isinstance(each, Address) and "=?" in each.display_name
            words.append(
                f"{phrase(each.display_name)} <{each.addr_spec}>" if looks_encoded else str(each)
            )
        value = ", ".join(words)
        found = mailboxes(name, value) if value else []
        if exactly_one and len(found) != 1:
            _refuse(argument, value, f"it holds {len(found)} addresses", "give one address")
        if value:
            self.add(name, value, argument)

    def text(self, name: str, argument: str, value: object) -> None:
        """Add a field of unstructured text, unless it is empty."""
        check_type(argument, value, str, "text")
        line = _check_line(argument, str(value)).strip()
        if line:
            _set(self._message, text_field(name, line))

    def listed(self, argument: str, given: object) -> list[str]:
        """Return one text, or several, as a list."""
        several = [given] if isinstance(given, str) else given
        check_type(argument, several, Iterable, "text, or a list of texts")
        words: list[Any] = list(several)  # type: ignore[call-overload]  # it is an Iterable
        for each in words:
            check_type(argument, each, str, "text, or a list of texts")
        return words

    def message_ids(self, name: str, argument: str, given: object) -> list[str]:
        """Add a field of Message-IDs, unless there are none; return them."""
        ids = [word for each in self.listed(argument, given) for word in each.split(" ") if word]
        for each in ids:
            if len(each) > _MAX_WORD or not _MESSAGE_ID.match(each):
                _refuse(argument, each, "it is no Message-ID", "write it as <id@example.org>")
        if ids:
            self.add(name, " ".join(ids), argument)
        return ids

    def unsubscribe(self, given: object, *, one_click: bool) -> None:
        """Add List-Unsubscribe, and for *one_click* List-Unsubscribe-Post."""
        argument, uris = "list_unsubscribe", self.listed("list_unsubscribe", given)
        for uri in uris:
            scheme = uri.partition(":")[0].lower()
            known = scheme == "mailto" or (scheme in {"https", "http"} and _has_host(uri))
            if len(uri) > _MAX_WORD or not _URI.match(uri) or not known:
                remedy = "write https://example.org/… or mailto:leave@example.org, percent-encoded"
                _refuse(argument, uri, "it is no such URI", remedy)
        schemes = [uri.partition(":")[0].lower() for uri in uris]
        if one_click and (schemes.count("https") != 1 or "http" in schemes):
            raise InvalidInput(
                "one_click cannot be used",
                detail="list_unsubscribe has not exactly one https URI (RFC 8058)",
                remedy="give the https URI to which a POST ends the subscription",
            )
        if uris:
            self.add("List-Unsubscribe", ", ".join(f"<{uri}>" for uri in uris), argument)
        if one_click:
            self.add("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")

    def other(self, name: object, value: object) -> None:
        """Add a field by its name."""
        if not isinstance(name, str) or not _FIELD_NAME.match(name) or len(name) > MAX_NAME:
            shown = printable(str(name), 80)
            raise InvalidInput(
                f"'{shown}' in headers cannot be used",
                detail="it is no name of a header field",
                remedy="write it as X-Campaign",
            )
        if name in self._message:
            raise InvalidInput(
                f"{name} is given twice",
                remedy="leave it out of headers, or leave the argument out",
            )
        if _NOT_GIVEN.match(name.lower()):
            raise InvalidInput(
                f"{name} in headers cannot be used",
                detail="it follows from the parts of the message, or is added by servers",
                remedy="leave it out",
            )
        check_type(name, value, str, "text")
        text = _check_line(name, str(value)).strip()
        kind = field_kind(name.lower())
        if kind is FieldKind.UNSTRUCTURED:
            self.text(name, name, text)
        elif kind is FieldKind.ADDRESSES:
            self.addresses(name, name, text)
        elif kind is FieldKind.MESSAGE_IDS:
            self.message_ids(name, name, text)
        elif kind is FieldKind.DATE and parsedate_tz(text) is None:
            _refuse(name, text, "it is no date", "write it as Thu, 1 Jan 2026 12:00:00 +0100")
        elif text:
            self.add(name, text)


def _set(part: MIMEPart, field: Field) -> None:
    """Add *field* as it is: the library would decode and fold it by rules of its own."""
    name, _, value = field.octets.decode().partition(":")
    part.set_raw(name, value.removeprefix(" ").removesuffix("\r\n"))


def _folded(name: str, value: str) -> Field:
    return folded_field(Field(name.lower(), f"{name}: {value}\r\n".encode("ascii")))


def _has_host(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).hostname)
    except ValueError:
        return False


def _date(date: object) -> str:
    check_type("date", date, datetime, "a datetime with a time zone")
    given: Any = date
    offset = given.utcoffset()
    if offset is None:
        _refuse("date", str(given), "it has no time zone", "give date.astimezone()")
    try:
        # The field has minutes: some old zones have seconds.
        zone = timezone(timedelta(minutes=round(offset.total_seconds() / 60)))
        written = given.astimezone(zone)
    except (OverflowError, ValueError):
        _refuse("date", str(given), "no field can hold it", "give it with another time zone")
    if written.year < 1900:
        _refuse("date", str(given), "RFC 5322 has no such year", "give a later one")
    return format_datetime(written)


def _check_line(argument: str, value: str) -> str:
    _check_text(argument, value)
    if _CONTROL.search(value):
        _refuse(
            argument, value, "it holds a line break or control character", "give it in one line"
        )
    return value


def _check_text(argument: str, value: str) -> None:
    check_type(argument, value, str, "text")
    try:
        _ = value.encode()
    except UnicodeEncodeError:
        detail = "it holds a surrogate, which represents an octet that is not UTF-8"
        _refuse(argument, value, detail, "decode it with the right encoding")


def _refuse(argument: str, value: str, detail: str, remedy: str) -> NoReturn:
    raise InvalidInput(
        f"{argument} '{printable(value, 80)}' cannot be used", detail=detail, remedy=remedy
    )
