"""An argument of the wrong type is an error where it comes in, and the error says what to give."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from inspect import Parameter, iscoroutine, signature
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

import twisted_sendmail
from twisted_sendmail import (
    ConnectionFailed,
    ConnectionLimits,
    DeliveryCancelled,
    Envelope,
    InvalidInput,
    Mailer,
    MailerService,
    MailSender,
    Receiver,
    RelayService,
    RelaySettings,
    RouteSettings,
    SMTPServerFactory,
    SubmissionServer,
    Timeouts,
    TLSTrust,
    compose,
    open_session,
    probe_server,
    submit,
)
from twisted_sendmail.testing.memory_network import MemoryEndpoint, MemoryNetwork
from twisted_sendmail.testing.memory_server import MemoryServer
from twisted_sendmail.testing.stub import StubMailer

URL = "smtp://mail.example.org"
MESSAGE = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nHi.\r\n"
any_type: Any = lambda value: value  # noqa: E731 - hides the type from mypy


def server(**arguments: Any) -> SubmissionServer:
    return SubmissionServer("mail.example.org", **arguments)


def relay(**arguments: Any) -> RelaySettings:
    return RelaySettings("relay.example.org", **arguments)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "trust": (lambda: server(trust="ca.pem"), "give a TLSTrust"),
    "timeouts": (lambda: server(timeouts=3), "give a Timeouts"),
    "no timeouts": (lambda: server(timeouts=0), "give a Timeouts"),
    "credentials": (lambda: server(credentials=("jane", "s3cret")), r"give Credentials\("),
    "mechanisms": (lambda: server(mechanisms=["PLAIN"]), "give a dict"),
    "helo_name": (lambda: server(helo_name=3), "give a host name"),
    "endpoint": (lambda: server(endpoint="unix:/run/smtp"), "give an IStreamClientEndpoint"),
    "watch": (lambda: server(watch=True), "give a function"),
    "extensions": (lambda: server(extensions="XCLIENT"), "give a list of Extension"),
    "port": (lambda: server(port=True), "give a number from 1"),
    "url": (lambda: SubmissionServer.from_url(any_type(b"smtp://h")), "give text"),
    "a timeout": (lambda: Timeouts(total=any_type("3")), "give seconds above zero"),
    "an endless timeout": (lambda: Timeouts(total=float("inf")), "or None"),
    "ca_file": (lambda: TLSTrust(ca_file=any_type(3)), "give the path"),
    "the name": (lambda: TLSTrust(name=any_type(3)), "give the name"),
    "fingerprint": (lambda: TLSTrust(fingerprint=any_type(3)), "give the SHA-256"),
    "limits": (lambda: Mailer(Clock(), URL, limits=any_type(3)), "give a PoolLimits"),
    "swapped": (lambda: Mailer(URL, any_type(Clock())), "give twisted.internet.reactor"),
    "grace": (lambda: Mailer(Clock(), URL).aclose(grace=any_type("3")), "give seconds"),
    "ret": (lambda: Envelope("", "b@example.net", ret=any_type(3)), "give FULL or HDRS"),
    "envid": (lambda: Envelope("", "b@example.net", envid=any_type(3)), "give text"),
    "require_tls": (
        lambda: Envelope("", "b@example.net", require_tls=any_type("no")),
        "give True or False",
    ),
    "routes": (lambda: relay(routes=3), "give a list of RouteSettings"),
    "a route": (lambda: relay(routes=[URL]), "give a RouteSettings"),
    "settings": (lambda: RelayService(Clock(), "queue", any_type(3)), "give a RelaySettings"),
    "receiver": (lambda: SMTPServerFactory(any_type(Clock()), any_type(3)), "subclass of Receiver"),
    "server limits": (
        lambda: SMTPServerFactory(any_type(Clock()), Receiver, limits=any_type(3)),
        "give a ConnectionLimits",
    ),
    "connections": (lambda: ConnectionLimits(total=any_type("9")), "give a whole number"),
    "to": (lambda: compose(sender="a@example.org", to=any_type(3)), "or a list of addresses"),
    "a recipient": (lambda: compose(sender="a@example.org", to=[any_type(3)]), "give text such"),
    "VT": (lambda: compose(sender="a@example.org", subject="a\vb"), "give it in one line"),
    "LS": (lambda: compose(sender="a@example.org", subject="a\u2028b"), "give it in one line"),
    "surrogate": (lambda: compose(sender="a@example.org", text="\udcff"), "right encoding"),
}


@pytest.mark.parametrize(("call", "remedy"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_an_error_with_a_remedy(
    call: Callable[[], object], remedy: str
) -> None:
    with pytest.raises(InvalidInput, match=remedy) as caught:
        _ = call()
    assert "s3cret" not in str(caught.value)


def test_a_url_and_a_parameter_that_it_decides_is_no_mystery() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'tls'"):
        _ = SubmissionServer.from_url(URL, tls="none")  # type: ignore[call-arg]


WRONG_LATER: dict[str, Callable[[], Deferred[Any]]] = {
    "envelope": lambda: submit(Clock(), URL, MESSAGE, envelope=any_type(3)),
    "complete": lambda: submit(Clock(), URL, MESSAGE, complete=any_type("no")),
    "all_or_nothing": lambda: submit(Clock(), URL, MESSAGE, all_or_nothing=any_type("no")),
    "probe_server": lambda: probe_server(Clock(), any_type(3)),
    "open_session": lambda: Deferred.fromCoroutine(open_session(any_type(Clock()), any_type(3))),
    "stub": lambda: StubMailer().send(MESSAGE, envelope=any_type(3)),
}


@pytest.mark.parametrize("call", WRONG_LATER.values(), ids=WRONG_LATER)
def test_a_function_with_a_result_fails_with_the_error(call: Callable[[], Deferred[Any]]) -> None:
    found: list[Failure] = []
    _ = call().addErrback(found.append)
    (failure,) = found
    assert isinstance(failure.value, InvalidInput)
    assert "; give " in str(failure.value)


def test_a_mailer_a_service_and_a_stub_are_mail_senders() -> None:
    """RelayService is one as well; mypy checks that."""
    with MemoryServer(tls=False) as smtp_server:
        target = SubmissionServer.from_url(URL, endpoint=smtp_server.endpoint)
        service = MailerService(smtp_server.clock, target)
        stub = StubMailer()
        senders: list[MailSender] = [Mailer(smtp_server.clock, target), service, stub]
        for sender in senders:
            report = smtp_server.run(
                sender.send(b"Hi.\r\n", sender="a@example.org", recipients="b@example.net")
            )
            assert [str(each.recipient) for each in report.accepted] == ["b@example.net"]
        assert (len(smtp_server.messages), len(stub.sent)) == (2, 1)
        _ = service.stopService()


def check_types(relay_service: RelayService) -> MailSender:
    return relay_service


def test_no_credentials_may_be_chosen_for_a_url_with_a_user() -> None:
    url = "smtp+starttls://jane@mail.example.org"
    assert SubmissionServer.from_url(url, credentials=None).credentials is None
    with pytest.raises(InvalidInput, match="there is no password for jane"):
        _ = SubmissionServer.from_url(url)


NOWHERE = SubmissionServer.from_url(URL, endpoint=MemoryEndpoint(MemoryNetwork()))
#: Arguments with which each public callable can be called, from the first one on.
USABLE: dict[str, tuple[object, ...]] = {
    "AuthThrottle": (Clock(),),
    "ClientSession": (),
    "ConnectionCounter": (),
    "ConnectionLimits": (),
    "Credentials": ("jane", "s3cret"),
    "DNSResolver": (["127.0.0.1"],),
    "Envelope": ("a@example.org", "b@example.net"),
    "Extension": ("XFOO",),
    "ExtensionCommand": ("XFOO",),
    "ExtensionParameter": ("XFOO",),
    "HashedAccounts": ({},),
    "Mailbox": ("jane", "example.org"),
    "Mailer": (Clock(), URL),
    "MailerService": (Clock(), URL),
    "Networks": (["192.0.2.0/24"],),
    "PasswordFile": ("accounts", Clock()),
    "PoolLimits": (),
    "PortalAccounts": (Portal(any_type(None)),),
    "Recipient": ("b@example.net",),
    "RelayService": (
        Clock(),
        "queue",
        RelaySettings("relay.example.org", [RouteSettings("all", [any_type(URL)])]),
    ),
    "RelaySettings": ("relay.example.org", [RouteSettings("all", [any_type(URL)])]),
    "RetryPolicy": (),
    "RouteSettings": ("all", [URL]),
    "SMTPServerFactory": (Clock(), Receiver),
    "ServerSettings": (),
    "ServerTLS": ("server.pem",),
    "ServerTimeouts": (),
    "SubmissionProtocol": (Clock(),),
    "SubmissionServer": ("mail.example.org",),
    "TLSTrust": (),
    "Timeouts": (),
    "Token": ("t0ken",),
    "UserRates": (Clock(),),
    "inspect_message": (MESSAGE,),
    "many": (Clock(), NOWHERE, [MESSAGE]),
    "open_session": (Clock(), NOWHERE),
    "password_entry": ("jane", "s3cret"),
    "probe_server": (Clock(), NOWHERE),
    "sendmail": (MemoryEndpoint(MemoryNetwork()), MESSAGE),
    "submit": (Clock(), NOWHERE, MESSAGE),
}
#: What the package passes to its callers, and what is checked by tests of its own.
GIVEN_TO_CALLERS = {
    "Attachment", "ConnectionInfo", "DKIMDomain", "DKIMKey", "DeliveryReport", "EnhancedStatus", "FinalReport",
    "ForwardPath", "MECHANISMS", "MailParameters", "MailSender", "MailerStats", "Mechanism", "MessagePart",
    "ProbeResult", "Queued", "Receiver", "RecipientResult", "Reply", "ReversePath", "Sending",
    "ServerHandler", "ServerSession", "ServerVerifier", "TLSFacts", "TokenSource", "Transcript",
    "UnusableRecipient", "compose", "deliver", "require_acceptance",
}  # fmt: skip
OTHERS: list[object] = [None, 3, -1.5, True, b"x", ["x"], {"x": 1}, object()]


def result_of(call: Callable[[], object]) -> object:
    """What *call* returns, or the error that it raises or its result fails with."""
    found: list[object] = []
    try:
        result = call()
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            _ = result.addBoth(found.append)
            result.cancel()
            (result,) = found
    except Exception as e:  # noqa: BLE001 - the caller looks at its type
        return e
    return result.value if isinstance(result, Failure) else result


def test_each_public_callable_is_tried_with_wrong_arguments() -> None:
    errors = {
        name
        for name in twisted_sendmail.__all__
        if isinstance(kind := getattr(twisted_sendmail, name), type)
        and issubclass(kind, (BaseException, Enum))
    }
    assert {*USABLE, *GIVEN_TO_CALLERS} == set(twisted_sendmail.__all__) - errors


@pytest.mark.parametrize("name", USABLE)
def test_no_argument_of_a_wrong_type_gets_past_the_check(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is used, or refused with a remedy; an ``object()`` is always refused."""
    function = getattr(twisted_sendmail, name)
    usable = USABLE[name]
    monkeypatch.chdir(tmp_path)
    for at, parameter in enumerate(signature(function).parameters.values()):
        assert parameter.kind not in {Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL}
        for value in OTHERS:
            if at < len(usable):
                given = (*usable[:at], value, *usable[at + 1 :])
                result = result_of(lambda given=given: function(*given))  # type: ignore[misc]
            else:
                named = {parameter.name: value}
                result = result_of(lambda named=named: function(*usable, **named))  # type: ignore[misc]
            case = f"{name}({parameter.name}={value!r}): {result!r}"
            if isinstance(result, Exception):
                refused = isinstance(result, (InvalidInput, ConnectionFailed, DeliveryCancelled))
                assert refused, case
                assert not isinstance(result, InvalidInput) or "; " in str(result), case
            if type(value) is object:
                assert isinstance(result, InvalidInput), case
