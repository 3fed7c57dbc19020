"""The commonest end of a lease by far: everybody has it, and the message goes.

Many of them are written with few statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.queue.ids import id_number
from twisted_sendmail.queue.models import RecipientState
from twisted_sendmail.queue.sqlite.reading import AT_ONCE, filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue.models import AttemptRecord
    from twisted_sendmail.queue.sqlite.connection import SQLiteConnection

_THESE = f"number IN ({', '.join('?' * AT_ONCE)})"
#: A message once for each recipient who is still to get it, but at least once.  A state that
#: is damaged is none of those that end it.
WHO_WAITS = """
    FROM message LEFT JOIN recipient ON recipient.message = message.number
        AND state NOT IN ('delivered', 'failed')
"""
# Of those that are leased, all in one row, for each row is asked for by itself: "number
# recipient" for each who is still to get it, "number " where nobody is.
_LEASED = f"""
    SELECT group_concat(message.number || ' ' || ifnull(recipient.number, ''), ';') {WHO_WAITS}
    WHERE message.{_THESE} AND leased = 1 AND doomed IS NULL
"""
_GONE = f"DELETE FROM message WHERE {_THESE}"  # noqa: S608


def is_plain(settlement: AttemptRecord) -> bool:
    """Can it be one of ``settle_together``?"""
    return not settlement.reports and settlement.aside is None


def settle_together(connection: SQLiteConnection, settlements: Sequence[AttemptRecord]) -> set[str]:
    """Remove the messages that are over by these plain settlements; gives their ids.

    The others are as they were.  Of two settlements of one message the first ends the lease.
    """
    first: dict[int, AttemptRecord] = {}
    for settlement in settlements:
        number = id_number(settlement.id)
        if number is not None:
            first.setdefault(number, settlement)
    numbers = list(first)
    gone: set[str] = set()
    for start in range(0, len(numbers), AT_ONCE):
        over = _over(connection, {n: first[n] for n in numbers[start : start + AT_ONCE]})
        if over:
            connection.execute(_GONE, filled(over))
            gone.update(first[number].id for number in over)
    return gone


def _over(connection: SQLiteConnection, settlements: dict[int, AttemptRecord]) -> list[int]:
    found: str | None = connection.value(_LEASED, filled(list(settlements)))
    if found is None:
        return []
    over = set()
    waiting = set()
    for pair in found.split(";"):
        number, _, recipient = pair.partition(" ")
        over.add(int(number))
        if recipient and recipient not in map(str, ended(settlements[int(number)])):
            waiting.add(int(number))
    return sorted(over - waiting)


def ended(settlement: AttemptRecord) -> set[int]:
    """The numbers of those who are not pending any more."""
    return {c.number for c in settlement.changes if c.state is not RecipientState.PENDING}
