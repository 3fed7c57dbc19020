"""The loopback server in a thread with a reactor of its own, for clients that block.

It neither uses nor installs the global reactor, so it works in every test.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import TimeoutError as TooLong
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.task import Clock
from twisted.internet.threads import blockingCallFromThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python import threadable

from twisted_sendmail.testing.loopback import LoopbackServer

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Unpack

    from twisted_sendmail.server import SMTPServerProtocol
    from twisted_sendmail.testing.faults import Fault
    from twisted_sendmail.testing.loopback import ListeningOptions
    from twisted_sendmail.testing.recording import ReceivedMessage, SessionRecord

_Self = TypeVar("_Self", bound="BackgroundServer")
#: Seconds for the thread to start, and to end.
THREAD_TIMEOUT = 10


def _new_reactor() -> PosixReactorBase:
    try:
        from twisted.internet.epollreactor import EPollReactor
    except ImportError:
        from twisted.internet.selectreactor import SelectReactor

        return SelectReactor()
    reactor: PosixReactorBase = EPollReactor()  # type: ignore[no-untyped-call]  # Twisted's
    return reactor


class _Server(LoopbackServer):
    """Starts TLS without the global reactor, which Twisted's ``startTLS`` needs."""

    def __init__(self, **options: Unpack[ListeningOptions]) -> None:
        super().__init__(Clock(), **options)

    def start_on(self: Any, reactor: Any) -> Any:
        self._clock = reactor
        started = self.start()
        self.factory.start_tls = self._start_tls
        return started

    def _start_tls(self, protocol: SMTPServerProtocol) -> None:
        tls: Any = self.factory.tls
        factory: Any = TLSMemoryBIOFactory(
            tls,
            False,
            None,  # type: ignore[arg-type]  # as Twisted itself calls it
            clock=self._clock,
        )
        raw: Any = protocol.transport
        raw.unregisterProducer()
        layer = factory.protocol(factory, protocol, False)
        raw.protocol = protocol.transport = layer
        layer.makeConnection(raw)
        layer.registerProducer(protocol, True)


class BackgroundServer:
    """A :class:`~twisted_sendmail.testing.loopback.LoopbackServer` in a thread.

    Use it as ``with BackgroundServer() as server``, or with :meth:`start` and
    :meth:`stop`.  The parameters are those of
    :class:`~twisted_sendmail.testing.loopback.LoopbackServer`, without the reactor.
    """

    def __init__(self, **options: Unpack[ListeningOptions]) -> None:
        self._server = _Server(**options)
        self._started = False
        self._reactor: Any = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return repr(self._server).replace("_Server", type(self).__name__, 1)

    def start(self: _Self) -> _Self:
        """Start the thread, and listen."""
        reactor = self._reactor = _new_reactor()
        running = threading.Event()
        io_thread = threadable.ioThread

        def begun() -> None:
            # Running a reactor changes which thread counts as that of the global reactor.
            threadable.ioThread = io_thread
            running.set()

        def run() -> None:
            reactor.callWhenRunning(begun)
            reactor.run(installSignalHandlers=False)

        self._thread = threading.Thread(target=run, name="smtp server of a test", daemon=True)
        self._thread.start()
        if not running.wait(THREAD_TIMEOUT):
            raise RuntimeError("the server's thread does not start")
        try:
            blockingCallFromThread(reactor, self._server.start_on, reactor)
        except BaseException:
            self._end_thread()
            raise
        self._started = True
        return self

    def stop(self) -> None:
        """Stop listening, drop every connection, end the thread."""
        if self._started:
            self._started = False
            stop: Any = self._server.stop
            blockingCallFromThread(self._reactor, stop)
            self._end_thread()

    def _end_thread(self) -> None:
        reactor = self._reactor
        reactor.callFromThread(reactor.stop)
        if self._thread is not None:
            self._thread.join(THREAD_TIMEOUT)
        # A reactor that has ended keeps the descriptors that wake it.
        for reader in list(reactor._internalReaders):  # noqa: SLF001 - as Twisted's tests do
            reactor.removeReader(reader)
            reader.connectionLost(None)
        reactor._internalReaders.clear()  # noqa: SLF001
        poller = getattr(reactor, "_poller", None)
        if poller is not None:
            poller.close()

    def __enter__(self: _Self) -> _Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> _Server:
        if not self._started:
            raise RuntimeError("the server is not running: start it first")
        return self._server

    @property
    def host(self) -> str:
        """``127.0.0.1``."""
        return self._running.host

    @property
    def port(self) -> int:
        """For clear text and STARTTLS."""
        return self._running.port

    @property
    def tls_port(self) -> int:
        """For implicit TLS; 0 without TLS."""
        return self._running.tls_port

    @property
    def url(self) -> str:
        """For STARTTLS, or clear text if there is no TLS."""
        return self._running.url

    @property
    def tls_url(self) -> str:
        """For implicit TLS."""
        return self._running.tls_url

    @property
    def ca_file(self) -> str:
        """The path of the CA certificate that the client has to trust."""
        return self._running.ca_file

    @property
    def messages(self) -> list[ReceivedMessage]:
        """The accepted messages, in order."""
        return list(self._server.messages)

    @property
    def sessions(self) -> list[SessionRecord]:
        """The connections, in order."""
        return list(self._server.sessions)

    def set_faults(self, *faults: Fault) -> None:
        """Commit these faults from now on, instead of those before; without any, none.

        :raises InvalidInput: one is no fault, or is one of the certificate, which is chosen at the
            start.
        """
        blockingCallFromThread(self._reactor, self._running.set_faults, *faults)

    def clear(self) -> None:
        """Forget messages and sessions."""
        blockingCallFromThread(self._reactor, self._running.clear)

    def wait_for(self, count: int, timeout: float = 10) -> list[ReceivedMessage]:
        """Return all messages as soon as there are *count*.

        :raises TimeoutError: after *timeout* seconds, with the number there are.
        """
        server = self._running
        try:
            return blockingCallFromThread(self._reactor, server.wait_for, count, timeout)
        except TooLong:
            received = f"{len(server.messages)} of {count} messages"
            raise TimeoutError(f"{received} were received in {timeout} seconds") from None
