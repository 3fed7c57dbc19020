"""The ``IProtocol``: a Deferred for every command.

What to say next is ``opening``'s and ``transaction``'s, or yours: every command can
be given by hand.  Refusals are results: a Reply is a Reply.  Failures are for the loss
of the connection, for timeouts and for breaches of protocol.

RFC 5321 section 4.1, RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 3030 (BDAT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted_sendmail.client.connection import Cancelled, Connection
from twisted_sendmail.client.exchange import Answer, Exchange
from twisted_sendmail.smtp import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    Command,
    CommandNotAllowed,
    Content,
    Data,
    Hello,
    LoneDot,
    Mail,
    Noop,
    OtherCommand,
    Quit,
    Rcpt,
    Reply,
    Rset,
    StartTLS,
    Verb,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import ITransport

    from twisted_sendmail.client.content_producer import Readable
    from twisted_sendmail.client.tls import ServerJudge
    from twisted_sendmail.smtp import ForwardPath, Parameters, ReversePath


class SubmissionProtocol(Connection):
    """One SMTP session as a client.

    Each method gives one command and returns a Deferred of its reply; several given in
    a :meth:`group`, or from one callback, go out in one write as far as the server
    offers PIPELINING.  A command that does not fit the session raises
    :class:`~twisted_sendmail.smtp.errors.CommandNotAllowed` at once.

    Cancelling any command's Deferred closes the connection, unless the command was
    not written yet: its reply would be owed all the same.
    """

    def ehlo(self, domain: str) -> Deferred[Reply]:
        """EHLO; its capabilities are in ``session.capabilities`` afterwards (RFC 5321 section 4.1.1.1)."""
        return self._send(Hello(domain))

    def helo(self, domain: str) -> Deferred[Reply]:
        """HELO, for servers that do not know EHLO."""
        return self._send(Hello(domain, Verb.HELO))

    def starttls(self, judge: ServerJudge) -> Deferred[Reply]:
        """STARTTLS, and if it is granted the handshake (RFC 3207).

        Fires with the reply once the handshake is complete; say EHLO next.

        :raises TLSError: when the handshake fails or the certificate is rejected.
        """

        def granted(reply: Reply) -> Any:
            return self.start_tls(judge).addCallback(lambda _: reply) if reply.positive else reply

        return self._send(StartTLS()).addCallback(granted)

    def auth(self, mechanism: str, initial: bytes | None = None) -> Deferred[Reply]:
        """AUTH, with an initial response unless it is None (RFC 4954 section 4)."""
        return self._send(Auth(mechanism, initial))

    def auth_response(self, response: bytes) -> Deferred[Reply]:
        """Answer a 334; *response* is not encoded yet."""
        return self._send(AuthLine(response))

    def auth_cancel(self) -> Deferred[Reply]:
        """Answer a 334 with ``*``."""
        return self._send(AuthCancel())

    def mail(self, sender: str | ReversePath, parameters: Parameters = ()) -> Deferred[Reply]:
        """MAIL FROM (RFC 5321 section 4.1.1.2)."""
        return self._send(Mail(cast("ReversePath", sender), parameters))

    def rcpt(self, recipient: str | ForwardPath, parameters: Parameters = ()) -> Deferred[Reply]:
        """RCPT TO (RFC 5321 section 4.1.1.3)."""
        return self._send(Rcpt(cast("ForwardPath", recipient), parameters))

    def data(self) -> Deferred[Reply]:
        """DATA; 354 asks for :meth:`content`, or :meth:`lone_dot` if nobody was accepted."""
        return self._send(Data())

    def content(self, content: bytes | Readable) -> Deferred[Reply]:
        """The content after a 354, and its final dot (RFC 5321 section 4.1.1.4).

        :param content: canonical octets: every line ends with CRLF.  Dots are stuffed here.
        :raises DeliveryInDoubt: when the connection ends between the final dot and its reply.
        :raises Exception: whatever *content* raises; the connection is closed then, and
            the server has no message.
        """
        verdict = self._send(Content(), flush=False)
        with self.group():
            self._transmit()
            if not self.session.content_open:
                if self.session.withdraw(verdict):
                    msg = "content not sent"
                    raise CommandNotAllowed(
                        msg, phase="content", detail="the server has not answered DATA with 354"
                    )
                return verdict
            if isinstance(content, bytes):
                if content:
                    self.session.content(content)
                self.session.end_content()
            else:
                self._produce(content, verdict, self._content_piece, self.session.end_content)
        return verdict

    @property
    def quiet(self) -> bool:
        """Certainly nothing came that was not read: what :meth:`settled` would wait for."""
        return self._settling.quiet

    def _content_piece(self, piece: bytes) -> None:
        self.session.content(piece)
        self._transmit()

    def lone_dot(self) -> Deferred[Reply]:
        """End a content that nobody would get (RFC 2920 section 3.1)."""
        return self._send(LoneDot())

    def bdat(self, chunk: bytes, *, last: bool = True) -> Deferred[Reply]:
        """BDAT with its chunk (RFC 3030)."""
        return self._send(Bdat(len(chunk), last), payload=chunk)

    def chunks(self, content: Readable) -> Deferred[Reply]:
        """Content of any length as one BDAT after the other (RFC 3030).

        Fires with the reply to the last, or with the first refusal.  Only where the
        server offers PIPELINING too.

        :param content: canonical octets.
        :raises DeliveryInDoubt: when the connection ends between the last chunk and its reply.
        :raises Exception: whatever *content* raises; the connection is closed then, and
            the server has no message.
        """
        verdict: Deferred[Reply] = self._deferred()
        held: list[bytes] = []

        def hear(answer: Any) -> None:
            """To a chunk that is not the last: only a bad answer matters."""
            if verdict.called or (isinstance(answer, Reply) and answer.positive):
                return
            self._stop_producing()
            if isinstance(answer, Reply):
                verdict.callback(answer)
            else:
                verdict.errback(answer)

        def write(piece: bytes) -> None:
            if held:
                chunk = held.pop()
                waiting: Deferred[Reply] = self._deferred()
                _ = waiting.addBoth(hear)
                self.session.send(Bdat(len(chunk)), waiting, chunk)
                self._transmit()
            held.append(piece)

        def finish() -> None:
            if not verdict.called:
                chunk = held.pop() if held else b""
                self.session.send(Bdat(len(chunk), last=True), verdict, chunk)

        self._produce(content, verdict, write, finish)
        return verdict

    def exchange(self, commands: Sequence[Command], payload: bytes = b"") -> Deferred[list[Answer]]:
        """Give several commands as one group; fires with their answers, in order.

        :param payload: the chunk of a BDAT at the end.

        The Deferred never fails: an answer without a reply is its error.
        """
        waiting = Exchange(len(commands), lambda: self.abort(Cancelled("cancelled")))
        send = self.session.send
        with self.group():
            for command in commands[:-1]:
                send(command, waiting)
            send(commands[-1], waiting, payload)
        return waiting.done

    def rset(self) -> Deferred[Reply]:
        """RSET."""
        return self._send(Rset())

    def noop(self) -> Deferred[Reply]:
        """NOOP."""
        return self._send(Noop())

    def quit(self) -> Deferred[Reply]:
        """QUIT; the connection is closed after its reply.  :meth:`leave` does not wait for it."""

        def bye(reply: Reply) -> Reply:
            cast("ITransport", self.transport).loseConnection()
            return reply

        return self._send(Quit()).addCallback(bye)

    def command(self, name: str, argument: str = "") -> Deferred[Reply]:
        """Any verb this package knows nothing of: one line, one reply."""
        return self._send(OtherCommand(name, argument))

    def leave(self) -> None:
        """End the session: write QUIT where that is possible, and close without waiting for 221.

        Call it when every verdict is known: nothing that comes from the server counts any
        more.  ``timeouts.quit`` bounds the end of the TLS session and of what is still to be
        written; :meth:`lost` fires when the connection is gone.  Never fails.
        """
        session = self.session
        if session.idle and self.usable:
            _ = self._send(Quit(), flush=False).addErrback(lambda _: None)
            # At once, even inside a group: nothing can be written after the connection is closed.
            self._transmit()
        elif session.owed is not None and session.closing is None:
            self.abort()
        self._close()
