"""A RecordConnection gives what OpenSSL would give, with fewer calls of OpenSSL (RFC 8446 section 5.1)."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.client.certificates import good_context
from twisted_sendmail.client.tls_records import RecordConnection

VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]


class Side:
    """A client, read as Twisted's TLS protocol reads, and its server."""

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
                # Records after the handshake: in TLS 1.3 the tickets.
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
        """Return the results of reading *octets*, and whether there was something to send."""
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

    def send(self, data: bytes | None) -> bytes:
        """Return the records of the server for *data*; None for the end of the session."""
        _ = self.server.shutdown() if data is None else self.server.sendall(data)
        return self.taken(self.server)


def segments(octets: bytes, cuts: list[float]) -> list[bytes]:
    places = sorted({int(cut * len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(places)]


sent = st.lists(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), min_size=1, max_size=5
)
cuts = st.lists(st.floats(0, 1), max_size=4)


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def check(version: int, turns: Any, cut: Any, *, ends: bool, writes: bool) -> None:
    sides = [Side(SSL.Connection, version), Side(RecordConnection, version)]
    seen: list[list[Any]] = []
    for side in sides:
        found: list[Any] = []
        for number, turn in enumerate(turns):
            octets = side.tickets if number == 0 else b""
            octets += b"".join([side.send(each) for each in turn])
            if ends and number == len(turns) - 1:
                octets += side.send(None)
            found += [side.read(segment) for segment in segments(octets, cut)]
            if writes:
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


@given(sent, cuts, st.booleans(), st.booleans())
def test_tls_1_2_is_read_as_openssl_reads_it(
    turns: Any, cut: Any, ends: bool, writes: bool
) -> None:
    check(SSL.TLS1_2_VERSION, turns, cut, ends=ends, writes=writes)


@given(sent, cuts, st.booleans(), st.booleans())
def test_tls_1_3_is_read_as_openssl_reads_it(
    turns: Any, cut: Any, ends: bool, writes: bool
) -> None:
    check(SSL.TLS1_3_VERSION, turns, cut, ends=ends, writes=writes)


def calls_of_openssl(side: Side, octets: bytes) -> int:
    """Return how many calls of OpenSSL reading *octets* takes."""
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


def test_a_reply_in_one_record_calls_openssl_once(version: int) -> None:
    plain, ours = Side(SSL.Connection, version), Side(RecordConnection, version)
    for side in (plain, ours):
        _ = side.read(side.tickets + side.send(b"250 first\r\n"))
    assert 3 == calls_of_openssl(plain, plain.send(b"250 second\r\n"))
    assert 1 == calls_of_openssl(ours, ours.send(b"250 second\r\n"))


def test_the_end_of_the_octets_is_seen_after_a_reply(version: int) -> None:
    for kind in (SSL.Connection, RecordConnection):
        side = Side(kind, version)
        _ = side.read(side.tickets + side.send(b"250 first\r\n"))
        assert [b"250 second\r\n", False] == side.read(side.send(b"250 second\r\n"))
        side.client.bio_shutdown()
        assert ["SysCallError"] == side.received()


def test_the_close_alert_is_sent_after_a_reply(version: int) -> None:
    side = Side(RecordConnection, version)
    _ = side.read(side.tickets + side.send(b"250 first\r\n"))
    _ = side.client.bio_write(side.send(b"250 second\r\n"))
    assert b"250 second\r\n" == side.client.recv(100)
    assert not side.client.shutdown()
    assert side.taken(side.client)


def test_octets_in_the_middle_of_a_record_are_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decrypted: list[bytes] = []
    calls: list[int] = []

    def recv(_: Any, size: int, _flags: Any = None) -> bytes:
        calls.append(size)
        if not decrypted:
            raise SSL.WantReadError
        return decrypted.pop()

    monkeypatch.setattr(SSL.Connection, "recv", recv)
    monkeypatch.setattr(SSL.Connection, "bio_write", lambda _, octets: len(octets))
    connection = RecordConnection(SSL.Context(SSL.TLS_METHOD), None)

    def calls_to_read(octets: bytes) -> int:
        calls.clear()
        decrypted.append(b"250 OK\r\n")
        _ = connection.bio_write(octets)
        assert connection.recv(100) == b"250 OK\r\n"
        with pytest.raises(SSL.WantReadError):
            _ = connection.recv(100)
        return len(calls)

    record = b"\x17\x03\x03\x00\x11" + 17 * b"."
    assert calls_to_read(record) == 2  # of the handshake nothing was read yet
    assert calls_to_read(record) == 1
    assert calls_to_read(b"\x17\x03\x03\x00\x20" + 10 * b".") == 2
    assert calls_to_read(record) == 2  # the rest of the record before
    assert calls_to_read(record) == 1
    assert calls_to_read(record + record) == 2
    assert calls_to_read(record + b"\x17\x03\x03") == 2
    assert calls_to_read(b"\x00\x11" + 17 * b".") == 2
