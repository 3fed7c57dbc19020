"""The pages of the queue: values in, HTML out.

A page is a template of ``templates/`` and a dict of values; :class:`TemplatePart` joins them.
``site`` decides which pages a request may see.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from attrs import evolve, field, frozen
from twisted.python.failure import Failure
from twisted.web.template import Element, TagLoader, XMLString, flattenString, tags

from twisted_sendmail.admin.chart import Chart, count_axis, seconds_axis
from twisted_sendmail.admin.format import (
    address,
    ago,
    ahead,
    clock,
    count,
    duration,
    foreign,
    last_reply,
    local_cause,
    next_attempt,
    size,
    status_words,
)
from twisted_sendmail.admin.history import COARSE_SECONDS, FINE_SECONDS, oldest_age, waiting
from twisted_sendmail.queue import QueueAction, RecipientState, Selection
from twisted_sendmail.smtp import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from twisted.web.iweb import IRequest, ITemplateLoader
    from twisted.web.template import Flattenable, Tag

    from twisted_sendmail.admin.history import QueueSample
    from twisted_sendmail.admin.metrics import FailureRecord
    from twisted_sendmail.queue import QueuedMessage, QueuedRecipient, QueueTotals, RelayNode
    from twisted_sendmail.relay import RouteStats

#: Messages on a page, and pages; beyond that, the filter has to be narrower.
PER_PAGE, MAX_PAGES = 50, 40
#: Characters of an address in a filter.
MAX_FILTER_LENGTH = 320
#: Causes of delay on the overview.
MAX_CAUSES = 8
#: Recipients named in a row of the overview, and on the page of a message.
ROW_RECIPIENTS, PAGE_RECIPIENTS = 2, 500
#: Seconds that the charts go back.
SPAN_SECONDS = {"hour": 3600.0, "days": 172800.0}
#: Label and CSS class of each queue.
QUEUES = {
    "incoming": ("New", "good"),
    "active": ("Being delivered", "good"),
    "deferred": ("Deferred", "warn"),
    "hold": ("On hold", "hold"),
    "undeliverable": ("Undeliverable", "bad"),
    "corrupt": ("Damaged", "bad"),
}
_RECIPIENT_STATES = {
    RecipientState.PENDING: ("Waits", "warn"),
    RecipientState.DELIVERED: ("Delivered", "good"),
    RecipientState.FAILED: ("Failed", "bad"),
}
_ACTIONS = {
    QueueAction.FLUSH: "Try now",
    QueueAction.HOLD: "Hold",
    QueueAction.RELEASE: "Release",
    QueueAction.REQUEUE: "Requeue",
    QueueAction.EXPIRE: "Return to sender…",
    QueueAction.DELETE: "Delete…",
}
#: Actions that ask for confirmation: the verb, and the consequence.
CONFIRMED_ACTIONS = {
    QueueAction.DELETE: (
        "Delete",
        "Removed from the queue without a report to the sender. This cannot be undone.",
    ),
    QueueAction.EXPIRE: (
        "Return to sender",
        "The sender receives a failure report, and it is not tried again. This cannot be undone.",
    ),
}
#: The style sheet, a part of each page.
STYLE = files(__package__).joinpath("style.css").read_text("utf-8").strip()
# Replies that differ only in addresses, literals and words with a digit are one cause.
_PARTICULARS = re.compile(r"\S+@\S+|\b(?=\w*\d)\w{5,}\b|\[[0-9A-Fa-f:.]+\]")


@frozen
class Viewer:
    """The person a page is for, and the moment."""

    #: The relay's name.
    name: str
    now: float
    #: There is a token, so it is possible to sign in.
    can_sign_in: bool = False
    #: Every form of a signed-in viewer carries this; None: not signed in.
    form_secret: str | None = field(default=None, repr=False)
    #: The result of the last action, shown once.
    notice: str | None = None


@frozen
class QueueFilter:
    """The part of the queue that a viewer asked for, read from a query and written into links.

    Only valid fields are taken, so a link made from a filter contains nothing else.
    """

    queue: str = ""
    recipient: str = ""
    sender: str = ""
    page: int = 1
    #: ``hour`` or ``days``: the time that the charts show.
    span: str = "hour"

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> QueueFilter:
        """Read the fields of a query or form; an invalid one counts as absent."""
        queue, page = fields.get("queue", ""), fields.get("page", "")
        is_number = page.isascii() and page.isdigit() and len(page) < 5
        return cls(
            queue if queue in QUEUES else "",
            _filter_text(fields.get("recipient", "")),
            _filter_text(fields.get("sender", "")),
            max(1, min(int(page), MAX_PAGES)) if is_number else 1,
            "days" if fields.get("span") == "days" else "hour",
        )

    @property
    def narrow(self) -> bool:
        """True if the filter can leave a message out."""
        return bool(self.queue or self.recipient or self.sender)

    @property
    def fields(self) -> dict[str, str]:
        """The fields that :meth:`from_fields` reads, without those that have their default."""
        page = str(self.page) if self.page > 1 else ""
        span = self.span if self.span != "hour" else ""
        given = {
            "queue": self.queue,
            "recipient": self.recipient,
            "sender": self.sender,
            "page": page,
            "span": span,
        }
        return {name: value for name, value in given.items() if value}

    def link(self, **changes: str | int) -> str:
        """Return the address of the overview with this filter and *changes*."""
        fields = evolve(self, **changes).fields  # type: ignore[arg-type]  # fields of this class
        return f"/?{urlencode(fields)}" if fields else "/"

    def selection(self, limit: int | None, offset: int = 0) -> Selection:
        """Return the selection for the queue."""
        return Selection(
            queue=self.queue or None,
            recipient=self.recipient or None,
            sender="" if self.sender == "<>" else self.sender or None,
            limit=limit,
            offset=offset,
        )


def _filter_text(text: str) -> str:
    return text.strip()[:MAX_FILTER_LENGTH] if text.isprintable() else ""


@frozen
class DelayCause:
    """A reply that keeps mail in the queue, and how much mail it keeps."""

    #: Enhanced status code, ``""`` for none.
    status: str
    #: One of the replies, as it was received.
    reply: str
    recipients: int
    messages: int
    #: The server that sent it last.
    server: str | None
    #: Arrival of the oldest message concerned.
    oldest: float


def delay_causes(messages: Iterable[QueuedMessage]) -> list[DelayCause]:
    """Group the last replies to *messages*, the most frequent first."""
    found: dict[tuple[str, str], DelayCause] = {}
    for message in messages:
        counted: Counter[tuple[str, str]] = Counter()
        latest: dict[tuple[str, str], QueuedRecipient] = {}
        for recipient in message.pending:
            if recipient.reply is not None:
                key = (recipient.status or "", _PARTICULARS.sub("*", recipient.reply))
                counted[key] += 1
                latest[key] = recipient
        for key, number in counted.items():
            last, arrived = latest[key], message.info.arrived
            before = found.get(key) or DelayCause(key[0], last.reply or "", 0, 0, None, arrived)
            found[key] = evolve(
                before,
                recipients=before.recipients + number,
                messages=before.messages + 1,
                server=last.relay or before.server,
                oldest=min(arrived, before.oldest),
            )
    return sorted(found.values(), key=lambda cause: (-cause.recipients, cause.oldest))


@frozen
class Overview:
    """The contents of the overview page."""

    totals: QueueTotals
    samples: Sequence[QueueSample]
    filter: QueueFilter
    #: The messages of this page.
    messages: Sequence[QueuedMessage]
    #: Number of messages that match the filter.
    matching: int
    causes: Sequence[DelayCause]
    #: Number of deferred messages that ``causes`` covers; None: all.
    examined: int | None
    failures: Sequence[FailureRecord]
    #: Recipients since the start, by outcome.
    counts: Mapping[str, int]
    routes: Sequence[RouteStats]
    #: The relays that share the queue; empty if it is the queue of one relay alone.
    relays: Sequence[RelayNode] = ()
    #: Why the relay is not healthy, in a line.
    unhealthy: str | None = None

    @property
    def more(self) -> bool:
        """There is a next page."""
        return self.matching > self.filter.page * PER_PAGE


def overview_page(viewer: Viewer, overview: Overview) -> Flattenable:
    """Return the page of the whole queue."""
    wanted, queues, counts = overview.filter, overview.totals.queues, overview.counts
    begin = viewer.now - SPAN_SECONDS[wanted.span]
    gap = 3.5 * (FINE_SECONDS if wanted.span == "hour" else COARSE_SECONDS)
    depths = [(sample.at, float(sample.depth)) for sample in overview.samples]
    ages = [(sample.at, sample.age) for sample in overview.samples]
    charts = [
        Chart("depth", "Messages that wait", depths, begin, viewer.now, gap, count_axis, "{:,.0f}".format),
        Chart("age", "Age of the oldest", ages, begin, viewer.now, gap, seconds_axis, duration),
    ]  # fmt: skip
    numbers = {
        "New or under way": f"{queues.get('incoming', 0) + queues.get('active', 0):,}",
        "Deferred": f"{queues.get('deferred', 0):,}",
        "On hold": f"{queues.get('hold', 0):,}",
        "Set aside": f"{queues.get('undeliverable', 0) + queues.get('corrupt', 0):,}",
        "Content": size(overview.totals.octets),
        "Delivered since start": f"{counts.get('delivered', 0):,}",
        "Returned since start": f"{counts.get('bounced', 0) + counts.get('expired', 0):,}",
    }
    spans = {"hour": "Last hour", "days": "Two days"}
    values = {
        "secret": viewer.form_secret,
        **_headline(viewer, overview),
        "numbers": [{"label": label, "value": value} for label, value in numbers.items()],
        "spans": [
            {"link": wanted.link(span=span), "label": label, **_choice(span == wanted.span)}
            for span, label in spans.items()
        ],
        "charts": [chart_part(chart) for chart in charts],
        "causes": [_cause(cause, viewer.now) for cause in overview.causes[:MAX_CAUSES]],
        "no_causes": not overview.causes,
        "examined": f"{overview.examined:,}" if overview.examined is not None else None,
        "routes": [_route(route, viewer.now) for route in overview.routes],
        "no_routes": not overview.routes,
        "relays": [_relay(relay, viewer.now) for relay in overview.relays],
        "shared": bool(overview.relays),
        **_messages(viewer, overview),
        "failures": [_failure(failure, viewer.now) for failure in overview.failures],
        "no_failures": not overview.failures,
    }
    return _page(viewer, "Mail queue", _OVERVIEW, values)


def chart_part(chart: Chart) -> TemplatePart:
    """Return one chart of the overview."""
    return TemplatePart(_CHART, chart.values())


def _choice(selected: bool) -> dict[str, bool]:  # noqa: FBT001 - of this module only
    return {"selected": selected, "other": not selected}


def _headline(viewer: Viewer, overview: Overview) -> dict[str, Any]:
    number = waiting(overview.totals)
    if number:
        headline = f"{count(number, 'message waits', 'messages wait')} to go out"
        lead = f"The oldest has waited {duration(oldest_age(overview.totals, viewer.now))}. "
    else:
        headline, lead = "Nothing waits", "All mail that was accepted has gone out. "
    refused = [route for route in overview.routes if route.locked]
    down = [route for route in overview.routes if not route.up]
    alarm: dict[str, Any] | None = None
    if overview.unhealthy is not None:
        alarm = {"title": "The relay is not healthy", "text": foreign(overview.unhealthy)}
    elif refused:
        text = (
            "Its server refused our password. Mail is kept, and nothing is bounced for it. "
            "Correct the password and reload the relay."
        )
        alarm = {"title": f"{_route_names(refused)} cannot sign in", "text": text}
    elif down:
        lead += f"{_route_names(down)} is down, and is tried again automatically. "
    return {"headline": headline, "lead": lead, "alarm": alarm}


def _route_names(routes: Sequence[RouteStats]) -> str:
    return (
        f"“{printable(routes[0].name, 60)}”" if len(routes) == 1 else f"One of {len(routes)} routes"
    )


def _cause(cause: DelayCause, now: float) -> dict[str, Any]:
    server = [foreign(cause.server), ", "] if cause.server else []
    number = count(cause.messages, "message")
    return {
        "title": _capital(status_words(cause.status)) or "Other",
        "status": foreign(cause.status) if cause.status else None,
        "recipients": count(cause.recipients, "recipient"),
        "reply": foreign(cause.reply),
        "facts": [*server, number, ", the oldest from ", ago(cause.oldest, now)],
    }


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _route(route: RouteStats, now: float) -> dict[str, Any]:
    state: list[Flattenable]
    if route.locked:
        look, state = "bad", ["Password refused"]
    elif not route.up:
        look, state = "warn", ["Down, next try ", ahead(now + route.wait, now)]
    else:
        look, state = "good", ["Up"]
    under_way = f", {count(route.under_way, 'message')} under way" if route.under_way else ""
    return {
        "name": foreign(route.name),
        "look": look,
        "state": state,
        "servers": [foreign(", ".join(route.servers)), under_way],
        "reason": foreign(route.reason) if route.reason else None,
    }


def _relay(relay: RelayNode, now: float) -> dict[str, Any]:
    look, state = ("good", "Runs") if relay.alive else ("bad", "No sign of life")
    under_way = [count(relay.leased, "message"), " being delivered, started "]
    return {
        "name": foreign(relay.name),
        "look": look,
        "state": state,
        "facts": [*under_way, ago(relay.started, now)],
    }


def _failure(failure: FailureRecord, now: float) -> dict[str, Any]:
    return {
        "kind": failure.kind.value,
        "recipient": foreign(failure.recipient) if failure.recipient is not None else None,
        "id": foreign(failure.id) if failure.id else None,
        "time": ago(failure.at, now),
        "text": foreign(failure.text),
        "place": foreign(failure.place) if failure.place else None,
    }


def _messages(viewer: Viewer, overview: Overview) -> dict[str, Any]:
    wanted, messages = overview.filter, overview.messages
    empty = "No message matches." if wanted.narrow or wanted.page > 1 else "The queue is empty."
    first, last_page = (wanted.page - 1) * PER_PAGE, wanted.page >= MAX_PAGES
    shown = f"{first + 1:,}–{first + len(messages):,} of {overview.matching:,}"
    if not messages:
        shown = "no messages here"
    if overview.more and last_page:
        shown += "; narrow the filter to see the others"
    down = waits(overview.routes, viewer.now)
    queues = {"": "Any", **{name: label for name, (label, _) in QUEUES.items()}}
    return {
        "span": wanted.fields.get("span"),
        "queues": [
            {"value": name, "label": label, **_choice(name == wanted.queue)}
            for name, label in queues.items()
        ],
        "addresses": [
            {"name": "recipient", "label": "Recipient", "value": wanted.recipient},
            {"name": "sender", "label": "Sender", "value": wanted.sender},
        ],
        "filtered": wanted.narrow,
        "table": bool(messages),
        "no_table": None if messages else empty,
        "filter_fields": [{"name": n, "value": v} for n, v in wanted.fields.items()],
        "link": wanted.link(),
        "matching": "all that match the filter" if wanted.narrow else "all messages",
        "actions": _actions(),
        "caption": f"{shown}, the oldest first",
        "messages": [_row(message, down, viewer.now) for message in messages],
        "pages": overview.more or wanted.page > 1,
        "shown": shown,
        "older": wanted.link(page=wanted.page - 1) if wanted.page > 1 else None,
        "newer": wanted.link(page=wanted.page + 1) if overview.more and not last_page else None,
    }


def _actions() -> list[dict[str, Any]]:
    return [
        {
            "value": action.value,
            "label": label,
            "look": "danger" if action in CONFIRMED_ACTIONS else "",
        }
        for action, label in _ACTIONS.items()
    ]


def waits(routes: Iterable[RouteStats], now: float) -> dict[str, float]:
    """Return the time of the next attempt of each route that is down."""
    return {route.name: now + route.wait for route in routes if not route.up}


def _row(message: QueuedMessage, down: Mapping[str, float], now: float) -> dict[str, Any]:
    waiting = message.pending or message.recipients
    recipients: list[Flattenable] = []
    for recipient in waiting[:ROW_RECIPIENTS]:
        recipients += [tags.br() if recipients else "", address(recipient.recipient.path)]
    hidden = len(waiting) - ROW_RECIPIENTS
    if hidden > 0:
        recipients += [tags.br(), tags.span(f"and {hidden:,} more", class_="quiet")]
    at = next_attempt(message, down)
    never: Flattenable = "under way" if message.leased else "–"
    if message.owner is not None:
        never = ["at ", foreign(message.owner)]
    return {
        "id": message.id,
        "state": _queue_state(message),
        "why": _why(message, down, now),
        "sender": address(message.info.envelope.sender),
        "recipients": recipients,
        "size": size(message.size),
        "arrived": ago(message.info.arrived, now),
        "next_attempt": never if at is None else ahead(at, now),
    }


def _queue_state(message: QueuedMessage) -> Tag:
    label, look = QUEUES[message.queue_name]
    return tags.span(label, class_=f"state {look}")


def _why(message: QueuedMessage, down: Mapping[str, float], now: float) -> list[Flattenable]:
    cause, last = local_cause(message, down, now), last_reply(message)
    if last is None:
        return [cause or tags.span("Not tried yet.", class_="quiet")]
    # Most replies contain their status.
    status = f"{last.status} " if last.status and last.status not in (last.reply or "") else ""
    return [
        [cause, tags.br()] if cause else "",
        _status(last.status),
        tags.span(foreign(status + (last.reply or "")), class_="quiet"),
    ]


def _status(status: str | None) -> Flattenable:
    words = status_words(status or "")
    return tags.b(_capital(words), ". ") if words else ""


def message_page(
    viewer: Viewer,
    message: QueuedMessage,
    header: bytes | None,
    routes: Sequence[RouteStats] = (),
) -> Flattenable:
    """Return the page of one message.

    :param routes: the routes of the relay.
    :param header: the beginning of the content; None where the viewer may not see it.
    """
    info, now = message.info, viewer.now
    down = waits(routes, now)
    at = next_attempt(message, down)
    facts: dict[str, Flattenable] = {
        "From": address(info.envelope.sender),
        "Message-ID": foreign(info.message_id or "–"),
        "Received from": foreign(info.origin or "–"),
        "Route": foreign(info.route),
        "Size": size(message.size),
        "Arrived": ago(info.arrived, now),
        "Attempts": f"{message.attempts:,}",
    }
    if message.owner is not None:
        facts["Being delivered by"] = foreign(message.owner)
    if message.pending and at is not None:
        facts["Next attempt"] = ahead(at, now)
    if message.interrupted:
        number = count(message.interrupted, "attempt")
        text = f"{number} ended without a result: a copy may have been delivered"
        facts["In doubt"] = tags.span(text, class_="warn")
    if message.warned:
        facts["Sender"] = "has a report that it is delayed"
    hidden = len(message.recipients) - PAGE_RECIPIENTS
    values = {
        "secret": viewer.form_secret,
        "id": message.id,
        "state": _queue_state(message),
        "cause": local_cause(message, down, now),
        "facts": [{"label": label, "value": value} for label, value in facts.items()],
        "actions": _actions(),
        "count": count(len(message.recipients), "recipient"),
        "recipients": [
            _recipient(message, recipient, now)
            for recipient in message.recipients[:PAGE_RECIPIENTS]
        ],
        "hidden": f"{hidden:,}" if hidden > 0 else None,
        "header": None if header is None else {"lines": _header_lines(header)},
    }
    return _page(viewer, f"Message {message.id}", _MESSAGE, values)


def _recipient(message: QueuedMessage, recipient: QueuedRecipient, now: float) -> dict[str, Any]:
    state, look = _RECIPIENT_STATES[recipient.state]
    waits = recipient.state is RecipientState.PENDING and not (message.held or message.aside)
    reply = recipient.reply
    return {
        "address": address(recipient.recipient.path),
        "state": state,
        "look": look,
        "reply": "–" if reply is None else [_status(recipient.status), foreign(reply)],
        "server": foreign(recipient.relay or "–"),
        "attempts": str(recipient.attempts),
        "last_attempt": ago(recipient.tried, now) if recipient.tried is not None else "–",
        "next_attempt": ahead(recipient.due, now) if waits else "–",
    }


def _header_lines(header: bytes) -> list[Flattenable]:
    # Each line by itself, so that none changes the direction of another.
    head = header.partition(b"\r\n\r\n")[0]
    return [[foreign(line, 1000), "\n"] for line in head.split(b"\r\n")]


def sign_in_page(viewer: Viewer, problem: str | None = None) -> Flattenable:
    """Return the form for the token."""
    invalid = "false" if problem is None else "true"
    values = {"problem": foreign(problem) if problem else None, "invalid": invalid}
    return _page(viewer, "Sign in", _SIGN_IN, values)


def error_page(viewer: Viewer, headline: str, text: str) -> Flattenable:
    """Return a page with an error; *text* may be foreign."""
    values = {"headline": headline, "text": foreign(text, 500)}
    return _page(viewer, headline, _ERROR, values)


def confirmation_page(
    viewer: Viewer,
    action: QueueAction,
    ids: Sequence[str],
    back: str,
    *,
    first: Sequence[QueuedMessage],
) -> Flattenable:
    """Return a page for confirming that the messages *ids* are to be deleted.

    :param back: the page to return to.
    :param first: the messages to name.
    """
    verb, consequence = CONFIRMED_ACTIONS[action]
    begin, _, rest = verb.partition(" ")
    headline = f"{begin} {count(len(ids), 'message')} {rest}".rstrip() + "?"
    more = len(ids) - len(first)
    values = {
        "secret": viewer.form_secret,
        "headline": headline,
        "consequence": consequence,
        "messages": [
            {
                "id": message.id,
                "sender": address(message.info.envelope.sender),
                "recipient": address((message.pending or message.recipients)[0].recipient.path),
            }
            for message in first
        ],
        "more": f"{more:,}" if more > 0 else None,
        "ids": [{"id": id_} for id_ in ids],
        "back": back,
        "action": action.value,
        "label": verb,
    }
    return _page(viewer, headline, _CONFIRMATION, values)


def _page(
    viewer: Viewer, title: str, template: ITemplateLoader, values: Mapping[str, Any]
) -> Flattenable:
    signed_in = viewer.form_secret is not None
    frame = {
        "title": printable(f"{title} – {viewer.name}"),
        "style": STYLE,
        "relay": foreign(viewer.name),
        "secret": viewer.form_secret,
        "can_sign_in": viewer.can_sign_in and not signed_in,
        "read_only": not viewer.can_sign_in and not signed_in,
        "notice": foreign(viewer.notice) if viewer.notice else None,
        "content": TemplatePart(template, values),
        "now": clock(viewer.now),
    }
    return TemplatePart(_FRAME, frame)


def to_html(page: Flattenable) -> bytes:
    """Write a page; blocks for as long as that takes."""
    results: list[bytes | Failure] = []
    # No part of a page is a Deferred, so the result is there at once.
    _ = flattenString(None, page).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return b"<!DOCTYPE html>\n" + result


class TemplatePart(Element):
    """A template, or an element of one, with its values.

    ``<t:slot name="x"/>`` is replaced by the value *x*. The value *x* decides about an element with
    ``t:render="x"``: a false value removes the element, a mapping is added to the values
    inside the element, a list of mappings repeats the element, anything else keeps it.

    All text is escaped when the part is written.
    """

    def __init__(self, template: ITemplateLoader, values: Mapping[str, Any]) -> None:
        super().__init__(template)
        self._values = values

    def render(self, request: IRequest | None) -> Flattenable:
        """See ``IRenderable``."""
        return tags.transparent(super().render(request)).fillSlots(**self._values)

    def lookupRenderMethod(self, name: str) -> Any:  # noqa: N802 - Twisted's
        """See ``IRenderable``."""
        value = self._values[name]

        def render(request: IRequest | None, tag: Tag) -> Flattenable:
            if not value:
                return ""
            if isinstance(value, dict):
                return self._inside(tag, value)
            if isinstance(value, list) and isinstance(value[0], dict):
                return [self._inside(tag, each) for each in value]
            return tag

        return render

    def _inside(self, tag: Tag, values: dict[str, Any]) -> TemplatePart:
        return TemplatePart(TagLoader(tag), {**self._values, **values})


def _template(name: str) -> XMLString:
    """Read a template without its comments and its line breaks beside elements."""
    text = files(__package__).joinpath("templates", name).read_text("utf-8")
    noise = r"<!--.*?-->|(?<=>)\s*\n\s*|\s*\n\s*(?=<)"
    return XMLString(re.sub(noise, "", text, flags=re.DOTALL))


_FRAME = _template("page.xml")
_OVERVIEW = _template("overview.xml")
_CHART = _template("chart.xml")
_MESSAGE = _template("message.xml")
_SIGN_IN = _template("sign_in.xml")
_ERROR = _template("error.xml")
_CONFIRMATION = _template("confirmation.xml")
