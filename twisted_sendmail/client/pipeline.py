"""Messages one after the other over one connection, as close together as is safe.

With DATA nothing is written between the final dot of a message and its reply: two flights
a message.  RFC 2920 allows the next envelope there, but some servers lose it; who knows that
theirs do not can ask for that flight.  With CHUNKING several messages are under way at once,
within a window: less than one flight a message.  Without PIPELINING the session holds back
what may not be sent yet, and this code is the same.

The window is bounded in messages and octets, because every message in it is in doubt
if the connection dies; and in octets over all connections, because they are in memory.

RFC 2920 section 3.1, RFC 3030.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client.delivery import deliver
from twisted_sendmail.client.whole_message import say_whole
from twisted_sendmail.smtp import CommandNotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import DeliveryReport


class Job(Protocol):
    """A message to be sent."""

    letter: PreparedMessage
    all_or_nothing: bool


class Share:
    """How much of what several connections may have under way is for each of them.

    :param octets: what is for all of them.
    """

    __slots__ = ("_all", "octets")

    def __init__(self, octets: int) -> None:
        self._all = octets
        #: What is for each.
        self.octets = octets

    def among(self, connections: int) -> None:
        """There are so many of them now."""
        self.octets = self._all // max(1, connections)


class Pipeline:
    """The messages under way on one connection.

    :param protocol: a session that is ready.
    :param take: gives the next job, or None when there is none now; called again after
        each :meth:`fill`.
    :param done: told a job and its report, or the failure of its source, or None when it
        was not heard at all, and may go over another connection.
    :param emptied: called when no message is under way any more, but not from :meth:`fill`.
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
        done: Callable[[Any, DeliveryReport | Failure | None], None],
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
        # With DATA a second message may have its envelope under way while the first is in
        # doubt; its content waits for the first one's verdict.
        self._depth = depth if chunks else 1 + pipeline_after_data
        self._low = self._depth // 2
        self._speaking: Any = None
        self._filling = False
        #: Messages under way.
        self.inflight = 0
        self._inflight_octets = 0
        #: The server will not begin anew: what it hears next would be held against it.
        self.spoiled = False
        #: Nothing was heard for so long that the connection may be dead.
        self.stale = False

    def fill(self) -> None:
        """Begin as many messages as there are and the window allows."""
        if self._filling:
            return
        self._filling = True
        try:
            with self._protocol.group():
                while self._speaking is None and self._room():
                    job = self._take()
                    if job is None:
                        return
                    self._begin(job)
        finally:
            self._filling = False

    def _room(self) -> bool:
        if self.spoiled or not self._protocol.usable:
            return False
        return not self.inflight or (
            self.inflight < self._depth
            and self._inflight_octets < self._octets
            and self._inflight_octets < self._share.octets
        )

    def _begin(self, job: Any) -> None:
        self.inflight += 1
        size = job.letter.size or self._octets
        self._inflight_octets += size
        self._speaking = job
        eager, self.stale = not self.stale, False
        if eager and not job.all_or_nothing and self._say_whole(job, size):
            return
        sending = Deferred.fromCoroutine(
            deliver(
                self._protocol,
                job.letter,
                all_or_nothing=job.all_or_nothing,
                said=lambda: self._said(job),
                eager=eager,
            )
        )
        _ = sending.addBoth(self._heard, job, size)

    def _say_whole(self, job: Any, size: int) -> bool:
        heard, said = partial(self._heard, job=job, size=size), partial(self._said, job)
        if not say_whole(self._protocol, job.letter, heard, said):
            return False
        if self._protocol.session.capabilities.chunking:
            self._speaking = None
        return True

    def _said(self, job: Any) -> None:
        if self._speaking is job:
            self._speaking = None
            self.fill()

    def _heard(self, result: DeliveryReport | Failure, job: Any, size: int) -> None:
        self.inflight -= 1
        self._inflight_octets -= size
        if self._speaking is job:
            self._speaking = None
        # Before anybody hears of it, and has more to send.
        self._spare()
        unheard = (
            not isinstance(result, Failure)
            and isinstance(result.error, CommandNotAllowed)
            and result.resendable
        )
        if unheard and job.letter.rewindable:
            # Refused for the sake of the message before it, RSET or not: it was never heard.
            self.spoiled = True
            self._done(job, None)
        else:
            self._done(job, result)
        if self.inflight <= self._low:
            self.fill()
        if not self.inflight and not self._filling:
            self._emptied()
