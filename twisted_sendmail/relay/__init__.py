"""The relay: takes what is due out of the spool, delivers it, tries again, and reports."""

from twisted_sendmail.relay.events import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Event,
    Interrupted,
    Observer,
    RouteDown,
    SetAside,
    Trouble,
)
from twisted_sendmail.relay.log import LINE
from twisted_sendmail.relay.retry_policy import RetryPolicy
from twisted_sendmail.relay.routing import Routing
from twisted_sendmail.relay.service import RelayService
from twisted_sendmail.relay.settings import EVERYBODY, RelaySettings, RouteSettings, pattern

__all__ = [
    "EVERYBODY",
    "LINE",
    "Arrived",
    "Attempted",
    "AuthenticationAlarm",
    "Event",
    "Interrupted",
    "Observer",
    "RelayService",
    "RelaySettings",
    "RetryPolicy",
    "RouteDown",
    "RouteSettings",
    "Routing",
    "SetAside",
    "Trouble",
    "pattern",
]
