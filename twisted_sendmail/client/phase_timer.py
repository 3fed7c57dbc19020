"""One deadline at a time, for what is awaited next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.smtp import SendTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PhaseTimer:
    """Calls *expired* with an error when what was last set does not come in time.

    Set for every reply, it seldom touches the clock's queue: a call that comes too
    early for a later deadline is put off when it comes.
    """

    def __init__(self, clock: IReactorTime, expired: Callable[[SendTimeout], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._call: IDelayedCall | None = None
        self._due: float | None = None
        self._seconds = 0.0
        self._what: str | Callable[[], str] = ""
        self._phase: str | None = None
        #: What is timed; None for nothing.
        self.of: object = None

    def set(
        self,
        of: object,
        seconds: float | None,
        what: str | Callable[[], str],
        phase: str | None = None,
    ) -> None:
        """Wait for *of* for *seconds*, None for ever; *what* names it in the error."""
        self.of, self._what, self._phase = of, what, phase
        if seconds is None:
            self._due = None
            return
        self._seconds = seconds
        self._due = due = self._clock.seconds() + seconds
        call = self._call
        if call is None:
            self._call = self._clock.callLater(seconds, self._late)
        elif call.getTime() > due:
            # A reactor looks through all its calls for one that is to come sooner.
            call.cancel()
            self._call = self._clock.callLater(seconds, self._late)

    def pause(self) -> None:
        """Nobody waits just now."""
        self.of = self._due = None

    def stop(self) -> None:
        """Nobody waits any more."""
        self.pause()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def let_go(self) -> None:
        """Tell nobody any more."""
        self.stop()
        self._expired, self._what = _nobody, ""

    def _late(self) -> None:
        self._call = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._late)
            return
        what = self._what if isinstance(self._what, str) else self._what()
        self._expired(
            SendTimeout(f"{what} did not come within {self._seconds:g} s", phase=self._phase)
        )


def _nobody(_: object) -> None:
    pass
