"""``sendmail -bs``: SMTP on stdin and stdout.

Where the relay runs, its own socket is put through, octet for octet; where it does not,
a server of this process speaks, and each message is in the queue before its 250.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from zope.interface import implementer

from twisted_sendmail.cli.local_queue import LocalQueue
from twisted_sendmail.cli.relay_place import Place
from twisted_sendmail.cli.running import run
from twisted_sendmail.ingress.factory import SMTPServerFactory
from twisted_sendmail.ingress.spooling import SpoolingReceiver
from twisted_sendmail.smtp.server_settings import ServerSettings

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from twisted_sendmail.ingress.protocol import SMTPServerProtocol
    from twisted_sendmail.spool.spool import Spool


def serve(where: Place) -> int:
    """Speak until one side ends; the exit status.

    :raises ConfigurationError: there is no relay, and its rules cannot be read.
    """
    gc.enable()  # a session may be long

    async def work(reactor: Any) -> int:
        endpoint = UNIXClientEndpoint(reactor, str(where.socket), timeout=5)
        ended: Deferred[None] = Deferred()
        try:
            relay = await connectProtocol(endpoint, _Relay(ended))
        except Exception:  # noqa: BLE001 - whatever it is, there is no relay
            _serve_here(reactor, where, ended)
        else:
            _standard_io(reactor, _Caller(relay))
        await ended
        return os.EX_OK

    return run(work)


def _standard_io(reactor: Any, protocol: Protocol) -> None:
    StandardIO(protocol, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


class _Relay(Protocol):
    """The relay's end."""

    def __init__(self, ended: Deferred[None]) -> None:
        self.caller: Any = None
        self._ended = ended
        self._early: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.caller is None:
            self._early.append(data)  # its greeting, before stdout is open
        else:
            self.caller.write(data)

    def joined(self, caller: Any) -> None:
        """Stdin and stdout are there."""
        self.caller = caller
        caller.writeSequence(self._early)
        transport: Any = self.transport
        caller.registerProducer(transport, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.caller is not None:
            self.caller.unregisterProducer()
            self.caller.loseConnection()
        if not self._ended.called:
            self._ended.callback(None)


@implementer(IHalfCloseableProtocol)
class _Caller(Protocol):
    """Stdin and stdout."""

    def __init__(self, relay: _Relay) -> None:
        self._relay = cast("Any", relay.transport)
        self._joined = relay.joined
        self._end = b""

    def connectionMade(self) -> None:
        self._relay.registerProducer(self.transport, True)
        self._joined(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._end = (self._end + data[-6:])[-6:]
        self._relay.write(data)

    def readConnectionLost(self) -> None:
        """All is said.  Whoever has said QUIT waits for the replies to all of it."""
        self._relay.unregisterProducer()
        if self._end.strip().upper() != b"QUIT":
            self._relay.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Nobody reads any more."""
        self._relay.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._relay.abortConnection()


# -- without a relay --------------------------------------------------------------


def _serve_here(reactor: Any, where: Place, ended: Deferred[None]) -> None:
    policy, queue = where.policy(), LocalQueue(where.queue)
    # As much of a spool as a receiver asks for.
    spool = cast("Spool", queue)
    factory = _OneSession(
        reactor,
        lambda connection: SpoolingReceiver(connection, spool, policy, reactor),
        # Nobody is on the way between two ends of a pipe; programs that write to one are
        # careless with line ends.
        settings=ServerSettings(
            host=policy.name, require_tls=False, max_hops=policy.max_hops, repair=True
        ),
    )
    factory.ended = ended
    _standard_io(reactor, factory.buildProtocol(cast("Any", None)))


class _OneSession(SMTPServerFactory):
    """Tells when its one session is over."""

    ended: Deferred[None]

    def closed(self, protocol: SMTPServerProtocol) -> None:
        """See ``SMTPServerFactory``."""
        super().closed(protocol)
        if not self.ended.called:
            self.ended.callback(None)
