"""``twisted-sendmail queue``: list and show the messages of a queue, and change their state.

The command works on the queue itself, whether the relay runs or not, and notifies a relay that runs.
Each action is one transaction: it is done to every selected message, or to none.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import attrs

from twisted_sendmail.cli.option_table import add_options_of
from twisted_sendmail.cli.output import (
    as_json,
    output_failed,
    print_error,
    print_result,
    terminal_width,
)
from twisted_sendmail.cli.queue_format import (
    ListedTotals,
    RelayState,
    header_lines,
    message_lines,
    show_json,
    table,
    totals_line,
)
from twisted_sendmail.daemon.config_types import ConfigSource, at_key, queue_place, read_toml
from twisted_sendmail.exit_status import CommandError, ExitStatus, status_of_error
from twisted_sendmail.queue import (
    MessageDamaged,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueueError,
    Selection,
    Store,
    export_queue,
    id_number,
    id_text,
    import_queue,
    message_json,
    open_store,
    prepare_queue_place,
    shown_place,
)
from twisted_sendmail.smtp import printable

#: The environment variable that names the configuration.
CONFIG_VARIABLE = "TWISTED_SENDMAIL_CONFIG"
#: The configuration if neither an option nor the variable names one.
DEFAULT_CONFIG = "/etc/twisted_sendmail/relay.toml"
#: The values of ``QueuedMessage.queue_name``.
STATES = ("active", "incoming", "deferred", "hold", "undeliverable", "corrupt")
# Octets of stdin: the ids of ten million messages.
_MAX_INPUT = 256 * 1024 * 1024


class _ActionText(NamedTuple):
    """The words about an action."""

    help: str
    done: str
    #: Why the action may not have been done to a message that is in the queue.
    undone: str


_ACTIONS = {
    QueueAction.FLUSH: _ActionText(
        "try messages now", "flushed", "the message is set aside: requeue it"
    ),
    QueueAction.HOLD: _ActionText(
        "do not try messages until they are released", "held", "the message is set aside"
    ),
    QueueAction.RELEASE: _ActionText("end a hold", "released", "the message is not on hold"),
    QueueAction.EXPIRE: _ActionText(
        "return messages to their senders, and do not try them again",
        "expired",
        "the message is set aside",
    ),
    QueueAction.DELETE: _ActionText("remove messages and notify nobody", "deleted", ""),
    QueueAction.REQUEUE: _ActionText("treat messages as new", "requeued", "the message is damaged"),
}


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.description = (
        "Look at the queue of a relay, and change it, whether the relay runs or not. If a message "
        "that was named is not in the queue, the others are processed and the exit status is 65."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, work: Callable[[Namespace], ExitStatus], text: str) -> ArgumentParser:
        below = actions.add_parser(name, help=text, allow_abbrev=False)
        below.set_defaults(work=work)
        return below

    listing = add("list", _list, "list messages, with reason and next try")
    add_options_of(listing, "--json  one object a line, as postqueue -j prints them")
    _add_selection_options(listing)
    showing = add("show", _show, "show all details of a message")
    add_options_of(
        showing,
        """
        --json              one object a line
        --content           write the message itself, octet for octet
        """,
    )
    _add_selection_options(showing)
    _add_place_options(
        add(
            "migrate", _migrate, "make the tables of the queue, or bring them to the present format"
        )
    )
    exporting = add(
        "export", _export, "write all messages with their state, for queue import; no relay may run"
    )
    _add_place_options(exporting)
    exporting.add_argument(
        "-o", "--output", metavar="FILE", help="a new file; without it stdout is written to"
    )
    importing = add("import", _import, "add the messages of an export, from a queue of either kind")
    _add_place_options(importing)
    importing.add_argument("file", metavar="FILE", help="the export; - is stdin")
    for action, text in _ACTIONS.items():
        below = add(action.value, _act, text.help)
        _add_selection_options(below)
        add_options_of(below, "--all  every message of the queue")


def _add_selection_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="a message; - reads ids from stdin, one a line"
    )
    _add_place_options(parser)
    which = parser.add_argument_group(
        "the messages", "Messages that match every option are selected."
    )
    add_options_of(
        which,
        """
        --recipient WHO     a pending recipient: an address, @domain, or a part of one
        --sender WHO        the sender, likewise; '' is the null reverse-path
        --state NAME        the state
        --route NAME        the route
        """,
        state={"choices": STATES, "metavar": None},
    )


def _add_place_options(parser: ArgumentParser) -> None:
    add_options_of(
        parser.add_argument_group("the queue"),
        f"""
        --queue PLACE       its directory, or the URL of its database
        --config FILE       the relay's configuration; else the variable {CONFIG_VARIABLE}, else {DEFAULT_CONFIG}
        """,
    )


def execute(args: Namespace) -> int:
    """Execute the action; the exit status."""
    return int(args.work(args))


# -- the selected messages ----------------------------------------------------------


@attrs.frozen
class QueueRequest:
    """The queue and the messages that the options select."""

    #: A directory, or the URL of a database.
    place: Path | str
    selection: Selection
    #: Ids were given, even if none of them is one.
    by_id: bool
    #: Words that are not ids, as they were given.
    wrong_ids: tuple[str, ...]

    @property
    def filtered(self) -> bool:
        """An option selects messages by their properties."""
        given = self.selection
        filters = (given.recipient, given.sender, given.queue, given.route)
        return any(each is not None for each in filters)

    @property
    def narrow(self) -> bool:
        """The options select less than the whole queue."""
        return self.by_id or self.filtered

    @property
    def empty(self) -> bool:
        """No message can match."""
        return self.by_id and not self.selection.ids

    def pages(self, store: Store) -> Iterable[Sequence[QueuedMessage]]:
        """Return the messages, some hundred at a time."""
        return () if self.empty else store.pages(self.selection)

    def report_missing(self, found: Iterable[str]) -> ExitStatus:
        """Print each id that is not among *found*; the exit status."""
        present = set(found)
        missing = [printable(word, 60) for word in self.wrong_ids]
        missing += [each for each in self.selection.ids if each not in present]
        or_filtered = ", or does not match" if self.filtered else ""
        for each in missing:
            print_error(f"message {each} is not in the queue{or_filtered}")
        return ExitStatus.DATAERR if missing else ExitStatus.OK


def _request(args: Namespace) -> QueueRequest:
    """Return the queue and the messages that the options select.

    :raises CommandError: the options contradict each other, or stdin cannot be read.
    :raises ConfigurationError: the queue cannot be found.
    """
    place = _place(args)
    words: list[str] = []
    for word in args.ids:
        words += _words_from_stdin() if word == "-" else [word]
    ids: dict[str, None] = {}
    wrong = []
    for word in words:
        # mailq prints a mark after the id of some messages.
        number = id_number(word.rstrip("*!#"))
        if number is None:
            wrong.append(word)
        else:
            ids[id_text(number)] = None
    selection = Selection(
        ids=tuple(ids),
        recipient=args.recipient,
        sender=args.sender,
        queue=args.state,
        route=args.route,
    )
    return QueueRequest(place, selection, bool(args.ids), tuple(wrong))


def _place(args: Namespace) -> Path | str:
    """Return the place that the options name, or that in the configuration, of which nothing else is read.

    :raises CommandError: the options contradict each other.
    :raises ConfigurationError: the configuration cannot be read, or names no queue; or the queue
        cannot be used.
    """
    config, queue = args.config, args.queue
    if queue is not None and config is not None:
        raise CommandError("--queue and --config both name a queue; give one of them")
    if queue == "":
        raise CommandError("--queue is empty")
    if queue is not None:
        with ConfigSource("--queue").naming_errors():
            return queue_place(queue, Path.cwd())
    given = config or os.environ.get(CONFIG_VARIABLE)
    file = Path(given or DEFAULT_CONFIG).expanduser()
    source = ConfigSource(printable(str(file), 300))
    if given:
        tree = read_toml(file, source)
    else:
        remedy = f"name it by --config or {CONFIG_VARIABLE}, or give the queue by --queue"
        tree = read_toml(file, source, remedy=remedy)
    if "queue" not in tree:
        raise source.error("queue", "missing", "this key is required")
    with source.naming_errors(), at_key("queue"):
        return queue_place(tree["queue"], file.absolute().parent)


def _words_from_stdin() -> list[str]:
    """Return the first word of each line."""
    if sys.stdin is None:
        raise CommandError("the ids are missing: stdin is closed", ExitStatus.NOINPUT)
    try:
        octets = os.read(sys.stdin.fileno(), 0) + sys.stdin.buffer.read(_MAX_INPUT)
    except OSError as e:
        raise CommandError(f"the ids cannot be read: {e.strerror}", ExitStatus.IOERR) from None
    lines = octets.decode("utf-8", "backslashreplace").splitlines()
    return [line.split()[0] for line in lines if line.split()]


# -- list and show ------------------------------------------------------------------


def _list(args: Namespace) -> ExitStatus:
    request = _request(args)
    found: list[str] = []
    listed = ListedTotals()
    with (
        open_store(request.place) as store,
        store.transaction(write=False, doing="be read"),
    ):
        relay = _relay_state(store)
        for page in request.pages(store):
            found += [message.id for message in page]
            listed.add(page)
            if args.json:
                for message in page:
                    print_result(as_json(message_json(message)))
            else:
                print_result(table(page, relay, terminal_width()))
        if not args.json:
            if found or request.narrow:
                print_result("" if found else "no message matches")
            if found:
                for line in relay.lines():
                    print_result(line)
            number = store.count() if request.narrow else None
            print_result(totals_line(listed.totals, relay.now, of=number))
    return request.report_missing(found)


def _relay_state(store: Store) -> RelayState:
    running = store.relay_runs() is not False
    # A relay that was killed leaves the states of its routes.
    down = store.down_routes() if running else {}
    return RelayState(time.time(), running, down, store.state().cluster.nodes)


def _show(args: Namespace) -> ExitStatus:
    request = _request(args)
    if not request.narrow:
        raise CommandError("name the messages: give their ids, or --recipient, --sender …")
    status = ExitStatus.OK
    with (
        open_store(request.place) as store,
        store.transaction(write=False, doing="be read"),
    ):
        relay = _relay_state(store)
        messages = [message for page in request.pages(store) for message in page]
        if args.content and len(messages) > 1:
            raise CommandError(f"--content is for one message, and {len(messages)} match")
        for number, message in enumerate(messages):
            if args.content:
                status = _write_content(store, message.id)
                continue
            header: list[str] = []
            try:
                header = header_lines(next(iter(store.content(message.id)), b""))
            except QueueError as e:
                print_error(str(e))
                status = status_of_error(e)
            if args.json:
                print_result(as_json(show_json(message, header, relay)))
            else:
                print_result("\n".join(message_lines(message, header, relay)))
                if number + 1 < len(messages):
                    print_result("")
    return request.report_missing(message.id for message in messages) or status


def _write_content(store: Store, queue_id: str) -> ExitStatus:
    """Write a content to stdout as it is sent."""
    try:
        for piece in store.content(queue_id):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except OSError as e:
        output_failed(sys.stdout, e)
    except MessageDamaged as e:
        print_error(f"{e}; the output is incomplete")
        return status_of_error(e)
    return ExitStatus.OK


# -- actions ------------------------------------------------------------------------


def _act(args: Namespace) -> ExitStatus:
    action = QueueAction(args.action)
    request = _request(args)
    if args.all and request.narrow:
        raise CommandError("--all and a selection contradict each other")
    if not args.all and not request.narrow:
        raise CommandError(
            f"name the messages: give their ids, --recipient, --sender …, or --all to "
            f"{action.value} all of them"
        )
    present: list[str] = []
    results: list[QueueActionResult] = []
    if not request.empty:
        with open_store(request.place) as store:
            with store.transaction(doing=f"{action.value} messages"):
                if request.by_id:
                    present = [message.id for message in store.list(request.selection)]
                results = store.act(action, request.selection, time.time())
            if results or args.all:
                store.announce()
    _print_results(action, results, present, request)
    return request.report_missing(present) if request.by_id else ExitStatus.OK


def _print_results(
    action: QueueAction,
    results: list[QueueActionResult],
    present: list[str],
    request: QueueRequest,
) -> None:
    text = _ACTIONS[action]
    for each in results:
        if each.on_its_way:
            print_result(f"{each.id} is on its way: {_until_the_try_ends(action)}")
    done = {each.id for each in results}
    for queue_id in present:
        if queue_id not in done:
            print_result(f"{queue_id} was not {text.done}: {text.undone}")
    if results or request.by_id:
        noun = "message" if len(results) == 1 else "messages"
        print_result(f"{len(results):,} {noun} {text.done}")
    else:
        print_result("no message matches")


def _until_the_try_ends(action: QueueAction) -> str:
    if action is QueueAction.DELETE:
        return "the message may still go out, and is not tried again"
    if action is QueueAction.EXPIRE:
        return "the message may still go out, and is returned otherwise"
    return "this takes effect when the try ends"


# -- the whole queue ----------------------------------------------------------------


def _migrate(args: Namespace) -> ExitStatus:
    place = _place(args)
    prepare_queue_place(place)
    print_result(f"{shown_place(place)}: the queue has the format of this release")
    return ExitStatus.OK


def _export(args: Namespace) -> ExitStatus:
    place = _place(args)
    with (
        open_store(place) as store,
        store.transaction(write=False, doing="be read"),
    ):
        if store.relay_runs():
            raise CommandError(
                f"a relay has the queue {printable(shown_place(place), 300)} open, and would deliver "
                "messages that are exported; stop it first",
                ExitStatus.TEMPFAIL,
            )
        with _export_file(args.output) as out:
            done = export_queue(store, out)
    for each in done.interrupted:
        print_error(f"message {each} may have been delivered: its last attempt did not end")
    for each in done.damaged:
        print_error(f"message {each} is damaged, and was left out")
    text = _number_text(done.messages, "exported")
    if args.output is None:
        print_error(text)
    else:
        print_result(text)
    return ExitStatus.DATAERR if done.damaged else ExitStatus.OK


@contextmanager
def _export_file(name: str | None) -> Iterator[BinaryIO]:
    """Yield a new file that is on the disk at the end, and gone after an error; or stdout.

    :raises CommandError: it cannot be made or written.
    """
    path = None if name is None else Path(name)
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        with open(path, "xb", opener=_private) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink()
                raise
    except OSError as e:
        if path is None:
            output_failed(sys.stdout, e)
        why = e.strerror or type(e).__name__
        raise CommandError(
            f"{printable(str(path), 300)} cannot be written: {why}", ExitStatus.CANTCREAT
        ) from None


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


def _import(args: Namespace) -> ExitStatus:
    place = _place(args)
    try:
        with (
            open(sys.stdin.fileno() if args.file == "-" else args.file, "rb") as file,  # noqa: PTH123 - a descriptor
            closing(open_store(place)) as store,
        ):
            store.open(create=True)
            done = import_queue(store, file, time.time)
    except OSError as e:
        raise CommandError(
            f"{printable(args.file, 300)} cannot be read: {e.strerror}", ExitStatus.NOINPUT
        ) from None
    print_result(_number_text(done.messages, "imported"))
    if done.present:
        print_result(f"{done.present:,} of the export were in the queue before")
    return ExitStatus.OK


def _number_text(number: int, done: str) -> str:
    return f"{number:,} {'message' if number == 1 else 'messages'} {done}"
