"""The extensions of a real Postfix, and the session in its log."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred

from twisted_sendmail import Envelope, Recipient, submit

if TYPE_CHECKING:
    from tests.scenarios.postfix import Postfix

MESSAGE = b"From: alice@example.test\r\nTo: bob@example.test\r\nSubject: more\r\n\r\nhello\r\n"


def said(lines: Any, verb: str) -> str:
    """The one line we said that begins with *verb*."""
    (line,) = [line for line in lines if line.startswith(f"C: {verb}")]
    return str(line)


@ensureDeferred
async def test_a_local_part_beyond_ascii(reactor: Any, postfix: Postfix) -> None:
    message = "From: jürgen@example.test\r\nTo: 用户@example.test\r\nSubject: Grüße\r\n\r\nhei\r\n"
    report = await submit(reactor, postfix.server(), message, complete=False)
    assert said(report.transcript, "MAIL").endswith(" SMTPUTF8")
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert ("jürgen@example.test", "用户@example.test", message.encode()) == (
        copy.sender,
        copy.recipient,
        copy.content,
    )


@ensureDeferred
async def test_smtputf8_is_asked_for_only_where_it_is_needed(
    reactor: Any, postfix: Postfix
) -> None:
    report = await submit(reactor, postfix.server(), MESSAGE + "Grüße\r\n".encode(), complete=False)
    size = len(MESSAGE) + 9
    line = said(report.transcript, "MAIL")
    assert line == f"C: MAIL FROM:<alice@example.test> SIZE={size} BODY=8BITMIME"


@ensureDeferred
async def test_a_domain_beyond_ascii_goes_in_its_ascii_form(reactor: Any, postfix: Postfix) -> None:
    report = await submit(
        reactor,
        postfix.server("bare"),
        MESSAGE,
        sender="info@bücher.example",
        recipients="bob@example.test",
    )
    assert said(report.transcript, "MAIL") == "C: MAIL FROM:<info@xn--bcher-kva.example>"
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert copy.sender == "info@xn--bcher-kva.example"


@ensureDeferred
async def test_the_null_reverse_path(reactor: Any, postfix: Postfix) -> None:
    report = await submit(
        reactor, postfix.server(), MESSAGE, sender="", recipients="bob@example.test"
    )
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert copy.sender == ""


@ensureDeferred
async def test_a_quoted_local_part(reactor: Any, postfix: Postfix) -> None:
    odd = '"a b"@example.test'
    report = await submit(reactor, postfix.server(), MESSAGE, sender=odd, recipients=odd)
    assert "C: RCPT TO:<" + odd + ">" == said(report.transcript, "RCPT")
    (copy,) = await postfix.delivered(reactor, report.queue_id)
    assert odd == copy.recipient


@ensureDeferred
async def test_a_success_notice_comes_and_bears_what_we_said(
    reactor: Any, postfix: Postfix
) -> None:
    since = len(postfix.log)
    envelope = Envelope(
        "notices@example.test",
        [
            Recipient("bob@example.test", {"SUCCESS"}, "rfc822;Bob+Lists=1@example.org"),
            Recipient("quiet@example.test", {"NEVER"}),
        ],
        ret="HDRS",
        envid="env+id=1",
    )
    report = await submit(reactor, postfix.server(), MESSAGE, envelope=envelope)
    assert len(report.accepted) == 2
    await postfix.delivered(reactor, report.queue_id)
    line = await postfix.line(reactor, "sender delivery status notification: ", since=since)
    notice_id = line.rpartition(": ")[2]
    (notice,) = await postfix.delivered(reactor, notice_id)
    assert (notice.sender, notice.recipient) == ("", "notices@example.test")
    parsed = BytesParser(policy=default).parsebytes(notice.content)
    assert parsed.get_content_type() == "multipart/report"
    (status,) = [p for p in parsed.walk() if p.get_content_type() == "message/delivery-status"]
    whole, *each = status.iter_parts()
    assert whole["Original-Envelope-Id"] == "env+id=1"
    assert [str(block["Original-Recipient"]).replace(" ", "") for block in each] == [
        "rfc822;Bob+Lists=1@example.org"
    ]


@ensureDeferred
async def test_dsn_is_left_out_where_it_is_not_offered(reactor: Any, postfix: Postfix) -> None:
    envelope = Envelope(
        "alice@example.test", [Recipient("bob@example.test", {"SUCCESS"})], envid="x"
    )
    report = await submit(reactor, postfix.server("bare"), MESSAGE, envelope=envelope)
    assert said(report.transcript, "MAIL") == "C: MAIL FROM:<alice@example.test>"
    assert said(report.transcript, "RCPT") == "C: RCPT TO:<bob@example.test>"


@ensureDeferred
@pytest.mark.parametrize(
    ("service", "grouped"), [("data", True), ("no_pipelining", False), ("bare", False)]
)
async def test_commands_go_out_together_only_with_pipelining(
    reactor: Any, postfix: Postfix, service: str, grouped: bool
) -> None:
    report = await submit(
        reactor,
        postfix.server(service),
        MESSAGE,
        sender="alice@example.test",
        recipients=["bob@example.test", "carol@example.test"],
    )
    talk = [line[:6] for line in report.transcript or ()]
    mail = talk.index("C: MAI")
    together = ["C: MAI", "C: RCP", "C: RCP", "C: DAT"]
    assert grouped == (together == talk[mail : mail + 4])
    if not grouped:
        assert ["C: MAI", "S: 250", "C: RCP", "S: 250", "C: RCP", "S: 250", "C: DAT", "S: 354"] == (
            talk[mail : mail + 8]
        )


@ensureDeferred
async def test_postfix_sees_one_orderly_session(reactor: Any, postfix: Postfix) -> None:
    since = len(postfix.log)
    await submit(reactor, postfix.server("data"), MESSAGE)
    end = await postfix.line(reactor, "data/smtpd", "disconnect from", since=since)
    expected = "ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8"
    assert end.partition("] ")[2] == expected
    assert postfix.logged("warning", since=since) == []
    assert postfix.logged("improper", since=since) == []
