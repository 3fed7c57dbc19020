"""The server protocol in memory: TLS, AUTH, receivers, back-pressure, deadlines."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.server.conftest import Client, Net, Raw
from twisted_sendmail.server import ConnectionInfo, Receiver, ServerTimeouts
from twisted_sendmail.smtp import Reply, ServerSettings
from twisted_sendmail.testing.memory_network import FULL

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"
ENVELOPE = "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
PLAIN = "AUTH PLAIN " + b64encode(b"\0jane\0s3cret").decode()
WRONG = "AUTH PLAIN " + b64encode(b"\0jane\0wrong").decode()


class Slow(Receiver):
    """Answers when the test says so; notes what it was asked."""

    def __init__(self, connection: ConnectionInfo, waits: str = "") -> None:
        super().__init__(connection)
        self.waits = waits
        self.asked: list[str] = []
        self.pending: Deferred[Any] = Deferred()
        self.content = b""

    def _answer(self, what: str) -> Any:
        self.asked.append(what)
        return self.pending if what == self.waits else None

    def sender(self, *_: Any) -> Any:
        return self._answer("sender")

    def recipient(self, *_: Any) -> Any:
        return self._answer("recipient")

    def write(self, data: bytes) -> Any:
        self.content += data
        return self._answer("write")

    def commit(self) -> Any:
        return self._answer("commit")

    def abort(self) -> Any:
        return self._answer("abort")


class Slowly:
    """Makes one Slow receiver."""

    def __init__(self, waits: str = "") -> None:
        self.waits = waits
        self.made: list[Slow] = []

    def __call__(self, connection: ConnectionInfo) -> Slow:
        self.made.append(Slow(connection, self.waits))
        return self.made[-1]


# -- TLS --------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True])
def test_a_message_over_tls_with_auth(net: Net, implicit: bool) -> None:
    net.secure()
    client = net.client(implicit=implicit)
    if not implicit:
        client.starttls()
    else:
        assert client.greeting == ["220 localhost ESMTP"]
        client.send("EHLO x\r\n")
    assert client.code(PLAIN) == "235 2.7.0"
    client.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    assert client.send(b"Subject: hello\r\n\r\n..dot\r\n.\r\n")[0][:9] == "250 2.0.0"
    (message,) = net.messages
    assert (message.content, message.user) == (MESSAGE, "jane")
    assert message.tls is not None
    assert message.tls.version == "TLSv1.3"


def test_plaintext_behind_starttls_is_never_run_and_state_is_forgotten(net: Net) -> None:
    net.secure()
    client = net.client()
    client.send("EHLO x\r\n")
    said = client.send("STARTTLS\r\nEHLO evil\r\n")
    assert (said, client.over) == (
        ["554 5.5.0 SMTP protocol synchronization error: input before the reply to STARTTLS"],
        True,
    )


def test_plaintext_instead_of_a_handshake_ends_the_connection(net: Net) -> None:
    net.secure()
    client = net.client()
    client.send("EHLO x\r\nSTARTTLS\r\n")
    client.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n")
    assert (client.over, net.messages) == (True, [])


def test_a_handshake_that_never_ends_is_cut_off(net: Net) -> None:
    net.secure()
    client = net.client()
    client.send("EHLO x\r\nSTARTTLS\r\n")
    net.pump.advance(59)
    assert not client.over
    net.pump.advance(2)
    assert client.over


def test_silence_on_the_implicit_port_is_cut_off(net: Net) -> None:
    net.secure()
    raw = Raw()
    wrapped: Any = TLSMemoryBIOFactory(net.certificate, False, net.factory, clock=net.clock)
    net.pump.connect(raw, wrapped.buildProtocol(None))
    net.pump.advance(61)
    assert raw.gone is not None


# -- AUTH --------------------------------------------------------------------------------


def secure(net: Net, **options: Any) -> Client:
    net.secure(**options)
    client = net.client(implicit=True)
    client.send("EHLO x\r\n")
    return client


def test_login_asks_for_user_and_password(net: Net) -> None:
    client = secure(net)
    assert client.send("AUTH LOGIN\r\n") == ["334 VXNlcm5hbWU6"]
    assert client.send("amFuZQ==\r\n") == ["334 UGFzc3dvcmQ6"]
    assert client.send("czNjcmV0\r\n") == ["235 2.7.0 Authentication successful"]


def test_a_failed_login_costs_time_and_then_the_connection(net: Net) -> None:
    client = secure(net)
    for delay in (2, 4):
        assert client.send(WRONG + "\r\n") == []
        net.pump.advance(delay - 2)
        net.pump.advance(1.9)
        assert client.take() == []
        net.pump.advance(0.2)
        assert client.take() == ["535 5.7.8 Authentication failed"]
    client.send(WRONG + "\r\n")
    for _ in range(9):
        net.pump.advance(1)
    assert client.take()[-1] == "421 4.7.0 Too many failed logins"
    assert client.over


@pytest.mark.parametrize("response", [b"\0nobody\0s3cret", b"other\0jane\0s3cret", b"\0jane\0"])
def test_no_refusal_tells_why(net: Net, response: bytes) -> None:
    client = secure(net, deadlines=ServerTimeouts(failed_login=0))
    said = client.send(b"AUTH PLAIN " + b64encode(response) + b"\r\n")
    assert said == ["535 5.7.8 Authentication failed"]


def test_an_authzid_that_is_the_user_is_taken(net: Net) -> None:
    client = secure(net)
    response = b64encode(b"jane\0jane\0s3cret").decode()
    assert client.code("AUTH PLAIN " + response) == "235 2.7.0"


@pytest.mark.parametrize("response", [b"jane", b"\0jane\0s3cret\0more", b"\0\xff\0x"])
def test_a_malformed_plain_is_501_and_the_session_goes_on(net: Net, response: bytes) -> None:
    client = secure(net)
    assert client.code("AUTH PLAIN " + b64encode(response).decode()) == "501 5.5.2"
    assert client.code(PLAIN) == "235 2.7.0"


def test_a_cancelled_exchange_leaves_nobody_logged_in(net: Net) -> None:
    client = secure(net)
    client.send("AUTH LOGIN\r\n")
    client.send("amFuZQ==\r\n")
    assert client.code("*") == "501 5.7.0"
    assert client.code("MAIL FROM:<a@example.org>") == "530 5.7.0"
    assert client.code(PLAIN) == "235 2.7.0"


def test_accounts_that_break_are_a_temporary_failure_and_their_words_are_not_logged(
    net: Net, certificate: Any
) -> None:
    class Broken:
        mechanisms = ("PLAIN",)

        async def check(self, user: str, password: str) -> Any:
            raise RuntimeError(password)

        async def scram_keys(self, user: str, hash_name: str) -> Any:
            raise RuntimeError

    net.server(tls=certificate, accounts=Broken())
    client = net.client(implicit=True)
    client.send("EHLO x\r\n")
    assert client.code(PLAIN) == "454 4.7.0"


# -- receivers ------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", ["sender", "recipient", "write", "commit"])
def test_nothing_goes_on_while_a_receiver_thinks(net: Net, waits: str) -> None:
    make = Slowly(waits)
    net.server(make)
    client = net.client()
    said = client.send(ENVELOPE.encode() + b"BDAT 7 LAST\r\nhello\r\nQUIT\r\n")
    assert make.made[0].asked[-1] == waits
    assert not [line for line in said if line.startswith("221")]
    net.pump.advance(3600)
    assert not client.over
    make.made[0].pending.callback(None)
    net.pump.run()
    assert client.take()[-1][:3] == "221"
    assert make.made[0].asked == ["sender", "recipient", "write", "commit"]


@pytest.mark.parametrize("waits", ["sender", "recipient", "write", "commit"])
def test_a_receiver_that_breaks_is_451_and_is_aborted_once(net: Net, waits: str) -> None:
    """Our own trouble is never a 5yz; commit and abort are never both called."""
    make = Slowly(waits)
    net.server(make)
    client = net.client()
    said = client.send(ENVELOPE.encode() + b"BDAT 7 LAST\r\nhello\r\n")
    make.made[0].pending.errback(RuntimeError("broken"))
    net.pump.run()
    said += client.take()
    client.send("QUIT\r\n")
    assert [line for line in said if line.startswith("451")]
    assert not [line for line in said if line.startswith("55")]
    ends = [what for what in make.made[0].asked if what in {"commit", "abort"}]
    assert ends == ["commit" if waits == "commit" else "abort"]


def test_a_refusal_is_told_as_it_is(net: Net) -> None:
    class Choosy(Receiver):
        async def recipient(self, recipient: Any) -> Reply | None:
            bad = str(recipient).startswith("bad")
            return Reply(550, ("5.1.1 No such user",)) if bad else None

    net.server(Choosy)
    client = net.client()
    client.send("EHLO x\r\nMAIL FROM:<>\r\n")
    assert client.send("RCPT TO:<bad@example.org>\r\n") == ["550 5.1.1 No such user"]
    assert client.code("RCPT TO:<good@example.org>") == "250 2.0.0"


def test_a_receiver_may_refuse_while_content_comes(net: Net) -> None:
    class Filter(Slow):
        def write(self, data: bytes) -> Reply | None:
            self.asked.append("write")
            return Reply(554, ("5.7.1 No spam",))

    made: list[Filter] = []

    def make(connection: ConnectionInfo) -> Filter:
        made.append(Filter(connection))
        return made[-1]

    net.server(make)
    client = net.client()
    client.send(ENVELOPE)
    client.send("DATA\r\n")
    client.send("spam\r\n")
    assert client.send("more\r\n.\r\n") == ["554 5.7.1 No spam"]
    assert made[0].asked == ["sender", "recipient", "write", "abort"]


def test_a_lost_connection_in_data_delivers_nothing(net: Net) -> None:
    make = Slowly()
    net.server(make)
    client = net.client()
    client.send(ENVELOPE)
    client.send("DATA\r\n")
    client.send("half\r\n")
    client.raw.transport.loseConnection()  # type: ignore[union-attr]
    net.pump.run()
    assert make.made[0].asked[-1] == "abort"


def test_a_commit_under_way_is_not_aborted_by_a_lost_connection(net: Net) -> None:
    make = Slowly("commit")
    net.server(make)
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    client.send("hello\r\n.\r\n")
    assert client.link is not None
    client.link.client.drop()
    net.pump.run()
    make.made[0].pending.callback(None)
    assert make.made[0].asked[-1] == "commit"


def test_what_follows_a_message_starts_clean(net: Net) -> None:
    net.server()
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    client.send("one\r\n.\r\n")
    assert client.code("DATA") == "503 5.5.1"
    client.send("MAIL FROM:<>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n")
    client.send("two\r\n.\r\n")
    assert [(str(m.sender), [str(r) for r in m.recipients], m.content) for m in net.messages] == [
        ("a@example.org", ["b@example.net"], b"one\r\n"),
        ("<>", ["c@example.net"], b"two\r\n"),
    ]


def test_our_received_field_goes_first(net: Net) -> None:
    net.secure(trace=True)
    client = net.client(implicit=True)
    client.send("EHLO client.example.net\r\n" + PLAIN + "\r\n")
    client.send("MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    client.send("Subject: x\r\n\r\n.\r\n")
    (message,) = net.messages
    assert message.content == (
        b"Received: from client.example.net ([192.0.2.2]) by localhost\r\n"
        b"\twith ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384) id " + message.id.encode() + b"\r\n"
        b"\tfor <b@example.net>; Thu, 01 Jan 1970 00:00:00 +0000\r\n"
        b"Subject: x\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("hello", "recipient"),
    [
        ("[x:a;(b]", "b@example.net"),
        ("x", '"a;(b"@example.net'),
        ("[IPv6:2001:db8::1]", "Postmaster"),
    ],
)
def test_what_would_break_our_received_field_is_left_out(
    net: Net, hello: str, recipient: str
) -> None:
    net.server(trace=True)
    client = net.client()
    client.send(f"EHLO {hello}\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n")
    assert client.code(".") == "250 2.0.0"
    field = net.contents()[0]
    assert (field[:15], b";(" in field) == (b"Received: from ", False)


def test_a_reply_that_cannot_be_said_is_451(net: Net) -> None:
    class Odd(Receiver):
        def sender(self, *_: Any) -> Reply:
            return Reply(550, ("5.1.1 two\r\n250 lines",))

    net.server(Odd)
    client = net.client()
    client.send("EHLO x\r\n")
    assert client.code("MAIL FROM:<>") == "451 4.3.0"


def test_lmtp_tells_the_verdict_of_each_recipient(net: Net) -> None:
    class Each(Receiver):
        async def commit(self) -> list[Reply]:
            return [Reply(250, ("2.0.0 kept",)), Reply(452, ("4.2.2 full",))]

    net.server(Each, settings=ServerSettings(lmtp=True, require_tls=False))
    client = net.client()
    client.send("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n")
    client.send("DATA\r\n")
    assert client.send(".\r\n") == ["250 2.0.0 kept", "452 4.2.2 full"]


KEPT, REFUSED = Reply(250, ("2.0.0 kept",)), Reply(452, ("4.2.2 full",))


class Refusing(Receiver):
    """Refuses with a value that is no Reply."""

    def sender(self, *_: Any) -> Any:
        return False


@pytest.mark.parametrize(
    ("receiver", "logged"),
    [
        (Refusing, "a receiver returned a bool; return None to accept, or a Reply to refuse"),
        (lambda _: None, "no receiver could be made: a NoneType was returned; return a Receiver"),
    ],
)
def test_a_value_of_the_wrong_type_is_451_and_in_the_log(
    net: Net, receiver: Any, logged: str
) -> None:
    """At the level that Twisted prints also before an application starts its log."""
    net.server(receiver)
    client = net.client()
    client.send("EHLO x\r\n")
    with capturedLogs() as events:
        assert client.code("MAIL FROM:<>") == "451 4.3.0"
    (event,) = events
    assert event["log_level"] is LogLevel.critical
    assert str(formatEvent(event)).startswith(logged)
    assert client.code("NOOP") == "250 2.0.0"


TROUBLE = "451 4.3.0 Local error in processing"


@pytest.mark.parametrize("lmtp", [True, False], ids=["LMTP", "SMTP"])
@pytest.mark.parametrize(
    ("verdict", "replies"),
    [
        ([], [TROUBLE, TROUBLE]),
        ([KEPT], ["250 2.0.0 kept", TROUBLE]),
        ([KEPT, REFUSED, KEPT], ["250 2.0.0 kept", "452 4.2.2 full"]),
        ([Reply(354, ("go on",)), KEPT], [TROUBLE, "250 2.0.0 kept"]),
        (Reply(354, ("go on",)), [TROUBLE, TROUBLE]),
        (["250 text", None], [TROUBLE, "250 2.0.0 Ok: queued as ID"]),
        ("250 text", [TROUBLE, TROUBLE]),
    ],
    ids=["none", "too few", "too many", "one is 354", "354", "text in a list", "text"],
)
def test_the_client_gets_as_many_verdicts_as_it_awaits(
    net: Net, lmtp: bool, verdict: Any, replies: list[str]
) -> None:
    class Odd(Receiver):
        def sender(self, *_: Any) -> None:
            self.id = "ID"

        def commit(self) -> Any:
            return verdict

    net.server(Odd, settings=ServerSettings(lmtp=lmtp, require_tls=False))
    client = net.client()
    client.send("LHLO x\r\n" if lmtp else "EHLO x\r\n")
    client.send("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n")
    client.send("DATA\r\n")
    assert client.send(".\r\n") == (replies if lmtp else replies[:1])
    assert client.code("NOOP") == "250 2.0.0"


# -- back-pressure ----------------------------------------------------------------------------


def test_a_client_is_not_read_while_a_receiver_writes(net: Net) -> None:
    """Memory is bounded: what the client sends stays on its side."""
    make = Slowly("write")
    net.server(make)
    client = net.client()
    client.send(ENVELOPE)
    client.send("DATA\r\n")
    for _ in range(100):
        client.send(b"x" * 65536)
    assert client.link is not None
    assert len(make.made[0].content) <= 65536
    assert len(client.server.session._buffer) <= 2 * 65536
    assert client.link.client.waiting > 90 * 65536


def test_a_client_that_never_reads_is_not_answered_for_ever(net: Net) -> None:
    net.server(settings=ServerSettings(require_tls=False, max_idle_commands=10**9))
    client = net.client()
    assert client.link is not None
    client.link.client.pauseProducing()
    client.send(b"NOOP\r\n" * 1_000_000)
    assert client.link.server.waiting <= 2 * FULL + 1000
    assert len(client.server.session._output) <= FULL + 1000
    assert client.link.client.waiting > 4_000_000
    net.pump.advance(301)
    assert client.server.factory.connections == set()


def test_a_client_that_reads_at_last_gets_all_its_answers(net: Net) -> None:
    net.server(settings=ServerSettings(require_tls=False, max_idle_commands=10**9))
    client = net.client()
    assert client.link is not None
    client.link.client.pauseProducing()
    client.send(b"NOOP\r\n" * 100_000)
    client.link.client.resumeProducing()
    net.pump.run()
    assert len(client.take()) == 100_000


class Counting(Receiver):
    """Counts the recipients of all messages."""

    count = 0

    def recipient(self, recipient: object) -> None:
        Counting.count += 1


@pytest.mark.parametrize("closes", [False, True])
def test_a_client_that_sends_many_commands_at_once_leaves_turns_to_others(
    net: Net, closes: bool
) -> None:
    net.server(Counting, settings=ServerSettings(require_tls=False, max_recipients=3000))
    server: Any = net.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    string_transport: Any = StringTransport
    transport = string_transport()
    server.makeConnection(transport)
    transport.clear()
    Counting.count = 0
    turns = []
    server.dataReceived((ENVELOPE + "RCPT TO:<b@example.net>\r\n" * 2999).encode())
    if closes:
        server.readConnectionLost()
    while Counting.count < 3000:
        turns.append(Counting.count)
        net.clock.advance(0)
    assert max(b - a for a, b in zip([0, *turns], turns, strict=False)) < 300
    assert transport.value().count(b"250 2.0.0 Ok\r\n") == 3001


# -- deadlines ---------------------------------------------------------------------------------


def test_a_trickle_does_not_extend_the_deadline_of_a_command(net: Net) -> None:
    net.server()
    client = net.client()
    for _ in range(299):
        client.send("x")
        net.pump.advance(1)
    assert not client.over
    net.pump.advance(2)
    assert (client.take(), client.over) == (["421 4.4.2 Timeout exceeded"], True)


def test_a_command_starts_the_time_anew(net: Net) -> None:
    net.server()
    client = net.client()
    for _ in range(10):
        net.pump.advance(299)
        client.send("NOOP\r\n")
    assert not client.over


def test_a_trickle_of_content_is_cut_off(net: Net) -> None:
    make = Slowly()
    net.server(make, deadlines=ServerTimeouts(content=100, rate=10))
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    for _ in range(150):
        client.send("x")
        net.pump.advance(1)
    assert (client.over, make.made[0].asked[-1]) == (True, "abort")


@pytest.mark.parametrize("command", ["BDAT 1\r\nx", "BDAT 0\r\n", "NOOP\r\n"])
def test_a_trickle_of_chunks_is_cut_off(net: Net, command: str) -> None:
    """Each chunk is a command, and begins no new time for the content."""
    make = Slowly()
    net.server(make, deadlines=ServerTimeouts(content=100, rate=10))
    client = net.client()
    said = client.send(ENVELOPE + "BDAT 1\r\nx")
    for _ in range(15):
        said += client.send(command)
        net.pump.advance(10)
        said += client.take()
    assert (said[-1], client.over) == ("421 4.4.2 Timeout exceeded", True)
    assert make.made[0].asked[-1] == "abort"


def test_a_trickle_in_a_refused_chunk_has_no_time_from_earlier_messages(net: Net) -> None:
    net.server(deadlines=ServerTimeouts(content=100, rate=10))
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    client.send("x" * 100_000 + "\r\n.\r\n")
    client.send("BDAT 1000\r\n")
    for _ in range(150):
        client.send("x")
        net.pump.advance(1)
    assert client.over


def test_a_client_that_is_silent_between_two_chunks_has_the_time_of_a_command(net: Net) -> None:
    net.server(deadlines=ServerTimeouts(command=50, content=100))
    client = net.client()
    client.send(ENVELOPE + "BDAT 1\r\nx")
    net.pump.advance(49)
    assert not client.over
    net.pump.advance(2)
    assert (client.take()[-1:], client.over) == (["421 4.4.2 Timeout exceeded"], True)


def test_content_at_the_least_rate_may_take_as_long_as_it_takes(net: Net) -> None:
    net.server(deadlines=ServerTimeouts(content=100, rate=10))
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    for _ in range(1000):
        client.send("x" * 10)
        net.pump.advance(1)
    assert client.send("\r\n.\r\n")[0][:3] == "250"


def test_our_own_slowness_is_not_held_against_the_client(net: Net) -> None:
    make = Slowly("write")
    net.server(make, deadlines=ServerTimeouts(content=100, rate=10))
    client = net.client()
    client.send(ENVELOPE + "DATA\r\n")
    client.send("hello\r\n")
    net.pump.advance(10_000)
    make.made[0].waits = ""
    make.made[0].pending.callback(None)
    assert client.send(".\r\n")[0][:3] == "250"


def test_a_connection_that_does_not_close_is_dropped(net: Net) -> None:
    net.server()
    client = net.client()
    assert client.link is not None
    client.link.client.pauseProducing()
    client.send("QUIT\r\n")
    net.pump.advance(31)
    assert net.factory.connections == set()


# -- limits ------------------------------------------------------------------------------------


def test_no_timer_is_left_behind(net: Net) -> None:
    net.server()
    client = net.client()
    client.send("QUIT\r\n")
    assert (client.over, net.clock.getDelayedCalls()) == (True, [])


def test_a_reply_whose_lines_are_a_list_is_said_all_the_same(net: Net) -> None:
    class Listing(Receiver):
        def sender(self, *_: Any) -> Any:
            return Reply(250, ["fine"])  # type: ignore[arg-type]

    net.server(Listing, settings=ServerSettings(require_tls=False))
    client = net.client()
    client.send("EHLO x\r\n")
    assert client.send("MAIL FROM:<a@example.org>\r\n") == ["250 2.0.0 fine"]


@pytest.mark.parametrize("lost_at", ["sender", "recipient", "commit"])
def test_a_connection_that_is_lost_while_a_receiver_is_asked_asks_no_further(
    net: Net, lost_at: str
) -> None:
    asked: list[str] = []

    class Dropping(Receiver):
        def _asked(self, what: str) -> None:
            asked.append(what)
            if what == lost_at:
                client.link.server.abortConnection()  # type: ignore[union-attr]
                net.pump.run()

        def sender(self, *said: object) -> None:
            self._asked("sender")

        def recipient(self, recipient: object) -> None:
            self._asked("recipient")

        def commit(self) -> None:
            self._asked("commit")

        def abort(self) -> None:
            asked.append("abort")

    net.server(Dropping, settings=ServerSettings(require_tls=False))
    client = net.client()
    client.send("EHLO c.example\r\n")
    client.send("MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    client.send("Subject: s\r\n\r\n.\r\n")
    order = ["sender", "recipient", "commit"]
    expected = order[: order.index(lost_at) + 1]
    assert asked == expected + ["abort"] * (lost_at != "commit")
