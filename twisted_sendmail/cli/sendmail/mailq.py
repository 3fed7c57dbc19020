"""``mailq`` and ``sendmail -q``: ask the relay over its socket, which answers every user.

Without a relay, root and the relay's user work on the queue itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from twisted_sendmail.cli.output import print_result
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twisted_sendmail.cli.sendmail.options import SendmailOptions
    from twisted_sendmail.drop import DropSettings

#: Seconds that the relay may be silent.
RELAY_SILENCE = 60.0


def print_queue(settings: DropSettings, options: SendmailOptions) -> None:
    """Print the queue (``-bp``), of an ordinary user only their own messages.

    :raises CommandError: the queue cannot be read.
    :raises QueueError: the same, by root or the relay's user without a relay.
    """
    answer = _ask(settings, {"action": "list", **_selected(options)})
    for line in mailq_lines(_stored(settings, options) if answer is None else answer):
        print_result(line)


def flush_queue(settings: DropSettings, options: SendmailOptions) -> None:
    """Make the selected messages due now (``-q``), of an ordinary user only their own.

    :raises CommandError: the queue cannot be changed.
    :raises QueueError: the same, by root or the relay's user without a relay.
    """
    answer = _ask(settings, {"action": "flush", **_selected(options)})
    if answer is None:
        _flush_stored(settings, options)
    else:
        list(answer)


def _selected(options: SendmailOptions) -> dict[str, Any]:
    given = dict(options.flush)
    ids = [value for letter, value in options.flush if letter == "I"]
    return {"ids": ids or None, "recipient": given.get("R"), "sender": given.get("S")}


# -- the relay ----------------------------------------------------------------------


def _ask(settings: DropSettings, request: dict[str, Any]) -> Iterator[dict[str, Any]] | None:
    """Send *request*; the lines of the answer, or None if no relay runs.

    :raises CommandError: the relay cannot be reached.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(RELAY_SILENCE)
    try:
        client.connect(settings.mailq_socket)
    except OSError as e:
        client.close()
        if isinstance(e, FileNotFoundError | ConnectionRefusedError):
            return None
        if isinstance(e, PermissionError):
            raise CommandError(
                f"the relay cannot be reached: its socket {printable(settings.mailq_socket, 300)} is "
                "closed to this user; run as root or as the relay's user",
                ExitStatus.TEMPFAIL,
            ) from None
        raise _failed(f"the relay does not answer: {e.strerror or 'timeout'}") from None
    # A relay may refuse a request before it is sent; the answer has the reason.
    with suppress(OSError):
        client.sendall(json.dumps(request).encode("ascii") + b"\n")
    return _answer(client)


def _answer(client: socket.socket) -> Iterator[dict[str, Any]]:
    with closing(client), client.makefile("rb") as lines:
        try:
            for line in lines:
                found = json.loads(line)
                if "error" in found:
                    raise _failed(f"the relay refused: {printable(found['error'], 500)}")
                yield found
                if "end" in found:
                    return
        except OSError as e:
            raise _failed(f"the relay does not answer: {e.strerror or 'timeout'}") from None
        except ValueError:
            raise _failed("the answer of the relay cannot be parsed") from None
    raise _failed("the answer of the relay is incomplete")


def _failed(what: str) -> CommandError:
    return CommandError(f"{what}; try again later", ExitStatus.TEMPFAIL)


# -- without the relay --------------------------------------------------------------


def _check_rights(settings: DropSettings) -> None:
    """Let only root and the relay's user go on.

    :raises CommandError: this is another user.
    """
    try:
        if os.geteuid() in {0, os.stat(settings.relay_directory).st_uid}:  # noqa: PTH116 - pathlib costs 1 MB
            return
    except OSError:
        pass
    raise CommandError(
        "the relay is not running, and only root and the relay's user can read its queue now; "
        "start the relay, or try again later",
        ExitStatus.TEMPFAIL,
    )


def _stored(settings: DropSettings, options: SendmailOptions) -> Iterator[dict[str, Any]]:
    """Yield the messages of the queue, as a relay lists them."""
    _check_rights(settings)
    from twisted_sendmail.admin.local_mail import LocalMail
    from twisted_sendmail.drop import DropDirectory
    from twisted_sendmail.queue import message_json, open_store

    selection, number = options.selection(), 0
    with open_store(settings.queue) as store, store.transaction(write=False, doing="be read"):
        for page in store.pages(selection) if selection is not None else ():
            number += len(page)
            yield from map(message_json, page)
    end: dict[str, Any] = {"end": number}
    with suppress(OSError), closing(DropDirectory(settings.directory)) as directory:
        end["notice"] = LocalMail(*directory.totals()).line
    yield end


def _flush_stored(settings: DropSettings, options: SendmailOptions) -> None:
    _check_rights(settings)
    from twisted_sendmail.queue import QueueAction, open_store

    selection = options.selection()
    if selection is not None:
        with open_store(settings.queue) as store:
            with store.transaction(doing="flush messages"):
                store.act(QueueAction.FLUSH, selection, time.time())
            store.announce()


# -- the format ---------------------------------------------------------------------

_HEAD = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
#: The mark after an id: being delivered, on hold, kept for the operator.
_MARKS = {"active": "*", "hold": "!", "undeliverable": "#", "corrupt": "#"}


def mailq_lines(answer: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the queue in the format of Postfix's ``mailq``, which programs parse.

    :param answer: the lines of a relay: messages, and the end.
    """
    number = octets = 0
    for each in answer:
        if "end" in each:
            if each.get("notice"):
                yield f"-- {printable(each['notice'], 200)}"
            continue
        if not number:
            yield _HEAD
        number += 1
        octets += each["message_size"]
        yield from _entry(each)
        yield ""
    # Programs look at the last line.
    if number:
        kilobytes = -(-octets // 1024)
        yield f"-- {kilobytes} Kbytes in {number} Request{'' if number == 1 else 's'}."
    else:
        yield "Mail queue is empty"


def _entry(message: dict[str, Any]) -> Iterator[str]:
    mark = _MARKS.get(message["queue_name"], " ")
    date, sender = _date(message["arrival_time"]), printable(message["sender"], 320)
    yield f"{message['queue_id']}{mark} {message['message_size']:7} {date}  {sender}"
    waits = message.get("waits")
    if waits:
        yield f"({printable(waits, 300)})".rjust(80)
    previous: str | None = None
    for recipient in message["recipients"]:
        reason = recipient.get("delay_reason")
        # Postfix prints a reason once, above all recipients that it concerns.
        if reason is not None and reason != previous:
            yield f"{f'({printable(reason, 1000)})':>80}"
        previous = reason
        yield f"{'':41}{printable(recipient['address'], 320)}"


def _date(at: float) -> str:
    """Return ``Thu Jan  1 12:00:00``, in local time and in English."""
    try:
        return time.ctime(at)[:19]
    except (OverflowError, ValueError, OSError):
        return time.ctime(0)[:19]
