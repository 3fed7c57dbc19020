"""From a connection to a session ready for mail: greeting, EHLO, STARTTLS, EHLO, AUTH.

A straight line that reads like the RFCs.  It turns refusals into errors, once, and
fails before AUTH and MAIL when what was asked for cannot be had.

RFC 5321 section 3.1 and 4.1.1.1, RFC 3207, RFC 8314, RFC 4954.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from twisted_sendmail.client.auth import authenticate
from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.protocol import SubmissionProtocol
from twisted_sendmail.client.timeouts import Timeouts
from twisted_sendmail.client.tls import Handshake, TLSPolicy, TLSTrust
from twisted_sendmail.smtp import (
    ConnectFailed,
    InvalidServer,
    SendmailError,
    SendTimeout,
    StartTLSUnavailable,
    Transcript,
    domain_name,
    printable,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from OpenSSL import SSL
    from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint

    from twisted_sendmail.sasl import Credentials, MechanismFactory
    from twisted_sendmail.smtp import Reply

# Not of a class: its events would keep the connection.
_log = Logger(namespace="twisted_sendmail.client")


@dataclass(frozen=True)
class Opening:
    """How a connection is made ready.

    :param server_name: the host's name, for errors and, unless ``trust`` says
        otherwise, in its certificate.
    :param port: the server's, for errors only.
    :param tls: when TLS begins.
    :param trust: what proves the server.
    :param credentials: who we are; None for no AUTH.
    :param mechanisms: SASL mechanisms by name, instead of the built-in ones.
    :param helo_name: what to say in EHLO; the host's name if it is a full one, else
        the address of our end of the connection (RFC 5321 section 4.1.4).
    :param timeouts: how long each phase may take.
    :param watch: called with each line of the redacted dialogue.
    :param ignore_extensions: EHLO keywords to take for not offered, where a server is
        known to get them wrong.
    :raises InvalidServer: for what cannot be used, or would send credentials in clear.
    """

    server_name: str = ""
    port: int | None = None
    tls: TLSPolicy = TLSPolicy.STARTTLS
    trust: TLSTrust = field(default_factory=TLSTrust)
    credentials: Credentials | None = None
    mechanisms: Mapping[str, MechanismFactory] | None = None
    helo_name: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    watch: Callable[[str], None] | None = None
    ignore_extensions: tuple[str, ...] = ()

    def context(self) -> SSL.Context | None:
        """What TLS needs of the files of ``trust``; None where there is no TLS.

        :raises InvalidServer: one cannot be read or used.
        """
        return None if self.tls is TLSPolicy.NONE else self.trust.context()

    @property
    def where(self) -> str:
        """``name:port``, as far as known."""
        return f"{self.server_name or 'the server'}{f':{self.port}' if self.port else ''}"

    def __post_init__(self) -> None:
        if not isinstance(self.tls, TLSPolicy):
            msg = f"'{self.tls}' is no TLS policy"
            raise InvalidServer(
                msg, remedy="give a TLSPolicy: IMPLICIT, STARTTLS, OPPORTUNISTIC or NONE"
            )
        if self.credentials is not None and not self.tls.required:
            msg = f"credentials cannot be used with TLSPolicy.{self.tls.name}"
            raise InvalidServer(
                msg, remedy="use IMPLICIT or STARTTLS: a password goes over TLS only"
            )
        if self.tls is not TLSPolicy.NONE:
            if not (self.server_name or self.trust.name or self.trust.fingerprint):
                msg = "the server's certificate cannot be judged without a name"
                raise InvalidServer(
                    msg, remedy="give the server's host name, or the fingerprint of its certificate"
                )
            self.context()
        if self.helo_name is not None:
            domain_name(self.helo_name)
        object.__setattr__(self, "ignore_extensions", _keywords(self.ignore_extensions))


async def open_session(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, opening: Opening
) -> SubmissionProtocol:
    """Connect and make ready: the next command may be MAIL.

    :raises SendmailError: why it is not ready; the connection is closed then.

    Cancelling closes the connection.
    """
    # Before connecting: a file may have been replaced since, or be gone.
    context = opening.context()
    protocol = await _connect(clock, endpoint, opening)
    try:
        await _make_ready(clock, protocol, opening, context)
    except SendmailError as error:
        error.at(host=protocol.host, tls=protocol.tls, transcript=protocol.session.transcript)
        protocol.leave()
        raise
    except BaseException:
        protocol.abort()
        raise
    else:
        _log.debug("{host}: ready, {tls}", host=protocol.host, tls=protocol.tls or "in clear")
    finally:
        # Where it was not awaited, TLS failed before it could come; that is told already.
        _ = protocol.greeting.addErrback(lambda _: None)
    return protocol


async def _connect(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, opening: Opening
) -> SubmissionProtocol:
    name = opening.server_name

    def build(_address: IAddress | None) -> SubmissionProtocol:
        return SubmissionProtocol(clock, opening.timeouts, name, Transcript(opening.watch))

    factory = _Factory(build)
    limit = opening.timeouts.connect
    attempt = cast("Deferred[SubmissionProtocol]", maybeDeferred(endpoint.connect, factory))
    timed_out: list[bool] = []

    def give_up() -> None:
        timed_out.append(True)
        attempt.cancel()

    timer = None if limit is None else clock.callLater(limit, give_up)
    try:
        protocol = await attempt
    except Exception as error:
        what = f"no connection to {opening.where}"
        if timed_out:
            late = f"{what} within {limit:g} s"
            raise SendTimeout(late, phase="connect", remedy=ConnectFailed.remedy) from None
        if isinstance(error, (CancelledError, ConnectingCancelledError)):
            raise Cancelled("cancelled", phase="connect") from None
        if isinstance(error, SendmailError):
            raise
        why = printable(str(error)).rstrip(".") or type(error).__name__
        raise ConnectFailed(what, phase="connect", detail=why) from error
    finally:
        if timer is not None and timer.active():
            timer.cancel()
    return protocol


class _Factory(Factory):
    """Builds one protocol; no noise in the log."""

    noisy = False

    def __init__(self, build: Callable[[Any], SubmissionProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> SubmissionProtocol:
        return self._build(addr)


async def _make_ready(
    clock: Any, protocol: SubmissionProtocol, opening: Opening, context: SSL.Context | None
) -> None:
    if opening.tls is TLSPolicy.IMPLICIT:
        async with _handshake(clock, opening, context) as judge:
            await protocol.start_tls(judge)
    greeting = await protocol.greeting
    if not greeting.positive:
        raise _refused("connection", greeting, "greeting")
    name = opening.helo_name or _own_name(protocol)
    await _hello(protocol, name, opening)
    if opening.tls in {TLSPolicy.STARTTLS, TLSPolicy.OPPORTUNISTIC} and await _starttls(
        clock, protocol, opening, context
    ):
        await _hello(protocol, name, opening)
    if opening.credentials is not None:
        await authenticate(clock, protocol, opening.credentials, opening.mechanisms)
    protocol.keep_tls_session()


def _handshake(clock: Any, opening: Opening, context: SSL.Context | None) -> Handshake:
    return Handshake(clock, opening.trust, opening.server_name, opening.port, context)


async def _hello(protocol: SubmissionProtocol, name: str, opening: Opening) -> None:
    # What came unasked must not pass for the answer to what is said now.
    await protocol.settled()
    reply = await protocol.ehlo(name)
    if reply.positive:
        protocol.session.withhold(*opening.ignore_extensions)
        return
    # HELO has neither STARTTLS nor AUTH.  And only "not known here" is a reason for it.
    clear = (
        opening.tls in {TLSPolicy.NONE, TLSPolicy.OPPORTUNISTIC} and not protocol.session.secured
    )
    if clear and opening.credentials is None and reply.code in {500, 501, 502, 504}:
        reply = await protocol.helo(name)
        if reply.positive:
            return
        raise _refused(f"HELO {name}", reply, "HELO")
    if not protocol.session.secured and opening.tls is TLSPolicy.STARTTLS:
        raise _no_starttls("EHLO was refused, and without it there is no STARTTLS", reply)
    raise _refused(f"EHLO {name}", reply, "EHLO")


async def _starttls(
    clock: Any, protocol: SubmissionProtocol, opening: Opening, context: SSL.Context | None
) -> bool:
    """True once TLS is on; False to go on in clear, where that is allowed."""
    required = opening.tls is TLSPolicy.STARTTLS
    if "STARTTLS" not in protocol.session.capabilities:
        if required:
            raise _no_starttls("the server does not offer it")
        return False
    async with _handshake(clock, opening, context) as judge:
        await protocol.settled()
        reply = await protocol.starttls(judge)
    if reply.positive:
        return True
    if required:
        raise _no_starttls("the server refused it", reply)
    return False


def _keywords(given: object) -> tuple[str, ...]:
    """EHLO keywords in the form they are compared in."""
    if isinstance(given, (tuple, list, set, frozenset)) and all(
        isinstance(word, str) and word for word in given
    ):
        return tuple(sorted({word.upper() for word in given}))
    raise InvalidServer(
        "ignore_extensions cannot be used", remedy='give EHLO keywords, such as ("CHUNKING",)'
    )


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


def _own_name(protocol: SubmissionProtocol) -> str:
    """A full host name, or an address literal; never a look-up, which may block."""
    name = socket.gethostname()
    if "." in name.strip("."):
        try:
            return domain_name(name)
        except SendmailError:
            pass
    host = getattr(cast("Any", protocol.transport).getHost(), "host", None) or "127.0.0.1"
    address = str(host).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
