"""The mailer that sends nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_sendmail import (
    AllRecipientsRefused,
    ConnectFailed,
    Envelope,
    InvalidAddress,
    InvalidInput,
)
from twisted_sendmail.testing import StubMailer


def result(deferred: Deferred[Any]) -> Any:
    """It has fired already: nothing in the stub takes time."""
    got: list[Any] = []
    watched = deferred.addCallbacks(got.append, lambda failure: got.append(failure.value))
    assert watched.called
    (value,) = got
    if isinstance(value, Exception):
        raise value
    return value


def message(*to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = "a@example.org", ", ".join(to), "x@example.net"
    message["Subject"] = "hello"
    message.set_content("hi\n")
    return message


def test_messages_are_recorded_as_they_would_be_sent() -> None:
    mailer = StubMailer()
    report = result(mailer.send(message("b@example.net")))
    (sent,) = mailer.sent
    assert [str(r) for r in sent.envelope.recipients] == ["b@example.net", "x@example.net"]
    assert (sent.email["Bcc"], sent.email["Subject"], sent.content[-4:]) == (
        None,
        "hello",
        b"hi\r\n",
    )
    assert (sent.report, report.queue_id) == (report, "STUB1")
    assert sent.email["Message-ID"] == report.message_id


def test_the_stub_replaces_submit() -> None:
    mailer = StubMailer()
    result(
        mailer.submit(
            None, "smtps://mail.example.org", b"hi", sender="", recipients="b@example.net"
        )
    )
    assert (mailer.sent[0].server, str(mailer.sent[0].envelope.sender)) == (
        "smtps://mail.example.org",
        "<>",
    )


def test_refusals_are_per_recipient_and_all_refused_is_an_error() -> None:
    mailer = StubMailer()
    mailer.refuse("b@example.net")
    report = result(mailer.send(message("b@example.net", "c@example.net")))
    assert [str(o.recipient) for o in report.refused] == ["b@example.net"]
    mailer.refuse("x@example.net", 452, "4.2.2 full")
    with pytest.raises(AllRecipientsRefused):
        result(mailer.send(message("b@example.net")))
    assert len(mailer.sent) == 1


def test_all_or_nothing_records_nothing_when_one_recipient_is_refused() -> None:
    mailer = StubMailer()
    mailer.refuse("b@example.net")
    with pytest.raises(AllRecipientsRefused):
        result(mailer.send(message("b@example.net", "c@example.net"), all_or_nothing=True))
    assert mailer.sent == []


def test_a_failure_is_raised_once() -> None:
    mailer = StubMailer()
    mailer.fail(ConnectFailed("no server"))
    with pytest.raises(ConnectFailed):
        result(mailer.send(message("b@example.net")))
    result(mailer.send(message("b@example.net")))
    assert len(mailer.sent) == 1


def test_invalid_messages_raise_the_errors_of_submit() -> None:
    mailer = StubMailer()
    with pytest.raises(InvalidAddress):
        result(mailer.send(b"x", sender="a b", recipients="b@example.net"))
    with pytest.raises(InvalidInput):
        result(mailer.send(b"x", sender="a@example.org"))


async def some() -> AsyncIterator[Any]:
    yield message("b@example.net")
    yield Envelope("a@example.org", "c@example.net"), b"hello"


def test_many_messages_are_recorded_in_order() -> None:
    mailer = StubMailer()
    mailer.refuse("c@example.net")
    first, second = result(mailer.send_many(some()))
    assert (len(first.accepted), len(second.refused), len(mailer.sent)) == (2, 1, 1)
    result(mailer.send_many([message("b@example.net")]))
    result(mailer.aclose())
    assert (len(mailer.sent), mailer.closed) == (2, True)
    mailer.clear()
    assert mailer.sent == []
