"""The envelope of a local program's message, and the header fields that are added."""

from __future__ import annotations

import os
import pwd
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import pytest

from twisted_sendmail import InvalidInput, ReversePath
from twisted_sendmail.cli.sendmail.message import (
    User,
    current_user,
    envelope_of,
    envelope_sender,
)
from twisted_sendmail.cli.sendmail.options import SendmailOptions
from twisted_sendmail.message import Header, HeaderFixer

HOST = "host.example.org"
ALICE = User(1000, "alice", "Alice Liddell")
NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc).timestamp()


def complete_header(
    header: Header, sender: ReversePath, full_name: str, now: float, domain: str
) -> Header:
    """The header as the command sends it."""
    return HeaderFixer(now, domain, sender, from_name=full_name).completed(header)


def header(*lines: str) -> Header:
    return Header.parse("".join(f"{line}\r\n" for line in lines).encode())


def recipients(asked: SendmailOptions, *lines: str) -> list[str]:
    envelope = envelope_of(asked, header(*lines), ReversePath(), HOST)
    return [str(recipient) for recipient in envelope.recipients]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "alice@host.example.org"),
        ("root", "root@host.example.org"),
        ("bob@example.net", "bob@example.net"),
        ("<bob@example.net>", "bob@example.net"),
        ("Bob <bob@example.net>", "bob@example.net"),
        ("", "<>"),
        ("<>", "<>"),
        (" <> ", "<>"),
    ],
)
def test_the_sender_is_that_of_f_or_the_user(given: str | None, expected: str) -> None:
    sender = envelope_sender(SendmailOptions(sender=given), ALICE, HOST)
    assert expected == (str(sender.mailbox) if sender.mailbox else "<>")


@pytest.mark.parametrize("given", ["a@b, c@d", "a@@b", "a b", "a@b\r\nRCPT TO:<c@d>"])
def test_an_invalid_sender_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput):
        envelope_sender(SendmailOptions(sender=given), ALICE, HOST)


def test_recipients_are_those_of_the_command_line() -> None:
    asked = SendmailOptions(recipients=("bob@example.net", "root", "c@x.org, Dave <d@x.org>"))
    expected = ["bob@example.net", "root@host.example.org", "c@x.org", "d@x.org"]
    assert recipients(asked, "To: nobody@example.net") == expected


def test_with_t_recipients_of_the_header_are_added() -> None:
    """As in Postfix: those of the command line are added."""
    asked = SendmailOptions(from_header=True, recipients=("eve@example.net",))
    lines = ("To: bob@example.net, team: root, c@x.org;", "Cc: d@x.org", "Bcc: e@x.org")
    expected = "eve@example.net bob@example.net root@host.example.org c@x.org d@x.org e@x.org"
    assert expected.split() == recipients(asked, *lines)


def test_a_resent_message_goes_to_the_recipients_of_its_newest_resent_fields() -> None:
    asked = SendmailOptions(from_header=True)
    lines = (
        "Resent-To: new@example.net",
        "Resent-Bcc: blind@example.net",
        "Received: from a by b",
        "Resent-To: old@example.net",
        "To: first@example.net",
    )
    assert recipients(asked, *lines) == ["new@example.net", "blind@example.net"]


def test_a_header_without_recipients_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no recipients in the header"):
        recipients(SendmailOptions(from_header=True), "Subject: hi")


def test_requests_for_reports_are_in_the_envelope() -> None:
    asked = SendmailOptions(
        recipients=("a@x.org", "b@x.org"), notify=("SUCCESS", "DELAY"), ret="HDRS", envid="QQ1"
    )
    envelope = envelope_of(asked, header(), ReversePath(), HOST)
    assert (envelope.ret, envelope.envid) == ("HDRS", "QQ1")
    assert [set(r.notify) for r in envelope.recipients] == [{"SUCCESS", "DELAY"}] * 2


def test_missing_fields_are_added_and_bcc_is_removed() -> None:
    sender = ReversePath.parse("alice@example.org")
    done = complete_header(
        header("To: bob@example.net", "Bcc: c@x.org", "Resent-Bcc: d@x.org"),
        sender,
        "Alice Liddell",
        NOW,
        HOST,
    )
    assert done.values("to") == ["bob@example.net"]
    assert done.values("from") == ["Alice Liddell <alice@example.org>"]
    assert parsedate_to_datetime(done.values("date")[0]).timestamp() == NOW
    (message_id,) = done.values("message-id")
    assert message_id.endswith("@example.org>")
    assert b"x.org" not in bytes(done)


def test_existing_fields_keep_every_octet() -> None:
    lines = ("From:  x@y.org", "date: today", "Message-Id:<1@x>", "To: a@b")
    done = complete_header(header(*lines), ReversePath(), "Alice", NOW, HOST)
    assert b"".join(line.encode() + b"\r\n" for line in lines) == bytes(done)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "alice@example.org"),
        ("Liddell, Alice", '"Liddell, Alice" <alice@example.org>'),
        ("Zoë", "=?utf-8?q?Zo=C3=AB?= <alice@example.org>"),
        ("Al\r\nBcc: x@y.org", '"Al Bcc: x@y.org" <alice@example.org>'),
        ("\x1b[2J", '"[2J" <alice@example.org>'),
    ],
)
def test_the_full_name_is_quoted_or_encoded_in_from(name: str, expected: str) -> None:
    done = complete_header(header(), ReversePath.parse("alice@example.org"), name, NOW, HOST)
    assert done.values("from") == [expected]


def test_mail_of_the_null_sender_is_from_the_mailer_daemon() -> None:
    done = complete_header(header(), ReversePath(), "Alice", NOW, HOST)
    assert done.values("from") == ["MAILER-DAEMON@host.example.org"]


def test_the_user_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.setenv("NAME", "Some Body")
    entry = pwd.getpwuid(os.getuid())
    assert (entry.pw_name, "Some Body") == (current_user().name, current_user().full_name)


def test_a_user_without_an_entry_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    monkeypatch.setenv("LOGNAME", "app")
    monkeypatch.delenv("NAME", raising=False)
    assert current_user() == User(4_000_000, "app", "")
    monkeypatch.delenv("LOGNAME")
    monkeypatch.delenv("USER", raising=False)
    assert current_user().name == "uid4000000"
