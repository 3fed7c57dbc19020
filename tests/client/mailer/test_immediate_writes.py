"""Where the transport tells at once that all input was read, commands are written at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.mailer.conftest import Post, a_message, statuses
from tests.client.mailer.postbox import CHUNKING, PIPELINING
from tests.client.mailer.test_random_schedules import ca, hold_to_the_laws, schedules
from twisted_sendmail import Envelope, Recipient, RecipientStatus, SubmissionProtocol
from twisted_sendmail.testing import MemoryTransport


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients know whether anything is on its way to them, as they know it of sockets."""
    waits = SubmissionProtocol._input_may_wait

    def may_wait(self: Any) -> bool:
        end = self._writer.transport
        known = isinstance(end, MemoryTransport) and end.link is not None and not end.disconnected
        if known and not (end.link.server.out or end.link.server.disconnecting):
            return False
        return waits(self)

    monkeypatch.setattr(SubmissionProtocol, "_input_may_wait", may_wait)


__all__ = ["ca"]

OFFERS = pytest.mark.parametrize("offers", [CHUNKING, PIPELINING], ids=["BDAT", "DATA"])


@OFFERS
def test_common_messages_are_accepted(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    reports = post.many(
        mailer, [a_message(n, ["b@example.net", "c@example.net"]) for n in range(9)]
    )
    assert [statuses(report) for report in reports.get()] == [[RecipientStatus.ACCEPTED] * 2] * 9


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
def test_a_refusal_is_that_of_its_message_only(
    post: Post, offers: Any, what: Any, expected: Any
) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    messages = [a_message(n, **(what if n == 1 else {})) for n in range(9)]
    reports = post.many(mailer, messages).get()
    assert [statuses(report) for report in reports] == [
        [RecipientStatus.ACCEPTED],
        expected,
        *[[RecipientStatus.ACCEPTED]] * 7,
    ]


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
def test_an_envelope_that_asks_for_dsn_is_accepted(
    post: Post, offers: Any, uncommon: Envelope
) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    (report,) = post.many(mailer, [(uncommon, a_message(1)[1])]).get()
    assert statuses(report) == [RecipientStatus.ACCEPTED]


@OFFERS
def test_a_content_with_dots_is_stuffed_and_arrives_as_it_was(post: Post, offers: Any) -> None:
    mailer = post.mailer(post.world.server(offers=offers), connections=1)
    envelope, head = a_message(1)
    content = head + b".\r\n..a\r\nb.\r\n.\r\n"
    _ = post.many(mailer, [a_message(0), (envelope, content)]).get()
    assert content == post.world.delivered[1].content


def test_no_connection_is_opened_for_a_message_that_another_has_just_made_room_for(
    post: Post,
) -> None:
    """Callers may send the next message in the callback of the one before."""
    mailer = post.mailer(post.world.server(offers=CHUNKING), connections=8, window=8)
    left = iter(range(8, 40))

    def next_one(_: Any) -> None:
        for number in left:
            envelope, content = a_message(number)
            sent = mailer.send(content, envelope=envelope, complete=False)
            _ = sent.addCallback(next_one)
            break

    for number in range(8):
        envelope, content = a_message(number)
        sent = mailer.send(content, envelope=envelope, complete=False)
        _ = sent.addCallback(next_one)
    post.pump.run()
    assert len(post.world.delivered) == 40
    assert post.endpoint.attempts == 1


@schedules
def test_the_laws_hold_in_every_schedule(ca: Any, **schedule: Any) -> None:
    hold_to_the_laws(ca, **schedule)
