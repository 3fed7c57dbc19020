"""The receiver that puts a message into the relay's queue, through ``Cleanup``.

The client gets 250 when the queue has committed the message to the disk.  A fault of the queue is
451, as is a DKIM key that cannot be read, and a full queue 452: the client keeps the message and tries
again (RFC 5321 section 4.2.5).  A
commit goes on whether the client waits for the reply or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_sendmail.local_users import uid_text
from twisted_sendmail.off_reactor import off_reactor
from twisted_sendmail.queue import Cleanup, QueueFull, TooManyHops
from twisted_sendmail.server.connection_info import ConnectionInfo
from twisted_sendmail.server.receiver import (
    INSUFFICIENT_STORAGE,
    LOCAL_ERROR,
    Receiver,
)
from twisted_sendmail.smtp import TOO_MANY_HOPS, Envelope, Recipient, Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import CleanupPolicy, Intake, MessageInfo, Queue
    from twisted_sendmail.smtp import MailParameters, ReversePath

_log = Logger(namespace="twisted_sendmail.server")


class QueueReceiver(Receiver):
    """Puts one message into *queue*.

    :param policy: what is done to mail before it is queued.
    :param clock: the wall clock.
    :param local: the client is a program of this machine.
    """

    def __init__(
        self,
        connection: ConnectionInfo,
        queue: Queue,
        policy: CleanupPolicy,
        clock: IReactorTime,
        *,
        local: bool = False,
    ) -> None:
        self.connection = connection
        self.id = queue.new_id()
        self._queue = queue
        self._policy = policy
        self._clock = clock
        self._local = local
        self._recipients: list[Recipient] = []
        self._cleanup: Cleanup | None = None
        self._intake: Intake | None = None
        # The server's Received field, which is fed together with the content after it.
        self._trace = b""

    def sender(self, sender: ReversePath, parameters: MailParameters) -> None:
        """Accept any sender: the server decides who may send."""
        self._sender = sender
        self._parameters = parameters

    def recipient(self, recipient: Recipient) -> None:
        """Accept any recipient."""
        self._recipients.append(recipient)

    def trace(self, field: bytes) -> None:
        """Keep the field for the first content."""
        self._trace = field

    def write(self, data: bytes) -> Deferred[Reply | None] | Reply | None:
        """Pass content through ``Cleanup`` to the queue; a Deferred if the queue has to write."""
        try:
            octets = self._feed(data)
        except TooManyHops:
            return TOO_MANY_HOPS
        written = self._keep(octets)
        return None if written is None else written.addCallbacks(_yes, self._refusal)

    def commit(self) -> Deferred[Reply | None] | Reply:
        """Commit the message to the queue."""
        try:
            octets, cleanup = b"", self._cleanup
            if cleanup is None:  # the content is empty
                cleanup = self._new_cleanup()
                octets = cleanup.feed(self._trace)
            octets += cleanup.finish()
            info = cleanup.message_info()
        except TooManyHops:
            self.abort()
            return TOO_MANY_HOPS
        except BaseException:
            self.abort()
            raise
        written = self._keep(octets)
        intake, self._intake = self._intake, None
        if intake is None:
            intake = self._queue.intake()
        if written is None and cleanup.dkim is None:
            return intake.commit(info).addCallbacks(_yes, self._refusal)
        later = Deferred.fromCoroutine(self._commit_after(written, cleanup, intake, info))
        return later.addCallbacks(_yes, self._refusal)

    async def _commit_after(
        self, written: Deferred[None] | None, cleanup: Cleanup, intake: Intake, info: MessageInfo
    ) -> None:
        try:
            if written is not None:
                await written
            if cleanup.dkim is not None:
                await off_reactor(self._clock, cleanup.check_keys)
        except BaseException:
            intake.abort()
            raise
        await intake.commit(info)

    def abort(self) -> None:
        """Remove what there is of the message."""
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.abort()

    def _feed(self, data: bytes) -> bytes:
        """Pass *data*, the first time after the trace, to ``Cleanup``; return the octets to be queued."""
        cleanup = self._cleanup
        if cleanup is None:
            cleanup = self._cleanup = self._new_cleanup()
            data = self._trace + data
        return cleanup.feed(data)

    def _new_cleanup(self) -> Cleanup:
        parameters = self._parameters
        envelope = Envelope(
            self._sender,
            self._recipients,
            ret=parameters.ret,
            envid=parameters.envid,
            require_tls=parameters.require_tls,
            others=parameters.others,
        )
        return Cleanup(
            self._policy,
            envelope,
            self.id,
            self._clock.seconds(),
            origin=_origin(self.connection, smtputf8=parameters.smtputf8),
            uid=None if self.connection.local is None else self.connection.local.uid,
            local=self._local,
            account=self.connection.user,
            binary=parameters.body == "BINARYMIME",
            own_hops=1 if self._trace else 0,
        )

    def _keep(self, octets: bytes) -> Deferred[None] | None:
        if not octets:
            return None
        if self._intake is None:
            self._intake = self._queue.intake()
        return self._intake.write(octets)

    def _refusal(self, failure: Failure) -> Reply | Failure:
        if failure.check(CancelledError):
            return failure
        if failure.check(QueueFull):
            _log.warn("{id}: not queued: the queue is full", id=self.id)
            return INSUFFICIENT_STORAGE
        _log.error("{id}: not queued: {why}", id=self.id, why=str(failure.value))
        return LOCAL_ERROR


def _yes(_: object) -> None:
    """Return None, which accepts."""


def _origin(connection: ConnectionInfo, *, smtputf8: bool) -> str:
    """Return ``client.example.org[192.0.2.1] ESMTPSA jane``, for the log.

    On a Unix socket: ``localhost[uid 1000] ESMTP``.
    """
    local = connection.local
    host = getattr(connection.peer, "host", "local") if local is None else uid_text(local.uid)
    text = f"{connection.hello or 'unknown'}[{host}]"
    text += f" {connection.protocol(smtputf8=smtputf8)}"
    return text if connection.user is None else f"{text} {connection.user}"
