"""A large content on its way to the server: pulled piece by piece, with back-pressure.

A source is asked for a piece when the transport can take it, so that a content of a gigabyte takes
no more memory than one of a megabyte.  After a 354 the pieces are dot-stuffed by the session; with
CHUNKING each piece is a BDAT of its own, and the last one is sent as BDAT LAST.  So the source gives
the size of a chunk: ``message.source``, or the pieces of the queue (``queue.store``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_sendmail.smtp import Bdat, ConnectionClosed, Reply, SendmailError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.smtp import CommandResult

_log = Logger(namespace="twisted_sendmail.client")


class Readable(Protocol):
    """A source of canonical octets."""

    def read(self) -> Awaitable[bytes]:
        """Return the next octets, ``b""`` at the end."""


@implementer(IPushProducer)
class ContentStream:
    """Sends *source* over *protocol*.

    :param done: called once with a list of one: the reply to the content, or a ``SendmailError``,
        or the Failure of *source*.
    :param chunked: by BDAT.
    :param may_end: as of ``CommandGroup``, for BDAT LAST.
    """

    def __init__(
        self,
        protocol: SubmissionProtocol,
        source: Readable,
        done: Callable[[list[Any]], object],
        *,
        chunked: bool,
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        self._protocol = protocol
        self._source = source
        self._done: Callable[[list[Any]], object] | None = done
        self._chunked = chunked
        self._may_end = may_end
        # The piece that may turn out to be the last chunk.
        self._held: bytes | None = None
        # Set while the transport takes no more, and while the protocol does not write.
        self._resumed: Deferred[None] | None = None
        self._written: Deferred[None] | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False
        #: Whether :meth:`start` was called.
        self.started = False

    def start(self) -> None:
        """Begin to read the source."""
        self.started = True
        protocol = self._protocol
        protocol.timer.clear()
        protocol.transport.registerProducer(self, True)
        self._running = running = Deferred.fromCoroutine(self._run())
        _ = running.addBoth(self._ended).addErrback(
            lambda failure: _log.failure("content of {host}", failure, host=protocol.host)
        )

    async def _run(self) -> None:
        while piece := await self._source.read():
            await self._until_writable()
            self._send(piece)
        # The end waits too: its reply is owed from when the server can have it.
        await self._until_writable()

    async def _until_writable(self) -> None:
        if self._protocol.session.next_flight:
            self._written = Deferred()
            await self._written
        if self._resumed is not None:
            await self._resumed
        if self._stopped:
            raise CancelledError

    def _send(self, piece: bytes) -> None:
        protocol = self._protocol
        if not self._chunked:
            protocol.session.content(piece)
        elif self._held is None:
            self._held = piece
            return
        else:
            chunk, self._held = self._held, piece
            _ = protocol.session.send(Bdat(len(chunk)), payload=chunk, done=self._chunk_answered)
        protocol.flush(held=True)

    def _ended(self, result: Any) -> None:
        """The source has ended, or failed, or was stopped."""
        protocol = self._protocol
        self._running = None
        if not protocol.gone:
            protocol.transport.unregisterProducer()
        if self._stopped or self._done is None:
            return
        if isinstance(result, Failure):
            self._source_failed(result)
        elif self._chunked:
            chunk, last = self._held or b"", Bdat(len(self._held or b""), last=True)
            _ = protocol.send(last, payload=chunk, done=self.verdict, may_end=self._may_end)
        else:
            protocol.session.end_content()
            protocol.flush()

    def _source_failed(self, failure: Failure) -> None:
        """End the connection, because an end of the content would deliver half a message."""
        why = ConnectionClosed("content broken off", detail="its source failed")
        self._protocol.session.finish(why)
        # First of all: the answers to earlier commands do not matter any more.
        self.verdict([failure])
        self._protocol.abort()

    def _chunk_answered(self, answers: list[CommandResult]) -> None:
        (answer,) = answers
        if not (isinstance(answer, Reply) and answer.positive):
            self.stop()
            self.verdict(answers)

    def verdict(self, answers: list[Any]) -> None:
        """Pass the result on, unless there is one already."""
        done, self._done = self._done, None
        if done is not None:
            done(answers)

    def session_over(self, why: SendmailError) -> None:
        """The session has ended; between two chunks no reply is owed that says so."""
        self.stop()
        self.verdict([why])

    def flight_written(self) -> None:
        """The protocol has written what waited."""
        written, self._written = self._written, None
        if written is not None:
            written.callback(None)

    def stop(self) -> None:
        """Read the source no further."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The transport takes no more."""
        if self._resumed is None:
            self._resumed = Deferred()
            protocol = self._protocol
            seconds, what = protocol.timeouts.data_block, "the server to take more of the content"
            protocol.await_event(self, seconds, what)

    def resumeProducing(self) -> None:
        """The transport took what it had."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            self._protocol.timer.clear()
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._stopped = True
        self.resumeProducing()
