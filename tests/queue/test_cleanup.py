"""Changes to a message before it is queued."""

from __future__ import annotations

from typing import Any

import pytest

from tests.names import MessageInfo
from twisted_sendmail import Envelope, Recipient, ReversePath
from twisted_sendmail.message import Rewriting
from twisted_sendmail.queue import Cleanup, CleanupPolicy, TooManyHops

NOW = 1_795_235_400.25
WHOLE = b"From: a@x.example\r\nDate: x\r\nMessage-ID: <i@x>\r\n"
ENVELOPE = Envelope("a@x.example", ["root@localhost"], ret="HDRS", envid="E", require_tls=True)


def policy(**changes: Any) -> CleanupPolicy:
    settings: dict[str, Any] = {
        "name": "relay.example.net",
        "route_of": lambda sender, _: f"for {sender}",
        **changes,
    }
    return CleanupPolicy(**settings)


def admitted(content: bytes, rules: CleanupPolicy, **options: Any) -> tuple[bytes, MessageInfo]:
    envelope = options.pop("envelope", ENVELOPE)
    admission = Cleanup(rules, envelope, "0ID", NOW, **options)
    out = admission.feed(content) + admission.finish()
    return out, admission.message_info()


def test_a_message_that_needs_nothing_is_kept_as_it_is() -> None:
    out, info = admitted(WHOLE + b"\r\nhi\r\n", policy(), origin="x[192.0.2.1]\x1b")
    assert out == WHOLE + b"\r\nhi\r\n"
    assert info == MessageInfo(
        id="0ID",
        envelope=ENVELOPE,
        arrived=NOW,
        route="for a@x.example",
        origin="x[192.0.2.1]\\x1b",
        eight_bit=False,
        message_id="<i@x>",
    )


def test_what_is_missing_is_added_with_the_time_of_arrival() -> None:
    out, info = admitted(b"Subject: s\r\nBcc: b@x\r\n\r\n", policy())
    assert out.startswith(b"Subject: s\r\nFrom: a@x.example\r\nDate: ")
    assert b"Bcc" not in out
    assert info.message_id is not None
    assert info.message_id.endswith("@x.example>")


def test_nothing_is_added_where_that_is_not_wanted() -> None:
    out, info = admitted(b"Bcc: b@x\r\nAuto-Submitted: yes\r\n", policy(complete=False))
    assert (
        out,
        info.message_id,
        info.automatic,
    ) == (b"Bcc: b@x\r\nAuto-Submitted: yes\r\n", None, True)


def test_addresses_are_rewritten_and_the_route_goes_by_the_new_sender() -> None:
    rewriting = Rewriting(senders={"*": "app@example.org"}, admin="admin@example.org")
    out, info = admitted(WHOLE + b"\r\n", policy(rewriting=rewriting))
    assert out.startswith(b"From: app@example.org\r\nDate: x\r\n")
    assert info.route == "for app@example.org"
    assert info.envelope == Envelope(
        "app@example.org",
        Recipient("admin@example.org", orcpt="rfc822;root@localhost"),
        ret="HDRS",
        envid="E",
        require_tls=True,
    )


def test_a_missing_from_names_the_new_sender() -> None:
    rewriting = Rewriting(senders={"*": "app@example.org"})
    out, _ = admitted(b"", policy(rewriting=rewriting))
    assert out.startswith(b"From: app@example.org\r\n")


@pytest.mark.parametrize(
    ("header", "sender", "expected"),
    [
        (b"", "a@x.example", False),
        ("Subject: \u00e9\r\n".encode(), "a@x.example", True),
        (b"", "\u00e9@x.example", True),
        (b"", "a@\u00e9.example", False),
    ],
)
def test_smtputf8_is_needed_for_a_header_or_a_local_part(
    header: bytes, sender: str, expected: bool
) -> None:
    _, info = admitted(WHOLE + header, policy(), envelope=Envelope(sender, "b@x.example"))
    assert info.smtputf8 is expected


def test_what_the_door_knows_is_kept() -> None:
    _, info = admitted(WHOLE + b"\r\n\xff\0", policy(), binary=True, held=True)
    assert (info.binary, info.held, info.eight_bit) == (True, True, True)


@pytest.mark.parametrize("complete", [True, False])
def test_a_message_that_goes_in_circles_is_refused(complete: bool) -> None:
    rules = policy(max_hops=3, complete=complete)
    hop = b"Received: x\r\n"
    out, _ = admitted(hop * 3 + WHOLE, rules)
    assert out == hop * 3 + WHOLE
    admission = Cleanup(rules, ENVELOPE, "0ID", NOW)
    assert admission.feed(hop) == b""
    with pytest.raises(TooManyHops, match="passed 4 servers"):
        admission.feed(hop * 3 + WHOLE + b"\r\n")


def test_a_null_sender_stays_null() -> None:
    rewriting = Rewriting(senders={"*": "app@example.org"})
    _, info = admitted(WHOLE, policy(rewriting=rewriting), envelope=Envelope("", "b@x.example"))
    assert ReversePath() == info.envelope.sender
