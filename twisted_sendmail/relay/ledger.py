"""Writing down how a try ended.

Until that is durable the message counts as under way: it is not tried again, and takes
the room of another.  The spool repeats what it cannot write; so a full disk slows the
relay down, and makes no second copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from twisted_sendmail.queue import AttemptRecord, QueuedMessage, RecipientState
from twisted_sendmail.relay.events import Event, Removed, Trouble
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue
    from twisted_sendmail.relay.conclusion import Fate
    from twisted_sendmail.relay.events import Observer


class Ending(NamedTuple):
    """The end of a try."""

    settlement: AttemptRecord
    fates: Sequence[Fate]
    #: What is told when it is durable.
    events: Sequence[Event] = ()


class Ledger:
    """See the module.

    :param ended: told of each end that is durable: where the recipients stand, and what
        is left of the message.
    """

    def __init__(
        self,
        spool: Queue,
        *,
        tell: Observer,
        ended: Callable[[str, Sequence[Fate], QueuedMessage | None], None],
    ) -> None:
        self._spool = spool
        self._tell = tell
        self._ended = ended

    def write(
        self,
        message: QueuedMessage,
        ending: Ending,
        done: Callable[[QueuedMessage | None], None],
    ) -> None:
        """Write *ending* down, then call *done* with what is left of *message*.

        It is also called, with None, when that could not be done.
        """
        _ = self._spool.settle(ending.settlement).addCallbacks(
            self._written, self._unwritten, (message, ending, done), {}, (ending, done), {}
        )

    def _written(
        self,
        left: QueuedMessage | None,
        message: QueuedMessage,
        ending: Ending,
        done: Callable[[QueuedMessage | None], None],
    ) -> None:
        try:
            for event in ending.events:
                self._tell(event)
            if left is None:
                self._tell(Removed(message.id, _at_once(message, ending.fates)))
            self._ended(message.id, ending.fates, left)
        except Exception as error:  # noqa: BLE001 - a fault of this code, behind the commit
            self._tell(Trouble(f"{message.id} stumbled", printable(str(error))))
            left = None
        done(left)

    def _unwritten(
        self, failure: Failure, ending: Ending, done: Callable[[QueuedMessage | None], None]
    ) -> None:
        """It keeps its lease, and is not tried, until the next start, which names it."""
        what = f"the end of {ending.settlement.id} could not be written down"
        self._tell(Trouble(what, printable(str(failure.value))))
        done(None)


def _at_once(message: QueuedMessage, fates: Sequence[Fate]) -> bool:
    """Did everybody get it at its first try?"""
    if message.attempts or len(fates) != len(message.recipients):
        return False
    for fate in fates:  # noqa: SIM110 - a generator is slower, for one or two
        if fate.state is not RecipientState.DELIVERED:
            return False
    return True
