"""The durable queue: one interface, one conformance suite, engines in SQLite and PostgreSQL."""

from twisted_sendmail.queue.cleanup import Cleanup, CleanupPolicy, TooManyHops
from twisted_sendmail.queue.engine import (
    check_queue_place,
    is_queue_url,
    open_queue,
    open_store,
    prepare_queue_place,
    shown_place,
)
from twisted_sendmail.queue.errors import (
    LeaseLost,
    MessageDamaged,
    QueueBusy,
    QueueError,
    QueueFull,
    QueueMissing,
    QueueUnusable,
)
from twisted_sendmail.queue.ids import QueueIds, id_number, id_text
from twisted_sendmail.queue.interface import (
    INLINE_SIZE,
    Intake,
    Queue,
    QueueObserver,
    RecoveryReport,
)
from twisted_sendmail.queue.models import (
    LASTING_LEASE,
    AttemptRecord,
    ClusterState,
    DownRoute,
    Lease,
    LeasedMessage,
    LeaseTerm,
    MessageInfo,
    QueueAction,
    QueueActionResult,
    QueuedMessage,
    QueuedRecipient,
    QueueTotals,
    RecipientState,
    RelayNode,
    Selection,
    SetAsideReason,
)
from twisted_sendmail.queue.postqueue_json import delay_reason, message_json, reply_text
from twisted_sendmail.queue.signing import DKIMDomain, MailOrigin
from twisted_sendmail.queue.sqlite.connection import NO_SPACE, fits
from twisted_sendmail.queue.sqlite.files import WAKEUP, RelayLock, check_place
from twisted_sendmail.queue.sqlite.free_space import LEAST_FREE
from twisted_sendmail.queue.sqlite.notify import relay_runs, wake
from twisted_sendmail.queue.sqlite.queue import SQLiteQueue
from twisted_sendmail.queue.sqlite.store import SQLiteStore
from twisted_sendmail.queue.store import PIECE_SIZE, Pieces, Store
from twisted_sendmail.queue.transfer import (
    Exported,
    Imported,
    InvalidExport,
    export_queue,
    import_queue,
)

__all__ = [
    "INLINE_SIZE",
    "LASTING_LEASE",
    "LEAST_FREE",
    "NO_SPACE",
    "PIECE_SIZE",
    "WAKEUP",
    "AttemptRecord",
    "Cleanup",
    "CleanupPolicy",
    "ClusterState",
    "DKIMDomain",
    "DownRoute",
    "Exported",
    "Imported",
    "Intake",
    "InvalidExport",
    "Lease",
    "LeaseLost",
    "LeaseTerm",
    "LeasedMessage",
    "MailOrigin",
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
    "QueueMissing",
    "QueueObserver",
    "QueueTotals",
    "QueueUnusable",
    "QueuedMessage",
    "QueuedRecipient",
    "RecipientState",
    "RecoveryReport",
    "RelayLock",
    "RelayNode",
    "SQLiteQueue",
    "SQLiteStore",
    "Selection",
    "SetAsideReason",
    "Store",
    "TooManyHops",
    "check_place",
    "check_queue_place",
    "delay_reason",
    "export_queue",
    "fits",
    "id_number",
    "id_text",
    "import_queue",
    "is_queue_url",
    "message_json",
    "open_queue",
    "open_store",
    "prepare_queue_place",
    "relay_runs",
    "reply_text",
    "shown_place",
    "wake",
]
