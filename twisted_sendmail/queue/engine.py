"""Engines of the queue by the text that names its place: a directory, or the URL of a database.

An engine is imported when a place needs it: only PostgreSQL needs its driver.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.errors import QueueMissing, QueueUnusable
from twisted_sendmail.queue.postgresql.address import DatabaseAddress, is_database_url

if TYPE_CHECKING:
    from twisted_sendmail.queue.interface import Queue
    from twisted_sendmail.queue.store import Store

    #: A directory, or a URL such as ``postgresql://host1,host2/mail``.
    QueuePlace = str | os.PathLike[str]


def open_queue(reactor: Any, place: QueuePlace) -> Queue:
    """Return the queue at *place*, for a relay; it is opened by its ``open``.

    :raises QueueUnusable: the place cannot be used, or its driver is not installed.
    """
    if is_database_url(place):
        address = _address(str(place))
        from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue

        return PostgreSQLQueue(reactor, address)
    from twisted_sendmail.queue.sqlite.queue import SQLiteQueue

    return SQLiteQueue(reactor, Path(place))


def open_store(place: QueuePlace) -> Store:
    """Return the store at *place*, for a command; it is opened by its ``open``, or by ``with``.

    :raises QueueUnusable: the place cannot be used, or its driver is not installed.
    """
    if is_database_url(place):
        address = _address(str(place))
        from twisted_sendmail.queue.postgresql.store import PostgreSQLStore

        return PostgreSQLStore(address)
    from twisted_sendmail.queue.sqlite.store import SQLiteStore

    return SQLiteStore(Path(place))


def check_queue_place(place: QueuePlace) -> None:
    """Verify that *place* can hold a queue, as far as that can be seen without a change.

    :raises QueueUnusable: it cannot, or its driver is not installed.
    """
    if is_database_url(place):
        store = open_store(place)
        try:
            store.open(read_only=True)
        except QueueMissing:
            # The relay creates the tables.
            pass
        finally:
            store.close()
        return
    from twisted_sendmail.queue.sqlite.files import check_place

    check_place(Path(place))


def prepare_queue_place(place: QueuePlace) -> None:
    """Create the queue at *place* if need be, or migrate it; check that a relay can open it.

    :raises QueueUnusable: it cannot.
    """
    if not is_database_url(place):
        from twisted_sendmail.queue.sqlite.files import RelayLock

        lock = RelayLock(Path(place))
        lock.acquire()
        try:
            _make(place)
        finally:
            lock.release()
        return
    _make(place)


def _make(place: QueuePlace) -> None:
    store = open_store(place)
    try:
        store.open(create=True)
    finally:
        store.close()


def shown_place(place: QueuePlace) -> str:
    """Return *place* for logs and errors: without passwords."""
    if not is_database_url(place):
        return str(place)
    try:
        return _address(str(place)).shown
    except QueueUnusable:
        return "a URL that cannot be used"


def _address(url: str) -> DatabaseAddress:
    try:
        return DatabaseAddress.parse(url)
    except ImportError as e:
        raise QueueUnusable(
            "the queue in PostgreSQL cannot be used",
            detail=" ".join(str(e.__cause__ or e).split()),
            remedy="install the driver: pip install 'twisted_sendmail[postgresql]'",
        ) from None
