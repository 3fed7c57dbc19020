"""Random schedules of sends, cancels, faults, losses, time and closing, with laws for all of them.

Every Deferred fires exactly once; counts return to zero; nothing is left, neither timer
nor connection; nothing that was told accepted is missing, nothing told refused or
untouched was taken, and nothing goes to two connections once it may have been taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import DNSLookupError

from tests.client.conftest import Net
from tests.client.mailer.conftest import Post, a_message
from tests.client.mailer.postbox import (
    CHUNKING,
    CHUNKS_ALONE,
    NOTHING,
    PIPELINING,
    AfterRefusal,
    Postbox,
    subject,
)
from tests.client.scripted_server import CLOSE, RESET, SILENT
from tests.deferreds import Result
from twisted_sendmail import DeliveryReport, RecipientStatus, Timeouts

PATIENCE = Timeouts(**{field.name: 5.0 for field in fields(Timeouts)})
KEYS = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", ".", "BDAT", "BDAT_LAST", "RSET", "QUIT"]
FAULTS = [CLOSE, RESET, SILENT, "421 4.3.2 bye", ("421 4.3.2 bye", CLOSE), "451 4.3.0 later",
          "550 5.7.1 no", "garbage", b"25", "354 what"]  # fmt: skip
MESSAGES: list[dict[str, Any]] = [
    {},
    {"to": ["gone@example.net", "bob@example.net"]},
    {"to": "gone@example.net"},
    {"sender": "banned@example.org"},
    {"fields": "X-Refuse: yes\r\n"},
    {"size": 5000},
    {"size": 200_000},
]

faults = st.tuples(st.sampled_from(KEYS), st.integers(1, 4), st.sampled_from(FAULTS), st.booleans())
steps = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(MESSAGES), st.integers(1, 10)),
    st.tuples(st.just("many"), st.sampled_from(MESSAGES), st.integers(1, 30)),
    st.tuples(st.just("connect"), st.integers(1, 5), st.none()),
    st.tuples(st.just("cancel"), st.integers(0, 100), st.none()),
    st.tuples(st.just("turns"), st.integers(1, 12), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 3.0, 7.0, 40.0, 400.0]), st.none()),
    st.tuples(st.just("lose"), st.integers(0, 5), st.sampled_from([CLOSE, RESET, "250 ok", "421"])),
)
closings = st.none() | st.tuples(
    st.integers(0, 14), st.sampled_from([None, 0.1, 20.0]), st.booleans()
)
limits = st.fixed_dictionaries(
    {
        "connections": st.integers(1, 4),
        "messages": st.sampled_from([1, 2, 5, 1000]),
        "window": st.sampled_from([1, 2, 8]),
        "window_octets": st.sampled_from([100, 20_000, 1_000_000]),
        "age": st.sampled_from([5.0, 300.0]),
        "idle": st.sampled_from([1.0, 30.0]),
        "waiters": st.sampled_from([3, 10_000]),
        "wait": st.sampled_from([5.0, 600.0, None]),
        "rate": st.sampled_from([None, 2.0, 100.0]),
        "burst": st.sampled_from([1, 10]),
    }
)


class Run:
    """One schedule."""

    def __init__(self, post: Post, offers: Any, after: Any, places: int, **bounds: Any) -> None:
        self.post = post
        self.results: dict[str, Result] = {}
        self.batches: list[tuple[list[str], Result]] = []
        self.all: list[Result] = []
        self.count = 0
        settings = {"timeouts": evolve(PATIENCE, total=300.0)}
        made = post.world.server(offers=offers, after_refusal=after)
        self.mailer = post.mailer(*[post.place(made, **settings) for _ in range(places)], **bounds)

    def step(self, what: str, one: Any, two: Any) -> None:
        getattr(self, f"do_{what}")(one, two)

    def names(self, count: int) -> list[str]:
        self.count += count
        return [f"m{n}m" for n in range(self.count - count, self.count)]

    def do_send(self, kind: Any, count: int) -> None:
        for name in self.names(count):
            (self.results[name],) = self.post.start(self.mailer, a_message(name, **kind))
            self.all.append(self.results[name])

    def do_many(self, kind: Any, count: int) -> None:
        names = self.names(count)
        source = (a_message(name, **(kind if n % 3 == 1 else {})) for n, name in enumerate(names))
        result = Result(self.mailer.send_many(source, complete=False).deferred())
        self.batches.append((names, result))
        self.all.append(result)

    def do_connect(self, count: int, _: Any) -> None:
        self.all.append(Result(self.mailer.connect(count)))

    def do_cancel(self, which: int, _: Any) -> None:
        if self.all:
            self.all[which % len(self.all)].deferred.cancel()

    def do_turns(self, turns: int, _: Any) -> None:
        for _turn in range(turns):
            self.post.pump.turn()

    def do_wait(self, seconds: float, _: Any) -> None:
        self.post.pump.advance(seconds)

    def do_lose(self, which: int, how: Any) -> None:
        alive = [server for server in self.post.world.servers if not server.link.over]
        if alive:
            alive[which % len(alive)].say(how)

    def do_close(self, grace: float | None, cancelled: bool) -> None:
        closing = Result(self.mailer.aclose(grace=grace))
        self.all.append(closing)
        if cancelled:
            closing.deferred.cancel()

    def reports(self) -> Iterator[tuple[str, DeliveryReport | None]]:
        for name, result in self.results.items():
            yield name, result.value or getattr(result.error, "report", None)
        for names, result in self.batches:
            for name, report in zip(names, result.value or [], strict=False):
                yield name, report


def judge(run: Run) -> None:
    world = run.post.world
    assert [1] * len(run.all) == [result.fired for result in run.all]
    stats = run.mailer.stats()
    assert (stats.idle, stats.leased, stats.opening, stats.waiting) == (0, 0, 0, 0)
    assert world.open == 0
    assert [str(call) for call in run.post.clock.getDelayedCalls()] == []

    taken = Counter(world.subjects)
    heard_whole = Counter(subject(m) for server in world.servers for m in server.messages)
    assert [name for name, times in taken.items() if times > 1] == []
    for name, report in run.reports():
        if report is None:
            continue
        known = {outcome.status for outcome in report.outcomes}
        if RecipientStatus.ACCEPTED in known:
            assert taken[name] or heard_whole[name]
            assert heard_whole[name] >= 1
        if known == {RecipientStatus.UNTOUCHED}:
            assert not taken[name]
        if RecipientStatus.IN_DOUBT in known:
            assert 1 >= taken[name]
    for delivery in world.delivered:
        assert delivery.sender == "alice@example.org"
        assert delivery.recipients == ("bob@example.net",)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.client.certificates import authority

    return authority().write(tmp_path_factory.mktemp("ca") / "ca.pem")


schedules = given(
    schedule=st.lists(steps, min_size=1, max_size=14),
    closing=closings,
    trouble=st.lists(faults, max_size=4),
    down=st.lists(st.booleans(), max_size=3),
    offers=st.sampled_from([CHUNKING, PIPELINING, CHUNKS_ALONE, NOTHING]),
    after=st.sampled_from(list(AfterRefusal)),
    places=st.integers(1, 2),
    bounds=limits,
)


def hold_to_the_laws(  # noqa: PLR0917 - Hypothesis gives them by name
    ca: Any,
    schedule: Any,
    closing: Any,
    trouble: Any,
    down: Any,
    offers: Any,
    after: Any,
    places: int,
    bounds: Any,
) -> None:
    post = Post(Net(ca))
    seen: Counter[str] = Counter()

    def fault(server: Postbox, key: str, line: str) -> Any:
        seen[key] += 1
        for at, nth, what, always in trouble:
            if at == key and (seen[key] == nth or (always and seen[key] > nth)):
                return what
        return None

    post.world.fault = fault
    run = Run(post, offers, after, places, **bounds)
    endpoint = post.endpoint
    for broken in down:
        if broken:
            endpoint.servers.appendleft(DNSLookupError("no such host"))
    for number, step in enumerate(schedule):
        if closing is not None and closing[0] == number:
            run.step("close", *closing[1:])
        run.step(*step)
    post.pump.advance(1)
    run.do_close(30.0, cancelled=False)
    post.pump.advance(3000)
    judge(run)


@schedules
def test_the_laws_hold_in_every_schedule(ca: Any, **schedule: Any) -> None:
    hold_to_the_laws(ca, **schedule)
