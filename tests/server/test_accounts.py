"""Accounts: SCRAM, password files, portals; unknown users cannot be told from known ones."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import pbkdf2_hmac
from pathlib import Path
from typing import Any

import pytest
from scramp import ScramClient
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.names import password_entry
from tests.server.conftest import Client, Net
from twisted_sendmail import (
    HashedAccounts,
    InvalidInput,
    InvalidServer,
    PasswordFile,
    PortalAccounts,
    ServerTimeouts,
)
from twisted_sendmail.sasl import ScramKeys
from twisted_sendmail.server import IMailUser

NO_DELAY = ServerTimeouts(failed_login=0)


def client(net: Net) -> Client:
    made = net.client(implicit=True)
    made.send("EHLO x\r\n")
    return made


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + b64encode(f"\0{user}\0{password}".encode()).decode()


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def challenge(lines: list[str]) -> str:
    (line,) = lines
    assert line[:4] == "334 "
    return b64decode(line[4:]).decode()


# -- SCRAM ----------------------------------------------------------------------------


def scram(net: Net, user: str, password: str, *, initial: bool = True) -> list[str]:
    peer = client(net)
    other = ScramClient(["SCRAM-SHA-256"], user, password)
    first = encoded(other.get_client_first())
    if initial:
        said = peer.send(f"AUTH SCRAM-SHA-256 {first}\r\n")
    else:
        assert peer.send("AUTH SCRAM-SHA-256\r\n") == ["334 "]
        said = peer.send(first + "\r\n")
    other.set_server_first(challenge(said))
    said = peer.send(encoded(other.get_client_final()) + "\r\n")
    if said[0][:3] == "334":
        other.set_server_final(challenge(said))
        said = peer.send("\r\n")
    return said


@pytest.mark.parametrize("initial", [True, False])
def test_scram_lets_in_who_knows_the_password_and_proves_the_server(
    net: Net, initial: bool
) -> None:
    net.secure()
    said = scram(net, "jane", "s3cret", initial=initial)
    assert said == ["235 2.7.0 Authentication successful"]


@pytest.mark.parametrize(("user", "password"), [("jane", "wrong"), ("nobody", "s3cret")])
def test_scram_refuses_all_others_alike(net: Net, user: str, password: str) -> None:
    net.secure(deadlines=NO_DELAY)
    assert scram(net, user, password) == ["535 5.7.8 Authentication failed"]


def test_scram_shows_an_unknown_user_a_salt_that_stays(net: Net) -> None:
    net.secure()
    salts = []
    for user in ("nobody", "nobody", "jane"):
        other = ScramClient(["SCRAM-SHA-256"], user, "x")
        said = client(net).send(f"AUTH SCRAM-SHA-256 {encoded(other.get_client_first())}\r\n")
        salts.append(challenge(said).split(",")[1:])
    assert (salts[0] == salts[1], salts[0] == salts[2]) == (True, False)
    assert salts[0][1] == salts[2][1], "the iteration count tells who exists"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("n,,n=jane,r=abc", "334"),
        ("y,a=jane,n=jane,r=abc", "334"),
        ("n,a=other,n=jane,r=abc", "535 5.7.8"),
        ("p=tls-exporter,,n=jane,r=abc", "501 5.5.2"),
        ("n,,n=jane", "501 5.5.2"),
        ("n,,n=ja=ne,r=abc", "501 5.5.2"),
        ("", "501 5.5.2"),
        ("n,,n=jane,r=\u00e4", "501 5.5.2"),
    ],
)
def test_the_first_scram_message_is_read_strictly(net: Net, first: str, code: str) -> None:
    net.secure(deadlines=NO_DELAY)
    said = client(net).send(f"AUTH SCRAM-SHA-256 {encoded(first) or '='}\r\n")
    assert said[0].startswith(code)


@pytest.mark.parametrize(
    "final",
    [
        "",
        "c=biws,r=other,p=AAAA",
        "c=eSws,r={nonce},p=AAAA",
        "c=biws,r={nonce}",
        "c=biws,r={nonce},p=!",
    ],
)
def test_the_final_scram_message_is_read_strictly(net: Net, final: str) -> None:
    net.secure(deadlines=NO_DELAY)
    peer = client(net)
    nonce = challenge(peer.send(f"AUTH SCRAM-SHA-256 {encoded('n,,n=jane,r=abc')}\r\n"))
    nonce = nonce.split(",")[0][2:]
    said = peer.send(encoded(final.format(nonce=nonce)) + "\r\n")
    assert said[0][:3] in {"501", "535"}
    assert peer.code(plain("jane", "s3cret")) == "235 2.7.0"


def test_a_nonce_that_is_not_ours_is_refused_though_the_proof_is_good(net: Net) -> None:
    """The message of another session, say."""
    net.secure(deadlines=NO_DELAY)
    keys = ScramKeys.of("s3cret", iterations=4096)
    net.factory.accounts = HashedAccounts({"jane": keys})
    for nonce, code in (("{}", "334"), ("{}x", "535"), ("other", "535")):
        peer = client(net)
        first = challenge(peer.send(f"AUTH SCRAM-SHA-256 {encoded('n,,n=jane,r=abc')}\r\n"))
        final = "c=biws,r=" + nonce.format(first.split(",")[0][2:])
        message = f"n=jane,r=abc,{first},{final}".encode()
        salted = pbkdf2_hmac("sha256", b"s3cret", keys.salt, keys.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(keys.stored_key, message, "sha256")
        proof = b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        assert peer.send(encoded(f"{final},p={proof}") + "\r\n")[0][:3] == code


def test_keys_are_spelled_and_read_back() -> None:
    keys = ScramKeys.of("pencil", salt=b"0123456789abcdef", iterations=4096)
    assert ScramKeys.parse(keys.spelled()) == keys
    assert "pencil" not in repr(keys)
    assert (keys.match("pencil"), keys.match("Pencil")) == (True, False)


def test_keys_are_those_of_rfc_7677() -> None:
    """Section 3: the proof of user, pencil, with the salt and nonces given there."""
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert b64encode(ScramKeys.of("pencil", salt=salt, iterations=4096).stored_key) == (
        b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    )


# -- the same time for everybody --------------------------------------------------------


def test_an_unknown_user_costs_as_many_hashes_as_a_known_one() -> None:
    hashed: list[str] = []

    def counting(call: Callable[[], bool]) -> Deferred[bool]:
        hashed.append("once")
        return succeed(call())

    accounts = HashedAccounts({"jane": ScramKeys.of("x", iterations=4096)}, counting)
    for user in ("jane", "nobody"):
        said = Deferred.fromCoroutine(accounts.check(user, "wrong"))
        assert said.result is None
    assert hashed == ["once", "once"]


# -- password files -----------------------------------------------------------------------


def test_a_password_file_lets_in_those_in_it(net: Net, tmp_path: Path, certificate: Any) -> None:
    path = tmp_path / "passwords"
    path.touch(0o600)
    path.write_text(f"# users\n\n{password_entry('jane', 's3cret', iterations=4096)}\n")
    accounts = PasswordFile(path, net.clock)
    accounts._run_blocking = HashedAccounts({})._run_blocking
    net.server(tls=certificate, accounts=accounts, deadlines=NO_DELAY)
    assert client(net).code(plain("jane", "s3cret")) == "235 2.7.0"
    path.write_text(f"{password_entry('john', 'pass', iterations=4096)}\n")
    accounts.reload()
    assert client(net).code(plain("jane", "s3cret")) == "535 5.7.8"
    assert client(net).code(plain("john", "pass")) == "235 2.7.0"


KEYS = f"${'A' * 43}=:{'A' * 43}="


@pytest.mark.parametrize("iterations", [4096, 1_000_000])
def test_a_password_file_may_have_as_many_iterations_as_clients_accept(
    tmp_path: Path, iterations: int
) -> None:
    path = tmp_path / "passwords"
    path.touch(0o600)
    path.write_text(f"jane:SCRAM-SHA-256${iterations}:AAAA{KEYS}\n")
    PasswordFile(path, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("jane", "line 1"),
        ("# x\n:SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "line 2"),
        ("jane:secret", "no SCRAM-SHA-256 entry"),
        ("jane:SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "its keys"),
        (f"jane:SCRAM-SHA-256$4095:AAAA{KEYS}", "it has 4095 iterations; clients accept 4,096 to"),
        (f"jane:SCRAM-SHA-256$1000001:AAAA{KEYS}", "it has 1000001 .* to 1,000,000"),
        (f"jane:SCRAM-SHA-256${'9' * 18}:AAAA{KEYS}", "it has 9{18} iterations"),
        (f"\ufeffjane:SCRAM-SHA-256$4096:AAAA{KEYS}", "line 1 .* an invisible character"),
        (f"jane\0:CERT-SHA-256${'a' * 64}", "line 1 .* an invisible character"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "passwords"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(InvalidServer, match=why) as caught:
        PasswordFile(path, None)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidServer, match="/nowhere/passwords cannot be read"):
        PasswordFile("/nowhere/passwords", None)


def test_a_user_is_there_once(tmp_path: Path) -> None:
    line = password_entry("jane", "x", iterations=4096)
    (tmp_path / "passwords").touch(0o600)
    (tmp_path / "passwords").write_text(f"{line}\n{line}\n")
    with pytest.raises(InvalidServer, match="duplicate entry"):
        PasswordFile(tmp_path / "passwords", None)


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", " a", "#a"])
def test_a_user_name_that_would_break_the_file_is_refused(user: str) -> None:
    with pytest.raises(InvalidInput, match="user name"):
        password_entry(user, "x", iterations=4096)


# -- twisted.cred ----------------------------------------------------------------------------


@implementer(IRealm)
class Realm:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        self.log.append(("in", avatarId))
        return (
            IMailUser,
            f"avatar of {avatarId.decode()}",
            lambda: self.log.append(("out", avatarId)),
        )


def test_a_portal_lets_in_and_is_told_when_the_connection_ends(net: Net, certificate: Any) -> None:
    realm = Realm()
    checker = InMemoryUsernamePasswordDatabaseDontUse(jane=b"s3cret")
    portal = Portal(realm, [checker])
    net.server(tls=certificate, accounts=PortalAccounts(portal), deadlines=NO_DELAY)
    peer = client(net)
    assert peer.code("AUTH SCRAM-SHA-256") == "504 5.5.4"
    assert peer.code(plain("jane", "wrong")) == "535 5.7.8"
    assert peer.code(plain("jane", "s3cret")) == "235 2.7.0"
    assert peer.server.connection.avatar == "avatar of jane"
    peer.send("QUIT\r\n")
    assert realm.log == [("in", b"jane"), ("out", b"jane")]
