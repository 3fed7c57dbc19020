"""The station: a configuration brought to life, from the queue to the doors.

The order is the promise: the queue is open and the relay runs before a door is opened, so that
nothing listens that could not keep what it takes.  It stops the other way round: the doors
close, messages under way get their reply, while the relay ends its tries; then the queue is closed.

What each part does is its own business; this one knows them all, and is known by ``tap``.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from twisted_sendmail.client import off_reactor
from twisted_sendmail.daemon.admin import AdminDoor
from twisted_sendmail.daemon.clock_watch import ClockWatch
from twisted_sendmail.daemon.json_log import JsonLog
from twisted_sendmail.daemon.listening import Listening
from twisted_sendmail.daemon.signals import Signals
from twisted_sendmail.daemon.systemd import Notifier
from twisted_sendmail.queue import QueueError
from twisted_sendmail.relay import RelayService
from twisted_sendmail.smtp import SendmailError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.queue import RecoveryReport

_log = Logger(namespace="twisted_sendmail.daemon")


class RelayDaemon(Service):
    """A relay with its doors, from start to stop.

    :param configuration: what it begins with.
    :param read: reads the configuration anew, for a reload; called in a thread.
    :param leave: called when it cannot start, with why; nothing listens then.
    :param notifier: tells systemd.
    """

    name = "sendmail"

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        *,
        read: Callable[[], Configuration],
        leave: Callable[[SendmailError], object],
        notifier: Notifier | None = None,
    ) -> None:
        self._reactor = reactor
        self.configuration = configuration
        self._read = read
        self._leave = leave
        self._notifier = notifier or Notifier()
        self._json_log = JsonLog()
        self.relay = RelayService(
            reactor, configuration.queue, configuration.relay, policy=configuration.admission
        )
        self._admin = AdminDoor(reactor, self.relay)
        self.listening: Listening | None = None
        self._clock = ClockWatch(reactor, lambda _: self.relay.look())
        self._signals = Signals(reactor, {signal.SIGHUP: self.reload, signal.SIGUSR1: self.flush})
        # Twisted's own handler would complain of a second one.
        self._impatience = Signals(
            reactor, dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._already)
        )
        self._starting: Deferred[None] | None = None
        self._reloading: Deferred[None] | None = None
        self._reload_again = False

    # -- starting ------------------------------------------------------------------------

    def startService(self) -> None:
        """See ``IService``; what cannot be started is told to *leave*."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._signals.install()
        self._clock.start()
        starting = Deferred.fromCoroutine(self._start())
        self._starting = starting.addErrback(self._not_started)

    async def _start(self) -> None:
        configuration = self.configuration
        if configuration.json_log is not None:
            self._open_json_log(configuration)
        _warn(configuration)
        self.relay.startService()
        recovered = await self.relay.ready()
        listening = self.listening = Listening(self._reactor, self.relay.queue)
        await listening.set(configuration)
        await self._admin.set(configuration)
        self._notifier.watch(self._reactor)
        self._notifier.ready(_status(recovered))
        _log.info("{status}", status=_status(recovered))

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, QueueError):
            # The relay has said it.
            pass
        elif isinstance(error, SendmailError):
            _log.critical("{error}", error=str(error))
        else:
            _log.failure("the relay cannot start", failure)
            error = SendmailError("the relay cannot start")
        self._leave(error)

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

    # -- while it runs -------------------------------------------------------------------

    def flush(self) -> None:
        """Try all mail at once."""
        _log.info("trying everything in the queue at once")
        _ = self.relay.flush().addErrback(
            lambda failure: _log.error("{error}", error=str(failure.value))
        )

    def reload(self) -> None:
        """Read the configuration again and do as it says; if it cannot be used, go on as before."""
        if self._reloading is not None:
            self._reload_again = True
            return
        self._notifier.reloading()
        reloading = self._reloading = Deferred.fromCoroutine(self._reload())
        _ = reloading.addErrback(self._not_reloaded).addBoth(self._reload_ended)

    async def _reload(self) -> None:
        if self._starting is not None:
            await _ended(self._starting)
        new = await off_reactor(self._reactor, self._read)
        if self.listening is None or not self.running:
            return
        if new.queue != self.configuration.queue:
            raise SendmailError(
                f"{new.source}: queue",
                detail="it cannot be another one while the relay runs",
                remedy="restart it",
            )
        await self.listening.set(new)
        self.relay.reconfigure(new.relay, new.admission)
        self.configuration = new
        self._open_json_log(new)
        await self._admin.set(new)
        _log.info("{source}: read again, and in effect", source=new.source)
        _warn(new)

    def _not_reloaded(self, failure: Failure) -> None:
        if failure.check(SendmailError):
            _log.error("{error}; the relay goes on as before", error=str(failure.value))
        else:
            _log.failure("the configuration cannot be read again", failure)

    def _reload_ended(self, _: object) -> None:
        self._reloading = None
        if self.running:
            self._notifier.ready("taking mail in")
            if self._reload_again:
                self._reload_again = False
                self.reload()

    # -- stopping ------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """See ``IService``; fires when the queue is closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted leaves it untyped
        self._notifier.stopping()
        self._impatience.install()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for under_way in (self._starting, self._reloading):
            if under_way is not None:
                await _ended(under_way)
        listening, self.listening = self.listening, None
        # Who brings mail and who takes it have the same time to end, not one after the other.
        draining = self.relay.drain() if self.relay.running else succeed(None)
        if listening is not None:
            await listening.close(self.configuration.limits.stop_grace)
        await draining
        await self._admin.close()
        if self.relay.running:
            await self.relay.stopService()
        self._notifier.rest()
        self._clock.stop()
        self._signals.remove()
        self._impatience.remove()
        self._json_log.close()

    def _already(self) -> None:
        _log.info("stopping already; messages under way have a little time to end")


def _warn(configuration: Configuration) -> None:
    for warning in configuration.warnings:
        _log.warn("{warning}", warning=warning)


def _status(recovered: RecoveryReport) -> str:
    waiting = recovered.messages
    return f"taking mail in; {waiting} {'message' if waiting == 1 else 'messages'} in the queue"


async def _ended(other: Deferred[None]) -> None:
    """Wait until *other*, which somebody else waits for too, has ended."""
    waiting: Deferred[None] = Deferred()

    def pass_on(result: object) -> object:
        waiting.callback(None)
        return result

    _ = other.addBoth(pass_on)
    await waiting
