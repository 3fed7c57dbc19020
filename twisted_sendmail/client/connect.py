"""From an endpoint to a session ready for mail: connection, greeting, EHLO, STARTTLS, EHLO, AUTH.

A refusal becomes an error here.  A session without TLS, AUTH or an extension that the server's
configuration requires fails before AUTH and MAIL.

RFC 5321 section 3.1 and 4.1.1.1, RFC 3207, RFC 8314, RFC 4954.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectBindError, ConnectingCancelledError
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_sendmail.client.auth import authenticate
from twisted_sendmail.client.dane import TLSARecords, find_tlsa
from twisted_sendmail.client.discovery import find_servers
from twisted_sendmail.client.protocol import SILENCE_SECONDS, SubmissionProtocol
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.timeouts import Cancelled
from twisted_sendmail.client.tls import Handshake, TLSPolicy
from twisted_sendmail.smtp import (
    EHLO_UNKNOWN,
    CertificateRejected,
    CommandNotAllowed,
    ConnectFailed,
    ConnectionFailed,
    DANEUnavailable,
    ProtocolBreach,
    SendmailError,
    SendTimeout,
    StartTLSUnavailable,
    TLSClosed,
    Transcript,
    check_callable,
    check_reactor,
    domain_name,
    printable,
    refusal,
)
from twisted_sendmail.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL
    from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint

    from twisted_sendmail.smtp import Reply

_BY_SILENCE = (ConnectionFailed, TLSClosed, Cancelled)

# A module's logger, because the events of a class's logger hold the connection.
_log = Logger(namespace="twisted_sendmail.client")


async def open_session(
    clock: IReactorTime,
    server: str | SubmissionServer,
    connected: Callable[[SubmissionProtocol], object] | None = None,
) -> SubmissionProtocol:
    """Connect and make ready: the next command may be MAIL.

    :param server: a URL or a :class:`~twisted_sendmail.client.server_config.SubmissionServer`.
    :param connected: called with the protocol when there is a connection.
    :raises SendmailError: why it is not ready; the connection is closed then.

    Cancelling closes the connection.
    """
    check_reactor("clock", clock)
    if connected is not None:
        check_callable("connected", connected, "a function of the protocol, or None")
    server = SubmissionServer.of(server)
    # Before connecting: a file may have been replaced or removed.
    context = None if server.tls is TLSPolicy.NONE else server.trust.context()
    protocol, server, unproved, tlsa = await _connect_to_one(clock, server)
    protocol.server = server
    if connected is not None:
        connected(protocol)
    try:
        if server.tls is TLSPolicy.IMPLICIT:
            async with _handshake(clock, server, context, tlsa) as verifier:
                await protocol.start_tls(verifier)
        name = server.helo_name or _own_name(protocol)
        await _hello(protocol, name, server)
        if (
            server.tls is TLSPolicy.STARTTLS or server.tls is TLSPolicy.OPPORTUNISTIC
        ) and await _starttls(clock, protocol, server, context, tlsa):
            await _hello(protocol, name, server)
        if server.credentials is not None:
            await authenticate(clock, protocol, server.credentials, server.mechanisms)
        protocol.keep_tls_session()
        _log.debug("{host}: ready, {tls}", host=protocol.host, tls=protocol.tls or "in clear")
    except SendmailError as error:
        _end(protocol, error, f"{server}" if unproved else "")
        raise
    except CancelledError:
        # The command was not written yet, or the handshake waits for its turn.
        cancelled = Cancelled("cancelled")
        protocol.abort(cancelled)
        _end(protocol, cancelled)
        raise cancelled from None
    except BaseException:
        protocol.abort()
        raise
    return protocol


def _end(protocol: SubmissionProtocol, error: SendmailError, unproved: str = "") -> None:
    """Complete *error*, and close the connection.

    :param unproved: the server, if its name is not proved.
    """
    if protocol.silent and (
        isinstance(error, SendTimeout)
        or (protocol.silence_noted and isinstance(error, _BY_SILENCE))
    ):
        error.remedy = f"the server sent nothing: {protocol.silence_question}"
    if isinstance(error, ProtocolBreach) and error.phase == "greeting":
        error.remedy = "check host and port: TLS or another protocol answers there"
    if unproved and isinstance(error, CertificateRejected):
        error.remedy = (
            f"DNS names this server, and DNSSEC does not prove it: if it is right, write {unproved}"
        )
    error.at(host=protocol.host, tls=protocol.tls, transcript=protocol.session.transcript)
    protocol.leave()


async def _connect_to_one(
    clock: IReactorTime, server: SubmissionServer
) -> tuple[SubmissionProtocol, SubmissionServer, bool, TLSARecords | None]:
    """Connect to a server, or to the first of a mail domain that accepts the connection.

    With DANE, a server without TLSA records that count is not connected to.

    :returns: the protocol; the server; True if the name of the server is not proved; and its TLSA
        records.
    """
    if not server.discover:
        tlsa = await _tlsa(clock, server)
        return await _connect(clock, server), server, False, tlsa
    candidates = await find_servers(clock, server)
    for number, candidate in enumerate(candidates, 1):
        try:
            tlsa = await _tlsa(clock, candidate.server)
            protocol = await _connect(clock, candidate.server)
        except (ConnectFailed, DANEUnavailable, SendTimeout):
            if number == len(candidates):
                raise
        else:
            return protocol, candidate.server, candidate.target_unproved, tlsa
    raise AssertionError("there is a candidate")


async def _tlsa(clock: IReactorTime, server: SubmissionServer) -> TLSARecords | None:
    if not server.trust.dane or server.resolver is None:
        return None
    host = server.trust.name or server.host
    return (await find_tlsa(clock, server.resolver, host, server.port)).check()


async def _connect(clock: IReactorTime, server: SubmissionServer) -> SubmissionProtocol:
    def build(_address: IAddress | None) -> SubmissionProtocol:
        transcript = Transcript(server.watch)
        protocol = SubmissionProtocol(
            clock, server.timeouts, server.host, transcript, server.extensions
        )
        protocol.use_timer(timer)
        return protocol

    late = False

    def too_late(_: object) -> None:
        nonlocal late
        late = True
        attempt.cancel()

    # The connection goes on with the same delayed call.
    timer = Timer(clock, too_late, SILENCE_SECONDS)
    timer.set("connected", server.timeouts.connect)
    try:
        attempt = cast(
            "Deferred[SubmissionProtocol]", _endpoint(clock, server).connect(_Factory(build))
        )
        return await attempt
    except Exception as error:
        timer.release()
        where = server.host or "the server" if _port(server) is None else server.host_and_port
        what = f"no connection to {where}"
        if late:
            raise SendTimeout(
                f"{what} within {server.timeouts.connect:g} s",
                phase="connect",
                remedy=ConnectFailed.remedy,
            ) from None
        if isinstance(error, SendmailError):
            raise
        if isinstance(error, (CancelledError, ConnectingCancelledError)):
            raise Cancelled("cancelled", phase="connect") from None
        if isinstance(error, ConnectBindError):
            raise ConnectFailed(
                f"{what} from {server.source_address}",
                phase="connect",
                detail=printable(os.strerror(error.osError)) if error.osError else "",
                remedy="give a source address that this machine has",
            ) from error
        why = printable(str(error)).rstrip(".") or type(error).__name__
        raise ConnectFailed(what, phase="connect", detail=why) from error


def _endpoint(reactor: Any, server: SubmissionServer) -> IStreamClientEndpoint:
    """Return the endpoint to connect to; the addresses of a name race (RFC 8305)."""
    if server.endpoint is not None:
        return server.endpoint
    source = None if server.source_address is None else (server.source_address, 0)
    # An IP address needs no thread to look it up.  Timeouts.connect limits all addresses together: the
    # endpoint's own limit, which is for each, is not needed.
    if isIPAddress(server.host):
        return TCP4ClientEndpoint(reactor, server.host, server.port, None, source)  # type: ignore[arg-type]  # no limit
    if isIPv6Address(server.host):
        return TCP6ClientEndpoint(reactor, server.host, server.port, None, source)
    limit = server.timeouts.connect if server.timeouts.connect is not None else 1e6
    return HostnameEndpoint(reactor, server.host, server.port, limit, source)


class _Factory(Factory):
    """Builds one protocol; no noise in the log."""

    noisy = False

    def __init__(self, build: Callable[[Any], SubmissionProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> SubmissionProtocol:
        return self._build(addr)


def _handshake(
    clock: Any, server: SubmissionServer, context: SSL.Context | None, tlsa: TLSARecords | None
) -> Handshake:
    return Handshake(clock, server.trust, server.host, _port(server), context=context, tlsa=tlsa)


def _port(server: SubmissionServer) -> int | None:
    """Return the port that the connection goes to, if it is known."""
    return None if server.endpoint is not None else server.port


async def _hello(protocol: SubmissionProtocol, name: str, server: SubmissionServer) -> None:
    try:
        # Given at once, the first EHLO is written when the greeting has come.
        reply = await protocol.ehlo(name)
    except CommandNotAllowed:
        raise _refused("connection", await protocol.greeting, "greeting") from None
    if reply.positive:
        protocol.session.withhold(*server.ignore_extensions, *server.unsupported)
        verified = protocol.tls is not None and protocol.tls.verified_by != "none"
        if "REQUIRETLS" in protocol.session.capabilities and not verified:
            # It counts only inside TLS with a verified server (RFC 8689 section 4.2.1).
            protocol.session.withhold("REQUIRETLS")
        return
    # HELO has neither STARTTLS nor AUTH.
    clear = server.tls in {TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC} and not protocol.session.secured
    if clear and server.credentials is None and reply.code in EHLO_UNKNOWN:
        reply = await protocol.helo(name)
        if reply.positive:
            return
        raise _name_refused(f"HELO {name}", reply, "HELO")
    if not protocol.session.secured and server.tls is TLSPolicy.STARTTLS:
        raise _no_starttls("EHLO was refused, and without it there is no STARTTLS", reply)
    raise _name_refused(f"EHLO {name}", reply, "EHLO")


async def _starttls(
    clock: Any,
    protocol: SubmissionProtocol,
    server: SubmissionServer,
    context: SSL.Context | None,
    tlsa: TLSARecords | None,
) -> bool:
    """Begin TLS; return True, or False to go on in clear, where that is allowed."""
    required = server.tls is TLSPolicy.STARTTLS
    if "STARTTLS" not in protocol.session.capabilities:
        if required:
            raise _no_starttls("the server does not offer it")
        return False
    async with _handshake(clock, server, context, tlsa) as verifier:
        reply = await protocol.starttls(verifier)
    if reply.positive:
        return True
    if required:
        raise _no_starttls("the server refused it", reply)
    return False


def _no_starttls(why: str, reply: Reply | None = None) -> StartTLSUnavailable:
    error = StartTLSUnavailable(
        "no STARTTLS",
        phase="STARTTLS",
        detail=why,
        reply=reply,
        remedy="no password and no mail was sent in clear; if the server has TLS on another port, use smtps://",
    )
    error.temporary = reply is not None and reply.transient
    return error


def _refused(what: str, reply: Reply, phase: str) -> SendmailError:
    error = refusal(what, reply, phase=phase)
    error.connection_usable = False
    return error


def _name_refused(what: str, reply: Reply, phase: str) -> SendmailError:
    error = _refused(what, reply, phase)
    if reply.permanent:
        error.remedy = "if the reply is about the name, give another as helo_name"
    return error


def host_name() -> str:
    """Return the name of this machine, without a look-up, or ``localhost``: never a literal."""
    try:
        return domain_name(socket.gethostname())
    except SendmailError:
        return "localhost"


def _own_name(protocol: SubmissionProtocol) -> str:
    """Return a full host name, or an address literal; never look a name up, which may block."""
    name = socket.gethostname()
    if "." in name.strip("."):
        try:
            return domain_name(name)
        except SendmailError:
            pass
    host = getattr(cast("Any", protocol.transport).getHost(), "host", None) or "127.0.0.1"
    address = str(host).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
