"""The socket in the spool directory on which the relay answers ``mailq`` of every user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted_sendmail.admin.format import local_mail
from twisted_sendmail.admin.mailq import MailqFactory
from twisted_sendmail.daemon.endpoints import unix_endpoint
from twisted_sendmail.daemon.listeners import listen

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort

    from twisted_sendmail.daemon.config import Configuration
    from twisted_sendmail.daemon.drop_intake import DropIntake
    from twisted_sendmail.queue import Queue

#: Every user may ask.
MODE = 0o666


class MailqSocket:
    """Answers for *queue*, which is open, and for the mail that waits in the drop directory."""

    def __init__(self, reactor: Any, queue: Queue, drop: DropIntake) -> None:
        self._reactor = reactor
        self._drop = drop
        self._factory = MailqFactory(
            reactor, queue, operators=os.getegid(), notice=self._local_mail
        )
        self._port: IListeningPort | None = None

    async def apply(self, configuration: Configuration) -> None:
        """Listen, and let the operators of *configuration* see all mail.

        :raises CannotListen: the socket cannot be made.
        """
        operators = configuration.operators
        self._factory.operators = os.getegid() if operators is None else operators
        if self._port is None:
            endpoint = unix_endpoint(configuration.drop.mailq_socket, MODE)
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

    def _local_mail(self) -> str | None:
        totals = self._drop.totals
        return None if totals is None else local_mail(totals.files, totals.oldest)
