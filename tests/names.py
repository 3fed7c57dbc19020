"""Internal names that tests of behaviour need, imported in one place.

Tests of behaviour import from ``twisted_sendmail``, ``twisted_sendmail.testing`` and from here.
When a module moves, this file changes and no test does.
"""

from __future__ import annotations

from twisted_sendmail.daemon.config import Configuration, read_configuration
from twisted_sendmail.daemon.config_types import ConfigurationError
from twisted_sendmail.daemon.drop_intake import SCAN_INTERVAL, DropIntake
from twisted_sendmail.queue import (
    INLINE_SIZE,
    AttemptRecord,
    Intake,
    LeasedMessage,
    MessageDamaged,
    MessageInfo,
    Queue,
    QueueAction,
    QueueActionResult,
    QueueBusy,
    QueuedMessage,
    QueuedRecipient,
    QueueError,
    QueueFull,
    QueueIds,
    QueueObserver,
    QueueTotals,
    QueueUnusable,
    RecipientState,
    RecoveryReport,
    Selection,
    SetAsideReason,
    SQLiteQueue,
    SQLiteStore,
    id_number,
)
from twisted_sendmail.queue.group_commit import InlineWorker
from twisted_sendmail.relay import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Event,
    Interrupted,
    RouteDown,
    SetAside,
    Trouble,
)
from twisted_sendmail.relay.events import Cleared, Delays, Removed, Reported, RouteUp
from twisted_sendmail.relay.log import log_event
from twisted_sendmail.server import QueueReceiver, ReceiverReply, Verdict, password_entry
from twisted_sendmail.testing.faults import (
    Fault,
    close,
    expired_certificate,
    refuse,
    reset,
    send,
    stall,
    without,
)
from twisted_sendmail.testing.memory_network import FULL

__all__ = [
    "FULL",
    "INLINE_SIZE",
    "SCAN_INTERVAL",
    "Arrived",
    "AttemptRecord",
    "Attempted",
    "AuthenticationAlarm",
    "Cleared",
    "Configuration",
    "ConfigurationError",
    "Delays",
    "DropIntake",
    "Event",
    "Fault",
    "InlineWorker",
    "Intake",
    "Interrupted",
    "LeasedMessage",
    "MessageDamaged",
    "MessageInfo",
    "Queue",
    "QueueAction",
    "QueueActionResult",
    "QueueBusy",
    "QueueError",
    "QueueFull",
    "QueueIds",
    "QueueObserver",
    "QueueReceiver",
    "QueueTotals",
    "QueueUnusable",
    "QueuedMessage",
    "QueuedRecipient",
    "ReceiverReply",
    "RecipientState",
    "RecoveryReport",
    "Removed",
    "Reported",
    "RouteDown",
    "RouteUp",
    "SQLiteQueue",
    "SQLiteStore",
    "Selection",
    "SetAside",
    "SetAsideReason",
    "Trouble",
    "Verdict",
    "close",
    "expired_certificate",
    "id_number",
    "log_event",
    "password_entry",
    "read_configuration",
    "refuse",
    "reset",
    "send",
    "stall",
    "without",
]
