"""What became of a message, in words for people and in JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from twisted_sendmail.smtp import (
    ConnectionFailed,
    DeliveryCancelled,
    DeliveryReport,
    RecipientResult,
    Reply,
    SendmailError,
    SendTimeout,
    TLSFacts,
    printable,
)


def as_json(value: dict[str, Any]) -> str:
    """One object in one line, ASCII only: nothing in it can act on a terminal."""
    return json.dumps(value, ensure_ascii=True)


def result_json(
    report: DeliveryReport | None, error: SendmailError | Exception | None, status: int
) -> dict[str, Any]:
    """What ``send --json`` prints; ``docs/reference/command-line.md`` describes each name."""
    outcomes = report.outcomes if report is not None else ()
    known = report if report is not None else error
    return {
        "status": _status(report, error),
        "exit_status": int(status),
        "recipients": [_outcome_json(outcome) for outcome in outcomes],
        "sender": str(report.envelope.sender) if report and report.envelope else None,
        "queue_id": report.queue_id if report else None,
        "message_id": report.message_id if report else None,
        "size": report.size if report else None,
        "host": getattr(known, "host", None),
        "tls": tls_json(getattr(known, "tls", None)),
        "reply": reply_json(report.reply) if report else None,
        "error": None if error is None else error_json(error),
    }


def _status(report: DeliveryReport | None, error: Exception | None) -> str:
    if report is None or not report.outcomes:
        return "failed"
    if report.in_doubt:
        return "in doubt"
    if len(report.accepted) == len(report.outcomes):
        return "accepted"
    if report.accepted:
        return "partly accepted"
    return "refused" if report.refused else "failed"


def _outcome_json(outcome: RecipientResult) -> dict[str, Any]:
    return {
        "address": str(outcome.recipient),
        "status": outcome.status.value,
        "transient": outcome.transient,
        **_reply_fields(outcome.reply),
    }


def _reply_fields(reply: Reply | None) -> dict[str, Any]:
    return {
        "code": reply.code if reply else None,
        "enhanced": str(reply.enhanced) if reply and reply.enhanced else None,
        "text": reply.text if reply else None,
    }


def reply_json(reply: Reply | None) -> dict[str, Any] | None:
    """A reply's code, enhanced status and text."""
    return None if reply is None else _reply_fields(reply)


def error_json(error: Exception) -> dict[str, Any]:
    """An error's class, its one line, and where it happened."""
    if not isinstance(error, SendmailError):
        name = type(error).__name__
        return {
            "class": name,
            "text": printable(str(error)),
            "transient": False,
            "in_doubt": False,
            "phase": None,
            "reply": None,
        }
    return {
        "class": type(error).__name__,
        "text": str(error),
        "transient": error.transient,
        "in_doubt": error.in_doubt,
        "phase": error.phase,
        "reply": reply_json(error.reply),
    }


def tls_json(tls: TLSFacts | None) -> dict[str, Any] | None:
    """The facts of a TLS session."""
    if tls is None:
        return None
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "cipher_bits": tls.cipher_bits,
        "verified_by": tls.verified_by,
        "identity": tls.identity,
        "subject": tls.subject,
        "issuer": tls.issuer,
        "names": list(tls.names),
        "not_before": tls.not_before.isoformat() if tls.not_before else None,
        "not_after": tls.not_after.isoformat() if tls.not_after else None,
        "fingerprint": tls.fingerprint,
    }


def accepted_line(report: DeliveryReport) -> str:
    """The one line of success."""
    count = len(report.accepted)
    whom = f"{count} of {len(report.outcomes)}" if count != len(report.outcomes) else str(count)
    name = f" as {printable(report.queue_id, 100)}" if report.queue_id else ""
    people = "recipient" if len(report.outcomes) == 1 else "recipients"
    return f"accepted by {report.host}{name} for {whom} {people}"


def _reassurance(report: DeliveryReport | None, error: SendmailError) -> str:
    """For an error that does not say by itself that nobody has the message."""
    if error.in_doubt or not isinstance(error, (DeliveryCancelled, SendTimeout, ConnectionFailed)):
        return ""
    if report is not None and len(report.untouched) != len(report.outcomes):
        return ""
    return "; nothing was delivered"


def trouble_lines(report: DeliveryReport | None, error: SendmailError | None) -> list[str]:
    """What to say on stderr, the whole before its parts."""
    lines: list[str] = []
    if error is not None:
        lines.append(str(error) + _reassurance(report, error))
    if report is None:
        return lines
    if report.accepted and report.refused:
        lines.append(
            f"{len(report.refused)} of {len(report.outcomes)} recipients refused; "
            "the others have the message: send it again to those refused only"
        )
    alone = error is not None and len(report.outcomes) == 1
    if not alone and (report.accepted or report.phase is None or report.in_doubt):
        lines += [str(outcome) for outcome in (*report.refused, *report.in_doubt)]
    return lines
