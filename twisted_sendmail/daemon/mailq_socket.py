"""The socket in the spool directory on which the relay answers ``mailq`` of every user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.mailq_server import MailqFactory
from twisted_sendmail.daemon.endpoints import unix_endpoint
from twisted_sendmail.daemon.listeners import listen
from twisted_sendmail.local_users import PEERS_ARE_KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IListeningPort

    from twisted_sendmail.admin.local_mail import LocalMail
    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.queue import Queue

#: Every user may ask.
MODE = 0o666
#: Requests that may wait to be accepted.
BACKLOG = 1024


class MailqSocket:
    """Answers for *queue*, which is open.

    :param down: returns the time of the next attempt of each route that is down.
    :param local_mail: returns the figures of the drop directory.
    """

    def __init__(
        self,
        reactor: Any,
        queue: Queue,
        local_mail: Callable[[], LocalMail | None],
        down: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._reactor = reactor
        self._local_mail = local_mail
        self._factory = MailqFactory(
            reactor, queue, operators=os.getegid(), down=down, notice=self._notice
        )
        self._port: IListeningPort | None = None

    async def apply(self, configuration: Configuration) -> None:
        """Listen, and let the operators of *configuration* see all mail.

        :raises CannotListen: the socket cannot be made.
        """
        operators = configuration.operators
        self._factory.operators = os.getegid() if operators is None else operators
        # Without peer credentials the relay answers no user; root and the relay's user read the queue directly.
        if self._port is None and PEERS_ARE_KNOWN:
            endpoint = unix_endpoint(configuration.drop.mailq_socket, MODE).with_backlog(BACKLOG)
            self._port = await listen(
                self._reactor, endpoint, lambda server: server.listen(self._factory)
            )

    async def close(self) -> None:
        """Stop listening, and drop the requests under way."""
        port, self._port = self._port, None
        stopped = None if port is None else port.stopListening()
        if stopped is not None:
            await stopped
        self._factory.close()

    def _notice(self) -> str | None:
        local = self._local_mail()
        return None if local is None else local.line
