"""A server without TLS on the loopback interface that sends scripted replies."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

#: The replies, by verb; ``.`` is the end of the content.
GOOD = {
    "greeting": b"220 scripted",
    "EHLO": b"250-scripted\r\n250 8BITMIME",
    "MAIL": b"250 ok",
    "RCPT": b"250 ok",
    "DATA": b"354 go on",
    ".": b"250 ok",
    "NOOP": b"250 ok",
    "QUIT": b"221 bye",
}
#: Instead of a reply: send nothing, or close the connection.
SILENCE, END = b"", b"END"


class _Scripted(LineReceiver):
    factory: ScriptedServer

    def connectionMade(self) -> None:
        self._content = False
        self._answer("greeting")

    def lineReceived(self, line: bytes) -> None:
        if self._content and line != b".":
            return
        self._content = line == b"DATA"
        self._answer("." if line == b"." else line[:4].decode().upper())

    def _answer(self, what: str) -> None:
        self.factory.record(what)
        reply = self.factory.replies.get(what, b"500 what?")
        if reply == END:
            self.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
        elif reply != SILENCE:
            self.sendLine(reply)  # type: ignore[no-untyped-call]  # Twisted leaves it untyped


class ScriptedServer(Factory):
    """Listens at once."""

    protocol = _Scripted  # type: ignore[assignment]  # Factory is generic in name only
    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.replies = dict(GOOD)
        #: The verbs that it received.
        self.received: list[str] = []
        self._waiting: dict[str, Deferred[None]] = {}
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.url = f"smtp://127.0.0.1:{self._port.getHost().port}"

    def record(self, what: str) -> None:
        """Record a verb; called by the protocol."""
        self.received.append(what)
        if what in self._waiting:
            self._waiting.pop(what).callback(None)

    def wait_for(self, what: str) -> Deferred[None]:
        """Return a Deferred that fires when it receives *what*; ``greeting`` at a connection."""
        waiting: Deferred[None] = Deferred()
        if what in self.received:
            waiting.callback(None)
        else:
            self._waiting[what] = waiting
        return waiting

    def stop(self) -> None:
        """Stop listening."""
        self._port.stopListening()
