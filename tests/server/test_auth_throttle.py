"""Failed logins are delayed, each longer than the one before, over all connections, without a lock-out."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from base64 import b64decode, b64encode
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from scramp import ScramClient
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.basic import LineReceiver
from zope.interface import provider

from twisted_sendmail import (
    AuthThrottle,
    HashedAccounts,
    PasswordFile,
    Receiver,
    ServerSettings,
    ServerTimeouts,
    SMTPServerFactory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Without TLS, so that a transport in memory will do.
CLEAR = ServerSettings(require_tls=False, clear_auth=True)
ADDRESS = "192.0.2.1"


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + b64encode(f"\0{user}\0{password}".encode()).decode()


class Site:
    """A server, its clock, and clients from anywhere."""

    def __init__(self, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or Clock()
        users = {"jane": "s3cret", "john": "pencil"}
        self.factory = SMTPServerFactory(
            self.clock,
            Receiver,
            accounts=HashedAccounts.of_passwords(users),
            settings=CLEAR,
            **options,
        )
        self.connections: list[Any] = []

    def begin(self, line: str, address: str = ADDRESS) -> Any:
        """A new connection from *address* that says *line*; its transport."""
        kind = IPv6Address if ":" in address else IPv4Address
        peer: Any = kind("TCP", address, 1)
        transport: Any = StringTransport(peerAddress=peer)  # type: ignore[no-untyped-call]  # Twisted's
        self.say(transport, line)
        return transport

    def say(self, transport: Any, line: str) -> None:
        """Say *line* on a new connection over *transport*."""
        protocol: Any = self.factory.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        protocol.dataReceived(b"EHLO x\r\n")
        transport.clear()
        protocol.dataReceived(line.encode() + b"\r\n")
        transport.say, transport.lost = protocol.dataReceived, protocol.connectionLost

    def reply(self, transport: Any) -> bytes:
        """The next reply, and the time that passes until then."""
        start = self.clock.seconds()
        while not transport.value():
            assert self.clock.seconds() < start + 3600, "there is no reply"
            self.clock.advance(0.5)
        reply: bytes = transport.value()
        transport.clear()
        return reply

    def login(self, user: str, password: str, address: str = ADDRESS) -> tuple[str, float]:
        """The code of the reply, and the seconds that it took."""
        start = self.clock.seconds()
        transport = self.begin(plain(user, password), address)
        code = self.reply(transport)[:3].decode()
        transport.lost()
        return code, self.clock.seconds() - start

    def delays(self, *logins: tuple[str, str]) -> list[float]:
        """The seconds of one failure after the other; each is a user and an address."""
        results = [self.login(user, "wrong", address) for user, address in logins]
        assert {code for code, _ in results} <= {"535"}
        return [seconds for _, seconds in results]


GROWING = [2, 4, 8, 16, 30, 30, 30]


def test_the_delay_of_an_address_grows_over_its_connections_and_users() -> None:
    site = Site()
    assert site.delays(*((f"user{n}", ADDRESS) for n in range(7))) == GROWING


def test_the_delay_of_a_user_grows_over_all_addresses() -> None:
    site = Site()
    assert site.delays(*(("jane", f"192.0.2.{n}") for n in range(7))) == GROWING


def test_a_user_that_does_not_exist_is_delayed_alike() -> None:
    site = Site()
    assert site.delays(*(("nobody", f"192.0.2.{n}") for n in range(7))) == GROWING


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_are_counted_by_what_one_party_has(one: str, other: str, same: bool) -> None:
    site = Site()
    assert site.delays(("a", one), ("b", other)) == [2, 4 if same else 2]


def test_it_is_never_a_lock() -> None:
    site = Site()
    site.delays(*(("jane", f"192.0.2.{n}") for n in range(20)))
    site.delays(*((f"user{n}", ADDRESS) for n in range(20)))
    # The right password, from an address that failed, as a user that others guessed at.
    assert site.login("jane", "s3cret") == ("235", 30)


def test_an_address_that_logged_in_lately_does_not_wait_for_the_failures_of_others() -> None:
    site = Site()
    assert site.login("jane", "s3cret") == ("235", 0)
    # Others guess her password elsewhere; and others at her address guess at other users.
    site.delays(*(("jane", f"198.51.100.{n}") for n in range(9)))
    site.delays(*((f"user{n}", ADDRESS) for n in range(9)))
    assert site.login("jane", "s3cret") == ("235", 0)
    # She waits for her own failures, and they are over when she gets in.
    assert site.delays(("jane", ADDRESS), ("jane", ADDRESS)) == [2, 4]
    assert site.login("jane", "s3cret") == ("235", 4)
    assert site.login("jane", "s3cret") == ("235", 0)
    # Another user at her address, and she elsewhere, wait.
    assert site.login("john", "pencil")[1] == 30
    assert site.login("jane", "s3cret", "203.0.113.9")[1] == 30


def test_a_right_password_that_an_attacker_has_does_not_clear_its_address() -> None:
    site = Site()
    delays = []
    for n in range(4):
        assert site.login("john", "pencil")[0] == "235"
        delays += site.delays((f"user{n}", ADDRESS))
    assert delays == [2, 4, 8, 16]


def test_failures_are_forgotten_one_by_one() -> None:
    site = Site()
    site.delays(("a", ADDRESS), ("b", ADDRESS), ("c", ADDRESS))
    site.clock.advance(1200)
    assert site.delays(("d", ADDRESS)) == [4]
    site.clock.advance(3600)
    assert site.delays(("e", ADDRESS)) == [2]


def test_a_client_that_does_not_wait_for_the_answer_gains_nothing() -> None:
    site = Site()
    site.delays(("a", ADDRESS), ("b", ADDRESS))
    for n in range(5):
        impatient = site.begin(plain(f"u{n}", "wrong"))
        site.clock.advance(0.5)
        impatient.lost()
    assert site.login("jane", "s3cret") == ("235", 30)


def test_the_password_is_not_looked_at_before_the_delay_is_over() -> None:
    site = Site()
    site.delays(("a", ADDRESS), ("b", ADDRESS))
    checked = []
    accounts: Any = site.factory.accounts
    check = accounts.check

    async def noted(user: str, password: str) -> Any:
        checked.append(site.clock.seconds())
        return await check(user, password)

    accounts.check = noted
    start = site.clock.seconds()
    assert site.login("jane", "s3cret") == ("235", 4)
    assert checked == [start + 4]


def test_logins_at_once_wait_when_one_has_failed_before() -> None:
    site = Site()
    site.delays(("a", ADDRESS))
    many = [site.begin(plain(f"u{n}", "wrong")) for n in range(6)]
    times: dict[int, float] = {}
    start = site.clock.seconds()
    while len(times) < 6:
        site.clock.advance(0.5)
        for n, each in enumerate(many):
            if each.value():
                times.setdefault(n, site.clock.seconds() - start)
    assert sorted(times.values())[1:] == [30] * 5


def test_many_that_log_in_at_once_do_not_wait() -> None:
    site = Site()
    many = [site.begin(plain("jane", "s3cret")) for _ in range(50)]
    assert {each.value()[:3] for each in many} == {b"235"}


@pytest.mark.parametrize(("password", "delays"), [("s3cret", (4, 4)), ("wrong", (8, 16))])
def test_every_mechanism_is_delayed(password: str, delays: tuple[float, float]) -> None:
    site = Site()
    site.delays(("jane", ADDRESS), ("jane", ADDRESS))
    login = site.begin("AUTH LOGIN amFuZQ==")
    site.reply(login)
    start = site.clock.seconds()
    login.say(b64encode(password.encode()) + b"\r\n")
    code = b"235" if password == "s3cret" else b"535"
    assert (site.reply(login)[:3], site.clock.seconds() - start) == (code, delays[0])

    # From elsewhere, where jane has not logged in.
    peer = ScramClient(["SCRAM-SHA-256"], "jane", password)
    scram = site.begin(
        f"AUTH SCRAM-SHA-256 {b64encode(peer.get_client_first().encode()).decode()}", "192.0.2.2"
    )
    peer.set_server_first(b64decode(site.reply(scram)[4:]).decode())
    start = site.clock.seconds()
    scram.say(b64encode(peer.get_client_final().encode()) + b"\r\n")
    code = b"334" if password == "s3cret" else b"535"
    assert (site.reply(scram)[:3], site.clock.seconds() - start) == (code, delays[1])


def test_servers_that_share_a_throttle_count_together() -> None:
    clock = Clock()
    throttle = AuthThrottle(clock)
    one, other = Site(clock, throttle=throttle), Site(clock, throttle=throttle)
    assert [*one.delays(("a", ADDRESS)), *other.delays(("b", ADDRESS))] == [2, 4]


def test_the_base_is_the_deadline_of_a_failed_login() -> None:
    assert Site(deadlines=ServerTimeouts(failed_login=5)).delays(*[("a", ADDRESS)] * 4) == [
        5,
        10,
        20,
        30,
    ]
    assert Site(deadlines=ServerTimeouts(failed_login=0)).delays(*[("a", ADDRESS)] * 9) == [0] * 9


def test_the_tables_are_bounded() -> None:
    clock = Clock()
    throttle = AuthThrottle(clock)
    for n in range(25_000):
        address = IPv4Address("TCP", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1)
        attempt = throttle.attempt(address, f"user{n}")
        if n % 2:
            attempt.succeeded()
        else:
            attempt.failed()
    assert len(throttle) == 30_000


# -- the log ---------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_each_failure_is_one_line_of_the_log(lines: list[str]) -> None:
    site = Site()
    site.login("jane", "hunter2")
    site.login("jane", "s3cret")
    assert [line for line in lines if "SASL" in line] == [
        "[192.0.2.1]: SASL PLAIN authentication failed, sasl_username=jane"
    ]


def test_a_failure_on_a_unix_socket_is_logged_with_the_user(lines: list[str]) -> None:
    site = Site()
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        transport: Any = StringTransport(peerAddress=UNIXAddress("/run/x"))  # type: ignore[no-untyped-call]  # Twisted's
        transport.getHandle = lambda: ours
        site.say(transport, plain("jane", "hunter2"))
        site.reply(transport)
        transport.lost()
    assert [line for line in lines if "SASL" in line] == [
        f"[uid {os.geteuid()}]: SASL PLAIN authentication failed, sasl_username=jane"
    ]


SCRAM_FIRST = "AUTH SCRAM-SHA-256 " + b64encode(b"n,,n=jane,r=abc").decode()


@pytest.mark.parametrize(
    ("login", "user"),
    [
        ("AUTH PLAIN", "(unavailable)"),
        ("AUTH LOGIN", "(unavailable)"),
        ("AUTH LOGIN amFuZQ==", "jane"),
        (SCRAM_FIRST, "jane"),
    ],
)
@pytest.mark.parametrize("end", [b"*\r\n", b"no base64\r\n", None], ids=["*", "501", "lost"])
def test_an_abandoned_login_is_one_line_of_the_log(
    lines: list[str], login: str, user: str, end: bytes | None
) -> None:
    site = Site()
    transport = site.begin(login)
    assert site.reply(transport)[:4] == b"334 "
    if end is not None:
        transport.say(end)
        assert site.reply(transport)[:4] == b"501 "
    transport.lost()
    assert [line for line in lines if "SASL" in line] == [
        f"[192.0.2.1]: SASL {login.split()[1]} authentication aborted, sasl_username={user}"
    ]


def test_a_client_that_leaves_while_it_waits_is_one_line_of_the_log(lines: list[str]) -> None:
    site = Site()
    site.login("john", "wrong")
    lines.clear()
    # Before the password is looked at, and after it was found to be wrong.
    for seconds in (0, 5):
        transport = site.begin(plain("jane", "hunter2"))
        site.clock.advance(seconds)
        assert not transport.value()
        transport.lost()
    results = ["aborted", "failed"]
    assert [line for line in lines if "SASL" in line] == [
        f"[192.0.2.1]: SASL PLAIN authentication {result}, sasl_username=jane" for result in results
    ]


def test_a_name_cannot_forge_a_line_nor_fill_the_log(lines: list[str]) -> None:
    site = Site()
    name = "x\n[203.0.113.1]: SASL PLAIN authentication failed, sasl_username=\x1b[31m" + "y" * 5000
    site.login(name, "hunter2")
    (line,) = [line for line in lines if "SASL" in line]
    assert line.startswith("[192.0.2.1]: SASL PLAIN authentication failed, sasl_username=x\\x0a[")
    assert (line.isprintable(), len(line) < 300, "hunter2" in line) == (True, True, False)
    assert " " not in line.partition("sasl_username=")[2].partition("…")[0]


# -- the threads -------------------------------------------------------------------------------


class Login(LineReceiver):
    """Says EHLO and AUTH PLAIN; *done* gets the code of the answer."""

    def __init__(self, done: Deferred[bytes]) -> None:
        self.done = done

    def lineReceived(self, line: bytes) -> None:
        if line[:4] == b"220 ":
            self.sendLine(b"EHLO x")  # type: ignore[no-untyped-call]  # Twisted's
        elif line.startswith(b"250 "):
            self.sendLine(plain("jane", "s3cret").encode())  # type: ignore[no-untyped-call]  # Twisted's
        elif line[:3] in {b"235", b"535", b"454"}:
            self.done.callback(line[:3])


def hashing_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if "password" in each.name]


@pytest_twisted.ensureDeferred
async def test_passwords_are_hashed_in_threads_of_their_own_that_end_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted.internet import reactor

    salt = b"0123456789abcdef"
    keys = [b64encode(hashlib.sha256(part).digest()).decode() for part in (b"stored", b"server")]
    path = tmp_path / "accounts"
    path.write_text(f"jane:SCRAM-SHA-256$4096:{b64encode(salt).decode()}${keys[0]}:{keys[1]}\n")
    path.chmod(0o600)
    hashed_in: list[str] = []
    hashing = hashlib.pbkdf2_hmac

    def noted(*arguments: Any) -> bytes:
        hashed_in.append(threading.current_thread().name)
        return hashing(*arguments)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", noted)
    factory = SMTPServerFactory(
        reactor,
        Receiver,
        accounts=PasswordFile(path, reactor),
        settings=CLEAR,
        deadlines=ServerTimeouts(failed_login=0),
    )
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    done: Deferred[bytes] = Deferred()
    address: Any = port.getHost()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)
    client = await connectProtocol(endpoint, Login(done))
    assert await done == b"535"
    assert hashed_in
    assert hashed_in == hashing_threads()
    client.transport.loseConnection()
    await port.stopListening()
    await factory.wind_up(5)
    for _ in range(500):
        if not hashing_threads():
            break
        await deferLater(reactor, 0.01)
    assert hashing_threads() == []
