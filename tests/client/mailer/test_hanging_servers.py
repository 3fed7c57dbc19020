"""Connections that hang delay neither the other mail nor the end of the mailer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_sendmail import (
    Cancelled,
    ConnectFailed,
    Credentials,
    Envelope,
    Mailer,
    MailerClosed,
    MailerService,
    PoolLimits,
    SendTimeout,
    SubmissionServer,
    Timeouts,
    TLSPolicy,
    TLSTrust,
    many,
    submit,
)
from twisted_sendmail.testing import MemoryServer, faults

MESSAGE = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: x\r\n\r\nx\r\n"
ENVELOPE = Envelope("alice@example.org", "bob@example.net")


@implementer(IStreamClientEndpoint)
class Network:
    """Connections to one server: each hangs, is refused or gets through, in order.

    :param script: what becomes of each connection; a number is the seconds after which it gets
        through. The last entry counts for all later ones.
    """

    def __init__(self, server: MemoryServer, *script: str | float) -> None:
        self._server = server
        self._script = list(script)
        #: When each attempt began.
        self.times: list[float] = []
        #: Attempts that hang, and the most of them at once.
        self.hanging = self.most = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        entry = self._script[min(len(self.times), len(self._script) - 1)]
        self.times.append(self._server.clock.seconds())
        if entry == "serves":
            return self._server.endpoint.connect(factory)
        if not isinstance(entry, str):
            return deferLater(self._server.clock, entry, self._server.endpoint.connect, factory)
        if entry == "refuses":
            refused: Deferred[Any] = Deferred()
            failure = Failure(Refused())  # type: ignore[no-untyped-call]  # Twisted's
            _ = self._server.clock.callLater(0.1, refused.errback, failure)
            return refused
        self.hanging += 1
        self.most = max(self.most, self.hanging)

        def gone(_: object) -> None:
            self.hanging -= 1

        return Deferred(gone)


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with MemoryServer(users={"jane": "secret"}) as made:
        yield made


def way(
    server: MemoryServer, endpoint: IStreamClientEndpoint | None = None, **options: Any
) -> SubmissionServer:
    options.setdefault("tls", TLSPolicy.STARTTLS)
    return SubmissionServer(
        "localhost",
        trust=TLSTrust(ca_file=server.ca_file),
        credentials=Credentials("jane", "secret"),
        endpoint=endpoint or server.endpoint,
        **options,
    )


def mailer_over(server: MemoryServer, *ways: SubmissionServer, **limits: Any) -> Mailer:
    return Mailer(server.clock, ways, limits=PoolLimits(**limits))


def results_of(*given: Deferred[Any]) -> list[Any]:
    """What each of *given* fires with, once it does; it must not do so twice."""
    results: list[Any] = []
    for each in given:
        _ = each.addBoth(results.append)
    return results


def start(mailer: Mailer, count: int) -> list[Any]:
    return results_of(*[mailer.send(MESSAGE, envelope=ENVELOPE) for _ in range(count)])


def errors(results: list[Any]) -> set[type[BaseException]]:
    return {type(result.value) for result in results}


def state(mailer: Mailer) -> tuple[int, int, int, int]:
    stats = mailer.stats()
    return stats.idle, stats.leased, stats.opening, stats.waiting


# -- mail does not stop ------------------------------------------------------------------


def test_mail_flows_though_the_first_connection_hangs(server: MemoryServer) -> None:
    network = Network(server, "hangs", "serves")
    mailer = mailer_over(server, way(server, network))
    results = start(mailer, 20)
    server.advance(10)
    assert 20 == len(server.messages) == len(results)
    assert network.hanging == 0
    assert mailer.stats().opening == 0


@pytest.mark.parametrize("moment", ["greeting", "EHLO", "STARTTLS", "AUTH"])
@pytest.mark.parametrize("connections", [1, 4])
def test_mail_flows_though_the_first_connection_hangs_before_it_is_ready(
    moment: str, connections: int
) -> None:
    with MemoryServer(users={"jane": "secret"}, faults=[faults.stall(moment, nth=1)]) as server:
        mailer = mailer_over(server, way(server), connections=connections)
        results = start(mailer, 5)
        server.advance(10)
        assert 5 == len(server.messages) == len(results)
        assert server.sessions[0].closed


def test_no_second_connection_is_tried_while_the_first_is_in_time(server: MemoryServer) -> None:
    network = Network(server, "hangs")
    mailer = mailer_over(server, way(server, network))
    _ = start(mailer, 50)
    server.advance(2)
    assert network.times == [0]
    _ = mailer.aclose(grace=0.001)
    server.advance(1)


def test_at_most_three_connections_open_at_once_while_a_server_hangs(
    server: MemoryServer,
) -> None:
    network = Network(server, "hangs")
    timeouts = Timeouts(connect=300)
    mailer = mailer_over(server, way(server, network, timeouts=timeouts), connections=50)
    results = start(mailer, 1000)
    for _ in range(590):
        server.advance(1)
        assert network.hanging == mailer.stats().opening
    assert network.most == 3
    # Each wait is longer than the one before.
    first = network.times[:5]
    waits = [later - earlier for earlier, later in itertools.pairwise(first)]
    assert sorted(waits) == waits
    assert min(waits) > 1
    assert len(network.times) <= 8
    assert {SendTimeout} == errors(results)
    assert len(results) == 1000


def test_a_server_that_hung_for_a_minute_is_found_again_soon(server: MemoryServer) -> None:
    """Connections that began to hang meanwhile are not waited for."""
    network = Network(server, "hangs", "hangs", "hangs", "hangs", "serves")
    mailer = mailer_over(server, way(server, network, timeouts=Timeouts(connect=300)))
    results = start(mailer, 10)
    server.advance(120)
    assert 10 == len(server.messages) == len(results)
    assert network.hanging == 0


def test_a_server_that_refuses_is_asked_once_for_all_that_wait(server: MemoryServer) -> None:
    network = Network(server, "refuses")
    mailer = mailer_over(server, way(server, network), connections=50)
    results = start(mailer, 1000)
    server.advance(60)
    assert ({ConnectFailed}, 1000, [0]) == (errors(results), len(results), network.times)
    network.times.clear()
    sending = results_of(mailer.send_many([(ENVELOPE, MESSAGE)] * 500, complete=False).deferred())
    server.advance(60)
    assert len(sending[0]) == 500
    assert len(network.times) < 500 / 10


def test_an_endpoint_that_raises_is_asked_once_for_all_that_wait(server: MemoryServer) -> None:
    @implementer(IStreamClientEndpoint)
    class Broken:
        attempts = 0

        def connect(self, factory: Any) -> Deferred[Any]:
            self.attempts += 1
            raise RuntimeError(self.attempts)

    broken = Broken()
    mailer = mailer_over(server, way(server, broken))
    sending = results_of(mailer.send_many([(ENVELOPE, MESSAGE)] * 50, complete=False).deferred())
    server.advance(60)
    assert len(sending[0]) == 50
    assert {ConnectFailed} == {type(report.error) for report in sending[0]}
    assert broken.attempts < 10


def test_the_refusal_of_a_newer_connection_is_told_at_once(server: MemoryServer) -> None:
    network = Network(server, "hangs", "refuses")
    mailer = mailer_over(server, way(server, network, timeouts=Timeouts(connect=300)))
    results = start(mailer, 10)
    server.advance(10)
    assert {ConnectFailed} == errors(results)
    assert (len(results), network.hanging) == (10, 0)


def test_a_password_refused_to_a_newer_connection_is_not_tried_by_the_older(
    server: MemoryServer,
) -> None:
    scripted = [faults.stall("EHLO", nth=1), faults.refuse("AUTH", "535 5.7.8 no")]
    with MemoryServer(users={"jane": "secret"}, faults=scripted) as refusing:
        mailer = mailer_over(refusing, way(refusing))
        results = start(mailer, 10)
        refusing.advance(300)
        assert len(results) == 10
        logins = [line for s in refusing.sessions for line in s.dialogue if "C: AUTH" in line]
        assert len(logins) == 1
        assert all(session.closed for session in refusing.sessions)


def test_a_slow_server_gets_its_time(server: MemoryServer) -> None:
    """Each connection takes 40 s to open: the mail goes out, over several connections."""

    @implementer(IStreamClientEndpoint)
    class Slow:
        times: list[float] = []  # noqa: RUF012 - one test, one endpoint

        def connect(self, factory: Any) -> Deferred[Any]:
            self.times.append(server.clock.seconds())
            ready: Deferred[Any] = Deferred(lambda _: call.cancel())

            def connected() -> None:
                _ = server.endpoint.connect(factory).chainDeferred(ready)

            call = server.clock.callLater(40, connected)
            return ready

    for connections in (1, 4):
        slow = Slow()
        server.clear()
        way_there = way(server, slow, timeouts=Timeouts(connect=300))
        mailer = mailer_over(server, way_there, connections=connections)
        results = start(mailer, 10)
        for _ in range(200):
            server.advance(1)
        assert 10 == len(results) == len(server.messages)


def test_the_next_server_is_tried_when_the_first_hangs(server: MemoryServer) -> None:
    hanging = Network(server, "hangs")
    serving = Network(server, "serves")
    mailer = mailer_over(server, way(server, hanging), way(server, serving))
    results = start(mailer, 20)
    server.advance(2)
    assert serving.times == []
    server.advance(8)
    assert 20 == len(results) == len(server.messages)
    assert (len(hanging.times), hanging.hanging) == (1, 0)
    # It is passed over for a while.
    more = start(mailer, 20)
    server.advance(1)
    assert (len(more), len(hanging.times)) == (20, 1)


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_with_two_servers_that_hang_each_has_three_connections_at_most(
    server: MemoryServer, connections: int
) -> None:
    networks = [Network(server, "hangs"), Network(server, "hangs")]
    ways = [way(server, each, timeouts=Timeouts(connect=300)) for each in networks]
    mailer = mailer_over(server, *ways, connections=connections)
    results = start(mailer, 1000)
    for _ in range(700):
        server.advance(1)
        assert sum(each.hanging for each in networks) <= connections
    assert all(each.most <= 3 and each.times for each in networks)
    assert sum(len(each.times) for each in networks) < 30
    assert len(results) == 1000
    closed = results_of(mailer.aclose())
    server.advance(0)
    assert (closed, sum(each.hanging for each in networks)) == ([None], 0)


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_a_connection_that_is_replaced_is_gone_before_the_new_one_is_opened(
    connections: int,
) -> None:
    """Also where it takes a moment to be gone, as a socket does."""
    with MemoryServer(users={"jane": "secret"}, faults=[faults.stall("greeting")]) as server:
        patient = Timeouts(greeting=300)
        ways = [way(server, timeouts=patient), way(server, timeouts=patient)]
        mailer = mailer_over(server, *ways, connections=connections)
        results = start(mailer, 1000)
        for _ in range(700):
            server.advance(1)
            there = sum(not session.closed for session in server.sessions)
            assert there == mailer.stats().opening <= connections
        assert 2 < len(server.sessions) < 30
        assert ({SendTimeout}, 1000) == (errors(results), len(results))
        closed = results_of(mailer.aclose())
        server.advance(0)
        assert closed == [None]


def test_connections_that_serve_go_on_when_others_hang(server: MemoryServer) -> None:
    """The others are dropped soon, and not tried again for half a minute."""
    network = Network(server, "serves", "hangs")
    mailer = mailer_over(server, way(server, network), connections=4, window=1, idle=300)
    results = start(mailer, 100)
    server.advance(1)
    assert len(results) == 100
    assert len(network.times) == 4
    server.advance(20)
    assert (len(network.times), network.hanging) == (4, 0)
    assert state(mailer) == (1, 0, 0, 0)


def test_warming_up_gets_past_a_connection_that_hangs(server: MemoryServer) -> None:
    network = Network(server, "hangs", "serves")
    mailer = mailer_over(server, way(server, network))
    results = results_of(mailer.connect(3))
    server.advance(10)
    assert results == [None]
    assert state(mailer) == (3, 0, 0, 0)


def test_any_number_of_connections_that_hang_are_replaced_at_once(server: MemoryServer) -> None:
    """All are overdue when the last connection is ready, which shows that the server serves."""
    network = Network(server, "serves", *["hangs"] * 300, 7.0, "serves")
    in_clear = SubmissionServer(
        "localhost", tls=TLSPolicy.NONE, endpoint=network, timeouts=Timeouts(connect=300)
    )
    mailer = mailer_over(server, in_clear, connections=302)
    results = results_of(mailer.connect(302))
    server.advance(8)
    assert results == [None]
    assert (state(mailer), network.hanging, len(network.times)) == ((302, 0, 0, 0), 0, 602)


def test_a_connection_is_not_overdue_within_twice_the_time_of_another(server: MemoryServer) -> None:
    """As where a busy machine opens many at once: a new one would take longer still."""
    network = Network(server, "serves", 5.0, 9.5)
    mailer = mailer_over(server, way(server, network), connections=3)
    results = results_of(mailer.connect(3))
    server.advance(10)
    assert (results, len(network.times)) == ([None], 3)


def test_connections_that_are_ready_stay_until_as_many_are_as_asked_for(
    server: MemoryServer,
) -> None:
    network = Network(server, "serves", 5.0)
    mailer = mailer_over(server, way(server, network), connections=3, idle=2)
    results = results_of(mailer.connect(3))
    server.advance(5.5)
    assert (results, len(network.times)) == ([None], 3)
    server.advance(1.4)
    assert state(mailer) == (3, 0, 0, 0)
    server.advance(0.2)
    assert state(mailer) == (0, 0, 0, 0)


# -- closing does not wait ---------------------------------------------------------------


MOMENTS = ["connect", "greeting", "EHLO", "STARTTLS", "AUTH", "TLS"]


def hung(moment: str) -> tuple[MemoryServer, SubmissionServer]:
    """A server, and a way to it that hangs at *moment*."""
    scripted = []
    if moment != "connect":
        scripted = [faults.stall("greeting" if moment == "TLS" else moment)]
    server = MemoryServer(users={"jane": "secret"}, faults=scripted).__enter__()
    if moment == "connect":
        return server, way(server, Network(server, "hangs"))
    if moment == "TLS":
        # Nothing answers to the handshake.
        return server, way(server, tls=TLSPolicy.IMPLICIT)
    return server, way(server)


@pytest.mark.parametrize("moment", MOMENTS)
def test_closing_drops_a_connection_that_is_opening_for_nobody(moment: str) -> None:
    """As after a message that failed, or was cancelled."""
    server, there = hung(moment)
    mailer = mailer_over(server, there)
    sending = mailer.send(MESSAGE, envelope=ENVELOPE)
    results = results_of(sending)
    server.advance(1)
    assert mailer.stats().opening == 1
    sending.cancel()
    assert {Cancelled} == errors(results)
    began = server.clock.seconds()
    closed = results_of(mailer.aclose())
    server.advance(0)
    assert ([None], began) == (closed, server.clock.seconds())
    assert state(mailer) == (0, 0, 0, 0)
    server.advance(0.1)
    assert all(session.closed for session in server.sessions)
    server.__exit__(None, None, None)


@pytest.mark.parametrize("moment", MOMENTS)
def test_closing_drops_connections_that_are_warmed_up(moment: str) -> None:
    server, there = hung(moment)
    mailer = mailer_over(server, there)
    warming = results_of(mailer.connect(2))
    server.advance(1)
    closed = results_of(mailer.aclose())
    server.advance(0)
    assert closed == [None]
    assert {MailerClosed} == errors(warming)
    assert len(warming) == 1
    server.__exit__(None, None, None)


@pytest.mark.parametrize("moment", MOMENTS)
def test_closing_without_those_that_wait_is_done_at_once(moment: str) -> None:
    server, there = hung(moment)
    service = MailerService(server.clock, there, send_waiting=False)
    service.startService()
    results = start(service.mailer, 3)
    server.advance(10)
    stopped = results_of(service.stopService())
    server.advance(0)
    assert stopped == [None]
    assert ({MailerClosed}, 3) == (errors(results), len(results))
    server.__exit__(None, None, None)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("connections", [1, 4])
def test_closing_does_not_wait_for_a_server_that_hangs(moment: str, connections: int) -> None:
    """Its connections are overdue: the messages that wait for them fail at once."""
    server, there = hung(moment)
    mailer = mailer_over(server, there, connections=connections)
    results = start(mailer, 3)
    server.advance(25)
    closed = results_of(mailer.aclose(grace=None))
    server.advance(0)
    assert (closed, server.clock.seconds()) == ([None], 25)
    assert ({MailerClosed}, 3) == (errors(results), len(results))
    assert state(mailer) == (0, 0, 0, 0)
    server.__exit__(None, None, None)


def test_closing_gives_a_connection_the_time_to_become_ready(server: MemoryServer) -> None:
    """But no second one, and no longer."""
    network = Network(server, "hangs")
    mailer = mailer_over(server, way(server, network))
    results = start(mailer, 3)
    closed = results_of(mailer.aclose())
    server.advance(5)
    assert (closed, results) == ([], [])
    server.advance(2)
    assert closed == [None]
    assert ({MailerClosed}, 3, [0]) == (errors(results), len(results), network.times)


def test_closing_sends_the_messages_over_the_next_server(server: MemoryServer) -> None:
    """The first one hangs."""
    hanging, serving = Network(server, "hangs"), Network(server, "serves")
    mailer = mailer_over(server, way(server, hanging), way(server, serving))
    results = start(mailer, 20)
    closed = results_of(mailer.aclose())
    server.advance(10)
    assert closed == [None]
    assert 20 == len(results) == len(server.messages)
    assert (hanging.times, hanging.hanging) == ([0], 0)


def test_closing_does_not_wait_for_those_that_hang_while_others_serve(
    server: MemoryServer,
) -> None:
    network = Network(server, "serves", "hangs")
    mailer = mailer_over(server, way(server, network), window=1)
    results = start(mailer, 20)
    server.advance(20)
    closed = results_of(mailer.aclose(grace=None))
    server.advance(0)
    assert (closed, len(results)) == ([None], 20)


def test_closing_sends_those_that_wait_and_then_drops_what_still_opens(
    server: MemoryServer,
) -> None:
    network = Network(server, "serves", "hangs")
    mailer = mailer_over(server, way(server, network), window=1)
    results = start(mailer, 20)
    closed = results_of(mailer.aclose())
    server.advance(5)
    assert closed == [None]
    assert 20 == len(results) == len(server.messages)
    assert network.hanging == 0


def test_a_message_under_way_is_waited_for_when_those_that_wait_are_not() -> None:
    with MemoryServer(users={"jane": "secret"}, faults=[faults.stall("dot", nth=1)]) as server:
        mailer = mailer_over(server, way(server), connections=1, window=1)
        results = start(mailer, 3)
        server.advance(1)
        assert state(mailer) == (0, 1, 0, 2)
        closed = results_of(mailer.aclose(grace=20, send_waiting=False))
        server.advance(0)
        assert ({MailerClosed}, 2) == (errors(results), len(results))
        server.advance(19)
        assert closed == []
        server.advance(2)
        assert (closed, len(results)) == ([None], 3)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("send", ["submit", "many"])
def test_cancelling_a_single_message_drops_a_connection_that_is_opening(
    moment: str, send: str
) -> None:
    server, there = hung(moment)
    sending: Deferred[Any] = (
        submit(server.clock, there, MESSAGE, envelope=ENVELOPE)
        if send == "submit"
        else many(server.clock, there, [(ENVELOPE, MESSAGE)])
    )
    results = results_of(sending)
    server.advance(1)
    sending.cancel()
    server.advance(0)
    assert ({Cancelled}, 1) == (errors(results), len(results))
    assert all(session.closed for session in server.sessions)
    server.__exit__(None, None, None)
