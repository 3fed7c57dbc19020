"""One way out: its mailer, whether it works, and how much it is given at once.

Owns the mailer and the verdict on the servers behind it.  While they cannot be used, one
message at a time finds out whether they can again; everything else waits in the queue.

It does not take messages out of the queue; ``lane`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from twisted_sendmail.client import Mailer
from twisted_sendmail.relay.backoff import BackOff, Window
from twisted_sendmail.relay.classify import Blame
from twisted_sendmail.relay.events import AuthenticationAlarm, RouteDown, RouteUp
from twisted_sendmail.smtp import AuthenticationError, printable

if TYPE_CHECKING:
    from twisted_sendmail.client import SubmissionServer
    from twisted_sendmail.relay.events import Observer
    from twisted_sendmail.relay.retry_policy import Chance
    from twisted_sendmail.relay.settings import RouteSettings
    from twisted_sendmail.smtp import SendmailError

#: Messages under way at the beginning; each round of successes doubles it.
FIRST = 5
#: So many messages lost in a row mean that it is not the messages.
LOSSES = 3
#: Seconds without a word about any message under way after which more of them may begin: one that
#: hangs, or is very large, must not hold up all others.
SILENCE = 10.0
#: Seconds between questions to a server that is down, however often somebody stirs.
_STIRRED = 1.0


class Transport:
    """See the module.

    :param name: said in EHLO where a server's settings name nothing else.
    :param tell: told of its going down and coming up.
    """

    def __init__(
        self, reactor: Any, settings: RouteSettings, name: str, *, tell: Observer, chance: Chance
    ) -> None:
        self._reactor = reactor
        self._tell = tell
        self.settings = settings
        self.name = settings.name
        servers = [
            server if server.helo_name is not None else evolve(server, helo_name=name)
            for server in settings.servers
        ]
        self.mailer = Mailer(reactor, servers, limits=settings.limits)
        self.mailer.watch(self._not_ready)
        self.window = Window(FIRST, self.mailer.capacity)
        self.back_off = BackOff(settings.first, settings.most, chance)
        #: Messages under way, and those of them that began since it last changed for the worse.
        self.under_way = 0
        self._recent = 0
        #: Counts changes for the worse: what began before says nothing new.
        self.generation = 0
        self._losses = 0
        # When something was heard, or there was nothing to be heard of.
        self._heard = float("-inf")
        self._locked_since: float | None = None
        self._asked = float("-inf")
        # The message that asked last was too old to wait on: more of them may ask together.
        self._ageing = False
        # Asking before the time would be a log-in too many.
        self._patient = False
        #: Why it is down; None while it is up.
        self.reason: str | None = None

    @property
    def up(self) -> bool:
        """Does mail get through, as far as is known?"""
        return not self.back_off.closed

    @property
    def locked(self) -> bool:
        """Was a password refused, and none accepted since?"""
        return self._locked_since is not None

    def allowance(self, now: float) -> int:
        """Messages that may be under way."""
        if not self.back_off.closed:
            return self.window.size
        if self.back_off.left(now) > 0:
            return 0
        # Mail past its time ends only by a try that fails; a server that is down for days
        # must not hold that up.  They all wait for the same one connection.
        return self.window.most if self._ageing else 1

    def room(self, now: float) -> int:
        """How many more may begin."""
        return self.allowance(now) - (self._recent if self.back_off.closed else self.under_way)

    def silence(self, now: float) -> float:
        """Seconds until more may begin though nothing is heard; to be asked where there is no room."""
        passed = now - self._heard
        if passed >= SILENCE and self.up:
            self.window.unheard()
        if not 0 <= passed < SILENCE:
            self._heard, passed = now, 0.0
        return SILENCE - passed

    def reserve(self, messages: int) -> int:
        """Count so many as under way; gives what to return them with."""
        if not self.under_way:
            self._heard = self._reactor.seconds()
        self.under_way += messages
        self._recent += messages
        return self.generation

    def give_back(self, messages: int, generation: int) -> None:
        """So many are not under way any more."""
        self.under_way -= messages
        if generation == self.generation:
            self._recent = max(0, self._recent - messages)

    def asking(self) -> None:
        """Messages are about to be given to the mailer."""
        now = self._reactor.seconds()
        if self.back_off.closed:
            self._asked = now
            if self.locked:
                self._unlock()
        elif self._locked_since is not None:
            passed = now - self._locked_since
            if not 0 <= passed < self.settings.most:
                # Another server stands in; from time to time the better one gets a chance.
                self._unlock()

    def _unlock(self) -> None:
        # Should it be refused once more, that is told anew.
        self._locked_since = None
        self.mailer.unlock()

    def learn(
        self,
        generation: int,
        blame: Blame,
        said: str,
        *,
        expired: bool = False,
    ) -> None:
        """Take in how a try went.

        :param generation: what :meth:`reserve` gave.
        :param said: what went wrong, in one printable line.
        :param expired: the message was past its time.
        """
        self._heard = self._reactor.seconds()
        if blame is Blame.NOBODY:
            self._losses = 0
            self.window.succeeded()
            if self.back_off.closed:
                self._succeeded()
        elif blame in {Blame.LOSS, Blame.STRANGER}:
            # It may be the message's fault: only when it is so with others, it is not.
            self.window.troubled()
            self._losses += 1
            stranger = blame is Blame.STRANGER
            if stranger:
                self._alarm(str(self.settings.servers[0]), said)
            if self.back_off.closed or self._losses >= LOSSES:
                self._failed(generation, said, expired=expired, long=stranger)
        elif blame in {Blame.ROUTE, Blame.AUTH}:
            self.window.troubled()
            self._failed(generation, said, expired=expired, long=blame is Blame.AUTH)

    def ask_now(self) -> None:
        """Forget all back-offs: somebody says that it works now."""
        self.back_off.ask_now(twice=True)
        self.window.renew()
        self.generation += 1
        self._recent = 0
        self._losses = 0
        self._unlock()

    def stirred(self) -> None:
        """Somebody looks at the queue: ask soon, where that does no harm."""
        passed = self._reactor.seconds() - self._asked
        if self.back_off.closed and not self._patient and not 0 <= passed < _STIRRED:
            self.back_off.ask_now()

    def _succeeded(self) -> None:
        self.back_off.succeeded()
        self._locked_since = None
        self._ageing = False
        self.reason = None
        self._tell(RouteUp(self.name))

    def _failed(self, generation: int, reason: str, *, expired: bool, long: bool = False) -> None:
        if generation != self.generation:
            return  # what failed together failed once
        self.generation += 1
        self._recent = 0
        self._losses = 0
        self._ageing = expired
        self._patient = long
        self._asked = now = self._reactor.seconds()
        wait = self.back_off.failed(now, long=long)
        self.reason = reason
        self._tell(RouteDown(self.name, reason, wait))

    def _not_ready(self, server: SubmissionServer, error: SendmailError) -> None:
        if isinstance(error, AuthenticationError) and not error.temporary:
            self._locked_since = self._reactor.seconds()
            self._alarm(str(server), printable(str(error), 300))

    def _alarm(self, server: str, reason: str) -> None:
        self._tell(AuthenticationAlarm(self.name, server, reason))
