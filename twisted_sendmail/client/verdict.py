"""From a report to a result or an error: what a caller who sent one message sees.

Partial acceptance is a result.  Nobody accepted is an error, and its class also says
what kind of refusal it was, so that ``except MailboxUnavailable`` catches it too.
And whether a report allows that the message goes out again over another connection.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp import (
    AllRecipientsRefused,
    ConnectionFailed,
    ProtocolBreach,
    SendmailError,
    refusal,
)

if TYPE_CHECKING:
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import DeliveryReport


def require_acceptance(report: DeliveryReport) -> DeliveryReport:
    """Return *report* if somebody was accepted.

    :raises AllRecipientsRefused: nobody was; it is also of the class of the refusal.
    :raises SendmailError: the report's error, when a verdict is missing.
    """
    error = report.error or _all_refused(report)
    if error is not None:
        raise error
    return report


def may_go_again(report: DeliveryReport, letter: PreparedMessage) -> bool:
    """May another connection have *letter* after the one of *report* ended?

    Only if the connection died, the server cannot have the message for any recipient, and
    its content can be read a second time.
    """
    died = isinstance(report.error, (ConnectionFailed, ProtocolBreach))
    return died and report.resendable and letter.rewindable


def _all_refused(report: DeliveryReport) -> SendmailError | None:
    if report.accepted:
        return None
    first = report.outcomes[0]
    reply = first.reply
    if reply is None:
        return None
    one = refusal("message", reply)
    many = len(report.outcomes) > 1
    if report.phase == "MAIL" and report.envelope is not None:
        what = f"MAIL FROM:{report.envelope.sender.wire} refused"
    elif report.phase is not None:
        what = "message refused" if report.phase == "content" else f"{report.phase} refused"
    elif many:
        what = f"all {len(report.outcomes)} recipients refused"
    else:
        what = f"RCPT TO:{first.recipient.path.wire} refused"
    error = _kind(type(one))(  # type: ignore[arg-type]  # mypy holds an exception class for unhashable
        what,
        detail=f"first of {len(report.outcomes)} replies" if many and report.phase is None else "",
        remedy=one.remedy,
        phase=report.phase or "RCPT",
        reply=reply,
        recipient=None if many else str(first.recipient),
        host=report.host,
        tls=report.tls,
        transcript=report.transcript,
        report=report,
    )
    error.temporary = any(outcome.transient for outcome in report.outcomes)
    error.connection_usable = one.connection_usable
    return error


@cache
def _kind(refused: type[SendmailError]) -> type[AllRecipientsRefused]:
    """``AllRecipientsRefused`` that is a *refused* as well."""
    return type(
        "AllRecipientsRefused",
        (AllRecipientsRefused, refused),
        {"__module__": AllRecipientsRefused.__module__},
    )
