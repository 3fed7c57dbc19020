"""What an operator may ask and do, whether the relay runs or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.ids import id_number, id_text
from twisted_sendmail.queue.models import QueueAction, QueueActionResult, QueuedMessage, QueueTotals
from twisted_sendmail.queue.sqlite.reading import show

if TYPE_CHECKING:
    from twisted_sendmail.queue.models import Selection
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

# Somebody was tried, or stood behind a route that was: ``QueuedMessage.deferred``.
_DEFERRED = (
    "attempts > 0 OR EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.number "
    "AND r.status IS NOT NULL)"
)
#: ``QueuedMessage.queue_name``.
_QUEUE = (
    "CASE WHEN aside IS NOT NULL THEN 'corrupt' WHEN held = 1 THEN 'hold' "
    f"WHEN leased = 1 THEN 'active' WHEN {_DEFERRED} THEN 'deferred' ELSE 'incoming' END"
)
#: Ids in one question.
_AT_ONCE = 500
# Whom a message is still for: not those who have it.
_RECIPIENT = (
    "EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.number "
    "AND r.state <> 'delivered' AND fits(?, r.address))"
)
# What may be removed when it was kept long enough: its ``due`` is how long that has been.
_UNDELIVERABLE = "aside = 'undeliverable' AND held = 0"
#: More seconds than it is kept: a time, of a store that did not count them.
_NO_AGE = 1e9
#: Messages removed together, so that new mail does not wait for it.
_CLEARED = 100
_PENDING_NOW = "UPDATE recipient SET due = min(due, ?) WHERE message = ? AND state = 'pending'"


def selected(
    connection: SQLiteConnection, selection: Selection, *, after: int = -1, most: int | None = None
) -> list[int]:
    """The numbers of the messages that fit, the oldest first.

    :param after: only those behind this one.
    :param most: at most so many, beside the limit of the selection.
    """
    limits = [limit for limit in (selection.limit, most) if limit is not None]
    limit = max(0, min(limits)) if limits else -1
    if not selection.ids:
        return _selected(connection, selection, "number > ?", (after,), limit)
    numbers = sorted({n for n in map(id_number, selection.ids) if n is not None and n > after})
    found: list[int] = []
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        clause = f"number IN ({', '.join('?' * len(some))})"
        left = limit if limit < 0 else limit - len(found)
        found += _selected(connection, selection, clause, tuple(some), left)
    return found


def _selected(
    connection: SQLiteConnection,
    selection: Selection,
    clause: str,
    values: tuple[Any, ...],
    limit: int,
) -> list[int]:
    clauses, parameters = [clause], [*values]
    for given, condition in (
        (selection.queue, f"{_QUEUE} = ?"),
        (selection.route, "route = ?"),
        (selection.sender, "fits(?, sender)" if selection.sender else "sender = ?"),
        (selection.recipient, _RECIPIENT),
    ):
        if given is not None:
            clauses.append(condition)
            parameters.append(given)
    rows = connection.rows(
        f"SELECT number FROM message WHERE {' AND '.join(clauses)} ORDER BY number LIMIT ?",  # noqa: S608
        (*parameters, limit),
    )
    return [number for (number,) in rows]


def listed(
    connection: SQLiteConnection, selection: Selection, *, after: int = -1, most: int | None = None
) -> list[QueuedMessage]:
    """The messages that fit, the oldest first; those that cannot be read as far as they can."""
    numbers = selected(connection, selection, after=after, most=most)
    return [message for n in numbers if (message := show(connection, n)) is not None]


def act(
    connection: SQLiteConnection, action: QueueAction, selection: Selection, now: float
) -> list[QueueActionResult]:
    """Do *action* to what fits; gives those to which it was done."""
    acted = []
    for number in selected(connection, selection):
        leased, held, aside = connection.row(
            "SELECT leased, held, aside FROM message WHERE number = ?", (number,)
        )
        if _do(connection, action, number, now, (leased, held, aside)):
            acted.append(QueueActionResult(id_text(number), on_its_way=leased == 1))
    return acted


def _do(
    connection: SQLiteConnection,
    action: QueueAction,
    number: int,
    now: float,
    standing: tuple[int, int, str | None],
) -> bool:
    leased, held, aside = standing
    if action is QueueAction.DELETE:
        if leased == 1:
            connection.execute("UPDATE message SET doomed = 'doomed' WHERE number = ?", (number,))
        else:
            connection.execute("DELETE FROM message WHERE number = ?", (number,))
        return True
    if action is QueueAction.REQUEUE and aside != "damaged":
        _requeue(connection, number, undeliverable=aside is not None)
        return True
    # What was set aside is not tried, and nobody is told of it: nothing else can be done.
    if aside is not None or (action is QueueAction.RELEASE and not held):
        return False
    if action is QueueAction.FLUSH:
        connection.execute(_PENDING_NOW, (now, number))
        connection.execute("UPDATE message SET due = min(due, ?) WHERE number = ?", (now, number))
    elif action in {QueueAction.HOLD, QueueAction.RELEASE}:
        hold = int(action is QueueAction.HOLD)
        connection.execute("UPDATE message SET held = ? WHERE number = ?", (hold, number))
    elif action is QueueAction.EXPIRE:
        connection.execute(
            "UPDATE message SET expired = 'expired', held = 0, due = 0.0 WHERE number = ?",
            (number,),
        )
    return True


def _requeue(connection: SQLiteConnection, number: int, *, undeliverable: bool) -> None:
    if undeliverable:
        # They failed, and nobody was told.
        connection.execute(
            "UPDATE recipient SET state = 'pending' WHERE message = ? AND state = 'failed'",
            (number,),
        )
    connection.execute(
        "UPDATE recipient SET due = 0.0, attempts = 0, reply = NULL, status = NULL, relay = NULL "
        "WHERE message = ? AND state = 'pending'",
        (number,),
    )
    connection.execute(
        "UPDATE message SET due = 0.0, attempts = 0, expired = NULL, warned = 0, aside = NULL "
        "WHERE number = ?",
        (number,),
    )


def clear_aside(connection: SQLiteConnection, passed: float, keep: float) -> list[str]:
    """See ``Spool.clear_aside``."""
    if passed > 0:
        connection.execute(
            f"UPDATE message SET due = CASE WHEN due < ? THEN due + ? ELSE 0.0 END WHERE {_UNDELIVERABLE}",  # noqa: S608
            (_NO_AGE, passed),
        )
    rows = connection.rows(
        f"SELECT number FROM message WHERE {_UNDELIVERABLE} AND due >= ? AND due < ? ORDER BY number LIMIT ?",  # noqa: S608
        (keep, _NO_AGE, _CLEARED),
    )
    for row in rows:
        connection.execute("DELETE FROM message WHERE number = ?", row)
    return [id_text(number) for (number,) in rows]


def totals(connection: SQLiteConnection) -> QueueTotals:
    """The queue in numbers."""
    queues = connection.rows(f"SELECT {_QUEUE}, count(*) FROM message GROUP BY 1")  # noqa: S608
    deferred = connection.rows(
        "SELECT ifnull(status, ''), count(*) FROM recipient "
        "WHERE state = 'pending' AND (attempts > 0 OR status IS NOT NULL) GROUP BY 1"
    )
    oldest, octets = connection.row(
        "SELECT min(CASE WHEN aside IS NULL THEN arrived END), ifnull(sum(size), 0) FROM message"
    )
    return QueueTotals(queues=dict(queues), deferred=dict(deferred), oldest=oldest, octets=octets)
