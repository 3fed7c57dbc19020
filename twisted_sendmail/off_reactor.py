"""Work that blocks or computes for long, kept off the reactor's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

_T = TypeVar("_T")


def off_reactor(reactor: Any, work: Callable[[], _T]) -> Deferred[_T]:
    """Call *work* in the reactor's thread pool; at once where the reactor has none (a Clock).

    Cancelling does not stop the thread; its result is discarded.
    """
    if IReactorThreads.providedBy(reactor):
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)
    return maybeDeferred(work)
