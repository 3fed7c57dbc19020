"""Several messages in flight: a refusal, or the end of the connection, concerns only the right ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, PIPELINING, AfterRefusal, Delivery
from tests.client.scripted_server import CLOSE, RESET, flights_of
from tests.deferreds import Result
from twisted_sendmail.client.pool import ConnectionState
from twisted_sendmail.smtp import DeliveryInDoubt, RecipientStatus

ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus
REFUSALS: dict[str, Any] = {
    "MAIL": {"sender": "banned@example.org"},
    "one RCPT": {"to": ["gone@example.net", "bob@example.net"]},
    "the last RCPT": {"to": ["bob@example.net", "gone@example.net"]},
    "all RCPT": {"to": ["gone@example.net", "gone2@example.net"]},
    "content": {"fields": "X-Refuse: yes\r\n"},
}


def expected_of(place: int, changes: dict[str, Any]) -> Delivery:
    sender = changes.get("sender", f"sender{place}@example.org")
    to = changes.get("to", [f"r{place}@example.net"])
    content = a_message(place, fields=changes.get("fields", ""))[1]
    return Delivery(sender, tuple(each for each in to if not each.startswith("gone")), content)


@pytest.mark.parametrize("after", AfterRefusal)
@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize("places", [[0], [1], [4], [7], [0, 1, 2], [2, 5], list(range(8))])
def test_a_refusal_inside_a_window_never_cascades(
    post: Post, after: AfterRefusal, what: str, places: list[int]
) -> None:
    changes: dict[int, dict[str, Any]] = {
        n: REFUSALS[what] if n in places else {} for n in range(8)
    }
    messages = [
        a_message(
            n,
            **{"to": f"r{n}@example.net", "sender": f"sender{n}@example.org", **changes[n]},
        )
        for n in range(8)
    ]
    mailer = post.mailer(post.world.server(after_refusal=after), connections=1)
    reports = post.many(mailer, messages).get()
    taken = [
        expected_of(n, changes[n]) for n in range(8) if n not in places or what.endswith("RCPT")
    ]
    assert [each for each in taken if each.recipients] == sorted(
        post.world.delivered, key=lambda delivery: int(delivery.content.split()[5])
    )
    assert [report.error for report in reports] == [None] * 8
    for n, report in enumerate(reports):
        refused = [
            n in places and (what in {"MAIL", "content"} or str(o.recipient).startswith("gone"))
            for o in report.outcomes
        ]
        assert [REFUSED if no else ACCEPTED for no in refused] == statuses(report)
    assert post.endpoint.attempts == 1


@pytest.mark.parametrize("offers", [CHUNKING, PIPELINING])
def test_replies_go_to_the_messages_they_answer(post: Post, offers: tuple[str, ...]) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    reports = post.many(mailer, [a_message(n, f"r{n}@example.net") for n in range(50)]).get()
    queued = [int(report.queue_id, 16) - 1 for report in reports]
    assert [f"{n}" for n in range(50)] == [post.world.subjects[at] for at in queued]


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("answered", range(9))
def test_a_connection_lost_inside_the_window_leaves_each_accepted_in_doubt_or_untouched(
    post: Post, end: Any, answered: int
) -> None:
    """The second message is refused; the reply to message number *answered* never comes."""
    first = {f"BDAT_LAST#{answered + 1}": end, f"BDAT_LAST#{answered + 2}": end}
    if answered > 0:
        first["MAIL#1"] = "550 5.7.1 not from you"
    mailer = post.mailer(post.world.server(first), post.world.server(), connections=1)
    reports = post.many(mailer, [a_message(n) for n in range(12)]).get()
    verdicts = [ACCEPTED] * 12
    verdicts[0] = REFUSED
    # Eight were on their way, and as many after them as verdicts came in time.
    under_way = [n for n, r in enumerate(reports) if statuses(r) == [IN_DOUBT]]
    assert under_way == list(range(answered, answered + len(under_way)))
    assert 1 <= len(under_way) <= 8
    for n in under_way:
        verdicts[n] = IN_DOUBT
        assert isinstance(reports[n].error, DeliveryInDoubt)
    if answered == 0:
        assert verdicts[0] is IN_DOUBT
    assert [[status] for status in verdicts] == [statuses(report) for report in reports]
    # What was in doubt went nowhere else.
    again = [n for n in under_way if str(n) in post.world.subjects]
    assert again == []
    assert len(set(post.world.subjects)) == len(post.world.subjects)


def test_only_the_untouched_go_to_another_connection(post: Post) -> None:
    """The next message has its envelope under way after the dot, and no content: it is untouched."""
    first = post.world.server({".#2": CLOSE}, offers=PIPELINING)
    second = post.world.server(offers=PIPELINING)
    mailer = post.mailer(first, second, connections=1, pipeline_after_data=True)
    reports = post.many(mailer, [a_message(n) for n in range(4)]).get()
    expected = [[ACCEPTED], [IN_DOUBT], [ACCEPTED], [ACCEPTED]]
    assert [statuses(report) for report in reports] == expected
    assert post.world.subjects == ["0", "2", "3"]
    assert [v for v in post.world.servers[0].verbs if v == "MAIL"] == ["MAIL"] * 3
    assert post.endpoint.attempts == 2


def test_a_window_of_one_has_never_more_than_one_in_doubt(post: Post) -> None:
    seen: list[int] = []

    def count(server: Any, key: str, line: str) -> None:
        if key == "BDAT_LAST":
            seen.append(post.pump.links[-1].client.waiting)

    post.world.fault = count
    first = post.world.server({"BDAT_LAST#3": CLOSE})
    mailer = post.mailer(first, post.world.server(), connections=1, window=1)
    reports = post.many(mailer, [a_message(n) for n in range(8)]).get()
    expected = [[ACCEPTED]] * 2 + [[IN_DOUBT]] + [[ACCEPTED]] * 5
    assert [statuses(report) for report in reports] == expected
    for link in post.pump.links:
        assert all(sum(s.startswith("BDAT") for s in flight) <= 1 for flight in flights_of(link))


def test_a_window_is_bounded_in_octets(post: Post) -> None:
    mailer = post.mailer(connections=1, window_octets=10_000)
    _ = post.many(mailer, [a_message(n, size=4000) for n in range(9)]).get()
    sizes = [
        sum(int(line.split()[1]) for line in flight if line.startswith("BDAT"))
        for flight in flights_of(post.pump.links[0])
    ]
    assert 12_300 > max(sizes) > 8_000
    assert len(post.world.delivered) == 9


def test_windows_are_bounded_in_octets_over_all_connections(post: Post) -> None:
    """Each has one message even so."""
    mailer = post.mailer(connections=4, octets=10_000)
    result = Result(mailer.send_many([a_message(n, size=4000) for n in range(40)]).deferred())
    most = 0
    while post.pump.turn():
        connections = mailer.pool._in(*ConnectionState)
        most = max(most, sum(each.inflight_octets for each in connections))
    assert len(result.get()) == 40
    assert 10_000 + 4 * 4_200 >= most >= 10_000
    assert len(post.pump.links) == 4


def test_a_large_message_goes_alone(post: Post) -> None:
    """It is not sent before its recipients are known, and nothing goes out after it."""
    messages = [
        a_message("a"),
        a_message("b"),
        a_message("large", size=600_000),
        a_message("c"),
        a_message("d"),
    ]
    mailer = post.mailer(connections=1)
    reports = post.many(mailer, messages).get()
    assert [report.error for report in reports] == [None] * 5
    assert [statuses(report) for report in reports] == [[ACCEPTED]] * 5
    assert post.world.subjects == ["a", "b", "large", "c", "d"]
    flights = [[line.split()[0] for line in f] for f in flights_of(post.pump.links[0])[1:]]
    envelope = ["RSET", "MAIL", "RCPT"]
    assert ["MAIL", "RCPT", "BDAT", *envelope, "BDAT", *envelope] == flights[0]
    large = [f for f in flights if f and set(f) <= {"BDAT"}]
    assert large
    assert ["MAIL", "RCPT", "BDAT", *envelope, "BDAT"] == flights[1 + len(large)]


@pytest.mark.parametrize("after", AfterRefusal)
def test_a_window_behind_a_refusal_goes_elsewhere_where_rset_is_refused(
    post: Post, after: AfterRefusal
) -> None:
    """No message is sent after another to such a server: each of its refusals costs a connection."""
    made = post.world.server({"RSET": "502 5.5.1 no"}, after_refusal=after)
    mailer = post.mailer(made, connections=1)
    messages = [a_message(n, "gone@example.net" if n == 1 else "bob@example.net") for n in range(8)]
    reports = post.many(mailer, messages).get()
    assert statuses(reports[1]) == [REFUSED]
    doubtful = [n for n, report in enumerate(reports) if report.in_doubt]
    expected = sorted({f"{n}" for n in range(8)} - {"1"} - {f"{n}" for n in doubtful})
    taken = [s for s in post.world.subjects if int(s) not in doubtful]
    assert sorted(taken) == expected
    assert [] == doubtful or after in {AfterRefusal.KEEPS_SENDER, AfterRefusal.SAYS_YES}
