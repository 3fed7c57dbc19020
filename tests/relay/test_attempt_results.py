"""The result of an attempt, for each recipient and for the route."""

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
from twisted_sendmail.relay.attempt_result import (
    AttemptOutcome,
    AttemptResult,
    classify_attempt,
    due_recipients,
    expired,
    given_up,
)
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
    info = MessageInfo("0" * 12, ENVELOPE, arrived, "out")
    recipients = tuple(QueuedRecipient(n, r) for n, r in enumerate(ENVELOPE.recipients))
    queued = QueuedMessage(info, 10, recipients, age=NOW - arrived)
    return replace(queued, **standing)  # type: ignore[arg-type]


def after(result: DeliveryReport | Failure, queued: QueuedMessage | None = None) -> AttemptResult:
    """What an attempt to everybody comes to."""
    queued = queued or message()
    return classify_attempt(
        queued,
        queued.recipients,
        result,
        now=NOW,
        policy=RetryPolicy(),
        chance=lambda: 0.5,
    )


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
    result = after(report((RecipientStatus.REFUSED, reply), (RecipientStatus.REFUSED, reply)))
    assert [(state, status)] * 2 == [(v.state, v.status) for v in result.recipients]


def test_the_verdicts_are_each_recipients_own() -> None:
    result = after(
        report(
            (RecipientStatus.ACCEPTED, "250 2.0.0 ok"), (RecipientStatus.REFUSED, "452 4.2.2 full")
        )
    )
    assert [v.state for v in result.recipients] == [
        RecipientState.DELIVERED,
        RecipientState.PENDING,
    ]
    assert (result.outcome, result.in_doubt) == (AttemptOutcome.REPLIED, False)


@pytest.mark.parametrize("reply", ["452 4.5.3 too many", "552 too many", "552 5.5.3 too many"])
def test_one_too_many_is_tried_again_at_once_if_another_was_accepted(reply: str) -> None:
    result = after(report((RecipientStatus.ACCEPTED, "250 ok"), (RecipientStatus.REFUSED, reply)))
    row = result.recipients[1]
    assert (row.state, row.due <= NOW, row.attempts) == (RecipientState.PENDING, True, 0)
    result = after(report((RecipientStatus.REFUSED, reply), (RecipientStatus.REFUSED, reply)))
    pending = [r for r in result.recipients if r.state is RecipientState.PENDING]
    assert [row for row in pending if row.due <= NOW] == []


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (ConnectFailed("x"), AttemptOutcome.UNREACHABLE, "4.4.1"),
        (SendTimeout("x"), AttemptOutcome.UNREACHABLE, "4.4.2"),
        (CertificateRejected("x"), AttemptOutcome.UNREACHABLE, "4.7.5"),
        (ServiceClosing("x", reply=said("421 4.3.2 closing")), AttemptOutcome.UNREACHABLE, "4.3.2"),
        (SendmailError("x", reply=said("554 5.3.2 not here")), AttemptOutcome.UNREACHABLE, "4.3.2"),
        (InvalidServer("the CA file is gone"), AttemptOutcome.UNREACHABLE, "4.3.5"),
        (AuthenticationFailed("x"), AttemptOutcome.LOGIN_REFUSED, "4.7.8"),
        (
            AuthenticationFailed("x", reply=said("535 5.7.8 no")),
            AttemptOutcome.LOGIN_REFUSED,
            "4.7.8",
        ),
        (SendmailError("x", reply=said("530 5.7.0 no")), AttemptOutcome.LOGIN_REFUSED, "4.7.0"),
        (TemporaryAuthenticationFailure("x"), AttemptOutcome.UNREACHABLE, "4.7.8"),
        (MailerClosed("x"), AttemptOutcome.NOT_TRIED, "4.3.0"),
        (MessageDamaged("x"), AttemptOutcome.DAMAGED, "4.3.0"),
        (QueueError("x"), AttemptOutcome.LOCAL_FAULT, "4.3.0"),
        (ValueError("what is that?"), AttemptOutcome.LOCAL_FAULT, "4.3.0"),
        (MemoryError(), AttemptOutcome.LOCAL_FAULT, "4.3.0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_said_of_a_recipient_is_not_held_against_him(
    error: Exception, outcome: AttemptOutcome, status: str
) -> None:
    result = after(Failure(error))
    assert outcome is result.outcome
    assert [(RecipientState.PENDING, status)] * 2 == [
        (v.state, v.status) for v in result.recipients
    ]
    counts = outcome is AttemptOutcome.LOCAL_FAULT or outcome is AttemptOutcome.DAMAGED
    assert [(counts, counts)] * 2 == [
        (row.due > NOW, row.attempts == 1) for row in result.recipients
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionClosed("x"), AttemptOutcome.LOST),
        (SendTimeout("x"), AttemptOutcome.LOST),
        (ProtocolBreach("x"), AttemptOutcome.LOST),
        (MessageDamaged("x"), AttemptOutcome.DAMAGED),
        (QueueError("x"), AttemptOutcome.LOCAL_FAULT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_happened_to_the_connection_leaves_the_rest_pending(
    error: SendmailError, outcome: AttemptOutcome
) -> None:
    result = after(
        report(
            (RecipientStatus.REFUSED, "550 5.1.1 unknown"),
            (RecipientStatus.UNTOUCHED, None),
            error=error,
        )
    )
    assert [v.state for v in result.recipients] == [RecipientState.FAILED, RecipientState.PENDING]
    assert outcome is result.outcome


def test_doubt_is_no_verdict_and_is_told() -> None:
    error = DeliveryInDoubt("x")
    result = after(
        report(
            (RecipientStatus.IN_DOUBT, None),
            (RecipientStatus.REFUSED, "550 5.1.1 unknown"),
            error=error,
        )
    )
    assert [v.state for v in result.recipients] == [RecipientState.PENDING, RecipientState.FAILED]
    assert (result.in_doubt, result.outcome) == (True, AttemptOutcome.LOST)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MessageTooLarge("message too large"), "5.3.4"),
        (ExtensionUnavailable("SMTPUTF8 is needed and not offered"), "5.6.7"),
        (ExtensionUnavailable("8BITMIME is needed and not offered"), "5.6.3"),
        (ExtensionUnavailable("BINARYMIME is needed and not offered"), "5.6.3"),
        (ExtensionUnavailable("REQUIRETLS is needed and not offered"), "5.7.30"),
        (ExtensionUnavailable("something else is needed"), "5.6.0"),
    ],
    ids=str,
)
def test_a_message_that_the_server_cannot_take_fails(error: SendmailError, status: str) -> None:
    result = after(
        report((RecipientStatus.UNTOUCHED, None), (RecipientStatus.UNTOUCHED, None), error=error)
    )

    assert [(RecipientState.FAILED, status)] * 2 == [(v.state, v.status) for v in result.recipients]
    assert result.outcome is AttemptOutcome.REPLIED


def test_what_an_error_says_is_one_printable_line() -> None:
    result = after(Failure(ValueError("a\r\nb\x1b[2J" + "c" * 10_000)))
    for row in result.recipients:
        assert row.reply is not None
        assert row.reply.isprintable()
        assert len(row.reply) < 400


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
    schedule = RetryPolicy()
    result = after(report(one, two, error=error), message(NOW - age))
    assert len(result.recipients) == 2
    for (status, _), row in zip((one, two), result.recipients, strict=True):
        if row.state is RecipientState.PENDING:
            assert 0 <= row.due <= schedule.horizon(NOW)
            assert (
                age < schedule.lifetime
                or result.outcome is AttemptOutcome.LOCAL_FAULT
                or row.due <= NOW
            )
        assert (status is RecipientStatus.ACCEPTED) == (row.state is RecipientState.DELIVERED)


def test_only_a_try_that_failed_now_is_the_last() -> None:
    old = message(NOW - 6 * 86400)
    accepted = report((RecipientStatus.ACCEPTED, "250 ok"), (RecipientStatus.REFUSED, "450 later"))
    sent, given_up = after(accepted, old).recipients
    assert (sent.state, expired(sent)) == (RecipientState.DELIVERED, False)
    assert (expired(given_up), given_up.status, given_up.reply) == (True, "4.4.7", "450 later")
    untried = after(Failure(MailerClosed("x")), old)
    assert [row.state for row in untried.recipients] == [RecipientState.PENDING] * 2


def test_those_who_are_due_are_tried_and_no_others() -> None:
    one, two = message().recipients
    queued = message(recipients=(one, replace(two, due=NOW + 60)))
    assert [str(r.recipient) for r in due_recipients(queued, NOW, NOW + 100)] == ["a@x.example"]
    # What lies beyond the horizon was never meant so.
    assert len(due_recipients(queued, NOW, NOW + 50)) == 2
    settled = message(
        recipients=(replace(one, state=RecipientState.DELIVERED), replace(two, due=NOW + 60))
    )
    assert [str(r.recipient) for r in due_recipients(settled, NOW, NOW + 100)] == ["b@x.example"]


def test_what_is_given_up_says_what_was_said_last() -> None:
    one, two = message().recipients
    queued = message(
        recipients=(replace(one, state=RecipientState.DELIVERED), replace(two, reply="450 no"))
    )
    (row,) = given_up(queued.pending)
    assert "450 no" in (row.reply or "")
    assert (row.state, expired(row), row.number) == (RecipientState.FAILED, True, 1)
