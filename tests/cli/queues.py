"""Queues with messages in every state, written by the store.

This is the one helper of the commands' tests that uses the store; the tests use this.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.names import (
    AttemptRecord,
    LeasedMessage,
    MessageInfo,
    QueueAction,
    QueuedMessage,
    QueueIds,
    RecipientState,
    Selection,
    SetAsideReason,
    SQLiteStore,
    id_number,
)
from tests.rows import recipient_row
from twisted_sendmail import Envelope, Recipient
from twisted_sendmail.queue import PIECE_SIZE, DownRoute, Pieces

CONTENT = (
    b"Received: from a by b\r\nFrom: alice@example.org\r\nTo: bob@example.net\r\n"
    b"Subject: =?utf-8?q?hello?= \x1b[2J\r\n\r\nHi.\r\n.\r\n\xff\x00\r\n"
)
REPLY = "450 4.2.2 Mailbox \x1b[2Jfull"
_new_id = QueueIds(time.time)


class Queue:
    """A queue on disk; the methods change it as a relay does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with self._opened(create=True):
            pass

    @contextmanager
    def _opened(self, *, create: bool = False, write: bool = True) -> Iterator[SQLiteStore]:
        """The store, in a transaction."""
        store = SQLiteStore(self.directory)
        store.open(create=create)
        try:
            with store.transaction(write=write):
                yield store
        finally:
            store.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process writes to it, and does not end."""
        with self._opened():
            yield

    def release(self, *names: str) -> None:
        """These were leased, and not tried after all."""
        with self._opened() as store:
            store.release([LeasedMessage(store.list(Selection(ids=(n,)))[0]) for n in names])

    def multiply(self, count: int) -> None:
        """Make so many copies of the one message that is in it, with rising names."""
        with self._opened() as store:
            found = {
                kind: store.connection.rows(f"SELECT * FROM {kind}")  # noqa: S608
                for kind in ("message", "recipient")
            }
            for n in range(1, count + 1):
                for kind, (row,) in found.items():
                    marks = ", ".join("?" * len(row))
                    store.connection.execute(
                        f"INSERT INTO {kind} VALUES ({marks})",  # noqa: S608
                        (row[0] + n, *row[1:]),
                    )

    def take(
        self,
        sender: str = "alice@example.org",
        recipients: Sequence[str | Recipient] = ("bob@example.net",),
        *,
        content: bytes = CONTENT,
        route: str = "default",
        arrived: float | None = None,
        ret: str | None = None,
        envid: str | None = None,
    ) -> str:
        """A message comes in; its id."""
        info = MessageInfo(
            _new_id(),
            Envelope(sender, list(recipients), ret=ret, envid=envid),
            time.time() if arrived is None else arrived,
            route,
            origin="client[192.0.2.1] ESMTP",
            message_id="<1@example.org>",
        )
        with self._opened() as store:
            if len(content) <= PIECE_SIZE:
                store.put(info, content)
            else:
                body = id_number(_new_id()) or 0
                pieces = [
                    content[at : at + PIECE_SIZE] for at in range(0, len(content), PIECE_SIZE)
                ]
                for place, piece in enumerate(pieces):
                    store.put_piece(body, place, piece)
                store.put(info, Pieces(body, len(pieces), len(content)))
        return info.id

    def route_down(self, name: str, reason: str, next_attempt: float) -> None:
        """The relay records that a route is down."""
        with self._opened() as store:
            store.record_route(name, DownRoute(name, reason, next_attempt))

    def lease(self, route: str = "default") -> list[str]:
        """All that is due is taken out to be tried."""
        with self._opened() as store:
            leased = store.lease(
                route, time.time() + 1, fresh=99, retries=99, horizon=time.time() + 1e6
            )
        return [each.message.id for each in leased]

    def defer(self, name: str, reply: str = REPLY, *, numbers: Sequence[int] = (0,)) -> str:
        """A try ends without success."""
        assert name in self.lease()
        now = time.time()
        changes = tuple(
            recipient_row(
                n, RecipientState.PENDING, now + 330, reply, "4.2.2", "mx.example.net[192.0.2.9]:25"
            )
            for n in numbers
        )
        with self._opened() as store:
            store.settle(AttemptRecord(name, now, changes))
        return name

    def deliver(self, name: str, number: int) -> None:
        """One of its recipients gets it."""
        assert name in self.lease()
        with self._opened() as store:
            store.settle(
                AttemptRecord(
                    name,
                    time.time(),
                    (recipient_row(number, RecipientState.DELIVERED, reply="250 2.0.0 Ok"),),
                )
            )

    def set_aside(self, name: str) -> str:
        """It fails, and there is nobody to tell."""
        assert name in self.lease()
        with self._opened() as store:
            failed = (
                recipient_row(
                    0, RecipientState.FAILED, reply="550 5.1.1 No such user", status="5.1.1"
                ),
            )
            store.settle(
                AttemptRecord(name, time.time(), failed, aside=SetAsideReason.UNDELIVERABLE)
            )
        return name

    def hold(self, name: str) -> str:
        """The operator puts it on hold."""
        with self._opened() as store:
            store.act(QueueAction.HOLD, Selection(ids=(name,)), time.time())
        return name

    def damage(self, name: str) -> str:
        """Its sender changes on the disk."""
        with self._opened() as store:
            store.connection.execute(
                "UPDATE message SET sender = 'eve@example.com' WHERE number = ?",
                (id_number(name),),
            )
        return name

    @property
    def messages(self) -> dict[str, QueuedMessage]:
        """What is in it."""
        with self._opened(write=False) as store:
            return {message.id: message for message in store.list(Selection())}

    def content(self, name: str) -> bytes:
        """The content of a message."""
        with self._opened(write=False) as store:
            return b"".join(store.content(name))
