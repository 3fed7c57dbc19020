"""The desk: who may see and do what, and what it does to a real queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import pytest_twisted
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock

from tests.admin.drawn import Node, read
from tests.admin.staged_queue import HOSTILE, TOKEN, Stage, StagedRelay, a_bad_morning
from tests.names import InlineWorker, QueueAction, QueueError, Selection, SQLiteQueue
from twisted_sendmail.admin.health import Health
from twisted_sendmail.admin.history import History
from twisted_sendmail.admin.http_guard import Answer, Asked, Names
from twisted_sendmail.admin.ledger import Failed, Kind, Ledger
from twisted_sendmail.admin.metrics import Metrics
from twisted_sendmail.admin.sessions import Sessions
from twisted_sendmail.admin.views import MOST, Views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = 1_700_000_000.0


class Office:
    """A desk before a real queue, and a browser that keeps its cookie."""

    def __init__(self, spool: SQLiteQueue, clock: Clock) -> None:
        self.spool, self.clock = spool, clock
        self.stage = Stage(spool, clock)
        self.relay = StagedRelay(spool, clock)
        self.ledger = Ledger()
        self.cookie: str | None = None
        self.secret = ""
        self.furnish()

    def furnish(self, token: str | None = TOKEN, *, private: bool = False) -> None:
        self.desk = Views(
            self.spool,
            self.relay,
            Sessions(token, self.clock.seconds),
            Names(["relay.example.org"]),
            reactor=self.clock,
            health=Health(self.clock, self.spool.probe, self.relay),
            history=History(self.clock, self.spool.totals),
            ledger=self.ledger,
            metrics=Metrics(),
            name="mail.example.org",
            private=private,
        )

    async def ask(self, method: str, path: str, **facts: Any) -> Answer:
        given = {"host": "localhost:8025", "session": self.cookie, **facts}
        answer = await self.desk.answer(Asked(method, path, **given))
        if answer.session is not None:
            self.cookie = answer.session
        return answer

    async def page(self, path: str = "/", code: int = 200, **query: Any) -> Node:
        answer = await self.ask("GET", path, query=query)
        assert code == answer.code
        return read(answer.body)

    async def post(self, path: str, *, secret: str | None = None, **fields: Any) -> Answer:
        fields["secret"] = self.secret if secret is None else secret
        form = {n: v if isinstance(v, list) else [v] for n, v in fields.items()}
        return await self.ask("POST", path, form=form)

    async def sign_in(self) -> None:
        answer = await self.post("/sign-in", token=TOKEN)
        assert (303, (("Location", "/"),)) == (answer.code, answer.headers)
        page = await self.page()
        self.secret = page.all("input", name="secret")[0].attributes["value"]

    async def queues(self) -> dict[str, str]:
        return {m.id: m.queue_name for m in await self.spool.list(Selection())}


@pytest_twisted.async_yield_fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    clock = Clock()
    clock.advance(NOW)
    spool = SQLiteQueue(clock, tmp_path / "queue", worker=InlineWorker(), least_free=0)
    await spool.open()
    yield Office(spool, clock)
    await spool.close()


def notice(page: Node) -> str:
    return page.one("div", role="status").text


# Health and metrics.


@pytest_twisted.ensureDeferred
async def test_health_is_ok_in_a_word(office: Office) -> None:
    answer = await office.ask("GET", "/healthz")
    assert (200, b"ok\n", "text/plain; charset=utf-8") == (answer.code, answer.body, answer.kind)


@pytest_twisted.ensureDeferred
async def test_health_is_503_when_the_queue_cannot_be_written(office: Office) -> None:
    await office.spool.close()
    answer = await office.ask("GET", "/healthz")
    assert (503, b"the queue cannot be written: the queue is not open\n") == (
        answer.code,
        answer.body,
    )


@pytest_twisted.ensureDeferred
async def test_metrics_tell_of_the_queue(office: Office) -> None:
    await a_bad_morning(office.stage)
    answer = await office.ask("GET", "/metrics")
    assert answer.kind.startswith("text/plain; version=")
    assert b'twisted_sendmail_queue_messages{queue="deferred"} 7.0\n' in answer.body
    assert b'twisted_sendmail_queue_deferred_recipients{status="4.2.2"} 2.0\n' in answer.body


@pytest_twisted.ensureDeferred
async def test_metrics_are_there_when_the_queue_is_not(office: Office) -> None:
    await office.spool.close()
    answer = await office.ask("GET", "/metrics")
    assert 200 == answer.code
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
async def test_it_answers_to_its_names(office: Office, host: str) -> None:
    assert 200 == (await office.ask("GET", "/", host=host)).code


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "evil.example:8025", "127.0.0.1.evil.example", "[::2]", "10.0.0.1",
     "localhost:x", "localhost:80:80", "user@localhost", "relay.example.org.evil", "::1"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_it_answers_to_no_other_name(office: Office, host: str) -> None:
    """A name that somebody else lets lead here is not this page's (DNS rebinding)."""
    for method, path in [
        ("GET", "/"),
        ("POST", "/sign-in"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
    ]:
        answer = await office.ask(method, path, host=host)
        assert 421 == answer.code
        assert b"mail.example.org" not in answer.body


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_404_and_says_nothing_back(office: Office) -> None:
    for path in ("/nothing", "/<script>", "//", "/act/", "/message", "*", ""):
        answer = await office.ask("GET", path)
        assert (404, b"there is nothing here\n") == (answer.code, answer.body)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_is_405(office: Office) -> None:
    for method, path, allowed in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/message/0123456789AB", "GET, HEAD"),
        ("GET", "/act", "POST"),
        ("GET", "/sign-out", "POST"),
        ("PUT", "/sign-in", "GET, POST, HEAD"),
    ]:
        answer = await office.ask(method, path)
        assert (405, (("Allow", allowed),)) == (answer.code, answer.headers)


@pytest_twisted.ensureDeferred
async def test_head_is_answered_as_get(office: Office) -> None:
    assert 200 == (await office.ask("HEAD", "/healthz")).code


# Looking.


@pytest_twisted.ensureDeferred
async def test_the_page_shows_every_message_and_why_it_waits(office: Office) -> None:
    names = await a_bad_morning(office.stage)
    page = await office.page()
    rows = {
        row.all("a")[0].text: row.text
        for row in page.one("table", class_="cards").one("tbody").all("tr")
    }
    assert set(await office.queues()) == set(rows)
    assert (
        "Mailbox full. 452 4.2.2 <dave@example.com>: mailbox is over its quota"
        in rows[names["quota"]]
    )
    assert "carol@example.com" not in rows[names["quota"]]
    assert "Somebody put it on hold." in rows[names["held"]]
    assert "It failed, and there is nobody to tell." in rows[names["aside"]]
    assert "It is on its way." in rows[names["active"]]
    assert "Not tried yet." in rows[names["new"]]


@pytest_twisted.ensureDeferred
async def test_the_reasons_are_grouped_the_most_frequent_first(office: Office) -> None:
    await a_bad_morning(office.stage)
    section = (await office.page()).one("section", **{"aria-labelledby": "why"})
    heads = [
        (h.text, n.text)
        for h, n in zip(section.all("h3"), section.all("span", class_="number"), strict=True)
    ]
    assert [
        ("No answer from the server 4.4.1", "4 recipients"),
        ("Mailbox full 4.2.2", "2 recipients"),
        ("Refused by policy 4.7.1", "1 recipient"),
        ("Mailbox disabled 4.2.1", "1 recipient"),
    ] == heads


@pytest_twisted.ensureDeferred
async def test_filters_narrow_the_table(office: Office) -> None:
    names = await a_bad_morning(office.stage)

    async def found(**query: Any) -> set[str]:
        page = await office.page(**query)
        return {a.text for a in page.all("a") if a.attributes["href"].startswith("/message/")}

    assert {names["held"]} == await found(queue="hold")
    assert {names["quota"]} == await found(recipient="@example.com")
    assert {names["quota"]} == await found(sender="REPORTS@example.org")
    assert 2 == len(await found(sender="<>"))
    assert set() == await found(queue="hold", recipient="nobody@example.net")


@pytest_twisted.ensureDeferred
async def test_the_table_has_pages(office: Office) -> None:
    for number in range(120):
        await office.stage.message(f"u{number}@example.net", size=10)
    seen: list[str] = []
    query: dict[str, Any] = {"recipient": "example.net"}
    for expected in (50, 50, 20):
        page = await office.page(**query)
        names = [a.text for a in page.all("a") if a.attributes["href"].startswith("/message/")]
        assert expected == len(names)
        seen += names
        following = page.all("a", rel="next")
        if following:
            assert (
                f"/?{urlencode({**query, 'page': str(int(query.get('page', 1)) + 1)})}"
                == following[0].attributes["href"]
            )
        query["page"] = str(int(query.get("page", 1)) + 1)
    assert sorted(await office.queues()) == seen
    assert [] == following


@pytest_twisted.ensureDeferred
async def test_the_last_failures_are_on_the_page(office: Office) -> None:
    for number in range(30):
        office.ledger.failed(
            Failed(NOW, Kind.BOUNCED, f"550 no {number}", "0123456789AB", "x@example.net")
        )
    section = (await office.page()).one("section", **{"aria-labelledby": "failures"})
    assert 20 == len(section.all("li"))
    assert "550 no 29" in section.all("li")[0].text


@pytest_twisted.ensureDeferred
async def test_the_page_of_a_message_shows_each_recipient(office: Office) -> None:
    names = await a_bad_morning(office.stage)
    page = await office.page(f"/message/{names['quota'].lower()}")
    rows = [[cell.text for cell in row.all("td")][:3] for row in page.one("tbody").all("tr")]
    waits = ["Waits", "Mailbox full. 452 4.2.2 <dave@example.com>: mailbox is over its quota"]
    assert [
        ["carol@example.com", "Delivered", "250 2.0.0 Ok"],
        ["dave@example.com", *waits],
        ["erin@example.com", *waits],
    ] == rows


@pytest_twisted.ensureDeferred
async def test_the_header_is_only_for_who_has_signed_in(office: Office) -> None:
    name = await office.stage.message(subject=f"Secret plans {HOSTILE}", size=200_000)
    page = await office.page(f"/message/{name}")
    assert "Secret plans" not in page.text
    await office.sign_in()
    page = await office.page(f"/message/{name}")
    assert 'Subject: Secret plans <script>document.title="broken"</script>' in page.one("pre").text
    assert "xxx" not in page.one("pre").text


@pytest_twisted.ensureDeferred
async def test_a_message_that_is_not_there_is_404(office: Office) -> None:
    for name in ("0123456789AB", "x", "", "../../etc/passwd", "0123456789A%", "0123456789AB/"):
        page = await office.page(f"/message/{name}", 404)
        assert "No such message" == page.one("h1").text


@pytest_twisted.ensureDeferred
async def test_trouble_of_the_queue_is_a_page_and_503(office: Office, monkeypatch: Any) -> None:
    monkeypatch.setattr(office.spool, "totals", lambda: fail(QueueError("the disk is gone")))
    page = await office.page(code=503)
    assert "the disk is gone" in page.text


@pytest_twisted.ensureDeferred
async def test_a_private_page_is_for_who_has_signed_in(office: Office) -> None:
    office.furnish(private=True)
    names = await a_bad_morning(office.stage)
    for path in ("/", f"/message/{names['quota']}"):
        answer = await office.ask("GET", path)
        assert (303, (("Location", "/sign-in"),), b"") == (answer.code, answer.headers, answer.body)
    assert 200 == (await office.ask("GET", "/healthz")).code
    assert 200 == (await office.ask("GET", "/metrics")).code
    await office.sign_in()
    assert "carol@example.com" in (await office.page(f"/message/{names['quota']}")).text


# Signing in.


@pytest_twisted.ensureDeferred
async def test_a_wrong_token_is_told_so_and_begins_nothing(office: Office) -> None:
    answer = await office.post("/sign-in", token="wrong-horse-battery")
    assert (403, None) == (answer.code, answer.session)
    assert "That is not the token." == read(answer.body).one("div", role="alert").text
    assert b"wrong-horse" not in answer.body


@pytest_twisted.ensureDeferred
async def test_many_wrong_tokens_have_to_wait(office: Office) -> None:
    for _ in range(5):
        assert 403 == (await office.post("/sign-in", token="wrong")).code
    answer = await office.post("/sign-in", token=TOKEN)
    assert (429, (("Retry-After", "11"),), None) == (answer.code, answer.headers, answer.session)
    office.clock.advance(11)
    await office.sign_in()


@pytest_twisted.ensureDeferred
async def test_who_has_signed_in_can_sign_out(office: Office) -> None:
    await office.sign_in()
    before = office.cookie
    answer = await office.post("/sign-out")
    assert (303, "") == (answer.code, answer.session)
    office.cookie = before
    assert [] == (await office.page()).all("form", method="post")


@pytest_twisted.ensureDeferred
async def test_each_sign_in_has_a_name_of_its_own(office: Office) -> None:
    """A session that somebody slipped in beforehand is not taken over."""
    office.cookie = planted = "planted"
    await office.sign_in()
    assert planted != office.cookie
    assert 43 == len(office.cookie)


@pytest_twisted.ensureDeferred
async def test_without_a_token_nothing_that_acts_is_there(office: Office) -> None:
    office.furnish(token=None)
    name = await office.stage.message()
    for method, path in [
        ("GET", "/sign-in"),
        *(("POST", p) for p in ("/sign-in", "/sign-out", "/act", "/flush")),
    ]:
        answer = await office.ask(
            method, path, form={"action": ["delete"], "id": [name], "sure": ["yes"]}
        )
        assert 404 == answer.code
    page = await office.page()
    assert [] == page.all("form", method="post")
    assert "Read only" in page.one("header").text
    assert [name] == list(await office.queues())


# Acting.


@pytest_twisted.ensureDeferred
async def test_nobody_acts_without_a_session_and_its_secret(office: Office) -> None:
    name = await office.stage.message()
    await office.sign_in()
    cookie, secret = office.cookie, office.secret
    await office.sign_in()
    other = office.secret
    for session, given in [
        (None, secret),
        ("", secret),
        ("x" * 43, secret),
        (cookie, ""),
        (cookie, other),
    ]:
        office.cookie = session
        for action in QueueAction:
            answer = await office.post(
                "/act", secret=given, action=action.value, id=name, sure="yes"
            )
            assert (303, (("Location", "/sign-in"),)) == (answer.code, answer.headers)
        for path in ("/flush", "/sign-out"):
            assert (("Location", "/sign-in"),) == (await office.post(path, secret=given)).headers
    assert {name: "incoming"} == await office.queues()
    assert [] == office.relay.flushed
    office.cookie = cookie
    assert "Sign out" in (await office.page()).text


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
    office: Office, origin: str | None, fetch_site: str | None, taken: bool
) -> None:
    answer = await office.ask(
        "POST", "/sign-in", form={"token": [TOKEN]}, origin=origin, fetch_site=fetch_site
    )
    assert (303 if taken else 403) == answer.code
    assert taken == (answer.session is not None)


@pytest_twisted.ensureDeferred
async def test_one_message_is_held_and_released(office: Office) -> None:
    first, second = await office.stage.message(), await office.stage.message()
    await office.sign_in()
    answer = await office.post("/act", action="hold", id=first, which="ticked")
    assert (303, (("Location", "/"),)) == (answer.code, answer.headers)
    assert {first: "hold", second: "incoming"} == await office.queues()
    assert "1 message was put on hold." == notice(await office.page())
    # It is told once.
    assert [] == (await office.page()).all("div", role="status")
    await office.post("/act", action="release", id=first, which="ticked")
    assert {first: "incoming", second: "incoming"} == await office.queues()


@pytest_twisted.ensureDeferred
async def test_without_a_ticked_message_nothing_happens_to_any(office: Office) -> None:
    """A selection without ids would mean all of them."""
    name = await office.stage.message()
    await office.sign_in()
    for action in QueueAction:
        for ids in ([], [""], ["x"], ["0123456789A!"]):
            await office.post("/act", action=action.value, id=ids, which="ticked", sure="yes")
            assert "No message was ticked, so nothing was done." == notice(await office.page())
    assert {name: "incoming"} == await office.queues()
    assert [] == office.relay.flushed


@pytest_twisted.ensureDeferred
async def test_a_message_is_deleted_only_after_it_was_asked_once_more(office: Office) -> None:
    first, second = await office.stage.message("bob@example.net"), await office.stage.message()
    await office.sign_in()
    back = "/?recipient=bob%40example.net"
    answer = await office.post("/act", action="delete", id=first, which="ticked", back=back)
    page = read(answer.body)
    assert "Delete 1 message?" == page.one("h1").text
    assert f"{first}alice@example.org to bob@example.net" == page.one("li").text
    assert back == page.one("a", class_="button").attributes["href"]
    assert {first, second} == set(await office.queues())
    form = page.one("form", action="/act")
    fields = {f.attributes["name"]: f.attributes["value"] for f in form.all("input")}
    fields["action"] = form.one("button").attributes["value"]
    answer = await office.post("/act", **fields)
    assert (("Location", back),) == answer.headers
    assert {second} == set(await office.queues())
    assert "1 message was deleted." == notice(await office.page())


@pytest_twisted.ensureDeferred
async def test_everything_that_fits_is_what_fitted_when_it_was_asked(office: Office) -> None:
    names = {await office.stage.message("bob@example.net") for _ in range(60)}
    other = await office.stage.message("carol@example.net")
    await office.sign_in()
    answer = await office.post("/act", action="delete", which="matching", recipient="bob")
    page = read(answer.body)
    assert "Delete 60 messages?" == page.one("h1").text
    assert "and 50 more" in page.text
    late = await office.stage.message("bob@example.net")
    form = page.one("form", action="/act")
    ids = [f.attributes["value"] for f in form.all("input", name="id")]
    assert names == set(ids)
    await office.post("/act", action="delete", id=ids, sure="yes")
    assert {other, late} == set(await office.queues())


@pytest_twisted.ensureDeferred
async def test_one_click_acts_on_so_many_and_no_more(office: Office, monkeypatch: Any) -> None:
    await office.sign_in()
    asked: list[Selection] = []

    def listed(selection: Selection) -> Any:
        asked.append(selection)
        return succeed([])

    monkeypatch.setattr(office.spool, "list", listed)
    await office.post("/act", action="hold", which="matching", queue="deferred")
    assert [("deferred", MOST)] == [(selection.queue, selection.limit) for selection in asked]


@pytest_twisted.ensureDeferred
async def test_trying_now_is_the_relays(office: Office) -> None:
    """It ends the back-off of a way out too, which the spool knows nothing of."""
    names = await a_bad_morning(office.stage)
    await office.sign_in()
    await office.post("/act", action="flush", id=names["quota"], which="ticked")
    assert [Selection(ids=(names["quota"],))] == office.relay.flushed
    (message,) = await office.spool.list(Selection(ids=(names["quota"],)))
    assert message.due <= NOW
    await office.post("/flush")
    assert None is office.relay.flushed[-1]
    assert "tried now." in notice(await office.page())


@pytest_twisted.ensureDeferred
async def test_expiring_and_requeueing_reach_the_queue(office: Office) -> None:
    names = await a_bad_morning(office.stage)
    await office.sign_in()
    answer = await office.post("/act", action="expire", id=names["quota"])
    assert "Return 1 message to sender?" == read(answer.body).one("h1").text
    await office.post("/act", action="expire", id=names["quota"], sure="yes")
    await office.post("/act", action="requeue", id=names["aside"])
    (expired,) = await office.spool.list(Selection(ids=(names["quota"],)))
    (requeued,) = await office.spool.list(Selection(ids=(names["aside"],)))
    assert expired.expired
    assert (None, 0) == (requeued.aside, requeued.attempts)


@pytest_twisted.ensureDeferred
async def test_deleting_what_is_on_its_way_says_that_it_may_still_go_out(office: Office) -> None:
    names = await a_bad_morning(office.stage)
    await office.sign_in()
    ids = [names["active"], names["new"], "0123456789AB"]
    await office.post("/act", action="delete", id=ids, sure="yes")
    expected = (
        "2 messages were deleted. 1 of them is on the way at this moment and may still go out. "
        "1 other was gone already."
    )
    assert expected == notice(await office.page())


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
async def test_it_leads_back_to_pages_of_its_own_only(office: Office, back: str, to: str) -> None:
    name = await office.stage.message()
    await office.sign_in()
    answer = await office.post("/act", action="hold", id=name, back=back)
    assert (("Location", to),) == answer.headers


@pytest_twisted.ensureDeferred
async def test_from_its_own_page_a_deleted_message_leads_to_the_queue(office: Office) -> None:
    name = await office.stage.message()
    await office.sign_in()
    answer = await office.post(
        "/act", action="delete", id=name, back=f"/message/{name}", sure="yes"
    )
    assert (("Location", "/"),) == answer.headers


@pytest_twisted.ensureDeferred
async def test_an_action_that_there_is_not_is_400(office: Office) -> None:
    name = await office.stage.message()
    await office.sign_in()
    assert 400 == (await office.post("/act", action="drop table", id=name)).code
