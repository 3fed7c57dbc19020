"""A message ready to be sent: its envelope, what it needs, and its canonical octets.

:func:`prepare` checks all that can be checked before a connection is made: the addresses, the header,
and the whole content of a small message, which is then in memory. A large content is read once, as
it is sent, and no more than a few chunks of it are in memory. Only for a server that needs its
size or its 8-bit octets before, :meth:`PreparedMessage.measure_for` reads it a first time.

RFC 6409 section 8 (submission), RFC 5321 section 2.3.8 (lines), RFC 3030 section 3 and RFC 2045
section 6.2 (binary content).
"""

from __future__ import annotations

import re
from collections.abc import Sized
from contextlib import suppress
from copy import copy
from email.message import Message as MIMEMessage
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted_sendmail.message.addresses import header_recipients, header_sender
from twisted_sendmail.message.downgrade import (
    Form,
    HeaderEncoder,
    broken_lines,
    may_be_signed,
    reencoded,
    transfer_encoding,
)
from twisted_sendmail.message.field_encoding import NotEncodable
from twisted_sendmail.message.header import LONG_HEADER, Header, header_end
from twisted_sendmail.message.header_fixer import HeaderFixer
from twisted_sendmail.message.mime import bulk, written_pieces
from twisted_sendmail.message.source import (
    READ_SIZE,
    AsynchronousSource,
    ContentSource,
    OctetsSource,
    PiecesSource,
    RunBlocking,
    run_inline,
    source_of,
)
from twisted_sendmail.smtp import (
    MAX_FIELDS,
    MAX_HEADER,
    AnyRecipient,
    Canonicalizer,
    Envelope,
    ForwardPath,
    InvalidInput,
    InvalidMessage,
    LineBreaker,
    LongLines,
    Recipient,
    RecipientResult,
    Repair,
    UnusableRecipient,
    check_flag,
    check_type,
    is_canonical,
    long_line,
    refused_address,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_sendmail.message.dkim import DKIMSigner
    from twisted_sendmail.message.source import Message
    from twisted_sendmail.smtp import ReversePath

#: Octets read before anything is decided; a message up to this size is small.
SMALL_SIZE = MAX_HEADER
#: Octets of 8-bit content that is read into memory to be encoded in 7 bits.
KEPT = 10 * 1024 * 1024
#: Recipients whose addresses are parsed at once; more may take long.
MANY_RECIPIENTS = 1000

_EMPTY_LINE = re.compile(rb"\n\r?\n")


class PreparedMessage:
    """The result of :func:`prepare`: pull it with :meth:`read`, then :meth:`close` it."""

    # Defaults of the class: one assignment less for each message.
    #: The address of the header that cannot be written in ASCII, and its field, after
    #: :meth:`fitted` for a server without SMTPUTF8.
    not_in_ascii = ""
    #: Lines that are too long for SMTP are encoded, folded or broken (:meth:`fitted`).
    encodes_long_lines = False
    #: The message is signed and had to be encoded: its signature is void.
    signature_broken = False
    #: Signs the message when it is sent; None: it is not signed.
    dkim: DKIMSigner | None = None
    #: Addresses of the header that cannot be used, and are not in the envelope.
    refused: tuple[RecipientResult, ...] = ()

    def __init__(
        self,
        envelope: Envelope,
        content: bytes | Content,
        *,
        smtputf8: bool,
        message_id: str | None,
        binary: bool = False,
        long_line: int | None = None,
    ) -> None:
        self.envelope = envelope
        #: The header or an address needs SMTPUTF8.
        self.smtputf8 = smtputf8
        #: The Message-ID, with its angle brackets.
        self.message_id = message_id
        #: The body has no lines: it goes by BINARYMIME, or encoded.
        self.binary = binary
        self._long_line = long_line
        self._hold(content)

    def _hold(self, content: bytes | Content) -> None:
        """Have *content* be sent, from its beginning."""
        if isinstance(content, bytes):
            whole = content
            self._content: Content | None = None
            #: The whole message, if it is in memory and small.
            self.small = whole if len(whole) <= SMALL_SIZE + READ_SIZE else None
        else:
            whole, self._content, self.small = b"", content, None
        self._whole = whole
        # Of ``_whole``.
        self._eight_bit = not whole.isascii()
        self._at = 0

    @property
    def long_line(self) -> int | None:
        """The number of the first line that is too long for SMTP, as far as the message was read."""
        return self._long_line if self._content is None else self._content.long_line

    @property
    def size(self) -> int | None:
        """Octets to be sent; None if not known (see :meth:`measure_for`)."""
        return len(self._whole) if self._content is None else self._content.size

    @property
    def max_size(self) -> int | None:
        """An upper bound of the size; None if there is none."""
        return len(self._whole) if self._content is None else self._content.max_size

    @property
    def eight_bit(self) -> bool | None:
        """True if there are octets above 127; None if not known (see :meth:`measure_for`)."""
        return self._eight_bit if self._content is None else self._content.eight_bit

    @property
    def rewindable(self) -> bool:
        """True if the message can be sent a second time."""
        return self._content is None or self._content.rewindable

    async def measure_for(self, size_limit: int | None, *, eight_bit_mime: bool) -> None:
        """Find out ``size`` and ``eight_bit``, if a server has to know them before the content.

        A large content that can be read again is then read once before it is sent.

        :param size_limit: the SIZE limit of the server, if there is one.
        :param eight_bit_mime: the server takes 8-bit content.
        :raises InvalidMessage: there is a bare CR or a NUL.
        :raises Exception: what the message's file or iterator raises.
        """
        if self._content is None or self.size is not None or not self.rewindable:
            return
        bound = self.max_size
        fits = size_limit is None or (bound is not None and bound <= size_limit)
        if not fits or not eight_bit_mime:
            await self._content.measure()

    async def read(self) -> bytes:
        """Return the next canonical octets; ``b""`` at the end.

        :raises InvalidMessage: there is a bare CR or a NUL in a part that was not read before, or a
            file is not what it was when it was measured.
        :raises Exception: what the message's file or iterator raises.
        """
        if self._content is not None:
            return await self._content.read()
        piece = self._whole[self._at : self._at + READ_SIZE]
        self._at += len(piece)
        return piece

    def to(self, recipients: tuple[Recipient, ...]) -> PreparedMessage:
        """Return the message for some of its *recipients*; the two cannot be read at the same time."""
        part = copy(self)
        part.envelope = self.envelope.to(recipients)
        return part

    def rewind(self) -> None:
        """Begin again; only if it is ``rewindable``."""
        self._at = 0
        if self._content is not None:
            self._content.rewind()

    async def close(self) -> None:
        """Close the file that was opened, and end a generator; may be called twice.

        An error of a generator that is ended is dropped: the result of the message is known by then.
        """
        if self._content is not None:
            with suppress(Exception):
                await self._content.close()

    def fits(self, *, eight_bit_mime: bool, smtputf8: bool, binarymime: bool = False) -> bool:
        """Return True if a server can take the message as it is, as far as that is known at once.

        :param eight_bit_mime: the server offers 8BITMIME.
        :param smtputf8: the server offers SMTPUTF8.
        :param binarymime: the server offers BINARYMIME.
        """
        if self.encodes_long_lines or (self.binary and not binarymime):
            return False
        small = self.small
        if small is None or not self._eight_bit:
            return small is not None
        if not eight_bit_mime or smtputf8:
            return eight_bit_mime
        header = small[: small.find(b"\r\n\r\n") + 2]
        return header.isascii() and b"multipart/" not in header.lower()

    async def fitted(
        self,
        *,
        eight_bit_mime: bool,
        smtputf8: bool,
        binarymime: bool = False,
        run_blocking: RunBlocking[Any] = run_inline,
    ) -> PreparedMessage:
        """Return the message in a form that a server can take.

        Without 8BITMIME, all of it is encoded in 7 bits; with it and without SMTPUTF8, the header and
        the headers of parts are. Without BINARYMIME, binary parts are encoded. Lines that
        are too long are encoded or folded, or else broken, if the message :attr:`encodes_long_lines`
        and has no signature.

        :param run_blocking: runs work that may take long.
        :returns: the message itself if nothing has to be encoded. Parts that cannot be encoded stay: a
            header with an address that has no form in ASCII (``not_in_ascii``), and the body of a
            message that is larger than :data:`KEPT`, can be read only once, or has parts that cannot
            be encoded.
        :raises Exception: what the message's file or iterator raises.
        """
        if self.fits(eight_bit_mime=eight_bit_mime, smtputf8=smtputf8, binarymime=binarymime):
            return self
        refused = (self.binary and not binarymime) or (self.eight_bit and not eight_bit_mime)
        if refused or self.encodes_long_lines or (self.eight_bit is None and not eight_bit_mime):
            form = Form(eight_bit=eight_bit_mime, utf8=eight_bit_mime and smtputf8)
            made = await self._reencoded(form, run_blocking, break_signature=bool(refused))
            if made is not None:
                return made
        made = self
        if not smtputf8 and self.eight_bit is not False:
            made = await self._with_ascii_header(run_blocking)
            if eight_bit_mime and not self.smtputf8:
                made.not_in_ascii = ""
            if refused and not (made.not_in_ascii or await made.may_have_7_bits()):
                return self  # its body is refused
        return made.with_broken_lines() if self.encodes_long_lines else made

    async def _with_ascii_header(self, run_blocking: RunBlocking[Any]) -> PreparedMessage:
        """Return the message with a header in ASCII, or with ``not_in_ascii``."""
        if self._content is not None:
            content = _EncodedHeaders(self._content)
            await content.begin()
            made = self._with(content, signature_broken=content.signature_broken)
            made.not_in_ascii = content.not_in_ascii
            return made
        encoder = HeaderEncoder()
        try:
            octets = await run_blocking(lambda: encoder.feed(self._whole, last=True))
        except NotEncodable as e:
            made = self._with(self._whole)
            made.not_in_ascii = str(e)
            return made
        return self._with(octets, signature_broken=encoder.signed and encoder.changed)

    async def may_have_7_bits(self) -> bool:
        """Return True if only headers of a message that is too large to be encoded had 8 bits.

        Of a message that is read once, that is found out when it is sent.
        """
        content = self._content
        if self.binary or not isinstance(content, _EncodedHeaders):
            return False
        if self.rewindable:
            await content.measure()
        elif content.encoder is not None and content.encoder.changed:
            content.eight_bit = None
        return not self.eight_bit

    def with_content(self, content: bytes | Content) -> PreparedMessage:
        """Return the message with another *content*, which needs the same extensions."""
        made = copy(self)
        made._hold(content)  # noqa: SLF001 - the same class
        return made

    def with_broken_lines(self) -> PreparedMessage:
        """Return the message with its long lines broken, or numbered if it is signed."""
        if self._content is not None:
            return self.with_content(_BrokenLines(self._content))
        if not may_be_signed(self._whole):
            return self.with_content(broken_lines(self._whole))
        made = copy(self)
        made._long_line = long_line(made._whole)  # noqa: SLF001 - the same class
        return made

    async def _reencoded(
        self, form: Form, run_blocking: RunBlocking[Any], *, break_signature: bool
    ) -> PreparedMessage | None:
        """Return the message in a *form*; None if that cannot be done."""
        whole = self._whole if self._content is None else await self._content.whole()
        if whole is None:
            return None
        octets = await run_blocking(lambda: reencoded(whole, form))
        broken = octets is None and break_signature
        if broken:
            octets = await run_blocking(lambda: reencoded(whole, form, signed=True))
        if octets is None:
            return None
        smtputf8 = form.utf8 and self.smtputf8
        return self._with(octets, binary=False, smtputf8=smtputf8, signature_broken=broken)

    def _with(
        self,
        content: bytes | Content,
        *,
        smtputf8: bool = False,
        binary: bool | None = None,
        signature_broken: bool = False,
    ) -> PreparedMessage:
        made = PreparedMessage(
            self.envelope,
            content,
            smtputf8=smtputf8 or self.envelope.needs_smtputf8,
            message_id=self.message_id,
            binary=self.binary if binary is None else binary,
            long_line=self.long_line,
        )
        made.signature_broken = signature_broken
        return made


async def prepare(
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    now: float,
    host_name: str = "localhost",
    complete: bool = True,
    fix_header: bool = True,
    all_or_nothing: bool = False,
    policy: Repair = Repair.REFUSE,
    run_blocking: RunBlocking[Any] = run_inline,
) -> PreparedMessage:
    """Make *message* ready to be sent. An error or a cancellation leaves nothing open.

    :param sender: None: from the header; ``""`` is the null reverse-path.
    :param recipients: None: from the header; addresses there that cannot be used are in
        ``PreparedMessage.refused``, if there are others.
    :param envelope: instead of both.
    :param now: for a missing ``Date``, in seconds since the epoch.
    :param host_name: for a missing ``Message-ID``, if the sender has no domain.
    :param complete: add missing fields and remove ``Bcc``; False: only make the line ends CRLF.
    :param fix_header: False: the caller gives the content to a :class:`HeaderFixer`; ``message_id``
        and ``smtputf8`` are not those of the header then.
    :param all_or_nothing: an address of the header that cannot be used refuses the message.
    :param policy: for a bare CR or a NUL.
    :param run_blocking: runs work that may block on a disk or take long.
    :raises InvalidInput: the message cannot be sent.
    :raises Exception: what the message's file or iterator raises.
    """
    check_flag("complete", complete)
    check_flag("all_or_nothing", all_or_nothing)
    if envelope is not None:
        check_type("envelope", envelope, Envelope, "an Envelope, or sender and recipients")
    if envelope is not None and not (sender is None and recipients is None):
        raise InvalidInput(
            "envelope cannot be given with sender or recipients",
            remedy="leave out sender and recipients",
        )
    many = isinstance(recipients, Sized) and len(recipients) > MANY_RECIPIENTS
    if sender is not None and recipients is not None:
        parse = partial(Envelope, sender, recipients)
        envelope = await run_blocking(parse) if many else parse()
    if envelope is not None:
        small = prepare_small(
            message,
            envelope,
            now=now,
            host_name=host_name,
            complete=complete,
            fix_header=fix_header,
        )
        if small is not None:
            return small
    source, binary_body = await _source(message, run_blocking)
    content = _SourceContent(source, policy, run_blocking)
    unusable: list[UnusableRecipient] = []
    try:
        begin = await content.begin()
        end = header_end(begin, whole=content.ended)
        run = run_blocking if many or end > LONG_HEADER else run_inline

        def fixed_header() -> tuple[Envelope, HeaderFixer | None, bytes]:
            header = Header.parse(begin[:end])
            header.check_fields()
            asked = envelope or Envelope(
                header_sender(header) if sender is None else sender,
                _recipients(header, unusable, all_or_nothing=all_or_nothing)
                if recipients is None
                else recipients,
            )
            if not fix_header:
                return asked, None, begin[:end]
            return asked, *_fixed(
                begin[:end], begin, asked, now, host_name, complete=complete, parsed=header
            )

        envelope, fixer, fixed = await run(fixed_header)
        content.replace_header(begin[:end], fixed)
        whole = content.ahead if content.ended else None
    except BaseException:
        with suppress(Exception):
            await content.close()
        raise
    if whole is not None:
        with suppress(Exception):
            await content.close()
        whole += binary_body or b""
    made = _message(envelope, content if whole is None else whole, fixer, content.long_line)
    made.binary = binary_body is not None
    made.refused = tuple(map(refused_address, dict.fromkeys(unusable)))
    return made


def _recipients(
    header: Header, unusable: list[UnusableRecipient], *, all_or_nothing: bool
) -> list[ForwardPath]:
    found = header_recipients(header, unusable=unusable)
    if unusable and (all_or_nothing or not found):
        raise unusable[0].error
    if not found:
        raise InvalidMessage(
            "the message has no recipient",
            remedy="give recipients, or put them in To, Cc or Bcc",
        )
    return found


async def _source(
    message: Message, run_blocking: RunBlocking[Any]
) -> tuple[ContentSource, bytes | None]:
    """Return the source of *message*, and its binary body, which is not read as lines."""
    if not isinstance(message, MIMEMessage):
        source = source_of(message)
    else:
        mime = message
        run = run_blocking if bulk(mime) > SMALL_SIZE else run_inline
        pieces = await run(lambda: written_pieces(mime))
        only = pieces[0] if len(pieces) == 1 else None
        source = OctetsSource(only) if isinstance(only, bytes) else PiecesSource(pieces)
    parts = binary_parts(source.octets) if isinstance(source, OctetsSource) else None
    return (source, None) if parts is None else (OctetsSource(parts[0]), parts[1])


def prepare_small(
    message: object,
    envelope: Envelope,
    *,
    now: float,
    host_name: str = "localhost",
    complete: bool = True,
    fix_header: bool = True,
) -> PreparedMessage | None:
    """Return the result of :func:`prepare` at once, for a message that takes no waiting.

    :returns: None for all but small messages in bytes, and for those that cannot be sent.
    """
    if type(message) is not bytes or not 0 < len(message) <= SMALL_SIZE:
        return None
    if not message.endswith(b"\r\n") or not is_canonical(message):
        return None
    try:
        end = header_end(message, whole=True)
        if end > LONG_HEADER or (end > MAX_FIELDS and message.count(b"\n", 0, end) > MAX_FIELDS):
            return None
        if not fix_header:
            return _message(envelope, message, None, None)
        section = message[:end]
        fixer, fixed = _fixed(section, message, envelope, now, host_name, complete=complete)
    except InvalidInput:
        return None
    whole = message if fixed is section else fixed + message[end:]
    return _message(envelope, whole, fixer, long_line(message))


def _fixed(
    section: bytes,
    begin: bytes,
    envelope: Envelope,
    now: float,
    host_name: str,
    *,
    complete: bool,
    parsed: Header | None = None,
) -> tuple[HeaderFixer, bytes]:
    """Fix the header *section*, which *begin* begins with."""
    fixer = HeaderFixer(now, host_name, envelope.sender, add_from=False, complete=complete)
    fixed = fixer.fix(section, parsed)
    if complete and not section and not begin.startswith(b"\r\n"):
        fixed += b"\r\n"  # there was no header: the message is all body
    return fixer, fixed


def _message(
    envelope: Envelope,
    content: bytes | Content,
    fixer: HeaderFixer | None,
    long_line: int | None,
) -> PreparedMessage:
    return PreparedMessage(
        envelope,
        content,
        smtputf8=envelope.needs_smtputf8 or (fixer is not None and fixer.smtputf8_header),
        message_id=None if fixer is None else fixer.message_id,
        long_line=long_line,
    )


def binary_parts(octets: bytes) -> tuple[bytes, bytes] | None:
    """Return the header section with its empty line, and the binary body after it.

    :returns: None if the message is not declared as binary, or its lines all end with CRLF.
    """
    empty_line = _EMPTY_LINE.search(octets, 0, MAX_HEADER)
    if empty_line is None:
        return None
    head = octets[: empty_line.end()]
    if b"binary" not in head.lower():
        return None  # nearly always
    # If two fields differ, one that names binary is enough: the octets are kept.
    if "binary" not in transfer_encoding(Header.parse(head)).split():
        return None
    body = octets[empty_line.end() :]
    return None if is_canonical(body) else (head, body)


class Content:
    """A content that is not in memory: canonical octets that are pulled in order."""

    #: Octets that will be sent; None if not known.
    size: int | None = None
    #: True if there are octets above 127; None if not known.
    eight_bit: bool | None = None

    @property
    def rewindable(self) -> bool:
        """True if the content can be read again."""
        return False

    @property
    def long_line(self) -> int | None:
        """The number of the first line that is too long for SMTP, as far as the content was read."""
        return None

    @property
    def max_size(self) -> int | None:
        """An upper bound of the size; None if there is none."""
        return self.size

    async def measure(self) -> None:
        """Find out ``size`` and ``eight_bit``; only if it is ``rewindable``."""

    async def read(self) -> bytes:
        """Return the next octets to be sent; ``b""`` at the end.

        :raises Exception: the content cannot be read.
        """
        raise NotImplementedError

    async def whole(self) -> bytes | None:
        """Return all octets, and rewind; None if there are more than :data:`KEPT`, or it cannot.

        :raises Exception: the content cannot be read.
        """
        if not self.rewindable or (self.size is not None and self.size > KEPT):
            return None
        self.rewind()
        pieces, size = [], 0
        while size <= KEPT and (octets := await self.read()):
            pieces.append(octets)
            size += len(octets)
        self.rewind()
        return b"".join(pieces) if size <= KEPT else None

    def rewind(self) -> None:
        """Begin again."""

    async def close(self) -> None:
        """Stop reading, in whatever thread."""


class _SourceContent(Content):
    """The octets of a source, with another header.

    :param policy: for a bare CR or a NUL.
    :param run_blocking: runs work that may block.
    """

    def __init__(
        self, source: ContentSource, policy: Repair, run_blocking: RunBlocking[Any]
    ) -> None:
        self._source = source
        self._policy = policy
        self._run_blocking = run_blocking
        self._canonical = Canonicalizer(policy)
        #: The source has ended.
        self.ended = False
        self._old_header = self._header = b""
        #: Octets to be sent before those of the source.
        self.ahead = b""
        # Octets at the beginning of the source that the header replaces.
        self._skip = b""
        self._measured_size: int | None = None
        self._raw_octets = 0
        self._failure: BaseException | None = None

    @property
    def rewindable(self) -> bool:
        return self._source.rewindable

    @property
    def max_size(self) -> int | None:
        if self.size is not None:
            return self.size
        raw = self._source.raw_size
        # A line feed becomes two octets; a last line gets an end.
        return None if raw is None else 2 * raw + 2 + len(self._header)

    @property
    def long_line(self) -> int | None:
        return self._canonical.long_line

    async def begin(self) -> bytes:
        """Return the first :data:`SMALL_SIZE` octets and some more, or all there are."""
        if isinstance(self._source, AsynchronousSource):
            pieces = []
            while not self.ended and self._canonical.size <= SMALL_SIZE:
                pieces.append(await self._next())
            self.ahead = b"".join(pieces)
        elif self._source.blocking:
            self.ahead = await self._run_blocking(self._first)
        else:
            self.ahead = self._first()
        return self.ahead

    def _first(self) -> bytes:
        pieces = []
        while not self.ended and self._canonical.size <= SMALL_SIZE:
            pieces.append(self._made_canonical(self._source.read()))
        return b"".join(pieces)

    def replace_header(self, old: bytes, new: bytes) -> None:
        """Send *new* instead of *old*, with which the content begins."""
        self._old_header, self._header = old, new
        self.ahead = new + self.ahead[len(old) :]
        if self._canonical.eight_bit:
            self.eight_bit = True

    async def measure(self) -> None:
        """Read the content that is left, and rewind; see :class:`Content`."""
        await self._run_blocking(self._measure)
        self.rewind()

    def _measure(self) -> None:
        canonical = self._canonical
        while not self.ended:
            _ = self._made_canonical(self._source.read())
        self._measured_size = canonical.size
        self.size = canonical.size - len(self._old_header) + len(self._header)
        self.eight_bit = canonical.eight_bit or not self._header.isascii()

    async def read(self) -> bytes:
        """See :class:`Content`.

        :raises InvalidMessage: there is a bare CR or a NUL, or the source is not what it was.
        """
        octets, self.ahead = self.ahead[:READ_SIZE], self.ahead[READ_SIZE:]
        while not octets and not self.ended:
            octets = await self._next()
            if self._skip:
                length = min(len(octets), len(self._skip))
                if octets[:length] != self._skip[:length]:
                    raise content_changed()
                self._skip, octets = self._skip[length:], octets[length:]
        return octets

    def rewind(self) -> None:
        self._source.rewind()
        self._canonical = Canonicalizer(self._policy)
        self.ahead, self._skip = self._header, self._old_header
        self._failure = None
        self._raw_octets = 0
        self.ended = False

    async def close(self) -> None:
        self.ended = True
        await self._source.close()

    async def _next(self) -> bytes:
        source = self._source
        if self._failure is not None:
            raise self._failure  # a generator that failed would now look as if it had ended
        try:
            if isinstance(source, AsynchronousSource):
                octets = self._made_canonical(await source.arrive())
            elif source.blocking:
                octets = await self._run_blocking(lambda: self._made_canonical(source.read()))
            else:
                octets = self._made_canonical(source.read())
        except BaseException as e:
            self._failure = e
            raise
        if self.ended and (
            self._measured_size not in {None, self._canonical.size}
            or source.raw_size not in {None, self._raw_octets}
        ):
            raise content_changed()
        return octets

    def _made_canonical(self, raw: bytes) -> bytes:
        if raw:
            self._raw_octets += len(raw)
            return self._canonical.feed(raw)
        self.ended = True
        return self._canonical.finish()


class WrappedContent(Content):
    """A content that is made of another one as it is read."""

    def __init__(self, content: Content | PreparedMessage) -> None:
        self._content = content
        self.size, self.eight_bit = content.size, content.eight_bit

    @property
    def rewindable(self) -> bool:
        """See :class:`Content`."""
        return self._content.rewindable

    @property
    def long_line(self) -> int | None:
        """See :class:`Content`."""
        return self._content.long_line

    def rewind(self) -> None:
        """See :class:`Content`."""
        self._content.rewind()

    async def close(self) -> None:
        """See :class:`Content`."""
        await self._content.close()


class _EncodedHeaders(WrappedContent):
    """A content with the fields of its headers in ASCII.

    Its size is without what the headers of parts grow by: SIZE is an estimate (RFC 1870 section 6.1).
    """

    #: None if a field has no form in ASCII: then the content stays as it is.
    encoder: HeaderEncoder | None
    #: See :class:`PreparedMessage`.
    not_in_ascii = ""
    signature_broken = False

    def __init__(self, content: Content) -> None:
        super().__init__(content)
        self.size = None
        self._ahead = b""
        self.encoder = HeaderEncoder()

    async def begin(self) -> None:
        """Read and encode the header of the message."""
        encoder, read, made = self.encoder or HeaderEncoder(), [b"-"], []
        try:
            while encoder.in_header and read[-1]:
                read.append(await self._content.read())
                made.append(encoder.feed(read[-1], last=not read[-1]))
        except NotEncodable as e:
            self.encoder, made = None, read[1:]
            self.not_in_ascii = str(e)
        if self._content.size is not None:
            self.size = self._content.size + encoder.growth
        self.signature_broken = encoder.signed and encoder.changed
        self._ahead = b"".join(made)

    async def measure(self) -> None:
        size, eight_bit = 0, False
        while octets := await self.read():
            size += len(octets)
            eight_bit = eight_bit or not octets.isascii()
        self.size, self.eight_bit = size, eight_bit
        self.rewind()

    async def read(self) -> bytes:
        octets, self._ahead = self._ahead, b""
        while not octets:
            read = await self._content.read()
            octets = read if self.encoder is None else self.encoder.feed(read, last=not read)
            if not read:
                break
        return octets

    def rewind(self) -> None:
        super().rewind()
        self._ahead = b""
        self.encoder = self.encoder and HeaderEncoder()


class _BrokenLines(WrappedContent):
    """A content with its long lines broken, or numbered if it is signed.

    Its size is without what it grows by, as that of :class:`_EncodedHeaders`.
    """

    def __init__(self, content: Content) -> None:
        super().__init__(content)
        self._begin()

    def _begin(self) -> None:
        self._breaker: LineBreaker | None = None
        self._long_lines: LongLines | None = None
        self._lines = 0
        self._long_line: int | None = None

    @property
    def long_line(self) -> int | None:
        return self._long_line

    async def read(self) -> bytes:
        while octets := await self._content.read():
            if self._breaker is None and self._long_lines is None:
                if may_be_signed(octets):
                    self._long_lines = LongLines()
                else:
                    self._breaker = LineBreaker()
            if self._long_lines is not None:
                begin = self._long_lines.feed(octets)
                if begin is not None:
                    self._long_line = 1 + self._lines + octets.count(b"\n", 0, begin)
                self._lines += octets.count(b"\n")
                return octets
            made = self._breaker.feed(octets) if self._breaker is not None else octets
            if made:
                return made
        breaker, self._breaker = self._breaker, None
        return b"" if breaker is None else breaker.finish()

    def rewind(self) -> None:
        super().rewind()
        self._begin()


def content_changed() -> InvalidMessage:
    """Return the error for a content that is not what it was when it was read before."""
    return InvalidMessage(
        "the message changed while it was being sent",
        remedy="send a file that nobody writes to",
    )
