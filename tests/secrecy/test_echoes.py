"""Servers that quote a secret in every place, and every output that could show it."""

from __future__ import annotations

import functools
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_sendmail import (
    Credentials,
    Mailer,
    RelaySettings,
    RouteSettings,
    SubmissionProtocol,
    SubmissionServer,
)

USER = "tester@example.org"
SECRETS = st.text("QZXJqzxj%+/=~\xe9\u20ac0789-_.", min_size=1, max_size=24)


def forms(secret: str) -> list[str]:
    """Ways to write a secret."""
    octets = secret.encode()
    return [
        secret,
        secret.upper() if secret.isascii() else secret,
        b64encode(octets).decode(),
        b64encode(octets).decode().rstrip("="),
        b64encode(b"\0" + USER.encode() + b"\0" + octets).decode(),
        octets.hex(),
        quote(secret, safe=""),
    ]


def settled(deferred: Deferred[Any]) -> str:
    """What came of it, as it would be shown."""
    seen: list[Any] = []
    _ = deferred.addBoth(seen.append)
    return "".join(
        str(each.value) + repr(each.value) + repr(vars(each.value))
        if isinstance(each, Failure)
        else f"{each} {each!r}"
        for each in seen
    )


@given(
    secret=SECRETS,
    form=st.integers(0, 6),
    where=st.integers(0, 4),
    reply=st.sampled_from(
        ["250 <'{}'>\r\n", "250-x\r\n250 <'{}'>\r\n", "550-<'{}'>\r\n550 x\r\n", "<'{}'>\r\n",
         "421 <'{}'>\r\n", "334 <'{}'>\r\n", "535 5.7.8 <'{}'>\r\n", "2<'{}'>"]
    ),
    cuts=st.lists(st.integers(1, 40), max_size=3),
)  # fmt: skip
def test_no_echo_is_shown(secret: str, form: int, where: int, reply: str, cuts: list[int]) -> None:
    """In reply to AUTH, to a second EHLO, to MAIL, to NOOP, or to nothing."""
    echo = forms(secret)[form]
    clock: Any = Clock()
    protocol = SubmissionProtocol(clock)
    transport: Any = StringTransport
    by_hand: Any = protocol
    by_hand.makeConnection(transport())
    shown = ""

    def heard(text: str) -> None:
        octets, start = text.encode(), 0
        for cut in sorted(cuts):
            protocol.dataReceived(octets[start:cut])
            start = max(start, cut)
        protocol.dataReceived(octets[start:])

    def written() -> None:
        # A command waits until the reactor has polled the transport.
        clock.pump([0, 0])

    shown += settled(protocol.greeting)
    protocol.dataReceived(b"220 mx\r\n")
    ehlo = protocol.ehlo("client.example.org")
    written()
    protocol.dataReceived(b"250-mx\r\n250 AUTH PLAIN\r\n")
    auth = protocol.auth("PLAIN", f"\0{USER}\0{secret}".encode())
    written()
    if where:
        protocol.dataReceived(b"235 ok\r\n")
    shown += settled(ehlo)
    then: Deferred[Any] | None = auth
    if where == 1:
        then = protocol.ehlo("client.example.org")
    elif where == 2:
        then = protocol.mail("a@example.org")
    elif where == 3:
        then = protocol.noop()
    elif where == 4:
        then = None
    written()
    heard(reply.format(echo))
    shown += "" if then is None else settled(then)
    shown += "" if auth is then else settled(auth)
    shown += f"{protocol.session.transcript}\n{protocol.session.over}"

    assert f"<'{echo}'>" not in shown


SECRET = "kein-Wort-davon-42"


def things() -> list[object]:
    """All that holds a secret and may be printed."""
    server = SubmissionServer.from_url(f"smtps://u:{SECRET}@localhost")
    return [
        Credentials("u", SECRET),
        Credentials("u", token=SECRET),
        Credentials("u", functools.partial(str, SECRET)),
        server,
        Mailer(Clock(), server),
        RouteSettings("r", (server,), ("*",)),
        RelaySettings("relay.example.org", (RouteSettings("r", (server,), ("*",)),)),
    ]


@pytest.mark.parametrize("number", range(7))
def test_no_repr_shows_a_secret(number: int) -> None:
    thing = things()[number]

    assert SECRET not in f"{thing!r} {thing} {thing.__dict__ if hasattr(thing, '__dict__') else ''}"


def test_no_frame_of_ours_shows_a_password_that_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="line break") as caught:
        Credentials("u", f"{SECRET}\n")
    failure = Failure(caught.value, ValueError, caught.value.__traceback__, captureVars=True)
    ours = [frame for frame in failure.frames if Path(__file__).name not in frame[1]]

    assert SECRET not in repr([[value for _, value in frame[3]] for frame in ours])
