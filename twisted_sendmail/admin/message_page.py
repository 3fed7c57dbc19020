"""The page of one message: its envelope, each recipient and what was said, what can be done.

Pure: values in, tags out.  The header is a reader's secret, and only shown to who has
signed in; the envelope is what ``mailq`` shows to everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.admin.frame import action_form, document
from twisted_sendmail.admin.queue_table import buttons, state
from twisted_sendmail.admin.reasons import meaning, standing
from twisted_sendmail.admin.shown import address, ago, ahead, count, foreign, size
from twisted_sendmail.queue import RecipientState
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from twisted.web.template import Flattenable

    from twisted_sendmail.admin.frame import Viewer
    from twisted_sendmail.queue import QueuedMessage, QueuedRecipient

#: Recipients listed; a list server may have thousands.
_LISTED = 500
_STATES = {
    RecipientState.PENDING: ("Waits", "warn"),
    RecipientState.DELIVERED: ("Delivered", "good"),
    RecipientState.FAILED: ("Failed", "bad"),
}


def message_page(viewer: Viewer, message: QueuedMessage, header: bytes | None) -> Tag:
    """The page.

    :param header: the beginning of its content, for who may read it.
    """
    actions: Flattenable = ""
    if viewer.may_act:
        actions = action_form(
            viewer,
            "/act",
            tags.input(type="hidden", name="id", value=message.id),
            tags.input(type="hidden", name="back", value=f"/message/{message.id}"),
            buttons(),
        )
    ours = standing(message)
    return document(
        viewer,
        f"Message {message.id}",
        tags.p(tags.a("← All messages", href="/")),
        tags.h1("Message ", tags.span(message.id, class_="id")),
        tags.p(state(message), [" ", ours] if ours else "", class_="lead"),
        tags.section(tags.h2("Envelope"), _facts(viewer, message), class_="sheet"),
        tags.section(tags.h2("Actions"), actions, class_="sheet") if actions else "",
        tags.section(
            tags.h2(count(len(message.recipients), "recipient")),
            _recipients(viewer, message),
            class_="sheet",
        ),
        tags.section(tags.h2("Header"), tags.pre(_lines(header)), class_="sheet")
        if header is not None
        else "",
    )


def _facts(viewer: Viewer, message: QueuedMessage) -> Tag:
    draft, now = message.draft, viewer.now
    facts: list[tuple[str, Flattenable]] = [
        ("From", address(draft.envelope.sender)),
        ("Message-ID", foreign(draft.message_id or "–")),
        ("Came from", foreign(draft.origin or "–")),
        ("Way out", foreign(draft.route)),
        ("Size", size(message.size)),
        ("Arrived", ago(draft.arrived, now)),
        ("Tried", count(message.attempts, "time")),
    ]
    if message.pending and not (message.held or message.leased or message.aside):
        facts.append(("Next try", ahead(message.due, now)))
    if message.interrupted:
        what = (
            f"{count(message.interrupted, 'try', 'tries')} ended unseen: a copy may have gone out"
        )
        facts.append(("In doubt", tags.span(what, class_="warn")))
    if message.warned:
        facts.append(("Sender", "was told that it is late"))
    return tags.dl([(tags.dt(name), tags.dd(value)) for name, value in facts], class_="facts")


def _recipients(viewer: Viewer, message: QueuedMessage) -> Tag:
    heads = ["Recipient", "RecipientState", "Last said", "By", "Tries", "Last try", "Next try"]
    rows = [_recipient(viewer, message, r) for r in message.recipients[:_LISTED]]
    hidden = len(message.recipients) - _LISTED
    return tags.div(
        tags.table(
            tags.thead(
                tags.tr([tags.th(h, scope="col", role="columnheader") for h in heads], role="row"),
                role="rowgroup",
            ),
            tags.tbody(rows, role="rowgroup"),
            role="table",
            class_="cards",
        ),
        tags.p(f"and {hidden:,} more", class_="quiet") if hidden > 0 else "",
    )


def _recipient(viewer: Viewer, message: QueuedMessage, recipient: QueuedRecipient) -> Tag:
    words, look = _STATES[recipient.state]
    means = meaning(recipient.status or "")
    waits = recipient.state is RecipientState.PENDING and not (message.held or message.aside)
    said: Flattenable = "–"
    if recipient.reply is not None:
        said = [
            tags.b(means[:1].upper() + means[1:], ". ") if means else "",
            foreign(recipient.reply),
        ]
    cells: list[tuple[str, Flattenable, str]] = [
        ("Recipient", tags.div(address(recipient.recipient.path)), "who"),
        ("RecipientState", tags.span(words, class_=f"state {look}"), ""),
        ("Last said", tags.div(said), "why"),
        ("By", tags.div(foreign(recipient.relay or "–")), "who"),
        ("Tries", str(recipient.attempts), "number"),
        (
            "Last try",
            ago(recipient.tried, viewer.now) if recipient.tried is not None else "–",
            "when",
        ),
        ("Next try", ahead(recipient.due, viewer.now) if waits else "–", "when"),
    ]
    return tags.tr(
        [
            tags.td(value, class_=kind, role="cell", **{"data-label": label})
            for label, value, kind in cells
        ],
        role="row",
    )


def _lines(header: bytes) -> list[Flattenable]:
    """The header, line by line, each made safe by itself."""
    head = header.partition(b"\r\n\r\n")[0]
    return [[tags.bdi(printable(line, 1000)), "\n"] for line in head.split(b"\r\n")]
