"""Text for the queue page and the queue command: foreign text, times, sizes, causes of delay.

Everything that a message, a server or a user wrote passes through :func:`foreign` or
:func:`address`. Times are UTC, in which the logs of several machines are compared.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.queue import SetAsideReason
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_sendmail.queue import QueuedMessage, QueuedRecipient
    from twisted_sendmail.smtp import ForwardPath, ReversePath

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: RFC 3463 section 3, shortened; the key is a status code without its class.
_STATUS_WORDS = {
    "1.1": "mailbox unknown",
    "1.2": "domain unknown",
    "1.8": "sender's domain unknown",
    "2.0": "mailbox trouble",
    "2.1": "mailbox disabled",
    "2.2": "mailbox full",
    "2.3": "message too long for the mailbox",
    "3.0": "trouble at the server",
    "3.1": "disk full at the server",
    "3.2": "server not accepting mail",
    "3.4": "message too big",
    "4.0": "network trouble",
    "4.1": "no answer from the server",
    "4.2": "connection lost",
    "4.3": "name service failed",
    "4.4": "no route to the server",
    "4.5": "server too busy",
    "4.6": "mail loop",
    "4.7": "delivery time expired",
    "5.0": "protocol error",
    "5.3": "too many recipients",
    "6.7": "address not ASCII",
    "7.0": "refused for security",
    "7.1": "refused by policy",
    "7.4": "security feature missing",
    "7.5": "TLS failed",
    "7.8": "password refused",
    "7.9": "mechanism too weak",
    "7.10": "encryption needed",
    "7.11": "encryption needed",
}


def foreign(text: str | bytes, limit: int = 300) -> Tag:
    """Return text of others as an element: controls escaped, its direction isolated.

    Markup in it is escaped when the page is written, as everywhere.
    """
    return tags.bdi(printable(text, limit))


def address(path: ReversePath | ForwardPath) -> Tag:
    """Return an address as an element that wraps only before its ``@``."""
    local, at, domain = printable(str(path), 300).rpartition("@")
    if (local, at, domain) == ("", "", "<>"):
        return tags.span("no sender (a report)", class_="quiet")
    return tags.bdi(tags.span(local), tags.span(at, domain), class_="address")


def date_of(at: float) -> datetime:
    """Convert seconds since 1970; what no calendar has becomes the nearest date it has."""
    try:
        return _EPOCH + timedelta(seconds=at)
    except (OverflowError, ValueError):
        return datetime.max.replace(tzinfo=timezone.utc) if at > 0 else _EPOCH


def clock(at: float) -> str:
    """Return ``2026-03-01 12:30:05``, UTC."""
    return f"{date_of(at):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """Return ``45 s``, ``12 min``, ``3 h 20 min`` or ``2 d 5 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(at: float, now: float) -> Tag:
    """Return the time since *at* as an element whose title is the full time."""
    return _time(at, f"{duration(now - at)} ago")


def ahead(at: float, now: float) -> Tag:
    """Return the time until *at*, ``now`` if it has passed, as an element."""
    return _time(at, until(at, now))


def until(at: float, now: float) -> str:
    """Return ``in 12 min``, or ``now`` if *at* has passed."""
    return "now" if at <= now else f"in {duration(at - now)}"


def _time(at: float, text: str) -> Tag:
    return tags.time(text, datetime=f"{date_of(at):%Y-%m-%dT%H:%M:%SZ}", title=f"{clock(at)} UTC")


def size(octets: int) -> str:
    """Return ``512 B``, ``4.0 KB`` or ``12 MB``: powers of ten."""
    value, unit = float(octets), "B"
    for bigger in ("KB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 message`` or ``1,200 messages``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def status_words(status: str) -> str:
    """Describe an enhanced status code in a few words; ``""`` for a code that has none."""
    return _STATUS_WORDS.get(status.partition(".")[2], "")


def last_reply(message: QueuedMessage) -> QueuedRecipient | None:
    """Return the pending recipient with the most recent reply."""
    tried = [r for r in message.pending if r.reply is not None]
    return max(tried, key=lambda r: r.tried or 0.0) if tried else None


def next_attempt(message: QueuedMessage, down: Mapping[str, float]) -> float | None:
    """Return the time of the next attempt; None: there is none, or it is under way.

    :param down: the time of the next attempt of each route that is down.
    """
    if message.leased or message.held or message.aside is not None:
        return None
    return max(message.due, down.get(message.info.route, 0.0))


def local_cause(message: QueuedMessage, down: Mapping[str, float], now: float) -> str | None:
    """Describe why a message waits, if the cause is in this queue and not a server's reply.

    :param down: the time of the next attempt of each route that is down.
    """
    if message.aside is SetAsideReason.DAMAGED:
        return "It is damaged on the disk, and is not sent."
    if message.aside is SetAsideReason.UNDELIVERABLE:
        return "It failed, and has no sender to report to."
    if message.doomed:
        return "It is deleted when the current attempt ends."
    if message.expired:
        return "It is returned to its sender at the next queue run."
    if message.leased:
        return "It is being delivered."
    if message.held:
        return "It was put on hold."
    waits = waits_for_route(message, down, now)
    return None if waits is None else f"It {waits}."


def waits_for_route(message: QueuedMessage, down: Mapping[str, float], now: float) -> str | None:
    """Return ``waits for route default, next attempt in 58 s``; None: the message does not.

    :param down: the time of the next attempt of each route that is down.
    """
    at = down.get(message.info.route)
    if at is None or message.due > at or message.expired or next_attempt(message, down) is None:
        return None
    return f"waits for route {printable(message.info.route, 60)}, next attempt {until(at, now)}"
