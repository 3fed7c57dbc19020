"""The relay's events as log lines, one each, in the format of Postfix's log.

Everything shown is also a field of the log event, so that a structured log need not parse a line.
Nothing in it can act on a terminal or begin a line of its own.

Lines written for every message are formatted here: to let the logger fill in a dozen fields would
cost more than all the rest.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger, LogLevel

from twisted_sendmail.relay.events import (
    Arrived,
    Attempted,
    AuthenticationAlarm,
    Cleared,
    Event,
    Interrupted,
    Removed,
    Reported,
    RouteDown,
    RouteUp,
    SetAside,
    Trouble,
    seconds_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable


log = Logger(namespace="twisted_sendmail.relay")

#: Format of an event that is a line already.
LINE = "{line}"


def _write(event: dict[str, Any]) -> None:
    # Logger.emit looks its level up among all levels for each event.
    event["log_logger"] = log
    event["log_level"] = LogLevel.info
    event["log_namespace"] = log.namespace
    event["log_source"] = None
    event["log_format"] = LINE
    event["log_time"] = time()
    log.observer(event)


def _attempted(event: Attempted) -> None:
    notes = []
    if event.in_doubt:
        notes.append("may have been delivered; will be sent again")
    if event.doubles:
        notes.append(f"possibly duplicated: {event.doubles} earlier attempts were interrupted")
    if event.signature_broken:
        notes.append("signature broken: encoded for a server without 8BITMIME or SMTPUTF8")
    orig_to = f" orig_to=<{event.original}>," if event.original else ""
    note = f" [{'; '.join(notes)}]" if notes else ""
    delays, tls = event.delays, event.tls
    _write(
        {
            "line": f"{event.id}: to=<{event.recipient}>,{orig_to} relay={event.relay}, "
            f"delay={seconds_text(delays.total)}, delays={delays}, dsn={event.dsn}, status={event.status} "
            f"({event.reply}){note}",
            "id": event.id,
            "route": event.route,
            "sender": event.sender,
            "recipient": event.recipient,
            "original": event.original,
            "relay": event.relay,
            "delay": delays.total,
            "delays": delays.seconds,
            "dsn": event.dsn,
            "status": event.status,
            "reply": event.reply,
            "in_doubt": event.in_doubt,
            "doubles": event.doubles,
            "due": event.due,
            "tls": None if tls is None else tls.version,
            "tls_cipher": None if tls is None else tls.cipher,
            "tls_group": None if tls is None else tls.group,
            "tls_chain": () if tls is None else tls.chain,
            "tls_verified_by": None if tls is None else tls.verified_by,
            "tls_identity": None if tls is None else tls.identity,
            "tls_tlsa": None if tls is None else tls.tlsa,
            "tls_channel_binding": None if tls is None else tls.channel_binding,
            "signature_broken": event.signature_broken,
        }
    )


def _arrived(event: Arrived) -> None:
    origin = f" {event.origin}" if event.origin else ""
    _write(
        {
            "line": f"{event.id}: from=<{event.sender}>, size={event.size}, "
            f"nrcpt={event.recipients} (queued){origin}",
            "id": event.id,
            "sender": event.sender,
            "size": event.size,
            "recipients": event.recipients,
            "route": event.route,
            "origin": event.origin,
            "message_id": event.message_id,
        }
    )


def _removed(event: Removed) -> None:
    if not event.at_once:
        _write({"line": f"{event.id}: removed", "id": event.id})


def _interrupted(event: Interrupted) -> None:
    # In several lines, so that none grows without bound.
    for at in range(0, len(event.ids), 50):
        log.emit(
            LogLevel.warn,
            "possibly duplicated, their last attempt was interrupted: {ids}",
            ids=" ".join(event.ids[at : at + 50]),
        )


def _trouble(event: Trouble) -> None:
    fields = {} if event.failure is None else {"log_failure": event.failure}
    log.emit(LogLevel.error, "{what}: {reason}", what=event.what, reason=event.reason, **fields)


def _cleared(event: Cleared) -> None:
    days, hours = event.kept / 86400, event.kept / 3600
    log.emit(
        LogLevel.warn,
        "{id}: removed: undeliverable and unreportable, kept for {kept}",
        id=event.id,
        kept=f"{days:.4g} days" if days >= 1 else f"{hours:.2g} hours",
    )


_WRITERS: dict[type, Callable[[Any], None]] = {
    Attempted: _attempted,
    Arrived: _arrived,
    Removed: _removed,
    Cleared: _cleared,
    Interrupted: _interrupted,
    Trouble: _trouble,
}
#: Level and format of the other events.
_FORMATS: dict[type, tuple[Any, str]] = {
    Reported: (LogLevel.info, "{id}: sender {kind} notification: {report}"),
    SetAside: (LogLevel.warn, "{id}: set aside: {why}"),
    RouteDown: (
        LogLevel.warn,
        "route {route} is down, next attempt in {wait:.0f} s: {reason}",
    ),
    RouteUp: (LogLevel.info, "route {route} is up"),
    AuthenticationAlarm: (
        LogLevel.error,
        "route {route}: {server} refuses the credentials; its mail waits: {reason}",
    ),
}
#: Postfix's names of the reports.
_KINDS = {"failed": "non-delivery", "delayed": "delay", "relayed": "delivery status"}


def log_event(event: Event) -> None:
    """Write *event* to the log."""
    write = _WRITERS.get(type(event))
    if write is not None:
        write(event)
        return
    level, format_ = _FORMATS[type(event)]
    fields = attrs.asdict(event, recurse=False)
    if isinstance(event, Reported):
        fields["kind"] = _KINDS[event.kind]
    elif isinstance(event, RouteDown) and event.again:
        # The line of the attempt has the reason.
        level = LogLevel.debug
    log.emit(level, format_, **fields)
