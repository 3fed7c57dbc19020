"""``RelayDaemon``: a relay as a service, from the queue to the listeners.

The queue is open and the relay runs before anything listens, so that no message is accepted that
could not be kept. The order of the stop is the reverse: the listeners close and messages in transit get
their reply, while the relay ends its attempts; then the queue closes.

SIGHUP reads the configuration again, SIGUSR1 tries all mail at once; SIGTERM and SIGINT are Twisted's.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from twisted_sendmail.admin.local_mail import LocalMail
from twisted_sendmail.admin.pages import waits
from twisted_sendmail.daemon.admin_endpoint import AdminEndpoint
from twisted_sendmail.daemon.clock_watch import ClockWatch
from twisted_sendmail.daemon.drop_intake import DropIntake
from twisted_sendmail.daemon.listeners import Listeners
from twisted_sendmail.daemon.logging import JsonLog, levels_from
from twisted_sendmail.daemon.mailq_socket import MailqSocket
from twisted_sendmail.daemon.systemd import Notifier
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import QueueError
from twisted_sendmail.relay import RelayService
from twisted_sendmail.shared_result import SharedResult
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.daemon.logging import TextLog
    from twisted_sendmail.queue import RecoveryReport

_log = Logger(namespace="twisted_sendmail.daemon")


class RelayDaemon(Service):
    """A relay with its listeners.

    :param configuration: the settings at the start.
    :param read: reads the configuration again, for a reload; called in a thread.
    :param start_failed: called with the error if the start fails; nothing listens then.
    :param notifier: notifies systemd.
    """

    name = "sendmail"

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        *,
        read: Callable[[], Configuration],
        start_failed: Callable[[SendmailError], object],
        notifier: Notifier | None = None,
    ) -> None:
        self._reactor = reactor
        self.configuration = configuration
        self._read = read
        self._start_failed = start_failed
        self._notifier = notifier or Notifier()
        self._json_log = JsonLog()
        #: None: the application logs by something else.
        self.text_log: TextLog | None = None
        self.relay = RelayService(
            reactor, configuration.queue, configuration.relay, policy=configuration.cleanup
        )
        self._admin = AdminEndpoint(reactor, self.relay, self._local_mail)
        #: None before the queue is open.
        self.drop: DropIntake | None = None
        self._mailq: MailqSocket | None = None
        #: None before the queue is open, and after the stop began.
        self.listeners: Listeners | None = None
        self._clock_watch = ClockWatch(reactor, lambda _: self.relay.look())
        self._signals = SignalHandlers(
            reactor, {signal.SIGHUP: self.reload, signal.SIGUSR1: self.flush}
        )
        # During a stop, Twisted's own handlers would log a traceback at a second signal.
        self._stop_signals = SignalHandlers(
            reactor, dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._log_stopping)
        )
        self._starting: SharedResult[None] | None = None
        self._reloading: SharedResult[None] | None = None
        self._reload_again = False

    # -- start ---------------------------------------------------------------------------

    def startService(self) -> None:
        """See ``IService``; a failure is given to *start_failed*."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._signals.install()
        self._clock_watch.start()
        self._starting = SharedResult()
        starting = Deferred.fromCoroutine(self._start())
        _ = starting.addErrback(self._log_start_failed).addBoth(self._starting.set)

    async def _start(self) -> None:
        configuration = self.configuration
        self._apply_log(configuration)
        _log_warnings(configuration)
        self.relay.startService()
        recovered = await self.relay.ready()
        self.drop = DropIntake(self._reactor, self.relay.queue)
        await self.drop.apply(configuration)
        self.listeners = Listeners(self._reactor, self.relay.queue)
        await self.listeners.apply(configuration)
        await self._admin.apply(configuration)
        self._mailq = MailqSocket(
            self._reactor, self.relay.queue, self._local_mail, self._routes_down
        )
        await self._mailq.apply(configuration)
        self.drop.start()
        self._notifier.start_watchdog(self._reactor)
        self._notifier.ready(_status(recovered))
        _log.info("{status}", status=_status(recovered))

    def _log_start_failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, SendmailError):
            _log.failure("the relay cannot start", failure)
            error = SendmailError("the relay cannot start")
        elif not isinstance(error, QueueError):  # which the relay has logged
            _log.critical("{error}", error=str(error))
        self._start_failed(error)

    def _apply_log(self, configuration: Configuration) -> None:
        levels = levels_from(configuration.log_level)
        self._json_log.levels = levels
        if self.text_log is not None:
            self.text_log.levels = levels
        self._open_json_log(configuration)

    def _reopen_logs(self) -> None:
        """Open the files again, which another program may have renamed."""
        log = self.text_log
        if log is not None:
            try:
                log.reopen()
            except OSError as e:
                _log.error(
                    "the log file {path} cannot be opened again: {why}; "
                    "the file that was open stays in use",
                    path=str(log.path),
                    why=e.strerror,
                )
        self._open_json_log(self.configuration)

    def _open_json_log(self, configuration: Configuration) -> None:
        path = configuration.json_log
        if path is None:
            self._json_log.close()
            return
        try:
            self._json_log.open(path)
        except OSError as e:
            _log.error(
                "{source}: log.json-file: {path} cannot be opened: {why}; mail goes on without",
                source=configuration.source,
                path=str(path),
                why=e.strerror,
            )

    def _local_mail(self) -> LocalMail | None:
        """Return the figures of the drop directory at the last scan; None before it."""
        drop = self.drop
        if drop is None or drop.totals is None:
            return None
        files, oldest, octets = drop.totals
        return LocalMail(files, oldest, octets, len(drop.stuck))

    def _routes_down(self) -> dict[str, float]:
        """Return the time of the next attempt of each route that is down."""
        return waits(self.relay.stats().routes, self._reactor.seconds())

    # -- signals -------------------------------------------------------------------------

    def flush(self) -> None:
        """Try all mail at once."""
        _log.info("trying everything in the queue at once")
        _ = self.relay.flush().addErrback(
            lambda failure: _log.error("{error}", error=str(failure.value))
        )

    def reload(self) -> None:
        """Open the log files again; read the configuration again and apply it.

        If the configuration cannot be used, it changes nothing.
        """
        # Also if the configuration cannot be used: the next step of a rotation may be gzip.
        self._reopen_logs()
        if self._reloading is not None:
            self._reload_again = True
            return
        self._notifier.reloading()
        self._reloading = SharedResult()
        reloading = Deferred.fromCoroutine(self._reload())
        _ = reloading.addErrback(self._log_reload_failed).addBoth(self._reload_ended)

    async def _reload(self) -> None:
        if self._starting is not None:
            await self._starting.wait()
        new = await off_reactor(self._reactor, self._read)
        if self.listeners is None or not self.running:
            return
        for key in ("queue", "spool"):
            if getattr(new.drop, key) != getattr(self.configuration.drop, key):
                raise SendmailError(
                    f"{new.source}: {key}",
                    detail="the directory cannot change while the relay runs",
                    remedy="restart the relay",
                )
        if self.drop is not None:
            await self.drop.check(new)
        await self.listeners.apply(new)
        if self.drop is not None:
            await self.drop.apply(new)
        if self._mailq is not None:
            await self._mailq.apply(new)
        self.relay.reconfigure(new.relay, new.cleanup)
        self.configuration = new
        self._apply_log(new)
        await self._admin.apply(new)
        _log.info("{source}: read again, and in effect", source=new.source)
        _log_warnings(new)

    def _log_reload_failed(self, failure: Failure) -> None:
        if failure.check(SendmailError):
            _log.error("{error}; the relay goes on as before", error=str(failure.value))
        else:
            _log.failure("the configuration cannot be read again", failure)

    def _reload_ended(self, _: object) -> None:
        ended, self._reloading = self._reloading, None
        if ended is not None:
            ended.set(None)
        if self.running:
            self._notifier.ready("accepting mail")
            if self._reload_again:
                self._reload_again = False
                self.reload()

    # -- stop ----------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """See ``IService``; fires when the queue is closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._notifier.stopping()
        self._stop_signals.install()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for running in (self._starting, self._reloading):
            if running is not None:
                await running.wait()
        listeners, self.listeners = self.listeners, None
        # Messages in and messages out share one grace.
        drained = self.relay.drain() if self.relay.running else succeed(None)
        if listeners is not None:
            await listeners.close(self.configuration.limits.stop_grace)
        if self.drop is not None:
            await self.drop.stop()
        await drained
        await self._admin.close()
        if self._mailq is not None:
            await self._mailq.close()
        if self.relay.running:
            await self.relay.stopService()
        self._notifier.stop_watchdog()
        self._clock_watch.stop()
        self._signals.remove()
        self._stop_signals.remove()
        self._json_log.close()

    def _log_stopping(self) -> None:
        _log.info("stopping already; messages in transit have a little time to end")


def _log_warnings(configuration: Configuration) -> None:
    for warning in configuration.warnings:
        _log.warn("{warning}", warning=warning)


def _status(recovered: RecoveryReport) -> str:
    waiting = recovered.messages
    return f"accepting mail; {waiting} {'message' if waiting == 1 else 'messages'} in the queue"


class SignalHandlers:
    """Calls *actions* in the reactor's thread, by signal, from :meth:`install` to :meth:`remove`."""

    def __init__(self, reactor: Any, actions: dict[signal.Signals, Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = actions
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Set the handlers, if this is the main thread; others may not (ValueError)."""
        for number, action in self._actions.items():

            def handle(_number: int, _frame: object, action: Any = action) -> None:
                self._reactor.callFromThread(action)

            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, handle)

    def remove(self) -> None:
        """Restore the handlers from before :meth:`install`."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                # None: the handler was not set from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
