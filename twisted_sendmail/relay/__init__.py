"""The relay: delivers mail of the queue, retries it, and reports failures to its senders."""

from twisted_sendmail.relay.bounce import PostmasterMail
from twisted_sendmail.relay.events import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Event,
    Interrupted,
    Observer,
    RouteDown,
    SetAside,
    TakenOver,
    Trouble,
)
from twisted_sendmail.relay.log import LINE
from twisted_sendmail.relay.retry_policy import RetryPolicy
from twisted_sendmail.relay.route import RouteStats
from twisted_sendmail.relay.routing import EVERYBODY, Routing, pattern
from twisted_sendmail.relay.service import RelayService, RelayStats
from twisted_sendmail.relay.settings import RelaySettings, RouteSettings

__all__ = [
    "EVERYBODY",
    "LINE",
    "Arrived",
    "Attempted",
    "AuthenticationAlarm",
    "Event",
    "Interrupted",
    "Observer",
    "PostmasterMail",
    "RelayService",
    "RelaySettings",
    "RelayStats",
    "RetryPolicy",
    "RouteDown",
    "RouteSettings",
    "RouteStats",
    "Routing",
    "SetAside",
    "TakenOver",
    "Trouble",
    "pattern",
]
