"""However the octets of a client are cut into segments, the server does the same.

The clients here send raw octets to a public server factory over a network in memory.  What
stands at the cuts is chosen to be mistaken for a command: MAIL, RCPT and DATA inside chunks,
inside refused lines, after chunks that were refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from twisted_sendmail import (
    Networks,
    Receiver,
    Reply,
    ServerSettings,
    ServerTimeouts,
    SMTPServerFactory,
)
from twisted_sendmail.testing import MemoryNetwork

SETTINGS = ServerSettings(
    host="mx.example.org",
    require_tls=False,
    max_size=2000,
    max_header=200,
    max_recipients=3,
    max_chunks=6,
    max_errors=12,
    max_idle_commands=12,
    max_refusals=6,
)
EARLY = "554 5.5.0"


class Client(Protocol):
    """Notes what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.over = True


@dataclass
class Mail:
    """One message that was committed."""

    sender: str
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""


class Server:
    """A server, one connection to it, and the mail that has come.

    :param later: each answer of the receivers comes a second later.
    """

    def __init__(
        self, settings: ServerSettings = SETTINGS, *, later: bool = False, **options: Any
    ) -> None:
        self.network = MemoryNetwork()
        self.clock = self.network.clock
        self.later = later
        self.mail: list[Mail] = []
        self.made = 0
        #: Replies to RCPT for these, and to DATA when "data" is among them.
        self.refused: dict[str, Reply] = {}
        factory = SMTPServerFactory(
            self.clock,
            lambda connection: Keeping(connection, self),
            settings=settings,
            deadlines=ServerTimeouts(command=10**6),
            **options,
        )
        self.client = Client()
        address = IPv4Address("TCP", "192.0.2.2", 40000)
        self.network.connect(self.client, factory.buildProtocol(address))
        self.network.run()

    def answer(self, reply: Reply | None = None) -> Any:
        if not self.later:
            return reply
        deferred: Deferred[Reply | None] = Deferred()
        self.clock.callLater(1, deferred.callback, reply)
        return deferred

    def send(self, *segments: bytes) -> list[str]:
        """Replies to all that was sent in these segments, a line each."""
        for segment in segments:
            if not self.client.over:
                transport: Any = self.client.transport
                transport.write(segment)
                self.network.run()
        self.network.advance(200 if self.later else 0)
        received, self.client.received = self.client.received, b""
        return received.decode().splitlines()


class Keeping(Receiver):
    """Keeps what it gets."""

    def __init__(self, connection: Any, server: Server) -> None:
        super().__init__(connection)
        server.made += 1
        self.id = f"ID{server.made}"
        self._server = server

    def sender(self, sender: Any, parameters: Any) -> Any:
        self._mail = Mail(str(sender))
        return self._server.answer(self._server.refused.get(str(sender)))

    def recipient(self, recipient: Any) -> Any:
        refusal = self._server.refused.get(str(recipient))
        if refusal is None:
            self._mail.recipients.append(str(recipient))
        return self._server.answer(refusal)

    def write(self, data: bytes) -> Any:
        if data.startswith(b"Received:") and not self._mail.content:
            return self._server.answer(self._server.refused.get("data"))
        self._mail.content += data
        return self._server.answer()

    def commit(self) -> Any:
        self._server.mail.append(self._mail)
        return self._server.answer()


# -- the law ------------------------------------------------------------------------------

USUAL = [
    b"MAIL FROM:<a@example.org>\r\n",
    b"RCPT TO:<b@example.net>\r\n",
    b"RCPT TO:<x@victim.example>\r\nDATA\r\n",
    b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<x@victim.example>\r\nDATA\r\n",
    b"DATA\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"BDAT 30 LAST\r\n",
    b"BDAT 3\r\n",
    b"QUIT\r\n",
    b"RSET\r\n",
    b"Subject: x\r\n\r\n",
    b"\r\n",
    b"\r",
    b"\n",
]
payloads = st.lists(st.sampled_from(USUAL), max_size=4).map(b"".join)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """BDAT with its chunk, which looks like commands."""
    payload = draw(payloads)
    last = draw(st.sampled_from([b"", b" LAST", b" last"]))
    return b"BDAT %d%s\r\n" % (len(payload), last) + payload


# Lines that are refused, with the beginning of commands inside.
bad_lines = st.tuples(
    st.sampled_from(
        [b"NOOP x\n", b"NOOP a\rb", b"NOOP" + b"y" * 2100, b"RSET\0", b"\xff", b"RCPT\n"]
    ),
    payloads.map(lambda octets: octets.replace(b"\r\n", b" ")),
).map(lambda pair: pair[0] + pair[1].replace(b"BDAT", b"NOOP") + b"\r\n")

commands = st.one_of(
    st.sampled_from(
        [
            b"EHLO c.example\r\n",
            b"HELO c.example\r\n",
            b"MAIL FROM:<a@example.org>\r\n",
            b"MAIL FROM:<a@example.org> BODY=BINARYMIME\r\n",
            b"mail from:<c@example.org> SIZE=10\r\n",
            b"MAIL FROM:<refused@example.org>\r\n",
            b"RCPT TO:<b@example.net>\r\n",
            b"RCPT TO:<refused@example.net>\r\n",
            b"rcpt to: <d@example.net>\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"VRFY a\r\n",
            b"DATA\r\n",
            b"data\r\n",
            b"BDAT x\r\n",
            b"BDAT 25\n",
            b"AUTH PLAIN AGEAYg==\r\n",
            b"QUIT\r\n",
        ]
    ),
    chunks(),
    bad_lines,
)
START = [b"EHLO c.example\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<b@example.net>\r\n"]
messages = st.one_of(
    st.just([*START, b"DATA\r\n"]),
    chunks().map(lambda chunk: [*START, chunk]),
    st.tuples(chunks(), chunks()).map(lambda two: [*START, *two]),
    chunks().map(lambda chunk: [*START[:2], b"RCPT TO:<refused@example.net>\r\n", chunk]),
)
conversations = st.lists(st.one_of(commands.map(lambda c: [c]), messages), max_size=8).map(
    lambda groups: [command for group in groups for command in group]
)
contents = st.lists(
    st.sampled_from([*USUAL, b"..\r\n", b"bare\nLF\r\n", b"x" * 500, b"Received: x\r\n"]),
    max_size=5,
).map(
    lambda parts: b"".join(parts).replace(b"\r\n.\r\n", b"\r\n..\r\n").lstrip(b".") + b"\r\n.\r\n"
)

_WAITED_FOR = re.compile(rb"(?:DATA|AUTH[^\r\n]*)\r\n", re.IGNORECASE)


def waited_for(command: bytes) -> bool:
    return _WAITED_FOR.fullmatch(command) is not None


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(octets[begin : begin + size])
        begin += size
    return [piece for piece in [*pieces, octets[begin:]] if piece]


def played(
    conversation: list[bytes], content: bytes, cutting: Any, *, later: bool
) -> tuple[list[str], list[Mail], bool]:
    """Play it as RFC 2920 has it, with each group of commands cut by *cutting*."""
    server = Server(later=later)
    server.refused = {
        "refused@example.net": Reply(550, ("5.1.1 no",)),
        "refused@example.org": Reply(550, ("5.7.1 no",)),
    }
    received: list[str] = []
    group = b""
    for number, command in enumerate(conversation):
        group += command
        if waited_for(command) or number == len(conversation) - 1:
            received += server.send(*cutting(group))
            group = content if received and received[-1][:3] == "354" else b""
    received += server.send(*cutting(group))
    return received, server.mail, server.client.over


@given(conversations, contents, st.lists(st.integers(1, 60), max_size=30), st.booleans())
def test_any_cutting_gives_the_same_replies_and_the_same_mail(
    conversation: list[bytes], content: bytes, sizes: list[int], later: bool
) -> None:
    whole = played(conversation, content, lambda octets: [octets], later=later)
    assert whole == played(conversation, content, lambda octets: cut(octets, sizes), later=later)
    lines = lambda octets: octets.splitlines(keepends=True)  # noqa: E731
    assert whole == played(conversation, content, lines, later=later)
    assert not any(reply.startswith(EARLY) for reply in whole[0])


@given(conversations, contents, st.booleans())
def test_octets_one_by_one_give_the_same_replies_and_the_same_mail(
    conversation: list[bytes], content: bytes, later: bool
) -> None:
    whole = played(conversation, content, lambda octets: [octets], later=later)
    single = lambda octets: [bytes([octet]) for octet in octets]  # noqa: E731
    assert whole == played(conversation, content, single, later=later)


# -- lines that are refused ---------------------------------------------------------------

SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<x@victim.example>\r\nDATA\r\n"


@pytest.mark.parametrize(
    "begin",
    [
        b"NOOP x\n",
        b"NOOP" + b"x" * 2100,
        b"NOOP a\rb",
        b"NOOP \r\r",
        b"\n",
        b"DATA\n",
        b"AUTH PLAIN " + b"A" * 13000,
        b"AUTH PLAIN\n",
    ],
    ids=lambda begin: repr(begin[:12]),
)
def test_half_of_a_refused_line_is_never_obeyed(begin: bytes) -> None:
    """One 500, and nothing until the CRLF."""
    server = Server()
    server.send(b"EHLO c.example\r\n")
    replies = server.send(begin)
    assert [reply[:3] for reply in replies] == ["500"]
    # The first CRLF ends the refused line, whatever stands before it.
    assert server.send(b"MAIL FROM:<evil@example.org>\r\n") == []
    assert server.send(b"RCPT TO:<x@victim.example>\r\n")[0][:3] == "503"
    assert (server.mail, server.made) == ([], 0)


@pytest.mark.parametrize(
    "line",
    [b"DATA" + b"x" * 2100, b"STARTTLS" + b"x" * 2100, b"AUTH PLAIN " + b"A" * 13000, b"DATA\n"],
    ids=lambda line: repr(line[:12]),
)
def test_the_line_end_of_a_refused_line_is_not_early_input(line: bytes) -> None:
    for segments in ([line + b"\r", b"\n"], [line, b"\r", b"\n"], [line + b"\r\n"]):
        server = Server()
        server.send(b"EHLO c.example\r\n")
        replies = server.send(*segments, b"NOOP\r\n")
        assert [reply[:3] for reply in replies] == ["500", "250"]


def test_a_line_with_a_nul_is_refused_whole() -> None:
    server = Server()
    assert (
        server.send(b"EHLO c.example\r\n", b"NOOP a\0MAIL FR", b"OM:<a@b.example>")[-1][:3] == "250"
    )
    assert [reply[:3] for reply in server.send(b"\r\n", b"NOOP\r\n")] == ["500", "250"]
    assert server.made == 0


@pytest.mark.parametrize("line", [b"BDAT x\r\n", b"BDAT 99\n", b"BDAT 9 9\r\n", b"BDAT\t9\r\n"])
def test_where_the_end_of_a_chunk_cannot_be_known_the_session_ends(line: bytes) -> None:
    for segments in ([line + SMUGGLED], [line, SMUGGLED], [line[:-1], line[-1:] + SMUGGLED]):
        server = Server()
        server.send(b"EHLO c.example\r\n")
        assert [reply[:3] for reply in server.send(*segments)] in (["501", "421"], ["500", "421"])
        assert (server.client.over, server.made) == (True, 0)


def test_a_chunk_of_commands_never_starts_a_message() -> None:
    """The same octets as a chunk that was refused, and as one that was taken."""
    chunk = b"RCPT TO:<x@victim.example>\r\nDATA\r\n"
    server = Server()
    server.send(b"EHLO c.example\r\n", b"MAIL FROM:<a@example.org>\r\n")
    assert server.send(b"BDAT %d\r\n" % len(chunk), chunk)[0][:3] == "503"
    assert server.send(b"RCPT TO:<b@example.net>\r\n", b"BDAT %d LAST\r\n" % len(chunk), chunk) == [
        "250 2.0.0 Ok",
        "250 2.0.0 Ok: queued as ID1",
    ]
    assert [(mail.recipients, mail.content) for mail in server.mail] == [(["b@example.net"], chunk)]


# -- input before the reply that it has to wait for -----------------------------------------

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
CONTENT = b"Subject: x\r\n\r\nhello\r\n.\r\n" + SMUGGLED


@given(conversations, contents, st.lists(st.integers(1, 60), max_size=30), st.booleans())
def test_content_that_does_not_wait_for_354_ends_the_session(
    conversation: list[bytes], content: bytes, sizes: list[int], later: bool
) -> None:
    """Up to there all is as it would have been; nothing after it is read."""
    if not any(command in {b"DATA\r\n", b"data\r\n"} for command in conversation):
        conversation = [*conversation, b"DATA\r\n"]
    first = next(n for n, command in enumerate(conversation) if waited_for(command))
    kept = played(conversation[: first + 1], b"", lambda octets: [octets], later=later)
    early = [*conversation[:first], conversation[first] + content]

    def cutting(octets: bytes) -> list[bytes]:
        pieces = cut(octets[: -len(content) - 1], sizes)
        return [*pieces, octets[-len(content) - 1 :]]

    broken = played(early, b"", cutting, later=later)
    if kept[2]:
        # The session had ended before.
        assert broken[0] == kept[0]
    else:
        assert (broken[0][:-1], broken[0][-1][:9]) == (kept[0][:-1], EARLY)
    assert (broken[1], broken[2]) == (kept[1], True)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("before", "data"),
    [
        (ENVELOPE[:-6], b"DATA\r\n"),
        (b"", b"DATA\r\n"),
        (b"MAIL FROM:<a@example.org>\r\n", b"DATA\r\n"),
        (b"MAIL FROM:<a@example.org>\r\nRCPT TO:<refused@example.net>\r\n", b"DATA\r\n"),
        (b"MAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT TO:<b@example.net>\r\n", b"DATA\r\n"),
        (ENVELOPE[:-6], b"DATA now\r\n"),
        (ENVELOPE[:-6], b"DATA\0\r\n"),
    ],
)
def test_whatever_the_answer_to_data_would_have_been_early_content_gets_554(
    before: bytes, data: bytes, later: bool
) -> None:
    server = Server(later=later)
    server.refused = {"refused@example.net": Reply(550, ("5.1.1 no",))}
    server.send(b"EHLO c.example\r\n")
    replies = server.send(before + data + CONTENT)
    assert (replies[-1][:9], server.mail, server.client.over) == (EARLY, [], True)
    assert [reply for reply in replies if reply[:3] in {"354", "503", "501"}] == []


def test_content_that_comes_while_the_answer_to_data_is_awaited_came_too_early() -> None:
    server = Server(later=True)
    server.send(b"EHLO c.example\r\n")
    replies = server.send(ENVELOPE, b"Subject: x\r\n\r\n.\r\n")
    assert ([reply[:9] for reply in replies], server.mail) == (
        ["250 2.0.0", "250 2.0.0", EARLY],
        [],
    )


def test_a_receiver_that_refuses_the_content_is_not_a_way_around_it() -> None:
    server = Server()
    server.refused = {"data": Reply(451, ("4.3.0 not now",))}
    server.send(b"EHLO c.example\r\n")
    assert server.send(ENVELOPE + SMUGGLED)[-1][:9] == EARLY
    assert server.made == 1


def test_an_envelope_in_one_write_and_chunks_that_follow_at_once_are_fine() -> None:
    server = Server()
    server.send(b"EHLO c.example\r\n")
    assert [reply[:3] for reply in server.send(ENVELOPE)] == ["250", "250", "354"]
    assert [reply[:3] for reply in server.send(b"x\r\n.\r\n" + ENVELOPE)] == [
        "250",
        "250",
        "250",
        "354",
    ]
    server.send(b".\r\n")
    chunked = ENVELOPE[:-6] + b"BDAT 3\r\nx\r\nBDAT 3 LAST\r\ny\r\n"
    assert server.send(chunked * 2 + b"NOOP\r\n")[-1] == "250 2.0.0 Ok"
    assert [mail.content for mail in server.mail] == [b"x\r\n", b"", *[b"x\r\ny\r\n"] * 2]


SOMEWHERE = {"ours": Networks(["192.0.2.0/24"]), "another": Networks(["198.51.100.0/24"])}


@pytest.mark.parametrize("network", SOMEWHERE)
def test_clients_of_a_network_may_be_allowed_not_to_wait(network: str) -> None:
    server = Server(early_input=SOMEWHERE[network])
    server.send(b"EHLO c.example\r\n")
    replies = server.send(ENVELOPE + b"hello\r\n.\r\nNOOP\r\n")
    allowed = network == "ours"
    assert ([reply[:3] for reply in replies], len(server.mail)) == (
        (["250", "250", "354", "250", "250"], 1) if allowed else (["250", "250", "554"], 0)
    )


def test_for_those_too_the_content_of_a_refused_message_is_never_read_as_commands() -> None:
    for before in (b"", b"MAIL FROM:<a@example.org>\r\nRCPT TO:<refused@example.net>\r\n"):
        server = Server(settings=SETTINGS, early_input=SOMEWHERE["ours"])
        server.refused = {"refused@example.net": Reply(550, ("5.1.1 no",))}
        server.send(b"EHLO c.example\r\n")
        replies = server.send(before + b"DATA\r\n" + SMUGGLED)
        assert (replies[-1][:9], server.client.over) == (EARLY, True)
        assert server.made == (1 if before else 0)


def authenticating(**options: Any) -> Server:
    class Slow:
        mechanisms = ("PLAIN", "LOGIN")

        async def check(self, user: str, password: str) -> Any:
            await server.answer()
            return None

        async def scram_keys(self, user: str, hash_name: str) -> Any:
            raise NotImplementedError

    settings = ServerSettings(require_tls=False, clear_auth=True, require_auth=False)
    server = Server(settings, accounts=Slow(), **options)
    server.send(b"EHLO c.example\r\n")
    return server


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    "segments",
    [
        [b"AUTH PLAIN AGEAYg==\r\n" + SMUGGLED],
        [b"AUTH CRAM-MD5\r\n" + SMUGGLED],
        [b"AUTH LOGIN\r\nYQ==\r\n" + SMUGGLED],
        [b"AUTH LOGIN\r\n", b"YQ==\r\nYg==\r\n" + SMUGGLED],
        [b"AUTH LOGIN\r\n", b"YQ==\r\n", b"Yg==\r\n" + SMUGGLED],
        [b"AUTH LOGIN\r\n", b"*\r\n" + SMUGGLED],
        [b"AUTH LOGIN\r\n", b"!\r\n" + SMUGGLED],
    ],
)
def test_octets_after_a_line_of_auth_end_the_session(segments: list[bytes], later: bool) -> None:
    server = authenticating(later=later)
    replies = [reply for segment in segments for reply in server.send(segment)]
    assert (replies[-1][:9], server.client.over, server.made) == (EARLY, True, 0)
