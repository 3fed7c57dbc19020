"""A message that is on its way: by whom it was taken out, and what the mailer has of it.

Values and their links; what is done with them is ``attempt``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.client import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.client.job import Ending as Result
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.queue import LeasedMessage, QueuedRecipient
    from twisted_sendmail.relay.lane import RouteQueue


class Attempt:
    """One message on its way.

    :param begun: when it was taken up.
    """

    __slots__ = ("begun", "ended", "generation", "job", "lane", "leased", "letter", "tried")

    def __init__(self, lane: RouteQueue, leased: LeasedMessage, begun: float) -> None:
        self.lane = lane
        self.leased = leased
        self.begun = begun
        self.generation = lane.route.generation
        self.tried: tuple[QueuedRecipient, ...] = ()
        self.letter: PreparedMessage | None = None
        self.job: Job | None = None
        self.ended = False


class CarriedJob(Job):
    """An attempt as the mailer knows it.

    :param told: called with how it ended, and the attempt.
    """

    __slots__ = ("_attempt", "_told")

    def __init__(
        self,
        attempt: Attempt,
        letter: PreparedMessage,
        told: Callable[[Result, Attempt], None],
        since: float,
    ) -> None:
        super().__init__(letter, all_or_nothing=False, since=since)
        # Until it was told: then they do not hold each other any more.
        self._attempt: Attempt | None = attempt
        self._told = told

    def told(self, result: Result) -> None:
        """See ``Job``."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._told(result, attempt)
