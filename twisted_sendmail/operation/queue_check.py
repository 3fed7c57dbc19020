"""Can the queue be used?  Asked before anything is started, while there is a terminal to answer to.

What is looked at is closed again: the service opens it anew, behind ``twistd``'s fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.spool.premises import check_directory
from twisted_sendmail.spool.relay_lock import RelayLock
from twisted_sendmail.spool.sqlite_store import Store

if TYPE_CHECKING:
    from pathlib import Path


def check_queue(directory: Path) -> None:
    """Make *directory* if need be, and see that it is a queue that no other relay has.

    :raises SpoolUnusable: it cannot be used; one line that says why.
    """
    check_directory(directory, create=True, root_may=False)
    lock = RelayLock(directory)
    lock.acquire()
    try:
        store = Store(directory)
        store.open(create=True)
        store.close()
    finally:
        lock.release()
