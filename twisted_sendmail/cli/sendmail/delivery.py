"""Deliver a local message: to the relay over its Unix socket, or into the relay's queue.

If the socket exists, the message is submitted by the package's own client. It goes into the queue
for every recipient that the relay neither accepted nor refused permanently; without a relay, for
all of them. A message whose reply was lost is in doubt and is queued too, with the same Message-ID:
it may be sent twice, but it is never lost.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import attrs

from twisted_sendmail.cli.output import error_lines, print_error, print_note
from twisted_sendmail.cli.sendmail.local_relay import LocalRelay
from twisted_sendmail.cli.sendmail.message import InputMessage, User
from twisted_sendmail.exit_status import ExitStatus, status_of_result
from twisted_sendmail.message import clause, received_field
from twisted_sendmail.queue import (
    LEAST_FREE,
    PATIENCE,
    PIECE,
    SMALL,
    WAKEUP,
    Cleanup,
    CleanupPolicy,
    FreeSpace,
    Intake,
    Pieces,
    QueueError,
    QueueFull,
    QueueIds,
    SQLiteStore,
    id_number,
    wake,
)
from twisted_sendmail.smtp import (
    DeliveryReport,
    Envelope,
    Recipient,
    RecipientResult,
    RecipientStatus,
    SendmailError,
    printable,
)

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue import MessageInfo, QueuedMessage

#: Seconds that the relay may be silent. A relay of this machine answers at once, and the caller waits.
RELAY_SILENCE = 20.0
#: Seconds in which the command ends although the relay is silent and the queue is locked, and the
#: seconds of them that the queue gets at least.
TOTAL_TIMEOUT, MIN_QUEUE_TIMEOUT = 30.0, 10.0


def deliver(
    relay: LocalRelay, message: InputMessage, envelope: Envelope, user: User, *, verbose: bool
) -> int:
    """Deliver *message*; the exit status.

    :raises SendmailError: the message or the configuration cannot be used.
    """
    begun = time.monotonic()
    attempt = RelayAttempt(envelope)
    if relay.has_socket:
        attempt = _submit(relay.socket, message, envelope, verbose=verbose)
        if attempt.interrupted:
            print_error(f"interrupted: {attempt.error or 'nothing was sent'}")
            return attempt.interrupted
    status = attempt.report_refusals()
    to_queue = attempt.recipients_to_queue
    if not to_queue:
        return status
    reason = "no relay is running" if attempt.error is None else str(attempt.error)
    if verbose:
        print_note(f"-- {reason}; into the queue {printable(str(relay.queue), 300)}")
    relay.check_size(message.size)
    patience = max(MIN_QUEUE_TIMEOUT, TOTAL_TIMEOUT - (time.monotonic() - begun))
    try:
        queue_id = enqueue(
            LocalQueue(relay.queue, patience=patience),
            relay.policy(),
            envelope.to(to_queue),
            message.pieces(),
            user,
        )
    except (QueueError, OSError) as e:
        advice, status = "try again later", ExitStatus.TEMPFAIL
        if attempt.may_be_delivered:
            advice = (
                "some recipients may already have the message; sending it again may duplicate it"
            )
            status = status_of_result(attempt.report, attempt.error)
        print_error(f"the message was not taken, {advice}: {reason}; {e}")
        return status
    if verbose:
        print_note(f"-- queued as {queue_id}")
    return status


# -- by the relay -----------------------------------------------------------------


@attrs.define
class RelayAttempt:
    """The result of submitting a message to the relay; by default, of not submitting it."""

    envelope: Envelope
    report: DeliveryReport | None = None
    error: SendmailError | None = None
    #: The exit status if a signal interrupted the attempt; then nothing more is done.
    interrupted: int = 0

    @property
    def _permanent_error(self) -> SendmailError | None:
        return self.error if self.error is not None and not self.error.temporary else None

    @property
    def may_be_delivered(self) -> bool:
        """The relay has the message for a recipient, or may have it."""
        if self.report is None:
            return self.error is not None and self.error.in_doubt
        return bool(self.report.accepted or self.report.in_doubt)

    @property
    def recipients_to_queue(self) -> tuple[Recipient, ...]:
        """The recipients that were neither accepted nor refused permanently."""
        if self.report is None:
            return () if self._permanent_error else self.envelope.recipients
        return tuple(each.recipient for each in self.report.outcomes if self._to_queue(each))

    def _to_queue(self, result: RecipientResult) -> bool:
        if result.status is RecipientStatus.UNTOUCHED:
            return self._permanent_error is None
        return result.in_doubt or (
            result.status is RecipientStatus.REFUSED and bool(result.transient)
        )

    def report_refusals(self) -> int:
        """Print what the relay refused permanently; the exit status."""
        refused = self.report.refused if self.report is not None else ()
        permanent = [result for result in refused if not result.transient]
        error = self._permanent_error
        if not permanent and (self.error is None or self.recipients_to_queue):
            return ExitStatus.OK
        lines = [str(result) for result in permanent]
        for line in lines if error is None else error_lines(self.report, error):
            print_error(line)
        return status_of_result(self.report, error)


def _submit(
    socket: Path, message: InputMessage, envelope: Envelope, *, verbose: bool
) -> RelayAttempt:
    from twisted.internet.defer import CancelledError
    from twisted.internet.endpoints import UNIXClientEndpoint

    from twisted_sendmail.cli.react import react
    from twisted_sendmail.client import Timeouts, TLSPolicy, sendmail

    phases = ("greeting", "command", "mail", "rcpt", "data_init", "data_block", "data_end")
    timeouts = Timeouts(connect=5.0, quit=0.5, **dict.fromkeys(phases, RELAY_SILENCE))
    attempt = RelayAttempt(envelope)

    async def work(reactor: Any) -> int:
        try:
            attempt.report = await sendmail(
                UNIXClientEndpoint(reactor, str(socket), timeout=5),
                message.content(),
                envelope=envelope,
                server_name="",
                tls=TLSPolicy.NONE,
                helo_name="localhost",
                timeouts=timeouts,
                watch=print_note if verbose else None,
                complete=False,
                reactor=reactor,
            )
        except SendmailError as e:
            attempt.error, attempt.report = e, e.report
            return 1
        except CancelledError:
            return 1
        return 0

    status = react(work)
    if status > 128:
        attempt.interrupted = status
    return attempt


# -- into the queue ---------------------------------------------------------------


def enqueue(
    queue: LocalQueue,
    policy: CleanupPolicy,
    envelope: Envelope,
    pieces: Iterable[bytes],
    user: User,
) -> str:
    """Commit a message to *queue*; its queue id.

    :param pieces: the content, with CRLF line ends.
    :raises QueueError: the message was not committed.
    :raises TooManyHops: the message has passed too many servers.
    """
    queue_id, now = queue.new_id(), time.time()
    cleanup = Cleanup(policy, envelope, queue_id, now, origin=f"{user.name} (uid {user.uid}) local")
    by = clause("by", policy.name, f"twisted_sendmail, from userid {user.uid}")
    intake = queue.intake()
    try:
        intake.write(cleanup.feed(received_field([by, clause("id", queue_id)], now)))
        for piece in pieces:
            intake.write(cleanup.feed(piece))
        intake.write(cleanup.finish())
        intake.commit_now(cleanup.message_info())
    finally:
        intake.abort()
    return queue_id


class LocalQueue:
    """The queue in *directory*, for a program that is not the relay; the relay may run or not.

    :param patience: seconds to wait while another process writes.
    """

    def __init__(self, directory: Path, *, patience: float = PATIENCE) -> None:
        self.directory = directory
        self.patience = patience
        #: Makes a queue id.
        self.new_id = QueueIds(time.time)

    def intake(self) -> LocalIntake:
        """Begin to take in a message."""
        return LocalIntake(self)


class LocalIntake(Intake):
    """One message on its way into the queue; a long one is in an unnamed file until the commit.

    One transaction writes all of it: a program that is killed leaves nothing behind.
    """

    def __init__(self, queue: LocalQueue) -> None:
        self._queue = queue
        self._size = 0
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=PIECE))  # noqa: SIM115 - it stays open

    def write(self, data: bytes) -> None:
        """See ``Intake.write``.

        :raises QueueFull: there is no space for a temporary file.
        """
        self._size += len(data)
        try:
            self._file.write(data)
        except OSError as e:
            raise QueueFull(
                "the message could not be kept",
                detail=e.strerror or "",
                remedy=f"free space in {tempfile.gettempdir()}",
            ) from None

    def commit_now(self, info: MessageInfo) -> QueuedMessage:
        """Commit the message now, and wake the relay if it runs.

        :raises QueueError: the message was not committed, and nothing of it is left.
        """
        directory = self._queue.directory
        store = SQLiteStore(directory, patience=self._queue.patience)
        try:
            store.open(create=_may_create(directory))
            with store.transaction(doing="take the message in"):
                FreeSpace(directory, LEAST_FREE).ask(self._size)
                message = store.put(info, self._written(store))
        finally:
            store.close()
            self.abort()
        if (directory / WAKEUP).exists():
            wake(directory)
        return message

    def _written(self, store: SQLiteStore) -> bytes | Pieces:
        self._file.seek(0)
        if self._size <= SMALL:
            return self._file.read()
        body = id_number(self._queue.new_id()) or 0
        count = 0
        while piece := self._file.read(PIECE):
            store.put_piece(body, count, piece)
            count += 1
        return Pieces(body, count, self._size)

    def commit(self, info: MessageInfo) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``; the Deferred has fired already."""
        from twisted.internet.defer import fail, succeed

        try:
            return succeed(self.commit_now(info))
        except QueueError as e:
            return fail(e)

    def abort(self) -> None:
        """See ``Intake.abort``."""
        self._file.close()


def _may_create(directory: Path) -> bool:
    """The database may be created: the directory belongs to the user who runs the command."""
    with suppress(OSError):
        return directory.stat().st_uid == os.geteuid()
    return False
