"""A message given to a mailer, until its result is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_sendmail.smtp import DeliveryReport, RecipientResult, RecipientStatus, SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.client.pooled_connection import PooledConnection
    from twisted_sendmail.message import PreparedMessage

    #: What a job comes to.
    Ending = DeliveryReport | SendmailError | Failure


_NOWHERE: frozenset[int] = frozenset()


class Job:
    """One letter on its way; a subclass says who is told of its end.

    :param letter: it.
    :param since: when it began to wait.
    """

    __slots__ = (
        "all_or_nothing",
        "begun_at",
        "begun_time",
        "carrier",
        "letter",
        "replaced",
        "returned",
        "settled",
        "since",
        "tried",
    )

    def __init__(self, letter: PreparedMessage, *, all_or_nothing: bool, since: float) -> None:
        self.letter = letter
        self.all_or_nothing = all_or_nothing
        self.since = since
        #: Its end is known.
        self.settled = False
        #: It was sent again because a connection that had served before was dead.
        self.replaced = False
        #: How often a connection gave it back unheard.
        self.returned = 0
        #: The servers it cannot go to any more, by their place in the list.
        self.tried = _NOWHERE
        #: The connection it is on, and how many verdicts that had heard before.
        self.carrier: PooledConnection | None = None
        self.begun_at = 0
        #: When a connection took it; None while it waits.
        self.begun_time: float | None = None

    def settle(self, result: Ending) -> None:
        """Tell whoever waits; only the first time counts."""
        if not self.settled:
            self.settled = True
            self.told(result)

    def told(self, result: Ending) -> None:
        """It has ended."""
        raise NotImplementedError

    def report(self, status: RecipientStatus, error: SendmailError) -> DeliveryReport:
        """What is told of it when it is *status* for everybody, because of *error*."""
        letter = self.letter
        outcomes = tuple(RecipientResult(each, status) for each in letter.envelope.recipients)
        return DeliveryReport(
            letter.envelope,
            outcomes,
            size=letter.size or 0,
            error=error,
            message_id=letter.message_id,
        )


class AwaitedJob(Job):
    """A job whose end is awaited.

    :param cancel: what to do when nobody waits for the result any more.
    """

    __slots__ = ("result",)

    def __init__(
        self,
        letter: PreparedMessage,
        *,
        all_or_nothing: bool,
        since: float,
        cancel: Callable[[Job], None],
    ) -> None:
        super().__init__(letter, all_or_nothing=all_or_nothing, since=since)
        #: Fires with the report.
        self.result: Deferred[DeliveryReport] = Deferred(lambda _: cancel(self))

    def told(self, result: Ending) -> None:
        """See ``Job``."""
        if isinstance(result, (SendmailError, Failure)):
            self.result.errback(result)
        else:
            self.result.callback(result)
