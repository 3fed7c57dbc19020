"""Can the queue be used?  Asked before anything is started, while there is a terminal to answer to.

What is looked at is closed again: the service opens it anew, behind ``twistd``'s fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.queue import RelayLock, SQLiteStore, check_directory

if TYPE_CHECKING:
    from pathlib import Path


def check_queue(directory: Path) -> None:
    """Make *directory* if need be, and see that it is a queue that no other relay has.

    :raises QueueUnusable: it cannot be used; one line that says why.
    """
    check_directory(directory, create=True, root_may=False)
    lock = RelayLock(directory)
    lock.acquire()
    try:
        store = SQLiteStore(directory)
        store.open(create=True)
        store.close()
    finally:
        lock.release()
