"""Writing messages and their content into the tables; inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.ids import id_number
from twisted_sendmail.queue.models import QueuedMessage, QueuedRecipient
from twisted_sendmail.queue.sqlite.row import content_checksum, encode
from twisted_sendmail.queue.trouble import QueueError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted_sendmail.queue.models import MessageInfo
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

#: Octets of one piece of a large content.
PIECE = 256 * 1024
# Rows in one statement, at the most: each statement gives the interpreter away, and waits
# to have it back, which takes longer than all of its work.
_AT_ONCE = 32


def _inserts(table: str, values: str) -> list[str]:
    """A statement for each number of rows."""
    return [
        f"INSERT INTO {table} VALUES {', '.join([f'({values})'] * count)}"  # noqa: S608 - ours
        for count in range(_AT_ONCE + 1)
    ]


_MESSAGES = _inserts("message", ", ".join("?" * 19))
_RECIPIENTS = _inserts("recipient", "?, ?, ?, ?, ?, 'pending', 0.0, 0, NULL, NULL, NULL, NULL")
_CONTENTS = _inserts("content", "?, ?, ?")


@dataclass(frozen=True)
class Pieces:
    """A content that was written in pieces before its message."""

    #: What they have in common.
    body: int
    count: int
    #: Octets of all of them.
    size: int


def put_messages(
    connection: SQLiteConnection, arrivals: Sequence[tuple[MessageInfo, bytes | Pieces, bool]]
) -> list[QueuedMessage]:
    """Write messages that are due at once: of each its draft, its content, and if it is leased.

    :raises QueueError: there is one of this id, or its content is not complete; where it is
        a single one, nothing was written.
    """
    messages: list[tuple[Any, ...]] = []
    recipients: list[tuple[Any, ...]] = []
    contents: list[tuple[Any, ...]] = []
    for draft, content, leased in arrivals:
        number = id_number(draft.id)
        if number is None:
            raise _refusal(draft.id, "it is no id of ours")
        if isinstance(content, Pieces):
            _check_pieces(connection, content)
            fixed, given = encode(draft, number, content.size, content.body, content.count)
        else:
            fixed, given = encode(draft, number, len(content), None, 0)
            contents.append((number, content, content_checksum(number, 0, content)))
        standing = (draft.route, 0.0, 0, int(leased), int(draft.held), None, None, 0, 0, None)
        messages.append(fixed + standing)
        recipients += [(number, *row) for row in given]
    try:
        _insert(connection, _MESSAGES, messages)
    except sqlite3.IntegrityError as e:
        raise _refusal(arrivals[0][0].id, str(e)) from None
    _insert(connection, _RECIPIENTS, recipients)
    _insert(connection, _CONTENTS, contents)
    return [_queued(*arrival) for arrival in arrivals]


def put_message(
    connection: SQLiteConnection,
    draft: MessageInfo,
    content: bytes | Pieces,
    *,
    leased: bool = False,
) -> QueuedMessage:
    """Write one of them."""
    return put_messages(connection, [(draft, content, leased)])[0]


def _queued(draft: MessageInfo, content: bytes | Pieces, leased: bool) -> QueuedMessage:  # noqa: FBT001
    return QueuedMessage(
        draft,
        size=content.size if isinstance(content, Pieces) else len(content),
        recipients=tuple(
            [QueuedRecipient(n, recipient) for n, recipient in enumerate(draft.envelope.recipients)]
        ),
        leased=leased,
        held=draft.held,
    )


def _insert(
    connection: SQLiteConnection, statements: list[str], rows: list[tuple[Any, ...]]
) -> None:
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        connection.execute(statements[len(some)], [value for row in some for value in row])


def _refusal(id: str, why: str) -> QueueError:  # noqa: A002 - that is its name
    refusal = QueueError(f"message {id} cannot be queued", detail=why)
    # Its id is in its header: it will be the same at any other time.
    refusal.temporary = False
    return refusal


def _check_pieces(connection: SQLiteConnection, content: Pieces) -> None:
    found = connection.row(
        "SELECT count(*), ifnull(sum(length(data)), 0) FROM piece WHERE body = ?", (content.body,)
    )
    if found != (content.count, content.size):
        raise QueueError("the queue lost a part of a message", detail=f"{content} became {found}")


def put_piece(connection: SQLiteConnection, body: int, place: int, data: bytes) -> None:
    """Write one piece of a content whose message is still to come."""
    connection.execute(
        "INSERT INTO piece VALUES (?, ?, ?, ?)",
        (body, place, data, content_checksum(body, place, data)),
    )


def throw_away_orphans(connection: SQLiteConnection, older_than: int) -> None:
    """Mark the bodies below *older_than* that no message has as rubbish."""
    for body in list(_bodies(connection, older_than)):
        if not _has_message(connection, body):
            connection.execute("INSERT OR IGNORE INTO rubbish VALUES (?)", (body,))


def rubbish(connection: SQLiteConnection) -> list[int]:
    """The bodies to be removed."""
    return [body for (body,) in connection.rows("SELECT body FROM rubbish")]


def _has_message(connection: SQLiteConnection, body: int) -> bool:
    return connection.value("SELECT 1 FROM message WHERE body = ?", (body,)) is not None


def _bodies(connection: SQLiteConnection, below: int) -> Iterator[int]:
    body = -1
    while True:
        # One seek for each body, not one for each piece.
        following = connection.value(
            "SELECT body FROM piece WHERE body > ? AND body < ? ORDER BY body LIMIT 1",
            (body, below),
        )
        if following is None:
            return
        yield following
        body = following


def sweep(connection: SQLiteConnection, body: int, most: int) -> bool:
    """Remove at most *most* pieces of *body*; True when none is left, or a message has them.

    A large content goes little by little, so that nobody waits long for his turn.
    """
    if _has_message(connection, body):
        return True
    stays = connection.value(
        "SELECT place FROM piece WHERE body = ? ORDER BY place LIMIT 1 OFFSET ?", (body, most)
    )
    if stays is not None:
        connection.execute("DELETE FROM piece WHERE body = ? AND place < ?", (body, stays))
        return False
    connection.execute("DELETE FROM piece WHERE body = ?", (body,))
    connection.execute("DELETE FROM rubbish WHERE body = ?", (body,))
    return True
