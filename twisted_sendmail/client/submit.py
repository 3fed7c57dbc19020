"""``submit`` and ``sendmail``: one message over a connection of its own.

RFC 6409.  The connection is opened, used for one transaction with QUIT behind its
content, and gone when the result is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.deadline import within
from twisted_sendmail.client.delivery import deliver
from twisted_sendmail.client.prepared_message import prepared
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.timeouts import Timeouts
from twisted_sendmail.client.tls import TLSPolicy, TLSTrust
from twisted_sendmail.client.verdict import require_acceptance
from twisted_sendmail.smtp import InvalidServer, SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted.internet.defer import Deferred

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import Message
    from twisted_sendmail.sasl import Credentials, MechanismFactory
    from twisted_sendmail.smtp import AnyRecipient, DeliveryReport, Envelope, ReversePath

_T = TypeVar("_T")


def submit(
    reactor: Any,
    server: str | SubmissionServer,
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    all_or_nothing: bool = False,
    complete: bool = True,
) -> Deferred[DeliveryReport]:
    """Submit one message to an authority.

    :param reactor: connects and keeps time.
    :param server: ``smtps://user@host``, ``smtp+starttls://user@host:587`` or a
        :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :param message: bytes, text, an ``EmailMessage``, a path, a binary file, or an
        iterable or asynchronous iterable of bytes.
    :param sender: the reverse-path, ``""`` for none; from the header if not given.
    :param recipients: from the header if not given (``Resent-*`` and ``Bcc`` count).
    :param envelope: both of the above, and what else an envelope says.
    :param all_or_nothing: do not deliver to some when others are refused.
    :param complete: add ``Date`` and ``Message-ID`` where missing, remove ``Bcc``.
    :returns: fires with a :class:`~twisted_sendmail.smtp.result.DeliveryReport` when
        somebody was accepted; QUIT is written after that, and nobody waits for its reply.
    :raises SendmailError: nobody was accepted, or nobody knows; ``report`` has the
        outcome for each recipient once the transaction had begun.
    :raises Exception: what an iterator or a file raised while it was read.

    Cancelling closes the connection and fails with a
    :class:`~twisted_sendmail.client.connection.Cancelled`, whose ``report`` says whether
    the message is in doubt.
    """
    letter = _Letter(
        message, sender, recipients, envelope, complete=complete, all_or_nothing=all_or_nothing
    )
    return letter.send(reactor, lambda: SubmissionServer.of(server))


def sendmail(
    endpoint: IStreamClientEndpoint,
    message: Message,
    *,
    sender: str | ReversePath | None = None,
    recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
    envelope: Envelope | None = None,
    server_name: str = "",
    tls: TLSPolicy = TLSPolicy.STARTTLS,
    trust: TLSTrust | None = None,
    credentials: Credentials | None = None,
    mechanisms: Mapping[str, MechanismFactory] | None = None,
    helo_name: str | None = None,
    timeouts: Timeouts | None = None,
    watch: Callable[[str], None] | None = None,
    all_or_nothing: bool = False,
    complete: bool = True,
    reactor: Any = None,
) -> Deferred[DeliveryReport]:
    """Send one message over any stream endpoint: a Unix socket, a proxy, a pair in memory.

    Greeting, EHLO, STARTTLS, EHLO, AUTH, MAIL, RCPT, DATA, QUIT.

    :param endpoint: where to connect.
    :param server_name: the name the server's certificate must bear; needed for TLS
        unless *trust* pins a fingerprint or gives a name.
    :param tls: when TLS begins; ``OPPORTUNISTIC`` and ``NONE`` never with credentials.
    :param trust: what proves the server, by default the system's CAs.
    :param reactor: keeps time and reads files; the global one if not given.

    The other parameters, the result, the errors and cancelling are those of :func:`submit`.
    """
    if reactor is None:
        from twisted.internet import reactor

    def build() -> SubmissionServer:
        if not IStreamClientEndpoint.providedBy(endpoint):
            msg = f"endpoint cannot be {type(endpoint).__name__}"
            raise InvalidServer(
                msg, remedy="give an IStreamClientEndpoint, or use submit() with a URL"
            )
        return SubmissionServer(
            server_name,
            tls=tls,
            trust=trust,
            credentials=credentials,
            mechanisms=mechanisms,
            helo_name=helo_name,
            timeouts=timeouts,
            endpoint=endpoint,
            watch=watch,
        )

    letter = _Letter(
        message, sender, recipients, envelope, complete=complete, all_or_nothing=all_or_nothing
    )
    return letter.send(reactor, build)


@dataclass
class _Letter:
    """One message as it was given, and what is to be done with it."""

    message: Message
    sender: str | ReversePath | None
    recipients: AnyRecipient | Iterable[AnyRecipient] | None
    envelope: Envelope | None
    complete: bool
    all_or_nothing: bool
    _protocol: SubmissionProtocol | None = field(default=None, init=False)

    def send(
        self, reactor: Any, choose: Callable[[], SubmissionServer]
    ) -> Deferred[DeliveryReport]:
        try:
            server = choose()
        except SendmailError:
            return fail()
        running = within(
            reactor, server.timeouts.total, self._run(reactor, server), f"a message to {server}"
        )
        return told_first(running, self._leave)

    async def _run(self, reactor: Any, server: SubmissionServer) -> DeliveryReport:
        letter = await prepared(
            reactor,
            self.message,
            sender=self.sender,
            recipients=self.recipients,
            envelope=self.envelope,
            complete=self.complete,
        )
        try:
            self._protocol = await open_session(reactor, server)
            report = await deliver(
                self._protocol, letter, last=True, all_or_nothing=self.all_or_nothing
            )
        finally:
            await letter.close()
        return require_acceptance(report)

    def _leave(self) -> None:
        if self._protocol is not None:
            self._protocol.leave()


def told_first(result: Deferred[_T], afterwards: Callable[[], object]) -> Deferred[_T]:
    """*result*, be it a failure; *afterwards* is called when all its callbacks have run."""
    told: Deferred[_T] = succeed(None).addCallback(lambda _: result)
    # Since ``told`` is chained to it, what is added to ``result`` now runs after what is added
    # to ``told``; and cancelling ``told`` cancels ``result``.
    _ = result.addBoth(lambda _: afterwards())
    return told
