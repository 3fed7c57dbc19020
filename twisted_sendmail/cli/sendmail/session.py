"""``sendmail -bs``: SMTP on stdin and stdout.

If the relay runs, the octets are passed between it and the caller. If not, this process is the
server, and commits each message to the queue before it replies 250.
"""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from zope.interface import implementer

from twisted_sendmail.cli.react import react
from twisted_sendmail.cli.sendmail.delivery import LocalQueue
from twisted_sendmail.cli.sendmail.local_relay import LocalRelay
from twisted_sendmail.daemon.intake import server_settings
from twisted_sendmail.exit_status import ExitStatus
from twisted_sendmail.server import (
    Networks,
    QueueReceiver,
    SMTPServerFactory,
    SMTPServerProtocol,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import Queue


def serve(relay: LocalRelay) -> int:
    """Serve one session; the exit status.

    :raises ConfigurationError: no relay runs, and its configuration cannot be used.
    """
    gc.enable()  # a session may be long

    async def work(reactor: Any) -> int:
        session_done: Deferred[None] = Deferred()
        connected = await _connect(reactor, relay, session_done)
        if connected is None:
            _serve_here(reactor, relay, session_done)
        else:
            _standard_io(reactor, _CallerConnection(connected))
        await session_done
        return ExitStatus.OK

    return react(work)


async def _connect(
    reactor: Any, relay: LocalRelay, session_done: Deferred[None]
) -> _RelayConnection | None:
    """Connect to the relay; None if no relay runs."""
    if not relay.has_socket:
        return None
    endpoint = UNIXClientEndpoint(reactor, str(relay.socket), timeout=5)
    try:
        return cast(
            "_RelayConnection", await connectProtocol(endpoint, _RelayConnection(session_done))
        )
    except Exception:  # noqa: BLE001 - for whatever reason, no relay answers
        return None


def _standard_io(reactor: Any, protocol: Protocol) -> None:
    StandardIO(protocol, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


class _LineEndRepair:
    """Turns LF into CRLF for a caller whose first line ends with LF alone.

    Shell scripts write LF, and sendmail has always accepted it. The octets of all other callers
    stay as they are, because BDAT counts them.
    """

    def __init__(self) -> None:
        self._bare: bool | None = None
        # A CR at the end of the data before.
        self._cr = b""

    def feed(self, data: bytes) -> bytes:
        """*data* with CRLF line ends."""
        octets = self._cr + data
        if self._bare is None and (at := octets.find(b"\n")) >= 0:
            self._bare = octets[:at][-1:] != b"\r"
        if self._bare:
            data = re.sub(rb"(?<!\r)\n", b"\r\n", octets)[len(self._cr) :]
        self._cr = b"\r" if octets.endswith(b"\r") else b""
        return data


class _RelayConnection(Protocol):
    """The connection to the relay."""

    def __init__(self, session_done: Deferred[None]) -> None:
        self.caller: Any = None
        self._session_done = session_done
        self._early: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.caller is None:
            self._early.append(data)  # the greeting, before stdout is open
        else:
            self.caller.write(data)

    def joined(self, caller: Any) -> None:
        """Stdin and stdout are open."""
        self.caller = caller
        caller.writeSequence(self._early)
        transport: Any = self.transport
        caller.registerProducer(transport, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.caller is not None:
            self.caller.unregisterProducer()
            self.caller.loseConnection()
        if not self._session_done.called:
            self._session_done.callback(None)


@implementer(IHalfCloseableProtocol)
class _CallerConnection(Protocol):
    """Stdin and stdout."""

    def __init__(self, relay: _RelayConnection) -> None:
        self._relay = cast("Any", relay.transport)
        self._joined = relay.joined
        self._line_ends = _LineEndRepair()
        self._last_octets = b"\n"

    def connectionMade(self) -> None:
        self._relay.registerProducer(self.transport, True)
        self._joined(self.transport)

    def dataReceived(self, data: bytes) -> None:
        data = self._line_ends.feed(data)
        self._last_octets = (self._last_octets + data[-7:])[-7:]
        self._relay.write(data)

    def readConnectionLost(self) -> None:
        """The caller closed stdin. After QUIT it still waits for the replies."""
        self._relay.unregisterProducer()
        if self._last_octets.upper() != b"\nQUIT\r\n":
            self._relay.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """The caller closed stdout."""
        self._relay.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._relay.abortConnection()


# -- without a relay --------------------------------------------------------------


def _serve_here(reactor: Any, relay: LocalRelay, session_done: Deferred[None]) -> None:
    policy = relay.policy()
    # LocalQueue has the part of a Queue that a receiver uses.
    queue = cast("Queue", LocalQueue(relay.queue))
    factory = _PipeServerFactory(
        reactor,
        lambda connection: QueueReceiver(connection, queue, policy, reactor),
        # Shell scripts write LF.
        settings=server_settings(relay.limits(), policy.name, repair=True),
        early_input=Networks(["unix"]),
    )
    factory.session_done = session_done
    _standard_io(reactor, factory.buildProtocol(cast("Any", None)))


class _PipeServerProtocol(SMTPServerProtocol):
    """Accepts LF line ends."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._line_ends = _LineEndRepair()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(self._line_ends.feed(data))


class _PipeServerFactory(SMTPServerFactory):
    """Fires *session_done* when its one session ends."""

    protocol_class = _PipeServerProtocol
    session_done: Deferred[None]

    def closed(self, protocol: SMTPServerProtocol) -> None:
        """See ``SMTPServerFactory``."""
        super().closed(protocol)
        if not self.session_done.called:
            self.session_done.callback(None)
