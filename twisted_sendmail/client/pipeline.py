"""Messages one after the other over one connection, as close together as is safe.

With DATA nothing is written between the final dot of a message and its reply: two flights a
message.  RFC 2920 allows the next envelope there, but some servers lose it; that flight is an
option.  With CHUNKING several messages are in flight at once, within a window: less than one
flight a message.  Without PIPELINING the session holds back what may not be written yet, and this
module is the same.

The window is bounded in messages and octets, because every message in it is in doubt if the
connection dies; and in octets over all connections, because they are in memory.

RFC 2920 section 3.1, RFC 3030.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

from twisted_sendmail.client.transaction import Transaction
from twisted_sendmail.smtp import CommandNotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import DeliveryReport


class Sendable(Protocol):
    """A message to be sent."""

    message: PreparedMessage
    all_or_nothing: bool

    def begin_transaction(self, limits: Mapping[str, int]) -> bool:
        """Choose the recipients that ``message`` is for; return whether others are left."""


class Share:
    """How many octets each of several connections may have in flight.

    :param octets: those of all connections together.
    """

    __slots__ = ("_all", "octets")

    def __init__(self, octets: int) -> None:
        self._all = octets
        #: Those of each.
        self.octets = octets

    def among(self, connections: int) -> None:
        """Share among so many connections."""
        self.octets = self._all // max(1, connections)


class Pipeline:
    """The messages in flight on one connection.

    :param protocol: a session that is ready.
    :param take: returns the next job, or None when there is none now; called again after
        each :meth:`fill`.
    :param done: called with a job and the report of a transaction, or the failure of its source, or
        None when the message was not sent at all, and may go over another connection; returns
        whether another transaction of the job has to follow.
    :param emptied: called when no message is in flight any more, but not from :meth:`fill`.
    :param spare: called when there is room for more; :meth:`fill` may follow.
    :param depth: messages in doubt at once, at most.
    :param octets: octets in doubt at once; a larger message goes alone.
    :param share: the same, as far as there are other connections too.
    :param pipeline_after_data: with DATA, let the next envelope follow the final dot at once.
    """

    def __init__(
        self,
        protocol: SubmissionProtocol,
        take: Callable[[], Any],
        done: Callable[[Any, DeliveryReport | Failure | None], bool],
        emptied: Callable[[], None],
        spare: Callable[[], None],
        *,
        depth: int,
        octets: int,
        share: Share,
        pipeline_after_data: bool = False,
    ) -> None:
        self._protocol = protocol
        self._take = take
        self._done = done
        self._emptied = emptied
        self._spare = spare
        self._octets = octets
        self._share = share
        offered = protocol.session.capabilities
        chunks = offered.chunking and offered.pipelining
        protocol.session.pipelines_after_data = pipeline_after_data
        # With DATA a second message may have its envelope in flight while the first is in
        # doubt; its content waits for the first one's verdict.
        self._limits = offered.limits
        #: The number of transactions that the server's MAILMAX still allows.
        self.transactions_left = self._limits.get("MAILMAX", math.inf)
        self._depth = depth if chunks else 1 + pipeline_after_data
        self._low = self._depth // 2
        # The job whose commands are not all queued yet: no other may begin.
        self._current: Any = None
        self._filling = False
        #: Messages in flight.
        self.inflight = 0
        self._inflight_octets = 0
        #: The server refused a message because of another: send nothing more over this connection.
        self.rejected_pipelining = False
        #: Nothing was received for so long that the connection may be dead.
        self.stale = False

    def fill(self) -> None:
        """Begin as many messages as there are and the window allows."""
        if self._filling:
            return
        self._filling = True
        self._protocol.hold()
        try:
            while self._current is None and self._room():
                job = self._take()
                if job is None:
                    return
                self._begin(job)
        finally:
            self._protocol.release()
            self._filling = False

    def _room(self) -> bool:
        if self.rejected_pipelining or not self._protocol.usable:
            return False
        return not self.inflight or (
            self.inflight < self._depth
            and self._inflight_octets < self._octets
            and self._inflight_octets < self._share.octets
        )

    def _begin(self, job: Sendable) -> None:
        self.inflight += 1
        self.transactions_left -= 1
        more = job.begin_transaction(self._limits)
        size = job.message.size or self._octets
        self._inflight_octets += size
        self._current = job
        send_content_early, self.stale = not self.stale, False
        transaction = Transaction(
            self._protocol,
            job.message,
            partial(self._ended, job, size),
            queued=None if more else partial(self._queued, job),
            all_or_nothing=job.all_or_nothing,
            send_content_early=send_content_early,
        )
        transaction.begin()

    def _queued(self, job: Sendable) -> None:
        if self._current is job:
            self._current = None
            self.fill()

    def _ended(self, job: Sendable, size: int, result: DeliveryReport | Failure) -> None:
        self.inflight -= 1
        self._inflight_octets -= size
        if self._current is job:
            self._current = None
        # Before the job's owner is told, and may have more to send.
        self._spare()
        not_sent = (
            not isinstance(result, Failure)
            and isinstance(result.error, CommandNotAllowed)
            and result.resendable
        )
        if not_sent and job.message.rewindable:
            # Refused because of the message before it, RSET or not.
            self.rejected_pipelining = True
            _ = self._done(job, None)
        elif self._done(job, result):
            self._begin(job)
            return
        if self.inflight <= self._low:
            self.fill()
        if not self.inflight and not self._filling:
            self._emptied()
