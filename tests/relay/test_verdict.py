"""What the end of a try means: for each recipient, and for the way."""

from __future__ import annotations

import pytest
from attrs import evolve as replace
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure

from tests.names import (
    MessageDamaged,
    MessageInfo,
    QueuedMessage,
    QueuedRecipient,
    QueueError,
    RecipientState,
)
from twisted_sendmail import (
    AuthenticationFailed,
    CertificateRejected,
    ConnectFailed,
    ConnectionClosed,
    DeliveryInDoubt,
    DeliveryReport,
    Envelope,
    ExtensionUnavailable,
    InvalidServer,
    MailerClosed,
    MessageTooLarge,
    ProtocolBreach,
    RecipientResult,
    RecipientStatus,
    Reply,
    RetryPolicy,
    SendmailError,
    SendTimeout,
    ServiceClosing,
    TemporaryAuthenticationFailure,
)
from twisted_sendmail.relay.classify import Blame, Judgement, judge
from twisted_sendmail.relay.conclusion import conclude, due_recipients, given_up
from twisted_sendmail.smtp import recipient_results

NOW = 1_800_000_000.0
ENVELOPE = Envelope("alice@example.org", ["a@x.example", "b@x.example"])
A, B = ENVELOPE.recipients


def said(text: str) -> Reply:
    return Reply(int(text[:3]), (text[4:],))


def report(
    *outcomes: tuple[RecipientStatus, str | None], error: SendmailError | None = None
) -> DeliveryReport:
    # The verdict on those who were accepted at RCPT is theirs alone.
    refused = {
        number: said(reply)
        for number, (status, reply) in enumerate(outcomes)
        if status is RecipientStatus.REFUSED and reply
    }
    status, text = next(
        (each for each in outcomes if each[0] is not RecipientStatus.REFUSED),
        (RecipientStatus.UNTOUCHED, None),
    )
    verdict = said(text) if text else None
    results = recipient_results(ENVELOPE.recipients, refused, status, verdict)
    return DeliveryReport(
        ENVELOPE,
        tuple(
            result
            if result.status is wanted
            else RecipientResult(result.recipient, wanted, said(reply) if reply else None)
            for result, (wanted, reply) in zip(results, outcomes, strict=True)
        ),
        host="mx.example[192.0.2.1]:25",
        error=error,
    )


def message(arrived: float = NOW, **standing: object) -> QueuedMessage:
    draft = MessageInfo("0" * 12, ENVELOPE, arrived, "out")
    recipients = tuple(QueuedRecipient(n, r) for n, r in enumerate(ENVELOPE.recipients))
    return replace(QueuedMessage(draft, 10, recipients), **standing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "state", "status"),
    [
        ("450 4.2.1 busy", RecipientState.PENDING, "4.2.1"),
        ("451 no code", RecipientState.PENDING, "4.0.0"),
        ("550 5.1.1 unknown", RecipientState.FAILED, "5.1.1"),
        ("554 no code", RecipientState.FAILED, "5.0.0"),
        ("552 5.3.4 too big", RecipientState.FAILED, "5.3.4"),
        ("552 5.2.2 full", RecipientState.FAILED, "5.2.2"),
        ("421 4.3.2 closing", RecipientState.PENDING, "4.3.2"),
        ("503 5.5.1 order", RecipientState.PENDING, "4.5.1"),
        ("530 5.7.0 who are you", RecipientState.PENDING, "4.7.0"),
        ("535 5.7.8 who are you", RecipientState.PENDING, "4.7.8"),
        ("299 odd", RecipientState.PENDING, "4.0.0"),
    ],
)
def test_a_refusal_is_final_only_if_it_says_so(
    reply: str, state: RecipientState, status: str
) -> None:
    judgement = judge(report((RecipientStatus.REFUSED, reply), (RecipientStatus.REFUSED, reply)), 2)
    assert [(state, status)] * 2 == [(v.state, v.status) for v in judgement.verdicts]


def test_the_verdicts_are_each_recipients_own() -> None:
    judgement = judge(
        report(
            (RecipientStatus.ACCEPTED, "250 2.0.0 ok"), (RecipientStatus.REFUSED, "452 4.2.2 full")
        ),
        2,
    )
    assert [RecipientState.DELIVERED, RecipientState.PENDING] == [
        v.state for v in judgement.verdicts
    ]
    assert (Blame.NOBODY, False) == (judgement.blame, judgement.in_doubt)


@pytest.mark.parametrize("reply", ["452 4.5.3 too many", "552 too many", "552 5.5.3 too many"])
def test_one_too_many_is_tried_again_at_once_if_another_was_accepted(reply: str) -> None:
    judgement = judge(
        report((RecipientStatus.ACCEPTED, "250 ok"), (RecipientStatus.REFUSED, reply)), 2
    )
    assert (RecipientState.PENDING, True, False) == (
        judgement.verdicts[1].state,
        judgement.verdicts[1].at_once,
        judgement.verdicts[1].counts,
    )
    judgement = judge(report((RecipientStatus.REFUSED, reply), (RecipientStatus.REFUSED, reply)), 2)
    assert [False, False] == [v.at_once for v in judgement.verdicts]


@pytest.mark.parametrize(
    ("error", "blame", "status"),
    [
        (ConnectFailed("x"), Blame.ROUTE, "4.4.1"),
        (SendTimeout("x"), Blame.ROUTE, "4.4.2"),
        (CertificateRejected("x"), Blame.ROUTE, "4.7.5"),
        (ServiceClosing("x", reply=said("421 4.3.2 closing")), Blame.ROUTE, "4.3.2"),
        (SendmailError("x", reply=said("554 5.3.2 not here")), Blame.ROUTE, "4.3.2"),
        (InvalidServer("the CA file is gone"), Blame.ROUTE, "4.3.5"),
        (AuthenticationFailed("x"), Blame.AUTH, "4.7.8"),
        (AuthenticationFailed("x", reply=said("535 5.7.8 no")), Blame.AUTH, "4.7.8"),
        (SendmailError("x", reply=said("530 5.7.0 no")), Blame.AUTH, "4.7.0"),
        (TemporaryAuthenticationFailure("x"), Blame.ROUTE, "4.7.8"),
        (MailerClosed("x"), Blame.UNTRIED, "4.3.0"),
        (MessageDamaged("x"), Blame.DAMAGED, "4.3.0"),
        (QueueError("x"), Blame.OURS, "4.3.0"),
        (ValueError("what is that?"), Blame.OURS, "4.3.0"),
        (MemoryError(), Blame.OURS, "4.3.0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_said_of_a_recipient_is_not_held_against_him(
    error: Exception, blame: Blame, status: str
) -> None:
    judgement = judge(Failure(error), 2)
    assert blame is judgement.blame
    assert [(RecipientState.PENDING, status)] * 2 == [
        (v.state, v.status) for v in judgement.verdicts
    ]
    counts = blame is Blame.OURS or blame is Blame.DAMAGED
    assert [counts] * 2 == [v.counts for v in judgement.verdicts]


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (ConnectionClosed("x"), Blame.LOSS),
        (SendTimeout("x"), Blame.LOSS),
        (ProtocolBreach("x"), Blame.LOSS),
        (MessageDamaged("x"), Blame.DAMAGED),
        (QueueError("x"), Blame.OURS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_happened_to_the_connection_leaves_the_rest_pending(
    error: SendmailError, blame: Blame
) -> None:
    judgement = judge(
        report(
            (RecipientStatus.REFUSED, "550 5.1.1 unknown"),
            (RecipientStatus.UNTOUCHED, None),
            error=error,
        ),
        2,
    )
    assert [RecipientState.FAILED, RecipientState.PENDING] == [v.state for v in judgement.verdicts]
    assert blame is judgement.blame


def test_doubt_is_no_verdict_and_is_told() -> None:
    error = DeliveryInDoubt("x")
    judgement = judge(
        report(
            (RecipientStatus.IN_DOUBT, None),
            (RecipientStatus.REFUSED, "550 5.1.1 unknown"),
            error=error,
        ),
        2,
    )
    assert [RecipientState.PENDING, RecipientState.FAILED] == [v.state for v in judgement.verdicts]
    assert (True, Blame.LOSS) == (judgement.in_doubt, judgement.blame)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MessageTooLarge("message too large"), "5.3.4"),
        (ExtensionUnavailable("SMTPUTF8 is needed and not offered"), "5.6.7"),
        (ExtensionUnavailable("8BITMIME is needed and not offered"), "5.6.3"),
        (ExtensionUnavailable("BINARYMIME is needed and not offered"), "5.6.1"),
        (ExtensionUnavailable("REQUIRETLS is needed and not offered"), "5.7.30"),
        (ExtensionUnavailable("something else is needed"), "5.6.0"),
    ],
    ids=str,
)
def test_a_message_that_the_server_cannot_take_fails(error: SendmailError, status: str) -> None:
    judgement = judge(
        report((RecipientStatus.UNTOUCHED, None), (RecipientStatus.UNTOUCHED, None), error=error), 2
    )
    assert [(RecipientState.FAILED, status)] * 2 == [
        (v.state, v.status) for v in judgement.verdicts
    ]
    assert Blame.NOBODY is judgement.blame


def test_what_an_error_says_is_one_printable_line() -> None:
    judgement = judge(Failure(ValueError("a\r\nb\x1b[2J" + "c" * 10_000)), 1)
    (verdict,) = judgement.verdicts
    assert verdict.reply.isprintable()
    assert len(verdict.reply) < 400


statuses = st.sampled_from(
    [
        (RecipientStatus.ACCEPTED, "250 ok"),
        (RecipientStatus.REFUSED, "450 4.2.0 later"),
        (RecipientStatus.REFUSED, "550 5.1.1 no"),
        (RecipientStatus.REFUSED, "452 4.5.3 too many"),
        (RecipientStatus.REFUSED, "530 5.7.0 who"),
        (RecipientStatus.IN_DOUBT, None),
        (RecipientStatus.UNTOUCHED, None),
    ]
)
errors = st.sampled_from(
    [None, ConnectionClosed("x"), DeliveryInDoubt("x"), MessageTooLarge("x"), QueueError("x")]
)


@given(statuses, statuses, errors, st.floats(-1e7, 1e7))
def test_whatever_happens_each_recipient_is_settled_or_has_a_due_time(
    one: tuple[RecipientStatus, str],
    two: tuple[RecipientStatus, str],
    error: SendmailError | None,
    age: float,
) -> None:
    judgement = judge(report(one, two, error=error), 2)
    schedule = RetryPolicy()
    queued = message(NOW - age)
    fates = conclude(
        queued, queued.recipients, judgement, now=NOW, schedule=schedule, chance=lambda: 0.5
    )
    assert 2 == len(fates)
    for (status, _), fate in zip((one, two), fates, strict=True):
        if fate.state is RecipientState.PENDING:
            assert 0 <= fate.due <= schedule.horizon(NOW)
            assert age < schedule.lifetime or judgement.blame is Blame.OURS or fate.due <= NOW
        assert (status is RecipientStatus.ACCEPTED) == (fate.state is RecipientState.DELIVERED)


def test_only_a_try_that_failed_now_is_the_last() -> None:
    queued = message(NOW - 6 * 86400)
    accepted = judge(
        report((RecipientStatus.ACCEPTED, "250 ok"), (RecipientStatus.REFUSED, "450 later")), 2
    )
    fates = conclude(
        queued, queued.recipients, accepted, now=NOW, schedule=RetryPolicy(), chance=lambda: 0.5
    )
    assert ["sent", "expired"] == [fate.word for fate in fates]
    assert "4.4.7" == fates[1].status
    untried = Judgement(judge(Failure(MailerClosed("x")), 2).verdicts, Blame.UNTRIED)
    fates = conclude(
        queued, queued.recipients, untried, now=NOW, schedule=RetryPolicy(), chance=lambda: 0.5
    )
    assert ["deferred", "deferred"] == [fate.word for fate in fates]


def test_those_who_are_due_are_tried_and_no_others() -> None:
    one, two = message().recipients
    queued = message(recipients=(one, replace(two, due=NOW + 60)))
    assert ["a@x.example"] == [str(r.recipient) for r in due_recipients(queued, NOW, NOW + 100)]
    # What lies beyond the horizon was never meant so.
    assert 2 == len(due_recipients(queued, NOW, NOW + 50))
    settled = message(
        recipients=(replace(one, state=RecipientState.DELIVERED), replace(two, due=NOW + 60))
    )
    assert ["b@x.example"] == [str(r.recipient) for r in due_recipients(settled, NOW, NOW + 100)]


def test_what_is_given_up_says_what_was_said_last() -> None:
    one, two = message().recipients
    queued = message(
        recipients=(replace(one, state=RecipientState.DELIVERED), replace(two, reply="450 no"))
    )
    (fate,) = given_up(queued)
    assert "450 no" in fate.reply
    assert (RecipientState.FAILED, "expired", 1) == (fate.state, fate.word, fate.queued.number)
