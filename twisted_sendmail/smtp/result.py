"""The result for each recipient, the report of a message, and its error if nobody was accepted.

``AllRecipientsRefused`` and ``DeliveryInDoubt`` in ``errors`` carry a report; partial acceptance
is a report and no error.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from twisted_sendmail.smtp.errors import AllRecipientsRefused, SendmailError, refusal
from twisted_sendmail.smtp.escape import printable
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.reply_meaning import ReplySubject, classify_reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_sendmail.smtp.envelope import Envelope, Recipient, UnusableRecipient
    from twisted_sendmail.smtp.tls_facts import TLSFacts
    from twisted_sendmail.smtp.transcript import Transcript


# Made for each message and not frozen: setting a field of a frozen class takes three times as long.


class RecipientStatus(enum.Enum):
    """Status of one recipient."""

    #: The server took responsibility for it (RFC 5321 section 4.2.5).
    ACCEPTED = "accepted"
    #: The server refused the recipient; ``RecipientResult.transient`` says whether it may be tried again.
    REFUSED = "refused"
    #: The end of the content was on its way and no whole reply came back: the server
    #: may have it or not.  Sending it again may make a second copy.  ``smtp.client`` decides this.
    IN_DOUBT = "in doubt"
    #: The server cannot have it: sending it again is safe.
    UNTOUCHED = "untouched"


# Looking up a member of an Enum takes longer than the rest of ``DeliveryReport.accepted``.
_ACCEPTED = RecipientStatus.ACCEPTED


@dataclass(slots=True, unsafe_hash=True)
class RecipientResult:
    """Result for one recipient."""

    #: An :class:`~twisted_sendmail.smtp.envelope.UnusableRecipient` for an address of the header that
    #: cannot be used.
    recipient: Recipient
    status: RecipientStatus
    #: The reply that decided: to RCPT, to MAIL or to the content; None without one.
    reply: Reply | None = None
    #: The server takes fewer recipients in one transaction, whatever the code of its reply.
    too_many: bool = False

    @property
    def in_doubt(self) -> bool:
        """True if it is unknown whether the server has this copy."""
        return self.status is RecipientStatus.IN_DOUBT

    @property
    def transient(self) -> bool:
        """May this recipient be tried again, with no second copy?  In doubt: no."""
        if self.status is RecipientStatus.REFUSED:
            return self.too_many or self.reply is None or classify_reply(self.reply).transient
        return self.status is RecipientStatus.UNTOUCHED

    def __str__(self) -> str:
        return f"{printable(str(self.recipient))} {self.status.value}{f': {self.reply}' if self.reply else ''}"


def refused_address(recipient: UnusableRecipient) -> RecipientResult:
    """Return the result for an address that cannot be used (RFC 3463 section 3.2: 5.1.3)."""
    error = recipient.error
    why = "; ".join(filter(None, (error.detail, error.remedy)))
    reply = Reply(553, (printable(f"5.1.3 Bad recipient address syntax: {why}", limit=400),))
    return RecipientResult(recipient, RecipientStatus.REFUSED, reply)


def recipient_results(
    recipients: Sequence[Recipient],
    refused: Mapping[int, Reply],
    status: RecipientStatus,
    verdict: Reply | None,
) -> tuple[RecipientResult, ...]:
    """Return the results of one transaction.

    :param refused: replies of those who were refused, by their place in *recipients*.
    :param status: that of all others.
    :param verdict: the reply that decided on all who were accepted at RCPT; None without one.
    """
    if not refused:
        return tuple([RecipientResult(each, status, verdict) for each in recipients])
    results = []
    accepted_before = False
    for place, recipient in enumerate(recipients):
        reply = refused.get(place)
        if reply is None or reply is verdict:
            accepted_before = True
        if reply is None:
            results.append(RecipientResult(recipient, status, verdict))
            continue
        meaning = classify_reply(
            reply, to_rcpt=reply is not verdict, accepted_before=accepted_before
        )
        too_many = meaning.subject is ReplySubject.TOO_MANY_RECIPIENTS
        results.append(RecipientResult(recipient, RecipientStatus.REFUSED, reply, too_many))
    return tuple(results)


# How servers tell their queue id in the reply to the content, most telling first.
_QUEUE_ID = (
    re.compile(r"queued (?:as|with id) ([!-~]+)", re.IGNORECASE),
    re.compile(r"\bids?=([!-~]+)"),
    re.compile(r"queued \(([!-~]+)\)", re.IGNORECASE),
    # An enhanced status code is not one; and words are tried from their first letter only.
    re.compile(r"(?<![!-~])(?![245]\.[0-9.]+ )([!-~]+) Message accepted for delivery"),
    re.compile(r"\bInternalId=([0-9]+)"),
    re.compile(r"\A(?:2\.0\.0 )?ok [0-9]+ qp ([0-9]+)", re.IGNORECASE),
    re.compile(r"\bOK +[0-9]+ ([!-~]+) - gsmtp"),
    re.compile(r"\AOk ([0-9a-f]{16}(?:-[0-9a-f]+){6})\Z"),  # Amazon SES
)
_ID_DELIMITERS = ".,;:()<>[]"


@dataclass(slots=True, unsafe_hash=True)
class DeliveryReport:
    """Report on one message."""

    #: None when the message could not even be read.
    envelope: Envelope | None
    #: One for each recipient of the envelope, in its order.
    outcomes: tuple[RecipientResult, ...]
    #: The reply to the content, or the one that ended the transaction before.
    reply: Reply | None = None
    #: The command it answered: ``MAIL``, ``DATA`` or ``content``; None without one.
    phase: str | None = None
    #: Octets of content on the wire, without dot-stuffing and final dot.
    size: int = 0
    #: ``name[address]:port`` of the server.
    host: str | None = None
    tls: TLSFacts | None = None
    transcript: Transcript | None = None
    #: Why somebody is in doubt or untouched; None when every recipient has a reply.
    error: SendmailError | None = None
    #: The Message-ID of the header, with its angle brackets.
    message_id: str | None = None
    #: The server offers DSN: the server has to send the notifications that NOTIFY asks for (RFC 3461 section 5.2.1).
    dsn: bool = False
    #: The number of the first line that is longer than the 998 octets of SMTP; None: there is none.
    long_line: int | None = None
    #: The message is signed, and had to be encoded for the server: its signature is void.
    signature_broken: bool = False
    #: Extensions and parameters that the server offers and refuses as unknown: CHUNKING, SIZE, RET,
    #: ENVID or ORCPT.  Without them the message may be accepted.
    unsupported: frozenset[str] = frozenset()

    def _with(self, status: RecipientStatus) -> tuple[RecipientResult, ...]:
        return tuple([o for o in self.outcomes if o.status is status])

    @property
    def accepted(self) -> tuple[RecipientResult, ...]:
        """Recipients for whom the server accepted the message."""
        return tuple([o for o in self.outcomes if o.status is _ACCEPTED])

    @property
    def refused(self) -> tuple[RecipientResult, ...]:
        """Recipients that the server refused."""
        return self._with(RecipientStatus.REFUSED)

    @property
    def in_doubt(self) -> tuple[RecipientResult, ...]:
        """Recipients for whom the server may have accepted the message."""
        return self._with(RecipientStatus.IN_DOUBT)

    @property
    def untouched(self) -> tuple[RecipientResult, ...]:
        """Recipients for whom the server cannot have accepted the message."""
        return self._with(RecipientStatus.UNTOUCHED)

    @property
    def resendable(self) -> bool:
        """True if all of it can be sent again, and nobody gets a second copy."""
        return bool(self.untouched) and not self.accepted and not self.in_doubt

    @property
    def queue_id(self) -> str | None:
        """The server's name for the message, where its reply to the content tells one."""
        if self.reply is None or not self.accepted:
            return None
        for pattern in _QUEUE_ID:
            match = pattern.search(self.reply.text)
            if match:
                return match[1].strip(_ID_DELIMITERS) or None
        return None

    @property
    def hint(self) -> str:
        """A reason to refuse the content that the reply may not name; empty if none is known."""
        if self.phase != "content" or self.long_line is None:
            return ""
        return (
            f"line {self.long_line} is longer than the 998 octets of SMTP; if that is why, encode "
            "the text as quoted-printable or base64"
        )

    def __str__(self) -> str:
        counts = [f"{len(self._with(s))} {s.value}" for s in RecipientStatus if self._with(s)]
        return ", ".join(counts) + (f": {self.reply}" if self.reply else "")


def require_acceptance(report: DeliveryReport) -> DeliveryReport:
    """Return *report* if somebody was accepted; partial acceptance is a result.

    :raises AllRecipientsRefused: nobody was.  The error is also of the class of the refusal, so
        that ``except MailboxUnavailable`` catches it.
    :raises SendmailError: the report's error, when a verdict is missing.
    """
    error = report.error or _all_refused(report)
    if error is not None:
        raise error
    return report


def _all_refused(report: DeliveryReport) -> SendmailError | None:
    if report.accepted:
        return None
    first = report.outcomes[0]
    reply = first.reply
    if reply is None:
        return None
    one = refusal("message", reply, too_many=first.too_many)
    remedy = one.remedy or report.hint
    many = len(report.outcomes) > 1
    if report.phase == "MAIL" and report.envelope is not None:
        what = f"MAIL FROM:{report.envelope.sender.wire} refused"
    elif report.phase is not None:
        what = "message refused" if report.phase == "content" else f"{report.phase} refused"
    elif many:
        what = f"all {len(report.outcomes)} recipients refused"
    else:
        what = f"RCPT TO:{first.recipient.path.wire} refused"
    error = _all_refused_type(type(one))(  # type: ignore[arg-type]  # mypy holds an exception class for unhashable
        what,
        detail=f"first of {len(report.outcomes)} replies" if many and report.phase is None else "",
        remedy=remedy,
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
def _all_refused_type(refused: type[SendmailError]) -> type[AllRecipientsRefused]:
    """Return ``AllRecipientsRefused`` as a subclass of *refused* as well."""
    return type(
        "AllRecipientsRefused",
        (AllRecipientsRefused, refused),
        {"__module__": AllRecipientsRefused.__module__},
    )
