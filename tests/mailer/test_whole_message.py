"""What is said in one go is said without the general program, and ends as with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.mailer.conftest import Post, letter, statuses
from tests.mailer.postbox import CHUNKING, PIPELINING
from tests.mailer.test_random_schedules import ca, hold_to_the_laws, schedules
from twisted_sendmail import Envelope, Mailer, Recipient, RecipientStatus
from twisted_sendmail.client import connection, whole_message
from twisted_sendmail.client import pipeline as flow
from twisted_sendmail.client.socket_state import SocketState
from twisted_sendmail.testing import MemoryTransport


class Asked(SocketState):
    """What a reactor's own transport can be asked, asked of one in memory."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._end = transport

    def silent(self) -> bool:
        end = self._end
        if not isinstance(end, MemoryTransport) or end.link is None or end.disconnected:
            return False
        return not (end.link.server.out or end.link.server.disconnecting)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients know whether anything is on its way to them, as they do of sockets."""
    monkeypatch.setattr(connection, "SocketState", Asked)


__all__ = ["ca"]

OFFERS = pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The general programs that were begun, or gone on with."""
    begun: list[str] = []
    for module, name in ((flow, "deliver"), (whole_message, "Transaction")):
        was = getattr(module, name)

        def noted(*args: Any, _was: Any = was, _name: str = name, **kw: Any) -> Any:
            begun.append(_name)
            return _was(*args, **kw)

        monkeypatch.setattr(module, name, noted)
    return begun


def ready(post: Post, offers: Any, programs: list[str]) -> Mailer:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    _ = post.send(mailer, letter("first"))
    programs.clear()
    return mailer


@OFFERS
def test_a_common_message_needs_no_program_where_the_transport_can_be_asked(
    post: Post, programs: list[str], offers: Any
) -> None:
    mailer = ready(post, offers, programs)
    reports = post.many(mailer, [letter(n, ["b@example.net", "c@example.net"]) for n in range(9)])
    assert [[RecipientStatus.ACCEPTED] * 2] * 9 == [statuses(report) for report in reports.get()]
    assert [] == programs


@pytest.mark.parametrize(
    "offers", [CHUNKING, PIPELINING, (*CHUNKING, "DSN"), (*PIPELINING, "DSN")], ids=" ".join
)
def test_its_report_is_that_of_the_general_program(
    post: Post, programs: list[str], offers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailer = ready(post, offers, programs)
    (swift,) = post.many(mailer, [letter(1, fields="Message-ID: <a@b>\r\n", size=100)]).get()
    monkeypatch.setattr(flow, "say_whole", lambda *_: False)
    (plain,) = post.many(mailer, [letter(1, fields="Message-ID: <a@b>\r\n", size=100)]).get()
    assert ["deliver"] == programs[-1:]
    assert plain.reply is not None
    same = replace(swift, reply=plain.reply, outcomes=plain.outcomes)
    assert plain == same


@OFFERS
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (
            {"to": ["gone@example.net", "b@example.net"]},
            [RecipientStatus.REFUSED, RecipientStatus.ACCEPTED],
        ),
        ({"to": "gone@example.net"}, [RecipientStatus.REFUSED]),
        ({"sender": "banned@example.org"}, [RecipientStatus.REFUSED]),
        ({"fields": "X-Refuse: yes\r\n"}, [RecipientStatus.REFUSED]),
    ],
)
def test_what_is_refused_is_gone_on_with_and_the_next_is_not(
    post: Post, programs: list[str], offers: Any, what: Any, expected: Any
) -> None:
    mailer = ready(post, offers, programs)
    letters = [letter(n, **(what if n == 1 else {})) for n in range(9)]
    reports = post.many(mailer, letters).get()
    assert [[RecipientStatus.ACCEPTED], expected, *[[RecipientStatus.ACCEPTED]] * 7] == [
        statuses(report) for report in reports
    ]
    assert programs


@OFFERS
@pytest.mark.parametrize(
    "uncommon",
    [
        Envelope("alice@example.org", Recipient("b@example.net", "NEVER")),
        Envelope("alice@example.org", "b@example.net", ret="FULL"),
        Envelope("alice@example.org", "b@example.net", envid="one"),
    ],
    ids=str,
)
def test_what_asks_for_more_is_for_the_general_program(
    post: Post, programs: list[str], offers: Any, uncommon: Envelope
) -> None:
    mailer = ready(post, offers, programs)
    (report,) = post.many(mailer, [(uncommon, letter(1)[1])]).get()
    assert [RecipientStatus.ACCEPTED] == statuses(report)
    assert ["deliver"] == programs


@OFFERS
def test_a_content_with_dots_is_stuffed_and_arrives_as_it_was(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    envelope, head = letter(1)
    content = head + b".\r\n..a\r\nb.\r\n.\r\n"
    _ = post.many(mailer, [letter(0), (envelope, content)]).get()
    assert content == post.world.delivered[1].content


def test_no_connection_is_opened_for_a_message_that_another_has_just_made_room_for(
    post: Post,
) -> None:
    """Whoever hears of his message may send the next one there and then."""
    mailer = post.mailer(post.world.server(offers=CHUNKING), connections=8, window=8)
    left = iter(range(8, 40))

    def next_one(_: Any) -> None:
        for number in left:
            envelope, content = letter(number)
            sent = mailer.send(content, envelope=envelope, complete=False)
            _ = sent.addCallback(next_one)
            break

    for number in range(8):
        envelope, content = letter(number)
        sent = mailer.send(content, envelope=envelope, complete=False)
        _ = sent.addCallback(next_one)
    post.pump.run()
    assert 40 == len(post.world.delivered)
    assert 1 == post.endpoint.attempts


@schedules
def test_the_laws_hold_in_every_schedule(ca: Any, **schedule: Any) -> None:
    hold_to_the_laws(ca, **schedule)
