"""Every cause of failure has a class of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import (
    DeliveryReport,
    EnhancedStatus,
    Envelope,
    RecipientResult,
    RecipientStatus,
    Reply,
    SendmailError,
)
from twisted_sendmail.smtp import authentication_refusal, errors, refusal

CLASSES: dict[str, type[SendmailError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SendmailError)
}

TRANSIENT = {
    "ActionIgnored",
    "ConnectFailed",
    "ConnectionClosed",
    "ConnectionFailed",
    "DeliveryCancelled",
    "DeliveryInDoubt",
    "DeliveryWithdrawn",
    "ErrorProcessing",
    "ChunkingFailure",
    "InvalidBase64",
    "MailboxUnavailable",
    "MailerBusy",
    "MailerClosed",
    "ProtocolBreach",
    "SendTimeout",
    "ServiceClosing",
    "TLSClosed",
    "TemporaryAuthenticationFailure",
    "TemporaryFailure",
    "UnableToAccommodateParameters",
    "UnexpectedResponse",
}
USABLE = {
    "ActionIgnored",
    "AllRecipientsRefused",
    "AuthenticationRequired",
    "CommandNotAllowed",
    "ErrorProcessing",
    "ExtensionUnavailable",
    "MailboxUnavailable",
    "MessageTooLarge",
    "PermanentFailure",
    "Refused",
    "TemporaryFailure",
    "UnableToAccommodateParameters",
}
BUILTIN = {
    "ConnectionClosed": ConnectionError,
    "ConnectFailed": ConnectionError,
    "ServiceClosing": ConnectionError,
    "TLSClosed": ConnectionError,
    "SendTimeout": TimeoutError,
    "InvalidAddress": ValueError,
    "InvalidMessage": ValueError,
    "InvalidServer": ValueError,
    "MessageTooLarge": ValueError,
}


def test_every_error_is_exported() -> None:
    def below(kind: type[SendmailError]) -> set[str]:
        found = {kind.__name__}
        for sub in kind.__subclasses__():
            if sub.__module__.startswith("twisted_sendmail.smtp."):
                found |= below(sub)
        return found

    assert below(SendmailError) == set(CLASSES)


def test_whose_cause_may_pass() -> None:
    assert {name for name, kind in CLASSES.items() if kind.temporary} == TRANSIENT


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_who_may_try_again(name: str) -> None:
    """Nobody who is in doubt, or has a report of somebody in doubt or accepted."""
    fresh = CLASSES[name]("it failed")
    alone = (name in TRANSIENT and name != "DeliveryInDoubt", name == "DeliveryInDoubt")
    assert alone == (fresh.transient, fresh.in_doubt)
    for status in RecipientStatus:
        envelope = Envelope("a@example.org", ["b@example.net", "c@example.net"])
        one, other = envelope.recipients
        outcomes = (RecipientResult(one, RecipientStatus.UNTOUCHED), RecipientResult(other, status))
        error = CLASSES[name]("it failed", report=DeliveryReport(envelope, outcomes))
        assert error.in_doubt == (status is RecipientStatus.IN_DOUBT or name == "DeliveryInDoubt")
        taken = status in {RecipientStatus.IN_DOUBT, RecipientStatus.ACCEPTED}
        assert error.transient == (alone[0] and not taken)


def test_who_may_go_on_with_the_connection() -> None:
    assert {name for name, kind in CLASSES.items() if kind.connection_usable} == USABLE


def test_builtins_that_people_catch_already() -> None:
    for name, builtin in BUILTIN.items():
        assert issubclass(CLASSES[name], builtin), name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_tells_all_it_knows_in_one_line(name: str) -> None:
    reply = Reply(550, ("5.1.1 no \x1b[2J", "such\r\nuser"))
    error = CLASSES[name]("RCPT refused", reply=reply, host="mx[192.0.2.1]:587", remedy="")
    assert (
        str(error)
        == "RCPT refused by mx[192.0.2.1]:587: 550 5.1.1 no \\x1b[2J / such\\x0d\\x0auser"
    )
    assert EnhancedStatus(5, 1, 1) == error.enhanced


def test_the_line_says_where_why_and_what_to_do() -> None:
    error = SendmailError(
        "no greeting", detail="nothing came", remedy="check the port", host="mx:25"
    )
    assert str(error) == "no greeting at mx:25: nothing came; check the port"
    assert str(SendmailError("no greeting")) == "no greeting"
    both = SendmailError("AUTH refused", detail="token expired", reply=Reply(535, ("no",)))
    assert str(both) == "AUTH refused: 535 no (token expired)"


def test_what_is_known_is_not_replaced() -> None:
    error = SendmailError("x", host="first")
    assert error is error.at(host="second")
    assert error.host == "first"
    assert str(SendmailError("x").at(host="third")) == "x at third"


@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=60))
def test_always_one_safe_line(what: str, text: str) -> None:
    for shown in (
        str(SendmailError(what, detail=text, remedy=text, host=text)),
        str(SendmailError(what, reply=Reply(550, (text, text)))),
    ):
        assert len(shown.splitlines()) <= 1
        assert not [c for c in shown if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0]
        shown.encode("utf-8")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (421, "ServiceClosing"),
        (450, "MailboxUnavailable"),
        (451, "ErrorProcessing"),
        (452, "ActionIgnored"),
        (454, "TemporaryFailure"),
        (455, "UnableToAccommodateParameters"),
        (499, "TemporaryFailure"),
        (500, "PermanentFailure"),
        (530, "AuthenticationRequired"),
        (550, "PermanentFailure"),
        (554, "PermanentFailure"),
        (599, "PermanentFailure"),
        (250, "UnexpectedResponse"),
        (354, "UnexpectedResponse"),
    ],
)
def test_a_refusal(code: int, name: str) -> None:
    reply = Reply(code, ("why",))
    error = refusal("RCPT", reply, recipient="a@example.net")
    assert CLASSES[name] is type(error)
    assert ("RCPT", "RCPT", reply, "a@example.net") == (
        error.phase,
        error.command,
        error.reply,
        error.recipient,
    )
    assert str(error).startswith(f"RCPT refused: {code} why")
    assert refusal("DATA", reply, phase="content").phase == "content"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (421, "ServiceClosing"),
        (432, "TemporaryAuthenticationFailure"),
        (454, "TemporaryAuthenticationFailure"),
        (500, "AuthenticationRejected"),
        (501, "AuthenticationRejected"),
        (503, "AuthenticationRejected"),
        (504, "UnsupportedMechanism"),
        (530, "EncryptionRequired"),
        (534, "WeakMechanism"),
        (535, "AuthenticationFailed"),
        (538, "EncryptionRequired"),
        (550, "AuthenticationRejected"),
        (250, "UnexpectedResponse"),
        (334, "UnexpectedResponse"),
    ],
)
def test_a_refusal_of_auth(code: int, name: str) -> None:
    error = authentication_refusal("PLAIN", Reply(code, ("why",)))
    assert CLASSES[name] is type(error)
    assert (error.phase, error.command) == ("AUTH", "AUTH PLAIN")


@given(st.integers(200, 599))
def test_every_code_has_an_error_that_agrees_with_it(code: int) -> None:
    """4yz may be tried again, 5yz may not; anything else makes no sense here."""
    for error in (refusal("MAIL", Reply(code)), authentication_refusal("PLAIN", Reply(code))):
        assert error.transient == (not 500 <= code)


#: What colombe's sendmail tells apart, and what it is called here.
DISTINCTIONS = {
    "Protocol (Value.error)": "ProtocolBreach",
    "Tls_alert": "TLSAlert",
    "Tls_failure": "TLSFailure",
    "Tls_closed": "TLSClosed",
    "STARTTLS_unavailable": "StartTLSUnavailable",
    "Encryption_required": "EncryptionRequired",
    "Weak_mechanism": "WeakMechanism",
    "Authentication_rejected": "AuthenticationRejected",
    "Authentication_failed": "AuthenticationFailed",
    "Authentication_required": "AuthenticationRequired",
    "Unsupported_mechanism": "UnsupportedMechanism",
    "Temporary_failure Mailbox_unavailable": "MailboxUnavailable",
    "Temporary_failure Error_processing": "ErrorProcessing",
    "Temporary_failure Action_ignored": "ActionIgnored",
    "Temporary_failure Unable_to_accommodate_parameters": "UnableToAccommodateParameters",
}


def test_every_distinction_of_colombe_has_its_class() -> None:
    """Different failures never share one."""
    assert len(DISTINCTIONS) == len({CLASSES[name] for name in DISTINCTIONS.values()})
