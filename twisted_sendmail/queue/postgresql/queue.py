"""The queue in a PostgreSQL database, which several relays have open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

from twisted_sendmail.queue.ids import QueueIds
from twisted_sendmail.queue.postgresql.address import DatabaseAddress
from twisted_sendmail.queue.postgresql.listener import ChangeListener
from twisted_sendmail.queue.postgresql.store import RENEWALS, PostgreSQLStore
from twisted_sendmail.queue.stored_queue import StoredQueue

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue.group_commit import Worker
    from twisted_sendmail.queue.models import LeaseTerm


class PostgreSQLQueue(StoredQueue):
    """The queue at *url*, whose tables are created if they are missing.

    :param reactor: an ``IReactorTime``; with ``IReactorFromThreads`` the work is done in threads.
    :param url: see ``DatabaseAddress.parse``.
    :param worker: runs the operations, if given; then long reads run in the caller's thread.
    :raises QueueUnusable: the URL cannot be used.
    """

    _store: PostgreSQLStore

    def __init__(
        self, reactor: Any, url: str | DatabaseAddress, *, worker: Worker | None = None
    ) -> None:
        self.address = url if isinstance(url, DatabaseAddress) else DatabaseAddress.parse(url)
        store = PostgreSQLStore(self.address, damaged=self.found_damaged)
        super().__init__(reactor, store, PostgreSQLStore(self.address), worker=worker)
        # Ids of two relays differ, and are ordered by the database's clock.
        self._ids = QueueIds(
            lambda: reactor.seconds() - store.clock_offset, node=lambda: store.node
        )
        self._renewal = LoopingCall(self._renew)
        self._renewal.clock = reactor
        self._listener = ChangeListener(reactor, self.address, store.channel, self.read_flushed)

    def start_watching(self) -> None:
        """See ``StoredQueue.start_watching``."""
        # By the reactor: a relay whose reactor hangs must not keep its leases.
        interval = self.address.lease_time / RENEWALS
        _ = self._renewal.start(interval, now=False).addErrback(self.log_failure)
        self._listener.start()

    def stop_watching(self) -> None:
        """See ``StoredQueue.stop_watching``."""
        if self._renewal.running:
            self._renewal.stop()
        self._listener.stop()

    def _renew(self) -> Deferred[None]:
        # A renewal that fails is repeated; meanwhile the leases run out.
        renewing = self.write(lambda store: store.renew())  # type: ignore[attr-defined]
        return renewing.addCallbacks(self._renewed, lambda _: None)

    def _renewed(self, renewed: tuple[LeaseTerm, float, Any]) -> None:
        term, until, ended = renewed
        term.extend(until)
        for node, ids in ended:
            self.notify_observer(
                lambda observer, node=node, ids=ids: observer.interrupted(node, ids)  # type: ignore[misc]
            )
        if ended:
            self.notify_observer(lambda observer: observer.mail_waits())
