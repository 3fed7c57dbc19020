"""``RelayService``: a relay in a Twisted application, from its start to its end.

Assembles the parts of the relay and starts and stops them in order.  Mail comes in through
:meth:`RelayService.send`, or through a server that shares the queue; it is acknowledged when it is
durable, and from then on it is delivered, or its sender notified, across restarts.

The relay itself listens on nothing: ``server`` does, and the queue notifies the relay.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.logger import Logger

from twisted_sendmail.client import SubmissionServer, host_name, prepare_message
from twisted_sendmail.queue import (
    CleanupPolicy,
    Queue,
    QueueAction,
    RecoveryReport,
    RelayNode,
    Selection,
)
from twisted_sendmail.relay.bounce import BounceService, PostmasterMail
from twisted_sendmail.relay.delivery import DeliveryAgent
from twisted_sendmail.relay.events import Event, Interrupted, Observer
from twisted_sendmail.relay.log import log_event
from twisted_sendmail.relay.queue_manager import QueueManager
from twisted_sendmail.relay.routing import Routing
from twisted_sendmail.relay.running_time import RunningTime
from twisted_sendmail.relay.send import Queued, Tracker, enqueue
from twisted_sendmail.relay.settings import RelaySettings, RouteSettings
from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import (
    MailerClosed,
    check_callable,
    check_reactor,
    check_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.client import Mailer
    from twisted_sendmail.message import Message
    from twisted_sendmail.queue import QueueActionResult, QueuedMessage
    from twisted_sendmail.relay.route import RouteStats
    from twisted_sendmail.smtp import AnyRecipient, Envelope, ReversePath

_log = Logger(namespace="twisted_sendmail.relay")


@attrs.frozen
class RelayStats:
    """State of a relay; ``Queue.totals`` has the figures of its queue."""

    routes: tuple[RouteStats, ...]
    #: Messages on their way.
    under_way: int
    #: The relays that share the queue, this one included; empty if it is the queue of this relay alone.
    relays: tuple[RelayNode, ...] = ()


@attrs.frozen
class _Parts:
    """The parts of a relay that runs."""

    manager: QueueManager
    agent: DeliveryAgent
    bounce: BounceService
    running_time: RunningTime


class RelayService(Service):
    """A relay, as a service.

    :param reactor: for connections and time.
    :param queue: a :class:`~twisted_sendmail.queue.interface.Queue`, the directory of an
        embedded queue, or the URL of a database, such as ``postgresql://host1,host2/mail``; opened
        and closed by the service.
    :param settings: its settings.
    :param policy: what :meth:`send` does to mail before it is queued; by default the header is
        completed.
    :param chance: returns numbers from 0 to 1, for the jitter of waits.
    :raises InvalidInput: *settings* is not a RelaySettings, or the postmaster's mail cannot have its
        sender.

    Starting the service opens the queue.  That takes time and may fail: see :meth:`ready`.
    """

    def __init__(
        self,
        reactor: Any,
        queue: Queue | str | os.PathLike[str],
        settings: RelaySettings,
        *,
        policy: CleanupPolicy | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        check_reactor("reactor", reactor)
        check_type("settings", settings, RelaySettings, "a RelaySettings, or use RelayService.to()")
        check_type(
            "queue",
            queue,
            (str, os.PathLike, Queue),
            "the directory or the URL of the queue, or a Queue",
        )
        if policy is not None:
            check_type("policy", policy, CleanupPolicy, "a CleanupPolicy, or None")
        check_callable("chance", chance, "a function such as random.random")
        self._reactor = reactor
        self._given = queue
        self.settings = settings
        self._routing = Routing(settings.routes)
        #: The cleanup of mail before it is queued; servers of this relay use it as well.
        self.policy = attrs.evolve(
            policy or CleanupPolicy(settings.name, self._routing.of), dkim=settings.dkim
        )
        _ = PostmasterMail(settings, self.policy)
        self._chance = chance
        #: Called with each event.
        self.observers: list[Observer] = [log_event]
        self._tracker = Tracker()
        self._queue: Queue | None = None
        self._parts: _Parts | None = None
        self._started: SharedResult[RecoveryReport] | None = None
        self._checking_tracked = False
        self._draining: SharedResult[None] | None = None
        # Mailers of former routes that are closing.
        self._leaving: dict[Mailer, Deferred[None]] = {}

    @classmethod
    def to(
        cls,
        reactor: Any,
        directory: str | os.PathLike[str],
        server: str | SubmissionServer,
        *,
        password: str | None = None,
        name: str | None = None,
    ) -> RelayService:
        """Return a relay that delivers all mail to one server.

        :param directory: of the queue; it is created if it is missing.
        :param server: a URL such as ``smtp+starttls://user@host``, or a SubmissionServer.
        :param password: of the user in the URL.
        :param name: host name of the relay; that of the machine if not given.
        :raises InvalidInput: a value cannot be used.
        """
        if isinstance(server, str):
            server = SubmissionServer.from_url(server, password=password)
        route = RouteSettings("smarthost", (server,))
        return cls(reactor, directory, RelaySettings(name or host_name(), (route,)))

    # -- start and stop ------------------------------------------------------------------

    def startService(self) -> None:
        """See ``IService``."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        started: SharedResult[RecoveryReport] = SharedResult()
        self._started = started
        starting = Deferred.fromCoroutine(self._start()).addErrback(self._not_started)
        _ = starting.addBoth(started.set)

    def ready(self) -> Deferred[RecoveryReport]:
        """Return a Deferred that fires when the queue is open, with what was found in it.

        :raises QueueUnusable: the queue cannot be opened; the text names the cause and a remedy.
        :raises MailerClosed: the service was not started.
        """
        if self._started is None:
            return fail(_not_running())
        return self._started.wait()

    async def _start(self) -> RecoveryReport:
        queue = self._queue = self._new_queue()
        settings, chance = self.settings, self._chance
        bounce = BounceService(
            self._reactor, queue, settings, self._routing, self.policy, chance=chance
        )
        agent = DeliveryAgent(
            self._reactor, queue, bounce, dkim=settings.dkim, notify=self._notify, chance=chance
        )
        manager = QueueManager(
            self._reactor,
            queue,
            agent,
            notify=self._notify,
            chance=chance,
            recorded=self._tracker.recorded,
            changed=self._check_tracked,
        )
        _ = manager.configure(settings, self._routing)
        running_time = RunningTime(
            self._reactor, queue, settings.keep_undeliverable, notify=self._notify
        )
        recovered = await queue.open()
        self._parts = _Parts(manager, agent, bounce, running_time)
        if recovered.interrupted:
            self._notify(Interrupted(recovered.interrupted))
        manager.start()
        running_time.start()
        return recovered

    def _not_started(self, failure: Failure) -> Failure:
        _log.critical("the relay did not start: {error}", error=failure.value)
        self._queue = None
        return failure

    def _new_queue(self) -> Queue:
        if isinstance(self._given, Queue):
            return self._given
        from twisted_sendmail.queue import open_queue

        return open_queue(self._reactor, self._given)

    @property
    def stopping(self) -> bool:
        """The relay takes no more messages out of the queue: it stops, or does not run."""
        return self._draining is not None or not self.running

    def drain(self) -> Deferred[None]:
        """Take no more messages out; return a Deferred that fires when none is under way.

        Only messages that a connection has taken are waited for, for ``settings.grace`` seconds at
        most: those that have not ended then are cut off, and stay in the queue.  Messages that wait
        for a connection go back to the queue at once, and connections that are idle or still
        opening are closed.  Mail that comes in meanwhile is queued, and not tried.

        ``stopService`` does the same; this is for applications that stop something else at the same
        time.
        """
        if self._draining is None and self._parts is not None:
            self._draining = SharedResult()
            _ = Deferred.fromCoroutine(self._drain(self._parts)).addBoth(self._draining.set)
        return succeed(None) if self._draining is None else self._draining.wait()

    async def _drain(self, parts: _Parts) -> None:
        parts.manager.stop()
        grace = self.settings.grace
        closing = [
            route_queue.route.mailer.aclose(grace=grace, send_waiting=False)
            for route_queue in parts.manager.route_queues.values()
        ]
        _ = await gatherResults([*closing, *self._leaving.values()])
        await parts.agent.stop()

    def stopService(self) -> Deferred[None]:
        """See ``IService``: :meth:`drain`, then close the queue."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            # An error of the start was delivered before.
            _ = await started.wait().addErrback(lambda _: None)
        draining, queue, parts = self.drain(), self._queue, self._parts
        self._parts = self._queue = None
        await draining
        if parts is not None:
            await parts.running_time.stop()
        self._draining = None
        self._tracker.close()
        if queue is not None:
            await queue.close()
            queue.observer = None

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
        """Queue one message; the Deferred fires when it would survive a power failure.

        :param held: on hold until an operator releases it.
        :returns: a :class:`~twisted_sendmail.relay.send.Queued`: its ``id``, and ``delivered()``
            to wait for its end.
        :raises InvalidInput: the message cannot be sent; nothing was queued.
        :raises QueueError: the queue cannot take it.
        :raises SigningUnavailable: a key that signs it cannot be read; nothing was queued.
        :raises MailerClosed: the relay is not running.

        The other parameters are those of ``submit``.  Cancelling before the message is complete
        leaves nothing in the queue.  During the commit the message may be queued all the same: the error
        is a :class:`~twisted_sendmail.client.timeouts.Cancelled` that is in doubt.
        """
        if self._started is None:
            return fail(_not_running())

        async def send() -> Queued:
            _ = await self.ready()
            prepared = await prepare_message(
                self._reactor,
                message,
                sender=sender,
                recipients=recipients,
                envelope=envelope,
                fix_header=False,  # the cleanup fixes it
            )
            policy = self.policy if complete else attrs.evolve(self.policy, complete=False)
            return await enqueue(
                self._reactor, self.queue, self._tracker, policy, prepared, held=held
            )

        return Deferred.fromCoroutine(send())

    @property
    def queue(self) -> Queue:
        """The queue.

        :raises MailerClosed: the relay is not running.
        """
        if self._queue is None:
            raise _not_running()
        return self._queue

    # -- operation -----------------------------------------------------------------------

    def flush(self, selection: Selection | None = None) -> Deferred[Sequence[QueueActionResult]]:
        """Try messages now that wait, whatever they wait for.

        A route that is down makes one attempt, with one login, and waits again if it fails.

        :param selection: which messages; all if not given.
        :raises MailerClosed: the relay is not running.
        :raises QueueError: the queue cannot be changed.
        """
        if self._parts is None or self._queue is None:
            return fail(_not_running())
        now = self._reactor.seconds()
        return self._queue.act(QueueAction.FLUSH, selection or Selection(), now)

    def look(self) -> None:
        """Look at queue and clock again: the clock was set, or the network came up."""
        if self._parts is not None:
            self._parts.manager.queue_changed()

    def reconfigure(self, settings: RelaySettings, policy: CleanupPolicy | None = None) -> None:
        """Use other settings from now on.

        A route that did not change keeps its connections.  A route that changed gets new ones:
        messages on their way over the old connections end there, and those that wait for one go
        over the new ones.  Mail of a route that is gone takes the route for ``"*"``.  Refused
        passwords are tried again.

        :raises InvalidInput: the postmaster's mail cannot have its sender; nothing is changed.
        """
        routing = Routing(settings.routes)
        policy = policy or attrs.evolve(self.policy, name=settings.name, route_of=routing.of)
        policy = attrs.evolve(policy, dkim=settings.dkim)
        _ = PostmasterMail(settings, policy)
        self.settings = settings
        self._routing = routing
        self.policy = policy
        if self._parts is None:
            return
        self._parts.agent.configure(settings.dkim)
        self._parts.bounce.configure(settings, self._routing, self.policy)
        self._parts.running_time.keep = settings.keep_undeliverable
        for mailer in self._parts.manager.configure(settings, self._routing):
            closing = self._leaving[mailer] = mailer.aclose(
                grace=settings.grace, send_waiting=False
            )
            _ = closing.addBoth(self._left, mailer)

    def _left(self, result: Any, mailer: Mailer) -> Any:
        del self._leaving[mailer]
        if self._parts is not None:
            # Messages that it did not send are in the queue again.
            self._parts.manager.look()
        return result

    def __repr__(self) -> str:
        state = (
            "stopping" if self._draining is not None else "running" if self.running else "stopped"
        )
        count = 0 if self._parts is None else len(self._parts.agent.under_way)
        return f"<RelayService {self.settings.name}: {state}, {count} under way>"

    def stats(self) -> RelayStats:
        """Return the present state."""
        if self._parts is None:
            return RelayStats((), 0)
        route_queues = self._parts.manager.route_queues.values()
        return RelayStats(
            tuple(route_queue.route.stats() for route_queue in route_queues),
            len(self._parts.agent.under_way),
            self._parts.manager.shared.state.nodes,
        )

    def _notify(self, event: Event) -> None:
        for observer in tuple(self.observers):
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - an observer's error must not stop the mail
                _log.failure("an observer of the relay failed")

    def _check_tracked(self) -> None:
        """Look whether tracked messages were removed: another process changed the queue."""
        ids = self._tracker.ids
        if not ids or self._checking_tracked:
            return
        self._checking_tracked = True

        def checked(found: Sequence[QueuedMessage]) -> None:
            self._tracker.removed(set(ids) - {message.id for message in found})

        def checking_done(_: object) -> None:
            self._checking_tracked = False

        listing = self.queue.list(Selection(ids=ids))
        _ = listing.addCallbacks(checked, lambda _: None).addBoth(checking_done)


def _not_running() -> MailerClosed:
    return MailerClosed("the relay is not running", remedy="start the service first")
