"""A client session on a transport: bytes, Deferreds, timers, TLS.

The half of the protocol that knows no command.  It owns the transport, fires the
Deferreds and keeps the time; what may be said and what a reply means is
``smtp.client_session``'s, the commands are ``protocol``'s.

State first, Deferreds last: a callback may give the next command, and what several
callbacks give goes out in one write.

RFC 5321 section 4.5.3.2 (timeouts), RFC 3207, RFC 8314.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_sendmail.client.content_producer import ContentProducer, Readable
from twisted_sendmail.client.holding import Holding
from twisted_sendmail.client.peer_name import peer_name
from twisted_sendmail.client.phase_timer import PhaseTimer
from twisted_sendmail.client.settling import Settling
from twisted_sendmail.client.socket_state import SocketState
from twisted_sendmail.client.timeouts import Timeouts
from twisted_sendmail.client.tls_layer import start_tls
from twisted_sendmail.smtp import ClientSession, ConnectionClosed, DeliveryCancelled, SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime, ITransport

    from twisted_sendmail.client.tls import ServerJudge
    from twisted_sendmail.smtp import Command, DeliveryReport, Reply, TLSFacts, Transcript


class Cancelled(DeliveryCancelled, CancelledError):
    """The caller cancelled a Deferred; the connection is closed."""

    #: From ``many`` and ``send_many``: the reports of the messages that were begun.
    reports: tuple[DeliveryReport, ...] = ()

    def _known(self) -> tuple[DeliveryReport, ...]:
        return (*super()._known(), *self.reports)


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One session, its transport and its Deferreds.

    :param clock: for the timeouts.
    :param timeouts: how long each phase may take.
    :param server_name: how to call the server in errors.
    :param transcript: where the dialogue is noted.
    """

    log = Logger(namespace="twisted_sendmail.client")
    #: The message that spoke last: it leaves the session ready for the next.
    speaker: object = None

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts | None = None,
        server_name: str = "",
        transcript: Transcript | None = None,
    ) -> None:
        #: Runs the timeouts; with threads, it runs what takes long too.
        self.clock = clock
        self._timeouts = timeouts or Timeouts()
        self._name = server_name
        #: Fires with the greeting.
        self.greeting: Deferred[Reply] = self._deferred()
        #: The machine: state, capabilities, transcript.
        self.session = ClientSession(self.greeting, transcript)
        #: The TLS session, once its handshake is complete.
        self.tls: TLSFacts | None = None
        self._judge: ServerJudge | None = None
        self._handshake: Deferred[TLSFacts] | None = None
        self._layer: Any = None
        self._settling = Settling(clock)
        self._group = Holding(self._flush)
        self._timer = PhaseTimer(clock, self.abort)
        self._lost: list[Deferred[None]] = []
        self._ending = self._ended = False
        self._dropped = False
        self._producing: Deferred[None] | None = None
        # The verdict on a content whose end was not given yet.
        self._unfinished: Deferred[Reply] | None = None
        self._peer = ""

    def group(self) -> Holding:
        """Write what is commanded inside in one go, as far as the session allows."""
        return self._group

    def start_tls(self, judge: ServerJudge) -> Deferred[TLSFacts]:
        """Start TLS now: after a granted STARTTLS, or at once for implicit TLS (RFC 8314).

        Fires with the facts of the session.

        :raises TLSError: when the handshake fails or the certificate is rejected.
        """
        self._judge = judge
        self._handshake = self._deferred()
        self.session.begin_tls()
        self._timer.set(self._handshake, self._timeouts.tls, "the end of the TLS handshake", "TLS")
        self._layer = start_tls(self, judge, self.clock)
        self._settling.socket.push()
        self._settling.socket.under(self._layer)
        return self._handshake

    @property
    def host(self) -> str:
        """``name[address]:port`` of the server."""
        return self._peer or self._name

    @property
    def presented(self) -> TLSFacts | None:
        """What the server showed in the handshake, be it accepted or not: to show, not to act on."""
        return None if self._judge is None else self._judge.presented()

    def keep_tls_session(self) -> None:
        """Let the next connection to this server resume the TLS session; call it when ready."""
        if self._judge is not None:
            self._judge.keep()

    @property
    def usable(self) -> bool:
        """Is the connection good for another command?"""
        session = self.session
        return not self._ended and session.over is None and session.closing is None

    def lost(self) -> Deferred[None]:
        """Fires when the connection is gone, whyever; cancelling it changes nothing."""
        waiter: Deferred[None] = Deferred(
            lambda d: self._lost.remove(d) if d in self._lost else None
        )
        if self._ended:
            waiter.callback(None)
        else:
            self._lost.append(waiter)
        return waiter

    async def settled(self) -> None:
        """Wait until all is read that had come: a reply found while none is owed ends the session."""
        if not self._settling.quiet:
            await self._settling.settled()

    def _close(self) -> None:
        """Close the connection; drop it if that takes too long."""
        if self._ended or self._dropped:
            return
        self._ending = True
        self._timer.set(self._lost, self._timeouts.quit, "the end of the connection")
        cast("ITransport", self.transport).loseConnection()

    def abort(self, why: SendmailError | None = None) -> None:
        """Drop the connection at once; every Deferred still waiting fails with *why*."""
        self.session.finish(why or ConnectionClosed("connection dropped"))
        self._dispatch()

    # -- IProtocol, IHandshakeListener -----------------------------------------------

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self._settling.socket = SocketState(self.transport)
        self._peer = peer_name(self._name, cast("ITransport", self.transport))
        self._retime()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        if self._handshake is None:
            self._received(data)
        else:
            # What TLS says to end its handshake goes out with what we say behind it.
            self._settling.socket.flight(self._received, data)

    def _received(self, data: bytes) -> None:
        with self._group:
            if self._layer is None:
                self.decrypted(data)
            else:
                self._settling.read(self._layer.dataReceived, data)
            # When all of it was read: several records are answered in one flight.
            self._dispatch()

    def decrypted(self, data: bytes) -> None:
        """Octets from the server, out of whatever layer there is."""
        # None can come from a TLS layer that has not shaken hands.
        if self._handshake is None:
            self.session.receive(data)

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``."""
        waiting, self._handshake = self._handshake, None
        if waiting is None or self._judge is None:
            return
        self._timer.pause()
        try:
            self.tls = facts = self._judge.facts()
        except SendmailError as error:
            self._handshake = waiting
            self.abort(error)
            return
        self.session.tls_begun(f"TLS: {facts}")
        with self._group:
            # A handshake does not change whose turn it is: the greeting may be owed.
            self._retime()
            waiting.callback(facts)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if self._layer is not None:
            self._layer.connectionLost(reason)
        else:
            self.connection_ended(reason)

    def connection_ended(self, reason: Failure | None) -> None:
        """The transport is gone, and whatever layer there was."""
        if self._ended:
            return
        self._ended = True
        error: SendmailError = (
            ConnectionClosed("connection closed")
            if self._ending
            else ConnectionClosed(
                "connection lost", detail="the server closed it, or the network did"
            )
        )
        if self._handshake is not None and self._judge is not None and reason is not None:
            error = self._judge.failure(reason)
        self.session.finish(error, by_server=True)
        self._dispatch()
        if self._judge is not None:
            self._judge.release()
        for lost in self._lost[:]:
            lost.callback(None)
        self._lost.clear()
        # Of what holds on to us: it is much, and must not wait for the garbage collector.
        self._timer.let_go()
        self._group.let_go()
        self._settling.socket.let_go()
        self.speaker = None

    # -- inside ------------------------------------------------------------------

    def _deferred(self) -> Deferred[Any]:
        return Deferred(self._cancel)

    def _cancel(self, waiting: Deferred[Any]) -> None:
        if self.session.withdraw(waiting):
            return
        self.abort(Cancelled("cancelled"))

    def _send(
        self, command: Command, payload: bytes = b"", *, flush: bool = True
    ) -> Deferred[Reply]:
        waiting: Deferred[Reply] = self._deferred()
        self.session.send(command, waiting, payload)
        if flush:
            self._flush()
        return waiting

    def _flush(self) -> None:
        if not self._group.depth:
            self._transmit()

    def _transmit(self) -> None:
        data = self.session.data_to_send()
        if data:
            socket = self._settling.socket
            write = socket.fly if self._producing is None else socket.write
            write(data, self.transport.write)  # type: ignore[union-attr]  # there is one
        self._retime()
        if self.session.events:
            self._dispatch()

    def _dispatch(self) -> None:
        """Fire the Deferreds of what has been decided; the session has moved on already."""
        events = self.session.events
        while True:
            if self.session.over is not None:
                self._drop(self.session.over)
            if not events:
                break
            event = events.popleft()
            waiting: Any = event.tag
            if waiting is None or waiting.called:
                continue
            result = event.result
            if isinstance(result, SendmailError):
                waiting.errback(result.at(host=self.host, tls=self.tls))
            else:
                waiting.callback(result)

        unfinished = self._unfinished
        if self.session.over is not None and unfinished is not None:
            # Between two chunks nothing is owed, and no event tells of the end.
            self._unfinished = None
            if not unfinished.called:
                unfinished.errback(self.session.over.at(host=self.host, tls=self.tls))

    def _drop(self, why: SendmailError) -> None:
        """The session is over: so are the transport, the timer, the content and the handshake."""
        self._timer.stop()
        if not self._dropped:
            self._dropped = True
            if not self._ended and self.transport is not None:
                abort = getattr(self.transport, "abortConnection", None)
                (abort or self.transport.loseConnection)()
        self._stop_producing()
        handshake, self._handshake = self._handshake, None
        if handshake is not None and not handshake.called:
            handshake.errback(why.at(host=self.host, transcript=self.session.transcript))

    # -- content -----------------------------------------------------------------

    def _produce(
        self,
        source: Readable,
        verdict: Deferred[Reply],
        write: Callable[[bytes], None],
        finish: Callable[[], None],
    ) -> None:
        """Pull *source* into *write* with back-pressure, then call *finish*."""
        transport = cast("Any", self.transport)

        def paused(full: bool) -> None:  # noqa: FBT001 - a callback with one argument
            if full:
                self._timer.set(
                    verdict, self._timeouts.data_block, "the server to take more of the content"
                )
            else:
                self._timer.pause()

        self._unfinished = verdict
        producer = ContentProducer(source, write, paused)
        self._timer.pause()
        transport.registerProducer(producer, True)
        self._producing = running = Deferred.fromCoroutine(producer.run())

        def done(result: Any) -> None:
            stopped, self._producing = self._producing is not running, None
            if not self._ended:
                transport.unregisterProducer()
            if not isinstance(result, Failure):
                self._unfinished = None
                with self.group():
                    finish()
            elif stopped or producer.stopped:
                pass  # nobody wants more of it; if the transport is gone, it is about to say why
            elif self.session.over is None and not verdict.called:
                self._source_failed(result, verdict)

        _ = running.addBoth(done).addErrback(
            lambda failure: self.log.failure("content of {host}", failure, host=self.host)
        )

    def _stop_producing(self) -> None:
        """Nobody wants more of the content: that is no failure of its source."""
        producing, self._producing = self._producing, None
        if producing is not None:
            producing.cancel()

    def _source_failed(self, failure: Failure, verdict: Deferred[Reply]) -> None:
        """The source broke off: so must the connection, for an end would deliver half a message."""
        self._unfinished = None
        why = ConnectionClosed("content broken off", detail="its source failed")
        self.session.finish(why)
        self._drop(why)
        # First of all: the answers to what was said before are of no interest.
        verdict.errback(failure)
        self._dispatch()

    # -- time --------------------------------------------------------------------

    def _retime(self) -> None:
        """One deadline for the reply owed next; parts of a reply do not move it."""
        if self._handshake is not None or self.session.content_open or self._ending:
            return
        turn = self.session.turn
        if turn == self._timer.of:
            return
        verb = self.session.owed_verb
        if verb is None:
            self._timer.pause()
        else:
            of = self._timeouts.of(verb)
            self._timer.set(turn, of, lambda: f"the reply to {self.session.owed}")
