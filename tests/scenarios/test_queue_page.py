"""The queue page in a real browser, on a real queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from tests.admin.queue_contents import TOKEN, FakeRelay, QueueFiller, fill_queue, route
from tests.names import Selection, SQLiteQueue
from tests.scenarios.browser import Browser, browsing, contrast, why_not
from tests.scenarios.peers import require
from twisted_sendmail.admin.history import QueueSample
from twisted_sendmail.admin.metrics import FailureKind, FailureRecord
from twisted_sendmail.admin.site import AdminSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    require("browser", why_not())
    with browsing() as browser:
        yield browser


class Morning:
    """A queue after a bad night, its page, and a browser that looks at it."""

    def __init__(self, browser: Browser, queue: SQLiteQueue, reactor: Any) -> None:
        self.browser, self.queue, self.reactor = browser, queue, reactor
        self.relay = FakeRelay(queue, reactor)
        self.relay.routes += (
            route("bulk", ("bulk.example.net:465",), wait=212, reason="timed out"),
        )
        self.site = AdminSite(reactor, queue, self.relay, token=TOKEN, name="mail.example.org")
        self.address = ""
        self.names: dict[str, str] = {}

    async def begin(self) -> None:
        self.names = await fill_queue(QueueFiller(self.queue, self.reactor))
        self.site.startService()
        now = self.reactor.seconds()
        # An hour that has passed: rising, then two minutes without a sample, then falling.
        before = [n for n in range(359, 0, -1) if not 180 < n < 193]
        self.site.history._fine.extendleft(
            QueueSample(now - 10 * n, 5 + min(n, 359 - n) // 9, 36.0 * (360 - n))
            for n in reversed(before)
        )
        said = "550 5.1.1 <nobody@example.net>: User unknown"
        failed = FailureRecord(
            now - 400, FailureKind.BOUNCED, said, "0123456789AB", "nobody@example.net", "mx"
        )
        self.site.metrics.add_failure(failed)
        port: Any = await self.site.listen(
            serverFromString(self.reactor, "tcp:0:interface=127.0.0.1")
        )
        self.address = f"http://127.0.0.1:{port.getHost().port}"

    async def queues(self) -> dict[str, str]:
        return {m.id: m.queue_name for m in await self.queue.list(Selection())}

    # What blocks, for a thread.

    def go(self, path: str = "/") -> Browser:
        self.browser.look()
        self.browser.open(self.address + path)
        return self.browser

    def sign_in(self) -> Browser:
        browser = self.go("/sign-in")
        browser.find("#token").send_keys(TOKEN)
        browser.click("main button")
        return browser


@pytest_twisted.async_yield_fixture
async def morning(chromium: Browser, reactor: Any, tmp_path: Path) -> AsyncIterator[Morning]:
    queue = SQLiteQueue(reactor, tmp_path / "queue", least_free=0)
    await queue.open()
    morning = Morning(chromium, queue, reactor)
    await morning.begin()
    await deferToThread(_quiet, chromium)
    yield morning
    requested, complaints = await deferToThread(_end, chromium)
    await morning.site.stopService()
    await queue.close()
    # Whatever a test does: nothing leaves the page's own address, and the console is silent.
    assert {
        address
        for address in requested
        if not address.startswith((morning.address + "/", "data:image/svg"))
    } == set()
    assert complaints == []


def _quiet(browser: Browser) -> None:
    browser.open("about:blank")
    browser.driver.delete_all_cookies()
    browser.requested()
    browser.complaints()


def _end(browser: Browser) -> tuple[set[str], list[str]]:
    found = browser.requested(), browser.complaints()
    browser.open("about:blank")
    return found


@pytest_twisted.ensureDeferred
async def test_the_chart_is_drawn_with_its_points_and_axes(morning: Morning) -> None:
    def look() -> tuple[list[dict[str, Any]], list[str], list[str], list[str]]:
        browser = morning.go()
        boxes = browser.run(
            "return [...document.querySelectorAll('.panel path.line')].map(path => {"
            "const box = path.getBoundingClientRect(), all = path.closest('svg').getBoundingClientRect();"
            "return {length: path.getTotalLength(), width: box.width / all.width, height: box.height / all.height,"
            "inside: box.top >= all.top - 2 && box.bottom <= all.bottom + 2, fill: getComputedStyle(path).stroke}})"
        )
        ys = [span.text for span in browser.all(".depth .y span")]
        xs = [span.text for span in browser.all(".depth .x span")]
        said = [figure.get_attribute("aria-label") or "" for figure in browser.all(".panel svg")]
        return boxes, ys, xs, said

    boxes, ys, xs, said = await deferToThread(look)
    # Two panels, each with a line before and one after the gap.
    assert len(boxes) == 4
    for box in boxes:
        assert box["inside"]
        assert box["length"] > 100
        assert 0.4 < box["width"] < 0.6
        assert box["height"] > 0.2
        assert "none" != box["fill"]
    assert ys == ["30", "20", "10", "0"]
    assert xs == ["1 h ago", "45 min ago", "30 min ago", "15 min ago", "now"]
    assert said[0].startswith("Messages that wait: 9 now, 24 at most")
    assert said[1].startswith("Age of the oldest: 3 h 3 min now")


@pytest_twisted.ensureDeferred
async def test_the_style_sheet_is_the_one_that_the_policy_allows(morning: Morning) -> None:
    def look() -> tuple[str, str]:
        browser = morning.go()
        return (
            browser.run("return getComputedStyle(document.querySelector('.sheet')).borderRadius"),
            browser.run("return getComputedStyle(document.querySelector('.y')).display"),
        )

    assert await deferToThread(look) == ("12px", "flex")


@pytest_twisted.ensureDeferred
async def test_a_person_sees_why_each_message_waits(morning: Morning) -> None:
    def look() -> tuple[str, str, str]:
        browser = morning.go()
        page = browser.text()
        browser.click(f"a[href='/message/{morning.names['quota']}']")
        return page, browser.text("h1"), browser.text("tbody")

    page, title, recipients = await deferToThread(look)
    assert "9 messages wait to go out" in page
    assert "No answer from the server" in page
    assert "452 4.2.2 <dave@example.com>: mailbox is over its quota" in page
    assert "Down, next try in 3 min" in page
    assert "550 5.1.1 <nobody@example.net>: User unknown" in page
    assert title == f"Message {morning.names['quota']}"
    assert "carol@example.com" in recipients
    assert "Delivered" in recipients


@pytest_twisted.ensureDeferred
async def test_hostile_text_is_inert_wherever_it_is_seen(morning: Morning) -> None:
    def look() -> list[tuple[str, str, int]]:
        found = []
        browser = morning.sign_in()
        for path in (
            "/",
            f"/message/{morning.names['hostile']}",
            "/?recipient=%3Cscript%3Ealert(1)%3C/script%3E",
        ):
            browser.open(morning.address + path)
            foreign = len(browser.all("script, img, iframe, object, embed, [onerror]"))
            found.append((browser.driver.title, browser.text(), foreign))
        field = browser.find("#recipient").get_attribute("value") or ""
        return [*found, (field, "", 0)]

    overview, message, _, field = await deferToThread(look)
    assert (overview[0], overview[2]) == ("Mail queue – mail.example.org", 0)
    assert (message[0], message[2]) == (f"Message {morning.names['hostile']} – mail.example.org", 0)
    for text in (overview[1], message[1]):
        assert '<script>document.title="broken"</script>' in text
        assert "<img src=x onerror=alert(1)>\\u202egnp.\\u2066exe\\x1b[31m" in text
        assert "\u202e" not in text
        assert "\u2066" not in text
    # The subject, as the header of the message has it.
    assert 'Subject: <script>document.title="broken"</script>' in message[1]
    assert field[0] == "<script>alert(1)</script>"


@pytest_twisted.ensureDeferred
async def test_the_wrong_token_is_refused_and_the_right_one_signs_in(morning: Morning) -> None:
    def visit() -> tuple[list[str], list[dict[str, Any]]]:
        browser = morning.go()
        said = [browser.text("header")]
        browser.click("header a[href='/sign-in']")
        browser.find("#token").send_keys("a-wrong-token-of-mine")
        browser.click("main button")
        said.append(browser.text("[role=alert]"))
        browser.find("#token").send_keys(TOKEN)
        browser.click("main button")
        said.append(browser.text("header"))
        cookies = browser.driver.get_cookies()
        browser.click("header button")
        said.append(browser.text("header"))
        cookies += browser.driver.get_cookies()
        return said, cookies

    said, cookies = await deferToThread(visit)
    assert [
        said[0].splitlines()[-1],
        said[1],
        said[2].splitlines()[-1],
        said[3].splitlines()[-1],
    ] == ["Sign in to act", "That is not the token.", "Sign out", "Sign in to act"]
    (cookie,) = cookies
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    # A refused sign-in is an answer that the console notes; it is no fault.
    await deferToThread(morning.browser.complaints)


@pytest_twisted.ensureDeferred
async def test_signing_in_needs_no_mouse(morning: Morning) -> None:
    def visit() -> tuple[str, str]:
        browser = morning.go()

        def press(*keys: str) -> None:
            ActionChains(browser.driver).send_keys(*keys).perform()

        def focused() -> str:
            return str(browser.run("return document.activeElement.textContent.trim()"))

        for _ in range(4):
            press(Keys.TAB)
            if focused() == "Sign in to act":
                break
        outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        browser.leave(lambda: press(Keys.ENTER))
        # The field has the focus already.
        browser.leave(lambda: press(TOKEN, Keys.ENTER))
        return outline, browser.text("header")

    outline, header = await deferToThread(visit)
    assert outline == "solid"
    assert header.endswith("Sign out")


@pytest_twisted.ensureDeferred
async def test_messages_are_held_flushed_and_deleted(morning: Morning) -> None:
    names = morning.names

    def tick(browser: Browser, *wanted: str) -> None:
        for name in wanted:
            browser.find(f"input[value='{names[name]}']").click()

    def hold() -> str:
        browser = morning.sign_in()
        tick(browser, "quota", "new")
        browser.click("button[value=hold]")
        return browser.text("[role=status]")

    assert await deferToThread(hold) == "2 messages were put on hold."
    queues = await morning.queues()
    assert (queues[names["quota"]], queues[names["new"]]) == ("hold", "hold")
    assert list(queues.values()).count("hold") == 3

    def flush() -> str:
        browser = morning.go()
        tick(browser, "deferred")
        browser.click("button[value=flush]")
        return browser.text("[role=status]")

    assert await deferToThread(flush) == "1 message was tried now."
    (flushed,) = await morning.queue.list(Selection(ids=(names["deferred"],)))
    assert flushed.due <= morning.reactor.seconds()

    def delete() -> tuple[str, str]:
        browser = morning.go(f"/message/{names['hostile']}")
        browser.click("button[value=delete]")
        asked = browser.text("h1")
        browser.click("button[value=delete]")
        return asked, browser.text("[role=status]")

    assert await deferToThread(delete) == ("Delete 1 message?", "1 message was deleted.")
    assert set(queues) - {names["hostile"]} == set(await morning.queues())

    def everything() -> tuple[str, str]:
        browser = morning.go("/?queue=hold")
        browser.find("input[value=matching]").click()
        browser.click("button[value=delete]")
        asked = browser.text("h1")
        browser.click("button[value=delete]")
        return asked, browser.driver.current_url

    asked, where = await deferToThread(everything)
    assert (asked, where) == ("Delete 3 messages?", f"{morning.address}/?queue=hold")
    assert "hold" not in (await morning.queues()).values()
    assert len(await morning.queues()) == 7


@pytest_twisted.ensureDeferred
async def test_everything_is_tried_now(morning: Morning) -> None:
    def flush() -> str:
        browser = morning.sign_in()
        browser.click("form[action='/flush'] button")
        return browser.text("[role=status]")

    assert "tried now." in await deferToThread(flush)
    assert morning.relay.flushed == [None]


@pytest_twisted.ensureDeferred
async def test_filters_and_the_time_shown_are_kept(morning: Morning) -> None:
    def filter_() -> tuple[str, list[str], str]:
        browser = morning.go("/?span=days")
        browser.find("#recipient").send_keys("@example.com")
        browser.leave(lambda: browser.find("#recipient").send_keys(Keys.ENTER))
        ids = [link.text for link in browser.all("td a")]
        return browser.text(".choice a[aria-current]"), ids, browser.driver.current_url

    span, ids, where = await deferToThread(filter_)
    assert ("Two days", [morning.names["quota"]]) == (span, ids)
    assert "recipient=%40example.com" in where


@pytest_twisted.ensureDeferred
async def test_every_text_has_contrast(morning: Morning) -> None:
    def look() -> dict[bool, list[tuple[str, list[float], list[float]]]]:
        browser = morning.sign_in()
        seen: dict[bool, list[tuple[str, list[float], list[float]]]] = {False: [], True: []}
        for path in ("/", f"/message/{morning.names['quota']}", "/sign-in"):
            if path == "/sign-in":
                browser.click("header button")
            browser.open(morning.address + path)
            for dark, texts in seen.items():
                browser.look(dark=dark)
                texts.extend(browser.colours())
        return seen

    for dark, seen in (await deferToThread(look)).items():
        assert len(seen) > 150
        lightness = sum(sum(back) for _, _, back in seen) / len(seen) / 765
        assert dark == (lightness < 0.5)
        poor = [
            (text, round(contrast(fore, back), 2))
            for text, fore, back in seen
            if contrast(fore, back) < 4.5
        ]
        assert poor == []


@pytest_twisted.ensureDeferred
async def test_the_curves_and_fields_stand_out(morning: Morning) -> None:
    """Lines that mean something have a contrast of 3 (WCAG 2.2 section 1.4.11)."""

    def look(dark: bool) -> tuple[list[list[float]], list[float]]:
        browser = morning.go()
        browser.look(dark=dark)
        parse = "c => c.match(/[\\d.]+/g).map(Number).slice(0, 3)"
        return (
            browser.run(
                f"const p = {parse}; return [...document.querySelectorAll('path.line')].map("
                "e => p(getComputedStyle(e).stroke)).concat([...document.querySelectorAll('input, select, main button')]"
                ".map(e => p(getComputedStyle(e).borderTopColor)))"
            ),
            browser.run(
                f"return ({parse})(getComputedStyle(document.querySelector('.sheet')).backgroundColor)"
            ),
        )

    for dark in (False, True):
        lines, sheet = await deferToThread(look, dark)
        assert len(lines) >= 7
        assert [line for line in lines if contrast(line, sheet) < 3] == []


@pytest_twisted.ensureDeferred
async def test_no_width_needs_scrolling_sideways(morning: Morning) -> None:
    paths, widths = ("/", f"/message/{morning.names['hostile']}"), (320, 390, 768, 1024, 1280)

    def look() -> list[tuple[int, list[str]]]:
        browser = morning.sign_in()
        found = []
        for path in paths:
            browser.open(morning.address + path)
            for width in widths:
                browser.look(width=width)
                wide = browser.run(
                    "const all = document.documentElement; return all.scrollWidth - all.clientWidth"
                )
                # Nothing may be cut off either.
                beyond = browser.run(
                    "return [...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && "
                    "!e.closest('svg, .x, thead') && e.getBoundingClientRect().right > innerWidth + 1)"
                    ".map(e => e.outerHTML.slice(0, 80))"
                )
                found.append((wide, beyond))
        return found

    assert await deferToThread(look) == [(0, [])] * len(paths) * len(widths)
