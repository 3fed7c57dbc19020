"""Ending leases: by a settlement, because nothing was tried, or because the process died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.queue.ids import id_number, id_text
from twisted_sendmail.queue.sqlite.arriving import put_message
from twisted_sendmail.queue.sqlite.plain_settlement import WHO_WAITS, ended
from twisted_sendmail.queue.sqlite.reading import find

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from twisted_sendmail.queue.models import AttemptRecord, QueuedMessage, RecipientUpdate
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

_STANDING = f"SELECT leased, doomed, recipient.number {WHO_WAITS} WHERE message.number = ?"
_GONE = "DELETE FROM message WHERE number = ?"
_WHO = "WHERE message = ? AND number = ? AND state = 'pending'"
_TRIED = f"UPDATE recipient SET attempts = attempts + 1, tried = ? {_WHO}"  # noqa: S608 - ours
_SAID = f"UPDATE recipient SET reply = ?, status = ?, relay = ? {_WHO}"  # noqa: S608
_STATE = f"UPDATE recipient SET due = ?, state = ? {_WHO}"  # noqa: S608
# When the next of its recipients is due; at once, when the operator wants it gone.
_NEXT = """
    UPDATE message SET due = CASE WHEN expired IS NULL THEN ifnull(
        (SELECT min(due) FROM recipient WHERE message = ? AND state = 'pending'), due)
        ELSE 0.0 END
    WHERE number = ?
"""


def settle(connection: SQLiteConnection, settlement: AttemptRecord) -> QueuedMessage | None:
    """End a lease as *settlement* says; gives what is left of the message.

    What is not leased has been settled already: it stays as it is.

    :raises Damaged: what is left cannot be read.
    """
    number = id_number(settlement.id)
    if number is None:
        return None
    rows = connection.rows(_STANDING, (number,))
    if not rows:
        return None
    leased, doomed, _ = rows[0]
    if not leased:
        return find(connection, number)
    for draft, content in settlement.reports:
        put_message(connection, draft, content)
    left = {row[2] for row in rows} - ended(settlement) - {None}
    if doomed == "doomed" or not (left or settlement.aside):
        connection.execute(_GONE, (number,))
        return None
    for change in settlement.changes:
        _change(connection, number, settlement, change)
    connection.execute(
        "UPDATE message SET leased = 0, attempts = attempts + ?, interrupted = interrupted + ?, "
        "warned = max(warned, ?), aside = ifnull(?, aside), "
        "due = CASE WHEN ? THEN 0.0 ELSE due END WHERE number = ?",
        (
            int(settlement.tried),
            int(settlement.in_doubt),
            int(settlement.warned),
            settlement.aside.value if settlement.aside else None,
            settlement.aside is not None,
            number,
        ),
    )
    connection.execute(_NEXT, (number, number))
    return find(connection, number)


def _change(
    connection: SQLiteConnection, number: int, settlement: AttemptRecord, change: RecipientUpdate
) -> None:
    who = (number, change.number)
    if settlement.tried:
        connection.execute(
            _TRIED,
            (settlement.at, *who),
        )
    if settlement.tried or change.reply is not None or change.status is not None:
        connection.execute(
            _SAID,
            (change.reply, change.status, change.relay, *who),
        )
    # The state last: nothing changes for one who is not pending any more.
    connection.execute(_STATE, (change.due, change.state.value, *who))


def release(connection: SQLiteConnection, ids: Iterable[str]) -> None:
    """End leases of messages that were not tried."""
    for number in map(id_number, ids):
        connection.execute(
            "DELETE FROM message WHERE number = ? AND leased = 1 AND doomed = 'doomed'", (number,)
        )
        connection.execute(
            "UPDATE message SET leased = 0 WHERE number = ? AND leased = 1", (number,)
        )


def end_leases(
    connection: SQLiteConnection, *, interrupted: bool, but: Collection[str] = ()
) -> tuple[str, ...]:
    """End every lease but those of *but*; gives the ids of the messages that are left.

    :param interrupted: nobody saw the end of these tries: a copy may have gone out.
    """
    numbers = [
        number
        for (number,) in connection.rows("SELECT number FROM message WHERE leased = 1")
        if id_text(number) not in but
    ]
    left = []
    for number in numbers:
        if connection.value("SELECT doomed FROM message WHERE number = ?", (number,)) == "doomed":
            connection.execute(_GONE, (number,))
            continue
        connection.execute(
            "UPDATE message SET leased = 0, interrupted = interrupted + ? WHERE number = ?",
            (int(interrupted), number),
        )
        left.append(id_text(number))
    return tuple(left)


def reroute(connection: SQLiteConnection, routes: dict[str, str]) -> None:
    """Rename the routes of messages, all at the same time."""
    if not routes:
        return
    cases = " ".join(["WHEN ? THEN ?"] * len(routes))
    places = ", ".join("?" * len(routes))
    pairs = [name for pair in routes.items() for name in pair]
    connection.execute(
        f"UPDATE message SET route = CASE route {cases} END WHERE route IN ({places})",  # noqa: S608
        (*pairs, *routes),
    )
