"""Host name resolution that does not delay the end of the process.

``getaddrinfo`` blocks its thread, for half a minute if no name server answers, and a reactor that stops
waits for the threads of its own pool. This resolver uses daemon threads, for which the end of the process does not wait.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer

from twisted_sendmail.off_reactor import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IAddress, IResolutionReceiver

_ADDRESS_TYPES = {socket.AF_INET: IPv4Address, socket.AF_INET6: IPv6Address}
_SOCKET_TYPES = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


@implementer(IHostResolution)
@attrs.frozen
class _Resolution:
    """The resolution of one name."""

    name: str

    def cancel(self) -> None:
        """See ``IHostResolution``; a thread in ``getaddrinfo`` cannot be stopped."""
        raise NotImplementedError


@implementer(IHostnameResolver)
class DaemonThreadResolver:
    """Resolves host names by ``getaddrinfo`` in daemon threads."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool = DaemonThreads("name resolution")

    def resolveHostName(  # noqa: N802 - Twisted names it
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803 - the same
        hostName: str,  # noqa: N803 - the same
        portNumber: int = 0,  # noqa: N803 - the same
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803 - the same
        transportSemantics: str = "TCP",  # noqa: N803 - the same
    ) -> IHostResolution:
        """See ``IHostnameResolver``."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        wanted = [f for f, t in _ADDRESS_TYPES.items() if addressTypes is None or t in addressTypes]
        family = wanted[0] if len(wanted) == 1 else socket.AF_UNSPEC

        def resolved(found: list[tuple[Any, ...]]) -> None:
            for family, _, _, _, address in found:
                if family in wanted:
                    resolutionReceiver.addressResolved(
                        _ADDRESS_TYPES[family](transportSemantics, *address)
                    )

        kind = _SOCKET_TYPES[transportSemantics]
        resolving = self._pool.call(
            self._reactor, socket.getaddrinfo, hostName, portNumber, family, kind
        )
        # A name that is not found has no addresses.
        _ = resolving.addCallbacks(resolved, lambda failure: failure.trap(OSError, UnicodeError))
        _ = resolving.addBoth(lambda _: resolutionReceiver.resolutionComplete())
        return resolution
