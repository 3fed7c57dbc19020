"""Refusals of a real Postfix: some or all recipients, the sender, the content, the size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import (
    ActionIgnored,
    AllRecipientsRefused,
    Envelope,
    ErrorProcessing,
    ExtensionUnavailable,
    MailboxUnavailable,
    Mailer,
    MessageTooLarge,
    PermanentFailure,
    PoolLimits,
    RecipientStatus,
    ServiceClosing,
    TemporaryFailure,
    submit,
)

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: refusals\r\n\r\nhello\r\n"
SENDER = "alice@example.test"


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining", "bare"])
async def test_some_refused_is_a_result_and_the_others_get_it(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    names = ["bob", "gone.1", "carol", "later.1", "full", "dave"]
    recipients = [f"{name}@example.test" for name in names]
    report = await submit(
        reactor, postfix.server(service), MESSAGE, sender=SENDER, recipients=recipients
    )
    found = {
        str(outcome.recipient): (outcome.status, outcome.reply.code, outcome.transient)
        for outcome in report.outcomes
        if outcome.reply
    }
    assert found == {
        "bob@example.test": (RecipientStatus.ACCEPTED, 250, False),
        "gone.1@example.test": (RecipientStatus.REFUSED, 550, False),
        "carol@example.test": (RecipientStatus.ACCEPTED, 250, False),
        "later.1@example.test": (RecipientStatus.REFUSED, 450, True),
        "full@example.test": (RecipientStatus.REFUSED, 452, True),
        "dave@example.test": (RecipientStatus.ACCEPTED, 250, False),
    }
    assert recipients == [str(outcome.recipient) for outcome in report.outcomes]
    copies = await postfix.delivered(reactor, report.queue_id)
    assert [copy.recipient for copy in copies] == [
        "bob@example.test",
        "carol@example.test",
        "dave@example.test",
    ]


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining"])
@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["gone"], PermanentFailure),
        (["gone.1", "gone.2"], PermanentFailure),
        (["later"], MailboxUnavailable),
        (["busy"], ErrorProcessing),
        (["full"], ActionIgnored),
        (["later.1", "gone"], TemporaryFailure),
    ],
)
async def test_all_refused_is_an_error_of_the_kind_of_the_refusal(
    reactor: Any, postfix: Postfix, service: str, names: list[str], kind: type[Exception]
) -> None:
    since = len(postfix.log)
    recipients = [f"{name}@example.test" for name in names]
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor, postfix.server(service), MESSAGE, sender=SENDER, recipients=recipients
        )
    error = caught.value
    assert isinstance(error, kind)
    assert (kind is not PermanentFailure, "RCPT") == (error.transient, error.phase)
    assert error.report is not None
    assert len(names) == len(error.report.refused)
    # With PIPELINING the DATA was on its way: Postfix refused it, or got a lone dot.
    end = await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    assert f"rcpt=0/{len(names)}" in end
    await postfix.quiet(reactor)
    assert postfix.logged("(queue active)", since=since) == []


@ensureDeferred
async def test_the_error_is_one_line_that_names_the_recipient_and_the_reply(
    reactor: Any, postfix: Postfix
) -> None:
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor, postfix.server(), MESSAGE, sender=SENDER, recipients="gone@example.test"
        )
    port = postfix.ports["submission"]
    text = (
        f"RCPT TO:<gone@example.test> refused by [127.0.0.1]:{port}: 550 5.1.1 "
        "<gone@example.test>: Recipient address rejected: there is nobody here by that name"
    )
    assert text == str(caught.value)
    assert caught.value.enhanced is not None
    assert str(caught.value.enhanced) == "5.1.1"


@ensureDeferred
async def test_a_refused_sender_is_every_recipients_refusal(reactor: Any, postfix: Postfix) -> None:
    """Postfix says so at RCPT, by `smtpd_delay_reject`."""
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor,
            postfix.server(),
            MESSAGE,
            sender="banned@example.test",
            recipients=["bob@example.test", "carol@example.test"],
        )
    assert "not from you" in str(caught.value)


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining"])
async def test_a_refused_data_is_every_recipients_refusal(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor,
            postfix.server(service),
            MESSAGE,
            sender="nodata@example.test",
            recipients=["bob@example.test", "carol@example.test"],
        )
    error = caught.value
    assert isinstance(error, PermanentFailure)
    # A content that went out by BDAT had no DATA.
    assert error.phase in ({"DATA"} if service == "data" else {"DATA", "content"})
    assert "no data from you" in str(error)


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
async def test_a_refused_content_is_every_recipients_refusal(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor,
            postfix.server(service),
            b"X-Refuse: yes\r\n" + MESSAGE,
            sender=SENDER,
            recipients=["bob@example.test", "gone@example.test"],
        )
    error = caught.value
    assert isinstance(error, PermanentFailure)
    assert error.phase == "content"
    assert error.report is not None
    assert [o.reply.code for o in error.report.refused if o.reply] == [550, 550]


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining"])
async def test_all_or_nothing_delivers_to_nobody_when_one_is_refused(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    since = len(postfix.log)
    with pytest.raises(PermanentFailure) as caught:
        await submit(
            reactor,
            postfix.server(service),
            MESSAGE,
            sender=SENDER,
            recipients=["bob@example.test", "gone@example.test"],
            all_or_nothing=True,
        )
    assert caught.value.recipient == "gone@example.test"
    assert caught.value.report is not None
    assert [outcome.status for outcome in caught.value.report.outcomes] == [
        RecipientStatus.UNTOUCHED,
        RecipientStatus.REFUSED,
    ]
    await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    await postfix.quiet(reactor)
    assert postfix.logged("(queue active)", since=since) == []


@ensureDeferred
async def test_too_large_is_refused_here_before_mail(reactor: Any, postfix: Postfix) -> None:
    since = len(postfix.log)
    with pytest.raises(MessageTooLarge) as caught:
        await submit(reactor, postfix.server("small"), MESSAGE + b"x" * 3000, complete=False)
    size = len(MESSAGE) + 3002
    assert caught.value.detail == f"it has {size} octets, the server takes 2000"
    end = await postfix.line(reactor, "small/smtpd", "disconnect from", since=since)
    assert "mail=" not in end


@ensureDeferred
@pytest.mark.parametrize("service", ["small", "small_data"])
async def test_a_stream_that_grows_too_large_is_not_delivered(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    since = len(postfix.log)
    chunks = iter([MESSAGE] + [b"x" * 70 + b"\r\n"] * 1000)
    with pytest.raises(MessageTooLarge):
        await submit(
            reactor, postfix.server(service), chunks, sender=SENDER, recipients="bob@example.test"
        )
    await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    await postfix.quiet(reactor)
    assert postfix.logged("(queue active)", since=since) == []


@ensureDeferred
@pytest.mark.parametrize("service", ["small_untold", "small_untold_data"])
@pytest.mark.parametrize("octets", [3000, 3_000_000])
async def test_too_large_for_a_server_that_did_not_say_so(
    reactor: Any, postfix: Postfix, service: str, octets: int
) -> None:
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(reactor, postfix.server(service), MESSAGE + b"x" * octets)
    error = caught.value
    assert isinstance(error, PermanentFailure)
    assert error.reply is not None
    assert (error.phase, error.reply.code) == ("content", 552)


@ensureDeferred
async def test_recipients_beyond_the_servers_limit_get_the_message_in_another_transaction(
    reactor: Any, postfix: Postfix
) -> None:
    recipients = [f"r{n}@example.test" for n in range(5)]
    report = await submit(
        reactor, postfix.server("few_recipients"), MESSAGE, sender=SENDER, recipients=recipients
    )
    assert recipients == [str(outcome.recipient) for outcome in report.accepted]
    ids = {
        outcome.reply.text.rpartition(" ")[2]: None for outcome in report.accepted if outcome.reply
    }
    copies = [await postfix.delivered(reactor, each) for each in ids]
    assert [recipients[:3], recipients[3:]] == [
        [copy.recipient for copy in each] for each in copies
    ]


@ensureDeferred
async def test_an_address_beyond_ascii_is_refused_here_where_it_cannot_go(
    reactor: Any, postfix: Postfix
) -> None:
    with pytest.raises(ExtensionUnavailable, match="SMTPUTF8 is needed and not offered"):
        await submit(
            reactor,
            postfix.server("bare"),
            MESSAGE,
            sender=SENDER,
            recipients="jürgen@example.test",
        )


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data", "no_pipelining"])
async def test_a_421_to_the_content_is_a_refusal_for_now_and_the_message_is_not_there(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    since = len(postfix.log)
    with pytest.raises(AllRecipientsRefused) as caught:
        await submit(
            reactor,
            postfix.server(service),
            MESSAGE,
            sender="closing@example.test",
            recipients="bob@example.test",
        )
    error = caught.value
    assert isinstance(error, ServiceClosing)
    assert (error.transient, error.in_doubt) == (True, False)
    assert error.report is not None
    assert [outcome.status for outcome in error.report.outcomes] == [RecipientStatus.REFUSED]
    await postfix.line(reactor, f"{service}/smtpd", "disconnect from", since=since)
    await postfix.quiet(reactor)
    assert postfix.logged("(queue active)", since=since) == []


@ensureDeferred
@pytest.mark.parametrize("service", ["submission", "data"])
async def test_in_a_stream_a_421_to_the_content_answers_its_own_message(
    reactor: Any, postfix: Postfix, service: str
) -> None:
    """What is in doubt goes out once only; everybody else gets one copy."""
    since = len(postfix.log)
    mailer = Mailer(reactor, postfix.server(service), limits=PoolLimits(connections=1))
    senders = [f"{'closing' if n == 2 else 'alice'}@example.test" for n in range(8)]
    items = [(Envelope(each, f"stream{n}@example.test"), MESSAGE) for n, each in enumerate(senders)]
    reports = await mailer.send_many(items)
    await mailer.aclose()
    await postfix.quiet(reactor)
    found = [report.outcomes[0].status for report in reports]
    assert found[:3] == [
        RecipientStatus.ACCEPTED,
        RecipientStatus.ACCEPTED,
        RecipientStatus.REFUSED,
    ]
    assert set(found[3:]) <= {RecipientStatus.ACCEPTED, RecipientStatus.IN_DOUBT}
    queued = postfix.logged("(queue active)", since=since)
    accepted = found.count(RecipientStatus.ACCEPTED)
    assert accepted <= len(queued) <= accepted + found.count(RecipientStatus.IN_DOUBT)
    assert service != "data" or [RecipientStatus.ACCEPTED] * 5 == found[3:]
