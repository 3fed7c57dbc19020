"""The drop-in for `twisted.mail.smtp`, on the wire of a real server."""

from __future__ import annotations

import gc
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.ssl import (
    Certificate,
    ClientContextFactory,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.mail import smtp
from twisted.mail.interfaces import IClientAuthentication
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.waiting import until
from twisted_sendmail import Cancelled, CertificateRejected, DeliveryInDoubt, compat
from twisted_sendmail.client.tls import _context
from twisted_sendmail.compat import (
    AUTHRequiredError,
    ESMTPSender,
    ESMTPSenderFactory,
    SMTPDeliveryError,
    SMTPSender,
    SMTPSenderFactory,
    TLSRequiredError,
    sendmail,
)
from twisted_sendmail.testing import Authority, LoopbackServer
from twisted_sendmail.testing.faults import (
    certificate_for,
    close,
    refuse,
    refuse_recipient,
    send,
    stall,
    unknown_authority,
    without,
)

USER, PASSWORD = b"jane", b"s3cret-of-jane"
MESSAGE = b"Subject: hello\n\n.\nhello\n"
ONE = "b@example.net"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path, monkeypatch: Any) -> Iterator[None]:
    """The authority is one of the system's."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _context.cache_clear()
    yield
    _context.cache_clear()


@pytest.fixture
def options(authority: Authority) -> Any:
    """The TLS options of an application that trusts the authority."""
    roots: Any = trustRootFromCertificates
    return optionsForClientTLS("localhost", roots([Certificate.loadPEM(authority.pem)]))


class Case:
    """One message by the drop-in, to one server."""

    def __init__(self, reactor: Any, server: LoopbackServer) -> None:
        self.reactor, self.server = reactor, server
        self.factory: Any = None

    def factory_of(self, kind: Any = ESMTPSenderFactory, **changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "username": USER,
            "password": PASSWORD,
            "fromEmail": "a@example.org",
            "toEmail": ONE,
            "file": BytesIO(MESSAGE),
            "deferred": Deferred(),
            "retries": 0,
            **changes,
        }
        if kind is SMTPSenderFactory:
            del arguments["username"], arguments["password"]
        self.factory = kind(**arguments)
        self.factory.noisy = False
        return self.factory

    def send(self, kind: Any = ESMTPSenderFactory, **changes: Any) -> Any:
        """Connect as applications do; return the result."""
        factory = self.factory_of(kind, **changes)
        result = factory.result
        self.reactor.connectTCP("localhost", self.server.port, factory)
        return result

    def send_clear(self, **changes: Any) -> Any:
        """Send as Buildbot does to a server on its machine."""
        settings = {
            "requireTransportSecurity": False,
            "requireAuthentication": None,
            "username": None,
            "password": None,
        }
        return self.send(**{**settings, **changes})

    @property
    def dialogue(self) -> list[str]:
        return [line for session in self.server.sessions for line in session.dialogue]


@contextmanager
def unhandled_errors() -> Iterator[list[str]]:
    """What is logged as an error, of the reactor or of a Deferred that nobody has."""
    found: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] is LogLevel.critical:
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(cast("Any", observe))
    try:
        yield found
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(cast("Any", observe))


async def failure_of(result: Any) -> Any:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        await result
    return caught.value


# -- results


@pytest.mark.usefixtures("trusted")
@ensureDeferred
async def test_mail_goes_by_starttls_and_auth_to_the_host_that_was_connected_to(
    reactor: Any, authority: Authority
) -> None:
    users = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, users=users, authority=authority) as server:
        case = Case(reactor, server)
        count, addresses = await case.send()
        (message,) = server.messages
        assert (count, [each[:2] for each in addresses]) == (1, [(b"b@example.net", 250)])
        assert addresses[0][2].startswith(b"2.0.0 Ok: queued as ")
        assert (message.user, message.tls is not None) == (USER.decode(), True)
        assert b"\r\n\r\n.\r\nhello\r\n" in message.content
        assert b"Message-ID: <" in message.content
        assert (case.factory.sendFinished, case.factory.currentProtocol) == (True, None)


@pytest.mark.usefixtures("trusted")
@ensureDeferred
async def test_sendmail_takes_what_twisted_takes(reactor: Any, authority: Authority) -> None:
    async with LoopbackServer(reactor, authority=authority) as server:
        for host, message in ((b"localhost", MESSAGE), ("localhost", "Subject: héllo\n\nhéllo\n")):
            count, _ = await sendmail(
                host, b"a@example.org", [ONE, b"c@example.net"], message, b"me.example", server.port
            )
            assert count == 2
        assert [session.hello for session in server.sessions] == ["me.example"] * 2
        assert [message.tls is not None for message in server.messages] == [True, True]


@ensureDeferred
async def test_refused_recipients_are_visible_and_the_others_get_the_mail(reactor: Any) -> None:
    async with LoopbackServer(reactor, faults=[refuse_recipient("c@example.net")]) as server:
        to = [ONE, "c@example.net", "no address", "Bob <d@example.net>", "e@x\r\nDATA", "root"]
        count, addresses = await Case(reactor, server).send_clear(toEmail=to)
        codes = {address: code for address, code, _ in addresses}
        assert count == 3
        assert list(codes) == [each.encode() for each in to]
        assert list(codes.values()) == [250, 550, 553, 250, 553, 250]
        (message,) = server.messages
        assert [str(each) for each in message.recipients][:2] == ["b@example.net", "d@example.net"]


# -- a verdict, a failure: the exceptions that callers catch

REFUSED = {
    "greeting": ([refuse("greeting", "554 5.7.1 No")], smtp.SMTPConnectError, 554, False),
    "greeting, for now": ([refuse("greeting", "450 4.3.2 No")], smtp.SMTPConnectError, 450, True),
    "no STARTTLS": ([without("STARTTLS")], smtp.TLSRequiredError, 502, False),
    "STARTTLS": ([refuse("STARTTLS", "454 4.7.0 No")], smtp.TLSError, 454, True),
    "unknown CA": ([unknown_authority()], smtp.SMTPConnectError, -1, False),
    "another name": ([certificate_for("x.example")], smtp.TLSError, -1, False),
    "no AUTH": ([without("AUTH")], smtp.AUTHRequiredError, 502, False),
    "AUTH": ([refuse("AUTH", "535 5.7.8 No")], smtp.AUTHDeclinedError, 535, False),
    "AUTH, for now": ([refuse("AUTH", "454 4.7.0 No")], smtp.AUTHDeclinedError, 454, True),
    "MAIL": ([refuse("MAIL", "550 5.7.1 No")], smtp.SMTPDeliveryError, 550, False),
    "RCPT": ([refuse("RCPT", "550 5.1.1 No")], smtp.SMTPDeliveryError, 550, False),
    "RCPT, for now": ([refuse("RCPT", "450 4.2.1 No")], smtp.SMTPDeliveryError, 450, True),
    "content": ([refuse("dot", "554 5.6.0 No")], smtp.SMTPDeliveryError, 554, False),
    "lost": ([close("MAIL")], smtp.SMTPConnectError, -1, True),
    "garbage": ([send("EHLO", b"hello\r\n")], smtp.SMTPProtocolError, -1, True),
    "silence": ([stall("MAIL")], smtp.SMTPTimeoutError, -1, True),
    "in doubt": ([close("dot")], smtp.SMTPDeliveryError, -1, False),
    "in doubt, silence": ([stall("dot")], smtp.SMTPDeliveryError, -1, False),
}


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("case", REFUSED)
@ensureDeferred
async def test_an_error_is_of_the_class_that_callers_catch(
    reactor: Any, authority: Authority, case: str
) -> None:
    faults, kind, code, retry = REFUSED[case]
    users = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, users=users, authority=authority, faults=faults) as server:
        timeout = 0.3 if "silence" in case else None
        error = await failure_of(Case(reactor, server).send(timeout=timeout))
        assert (isinstance(error, kind), error.code, error.retry) == (True, code, retry)
        shown = repr(error) + str(error) + repr(error.__cause__)
        assert PASSWORD.decode() not in shown
        assert (error.__cause__.transient, error.__cause__.in_doubt) == (
            retry,
            case.startswith("in doubt"),
        )


@ensureDeferred
async def test_all_recipients_refused_names_each(reactor: Any) -> None:
    faults = [refuse_recipient(ONE), refuse_recipient("c@example.net", "451 4.2.1 Later")]
    async with LoopbackServer(reactor, faults=faults) as server:
        error = await failure_of(
            Case(reactor, server).send_clear(toEmail=[ONE, "c@example.net", "no address"])
        )
        found = [(address, code) for address, code, _ in error.addresses]
        assert isinstance(error, SMTPDeliveryError)
        assert found[:2] == [(b"b@example.net", 550), (b"c@example.net", 451)]
        assert bytes(error.log or b"").startswith(
            b"b@example.net: 550 5.1.1 No such user\nc@example.net: 451"
        )


@ensureDeferred
async def test_a_recipient_that_cannot_be_used_is_refused_before_anything_is_sent(
    reactor: Any,
) -> None:
    async with LoopbackServer(reactor) as server:
        case = Case(reactor, server)
        error = await failure_of(case.send_clear(toEmail=["no address"]))
        assert (error.code, error.addresses[0][1]) == (553, 553)
        assert not any(line.startswith("C:") for line in case.dialogue)
        # The text of an error that names an address in another encoding.
        error = await failure_of(case.send_clear(toEmail=[b"\xe9@example.net", "a@b\r\n<<< 250"]))
        assert "\\udce9@example.net: 553" in str(error)
        assert "a@b\\x0d\\x0a<<< 250: 553" in str(error)


def test_a_sender_that_is_no_address_is_an_error_at_once() -> None:
    for sender in ("no address", "a@x\r\nDATA", "a@example.org, b@example.org"):
        with pytest.raises(smtp.AddressError):
            SMTPSenderFactory(sender, ONE, BytesIO(), Deferred())


@ensureDeferred
async def test_the_error_of_a_file_is_passed_on(reactor: Any) -> None:
    class Broken(BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("disk on fire")

    async with LoopbackServer(reactor) as server:
        error = await failure_of(Case(reactor, server).send_clear(file=Broken(), retries=5))
        assert (type(error), str(error)) == (OSError, "disk on fire")


# -- verified TLS


@ensureDeferred
async def test_without_a_name_tls_fails_and_names_the_argument(reactor: Any) -> None:
    async with LoopbackServer(reactor) as server:
        case = Case(reactor, server)
        factory = case.factory_of()
        result = factory.result
        await HostnameEndpoint(reactor, "localhost", server.port).connect(factory)
        error = await failure_of(result)
        assert isinstance(error, TLSRequiredError)
        assert "give hostname=, the name in the server's certificate" in str(error)
        assert not any(line.startswith("C:") for line in case.dialogue)


@ensureDeferred
async def test_tls_of_the_application_is_used_without_starttls(
    reactor: Any, authority: Authority, options: Any
) -> None:
    """As Synapse does with `force_tls`."""
    users = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, users=users, authority=authority) as server:
        case = Case(reactor, server)
        factory = case.factory_of(hostname="localhost")
        result = factory.result
        wrapped = TLSMemoryBIOFactory(options, True, factory)
        wrapped.noisy = False
        await HostnameEndpoint(reactor, "localhost", server.tls_port).connect(wrapped)
        assert (await result)[0] == 1
        assert server.messages[0].user == USER.decode()
        assert not any("STARTTLS" in line for line in case.dialogue)


@pytest.mark.parametrize("how", ["connectSSL", "contextFactory"])
@ensureDeferred
async def test_an_unverified_context_is_refused_unless_it_is_allowed_by_name(
    reactor: Any, authority: Authority, how: str
) -> None:
    """As Buildbot and Scrapy do for port 465."""

    def begin(case: Case, factory: Any) -> Any:
        result = factory.result
        if how == "connectSSL":
            port = case.server.tls_port
            reactor.connectSSL("localhost", port, factory, ClientContextFactory())
        else:
            reactor.connectTCP("localhost", case.server.port, factory)
        return result

    given = {"contextFactory": ClientContextFactory()} if how == "contextFactory" else {}
    users = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, users=users, authority=authority) as server:
        case = Case(reactor, server)
        error = await failure_of(begin(case, case.factory_of(**given)))
        assert isinstance(error, smtp.SMTPConnectError)
        assert isinstance(error.__cause__, CertificateRejected)
        assert "does not verify certificates" in str(error)
        assert not any("AUTH" in line.partition("C:")[2] for line in case.dialogue)
        assert server.messages == []

        factory = case.factory_of(**given)
        factory.dangerouslyAllowUnverifiedTLS = True
        assert (await begin(case, factory))[0] == 1
        assert server.messages[0].tls is not None


class BrokenContext(ClientContextFactory):
    def getContext(self) -> Any:
        raise FileNotFoundError("client.pem")


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (ssl.create_default_context(), "contextFactory cannot be a SSLContext; give optionsForCli"),
        (False, "contextFactory cannot be a bool"),
        (BrokenContext(), "client.pem"),
    ],
    ids=["SSLContext", "bool", "getContext"],
)
@ensureDeferred
async def test_a_context_that_cannot_be_used_is_one_error(
    reactor: Any, authority: Authority, context: Any, why: str
) -> None:
    async with LoopbackServer(reactor, authority=authority) as server:
        case = Case(reactor, server)
        with unhandled_errors() as logged:
            error = await failure_of(case.send_clear(contextFactory=context, retries=1))
            await until(reactor, lambda: server.sessions[-1].closed)
        assert why in str(error)
        assert (len(server.sessions), server.messages, logged) == (1, [], [])


@ensureDeferred
async def test_a_hook_may_return_one_recipient_as_text(reactor: Any) -> None:
    async with LoopbackServer(reactor) as server:
        sender = type("Sender", (ESMTPSender,), {"getMailTo": lambda _: ONE})
        kind = type("Factory", (ESMTPSenderFactory,), {"protocol": sender})
        assert (await Case(reactor, server).send_clear(kind=kind))[0] == 1


@pytest.mark.parametrize("hook", ["getMailFrom", "getMailTo", "getMailData"])
@ensureDeferred
async def test_an_error_of_a_hook_is_passed_on_and_not_tried_again(reactor: Any, hook: str) -> None:
    def broken(_: object) -> Any:
        raise LookupError("of the application")

    async with LoopbackServer(reactor) as server:
        case = Case(reactor, server)
        sender = type("Sender", (ESMTPSender,), {hook: broken})
        kind = type("Factory", (ESMTPSenderFactory,), {"protocol": sender})
        with unhandled_errors() as logged:
            error = await failure_of(case.send_clear(kind=kind, retries=1))
        assert (type(error), str(error), logged) == (LookupError, "of the application", [])


@ensureDeferred
async def test_options_of_the_application_are_used_for_starttls(
    reactor: Any, authority: Authority, options: Any
) -> None:
    users = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, users=users, authority=authority) as server:
        assert (await Case(reactor, server).send(contextFactory=options))[0] == 1
    other = [certificate_for("x.example")]
    async with LoopbackServer(reactor, authority=authority, faults=other) as server:
        error = await failure_of(Case(reactor, server).send(contextFactory=options))
        assert isinstance(error, compat.TLSConnectError)
        assert "VerificationError" in str(error)


@ensureDeferred
async def test_a_context_without_a_name_has_the_name_verified(
    reactor: Any, authority: Authority
) -> None:
    class Context(ClientContextFactory):
        def getContext(self) -> Any:
            context = cast("Any", super()).getContext()
            context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
            return context

    other = [certificate_for("x.example")]
    async with LoopbackServer(reactor, authority=authority, faults=other) as server:
        error = await failure_of(Case(reactor, server).send(contextFactory=Context()))
        assert "the certificate is for x.example, not for localhost" in str(error)
        assert server.messages == []


# -- a plain server on this machine


@pytest.mark.parametrize("kind", [ESMTPSenderFactory, SMTPSenderFactory])
@pytest.mark.parametrize("tls", [False, True])
@ensureDeferred
async def test_a_plain_server_without_auth_goes_on_working(
    reactor: Any, kind: Any, tls: bool
) -> None:
    """Also where it offers STARTTLS with a certificate that nobody can verify, as Debian's Postfix does."""
    async with LoopbackServer(reactor, tls=tls) as server:
        case = Case(reactor, server)
        sent = case.send(kind) if kind is SMTPSenderFactory else case.send_clear()
        assert (await sent)[0] == 1
        assert server.messages[0].tls is None


@ensureDeferred
async def test_sendmail_to_a_server_without_tls_sends_in_clear(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False) as server:
        assert (await sendmail("localhost", "", ONE, MESSAGE, port=server.port))[0] == 1
        assert str(server.messages[0].sender) == "<>"


@ensureDeferred
async def test_a_server_that_has_only_helo_gets_the_mail(reactor: Any) -> None:
    async with LoopbackServer(reactor, faults=[refuse("EHLO", "502 5.5.2 No", nth=1)]) as server:
        case = Case(reactor, server)
        assert (await case.send_clear(heloFallback=True))[0] == 1
        assert any(line.startswith("C: HELO") for line in case.dialogue)


@ensureDeferred
async def test_a_password_never_goes_out_in_clear(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False, lenient=True) as server:
        case = Case(reactor, server)
        error = await failure_of(
            case.send(requireTransportSecurity=False, requireAuthentication=False)
        )
        assert isinstance(error, TLSRequiredError)
        assert not any("AUTH" in line.partition("C:")[2] for line in case.dialogue)


@ensureDeferred
async def test_required_authentication_needs_a_password(reactor: Any) -> None:
    async with LoopbackServer(reactor) as server:
        error = await failure_of(Case(reactor, server).send(password=None))
        assert isinstance(error, AUTHRequiredError)
        assert "there is no password" in str(error)


# -- trying again


@ensureDeferred
async def test_a_lost_connection_is_made_again_and_the_file_read_from_its_beginning(
    reactor: Any,
) -> None:
    async with LoopbackServer(reactor, faults=[close("MAIL", nth=1)]) as server:
        assert (await Case(reactor, server).send_clear(retries=5))[0] == 1
        assert len(server.sessions) == 2
        assert b"hello" in server.messages[0].content


@pytest.mark.parametrize(
    ("fault", "attempts"), [(close("dot"), 1), (refuse("dot", "451 4.3.0 Later"), 1)]
)
@ensureDeferred
async def test_neither_doubt_nor_a_verdict_is_tried_again(
    reactor: Any, fault: Any, attempts: int
) -> None:
    async with LoopbackServer(reactor, faults=[fault]) as server:
        error = await failure_of(Case(reactor, server).send_clear(retries=5))
        assert isinstance(error, SMTPDeliveryError)
        assert error.retry is not isinstance(error.__cause__, DeliveryInDoubt)
        assert len(server.sessions) == attempts


class Connector:
    """Counts attempts; each fails at once."""

    def __init__(self, reactor: Clock) -> None:
        self.reactor, self.attempts, self.disconnected = reactor, 0, False
        self.stopped = False
        self.factory: Any = None

    def connect(self) -> None:
        self.attempts += 1
        self.factory.startedConnecting(self)
        self.factory.clientConnectionFailed(self, Failure(cast("Any", Refused)()))

    def disconnect(self) -> None:
        self.disconnected = True

    def stopConnecting(self) -> None:
        self.stopped = True


def test_a_server_that_is_down_is_tried_at_growing_intervals() -> None:
    """No storm: one attempt at once, the others later, and then the error."""
    connector, failures = Connector(Clock()), list[Any]()
    result: Deferred[Any] = Deferred()
    _ = result.addErrback(failures.append)
    connector.factory = SMTPSenderFactory("a@example.org", ONE, BytesIO(MESSAGE), result)
    connector.connect()
    made = [connector.attempts]
    while not failures:
        (call,) = connector.reactor.getDelayedCalls()
        wait = call.getTime() - connector.reactor.seconds()
        assert wait >= 1
        connector.reactor.advance(wait)
        made.append(connector.attempts)
    assert made == [2, 3, 4, 5, 6]
    error = failures[0].value
    assert (type(error), error.code, error.retry) == (smtp.SMTPConnectError, -1, True)
    assert "Connection was refused" in str(error)


# -- the end


@ensureDeferred
async def test_cancelling_closes_the_connection_and_tells_of_the_doubt(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False, faults=[stall("dot")]) as server:
        result = sendmail("localhost", "a@example.org", ONE, MESSAGE, port=server.port)
        await server.wait_for(1)
        result.cancel()
        error = await failure_of(result)
        assert isinstance(error, CancelledError)
        assert isinstance(error, Cancelled)
        assert error.in_doubt


@ensureDeferred
async def test_a_timeout_of_the_caller_ends_the_attempts(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False, faults=[stall("greeting")]) as server:
        case = Case(reactor, server)
        result = case.send_clear(retries=5)
        result.addTimeout(0.2, reactor)
        assert type(await failure_of(result)).__name__ == "TimeoutError"
        assert len(server.sessions) == 1
    assert server.sessions[0].closed


@ensureDeferred
async def test_nothing_is_sent_when_the_deferred_was_cancelled_before_an_endpoint_connected(
    reactor: Any,
) -> None:
    async with LoopbackServer(reactor, tls=False) as server:
        factory = Case(reactor, server).factory_of(SMTPSenderFactory)
        result = factory.result
        connecting = HostnameEndpoint(reactor, "localhost", server.port).connect(factory)
        result.cancel()
        assert isinstance(await failure_of(result), CancelledError)
        made: Any = await connecting
        await until(reactor, lambda: not made.transport.connected)
    assert server.messages == []
    assert not any("C:" in line for session in server.sessions for line in session.dialogue)


@ensureDeferred
async def test_a_factory_that_is_connected_twice_sends_once(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False) as server:
        case = Case(reactor, server)
        result = case.send_clear()
        reactor.connectTCP("localhost", server.port, case.factory)
        assert (await result)[0] == 1
        assert (len(server.messages), len(server.sessions)) == (1, 1)


@ensureDeferred
async def test_a_factory_that_two_endpoints_connect_sends_once(reactor: Any) -> None:
    async with LoopbackServer(reactor, tls=False) as server:
        factory = Case(reactor, server).factory_of(SMTPSenderFactory)
        endpoint = HostnameEndpoint(reactor, "localhost", server.port)
        first, second = endpoint.connect(factory), endpoint.connect(factory)
        assert (await factory.result)[0] == 1
        _ = await DeferredList([first, second], consumeErrors=True)
    assert len(server.messages) == 1


def test_a_second_connection_is_stopped_and_its_end_changes_nothing() -> None:
    result: Deferred[Any] = Deferred()
    first, second = Connector(Clock()), Connector(Clock())
    factory = SMTPSenderFactory("a@example.org", ONE, BytesIO(MESSAGE), result)
    first.factory = second.factory = factory
    factory.startedConnecting(cast("Any", first))
    second.connect()
    assert (second.attempts, second.stopped, result.called) == (1, True, False)


def test_a_factory_that_waits_to_try_again_is_stopped_with_its_deferred() -> None:
    connector = Connector(Clock())
    result: Deferred[Any] = Deferred()
    _ = result.addErrback(lambda failure: failure.trap(CancelledError))
    connector.factory = SMTPSenderFactory("a@example.org", ONE, BytesIO(MESSAGE), result)
    connector.connect()
    result.cancel()
    assert connector.reactor.getDelayedCalls() == []


# -- subclasses


@pytest.mark.usefixtures("trusted")
@ensureDeferred
async def test_a_subclass_has_the_hooks_of_twisted(reactor: Any, authority: Authority) -> None:
    seen: list[Any] = []

    @implementer(IClientAuthentication)
    class XOAuth2:
        def __init__(self, user: bytes) -> None:
            self.user = user

        def getName(self) -> bytes:
            return b"XOAUTH2"

        def challengeResponse(self, secret: bytes, challenge: bytes) -> bytes:
            return b"user=%s\1auth=Bearer %s\1\1" % (self.user, secret)

    class Sender(ESMTPSender):
        def _registerAuthenticators(self) -> None:
            self.registerAuthenticator(XOAuth2(self.username))  # type: ignore[arg-type]  # it is bytes

        def connectionMade(self) -> None:
            self.identity = "subclass.example"
            super().connectionMade()

        def sentMail(self, code: int, resp: bytes, numOk: int, addresses: Any, log: Any) -> None:
            seen.append((code, numOk, log.str()))
            super().sentMail(code, resp, numOk, addresses, log)

        def sendError(self, exc: Exception) -> None:
            seen.append(type(exc))
            super().sendError(exc)

    class Factory(ESMTPSenderFactory):
        protocol = Sender

    tokens = {USER.decode(): PASSWORD.decode()}
    async with LoopbackServer(reactor, tokens=tokens, authority=authority) as server:
        case = Case(reactor, server)
        await case.send(Factory)
        assert (server.messages[0].user, server.messages[0].hello) == ("jane", "subclass.example")
        server.set_faults(close("MAIL"))
        await failure_of(case.send(Factory))
    (code, count, log), error = seen
    assert (code, count, error) == (250, 1, smtp.SMTPConnectError)
    assert b"<<< 250 2.0.0 Ok" in log


def test_a_step_of_twisted_that_nothing_calls_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"Sender\.smtpState_from would never be called"):
        type("Sender", (SMTPSender,), {"smtpState_from": lambda *_: None})
    with pytest.raises(TypeError, match=r"Sender\.lineReceived would never be called"):
        type("Sender", (ESMTPSender,), {"lineReceived": lambda *_: None})


def test_an_error_in_a_subclass_is_logged_and_fires_the_deferred() -> None:
    class Sender(SMTPSender):
        def sendError(self, exc: Exception) -> None:
            raise RuntimeError("of the subclass")

    events, failures = list[Any](), list[Any]()
    result: Deferred[Any] = Deferred()
    _ = result.addErrback(failures.append)
    factory = SMTPSenderFactory("a@example.org", ONE, BytesIO(MESSAGE), result)
    factory.protocol = Sender
    factory.reactor = Clock()
    observer, transport = cast("Any", events.append), cast("Any", StringTransport)()
    globalLogPublisher.addObserver(observer)
    sender = factory.buildProtocol(None)
    sender.makeConnection(transport)
    sender.dataReceived(b"554 no\r\n")
    globalLogPublisher.removeObserver(observer)
    assert [str(each.value) for each in failures] == ["of the subclass"]
    assert "log_failure" in events[-1]


# -- Twisted's own tests


def test_the_exceptions_are_those_of_twisted() -> None:
    theirs = {name for name in compat.__all__ if name.endswith("Error")} - {"TLSConnectError"}
    assert {name for name in theirs if getattr(compat, name) is not getattr(smtp, name)} == set()


def test_the_tests_of_the_installed_twisted_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twisted.trial", "--temp-directory", str(tmp_path / "trial")]
    done = subprocess.run(
        [*command, "tests.tests_of_twisted_mail"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"^PASSED \(successes=1[34]\)$", done.stdout, re.MULTILINE), done.stdout
