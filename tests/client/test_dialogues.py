"""The dialogue files, played in memory by ``sendmail`` and command by command.

The server's replies come whole, line by line, and octet by octet; on a transport that can
start TLS, and on one that cannot.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from twisted.python.failure import Failure

from tests.client.certificates import NAME
from tests.client.conftest import BODY, Net
from tests.client.scripted_server import ScriptedServer
from tests.dialogue import Dialogue, Step, all_dialogues
from twisted_sendmail import Credentials, Reply, ServerVerifier, SubmissionProtocol, TLSPolicy
from twisted_sendmail.testing import MemoryEndpoint


class DialogueServer(ScriptedServer):
    """Says what is written, when it was told what is written."""

    def __init__(self, dialogue: Dialogue, cut: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._steps = list(dialogue.steps)
        self._cut = cut
        self._heard = b""
        self.wrong: list[tuple[bytes, bytes]] = []

    def connectionMade(self) -> None:
        self._go_on()

    def decrypted(self, data: bytes) -> None:
        if self.tls is None and data.startswith(b"\x16"):
            return  # a handshake, with a server that will not have it
        self._heard += data
        expected = self._steps[0].octets if self._steps and self._steps[0].who == "C" else b""
        if not expected.startswith(self._heard):
            self.wrong.append((expected, self._heard))
        elif self._heard == expected:
            self._heard = b""
            del self._steps[0]
            self._go_on()

    def _go_on(self) -> None:
        while self._steps and self._steps[0].who != "C":
            step = self._steps.pop(0)
            if step.who == "S":
                self._speak(step)
            elif step.word == "TLS":
                self.begin_tls()
            elif step.word == "close":
                self.transport.loseConnection()

    def _speak(self, step: Step) -> None:
        pieces = {
            "whole": [step.octets],
            "lines": step.lines,
            "octets": [bytes([octet]) for octet in step.octets],
        }[self._cut]
        for piece in pieces:
            (self.tls_transport or self.transport).write(piece)

    @property
    def finished(self) -> bool:
        """Everything was said, or nobody is left to say it to."""
        return not self._steps


def outcome(result: Any) -> set[str]:
    """All names by which what came of it may be called."""
    if result.error is None:
        return {"accepted"} if result.value.accepted else {"nothing"}
    report = result.error.report
    names = {kind.__name__ for kind in type(result.error).__mro__}
    return names | ({"in doubt"} if report and report.in_doubt else set())


@pytest.mark.parametrize("cut", ["whole", "lines", "octets", "bare"])
@pytest.mark.parametrize("dialogue", all_dialogues(), ids=lambda dialogue: dialogue.name)
def test_a_dialogue(net: Net, dialogue: Dialogue, cut: str) -> None:
    """Word for word, flight for flight, and what came of it."""
    server = DialogueServer(dialogue, "whole" if cut == "bare" else cut, clock=net.clock)
    endpoint = MemoryEndpoint(net.pump, server, bare=cut == "bare")
    user = dialogue.settings.get("user", "").split()
    body = dialogue.settings.get("body", "hello\\n").replace("\\n", "\r\n").encode()
    result = net.start(
        endpoint,
        message=BODY.replace(b"hello\r\n", body),
        tls=TLSPolicy(dialogue.settings["tls"]),
        credentials=Credentials(*user) if user else None,
        recipients=dialogue.settings.get("to", "b@example.net").split(", "),
    )
    net.link.apart = cut in {"lines", "octets"}
    net.pump.run()
    net.pump.advance(700)
    assert server.wrong == []
    assert server.finished
    assert result.fired == 1
    assert outcome(result) & set(dialogue.outcome.split(" or "))
    assert ("in doubt" in outcome(result)) == (dialogue.outcome == "in doubt")


# -- by hand


class ByHand:
    """Gives each command of a dialogue by the method of ``SubmissionProtocol`` it has."""

    def __init__(self, net: Net, dialogue: Dialogue, cut: str) -> None:
        self._net = net
        self._steps = dialogue.steps
        # A fragment of a TLS record is waited for until it is too late.
        self.injects = dialogue.name.startswith("starttls-injection")
        self.waits = self.injects or dialogue.steps[-1].lines == [b"silence"]
        self._verifier = ServerVerifier(net.trust, NAME)
        self.protocol = SubmissionProtocol(net.clock, server_name=NAME)
        #: Each command, and its reply or the kind of its error.
        self.results: list[tuple[str, Any]] = []
        server = DialogueServer(dialogue, cut, clock=net.clock)
        link = net.pump.connect(self.protocol, server)
        link.apart = cut != "whole"
        self.server = server
        self._note("", self.protocol.greeting)
        if dialogue.settings["tls"] == "implicit":
            _ = self.protocol.start_tls(self._verifier)

    def play(self) -> None:
        self._net.pump.run()
        for step in self._steps:
            if step.who == "C":
                with self.protocol.group():
                    self._speak([line.removesuffix(b"\r\n") for line in step.lines])
            self._net.pump.run()
        if self.waits:
            self._net.pump.advance(700)

    def _note(self, line: str, deferred: Any) -> None:
        at = len(self.results)
        self.results.append((line, None))

        def fired(result: Any) -> None:
            assert self.results[at] == (line, None)
            kind = type(result.value) if isinstance(result, Failure) else result
            self.results[at] = (line, kind)

        _ = deferred.addBoth(fired)

    def _speak(self, lines: list[bytes]) -> None:
        said = self.results[-1][1]
        code = said.code if isinstance(said, Reply) else 0
        if code == 354:
            end = lines.index(b".")
            content = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:end])
            self._note(".", self.protocol.content(content) if end else self.protocol.lone_dot())
            lines = lines[end + 1 :]
        for line in lines:
            self._note(line.decode(), self._command(line.decode(), in_auth=code == 334))

    def _command(self, line: str, *, in_auth: bool) -> Any:
        protocol = self.protocol
        if in_auth:
            return (
                protocol.auth_cancel() if line == "*" else protocol.auth_response(b64decode(line))
            )
        verb, _, rest = line.partition(" ")
        if verb in {"MAIL", "RCPT"}:
            path, _, words = rest.partition(":")[2].partition(" ")
            pairs = [word.partition("=") for word in words.split()]
            parameters = tuple((key, value or None) for key, _, value in pairs)
            give: Any = protocol.mail if verb == "MAIL" else protocol.rcpt
            return give(path, parameters)
        if verb == "AUTH":
            mechanism, _, initial = rest.partition(" ")
            return protocol.auth(mechanism, b64decode(initial) if initial else None)
        if verb == "STARTTLS":
            return protocol.starttls(self._verifier)
        return getattr(protocol, verb.lower())(*[rest] if rest else [])


@pytest.mark.parametrize("dialogue", all_dialogues(), ids=lambda dialogue: dialogue.name)
def test_a_dialogue_by_hand(net: Net, dialogue: Dialogue) -> None:
    """The same commands give the same replies and errors, in any cutting of what the server sent."""
    played: list[list[Any]] = []
    for cut in ("whole", "lines", "octets"):
        hand = ByHand(net, dialogue, cut)
        hand.play()
        assert hand.server.wrong == []
        assert hand.server.finished
        names = {kind.__name__ for kind in type(hand.protocol.session.over).__mro__}
        allowed = {dialogue.session} if dialogue.session else {"NoneType", "ConnectionClosed"}
        # What is injected after the 220 to STARTTLS is noticed with it, or in the handshake.
        assert names & (allowed | ({"TLSFailure", "SendTimeout"} if hand.injects else set()))
        assert None not in [result for _, result in hand.results]
        played.append(hand.results)
        hand.protocol.abort()
    assert hand.injects or [played[0]] * 3 == played
