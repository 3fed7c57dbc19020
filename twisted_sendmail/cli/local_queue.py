"""A message into the queue without the relay: by the same admission, with the same commit.

One transaction for all of it, pieces included: a program that is killed leaves nothing.
A relay that runs is woken; one that does not finds the message when it starts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from twisted_sendmail.message import Received
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
)
from twisted_sendmail.smtp import Envelope

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_sendmail.queue import MessageInfo, QueuedMessage


class LocalQueue:
    """The queue in *directory*, for one program that brings mail: as much of a ``Spool`` as that takes.

    :param patience: seconds to wait while another process writes.
    """

    def __init__(self, directory: Path, *, patience: float = PATIENCE) -> None:
        self.directory = directory
        self.patience = patience
        #: A name for a message.
        self.new_id = QueueIds(time.time)

    def intake(self) -> LocalIntake:
        """Begin to take a message in."""
        return LocalIntake(self)

    def wake(self) -> None:
        """Tell the relay, if one runs."""
        if (self.directory / WAKEUP).exists():
            from twisted_sendmail.queue import wake

            wake(self.directory)


class LocalIntake(Intake):
    """One message; what is large is in a file without a name until it is committed."""

    def __init__(self, queue: LocalQueue) -> None:
        self._queue = queue
        self._size = 0
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=PIECE))  # noqa: SIM115 - it stays open

    def write(self, data: bytes) -> None:
        """See ``Intake.write``.

        :raises QueueFull: there is no room for a temporary file.
        """
        self._size += len(data)
        try:
            self._file.write(data)
        except OSError as e:
            raise QueueFull(
                "the message could not be kept",
                detail=e.strerror or "",
                remedy=f"make room in {tempfile.gettempdir()}",
            ) from None

    def keep(self, draft: MessageInfo) -> QueuedMessage:
        """Make it durable, now.

        :raises QueueError: it is not, and nothing of it is left.
        """
        directory = self._queue.directory
        store = SQLiteStore(directory, patience=self._queue.patience)
        try:
            store.open(create=_may_create(directory))
            with store.transaction(doing="take the message in"):
                FreeSpace(directory, LEAST_FREE).ask(self._size)
                message = store.put(draft, self._written(store))
        finally:
            store.close()
            self.abort()
        self._queue.wake()
        return message

    def _written(self, store: SQLiteStore) -> bytes | Pieces:
        self._file.seek(0)
        if self._size <= SMALL:
            return self._file.read()
        body = id_number(self._queue.new_id()) or 0
        place = 0
        while piece := self._file.read(PIECE):
            store.put_piece(body, place, piece)
            place += 1
        return Pieces(body, place, self._size)

    def commit(self, draft: MessageInfo) -> Deferred[QueuedMessage]:
        """See ``Intake.commit``; it has fired when this returns."""
        from twisted.internet.defer import fail, succeed

        try:
            return succeed(self.keep(draft))
        except QueueError as e:
            return fail(e)

    def abort(self) -> None:
        """See ``Intake.abort``."""
        self._file.close()


def _may_create(directory: Path) -> bool:
    """A directory of ours may get its database here; whose relay it is, is seen by that alone."""
    with suppress(OSError):
        return directory.stat().st_uid == os.geteuid()
    return False


def enqueue(
    directory: Path,
    policy: CleanupPolicy,
    envelope: Envelope,
    pieces: Iterable[bytes],
    who: tuple[int, str],
    *,
    patience: float = PATIENCE,
) -> str:
    """Put a message into the queue; gives its id.

    :param pieces: its canonical content.
    :param who: brings it: uid and login name.
    :param patience: seconds to wait while another process writes.
    :raises QueueError: it is not there.
    :raises TooManyHops: it goes in circles.
    """
    queue = LocalQueue(directory, patience=patience)
    name, now = queue.new_id(), time.time()
    uid, login = who
    admission = Cleanup(policy, envelope, name, now, origin=f"{login} (uid {uid}) local")
    trace = Received(
        by=policy.name,
        by_comment=f"twisted_sendmail, from userid {uid}",
        id=name,
        date=datetime.fromtimestamp(now, timezone.utc),
    )
    intake = queue.intake()
    try:
        intake.write(admission.feed(trace.to_bytes()))
        for piece in pieces:
            intake.write(admission.feed(piece))
        intake.write(admission.finish())
        intake.keep(admission.draft())
    finally:
        intake.abort()
    return name
