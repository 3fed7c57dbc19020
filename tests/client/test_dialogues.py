"""The dialogues, played by ``sendmail`` in memory: whole, line by line, octet by octet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import BODY, Net
from tests.client.scripted_server import ScriptedServer
from tests.dialogue import Dialogue, Step, all_dialogues
from twisted_sendmail.client.tls_policy import TLSPolicy
from twisted_sendmail.sasl.credentials import Credentials


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


@pytest.mark.parametrize("cut", ["whole", "lines", "octets"])
@pytest.mark.parametrize("dialogue", all_dialogues(), ids=lambda dialogue: dialogue.name)
def test_a_dialogue(net: Net, dialogue: Dialogue, cut: str) -> None:
    """Word for word, flight for flight, and what came of it."""
    server = DialogueServer(dialogue, cut, clock=net.clock)
    user = dialogue.settings.get("user", "").split()
    body = dialogue.settings.get("body", "hello\\n").replace("\\n", "\r\n").encode()
    result = net.start(
        server,
        message=BODY.replace(b"hello\r\n", body),
        tls=TLSPolicy(dialogue.settings["tls"]),
        credentials=Credentials(*user) if user else None,
        recipients=dialogue.settings.get("to", "b@example.net").split(", "),
    )
    net.link.apart = cut != "whole"
    net.pump.run()
    net.pump.advance(700)
    assert [] == server.wrong
    assert server.finished
    assert 1 == result.fired
    assert outcome(result) & set(dialogue.outcome.split(" or "))
    assert ("in doubt" in outcome(result)) == (dialogue.outcome == "in doubt")
