"""`/healthz` of a relay process in each of its states."""

from __future__ import annotations

import signal
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.ports import free_port, free_ports
from tests.scenarios.relay_process import PASSWORD, Relay, submit
from twisted_sendmail.testing import LoopbackServer, faults


def ask(port: int, path: str = "/healthz") -> tuple[int, str]:
    """Status and text; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode().strip()
    except OSError:
        return 0, ""


class Watched:
    """A relay process that shows its health."""

    def __init__(self, relay: Relay, hop_port: int, ca_file: str, user: str = "jane") -> None:
        self.relay = relay
        self.port, self.admin = free_ports(2)
        relay.start(
            *("--listen", f"tcp:127.0.0.1:{self.port}", "--queue", "queue"),
            *("--smarthost", f"smtp+starttls://{user}@127.0.0.1:{hop_port}"),
            *("--password-file", "password", "--ca-file", ca_file),
            *("--admin", f"tcp:127.0.0.1:{self.admin}"),
        )

    @property
    def health(self) -> tuple[int, str]:
        return ask(self.admin)

    def until(self, status: int) -> str:
        """Wait until it answers with *status*; what it says then."""
        self.relay.wait(lambda: self.health[0] == status)
        return self.health[1]


async def off(call: Any, *arguments: Any) -> Any:
    return await deferToThread(call, *arguments)


@ensureDeferred
async def test_a_relay_that_works_is_well_and_after_its_end_nobody_answers(
    relay: Relay, hop: LoopbackServer
) -> None:
    def case() -> None:
        watched = Watched(relay, hop.port, hop.ca_file)
        relay.up()
        assert watched.health == (200, "ok")
        submit(watched.port)
        relay.wait(lambda: "status=sent" in relay.said)
        assert watched.health == (200, "ok")
        assert relay.end() == -signal.SIGTERM
        assert watched.health[0] == 0

    await off(case)


@pytest.mark.parametrize("trouble", ["nobody listens", "wrong password"])
@ensureDeferred
async def test_a_next_hop_that_takes_nothing_is_no_illness_of_the_relay(
    relay: Relay, hop: LoopbackServer, trouble: str
) -> None:
    """Mail waits in the queue: a restart of the relay would not help."""

    def case() -> None:
        port = free_port() if trouble == "nobody listens" else hop.port
        user = "jane" if trouble == "nobody listens" else "john"
        watched = Watched(relay, port, hop.ca_file, user)
        relay.up()
        submit(watched.port)
        relay.wait(lambda: "status=deferred" in relay.said)
        assert watched.health == (200, "ok")
        relay.end()

    await off(case)


@ensureDeferred
async def test_a_queue_that_somebody_else_holds_is_an_illness_that_ends_with_it(
    relay: Relay, hop: LoopbackServer
) -> None:
    def case() -> None:
        watched = Watched(relay, hop.port, hop.ca_file)
        relay.up()
        assert watched.health == (200, "ok")
        database = next(relay.queue.glob("*.sqlite3"))
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            said = watched.until(503)
            assert said.startswith("the queue ")
            assert said.isprintable()
            other.execute("ROLLBACK")
        assert watched.until(200) == "ok"
        submit(watched.port)
        relay.wait(lambda: "status=sent" in relay.said)
        relay.end()

    await off(case)


@ensureDeferred
async def test_a_relay_that_stops_answers_503_until_its_end(reactor: Any, relay: Relay) -> None:
    """SIGTERM, while a message is on its way: the process waits for that."""
    stalled = [faults.stall("dot")]
    async with LoopbackServer(reactor, users={"jane": PASSWORD}, faults=stalled) as hop:

        def case() -> None:
            watched = Watched(relay, hop.port, hop.ca_file)
            relay.up()
            submit(watched.port)
            relay.wait(
                lambda: any(
                    line.startswith(("C: BDAT", "C: DATA"))
                    for session in hop.sessions
                    for line in session.dialogue
                )
            )
            assert watched.health == (200, "ok")
            relay.signal(signal.SIGTERM)
            # The message under way is waited for; nothing more is taken out of the queue.
            assert watched.until(503) == "the relay is stopping"
            assert watched.health == (503, "the relay is stopping")
            relay.kill()
            assert watched.health[0] == 0

        await off(case)
