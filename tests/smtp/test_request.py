"""The parameters of MAIL: those that the message needs and the server offers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from twisted_sendmail import Envelope, ExtensionUnavailable, MessageTooLarge, Recipient, Reply
from twisted_sendmail.smtp import Capabilities, mail_command, rcpt_command

EVERYTHING = ("SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS")
PLAIN = {"size": None, "eight_bit": False, "smtputf8": False}


def offering(*lines: str) -> Capabilities:
    """The capabilities of a server that says *lines*."""
    return Capabilities.from_reply(Reply(250, ("mx.example.net", *lines)))


def mail(envelope: Envelope, *lines: str, **needs: Any) -> str:
    """The MAIL command to a server that says *lines*."""
    command = mail_command(envelope, offering(*lines), **{**PLAIN, **needs})
    return command.line().decode("utf-8").removesuffix("\r\n")


ORDINARY = Envelope("f@example.org", "a@example.net")


@pytest.mark.parametrize(
    ("needs", "offered", "expected"),
    [
        ({}, (), ""),
        ({}, EVERYTHING, ""),
        ({"size": 1000}, EVERYTHING, " SIZE=1000"),
        ({"size": 0}, ("SIZE",), " SIZE=0"),
        ({"size": 5_000_000}, ("SIZE",), " SIZE=5000000"),
        ({"size": 5_000_000}, ("SIZE 0",), " SIZE=5000000"),
        ({"size": 10}, ("8BITMIME",), ""),
        ({"eight_bit": True}, EVERYTHING, " BODY=8BITMIME"),
        ({"eight_bit": None}, EVERYTHING, " BODY=8BITMIME"),
        ({"eight_bit": None}, (), ""),
        ({"smtputf8": True}, EVERYTHING, " SMTPUTF8"),
        (
            {"size": 7, "eight_bit": True, "smtputf8": True},
            ("size 1000", "8BitMime", "SmtpUTF8"),
            " SIZE=7 BODY=8BITMIME SMTPUTF8",
        ),
    ],
)
def test_what_is_needed_and_offered(
    needs: dict[str, Any], offered: tuple[str, ...], expected: str
) -> None:
    assert mail(ORDINARY, *offered, **needs) == f"MAIL FROM:<f@example.org>{expected}"


@pytest.mark.parametrize(
    ("needs", "offered", "error", "words"),
    [
        (
            {"size": 1001},
            ("SIZE 1000",),
            MessageTooLarge,
            "it has 1001 octets, the server takes 1000",
        ),
        ({"eight_bit": True}, ("SIZE", "SMTPUTF8"), ExtensionUnavailable, "8BITMIME is needed"),
        ({"smtputf8": True}, ("SIZE", "8BITMIME"), ExtensionUnavailable, "SMTPUTF8 is needed"),
    ],
)
def test_what_is_needed_and_not_offered(
    needs: dict[str, Any], offered: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        mail(ORDINARY, *offered, **needs)
    assert getattr(caught.value, "phase", None) == "MAIL"
    assert getattr(caught.value, "connection_usable", None)


def test_a_domain_beyond_ascii_needs_nothing() -> None:
    envelope = Envelope("f@bücher.example", "a@日本.example")
    assert not envelope.needs_smtputf8
    assert mail(envelope, *EVERYTHING) == "MAIL FROM:<f@xn--bcher-kva.example>"
    assert b"RCPT TO:<a@xn--wgv71a.example>\r\n" == (
        rcpt_command(envelope.recipients[0], offering()).line()
    )


def test_the_null_reverse_path() -> None:
    assert mail(Envelope("", "a@example.net"), "SIZE", size=3) == "MAIL FROM:<> SIZE=3"


def test_tls_all_the_way_is_asked_for_or_refused() -> None:
    envelope = Envelope("f@example.org", "a@example.net", require_tls=True)
    assert mail(envelope, *EVERYTHING) == "MAIL FROM:<f@example.org> REQUIRETLS"
    with pytest.raises(ExtensionUnavailable, match="leave out require_tls"):
        mail(envelope, "DSN")


def test_notifications_where_they_are_offered() -> None:
    envelope = Envelope(
        "f@example.org",
        [
            Recipient("a@example.net", ["success", "FAILURE"], "rfc822;a+b=c d@example.net"),
            Recipient("b@example.net", "never"),
            Recipient("c@example.net"),
            Recipient("d@example.net", orcpt="utf-8;j\u00fcrgen+x@example.net"),
        ],
        ret="hdrs",
        envid="id + 1 =",
    )
    offered = offering("DSN")
    assert mail(envelope, "DSN") == "MAIL FROM:<f@example.org> RET=HDRS ENVID=id+20+2B+201+20+3D"
    assert [rcpt_command(recipient, offered).line() for recipient in envelope.recipients] == [
        b"RCPT TO:<a@example.net> NOTIFY=FAILURE,SUCCESS ORCPT=rfc822;a+2Bb+3Dc+20d@example.net\r\n",
        b"RCPT TO:<b@example.net> NOTIFY=NEVER\r\n",
        b"RCPT TO:<c@example.net>\r\n",
        b"RCPT TO:<d@example.net> ORCPT=utf-8;j\\x{FC}rgen\\x{2B}x@example.net\r\n",
    ]
    # Without DSN it is delivered all the same (RFC 3461 section 5.2.1).
    assert mail(envelope) == "MAIL FROM:<f@example.org>"
    assert b"RCPT TO:<a@example.net>\r\n" == (
        rcpt_command(envelope.recipients[0], offering()).line()
    )


PATHS = st.sampled_from(["a@example.org", '"a b"@example.org', "a@bücher.example", "b@[192.0.2.1]"])
RECIPIENTS = st.lists(PATHS, min_size=1, max_size=3) | st.just(["Postmaster"])
WISHES: Any = st.one_of(
    st.just({}),
    st.just({"ret": "FULL"}),
    st.just({"envid": "one"}),
    st.just({"require_tls": True}),
)
