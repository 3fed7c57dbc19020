r"""The SMTP client protocol: one connection, driven by groups of commands or by Deferreds.

**Theory of operation.**

:class:`SubmissionProtocol` joins three things: a transport, a TLS layer on top of the transport
once TLS has begun (``tls_transport``), and a :class:`~twisted_sendmail.smtp.client.ClientSession`, which
holds the state and decides what may be written.  It owns the timers and nothing else.

**In.**  ``dataReceived`` passes the bytes of one read through TLS, if there is TLS, into the
session.  When the whole read has been taken in, and only then, the owners of the groups that are
complete are called.  So a callback is called in the final state, and may give the next command.

**Out.**  :meth:`SubmissionProtocol.send` queues a group of commands in the session, and
:meth:`~SubmissionProtocol.flush` writes all that may be written, in one piece: everything that is
given in one read, in one callback or inside :meth:`~SubmissionProtocol.group` is one write.  The
socket takes the bytes at once, and the reactor writes only what the socket does not take.

**Deferreds.**  ``ehlo()``, ``mail()``, ``data()`` and the other methods send a group of one and
make a Deferred of its reply.  ``transaction`` sends larger groups with a plain callback; both use
the same queue and may be mixed::

    protocol = await connectProtocol(endpoint, SubmissionProtocol(reactor))
    await protocol.greeting
    await protocol.ehlo("client.example.org")
    with protocol.group():
        replies = [protocol.mail("a@example.org"), protocol.rcpt("b@example.net"), protocol.data()]
    ...
    await protocol.content(b"Subject: hello\r\n\r\nhello\r\n")
    await protocol.quit()

**Invariants.**

- Refusals are results.  A Deferred fails when the connection is lost, at a timeout, at a breach of
  protocol and when it is cancelled; each Deferred fires exactly once.
- A command is not written after input that was not read: when no reply is owed, the next command
  waits until the transport has been read to its end.  Any reply found there ends the session,
  instead of passing for the reply to that command.
- Nothing received before a TLS handshake reaches the session after it.
- One deadline holds for the reply that is owed first; parts of a reply do not move it.

RFC 5321 sections 4.1 and 4.5.3.2, RFC 3207 (STARTTLS), RFC 8314, RFC 4954, RFC 3030 (BDAT).
"""

from __future__ import annotations

import socket
import typing
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_sendmail.client.timeouts import Cancelled, Timeouts
from twisted_sendmail.client.tls import words_of_openssl
from twisted_sendmail.client.tls_transport import TLSTransport
from twisted_sendmail.smtp import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    ClientSession,
    ClientState,
    Command,
    CommandGroup,
    CommandNotAllowed,
    ConnectionClosed,
    ContentCommand,
    Data,
    Hello,
    LoneDot,
    Mail,
    Noop,
    OtherCommand,
    Quit,
    Rcpt,
    Reply,
    RestartCommand,
    Rset,
    SendmailError,
    SendTimeout,
    StartTLS,
    TLSFailure,
    Verb,
    check_reactor,
    check_type,
    due_reply,
    printable,
)
from twisted_sendmail.socket_writer import SocketWriter
from twisted_sendmail.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_sendmail.client.server_config import SubmissionServer
    from twisted_sendmail.client.tls import ServerVerifier
    from twisted_sendmail.sasl import ChannelBinding
    from twisted_sendmail.smtp import (
        CommandResult,
        Extension,
        ForwardPath,
        Parameters,
        ReversePath,
        TLSFacts,
        Transcript,
    )

_IP_ADDRESSES = (IPv4Address, IPv6Address)
#: States in which the server has not replied since a handshake.
_UNANSWERED = frozenset({ClientState.CONNECTED, ClientState.SECURED})
#: Seconds after which a server that has sent nothing is named, and the beginning of that note.
SILENCE_SECONDS = 5.0
SILENCE_NOTE = "the server has sent nothing for"

# A module's logger, because the events of a class's logger hold the connection.
_log = Logger(namespace="twisted_sendmail.client")


@implementer(IHandshakeListener)
class SubmissionProtocol(Protocol):
    """One SMTP session as a client.

    Each command method sends one command and returns a Deferred of its reply.  A command that does
    not fit the session raises :class:`~twisted_sendmail.smtp.errors.CommandNotAllowed` at once.
    Cancelling the Deferred of a command closes the connection, unless the command was not written
    yet: its reply would be owed all the same.

    :param clock: for the timeouts.
    :param timeouts: how long each phase may take.
    :param server_name: the name of the server in errors.
    :param transcript: records the dialogue.
    :param extensions: an application's extensions.
    """

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        timeouts: Timeouts | None = None,
        server_name: str = "",
        transcript: Transcript | None = None,
        extensions: Iterable[Extension] = (),
    ) -> None:
        check_reactor("clock", clock)
        if timeouts is not None:
            check_type("timeouts", timeouts, Timeouts, "a Timeouts, or None")
        check_type("server_name", server_name, str, "the name of the server")
        #: Runs the timeouts; a reactor with threads also runs work that takes long.
        self.clock = clock
        self.timeouts = timeouts or Timeouts()
        #: ``name[address]:port`` of the server, as far as it is known.
        self.host = server_name
        self._greeting: Deferred[Reply] | None = None
        #: State, capabilities and transcript.
        self.session = ClientSession(transcript, self._greeted, extensions)
        #: The TLS session, once its handshake is complete.
        self.tls: TLSFacts | None = None
        #: The server that the connection is to; where it was found by DNS, the one that was found.
        self.server: SubmissionServer | None = None
        self.timer = Timer(clock, self._late, SILENCE_SECONDS)
        #: The server has sent nothing so far; and that was noted.
        self.silent, self.silence_noted = True, False
        self._silence_first = False
        # The seconds, name and phase of the event that the timer awaits.
        self._awaited: tuple[float | None, str, str | None] = None, "", None
        self._verifier: ServerVerifier | None = None
        self._tls_transport: TLSTransport | None = None
        # Fires at the end of the handshake, and the reply to STARTTLS.
        self._handshake: tuple[Deferred[Any], Reply | None] | None = None
        # Writes to the transport below TLS.
        self._writer = SocketWriter(None)
        self._wire_secured = False
        # The next command waits until the input that came before it was read.
        self._input_read: IDelayedCall | None = None
        # How many times writing is held back.
        self._held = 0
        # The content that is being sent, or will be as soon as the session allows.
        self._stream: ContentStream | None = None
        # Owners of groups are being called, in so many calls of ``_dispatch``.
        self._dispatching = 0
        self._after_results: list[Callable[[], object]] = []
        self._lost: list[Deferred[None]] = []
        # We have closed the connection, or begun to drop it.
        self._closing = self._dropped = False
        #: The connection is gone.
        self.gone = False

    def __repr__(self) -> str:
        return f"<SubmissionProtocol {self.host}: {self.session.confirmed.value}>"

    def use_timer(self, timer: Timer) -> None:
        """Use *timer*, which awaits the connection, from :meth:`connectionMade` on."""
        self.timer = timer

    # -- commands --------------------------------------------------------------------------

    @property
    def greeting(self) -> Deferred[Reply]:
        """A Deferred that fires with the greeting; the same each time."""
        if self._greeting is None:
            self._greeting = Deferred(self._cancelled)
            if self.session.greeting.complete:
                self._greeted(self.session.greeting.replies)
        return self._greeting

    def _greeted(self, results: list[Any]) -> None:
        if self._greeting is not None:
            self._fire(self._greeting)(results)

    def ehlo(self, domain: str) -> Deferred[Reply]:
        """Send EHLO; the capabilities are in ``session.capabilities`` then (RFC 5321 section 4.1.1.1)."""
        return self._reply_to(Hello(domain))

    def helo(self, domain: str) -> Deferred[Reply]:
        """Send HELO, for servers without EHLO."""
        return self._reply_to(Hello(domain, Verb.HELO))

    def starttls(self, verifier: ServerVerifier) -> Deferred[Reply]:
        """Send STARTTLS, and do the handshake if it is granted (RFC 3207).

        Fires with the reply once the handshake is complete; send EHLO next.

        :raises TLSError: the handshake failed, or the certificate was rejected.
        """

        def answered(results: list[Any]) -> None:
            reply = results[0]
            if waiting.called or not (isinstance(reply, Reply) and reply.positive):
                fire(results)
                return
            try:
                self._begin_handshake(verifier, waiting, reply)
            except Exception:  # noqa: BLE001 - it is for the caller
                waiting.errback()

        waiting = self._reply_to(StartTLS(), done=answered)
        fire = self._fire(waiting)
        return waiting

    def auth(self, mechanism: str, initial: bytes | None = None) -> Deferred[Reply]:
        """Send AUTH, with an initial response unless it is None (RFC 4954 section 4)."""
        return self._reply_to(Auth(mechanism, initial))

    def auth_response(self, response: bytes) -> Deferred[Reply]:
        """Answer a 334; *response* is not encoded yet."""
        return self._reply_to(AuthLine(response))

    def auth_cancel(self) -> Deferred[Reply]:
        """Answer a 334 with ``*``."""
        return self._reply_to(AuthCancel())

    def mail(self, sender: str | ReversePath, parameters: Parameters = ()) -> Deferred[Reply]:
        """Send MAIL FROM (RFC 5321 section 4.1.1.2)."""
        return self._reply_to(Mail(sender, parameters))

    def rcpt(self, recipient: str | ForwardPath, parameters: Parameters = ()) -> Deferred[Reply]:
        """Send RCPT TO (RFC 5321 section 4.1.1.3)."""
        return self._reply_to(Rcpt(recipient, parameters))

    def data(self) -> Deferred[Reply]:
        """Send DATA; after a 354 send :meth:`content`, or :meth:`lone_dot` without a recipient."""
        return self._reply_to(Data())

    def content(self, content: bytes | Readable) -> Deferred[Reply]:
        """Send the content after a 354, and its final dot (RFC 5321 section 4.1.1.4).

        :param content: canonical octets: every line ends with CRLF.  Dots are stuffed here.
        :raises DeliveryInDoubt: the connection ended between the final dot and its reply.
        :raises Exception: whatever *content* raises; the connection is closed then, and
            the server has no message.
        """
        waiting: Deferred[Reply] = Deferred(self._cancelled)
        self.send_content(content, self._fire(waiting))
        return waiting

    def lone_dot(self) -> Deferred[Reply]:
        """End a content without recipients (RFC 2920 section 3.1)."""
        return self._reply_to(LoneDot())

    def bdat(self, chunk: bytes, *, last: bool = True) -> Deferred[Reply]:
        """Send BDAT with its chunk (RFC 3030)."""
        return self._reply_to(Bdat(len(chunk), last), payload=chunk)

    def rset(self) -> Deferred[Reply]:
        """Send RSET."""
        return self._reply_to(Rset())

    def noop(self) -> Deferred[Reply]:
        """Send NOOP."""
        return self._reply_to(Noop())

    def quit(self) -> Deferred[Reply]:
        """Send QUIT; the connection is closed after its reply.  :meth:`leave` does not wait for it."""

        def close(reply: Reply) -> Reply:
            self.transport.loseConnection()
            return reply

        return self._reply_to(Quit()).addCallback(close)

    def command(self, name: str, argument: str = "") -> Deferred[Reply]:
        """Send any verb that has no method here: one line, one reply.

        After the success of a command that resets the session
        (:class:`~twisted_sendmail.ExtensionCommand`), send EHLO.
        """
        _, known = self.session.extensions.commands.get(name.upper(), ("", None))
        restarts = known is not None and known.restarts
        return self._reply_to((RestartCommand if restarts else OtherCommand)(name, argument))

    # -- groups ----------------------------------------------------------------------------

    def send(
        self,
        *commands: Command,
        payload: bytes | None = None,
        done: Callable[[list[CommandResult]], object] | None = None,
        may_end: Callable[[], bool] | None = None,
    ) -> CommandGroup:
        """Send a group of commands; parameters and errors are those of ``ClientSession.send``."""
        group = CommandGroup(commands, payload, done, may_end)
        self.send_group(group)
        return group

    def send_group(self, group: CommandGroup) -> None:
        """Send *group*; the errors are those of ``ClientSession.send_group``."""
        self.session.send_group(group)
        self.flush()

    def send_content(
        self,
        content: bytes | Readable,
        done: Callable[[list[CommandResult]], object],
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        """Send the content after a 354; *done* is called with the one answer, or a Failure.

        :param may_end: as of ``CommandGroup``; if it returns False, the connection is closed.
        """
        session = self.session
        awaited = session.confirmed is ClientState.DATA and session.idle
        if not awaited and session.over is None and session.closing is None:
            why = "the server has not answered DATA with 354"
            raise CommandNotAllowed("content not sent", phase="content", detail=why)
        if isinstance(content, bytes):
            _ = session.send(ContentCommand(), payload=content, done=done, may_end=may_end)
        else:
            stream = ContentStream(self, content, done, chunked=False)
            _ = session.send(ContentCommand(), done=stream.verdict, may_end=may_end)
            self._stream = stream
        self.flush()

    def send_chunks(
        self,
        content: Readable,
        done: Callable[[list[CommandResult]], object],
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        """Send a content as one BDAT after the other; *done* as for :meth:`send_content`.

        For servers that offer PIPELINING too.  The answer is the reply to the last chunk, or the
        first refusal.
        """
        self._stream = ContentStream(self, content, done, chunked=True, may_end=may_end)
        self._stream.start()

    def group(self) -> _Group:
        """Write what is sent inside in one piece, as far as the session allows."""
        return _Group(self)

    def hold(self) -> None:
        """Hold back what is sent, until :meth:`release`."""
        self._held += 1

    def release(self) -> None:
        """Write what was held back."""
        self._held -= 1
        if not self._held:
            self.flush()

    def flush(self, *, held: bool = False) -> None:
        """Write what may be written.

        :param held: write also what is held back.
        """
        if self._held and not held:
            return
        if not (self.session.next_flight and self._input_may_wait()):
            self._write_and_dispatch()

    def _write_and_dispatch(self) -> None:
        session, stream = self.session, self._stream
        data = session.data_to_send()
        if data:
            (self._writer.write if self._tls_transport is None else self._tls_transport.send)(data)
        if session.content_open:
            if stream is not None and not stream.started:
                stream.start()
        elif self._handshake is None and not self._closing:
            self._set_timer()
        if session.completed or session.over is not None:
            self._dispatch()

    def _input_may_wait(self) -> bool:
        """Return True if input may have come that was not read; then write when it has been read."""
        if self._input_read is not None:
            return True
        connection = self._writer.connection
        if connection is not None:
            try:
                _ = connection.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return False
            except OSError:
                pass  # the reactor is about to notice the end
        # The turn of the reactor after the next comes after a poll of all sockets.
        self._input_read = self.clock.callLater(0, self._wait_a_turn)
        return True

    def _wait_a_turn(self) -> None:
        self._input_read = self.clock.callLater(0, self._input_was_read)

    def _input_was_read(self) -> None:
        self._input_read = None
        self._write_and_dispatch()
        if self._stream is not None:
            self._stream.flight_written()

    def _set_timer(self) -> None:
        """Set one deadline for the reply that is owed first."""
        session = self.session
        verb = session.owed_verb
        if verb is None:
            self.timer.clear()
        elif self.timer.key != session.turn:
            self.await_event(session.turn, self.timeouts.of(verb))

    def await_event(
        self, key: object, seconds: float | None, what: str = "", phase: str | None = None
    ) -> None:
        """Set the deadline of the event that *key* identifies.

        :param what: names it in the error; empty for the reply that is owed first.
        """
        self._awaited = seconds, what, phase
        # A server that has sent nothing is noted before the deadline.
        self._silence_first = self.silent and (seconds is None or seconds > SILENCE_SECONDS)
        self.timer.set(key, SILENCE_SECONDS if self._silence_first else seconds)

    def _late(self, key: object) -> None:
        seconds, what, phase = self._awaited
        if self._silence_first:
            self._silence_first = False
            if self.silent:
                self._note_silence()
            self.timer.set(key, None if seconds is None else seconds - SILENCE_SECONDS)
            return
        name = what or due_reply(self.session.owed)
        why = "its last line is missing" if not what and self.session.reply_pending else ""
        late = f"{name} did not come within {seconds:g} s"
        self.abort(SendTimeout(late, phase=phase, detail=why))

    def _note_silence(self) -> None:
        """Note that the server sends nothing, and why that may be.

        A server with implicit TLS waits for the client, which waits for the greeting; so does a server
        of another protocol, such as HTTP.
        """
        if self.silence_noted:
            return
        self.silence_noted = True
        note = f"{SILENCE_NOTE} {SILENCE_SECONDS:g} s: {self.silence_question}"
        self.session.transcript.add("--", note)
        _log.warn("{host}: {note}", host=self.host, note=note)

    @property
    def silence_question(self) -> str:
        """Why the server may have sent nothing."""
        if self._verifier is not None:
            return "is this a STARTTLS port (smtp+starttls://)?"
        return "is this an implicit-TLS port (smtps://)?"

    def _reply_to(
        self,
        command: Command,
        payload: bytes | None = None,
        done: Callable[[list[Any]], None] | None = None,
    ) -> Deferred[Reply]:
        def cancel(_: object) -> None:
            if not self.session.withdraw(group):
                self._cancelled(waiting)

        waiting: Deferred[Reply] = Deferred(cancel)
        group = self.session.send(command, payload=payload, done=done or self._fire(waiting))
        self.flush()
        return waiting

    def _fire(self, waiting: Deferred[Reply]) -> Callable[[list[Any]], None]:
        """Return a callback of a group of one that fires *waiting*."""

        def done(results: list[Any]) -> None:
            if waiting.called:
                return  # cancelled
            result = results[0]
            if isinstance(result, Reply):
                waiting.callback(result)
            else:
                if isinstance(result, SendmailError):
                    _ = result.at(host=self.host, tls=self.tls)
                waiting.errback(result)

        return done

    def _cancelled(self, _: Deferred[Any]) -> None:
        self.abort(Cancelled("cancelled"))

    def _dispatch(self) -> None:
        """Call the owners of the groups that are complete; the session has moved on already."""
        session = self.session
        self._dispatching += 1
        try:
            while session.completed:
                if session.over is not None:
                    self._drop(session.over)
                group = session.completed.popleft()
                # The group of the greeting is kept, and its owner refers to the session.
                done, group.done = group.done, None
                if done is not None:
                    done(group.replies)
            if session.over is not None:
                self._drop(session.over)
                if self._stream is not None:
                    stream, self._stream = self._stream, None
                    stream.session_over(session.over)
        finally:
            self._dispatching -= 1
        while self._after_results and not self._dispatching:
            self._after_results.pop()()

    def after_results(self, call: Callable[[], object]) -> None:
        """Call *call* when the owners of all groups that are complete have been called."""
        if self._dispatching:
            self._after_results.append(call)
        else:
            call()

    # -- TLS -------------------------------------------------------------------------------

    def start_tls(self, verifier: ServerVerifier) -> Deferred[TLSFacts]:
        """Start TLS now: after a granted STARTTLS, or at once for implicit TLS (RFC 8314).

        A transport that is TLS already, as that of ``wrapClientTLS``, is verified and used as it is.
        Fires with the facts of the session.

        :raises TLSError: the handshake failed, or the certificate was rejected.
        """
        waiting: Deferred[TLSFacts] = Deferred(self._cancelled)
        self._begin_handshake(verifier, waiting, None)
        return waiting

    def _begin_handshake(
        self, verifier: ServerVerifier, waiting: Deferred[Any], reply: Reply | None
    ) -> None:
        """Begin TLS; *waiting* fires at the end with *reply*, or with the facts if that is None."""
        self._verifier = verifier
        self._handshake = waiting, reply
        self.session.begin_tls()
        seconds = self.timeouts.tls
        self.await_event(waiting, seconds, "the end of the TLS handshake", "TLS")
        wire = self._writer.transport
        if ISSLTransport.providedBy(wire):
            # The endpoint has begun TLS: see ``handshakeCompleted``.
            verifier.adopt(self.transport.getHandle())
            if self._wire_secured:
                self.handshake_completed()
            return
        self._tls_transport = TLSTransport(self, verifier, wire, self._writer.write)
        try:
            self._tls_transport.start(self.clock)
        except Exception:
            # The application's TLS context failed: there is no TLS that could end.
            self._tls_transport = self._handshake = None
            self.timer.clear()
            raise
        # Below TLS, where the transport has started it.
        self._writer.transport = self._tls_transport.wire
        # ``startTLS`` has left the ClientHello to the reactor.
        self._writer.flush()

    def handshakeCompleted(self) -> None:
        """See ``IHandshakeListener``: the transport is one of TLS, and its handshake is complete."""
        self._wire_secured = True
        self.handshake_completed()

    def handshake_completed(self) -> None:
        """Continue after the TLS handshake."""
        handshake, self._handshake = self._handshake, None
        if handshake is None or self._verifier is None:
            return
        self.silent = False
        self.timer.clear()
        try:
            self.tls = facts = self._verifier.facts()
        except Exception as error:  # noqa: BLE001 - no error may leave the caller waiting
            self._handshake = handshake
            if not isinstance(error, SendmailError):
                why = printable(f"the certificate cannot be read: {error}")
                error = TLSFailure("TLS refused", phase="TLS", detail=why)
            self.abort(error)
            return
        self.session.tls_begun(f"TLS: {facts}")
        # With implicit TLS the greeting is owed.
        self._set_timer()
        waiting, reply = handshake
        waiting.callback(facts if reply is None else reply)

    @property
    def presented(self) -> TLSFacts | None:
        """The certificate of the handshake, accepted or not: to show, not to act on."""
        return None if self._verifier is None else self._verifier.presented()

    @property
    def channel_binding(self) -> ChannelBinding | None:
        """The channel binding of the TLS connection (RFC 5056); None in clear text."""
        return None if self._verifier is None else self._verifier.channel_binding()

    @property
    def has_certificate(self) -> bool:
        """True if the TLS connection has a certificate of the client."""
        return self._verifier is not None and self._verifier.has_client_certificate()

    def keep_tls_session(self) -> None:
        """Let the next connection to this server resume the TLS session; call it when ready."""
        if self._verifier is not None:
            self._verifier.keep()

    # -- IProtocol -------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """See ``IProtocol``."""
        # Not before: an endpoint may build the protocol long before it is connected.
        self.timer.late = self._late
        transport = self.transport
        self._writer = SocketWriter(transport)
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None and isinstance(transport.getPeer(), _IP_ADDRESSES):
            set_no_delay(True)
        self.host = _peer_name(self.host, transport.getPeer())
        self._set_timer()

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        session = self.session
        self.silent = False
        self._held += 1
        try:
            if self._tls_transport is None:
                session.receive(data)
            else:
                self._tls_transport.receive(data)
            # After all of it was read: several TLS records are answered in one write.
            if session.completed or session.over is not None:
                self._dispatch()
        finally:
            self._held -= 1
            self.flush()
            if self._tls_transport is not None:
                self._tls_transport.flush()  # records that answer nothing of ours

    def decrypted(self, data: bytes) -> None:
        """Take what TLS has decrypted."""
        if self._handshake is None:
            self.session.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol``."""
        if self._tls_transport is not None:
            self._tls_transport.connection_lost(reason)
        else:
            self.connection_ended(reason)

    def connection_ended(self, reason: Failure) -> None:
        """Take the end of the transport, and of TLS with it."""
        if self.gone:
            return
        self.gone = True
        if self._handshake is not None and self._verifier is not None:
            error = self._verifier.failure(reason)
        elif self._closing:
            error = ConnectionClosed("connection closed")
        else:
            error = self._loss(reason)
        self.session.finish(error, by_server=True)
        self._dispatch()
        if self._verifier is not None:
            self._verifier.release()
        lost, self._lost = self._lost, []
        for waiting in lost:
            waiting.callback(None)
        # Break reference cycles now instead of waiting for the garbage collector.
        self.timer.release()
        self._awaited = None, "", None
        self._writer, self._tls_transport = SocketWriter(None), None

    def _loss(self, reason: Failure) -> SendmailError:
        """Return the error of a connection that was lost after any handshake."""
        alert = None if self._verifier is None else self._verifier.alert(reason)
        # In TLS 1.3 the client's side of the handshake is complete before the server has judged the
        # client's certificate (RFC 8446 section 4.4.2.4).
        if alert is not None and self.session.confirmed in _UNANSWERED:
            return alert
        words = words_of_openssl(reason.value)
        why = "the server closed it, or the network did" if words is None else f"TLS: {words}"
        return ConnectionClosed("connection lost", detail=printable(why))

    # -- the end ---------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """True if the connection is good for another command."""
        session = self.session
        return not self.gone and session.over is None and session.closing is None

    def lost(self) -> Deferred[None]:
        """Return a Deferred that fires when the connection is gone, for any reason; cancelling it changes nothing."""
        waiting: Deferred[None] = Deferred(
            lambda d: self._lost.remove(d) if d in self._lost else None
        )
        if self.gone:
            waiting.callback(None)
        else:
            self._lost.append(waiting)
        return waiting

    def leave(self) -> None:
        """End the session: write QUIT where that is possible, and close without waiting for 221.

        Call it when every verdict is known: replies do not count any more.  ``timeouts.quit``
        bounds the end of the TLS session and of what is still to be written; :meth:`lost`
        fires when the connection is gone.  Never fails.
        """
        session = self.session
        if self._closing:
            return
        if session.idle and self.usable:
            _ = session.send(Quit())
            # At once, even inside a group: nothing can be written after the connection is closed.
            self._write_and_dispatch()
        elif session.owed is not None and session.closing is None:
            self.abort()
        if self.gone or self._dropped:
            return
        self._closing = True
        self.await_event("closing", self.timeouts.quit, "the end of the connection")
        self.transport.loseConnection()

    def abort(self, why: SendmailError | None = None) -> None:
        """Drop the connection at once; the result of every command without a reply is *why*."""
        self.session.finish(why or ConnectionClosed("connection dropped"))
        self._dispatch()

    def _drop(self, why: SendmailError) -> None:
        """End the transport, timers, content and handshake: the session is over."""
        self.timer.stop()
        if self._input_read is not None:
            self._input_read.cancel()
            self._input_read = None
        if not self._dropped:
            self._dropped = True
            if not self.gone and self.transport is not None:
                abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
                abort()
        if self._stream is not None:
            self._stream.stop()
        handshake, self._handshake = self._handshake, None
        if handshake is not None and not handshake[0].called:
            handshake[0].errback(why.at(host=self.host, transcript=self.session.transcript))


class _Group:
    """The context in which a protocol holds back what is sent."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: SubmissionProtocol) -> None:
        self._protocol = protocol

    def __enter__(self) -> None:
        self._protocol.hold()

    def __exit__(self, *_: object) -> None:
        self._protocol.release()


class Readable(typing.Protocol):
    """A source of canonical octets."""

    def read(self) -> Awaitable[bytes]:
        """Return the next octets, ``b""`` at the end."""


@implementer(IPushProducer)
class ContentStream:
    """A large content on its way to the server: *source* is read piece by piece, with back-pressure.

    The next piece is read when the transport can take it, so that a content of a gigabyte takes no
    more memory than one of a megabyte.  After a 354 the session dot-stuffs the pieces; with CHUNKING
    each piece is a BDAT of its own, and the last one is BDAT LAST.  So the source gives the size of
    a chunk: ``message.source``, or the pieces of the queue (``queue.store``).

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
        #: :meth:`start` was called.
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
        """Send the end of the content: the source has ended, or failed, or was stopped."""
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
        """Pass on the end of the session; between two chunks no reply is owed that would do so."""
        self.stop()
        self.verdict([why])

    def flight_written(self) -> None:
        """Continue: the protocol has written what waited."""
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
        """Pause: the transport takes no more."""
        if self._resumed is None:
            self._resumed = Deferred()
            protocol = self._protocol
            seconds, what = protocol.timeouts.data_block, "the server to take more of the content"
            protocol.await_event(self, seconds, what)

    def resumeProducing(self) -> None:
        """Continue: the transport took what it had."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            self._protocol.timer.clear()
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Stop: the connection is gone."""
        self._stopped = True
        self.resumeProducing()


def _peer_name(name: str, peer: Any) -> str:
    """Return ``name[address]:port``, as far as there is one."""
    address, port = getattr(peer, "host", None), getattr(peer, "port", None)
    if address is None:
        # A Unix socket, which may have no name either.
        return name or printable(getattr(peer, "name", None) or "server", 200)
    return f"{name}[{address}]:{port}" if name and name != address else f"[{address}]:{port}"
