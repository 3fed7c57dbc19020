"""``sendmail -bs``: SMTP on stdin and stdout.

Where the relay runs, its own socket is put through, octet for octet; where it does not,
a server of this process speaks, and each message is in the queue before its 250.
"""

from __future__ import annotations

import gc
import os
import re
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
from twisted_sendmail.server import (
    Networks,
    QueueReceiver,
    SMTPServerFactory,
    SMTPServerProtocol,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue


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


class _LineEnds:
    """LF made CRLF, for a caller whose first line ends with LF alone.

    Shell scripts write so, and sendmail has always understood them.  What anybody else says
    stays octet for octet, as BDAT counts them.
    """

    def __init__(self) -> None:
        self._bare: bool | None = None
        # A CR at the end of what came last.
        self._cr = b""

    def feed(self, data: bytes) -> bytes:
        """*data*, as it is to be heard."""
        octets = self._cr + data
        if self._bare is None and (at := octets.find(b"\n")) >= 0:
            self._bare = octets[:at][-1:] != b"\r"
        if self._bare:
            data = re.sub(rb"(?<!\r)\n", b"\r\n", octets)[len(self._cr) :]
        self._cr = b"\r" if octets.endswith(b"\r") else b""
        return data


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
        self._ends = _LineEnds()
        self._end = b"\n"

    def connectionMade(self) -> None:
        self._relay.registerProducer(self.transport, True)
        self._joined(self.transport)

    def dataReceived(self, data: bytes) -> None:
        data = self._ends.feed(data)
        self._end = (self._end + data[-7:])[-7:]
        self._relay.write(data)

    def readConnectionLost(self) -> None:
        """All is said.  Whoever has said QUIT waits for the replies to all of it."""
        self._relay.unregisterProducer()
        if self._end.upper() != b"\nQUIT\r\n":
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
    spool = cast("Queue", queue)
    factory = _OneSession(
        reactor,
        lambda connection: QueueReceiver(connection, spool, policy, reactor),
        # Nobody is on the way between two ends of a pipe; programs that write to one are
        # careless with line ends.
        settings=where.limits().server_settings(policy.name, repair=True),
        early_input=Networks(["unix"]),
    )
    factory.ended = ended
    _standard_io(reactor, factory.buildProtocol(cast("Any", None)))


class _Session(SMTPServerProtocol):
    """Puts up with LF."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._ends = _LineEnds()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(self._ends.feed(data))


class _OneSession(SMTPServerFactory):
    """Tells when its one session is over."""

    protocol_class = _Session
    ended: Deferred[None]

    def closed(self, protocol: SMTPServerProtocol) -> None:
        """See ``SMTPServerFactory``."""
        super().closed(protocol)
        if not self.ended.called:
            self.ended.callback(None)
