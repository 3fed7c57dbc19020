"""How things read on the queue page: foreign text, times, sizes.

Pure.  Everything that a message, a server or a user wrote goes through :func:`foreign`;
times are UTC, for that is what logs of several machines are compared in.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted_sendmail.smtp import ForwardPath, ReversePath

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def foreign(text: str | bytes, limit: int = 300) -> Tag:
    """What others wrote, inert: controls and direction marks escaped, its direction kept apart.

    The tags are escaped where everything is, when the page is written.
    """
    return tags.bdi(printable(text, limit))


def address(path: ReversePath | ForwardPath) -> Tag:
    """An address, which breaks before its ``@`` if at all; the null reverse-path is named."""
    local, at, domain = printable(str(path), 300).rpartition("@")
    if (local, at, domain) == ("", "", "<>"):
        return tags.span("no sender (a report)", class_="quiet")
    return tags.bdi(tags.span(local), tags.span(at, domain), class_="address")


def moment(at: float) -> datetime:
    """Seconds since 1970 as a date; what no calendar has becomes the nearest one it has."""
    try:
        return _EPOCH + timedelta(seconds=at)
    except (OverflowError, ValueError):
        return datetime.max.replace(tzinfo=timezone.utc) if at > 0 else _EPOCH


def clock(at: float) -> str:
    """``2026-03-01 12:30:05``, UTC."""
    return f"{moment(at):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 5 h``: what a person would say."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, _ = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(at: float, now: float) -> Tag:
    """A time in the past, relative, with the full one for who points at it."""
    return _time(at, f"{duration(now - at)} ago")


def ahead(at: float, now: float) -> Tag:
    """A time to come; one that has passed is ``now``."""
    return _time(at, "now" if at <= now else f"in {duration(at - now)}")


def _time(at: float, text: str) -> Tag:
    return tags.time(text, datetime=f"{moment(at):%Y-%m-%dT%H:%M:%SZ}", title=f"{clock(at)} UTC")


def size(octets: int) -> str:
    """``512 B``, ``4.0 KB``, ``12 MB``: powers of ten."""
    value, unit = float(octets), "B"
    for bigger in ("KB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 message``, ``1,200 messages``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
