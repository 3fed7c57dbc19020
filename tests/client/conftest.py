"""A network in memory, and a check of everything that is logged."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.client.certificates import NAME, authority
from tests.client.scripted_server import PASSWORD, USER, ScriptedServer, flights_of
from tests.deferreds import Result
from twisted_sendmail import Credentials, SubmissionServer, TLSPolicy, TLSTrust, many, sendmail
from twisted_sendmail.testing import MemoryEndpoint, MemoryNetwork

BODY = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nhello\r\n"


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    """All that Twisted logged; a failure without an errback fails the test."""
    events: list[LogEvent] = []
    keep: Any = events.append
    globalLogPublisher.addObserver(keep)
    # What is there already need not be looked at again: it makes collecting cheap.
    gc.freeze()
    yield
    # A Deferred that failed without an errback is logged when it is collected.
    gc.collect()
    globalLogPublisher.removeObserver(keep)
    bad = [e for e in events if e.get("log_level", LogLevel.info) >= LogLevel.error]
    shown = [formatEvent(e) + str(e.get("log_failure", "")) for e in bad]
    assert shown == []
    for event in events:
        text = formatEvent(event) + repr(event)
        for secret in secrets():
            assert secret not in text


def secrets() -> list[str]:
    """The password in every form that it may not be seen in."""
    from base64 import b64encode

    return [
        PASSWORD,
        b64encode(PASSWORD.encode()).decode(),
        b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode(),
    ]


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The throw-away CA."""
    return authority().write(tmp_path_factory.mktemp("ca") / "ca.pem")


def report_of(caught: Any) -> Any:
    """The report of an error that was caught; it has to be there."""
    assert caught.value.report is not None
    return caught.value.report


class Net:
    """A client, its servers, the network between them."""

    def __init__(self, ca_file: Path) -> None:
        self.pump = MemoryNetwork()
        self.clock = self.pump.clock
        self.trust = TLSTrust(ca_file=ca_file)
        self.endpoint: Any = None
        self.watched: list[str] = []

    def server(self, answers: Any = None, **settings: Any) -> ScriptedServer:
        return ScriptedServer(answers, clock=self.clock, **settings)

    @property
    def link(self) -> Any:
        """The last connection."""
        return self.endpoint.links[-1]

    @property
    def flights(self) -> list[list[str]]:
        """What the client said, flight by flight; a flight of TLS alone is empty."""
        found = flights_of(self.link)
        # Behind QUIT there is only the end of TLS.
        while found and not found[-1]:
            found.pop()
        return found

    def settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "server_name": NAME,
            "tls": TLSPolicy.STARTTLS,
            "trust": self.trust,
            "credentials": Credentials(USER, PASSWORD),
            "helo_name": "client.example.org",
            "watch": self.watched.append,
            **changes,
        }

    def start(self, *servers: Any, message: Any = BODY, **changes: Any) -> Result:
        """Begin to send *message* with ``sendmail``; nothing has moved yet."""
        self.endpoint = servers[0] if hasattr(servers[0], "connect") else None
        if self.endpoint is None:
            self.endpoint = MemoryEndpoint(self.pump, *servers)
        given: dict[str, Any] = {
            "sender": "a@example.org",
            "recipients": ["b@example.net"],
            "complete": False,
        }
        given.update(self.settings(**changes))
        if "envelope" in given:
            del given["sender"], given["recipients"]
        return Result(sendmail(self.endpoint, message, reactor=self.clock, **given))

    def send(self, *servers: Any, **changes: Any) -> Result:
        """Send, and let everything move until it rests; the result need not be there yet."""
        result = self.start(*servers, **changes)
        self.pump.run()
        return result

    def start_many(self, messages: Any, *servers: Any, **changes: Any) -> Result:
        self.endpoint = MemoryEndpoint(self.pump, *servers)
        arguments = {"all_or_nothing": changes.pop("all_or_nothing", False)}
        given = self.settings(**changes)
        host = given.pop("server_name")
        server = SubmissionServer(host, endpoint=self.endpoint, **given)
        return Result(many(self.clock, server, messages, complete=False, **arguments))

    def many(self, messages: Any, *servers: Any, **changes: Any) -> Result:
        result = self.start_many(messages, *servers, **changes)
        self.pump.run()
        return result


@pytest.fixture
def net(ca_file: Path) -> Iterator[Net]:
    """A network; at the end no connection is left open and no timer runs."""
    made = Net(ca_file)
    yield made
    made.pump.run()
    assert [str(call) for call in made.clock.getDelayedCalls()] == []
    assert all(link.over for link in made.pump.links)


NetFactory = Callable[[], Net]
