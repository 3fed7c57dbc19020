"""What the end of a try means: for each recipient, and for the way it took.

Pure.  A refusal with 5yz is final and one with 4yz is not; everything else that can go
wrong is no verdict on a recipient at all, and he is tried again.  So is a recipient in doubt,
which nothing but a relay does: it has answered for the message, and the judgement says so,
that a second copy can be named.  What was wrong with the
way (no connection, no TLS, a refused password) is not held against a recipient, and
neither is trouble of our own.

When he is tried again is ``schedule``'s; what the sender is told is ``bounce``'s.

RFC 5321 section 4.2.1 and 4.5.3.1.10, RFC 3463 (the codes given where nobody said one).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from twisted.python.failure import Failure

from twisted_sendmail.queue import MessageDamaged, QueueError, RecipientState
from twisted_sendmail.smtp import (
    AuthenticationError,
    ConnectFailed,
    DeliveryReport,
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
    from twisted_sendmail.smtp import Reply

# A refusal for our credentials, or the order of our commands, says nothing of a recipient.
_NO_VERDICT = frozenset({ReplySubject.CREDENTIALS, ReplySubject.COMMAND})
# What the message needs and nobody offered: RFC 3463, RFC 6531 and RFC 8689.
_NEEDED = {
    "8BITMIME": "5.6.3",
    "BINARYMIME": "5.6.1",
    "SMTPUTF8": "5.6.7",
    "REQUIRETLS": "5.7.30",
}


class Blame(enum.Enum):
    """What a try that did not go well says about the way it took."""

    __hash__ = object.__hash__  # by identity, and cheap

    #: The server was heard: the way is good.
    NOBODY = "nobody"
    #: The connection broke, or the server had enough of it.
    LOSS = "loss"
    #: No connection could be made ready.
    ROUTE = "route"
    #: No connection could be made ready, as the server does not know us.
    AUTH = "authentication"
    #: The connection was ready, and the server says to a message that it does not know us.
    STRANGER = "stranger"
    #: The message could not be read out of the queue; the server had no part in it.
    OURS = "ours"
    #: The message is not what was written.
    DAMAGED = "damaged"
    #: It was not tried at all.
    UNTRIED = "untried"


class Verdict(NamedTuple):
    """One recipient's."""

    state: RecipientState
    status: str
    #: One printable line.
    reply: str
    #: It was he who was refused, or tried: his next wait is longer.
    counts: bool = True
    #: He is to be tried again at once: others were in his way.
    at_once: bool = False


class Judgement(NamedTuple):
    """What became of a try."""

    #: In the order of the recipients tried.
    verdicts: list[Verdict]
    blame: Blame
    #: ``name[address]:port``, as far as there was a connection.
    relay: str | None = None
    in_doubt: bool = False
    error: BaseException | None = None


def judge(result: DeliveryReport | SendmailError | Failure, tried: int) -> Judgement:
    """Judge the end of a try.

    :param result: what the mailer said.
    :param tried: how many recipients it was for.
    """
    if isinstance(result, DeliveryReport):
        return _reported(result)
    error = _error(result)
    if isinstance(error, SendmailError) and error.report is not None:
        return _reported(error.report, error)
    doubt = isinstance(error, SendmailError) and error.in_doubt
    blame = Blame.LOSS if doubt else _blame(error)
    verdict = Verdict(
        RecipientState.PENDING,
        status_of(error),
        _line(error),
        counts=blame not in _NOT_HELD_AGAINST,
    )
    host = error.host if isinstance(error, SendmailError) else None
    return Judgement([verdict] * tried, blame, host, doubt, error=error)


def _error(result: SendmailError | Failure) -> BaseException:
    if isinstance(result, SendmailError):
        return result
    return result.value or SendmailError("it failed")


_NOT_HELD_AGAINST = frozenset({Blame.ROUTE, Blame.AUTH, Blame.UNTRIED})


def _blame(error: BaseException) -> Blame:
    """Of an error without a report: nothing of the message was said."""
    if isinstance(error, (MailerClosed, MailerBusy)):
        return Blame.UNTRIED
    if isinstance(error, MessageDamaged):
        return Blame.DAMAGED
    if isinstance(error, QueueError) or not isinstance(error, SendmailError):
        return Blame.OURS
    return Blame.AUTH if _unknown_to_server(error) else Blame.ROUTE


def _unknown_to_server(error: BaseException) -> bool:
    if isinstance(error, AuthenticationError):
        return not error.temporary
    reply = error.reply if isinstance(error, SendmailError) else None
    return reply is not None and _is_about(reply, ReplySubject.CREDENTIALS)


def _reported(report: DeliveryReport, error: SendmailError | None = None) -> Judgement:
    error = report.error or error
    if error is None and len(report.outcomes) == 1:
        (outcome,) = report.outcomes
        reply = outcome.reply
        if outcome.status is RecipientStatus.ACCEPTED and reply is not None and reply.code == 250:
            # What nearly every message comes to.
            verdict = Verdict(RecipientState.DELIVERED, _status(reply, 2), str(reply))
            return Judgement([verdict], Blame.NOBODY, report.host)
    some, doubt = bool(report.accepted), bool(report.in_doubt)
    verdicts = [_verdict(outcome, error, some=some) for outcome in report.outcomes]
    return Judgement(verdicts, _blame_of(report, error, some=some), report.host, doubt, error=error)


def _blame_of(report: DeliveryReport, error: SendmailError | None, *, some: bool) -> Blame:
    replies = [outcome.reply for outcome in report.outcomes if outcome.reply is not None]
    if not some and any(_is_about(reply, ReplySubject.CREDENTIALS) for reply in replies):
        return Blame.STRANGER
    if error is None:
        closing = any(_is_about(reply, ReplySubject.CONNECTION) for reply in replies)
        return Blame.LOSS if closing else Blame.NOBODY
    if isinstance(error, MessageDamaged):
        return Blame.DAMAGED
    if isinstance(error, QueueError):
        return Blame.OURS
    if isinstance(error, MailerClosed) and not report.in_doubt:
        return Blame.UNTRIED
    if _refuses(error):
        return Blame.NOBODY
    return Blame.LOSS


def _refuses(error: SendmailError) -> bool:
    """The message is known to be more than the server takes: it need not say so."""
    return isinstance(error, (MessageTooLarge, ExtensionUnavailable))


def _verdict(outcome: RecipientResult, error: SendmailError | None, *, some: bool) -> Verdict:
    reply = outcome.reply
    status = outcome.status
    if status is RecipientStatus.ACCEPTED:
        return Verdict(
            RecipientState.DELIVERED,
            _status(reply, 2) if reply else "2.0.0",
            str(reply) if reply else "accepted",
        )
    if status is RecipientStatus.REFUSED and reply is not None:
        return _refused(outcome, reply, some=some)
    if error is None:
        return Verdict(RecipientState.PENDING, "4.0.0", "there was no verdict")
    if _refuses(error):
        return Verdict(RecipientState.FAILED, status_of(error), _line(error))
    if status is RecipientStatus.IN_DOUBT:
        return Verdict(RecipientState.PENDING, status_of(error, "4.4.2"), _line(error))
    return Verdict(
        RecipientState.PENDING,
        status_of(error, "4.4.2"),
        _line(error),
        counts=not isinstance(error, MailerClosed),
    )


def _refused(outcome: RecipientResult, reply: Reply, *, some: bool) -> Verdict:
    """Only what is about the message or the recipient, and permanent, is a failure."""
    text = str(reply)
    if outcome.transient or classify_reply(reply).subject in _NO_VERDICT:
        # The others had to go first; each time some of them do, so this comes to an end.
        at_once = outcome.too_many and some
        return Verdict(
            RecipientState.PENDING, _status(reply, 4), text, counts=not at_once, at_once=at_once
        )
    return Verdict(RecipientState.FAILED, _status(reply, 5), text)


def _is_about(reply: Reply, subject: ReplySubject) -> bool:
    return classify_reply(reply).subject is subject


def _status(reply: Reply, class_: int) -> str:
    found = reply.enhanced
    return f"{class_}.{found.subject}.{found.detail}" if found else f"{class_}.0.0"


def _line(error: BaseException) -> str:
    if isinstance(error, SendmailError):
        return str(error)
    # What an unknown exception says may be anything, and long.
    return printable(f"{type(error).__name__}: {error}", 300)


def status_of(error: BaseException, otherwise: str = "4.3.0") -> str:
    """The enhanced status for an error, of class 5 where the message is to blame."""
    if isinstance(error, MessageTooLarge):
        return "5.3.4"
    if isinstance(error, ExtensionUnavailable):
        return _NEEDED.get(error.what.split(" ", 1)[0], "5.6.0")
    if not isinstance(error, SendmailError):
        return "4.3.0"
    if error.enhanced is not None:
        return f"4.{error.enhanced.subject}.{error.enhanced.detail}"
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return otherwise


_STATUS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectFailed, "4.4.1"),
    (AuthenticationError, "4.7.8"),
    (TLSError, "4.7.5"),
    (ProtocolBreach, "4.5.0"),
    (SendTimeout, "4.4.2"),
    (ConnectionError, "4.4.2"),
    (InvalidInput, "4.3.5"),
)
