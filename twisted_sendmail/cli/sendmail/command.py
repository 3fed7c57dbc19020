"""The ``sendmail`` command: parse the command line, do what it asks for, end with an exit status.

Cron, PHP, ``git send-email`` and many scripts submit their mail by calling ``/usr/sbin/sendmail``.
Exit status 0 means that the relay or its queue has the message; no other status means that.

The program runs often and briefly: imports that a call does not need stand inside functions.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePath
from typing import NoReturn

from twisted_sendmail.cli.output import finish, prepare_streams, print_error, print_result
from twisted_sendmail.cli.sendmail.local_relay import find_relay
from twisted_sendmail.cli.sendmail.message import (
    current_user,
    envelope_of,
    envelope_sender,
    read_message,
)
from twisted_sendmail.cli.sendmail.options import SendmailMode, SendmailOptions, parse
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_and_line
from twisted_sendmail.message import HeaderFixer
from twisted_sendmail.smtp import printable

_STDIN = 0


def main(words: Sequence[str]) -> int:
    """Run the command.

    :param words: the command line, the program's name first.
    :returns: the exit status.
    """
    name = words[0] if words else ""
    prepare_streams(printable(PurePath(name).name, 60) or "sendmail")
    try:
        return _run(parse(name, words[1:]))
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - never a traceback
        status, line = status_and_line(e)
        print_error(line)
        return status


def console() -> NoReturn:
    """The entry point of the script; it skips garbage collection and the interpreter's clean-up."""
    gc.disable()
    os._exit(finish(main(sys.argv)))


def _run(options: SendmailOptions) -> int:
    if options.mode is SendmailMode.ALIASES:
        return ExitStatus.OK  # there is no alias database
    if options.mode is SendmailMode.DELIVER:
        return _deliver(options)
    relay = find_relay(options.config, options.queue)
    if options.mode is SendmailMode.SMTP:
        from twisted_sendmail.cli.sendmail.session import serve

        return serve(relay)
    if options.mode is SendmailMode.FLUSH:
        return _flush(relay.queue, options)
    return _print_queue(relay.queue, options)


def _deliver(options: SendmailOptions) -> int:
    relay = find_relay(options.config, options.queue)
    user = current_user()
    sender = envelope_sender(options, user, relay.sender_domain)
    full_name = user.full_name if options.full_name is None else options.full_name
    # Add From, Date and Message-ID before the message goes anywhere: if it is sent twice, both
    # copies have one Message-ID.
    fixer = HeaderFixer(time.time(), relay.sender_domain, sender, from_name=full_name)
    try:
        message = read_message(_STDIN, dot_ends=not options.ignore_dots, fix_header=fixer.completed)
    except OSError as e:
        raise CommandError(
            f"the message cannot be read: {e.strerror}; nothing was sent", ExitStatus.IOERR
        ) from None
    from twisted_sendmail.cli.sendmail.delivery import deliver

    try:
        envelope = envelope_of(options, message.header, sender, relay.recipient_domain)
        return deliver(relay, message, envelope, user, verbose=options.verbose)
    except KeyboardInterrupt:
        raise CommandError(
            "interrupted; it is not certain that the message was taken", ExitStatus.INTERRUPTED
        ) from None
    finally:
        message.close()


def _print_queue(directory: Path, options: SendmailOptions) -> int:
    """``-bp``.

    :raises QueueError: the queue cannot be read.
    """
    from twisted_sendmail.cli.queue_format import mailq_lines
    from twisted_sendmail.queue import SQLiteStore

    selection = options.selection()
    with SQLiteStore(directory) as store, store.transaction(write=False, doing="be read"):
        pages = store.pages(selection) if selection is not None else ()
        for line in mailq_lines(chain.from_iterable(pages)):
            print_result(line)
    return ExitStatus.OK


def _flush(directory: Path, options: SendmailOptions) -> int:
    """``-q``: the selected messages are due now.

    :raises QueueError: the queue cannot be changed.
    """
    from twisted_sendmail.queue import QueueAction, SQLiteStore, wake

    selection = options.selection()
    if selection is not None:
        with SQLiteStore(directory) as store, store.transaction(doing="flush messages"):
            store.act(QueueAction.FLUSH, selection, time.time())
        wake(directory)
    return ExitStatus.OK
