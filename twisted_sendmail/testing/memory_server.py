"""A server in memory, with real TLS and a clock that :meth:`MemoryServer.run` advances."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_sendmail.client import TLSPolicy, TLSTrust, sendmail
from twisted_sendmail.smtp import check_type
from twisted_sendmail.testing.memory_network import MemoryEndpoint, MemoryNetwork
from twisted_sendmail.testing.recording import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Unpack

    from twisted_sendmail.client import Timeouts
    from twisted_sendmail.message import DKIMKey, Message
    from twisted_sendmail.sasl import Credentials, MechanismFactory
    from twisted_sendmail.smtp import AnyRecipient, DeliveryReport, Envelope, ReversePath
    from twisted_sendmail.testing.recording import ServerOptions

_T = TypeVar("_T")
_Self = TypeVar("_Self", bound="MemoryServer")


class MemoryServer(RecordingServer):
    """A server without sockets, to be used as ``with MemoryServer() as server``.

    :param network: the network it is connected to, with the clock; a new one unless given.

    The other parameters are those of
    :class:`~twisted_sendmail.testing.recording.RecordingServer`, without the clock.
    """

    def __init__(
        self, *, network: MemoryNetwork | None = None, **options: Unpack[ServerOptions]
    ) -> None:
        if network is not None:
            check_type("network", network, MemoryNetwork, "a MemoryNetwork, or None")
        #: The connections to it.
        self.network = network or MemoryNetwork()
        #: A ``twisted.internet.task.Clock``, to be given as the reactor.
        self.clock = self.network.clock
        super().__init__(self.clock, **options)

    @property
    def _place(self) -> str:
        return "memory"

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

    def send(
        self,
        message: Message,
        *,
        implicit: bool = False,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        server_name: str = "localhost",
        tls: TLSPolicy | None = None,
        trust: TLSTrust | None = None,
        credentials: Credentials | None = None,
        mechanisms: Mapping[str, MechanismFactory] | None = None,
        helo_name: str | None = None,
        timeouts: Timeouts | None = None,
        watch: Callable[[str], None] | None = None,
        all_or_nothing: bool = False,
        complete: bool = True,
        dkim: DKIMKey | Sequence[DKIMKey] | None = None,
    ) -> DeliveryReport:
        """Send one message to this server by :func:`~twisted_sendmail.sendmail`, and wait.

        :param implicit: use implicit TLS instead of STARTTLS.
        :param tls: when TLS begins; as the server offers it unless given.
        :param trust: how the server proves its identity; by its CA unless given.

        The other parameters and the errors are those of ``sendmail``.
        """
        if tls is None:
            tls = TLSPolicy.IMPLICIT if implicit else TLSPolicy.STARTTLS
            tls = tls if self._tls else TLSPolicy.NONE
        return self.run(
            sendmail(
                self.tls_endpoint if implicit else self.endpoint,
                message,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                server_name=server_name,
                tls=tls,
                trust=TLSTrust(ca_file=self.ca_file) if trust is None else trust,
                credentials=credentials,
                mechanisms=mechanisms,
                helo_name=helo_name,
                timeouts=timeouts,
                watch=watch,
                all_or_nothing=all_or_nothing,
                complete=complete,
                dkim=dkim,
                reactor=self.clock,
            )
        )
