"""Waiting until the reactor has looked at all sockets once.

Nothing else: who waits for it, and what may not come meanwhile, is ``connection``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


def two_turns(clock: IReactorTime) -> Deferred[None]:
    """Fire in the turn of the reactor after the next; cancelling works.

    One turn may be the rest of this one, the second begins behind a poll of all sockets.
    """
    done: Deferred[None] = Deferred()
    call = clock.callLater(0, lambda: turns.append(clock.callLater(0, done.callback, None)))
    turns = [call]

    def cancel(result: Any) -> Any:
        if turns[-1].active():
            turns[-1].cancel()
        turns.clear()  # which hold the function that holds them
        return result

    return done.addErrback(cancel)
