"""Certificate, accounts and mode imply settings that other settings cannot contradict."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_sendmail import (
    HashedAccounts,
    InvalidServer,
    Networks,
    Receiver,
    ServerHandler,
    ServerSession,
    ServerSettings,
    ServerTLS,
    SMTPServerFactory,
)
from twisted_sendmail.testing import Authority, BackgroundServer, LoopbackServer, MemoryServer

NO_TLS = "530 5.7.0 Encryption is required: send STARTTLS first"
TAKEN = "250 2.0.0 Ok"
NO_AUTH = "530 5.7.0 Authentication is required"
ELSEWHERE = IPv4Address("TCP", "192.0.2.1", 1)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(Authority().issue())
    return ServerTLS(path)


def accounts() -> HashedAccounts:
    return HashedAccounts.of_passwords({"jane": "s3cret"})


def said(factory: SMTPServerFactory, *lines: str) -> list[str]:
    """The replies to *lines*, in clear, each without its line end."""
    protocol = factory.buildProtocol(ELSEWHERE)
    transport: Any = StringTransport(peerAddress=ELSEWHERE)  # type: ignore[no-untyped-call]  # Twisted's
    protocol.makeConnection(transport)  # type: ignore[no-untyped-call]  # Twisted's
    for line in ("EHLO client.example.net", *lines):
        protocol.dataReceived(line.encode() + b"\r\n")
    received: bytes = transport.value()
    return received.decode().splitlines()


def answer(factory: SMTPServerFactory, line: str = "MAIL FROM:<a@example.org>") -> str:
    return said(factory, line)[-1]


def server(**options: Any) -> SMTPServerFactory:
    return SMTPServerFactory(Clock(), Receiver, **options)


#: Settings that speak of something else.
BESIDES = [
    None,
    ServerSettings(),
    ServerSettings(max_size=10_000_000),
    ServerSettings(host="mx.example.org", require_hello=False),
    ServerSettings(lmtp=False, max_recipients=5),
]


@pytest.mark.parametrize("settings", BESIDES)
def test_a_certificate_demands_tls_whatever_else_is_set(
    tls: ServerTLS, settings: ServerSettings | None
) -> None:
    factory = server(tls=tls, settings=settings)
    assert answer(factory) == NO_TLS
    assert "250-STARTTLS" in said(factory)


@pytest.mark.parametrize("settings", [*BESIDES, ServerSettings(starttls=True, max_size=10_000_000)])
def test_accounts_demand_auth_whatever_else_is_set(
    tls: ServerTLS, settings: ServerSettings | None
) -> None:
    # In clear, so that AUTH alone is in the way.
    for changes in ({}, {"require_tls": False}):
        if settings is None and changes:
            continue
        given = settings and ServerSettings(**{**vars(settings), **changes})
        factory = server(tls=tls, accounts=accounts(), settings=given)
        assert answer(factory) == (NO_AUTH if changes else NO_TLS)


@pytest.mark.parametrize("settings", BESIDES)
def test_nothing_is_demanded_that_is_not_offered(settings: ServerSettings | None) -> None:
    factory = server(settings=settings)
    assert answer(factory) == TAKEN
    offered = said(factory)
    assert not [line for line in offered if "STARTTLS" in line or "AUTH" in line]


def test_lmtp_without_a_certificate_takes_mail() -> None:
    factory = server(settings=ServerSettings(lmtp=True))
    assert said(factory, "LHLO x", "MAIL FROM:<a@example.org>")[-1] == TAKEN


def test_accounts_without_a_certificate_are_not_asked_in_clear_and_nothing_is_taken() -> None:
    factory = server(accounts=accounts())
    assert answer(factory, "AUTH PLAIN AGphbmUAczNjcmV0") == "538 5.7.11 Encryption is required"
    assert answer(factory) == NO_AUTH


def test_a_session_of_its_own_derives_the_same() -> None:
    settings = ServerSettings(starttls=True, mechanisms=("PLAIN",))
    session = ServerSession(settings, ServerHandler())
    settings = session.settings
    assert (settings.require_tls, settings.require_auth) == (True, True)


# -- weaker by name ---------------------------------------------------------------------


def test_what_is_weaker_is_said_by_name(tls: ServerTLS) -> None:
    weak = ServerSettings(require_tls=False, require_auth=False)
    factory = server(tls=tls, accounts=accounts(), settings=weak)
    assert answer(factory) == TAKEN
    clear = ServerSettings(require_tls=False, clear_auth=True)
    factory = server(tls=tls, accounts=accounts(), settings=clear)
    assert answer(factory) == NO_AUTH
    assert answer(factory, "AUTH PLAIN AGphbmUAczNjcmV0").startswith("235")


def test_implicit_tls_alone_does_not_send_to_starttls(tls: ServerTLS) -> None:
    factory = server(tls=tls, settings=ServerSettings(starttls=False))
    assert answer(factory) == "530 5.7.0 Encryption is required"
    assert answer(factory, "STARTTLS") == "502 5.5.1 STARTTLS is not offered"


def test_trusted_networks_are_exempt_and_nobody_else(tls: ServerTLS) -> None:
    for settings in BESIDES:
        inside = server(
            tls=tls, accounts=accounts(), settings=settings, trusted=Networks(["192.0.2.0/24"])
        )
        outside = server(
            tls=tls, accounts=accounts(), settings=settings, trusted=Networks(["198.51.100.0/24"])
        )
        assert (answer(inside), answer(outside)) == (TAKEN, NO_TLS)


# -- contradictions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "given", "names"),
    [
        (ServerSettings(starttls=True), "", ["starttls=True", "tls"]),
        (ServerSettings(require_tls=True), "", ["require_tls=True", "tls"]),
        (ServerSettings(require_tls=True), "accounts", ["require_tls=True", "tls"]),
        (ServerSettings(mechanisms=("PLAIN",)), "tls", ["mechanisms=", "accounts"]),
        (ServerSettings(require_auth=True), "tls", ["require_auth=True", "accounts"]),
        (ServerSettings(clear_auth=True), "", ["clear_auth=True", "accounts"]),
        (
            ServerSettings(clear_auth=True),
            "tls accounts",
            ["clear_auth=True", "require_tls", "tls"],
        ),
        (ServerSettings(mechanisms=()), "accounts", ["mechanisms", "accounts"]),
        (ServerSettings(mechanisms=("GSSAPI",)), "accounts", ["GSSAPI", "mechanisms"]),
        (ServerSettings(require_tls=True), "tls trusted", ["require_tls=True", "trusted"]),
        (ServerSettings(require_auth=True), "accounts trusted", ["require_auth=True", "trusted"]),
        (ServerSettings(), "nobody", ["trusted", "accounts"]),
        (ServerSettings(extensions=("STARTTLS",)), "", ["extensions", "STARTTLS"]),
        (ServerSettings(extensions=("AUTH",)), "", ["extensions", "AUTH"]),
    ],
)
def test_a_contradiction_names_both_sides_and_a_remedy(
    tls: ServerTLS, settings: ServerSettings, given: str, names: list[str]
) -> None:
    options: dict[str, Any] = {}
    if "tls" in given:
        options["tls"] = tls
    if "accounts" in given:
        options["accounts"] = accounts()
    if "trusted" in given:
        options["trusted"] = Networks(["192.0.2.0/24"])
    if "nobody" in given:
        options["trusted"] = Networks()
    with pytest.raises(InvalidServer) as caught:
        server(settings=settings, **options)
    assert [name for name in names if name not in str(caught.value)] == []
    assert caught.value.remedy


# -- the test kit ----------------------------------------------------------------------------

MAIL = "MAIL FROM:<a@example.org>"


class Notes(Protocol):
    """Collects what it receives."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


def kit_said(kit: MemoryServer, *lines: str) -> list[str]:
    """The replies of *kit* to *lines*, in clear."""
    client = Notes()
    kit.run(kit.endpoint.connect(Factory.forProtocol(lambda: client)))
    for line in ("EHLO client.example.net", *lines):
        client.transport.write(line.encode() + b"\r\n")  # type: ignore[union-attr]  # connected
        kit.advance(0)
    return client.received.decode().splitlines()


@pytest.mark.parametrize("settings", [None, ServerSettings(max_size=1000)])
@pytest.mark.parametrize("tls", [True, False])
def test_a_server_of_the_kit_without_users_demands_nothing(
    settings: ServerSettings | None, tls: bool
) -> None:
    with MemoryServer(tls=tls, settings=settings) as kit:
        assert kit_said(kit, MAIL)[-1] == TAKEN
        assert ("250-STARTTLS" in kit_said(kit)) is tls
        # Any user with any password, also in clear.
        assert kit_said(kit, "AUTH PLAIN AGphbmUAczNjcmV0")[-1].startswith("235")


@pytest.mark.parametrize("settings", [None, ServerSettings(max_size=1000)])
@pytest.mark.parametrize(("tls", "refusal"), [(True, NO_TLS), (False, NO_AUTH)])
def test_a_server_of_the_kit_with_users_demands_auth_and_the_tls_it_offers(
    settings: ServerSettings | None, tls: bool, refusal: str
) -> None:
    with MemoryServer(users={"jane": "s3cret"}, tls=tls, settings=settings) as kit:
        assert kit_said(kit, MAIL)[-1] == refusal
        offers = "250-STARTTLS" if tls else "250-AUTH SCRAM-SHA-256 PLAIN LOGIN"
        assert offers in kit_said(kit)


def test_no_user_is_not_any_user() -> None:
    with MemoryServer(users={}, tls=False) as kit:
        assert kit_said(kit, MAIL)[-1] == NO_AUTH


def test_lenient_by_name_needs_no_auth_of_its_users() -> None:
    with MemoryServer(users={"jane": "s3cret"}, lenient=True) as kit:
        assert kit_said(kit, MAIL)[-1] == TAKEN


def test_strict_by_name_needs_tls() -> None:
    with MemoryServer(lenient=False) as kit:
        assert kit_said(kit, MAIL)[-1] == NO_TLS


def start(make: Any, options: dict[str, Any]) -> None:
    if make is LoopbackServer:
        _ = make(Clock(), **options).start()
    else:
        make(**options).__enter__()


@pytest.mark.parametrize("make", [MemoryServer, BackgroundServer, LoopbackServer])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"tls": False, "settings": ServerSettings(starttls=True)}, ["starttls=True", "tls"]),
        (
            {"lenient": True, "settings": ServerSettings(require_auth=True)},
            ["lenient=True", "require_auth=True"],
        ),
    ],
)
def test_a_contradiction_in_the_kit_is_told_when_it_starts(
    make: Any, options: dict[str, Any], names: list[str]
) -> None:
    with pytest.raises(InvalidServer) as caught:
        start(make, options)
    assert [name for name in names if name not in str(caught.value)] == []
