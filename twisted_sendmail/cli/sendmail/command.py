"""The ``sendmail`` command: parse the command line, act on it, end with an exit status.

Cron, PHP, ``git send-email`` and many scripts submit their mail by calling ``/usr/sbin/sendmail``.
The message becomes one file in the relay's spool directory, whether the relay runs or not. Exit
status 0 means that it would survive a power failure; no other status means that. Where no relay is
installed, the message is submitted by the default account of the user.

The program runs often and briefly: it imports neither Twisted nor SQLite nor the relay's
configuration to deliver a message, and imports that a call does not need stand inside functions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted_sendmail.cli.output import (
    prepare_streams,
    print_error,
    print_note,
    print_result,
)
from twisted_sendmail.cli.sendmail.destination import destination
from twisted_sendmail.cli.sendmail.message import (
    InputMessage,
    current_user,
    envelope_of,
    envelope_sender,
)
from twisted_sendmail.cli.sendmail.options import HELP, SendmailMode, SendmailOptions, parse
from twisted_sendmail.cli.sendmail.spool import drop_envelope, put
from twisted_sendmail.drop import DropSettings
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_and_line
from twisted_sendmail.smtp import UnusableRecipient, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.accounts import Account

_STDIN = 0


def main(words: Sequence[str]) -> int:
    """Run the command.

    :param words: the command line, the program's name first.
    :returns: the exit status.
    """
    name = words[0] if words else ""
    prepare_streams(printable(name.rpartition("/")[2], 60) or "sendmail")
    try:
        return _run(parse(name, words[1:]))
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - never a traceback
        status, line = status_and_line(e)
        print_error(line)
        return status


def _run(options: SendmailOptions) -> int:
    if options.mode is SendmailMode.HELP:
        print_result(HELP)
        return ExitStatus.OK
    if options.mode is SendmailMode.ALIASES:
        return ExitStatus.OK  # there is no alias database
    settings = destination(options.settings, options.spool)
    if options.mode is SendmailMode.DELIVER:
        return _deliver(options, settings)
    if not isinstance(settings, DropSettings):
        raise CommandError(
            "no relay is installed on this machine: there is no queue, and no SMTP on stdin; send by "
            "giving a message on stdin",
            ExitStatus.UNAVAILABLE,
        )
    if options.mode is SendmailMode.SMTP:
        from twisted_sendmail.cli.sendmail.session import serve

        return serve(settings)
    from twisted_sendmail.cli.sendmail.mailq import flush_queue, print_queue

    (flush_queue if options.mode is SendmailMode.FLUSH else print_queue)(settings, options)
    return ExitStatus.OK


def _deliver(options: SendmailOptions, settings: DropSettings | Account) -> int:
    stdin_closed = _open_standard_descriptors()
    try:
        if stdin_closed:
            raise CommandError("stdin is closed; nothing was sent", ExitStatus.IOERR)
        if isinstance(settings, DropSettings):
            return _drop(options, settings)
        from twisted_sendmail.cli.sendmail.submission import submit_by

        message = InputMessage(_STDIN, dot_ends=not options.ignore_dots)
        return submit_by(settings, options, current_user(), message)
    except KeyboardInterrupt:
        raise CommandError("interrupted; nothing was sent", ExitStatus.INTERRUPTED) from None


def _drop(options: SendmailOptions, settings: DropSettings) -> int:
    """Put the message into the spool directory."""
    user = current_user()
    sender = envelope_sender(options, user, settings.sender_domain)
    full_name = user.full_name if options.full_name is None else options.full_name
    message = InputMessage(
        _STDIN, dot_ends=not options.ignore_dots, max_header=settings.header_size
    )
    unusable: list[UnusableRecipient] = []
    envelope = envelope_of(options, message.header, sender, settings.recipient_domain, unusable)
    if len(envelope.recipients) > settings.recipients:
        raise CommandError(
            f"there are {len(envelope.recipients)} recipients, and the relay takes "
            f"{settings.recipients}; send the message to fewer at a time",
            ExitStatus.DATAERR,
        )
    name = put(settings, drop_envelope(envelope, full_name=full_name), message.pieces())
    if options.verbose:
        print_note(f"-- put into {printable(settings.directory, 300)} as {name}")
    return _report_unusable(unusable) if unusable else ExitStatus.OK


def _report_unusable(unusable: list[UnusableRecipient]) -> int:
    from twisted_sendmail.smtp import refused_address

    for address in dict.fromkeys(unusable):
        print_error(str(refused_address(address)))
    return ExitStatus.UNAVAILABLE


def _open_standard_descriptors() -> bool:
    """Open those of 0, 1, 2 that are closed, or the file of the message would be one of them.

    :returns: stdin was closed.
    """
    closed = []
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))
    return 0 in closed
