"""Conversion between messages and rows, and the checksums that detect damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

from twisted_sendmail.queue.ids import id_text
from twisted_sendmail.queue.models import (
    MessageInfo,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    SetAsideReason,
)
from twisted_sendmail.smtp import Envelope, ForwardPath, InvalidInput, Recipient, ReversePath

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Places of some columns of ``message``; the last two follow those that ``decode`` takes.
BODY, PIECES, OWNER, FENCE = 7, 8, 21, 22
#: Columns of ``recipient``, in the order of ``decode``.
RECIPIENT = "number, address, notify, orcpt, state, due, attempts, tried, reply, status, relay"
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_STATES = {state.value: state for state in RecipientState}
#: Errors that damaged values of a row cause.
_DAMAGE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, InvalidInput)


def message_columns(leased: str) -> str:
    """Return the columns of ``message``, in the order of ``decode``.

    :param leased: the condition for a message that is leased.
    """
    return (
        "number, arrived, sender, parameters, size, origin, uid, body, pieces, checksum, route, due, "  # noqa: S608
        f"attempts, {leased}, held, expired, doomed, warned, interrupted, aside, "
        "CASE WHEN held THEN -ran ELSE (SELECT ran FROM about) - ran END"
    )


class Damaged(ValueError):
    """A row differs from what was written."""


def encode(
    info: MessageInfo, number: int, size: int, body: int | None, pieces: int
) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Return the constant columns of the message, and those of each recipient."""
    envelope = info.envelope
    recipients = [
        (n, str(r.path), ",".join(sorted(r.notify)), r.orcpt)
        for n, r in enumerate(envelope.recipients)
    ]
    sender = str(envelope.sender) if envelope.sender.mailbox else ""
    fixed = (
        number,
        float(info.arrived),
        sender,
        _parameters(info),
        size,
        info.origin,
        info.uid,
        body,
        pieces,
    )
    return (*fixed, _checksum(fixed, recipients)), recipients


def decode(row: Sequence[Any], recipients: Sequence[Sequence[Any]]) -> QueuedMessage:
    """Return the message of these rows.

    :raises Damaged: they differ from what was written.
    """
    try:
        if row[9] != _checksum(tuple(row[:9]), [tuple(r[:4]) for r in recipients]):
            raise Damaged
        return _decode(row, recipients)
    except _DAMAGE_ERRORS:
        raise Damaged(f"message {row[0]}") from None


def decode_damaged(row: Sequence[Any], recipients: Sequence[Sequence[Any]]) -> QueuedMessage:
    """Return what can still be shown of a damaged message."""
    try:
        return _decode(row, recipients)
    except _DAMAGE_ERRORS:
        number = row[0] if isinstance(row[0], int) else 0
        info = MessageInfo(
            id=id_text(number),
            envelope=Envelope(None, [Recipient(ForwardPath(None))]),
            arrived=row[1] if isinstance(row[1], float) else 0.0,
            route="",
            origin="unreadable",
        )
        return QueuedMessage(info, size=0, recipients=(), aside=SetAsideReason.DAMAGED)


def content_checksum(number: int, place: int, data: bytes) -> int:
    """Return the checksum of one piece of content and of its place."""
    return crc32(data, crc32(b"%d:%d" % (number, place)))


def _checksum(fixed: tuple[Any, ...], recipients: Sequence[Sequence[Any]]) -> int:
    return crc32(repr((fixed, recipients)).encode("utf-8", "surrogateescape"))


def _parameters(info: MessageInfo) -> str:
    envelope = info.envelope
    given: dict[str, Any] = {
        "ret": envelope.ret,
        "envid": envelope.envid,
        "require_tls": envelope.require_tls or None,
        "smtputf8": info.smtputf8 or None,
        "eight_bit": info.eight_bit,
        "long_lines": info.long_lines or None,
        "binary": info.binary or None,
        "message_id": info.message_id,
        "automatic": info.automatic or None,
        "dkim": info.dkim,
        "others": dict(envelope.others) or None,
    }
    for recipient in envelope.recipients:
        if recipient.others:
            given["recipients"] = [dict(each.others) for each in envelope.recipients]
            break
    kept = {name: value for name, value in given.items() if value is not None}
    return _encode_json(kept) if kept else ""


def _decode(row: Sequence[Any], recipients: Sequence[Sequence[Any]]) -> QueuedMessage:
    (number, arrived, sender, parameters, size, origin, uid, _, _, _, route, due) = row[:12]
    (attempts, leased, held, expired, doomed, warned, interrupted, aside, age) = row[12:]
    known = json.loads(parameters) if parameters else {}
    others = known.get("recipients") or [{}] * len(recipients)
    queued = tuple([_recipient(r, others[r[0]]) for r in recipients])
    envelope = Envelope(
        ReversePath.parse(sender),
        [r.recipient for r in queued],
        ret=known.get("ret"),
        envid=known.get("envid"),
        require_tls=known.get("require_tls", False),
        others=known.get("others", {}),
    )
    info = MessageInfo(
        id=id_text(number),
        envelope=envelope,
        arrived=arrived,
        route=route,
        origin=origin,
        uid=uid,
        smtputf8=known.get("smtputf8", False),
        eight_bit=known.get("eight_bit"),
        long_lines=known.get("long_lines", False),
        binary=known.get("binary", False),
        message_id=known.get("message_id"),
        automatic=known.get("automatic", False),
        dkim=known.get("dkim"),
    )
    return QueuedMessage(
        info,
        size=size,
        recipients=queued,
        due=due + 0.0,
        attempts=attempts + 0,
        leased=leased == 1,
        held=held == 1,
        expired=_mark(expired, "expired"),
        doomed=_mark(doomed, "doomed"),
        warned=warned == 1,
        interrupted=interrupted + 0,
        aside=None if aside is None else SetAsideReason(aside),
        age=max(0.0, age),
    )


def _mark(found: Any, word: str) -> bool:
    if found is not None and found != word:
        raise Damaged
    return found is not None


def _recipient(row: Sequence[Any], others: dict[str, Any]) -> QueuedRecipient:
    number, address, notify, orcpt, state, due, attempts, tried, reply, status, relay = row
    path = ForwardPath.parse(address)
    recipient = Recipient(path, notify.split(",") if notify else (), orcpt, others=others)
    return QueuedRecipient(
        number,
        recipient,
        _STATES[state],
        due + 0.0,
        attempts + 0,
        tried,
        reply,
        status,
        relay,
    )
