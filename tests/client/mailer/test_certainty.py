"""Known results stay, and messages in doubt are not sent again; each test has the name of its rule."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, CHUNKS_ALONE, NOTHING, PIPELINING, AfterRefusal
from tests.client.scripted_server import CLOSE, RESET, SILENT
from twisted_sendmail import (
    AllRecipientsRefused,
    DeliveryInDoubt,
    MailboxUnavailable,
    RecipientStatus,
    SendmailError,
    Timeouts,
)

ACCEPTED, REFUSED, IN_DOUBT, UNTOUCHED = RecipientStatus
OFFERS = {"BDAT": CHUNKING, "DATA": PIPELINING, "nothing": NOTHING, "chunks alone": CHUNKS_ALONE}
EVERY = pytest.mark.parametrize("offers", OFFERS.values(), ids=list(OFFERS))


def end_of(offers: tuple[str, ...]) -> str:
    return "BDAT_LAST" if offers is CHUNKING else "."


@EVERY
@pytest.mark.parametrize("fault", [CLOSE, RESET, "421 4.3.2 bye", "garbage", SILENT])
def test_accepted_stays_accepted(post: Post, offers: Any, fault: Any) -> None:
    """Whatever happens after the verdict, to the connection, to QUIT or to RSET."""
    verdict = ("250 2.0.0 Ok: queued as 77", fault)
    for answers in ({end_of(offers): verdict}, {"QUIT": fault}, {"RSET": fault}):
        mailer = post.mailer(post.world.server(answers, offers=offers), messages=1)
        (result,) = post.send(mailer, a_message(1))
        assert statuses(result.get()) == [ACCEPTED]
        post.pump.advance(1000)
        assert (post.world.open, mailer.stats().failed) == (0, 0)


@EVERY
@pytest.mark.parametrize("fault", [CLOSE, RESET, "garbage"])
@pytest.mark.parametrize("nth", [1, 2])
def test_what_is_in_doubt_is_never_sent_again_by_the_mailer(
    post: Post, offers: Any, fault: Any, nth: int
) -> None:
    first = post.world.server({f"{end_of(offers)}#{nth}": fault}, offers=offers)
    mailer = post.mailer(first, post.world.server(offers=offers), connections=1)
    for n in range(1, nth):
        _ = post.send(mailer, a_message(n))
    (result,) = post.send(mailer, a_message("doubtful"))
    assert isinstance(result.error, DeliveryInDoubt)
    assert statuses(result.error.report) == [IN_DOUBT]
    post.pump.advance(1000)
    contents = [m for server in post.world.servers for m in server.messages]
    assert len([content for content in contents if b"doubtful" in content]) == 1
    assert post.endpoint.attempts == 1


def test_nor_is_it_when_the_verdict_is_late(post: Post) -> None:
    settings = {"timeouts": Timeouts(data_end=10)}
    mailer = post.mailer(post.world.server({"BDAT_LAST": SILENT}), settings=settings)
    (result,) = post.send(mailer, a_message(1))
    post.pump.advance(11)
    assert statuses(result.error.report) == [IN_DOUBT]
    assert (post.endpoint.attempts, post.world.open) == (1, 0)


@EVERY
@pytest.mark.parametrize("after", AfterRefusal)
@pytest.mark.parametrize(
    "refused",
    [
        {"sender": "banned@example.org"},
        {"to": "gone@example.net"},
        {"fields": "X-Refuse: yes\r\n"},
    ],
    ids=["MAIL", "RCPT", "content"],
)
def test_after_any_refusal_the_next_message_starts_clean(
    post: Post, offers: Any, after: AfterRefusal, refused: dict[str, Any]
) -> None:
    """RSET, or a server that needs none, or a new connection."""
    mailer = post.mailer(post.world.server(offers=offers, after_refusal=after), connections=1)
    one, two = post.send(
        mailer,
        a_message(1, **refused),
        a_message(2, "carol@example.net", sender="carl@example.org"),
    )
    assert isinstance(one.error, AllRecipientsRefused)
    assert statuses(one.error.report) == [REFUSED]
    assert statuses(two.get()) == [ACCEPTED]
    (delivery,) = post.world.delivered
    assert delivery[:2] == ("carl@example.org", ("carol@example.net",))
    (result,) = post.send(mailer, a_message(3))
    assert result.get().accepted


@EVERY
def test_a_refusal_leaves_nothing_for_a_message_that_comes_later(post: Post, offers: Any) -> None:
    mailer = post.mailer(
        post.world.server(offers=offers, after_refusal=AfterRefusal.KEEPS_SENDER), connections=1
    )
    for n in range(3):
        (no,) = post.send(mailer, a_message(n, "gone@example.net"))
        assert isinstance(no.error, MailboxUnavailable | SendmailError)
        (yes,) = post.send(mailer, a_message(n, sender=f"s{n}@example.org"))
        assert yes.get().accepted
    assert [f"s{n}@example.org" for n in range(3)] == [d.sender for d in post.world.delivered]
    assert post.endpoint.attempts == 1


@EVERY
def test_a_server_that_refuses_rset_is_connected_to_anew(post: Post, offers: Any) -> None:
    first = post.world.server(
        {"RSET": "502 5.5.1 no"}, offers=offers, after_refusal=AfterRefusal.KEEPS_SENDER
    )
    mailer = post.mailer(first, post.world.server(offers=offers), connections=1)
    (no,) = post.send(mailer, a_message(1, "gone@example.net"))
    assert statuses(no.error.report) == [REFUSED]
    (yes,) = post.send(mailer, a_message(2))
    assert yes.get().accepted
    assert post.endpoint.attempts == 2


@EVERY
def test_partial_acceptance_is_a_result(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers))
    to = ["gone1@example.net", "bob@example.net", "gone2@example.net"]
    (result,) = post.send(mailer, a_message(1, to))
    assert statuses(result.get()) == [REFUSED, ACCEPTED, REFUSED]


@EVERY
def test_all_or_nothing_delivers_to_all_or_to_none(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    some = a_message(1, ["bob@example.net", "gone@example.net"])
    (result,) = post.send(mailer, some, all_or_nothing=True)
    assert statuses(result.error.report) == [UNTOUCHED, REFUSED]
    reports = post.many(mailer, [some, a_message(2), some, a_message(3)], all_or_nothing=True).get()
    assert [len(report.outcomes) for report in reports] == [2, 1, 2, 1]
    assert [len(report.accepted) for report in reports] == [0, 1, 0, 1]
    assert post.world.subjects == ["2", "3"]


def test_a_source_that_can_be_read_once_is_not_sent_twice(post: Post) -> None:
    """Nor is half of it: its first octets went to the connection that died."""

    async def pieces() -> Any:
        yield a_message(1)[1]
        for _ in range(4):
            yield b"x" * 70 + b"\r\n"

    first = post.world.server({"MAIL#2": CLOSE}, offers=PIPELINING)
    mailer = post.mailer(first, post.world.server(offers=PIPELINING))
    _ = post.send(mailer, a_message(0))
    (result,) = post.send(mailer, (a_message(1)[0], pieces()))
    post.pump.advance(1)
    assert result.fired == 1
    assert result.value is None or ["0", "1"] == post.world.subjects
