"""A server in memory, with real TLS and a clock that :meth:`MemoryServer.run` advances."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client import TLSPolicy, TLSTrust, sendmail
from twisted_sendmail.testing.memory_network import MemoryEndpoint, MemoryNetwork
from twisted_sendmail.testing.recording import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from twisted_sendmail.message import Message
    from twisted_sendmail.smtp import DeliveryReport

_T = TypeVar("_T")
_Self = TypeVar("_Self", bound="MemoryServer")


class MemoryServer(RecordingServer):
    """A server without sockets, to be used as ``with MemoryServer() as server``.

    :param network: the network it is connected to, with the clock; a new one unless given.

    The other parameters are those of
    :class:`~twisted_sendmail.testing.recording.RecordingServer`, without the clock.
    """

    def __init__(self, *, network: MemoryNetwork | None = None, **options: Any) -> None:
        #: The connections to it.
        self.network = network or MemoryNetwork()
        #: A ``twisted.internet.task.Clock``, to be given as the reactor.
        self.clock = self.network.clock
        super().__init__(self.clock, **options)

    def __enter__(self: _Self) -> _Self:
        factory, certificate = self._open()
        #: For clear text and STARTTLS.
        self.endpoint = MemoryEndpoint(self.network, factory)
        #: For implicit TLS.
        self.tls_endpoint = MemoryEndpoint(
            self.network, factory if certificate is None else factory.implicit_tls()
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop_all()
        self.network.run()
        self._remove_directory()

    def run(self, work: Awaitable[_T], *, patience: float = 7200) -> _T:
        """Move octets and time until *work* is done; return its result, or raise its error.

        :param work: a Deferred or a coroutine.
        :param patience: seconds of the clock until it counts as stuck.
        :raises AssertionError: *work* is stuck.
        """
        deferred: Deferred[_T]
        if isinstance(work, Deferred):
            deferred = work
        else:
            coroutine: Coroutine[Deferred[Any], Any, _T] = work  # type: ignore[assignment]  # the other kind
            deferred = Deferred.fromCoroutine(coroutine)
        results: list[_T | Failure] = []
        watched = deferred.addBoth(results.append)
        end = self.clock.seconds() + patience
        while True:
            self.network.run()
            if results:
                break
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not times or min(times) > end:
                watched.cancel()
                raise AssertionError("nothing is left to happen, and the result is not there")
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.network.advance(seconds)

    def send(self, message: Message, *, implicit: bool = False, **options: Any) -> DeliveryReport:
        """Send one message to this server by :func:`~twisted_sendmail.sendmail`, and wait.

        :param implicit: use implicit TLS instead of STARTTLS.
        :param options: as for ``sendmail``.
        """
        policy = TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS
        options.setdefault("tls", policy if self._tls else TLSPolicy.NONE)
        options.setdefault("trust", TLSTrust(ca_file=self.ca_file))
        options.setdefault("server_name", "localhost")
        endpoint = self.tls_endpoint if implicit else self.endpoint
        return self.run(sendmail(endpoint, message, reactor=self.clock, **options))
