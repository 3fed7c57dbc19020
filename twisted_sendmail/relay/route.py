"""One route: its mailer, whether its servers can be used, and how many messages are under way.

While the servers cannot be used, one message at a time tests whether they can again; all other
mail waits in the queue.  ``queue_manager`` decides which messages are given to the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from twisted_sendmail.client import Mailer
from twisted_sendmail.relay.attempt_result import AttemptOutcome
from twisted_sendmail.relay.events import AuthenticationAlarm, RouteDown, RouteUp, TLSEstablished
from twisted_sendmail.relay.retry_policy import grown, jittered, remaining
from twisted_sendmail.smtp import AuthenticationError, printable

if TYPE_CHECKING:
    from twisted_sendmail.client import Job, MailerStats, SubmissionServer
    from twisted_sendmail.queue import DownRoute
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.retry_policy import Chance, RetryPolicy
    from twisted_sendmail.relay.settings import RouteSettings
    from twisted_sendmail.smtp import SendmailError, TLSFacts

#: Messages under way at the start; each round of successes doubles them.
INITIAL_WINDOW = 5
#: Connections lost in a row after which the route counts as down, and not the messages as faulty.
MAX_LOSSES = 3
#: Seconds for which a reply here outweighs the failure of another relay, whose network may be at fault.
RECENT_REPLY = 60.0
#: Seconds that a relay waits longer than the one that found the route down, so that one attempt tells all.
ADOPTION_DELAY = 20.0
#: Seconds without a result after which more messages may start: one that hangs, or is very large,
#: must not delay all others.
MAX_SILENCE = 10.0
#: Addresses of servers whose TLS is remembered, to announce a change.
_MAX_TLS_RECORDS = 100
#: Seconds between attempts to use a server that is down, however often the queue is changed.
_MIN_PROBE_INTERVAL = 1.0
_JITTER = 0.2
# Seconds until the second attempt after the operator flushed the queue while another was under way:
# the connection that it had begun may have failed the first.
_SECOND_CHANCE = 0.1
# Times of two relays that differ by less are the same.
_CLOCK_TOLERANCE = 1.0
# Waits below this are too short for the clock of the reactor, and count as over.
_CLOCK_RESOLUTION = 0.001


@attrs.frozen
class RouteStats:
    """State of one route."""

    name: str
    #: ``name:port`` of its servers, in order of preference.
    servers: tuple[str, ...]
    #: Mail gets through, as far as is known.
    up: bool
    #: Why it does not; None while it does.
    reason: str | None
    #: Seconds until the next attempt; 0 while it is up.
    wait: float
    #: The credentials were refused, and not accepted since.
    locked: bool
    #: Messages on their way.
    under_way: int
    #: Limit of messages on their way.
    allowance: int
    mailer: MailerStats


class Route:
    """Mailer and state of one route.

    :param name: for EHLO, where the settings of a server give no other name.
    :param policy: when its mail is tried again.
    :param notify: called when the route goes down or comes up, and when TLS with a server changes.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RouteSettings,
        name: str,
        policy: RetryPolicy,
        *,
        notify: Observer,
        chance: Chance,
    ) -> None:
        self._reactor = reactor
        self._notify = notify
        self._chance = chance
        self.settings = settings
        self.policy = policy
        self.name = settings.name
        servers = [
            server if server.helo_name is not None else attrs.evolve(server, helo_name=name)
            for server in settings.servers
        ]
        self.mailer = Mailer(reactor, servers, limits=settings.limits)
        self.mailer.watch(self._not_ready)
        self.window = Window(INITIAL_WINDOW, self.mailer.capacity)
        self.back_off = BackOff(settings.first, settings.most, chance)
        #: The messages under way.
        self.slots = Slots()
        self._losses = 0
        # Relays that share the limits.
        self._relays = 1
        self._last_reply = self._last_result = float("-inf")
        self._locked_since: float | None = None
        self._probed = float("-inf")
        # The last message that failed had expired: others of its age may be tried together.
        self._expiring = False
        # The credentials were refused: each attempt is one more failed login.
        self._patient = False
        #: Why the route is down; None while it is up.
        self.reason: str | None = None
        # By server: the facts of the last message, and those that were announced.
        self._tls: dict[str, tuple[TLSFacts, tuple[object, ...]]] = {}

    @property
    def up(self) -> bool:
        """Mail gets through, as far as is known."""
        return not self.back_off.closed

    @property
    def locked(self) -> bool:
        """The credentials were refused, and not accepted since."""
        return self._locked_since is not None

    def allowance(self, now: float) -> int:
        """Return how many messages may be under way."""
        if not self.back_off.closed:
            return self.window.size
        if self.back_off.left(now) > 0:
            return 0
        # Mail past its lifetime leaves the queue only by an attempt that fails, and a server that
        # is down for days must not delay that.  They all wait for the same connection.
        return self.window.most if self._expiring else 1

    def free_slots(self, now: float) -> int:
        """Return how many more messages may start."""
        slots = self.slots
        return self.allowance(now) - (slots.recent if self.back_off.closed else slots.taken)

    def silence(self, now: float) -> float:
        """Widen the window if there was no result for long; return the seconds until the next time."""
        left = remaining(self._last_result, MAX_SILENCE, now)
        if left <= 0:
            if self.up:
                self.window.stalled()
            self._last_result, left = now, MAX_SILENCE
        return left

    def take_slot(self, *, new: bool) -> Slot:
        """Count one more message as under way; return its slot.

        :param new: the message was never tried before.
        """
        slots = self.slots
        if not slots.taken:
            self._last_result = self._reactor.seconds()
        slots.taken += 1
        slots.recent += 1
        slots.new += new
        return Slot(slots, new, slots.generation)

    def share(self, relays: int) -> None:
        """Use this relay's part of the limits of the route: *relays* deliver over it.

        Each may have one connection, however many relays there are.
        """
        if relays == self._relays:
            return
        self._relays = relays
        limits = self.settings.limits
        self.mailer.change_limits(
            attrs.evolve(
                limits,
                connections=max(1, limits.connections // relays),
                rate=None if limits.rate is None else limits.rate / relays,
                burst=max(1, limits.burst // relays),
            )
        )
        self.window.change_most(self.mailer.capacity)

    def adopt(self, down: DownRoute) -> None:
        """Wait as another relay does, which found the route down.

        That relay makes the next attempt, and this one a little later, unless the route was up here
        just now.
        """
        now = self._reactor.seconds()
        left = min(max(0.0, down.next_attempt - now), self.settings.most * (1 + _JITTER))
        if remaining(self._last_reply, RECENT_REPLY, now) > 0 or (
            self.back_off.closed and self.back_off.left(now) >= left - _CLOCK_TOLERANCE
        ):
            return
        self.slots.start_generation()
        self._losses = 0
        self._patient = down.refused
        if down.refused:
            self._locked_since = now
        wait = left + jittered(ADOPTION_DELAY, _JITTER, self._chance)
        again, self.reason = self.reason is not None, down.reason
        self.back_off.adopt(now, wait)
        self._notify(RouteDown(self.name, down.reason, wait, again, down.refused, elsewhere=True))

    def found_up(self) -> None:
        """Use the route again, because another relay found it up."""
        if self.up:
            return
        self.slots.start_generation()
        self.window.renew()
        self._losses = 0
        self._unlock()
        self._succeeded(elsewhere=True)

    def add(self, jobs: list[Job]) -> None:
        """Give *jobs* to the mailer."""
        self.mailer.pool.add(jobs)

    def starting(self) -> None:
        """Prepare for messages that are about to be given to the mailer."""
        now = self._reactor.seconds()
        if self.back_off.closed:
            self._probed = now
            if self.locked:
                self._unlock()
        elif (
            self._locked_since is not None
            and remaining(self._locked_since, self.settings.most, now) <= 0
        ):
            # A later server is in use; the refused one, which is better, is tried now and then.
            self._unlock()

    def _unlock(self) -> None:
        # A further refusal raises a further alarm.
        self._locked_since = None
        self.mailer.unlock()

    def report_outcome(
        self, slot: Slot, outcome: AttemptOutcome, reason: str, *, expired: bool = False
    ) -> None:
        """Update the state by the outcome of the attempt that had *slot*.

        :param reason: reply or error, in one printable line.
        :param expired: the message had expired.
        """
        self._last_result = self._reactor.seconds()
        if outcome is AttemptOutcome.REPLIED:
            self._last_reply = self._last_result
            self._losses = 0
            self.window.succeeded()
            if self.back_off.closed:
                self._succeeded()
        elif outcome in {AttemptOutcome.LOST, AttemptOutcome.SENDER_REFUSED}:
            # The message may be the cause, unless other messages fail in the same way.
            self.window.failed()
            self._losses += 1
            refused = outcome is AttemptOutcome.SENDER_REFUSED
            if refused:
                self._alarm(str(self.settings.servers[0]), reason)
            if self.back_off.closed or self._losses >= MAX_LOSSES:
                self._failed(slot, reason, expired=expired, longest=refused)
        elif outcome in {AttemptOutcome.UNREACHABLE, AttemptOutcome.LOGIN_REFUSED}:
            self.window.failed()
            refused = outcome is AttemptOutcome.LOGIN_REFUSED
            self._failed(slot, reason, expired=expired, longest=refused)

    def note_tls(self, relay: str, tls: TLSFacts) -> None:
        """Announce the TLS with *relay*, ``name[address]:port``, if it is not as announced before."""
        last, announced = self._tls.get(relay, (None, None))
        if last is tls:
            return  # another message on the same connection
        # Not the group, which is not known in a resumed session of TLS 1.2.
        facts = (
            tls.version, tls.cipher, tls.fingerprint, tls.verified_by, tls.identity, tls.chain,
            tls.channel_binding,
        )  # fmt: skip
        if len(self._tls) >= _MAX_TLS_RECORDS:
            self._tls.clear()
        self._tls[relay] = tls, facts
        if facts != announced:
            self._notify(TLSEstablished(self.name, printable(relay, 320), tls))

    def probe_now(self) -> None:
        """Forget all back-off: the operator flushed the queue, or the settings changed."""
        self.back_off.end_wait(second_chance=self.slots.taken > 0)
        self.window.renew()
        self.slots.start_generation()
        self._losses = 0
        self._unlock()

    def probe_soon(self) -> None:
        """End the wait of a server that is down, where that does no harm: the queue was changed."""
        now = self._reactor.seconds()
        if (
            self.back_off.closed
            and not self._patient
            and remaining(self._probed, _MIN_PROBE_INTERVAL, now) <= 0
        ):
            self.back_off.end_wait()

    def stats(self) -> RouteStats:
        """Return the present state."""
        now = self._reactor.seconds()
        return RouteStats(
            name=self.name,
            servers=tuple(server.host_and_port for server in self.settings.servers),
            up=self.up,
            reason=self.reason,
            wait=self.back_off.left(now),
            locked=self.locked,
            under_way=self.slots.taken,
            allowance=self.allowance(now),
            mailer=self.mailer.stats(),
        )

    def _succeeded(self, *, elsewhere: bool = False) -> None:
        self.back_off.succeeded()
        self._locked_since = None
        self._expiring = False
        self.reason = None
        self._notify(RouteUp(self.name, elsewhere))

    def _failed(self, slot: Slot, reason: str, *, expired: bool, longest: bool) -> None:
        if slot.generation != self.slots.generation:
            return  # messages that failed together count as one failure
        self.slots.start_generation()
        self._losses = 0
        self._expiring = expired
        self._patient = longest
        self._probed = now = self._reactor.seconds()
        wait = self.back_off.failed(now, longest=longest)
        again, self.reason = self.reason is not None, reason
        self._notify(RouteDown(self.name, reason, wait, again, longest))

    def _not_ready(self, server: SubmissionServer, error: SendmailError) -> None:
        if isinstance(error, AuthenticationError) and not error.temporary:
            self._locked_since = self._reactor.seconds()
            self._alarm(str(server), printable(str(error), 300))

    def _alarm(self, server: str, reason: str) -> None:
        self._notify(AuthenticationAlarm(self.name, server, reason))


class Slots:
    """Counter of the messages under way on a route.

    A message has a :class:`Slot` from before its lease until the result of its attempt is durable.
    """

    __slots__ = ("generation", "new", "recent", "taken")

    def __init__(self) -> None:
        #: Number of times the state of the route changed for the worse.  Results of attempts that
        #: started before the last change tell nothing new.
        self.generation = 0
        #: All messages under way.
        self.taken = 0
        #: Messages that were never tried before.
        self.new = 0
        #: Messages that started in this generation.
        self.recent = 0

    def start_generation(self) -> None:
        """Tell messages that are under way now from those that start later."""
        self.generation += 1
        self.recent = 0


class Slot:
    """The slot of one message under way."""

    __slots__ = ("_slots", "generation", "new")

    def __init__(self, slots: Slots, new: bool, generation: int) -> None:  # noqa: FBT001 - made by Route.take_slot
        self._slots: Slots | None = slots
        self.new = new
        #: Generation of the route when the slot was taken.
        self.generation = generation

    def free(self) -> bool:
        """Free the slot; return False if that was done before."""
        slots, self._slots = self._slots, None
        if slots is None:
            return False
        slots.taken -= 1
        slots.new -= self.new
        if self.generation == slots.generation:
            slots.recent -= 1
        return True


class BackOff:
    """Back-off of a route: open, or closed for a wait that grows.

    :param first: seconds of the first wait, changed at random by a fifth.
    :param most: seconds of the longest wait.
    """

    def __init__(self, first: float, most: float, chance: Chance) -> None:
        self._first = first
        self._most = most
        self._chance = chance
        self._times = 0
        self._since = 0.0
        self._wait = 0.0
        self._second_chance = False
        #: Nothing succeeded since the last failure.
        self.closed = False

    def failed(self, now: float, *, longest: bool = False) -> float:
        """Close; return for how many seconds.

        :param longest: wait as long as possible, because an early attempt would do harm.
        """
        second_chance, self._second_chance = self._second_chance, False
        if second_chance and not longest:
            wait = min(_SECOND_CHANCE, self._first)
        else:
            wait = self._most if longest else grown(self._first, self._most, self._times)
            self._times += 1
        self.closed = True
        self._since, self._wait = now, jittered(wait, _JITTER, self._chance)
        return self._wait

    def adopt(self, now: float, wait: float) -> None:
        """Close for *wait* seconds, which another relay chose."""
        self.closed, self._second_chance = True, False
        self._since, self._wait = now, wait
        self._times = 1
        while grown(self._first, self._most, self._times) < min(wait, self._most):
            self._times += 1

    def succeeded(self) -> None:
        """Open."""
        self.closed = self._second_chance = False
        self._times = 0
        self._wait = 0.0

    def end_wait(self, *, second_chance: bool = False) -> None:
        """End the wait; stay closed until something succeeds; the next waits grow from the first.

        :param second_chance: after the next failure wait only for a moment.
        """
        self._second_chance = second_chance and self.closed
        self._times = 0
        self._wait = 0.0

    def left(self, now: float) -> float:
        """Return the seconds until the next attempt; 0 when it is open."""
        left = remaining(self._since, self._wait, now) if self.closed else 0.0
        return left if left > _CLOCK_RESOLUTION else 0.0


class Window:
    """Limit of messages under way, as in TCP's slow start: a server that just came up gets few.

    :param first: the limit at the start.
    :param most: the largest limit.
    """

    def __init__(self, first: int, most: int) -> None:
        self._initial = first
        self.most = most
        self.size = self._first = min(first, most)

    def change_most(self, most: int) -> None:
        """Change the largest limit."""
        self.most = most
        self.size = min(self.size, most)
        self._first = min(self._initial, most)

    def succeeded(self) -> None:
        """Widen by one; a round of successes doubles it."""
        if self.size < self.most:
            self.size += 1

    def failed(self) -> None:
        """Narrow to one."""
        self.size = 1

    def stalled(self) -> None:
        """Widen although nothing succeeded, so that other messages can pass those that hang."""
        self.size = min(self.most, max(2 * self.size, self.size + self._first))

    def renew(self) -> None:
        """Widen to the limit at the start."""
        self.size = max(self.size, self._first)
