"""The options that say what is sent and to whom: a message that exists, or its parts.

Out of them comes a ``Parcel``: the message, and the envelope as far as it is given.
"""

from __future__ import annotations

import mimetypes
import os
import re
import stat
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus
from twisted_sendmail.cli.standard_input import LongPipe, is_piped, read_head
from twisted_sendmail.cli.terminal import note
from twisted_sendmail.message import UNKNOWN, Attachment, Message, compose
from twisted_sendmail.smtp import Envelope, Recipient, printable, shown_argument

# A comma that is not inside the quotes of a local part.
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*\Z)')


@dataclass
class Parcel:
    """A message as ``submit`` takes it."""

    message: Message | LongPipe
    #: Its octets as they lie in the file; None for a pipe.
    size: int | None = None
    sender: str | None = None
    recipients: list[str] | None = None
    envelope: Envelope | None = None
    #: Opened here, and to be closed when it was sent.
    opened: IO[bytes] | None = None

    def close(self) -> None:
        """Close what was opened."""
        if self.opened is not None:
            self.opened.close()


def add_message_options(parser: ArgumentParser) -> None:
    """Add them to *parser*."""
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="the message (RFC 5322), or the text of the body with --subject; - or nothing for stdin",
    )
    envelope = parser.add_argument_group(
        "the envelope", "What is not given is read from the message's header."
    )
    envelope.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help="the sender; '' for none"
    )
    envelope.add_argument(
        "--to",
        metavar="ADDRESS[,ADDRESS]",
        action="append",
        help="a recipient; may be repeated",
    )
    envelope.add_argument(
        "--notify",
        metavar="WHEN",
        help="ask for delivery reports: never, or any of success,failure,delay (RFC 3461)",
    )
    envelope.add_argument(
        "--ret", choices=["full", "hdrs"], help="how much of the message a report returns"
    )
    envelope.add_argument("--envid", metavar="ID", help="the identifier that reports repeat")
    envelope.add_argument(
        "--all-or-nothing",
        action="store_true",
        help="do not deliver to some when others are refused",
    )
    envelope.add_argument(
        "--verbatim",
        action="store_true",
        help="leave the header as it is: add no Date and Message-ID, remove no Bcc",
    )
    parts = parser.add_argument_group(
        "a message from its parts",
        "Any of these builds the message; then --from and --to are its header too, and may have "
        "display names.",
    )
    parts.add_argument("--subject", metavar="TEXT")
    parts.add_argument("--body", metavar="TEXT", help="the text; else that of FILE or stdin")
    parts.add_argument("--cc", metavar="ADDRESS[,ADDRESS]", action="append")
    parts.add_argument("--bcc", metavar="ADDRESS[,ADDRESS]", action="append")
    parts.add_argument(
        "--attach", metavar="FILE", action="append", help="attach FILE; may be repeated"
    )


def parcel_of(args: Namespace) -> Parcel:
    """What is to be sent.

    :raises Complaint: it cannot be read, or the options contradict each other.
    :raises InvalidInput: it cannot be used.
    """
    parts = (args.subject, args.body, args.cc, args.bcc, args.attach)
    if any(part is not None for part in parts):
        return _composed(args)
    to = _addresses(args.to)
    if args.notify is None and args.ret is None and args.envid is None:
        parcel = Parcel(b"", sender=args.sender, recipients=to or None)
    elif args.sender is None or not to:
        raise Complaint("--notify, --ret and --envid need the whole envelope: give --from and --to")
    else:
        notify = frozenset(args.notify.replace(" ", "").split(",")) if args.notify else frozenset()
        recipients = [Recipient(address, notify) for address in to]
        envelope = Envelope(args.sender, recipients, ret=args.ret, envid=args.envid)
        parcel = Parcel(b"", envelope=envelope)
    parcel.message, parcel.size = _opened(args.file, "the message")
    if args.file not in {None, "-"}:
        parcel.opened = cast("IO[bytes]", parcel.message)
    return parcel


def _addresses(given: list[str] | None) -> list[str]:
    words = [word.strip() for text in given or () for word in _COMMA.split(text)]
    return [word for word in words if word]


def _opened(name: str | None, what: str) -> tuple[Message | LongPipe, int | None]:
    if name is None or name == "-":
        return _from_stdin(name, what)
    shown = shown_argument(name)
    file = _open(name, f"{what} {shown}")
    status = os.fstat(file.fileno())
    regular = stat.S_ISREG(status.st_mode)
    if regular and status.st_size == 0:
        file.close()
        raise Complaint(f"{what} {shown} is empty", ExitStatus.DATAERR)
    return file, status.st_size if regular else None


def _open(name: str, what: str) -> IO[bytes]:
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "no file name"
        raise Complaint(f"{what} cannot be read: {why}", ExitStatus.NOINPUT) from None


def _from_stdin(name: str | None, what: str) -> tuple[Message | LongPipe, int | None]:
    stream = sys.stdin
    if stream is None:
        raise Complaint(f"{what} is missing: stdin is closed", ExitStatus.NOINPUT)
    if stream.isatty():
        if name is None:
            raise Complaint(f"{what} is missing; name a file, or pipe it in")
        note(f"reading {what} from the terminal; end it with Ctrl-D")
    descriptor = stream.fileno()
    if not is_piped(descriptor):
        if not cast("BufferedReader", stream.buffer).peek(1):
            raise Complaint(f"{what} is empty", ExitStatus.DATAERR)
        return stream.buffer, None
    octets, complete = read_head(descriptor)
    if not octets:
        raise Complaint(f"{what} is empty", ExitStatus.DATAERR)
    return (octets, len(octets)) if complete else (LongPipe(octets, descriptor), None)


def _composed(args: Namespace) -> Parcel:
    if not args.sender:
        raise Complaint("a message from its parts needs --from")
    if not (args.to or args.cc or args.bcc):
        raise Complaint("a message from its parts needs --to")
    if args.verbatim or args.notify or args.ret or args.envid:
        raise Complaint("--verbatim, --notify, --ret and --envid are for a message that exists")
    if args.body is not None and args.file is not None:
        raise Complaint("the text is given twice: by --body and by FILE")
    text = args.body if args.body is not None else _text(args.file)
    message = compose(
        sender=args.sender,
        to=args.to or (),
        cc=args.cc or (),
        bcc=args.bcc or (),
        subject=args.subject or "",
        text=text,
        attachments=[_attachment(name) for name in args.attach or ()],
    )
    return Parcel(message)


def _text(name: str | None) -> str:
    try:
        message, _ = _opened(name, "the text")
    except Complaint as e:
        if e.status is ExitStatus.DATAERR:
            return ""  # a body may be empty
        raise
    if isinstance(message, bytes):
        octets = message
    elif not isinstance(message, LongPipe):
        with cast("IO[bytes]", message) as file:
            octets = file.read()
    else:
        raise Complaint("the text is too long for a body; attach it", ExitStatus.DATAERR)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as e:
        line = octets.count(b"\n", 0, e.start) + 1
        raise Complaint(
            f"the text is not UTF-8 in line {line}; convert it, or attach it", ExitStatus.DATAERR
        ) from None


def _attachment(name: str) -> Attachment:
    shown = printable(name, 200)
    with _open(name, f"attachment {shown}") as file:
        try:
            content = file.read()
        except OSError as e:
            raise Complaint(
                f"attachment {shown} cannot be read: {e.strerror}", ExitStatus.IOERR
            ) from None
    kind, encoding = mimetypes.guess_type(name)
    # "text/plain" is not what a .txt.gz is.
    return Attachment(Path(name).name, content, UNKNOWN if encoding else kind or UNKNOWN)
