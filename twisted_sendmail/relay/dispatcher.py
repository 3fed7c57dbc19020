"""Who takes mail out of the spool: one lane for each route, and what concerns all of them.

It is the spool's observer.  A new message that there is room for is claimed as it is
committed and goes out straight from memory; everything else stays in the spool until a
lane takes it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue import QueueObserver
from twisted_sendmail.relay.events import Arrived, Trouble
from twisted_sendmail.relay.lane import RouteQueue
from twisted_sendmail.relay.transport import Transport
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from twisted_sendmail.client import Mailer
    from twisted_sendmail.queue import LeasedMessage, MessageInfo, Queue, QueuedMessage
    from twisted_sendmail.relay.delivery import Attempts
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.retry_policy import Chance
    from twisted_sendmail.relay.routing import Routing
    from twisted_sendmail.relay.settings import RelaySettings, RouteSettings

#: Messages looked at, at once, for those the operator wants to be gone while a route is down.
_SWEPT = 50
#: Seconds between two such looks: it reads much, and others stir the queue often.
_SWEEP = 5.0


class QueueManager(QueueObserver):
    """See the module; :meth:`begin` starts it.

    :param attempts: carry what is taken out.
    :param stirred: called when somebody else has changed the queue.
    """

    def __init__(
        self,
        reactor: Any,
        spool: Queue,
        attempts: Attempts,
        *,
        tell: Observer,
        chance: Chance,
        stirred: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._spool = spool
        self._stirred = stirred
        self._attempts = attempts
        self._tell = tell
        self._chance = chance
        self._routing: Routing | None = None
        self._began = self._stopped = False
        self._surveying = self._survey_again = False
        self._swept_at: dict[str, float] = {}
        # Who claimed a message that is being committed.
        self._claimed: dict[str, RouteQueue] = {}
        self.lanes: dict[str, RouteQueue] = {}

    # -- routes --------------------------------------------------------------------------

    def configure(self, settings: RelaySettings, routing: Routing) -> list[Mailer]:
        """Use these routes from now on; gives the mailers that nothing more is given to.

        A route that did not change keeps its connections.
        """
        before, self.lanes = self.lanes, {}
        self._routing = routing
        for each in settings.routes:
            old = before.get(each.name)
            if old is not None and _same(old.route.settings, each):
                del before[each.name]
                old.schedule = settings.schedule
                self.lanes[each.name] = old
                continue
            self.lanes[each.name] = self._lane(each, settings)
        for old in before.values():
            old.stop()
        if self._began:
            for lane in self.lanes.values():
                lane.route.ask_now()
                lane.stirred()
            self._survey()
        return [old.route.mailer for old in before.values()]

    def _lane(self, each: RouteSettings, settings: RelaySettings) -> RouteQueue:
        route = Transport(self._reactor, each, settings.name, tell=self._tell, chance=self._chance)
        return RouteQueue(
            self._reactor,
            self._spool,
            route,
            settings.schedule,
            carry=self._attempts.carry,
            survey=self._survey,
            tell=self._tell,
        )

    def begin(self) -> None:
        """Take out what is there."""
        self._began = True
        self._spool.observer = self
        for lane in self.lanes.values():
            lane.stirred()
        self._survey()

    def look(self) -> None:
        """Look whether there is something to take out."""
        if not self._stopped:
            for lane in self.lanes.values():
                lane.stirred()

    def flush(self) -> None:
        """Forget every back-off, and look."""
        for lane in self.lanes.values():
            lane.route.ask_now()
            lane.stirred()

    def stop(self) -> None:
        """Take nothing more out."""
        self._stopped = True
        for lane in self.lanes.values():
            lane.stop()

    # -- what the spool tells ------------------------------------------------------------

    def claim(self, draft: MessageInfo) -> bool:
        """See :class:`~twisted_sendmail.queue.interface.QueueObserver`."""
        lane = self.lanes.get(draft.route)
        if lane is None or draft.held or not lane.claim():
            return False
        self._claimed[draft.id] = lane
        return True

    def unclaimed(self, draft: MessageInfo) -> None:
        """See :class:`~twisted_sendmail.queue.interface.QueueObserver`."""
        lane = self._claimed.pop(draft.id, None)
        if lane is not None:
            lane.unclaimed()

    def arrived(self, leased: LeasedMessage, *, claimed: bool) -> None:
        """See :class:`~twisted_sendmail.queue.interface.QueueObserver`."""
        self.arrived_together([(leased, claimed)])

    def arrived_together(self, arrivals: Sequence[tuple[LeasedMessage, bool]]) -> None:
        """See :class:`~twisted_sendmail.queue.interface.QueueObserver`."""
        # What goes the same way is given to it together: then one write carries many.
        going: dict[RouteQueue, list[LeasedMessage]] = {}
        for leased, claimed in arrivals:
            message = leased.message
            draft = message.draft
            self._tell(_arrival(message))
            lane = self.lanes.get(draft.route)
            if claimed:
                if self._is_lent(lane, leased) and lane is not None:
                    going.setdefault(lane, []).append(leased)
            elif lane is None:
                self._survey()
            elif not message.held:
                lane.arrived()
        for lane, some in going.items():
            self._attempts.carry(lane, some)

    def disturbed(self) -> None:
        """See :class:`~twisted_sendmail.queue.interface.QueueObserver`."""
        if self._stopped:
            return
        for lane in self.lanes.values():
            lane.route.stirred()
            lane.stirred()
            if lane.route.allowance(self._reactor.seconds()) <= 0:
                self._sweep(lane)
        self._survey()
        self._stirred()

    def _is_lent(self, lane: RouteQueue | None, leased: LeasedMessage) -> bool:
        """May one that was claimed be carried by *lane*?  Else it is put back."""
        id = leased.message.id  # noqa: A001 - that is its name
        claimer = self._claimed.pop(id, None)
        if lane is not claimer:
            # The routes changed while it was being committed.
            if claimer is not None:
                claimer.unclaimed()
            if lane is not None:
                lane.lend(leased)
        if lane is not None and not self._stopped:
            return True
        self._release([id])
        return False

    # -- inside --------------------------------------------------------------------------

    def _survey(self) -> None:
        """Ask when what is due, once for all who want to know."""
        if self._surveying:
            self._survey_again = True
            return
        if not self._began or self._stopped:
            return
        self._surveying, self._survey_again = True, False
        asking = self._spool.next_due()
        _ = asking.addCallbacks(self._surveyed, self._failed, errbackArgs=("the queue",))
        _ = asking.addBoth(self._survey_ended)

    def _surveyed(self, due: dict[str, float]) -> None:
        for name, lane in self.lanes.items():
            lane.surveyed(due.get(name))
        unknown = {name: self._fallback for name in due if name not in self.lanes}
        if unknown and self._fallback not in unknown:
            rerouting = self._spool.reroute(unknown)
            _ = rerouting.addCallback(lambda _: self._rerouted())
            _ = rerouting.addErrback(self._failed, "mail of a route that is no more")

    @property
    def _fallback(self) -> str:
        return self._routing.everybody if self._routing is not None else ""

    def _rerouted(self) -> None:
        lane = self.lanes.get(self._fallback)
        if lane is not None:
            lane.stirred()

    def _survey_ended(self, _: object) -> None:
        self._surveying = False
        if self._survey_again:
            self._survey()

    def _sweep(self, lane: RouteQueue) -> None:
        """End what the operator wants to be gone, though the route is down.

        Nothing is tried: everything else is put back at once.
        """
        name = lane.route.name
        now = self._reactor.seconds()
        if 0 <= now - self._swept_at.get(name, float("-inf")) < _SWEEP:
            return
        self._swept_at[name] = now
        leasing = self._spool.lease(
            name,
            now,
            fresh=_SWEPT,
            retries=_SWEPT,
            horizon=lane.schedule.horizon(now),
        )
        _ = leasing.addCallback(self._swept, lane)
        _ = leasing.addErrback(self._failed, "mail that is to be given up")

    def _swept(self, found: Sequence[LeasedMessage], lane: RouteQueue) -> None:
        expired = [leased for leased in found if leased.message.expired and not self._stopped]
        self._release([leased.message.id for leased in found if leased not in expired])
        for leased in expired:
            lane.lend(leased)
        if expired:
            self._attempts.carry(lane, expired)

    def _release(self, ids: list[str]) -> None:
        if ids:
            _ = self._spool.release(ids).addErrback(self._failed, "leases")

    def _failed(self, failure: Failure, what: str) -> None:
        self._tell(Trouble(f"{what} could not be looked after", printable(str(failure.value))))


def _arrival(message: QueuedMessage) -> Arrived:
    draft = message.draft
    sender = draft.envelope.sender
    return Arrived(
        message.id,
        printable(str(sender.mailbox), 320) if sender.mailbox else "",
        message.size,
        len(message.recipients),
        draft.route,
        printable(draft.origin, 200),
        printable(draft.message_id, 200) if draft.message_id else None,
    )


def _same(old: RouteSettings, new: RouteSettings) -> bool:
    """Could mail go on over the connections that are open?"""
    return (
        old.servers == new.servers
        and [server.endpoint for server in old.servers]
        == [server.endpoint for server in new.servers]
        and (old.limits, old.first, old.most) == (new.limits, new.first, new.most)
    )
