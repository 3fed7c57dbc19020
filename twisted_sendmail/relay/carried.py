"""A message that is on its way: by whom it was taken out, and what the mailer has of it.

Values and their links; what is done with them is ``attempt``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.mailer.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.mailer.job import Ending as Result
    from twisted_sendmail.message.letter import Letter
    from twisted_sendmail.relay.lane import Lane
    from twisted_sendmail.spool.record import Leased, QueuedRecipient


class Attempt:
    """One message on its way.

    :param begun: when it was taken up.
    """

    __slots__ = ("begun", "ended", "generation", "job", "lane", "leased", "letter", "tried")

    def __init__(self, lane: Lane, leased: Leased, begun: float) -> None:
        self.lane = lane
        self.leased = leased
        self.begun = begun
        self.generation = lane.route.generation
        self.tried: tuple[QueuedRecipient, ...] = ()
        self.letter: Letter | None = None
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
        letter: Letter,
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
