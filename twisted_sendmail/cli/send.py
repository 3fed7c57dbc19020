"""``twisted-sendmail send``: one message, from a file, a pipe or its parts."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from rich.console import Console
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus, status_of
from twisted_sendmail.cli.message_options import Parcel, add_message_options, parcel_of
from twisted_sendmail.cli.progress import Upload
from twisted_sendmail.cli.result import accepted_line, as_json, result_json, trouble_lines
from twisted_sendmail.cli.running import run
from twisted_sendmail.cli.server_options import VARIABLE, add_server_options, server_of
from twisted_sendmail.cli.standard_input import LongPipe
from twisted_sendmail.cli.terminal import complain, note, say
from twisted_sendmail.client import SubmissionServer, submit
from twisted_sendmail.smtp import DeliveryReport, SendmailError

HELP = "send a message"


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
        f"HOST[:PORT]; else the variable {VARIABLE}",
    )
    add_message_options(parser)
    add_server_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print the result as one JSON object")
    output.add_argument(
        "--verbose", action="store_true", help="show the dialogue on stderr, without secrets"
    )
    output.add_argument("--quiet", action="store_true", help="print nothing on success")


def execute(args: Namespace) -> int:
    """Send; the exit status.

    What blocks comes first: a password's prompt or command, files, a pipe.
    """
    watchers: list[Callable[[str], None]] = [note] if args.verbose else []

    def watch(line: str) -> None:
        for watcher in watchers:
            watcher(line)

    try:
        server = server_of(args, args.server, watch)
        parcel = parcel_of(args)
    except (SendmailError, Complaint) as e:
        return _tell(args, None, e)
    try:
        return run(lambda reactor: _work(args, reactor, server, parcel, watchers))
    finally:
        parcel.close()


def _tell(
    args: Namespace, report: DeliveryReport | None, error: SendmailError | Complaint | None
) -> int:
    """Say what became of it; the exit status."""
    if isinstance(error, Complaint):
        status = error.status
        complain(str(error))
    else:
        status = status_of(report, error)
        for line in trouble_lines(report, error):
            complain(line)
    if args.json:
        say(as_json(result_json(report, error, status)))
    elif report is not None and report.accepted and not args.quiet:
        say(accepted_line(report))
    return status


async def _work(
    args: Namespace,
    reactor: Any,
    server: SubmissionServer,
    parcel: Parcel,
    watchers: list[Callable[[str], None]],
) -> int:
    upload = _upload(args, reactor, parcel)
    message = parcel.message
    if isinstance(message, LongPipe):
        message = message.stream(reactor)
    if upload is not None:
        watchers.append(upload.watch)
        message = upload.counted(message)
    report: DeliveryReport | None = None
    error: SendmailError | Complaint | None = None
    try:
        report = await submit(
            reactor,
            server,
            message,
            sender=parcel.sender,
            recipients=parcel.recipients,
            envelope=parcel.envelope,
            all_or_nothing=args.all_or_nothing,
            complete=not args.verbatim,
        )
    except SendmailError as e:
        error, report = e, e.report
    except CancelledError:
        error = Complaint("interrupted; nothing was sent", ExitStatus.TEMPFAIL)
    except OSError as e:
        error = Complaint(f"the message cannot be read: {e.strerror or e}", ExitStatus.IOERR)
    finally:
        if upload is not None:
            upload.end()
    if args.verbose:
        # QUIT is written after the result is there: let it be shown before the result.
        await deferLater(reactor, 0)
    watchers.clear()
    return _tell(args, report, error)


def _upload(args: Namespace, reactor: Any, parcel: Parcel) -> Upload | None:
    if args.quiet or args.verbose or sys.stderr is None or not sys.stderr.isatty():
        return None
    return Upload(reactor, Console(stderr=True), parcel.size)
