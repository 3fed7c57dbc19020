"""Order and number of leased messages: fairness, limits, no spinning."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.names import (
    Event,
    LeasedMessage,
    MessageInfo,
    QueuedMessage,
    QueuedRecipient,
    QueueError,
    Trouble,
)
from twisted_sendmail import Envelope, RetryPolicy, RouteSettings, SubmissionServer
from twisted_sendmail.relay.attempt_result import AttemptOutcome
from twisted_sendmail.relay.queue_manager import RouteQueue
from twisted_sendmail.relay.route import Route, Slot

ENVELOPE = Envelope("alice@example.org", "bob@example.net")


def leased(number: int, attempts: int, due: float = 0.0) -> LeasedMessage:
    info = MessageInfo(f"{number:012}", ENVELOPE, 0.0, "out")
    recipient = QueuedRecipient(0, ENVELOPE.recipients[0], due=due, attempts=attempts)
    return LeasedMessage(QueuedMessage(info, 4, (recipient,), due, attempts), b"x\r\n")


class FakeSpool:
    """As much of a spool as a lane sees."""

    def __init__(self) -> None:
        self.fresh: list[LeasedMessage] = []
        self.retries: list[LeasedMessage] = []
        self.released: list[str] = []
        #: What was asked for: fresh, retries.
        self.asked: list[tuple[int, int]] = []
        self.trouble = False
        self.held_back: list[tuple[Deferred[Any], list[LeasedMessage]]] | None = None

    def lease(
        self, route: str, now: float, *, fresh: int, retries: int, horizon: float
    ) -> Deferred[list[LeasedMessage]]:
        self.asked.append((fresh, retries))
        if self.trouble:
            return fail(QueueError("the disk is on fire"))
        due = [each for each in self.retries if each.message.due <= now]
        found = self.fresh[:fresh] + due[:retries]
        self.fresh = [each for each in self.fresh if each not in found]
        self.retries = [each for each in self.retries if each not in found]
        if self.held_back is None:
            return succeed(found)
        waiting: Deferred[list[LeasedMessage]] = Deferred()
        self.held_back.append((waiting, found))
        return waiting

    def release(self, leased: Sequence[LeasedMessage]) -> Deferred[None]:
        self.released += [each.message.id for each in leased]
        return succeed(None)


class Bench:
    """One lane, and what it carries."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)
        spool: Any = FakeSpool()
        self.spool = spool
        self.events: list[Event] = []
        self.carried: list[LeasedMessage] = []
        self.slots: dict[str, Slot] = {}
        settings = RouteSettings("out", (SubmissionServer.of("smtp://mx.example"),))
        self.route = Route(
            self.clock,
            settings,
            "relay.example",
            RetryPolicy(),
            notify=self.events.append,
            chance=lambda: 0.5,
        )
        self.surveys = 0
        manager: Any = SimpleNamespace(
            reactor=self.clock,
            queue=self.spool,
            agent=SimpleNamespace(deliver=lambda route, found, on_end: self.carry(found)),
            notify=self.events.append,
            ask_due=self.survey,
            recorded=lambda record, left: None,
        )
        self.manager = manager
        self.route_queue = RouteQueue(manager, self.route)

    def carry(self, found: Sequence[tuple[LeasedMessage, Slot]]) -> None:
        for each, slot in found:
            self.carried.append(each)
            self.slots[each.message.id] = slot

    def survey(self) -> None:
        self.surveys += 1
        times = [each.message.due for each in self.spool.fresh + self.spool.retries]
        self.route_queue.next_due(min(times, default=None))

    def end(self, count: int, outcome: AttemptOutcome = AttemptOutcome.REPLIED) -> None:
        """The oldest *count* of those under way come to their end."""
        some, self.carried = self.carried[:count], self.carried[count:]
        for each in some:
            slot = self.slots.pop(each.message.id)
            self.route.report_outcome(slot, outcome, "why")
            self.route_queue.free(slot, None)

    @property
    def kinds(self) -> tuple[int, int]:
        """New and old ones under way."""
        new = sum(not each.message.attempts for each in self.carried)
        return new, len(self.carried) - new


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_leases_exactly_what_there_is_room_for(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(1000)]
    bench.route_queue.look()
    assert len(bench.carried) == 5
    while bench.spool.fresh:
        bench.end(1)
        assert len(bench.carried) <= bench.route.window.size <= bench.route.mailer.capacity
    bench.end(1000)
    assert (bench.route.stats().under_way, bench.carried) == (0, [])


def test_new_and_old_have_half_each_where_both_wait(bench: Bench) -> None:
    bench.route.window.size = 40
    bench.spool.fresh = [leased(n, 0) for n in range(1000)]
    bench.spool.retries = [leased(5000 + n, 1) for n in range(1000)]
    bench.route_queue.look()
    assert bench.kinds == (20, 20)
    for _ in range(20):
        bench.end(7)
        new, old = bench.kinds
        assert new >= 12
        assert old >= 12


def test_neither_starves_in_a_room_for_one(bench: Bench) -> None:
    bench.route.window.size = bench.route.window.most = 1
    bench.spool.fresh = [leased(n, 0) for n in range(100)]
    bench.spool.retries = [leased(5000 + n, 1) for n in range(100)]
    seen = []
    bench.route_queue.look()
    for _ in range(10):
        seen.append(bench.kinds)
        bench.end(1)
    assert (seen.count((1, 0)), seen.count((0, 1))) == (5, 5)


def test_one_has_all_where_the_other_does_not_wait(bench: Bench) -> None:
    bench.route.window.size = 40
    bench.spool.retries = [leased(n, 1) for n in range(100)]
    bench.route_queue.look()
    # But for a quarter that is kept for new mail.
    assert bench.kinds == (0, 30)
    assert bench.route_queue.claim()


def test_new_mail_is_claimed_while_old_mail_waits_up_to_its_half(bench: Bench) -> None:
    bench.route_queue.look()
    bench.route.window.size = 10
    bench.spool.retries = [leased(n, 1) for n in range(100)]
    bench.route_queue.changed()
    assert bench.kinds == (0, 8)
    assert [bool(bench.route_queue.claim()) for _ in range(3)] == [True, True, False]


def test_new_mail_is_not_claimed_past_older_new_mail(bench: Bench) -> None:
    bench.route_queue.look()
    claims = [bench.route_queue.claim() for _ in range(6)]
    assert [bool(each) for each in claims] == [True] * 5 + [False]
    bench.route_queue.arrived()
    # There is room again, and somebody waits for it; then he has it.
    assert [True, True] == [each is not None and each.free() for each in claims[:2]]
    assert not bench.route_queue.claim()
    bench.route_queue.look()
    assert bench.spool.asked[-1] == (1, 0)
    assert bench.route_queue.claim()


def test_new_mail_is_claimed_while_all_that_is_older_is_being_taken_out(bench: Bench) -> None:
    bench.route_queue.look()
    bench.spool.held_back = []
    bench.spool.fresh = [leased(1, 0)]
    bench.route_queue.arrived()
    assert bench.spool.asked[-1] == (1, 0)
    assert [bool(bench.route_queue.claim()) for _ in range(5)] == [True] * 4 + [False]
    ((waiting, found),) = bench.spool.held_back
    bench.spool.held_back = None
    waiting.callback(found)
    assert (len(bench.carried), bench.route.stats().under_way) == (1, 5)


def test_what_an_operator_does_while_a_lease_is_under_way_is_looked_for(bench: Bench) -> None:
    bench.spool.held_back = []
    bench.route_queue.look()
    ((waiting, found),) = bench.spool.held_back
    bench.spool.held_back = None
    bench.spool.fresh = [leased(n, 0) for n in range(4)]
    bench.route_queue.changed()
    waiting.callback(found)
    assert len(bench.carried) == 4


def test_what_comes_back_untried_while_a_lease_is_under_way_is_not_forgotten(bench: Bench) -> None:
    bench.spool.fresh = [leased(1, 0)]
    bench.route_queue.look()
    (back,) = bench.carried
    bench.spool.held_back = []
    bench.route_queue.changed()
    ((waiting, found),) = bench.spool.held_back
    bench.spool.held_back = None
    bench.carried.clear()
    bench.spool.fresh = [back]
    bench.route_queue.free(bench.slots[back.message.id], back.message)
    waiting.callback(found)
    assert [back] == bench.carried


def test_a_claim_that_came_to_nothing_gives_its_room_back(bench: Bench) -> None:
    bench.route_queue.look()
    claims = [bench.route_queue.claim() for _ in range(6)]
    assert [bool(each) for each in claims] == [True] * 5 + [False]
    assert claims[0] is not None
    assert (claims[0].free(), claims[0].free()) == (True, False)
    assert bench.route_queue.claim()


def test_what_arrives_while_a_lease_is_under_way_is_not_forgotten(bench: Bench) -> None:
    bench.spool.held_back = []
    bench.route_queue.look()
    ((waiting, found),) = bench.spool.held_back
    bench.spool.held_back = None
    bench.spool.fresh = [leased(1, 0)]
    bench.route_queue.arrived()
    waiting.callback(found)
    assert len(bench.carried) == 1


def test_trouble_in_the_spool_is_waited_out_longer_each_time(bench: Bench) -> None:
    bench.spool.trouble = True
    bench.spool.fresh = [leased(1, 0)]
    bench.route_queue.look()
    for _ in range(600):
        bench.clock.advance(1)
        bench.route_queue.look()
    assert len(bench.spool.asked) < 20
    assert len(bench.spool.asked) == len([e for e in bench.events if isinstance(e, Trouble)])
    bench.spool.trouble = False
    bench.clock.advance(60)
    assert len(bench.carried) == 1


def test_it_looks_when_the_next_is_due_and_in_any_case_each_minute(bench: Bench) -> None:
    bench.route_queue.look()
    now = bench.clock.seconds()
    bench.spool.retries = [leased(1, 1, now + 20)]
    bench.survey()
    bench.clock.advance(19.9)
    assert bench.carried == []
    bench.clock.advance(0.2)
    assert len(bench.carried) == 1
    before = len(bench.spool.asked)
    for _ in range(36_00):
        bench.clock.advance(1)
    assert 59 <= len(bench.spool.asked) - before <= 130


def test_what_is_due_and_cannot_be_had_makes_no_loop(bench: Bench) -> None:
    bench.manager.ask_due = lambda: bench.route_queue.next_due(0.0)
    bench.route_queue.look()
    for _ in range(3600):
        bench.clock.advance(1)
    assert len(bench.spool.asked) < 200


def test_nothing_is_leased_while_the_route_is_down_but_one_that_asks(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(100)]
    bench.route_queue.look()
    bench.end(5, AttemptOutcome.UNREACHABLE)
    assert bench.carried == []
    assert not bench.route_queue.claim()
    bench.clock.advance(4)
    assert len(bench.carried) == 1
    bench.clock.advance(3600)
    assert len(bench.carried) == 1
    bench.end(1)
    assert len(bench.carried) > 1


def test_what_comes_out_of_the_spool_after_the_route_went_down_goes_back(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(100)]
    bench.route_queue.look()
    bench.spool.held_back = []
    bench.end(3)
    ((waiting, found),) = bench.spool.held_back
    bench.end(1, AttemptOutcome.UNREACHABLE)
    waiting.callback(found)
    assert [each.message.id for each in found] == bench.spool.released


def test_what_comes_out_of_the_spool_after_the_end_goes_back(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(3)]
    bench.spool.held_back = []
    bench.route_queue.look()
    bench.route_queue.stop()
    ((waiting, found),) = bench.spool.held_back
    waiting.callback(found)
    assert (bench.carried, len(bench.spool.released)) == ([], 3)
    assert bench.clock.getDelayedCalls() == []


def test_one_failure_of_many_at_once_counts_once(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(5)]
    bench.route_queue.look()
    for each in bench.carried:
        slot = bench.slots[each.message.id]
        bench.route.report_outcome(slot, AttemptOutcome.UNREACHABLE, "why")
        bench.route_queue.free(slot, each.message)
    assert bench.route.back_off.left(bench.clock.seconds()) == 4


def test_a_question_that_hangs_does_not_hold_up_a_flush(bench: Bench) -> None:
    bench.spool.fresh = [leased(n, 0) for n in range(3)]
    bench.route.window.size = 1
    bench.route_queue.look()
    bench.end(1, AttemptOutcome.UNREACHABLE)
    bench.clock.advance(4)
    assert len(bench.carried) == 1
    bench.route.probe_now()
    bench.route_queue.changed()
    assert len(bench.carried) == 2
