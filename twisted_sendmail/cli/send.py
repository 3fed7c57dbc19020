"""``twisted-sendmail send``: submit one message from a file, from stdin or from its parts."""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from twisted_sendmail.cli.input_file import open_input
from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.options import (
    SERVER_VARIABLE,
    account_of,
    add_server_options,
    server_of,
    with_account_and_url,
)
from twisted_sendmail.cli.output import (
    accepted_line,
    as_json,
    error_lines,
    output_failed,
    print_error,
    print_note,
    print_result,
    result_json,
)
from twisted_sendmail.cli.react import react
from twisted_sendmail.client import SILENCE_NOTE, SubmissionServer, submit
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_result
from twisted_sendmail.message import Attachment, Message, compose, mailboxes, prepare
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.smtp import (
    DOUBLED_CR,
    DeliveryReport,
    Envelope,
    ForwardPath,
    InvalidInput,
    Recipient,
    ReversePath,
    SendmailError,
    TextModeRepair,
    printable,
    shown_argument,
)

if TYPE_CHECKING:
    from twisted_sendmail.accounts import Account

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
        "header, or is built from --subject, --text, --html and --attach."
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="smtps://[USER@]HOST[:PORT], smtp+starttls://…, smtp+opportunistic://…, smtp://…, or "
        f"HOST[:PORT]; else the variable {SERVER_VARIABLE}, else the default account",
    )
    _add_message_options(parser)
    add_server_options(parser)
    output = parser.add_argument_group("output")
    add_options_of(
        output,
        """
        --print             write the message to stdout as it would go out, and send nothing
        --json              print the result as one JSON object
        --verbose           show the dialogue on stderr, without secrets
        --quiet             print nothing on success
        """,
        print={"dest": "print_only"},
    )


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
        if args.print_only and args.json:
            raise CommandError("--print and --json both write to stdout; give one of them")
        account = account_of(args)
        # A message that is only printed needs no server, and no password.
        server = None
        if not args.print_only:
            server = server_of(
                with_account_and_url(args, account), watch, remedy="add --server URL"
            )
        submission = _submission_of(args, account)
    except (SendmailError, CommandError) as e:
        return _print_outcome(args, None, e)
    try:
        if server is None:
            return react(lambda reactor: _print_message(args, reactor, submission))
        chosen = server
        return react(lambda reactor: _send(args, reactor, chosen, submission, watchers))
    finally:
        if submission.opened is not None:
            submission.opened.close()


async def _print_message(args: Namespace, reactor: Any, submission: Submission) -> int:
    """Write the message to stdout as it would go out; the exit status."""
    message = submission.message
    try:
        prepared = await prepare(
            message.stream(reactor) if isinstance(message, LongInput) else message,
            sender=submission.sender,
            recipients=submission.recipients,
            envelope=submission.envelope,
            now=reactor.seconds(),
            complete=not args.verbatim,
            run_blocking=lambda work: off_reactor(reactor, work),
        )
        terminal = sys.stdout.isatty()
        while piece := await prepared.read():
            if terminal:
                piece = _for_terminal(piece)
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except SendmailError as e:
        return _print_outcome(args, None, e)
    except OSError as e:
        output_failed(sys.stdout, e)
    return ExitStatus.OK


def _for_terminal(octets: bytes) -> bytes:
    """Return *octets* with control characters escaped."""
    lines = octets.decode("utf-8", "backslashreplace").split("\r\n")
    return "\n".join(printable(line, len(line)) for line in lines).encode("utf-8", "replace")


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
        help="the message (RFC 5322), with its header; stdin if absent or -",
    )
    envelope = parser.add_argument_group(
        "the envelope", "The parts that are not given are read from the message's header."
    )
    add_options_of(
        envelope,
        """
        --from ADDRESS          the sender; '' for none
        --to ADDRESS[,ADDRESS]…  a recipient; may be repeated
        --notify WHEN           ask for delivery reports: never, or any of success,failure,delay (RFC 3461)
        --ret {full,hdrs}       how much of the message a report returns
        --envid ID              the identifier that reports repeat
        --require-tls           deliver over verified TLS all the way, or not at all (REQUIRETLS, RFC 8689)
        --all-or-nothing        deliver to nobody if a recipient is refused
        --verbatim              leave the header as it is: add no Date and Message-ID, remove no Bcc
        """,
        **{"from": {"dest": "sender"}},
    )
    parts = parser.add_argument_group(
        "a message from its parts",
        "Any of these options builds the message; then --from and --to are its header too, and may "
        "have display names. Without --text, --text-file and --html, the text is read from stdin.",
    )
    add_options_of(
        parts,
        """
        --subject TEXT
        --text TEXT             the text
        --text-file FILE        the text is in FILE (UTF-8); - is stdin
        --html FILE             the same text as HTML is in FILE (UTF-8); - is stdin
        --cc ADDRESS[,ADDRESS]…
        --bcc ADDRESS[,ADDRESS]…
        --reply-to ADDRESS[,ADDRESS]…
        --attach [TYPE:]FILE…   attach FILE, perhaps with its media type, as in text/csv:report; may be repeated
        --inline [TYPE:]FILE…   an image that the HTML shows by its name, as in <img src="cid:logo.png">
        --header NAME:_VALUE…   another field; may be repeated
        --date DATE             2026-07-01T12:00+02:00, or '2026-07-01 12:00 Europe/Berlin'; else now
        """,
        header={"metavar": "'NAME: VALUE'"},
    )


_ARGUMENTS = frozenset({"sender", "to", "cc", "bcc", "reply_to", "subject", "text", "html"})
_PARTS = "subject text text_file html cc bcc reply_to attach inline header date".split()  # noqa: SIM905 - read more easily


@attrs.frozen
class LongInput:
    """An input that is longer than :data:`_MAX_IN_MEMORY`, and read once."""

    #: The octets that were read.
    head: bytes
    descriptor: int
    repair: TextModeRepair

    async def stream(self, reactor: Any) -> AsyncIterator[bytes]:
        """Yield the whole message; once."""
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


def _has_parameters(args: Namespace) -> bool:
    given = (args.notify, args.ret, args.envid, args.require_tls or None)
    return any(each is not None for each in given)


def _envelope(
    args: Namespace, sender: str | ReversePath, recipients: Iterable[str | ForwardPath]
) -> Envelope:
    """Return the envelope with the parameters of RFC 3461 and RFC 8689 that the options give."""
    notify = frozenset(args.notify.replace(" ", "").split(",")) if args.notify else frozenset()
    return Envelope(
        sender,
        [Recipient(each, notify) for each in recipients],
        ret=args.ret,
        envid=args.envid,
        require_tls=args.require_tls,
    )


def _submission_of(args: Namespace, account: Account | None) -> Submission:
    """Return the message and the envelope.

    :raises CommandError: a file cannot be read, or the options contradict each other.
    :raises InvalidInput: a value cannot be used.
    """
    for name in ("to", "cc", "bcc", "reply_to"):
        # An empty variable of the shell, for example: the recipients of the header would replace it.
        if not all(each.strip() for each in getattr(args, name) or ()):
            raise CommandError(f"{_option(name)} is empty; give an address, or leave it out")
    if any(getattr(args, name) is not None for name in _PARTS):
        return _composed(args, account)
    to = [word.strip() for text in args.to or () for word in _COMMA.split(text) if word.strip()]
    envelope: Envelope | None = None
    if _has_parameters(args):
        if args.sender is None or not to:
            raise CommandError(
                "--notify, --ret, --envid and --require-tls need the whole envelope: "
                "give --from and --to"
            )
        envelope = _envelope(args, args.sender, to)
    file, noun = open_input(args.file, "the message")
    try:
        message, size = _read(file, noun, at_once=args.file in {None, "-"})
    except BaseException:
        file.close()
        raise
    submission = Submission(message, size, envelope=envelope, opened=file)
    if envelope is None:
        submission.sender, submission.recipients = args.sender, to or None
    return submission


def _read(
    file: BufferedReader, noun: str, *, at_once: bool = True
) -> tuple[Message | LongInput, int | None]:
    """Return the content of *file*, with CR CR LF as one line end, and its size if that is known.

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
            # The octets that were read ahead are read again.
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


# -- a message from its parts -----------------------------------------------------

# A TYPE before a FILE: only these begin one, so that a path may hold a colon.
_TYPED = re.compile(
    r"((?:application|audio|example|font|haptics|image|message|model|multipart|text|video)/[^/:]+):(.+)",
    re.DOTALL,
)


def _composed(args: Namespace, account: Account | None) -> Submission:
    """Return the message from its parts, and its envelope if reports are asked for."""
    sender = args.sender or (account.from_ if account is not None else None)
    if not sender:
        raise CommandError("a message from its parts needs --from, or an account with the key from")
    if not (args.to or args.cc or args.bcc):
        raise CommandError("a message from its parts needs --to")
    if args.verbatim:
        raise CommandError("--verbatim is for a message with its own header; leave it out")
    if args.file is not None:
        shown = shown_argument(args.file)
        raise CommandError(
            f"{shown} would be the whole message, but {_first_part(args)} builds one; write "
            f"--text-file {shown}, or leave out the options for parts"
        )
    text, html = _bodies(args)
    try:
        message = compose(
            sender=sender,
            to=args.to or (),
            cc=args.cc or (),
            bcc=args.bcc or (),
            reply_to=args.reply_to or (),
            subject=args.subject or "",
            text=text,
            html=html,
            attachments=[_attachment(word) for word in args.attach or ()],
            inline=_inline(args.inline or ()),
            headers=_headers(args.header or ()),
            date=None if args.date is None else _date(args.date),
        )
    except InvalidInput as e:
        _name_options(e)
        raise
    if not _has_parameters(args):
        return Submission(message)
    (mailbox,) = mailboxes("From", sender)
    fields = {"To": args.to, "Cc": args.cc, "Bcc": args.bcc}
    recipients = [
        ForwardPath(each)
        for name, values in fields.items()
        for each in mailboxes(name, ", ".join(values or ()))
    ]
    return Submission(message, envelope=_envelope(args, ReversePath(mailbox), recipients))


def _first_part(args: Namespace) -> str:
    return _option(next(name for name in _PARTS if getattr(args, name) is not None))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _name_options(error: InvalidInput) -> None:
    """Let an error of ``compose`` name the option instead of the argument."""
    argument, blank, rest = error.what.partition(" ")
    if argument in _ARGUMENTS:
        option = "--from" if argument == "sender" else _option(argument)
        error.what = f"{option}{blank}{rest}"
    error.what = error.what.replace(" in headers cannot", " in --header cannot")
    if error.remedy is not None:
        error.remedy = error.remedy.replace(
            "leave it out of headers, or leave the argument out",
            "give it once",
        )


def _bodies(args: Namespace) -> tuple[str | None, str | None]:
    """Return the text and the HTML."""
    if args.text is not None and args.text_file is not None:
        raise CommandError("the text is given twice: by --text and by --text-file")
    if args.text_file == "-" and args.html == "-":
        raise CommandError("stdin cannot be both the text and the HTML; name a file")
    html = None if args.html is None else _text(args.html, "the HTML")
    if args.text is not None:
        return args.text, html
    if args.text_file is None and html is not None:
        return None, html
    return _text(args.text_file, "the text"), html


def _text(name: str | None, noun: str) -> str:
    """Return the text in the file *name*, or on stdin, which may be empty."""
    what = noun
    file, noun = open_input(name, noun)
    with file:
        try:
            message, _ = _read(file, noun)
        except CommandError as e:
            if e.status is ExitStatus.DATAERR:
                return ""
            raise
        if isinstance(message, LongInput):
            raise CommandError(f"{noun} is too long for a body; attach it", ExitStatus.DATAERR)
        octets = message if isinstance(message, bytes) else file.read()
    if _MESSAGE.match(octets):
        print_error(
            f"warning: {noun} begins with the header of a message, and is sent as text; "
            "to send it as the message, leave out the options for parts"
        )
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as e:
        line = octets.count(b"\n", 0, e.start) + 1
        raise CommandError(
            f"{what} is not UTF-8 in line {line}; convert it, or attach it", ExitStatus.DATAERR
        ) from None


def _attachment(word: str) -> Attachment:
    """Return the file of ``[TYPE:]FILE``."""
    typed = _TYPED.fullmatch(word)
    media_type, name = (typed[1], typed[2]) if typed else (None, word)
    try:
        # Opening a pipe without a writer must not block.
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "no file name"
        remedy = "check the name"
        before, _, after = word.partition(":")
        if typed is None and Path(after).is_file():
            remedy = f"{printable(before, 100)} is no media type; write one, as in text/csv:FILE"
        raise CommandError(
            f"attachment {printable(name, 200)} cannot be read: {why}; {remedy}",
            ExitStatus.NOINPUT,
        ) from None
    return Attachment(Path(name), media_type=media_type)


def _inline(words: Iterable[str]) -> dict[str, Attachment]:
    """Return the images of the HTML by the names of their files."""
    images: dict[str, Attachment] = {}
    for each in map(_attachment, words):
        name = each.file_name
        if name in images:
            shown = printable(name, 200)
            raise CommandError(f"two files of --inline have the name {shown}; rename one of them")
        images[name] = each
    return images


def _headers(given: Iterable[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon:
            raise CommandError(
                f"--header {printable(line, 100)} has no colon; write it as 'X-Campaign: spring'"
            )
        if name.strip() in headers:
            raise CommandError(f"--header {printable(name, 100)} is given twice; give it once")
        headers[name.strip()] = value
    return headers


def _date(text: str) -> datetime:
    """Return the date of ``--date``: ISO 8601 with an offset, or with a name of the tz database."""
    shown = printable(text, 100)
    # Without a time, fromisoformat would read an offset, as in 2026-07-01-05:00, as the time.
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d(?:[ T]\d\S*)?)(?: +([A-Za-z][A-Za-z0-9_+/-]*))?", text.strip()
    )
    try:
        date = datetime.fromisoformat(re.sub(r"[Zz]\Z", "+00:00", match[1] if match else ""))
    except ValueError:
        raise CommandError(
            f"--date {shown} is no date; write it as 2026-07-01T12:00+02:00"
        ) from None
    if match and match[2]:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            zone = ZoneInfo(match[2])
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise CommandError(
                f"--date {shown} has no known time zone; write it as Europe/Berlin or +02:00"
            ) from None
        if date.tzinfo is not None:
            raise CommandError(f"--date {shown} has two time zones; give one of them")
        return date.replace(tzinfo=zone)
    if date.tzinfo is None:
        raise CommandError(
            f"--date {shown} has no time zone; append +02:00, Z or a name such as Europe/Berlin"
        )
    return date


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
        """Return *message*, whose octets move the bar as they are read."""
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
