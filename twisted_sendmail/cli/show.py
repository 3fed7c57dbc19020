"""``twisted-sendmail show``: the header of a message decoded, its structure, and its attachments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.cli.input_file import open_input
from twisted_sendmail.cli.output import as_json, print_result
from twisted_sendmail.exit_status import CommandError, ExitStatus
from twisted_sendmail.message import inspect_message
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from twisted_sendmail.message import MessagePart

#: Characters of a value, and parts of a message, that are shown to people.
_SHOWN_VALUE, _SHOWN_PARTS = 1000, 200


def add_options(parser: ArgumentParser) -> None:
    """Add the options of the subcommand to *parser*."""
    parser.usage = "%(prog)s [OPTIONS] [FILE]"
    parser.description = (
        "Show what a message is made of: its header, decoded, its parts, and its attachments with "
        "their sizes. Nothing is sent, opened or saved."
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="the message (RFC 5322); stdin if absent or -"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: Namespace) -> int:
    """Show the message; the exit status."""
    file, noun = open_input(args.file, "the message")
    with file:
        try:
            if not file.peek(1):
                raise CommandError(f"{noun} is empty", ExitStatus.DATAERR)
            message = inspect_message(file)
        except OSError as e:
            raise CommandError(f"{noun} cannot be read: {e.strerror}", ExitStatus.IOERR) from None
    if args.json:
        print_result(as_json(_message_json(message)))
    else:
        for line in _lines(message):
            print_result(line)
    return ExitStatus.OK


# -- for people -------------------------------------------------------------------


def _lines(message: MessagePart) -> Iterator[str]:
    for name, value in message.header:
        yield f"{printable(name, 100)}: {printable(value, _SHOWN_VALUE)}"
    yield ""
    tree = _tree(message, "", "")
    for number, line in enumerate(tree):
        if number == _SHOWN_PARTS:
            yield f"… and {sum(1 for _ in message.walk()) - number:,} more parts"
            break
        yield line
    attachments = message.attachments
    if attachments:
        yield ""
        octets = sum(each.size for each in attachments)
        yield f"{_number(len(attachments), 'attachment')}, {_number(octets, 'octet')}:"
        for each in attachments[:_SHOWN_PARTS]:
            yield f"  {_name(each)}, {_type(each)}, {_number(each.size, 'octet')}"
    problems = [problem for part in message.walk() for problem in part.problems]
    if problems:
        yield ""
        yield f"problems: {', '.join(dict.fromkeys(problems))}"


def _tree(part: MessagePart, first: str, others: str) -> Iterator[str]:
    """Yield the lines of *part*: *first* precedes its own line, and *others* those of its parts."""
    words = [_type(part), _number(part.size, "octet")]
    if part.name is not None:
        words.insert(1, _name(part))
    if part.disposition is not None:
        words.append(printable(part.disposition, 40))
    if part.content_id is not None:
        words.append(f"cid:{printable(part.content_id, 100)}")
    yield first + ", ".join(words)
    for number, each in enumerate(part.parts, 1):
        last = number == len(part.parts)
        yield from _tree(
            each, others + ("└─ " if last else "├─ "), others + ("   " if last else "│  ")
        )


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _type(part: MessagePart) -> str:
    charset = "" if part.charset is None else f" ({printable(part.charset, 40)})"
    return printable(part.media_type, 100) + charset


def _name(part: MessagePart) -> str:
    return f"'{printable(part.name, 255)}'" if part.name is not None else "no name"


# -- for programs -----------------------------------------------------------------


def _message_json(message: MessagePart) -> dict[str, Any]:
    return {**_part_json(message), "attachments": list(map(_file_json, message.attachments))}


def _file_json(part: MessagePart) -> dict[str, Any]:
    return {"name": part.name, "media_type": part.media_type, "size": part.size}


def _part_json(part: MessagePart) -> dict[str, Any]:
    return {
        "header": [list(field) for field in part.header],
        **_file_json(part),
        "charset": part.charset,
        "disposition": part.disposition,
        "content_id": part.content_id,
        "problems": list(part.problems),
        "parts": [_part_json(each) for each in part.parts],
    }
