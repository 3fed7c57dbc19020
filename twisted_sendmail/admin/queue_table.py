"""The table of messages on the queue page: its filter, what can be done, its pages.

Pure: values in, tags out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.admin.filters import PAGES, PER_PAGE, QUEUES
from twisted_sendmail.admin.frame import action_form
from twisted_sendmail.admin.reasons import latest, meaning, standing
from twisted_sendmail.admin.shown import address, ago, ahead, count, foreign, size
from twisted_sendmail.queue import QueueAction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.web.template import Flattenable

    from twisted_sendmail.admin.filters import Filter
    from twisted_sendmail.admin.frame import Viewer
    from twisted_sendmail.queue import QueuedMessage

#: How each queue looks.
LOOKS = {"incoming": "good", "active": "good", "deferred": "warn", "hold": "hold", "corrupt": "bad"}
#: What can be done, and what it is called; those behind the line ask once more.
WORDS = {
    QueueAction.FLUSH: "Try now",
    QueueAction.HOLD: "Hold",
    QueueAction.RELEASE: "Release",
    QueueAction.REQUEUE: "Requeue",
    QueueAction.EXPIRE: "Return to sender…",
    QueueAction.DELETE: "Delete…",
}
#: Recipients named in a row.
_NAMED = 2


def messages_section(
    viewer: Viewer, wanted: Filter, messages: Sequence[QueuedMessage], *, more: bool
) -> Tag:
    """Filter, actions, table and pages.

    :param messages: those of the page.
    :param more: there are others behind them.
    """
    if not messages:
        what = "No message fits." if wanted.narrow or wanted.page > 1 else "The queue is empty."
        table: Flattenable = tags.p(what, class_="empty")
    elif viewer.may_act:
        table = action_form(viewer, "/act", _actions(wanted), _table(viewer, messages))
    else:
        table = _table(viewer, messages)
    return tags.section(
        tags.h2("Messages", id="messages"),
        _filters(wanted),
        table,
        _pages(wanted, len(messages), more=more),
        class_="sheet",
        **{"aria-labelledby": "messages"},
    )


def state(message: QueuedMessage) -> Tag:
    """Which queue it is in."""
    name = message.queue_name
    return tags.span(QUEUES[name], class_=f"state {LOOKS[name]}")


def why(message: QueuedMessage) -> Flattenable:
    """What keeps it: ours, and what was said last."""
    ours, last = standing(message), latest(message)
    said: list[Flattenable] = [ours, tags.br()] if ours and last else [ours or ""]
    if last is not None:
        words = meaning(last.status or "")
        # A reply brings its status along, as a rule.
        status = f"{last.status} " if last.status and last.status not in (last.reply or "") else ""
        said += [
            tags.b(words[:1].upper() + words[1:], ". ") if words else "",
            tags.span(foreign(status + (last.reply or "")), class_="quiet"),
        ]
    elif ours is None:
        said = [tags.span("Not tried yet.", class_="quiet")]
    return said


def _filters(wanted: Filter) -> Tag:
    options: list[Tag] = [_option("", "Any", wanted.queue)]
    options += [_option(name, words, wanted.queue) for name, words in QUEUES.items()]
    span = (
        tags.input(type="hidden", name="span", value=wanted.span) if wanted.span != "hour" else ""
    )
    return tags.form(
        span,
        tags.div(
            tags.label("State", for_="queue"),
            tags.select(options, name="queue", id="queue"),
            class_="field",
        ),
        _text("recipient", "Recipient", wanted.recipient),
        _text("sender", "Sender", wanted.sender),
        tags.button("Filter", type="submit"),
        tags.a("Show all", href="/", class_="button") if wanted.narrow else "",
        method="get",
        action="/",
        class_="filters",
        role="search",
        **{"aria-label": "Messages"},
    )


def _option(value: str, words: str, chosen: str) -> Tag:
    option = tags.option(words, value=value)
    return option(selected="selected") if value == chosen else option


def _text(name: str, words: str, value: str) -> Tag:
    return tags.div(
        tags.label(words, for_=name),
        tags.input(
            type="text",
            name=name,
            id=name,
            value=value,
            maxlength="320",
            placeholder="address, or a part of one",
            autocomplete="off",
            spellcheck="false",
        ),
        class_="field grow",
    )


def _actions(wanted: Filter) -> Tag:
    fields = [tags.input(type="hidden", name=n, value=v) for n, v in wanted.fields.items()]
    every = "all that fit the filter" if wanted.narrow else "all messages"
    return tags.div(
        fields,
        tags.input(type="hidden", name="back", value=wanted.link()),
        tags.fieldset(
            tags.legend("Do it to"),
            tags.label(
                tags.input(type="radio", name="which", value="ticked", checked="checked"),
                "those ticked",
            ),
            tags.label(tags.input(type="radio", name="which", value="matching"), every),
        ),
        buttons(),
        class_="actions",
        role="group",
        **{"aria-label": "Actions"},
    )


def buttons() -> Tag:
    """One for each action."""
    return tags.div(
        [
            tags.button(
                words,
                type="submit",
                name="action",
                value=action.value,
                class_="danger" if words.endswith("…") else "",
            )
            for action, words in WORDS.items()
        ],
        class_="bar",
    )


def _table(viewer: Viewer, messages: Sequence[QueuedMessage]) -> Tag:
    heads = ["Message", "State", "Why", "From", "To", "Size", "Arrived", "Next try"]
    head = [tags.th(text, scope="col", role="columnheader") for text in heads]
    if viewer.may_act:
        head.insert(0, tags.th("Tick", scope="col", role="columnheader"))
    # On a narrow screen rows become cards; the roles keep it a table for who cannot see it.
    return tags.table(
        tags.caption(f"{count(len(messages), 'message')}, the oldest first"),
        tags.thead(tags.tr(head, role="row"), role="rowgroup"),
        tags.tbody([_row(viewer, m) for m in messages], role="rowgroup"),
        role="table",
        class_="cards",
    )


def _row(viewer: Viewer, message: QueuedMessage) -> Tag:
    draft, now = message.draft, viewer.now
    name = message.id
    cells = [
        _cell("Message", tags.a(name, href=f"/message/{name}"), "id"),
        _cell("State", state(message)),
        _cell("Why", tags.div(why(message)), "why"),
        _cell("From", tags.div(address(draft.envelope.sender)), "who"),
        _cell("To", tags.div(_recipients(message)), "who"),
        _cell("Size", size(message.size), "number"),
        _cell("Arrived", ago(draft.arrived, now), "when"),
        _cell("Next try", _next_try(message, now), "when"),
    ]
    if viewer.may_act:
        tick = tags.input(
            type="checkbox", name="id", value=name, **{"aria-label": f"Message {name}"}
        )
        cells.insert(0, _cell("Tick", tick))
    return tags.tr(cells, role="row")


def _cell(label: str, content: Flattenable, kind: str = "") -> Tag:
    return tags.td(content, class_=kind, role="cell", **{"data-label": label})


def _next_try(message: QueuedMessage, now: float) -> Flattenable:
    if message.leased:
        return "under way"
    if message.held or message.aside is not None:
        return "–"
    return ahead(message.due, now)


def _recipients(message: QueuedMessage) -> list[Flattenable]:
    """Those who are still to get it; the others are on the message's own page."""
    waiting = message.pending or message.recipients
    shown: list[Flattenable] = []
    for recipient in waiting[:_NAMED]:
        shown += [tags.br() if shown else "", address(recipient.recipient.path)]
    if len(waiting) > _NAMED:
        shown += [tags.br(), tags.span(f"and {len(waiting) - _NAMED:,} more", class_="quiet")]
    return shown


def _pages(wanted: Filter, number: int, *, more: bool) -> Flattenable:
    if not more and wanted.page == 1:
        return ""
    first = (wanted.page - 1) * PER_PAGE
    where = f"{first + 1:,} to {first + number:,}" if number else "nothing here"
    last = more and wanted.page >= PAGES
    return tags.nav(
        tags.a("Older", href=wanted.link(page=wanted.page - 1), rel="prev", class_="button")
        if wanted.page > 1
        else tags.span(),
        tags.span(where, "; for those behind, narrow the filter" if last else "", class_="quiet"),
        tags.a("Newer", href=wanted.link(page=wanted.page + 1), rel="next", class_="button")
        if more and not last
        else tags.span(),
        class_="pages",
        **{"aria-label": "Pages"},
    )
