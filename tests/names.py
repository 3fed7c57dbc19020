"""Names that the tests need and ``twisted_sendmail`` does not export: where they live, in one place.

Tests of behaviour import from ``twisted_sendmail``, ``twisted_sendmail.testing`` and from here.
When a module moves, this file changes and no test does.
"""

from __future__ import annotations

from twisted_sendmail.ingress.password_file import entry
from twisted_sendmail.ingress.receiver import Answer, Verdict
from twisted_sendmail.ingress.spooling import SpoolingReceiver
from twisted_sendmail.operation.configuration import Configuration, read_configuration
from twisted_sendmail.operation.configuration_error import ConfigurationError
from twisted_sendmail.relay.attempt_log import log_event
from twisted_sendmail.relay.events import (
    Arrived,
    Attempted,
    AuthRefused,
    Cleared,
    Delays,
    Event,
    Interrupted,
    Removed,
    Reported,
    RouteDown,
    RouteUp,
    SetAside,
    Trouble,
)
from twisted_sendmail.spool.queue_id import QueueIds, id_number
from twisted_sendmail.spool.record import (
    Acted,
    Action,
    Aside,
    Change,
    Draft,
    Leased,
    QueuedMessage,
    QueuedRecipient,
    Selection,
    Settlement,
    State,
    Totals,
)
from twisted_sendmail.spool.spool import SMALL, Intake, Recovered, Spool, SpoolObserver
from twisted_sendmail.spool.sqlite_spool import SqliteSpool
from twisted_sendmail.spool.sqlite_store import Store
from twisted_sendmail.spool.trouble import (
    SpoolBusy,
    SpoolDamaged,
    SpoolFull,
    SpoolTrouble,
    SpoolUnusable,
)
from twisted_sendmail.spool.worker import InlineWorker
from twisted_sendmail.testkit.faults import (
    Fault,
    close,
    expired_certificate,
    refuse,
    reset,
    say,
    stall,
    without,
)
from twisted_sendmail.testkit.memory_spool import MemorySpool
from twisted_sendmail.testkit.wire import FULL

__all__ = [
    "FULL",
    "SMALL",
    "Acted",
    "Action",
    "Answer",
    "Arrived",
    "Aside",
    "Attempted",
    "AuthRefused",
    "Change",
    "Cleared",
    "Configuration",
    "ConfigurationError",
    "Delays",
    "Draft",
    "Event",
    "Fault",
    "InlineWorker",
    "Intake",
    "Interrupted",
    "Leased",
    "MemorySpool",
    "QueueIds",
    "QueuedMessage",
    "QueuedRecipient",
    "Recovered",
    "Removed",
    "Reported",
    "RouteDown",
    "RouteUp",
    "Selection",
    "SetAside",
    "Settlement",
    "Spool",
    "SpoolBusy",
    "SpoolDamaged",
    "SpoolFull",
    "SpoolObserver",
    "SpoolTrouble",
    "SpoolUnusable",
    "SpoolingReceiver",
    "SqliteSpool",
    "State",
    "Store",
    "Totals",
    "Trouble",
    "Verdict",
    "close",
    "entry",
    "expired_certificate",
    "id_number",
    "log_event",
    "read_configuration",
    "refuse",
    "reset",
    "say",
    "stall",
    "without",
]
