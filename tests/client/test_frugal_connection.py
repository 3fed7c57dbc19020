"""What is known without asking OpenSSL is what OpenSSL would say."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.client.certificates import good_context
from twisted_sendmail.client.frugal_connection import FrugalConnection

VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]


class Side:
    """A client, read as Twisted's TLS layer reads, and the server it talks to."""

    def __init__(self, kind: type[SSL.Connection], version: int) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        self.client = kind(context, None)
        self.client.set_connect_state()
        self.server = SSL.Connection(good_context(), None)
        self.server.set_accept_state()
        self.tickets = b""
        for _ in range(6):
            self.shake(self.client)
            self.give(self.client, self.server)
            self.shake(self.server)
            if self.shake(self.client):
                # What comes behind the handshake: in TLS 1.3 the tickets.
                self.tickets = self.taken(self.server)
                break
            self.give(self.server, self.client)

    @staticmethod
    def shake(one: SSL.Connection) -> bool:
        try:
            one.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    @staticmethod
    def taken(one: SSL.Connection) -> bytes:
        try:
            return one.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""

    def give(self, one: SSL.Connection, other: SSL.Connection) -> None:
        octets = self.taken(one)
        if octets:
            _ = other.bio_write(octets)

    def read(self, octets: bytes) -> list[Any]:
        """What the layer sees of *octets*, and if there was something to send."""
        _ = self.client.bio_write(octets)
        return [*self.received(), bool(self.taken(self.client))]

    def received(self) -> list[Any]:
        seen: list[Any] = []
        while True:
            try:
                seen.append(self.client.recv(2**15))
            except SSL.WantReadError:
                return seen
            except SSL.Error as e:
                return [*seen, type(e).__name__]

    def say(self, what: bytes | None) -> bytes:
        """As the server sends it; None for the end."""
        _ = self.server.shutdown() if what is None else self.server.sendall(what)
        return self.taken(self.server)


def segments(octets: bytes, cuts: list[float]) -> list[bytes]:
    places = sorted({int(cut * len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(places)]


said = st.lists(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), min_size=1, max_size=5
)
cuts = st.lists(st.floats(0, 1), max_size=4)


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def check(version: int, turns: Any, cut: Any, *, ends: bool, speaks: bool) -> None:
    sides = [Side(SSL.Connection, version), Side(FrugalConnection, version)]
    seen: list[list[Any]] = []
    for side in sides:
        found: list[Any] = []
        for number, turn in enumerate(turns):
            octets = side.tickets if number == 0 else b""
            octets += b"".join([side.say(each) for each in turn])
            if ends and number == len(turns) - 1:
                octets += side.say(None)
            found += [side.read(segment) for segment in segments(octets, cut)]
            if speaks:
                found.append(side.client.send(b"RSET\r\n"))
                found.append(len(side.taken(side.client)))
                found.append(side.taken(side.client))
        found.append(
            b"".join(
                part
                for f in found
                if isinstance(f, list)
                for part in f[:-1]
                if isinstance(part, bytes)
            )
        )
        seen.append(found)
    assert seen[0] == seen[1]
    assert b"".join(each for turn in turns for each in turn) == seen[1][-1]


@given(said, cuts, st.booleans(), st.booleans())
def test_tls_1_2_is_read_as_openssl_reads_it(
    turns: Any, cut: Any, ends: bool, speaks: bool
) -> None:
    check(SSL.TLS1_2_VERSION, turns, cut, ends=ends, speaks=speaks)


@given(said, cuts, st.booleans(), st.booleans())
def test_tls_1_3_is_read_as_openssl_reads_it(
    turns: Any, cut: Any, ends: bool, speaks: bool
) -> None:
    check(SSL.TLS1_3_VERSION, turns, cut, ends=ends, speaks=speaks)


def asked_of_openssl(side: Side, octets: bytes) -> int:
    """How many calls of OpenSSL's reading and sending *octets* take."""
    calls = 0

    def profile(_: Any, event: str, called: Any) -> None:
        nonlocal calls
        calls += event == "c_call" and getattr(called, "__name__", "") in {"SSL_read", "BIO_read"}

    sys.setprofile(profile)
    try:
        _ = side.read(octets)
    finally:
        sys.setprofile(None)
    return calls


def test_a_reply_in_one_record_asks_openssl_once(version: int) -> None:
    plain, frugal = Side(SSL.Connection, version), Side(FrugalConnection, version)
    for side in (plain, frugal):
        _ = side.read(side.tickets + side.say(b"250 first\r\n"))
    assert 3 == asked_of_openssl(plain, plain.say(b"250 second\r\n"))
    assert 1 == asked_of_openssl(frugal, frugal.say(b"250 second\r\n"))


def test_the_end_of_the_octets_is_seen_behind_a_reply(version: int) -> None:
    for kind in (SSL.Connection, FrugalConnection):
        side = Side(kind, version)
        _ = side.read(side.tickets + side.say(b"250 first\r\n"))
        assert [b"250 second\r\n", False] == side.read(side.say(b"250 second\r\n"))
        side.client.bio_shutdown()
        assert ["SysCallError"] == side.received()


def test_what_is_to_be_said_at_the_end_is_sent(version: int) -> None:
    side = Side(FrugalConnection, version)
    _ = side.read(side.tickets + side.say(b"250 first\r\n"))
    _ = side.client.bio_write(side.say(b"250 second\r\n"))
    assert b"250 second\r\n" == side.client.recv(100)
    assert not side.client.shutdown()
    assert side.taken(side.client)


def test_octets_in_the_middle_of_a_record_are_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def recv(_: Any, size: int, _flags: Any = None) -> bytes:
        asked.append(size)
        raise SSL.WantReadError

    monkeypatch.setattr(SSL.Connection, "recv", recv)
    monkeypatch.setattr(SSL.Connection, "bio_write", lambda _, octets: len(octets))
    connection = FrugalConnection(SSL.Context(SSL.TLS_METHOD), None)

    def read(octets: bytes) -> int:
        _ = connection.bio_write(octets)
        with pytest.raises(SSL.WantReadError):
            _ = connection.recv(100)
        return asked.pop()

    looks_like_one = b"\x17\x03\x03\x00\x11" + 17 * b"."
    assert 100 == read(b"\x17\x03\x03\x00\x20" + 10 * b".")
    assert 100 == read(looks_like_one)
    assert len(looks_like_one) == read(looks_like_one)  # now it is one
    assert 100 == read(b"\x17\x03\x03")
    assert 100 == read(b"\x00\x16" + looks_like_one)
    assert len(looks_like_one) == read(looks_like_one)
