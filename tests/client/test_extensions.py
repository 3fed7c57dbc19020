"""An application's extensions on the client's side."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_sendmail import (
    Envelope,
    Extension,
    ExtensionCommand,
    ExtensionParameter,
    ExtensionUnavailable,
    InvalidInput,
    Recipient,
    Reply,
    ServerSettings,
    SubmissionServer,
    TLSPolicy,
    open_session,
    submit,
)
from twisted_sendmail.testing import MemoryServer

MESSAGE = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: x\r\n\r\nhello\r\n"
LABEL = Extension(
    "XLABEL",
    mail=(
        ExtensionParameter("XLABEL"),
        ExtensionParameter("XCOST", lambda text: int(text or ""), str),
    ),
    rcpt=(ExtensionParameter("XFOLDER"),),
    commands=(
        ExtensionCommand("XNAME", lambda _, name: Reply(220, (f"2.0.0 {name}",)), restarts=True),
    ),
)
ENVELOPE = Envelope(
    "a@example.org",
    [Recipient("b@example.net", others={"XFOLDER": "in box"}), "c@example.net"],
    others={"XLABEL": "a=b", "xcost": 7},
)


def memory_server(*extensions: Extension | str) -> MemoryServer:
    return MemoryServer(tls=False, settings=ServerSettings(extensions=extensions))


def submission(server: MemoryServer, *extensions: Extension) -> SubmissionServer:
    return SubmissionServer(
        "localhost", tls=TLSPolicy.NONE, endpoint=server.endpoint, extensions=extensions
    )


@pytest.mark.parametrize("offered", [(), ("CHUNKING", "PIPELINING")], ids=["DATA", "BDAT"])
def test_parameters_of_an_envelope_are_sent(offered: tuple[str, ...]) -> None:
    with memory_server(LABEL, *offered) as server:
        server.run(submit(server.clock, submission(server, LABEL), MESSAGE, envelope=ENVELOPE))
        (message,) = server.messages
    assert message.parameters.others == {"XLABEL": "a=b", "XCOST": 7}
    assert [recipient.others for recipient in message.recipients] == [{"XFOLDER": "in box"}, {}]


def test_a_parameter_whose_extension_is_not_offered_is_an_error() -> None:
    with (
        memory_server("PIPELINING") as server,
        pytest.raises(ExtensionUnavailable, match="XLABEL is needed and not offered"),
    ):
        server.run(submit(server.clock, submission(server, LABEL), MESSAGE, envelope=ENVELOPE))


def test_a_parameter_that_no_extension_has_is_an_error() -> None:
    with memory_server(LABEL) as server, pytest.raises(InvalidInput, match="XLABEL"):
        server.run(submit(server.clock, submission(server), MESSAGE, envelope=ENVELOPE))


def test_a_command_may_begin_the_session_again() -> None:
    with memory_server(LABEL) as server:

        async def converse() -> list[Any]:
            protocol = await open_session(server.clock, submission(server, LABEL))
            first = sorted(protocol.session.capabilities)
            reply = await protocol.command("xname", "blue")
            forgotten = sorted(protocol.session.capabilities)
            refused = protocol.session.confirmed.value
            await protocol.ehlo("client.example.net")
            again = sorted(protocol.session.capabilities)
            mail = await protocol.mail("a@example.org", (("XLABEL", "x"),))
            protocol.leave()
            return [str(reply), forgotten, refused, again == first, mail.code]

        assert server.run(converse()) == ["220 2.0.0 blue", [], "greeted", True, 250]


def test_the_repr_of_a_connection_shows_its_state() -> None:
    with memory_server() as server:

        async def converse() -> list[str]:
            protocol = await open_session(server.clock, submission(server))
            shown = [protocol.host, repr(protocol)]
            await protocol.mail("a@example.org")
            shown.append(repr(protocol))
            protocol.leave()
            return shown

        host, *shown = server.run(converse())
    states = "ready for a message", "in a transaction without a recipient"
    assert shown == [f"<SubmissionProtocol {host}: {state}>" for state in states]
