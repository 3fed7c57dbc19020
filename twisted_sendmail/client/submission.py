"""``submit`` and ``sendmail``: one message over a connection of its own (RFC 6409).

Prepare the message, open a session, deliver, and close the session when the result was reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.delivery_job import Job, prepare_message, send_job
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.timeouts import within
from twisted_sendmail.client.tls import TLSPolicy
from twisted_sendmail.message import DKIMSigner
from twisted_sendmail.smtp import (
    InvalidServer,
    SendmailError,
    check_reactor,
    require_acceptance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.timeouts import Timeouts
    from twisted_sendmail.client.tls import TLSTrust
    from twisted_sendmail.message import DKIMKey, Message
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
    dkim: DKIMKey | Sequence[DKIMKey] | None = None,
) -> Deferred[DeliveryReport]:
    """Submit one message to a submission server.

    :param reactor: connects and keeps time.
    :param server: ``smtps://user@host``, ``smtp+starttls://user@host:587`` or a
        :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :param message: bytes, text, an ``EmailMessage``, a path, a binary file, or an
        iterable or asynchronous iterable of bytes.
    :param sender: the reverse-path, ``""`` for the null one; from the header if not given.
    :param recipients: from the header if not given (``Resent-*`` and ``Bcc`` count).
    :param envelope: instead of sender and recipients; also holds DSN parameters and the like.
    :param all_or_nothing: deliver to no recipient when one is refused.
    :param complete: add ``Date`` and ``Message-ID`` where missing, remove ``Bcc``.
    :param dkim: the keys that sign the message: all those of the one domain in ``From``, of which
        there must be one; None: it is not signed. See :class:`~twisted_sendmail.DKIMKey`.
    :returns: fires with a :class:`~twisted_sendmail.smtp.result.DeliveryReport` when
        a recipient was accepted; QUIT is written after that, without waiting for its reply.
    :raises SendmailError: no recipient was accepted, or the message is in doubt; ``report`` has
        the result of each recipient once the transaction had begun.
    :raises Exception: any error of an iterator or a file while it was read.

    Cancelling closes the connection and fails with a
    :class:`~twisted_sendmail.client.timeouts.Cancelled`, whose ``report`` says whether
    the message is in doubt.
    """
    try:
        check_reactor("reactor", reactor)
        chosen = SubmissionServer.of(server)
        signer = DKIMSigner.of(dkim)
    except SendmailError:
        return fail()
    protocol: SubmissionProtocol | None = None

    async def run() -> DeliveryReport:
        prepared = await prepare_message(
            reactor,
            message,
            sender=sender,
            recipients=recipients,
            envelope=envelope,
            complete=complete,
            all_or_nothing=all_or_nothing,
            dkim=signer,
        )
        job = Job(prepared, all_or_nothing=all_or_nothing)

        def connect() -> Coroutine[Deferred[Any], Any, SubmissionProtocol]:
            close()
            chosen.unsupported.update(job.unsupported)
            return open_session(reactor, chosen, connected)

        try:
            report = await send_job(job, await connect(), last=True, reconnect=connect)
        finally:
            chosen.unsupported.update(job.unsupported)
            await prepared.close()
        return require_acceptance(report)

    def connected(opened: SubmissionProtocol) -> None:
        nonlocal protocol
        protocol = opened

    def close() -> None:
        if protocol is not None:
            protocol.leave()

    running = within(reactor, chosen.timeouts.total, run(), lambda: f"a message to {chosen}")
    return close_after(running, close)


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
    dkim: DKIMKey | Sequence[DKIMKey] | None = None,
    reactor: Any = None,
) -> Deferred[DeliveryReport]:
    """Send one message over any stream endpoint: a Unix socket, a proxy, a pair in memory.

    Greeting, EHLO, STARTTLS, EHLO, AUTH, MAIL, RCPT, DATA, QUIT.

    :param endpoint: where to connect.
    :param server_name: the name in the server's certificate; needed for TLS
        unless *trust* pins a fingerprint or gives a name.
    :param tls: when TLS begins; ``OPPORTUNISTIC`` and ``NONE`` exclude credentials.
    :param trust: how the server proves its identity; by default the system's CAs.
    :param reactor: keeps time and reads files; the global one if not given.

    The other parameters, the result, the errors and cancelling are those of :func:`submit`.
    """
    if reactor is None:
        from twisted.internet import reactor

    if not IStreamClientEndpoint.providedBy(endpoint):
        return fail(
            InvalidServer(
                f"endpoint cannot be {type(endpoint).__name__}",
                remedy="give an IStreamClientEndpoint, or use submit() with a URL",
            )
        )
    try:
        server = SubmissionServer(
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
    except SendmailError:
        return fail()
    return submit(
        reactor,
        server,
        message,
        sender=sender,
        recipients=recipients,
        envelope=envelope,
        all_or_nothing=all_or_nothing,
        complete=complete,
        dkim=dkim,
    )


def close_after(result: Deferred[_T], close: Callable[[], object]) -> Deferred[_T]:
    """Return *result*; *close* is called when all its callbacks have run, also after a failure."""
    first: Deferred[_T] = succeed(None).addCallback(lambda _: result)
    # `first` is chained to `result`: a callback that is added to `result` now runs after those that
    # are added to `first`; and cancelling `first` cancels `result`.
    _ = result.addBoth(lambda _: close())
    return first
