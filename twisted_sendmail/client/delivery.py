"""One message to all of its recipients, in as many transactions as the server wants.

Most servers take it in one.  One that tells its LIMITS is not sent more recipients than
it takes at once, instead of being told no by it: the message goes out again to the rest.

RFC 9422 (RCPTMAX, RCPTDOMAINMAX).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from twisted_sendmail.client.connection import Cancelled
from twisted_sendmail.client.transaction import transact
from twisted_sendmail.smtp import DeliveryReport, RecipientResult, RecipientStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_sendmail.client.protocol import SubmissionProtocol
    from twisted_sendmail.message import PreparedMessage
    from twisted_sendmail.smtp import Recipient


async def deliver(
    protocol: SubmissionProtocol,
    letter: PreparedMessage,
    *,
    last: bool = False,
    all_or_nothing: bool = False,
    said: Callable[[], None] | None = None,
    eager: bool = True,
) -> DeliveryReport:
    """Send one message within the server's LIMITS; the report is of all recipients.

    Parameters and errors are those of :func:`~twisted_sendmail.client.transaction.transact`.
    What can be read only once, or is for all recipients or none, goes out in one
    transaction whatever the limits.
    """
    batches = [letter.envelope.recipients]
    limits = protocol.session.capabilities.limits
    if limits and letter.rewindable and not all_or_nothing:
        batches = split(letter.envelope.recipients, limits)
    if len(batches) == 1:
        return await transact(
            protocol, letter, last=last, all_or_nothing=all_or_nothing, said=said, eager=eager
        )
    reports: list[DeliveryReport] = []
    for batch in batches:
        final = batch is batches[-1]
        try:
            report = await transact(
                protocol,
                letter.to(batch),
                last=last and final,
                said=said if final else None,
                eager=eager,
            )
        except Cancelled as error:
            if error.report is not None:
                error.report = _together(letter, [*reports, error.report])
            raise
        reports.append(report)
        if not protocol.usable:
            break
        letter.rewind()
    whole = _together(letter, reports)
    if whole.error is not None:
        whole.error.report = whole
    return whole


def split(
    recipients: tuple[Recipient, ...], limits: Mapping[str, int]
) -> list[tuple[Recipient, ...]]:
    """*recipients*, in their order, in parts that keep within *limits*."""
    most = limits.get("RCPTMAX", len(recipients))
    most_domains = limits.get("RCPTDOMAINMAX", len(recipients))
    if len(recipients) <= min(most, most_domains):
        return [recipients]
    parts: list[list[Recipient]] = [[]]
    domains: set[str] = set()
    for recipient in recipients:
        box = recipient.path.mailbox
        domain = box.ascii_domain.lower() if box else ""
        if len(parts[-1]) == most or len(domains | {domain}) > most_domains:
            parts.append([])
            domains = set()
        domains.add(domain)
        parts[-1].append(recipient)
    return [tuple(part) for part in parts]


def _together(letter: PreparedMessage, reports: list[DeliveryReport]) -> DeliveryReport:
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    rest = letter.envelope.recipients[len(outcomes) :]
    outcomes += [RecipientResult(recipient, RecipientStatus.UNTOUCHED) for recipient in rest]
    decided = next((report for report in reports if report.accepted), reports[-1])
    error = next((report.error for report in reports if report.error is not None), None)
    return replace(decided, envelope=letter.envelope, outcomes=tuple(outcomes), error=error)
