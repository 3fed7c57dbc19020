"""The exact number of round trips: octets sent before any reply are one."""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message
from tests.client.mailer.postbox import CHUNKING, CHUNKS_ALONE, NOTHING, PIPELINING, AfterRefusal
from tests.client.scripted_server import PASSWORD, USER, flights_of
from twisted_sendmail.client import Mailer, TLSPolicy
from twisted_sendmail.sasl import Credentials

TO = [f"r{n}@example.net" for n in range(1000)]


def flights(post: Post) -> list[list[str]]:
    """What was said on the one connection since it was ready, by its verbs."""
    (link,) = post.pump.links
    return [
        [line.partition(" ")[0] for line in flight] for flight in flights_of(link)[post.before :]
    ]


def ready(post: Post, offers: Any, limits: Any = None, **settings: Any) -> Mailer:
    """A mailer whose one connection has served already, a moment ago."""
    server = post.world.server(offers=offers, **settings)
    mailer = post.mailer(server, connections=1, **(limits or {}))
    _ = post.send(mailer, a_message("first"))
    post.before = post.pump.links[0].flights
    return mailer


SECURE: dict[str, Any] = {"tls": TLSPolicy.STARTTLS, "credentials": Credentials(USER, PASSWORD)}


@pytest.mark.parametrize(
    ("offers", "first"),
    [
        (CHUNKING, [["MAIL", "RCPT", "BDAT"]]),
        (PIPELINING, [["MAIL", "RCPT", "DATA"], ["<content>."]]),
    ],
    ids=["BDAT", "DATA"],
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_setting_up_takes_five_flights_and_the_first_message_one_or_two(
    post: Post, offers: Any, first: Any, one_by_one: bool
) -> None:
    """EHLO, STARTTLS, the hello of TLS, its end with EHLO, AUTH."""
    made = post.world.server(offers=(*offers, "STARTTLS"), secure=(*offers, "AUTH PLAIN"))
    mailer = post.mailer(made, settings=SECURE, connections=1)
    if one_by_one:
        assert post.send(mailer, a_message(1))[0].get().accepted
    else:
        assert post.many(mailer, [a_message(1)]).get()[0].accepted
    found = flights(post)
    assert [["EHLO"], ["STARTTLS"], [], ["EHLO"], ["AUTH"], *first] == found


@pytest.mark.parametrize("window", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("count", [1, 8, 64, 200])
def test_with_chunking_a_window_of_messages_is_one_flight(
    post: Post, window: int, count: int
) -> None:
    mailer = post.mailer(connections=1, window=window)
    reports = post.many(mailer, [a_message(n) for n in range(count)]).get()
    assert [None] * count == [report.error for report in reports]
    assert flights(post)[0] == ["EHLO"]
    assert ceil(count / window) == len(flights(post)) - 1


@pytest.mark.parametrize("count", [1, 8, 200])
@pytest.mark.parametrize("window", [1, 8])
def test_with_data_each_message_is_two_flights(post: Post, count: int, window: int) -> None:
    mailer = post.mailer(post.world.server(offers=PIPELINING), connections=1, window=window)
    _ = post.many(mailer, [a_message(n) for n in range(count)]).get()
    assert [["EHLO"], *[["MAIL", "RCPT", "DATA"], ["<content>."]] * count] == flights(post)


@pytest.mark.parametrize("count", [1, 8, 200])
def test_with_data_each_message_is_one_flight_where_that_is_asked_for(
    post: Post, count: int
) -> None:
    server = post.world.server(offers=PIPELINING)
    mailer = post.mailer(server, connections=1, pipeline_after_data=True)
    _ = post.many(mailer, [a_message(n) for n in range(count)]).get()
    envelope = ["MAIL", "RCPT", "DATA"]
    expected = [envelope, *[["<content>.", *envelope]] * (count - 1), ["<content>."]]
    assert flights(post) == [["EHLO"], *expected]


@pytest.mark.parametrize("offers", [NOTHING, CHUNKS_ALONE])
def test_without_pipelining_each_command_is_a_flight(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    _ = post.many(mailer, [a_message(n) for n in range(3)]).get()
    one = [["MAIL"], ["RCPT"], ["DATA"], ["<content>."]]
    assert [["EHLO"], *one * 3] == flights(post)


def windows(count: int) -> int:
    """Flights that so many commands take."""
    return ceil(count / 144)


def commands(post: Post) -> list[str]:
    """What was said on the one connection, whatever its flights."""
    return list(chain.from_iterable(flights(post)))


def test_a_thousand_recipients_go_out_as_fast_as_replies_come(post: Post) -> None:
    mailer = ready(post, CHUNKING)
    _ = post.send(mailer, a_message(1, TO))
    assert commands(post) == ["MAIL", *["RCPT"] * 1000, "BDAT"]
    assert windows(1002) == len(flights(post))
    assert len(post.world.delivered[-1].recipients) == 1000


def test_so_they_do_with_data(post: Post) -> None:
    mailer = ready(post, PIPELINING)
    _ = post.send(mailer, a_message(1, TO))
    assert commands(post) == ["MAIL", *["RCPT"] * 1000, "DATA", "<content>."]
    assert windows(1002) + 1 == len(flights(post))


def test_two_messages_to_a_thousand_are_one_stream(post: Post) -> None:
    mailer = ready(post, CHUNKING)
    _ = post.many(mailer, [a_message(n, TO) for n in range(2)]).get()
    group = ["MAIL", *["RCPT"] * 1000, "BDAT"]
    assert [*group, "RSET", *group] == commands(post)
    assert windows(2 * 1002 + 1) == len(flights(post))


REFUSALS: list[Any] = [
    pytest.param({"sender": "banned@example.org"}, id="MAIL"),
    pytest.param({"to": ["gone@example.net", "bob@example.net"]}, id="one RCPT"),
    pytest.param({"to": ["gone@example.net"]}, id="all RCPT"),
    pytest.param({"to": [f"gone{to}" for to in TO]}, id="a thousand RCPT"),
    pytest.param({"fields": "X-Refuse: yes\r\n"}, id="content"),
]


@pytest.mark.parametrize("refused", REFUSALS)
@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("after", AfterRefusal)
def test_a_refusal_inside_a_window_costs_no_flight(
    post: Post, refused: Any, place: int, after: AfterRefusal
) -> None:
    mailer = ready(post, CHUNKING, after_refusal=after)
    messages = [a_message(n, **(refused if n == place else {})) for n in range(8)]
    _ = post.many(mailer, messages).get()
    assert windows(len(commands(post))) == len(flights(post))


@pytest.mark.parametrize("refused", REFUSALS)
def test_a_refusal_at_the_end_costs_a_rset_at_most(post: Post, refused: Any) -> None:
    mailer = ready(post, CHUNKING)
    _ = post.many(mailer, [a_message(1), a_message(2, **refused)]).get()
    # The commands of a large message go out in parts: the window may not be full.
    part = len(refused.get("to", [])) > 144
    assert len(flights(post)) - windows(len(commands(post))) <= part + (["RSET"] in flights(post))


@pytest.mark.parametrize("refused", REFUSALS)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_with_data_a_refusal_costs_one_flight_at_most(post: Post, refused: Any, place: int) -> None:
    """RSET, or the lone dot; the next envelope cannot go out after a content that never goes."""
    mailer = ready(post, PIPELINING, {"pipeline_after_data": True})
    messages = [a_message(n, **(refused if n == place else {})) for n in range(5)]
    _ = post.many(mailer, messages).get()
    more = windows(1 + len(refused.get("to", [])) + 144 // 4) - 1
    assert 5 <= len(flights(post)) - more <= 7
    assert ["RSET"] not in flights(post) or 1 == flights(post).count(["RSET"])


def test_a_message_behind_a_pause_takes_two_flights(post: Post) -> None:
    """The connection may be dead: its content waits for the replies to its envelope."""
    mailer = ready(post, CHUNKING)
    post.pump.advance(10)
    _ = post.many(mailer, [a_message(n) for n in range(9)]).get()
    assert flights(post)[:2] == [["MAIL", "RCPT"], ["BDAT"]]
    assert len(flights(post)) == 3


@pytest.mark.parametrize(
    ("offers", "each"), [(CHUNKING, 1), (PIPELINING, 2), (NOTHING, 4), (CHUNKS_ALONE, 4)]
)
def test_one_send_at_a_time(post: Post, offers: Any, each: int) -> None:
    mailer = ready(post, offers)
    for n in range(5):
        assert post.send(mailer, a_message(n))[0].get().accepted
    assert 5 * each == len(flights(post))
