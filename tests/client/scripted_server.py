"""A submission server that follows a script, and records its input.

``answers`` maps what the client did to what the server does then.  Keys are verbs
(``EHLO``, ``RCPT``), ``GREETING``, ``AUTH_LINE``, ``DATA``, ``.`` (the final dot),
``BDAT`` and ``BDAT_LAST`` (the end of a chunk), ``CONTENT`` (octets of a content), ``CONNECT``; with ``/TLS`` only inside
TLS, with ``#2`` the second time only.  What it does is text (a line), bytes (as they
are), a callable ``(server, line) -> action``, a tuple of actions, or one of
``CLOSE``, ``RESET``, ``SILENT``, ``DEAF``.
"""

from __future__ import annotations

import enum
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from tests.client.certificates import good_context

USER, PASSWORD = "tester", "s3cret-Pa55word"


class Act(enum.Enum):
    CLOSE = "close the connection"
    RESET = "reset the connection"
    SILENT = "say nothing"
    DEAF = "read no more"


CLOSE, RESET, SILENT, DEAF = Act

Action = Any

CLEAR = ("PIPELINING", "8BITMIME", "SIZE 100000000", "STARTTLS", "ENHANCEDSTATUSCODES")
SECURE = ("PIPELINING", "8BITMIME", "SIZE 100000000", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES")


def flights_of(link: Any) -> list[list[str]]:
    """What the client said to a scripted server, flight by flight; a flight of TLS alone is empty."""
    noted: list[tuple[int, str]] = link.server.protocol.noted
    found: list[list[str]] = [[] for _ in range(link.flights)]
    for number, said in noted:
        found[number - 1].append(said)
    return found


class Records(TLSMemoryBIOFactory):
    """Each write is a TLS record of its own."""

    protocol = TLSMemoryBIOProtocol


class Unstuffer:
    """The content on the wire, read by the letter of RFC 5321 section 4.5.2."""

    def __init__(self) -> None:
        # As if a line had just ended.
        self._held = b"\r\n"
        self._first = True

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return content, and the octets after its end once it was found."""
        data = self._held + data
        content, end, rest = data.partition(b"\r\n.\r\n")
        if end:
            self._held = b""
            return self._cut((content + b"\r\n").replace(b"\r\n.", b"\r\n")), rest
        # What may be the beginning of the end, or of a stuffed dot, waits.
        for n in range(4, 0, -1):
            if data.endswith(b"\r\n.\r\n"[:n]):
                self._held = data[-n:]
                break
        else:
            self._held = b""
        given = data[: len(data) - len(self._held)]
        return self._cut(given.replace(b"\r\n.", b"\r\n")), None

    def _cut(self, content: bytes) -> bytes:
        if self._first and content:
            self._first = False
            return content[2:]
        return content


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class _Inside(Protocol):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.tls_transport = self.transport

    def dataReceived(self, data: bytes) -> None:
        self._server.decrypted(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._server.lost += 1


class ScriptedServer(Protocol):
    transport: Any

    def __init__(
        self,
        answers: Mapping[str, Action] | None = None,
        *,
        implicit: bool = False,
        clear: tuple[str, ...] = CLEAR,
        secure: tuple[str, ...] = SECURE,
        context: SSL.Context | None = None,
        clock: Any = None,
        keep_content: bool = True,
    ) -> None:
        self.answers = dict(answers or {})
        self.implicit = implicit
        self.clear, self.secure = clear, secure
        self.context = context or good_context()
        self.clock = clock
        self.keep_content = keep_content
        self.tls: Any = None
        self.tls_transport: Any = None
        self.lost = 0
        #: Octets said; when they reach ``quota``, ``at_quota`` is done and nothing more.
        self.said = 0
        self.quota: int | None = None
        self.at_quota: Action = SILENT
        self.dead = False
        #: Where the answer to each deed began and ended, in octets said.
        self.marks: dict[str, tuple[int, int]] = {}
        #: What the client said, each with the number of the flight it came in.
        self.noted: list[tuple[int, str]] = []
        #: Every line the client said.
        self.lines: list[str] = []
        #: Contents that were ended by their final dot.
        self.messages: list[bytes] = []
        #: Octets of content seen.
        self.octets = 0
        self._seen: Counter[str] = Counter()
        self._rest = b""
        self._content: Unstuffer | None = None
        self._body: list[bytes] = []
        self._in_auth = False
        # Octets of a BDAT chunk still to come, and whether it is the last.
        self._chunk: tuple[int, bool] | None = None

    # -- connection

    def connectionMade(self) -> None:
        if self.implicit:
            self.begin_tls()
        else:
            self.answer("CONNECT", "")
            self.answer("GREETING", "")

    def begin_tls(self) -> None:
        factory = Records(
            _Creator(self.context),
            False,
            Factory.forProtocol(lambda: _Inside(self)),
            clock=self.clock,
        )
        factory.noisy = False
        self.tls = factory.buildProtocol(None)
        self._greet = self.implicit
        self.tls.makeConnection(self.transport)
        if self.implicit:
            # A server may write before the handshake is complete; TLS holds it back.
            self.answer("GREETING", "")

    def dataReceived(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.dataReceived(data)
            return
        if self.answers.get("HANDSHAKE") and data[:1] == b"\x16":
            self.answer("HANDSHAKE", "")
            return
        self.decrypted(data)

    def connectionLost(self, reason: Any = None) -> None:
        if self.tls is not None:
            self.tls.connectionLost(reason)
        else:
            self.lost += 1

    # -- what the client says

    @property
    def link(self) -> Any:
        """The connection, where it is one in memory."""
        return getattr(self.transport, "link", None)

    def _note(self, said: str) -> None:
        if self.link is not None:
            self.noted.append((self.link.flights, said))

    def decrypted(self, data: bytes) -> None:
        while data:
            if self._content is not None:
                data = self._more_content(data)
                continue
            if self._chunk is not None:
                data = self._more_chunk(data)
                continue
            self._rest += data
            line, end, data = self._rest.partition(b"\r\n")
            if not end:
                return
            self._rest = b""
            self._line(line.decode("utf-8", "surrogateescape"))

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._note(line)
        if self._in_auth:
            self._in_auth = False
            self.answer("AUTH_LINE", line)
            return
        verb = line.partition(" ")[0].upper()
        if verb == "BDAT":
            words = line.split()
            self._chunk = (int(words[1]), len(words) > 2)
            self._more_chunk(b"")
            return
        self.answer(verb, line)

    def _more_content(self, data: bytes) -> bytes:
        assert self._content is not None
        self.answer("CONTENT", "")
        content, rest = self._content.feed(data)
        self.octets += len(content)
        if self.keep_content:
            self._body.append(content)
        if rest is None:
            return b""
        self._content = None
        self.messages.append(b"".join(self._body))
        self._body = []
        self._note("<content>.")
        self.answer(".", "")
        return rest

    def _more_chunk(self, data: bytes) -> bytes:
        assert self._chunk is not None
        wanted, last = self._chunk
        self.answer("CONTENT", "")
        taken, rest = data[:wanted], data[wanted:]
        self.octets += len(taken)
        if self.keep_content:
            self._body.append(taken)
        self._chunk = (wanted - len(taken), last)
        if len(taken) == wanted:
            self._chunk = None
            if last:
                self.messages.append(b"".join(self._body))
                self._body = []
            self.answer("BDAT_LAST" if last else "BDAT", "")
        return rest

    # -- what the server does

    def answer(self, key: str, line: str) -> None:
        self._seen[key] += 1
        n = self._seen[key]
        tls = "/TLS" if self.tls is not None else ""
        begun = self.said
        for name in (f"{key}{tls}#{n}", f"{key}#{n}", f"{key}{tls}", key):
            if name in self.answers:
                self.act(self.answers[name], line)
                break
        else:
            self._default(key, line)
        self.marks[key] = (begun, self.said)

    def _default(self, key: str, line: str) -> None:
        default = getattr(self, f"_on_{key.lower()}", None) if key.isidentifier() else None
        if key == ".":
            self.act("250 2.0.0 Ok: queued as 4ABC", line)
        elif default is not None:
            self.act(default(line), line)
        elif key not in {"CONTENT", "CONNECT"}:
            self.act("500 5.5.1 what?", line)

    def act(self, action: Action, line: str = "") -> None:
        if self.dead:
            return
        if isinstance(action, str):
            self._say(action.encode("utf-8") + b"\r\n")
        elif isinstance(action, bytes):
            self._say(action)
        elif isinstance(action, tuple):
            for each in action:
                self.act(each, line)
        elif isinstance(action, Act):
            self._do(action)
        elif action is not None:
            self.act(action(self, line), line)

    def _do(self, act: Act) -> None:
        transport: Any = self.transport
        if act is CLOSE:
            transport.loseConnection()
        elif act is RESET:
            getattr(transport, "reset", transport.abortConnection)()
        elif act is DEAF:
            transport.pauseProducing()

    def _say(self, data: bytes) -> None:
        if self.transport.disconnecting:
            return  # a program that has closed its socket
        left = len(data) if self.quota is None else self.quota - self.said
        if data.startswith(b"354") and left >= len(data):
            self._content = Unstuffer()
        elif data.startswith(b"334"):
            self._in_auth = True
        self.said += len(data)
        (self.tls_transport or self.transport).write(data[:left])
        if left <= len(data) and self.quota is not None:
            self.act(self.at_quota)
            self.dead = True

    def _on_greeting(self, line: str) -> Action:
        return "220 mx.example.net ESMTP"

    def _on_ehlo(self, line: str) -> Action:
        words = ["mx.example.net", *(self.secure if self.tls is not None else self.clear)]
        return "\r\n".join([*(f"250-{w}" for w in words[:-1]), f"250 {words[-1]}"])

    def _on_helo(self, line: str) -> Action:
        return "250 mx.example.net"

    def _on_starttls(self, line: str) -> Action:
        return (b"220 2.0.0 go ahead\r\n", lambda server, _: server.begin_tls())

    def _on_auth(self, line: str) -> Action:
        words = line.split()
        if len(words) < 3:
            return "334 "
        return self._judge(words[2])

    def _on_auth_line(self, line: str) -> Action:
        return self._judge(line)

    def _judge(self, text: str) -> Action:
        good = b64decode(text).decode().split("\0")[1:] == [USER, PASSWORD]
        return "235 2.7.0 welcome" if good else "535 5.7.8 no"

    def _on_bdat(self, line: str) -> Action:
        return "250 2.0.0 ok"

    def _on_bdat_last(self, line: str) -> Action:
        return "250 2.0.0 Ok: queued as 4ABC"

    def _on_mail(self, line: str) -> Action:
        return "250 2.1.0 ok"

    def _on_rcpt(self, line: str) -> Action:
        return "250 2.1.5 ok"

    def _on_data(self, line: str) -> Action:
        return "354 go ahead"

    def _on_rset(self, line: str) -> Action:
        return "250 2.0.0 ok"

    def _on_noop(self, line: str) -> Action:
        return "250 2.0.0 ok"

    def _on_quit(self, line: str) -> Action:
        return ("221 2.0.0 bye", CLOSE)
