"""A message that is on its way: by whom it was taken out, and what the mailer has of it.

Values and their links; what is done with them is ``attempt``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_sendmail.client import Job
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
