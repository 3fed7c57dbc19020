"""The queue manager: leases messages that are due, and records their attempts.

**Theory of operation.**  All mail is on the disk, in the queue; memory holds only the messages under
way, whose number is limited.  ``QueueManager`` observes the queue and has a ``RouteQueue`` for each
route.  A message takes one of two ways out:

* *Claimed.*  When a new message is committed and its route has a free slot, ``claim`` returns True:
  the commit leases the message, and it goes out from memory without being read again.
* *Leased.*  Everything else waits until ``RouteQueue.look`` leases messages that are due, as many as
  there are free slots.  ``look`` runs when a message arrives, when an attempt ends, when the next is
  due, when the queue was changed, and in any case every ``MAX_IDLE`` seconds.

A message is in one of these states::

            claim, lease                 record: not delivered to all
    queued --------------> leased -------------------------------------> queued, due later
      ^                    |  |  `-- record: nobody is pending --------> removed
      |      release       |  `----- crash -----------------------------> leased until the next start
      `--------------------'

Only this module leases (``claim``, ``RouteQueue.look``, ``QueueManager._remove_expired``), records
attempts and releases leases.  Example: a route has five free slots, ten messages arrive.  Five are
claimed and given to ``DeliveryAgent.deliver``; five wait.  The first attempt ends: ``ended`` writes
its record, ``free`` frees its slot, and ``look`` leases the next ones.

Invariants:

* A message is leased before its first octet goes out, and stays leased until its result is durable:
  it is not tried again before.  The queue retries a record that it cannot write, so a full disk
  slows the relay down and makes no second copies.
* Each message has a slot of its route before it is leased (``Route.free_slots``).
* New mail does not wait for old mail, nor old for new: where both wait, each has half of the slots.
* No busy loop: after an error, and when nothing was found, it waits.
* An unexpected error ends an attempt as a transient failure does: recipients that the server accepted
  are recorded as delivered, and the others wait (``attempt_result.classify_unexpected_error``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_sendmail.queue import DownRoute, LeaseLost, QueueObserver, RecipientState
from twisted_sendmail.relay.events import (
    Arrived,
    Interrupted,
    Removed,
    RouteDown,
    RouteUp,
    TakenOver,
    trouble,
    unexpected_error,
)
from twisted_sendmail.relay.retry_policy import grown, remaining
from twisted_sendmail.relay.route import Route
from twisted_sendmail.relay.shared_routes import SharedRoutes
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_sendmail.client import Mailer
    from twisted_sendmail.queue import (
        AttemptRecord,
        ClusterState,
        LeasedMessage,
        MessageInfo,
        Queue,
        QueuedMessage,
    )
    from twisted_sendmail.relay.delivery import Attempt, DeliveryAgent
    from twisted_sendmail.relay.events import Event, Observer
    from twisted_sendmail.relay.retry_policy import Chance
    from twisted_sendmail.relay.route import Slot
    from twisted_sendmail.relay.routing import Routing
    from twisted_sendmail.relay.settings import RelaySettings, RouteSettings

    #: Called with each durable record, and with what is left of the message.
    Recorded = Callable[[AttemptRecord, QueuedMessage | None], None]

#: Seconds after which a route looks for mail in any case: clocks jump.
MAX_IDLE = 60.0
#: Messages leased together, where so many slots are free: each lease costs a commit.
_BATCH = 8
#: Seconds until it looks again after it found nothing; the first such wait.
_MIN_PAUSE = 1.0
#: Messages read at once to find those that the operator expired while a route is down.
_EXPIRED_BATCH = 50
#: Seconds between two such reads.
_EXPIRED_INTERVAL = 5.0


class QueueManager(QueueObserver):
    """Takes messages of all routes out of the queue; starts with :meth:`start`.

    :param queue: the queue on the disk, with all messages.
    :param agent: delivers the leased messages.
    :param notify: called with each event.
    :param chance: random numbers from 0 to 1, for the back-off of routes.
    :param recorded: called when the record of an attempt is durable.
    :param changed: called when another process or an operator changed the queue.
    """

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        agent: DeliveryAgent,
        *,
        notify: Observer,
        chance: Chance,
        recorded: Recorded,
        changed: Callable[[], None],
    ) -> None:
        self.reactor = reactor
        self.queue = queue
        self.agent = agent
        self.notify = notify
        self._chance = chance
        self.recorded = recorded
        self._changed = changed
        self._routing: Routing | None = None
        self._started = self._stopped = False
        self._asking_due = self._ask_due_again = False
        self._expired_read: dict[str, float] = {}
        # Messages whose commit is under way: the route queue that claimed it, and its slot.
        self._claims: dict[str, tuple[RouteQueue, Slot]] = {}
        self.route_queues: dict[str, RouteQueue] = {}
        #: The state of routes that relays with the same queue share.
        self.shared = SharedRoutes(queue, notify=notify)

    # -- settings, start, stop -----------------------------------------------------------

    def configure(self, settings: RelaySettings, routing: Routing) -> list[Mailer]:
        """Use these routes from now on; return the mailers that are not used any more.

        A route that did not change keeps its connections.
        """
        before, self.route_queues = self.route_queues, {}
        self._routing = routing
        for each in settings.routes:
            old = before.get(each.name)
            if old is not None and _same_connections(old.route.settings, each):
                del before[each.name]
                old.route.policy = settings.schedule
                self.route_queues[each.name] = old
                continue
            route = Route(
                self.reactor,
                each,
                settings.name,
                settings.schedule,
                notify=self._route_changed,
                chance=self._chance,
            )
            self.shared.share(route)
            self.route_queues[each.name] = RouteQueue(self, route)
        for old in before.values():
            old.stop()
            if self._started and not old.route.up:
                self._record_route(old.route.name, None)
        if self._started:
            self._probe_now({""})
            self.look()
            self.ask_due()
        return [old.route.mailer for old in before.values()]

    def _route_changed(self, event: Event) -> None:
        self.notify(event)
        if isinstance(event, RouteDown) and not event.elsewhere:
            next_attempt = self.reactor.seconds() + event.wait
            down = DownRoute(event.route, event.reason, next_attempt, event.refused)
            self._record_route(event.route, down)
        elif isinstance(event, RouteUp):
            if not event.elsewhere:
                self._record_route(event.route, None)
            if event.route in self.route_queues:
                self.route_queues[event.route].look()

    def _record_route(self, name: str, down: DownRoute | None) -> None:
        if not self._stopped:
            self.shared.record(name, down)

    def start(self) -> None:
        """Start to take messages out."""
        self._started = True
        self.queue.observer = self
        self.look()
        self.ask_due()

    def look(self) -> None:
        """Look for mail that can go out."""
        if not self._stopped:
            for route_queue in self.route_queues.values():
                route_queue.changed()

    def stop(self) -> None:
        """Take nothing more out."""
        self._stopped = True
        for route_queue in self.route_queues.values():
            route_queue.stop()

    # -- notifications of the queue ------------------------------------------------------

    def claim(self, info: MessageInfo) -> bool:
        """See ``QueueObserver.claim``."""
        route_queue = self.route_queues.get(info.route)
        slot = None if route_queue is None or info.held else route_queue.claim()
        if route_queue is None or slot is None:
            return False
        self._claims[info.id] = route_queue, slot
        return True

    def unclaimed(self, info: MessageInfo) -> None:
        """See ``QueueObserver.unclaimed``."""
        claim = self._claims.pop(info.id, None)
        if claim is not None:
            route_queue, slot = claim
            _ = slot.free()
            route_queue.look()

    def arrived(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        """See ``QueueObserver.arrived``."""
        # Messages of one route are delivered together: one write to its server carries many.
        ready: dict[RouteQueue, list[tuple[LeasedMessage, Slot]]] = {}
        for leased, claimed in arrivals:
            message = leased.message
            self.notify(_arrived(message))
            route_queue = self.route_queues.get(message.info.route)
            if claimed:
                slot = self._claimed_slot(route_queue, leased)
                if route_queue is not None and slot is not None:
                    ready.setdefault(route_queue, []).append((leased, slot))
            elif route_queue is None:
                self.ask_due()
            elif not message.held:
                route_queue.arrived()
        for route_queue, found in ready.items():
            self.agent.deliver(route_queue.route, found, route_queue.ended)

    def queue_changed(self) -> None:
        """See ``QueueObserver.queue_changed``."""
        if self._stopped:
            return
        for route_queue in self.route_queues.values():
            route_queue.route.probe_soon()
            route_queue.changed()
            if route_queue.route.allowance(self.reactor.seconds()) <= 0:
                self._remove_expired(route_queue)
        self.ask_due()
        self._changed()

    def queue_flushed(self, routes: Collection[str]) -> None:
        """See ``QueueObserver.queue_flushed``."""
        self._probe_now(routes)
        self.queue_changed()

    def mail_waits(self) -> None:
        """See ``QueueObserver.mail_waits``."""
        self.ask_due()
        self._changed()

    def cluster_changed(self, state: ClusterState) -> None:
        """See ``QueueObserver.cluster_changed``."""
        if not self._stopped:
            routes = [route_queue.route for route_queue in self.route_queues.values()]
            self.shared.changed(state, routes)

    def interrupted(self, node: str, ids: Sequence[str]) -> None:
        """See ``QueueObserver.interrupted``."""
        self.notify(Interrupted(tuple(ids), node))
        self.mail_waits()

    def _probe_now(self, routes: Collection[str]) -> None:
        for name, route_queue in self.route_queues.items():
            if name in routes or "" in routes:
                route_queue.route.probe_now()

    def _claimed_slot(self, route_queue: RouteQueue | None, leased: LeasedMessage) -> Slot | None:
        """Return the slot on *route_queue* of a message that was claimed; release it if it has none."""
        claimant, slot = self._claims.pop(leased.message.id, (None, None))
        if slot is not None and (route_queue is not claimant or self._stopped):
            _ = slot.free()
            slot = None
        if slot is None and route_queue is not None and not self._stopped:
            # The routes changed during the commit.
            slot = route_queue.route.take_slot(new=True)
        if slot is None:
            _ = _release(self.queue, [leased], self.notify)
        return slot

    # -- the next due time, and messages of routes that are gone --------------------------

    def ask_due(self) -> None:
        """Read the next due time of every route, for all that ask at this time."""
        if self._asking_due:
            self._ask_due_again = True
            return
        if not self._started or self._stopped:
            return
        self._asking_due, self._ask_due_again = True, False
        asking = self.queue.next_due()
        _ = asking.addCallbacks(self._due, self._failed, errbackArgs=("the queue cannot be read",))
        _ = asking.addBoth(self._asked_due)

    def _due(self, due: dict[str, float]) -> None:
        for name, route_queue in self.route_queues.items():
            route_queue.next_due(due.get(name))
        fallback = self._routing.everybody if self._routing is not None else ""
        gone = {name: fallback for name in due if name not in self.route_queues}
        if gone and fallback not in gone:
            rerouting = self.queue.reroute(gone)
            _ = rerouting.addCallback(lambda _: self._rerouted(fallback))
            _ = rerouting.addErrback(self._failed, "mail of a former route cannot be rerouted")

    def _rerouted(self, name: str) -> None:
        route_queue = self.route_queues.get(name)
        if route_queue is not None:
            route_queue.changed()

    def _asked_due(self, _: object) -> None:
        self._asking_due = False
        if self._ask_due_again:
            self.ask_due()

    # -- messages that the operator expired ----------------------------------------------

    def _remove_expired(self, route_queue: RouteQueue) -> None:
        """Report and remove what the operator expired, although the route is down."""
        name, now = route_queue.route.name, self.reactor.seconds()
        if remaining(self._expired_read.get(name, float("-inf")), _EXPIRED_INTERVAL, now) > 0:
            return
        self._expired_read[name] = now
        leasing = self.queue.lease(
            name,
            now,
            fresh=_EXPIRED_BATCH,
            retries=_EXPIRED_BATCH,
            horizon=route_queue.route.policy.horizon(now),
        )
        _ = leasing.addCallback(self._expired_found, route_queue)
        _ = leasing.addErrback(self._failed, "expired mail cannot be removed")

    def _expired_found(self, found: Sequence[LeasedMessage], route_queue: RouteQueue) -> None:
        expired = [leased for leased in found if leased.message.expired and not self._stopped]
        _ = _release(
            self.queue,
            [leased for leased in found if leased not in expired],
            self.notify,
        )
        take = route_queue.route.take_slot
        if expired:
            self.agent.deliver(
                route_queue.route,
                [(leased, take(new=not leased.message.attempts)) for leased in expired],
                route_queue.ended,
            )

    def _failed(self, failure: Failure, what: str) -> None:
        self.notify(trouble(what, failure))


class RouteQueue:
    """The mail of one route on its way out of the queue: what is leased, and when."""

    def __init__(self, manager: QueueManager, route: Route) -> None:
        self._manager = manager
        self._reactor = manager.reactor
        self._queue = manager.queue
        self._notify = manager.notify
        self.route = route
        #: Time at which the next message in the queue is due, as far as is known.
        self.due: float | None = None
        # New messages in the queue that are not being leased; None: unknown.
        self._new_waiting: int | None = None
        # Messages that were tried before may be due.
        self._retries_wait = True
        # Since the lease under way was requested: new messages that arrived; messages to be
        # retried became due; anything may have changed.
        self._new_arrived = 0
        self._retries_arrived = self._queue_changed = False
        self._leasing = False
        self._odd_slot_to_new = False
        self._stopped = False
        self._errors = 0
        # Times that the queue named a due message which could not be leased.
        self._not_found = 0
        self._looked = self._reactor.seconds()
        self._paused = False
        self._timer: IDelayedCall | None = None

    # -- arrivals ------------------------------------------------------------------------

    def claim(self) -> Slot | None:
        """Return a slot for a new message; None if it cannot be tried at once."""
        route = self.route
        if self._stopped or self._new_waiting != 0 or not route.up:
            return None
        now = self._reactor.seconds()
        if route.free_slots(now) <= 0:
            return None
        if self._retries_wait and route.slots.new >= (route.allowance(now) + 1) // 2:
            return None
        return route.take_slot(new=True)

    def arrived(self) -> None:
        """Look: a new message is in the queue."""
        self._count_new()
        self.look()

    def changed(self) -> None:
        """Look: anything in the queue may have changed."""
        self._anything_may_wait()
        self._paused = False
        self.look()

    def _count_new(self) -> None:
        self._new_arrived += 1
        if self._new_waiting is not None:
            self._new_waiting += 1

    def _anything_may_wait(self) -> None:
        self._new_waiting = None
        self._queue_changed = self._retries_wait = self._retries_arrived = True

    @property
    def _something_waits(self) -> bool:
        return self._new_waiting != 0 or self._retries_wait

    # -- leasing -------------------------------------------------------------------------

    def look(self) -> None:
        """Lease as many messages as there are free slots."""
        if self._stopped or self._leasing:
            return
        now = self._reactor.seconds()
        if self._paused or not self._something_waits:
            self._wait()
            return
        route = self.route
        if route.free_slots(now) <= 0:
            _ = route.silence(now)
        free, allowance = route.free_slots(now), route.allowance(now)
        fresh, retries = self._shares(free, allowance)
        # Wait until several slots are free: messages under way end soon, and call this again.
        if free < min(_BATCH, allowance // 4) or not fresh + retries:
            self._wait()
            return
        new_slots = [route.take_slot(new=True) for _ in range(fresh)]
        old_slots = [route.take_slot(new=False) for _ in range(retries)]
        if self._new_waiting is not None:
            # A message that arrives from now on comes after the leased ones, and may be claimed.
            self._new_waiting -= fresh
        self._leasing = True
        self._new_arrived, self._retries_arrived, self._queue_changed = 0, False, False
        leasing = self._queue.lease(
            route.name, now, fresh=fresh, retries=retries, horizon=route.policy.horizon(now)
        )
        _ = leasing.addCallbacks(
            self._leased,
            self._not_leased,
            callbackArgs=(new_slots, old_slots),
            errbackArgs=(new_slots + old_slots,),
        )
        _ = leasing.addErrback(self._unexpected)

    def _shares(self, free: int, allowance: int) -> tuple[int, int]:
        """Divide the *free* slots between new messages and retries."""
        if free <= 0:
            return 0, 0
        waiting = free if self._new_waiting is None else self._new_waiting
        if not self._retries_wait:
            return min(free, waiting), 0
        new = self.route.slots.new
        # Retries, which may be slow, leave a quarter for new mail that arrives.
        most = min(free, max(1, allowance - allowance // 4) - max(0, allowance - free - new))
        if not waiting:
            return 0, max(0, most)
        # Alternate the odd slot, so that each class gets slots when the limit is 1.
        self._odd_slot_to_new = not self._odd_slot_to_new
        half = (allowance + self._odd_slot_to_new) // 2
        fresh = min(free, waiting, max(0, half - new))
        return fresh, max(0, min(most, free - fresh))

    def _leased(
        self, found: Sequence[LeasedMessage], new_slots: list[Slot], old_slots: list[Slot]
    ) -> None:
        self._leasing = False
        self._errors = 0
        route, generation = self.route, (new_slots or old_slots)[0].generation
        if self._stopped or (generation != route.slots.generation and not route.up):
            self._anything_may_wait()
            _free_all(new_slots + old_slots)
            _ = _release(self._queue, found, self._notify)
            self._wait()
            return
        leases = [
            (each, old_slots.pop() if each.message.attempts else new_slots.pop()) for each in found
        ]
        # A slot is left where the queue had fewer messages.
        if new_slots and not self._queue_changed and self._new_waiting is None:
            # The queue has no more new messages; those that arrived meanwhile wait, or are in *found*.
            self._new_waiting = self._new_arrived
        if old_slots and not self._retries_arrived:
            self._retries_wait = False
        _free_all(new_slots + old_slots)
        if leases:
            self._not_found = 0
            self._manager.agent.deliver(route, leases, self.ended)
        if old_slots or (new_slots and self.due is None):
            self._manager.ask_due()
        self.look()

    def _not_leased(self, failure: Failure, slots: list[Slot]) -> None:
        self._leasing = False
        self._anything_may_wait()
        _free_all(slots)
        self._errors += 1
        self._notify(trouble("mail cannot be taken out of the queue", failure))
        self._pause(grown(_MIN_PAUSE, MAX_IDLE, self._errors - 1))

    def _unexpected(self, failure: Failure) -> None:
        self._notify(unexpected_error(f"route {self.route.name}: unexpected error", failure))
        self._pause(MAX_IDLE)

    # -- the end of an attempt -----------------------------------------------------------

    def ended(
        self, attempt: Attempt, record: AttemptRecord | None, events: Sequence[Event]
    ) -> None:
        """Record the end of *attempt*, and announce *events* when that is durable.

        :param record: None if the message was not tried: only its lease ends.
        """
        if record is None:
            message = attempt.leased.message
            _ = _release(self._queue, [attempt.leased], self._notify).addCallback(
                lambda _: self.free(attempt.slot, message)
            )
            return
        recording = self._queue.settle(record)
        _ = recording.addCallbacks(
            self._is_recorded,
            self._not_recorded,
            (attempt, record, events),
            {},
            (attempt, record),
            {},
        )
        _ = recording.addErrback(self._after_record, attempt)

    def _is_recorded(
        self,
        left: QueuedMessage | None,
        attempt: Attempt,
        record: AttemptRecord,
        events: Sequence[Event],
    ) -> None:
        for event in events:
            self._notify(event)
        if left is None:
            self._notify(Removed(record.id, _delivered_at_once(attempt.leased.message, record)))
        self._manager.recorded(record, left)
        self.free(attempt.slot, left)

    def _not_recorded(self, failure: Failure, attempt: Attempt, record: AttemptRecord) -> None:
        """Leave the message to the relay that took it over, or leased until the next start.

        The next start names it as interrupted, as the other relay did.
        """
        if failure.check(LeaseLost):
            delivered = any(row.state is RecipientState.DELIVERED for row in record.changes)
            in_doubt = record.in_doubt or delivered
            self._notify(TakenOver(record.id, self.route.name, in_doubt))
        else:
            self._notify(trouble(f"the result for {record.id} could not be recorded", failure))
        self.free(attempt.slot, None)

    def _after_record(self, failure: Failure, attempt: Attempt) -> None:
        """Free the slot after an unexpected error; the record is durable."""
        what = f"{attempt.leased.message.id}: unexpected error after its result was recorded"
        self._notify(unexpected_error(what, failure))
        self.free(attempt.slot, None)
        self._manager.ask_due()

    def free(self, slot: Slot, left: QueuedMessage | None) -> None:
        """Free the slot of a message, once, and look.

        :param left: the message as it is in the queue now; None: it is gone.
        """
        if not slot.free():
            return
        if left is not None and left.aside is None and not left.held:
            now = self._reactor.seconds()
            if left.due <= now:
                if left.attempts:
                    self._retries_wait = self._retries_arrived = True
                else:
                    self._count_new()
            elif self.due is None or left.due < self.due:
                self.due = left.due
                self._wait()
        if self._stopped:
            # Another RouteQueue may have replaced this one, and has no slot for the message.
            self._manager.ask_due()
        elif self._something_waits:
            self.look()

    # -- waiting -------------------------------------------------------------------------

    def next_due(self, due: float | None) -> None:
        """Note when the next message in the queue is due; None: there is none."""
        now = self._reactor.seconds()
        self.due = due
        if due is not None and due <= now:
            # It became due just now; or it cannot be leased, and must not cause a busy loop.
            self.due = now + grown(_MIN_PAUSE, MAX_IDLE, self._not_found)
            self._not_found += 1
        self._wait()

    def _wait(self) -> None:
        """Set the timer for the next time to look."""
        if self._stopped or self._paused:
            return
        now = self._reactor.seconds()
        route = self.route
        seconds = MAX_IDLE
        if self._something_waits:
            closed = route.back_off.left(now)
            if closed > 0:
                seconds = min(seconds, closed)
            elif route.free_slots(now) <= 0:
                seconds = min(seconds, route.silence(now))
        elif self.due is not None:
            seconds = min(seconds, max(self.due - now, route.back_off.left(now)))
        self._set_timer(max(0.0, seconds))

    def _pause(self, seconds: float) -> None:
        self._paused = True
        self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        timer = self._timer
        if timer is not None and timer.active():
            # An earlier timer does no harm, unless the clock was set back.
            if 0 <= timer.getTime() - self._reactor.seconds() <= seconds:
                return
            timer.reset(seconds)
        else:
            self._timer = self._reactor.callLater(seconds, self._tick)

    def _tick(self) -> None:
        self._paused = False
        now = self._reactor.seconds()
        due = self.due is not None and self.due <= now
        if due:
            self.due = None
        if due or remaining(self._looked, MAX_IDLE - 1, now) <= 0:
            self._looked = now
            self._anything_may_wait()
        self.look()

    def stop(self) -> None:
        """Lease nothing more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


def _release(queue: Queue, leased: Sequence[LeasedMessage], notify: Observer) -> Deferred[None]:
    """End leases; announce an error."""
    if not leased:
        return succeed(None)
    released: Deferred[None] = queue.release(leased)
    return released.addErrback(
        lambda failure: notify(trouble("leases could not be released", failure))
    )


def _free_all(slots: list[Slot]) -> None:
    for slot in slots:
        _ = slot.free()


def _arrived(message: QueuedMessage) -> Arrived:
    info = message.info
    sender = info.envelope.sender
    return Arrived(
        message.id,
        printable(str(sender.mailbox), 320) if sender.mailbox else "",
        message.size,
        len(message.recipients),
        info.route,
        printable(info.origin, 200),
        printable(info.message_id, 200) if info.message_id else None,
    )


def _delivered_at_once(message: QueuedMessage, record: AttemptRecord) -> bool:
    if message.attempts or len(record.changes) != len(message.recipients):
        return False
    for row in record.changes:  # noqa: SIM110 - a generator is slower, for one or two
        if row.state is not RecipientState.DELIVERED:
            return False
    return True


def _same_connections(old: RouteSettings, new: RouteSettings) -> bool:
    """Return True if mail can go on over the connections that are open."""
    return (
        old.servers == new.servers
        and [server.endpoint for server in old.servers]
        == [server.endpoint for server in new.servers]
        and (old.limits, old.first, old.most) == (new.limits, new.first, new.most)
    )
