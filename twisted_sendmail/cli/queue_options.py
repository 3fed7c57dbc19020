"""The options that say which queue is meant, and which messages of it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass

from twisted_sendmail.cli.exit_status import Complaint, ExitStatus
from twisted_sendmail.cli.relay_place import CONFIGURATION, VARIABLE, Place, place_of
from twisted_sendmail.cli.terminal import complain
from twisted_sendmail.queue import Selection, id_number, id_text
from twisted_sendmail.smtp import printable

#: ``QueuedMessage.queue_name``.
STATES = ("active", "incoming", "deferred", "hold", "corrupt")
# Octets of stdin; a queue of ten million has as many.
_MAX_INPUT = 256 * 1024 * 1024


@dataclass(frozen=True)
class Wanted:
    """Which messages are meant."""

    selection: Selection
    #: Ids were asked for by name, be it that none was named.
    by_id: bool
    #: Words that are no ids, as they were written.
    wrong: tuple[str, ...]

    @property
    def narrow(self) -> bool:
        """It says which, and not just all."""
        given = self.selection
        filters = (given.recipient, given.sender, given.queue, given.route)
        return self.by_id or any(each is not None for each in filters)

    @property
    def nobody(self) -> bool:
        """No message can be meant."""
        return self.by_id and not self.selection.ids

    def complain(self, found: Iterable[str]) -> ExitStatus:
        """Name each id that is not among those *found*; the exit status."""
        there = set(found)
        gone = [printable(word, 60) for word in self.wrong]
        gone += [each for each in self.selection.ids if each not in there]
        for each in gone:
            complain(f"message {each} is not in the queue{self._besides()}")
        return ExitStatus.DATAERR if gone else ExitStatus.OK

    def _besides(self) -> str:
        given = self.selection
        filters = (given.recipient, given.sender, given.queue, given.route)
        return ", or does not fit" if any(each is not None for each in filters) else ""


def add_selection_options(parser: ArgumentParser) -> None:
    """Add them to *parser*."""
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="a message; - reads them from stdin, one a line"
    )
    place = parser.add_argument_group("the queue")
    place.add_argument("--queue", metavar="DIR", help="its directory")
    place.add_argument(
        "--config",
        metavar="FILE",
        help=f"the relay's configuration; else the variable {VARIABLE}, else {CONFIGURATION}",
    )
    which = parser.add_argument_group("which messages", "Those that fit all of it.")
    which.add_argument(
        "--recipient", metavar="WHO", help="still to get there: an address, @domain, or a part"
    )
    which.add_argument("--sender", metavar="WHO", help="the same; '' is the null reverse-path")
    which.add_argument("--state", choices=STATES, help="where in the queue they are")
    which.add_argument("--route", metavar="NAME", help="that take this way out")


def place(args: Namespace) -> Place:
    """The queue that is meant.

    :raises Complaint: it is given twice.
    :raises ConfigurationError: there is no telling.
    """
    if args.queue is not None and args.config is not None:
        raise Complaint("--queue and --config both say which queue; give one of them")
    if args.queue == "":
        raise Complaint("--queue is empty")
    return place_of(args.config, args.queue)


def wanted(args: Namespace) -> Wanted:
    """The messages that are meant.

    :raises Complaint: stdin cannot be read.
    """
    words: list[str] = []
    for word in args.ids:
        words += _from_stdin() if word == "-" else [word]
    good, wrong = [], []
    for word in words:
        # As the queue is printed by mailq: a mark behind the id says where it is.
        number = id_number(word.rstrip("*!#"))
        if number is None:
            wrong.append(word)
        else:
            good.append(id_text(number))
    return Wanted(
        Selection(
            ids=tuple(dict.fromkeys(good)),
            recipient=args.recipient,
            sender=args.sender,
            queue=args.state,
            route=args.route,
        ),
        bool(args.ids),
        tuple(wrong),
    )


def _from_stdin() -> list[str]:
    """The first word of each line."""
    if sys.stdin is None:
        raise Complaint("the ids are missing: stdin is closed", ExitStatus.NOINPUT)
    try:
        octets = os.read(sys.stdin.fileno(), 0) + sys.stdin.buffer.read(_MAX_INPUT)
    except OSError as e:
        raise Complaint(f"the ids cannot be read: {e.strerror}", ExitStatus.IOERR) from None
    lines = octets.decode("utf-8", "backslashreplace").splitlines()
    return [line.split()[0] for line in lines if line.split()]
