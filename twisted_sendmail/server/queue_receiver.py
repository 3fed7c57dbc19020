"""The receiver that keeps: a message goes through admission into the spool.

250 is said when the spool has it for good, and not before.  Trouble of ours is 451, no
room is 452: the client keeps the message and comes back (RFC 5321 section 4.2.5).
Once it is being committed it stays, whether the client waits for the reply or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from twisted_sendmail.queue import Cleanup, QueueFull, TooManyHops
from twisted_sendmail.server.receiver import ConnectionInfo, Receiver
from twisted_sendmail.smtp import Envelope, Recipient, Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_sendmail.queue import CleanupPolicy, Intake, MessageInfo, Queue
    from twisted_sendmail.smtp import MailParameters, ReversePath

NO_ROOM = Reply(452, ("4.3.1 No room in the queue: try again later",))
TROUBLE = Reply(451, ("4.3.0 Our trouble, not yours: try again later",))
IN_CIRCLES = Reply(554, ("5.4.6 Too many hops: the message goes in circles",))
_log = Logger()


class QueueReceiver(Receiver):
    """Takes one message into *spool*.

    :param clock: the wall clock.
    """

    def __init__(
        self, connection: ConnectionInfo, spool: Queue, policy: CleanupPolicy, clock: IReactorTime
    ) -> None:
        self.connection = connection
        self.id = spool.new_id()
        self._spool = spool
        self._policy = policy
        self._clock = clock
        self._recipients: list[Recipient] = []
        self._admission: Cleanup | None = None
        self._intake: Intake | None = None
        # The Received field, which goes with what comes behind it.
        self._trace = b""

    def sender(self, sender: ReversePath, parameters: MailParameters) -> None:
        """Any; who may send is the server's to say."""
        self._sender = sender
        self._parameters = parameters

    def recipient(self, recipient: Recipient) -> None:
        """Any."""
        self._recipients.append(recipient)

    def write(self, data: bytes) -> Deferred[Reply | None] | Reply | None:
        """Through admission into the spool; a Deferred when the spool wants us to wait."""
        if self._admission is None and not self._trace and data.startswith(b"Received:"):
            self._trace = data
            return None
        try:
            octets = self._opened().feed(self._behind_trace(data))
        except TooManyHops:
            return IN_CIRCLES
        written = self._keep(octets)
        return None if written is None else written.addCallbacks(_yes, self._refusal)

    def commit(self) -> Deferred[Reply | None] | Reply:
        """All of it is here: into the queue."""
        try:
            admission = self._opened()
            octets = admission.feed(self._behind_trace(b"")) + admission.finish()
            draft = admission.draft()
        except TooManyHops:
            self.abort()
            return IN_CIRCLES
        except BaseException:
            self.abort()
            raise
        written = self._keep(octets)
        intake, self._intake = self._intake, None
        if intake is None:
            intake = self._spool.intake()
        if written is None:
            return intake.commit(draft).addCallbacks(_yes, self._refusal)
        later = Deferred.fromCoroutine(_commit_behind(written, intake, draft))
        return later.addCallbacks(_yes, self._refusal)

    def abort(self) -> None:
        """It will not come."""
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.abort()

    def _behind_trace(self, data: bytes) -> bytes:
        trace, self._trace = self._trace, b""
        return trace + data

    def _opened(self) -> Cleanup:
        if self._admission is None:
            said = self._parameters
            envelope = Envelope(
                self._sender,
                self._recipients,
                ret=said.ret,
                envid=said.envid,
                require_tls=said.require_tls,
            )
            self._admission = Cleanup(
                self._policy,
                envelope,
                self.id,
                self._clock.seconds(),
                origin=_origin(self.connection, smtputf8=said.smtputf8),
                binary=said.body == "BINARYMIME",
            )
        return self._admission

    def _keep(self, octets: bytes) -> Deferred[None] | None:
        if not octets:
            return None
        if self._intake is None:
            self._intake = self._spool.intake()
        return self._intake.write(octets)

    def _refusal(self, failure: Failure) -> Reply | Failure:
        if failure.check(CancelledError):
            return failure
        if failure.check(QueueFull):
            _log.warn("{id}: no room for it in the queue", id=self.id)
            return NO_ROOM
        _log.error("{id}: not taken into the queue: {why}", id=self.id, why=str(failure.value))
        return TROUBLE


async def _commit_behind(written: Deferred[None], intake: Intake, draft: MessageInfo) -> None:
    try:
        await written
    except BaseException:
        intake.abort()
        raise
    await intake.commit(draft)


def _yes(_: object) -> None:
    """None is yes."""


def _origin(connection: ConnectionInfo, *, smtputf8: bool) -> str:
    """``client.example.org[192.0.2.1] ESMTPSA jane``."""
    host = getattr(connection.peer, "host", None)
    text = f"{connection.hello or 'unknown'}[{host or 'local'}]"
    text += f" {connection.protocol(smtputf8=smtputf8)}"
    return text if connection.user is None else f"{text} {connection.user}"
