"""OpenSSL verifies a certificate by the callback of the connection, or accepts none."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.client.certificates import NAME, authority, good_context
from twisted_sendmail import TLSTrust
from twisted_sendmail.client.tls import VerifiedConnection


@pytest.fixture
def context(tmp_path: Path) -> SSL.Context:
    return TLSTrust(ca_file=authority().write(tmp_path / "ca.pem")).context()


def shake_hands(client: SSL.Connection) -> None:
    """Until it is done.

    :raises SSL.Error: one of the two does not want it.
    """
    server = SSL.Connection(good_context(), None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            done = 0
            try:
                one.do_handshake()
                done += 1
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                done += 1
            if done == 2:
                return


def test_each_connection_of_a_context_verifies_by_its_own_callback(context: SSL.Context) -> None:
    asked: list[tuple[str, int]] = []

    def callback(name: str, *, verdict: bool) -> Any:
        def said(_cert: Any, _error: int, depth: int, _ok: int) -> bool:
            asked.append((name, depth))
            return verdict

        return said

    yes = VerifiedConnection(context, callback("yes", verdict=True))
    no = VerifiedConnection(context, callback("no", verdict=False))
    shake_hands(yes)
    assert set(asked) == {("yes", 0), ("yes", 1)}
    asked.clear()
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shake_hands(no)
    assert {name for name, _ in asked} == {"no"}


def test_a_connection_without_a_callback_accepts_no_certificate(context: SSL.Context) -> None:
    """Not even one that OpenSSL accepts."""
    plain = SSL.Connection(context, None)
    plain.set_tlsext_host_name(NAME.encode())
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        shake_hands(plain)


def test_a_connection_does_not_keep_itself(context: SSL.Context) -> None:
    connection = VerifiedConnection(context, lambda *_: True)
    seen = weakref.ref(connection)
    enabled = gc.isenabled()
    gc.disable()
    try:
        shake_hands(connection)
        del connection
        assert seen() is None
    finally:
        if enabled:
            gc.enable()
