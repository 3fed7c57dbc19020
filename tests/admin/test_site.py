"""The admin site on a real queue: who may see and do what, and the effects on the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.admin.parsed_html import Node, parse_html
from tests.admin.queue_contents import HOSTILE, TOKEN, FakeRelay, QueueFiller, fill_queue, route
from tests.deferreds import Result
from tests.memory_queue import MemoryQueue
from tests.names import InlineWorker, QueueAction, QueueError, Selection, SQLiteQueue
from twisted_sendmail.admin.local_mail import LocalMail
from twisted_sendmail.admin.metrics import FailureKind, FailureRecord
from twisted_sendmail.admin.site import MAX_ACTION_MESSAGES, MAX_WAITING_OVERVIEWS, AdminSite
from twisted_sendmail.admin.web import RETRY_AFTER, HTTPRequest, HTTPResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.names import QueueTotals

NOW = 1_700_000_000.0


class Admin:
    """An admin site on a real queue, and a client that keeps its cookie."""

    def __init__(self, queue: SQLiteQueue, clock: Clock) -> None:
        self.queue, self.clock = queue, clock
        self.filler = QueueFiller(queue, clock)
        self.relay = FakeRelay(queue, clock)
        self.cookie: str | None = None
        self.secret = ""
        self.local_mail: LocalMail | None = None
        self.make_site()

    def make_site(self, token: str | None = TOKEN, *, private: bool = False) -> None:
        self.site = AdminSite(
            self.clock,
            self.queue,
            self.relay,
            token=token,
            name="mail.example.org",
            names=["relay.example.org"],
            private=private,
            local_mail=lambda: self.local_mail,
        )

    async def ask(self, method: str, path: str, **facts: Any) -> HTTPResponse:
        given = {"host": "localhost:8025", "session": self.cookie, **facts}
        answer = await self.site.respond(HTTPRequest(method, path, **given))
        if answer.session is not None:
            self.cookie = answer.session
        return answer

    async def page(self, path: str = "/", code: int = 200, **query: Any) -> Node:
        answer = await self.ask("GET", path, query=query)
        assert code == answer.code
        return parse_html(answer.body)

    async def post(self, path: str, *, secret: str | None = None, **fields: Any) -> HTTPResponse:
        fields["secret"] = self.secret if secret is None else secret
        form = {n: v if isinstance(v, list) else [v] for n, v in fields.items()}
        return await self.ask("POST", path, form=form)

    async def sign_in(self) -> None:
        answer = await self.post("/sign-in", token=TOKEN)
        assert (answer.code, answer.headers) == (303, (("Location", "/"),))
        page = await self.page()
        self.secret = page.all("input", name="secret")[0].attributes["value"]

    async def queues(self) -> dict[str, str]:
        return {m.id: m.queue_name for m in await self.queue.list(Selection())}


@pytest_twisted.async_yield_fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    clock = Clock()
    clock.advance(NOW)
    queue = SQLiteQueue(clock, tmp_path / "queue", worker=InlineWorker(), least_free=0)
    await queue.open()
    yield Admin(queue, clock)
    await queue.close()


def notice(page: Node) -> str:
    return page.one("div", role="status").text


# Health and metrics.


@pytest_twisted.ensureDeferred
async def test_health_of_a_healthy_relay_is_200_ok(admin: Admin) -> None:
    answer = await admin.ask("GET", "/healthz")
    assert (
        answer.code,
        answer.body,
        answer.content_type,
    ) == (200, b"ok\n", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("local", "line"),
    [
        (LocalMail(0, 0.0, 0), ""),
        (LocalMail(1, 70.0, 9), "1 message waits in the drop directory for 1 min\n"),
        (
            LocalMail(1200, 5.0, 9, stuck=1),
            (
                "1,200 messages wait in the drop directory, the oldest for 5 s; "
                "1 file of the drop directory was taken and cannot be removed\n"
            ),
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_health_says_how_much_local_mail_waits(
    admin: Admin, local: LocalMail, line: str
) -> None:
    admin.local_mail = local
    answer = await admin.ask("GET", "/healthz")
    assert (answer.code, answer.body.decode()) == (200, f"ok\n{line}")


@pytest_twisted.ensureDeferred
async def test_health_is_503_when_the_queue_cannot_be_written(admin: Admin) -> None:
    await admin.queue.close()
    answer = await admin.ask("GET", "/healthz")
    assert (
        answer.code,
        answer.body,
    ) == (503, b"the queue cannot be written: the queue is not open\n")


@pytest_twisted.ensureDeferred
async def test_metrics_include_the_queue(admin: Admin) -> None:
    await fill_queue(admin.filler)
    answer = await admin.ask("GET", "/metrics")
    assert answer.content_type.startswith("text/plain; version=")
    assert b'twisted_sendmail_queue_messages{queue="deferred"} 7.0\n' in answer.body
    assert b'twisted_sendmail_queue_deferred_recipients{status="4.2.2"} 2.0\n' in answer.body


@pytest_twisted.ensureDeferred
async def test_metrics_are_available_without_the_queue(admin: Admin) -> None:
    await admin.queue.close()
    answer = await admin.ask("GET", "/metrics")
    assert answer.code == 200
    assert b"twisted_sendmail_queue_readable 0.0\n" in answer.body


# Names and ways.


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:80",
        "LOCALHOST.:8025",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8025",
        "relay.example.org:8025",
    ],
)
@pytest_twisted.ensureDeferred
async def test_requests_for_a_configured_name_are_answered(admin: Admin, host: str) -> None:
    assert (await admin.ask("GET", "/", host=host)).code == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "evil.example:8025", "127.0.0.1.evil.example", "[::2]", "10.0.0.1",
     "localhost:x", "localhost:80:80", "user@localhost", "relay.example.org.evil", "::1"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_requests_for_other_names_are_421(admin: Admin, host: str) -> None:
    """A name that somebody else lets lead here is not this page's (DNS rebinding)."""
    for method, path in [
        ("GET", "/"),
        ("POST", "/sign-in"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
    ]:
        answer = await admin.ask(method, path, host=host)
        assert answer.code == 421
        assert b"mail.example.org" not in answer.body


@pytest_twisted.ensureDeferred
async def test_unknown_paths_are_404_without_their_text(admin: Admin) -> None:
    for path in ("/nothing", "/<script>", "//", "/act/", "/message", "*", ""):
        answer = await admin.ask("GET", path)
        assert (answer.code, answer.body) == (404, b"not found\n")


@pytest_twisted.ensureDeferred
async def test_other_methods_are_405(admin: Admin) -> None:
    for method, path, allowed in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/message/0123456789AB", "GET, HEAD"),
        ("GET", "/act", "POST"),
        ("GET", "/sign-out", "POST"),
        ("PUT", "/sign-in", "GET, POST, HEAD"),
    ]:
        answer = await admin.ask(method, path)
        assert (405, (("Allow", allowed),)) == (answer.code, answer.headers)


@pytest_twisted.ensureDeferred
async def test_head_is_answered_as_get(admin: Admin) -> None:
    assert (await admin.ask("HEAD", "/healthz")).code == 200


# Looking.


@pytest_twisted.ensureDeferred
async def test_the_page_shows_every_message_and_why_it_waits(admin: Admin) -> None:
    names = await fill_queue(admin.filler)
    page = await admin.page()
    rows = {
        row.all("a")[0].text: row.text
        for row in page.one("table", class_="cards").one("tbody").all("tr")
    }
    assert set(await admin.queues()) == set(rows)
    assert (
        "Mailbox full. 452 4.2.2 <dave@example.com>: mailbox is over its quota"
        in rows[names["quota"]]
    )
    assert "carol@example.com" not in rows[names["quota"]]
    assert "It was put on hold." in rows[names["held"]]
    assert "It failed, and has no sender to report to." in rows[names["aside"]]
    assert "It is being delivered." in rows[names["active"]]
    assert "Not tried yet." in rows[names["new"]]


@pytest_twisted.ensureDeferred
async def test_causes_are_grouped_most_frequent_first(admin: Admin) -> None:
    await fill_queue(admin.filler)
    section = (await admin.page()).one("section", **{"aria-labelledby": "why"})
    heads = [
        (h.text, n.text)
        for h, n in zip(section.all("h3"), section.all("span", class_="number"), strict=True)
    ]
    assert heads == [
        ("No answer from the server 4.4.1", "4 recipients"),
        ("Mailbox full 4.2.2", "2 recipients"),
        ("Refused by policy 4.7.1", "1 recipient"),
        ("Mailbox disabled 4.2.1", "1 recipient"),
    ]


@pytest_twisted.ensureDeferred
async def test_filters_narrow_the_table(admin: Admin) -> None:
    names = await fill_queue(admin.filler)

    async def found(**query: Any) -> set[str]:
        page = await admin.page(**query)
        return {a.text for a in page.all("a") if a.attributes["href"].startswith("/message/")}

    assert {names["held"]} == await found(queue="hold")
    assert {names["quota"]} == await found(recipient="@example.com")
    assert {names["quota"]} == await found(sender="REPORTS@example.org")
    assert len(await found(sender="<>")) == 2
    assert await found(queue="hold", recipient="nobody@example.net") == set()


@pytest_twisted.ensureDeferred
async def test_the_table_has_pages(admin: Admin) -> None:
    for number in range(120):
        await admin.filler.message(f"u{number}@example.net", size=10)
    seen: list[str] = []
    query: dict[str, Any] = {"recipient": "example.net"}
    for expected in (50, 50, 20):
        page = await admin.page(**query)
        names = [a.text for a in page.all("a") if a.attributes["href"].startswith("/message/")]
        assert len(names) == expected
        seen += names
        following = page.all("a", rel="next")
        if following:
            assert (
                following[0].attributes["href"]
                == f"/?{urlencode({**query, 'page': str(int(query.get('page', 1)) + 1)})}"
            )
        query["page"] = str(int(query.get("page", 1)) + 1)
    assert sorted(await admin.queues()) == seen
    assert following == []


@pytest_twisted.ensureDeferred
async def test_the_table_counts_all_that_match(admin: Admin) -> None:
    for number in range(60):
        await admin.filler.message(f"u{number}@example.net", size=10, held=number < 55)

    async def shown(**query: Any) -> str:
        return (await admin.page(**query)).all("caption")[-1].text

    assert await shown() == "1–50 of 60, the oldest first"
    assert await shown(page="2") == "51–60 of 60, the oldest first"
    assert await shown(queue="hold") == "1–50 of 55, the oldest first"
    assert await shown(sender="@example.org", page="2") == "51–60 of 60, the oldest first"
    assert await shown(recipient="u5") == "1–11 of 11, the oldest first"


@pytest_twisted.ensureDeferred
async def test_mail_of_a_route_that_is_down_waits_for_the_route(admin: Admin) -> None:
    name, other = [await admin.filler.message(route=name) for name in ("default", "backup")]
    admin.relay.routes = (route("default", wait=58.0), route("backup"))
    rows = [row.text for row in (await admin.page()).all("tr")[-2:]]
    assert "It waits for route default, next attempt in 58 s." in rows[0]
    assert "Not tried yet." not in rows[0]
    assert "Not tried yet." in rows[1]
    page = await admin.page(f"/message/{name}")
    assert "It waits for route default, next attempt in 58 s." in page.text
    assert "It waits for" not in (await admin.page(f"/message/{other}")).text


@pytest_twisted.ensureDeferred
async def test_the_last_failures_are_on_the_page(admin: Admin) -> None:
    for number in range(30):
        admin.site.metrics.add_failure(
            FailureRecord(
                NOW, FailureKind.BOUNCED, f"550 no {number}", "0123456789AB", "x@example.net"
            )
        )
    section = (await admin.page()).one("section", **{"aria-labelledby": "failures"})
    assert len(section.all("li")) == 20
    assert "550 no 29" in section.all("li")[0].text


@pytest_twisted.ensureDeferred
async def test_the_page_of_a_message_shows_each_recipient(admin: Admin) -> None:
    names = await fill_queue(admin.filler)
    page = await admin.page(f"/message/{names['quota'].lower()}")
    rows = [[cell.text for cell in row.all("td")][:3] for row in page.one("tbody").all("tr")]
    waits = ["Waits", "Mailbox full. 452 4.2.2 <dave@example.com>: mailbox is over its quota"]
    assert [
        ["carol@example.com", "Delivered", "250 2.0.0 Ok"],
        ["dave@example.com", *waits],
        ["erin@example.com", *waits],
    ] == rows


@pytest_twisted.ensureDeferred
async def test_the_header_is_shown_only_after_signing_in(admin: Admin) -> None:
    name = await admin.filler.message(subject=f"Secret plans {HOSTILE}", size=200_000)
    page = await admin.page(f"/message/{name}")
    assert "Secret plans" not in page.text
    await admin.sign_in()
    page = await admin.page(f"/message/{name}")
    assert 'Subject: Secret plans <script>document.title="broken"</script>' in page.one("pre").text
    assert "xxx" not in page.one("pre").text


@pytest_twisted.ensureDeferred
async def test_an_unknown_message_is_404(admin: Admin) -> None:
    for name in ("0123456789AB", "x", "", "../../etc/passwd", "0123456789A%", "0123456789AB/"):
        page = await admin.page(f"/message/{name}", 404)
        assert page.one("h1").text == "No such message"


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_queue_is_a_page_with_503(admin: Admin, monkeypatch: Any) -> None:
    monkeypatch.setattr(admin.queue, "totals", lambda: fail(QueueError("the disk is gone")))
    page = await admin.page(code=503)
    assert "the disk is gone" in page.text


@pytest_twisted.ensureDeferred
async def test_a_private_page_needs_signing_in(admin: Admin) -> None:
    admin.make_site(private=True)
    names = await fill_queue(admin.filler)
    for path in ("/", f"/message/{names['quota']}"):
        answer = await admin.ask("GET", path)
        assert (answer.code, answer.headers, answer.body) == (303, (("Location", "/sign-in"),), b"")
    assert (await admin.ask("GET", "/healthz")).code == 200
    assert (await admin.ask("GET", "/metrics")).code == 200
    await admin.sign_in()
    assert "carol@example.com" in (await admin.page(f"/message/{names['quota']}")).text


# Signing in.


@pytest_twisted.ensureDeferred
async def test_a_wrong_token_is_403_without_a_session(admin: Admin) -> None:
    answer = await admin.post("/sign-in", token="wrong-horse-battery")
    assert (answer.code, answer.session) == (403, None)
    assert parse_html(answer.body).one("div", role="alert").text == "That is not the token."
    assert b"wrong-horse" not in answer.body


@pytest_twisted.ensureDeferred
async def test_many_wrong_tokens_are_429(admin: Admin) -> None:
    for _ in range(5):
        assert (await admin.post("/sign-in", token="wrong")).code == 403
    answer = await admin.post("/sign-in", token=TOKEN)
    assert (answer.code, answer.headers, answer.session) == (429, (("Retry-After", "11"),), None)
    admin.clock.advance(11)
    await admin.sign_in()


@pytest_twisted.ensureDeferred
async def test_signing_out(admin: Admin) -> None:
    await admin.sign_in()
    before = admin.cookie
    answer = await admin.post("/sign-out")
    assert (answer.code, answer.session) == (303, "")
    admin.cookie = before
    assert (await admin.page()).all("form", method="post") == []


@pytest_twisted.ensureDeferred
async def test_a_planted_session_name_is_not_used(admin: Admin) -> None:
    """A session that another client set before is not taken over."""
    admin.cookie = planted = "planted"
    await admin.sign_in()
    assert planted != admin.cookie
    assert len(admin.cookie) == 43


@pytest_twisted.ensureDeferred
async def test_without_a_token_there_are_no_actions(admin: Admin) -> None:
    admin.make_site(token=None)
    name = await admin.filler.message()
    for method, path in [
        ("GET", "/sign-in"),
        *(("POST", p) for p in ("/sign-in", "/sign-out", "/act", "/flush")),
    ]:
        answer = await admin.ask(
            method, path, form={"action": ["delete"], "id": [name], "sure": ["yes"]}
        )
        assert answer.code == 404
    page = await admin.page()
    assert page.all("form", method="post") == []
    assert "Read only" in page.one("header").text
    assert [name] == list(await admin.queues())


# Acting.


@pytest_twisted.ensureDeferred
async def test_actions_need_a_session_and_its_secret(admin: Admin) -> None:
    name = await admin.filler.message()
    await admin.sign_in()
    cookie, secret = admin.cookie, admin.secret
    await admin.sign_in()
    other = admin.secret
    for session, given in [
        (None, secret),
        ("", secret),
        ("x" * 43, secret),
        (cookie, ""),
        (cookie, other),
    ]:
        admin.cookie = session
        for action in QueueAction:
            answer = await admin.post(
                "/act", secret=given, action=action.value, id=name, sure="yes"
            )
            assert (answer.code, answer.headers) == (303, (("Location", "/sign-in"),))
        for path in ("/flush", "/sign-out"):
            assert (await admin.post(path, secret=given)).headers == (("Location", "/sign-in"),)
    assert {name: "incoming"} == await admin.queues()
    assert admin.relay.flushed == []
    admin.cookie = cookie
    assert "Sign out" in (await admin.page()).text


@pytest.mark.parametrize(
    ("origin", "fetch_site", "taken"),
    [
        (None, None, True),
        ("null", None, True),
        ("http://localhost:8025", None, True),
        ("null", "same-origin", True),
        ("http://evil.example", None, False),
        ("http://localhost:9999", None, False),
        ("null", "cross-site", False),
        ("http://localhost:8025", "same-site", False),
        ("http://localhost:8025", "none", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_form_of_another_site_is_refused(
    admin: Admin, origin: str | None, fetch_site: str | None, taken: bool
) -> None:
    answer = await admin.ask(
        "POST", "/sign-in", form={"token": [TOKEN]}, origin=origin, fetch_site=fetch_site
    )
    assert (303 if taken else 403) == answer.code
    assert taken == (answer.session is not None)


@pytest_twisted.ensureDeferred
async def test_one_message_is_held_and_released(admin: Admin) -> None:
    first, second = await admin.filler.message(), await admin.filler.message()
    await admin.sign_in()
    answer = await admin.post("/act", action="hold", id=first, which="ticked")
    assert (answer.code, answer.headers) == (303, (("Location", "/"),))
    assert {first: "hold", second: "incoming"} == await admin.queues()
    assert notice(await admin.page()) == "1 message was put on hold."
    # It is logged once.
    assert (await admin.page()).all("div", role="status") == []
    await admin.post("/act", action="release", id=first, which="ticked")
    assert {first: "incoming", second: "incoming"} == await admin.queues()


@pytest_twisted.ensureDeferred
async def test_without_a_ticked_message_no_message_changes(admin: Admin) -> None:
    """A selection without ids would mean all of them."""
    name = await admin.filler.message()
    await admin.sign_in()
    for action in QueueAction:
        for ids in ([], [""], ["x"], ["0123456789A!"]):
            await admin.post("/act", action=action.value, id=ids, which="ticked", sure="yes")
            assert notice(await admin.page()) == "No message was ticked, so nothing was done."
    assert {name: "incoming"} == await admin.queues()
    assert admin.relay.flushed == []


@pytest_twisted.ensureDeferred
async def test_a_message_is_deleted_only_after_confirmation(admin: Admin) -> None:
    first, second = await admin.filler.message("bob@example.net"), await admin.filler.message()
    await admin.sign_in()
    back = "/?recipient=bob%40example.net"
    answer = await admin.post("/act", action="delete", id=first, which="ticked", back=back)
    page = parse_html(answer.body)
    assert page.one("h1").text == "Delete 1 message?"
    assert page.one("li").text == f"{first}alice@example.org to bob@example.net"
    assert back == page.one("a", class_="button").attributes["href"]
    assert {first, second} == set(await admin.queues())
    form = page.one("form", action="/act")
    fields = {f.attributes["name"]: f.attributes["value"] for f in form.all("input")}
    fields["action"] = form.one("button").attributes["value"]
    answer = await admin.post("/act", **fields)
    assert (("Location", back),) == answer.headers
    assert {second} == set(await admin.queues())
    assert notice(await admin.page()) == "1 message was deleted."


@pytest_twisted.ensureDeferred
async def test_confirmation_applies_to_the_messages_that_matched_before(admin: Admin) -> None:
    names = {await admin.filler.message("bob@example.net") for _ in range(60)}
    other = await admin.filler.message("carol@example.net")
    await admin.sign_in()
    answer = await admin.post("/act", action="delete", which="matching", recipient="bob")
    page = parse_html(answer.body)
    assert page.one("h1").text == "Delete 60 messages?"
    assert "and 50 more" in page.text
    late = await admin.filler.message("bob@example.net")
    form = page.one("form", action="/act")
    ids = [f.attributes["value"] for f in form.all("input", name="id")]
    assert names == set(ids)
    await admin.post("/act", action="delete", id=ids, sure="yes")
    assert {other, late} == set(await admin.queues())


@pytest_twisted.ensureDeferred
async def test_the_number_of_messages_of_an_action_is_limited(
    admin: Admin, monkeypatch: Any
) -> None:
    await admin.sign_in()
    asked: list[Selection] = []

    def listed(selection: Selection) -> Any:
        asked.append(selection)
        return succeed([])

    monkeypatch.setattr(admin.queue, "list", listed)
    await admin.post("/act", action="hold", which="matching", queue="deferred")
    assert [(selection.queue, selection.limit) for selection in asked] == [
        ("deferred", MAX_ACTION_MESSAGES)
    ]


@pytest_twisted.ensureDeferred
async def test_flushing_goes_through_the_relay(admin: Admin) -> None:
    """It ends the back-off of a way out too, which the queue knows nothing of."""
    names = await fill_queue(admin.filler)
    await admin.sign_in()
    await admin.post("/act", action="flush", id=names["quota"], which="ticked")
    assert [Selection(ids=(names["quota"],))] == admin.relay.flushed
    (message,) = await admin.queue.list(Selection(ids=(names["quota"],)))
    assert message.due <= NOW
    await admin.post("/flush")
    assert admin.relay.flushed[-1] is None
    assert "tried now." in notice(await admin.page())


@pytest_twisted.ensureDeferred
async def test_expiring_and_requeueing(admin: Admin) -> None:
    names = await fill_queue(admin.filler)
    await admin.sign_in()
    answer = await admin.post("/act", action="expire", id=names["quota"])
    assert parse_html(answer.body).one("h1").text == "Return 1 message to sender?"
    await admin.post("/act", action="expire", id=names["quota"], sure="yes")
    await admin.post("/act", action="requeue", id=names["aside"])
    (expired,) = await admin.queue.list(Selection(ids=(names["quota"],)))
    (requeued,) = await admin.queue.list(Selection(ids=(names["aside"],)))
    assert expired.expired
    assert (requeued.aside, requeued.attempts) == (None, 0)


@pytest_twisted.ensureDeferred
async def test_the_notice_names_deleted_messages_under_delivery(admin: Admin) -> None:
    names = await fill_queue(admin.filler)
    await admin.sign_in()
    ids = [names["active"], names["new"], "0123456789AB"]
    await admin.post("/act", action="delete", id=ids, sure="yes")
    expected = (
        "2 messages were deleted. 1 of them is being delivered now and may still go out. "
        "1 other was gone already."
    )
    assert notice(await admin.page()) == expected


@pytest.mark.parametrize(
    ("back", "to"),
    [
        ("", "/"),
        ("/", "/"),
        ("//evil.example/", "/"),
        ("https://evil.example", "/"),
        ("/?queue=hold&page=3&evil=1", "/?queue=hold&page=3"),
        ("/?recipient=%0d%0aSet-Cookie:x", "/"),
        ("/message/0123456789AB", "/message/0123456789AB"),
        ("/message/0123456789AB\r\nX: y", "/"),
        ("/message/0123456789AB?x", "/"),
        ("/metrics", "/"),
        ("/?" + "a=b&" * 100, "/"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_redirects_lead_only_to_pages_of_the_site(admin: Admin, back: str, to: str) -> None:
    name = await admin.filler.message()
    await admin.sign_in()
    answer = await admin.post("/act", action="hold", id=name, back=back)
    assert (("Location", to),) == answer.headers


@pytest_twisted.ensureDeferred
async def test_deleting_from_the_page_of_a_message_leads_to_the_overview(admin: Admin) -> None:
    name = await admin.filler.message()
    await admin.sign_in()
    answer = await admin.post("/act", action="delete", id=name, back=f"/message/{name}", sure="yes")
    assert answer.headers == (("Location", "/"),)


@pytest_twisted.ensureDeferred
async def test_an_unknown_action_is_400(admin: Admin) -> None:
    name = await admin.filler.message()
    await admin.sign_in()
    assert (await admin.post("/act", action="drop table", id=name)).code == 400


# Many readers.


class SlowQueue(MemoryQueue):
    """A queue whose totals wait until they are let go."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.waiting: list[Deferred[None]] = []

    def totals(self) -> Deferred[QueueTotals]:
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: super(SlowQueue, self).totals())

    def let_go(self) -> None:
        self.waiting.pop(0).callback(None)


@pytest.fixture
def crowded() -> tuple[SlowQueue, AdminSite]:
    clock = Clock()
    queue = SlowQueue(clock)
    _ = queue.open()
    return queue, AdminSite(clock, queue, FakeRelay(queue, clock), token=TOKEN)


def ask(site: AdminSite, path: str = "/", method: str = "GET", **facts: Any) -> Result:
    request = HTTPRequest(method, path, host="localhost", **facts)
    return Result(Deferred.fromCoroutine(site.respond(request)))


def test_readers_of_one_overview_share_one_reading_of_the_queue(
    crowded: tuple[SlowQueue, AdminSite],
) -> None:
    queue, site = crowded
    asked = [ask(site, query={"recipient": "example"}) for _ in range(30)]
    # A reader who leaves does not take the page away from the others.
    asked[0].deferred.cancel()
    assert len(queue.waiting) == 1
    queue.let_go()
    assert {each.get().code for each in asked[1:]} == {200}
    assert isinstance(asked[0].error, CancelledError)
    assert queue.waiting == []
    ask(site, query={"recipient": "example"})
    assert len(queue.waiting) == 1


def test_one_overview_is_made_at_a_time_and_those_beyond_a_few_are_told_to_wait(
    crowded: tuple[SlowQueue, AdminSite],
) -> None:
    queue, site = crowded
    asked = [ask(site, query={"recipient": f"user{n}"}) for n in range(MAX_WAITING_OVERVIEWS + 1)]
    refused = ask(site, query={"recipient": "one more"}).get()
    assert (refused.code, refused.headers) == (503, (("Retry-After", str(RETRY_AFTER)),))
    for each in asked:
        assert len(queue.waiting) == 1
        queue.let_go()
        assert each.get().code == 200


def test_an_operator_sees_no_overview_from_before_the_action(
    crowded: tuple[SlowQueue, AdminSite],
) -> None:
    queue, site = crowded
    session = ask(site, "/sign-in", "POST", form={"token": [TOKEN]}).get().session
    found = site._sessions.find(session)
    assert found is not None
    before = ask(site, session=session)
    flushed = ask(site, "/flush", "POST", form={"secret": [found.form_secret]}, session=session)
    assert flushed.get().code == 303
    after = ask(site, session=session)
    queue.let_go()
    assert before.get().code == 200
    queue.let_go()
    assert after.get().code == 200
