"""The durable queue: the only disk.

Every store stands behind one interface (``spool.Queue``) and keeps the same promises,
which ``tests/queue/conformance.py`` checks.
"""

from twisted_sendmail.queue.address_match import fits
from twisted_sendmail.queue.cleanup import Cleanup, CleanupPolicy, TooManyHops, admitted
from twisted_sendmail.queue.ids import QueueIds, id_number, id_text
from twisted_sendmail.queue.interface import SMALL, Intake, Queue, QueueObserver, RecoveryReport
from twisted_sendmail.queue.models import (
    AttemptRecord,
    LeasedMessage,
    MessageInfo,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueuedRecipient,
    QueueTotals,
    RecipientState,
    RecipientUpdate,
    Selection,
    SetAsideReason,
)
from twisted_sendmail.queue.notify import wake
from twisted_sendmail.queue.sqlite.arriving import PIECE, Pieces
from twisted_sendmail.queue.sqlite.connection import PATIENCE
from twisted_sendmail.queue.sqlite.premises import WAKEUP, check_directory
from twisted_sendmail.queue.sqlite.relay_lock import RelayLock
from twisted_sendmail.queue.sqlite.room import LEAST_FREE, Room
from twisted_sendmail.queue.sqlite.spool import SQLiteQueue
from twisted_sendmail.queue.sqlite.store import SQLiteStore
from twisted_sendmail.queue.trouble import (
    MessageDamaged,
    QueueBusy,
    QueueError,
    QueueFull,
    QueueUnusable,
)

__all__ = [
    "LEAST_FREE",
    "PATIENCE",
    "PIECE",
    "SMALL",
    "WAKEUP",
    "AttemptRecord",
    "Cleanup",
    "CleanupPolicy",
    "Intake",
    "LeasedMessage",
    "MessageDamaged",
    "MessageInfo",
    "Pieces",
    "Queue",
    "QueueAction",
    "QueueActionResult",
    "QueueBusy",
    "QueueError",
    "QueueFull",
    "QueueIds",
    "QueueObserver",
    "QueueTotals",
    "QueueUnusable",
    "QueuedMessage",
    "QueuedRecipient",
    "RecipientState",
    "RecipientUpdate",
    "RecoveryReport",
    "RelayLock",
    "Room",
    "SQLiteQueue",
    "SQLiteStore",
    "Selection",
    "SetAsideReason",
    "TooManyHops",
    "admitted",
    "check_directory",
    "fits",
    "id_number",
    "id_text",
    "wake",
]
