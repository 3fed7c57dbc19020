"""The queue page: how it stands, in a sentence, in numbers, as a curve; what waits and why.

Pure: values in, tags out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.web.template import Tag, tags

from twisted_sendmail.admin.chart import Curve, counting, lasting, panel
from twisted_sendmail.admin.frame import action_form, document
from twisted_sendmail.admin.history import COARSE, FINE, age, waiting
from twisted_sendmail.admin.queue_table import messages_section
from twisted_sendmail.admin.reasons import meaning
from twisted_sendmail.admin.shown import ago, ahead, count, duration, foreign, size
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.web.template import Flattenable

    from twisted_sendmail.admin.filters import Filter
    from twisted_sendmail.admin.frame import Viewer
    from twisted_sendmail.admin.history import Sample
    from twisted_sendmail.admin.ledger import Counts, Failed
    from twisted_sendmail.admin.reasons import Reason
    from twisted_sendmail.admin.watched import RouteState
    from twisted_sendmail.queue import QueuedMessage, QueueTotals

#: Reasons shown.
_REASONS = 8
#: Seconds the chart goes back.
_SPANS = {"hour": 3600.0, "days": 172800.0}


@dataclass(frozen=True)
class Overview:
    """All that the page tells."""

    totals: QueueTotals
    samples: Sequence[Sample]
    wanted: Filter
    messages: Sequence[QueuedMessage]
    #: There are messages behind those.
    more: bool
    reasons: Sequence[Reason]
    #: Only so many of the deferred messages were asked why; None: all of them.
    asked: int | None
    failures: Sequence[Failed]
    counts: Counts
    routes: Sequence[RouteState]
    #: Why the relay is not well, in a line; None: it is.
    unwell: str | None = None


def overview_page(viewer: Viewer, facts: Overview) -> Tag:
    """The whole page."""
    return document(
        viewer,
        "Mail queue",
        _head(viewer, facts),
        _tiles(viewer, facts),
        _chart(viewer, facts),
        tags.div(_reasons(viewer, facts), _routes(viewer, facts), class_="two"),
        messages_section(viewer, facts.wanted, facts.messages, more=facts.more),
        _failures(viewer, facts),
    )


def _head(viewer: Viewer, facts: Overview) -> list[Flattenable]:
    number = waiting(facts.totals)
    if number:
        verb = "waits" if number == 1 else "wait"
        title = f"{count(number, 'message')} {verb} to go out"
        lead = f"The oldest has waited {duration(age(facts.totals, viewer.now))}. "
    else:
        title, lead = "Nothing waits", "What came in has gone out. "
    down = [route for route in facts.routes if not route.up]
    refused = [route for route in down if route.auth_refused]
    trouble: Flattenable = ""
    if facts.unwell is not None:
        trouble = _alarm("The relay is not well", tags.p(foreign(facts.unwell)))
    elif refused:
        said = tags.p(
            "Its server refused our password. Mail is kept, and nothing is bounced for it. Set the password right "
            "and reload the relay."
        )
        trouble = _alarm(f"{_named(refused)} cannot sign in", said)
    elif down:
        lead += f"{_named(down)} is down, and tried again by itself. "
    return [tags.h1(title), tags.p(lead, class_="lead"), trouble]


def _alarm(title: str, said: Tag) -> Tag:
    return tags.div(tags.p(tags.b(title)), said, class_="notice bad", role="alert")


def _named(routes: Sequence[RouteState]) -> str:
    return (
        f"“{printable(routes[0].name, 60)}”"
        if len(routes) == 1
        else f"One of {len(routes)} ways out"
    )


def _tiles(viewer: Viewer, facts: Overview) -> Tag:
    queues, counts = facts.totals.queues, facts.counts
    tiles: list[tuple[str, str]] = [
        ("New or under way", f"{queues.get('incoming', 0) + queues.get('active', 0):,}"),
        ("Deferred", f"{queues.get('deferred', 0):,}"),
        ("On hold", f"{queues.get('hold', 0):,}"),
        ("Set aside", f"{queues.get('corrupt', 0):,}"),
        ("Content", size(facts.totals.octets)),
        ("Delivered since start", f"{counts.delivered:,}"),
        ("Returned since start", f"{counts.bounced + counts.expired:,}"),
    ]
    return tags.dl(
        [tags.div(tags.dt(label), tags.dd(value)) for label, value in tiles],
        class_="sheet tiles",
        **{"aria-label": "In numbers"},
    )


def _chart(viewer: Viewer, facts: Overview) -> Tag:
    span = facts.wanted.span
    begin, end = viewer.now - _SPANS[span], viewer.now
    gap = 3.5 * (FINE if span == "hour" else COARSE)
    depth = Curve(
        "depth",
        "Messages that wait",
        [(s.at, float(s.depth)) for s in facts.samples],
        begin,
        end,
        gap,
        counting,
        lambda value: f"{value:,.0f}",
    )
    oldest = Curve(
        "age",
        "Age of the oldest",
        [(s.at, s.age) for s in facts.samples],
        begin,
        end,
        gap,
        lasting,
        duration,
    )
    choices = [("hour", "Last hour"), ("days", "Two days")]
    return tags.section(
        tags.div(
            tags.h2("Over time", id="time"),
            tags.nav(
                [
                    _choice(facts.wanted.link(span=name), words, name == span)
                    for name, words in choices
                ],
                class_="choice",
                **{"aria-label": "Time shown"},
            ),
            class_="top",
        ),
        tags.div(panel(depth), panel(oldest), class_="panels"),
        class_="sheet",
        **{"aria-labelledby": "time"},
    )


def _choice(link: str, words: str, chosen: bool) -> Tag:  # noqa: FBT001 - of this module only
    choice = tags.a(words, href=link)
    return choice(**{"aria-current": "true"}) if chosen else choice


def _reasons(viewer: Viewer, facts: Overview) -> Tag:
    if facts.reasons:
        content: Flattenable = tags.ul(
            [_reason(reason, viewer.now) for reason in facts.reasons[:_REASONS]], class_="plain"
        )
    else:
        content = tags.p("Nothing is deferred.", class_="empty")
    note: Flattenable = ""
    if facts.asked is not None:
        note = tags.p(f"Of the {facts.asked:,} oldest deferred messages.", class_="quiet")
    return tags.section(
        tags.h2("Why mail waits", id="why"),
        content,
        note,
        class_="sheet",
        **{"aria-labelledby": "why"},
    )


def _reason(reason: Reason, now: float) -> Tag:
    words = meaning(reason.status)
    title = words[:1].upper() + words[1:] if words else "Other"
    return tags.li(
        tags.div(
            tags.h3(
                title,
                tags.span(" ", foreign(reason.status), class_="quiet") if reason.status else "",
            ),
            tags.span(count(reason.recipients, "recipient"), class_="number"),
            class_="top",
        ),
        foreign(reason.reply),
        tags.div(
            [foreign(reason.relay), ", "] if reason.relay else "",
            count(reason.messages, "message"),
            ", the oldest from ",
            ago(reason.oldest, now),
            class_="quiet",
        ),
    )


def _routes(viewer: Viewer, facts: Overview) -> Tag:
    flush: Flattenable = ""
    if viewer.may_act:
        flush = action_form(
            viewer, "/flush", tags.button("Try everything now", type="submit"), class_="bar"
        )
    return tags.section(
        tags.div(tags.h2("Ways out", id="routes"), flush, class_="top"),
        tags.ul([_route(route, viewer.now) for route in facts.routes], class_="plain")
        if facts.routes
        else tags.p("There is none.", class_="empty"),
        class_="sheet",
        **{"aria-labelledby": "routes"},
    )


def _route(route: RouteState, now: float) -> Tag:
    if route.auth_refused:
        look: list[Flattenable] = [tags.span("Password refused", class_="state bad")]
    elif route.until is not None:
        look = [tags.span("Down, next try ", ahead(route.until, now), class_="state warn")]
    else:
        look = [tags.span("Up", class_="state good")]
    under_way = f", {count(route.under_way, 'message')} under way" if route.under_way else ""
    return tags.li(
        tags.div(tags.h3(foreign(route.name)), look, class_="top"),
        tags.div(foreign(", ".join(route.servers)), under_way, class_="quiet"),
        tags.div(foreign(route.reason)) if route.reason else "",
    )


def _failures(viewer: Viewer, facts: Overview) -> Tag:
    if facts.failures:
        content: Flattenable = tags.ul(
            [_failed(failed, viewer.now) for failed in facts.failures], class_="plain"
        )
    else:
        content = tags.p("None since the relay was started.", class_="empty")
    return tags.section(
        tags.h2("Last failures", id="failures"),
        content,
        class_="sheet",
        **{"aria-labelledby": "failures"},
    )


def _failed(failed: Failed, now: float) -> Tag:
    what: list[Flattenable] = [tags.span(failed.kind.value, class_="state bad"), " "]
    if failed.recipient is not None:
        what += [tags.b(foreign(failed.recipient)), " "]
    return tags.li(
        tags.div(
            tags.span(what),
            tags.span(
                [tags.span(foreign(failed.id), class_="id"), " · "] if failed.id else "",
                ago(failed.at, now),
                class_="quiet",
            ),
            class_="top",
        ),
        foreign(failed.said),
        tags.div(foreign(failed.where), class_="quiet") if failed.where else "",
    )
