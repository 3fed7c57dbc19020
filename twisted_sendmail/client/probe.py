"""Test a connection to a server without sending mail: greeting, EHLO, TLS, AUTH, NOOP, QUIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen
from twisted.internet.defer import fail

from twisted_sendmail.client.connect import open_session
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.timeouts import within
from twisted_sendmail.smtp import Capabilities, SendmailError, check_reactor, refusal

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.smtp import TLSFacts, Transcript


@frozen
class ProbeResult:
    """The facts about a server that a connection showed."""

    #: The server that was asked for; where DNS named servers, the one that was connected to.
    server: SubmissionServer
    #: Why mail cannot be sent over this server; None if it can.
    error: SendmailError | None
    #: ``name[address]:port``; None without a connection.
    host: str | None = None
    #: Capabilities offered before TLS; empty with implicit TLS.
    in_clear: Capabilities = Factory(Capabilities)
    #: Capabilities offered last: inside TLS, if there is TLS.
    offered: Capabilities = Factory(Capabilities)
    #: The verified TLS session; None without.
    tls: TLSFacts | None = None
    #: The TLS session and the server's certificate, accepted or not.
    presented: TLSFacts | None = None
    #: AUTH succeeded.
    authenticated: bool = False
    transcript: Transcript | None = None


def probe_server(reactor: Any, server: str | SubmissionServer) -> Deferred[ProbeResult]:
    """Connect, and do everything that precedes MAIL.

    :param reactor: connects and keeps time.
    :param server: a URL or a :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :returns: fires with the result; its ``error`` holds any error of the session, also that of
        cancelling, which closes the connection.
    :raises InvalidInput: *server* cannot be used.
    """
    try:
        check_reactor("reactor", reactor)
        chosen = SubmissionServer.of(server)
    except SendmailError:
        return fail()
    connected: list[SubmissionProtocol] = []

    async def run() -> SendmailError | None:
        protocol = await open_session(reactor, chosen, connected.append)
        try:
            reply = await protocol.noop()
        finally:
            protocol.leave()
        if reply.positive:
            return None
        return refusal("NOOP", reply).at(host=protocol.host, tls=protocol.tls)

    def failed(failure: Any) -> SendmailError:
        failure.trap(SendmailError)
        error: SendmailError = failure.value
        return error

    def result(error: SendmailError | None) -> ProbeResult:
        if not connected:
            return ProbeResult(chosen, error)
        protocol = connected[0]
        session = protocol.session
        in_clear = session.offered_in_clear
        if not session.secured and not any(in_clear):
            in_clear = session.capabilities
        return ProbeResult(
            protocol.server or chosen,
            error,
            host=protocol.host,
            in_clear=in_clear,
            offered=session.capabilities,
            tls=protocol.tls,
            presented=protocol.presented,
            authenticated=session.authenticated,
            transcript=session.transcript,
        )

    running = within(reactor, chosen.timeouts.total, run(), lambda: f"the check of {chosen}")
    return running.addErrback(failed).addCallback(result)
