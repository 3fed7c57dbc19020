"""Names that the tests need and ``twisted_sendmail`` does not export: where they live, in one place.

Tests of behaviour import from ``twisted_sendmail``, ``twisted_sendmail.testing`` and from here.
When a module moves, this file changes and no test does.
"""

from __future__ import annotations

from twisted_sendmail.ingress.spooling import SpoolingReceiver
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
)
from twisted_sendmail.spool.spool import SMALL, Intake, Recovered, Spool, SpoolObserver
from twisted_sendmail.spool.sqlite_spool import SqliteSpool
from twisted_sendmail.spool.trouble import SpoolDamaged, SpoolTrouble, SpoolUnusable
from twisted_sendmail.spool.worker import InlineWorker
from twisted_sendmail.testkit.faults import Fault
from twisted_sendmail.testkit.memory_spool import MemorySpool

__all__ = [
    "SMALL",
    "Acted",
    "Action",
    "Arrived",
    "Aside",
    "Attempted",
    "AuthRefused",
    "Change",
    "Cleared",
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
    "SpoolDamaged",
    "SpoolObserver",
    "SpoolTrouble",
    "SpoolUnusable",
    "SpoolingReceiver",
    "SqliteSpool",
    "State",
    "Trouble",
    "id_number",
]
