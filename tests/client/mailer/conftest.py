"""A mailer on a network in memory, and a clock that is wound by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.client.conftest import Net, ca_file, logged, net
from tests.client.mailer.postbox import World
from tests.deferreds import Result
from twisted_sendmail import (
    DeliveryReport,
    Envelope,
    Mailer,
    PoolLimits,
    RecipientStatus,
    SubmissionServer,
    TLSPolicy,
)
from twisted_sendmail.testing import MemoryEndpoint

__all__ = ["ca_file", "logged", "net"]

SENDER = "alice@example.org"


def a_message(
    name: object,
    to: str | list[str] = "bob@example.net",
    *,
    sender: str = SENDER,
    fields: str = "",
    size: int = 0,
) -> tuple[Envelope, bytes]:
    """A message whose subject is *name*."""
    head = f"From: {SENDER}\r\nTo: b@example.net\r\nSubject: {name}\r\n{fields}\r\n"
    return Envelope(sender, to), head.encode() + b"." * min(size, 1) + b"x" * size + b"\r\n"


def statuses(report: DeliveryReport | None) -> list[RecipientStatus]:
    assert report is not None
    return [outcome.status for outcome in report.outcomes]


class Post:
    """A mailer, its servers, the network between them."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.pump, self.clock = net.pump, net.clock
        self.world = World(net.clock)
        self.mailers: list[Mailer] = []
        self.endpoint: Any = None
        #: Flights of the first connection that a test does not look at.
        self.before = 0
        #: Flights of the first connection that a test does not look at.
        self.before = 0

    def place(self, *servers: Any, **settings: Any) -> SubmissionServer:
        """Where *servers* answer, one a connection, the last one for good; in clear by default."""
        self.endpoint = MemoryEndpoint(self.pump, *(servers or [self.world.server()]))
        given = {"tls": TLSPolicy.NONE, "credentials": None, **settings}
        given = self.net.settings(**given)
        name = given.pop("server_name")
        return SubmissionServer(name, endpoint=self.endpoint, **given)

    def mailer(self, *servers: Any, settings: Any = None, **limits: Any) -> Mailer:
        """A mailer to one place, or to several if *servers* are such."""
        places = (
            list(servers)
            if servers and isinstance(servers[0], SubmissionServer)
            else [self.place(*servers, **(settings or {}))]
        )
        made = Mailer(self.clock, places, limits=PoolLimits(**limits))
        self.mailers.append(made)
        return made

    def start(self, mailer: Mailer, *messages: tuple[Envelope, bytes], **how: Any) -> list[Result]:
        """Begin to send each; nothing has moved yet."""
        return [
            Result(mailer.send(content, envelope=envelope, complete=False, **how))
            for envelope, content in messages
        ]

    def send(self, mailer: Mailer, *messages: tuple[Envelope, bytes], **how: Any) -> list[Result]:
        """Send each at the same time, and let everything move until it rests."""
        results = self.start(mailer, *messages, **how)
        self.pump.run()
        return results

    def many(self, mailer: Mailer, messages: Any, **how: Any) -> Result:
        """Send with ``send_many``, and let everything move until it rests."""
        result = Result(mailer.send_many(messages, complete=False, **how).deferred())
        self.pump.run()
        return result

    def close(self, mailer: Mailer, **how: Any) -> Result:
        result = Result(mailer.aclose(**how))
        self.pump.run()
        return result


@pytest.fixture
def post(net: Net) -> Iterator[Post]:
    """A network for mailers; at the end each is closed, and nothing is left of it."""
    made = Post(net)
    yield made
    for mailer in made.mailers:
        result = Result(mailer.aclose(grace=0.001))
        made.pump.advance(10)
        assert result.fired == 1
        stats = mailer.stats()
        assert (stats.idle, stats.leased, stats.opening, stats.waiting) == (0, 0, 0, 0)
        # The close comes twice in many tests; the second has nothing to do.
    assert made.world.open == 0
