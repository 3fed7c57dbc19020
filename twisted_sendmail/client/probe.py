"""Look at a server without sending: what ``open_session`` does, and what was seen on the way.

It never says MAIL.  What it finds is a value; whether that is good or bad is for
others to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.deadline import within
from twisted_sendmail.smtp import Capabilities, SendmailError, refusal

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.client.server_config import SubmissionServer
    from twisted_sendmail.smtp import TLSFacts, Transcript


@dataclass(frozen=True)
class Examination:
    """What was seen of a server."""

    #: Where and how it was looked for.
    server: SubmissionServer
    #: Why it cannot be used like this; None if it can.
    error: SendmailError | None
    #: ``name[address]:port``; None without a connection.
    host: str | None = None
    #: What it offered in clear; empty with implicit TLS.
    in_clear: Capabilities = Capabilities()  # noqa: RUF009 - immutable
    #: What it offered in the end: inside TLS, if there is TLS.
    offered: Capabilities = Capabilities()  # noqa: RUF009 - immutable
    #: The TLS session; None without.
    tls: TLSFacts | None = None
    #: What it showed of itself, accepted or not.
    presented: TLSFacts | None = None
    #: AUTH was tried and succeeded.
    authenticated: bool = False
    transcript: Transcript | None = None


def examine(reactor: Any, server: SubmissionServer) -> Deferred[Examination]:
    """Connect, and do all that is done before MAIL; then NOOP and QUIT.

    :returns: fires with what was seen; a `SendmailError` is its ``error``,
        a `Cancelled` too.
    """
    witness = _Witness(server.connector(reactor))
    looking = within(
        reactor, server.timeouts.total, _look(reactor, server, witness), f"the check of {server}"
    )

    def failed(failure: Any) -> Examination:
        failure.trap(SendmailError)
        return _seen(server, witness.protocol, failure.value)

    return looking.addErrback(failed)


async def _look(reactor: Any, server: SubmissionServer, witness: _Witness) -> Examination:
    protocol = await open_session(reactor, witness, server.opening())
    try:
        reply = await protocol.noop()
        error = None if reply.positive else refusal("NOOP", reply)
        return _seen(server, protocol, error and error.at(host=protocol.host, tls=protocol.tls))
    finally:
        protocol.leave()


def _seen(
    server: SubmissionServer, protocol: SubmissionProtocol | None, error: SendmailError | None
) -> Examination:
    if protocol is None:
        return Examination(server, error)
    session = protocol.session
    in_clear = session.offered_in_clear
    if not session.secured and not any(in_clear):
        in_clear = session.capabilities
    return Examination(
        server,
        error,
        host=protocol.host,
        in_clear=in_clear,
        offered=session.capabilities,
        tls=protocol.tls,
        presented=protocol.presented,
        authenticated=session.authenticated,
        transcript=session.transcript,
    )


@implementer(IStreamClientEndpoint)
class _Witness:
    """The endpoint, and the protocol that came of it even if it came to nothing."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self.protocol: SubmissionProtocol | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See ``IStreamClientEndpoint``."""

        def note(protocol: Any) -> Any:
            self.protocol = protocol
            return protocol

        return self._endpoint.connect(protocolFactory).addCallback(note)
