"""The dialogues, played by the session alone: whole, line by line, octet by octet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.dialogue import Dialogue, Step, all_dialogues, commands
from twisted_sendmail.smtp.client_session import ClientSession
from twisted_sendmail.smtp.client_table import State
from twisted_sendmail.smtp.command import Content
from twisted_sendmail.smtp.errors import ConnectionClosed, SendTimeout
from twisted_sendmail.smtp.reply import Reply

CUTS: dict[str, Callable[[Step], list[bytes]]] = {
    "whole": lambda step: [step.octets],
    "lines": lambda step: step.lines,
    "octets": lambda step: [bytes([octet]) for octet in step.octets],
}


def unstuffed(wire: bytes) -> bytes:
    lines = wire.removesuffix(b".\r\n").splitlines(keepends=True)
    return b"".join(line[1:] if line.startswith(b".") else line for line in lines)


def speak(session: ClientSession, step: Step) -> bytes:
    """Say what the client says in *step*; the octets that go out."""
    written = b""
    lone = session.confirmed is State.LONE_DOT
    said = commands(
        step.lines,
        in_auth=session.confirmed is State.AUTH,
        content=lone or session.confirmed is State.DATA,
        lone=lone,
    )
    for each in said:
        if isinstance(each, bytes):
            session.content(unstuffed(each))
            session.end_content()
            continue
        session.send(each, tag=str(each))
        if isinstance(each, Content):
            written += session.data_to_send()
    return written + session.data_to_send()


def played(dialogue: Dialogue, cut: str) -> tuple[list[Any], str]:
    """What came of each command, and how the session ended."""
    session = ClientSession("greeting")
    for step in dialogue.steps:
        if step.who == "C":
            assert step.octets == speak(session, step)
        elif step.who == "S":
            for piece in CUTS[cut](step):
                session.receive(piece)
        elif step.word == "TLS":
            session.begin_tls()
            session.tls_begun("TLS")
        elif step.word == "close":
            session.finish(ConnectionClosed("connection lost"))
        else:
            session.finish(SendTimeout("too late"))
    events = [
        (e.tag, e.result if isinstance(e.result, Reply) else type(e.result)) for e in session.events
    ]
    return events, type(session.over).__name__ if session.over else ""


@pytest.mark.parametrize("dialogue", all_dialogues(), ids=lambda dialogue: dialogue.name)
def test_a_dialogue(dialogue: Dialogue) -> None:
    """As it is written, in any cutting."""
    events, end = played(dialogue, "whole")
    assert dialogue.session == end
    for cut in ("lines", "octets"):
        again, same_end = played(dialogue, cut)
        assert end == same_end
        # What is injected behind the 220 to STARTTLS is noticed then or right after it.
        assert dialogue.name.startswith("starttls-injection") or events == again
