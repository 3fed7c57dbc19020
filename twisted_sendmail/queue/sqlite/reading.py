"""Reading messages and their content; each row is judged alone, and a bad one put aside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.ids import id_number, id_text
from twisted_sendmail.queue.models import LeasedMessage, QueuedMessage, SetAsideReason
from twisted_sendmail.queue.sqlite.row import (
    MESSAGE,
    RECIPIENT,
    Damaged,
    content_checksum,
    decode,
    decode_damaged,
)
from twisted_sendmail.queue.trouble import MessageDamaged, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

_MESSAGE = f"SELECT {MESSAGE} FROM message WHERE number = ?"  # noqa: S608 - ours, all of it
_RECIPIENTS = f"SELECT {RECIPIENT} FROM recipient WHERE message = ? ORDER BY number"  # noqa: S608
#: Messages in one statement.
AT_ONCE = 16
_THESE = f"IN ({', '.join('?' * AT_ONCE)})"
_MESSAGES_OF = f"SELECT {MESSAGE} FROM message WHERE number {_THESE}"  # noqa: S608
_RECIPIENTS_OF = (
    f"SELECT message, {RECIPIENT} FROM recipient WHERE message {_THESE} ORDER BY message, number"  # noqa: S608
)
_CONTENTS_OF = f"SELECT message, data, checksum FROM content WHERE message {_THESE}"  # noqa: S608
_LEASE = f"UPDATE message SET leased = 1 WHERE number {_THESE}"  # noqa: S608
_READY = "leased = 0 AND held = 0 AND aside IS NULL"
_DUE = (
    f"SELECT number FROM message WHERE route = ? AND (attempts > 0) = ? AND {_READY}"  # noqa: S608
    " AND due {} ? ORDER BY due, number LIMIT ?"
)
_DUE_NOW = _DUE.format("<=")
_DUE_BEYOND = _DUE.format(">")
_NEXT_ROUTE = f"SELECT route FROM message WHERE route > ? AND {_READY} ORDER BY route LIMIT 1"  # noqa: S608
_NEXT_DUE = (
    f"SELECT due FROM message WHERE route = ? AND (attempts > 0) = ? AND {_READY}"  # noqa: S608
    " ORDER BY due LIMIT 1"
)


def find(connection: SQLiteConnection, number: int) -> QueuedMessage | None:
    """The message, or None where there is none.

    :raises Damaged: it is not what was written.
    """
    row = connection.row(_MESSAGE, (number,))
    return None if row is None else decode(row, connection.rows(_RECIPIENTS, (number,)))


def show(connection: SQLiteConnection, number: int) -> QueuedMessage | None:
    """The message as an operator sees it, whether it can be read or not."""
    row = connection.row(_MESSAGE, (number,))
    if row is None:
        return None
    recipients = connection.rows(_RECIPIENTS, (number,))
    try:
        return decode(row, recipients)
    except Damaged:
        return replace(decode_damaged(row, recipients), aside=SetAsideReason.DAMAGED)


def set_aside(connection: SQLiteConnection, number: int) -> None:
    """Keep a damaged message for the operator."""
    connection.execute(
        "UPDATE message SET aside = 'damaged', leased = 0 WHERE number = ?", (number,)
    )


def lease(
    connection: SQLiteConnection,
    due: tuple[str, float, float],
    counts: tuple[int, int],
    damaged: Callable[[str], None],
) -> list[LeasedMessage]:
    """Lease what is due.

    :param due: the route, now, and the horizon.
    :param counts: of untried ones, and of others.
    :param damaged: told of each that cannot be read, which is set aside.
    """
    leased = []
    for tried, count in enumerate(counts):
        numbers = _due(connection, due, tried, count)
        for start in range(0, len(numbers), AT_ONCE):
            leased += _lease_together(connection, numbers[start : start + AT_ONCE], damaged)
    return leased


def _lease_together(
    connection: SQLiteConnection, numbers: list[int], damaged: Callable[[str], None]
) -> list[LeasedMessage]:
    these = filled(numbers)
    rows = {row[0]: row for row in connection.rows(_MESSAGES_OF, these)}
    contents = {row[0]: row[1:] for row in connection.rows(_CONTENTS_OF, these)}
    recipients: dict[int, list[Any]] = {}
    for row in connection.rows(_RECIPIENTS_OF, these):
        recipients.setdefault(row[0], []).append(row[1:])
    leased = []
    for number in numbers:
        row = rows.get(number)
        if row is None:
            continue
        try:
            message = decode((*row[:12], 1, *row[13:]), recipients.get(number, []))
            content = None if row[6] else _whole(contents.get(number), number, message.size)
        except Damaged:
            set_aside(connection, number)
            damaged(id_text(number))
            continue
        leased.append(LeasedMessage(message, content))
    if leased:
        connection.execute(_LEASE, filled([id_number(each.message.id) or 0 for each in leased]))
    return leased


def filled(numbers: list[int]) -> list[int]:
    """As many as a statement for ``AT_ONCE`` messages has room for."""
    return numbers + [-1] * (AT_ONCE - len(numbers))


def _due(
    connection: SQLiteConnection, due: tuple[str, float, float], tried: int, count: int
) -> list[int]:
    route, now, horizon = due
    if count <= 0:
        return []
    found = connection.rows(_DUE_NOW, (route, tried, now, count))
    if len(found) < count:
        found += connection.rows(_DUE_BEYOND, (route, tried, max(now, horizon), count - len(found)))
    return [number for (number,) in found]


def next_due(connection: SQLiteConnection) -> dict[str, float]:
    """For each route that has one, when the next message is due."""
    found: dict[str, float] = {}
    route = connection.value(
        f"SELECT route FROM message WHERE {_READY} ORDER BY route LIMIT 1"  # noqa: S608
    )
    while route is not None:
        times = [connection.value(_NEXT_DUE, (route, tried)) for tried in (0, 1)]
        found[route] = min(time for time in times if time is not None)
        route = connection.value(_NEXT_ROUTE, (route,))
    return found


@dataclass(frozen=True)
class Where:
    """Where a content is."""

    number: int
    #: None: it is in one piece.
    body: int | None
    pieces: int
    size: int


def where(connection: SQLiteConnection, id: str) -> Where:  # noqa: A002 - that is its name
    """Where the content of message *id* is.

    :raises QueueError: there is no such message.
    :raises MessageDamaged: it is not what was written.
    """
    number = id_number(id)
    row = None if number is None else connection.row(_MESSAGE, (number,))
    if number is None or row is None:
        raise QueueError(f"message {id} is not in the queue")
    try:
        message = decode(row, connection.rows(_RECIPIENTS, (number,)))
    except Damaged:
        raise damage(id) from None
    return Where(number, row[6], row[7], message.size)


def piece(connection: SQLiteConnection, at: Where, place: int) -> bytes:
    """One piece of a content.

    :raises MessageDamaged: it is not what was written.
    """
    try:
        if at.body is None:
            return _checked(connection, at.number, at.size)
        row = connection.row(
            "SELECT data, checksum FROM piece WHERE body = ? AND place = ?", (at.body, place)
        )
        return _intact(row, at.body, place)
    except Damaged:
        raise damage(id_text(at.number)) from None


def damage(id: str) -> MessageDamaged:  # noqa: A002 - that is its name
    """What is said of message *id* when it is not what was written."""
    return MessageDamaged(f"message {id} is damaged", detail="it is not what was written")


def _checked(connection: SQLiteConnection, number: int, size: int) -> bytes:
    row = connection.row("SELECT data, checksum FROM content WHERE message = ?", (number,))
    return _whole(row, number, size)


def _whole(row: Sequence[Any] | None, number: int, size: int) -> bytes:
    data = _intact(row, number, 0)
    if len(data) != size:
        raise Damaged
    return data


def _intact(row: Sequence[Any] | None, number: int, place: int) -> bytes:
    if row is None or not isinstance(row[0], bytes):
        raise Damaged
    if content_checksum(number, place, row[0]) != row[1]:
        raise Damaged
    return row[0]
