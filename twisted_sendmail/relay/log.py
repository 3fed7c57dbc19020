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
    RelaysChanged,
    Removed,
    Reported,
    RouteDown,
    RouteUp,
    SetAside,
    TakenOver,
    TLSEstablished,
    Trouble,
    seconds_text,
)
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_sendmail.smtp import TLSFacts


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
            **_tls_fields(tls),
            "signature_broken": event.signature_broken,
        }
    )


def _tls_fields(tls: TLSFacts | None) -> dict[str, Any]:
    return {
        "tls": None if tls is None else tls.version,
        "tls_cipher": None if tls is None else tls.cipher,
        "tls_group": None if tls is None else tls.group,
        "tls_chain": () if tls is None else tls.chain,
        "tls_verified_by": None if tls is None else tls.verified_by,
        "tls_identity": None if tls is None else tls.identity,
        "tls_tlsa": None if tls is None else tls.tlsa,
        "tls_channel_binding": None if tls is None else tls.channel_binding,
    }


def _tls_established(event: TLSEstablished) -> None:
    tls = event.tls
    parts = [
        f"{tls.version} with cipher {tls.cipher} ({tls.cipher_bits} bits)",
        f"key exchange {tls.group}" if tls.group else "",
        "not verified"
        if tls.verified_by == "none"
        else f"verified by {tls.verified_by} {tls.identity}",
        f"chain {' < '.join(tls.chain)}" if tls.chain else "",
        f"channel binding {tls.channel_binding}" if tls.channel_binding else "",
    ]
    facts = printable(", ".join(part for part in parts if part), 1024)
    _write(
        {
            "line": f"TLS connection established to {event.relay}: {facts}",
            "route": event.route,
            "relay": event.relay,
            **_tls_fields(tls),
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
    by = f"; taken over from relay {event.relay}" if event.relay else ""
    for at in range(0, len(event.ids), 50):
        log.emit(
            LogLevel.warn,
            "possibly duplicated, their last attempt was interrupted{by}: {ids}",
            by=by,
            relay=event.relay,
            ids=" ".join(event.ids[at : at + 50]),
        )


def _taken_over(event: TakenOver) -> None:
    # The relay that took it over has logged it, too.
    doubt = "possibly duplicated: " if event.in_doubt else ""
    log.emit(
        LogLevel.warn,
        "{id}: {doubt}taken over by another relay during the attempt, whose result is not recorded",
        id=event.id,
        route=event.route,
        in_doubt=event.in_doubt,
        doubt=doubt,
    )


def _route_down(event: RouteDown) -> None:
    level = LogLevel.warn
    if event.refused and event.elsewhere:
        level = LogLevel.error
    elif event.again:
        # The line of the attempt has the reason.
        level = LogLevel.debug
    log.emit(
        level,
        "route {route} is down{by}, next attempt in {wait:.0f} s: {reason}",
        by=_by(elsewhere=event.elsewhere),
        **attrs.asdict(event, recurse=False),
    )


def _route_up(event: RouteUp) -> None:
    by = _by(elsewhere=event.elsewhere)
    log.emit(LogLevel.info, "route {route} is up{by}", route=event.route, by=by)


def _by(*, elsewhere: bool) -> str:
    return " (found by another relay)" if elsewhere else ""


def _relays_changed(event: RelaysChanged) -> None:
    log.emit(
        LogLevel.info,
        "relays that share the queue: {names}",
        names=", ".join(event.relays) or "none",
        relays=event.relays,
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
    TLSEstablished: _tls_established,
    Cleared: _cleared,
    Interrupted: _interrupted,
    TakenOver: _taken_over,
    RouteDown: _route_down,
    RouteUp: _route_up,
    RelaysChanged: _relays_changed,
    Trouble: _trouble,
}
#: Level and format of the other events.
_FORMATS: dict[type, tuple[Any, str]] = {
    Reported: (LogLevel.info, "{id}: sender {kind} notification: {report}"),
    SetAside: (LogLevel.warn, "{id}: set aside: {why}"),
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
    log.emit(level, format_, **fields)
