"""``twisted-sendmail queue``: what waits, why, and what the operator wants done about it.

Works on the queue itself, beside the relay or without one; a running relay is woken to
look again.  Each action is one transaction: all of it is done, or nothing.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from twisted_sendmail.cli import queue_show
from twisted_sendmail.cli.exit_status import Complaint, ExitStatus, status_of_error
from twisted_sendmail.cli.queue_list import as_dict, table, totals_line
from twisted_sendmail.cli.queue_options import (
    Wanted,
    add_selection_options,
    place,
    wanted,
)
from twisted_sendmail.cli.result import as_json
from twisted_sendmail.cli.terminal import complain, say, unwritten, width
from twisted_sendmail.queue import (
    MessageDamaged,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueueError,
    Selection,
    SQLiteStore,
    wake,
)

HELP = "look at what a relay has in its queue, and do something about it"


class _Doing(NamedTuple):
    """What is said of an action."""

    help: str
    done: str
    #: Why it may not have been done to one that is there.
    undone: str


_ACTIONS = {
    QueueAction.FLUSH: _Doing("try them now", "flushed", "it is set aside: requeue it"),
    QueueAction.HOLD: _Doing("do not try them before they are released", "held", "it is set aside"),
    QueueAction.RELEASE: _Doing("end a hold", "released", "it is not on hold"),
    QueueAction.EXPIRE: _Doing(
        "return them to their senders, and try them no more", "expired", "it is set aside"
    ),
    QueueAction.DELETE: _Doing("remove them without a word to anybody", "deleted", "it was not"),
    QueueAction.REQUEUE: _Doing("treat them as if they had just come", "requeued", "it is damaged"),
}


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Look at the queue of a relay, and change it, whether the relay runs or not. Exit status 65 "
        "when a message that was named is not there; the others are seen to all the same."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what waits, why, and until when", allow_abbrev=False)
    add_selection_options(listing)
    listing.add_argument(
        "--json", action="store_true", help="one object a line, as postqueue -j prints them"
    )
    listing.set_defaults(work=_list)
    showing = actions.add_parser("show", help="all there is to know of one", allow_abbrev=False)
    add_selection_options(showing)
    showing.add_argument("--json", action="store_true", help="one object a line")
    showing.add_argument(
        "--content", action="store_true", help="write the message itself, octet for octet"
    )
    showing.set_defaults(work=_show)
    for action, doing in _ACTIONS.items():
        below = actions.add_parser(action.value, help=doing.help, allow_abbrev=False)
        add_selection_options(below)
        below.add_argument("--all", action="store_true", help="every message of the queue")
        below.set_defaults(work=_act)


def execute(args: Namespace) -> int:
    """Do it; the exit status."""
    return int(args.work(args))


@contextmanager
def _opened(args: Namespace) -> Iterator[SQLiteStore]:
    with SQLiteStore(place(args).queue) as store:
        yield store


# -- looking --------------------------------------------------------------------


def _list(args: Namespace) -> ExitStatus:
    asked = wanted(args)
    found: list[str] = []
    with _opened(args) as store, store.transaction(write=False, doing="be read"):
        now = time.time()
        for page in _pages(store, asked):
            found += [message.id for message in page]
            if args.json:
                for message in page:
                    say(as_json(as_dict(message)))
            else:
                say(table(page, now, width()))
        if not args.json:
            if not found and asked.narrow:
                say("no message fits")
            elif found:
                say("")
            say(totals_line(store.totals(), now))
    return asked.complain(found)


def _pages(store: SQLiteStore, asked: Wanted) -> Iterable[Sequence[QueuedMessage]]:
    return () if asked.nobody else store.pages(asked.selection)


def _show(args: Namespace) -> ExitStatus:
    asked = wanted(args)
    if not asked.narrow:
        raise Complaint("say which messages: give their ids, or --recipient, --sender …")
    found: list[str] = []
    status = ExitStatus.OK
    with _opened(args) as store, store.transaction(write=False, doing="be read"):
        messages = [message for page in _pages(store, asked) for message in page]
        if args.content and len(messages) > 1:
            raise Complaint(f"--content is for one message, and {len(messages)} fit")
        for number, message in enumerate(messages):
            found.append(message.id)
            if args.content:
                status = _content(store, message.id)
                continue
            header, error = _header(store, message.id)
            status = status if error is None else error
            if args.json:
                say(as_json(queue_show.as_full_dict(message, header)))
            else:
                say("\n".join(queue_show.lines(message, header, time.time())))
                say("") if number + 1 < len(messages) else None
    return asked.complain(found) or status


def _header(store: SQLiteStore, name: str) -> tuple[list[str], ExitStatus | None]:
    try:
        first = next(iter(store.content(name)), b"")
    except QueueError as e:
        complain(str(e))
        return [], status_of_error(e)
    return queue_show.header_lines(first), None


def _content(store: SQLiteStore, name: str) -> ExitStatus:
    """All of it to stdout, as it goes out."""
    try:
        for piece in store.content(name):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except OSError as e:
        unwritten(sys.stdout, e)
    except MessageDamaged as e:
        complain(f"{e}; what was written is not all of it")
        return status_of_error(e)
    return ExitStatus.OK


# -- doing ----------------------------------------------------------------------


def _act(args: Namespace) -> ExitStatus:
    action = QueueAction(args.action)
    asked = wanted(args)
    if args.all and asked.narrow:
        raise Complaint("--all and a selection contradict each other")
    if not args.all and not asked.narrow:
        raise Complaint(
            f"say which messages: give their ids, --recipient, --sender …, or --all to "
            f"{action.value} all of them"
        )
    where = place(args).queue
    there: list[str] = []
    acted: list[QueueActionResult] = []
    if not asked.nobody:
        with SQLiteStore(where) as store, store.transaction(doing=f"{action.value} messages"):
            if asked.by_id:
                there = _there(store, asked.selection)
            acted = store.act(action, asked.selection, time.time())
        if acted:
            wake(where)
    _tell(action, acted, there, asked)
    return asked.complain(there) if asked.by_id else ExitStatus.OK


def _there(store: SQLiteStore, selection: Selection) -> list[str]:
    return [message.id for message in store.list(selection)]


def _tell(
    action: QueueAction, acted: list[QueueActionResult], there: list[str], asked: Wanted
) -> None:
    doing = _ACTIONS[action]
    for each in acted:
        if each.on_its_way:
            say(f"{each.id} is on its way: {_meanwhile(action)}")
    done = {each.id for each in acted}
    for each_id in there:
        if each_id not in done:
            say(f"{each_id} was not {doing.done}: {doing.undone}")
    number = len(acted)
    if number or asked.by_id:
        say(f"{number:,} message{'' if number == 1 else 's'} {doing.done}")
    else:
        say("no message fits")


def _meanwhile(action: QueueAction) -> str:
    if action is QueueAction.DELETE:
        return "it may still go out, and is not tried again"
    if action is QueueAction.EXPIRE:
        return "it may still go out; if it does not, it is returned"
    return "this holds from the end of the try on"
