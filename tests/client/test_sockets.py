"""The same over loopback sockets: RST, FIN, half-written content."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from tests.client.certificates import NAME
from tests.client.conftest import BODY
from tests.client.scripted_server import CLOSE, DEAF, PASSWORD, RESET, SILENT, USER, ScriptedServer
from twisted_sendmail import (
    AllRecipientsRefused,
    Cancelled,
    ConnectFailed,
    ConnectionClosed,
    Credentials,
    DeliveryInDoubt,
    ProtocolBreach,
    SubmissionServer,
    TLSError,
    TLSPolicy,
    TLSTrust,
    sendmail,
    submit,
)
from twisted_sendmail.testing import LoopbackServer, faults

LINE = b"x" * 76 + b"\r\n"


class Loopback:
    """A scripted server on a port of its own."""

    def __init__(self, ca_file: Path) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.trust = TLSTrust(ca_file=ca_file)
        self.ports: list[Any] = []
        self.servers: list[ScriptedServer] = []

    def send(self, answers: Any = None, message: Any = BODY, **settings: Any) -> Deferred[Any]:
        keep = settings.pop("keep_content", True)
        implicit = settings.get("tls") is TLSPolicy.IMPLICIT

        def server() -> ScriptedServer:
            made = ScriptedServer(answers, clock=self.reactor, implicit=implicit, keep_content=keep)
            self.servers.append(made)
            return made

        factory = Factory.forProtocol(server)
        factory.noisy = False
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.ports.append(port)
        given: dict[str, Any] = {
            "credentials": Credentials(USER, PASSWORD),
            "tls": TLSPolicy.STARTTLS,
            **settings,
        }
        return sendmail(
            TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port),
            message,
            sender="a@example.org",
            recipients=["b@example.net"],
            server_name=NAME,
            trust=self.trust,
            complete=False,
            reactor=self.reactor,
            **given,
        )

    def error(self, sending: Deferred[Any]) -> Deferred[Any]:
        """Fire with what it failed with."""

        def succeeded(report: Any) -> None:
            raise AssertionError(f"it succeeded: {report}")

        return sending.addCallbacks(succeeded, lambda failure: failure.value)

    @property
    def server(self) -> ScriptedServer:
        return self.servers[-1]


@pytest.fixture
def loopback(ca_file: Path) -> Iterator[Loopback]:
    made = Loopback(ca_file)
    yield made

    async def close() -> None:
        for port in made.ports:
            if not port.disconnected:
                await port.stopListening()
        for server in made.servers:
            if server.transport is not None:
                server.transport.abortConnection()
        await deferLater(made.reactor, 0.01)

    pytest_twisted.blockon(Deferred.fromCoroutine(close()))


CLEAR: dict[str, Any] = {"tls": TLSPolicy.NONE, "credentials": None}
IMPLICIT: dict[str, Any] = {"tls": TLSPolicy.IMPLICIT}


@pytest.mark.parametrize("settings", [{}, IMPLICIT, CLEAR], ids=["STARTTLS", "implicit", "clear"])
@pytest_twisted.ensureDeferred
async def test_a_message_arrives(loopback: Loopback, settings: Any) -> None:
    """Small, and of 10 MB from an iterator."""
    report = await loopback.send(**settings)
    assert (len(report.accepted), loopback.server.messages) == (1, [BODY])
    report = await loopback.send(
        message=iter([BODY, *[LINE * 4096] * 32]), keep_content=False, **settings
    )
    assert (1, len(BODY) + 78 * 4096 * 32) == (len(report.accepted), loopback.server.octets)


@pytest_twisted.ensureDeferred
async def test_an_early_verdict_in_the_next_record_of_the_segment(loopback: Loopback) -> None:
    """Two TLS records in one segment: the second is read before the content is written."""
    error = await loopback.error(
        loopback.send({"DATA": (b"354 go\r\n", b"250 queued\r\n")}, **IMPLICIT)
    )
    assert isinstance(error, ProtocolBreach)
    assert loopback.server.octets == 0


@pytest.mark.parametrize("injected", [b"250-mx\r\n250 AUTH PLAIN\r\n235 ok\r\n", b"25"])
@pytest.mark.parametrize("apart", [True, False])
@pytest_twisted.ensureDeferred
async def test_plain_text_behind_the_220_to_starttls(
    loopback: Loopback, injected: bytes, apart: bool
) -> None:
    said = (b"220 go\r\n", injected) if apart else b"220 go\r\n" + injected
    error = await loopback.error(loopback.send({"STARTTLS": (said, lambda s, _: s.begin_tls())}))
    assert isinstance(error, (ProtocolBreach, TLSError))
    assert [line.split()[0] for line in loopback.server.lines] == ["EHLO", "STARTTLS"]


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("settings", [{}, CLEAR], ids=["TLS", "clear"])
@pytest_twisted.ensureDeferred
async def test_the_end_behind_the_final_dot_is_doubt(
    loopback: Loopback, end: Any, settings: Any
) -> None:
    error = await loopback.error(loopback.send({".": end, "QUIT": SILENT}, **settings))
    assert isinstance(error, DeliveryInDoubt)
    assert loopback.server.messages == [BODY]


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("settings", [{}, CLEAR], ids=["TLS", "clear"])
@pytest_twisted.ensureDeferred
async def test_the_end_behind_the_verdict_changes_nothing(
    loopback: Loopback, end: Any, settings: Any
) -> None:

    def later(server: ScriptedServer, line: str) -> None:
        # Twisted drops what it has not written when it resets.
        server.clock.callLater(0.02, server.act, end)

    answers = {".": "250 queued", "QUIT": later}
    assert len((await loopback.send(answers, **settings)).accepted) == 1


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("settings", [{}, CLEAR], ids=["TLS", "clear"])
@pytest_twisted.ensureDeferred
async def test_the_end_in_the_middle_of_the_content_is_a_loss_and_no_cancellation(
    loopback: Loopback, end: Any, settings: Any
) -> None:
    """Half of it written, the source paused: the server reads no more, and is gone."""

    def gone(server: ScriptedServer, line: str) -> None:
        server.act(DEAF)
        server.clock.callLater(0.05, server.act, end)

    error = await loopback.error(
        loopback.send(
            {"CONTENT#2": gone},
            message=iter([BODY, *[LINE * 4096] * 400]),
            keep_content=False,
            **settings,
        )
    )
    assert not isinstance(error, Cancelled)
    assert isinstance(error, ConnectionClosed)
    assert loopback.server.messages == []
    assert error.report is not None
    assert error.report.in_doubt == ()


@pytest.mark.parametrize("settings", [{}, CLEAR], ids=["TLS", "clear"])
@pytest_twisted.ensureDeferred
async def test_a_refusal_while_nothing_more_is_read(loopback: Loopback, settings: Any) -> None:
    answers = {"CONTENT#2": ("552 5.3.4 too much", DEAF)}
    error = await loopback.error(
        loopback.send(
            answers, message=iter([BODY, *[LINE * 4096] * 400]), keep_content=False, **settings
        )
    )
    assert isinstance(error, AllRecipientsRefused)
    assert loopback.server.messages == []


@pytest_twisted.ensureDeferred
async def test_cancelling_while_the_server_reads_nothing(loopback: Loopback) -> None:
    deaf: Deferred[None] = Deferred()

    def stop(server: ScriptedServer, line: str) -> None:
        server.act(DEAF)
        server.clock.callLater(0.05, deaf.callback, None)

    sending = loopback.send(
        {"CONTENT#1": stop}, message=iter([BODY, *[LINE * 4096] * 400]), keep_content=False
    )
    await deaf
    sending.cancel()
    error = await loopback.error(sending)
    assert isinstance(error, Cancelled)
    assert loopback.server.messages == []


@pytest_twisted.ensureDeferred
async def test_a_port_where_nobody_listens(loopback: Loopback) -> None:
    sending = loopback.send()
    await loopback.ports[-1].stopListening()
    error = await loopback.error(sending)
    assert isinstance(error, (ConnectFailed, ConnectionClosed))


@pytest_twisted.ensureDeferred
async def test_clear_text_on_the_implicit_port(loopback: Loopback) -> None:
    def server() -> ScriptedServer:
        return ScriptedServer(clock=loopback.reactor)

    factory = Factory.forProtocol(server)
    factory.noisy = False
    port = loopback.reactor.listenTCP(0, factory, interface="127.0.0.1")
    loopback.ports.append(port)
    sending = sendmail(
        TCP4ClientEndpoint(loopback.reactor, "127.0.0.1", port.getHost().port),
        BODY,
        sender="a@example.org",
        recipients="b@example.net",
        server_name=NAME,
        trust=loopback.trust,
        tls=TLSPolicy.IMPLICIT,
        reactor=loopback.reactor,
    )
    error = await loopback.error(sending)
    assert isinstance(error, TLSError)
    assert "clear text" in str(error)


def link_local_address() -> str | None:
    """An address of this machine that needs a zone, with it."""
    try:
        lines = Path("/proc/net/if_inet6").read_text("ascii").splitlines()
    except OSError:
        return None
    for digits, _, _, _, _, interface in map(str.split, lines):
        address = IPv6Address(int(digits, 16))
        if address.is_link_local:
            return f"{address}%{interface}"
    return None


@pytest.mark.skipif(link_local_address() is None, reason="no link-local address")
@pytest_twisted.ensureDeferred
async def test_a_link_local_address_is_connected_to_and_verified(reactor: Any) -> None:
    host = link_local_address() or ""
    certificate = faults.certificate_for(host.partition("%")[0])
    async with LoopbackServer(reactor, host=host, faults=[certificate]) as server:
        for url in (server.url, server.tls_url):
            to = SubmissionServer.from_url(url, trust=TLSTrust(ca_file=server.ca_file))
            report = await submit(
                reactor, to, BODY, sender="a@example.org", recipients="b@example.net"
            )
            assert len(report.accepted) == 1
