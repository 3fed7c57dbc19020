"""Timeouts, deadlines and cancellation of everything the client does.

:class:`Timeouts` are those of the phases of a session; the defaults are those of RFC 5321 section
4.5.3.2, where it has one.  Each is one deadline for one reply: a server that sends its reply
slowly does not extend it.  The :class:`~twisted_sendmail.timer.Timer` of a connection holds the one
that runs; :class:`Deadlines` and :func:`within` bound whole operations, and :class:`Cancelled` is the
error of an operation that was cut off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_sendmail.smtp import DeliveryCancelled, SendTimeout, Verb, check_positive
from twisted_sendmail.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.internet.interfaces import IReactorTime

    from twisted_sendmail.smtp import DeliveryReport

_T = TypeVar("_T")


def _above_zero(_: object, attribute: Any, value: object) -> None:
    if value is not None:
        check_positive(
            f"the timeout '{attribute.name}'", value, "seconds above zero, or None for no timeout"
        )


def _seconds(default: float) -> Any:
    return field(default=default, validator=_above_zero)


@frozen
class Timeouts:
    """Seconds for each phase; None waits without end.

    :raises InvalidInput: a value is not a number above zero.
    """

    #: Name look-up and TCP, all addresses together.
    connect: float | None = _seconds(30.0)
    #: The greeting (section 4.5.3.2.1).
    greeting: float | None = _seconds(300.0)
    #: EHLO, HELO, STARTTLS, RSET, NOOP and unknown commands.
    command: float | None = _seconds(300.0)
    #: The TLS handshake.
    tls: float | None = _seconds(60.0)
    #: Each reply in AUTH: servers ask other servers, and delay wrong passwords.
    auth: float | None = _seconds(300.0)
    #: MAIL (section 4.5.3.2.2).
    mail: float | None = _seconds(300.0)
    #: RCPT (section 4.5.3.2.3).
    rcpt: float | None = _seconds(300.0)
    #: From DATA to the 354 (section 4.5.3.2.4).
    data_init: float | None = _seconds(120.0)
    #: Until the server has taken the next piece of the content, 64 KiB or more (section 4.5.3.2.5).
    data_block: float | None = _seconds(180.0)
    #: From the final dot to its reply (section 4.5.3.2.6).
    data_end: float | None = _seconds(600.0)
    #: From QUIT to the end of the connection, which is closed without waiting for the 221.
    quit: float | None = _seconds(1.0)
    #: One message, from the name look-up to the last reply.
    total: float | None = _seconds(3600.0)

    def of(self, verb: Verb) -> float | None:
        """Return the seconds for the reply to *verb*."""
        value: float | None = getattr(self, _FIELDS.get(verb, "command"))
        return value


_FIELDS = {
    Verb.GREETING: "greeting",
    Verb.AUTH: "auth",
    Verb.AUTH_LINE: "auth",
    Verb.AUTH_CANCEL: "auth",
    Verb.MAIL: "mail",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data_init",
    Verb.CONTENT: "data_end",
    Verb.LONE_DOT: "data_end",
    Verb.BDAT: "data_block",
    Verb.BDAT_LAST: "data_end",
    Verb.QUIT: "quit",
}


class Cancelled(DeliveryCancelled, CancelledError):
    """The caller cancelled a Deferred; the connection is closed."""

    #: From ``many`` and ``send_many``: the reports of the messages that were begun.
    reports: tuple[DeliveryReport, ...] = ()

    def _known(self) -> tuple[DeliveryReport, ...]:
        return (*super()._known(), *self.reports)


class Deadlines:
    """One deadline for many operations, with a single delayed call.

    :param seconds: None for no deadline.
    :param what: how to call an operation in errors.
    """

    def __init__(self, clock: IReactorTime, seconds: float | None, what: str) -> None:
        self._clock = clock
        self._seconds = seconds
        self._what = what
        # In the order in which they are due.
        self._running: dict[Deferred[Any], float] = {}
        self._expired: set[Deferred[Any]] = set()
        self._timer = Timer(clock, self._expire)

    def apply(self, running: Deferred[_T]) -> Deferred[_T]:
        """Cancel *running* at its deadline.

        :raises SendTimeout: it took too long; the error carries the report of the cancelled
            operation.
        """
        if self._seconds is None or running.called:
            return running
        self._running[running] = self._clock.seconds() + self._seconds
        if self._timer.key is None:
            self._timer.set(running, self._seconds)
        return running.addBoth(self._done, running, self._seconds)

    def stop_if_idle(self) -> None:
        """Leave no delayed call, if no operation runs."""
        if not self._running:
            self._timer.stop()

    def _done(self, result: Any, running: Deferred[Any], seconds: float) -> Any:
        _ = self._running.pop(running, None)
        if running not in self._expired:
            return result
        self._expired.remove(running)
        return _timed_out(result, self._what, seconds)

    def _expire(self, _: object) -> None:
        now = self._clock.seconds()
        for running, due in list(self._running.items()):
            if due > now:
                self._timer.set(running, due - now)
                return
            if self._running.pop(running, None) is not None:
                self._expired.add(running)
                running.cancel()


def within(
    clock: IReactorTime,
    seconds: float | None,
    work: Coroutine[Deferred[Any], Any, _T],
    what: Callable[[], str],
) -> Deferred[_T]:
    """Run *work*, and cancel it after *seconds*; None for never.

    :param what: names the operation, for the error.
    :raises SendTimeout: as of :meth:`Deadlines.apply`.
    """
    running = Deferred.fromCoroutine(work)
    if seconds is None or running.called:
        return running
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        running.cancel()

    def done(result: Any) -> Any:
        if late:
            return _timed_out(result, what(), seconds or 0)
        call.cancel()
        return result

    call = clock.callLater(seconds, expire)
    return running.addBoth(done)


def _timed_out(result: Any, what: str, seconds: float) -> Any:
    """Return the result of an operation that was cancelled at its deadline."""
    if not isinstance(result, Failure) or not result.check(CancelledError):
        return result
    cut = result.value
    error = SendTimeout(f"{what} took more than {seconds:g} s")
    if isinstance(cut, Cancelled):
        error.remedy, error.phase = cut.remedy, cut.phase
        report = cut.report and replace(cut.report, error=error)
        error.at(host=cut.host, tls=cut.tls, transcript=cut.transcript, report=report)
    return Failure(error)
