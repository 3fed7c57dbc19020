"""One address of several in a header that cannot be used: the others get the message."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_sendmail import (
    DeliveryReport,
    InvalidAddress,
    InvalidInput,
    Recipient,
    SendmailError,
    UnusableRecipient,
)
from twisted_sendmail.testing import MemoryServer

QUOTED = 'if that is the name of the mailbox, put it in quotes: "bad..dots"@example.net'


def message(*fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in fields)
    return f"From: a@example.org\r\n{head}Subject: x\r\n\r\nhello\r\n".encode()


def sent(*fields: str, **options: Any) -> tuple[DeliveryReport, list[str]]:
    """The report, and the recipients that the server got."""
    with MemoryServer() as server:
        report = server.send(message(*fields), **options)
        (received,) = server.messages
        assert message(*fields).partition(b"Subject")[0] in received.content
        return report, [str(recipient) for recipient in received.recipients]


def refused(*fields: str, **options: Any) -> SendmailError:
    """The error of a message that nobody got."""
    with MemoryServer() as server:
        with pytest.raises(InvalidInput) as caught:
            server.send(message(*fields), **options)
        assert server.messages == []
        return caught.value


@pytest.mark.parametrize(
    "bad",
    [
        "bad..dots@example.net",
        ".bad@example.net",
        "bad.@example.net",
        "b ad@example.net",
        "root",
        "bad@example..net",
        "bad@-example.net",
        "bad@",
        "=?utf-8?q?bad?=@example.net",
        "Bad <bad..dots@example.net>",
        "bad@[300.1.1.1]",
    ],
)
@pytest.mark.parametrize("field", ["To: ok@example.net, {}", "To: {},ok@example.net"])
def test_the_others_get_it_and_it_is_reported_as_refused(field: str, bad: str) -> None:
    report, got = sent(field.format(bad))
    assert got == ["ok@example.net"]
    (accepted,) = report.accepted
    assert str(accepted.recipient) == "ok@example.net"
    (result,) = report.refused
    assert isinstance(result.recipient, UnusableRecipient)
    assert str(result.recipient) == bad.removeprefix("Bad <").removesuffix(">")
    assert result.reply is not None
    assert (str(result.reply.enhanced), result.transient) == ("5.1.3", False)


def test_it_may_stand_in_any_field_and_in_a_group() -> None:
    report, got = sent(
        "To: friends: ok@example.net, bad..1@example.net;", "Cc: bad..2@example.net, c@example.net"
    )
    assert got == ["ok@example.net", "c@example.net"]
    assert [str(each.recipient) for each in report.refused] == [
        "bad..1@example.net",
        "bad..2@example.net",
    ]


def test_it_is_named_once() -> None:
    report, _ = sent("To: ok@example.net, bad..1@example.net", "Cc: bad..1@example.net")
    assert len(report.refused) == 1


def test_the_remedy_names_the_quoted_form_which_is_not_written_for_the_user() -> None:
    report, got = sent("To: ok@example.net, bad..dots@example.net")
    assert QUOTED in str(report.refused[0])
    assert '"bad..dots"@example.net' not in got
    # The remedy is true.
    assert sent('To: "bad..dots"@example.net')[1] == ['"bad..dots"@example.net']


def test_where_every_address_is_bad_the_call_is_refused() -> None:
    error = refused("To: bad..dots@example.net, .bad@example.net")
    assert isinstance(error, InvalidAddress)
    assert QUOTED in str(error)


def test_for_all_or_nothing_the_call_is_refused() -> None:
    assert isinstance(
        refused("To: ok@example.net, bad..dots@example.net", all_or_nothing=True), InvalidAddress
    )


@pytest.mark.parametrize(
    "bad",
    ['"bad@example.net', "bad@example.net (", "bad <bad@example.net", "<bad@example.net> x"],
)
def test_a_field_that_is_no_list_of_addresses_refuses_the_call(bad: str) -> None:
    refused(f"To: ok@example.net, {bad}")


def test_an_address_that_is_given_refuses_the_call() -> None:
    """Whatever the others are."""
    to = ["ok@example.net", "bad..dots@example.net"]
    error = refused("To: ok@example.net", recipients=to)
    assert QUOTED in str(error)
    with pytest.raises(InvalidAddress):
        Recipient("bad..dots@example.net")


def test_an_unusable_recipient_cannot_be_sent_to() -> None:
    report, _ = sent("To: ok@example.net, bad..dots@example.net")
    error = refused("To: ok@example.net", recipients=[report.refused[0].recipient])
    assert isinstance(error, InvalidAddress)


@pytest.mark.parametrize("address", ["x@example.org.", "Name <x@example.org.>", '"x"@example.org.'])
def test_the_final_dot_of_a_domain_is_dropped(address: str) -> None:
    report, got = sent(f"To: {address}")
    assert (got, report.refused) == (["x@example.org"], ())


def test_a_final_dot_is_dropped_from_an_address_that_is_given() -> None:
    assert sent("To: y@example.net", recipients="x@example.org.")[1] == ["x@example.org"]
    assert str(Recipient("x@xn--bcher-kva.example.")) == "x@xn--bcher-kva.example"
    for wrong in ("x@example.org..", "x@.", "x@[192.0.2.1]."):
        with pytest.raises(InvalidAddress):
            Recipient(wrong)


def test_a_message_whose_addresses_are_good_has_no_other_report() -> None:
    report, got = sent("To: B <b@example.net>, c@example.net", 'Cc: "d e"@example.net')
    assert got == ["b@example.net", "c@example.net", '"d e"@example.net']
    assert (len(report.outcomes), report.refused) == (3, ())
