"""A usual message is taken in with a few words, and nobody can tell from outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.ingress.conftest import Client, Net
from twisted_sendmail.ingress.factory import SMTPServerFactory
from twisted_sendmail.ingress.receiver import Connection, Receiver
from twisted_sendmail.smtp.reply import Reply
from twisted_sendmail.smtp.server_prompt import PromptSession
from twisted_sendmail.smtp.server_session import ServerSession
from twisted_sendmail.smtp.server_settings import ServerSettings
from twisted_sendmail.testkit.wire import MemoryNetwork

OPEN = ServerSettings(
    require_tls=False,
    max_recipients=3,
    max_size=300,
    max_header=120,
    max_hops=2,
    max_errors=4,
    max_idle_commands=2,
)
MAILS = (
    "MAIL FROM:<a@x.example>",
    "MAIL FROM:<a@x.example>",
    "MAIL FROM:<a@x.example> SIZE=20 BODY=8BITMIME",
    "MAIL FROM:<> SMTPUTF8",
    "mail from:<a@x.example> SIZE=999",
    "MAIL FROM:<a@x.example> BODY=BINARYMIME",
    "MAIL FROM:a@x.example",
)
RCPTS = (
    "RCPT TO:<b@y.example>",
    "RCPT TO:<b@y.example>",
    "RCPT TO:<c@y.example> NOTIFY=NEVER",
    "rcpt to:<Postmaster>",
    "RCPT TO:<\u00e4@y.example>",
    "RCPT TO:<b@y.example",
    "RCPT TO:<@z.example:d@y.example>",
    "RCPT TO:<b@y.example> FOO",
    "RCPT TO:<b\n@y.example>",
)
ENDS = (
    "DATA",
    "DATA",
    "DATA",
    "data",
    "DATA ",
    "RSET",
    "NOOP",
    "EHLO again.example",
    "BDAT 0 LAST",
)
CONTENTS = (
    "Subject: s\r\n\r\nhello\r\n.\r\n",
    "Subject: s\r\n\r\n..dot\r\n.\r\n",
    "..\r\n.\r\n",
    "\r\n.\r\n",
    ".\r\n",
    "Received: a\r\n" * 2 + "\r\n.\r\n",
    "Received: a\r\n" * 3 + "\r\n.\r\n",
    "no header, and received received received\r\n.\r\n",
    "bare\nline\r\n.\r\n",
    "nul\0\r\n.\r\n",
    "x" * 119 + ":\r\n\r\n.\r\n",
    "s: x\r\n\r\n" + "x" * 290 + "\r\n.\r\n",
    "s: x\r\n\r\n" + "x" * 291 + "\r\n.\r\n",
)
MESSAGES = st.tuples(
    st.sampled_from(MAILS),
    st.lists(st.sampled_from(RCPTS), min_size=1, max_size=4).map("\r\n".join),
    st.sampled_from(ENDS),
    st.sampled_from(CONTENTS),
).map("\r\n".join)
ANSWERS = ("yes",) * 8 + ("no", "another yes", "later", "later no", "fault", "list")


class Answering(Receiver):
    """Answers as it is told, notes what it is asked, and looks at the transcript."""

    id = "ID"

    def __init__(self, connection: Connection, side: Side) -> None:
        self.connection = connection
        self._side = side
        side.notes.append(("new",))

    def _answer(self, *asked: object) -> Any:
        self._side.notes.append(
            (*asked, tuple(self.connection.transcript) if self._side.looks else ())
        )
        answer = self._side.answers.pop(0) if self._side.answers else "yes"
        if answer == "fault":
            raise RuntimeError("a fault")
        if answer.startswith("later"):
            later: Deferred[Any] = Deferred()
            self._side.later.append((later, answer))
            return later
        if answer == "list" and asked == ("commit",):
            return [Reply(250, ("kept",))]
        return {"no": Reply(550, ("5.7.1 no",)), "another yes": Reply(250, ("fine",))}.get(answer)

    def sender(self, *said: object) -> Any:
        return self._answer("sender", *map(str, said))

    def recipient(self, recipient: object) -> Any:
        return self._answer("recipient", str(recipient))

    def write(self, data: bytes) -> Any:
        # How it is cut is nobody's business.
        self._side.content += data
        return None

    def commit(self) -> Any:
        self._side.notes.append(self._side.content)
        self._side.content = b""
        return self._answer("commit")

    def abort(self) -> None:
        self._side.content = b""
        self._side.notes.append(("abort",))


class Ordinary(SMTPServerFactory):
    """Whose sessions know of no short way."""

    def session(self, settings: ServerSettings, *, tls: bool) -> ServerSession:
        return ServerSession(settings, tls=tls)


class Side:
    """One of the two ways, told the same as the other."""

    def __init__(self, kind: type[SMTPServerFactory], answers: list[str], *, looks: bool) -> None:
        self.notes: list[Any] = []
        self.answers = list(answers)
        self.later: list[tuple[Deferred[Any], str]] = []
        self.looks = looks
        self.content = b""
        self.heard: list[Any] = []
        self.pump = MemoryNetwork()
        make = kind(self.pump.clock, lambda c: Answering(c, self), settings=OPEN, trace=True)
        self.client = Client(self.pump, make)
        self.client.send("EHLO c.example\r\n")

    def say(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if not self.client.over:
                self.heard += self.client.send(piece)
            self.pump.clock.advance(7)
            for later, answer in self.later:
                later.callback(Reply(451, ("4.7.1 no",)) if answer == "later no" else None)
            self.later.clear()
            self.pump.run()

    def end(self) -> tuple[object, ...]:
        shown = list(self.client.server.connection.transcript)
        # A deadline runs as it does otherwise.
        seconds = 0
        while not self.client.over and seconds < 2000:
            self.pump.clock.advance(5)
            self.pump.run()
            seconds += 5
        self.heard.append(seconds)
        return self.notes, self.heard, shown, self.client.take()


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(octets[begin : begin + size])
        begin += size
    return [piece for piece in [*pieces, octets[begin:]] if piece]


@given(
    st.lists(MESSAGES, min_size=1, max_size=3),
    st.lists(st.integers(1, 120), max_size=12),
    st.booleans(),
    st.lists(st.sampled_from(ANSWERS), max_size=9),
    st.booleans(),
)
@example([f"{MAILS[0]}\r\n{RCPTS[0]}\r\nDATA\r\n{CONTENTS[0]}"] * 20, [], True, [], False)
@example([f"{MAILS[0]}\r\n{RCPTS[0]}\r\nDATA\r\n{CONTENTS[0]}"] * 3, [], True, [], True)
def test_the_short_way_leads_where_the_long_one_does(
    messages: list[str], sizes: list[int], turns: bool, answers: list[str], looks: bool
) -> None:
    pieces: list[bytes] = []
    for message in messages:
        octets = message.encode()
        # Many clients wait for 354.
        begin = octets.find(b"DATA\r\n") + 6 if turns else 0
        pieces += [octets[:begin], octets[begin:]] if begin > 5 else cut(octets, sizes)
    ends = []
    for kind in (Ordinary, SMTPServerFactory):
        with capturedLogs():
            side = Side(kind, answers, looks=looks)
            side.say([piece for piece in pieces if piece])
            ends.append(side.end())
    assert ends[0] == ends[1]


def test_our_servers_know_the_short_way(net: Net) -> None:
    net.server(settings=OPEN)
    assert isinstance(net.client().server.session, PromptSession)


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

    net.server(Dropping, settings=OPEN)
    client = net.client()
    client.send("EHLO c.example\r\n")
    client.send("MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
    client.send("Subject: s\r\n\r\n.\r\n")
    order = ["sender", "recipient", "commit"]
    expected = order[: order.index(lost_at) + 1]
    assert asked == expected + ["abort"] * (lost_at != "commit")
