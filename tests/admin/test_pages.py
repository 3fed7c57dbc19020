"""Pages: foreign text is inert wherever it stands."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.admin.parsed_html import Node, render
from tests.admin.queue_contents import HOSTILE, route
from tests.names import (
    MessageInfo,
    QueueAction,
    QueuedMessage,
    QueuedRecipient,
    QueueTotals,
    RelayNode,
)
from twisted_sendmail import Envelope, Recipient
from twisted_sendmail.admin.history import QueueSample
from twisted_sendmail.admin.metrics import FailureKind, FailureRecord
from twisted_sendmail.admin.pages import (
    STYLE,
    Overview,
    QueueFilter,
    Viewer,
    confirmation_page,
    delay_causes,
    error_page,
    message_page,
    overview_page,
    sign_in_page,
)

NOW = 1_700_000_000.0
# What may be in a page; nothing of it loads, runs or embeds anything.
ELEMENTS = {
    "page",
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "body",
    "a",
    "header",
    "p",
    "span",
    "bdi",
    "main",
    "div",
    "h1",
    "h2",
    "h3",
    "dl",
    "dt",
    "dd",
    "section",
    "nav",
    "figure",
    "figcaption",
    "b",
    "svg",
    "line",
    "path",
    "rect",
    "details",
    "summary",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "ul",
    "li",
    "form",
    "label",
    "select",
    "option",
    "input",
    "button",
    "footer",
    "br",
    "wbr",
    "time",
    "code",
    "pre",
    "fieldset",
    "legend",
}

foreign = st.one_of(st.text(max_size=60), st.just(HOSTILE), st.just("]]>--></style></script>"))


def viewer(**facts: Any) -> Viewer:
    return Viewer(**{"name": "mail.example.org", "now": NOW, **facts})


def message(text: str, number: int = 0, **facts: Any) -> QueuedMessage:
    recipient = QueuedRecipient(
        0,
        Recipient("bob@example.net"),
        tried=NOW - 9,
        reply=text,
        status=text,
        relay=text,
        attempts=1,
    )
    info = MessageInfo(
        f"0123456789A{number}",
        Envelope("alice@example.org", [recipient.recipient]),
        NOW - 100,
        text,
        text,
        message_id=text,
    )
    return QueuedMessage(info, 4000, (recipient,), **{"attempts": 1, "owner": text, **facts})


def overview(text: str = "", **facts: Any) -> Overview:
    messages = [message(text)]
    given = {
        "totals": QueueTotals({"deferred": 1}, {text: 1}, NOW - 100, 4000),
        "samples": [QueueSample(NOW - 10, 1, 90.0)],
        "filter": QueueFilter.from_fields(
            {"recipient": text, "sender": text, "queue": text, "page": text}
        ),
        "messages": messages,
        "matching": 10_000,
        "causes": delay_causes(messages),
        "examined": None,
        "failures": [FailureRecord(NOW - 5, FailureKind.BOUNCED, text, text, text, text)],
        "counts": {},
        "routes": [route(text, (text,), wait=5, reason=text)],
        "relays": [RelayNode(text, NOW - 60)],
        "unhealthy": text,
    }
    return Overview(**{**given, **facts})


def pages(text: str) -> list[Node]:
    """All pages, with *text* wherever something foreign stands."""
    signed_in = viewer(name=text, form_secret="s" * 43, can_sign_in=True, notice=text)
    return [
        render(page)
        for page in (
            overview_page(signed_in, overview(text)),
            overview_page(viewer(name=text), overview(text, messages=[], routes=[])),
            message_page(signed_in, message(text), text.encode("utf-8", "surrogatepass")),
            sign_in_page(viewer(can_sign_in=True), text),
            error_page(viewer(), "Trouble", text),
            confirmation_page(
                signed_in, QueueAction.DELETE, ["0123456789A0"], "/", first=[message(text)]
            ),
        )
    ]


# Each is six whole pages.
@settings(max_examples=30)
@given(foreign)
def test_foreign_text_becomes_no_element_and_no_active_attribute(text: str) -> None:
    for page in pages(text.replace("\ud800", "")):
        assert page.names() <= ELEMENTS
        for node in _nodes(page):
            assert not [
                name for name in node.attributes if name.startswith("on") or name == "style"
            ]
            for name in ("href", "action", "src"):
                where = node.attributes.get(name, "/")
                assert re.match(r"(/(?!/)|#content\Z|data:image/svg)", where), where


def test_control_characters_of_foreign_text_are_escaped() -> None:
    for page in pages(HOSTILE):
        text = page.text
        assert "<script>document.title=" in text or "Nothing waits" in text or "Delete" in text
        assert not {c for c in text if unicodedata.category(c) in {"Cc", "Cf"}} - {"\n"}


def _nodes(node: Node) -> list[Node]:
    found = [node]
    for child in node.children:
        if not isinstance(child, str):
            found += _nodes(child)
    return found


def test_the_style_sheet_has_no_character_that_html_escapes() -> None:
    """Its digest in the policy is that of what the browser reads."""
    assert set() == set(STYLE) & set("<>&")
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_headline_describes_the_queue() -> None:
    page = render(overview_page(viewer(), overview(routes=[], unhealthy=None)))
    assert page.one("h1").text == "1 message waits to go out"
    assert page.one("p", class_="lead").text == "The oldest has waited 1 min. "


def test_relays_that_share_the_queue_are_named_with_what_they_deliver() -> None:
    relays = [RelayNode("east", NOW - 600, 5), RelayNode("west", NOW - 60, 1, alive=False)]
    shown = overview(relays=relays, messages=[message("", leased=True, owner="east")])
    text = render(overview_page(viewer(), shown)).text
    assert "Relays of this queue" in text
    assert "5 messages being delivered" in text
    assert "No sign of life" in text
    assert "at east" in text
    page = render(message_page(viewer(), message("", leased=True, owner="east"), None))
    assert "Being delivered byeast" in page.text
    alone = render(overview_page(viewer(), overview(relays=[])))
    assert "Relays of this queue" not in alone.text


def test_the_page_of_an_empty_queue() -> None:
    facts = overview(
        totals=QueueTotals({}, {}, None),
        messages=[],
        filter=QueueFilter(),
        matching=0,
        causes=[],
        unhealthy=None,
    )
    page = render(overview_page(viewer(), facts))
    assert page.one("h1").text == "Nothing waits"
    assert "The queue is empty." in page.text
    assert "Nothing is deferred." in page.text


def test_a_refused_password_is_an_alarm() -> None:
    routes = [route("default", ("a:465",), wait=60, locked=True, reason="535 no")]
    page = render(overview_page(viewer(), overview(routes=routes, unhealthy=None)))
    (alarm,) = page.all("div", role="alert")
    assert alarm.text.startswith("“default” cannot sign in")
    assert "Password refused" in page.text


def test_without_signing_in_there_is_no_button_that_acts() -> None:
    page = render(overview_page(viewer(can_sign_in=True), overview()))
    assert page.all("form", method="post") == []
    assert [button.text for button in page.all("button")] == ["Filter"]
    assert len(page.all("a", href="/sign-in")) == 1


def test_every_form_that_acts_carries_the_secret() -> None:
    page = render(overview_page(viewer(form_secret="the-secret"), overview(routes=[])))
    forms = page.all("form", method="post")
    assert [form.attributes["action"] for form in forms] == ["/sign-out", "/flush", "/act"]
    for form in forms:
        assert form.one("input", name="secret").attributes["value"] == "the-secret"


def test_every_field_has_a_label() -> None:
    for page in pages("x"):
        labelled = {label.attributes.get("for") for label in page.all("label")}
        inside = [field for label in page.all("label") for field in label.all("input")]
        for field in [*page.all("input"), *page.all("select")]:
            kind = field.attributes.get("type")
            named = (
                kind == "hidden"
                or field.attributes.get("id") in labelled
                or "aria-label" in field.attributes
                or field in inside
            )
            assert named, field.attributes


def test_every_table_has_headers_and_every_cell_its_label() -> None:
    for page in pages("x"):
        for table in page.all("table", class_="cards"):
            heads = [th.text for th in table.one("thead").all("th", scope="col")]
            for row in table.one("tbody").all("tr"):
                assert heads == [cell.attributes["data-label"] for cell in row.all("td")]


def test_the_header_of_a_message_is_shown_without_its_body() -> None:
    header = b"Subject: hi\r\nX: \xff\x1b[0m\r\n\r\nsecret body"
    page = render(message_page(viewer(form_secret="s"), message("x"), header))
    assert page.one("pre").text == "Subject: hi\nX: \\xff\\x1b[0m\n"
    assert "secret body" not in page.text
    assert render(message_page(viewer(), message("x"), None)).all("pre") == []
