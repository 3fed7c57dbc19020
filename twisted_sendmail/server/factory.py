"""Makes a server protocol for each connection, and counts the connections.

The factory puts a server together: settings, certificate, accounts, deadlines, limits, and the
receiver of the mail; :func:`resolve` refuses settings that contradict each other.

RFC 5321 section 3.8 (421), RFC 6409 (submission).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_sendmail.sasl import BEARER_REFUSALS
from twisted_sendmail.server.auth import EXCHANGES, AuthThrottle
from twisted_sendmail.server.networks import Networks, UserOrigin
from twisted_sendmail.server.password_file import HashedAccounts
from twisted_sendmail.server.protocol import SMTPServerProtocol
from twisted_sendmail.server.timeouts import ServerTimeouts
from twisted_sendmail.server.user_rates import UserRates
from twisted_sendmail.smtp import (
    DERIVED_EXTENSIONS,
    InvalidInput,
    InvalidServer,
    Reply,
    ServerSession,
    ServerSettings,
    check_callable,
    check_flag,
    check_positive,
    check_reactor,
    check_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from twisted.internet.interfaces import (
        IAddress,
        IOpenSSLServerConnectionCreator,
        IProtocolFactory,
        IReactorTime,
    )

    from twisted_sendmail.server.auth import Accounts
    from twisted_sendmail.server.connection_info import ConnectionInfo
    from twisted_sendmail.server.receiver import Receiver
    from twisted_sendmail.smtp import ServerHandler

_log = Logger(namespace="twisted_sendmail.server")
#: Seconds that a connection without a message has to close after the 421.
_CLOSE_TIMEOUT = 2.0
_TOO_FAST = Reply(421, ("4.7.0 Too many connections in a short time: try again later",))
#: Seconds that connections that were dropped have to be gone.
_ABORT_TIMEOUT = 1.0


@frozen
class ConnectionLimits:
    """The numbers of connections that may be open at once.

    :raises InvalidInput: a limit is not a whole number above zero.
    """

    total: int = 1000
    #: From one address; an IPv6 network of 64 bits counts as one.
    per_address: int = 100
    #: Of one user of this machine, on Unix sockets.
    per_user: int = 50

    def __attrs_post_init__(self) -> None:
        for name in ("total", "per_address", "per_user"):
            check_positive(
                f"the limit '{name}'", getattr(self, name), "a whole number above zero", whole=True
            )


class ConnectionCounter:
    """Counts open connections, and refuses those above a limit.

    Servers that replace each other on an endpoint share one, so that the limits hold for the
    connections of all of them.

    :param by_origin: open connections by their origin; counters that share it limit the connections
        from one address over all their servers.
    """

    def __init__(self, by_origin: Counter[Hashable] | None = None) -> None:
        if by_origin is not None:
            check_type("by_origin", by_origin, Counter, "a Counter, or None")
        self._by_origin: Counter[Hashable] = Counter() if by_origin is None else by_origin
        self._total = 0

    def opened(self, origin: Hashable, limits: ConnectionLimits) -> Reply | None:
        """Count a connection that has begun; return the refusal if there are too many."""
        refusal = None
        if self._total >= limits.total:
            refusal = Reply(421, ("4.7.0 Too many connections: try again later",))
        elif isinstance(origin, UserOrigin):
            if self._by_origin[origin] >= limits.per_user:
                refusal = Reply(421, ("4.7.0 Too many connections of your user",))
        elif self._by_origin[origin] >= limits.per_address:
            refusal = Reply(421, ("4.7.0 Too many connections from your address",))
        self._total += 1
        self._by_origin[origin] += 1
        return refusal

    def closed(self, origin: Hashable) -> None:
        """Count a connection that is over."""
        self._total -= 1
        self._by_origin[origin] -= 1
        if self._by_origin[origin] <= 0:
            del self._by_origin[origin]


class SMTPServerFactory(ServerFactory):
    """An SMTP, submission or LMTP server, to be listened with on any endpoint.

    :param clock: the reactor, for deadlines.
    :param receiver: makes the receiver of one message, given the connection.
    :param tls: certificate and key: STARTTLS is offered, and MAIL in clear text refused.  For
        implicit TLS see :meth:`implicit_tls`.
    :param trusted: networks whose clients need neither TLS nor AUTH.  Without *accounts* no other
        client is served.  None: there is no such distinction.
    :param early_input: networks whose clients may send content before the reply to DATA
        (``allow_early_input`` of the settings), because they do not wait for it.
    :param repair: networks whose clients' content is repaired (``repair`` of the settings).
    :param throttle: delays logins, where several servers share it; else one is made with
        ``deadlines.failed_login``.
    :param counter: counts the connections for *limits*, where several servers share it.
    :param user_rates: limits the rate of each user of this machine on Unix sockets; None: no limit.
    :param trace: put a Received field before the content that the receiver gets.
    :param accounts: the users: AUTH is offered, and MAIL without it refused.  Without *tls* AUTH is
        offered only where the endpoint has TLS of its own (``ssl:``).
    :param settings: what else is offered and allowed; the fields ``starttls``, ``require_tls``,
        ``mechanisms`` and ``require_auth`` follow from *tls* and *accounts* unless each is given.
    :raises InvalidInput: an argument is of the wrong type.
    :raises InvalidServer: two of the above contradict each other; the text names both.
    """

    noisy = False
    #: The class of the protocols.
    protocol_class: type[SMTPServerProtocol] = SMTPServerProtocol

    def __init__(
        self,
        clock: IReactorTime,
        receiver: Callable[[ConnectionInfo], Receiver],
        *,
        tls: IOpenSSLServerConnectionCreator | None = None,
        accounts: Accounts | None = None,
        settings: ServerSettings | None = None,
        deadlines: ServerTimeouts | None = None,
        limits: ConnectionLimits | None = None,
        trusted: Networks | None = None,
        early_input: Networks | None = None,
        repair: Networks | None = None,
        throttle: AuthThrottle | None = None,
        counter: ConnectionCounter | None = None,
        user_rates: UserRates | None = None,
        trace: bool = True,
    ) -> None:
        check_reactor("clock", clock)
        check_callable(
            "receiver",
            receiver,
            "a subclass of Receiver, or a function that takes a ConnectionInfo",
        )
        if tls is not None and not hasattr(tls, "serverConnectionForTLS"):
            raise InvalidInput(
                f"tls cannot be {type(tls).__name__}",
                remedy='give ServerTLS("server.pem"), or None',
            )
        if accounts is not None and not hasattr(accounts, "mechanisms"):
            raise InvalidInput(
                f"accounts cannot be {type(accounts).__name__}",
                remedy="give a PasswordFile, PortalAccounts or another Accounts, or None",
            )
        check_flag("trace", trace)
        for name, value, kind in (
            ("settings", settings, ServerSettings),
            ("deadlines", deadlines, ServerTimeouts),
            ("limits", limits, ConnectionLimits),
            ("trusted", trusted, Networks),
            ("early_input", early_input, Networks),
            ("repair", repair, Networks),
            ("throttle", throttle, AuthThrottle),
            ("counter", counter, ConnectionCounter),
            ("user_rates", user_rates, UserRates),
        ):
            if value is not None:
                check_type(name, value, kind, f"a {kind.__name__}, or None")
        self.clock = clock
        self.receiver = receiver
        self.tls = tls
        self.accounts = accounts
        self.settings = resolve(settings or ServerSettings(), tls, accounts, trusted)
        self.deadlines = deadlines or ServerTimeouts()
        self.limits = limits or ConnectionLimits()
        self.trusted = trusted
        self.early_input = early_input or Networks()
        self.repair = repair or Networks()
        if throttle is None:
            throttle = AuthThrottle(clock, self.deadlines.failed_login)
        self.throttle = throttle
        self.user_rates = user_rates
        self.trace = trace
        #: The open connections.
        self.connections: set[SMTPServerProtocol] = set()
        self._counter = counter or ConnectionCounter()
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress) -> SMTPServerProtocol:  # type: ignore[override]  # Twisted's Factory is generic in name only
        """Return a protocol that serves the client, or refuses it in the greeting."""
        greeting = None
        settings = self.settings
        if self.trusted is not None:
            if addr in self.trusted:
                settings = replace(settings, require_tls=False, require_auth=False)
            elif self.accounts is None:
                greeting = Reply(554, ("5.7.1 No service for your address",))
        if addr in self.early_input:
            settings = replace(settings, allow_early_input=True)
        if addr in self.repair:
            settings = replace(settings, repair=True)
        return self.protocol_class(self, settings, greeting)

    def implicit_tls(self) -> IProtocolFactory:
        """Return a factory of the same server with implicit TLS (RFC 8314), to listen with.

        :raises InvalidServer: there is no certificate.
        """
        if self.tls is None:
            raise InvalidServer("implicit TLS cannot be offered", remedy="give a certificate")
        return TLSMemoryBIOFactory(self.tls, False, self, clock=self.clock)

    def opened(self, protocol: SMTPServerProtocol) -> Reply | None:
        """Count a connection that has begun; return the refusal if there are too many."""
        self.connections.add(protocol)
        connection = protocol.connection
        refusal = self._counter.opened(connection.origin, self.limits)
        local, rates = connection.local, self.user_rates
        if refusal is None and local is not None and rates is not None:
            refusal = None if rates.connected(local.uid) else _TOO_FAST
        return refusal

    def closed(self, protocol: SMTPServerProtocol) -> None:
        """Count a connection that is over."""
        self.connections.discard(protocol)
        self._counter.closed(protocol.connection.origin)
        if not self.connections:
            if self._all_gone is not None:
                gone, self._all_gone = self._all_gone, None
                gone.callback(None)
            self.stopFactory()

    def startFactory(self) -> None:
        """See ``IProtocolFactory``: name the users whom some clients cannot log in as."""
        if isinstance(self.accounts, HashedAccounts) and self.accounts.warning is not None:
            _log.warn("accounts: {warning}", warning=self.accounts.warning)

    def stopFactory(self) -> None:
        """See ``IProtocolFactory``: end the threads of the accounts when no connection is left."""
        idle = not self.connections and not self.numPorts
        if idle and isinstance(self.accounts, HashedAccounts):
            self.accounts.close()

    async def wind_up(self, grace: float) -> None:
        """Close all connections: at once between messages, else when a message has its reply.

        Stop listening first.  Only a message is waited for: a connection in a TLS handshake is
        dropped at once, and another one without a message is dropped if it is still there two
        seconds after the 421 (the client does not read, or does not close its side of TLS).

        :param grace: seconds after which the remaining connections are dropped.
        """
        for protocol in list(self.connections):
            if protocol.in_handshake:
                _drop(protocol)
            else:
                protocol.wind_up()
        end = self.clock.seconds() + grace
        while self.connections and self.clock.seconds() < end:
            closing = {each for each in self.connections if not each.carries_message}
            await self._gone(min(end - self.clock.seconds(), _CLOSE_TIMEOUT))
            for protocol in closing & self.connections:
                if not protocol.carries_message:
                    _drop(protocol)
        for protocol in list(self.connections):
            _drop(protocol)
        await self._gone(min(grace, _ABORT_TIMEOUT))

    async def _gone(self, grace: float) -> None:
        if not self.connections:
            return
        gone = self._all_gone = Deferred()
        late = self.clock.callLater(grace, gone.callback, None)
        await gone
        self._all_gone = None
        if late.active():
            late.cancel()

    def session(
        self, settings: ServerSettings, handler: ServerHandler, *, tls: bool
    ) -> ServerSession:
        """Return the session of one connection."""
        return ServerSession(settings, handler, tls=tls)

    def start_tls(self, protocol: SMTPServerProtocol) -> None:
        """Start TLS as server on the protocol's transport."""
        transport: Any = protocol.transport
        transport.startTLS(self.tls)


def _drop(protocol: SMTPServerProtocol) -> None:
    transport: Any = protocol.transport
    transport.abortConnection()


def resolve(
    settings: ServerSettings,
    tls: IOpenSSLServerConnectionCreator | None,
    accounts: Accounts | None,
    trusted: Networks | None = None,
) -> ServerSettings:
    """Return *settings* with the fields that are None derived from the rest of the server.

    :raises InvalidServer: two arguments contradict each other; the text names both, and a remedy.
    """
    known = () if accounts is None else accounts.mechanisms
    resolved = settings.resolved(certificate=tls is not None, mechanisms=known)
    for contradiction, remedy in chain(
        _contradicting_extensions(settings),
        _contradicting_tls(settings, resolved, tls),
        _contradicting_auth(settings, resolved, accounts),
        _contradicting_trust(settings, accounts, trusted),
    ):
        raise InvalidServer(contradiction, remedy=remedy)
    return resolved


# Each of these yields what cannot be true together, and what to do about it.


def _contradicting_extensions(requested: ServerSettings) -> Iterator[tuple[str, str]]:
    given = {each if isinstance(each, str) else each.keyword for each in requested.extensions}
    for word, source in DERIVED_EXTENSIONS.items():
        if word in given:
            yield (
                f"extensions has {word}, which follows from {source}",
                f"leave {word} out of extensions",
            )


def _contradicting_tls(
    requested: ServerSettings, resolved: ServerSettings, tls: IOpenSSLServerConnectionCreator | None
) -> Iterator[tuple[str, str]]:
    if tls is None and requested.starttls:
        what = "starttls=True: STARTTLS cannot be offered without tls"
        yield what, "give tls a certificate, or leave starttls out"
    if tls is None and requested.require_tls:
        what = "require_tls=True: TLS is demanded and cannot be offered without tls"
        yield what, "give tls a certificate; leave require_tls out if the endpoint itself has TLS"
    if requested.clear_auth and resolved.require_tls:
        implied = "" if requested.require_tls else ", which follows from tls"
        what = f"clear_auth=True with require_tls=True{implied}"
        yield what, "leave clear_auth out, or take mail in clear too by require_tls=False"


def _contradicting_auth(
    requested: ServerSettings, resolved: ServerSettings, accounts: Accounts | None
) -> Iterator[tuple[str, str]]:
    mechanisms = resolved.mechanisms or ()
    if accounts is None:
        for name in ("mechanisms", "require_auth", "clear_auth"):
            if value := getattr(requested, name):
                what = f"{name}={value!r}: AUTH cannot be offered without accounts"
                yield what, f"give accounts, or leave {name} out"
        return
    if not mechanisms:
        remedy = "give accounts that have a mechanism, or none"
        if requested.mechanisms is not None:
            remedy = "leave mechanisms out, or accounts"
        yield "accounts are given and mechanisms is empty: AUTH cannot be offered", remedy
    for known, source in ((EXCHANGES, "this server"), (accounts.mechanisms, "these accounts")):
        unknown = [name for name in mechanisms if name not in known]
        if unknown:
            what = f"mechanisms has {', '.join(unknown)}, which cannot be offered with {source}"
            yield what, f"choose of {', '.join(known)}"
    for names, method, kind in (
        (BEARER_REFUSALS, "check_token", "TokenAccounts"),
        (("EXTERNAL",), "check_certificate", "CertificateAccounts"),
    ):
        without = [name for name in mechanisms if name in names]
        if without and not hasattr(accounts, method):
            what = f"mechanisms has {', '.join(without)}, and the accounts have no {method}"
            yield what, f"give accounts that implement {kind}"


def _contradicting_trust(
    requested: ServerSettings, accounts: Accounts | None, trusted: Networks | None
) -> Iterator[tuple[str, str]]:
    if trusted is None:
        return
    for name in ("require_tls", "require_auth"):
        if getattr(requested, name):
            what = f"{name}=True with trusted networks, whose machines are exempt from it"
            yield what, f"leave {name} out: it follows for all others; or leave trusted out"
    if not trusted and accounts is None:
        what = "trusted names no network and there are no accounts: no client could send"
        yield what, "name a network in trusted, or give accounts"
