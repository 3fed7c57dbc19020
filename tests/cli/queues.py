"""Queues with messages in every state, made by the store itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from twisted_sendmail.smtp.envelope import Envelope, Recipient
from twisted_sendmail.spool.arriving import PIECE, Pieces
from twisted_sendmail.spool.queue_id import QueueIds, id_number
from twisted_sendmail.spool.record import (
    Action,
    Aside,
    Change,
    Draft,
    QueuedMessage,
    Selection,
    Settlement,
    State,
)
from twisted_sendmail.spool.sqlite_store import Store

CONTENT = (
    b"Received: from a by b\r\nFrom: alice@example.org\r\nTo: bob@example.net\r\n"
    b"Subject: =?utf-8?q?hello?= \x1b[2J\r\n\r\nHi.\r\n.\r\n\xff\x00\r\n"
)
REPLY = "450 4.2.2 Mailbox \x1b[2Jfull"
_new_id = QueueIds(time.time)


class Queue:
    """One on disk; each method is a moment in the life of a relay."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with self.opened(create=True):
            pass

    def opened(self, *, create: bool = False) -> Store:
        store = Store(self.directory)
        store.open(create=create)
        return _Opened(store)  # type: ignore[return-value]  # it stands for the store

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
        draft = Draft(
            _new_id(),
            Envelope(sender, list(recipients), ret=ret, envid=envid),
            time.time() if arrived is None else arrived,
            route,
            origin="client[192.0.2.1] ESMTP",
            message_id="<1@example.org>",
        )
        with self.opened() as store, store.transaction():
            if len(content) <= PIECE:
                store.put(draft, content)
            else:
                body = id_number(_new_id()) or 0
                pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
                for place, piece in enumerate(pieces):
                    store.put_piece(body, place, piece)
                store.put(draft, Pieces(body, len(pieces), len(content)))
        return draft.id

    def lease(self, route: str = "default") -> list[str]:
        """All that is due is taken out to be tried."""
        with self.opened() as store, store.transaction():
            leased = store.lease(
                route, time.time() + 1, fresh=99, retries=99, horizon=time.time() + 1e6
            )
        return [each.message.id for each in leased]

    def defer(self, name: str, reply: str = REPLY, *, numbers: Sequence[int] = (0,)) -> str:
        """A try ends without success."""
        assert name in self.lease()
        now = time.time()
        changes = tuple(
            Change(n, State.PENDING, now + 330, reply, "4.2.2", "mx.example.net[192.0.2.9]:25")
            for n in numbers
        )
        with self.opened() as store, store.transaction():
            store.settle(Settlement(name, now, changes))
        return name

    def deliver(self, name: str, number: int) -> None:
        """One of its recipients gets it."""
        assert name in self.lease()
        with self.opened() as store, store.transaction():
            store.settle(
                Settlement(
                    name, time.time(), (Change(number, State.DELIVERED, reply="250 2.0.0 Ok"),)
                )
            )

    def set_aside(self, name: str) -> str:
        """It fails, and there is nobody to tell."""
        assert name in self.lease()
        with self.opened() as store, store.transaction():
            failed = (Change(0, State.FAILED, reply="550 5.1.1 No such user", status="5.1.1"),)
            store.settle(Settlement(name, time.time(), failed, aside=Aside.UNDELIVERABLE))
        return name

    def hold(self, name: str) -> str:
        """The operator puts it on hold."""
        with self.opened() as store, store.transaction():
            store.act(Action.HOLD, Selection(ids=(name,)), time.time())
        return name

    def damage(self, name: str) -> str:
        """Its sender changes on the disk."""
        with self.opened() as store, store.transaction():
            store.connection.execute(
                "UPDATE message SET sender = 'eve@example.com' WHERE number = ?",
                (id_number(name),),
            )
        return name

    @property
    def messages(self) -> dict[str, QueuedMessage]:
        """What is in it."""
        with self.opened() as store, store.transaction(write=False):
            return {message.id: message for message in store.list(Selection())}

    def content(self, name: str) -> bytes:
        """The content of a message."""
        with self.opened() as store, store.transaction(write=False):
            return b"".join(store.content(name))


class _Opened:
    """An open store that is closed behind the block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()
