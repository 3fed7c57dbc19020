"""``RelayService``: a relay in a Twisted application, from its start to its end.

Puts the parts together, and says in which order they begin and end.  Whoever brings mail
in, be it :meth:`RelayService.send` or a server, is answered when it is durable; from then
on it is delivered, or its sender told, across restarts.

It listens on nothing: that is ``ingress``'s, and they meet in the spool.
"""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_sendmail.client import SubmissionServer
from twisted_sendmail.queue import CleanupPolicy, Queue, QueueAction, RecoveryReport, Selection
from twisted_sendmail.relay.announcement import Announcement
from twisted_sendmail.relay.clearing import Clearing
from twisted_sendmail.relay.delivery import Attempts
from twisted_sendmail.relay.dispatcher import QueueManager
from twisted_sendmail.relay.events import Event, Interrupted, Observer
from twisted_sendmail.relay.ledger import Ledger
from twisted_sendmail.relay.log import log_event
from twisted_sendmail.relay.reporting import Reporter
from twisted_sendmail.relay.routing import Routing
from twisted_sendmail.relay.settings import RelaySettings, RouteSettings
from twisted_sendmail.relay.stats import RelayStats, RouteStats
from twisted_sendmail.relay.taking import take
from twisted_sendmail.relay.tracker import Handles, Queued
from twisted_sendmail.smtp import InvalidInput, MailerClosed, domain_name

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.client import Mailer
    from twisted_sendmail.message import Message
    from twisted_sendmail.queue import QueueActionResult, QueuedMessage
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath


#: Seconds.
_HEAD_START = 0.02


class RelayService(Service):
    """A relay, as a service.

    :param reactor: connects and keeps time.
    :param spool: a :class:`~twisted_sendmail.queue.interface.Queue`, or the directory of an
        embedded queue; opened and closed by the service.
    :param settings: what it is told.
    :param policy: how mail is admitted by :meth:`send`; by default it is made complete.
    :param chance: gives numbers from 0 to 1, for the jitter of waits.

    Starting it opens the queue.  That may fail, and takes its time: :meth:`ready` tells.
    """

    log = Logger(namespace="twisted_sendmail.relay")

    def __init__(
        self,
        reactor: Any,
        spool: Queue | str | os.PathLike[str],
        settings: RelaySettings,
        *,
        policy: CleanupPolicy | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._given = spool
        self.settings = settings
        self._routing = Routing(settings.routes)
        #: How mail is admitted; for other doors too.
        self.policy = policy or CleanupPolicy(settings.name, self.route_of)
        self._chance = chance
        #: Told of everything that happens.
        self.observers: list[Observer] = [log_event]
        self._handles = Handles()
        self._spool: Queue | None = None
        self._dispatcher: QueueManager | None = None
        self._attempts: Attempts | None = None
        self._reporter: Reporter | None = None
        self._clearing: Clearing | None = None
        self._started: Announcement[RecoveryReport] | None = None
        self._checking = False
        self._draining: Deferred[Any] | None = None
        # Mailers of routes that changed, on their way out.
        self._leaving: dict[Mailer, Deferred[None]] = {}

    @classmethod
    def to(
        cls,
        reactor: Any,
        server: str | SubmissionServer,
        directory: str | os.PathLike[str],
        *,
        password: str | None = None,
        name: str | None = None,
    ) -> RelayService:
        """A relay that gives everything to one server.

        :param server: a URL such as ``smtp+starttls://user@host``, or a SubmissionServer.
        :param directory: of the queue; made where it is missing.
        :param password: for the user in the URL.
        :param name: our host name; the machine's if not given.
        :raises InvalidInput: for what cannot be used.
        """
        if isinstance(server, str):
            server = SubmissionServer.from_url(server, password=password)
        route = RouteSettings("smarthost", (server,))
        return cls(reactor, directory, RelaySettings(name or _host_name(), (route,)))

    # -- the service ---------------------------------------------------------------------

    def startService(self) -> None:
        """See ``IService``."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        started: Announcement[RecoveryReport] = Announcement()
        self._started = started
        starting = Deferred.fromCoroutine(self._start()).addErrback(self._not_started)
        _ = starting.addBoth(started.tell)

    def ready(self) -> Deferred[RecoveryReport]:
        """Fires when the queue is open, with what was found in it.

        :raises QueueUnusable: it cannot be opened; one line says why, and what to do.
        :raises MailerClosed: the service was not started.
        """
        if self._started is None:
            return fail(_not_running())
        return self._started.wait()

    async def _start(self) -> RecoveryReport:
        spool = self._spool = self._new_spool()
        reporter = Reporter(self._reactor, spool, self.settings, self._routing, self._chance)
        ledger = Ledger(spool, tell=self._tell, ended=self._handles.ended)
        attempts = Attempts(
            self._reactor, spool, reporter, ledger, tell=self._tell, chance=self._chance
        )
        dispatcher = QueueManager(
            self._reactor,
            spool,
            attempts,
            tell=self._tell,
            chance=self._chance,
            stirred=self._stirred,
        )
        _ = dispatcher.configure(self.settings, self._routing)
        recovered = await spool.open()
        self._reporter, self._attempts, self._dispatcher = reporter, attempts, dispatcher
        if recovered.interrupted:
            self._tell(Interrupted(recovered.interrupted))
        dispatcher.begin()
        keep = self.settings.keep_undeliverable
        self._clearing = Clearing(self._reactor, spool, keep, tell=self._tell)
        self._clearing.begin()
        return recovered

    def _not_started(self, failure: Failure) -> Failure:
        self.log.critical("the relay did not start: {error}", error=failure.value)
        self._spool = None
        return failure

    def _new_spool(self) -> Queue:
        if isinstance(self._given, Queue):
            return self._given
        from twisted_sendmail.queue import SQLiteQueue

        return SQLiteQueue(self._reactor, self._given)  # type: ignore[arg-type]

    def drain(self) -> Deferred[None]:
        """Take nothing more out, and let end what is on its way; fires when all of it has.

        Only messages that a connection has taken are waited for, ``settings.grace`` seconds
        at most: those that have not ended then are cut off, and stay in the queue.  A message
        that waits for a connection is back in the queue at once, and a connection that is
        idle or still opening is closed.  What comes in meanwhile is kept, and not tried.
        Stopping does the same; this is for who has something else to end at the same time.
        """
        dispatcher, attempts = self._dispatcher, self._attempts
        if self._draining is None and dispatcher is not None and attempts is not None:
            self._draining = Deferred.fromCoroutine(self._drain(dispatcher, attempts))
        drained: Deferred[None] = Deferred()
        _ = (self._draining or succeed(None)).addBoth(drained.callback)
        return drained

    async def _drain(self, dispatcher: QueueManager, attempts: Attempts) -> None:
        dispatcher.stop()
        grace = self.settings.grace
        closing = [
            lane.route.mailer.aclose(grace=grace, send_waiting=False)
            for lane in dispatcher.lanes.values()
        ]
        _ = await gatherResults([*closing, *self._leaving.values()])
        await attempts.stop()

    def stopService(self) -> Deferred[None]:
        """See ``IService``: take nothing more out, let end what is on its way, and close.

        How long that may take is said at :meth:`drain`.  Fires when the queue is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            # Whatever came of it was told before.
            _ = await started.wait().addErrback(lambda _: None)
        if self._clearing is not None:
            self._clearing.stop()
        draining, spool = self.drain(), self._spool
        self._dispatcher = self._attempts = self._reporter = self._spool = None
        await draining
        self._draining = None
        self._handles.close()
        if spool is not None:
            await spool.close()
            spool.observer = None

    # -- mail ----------------------------------------------------------------------------

    def send(
        self,
        message: Message,
        *,
        sender: str | ReversePath | None = None,
        recipients: AnyRecipient | Iterable[AnyRecipient] | None = None,
        envelope: Envelope | None = None,
        complete: bool = True,
        held: bool = False,
    ) -> Deferred[Queued]:
        """Queue one message; fires when it would survive a power cut.

        :param held: not tried before an operator releases it.
        :returns: a :class:`~twisted_sendmail.relay.tracker.Queued`: its ``id``, and
            ``delivered`` for who wants to wait for its end.
        :raises InvalidInput: it cannot be sent; nothing was queued.
        :raises QueueError: the queue cannot take it.
        :raises MailerClosed: the relay is not running.

        The other parameters are those of ``submit``.  Cancelling before it is complete
        leaves nothing behind.  While it is written to the disk it may be queued all the same:
        the error is a :class:`~twisted_sendmail.client.connection.Cancelled` that is in doubt.
        """
        if self._started is None:
            return fail(_not_running())

        async def queue() -> Queued:
            _ = await self.ready()
            handle = await take(
                self._reactor,
                self.spool,
                self._handles,
                self.policy,
                message,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                complete=complete,
                held=held,
            )
            return Queued(handle)

        return Deferred.fromCoroutine(queue())

    @property
    def spool(self) -> Queue:
        """The queue.

        :raises MailerClosed: the relay is not running.
        """
        if self._spool is None:
            raise _not_running()
        return self._spool

    def route_of(self, sender: ReversePath) -> str:
        """The way out that mail of *sender* takes, by the settings of now."""
        return self._routing.of(sender)

    # -- operation -----------------------------------------------------------------------

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        """Try what waits now, whatever it waits for.

        :param selection: which messages; all if not given.
        """
        if self._dispatcher is None:
            return fail(_not_running())
        self._dispatcher.flush()
        # The first to go out shall not wait until all the others are marked.
        later: Deferred[Any] = deferLater(self._reactor, _HEAD_START)
        return later.addCallback(lambda _: self._flush(selection or Selection()))

    def _flush(self, selection: Selection) -> Deferred[Sequence[QueueActionResult]]:
        if self._spool is None:
            return fail(_not_running())
        return self._spool.act(QueueAction.FLUSH, selection, self._reactor.seconds())

    def look(self) -> None:
        """Look at queue and clock anew: the clock was set, the network came up."""
        if self._dispatcher is not None:
            self._dispatcher.disturbed()

    def reconfigure(self, settings: RelaySettings, policy: CleanupPolicy | None = None) -> None:
        """Use other settings from now on.

        A route that stays as it is keeps its connections.  One that changed gets new ones,
        and what is on its way over the old ones comes to its end there; what waited for one
        of them goes over the new ones.  Mail of a route
        that is no more takes the one of ``"*"``.  Refused passwords are tried again.
        """
        self.settings = settings
        self._routing = Routing(settings.routes)
        self.policy = policy or CleanupPolicy(
            settings.name,
            self.route_of,
            self.policy.rewriting,
            self.policy.complete,
            self.policy.max_hops,
        )
        if self._dispatcher is None or self._reporter is None:
            return
        self._reporter.configure(settings, self._routing)
        if self._clearing is not None:
            self._clearing.configure(settings.keep_undeliverable)
        for mailer in self._dispatcher.configure(settings, self._routing):
            closing = self._leaving[mailer] = mailer.aclose(
                grace=settings.grace, send_waiting=False
            )
            _ = closing.addBoth(self._left, mailer)

    def _left(self, result: Any, mailer: Mailer) -> Any:
        del self._leaving[mailer]
        if self._dispatcher is not None:
            # What it could not send any more is in the queue again.
            self._dispatcher.look()
        return result

    def stats(self) -> RelayStats:
        """How it is doing just now."""
        now = self._reactor.seconds()
        dispatcher = self._dispatcher
        routes = [lane.route for lane in dispatcher.lanes.values()] if dispatcher else []
        return RelayStats(
            tuple(RouteStats.of(route, now) for route in routes),
            len(self._attempts.under_way) if self._attempts else 0,
        )

    # -- inside --------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        for observer in tuple(self.observers):
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - mail does not wait for who watches
                self.log.failure("an observer of the relay failed")

    def _stirred(self) -> None:
        """Somebody changed the queue: what is waited for may be gone."""
        asked = self._handles.ids
        if not asked or self._checking:
            return
        self._checking = True
        listing = self.spool.list(Selection(ids=asked))
        _ = listing.addCallbacks(self._checked, lambda _: None, callbackArgs=(asked,))
        _ = listing.addBoth(self._check_ended)

    def _checked(self, found: Sequence[QueuedMessage], asked: tuple[str, ...]) -> None:
        self._handles.only(asked, {message.id for message in found})

    def _check_ended(self, _: object) -> None:
        self._checking = False


def _not_running() -> MailerClosed:
    return MailerClosed("the relay is not running", remedy="start the service first")


def _host_name() -> str:
    try:
        return domain_name(socket.gethostname())
    except InvalidInput:
        return "localhost"
