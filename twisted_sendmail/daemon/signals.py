"""Signals: SIGHUP reloads, SIGUSR1 flushes the queue; SIGTERM is Twisted's own.

The handlers are set when the service starts, behind ``twistd``'s fork, and those
from before come back when it stops.  They do nothing but wake the reactor.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """From :meth:`install` to :meth:`remove`.

    :param actions: what to call in the reactor's thread, by signal.
    """

    def __init__(self, reactor: Any, actions: dict[signal.Signals, Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = actions
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Set the handlers; where this is not the main thread there are none to set."""
        for number, action in self._actions.items():

            def handle(_number: int, _frame: object, action: Any = action) -> None:
                self._reactor.callFromThread(action)

            # ValueError: only the main thread may.
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, handle)

    def remove(self) -> None:
        """Set those from before."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                # None: it was not set from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
