"""The meaning of a refusal: its subject, and whether a later attempt may succeed."""

from __future__ import annotations

import pytest

from twisted_sendmail import Recipient, RecipientStatus, Reply
from twisted_sendmail.smtp import ReplySubject, classify_reply, recipient_results

A, B, C = (Recipient(f"{name}@example.net") for name in "abc")
OK = Reply(250, ("2.0.0 Ok",))


def said(text: str) -> Reply:
    return Reply(int(text[:3]), (text[4:],))


@pytest.mark.parametrize(
    ("reply", "subject", "transient"),
    [
        ("421 4.3.2 closing", ReplySubject.CONNECTION, True),
        ("530 5.7.0 authenticate first", ReplySubject.CREDENTIALS, False),
        ("535 5.7.8 who are you", ReplySubject.CREDENTIALS, False),
        ("503 5.5.1 order", ReplySubject.COMMAND, False),
        ("450 4.2.1 busy", ReplySubject.RECIPIENT, True),
        ("452 4.2.2 full", ReplySubject.RECIPIENT, True),
        ("452 no code", ReplySubject.RECIPIENT, True),
        ("452 4.5.3 too many", ReplySubject.TOO_MANY_RECIPIENTS, True),
        ("550 5.1.1 unknown", ReplySubject.RECIPIENT, False),
        ("552 5.5.3 too many", ReplySubject.TOO_MANY_RECIPIENTS, True),
        ("552 5.2.2 full", ReplySubject.RECIPIENT, False),
        ("552 5.2.3 too long", ReplySubject.RECIPIENT, False),
        ("552 5.3.4 too big", ReplySubject.RECIPIENT, False),
        ("552 no code", ReplySubject.RECIPIENT, False),
    ],
)
def test_the_meaning_of_a_reply_to_the_first_recipient(
    reply: str, subject: ReplySubject, *, transient: bool
) -> None:
    assert (subject, transient) == classify_reply(said(reply), to_rcpt=True)


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        ("552 too much mail data", True),
        ("552 5.0.0 too much mail data", True),
        ("552 5.5.3 too many", True),
        ("552 5.2.2 full", False),
        ("552 5.2.3 too long", False),
        ("552 5.3.4 too big", False),
    ],
)
def test_a_552_after_an_accepted_recipient_may_mean_too_many(
    reply: str, *, transient: bool
) -> None:
    meaning = classify_reply(said(reply), to_rcpt=True, accepted_before=True)
    assert transient == meaning.transient
    assert transient == (meaning.subject is ReplySubject.TOO_MANY_RECIPIENTS)


@pytest.mark.parametrize("code", [550, 551, 553, 554])
def test_another_code_with_5_5_3_means_too_many_after_an_accepted_recipient_only(code: int) -> None:
    reply = said(f"{code} 5.5.3 no")
    meanings = [classify_reply(reply, to_rcpt=True, accepted_before=each) for each in (False, True)]
    assert meanings == [(ReplySubject.RECIPIENT, False), (ReplySubject.TOO_MANY_RECIPIENTS, True)]


@pytest.mark.parametrize("code", [450, 451, 452, 552])
def test_a_transient_code_or_552_with_x_5_3_always_means_too_many(code: int) -> None:
    reply = said(f"{code} {code // 100}.5.3 no")
    for accepted_before in (False, True):
        meaning = classify_reply(reply, to_rcpt=True, accepted_before=accepted_before)
        assert meaning == (ReplySubject.TOO_MANY_RECIPIENTS, True)


@pytest.mark.parametrize("code", [550, 551, 553, 554])
def test_another_code_without_detail_is_about_the_recipient(code: int) -> None:
    for text in ("no", "5.0.0 no"):
        meaning = classify_reply(said(f"{code} {text}"), to_rcpt=True, accepted_before=True)
        assert meaning == (ReplySubject.RECIPIENT, False)


@pytest.mark.parametrize("reply", ["552 5.3.4 too big", "552 too big", "552 5.5.3 too many"])
def test_a_552_to_the_content_is_about_the_message(reply: str) -> None:
    assert classify_reply(said(reply)) == (ReplySubject.MESSAGE, False)


@pytest.mark.parametrize("verdict", ["250 2.0.0 Ok", "550 5.7.1 spam"])
def test_who_was_accepted_before_is_known_from_the_order_of_the_replies(verdict: str) -> None:
    full, end = said("552 too many"), said(verdict)
    refused = {0: full, 2: full} if end.positive else {0: full, 1: end, 2: full}
    results = recipient_results((A, B, C), refused, RecipientStatus.ACCEPTED, end)
    assert [each.too_many for each in results] == [False, False, True]
    assert [each.transient for each in results] == [False, False, True]


def test_the_others_share_the_verdict() -> None:
    no = said("550 5.1.1 no")
    results = recipient_results((A, B), {0: no}, RecipientStatus.ACCEPTED, OK)
    assert [(RecipientStatus.REFUSED, no), (RecipientStatus.ACCEPTED, OK)] == [
        (each.status, each.reply) for each in results
    ]
