"""The result of a message for each recipient, and its wording."""

from __future__ import annotations

import pytest

from twisted_sendmail import (
    DeliveryReport,
    Envelope,
    Recipient,
    RecipientResult,
    RecipientStatus,
    Reply,
)

A, B, C = (Recipient(f"{name}@example.net") for name in "abc")
ENVELOPE = Envelope("f@example.org", [A, B, C])


def report(reply: Reply | None, *outcomes: RecipientResult) -> DeliveryReport:
    """A report of *outcomes*; one accepted if none is given."""
    return DeliveryReport(
        ENVELOPE, outcomes or (RecipientResult(A, RecipientStatus.ACCEPTED, reply),), reply
    )


@pytest.mark.parametrize(
    ("text", "queue_id"),
    [
        ("2.0.0 Ok: queued as 4Tn8Xz5Q1Kz9sWd", "4Tn8Xz5Q1Kz9sWd"),
        ("2.0.0 Ok: queued as 3F9A1C0012", "3F9A1C0012"),
        ("OK id=1rqX2b-0003Xk-2f", "1rqX2b-0003Xk-2f"),
        ("2.0.0 42T5x1nB012345 Message accepted for delivery", "42T5x1nB012345"),
        ("ok 1711929600 qp 12345", "12345"),
        (
            "2.6.0 <i@example.org> [InternalId=5824560423937, Hostname=mbx1.example.com] Queued mail",
            "5824560423937",
        ),
        (
            "2.0.0 OK  1711929600 d9443c01a7336-1e0a2b3c4d5si123456 - gsmtp",
            "d9443c01a7336-1e0a2b3c4d5si123456",
        ),
        ("2.0.0 Message queued (A1B2C3)", "A1B2C3"),
        ("2.0.0 Ok: queued as <A1B2C3>.", "A1B2C3"),
        ("2.0.0 Message queued with id 1b2c3d4e.", "1b2c3d4e"),
        ("OK ids=d7ef132b5d7711ea8c8c000c29c33806", "d7ef132b5d7711ea8c8c000c29c33806"),
        (
            "Ok 0100018f2c3d4e5f-1b2c3d4e-5f60-4718-92a3-b4c5d6e7f809-000000",
            "0100018f2c3d4e5f-1b2c3d4e-5f60-4718-92a3-b4c5d6e7f809-000000",
        ),
        ("Ok 0100018f2c3d4e5f", None),
        ("ok qp or not", None),
        ("x" * 100_000, None),
        ("OK", None),
        ("2.0.0 Message accepted for delivery", None),
        ("queued as", None),
        ("queued as \x1b[2J", None),
        ("", None),
    ],
)
def test_the_queue_id(text: str, queue_id: str | None) -> None:
    assert queue_id == report(Reply(250, (text,))).queue_id


def test_a_queue_id_is_looked_for_in_every_line() -> None:
    assert report(Reply(250, ("2.0.0 thanks", "2.0.0 Ok: queued as A1"))).queue_id == "A1"


def test_no_queue_id_where_nobody_was_accepted() -> None:
    reply = Reply(250, ("queued as A1",))
    assert report(None).queue_id is None
    assert report(reply, RecipientResult(A, RecipientStatus.IN_DOUBT)).queue_id is None


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (RecipientStatus.ACCEPTED, 250, False),
        (RecipientStatus.REFUSED, 450, True),
        (RecipientStatus.REFUSED, 550, False),
        (RecipientStatus.REFUSED, None, True),
        (RecipientStatus.IN_DOUBT, None, False),
        (RecipientStatus.UNTOUCHED, None, True),
    ],
)
def test_who_may_be_tried_again(
    status: RecipientStatus, code: int | None, *, transient: bool
) -> None:
    reply = None if code is None else Reply(code)
    outcome = RecipientResult(A, status, reply)
    assert (transient, status is RecipientStatus.IN_DOUBT) == (outcome.transient, outcome.in_doubt)


def test_each_is_in_one_place() -> None:
    accepted = RecipientResult(A, RecipientStatus.ACCEPTED, Reply(250, ("ok",)))
    refused = RecipientResult(B, RecipientStatus.REFUSED, Reply(550, ("5.1.1 no such user",)))
    doubtful = RecipientResult(C, RecipientStatus.IN_DOUBT)
    made = report(Reply(250, ("queued as A1",)), accepted, refused, doubtful)
    assert ((accepted,), (refused,), (doubtful,), ()) == (
        made.accepted,
        made.refused,
        made.in_doubt,
        made.untouched,
    )
    assert str(made) == "1 accepted, 1 refused, 1 in doubt: 250 queued as A1"


def test_an_outcome_is_one_safe_line() -> None:
    reply = Reply(550, ("5.1.1 \x1b[2Jgone", "really"))
    assert (
        str(RecipientResult(A, RecipientStatus.REFUSED, reply))
        == "a@example.net refused: 550 5.1.1 \\x1b[2Jgone / really"
    )
    assert str(RecipientResult(A, RecipientStatus.UNTOUCHED)) == "a@example.net untouched"
