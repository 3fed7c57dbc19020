"""A real server on 127.0.0.1 in the reactor of the test, for any client.

``background`` has the same server with a reactor of its own, in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed

from twisted_sendmail.client import host_and_port
from twisted_sendmail.smtp import InvalidInput, check_reactor, check_type
from twisted_sendmail.testing.recording import RecordingServer, ServerOptions

if TYPE_CHECKING:
    from types import TracebackType

    from twisted.internet.interfaces import IListeningPort
    from typing_extensions import Unpack

_Self = TypeVar("_Self", bound="LoopbackServer")


class ListeningOptions(ServerOptions, total=False):
    """The parameters of :class:`LoopbackServer`, without the reactor."""

    host: str
    port: int
    tls_port: int


class LoopbackServer(RecordingServer):
    """Listens on two free ports of 127.0.0.1: one for STARTTLS, one for implicit TLS.

    Use it as ``async with LoopbackServer(reactor) as server``, or with :meth:`start` and
    :meth:`stop`, which a ``trial`` test gives to ``addCleanup``.

    The other parameters are those of
    :class:`~twisted_sendmail.testing.recording.RecordingServer`, with the reactor as its clock.

    :param host: the address to listen on.
    :param port: the port for clear text and STARTTLS; 0 chooses a free one.
    :param tls_port: the port for implicit TLS; 0 chooses a free one.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_port: int = 0,
        **options: Unpack[ServerOptions],
    ) -> None:
        check_reactor("reactor", reactor)
        check_type("host", host, str, "an address to listen on, such as 127.0.0.1")
        for name, number in (("port", port), ("tls_port", tls_port)):
            if type(number) is not int or not 0 <= number <= 65535:
                raise InvalidInput(
                    f"{name} cannot be {number!r}", remedy="give a number from 0 to 65535"
                )
        super().__init__(reactor, **options)
        self.host = host
        #: For clear text and STARTTLS, once started.
        self.port = port
        #: For implicit TLS, once started; 0 without TLS.
        self.tls_port = tls_port
        self._ports: list[IListeningPort] = []

    @property
    def _place(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """For STARTTLS, or clear text if there is no TLS."""
        scheme = "smtp+starttls" if self._tls else "smtp"
        return f"{scheme}://{host_and_port(self.host, self.port)}"

    @property
    def tls_url(self) -> str:
        """For implicit TLS."""
        return f"smtps://{host_and_port(self.host, self.tls_port)}"

    def start(self: _Self) -> Deferred[_Self]:
        """Listen; the result is this server.

        :raises twisted.internet.error.CannotListenError: a port is not available.
        """
        self.factory, certificate = self._open()
        try:
            self.port = self._listen(self.port, self.factory)
            if certificate is not None:
                self.tls_port = self._listen(self.tls_port, self.factory.implicit_tls())
        except Exception:
            ports, self._ports = self._ports, []
            for port in ports:
                port.stopListening()
            self._remove_directory()
            raise
        return succeed(self)

    def _listen(self, number: int, factory: Any) -> int:
        port: IListeningPort = self._clock.listenTCP(number, factory, interface=self.host)
        self._ports.append(port)
        address: Any = port.getHost()
        return int(address.port)

    def stop(self) -> Deferred[None]:
        """Stop listening, drop every connection, remove the temporary directory."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        await DeferredList([d for port in ports if (d := port.stopListening()) is not None])
        await DeferredList(self._drop_all())
        self._remove_directory()

    async def __aenter__(self: _Self) -> _Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
