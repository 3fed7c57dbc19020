"""A mailer as a service of an application: closed, with what waits let out, when it stops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service

from twisted_sendmail.client.mailer import Mailer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_sendmail.client.limits import PoolLimits
    from twisted_sendmail.client.server_config import SubmissionServer


class MailerService(Service):
    """Owns a :class:`~twisted_sendmail.client.mailer.Mailer` while it runs.

    :param grace: seconds that stopping may take.
    :param send_waiting: let stopping send the messages that wait for a connection; if False
        they fail with ``MailerClosed`` at once, and only messages under way are waited for.

    The other parameters are the mailer's.
    """

    def __init__(
        self,
        reactor: Any,
        server: str | SubmissionServer | Sequence[str | SubmissionServer],
        *,
        limits: PoolLimits | None = None,
        grace: float | None = 30.0,
        send_waiting: bool = True,
    ) -> None:
        self._make: Callable[[], Mailer] = partial(Mailer, reactor, server, limits=limits)
        self._grace = grace
        self._send_waiting = send_waiting
        #: The mailer; a new one after each start.
        self.mailer = self._make()
        self._used = False

    def startService(self) -> None:
        """See ``IService``."""
        if self._used:
            self.mailer = self._make()
        self._used = True
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """See ``IService``; fires when the mailer is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.mailer.aclose(grace=self._grace, send_waiting=self._send_waiting)
