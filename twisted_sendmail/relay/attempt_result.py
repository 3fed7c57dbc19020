"""Decide after an attempt: deliver, defer or bounce each recipient, and back off the route or not.

``smtp.reply_meaning`` classifies replies; this module applies that to the recipients of a queued
message:

* A recipient fails only by a permanent refusal of the message or of the recipient.  Anything else
  defers: transient refusals, lost connections, refused credentials, unknown errors.
* A fault of the route (no connection, no TLS, refused credentials) is not counted as an attempt of
  the recipient: its wait does not grow.
* A recipient in doubt is deferred as well, and named in the log: the relay has accepted
  responsibility for the message.
* Age alone ends nothing: only an attempt that failed now can be the last.  The age of a message is
  the time that a relay ran since it arrived, so a clock that was wrong or jumped, or a machine that
  slept, cannot bounce mail that was not tried for its time.

Pure.  ``retry_policy`` decides the time of the next attempt, ``bounce`` what is reported to the sender.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import attrs
from twisted.python.failure import Failure

from twisted_sendmail.message import SigningUnavailable, UnsignableMessage
from twisted_sendmail.queue import MessageDamaged, QueuedRecipient, QueueError, RecipientState
from twisted_sendmail.smtp import (
    AuthenticationError,
    ConnectFailed,
    DeliveryReport,
    DeliveryWithdrawn,
    ExtensionUnavailable,
    InvalidInput,
    MailerBusy,
    MailerClosed,
    MessageTooLarge,
    ProtocolBreach,
    RecipientResult,
    RecipientStatus,
    ReplySubject,
    SendmailError,
    SendTimeout,
    TLSError,
    classify_reply,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_sendmail.queue import QueuedMessage
    from twisted_sendmail.relay.retry_policy import Chance, RetryPolicy
    from twisted_sendmail.smtp import Reply

#: Delivery time expired (RFC 3463 section 3.5).
EXPIRED = "4.4.7"
#: The reply of an attempt whose lease ran out before the end of the content was sent.
LEASE_RAN_OUT = "not delivered: the lease of the message ran out during the attempt"
# A refusal of our credentials, or of the order of our commands, is not about the recipient.
_NOT_ABOUT_RECIPIENT = frozenset({ReplySubject.CREDENTIALS, ReplySubject.COMMAND})
# Status where the server offers no extension that the message needs: RFC 3463, 6531 and 8689.
_MISSING_EXTENSION = {
    "8BITMIME": "5.6.3",
    "BINARYMIME": "5.6.3",
    "SMTPUTF8": "5.6.7",
    "REQUIRETLS": "5.7.30",
}
# Status of errors without a reply; the first class that matches counts.
_ERROR_STATUS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectFailed, "4.4.1"),
    (AuthenticationError, "4.7.8"),
    (TLSError, "4.7.5"),
    (ProtocolBreach, "4.5.0"),
    (SendTimeout, "4.4.2"),
    (ConnectionError, "4.4.2"),
    (SigningUnavailable, "4.7.5"),
    (InvalidInput, "4.3.5"),
)


class AttemptOutcome(enum.Enum):
    """The result of an attempt for its route."""

    __hash__ = object.__hash__  # by identity, and cheap

    #: The server replied to the message: the route can be used.
    REPLIED = "replied"
    #: The connection was lost, or the server closed it.
    LOST = "lost"
    #: No connection could be made ready.
    UNREACHABLE = "unreachable"
    #: The server refused the credentials.
    LOGIN_REFUSED = "login refused"
    #: The server refused MAIL, RCPT or the content with 530, 534, 535 or 538.
    SENDER_REFUSED = "sender refused"
    #: A local fault: the server is not involved.
    LOCAL_FAULT = "local fault"
    #: The stored message is damaged.
    DAMAGED = "damaged"
    #: There was no attempt.
    NOT_TRIED = "not tried"


# The route is to blame, and not the recipient.
_NOT_COUNTED = frozenset(
    {AttemptOutcome.UNREACHABLE, AttemptOutcome.LOGIN_REFUSED, AttemptOutcome.NOT_TRIED}
)
# A local fault ends no message.
_NEVER_LAST = frozenset(
    {AttemptOutcome.LOCAL_FAULT, AttemptOutcome.DAMAGED, AttemptOutcome.NOT_TRIED}
)


class AttemptResult(NamedTuple):
    """Result of one attempt."""

    #: The recipients that were tried, as they are now.
    recipients: tuple[QueuedRecipient, ...]
    outcome: AttemptOutcome
    #: It counts as an attempt of the message.
    counts: bool = True
    in_doubt: bool = False
    error: BaseException | None = None


class _Verdict(NamedTuple):
    """Result for one recipient."""

    state: RecipientState
    status: str
    #: One printable line.
    reply: str
    #: The next wait is longer.
    counts: bool = True
    #: Try again at once: there were too many recipients.
    at_once: bool = False


def classify_attempt(
    message: QueuedMessage,
    tried: Sequence[QueuedRecipient],
    result: DeliveryReport | BaseException | Failure,
    *,
    now: float,
    policy: RetryPolicy,
    chance: Chance,
) -> AttemptResult:
    """Return the result of an attempt.

    :param tried: the recipients of *message* that were tried.
    :param result: result of the mailer.
    """
    report, error = _report_and_error(result)
    if report is not None:
        host = report.host
        statuses = [each.status for each in report.outcomes]
        in_doubt = RecipientStatus.IN_DOUBT in statuses
        some = RecipientStatus.ACCEPTED in statuses
        outcome = _outcome(report, error, accepted=some, in_doubt=in_doubt)
        verdicts = [
            _verdict(each, error, some=some, hint=report.hint if each.reply is report.reply else "")
            for each in report.outcomes
        ]
    else:
        failed = error or SendmailError("the attempt failed")
        host = failed.host if isinstance(failed, SendmailError) else None
        in_doubt = isinstance(failed, SendmailError) and failed.in_doubt
        outcome = AttemptOutcome.LOST if in_doubt else _outcome_before_message(failed)
        counts = outcome not in _NOT_COUNTED
        verdicts = [
            _Verdict(RecipientState.PENDING, error_status(failed), _line(failed), counts=counts)
        ] * len(tried)
    last = outcome not in _NEVER_LAST and policy.expired(
        message.age, report=message.info.envelope.sender.mailbox is None
    )
    rows = []
    for queued, verdict in zip(tried, verdicts, strict=True):
        state, status, reply, counts, at_once = verdict
        due = 0.0
        if state is RecipientState.PENDING:
            if last and not at_once:
                state, status = RecipientState.FAILED, EXPIRED
            elif counts:
                due = policy.due(now, queued.attempts, chance)
            else:
                # It was not about this recipient, which keeps its place in the queue.
                due = min(queued.due, now)
        rows.append(
            QueuedRecipient(
                queued.number,
                queued.recipient,
                state,
                due,
                queued.attempts + counts,
                now if counts else queued.tried,
                reply,
                status,
                host,
            )
        )
    counted = any(verdict.counts for verdict in verdicts)
    return AttemptResult(tuple(rows), outcome, counted, in_doubt, error)


def classify_unexpected_error(
    tried: Sequence[QueuedRecipient],
    result: DeliveryReport | BaseException | Failure,
    *,
    now: float,
    policy: RetryPolicy,
    chance: Chance,
) -> AttemptResult:
    """Return the result of an attempt whose end an error of the relay itself prevented.

    Recipients that the server accepted are delivered; all others are deferred, whatever the server
    replied.

    :param result: result of the mailer, or the error that came before it.
    """
    report, error = _report_and_error(result)
    accepted = set() if report is None else {str(each.recipient.path) for each in report.accepted}
    rows = []
    for queued in tried:
        delivered = str(queued.recipient.path) in accepted
        rows.append(
            attrs.evolve(
                queued,
                state=RecipientState.DELIVERED if delivered else RecipientState.PENDING,
                due=0.0 if delivered else policy.due(now, queued.attempts, chance),
                attempts=queued.attempts + 1,
                tried=now,
                reply="accepted" if delivered else "unexpected error of the relay",
                status="2.0.0" if delivered else "4.3.0",
            )
        )
    if report is not None:
        in_doubt = bool(report.in_doubt)
    else:
        in_doubt = isinstance(error, SendmailError) and error.in_doubt
    return AttemptResult(tuple(rows), AttemptOutcome.LOCAL_FAULT, in_doubt=in_doubt, error=error)


def _report_and_error(
    result: DeliveryReport | BaseException | Failure,
) -> tuple[DeliveryReport | None, BaseException | None]:
    if isinstance(result, DeliveryReport):
        return result, result.error
    error = result.value if isinstance(result, Failure) else result
    report = error.report if isinstance(error, SendmailError) else None
    return report, (report and report.error) or error


def expired(row: QueuedRecipient) -> bool:
    """Return True if the recipient was given up, and not refused."""
    return row.state is RecipientState.FAILED and row.status == EXPIRED


def given_up(recipients: Sequence[QueuedRecipient]) -> tuple[QueuedRecipient, ...]:
    """Return *recipients* of a message that the operator expired: none is tried."""
    return tuple(
        [
            attrs.evolve(
                row,
                state=RecipientState.FAILED,
                status=EXPIRED,
                reply="expired by the operator" + (f"; last: {row.reply}" if row.reply else ""),
            )
            for row in recipients
        ]
    )


def due_recipients(
    message: QueuedMessage, now: float, horizon: float
) -> tuple[QueuedRecipient, ...]:
    """Return the recipients to try now: pending, and due."""
    pending = message.pending
    due = tuple([each for each in pending if each.due <= now or each.due > horizon])
    if due or not pending:
        return due
    # It was leased because one was due, by another clock: the first.
    first = min(each.due for each in pending)
    return tuple([each for each in pending if each.due == first])


# -- outcome ------------------------------------------------------------------------------


def _outcome_before_message(error: BaseException) -> AttemptOutcome:
    """Return the outcome of an error before any command of the message."""
    if isinstance(error, (MailerClosed, MailerBusy)):
        return AttemptOutcome.NOT_TRIED
    if isinstance(error, MessageDamaged):
        return AttemptOutcome.DAMAGED
    if isinstance(error, QueueError) or not isinstance(error, SendmailError):
        return AttemptOutcome.LOCAL_FAULT
    if isinstance(error, AuthenticationError):
        refused = not error.temporary
    else:
        refused = (
            error.reply is not None
            and classify_reply(error.reply).subject is ReplySubject.CREDENTIALS
        )
    return AttemptOutcome.LOGIN_REFUSED if refused else AttemptOutcome.UNREACHABLE


def _outcome(
    report: DeliveryReport, error: BaseException | None, *, accepted: bool, in_doubt: bool
) -> AttemptOutcome:
    subjects = {
        classify_reply(each.reply).subject
        for each in report.outcomes
        if each.reply is not None and each.status is not RecipientStatus.ACCEPTED
    }
    if not accepted and ReplySubject.CREDENTIALS in subjects:
        return AttemptOutcome.SENDER_REFUSED
    if error is None:
        closing = ReplySubject.CONNECTION in subjects
        return AttemptOutcome.LOST if closing else AttemptOutcome.REPLIED
    if isinstance(error, MessageDamaged):
        return AttemptOutcome.DAMAGED
    if isinstance(error, (QueueError, SigningUnavailable, UnsignableMessage, DeliveryWithdrawn)):
        return AttemptOutcome.LOCAL_FAULT
    if isinstance(error, MailerClosed) and not in_doubt:
        return AttemptOutcome.NOT_TRIED
    return AttemptOutcome.REPLIED if _refuses_message(error) else AttemptOutcome.LOST


def _refuses_message(error: BaseException) -> bool:
    """Return True if the client did not send the message, because the server would refuse it."""
    return isinstance(error, (MessageTooLarge, ExtensionUnavailable))


# -- one recipient ------------------------------------------------------------------------


def _verdict(
    result: RecipientResult, error: BaseException | None, *, some: bool, hint: str
) -> _Verdict:
    """Return the verdict on one recipient.

    :param some: another recipient was accepted.
    :param hint: a reason for a refusal that the reply may not name.
    """
    reply = result.reply
    if result.status is RecipientStatus.ACCEPTED:
        status = reply_status(reply, 2) if reply else "2.0.0"
        return _Verdict(RecipientState.DELIVERED, status, str(reply or "accepted"))
    if result.status is RecipientStatus.REFUSED and reply is not None:
        if result.transient or classify_reply(reply).subject in _NOT_ABOUT_RECIPIENT:
            # Each time some of the others are delivered, so this ends.
            at_once = result.too_many and some
            return _Verdict(
                RecipientState.PENDING,
                reply_status(reply, 4),
                str(reply),
                counts=not at_once,
                at_once=at_once,
            )
        text = f"{reply} ({hint})" if hint else str(reply)
        return _Verdict(RecipientState.FAILED, reply_status(reply, 5), text)
    if error is None:
        return _Verdict(RecipientState.PENDING, "4.0.0", "no result")
    if _refuses_message(error):
        return _Verdict(RecipientState.FAILED, error_status(error), _line(error))
    if isinstance(error, DeliveryWithdrawn):
        return _Verdict(RecipientState.PENDING, "4.3.0", LEASE_RAN_OUT, counts=False)
    tried = result.status is RecipientStatus.IN_DOUBT or not isinstance(error, MailerClosed)
    status = error_status(error, "4.4.2")
    return _Verdict(RecipientState.PENDING, status, _line(error), counts=tried)


def reply_status(reply: Reply, class_: int) -> str:
    """Return the enhanced status code of *reply*, with another class."""
    found = reply.enhanced
    return f"{class_}.{found.subject}.{found.detail}" if found else f"{class_}.0.0"


def error_status(error: BaseException, otherwise: str = "4.3.0") -> str:
    """Return the enhanced status code for *error*; its class is 5 if the message cannot be sent."""
    if isinstance(error, MessageTooLarge):
        return "5.3.4"
    if isinstance(error, ExtensionUnavailable):
        return _MISSING_EXTENSION.get(error.what.split(" ", 1)[0], "5.6.0")
    if not isinstance(error, SendmailError):
        return "4.3.0"
    if error.reply is not None and error.enhanced is not None:
        return reply_status(error.reply, 4)
    for kind, status in _ERROR_STATUS:
        if isinstance(error, kind):
            return status
    return otherwise


def _line(error: BaseException) -> str:
    if isinstance(error, SendmailError):
        return str(error)
    # The text of an unknown exception may be anything, and long.
    return printable(f"{type(error).__name__}: {error}", 300)
