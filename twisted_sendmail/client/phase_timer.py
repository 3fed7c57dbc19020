"""One deadline at a time, for what is awaited next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp.errors import SendTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PhaseTimer:
    """Calls *expired* with an error when what was last set does not come in time."""

    def __init__(self, clock: IReactorTime, expired: Callable[[SendTimeout], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._call: IDelayedCall | None = None
        #: What is timed; None for nothing.
        self.of: object = None

    def set(self, of: object, seconds: float | None, words: str, phase: str | None = None) -> None:
        """Wait for *of*, called *words* in the error, *seconds* long; None for ever."""
        self.stop()
        self.of = of
        if seconds is not None:
            self._call = self._clock.callLater(seconds, self._late, seconds, words, phase)

    def stop(self) -> None:
        """It came, or nobody waits any more."""
        call, self._call, self.of = self._call, None, None
        if call is not None:
            call.cancel()

    def _late(self, seconds: float, words: str, phase: str | None) -> None:
        self._call = None
        self._expired(SendTimeout(f"{words} did not come within {seconds:g} s", phase=phase))
