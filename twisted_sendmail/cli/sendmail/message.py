"""A message from stdin, its sender and its recipients.

Line ends become CRLF, also CR CR LF; a bare CR becomes CRLF too and a NUL is removed, so that cron's
mail is repaired and not refused. The header ends as it always has in ``sendmail``: at the empty line,
or before the first line that is not a field. Only the header is held in memory.

RFC 5322 sections 2.1 and 3.6.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, NamedTuple, cast

from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.message import Header, header_recipients, mailboxes
from twisted_sendmail.smtp import (
    MAX_HEADER,
    MAX_TEXT_LINE,
    Canonicalizer,
    Envelope,
    ForwardPath,
    InvalidAddress,
    InvalidMessage,
    Recipient,
    Repair,
    ReversePath,
    TextModeRepair,
    UnusableRecipient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_sendmail.cli.sendmail.options import SendmailOptions

_CHUNK = 64 * 1024


class User(NamedTuple):
    """The user who runs the command."""

    uid: int
    #: The login name.
    name: str
    #: The full name; empty if it is not known.
    full_name: str


def current_user() -> User:
    """Return the user of this process, from the system; in a container without a name, from the environment."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        name = os.environ.get("LOGNAME") or os.environ.get("USER") or f"uid{uid}"
        return User(uid, name, as_utf8(os.environ.get("NAME", "")))
    full_name = entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
    return User(uid, entry.pw_name, as_utf8(os.environ.get("NAME") or full_name))


def as_utf8(text: str) -> str:
    """Return *text* of the system, such as an argument, read as UTF-8 and not by the locale."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


# -- the envelope -------------------------------------------------------------------


def envelope_sender(options: SendmailOptions, user: User, domain: str) -> ReversePath:
    """Return the sender: that of ``-f``, or else the user.

    :param domain: appended to a name without a domain.
    :raises InvalidAddress: ``-f`` gives no address, or several.
    """
    given = user.name if options.sender is None else options.sender.strip()
    if given in {"", "<>"}:
        return ReversePath()
    boxes = mailboxes("-f", given, domain)
    if len(boxes) != 1:
        raise InvalidAddress(f"-f names {len(boxes)} senders", remedy="give one address")
    return ReversePath(boxes[0])


def envelope_of(
    options: SendmailOptions,
    header: Header,
    sender: ReversePath,
    domain: str,
    unusable: list[UnusableRecipient] | None = None,
) -> Envelope:
    """Return the envelope: recipients of the command line, and with ``-t`` those of the header too.

    :param domain: appended to a name without a domain.
    :param unusable: gets the addresses of the header that cannot be used, if there are others; None: such an
        address is an error.
    :raises InvalidInput: an address cannot be used, or there is no recipient.
    """
    paths = [
        ForwardPath(box)
        for word in options.recipients
        for box in mailboxes("the command line", word, domain)
    ]
    if options.from_header:
        paths += header_recipients(header, domain, unusable)
    if not paths and unusable:
        raise unusable[0].error
    if not paths:
        raise InvalidMessage("there are no recipients in the header", remedy="add To, Cc or Bcc")
    recipients = [Recipient(path, options.notify) for path in paths]
    return Envelope(sender, recipients, ret=options.ret, envid=options.envid)


# -- the content --------------------------------------------------------------------


class InputMessage:
    """A message that is read from *descriptor*, to its end, or up to a line with only a dot.

    :param dot_ends: a line with only a dot ends it.
    :param max_header: octets of the header.
    :raises InvalidMessage: the header is too long.
    :raises CommandError: the message cannot be read: 74.
    """

    def __init__(self, descriptor: int, *, dot_ends: bool, max_header: int = MAX_HEADER) -> None:
        self._pieces = _canonical(descriptor, dot_ends=dot_ends)
        #: The header as it was read.
        self.header, self._rest = _read_header(self._pieces)
        if len(bytes(self.header)) > max_header:
            raise _header_too_long(max_header)

    def pieces(self) -> Iterator[bytes]:
        """Yield the content in pieces, once.

        :raises CommandError: the message cannot be read: 74.
        """
        yield bytes(self.header) + b"\r\n" + self._rest
        yield from self._pieces


def _canonical(descriptor: int, *, dot_ends: bool) -> Iterator[bytes]:
    """Return the octets of *descriptor* with CRLF line ends, up to a lone dot if *dot_ends*."""
    canonical, dot = Canonicalizer(Repair.REPAIR), LoneDotFilter()
    for chunk in _read(descriptor):
        piece = canonical.feed(chunk)
        yield dot.feed(piece) if dot_ends else piece
        if dot.found:
            return
    if not dot_ends:
        yield canonical.finish()
    elif not dot.found:
        yield dot.feed(canonical.finish())
        if not dot.found:
            yield dot.finish()


def _read(descriptor: int) -> Iterator[bytes]:
    repair = TextModeRepair()
    try:
        while chunk := os.read(descriptor, _CHUNK):
            yield repair.feed(chunk)
        yield repair.finish()
    except OSError as e:
        raise CommandError(
            f"the message cannot be read: {e.strerror}; nothing was sent", ExitStatus.IOERR
        ) from None


class LoneDotFilter:
    """Passes octets on up to a line that is only a dot, wherever the octets are cut."""

    def __init__(self) -> None:
        # The line end before the first line.
        self._held = b"\n"
        self._first = True
        #: The dot was found; the octets after it are dropped.
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """Return the octets that certainly belong to the message."""
        if self.found:
            return b""
        held = self._held + data
        at = held.find(b"\n.\r\n")
        self.found = at >= 0
        cut = at + 1 if self.found else max(len(held) - 3, 0)
        self._held = b"" if self.found else held[cut:]
        return self._without_first(held[:cut])

    def finish(self) -> bytes:
        """Return the remaining octets, at the end of the input."""
        held, self._held = self._held, b""
        return self._without_first(held)

    def _without_first(self, data: bytes) -> bytes:
        if self._first and data:
            self._first = False
            return data[1:]
        return data


def _read_header(pieces: Iterator[bytes]) -> tuple[Header, bytes]:
    """Return the header, and the octets of the body that were read with it."""
    head = b""
    for piece in pieces:
        head += piece
        found = _parse_header(head, at_end=False)
        if found is not None:
            return found
    return cast("tuple[Header, bytes]", _parse_header(head, at_end=True))


def _parse_header(head: bytes, *, at_end: bool) -> tuple[Header, bytes] | None:
    """Return the header in *head* and the rest; None if more octets are needed to find its end."""
    if head.startswith(b"\r\n"):
        return Header(()), head[2:]
    end = head.find(b"\r\n\r\n") + 2
    open_end = end < 2
    if open_end:
        if not at_end and len(head) <= MAX_HEADER:
            return None
        end = len(head)
    # The last line has no end yet: parse it only if it is too long for the name of a field.
    last = len(head) - head.rfind(b"\n") - 1
    if open_end and not at_end and last < MAX_TEXT_LINE:
        end -= last
    line_end = b"\r\n" if head[end - 1 : end] != b"\n" else b""
    header = Header.parse(head[:end] + line_end)
    header.check_fields()
    if header.broken is not None:
        body = b"".join(field.octets for field in header.fields[header.broken :])
        return Header(header.fields[: header.broken]), body.removesuffix(line_end) + head[end:]
    if end > MAX_HEADER or (open_end and not at_end):
        raise _header_too_long(MAX_HEADER)
    return header, head[end + 2 :]


def _header_too_long(limit: int) -> InvalidMessage:
    return InvalidMessage(
        "the message's header cannot be used",
        detail=f"it is longer than {limit} octets",
        remedy="put an empty line between header and body",
    )
