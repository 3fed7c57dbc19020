"""Delivery reports: programs read back the values, and foreign text cannot add fields."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import timedelta
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve as replace
from hypothesis import given
from hypothesis import strategies as st

from tests.message.messages import NOW
from twisted_sendmail import InvalidInput, Mailbox, Recipient
from twisted_sendmail.message import DSNAction, Report, ReportedRecipient
from twisted_sendmail.message.downgrade import reencoded
from twisted_sendmail.message.dsn import MAX_HEADER_RETURNED

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"From: jane@example.org\r\nSubject: hello\r\nMessage-ID: <i@example.org>\r\n\r\n.hi\r\n"
FAILED = ReportedRecipient(
    Recipient("bob@example.net", orcpt="rfc822;list@example.com"),
    DSNAction.FAILED,
    "5.1.1",
    "550 5.1.1 User unknown",
    "mx.example.net[192.0.2.1]:587",
    NOW,
)


def report(*recipients: ReportedRecipient, **changes: Any) -> Report:
    given_: dict[str, Any] = {
        "name": "relay.example.net",
        "to": Mailbox.parse("jane@example.org"),
        "recipients": recipients or (FAILED,),
        "arrived": NOW - timedelta(hours=5),
        "now": NOW,
        "content": CONTENT,
        "whole": True,
        "envid": "E=1",
        "queue_id": "0ID",
        **changes,
    }
    return Report(**given_)


def read(made: Report) -> EmailMessage:
    """As a program reads it; it finds nothing wrong with it."""
    octets = made.to_bytes()
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert not re.search(rb"\0|\r(?!\n)|(?<!\r)\n", octets)
    message: Any = email.message_from_bytes(octets, policy=email.policy.SMTP)
    # What is returned may be as broken as it was.
    assert [defect for part in (message, *message.iter_parts()) for defect in part.defects] == []
    return message  # type: ignore[no-any-return]


def parts(made: Report) -> list[Any]:
    return list(read(made).iter_parts())


def octets_of(made: Report, number: int) -> tuple[bytes, bytes]:
    """The fields and the octets of one part, as they are on the wire."""
    octets = made.to_bytes()
    boundary = re.search(rb'boundary="([^"]+)"', octets)
    assert boundary is not None
    part = octets.split(b"\r\n--" + boundary[1])[1 + number]
    head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    return head, body


def status(made: Report) -> list[Any]:
    """The blocks of fields for programs."""
    if not made.international:
        return list(parts(made)[1].get_payload())
    # The library reads only the ASCII kind.
    text = octets_of(made, 1)[1].decode()
    policy = email.policy.SMTPUTF8
    return [email.message_from_string(block, policy=policy) for block in text.split("\r\n\r\n")]


def fields(block: Any) -> dict[str, str]:
    return {name: " ".join(str(value).split()) for name, value in block.items()}


def test_the_header_says_what_it_is() -> None:
    message = read(report(message_id="<r@relay.example.net>"))
    assert {name: str(value) for name, value in message.items() if name != "Content-Type"} == {
        "From": "Mail Delivery System <MAILER-DAEMON@relay.example.net>",
        "To": "jane@example.org",
        "Subject": "Your mail could not be delivered",
        "Date": "Sat, 21 Nov 2026 04:30:00 +0000",
        "Message-ID": "<r@relay.example.net>",
        "In-Reply-To": "<i@example.org>",
        "References": "<i@example.org>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
    }
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert [part.get_content_type() for part in parts(report())] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]


def test_the_facts_are_there_for_programs() -> None:
    about, bob = status(report())
    assert fields(about) == {
        "Original-Envelope-Id": "E=1",
        "Reporting-MTA": "dns; relay.example.net",
        "X-Queue-ID": "0ID",
        "Arrival-Date": "Fri, 20 Nov 2026 23:30:00 +0000",
    }
    assert fields(bob) == {
        "Original-Recipient": "rfc822;list@example.com",
        "Final-Recipient": "rfc822; bob@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 User unknown",
        "Last-Attempt-Date": "Sat, 21 Nov 2026 04:30:00 +0000",
    }


def test_people_are_told_what_happened_and_what_to_do() -> None:
    text = parts(report())[0].get_content().splitlines()
    assert text == [
        "This is the mail system at relay.example.net.",
        "",
        "Your message could not be delivered to the recipients below. It will not be",
        "tried again.",
        "",
        "  Subject: hello",
        "  Message-ID: <i@example.org>",
        "  Received here: Fri, 20 Nov 2026 23:30:00 +0000",
        "  Queue id: 0ID",
        "",
        "  <bob@example.net>",
        "    (addressed as list@example.com)",
        "    mx.example.net[192.0.2.1]:587 said:",
        "      550 5.1.1 User unknown",
        "    There is no such mailbox there. Check the address, and send the message",
        "    again.",
        "",
        "If you do not know what to do, show this report to your postmaster.",
        "",
        "Your message is attached, and so are the facts for programs.",
    ]


@pytest.mark.parametrize(
    ("action", "code", "subject"),
    [
        (DSNAction.FAILED, "5.0.0", "Your mail could not be delivered"),
        (DSNAction.DELAYED, "4.0.0", "Your mail is late, and still being tried"),
        (DSNAction.RELAYED, "2.0.0", "Your mail was handed on"),
        (DSNAction.DELIVERED, "2.0.0", "Your mail was delivered"),
        (DSNAction.EXPANDED, "2.0.0", "Your mail was sent on to several"),
    ],
)
@pytest.mark.parametrize("nonsense", [None, "", "5.1", "3.0.0", "5.1.1\r\nX: y"])
def test_each_action_has_its_words_and_a_code(
    action: DSNAction, code: str, subject: str, nonsense: str | None
) -> None:
    made = report(replace(FAILED, action=action, status=nonsense, will_retry_until=NOW))
    _, bob = status(made)
    assert (action.value, code, subject) == (bob["Action"], bob["Status"], read(made)["Subject"])
    assert (action is DSNAction.DELAYED) is ("Will-Retry-Until" in bob)
    assert (action is DSNAction.FAILED) is ("postmaster" in parts(made)[0].get_content())


def test_a_report_of_several_is_about_the_worst() -> None:
    late = ReportedRecipient(Recipient("c@example.net"), DSNAction.DELAYED, will_retry_until=NOW)
    made = report(late, FAILED)
    assert read(made)["Subject"] == "Your mail could not be delivered"
    assert [block["Action"] for block in status(made)] == [None, "delayed", "failed"]


def test_what_no_server_said_is_not_put_into_its_mouth() -> None:
    made = report(replace(FAILED, reply="connection refused", relay="2001:db8::1"))
    _, bob = status(made)
    assert bob["Diagnostic-Code"] == "X-local; connection refused"
    assert "what went wrong:\n      connection refused" in parts(made)[0].get_content().replace(
        "\r", ""
    )


def test_a_report_is_about_somebody() -> None:
    with pytest.raises(InvalidInput, match="about no recipient"):
        report(recipients=())


# -- what is returned -------------------------------------------------------------------


def returned(made: Report) -> tuple[str, bytes]:
    """The kind and the octets of the last part."""
    head, body = octets_of(made, 2)
    kind = re.search(rb"Content-Type: ([^\r;]+)", head)
    assert kind is not None
    assert (b"8bit" in head) is not body.isascii()
    return kind[1].decode(), body


HEADER = CONTENT[: CONTENT.index(b"\r\n\r\n") + 2]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("message/rfc822", CONTENT)),
        ({"ret": "FULL"}, ("message/rfc822", CONTENT)),
        ({"ret": "HDRS"}, ("text/rfc822-headers", HEADER)),
        ({"whole": False}, ("text/rfc822-headers", HEADER)),
        ({"max_returned": len(CONTENT) - 1}, ("text/rfc822-headers", HEADER)),
        ({"content": HEADER}, ("message/rfc822", HEADER)),
        ({"content": HEADER, "ret": "HDRS"}, ("text/rfc822-headers", HEADER)),
        ({"content": b""}, ("message/rfc822", b"")),
        ({"content": b"no header\r\n"}, ("message/rfc822", b"no header\r\n")),
        ({"content": b"no header\r\n", "whole": False}, ("text/rfc822-headers", b"")),
        # A server refused the message for its size or its kind.
        *(
            ({"recipients": (replace(FAILED, status=code),)}, ("text/rfc822-headers", HEADER))
            for code in ("5.3.4", "5.6.1", "5.6.3")
        ),
        # What SMTP would not carry back.
        ({"content": CONTENT + b"\0"}, ("text/rfc822-headers", HEADER)),
        ({"content": CONTENT + b"a\rb"}, ("text/rfc822-headers", HEADER)),
        ({"content": CONTENT + b"a\nb\r\n"}, ("text/rfc822-headers", HEADER)),
        ({"content": CONTENT + b"x" * 999 + b"\r\n"}, ("text/rfc822-headers", HEADER)),
        ({"content": CONTENT + b"\xff\r\n"}, ("message/rfc822", CONTENT + b"\xff\r\n")),
        # Beyond ASCII.
        (
            {"content": b"X: \xc3\xa9\r\n" + CONTENT},
            ("message/global", b"X: \xc3\xa9\r\n" + CONTENT),
        ),
        (
            {"content": b"X: \xc3\xa9\r\n" + CONTENT, "ret": "HDRS"},
            ("message/global-headers", b"X: \xc3\xa9\r\n" + HEADER),
        ),
        (
            {"content": b"X: \xff\r\n" + CONTENT, "ret": "HDRS"},
            ("text/rfc822-headers", b"X: \xff\r\n" + HEADER),
        ),
        (
            {"content": b"X: " + b"\xc3\xa9" * 600 + b"\r\n" + HEADER, "ret": "HDRS"},
            ("message/global-headers", b"X: " + b"\xc3\xa9" * 497 + b"\r\n" + HEADER),
        ),
        ({"content": b"A: \0b\rC: d\r\n\r\n"}, ("text/rfc822-headers", b"A: b\r\nC: d\r\n")),
    ],
)
def test_what_was_sent_comes_back_octet_for_octet(
    changes: dict[str, Any], expected: tuple[str, bytes]
) -> None:
    made = report(**changes)
    read(made)
    assert returned(made) == expected


def test_only_a_failure_returns_the_message() -> None:
    made = report(replace(FAILED, action=DSNAction.DELAYED))
    assert returned(made) == ("text/rfc822-headers", HEADER)
    assert "The header of your message is attached" in parts(made)[0].get_content()


def test_a_long_header_comes_back_in_part() -> None:
    kind, octets = returned(report(content=b"X: y\r\n" * 10_000 + b"\r\n", whole=False))
    assert kind == "text/rfc822-headers"
    assert 0 < len(octets) <= MAX_HEADER_RETURNED
    assert octets == b"X: y\r\n" * (len(octets) // 6)


def test_an_eight_bit_report_can_be_made_seven_bit() -> None:
    made = report(content=CONTENT + "h\u00ef\r\n".encode())
    assert b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA report" in made.to_bytes()
    encoded = reencoded(made.to_bytes())
    assert encoded is not None
    assert encoded.isascii()


# -- beyond ASCII -----------------------------------------------------------------------


def test_an_address_beyond_ascii_makes_the_report_international() -> None:
    recipient = Recipient("j\u00fcrgen@b\u00fccher.example", orcpt="utf-8;j\u00fcrgen@x.example")
    made = report(replace(FAILED, recipient=recipient, reply="550 5.1.1 j\u00fcrgen?"))
    assert made.international
    assert parts(made)[1].get_content_type() == "message/global-delivery-status"
    _, found = status(made)
    assert found["Original-Recipient"] == "utf-8;j\u00fcrgen@x.example"
    assert found["Final-Recipient"] == "utf-8; j\u00fcrgen@xn--bcher-kva.example"
    assert found["Diagnostic-Code"] == "smtp; 550 5.1.1 j\u00fcrgen?"
    assert "j\u00fcrgen@xn--bcher-kva.example" in parts(made)[0].get_content()


def test_many_recipients_are_looked_at_once() -> None:
    """Nothing else goes on while a report is written."""
    times_read = 0

    class Recipients(tuple[ReportedRecipient, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[ReportedRecipient]:
            nonlocal times_read
            times_read += 1
            return super().__iter__()

    many = (replace(FAILED, recipient=Recipient(f"u{n}@x.example")) for n in range(300))
    octets = report(recipients=Recipients(many)).to_bytes()
    assert octets.count(b"\r\nFinal-Recipient: ") == 300
    assert times_read < 10


def test_a_domain_beyond_ascii_needs_nothing() -> None:
    made = report(replace(FAILED, recipient=Recipient("a@b\u00fccher.example")))
    _, found = status(made)
    assert (
        made.international,
        found["Final-Recipient"],
    ) == (False, "rfc822; a@xn--bcher-kva.example")


def test_what_a_server_says_beyond_ascii_is_escaped_for_programs() -> None:
    made = report(replace(FAILED, reply="550 Empf\u00e4nger unbekannt"))
    _, found = status(made)
    assert found["Diagnostic-Code"] == "smtp; 550 Empf\\xe4nger unbekannt"
    assert "550 Empf\u00e4nger unbekannt" in parts(made)[0].get_content()


# -- nothing of others becomes ours -----------------------------------------------------

HOSTILE = st.one_of(
    st.text(max_size=1200),
    st.lists(
        st.sampled_from(
            [
                "550",
                " ",
                "\r\n",
                "\n",
                "\r",
                "\0",
                "\x1b[2J",
                "\u2028",
                "\x85",
                "Action: delivered",
                "--=_",
                "x" * 1000,
            ]
        ),
        max_size=10,
    ).map("".join),
)


@given(HOSTILE, HOSTILE, HOSTILE, st.binary(max_size=300))
def test_nobody_can_add_a_field_or_a_line(
    reply: str, relay: str, subject: str, content: bytes
) -> None:
    subject = " ".join(subject.split("\n")).replace("\r", " ")
    header = f"Subject: {subject}\r\nMessage-ID: <{relay[:20]}>\r\n".encode("utf-8", "replace")
    made = report(replace(FAILED, reply=reply, relay=relay), content=header + content, ret="HDRS")
    message = read(made)
    assert len(message.get_all("Subject", [])) == 1
    assert {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    } >= set(message) - {"In-Reply-To", "References", "Content-Transfer-Encoding"}
    assert len(parts(made)) == 3
    _, bob = status(made)
    assert bob["Action"] == "failed"
    assert {
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    } >= set(bob.keys())
    assert not re.search("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028]", parts(made)[0].get_content())
