"""Notifications of the database that an operator changed the queue (LISTEN).

They are a hint: the relay also reads the state of the queue every few seconds.  With PgBouncer in
transaction mode none arrives.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFDSet, IReactorThreads, IReadDescriptor
from zope.interface import implementer

from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue.postgresql.connection import connect
from twisted_sendmail.queue.postgresql.driver import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.queue.postgresql.address import DatabaseAddress

#: Seconds after which a connection that was lost is replaced.
RETRY_INTERVAL = 30.0


@implementer(IReadDescriptor)
class ChangeListener:
    """Calls *changed* in the reactor's thread for notifications on *channel*."""

    def __init__(
        self, reactor: Any, address: DatabaseAddress, channel: str, changed: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._channel = channel
        self._changed = changed
        self._connection: psycopg.Connection[Any] | None = None
        self._descriptor = -1
        self._timer: Any = None
        self._stopped = True

    def start(self) -> None:
        """Begin to listen, if the reactor has threads and watches descriptors."""
        provided = IReactorThreads.providedBy(self._reactor)
        if provided and IReactorFDSet.providedBy(self._reactor):
            self._stopped = False
            self._connect()

    def _connect(self) -> None:
        self._timer = None
        connecting = off_reactor(self._reactor, self._listen)
        _ = connecting.addCallbacks(self._connected, lambda _: self._retry())

    def _listen(self) -> psycopg.Connection[Any]:
        return connect(self._address, f"LISTEN {self._channel}".encode())[0]

    def _connected(self, connection: psycopg.Connection[Any]) -> None:
        if self._stopped:
            connection.close()
            return
        self._connection = connection
        # A duplicate: libpq closes its own descriptor when the connection is lost, while the
        # reactor still watches it.
        self._descriptor = os.dup(connection.fileno())
        self._reactor.addReader(self)

    def _retry(self) -> None:
        if not self._stopped:
            self._timer = self._reactor.callLater(RETRY_INTERVAL, self._connect)

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return self._descriptor

    def doRead(self) -> None:  # noqa: N802 - Twisted's
        """See ``IReadDescriptor``; reads what has arrived, and does not wait."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.pgconn.consume_input()
            notified = False
            while connection.pgconn.notifies() is not None:
                notified = True
        except psycopg.Error:
            self._close()
            self._retry()
            return
        if notified:
            self._changed()

    def connectionLost(self, reason: object) -> None:
        """See ``IFileDescriptor``; called when the descriptor fails or the reactor stops."""
        if self._connection is not None:
            self._close()
            self._retry()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """See ``ILoggingContext``."""
        return "queue"

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            connection.close()

    def stop(self) -> None:
        """Stop listening."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._close()
