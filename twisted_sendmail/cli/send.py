"""``twisted-sendmail send``: submit one message from a file, from stdin or from its parts."""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterable, AsyncIterator, Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from twisted_sendmail.cli.options import SERVER_VARIABLE, add_server_options, server_of
from twisted_sendmail.cli.output import (
    accepted_line,
    as_json,
    error_lines,
    print_error,
    print_note,
    print_result,
    result_json,
)
from twisted_sendmail.cli.react import react
from twisted_sendmail.client import SILENCE_NOTE, SubmissionServer, submit
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_result
from twisted_sendmail.message import Attachment, Message, compose
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    DOUBLED_CR,
    DeliveryReport,
    Envelope,
    Recipient,
    SendmailError,
    TextModeRepair,
    printable,
    shown_argument,
)

#: Octets of stdin that are read before the connection is made. A longer message is a stream.
_MAX_IN_MEMORY = 1024 * 1024
_CHUNK = 65536  # octets that a pipe holds
# Header fields with From among them, and an empty line.
_MESSAGE = re.compile(
    rb"(?=(?:[^\n]+\n)*?from:)(?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*)+\r?\n", re.IGNORECASE
)
# A comma outside of the quotes of a local part.
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*\Z)')


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.usage = "%(prog)s [OPTIONS] [FILE]"
    parser.description = (
        "Send one message to a submission server. The message is a file or stdin, with its own "
        "header, or is built from --subject, --body and --attach."
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="smtps://[USER@]HOST[:PORT], smtp+starttls://…, smtp+opportunistic://…, smtp://…, or "
        f"HOST[:PORT]; else the variable {SERVER_VARIABLE}",
    )
    _add_message_options(parser)
    add_server_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    output.add_argument(
        "--verbose", action="store_true", help="show the dialogue on stderr, without secrets"
    )
    output.add_argument("--quiet", action="store_true", help="print nothing on success")


def execute(args: Namespace) -> int:
    """Send the message; the exit status.

    Everything that blocks is done before the reactor runs: a prompt or command for the password,
    files, stdin.
    """
    watchers: list[Callable[[str], None]] = [print_note] if args.verbose else []

    def watch(line: str) -> None:
        for watcher in watchers:
            watcher(line)

    try:
        server = server_of(args, watch, remedy="add --server URL")
        submission = _submission_of(args)
    except (SendmailError, CommandError) as e:
        return _print_outcome(args, None, e)
    try:
        return react(lambda reactor: _send(args, reactor, server, submission, watchers))
    finally:
        if submission.opened is not None:
            submission.opened.close()


async def _send(
    args: Namespace,
    reactor: Any,
    server: SubmissionServer,
    submission: Submission,
    watchers: list[Callable[[str], None]],
) -> int:
    message = submission.message
    if isinstance(message, LongInput):
        message = message.stream(reactor)
    progress: UploadProgress | None = None
    if not (args.quiet or args.verbose or sys.stderr is None or not sys.stderr.isatty()):
        progress = UploadProgress(reactor, submission.size)
        watchers.append(progress.watch)
        message = progress.counted(message)
    report: DeliveryReport | None = None
    error: SendmailError | CommandError | None = None
    try:
        report = await submit(
            reactor,
            server,
            message,
            sender=submission.sender,
            recipients=submission.recipients,
            envelope=submission.envelope,
            all_or_nothing=args.all_or_nothing,
            complete=not args.verbatim,
        )
    except SendmailError as e:
        error, report = e, e.report
    except CancelledError:
        error = CommandError("interrupted; nothing was sent", ExitStatus.TEMPFAIL)
    except OSError as e:
        error = CommandError(f"the message cannot be read: {e.strerror or e}", ExitStatus.IOERR)
    finally:
        if progress is not None:
            progress.end()
    if args.verbose:
        # QUIT is written when the result is known: show it before the result.
        await deferLater(reactor, 0)
    watchers.clear()
    return _print_outcome(args, report, error)


def _print_outcome(
    args: Namespace, report: DeliveryReport | None, error: SendmailError | CommandError | None
) -> int:
    """Print the result of the delivery; the exit status."""
    if isinstance(error, CommandError):
        status = error.status
        print_error(str(error))
    else:
        status = status_of_result(report, error)
        for line in error_lines(report, error):
            print_error(line)
    if args.json:
        print_result(as_json(result_json(report, error, status)))
    elif report is not None and report.accepted and not args.quiet:
        print_result(accepted_line(report))
    return status


# -- the message and its envelope -------------------------------------------------


def _add_message_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="the message (RFC 5322), or the text of the body with --subject; stdin if absent or -",
    )
    envelope = parser.add_argument_group(
        "the envelope", "The parts that are not given are read from the message's header."
    )
    envelope.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help="the sender; '' for none"
    )
    envelope.add_argument(
        "--to", metavar="ADDRESS[,ADDRESS]", action="append", help="a recipient; may be repeated"
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
        help="deliver to nobody if a recipient is refused",
    )
    envelope.add_argument(
        "--verbatim",
        action="store_true",
        help="leave the header as it is: add no Date and Message-ID, remove no Bcc",
    )
    parts = parser.add_argument_group(
        "a message from its parts",
        "Any of these options builds the message; then --from and --to are its header too, and may "
        "have display names.",
    )
    parts.add_argument("--subject", metavar="TEXT")
    parts.add_argument("--body", metavar="TEXT", help="the text; else that of FILE or stdin")
    parts.add_argument("--cc", metavar="ADDRESS[,ADDRESS]", action="append")
    parts.add_argument("--bcc", metavar="ADDRESS[,ADDRESS]", action="append")
    parts.add_argument(
        "--attach", metavar="FILE", action="append", help="attach FILE; may be repeated"
    )


@attrs.frozen
class LongInput:
    """An input that is longer than :data:`_MAX_IN_MEMORY`, and read once."""

    #: The octets that were read.
    head: bytes
    descriptor: int
    repair: TextModeRepair

    async def stream(self, reactor: Any) -> AsyncIterator[bytes]:
        """The whole message; once."""
        yield self.head
        while piece := await off_reactor(reactor, lambda: os.read(self.descriptor, _CHUNK)):
            yield self.repair.feed(piece)
        yield self.repair.finish()


@attrs.define
class Submission:
    """A message as ``submit`` takes it, and the envelope as far as it is given."""

    message: Message | LongInput
    #: Octets of the message; None if they are not known.
    size: int | None = None
    sender: str | None = None
    recipients: list[str] | None = None
    envelope: Envelope | None = None
    #: The file to close after the delivery.
    opened: IO[bytes] | None = None


def _submission_of(args: Namespace) -> Submission:
    """The message and the envelope.

    :raises CommandError: a file cannot be read, or the options contradict each other.
    :raises InvalidInput: a value cannot be used.
    """
    parts = (args.subject, args.body, args.cc, args.bcc, args.attach)
    if any(part is not None for part in parts):
        return Submission(_composed(args))
    to = [word.strip() for text in args.to or () for word in _COMMA.split(text) if word.strip()]
    envelope: Envelope | None = None
    if not (args.notify is None and args.ret is None and args.envid is None):
        if args.sender is None or not to:
            raise CommandError(
                "--notify, --ret and --envid need the whole envelope: give --from and --to"
            )
        notify = frozenset(args.notify.replace(" ", "").split(",")) if args.notify else frozenset()
        recipients = [Recipient(address, notify) for address in to]
        envelope = Envelope(args.sender, recipients, ret=args.ret, envid=args.envid)
    file, noun = _input(args.file, "the message")
    try:
        message, size = _read(file, noun, at_once=args.file in {None, "-"})
    except BaseException:
        file.close()
        raise
    submission = Submission(message, size, envelope=envelope, opened=file)
    if envelope is None:
        submission.sender, submission.recipients = args.sender, to or None
    return submission


def _input(name: str | None, noun: str) -> tuple[BufferedReader, str]:
    """The file *name*, or stdin; and *noun* with the name of the file."""
    if name is not None and name != "-":
        noun = f"{noun} {shown_argument(name)}"
        return _open(name, noun), noun
    stream = sys.stdin
    if stream is None:
        raise CommandError(f"{noun} is missing: stdin is closed", ExitStatus.NOINPUT)
    if stream.isatty():
        if name is None:
            raise CommandError(f"{noun} is missing; name a file, or pipe it in")
        print_note(f"reading {noun} from the terminal; end it with Ctrl-D")
    return cast("BufferedReader", stream.buffer), noun


def _read(
    file: BufferedReader, noun: str, *, at_once: bool = True
) -> tuple[Message | LongInput, int | None]:
    """The content of *file*, with CR CR LF as one line end, and its size if that is known.

    :param at_once: False: wait for a pipe only during the delivery, which has a time limit.
    """
    descriptor = file.fileno()
    status = os.fstat(descriptor)
    regular = stat.S_ISREG(status.st_mode)
    octets, repair = bytearray(), TextModeRepair()
    if not (regular or at_once):
        return LongInput(b"", descriptor, repair), None
    try:
        if regular and not file.peek(1):
            raise CommandError(f"{noun} is empty", ExitStatus.DATAERR)
        if regular and not _has_doubled_cr(file):
            return file, status.st_size - file.tell()
        if regular:
            # What was read ahead is read again.
            _ = os.lseek(descriptor, file.tell(), os.SEEK_SET)
        while piece := os.read(descriptor, _CHUNK):
            octets += repair.feed(piece)
            if len(octets) > _MAX_IN_MEMORY:
                return LongInput(bytes(octets), descriptor, repair), None
    except OSError as e:
        raise CommandError(f"{noun} cannot be read: {e.strerror}", ExitStatus.IOERR) from None
    octets += repair.finish()
    if not octets:
        raise CommandError(f"{noun} is empty", ExitStatus.DATAERR)
    return bytes(octets), len(octets)


def _has_doubled_cr(file: BufferedReader) -> bool:
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
            return octets.find(DOUBLED_CR, file.tell()) >= 0
    except (OSError, ValueError):
        return True  # it has no size, as files in /proc: it is read once


def _open(name: str, shown: str) -> BufferedReader:
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "no file name"
        raise CommandError(f"{shown} cannot be read: {why}", ExitStatus.NOINPUT) from None


def _composed(args: Namespace) -> Message:
    """The message from its parts."""
    if not args.sender:
        raise CommandError("a message from its parts needs --from")
    if not (args.to or args.cc or args.bcc):
        raise CommandError("a message from its parts needs --to")
    if args.verbatim or args.notify or args.ret or args.envid:
        raise CommandError("--verbatim, --notify, --ret and --envid are for a message that exists")
    if args.body is not None and args.file is not None:
        raise CommandError("the text is given twice: by --body and by FILE")
    return compose(
        sender=args.sender,
        to=args.to or (),
        cc=args.cc or (),
        bcc=args.bcc or (),
        subject=args.subject or "",
        text=args.body if args.body is not None else _text(args.file),
        attachments=[_attachment(name) for name in args.attach or ()],
    )


def _text(name: str | None) -> str:
    """The text of the body, which may be empty."""
    file, noun = _input(name, "the text")
    with file:
        try:
            message, _ = _read(file, noun)
        except CommandError as e:
            if e.status is ExitStatus.DATAERR:
                return ""
            raise
        if isinstance(message, LongInput):
            raise CommandError("the text is too long for a body; attach it", ExitStatus.DATAERR)
        octets = message if isinstance(message, bytes) else file.read()
    if _MESSAGE.match(octets):
        print_error(
            f"warning: {noun} begins with the header of a message, and is sent as text; "
            "to send it as the message, leave out --subject, --cc, --bcc and --attach"
        )
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as e:
        line = octets.count(b"\n", 0, e.start) + 1
        raise CommandError(
            f"the text is not UTF-8 in line {line}; convert it, or attach it", ExitStatus.DATAERR
        ) from None


def _attachment(name: str) -> Attachment:
    _open(name, f"attachment {printable(name, 200)}").close()
    return Attachment(Path(name))


# -- progress on a terminal -------------------------------------------------------

#: Messages above this size show a bar as soon as they are sent.
_LARGE_MESSAGE_BYTES = 1024 * 1024
#: Seconds after which every delivery shows its progress.
_PROGRESS_AFTER = 1.0


class UploadProgress:
    """A bar on the terminal for one message; the dialogue tells it the state of the session.

    :param total: octets of the message, if known.
    """

    def __init__(self, reactor: Any, total: int | None) -> None:
        # Imported here, because a command without a terminal needs to start fast.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        self._total = total
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("connecting", total=total, start=False)
        self._timer = reactor.callLater(_PROGRESS_AFTER, self._bar.start)

    def watch(self, line: str) -> None:
        """Take a line of the dialogue."""
        if line.startswith(("S: 354", "C: BDAT")) and not self._bar.tasks[0].started:
            self._bar.start_task(self._task)
            self._bar.update(self._task, description="sending")
            if (self._total or 0) > _LARGE_MESSAGE_BYTES and self._timer.active():
                self._timer.reset(0)
        if line.startswith(f"-- {SILENCE_NOTE}"):
            # On a line of its own: the bar is too narrow for it.
            self._bar.console.print(
                line.removeprefix("-- "), markup=False, highlight=False, soft_wrap=True
            )
        if line == "C: ." or (line.startswith("C: BDAT") and line.endswith(" LAST")):
            self._bar.update(self._task, description="waiting for the server's reply")

    def counted(self, message: Message) -> Message:
        """*message*, whose octets move the bar as they are read."""
        if isinstance(message, AsyncIterable):
            return self._count(message)
        if hasattr(message, "read") and self._total is not None:
            return self._bar.wrap_file(cast("BinaryIO", message), task_id=self._task)
        return message

    async def _count(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self._bar.advance(self._task, len(piece))
            yield piece

    def end(self) -> None:
        """Remove the bar."""
        if self._timer.active():
            self._timer.cancel()
        self._bar.stop()
