"""Engines of the queue by the text that names its place: a directory, or the URL of a database.

An engine is imported when a place needs it: only PostgreSQL needs its driver.  Other packages may
bring engines for URLs of their own: an entry point of the group ``ENGINES`` has the scheme as its name,
and is a function that returns a ``Store`` for a URL.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted_sendmail.queue.errors import QueueMissing, QueueUnusable
from twisted_sendmail.queue.postgresql.address import DatabaseAddress, is_database_url
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.queue.interface import Queue
    from twisted_sendmail.queue.store import Store

    #: A directory, or a URL such as ``postgresql://host1,host2/mail``.
    QueuePlace = str | os.PathLike[str]


#: Entry points of engines of other packages.
ENGINES = "twisted_sendmail.queue"


def open_queue(reactor: Any, place: QueuePlace) -> Queue:
    """Return the queue at *place*, for a relay; it is opened by its ``open``.

    :raises QueueUnusable: the place cannot be used, or its driver is not installed.
    """
    if is_database_url(place):
        address = _address(str(place))
        from twisted_sendmail.queue.postgresql.queue import PostgreSQLQueue

        return PostgreSQLQueue(reactor, address)
    if is_queue_url(place):
        from twisted_sendmail.queue.stored_queue import StoredQueue

        return StoredQueue(reactor, open_store(place), open_store(place))
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
    if is_queue_url(place):
        return _store_of_package(str(place))
    from twisted_sendmail.queue.sqlite.store import SQLiteStore

    return SQLiteStore(Path(place))


def check_queue_place(place: QueuePlace) -> None:
    """Verify that *place* can hold a queue, as far as that can be seen without a change.

    :raises QueueUnusable: it cannot, or its driver is not installed.
    """
    if is_queue_url(place):
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
    if not is_queue_url(place):
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
    if not is_queue_url(place):
        return str(place)
    if not is_database_url(place):
        scheme, _, rest = str(place).partition("://")
        return printable(f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}", 300)
    try:
        return _address(str(place)).shown
    except QueueUnusable:
        return "a URL that cannot be used"


def is_queue_url(place: object) -> bool:
    """Return whether *place* is a URL, and not a directory."""
    return isinstance(place, str) and "://" in place


def _store_of_package(url: str) -> Store:
    """Return the store at *url* by the engine of another package.

    :raises QueueUnusable: no package has one, or it cannot be imported.
    """
    # It takes longer to import than a command with another queue takes.
    from importlib.metadata import entry_points

    scheme = printable(url.partition("://")[0], 40)
    for each in entry_points(group=ENGINES, name=scheme):
        try:
            make = each.load()
        except (ImportError, AttributeError) as e:
            raise _unusable(f"its engine {each.value} cannot be imported: {e}") from None
        store: Store = make(url)
        return store
    raise _unusable(
        "no such database can hold a queue",
        f"write postgresql://host/database, or install the package with an engine for {scheme}://",
    )


def _unusable(why: str, remedy: str = "repair the package of the engine") -> QueueUnusable:
    return QueueUnusable("the queue cannot be used", detail=printable(why, 300), remedy=remedy)


def _address(url: str) -> DatabaseAddress:
    try:
        return DatabaseAddress.parse(url)
    except ImportError as e:
        raise QueueUnusable(
            "the queue in PostgreSQL cannot be used",
            detail=" ".join(str(e.__cause__ or e).split()),
            remedy="install the driver: pip install 'twisted_sendmail[postgresql]'",
        ) from None
