"""Several commands that belong together, and one Deferred for all of their answers.

What a message needs: MAIL, a RCPT for each recipient, DATA.  A refused command is an
answer like any other, and so is the error of one that got no reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_sendmail.smtp import Reply, SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable

#: A reply, or why there is none.
Answer = Reply | SendmailError


class Exchange:
    """Collects answers; to the session it is the tag of each of its commands.

    :param size: answers to come.
    :param cancel: what to do when the Deferred is cancelled.
    """

    __slots__ = ("_left", "answers", "done")

    #: As a Deferred has it: each command is answered once, so it never is.
    called = False

    def __init__(self, size: int, cancel: Callable[[], None]) -> None:
        self._left = size
        self.answers: list[Answer] = []
        self.done: Deferred[list[Answer]] = Deferred(lambda _: cancel())

    def callback(self, answer: Answer) -> None:
        """Take the next answer."""
        self.answers.append(answer)
        self._left -= 1
        if not self._left and not self.done.called:
            self.done.callback(self.answers)

    errback = callback


def reply_of(answer: Answer) -> Reply:
    """The reply.

    :raises SendmailError: there is none.
    """
    if isinstance(answer, SendmailError):
        raise answer
    return answer
