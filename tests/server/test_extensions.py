"""An application's extensions: EHLO keywords, commands, parameters of MAIL and RCPT."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.server.conftest import Client, Net
from twisted_sendmail import (
    ConnectionInfo,
    Extension,
    ExtensionCommand,
    ExtensionParameter,
    InvalidInput,
    InvalidServer,
    Receiver,
    Recipient,
    Reply,
    ServerSettings,
)


def number(text: str | None) -> int:
    return int(text or "")


def session_name(connection: ConnectionInfo, argument: str) -> Reply | None:
    return Reply(250, (f"2.0.0 {argument} for {connection.hello}",)) if argument else None


LABEL = Extension(
    "xlabel",
    "LEVEL=2",
    mail=(ExtensionParameter("XLABEL"), ExtensionParameter("XCOST", number, str)),
    rcpt=(ExtensionParameter("XFOLDER"),),
    commands=(ExtensionCommand("XNAME", session_name),),
)


def client(net: Net, *extensions: str | Extension, hello: str = "EHLO", **settings: Any) -> Client:
    net.server(settings=ServerSettings(require_tls=False, extensions=extensions, **settings))
    made = net.client()
    made.keywords = made.send(f"{hello} client.example.net\r\n")  # type: ignore[attr-defined]
    return made


def test_the_keyword_is_offered_with_its_text(net: Net) -> None:
    extensions: list[str | Extension] = ["PIPELINING", LABEL, "XOTHER"]
    said: Any = client(net, *extensions)
    assert [line[4:] for line in said.keywords[1:4]] == ["PIPELINING", "XLABEL LEVEL=2", "XOTHER"]


def test_an_offer_may_depend_on_tls(net: Net) -> None:
    only = Extension("XSAFE", offer=lambda settings, tls: settings.host if tls else None)
    net.server(tls=net.certificate, settings=ServerSettings(host="mx", extensions=(only,)))
    in_clear, in_tls = net.client(), net.client(implicit=True)
    assert "XSAFE" not in str(in_clear.send("EHLO x\r\n"))
    assert "250-XSAFE mx" in in_tls.send("EHLO x\r\n")


def test_parameters_reach_the_receiver(net: Net) -> None:
    seen: list[Any] = []

    class Noting(Receiver):
        def sender(self, sender: Any, parameters: Any) -> None:
            seen.append((parameters.others, parameters.size))

        def recipient(self, recipient: Recipient) -> None:
            seen.append(recipient.others)

    net.server(Noting, settings=ServerSettings(require_tls=False, extensions=(LABEL,)))
    made = net.client()
    made.send("EHLO x\r\n")
    assert made.code("MAIL FROM:<> XLABEL=a+3Db SIZE=10 xcost=7") == "250 2.0.0"
    assert made.code("RCPT TO:<a@example.org> XFOLDER=in") == "250 2.0.0"
    assert seen == [({"XLABEL": "a=b", "XCOST": 7}, 10), {"XFOLDER": "in"}]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("MAIL FROM:<> XCOST=much", "501 5.5.4"),
        ("MAIL FROM:<> XLABEL", "501 5.5.4"),
        ("MAIL FROM:<> XLABEL=+ZZ", "501 5.5.4"),
        ("MAIL FROM:<> XFOLDER=in", "555 5.5.4"),
        ("MAIL FROM:<> RET=FULL", "555 5.5.4"),
    ],
)
def test_parameters_that_cannot_be_parsed_are_refused(net: Net, command: str, code: str) -> None:
    assert client(net, LABEL).code(command) == code


def test_parameters_are_unknown_where_the_extension_is_not_offered(net: Net) -> None:
    assert client(net, "PIPELINING").code("MAIL FROM:<> XLABEL=a") == "555 5.5.4"
    assert client(net, LABEL, hello="HELO").code("MAIL FROM:<> XLABEL=a") == "555 5.5.4"


def test_a_command_is_answered_by_its_function(net: Net) -> None:
    made = client(net, LABEL)
    assert made.send("XNAME blue\r\n") == ["250 2.0.0 blue for client.example.net"]
    assert made.send("xname\r\n") == ["250 2.0.0 Ok"]
    assert "C: XNAME ****" in list(made.server.session.transcript)
    assert client(net, LABEL, hello="HELO").code("XNAME blue") == "502 5.5.1"
    assert client(net, "PIPELINING").code("XNAME blue") == "502 5.5.1"


def test_the_function_of_a_command_may_answer_later_and_may_fail(net: Net) -> None:
    later: Deferred[Reply] = Deferred()

    def fail(*_: Any) -> None:
        raise RuntimeError

    commands = (ExtensionCommand("XLATER", lambda *_: later), ExtensionCommand("XFAIL", fail))
    made = client(net, Extension("XTEST", commands=commands))
    assert made.send("XLATER\r\nXFAIL\r\nNOOP\r\n") == []
    later.callback(Reply(550, ("5.7.1 no",)))
    assert [line[:9] for line in made.send("")] == ["550 5.7.1", "451 4.3.0", "250 2.0.0"]


def test_a_command_may_begin_the_session_anew(net: Net) -> None:
    restart = ExtensionCommand(
        "XRESTART", lambda _, given: Reply(220 if given else 550, ("mx",)), restarts=True
    )
    made = client(net, Extension("XRESTART", commands=(restart,)))
    assert made.code("MAIL FROM:<>") == "250 2.0.0"
    assert made.code("XRESTART") == "550 5.0.0"
    assert made.code("RCPT TO:<a@example.org>") == "250 2.0.0"
    assert made.code("XRESTART now") == "220 2.0.0"
    assert made.code("MAIL FROM:<>") == "503 5.5.1"
    assert made.code("EHLO y") == "250 LIMITS"
    assert made.code("MAIL FROM:<>") == "250 2.0.0"


def test_an_extension_may_replace_one_of_the_package(net: Net) -> None:
    made = client(net, "DSN", Extension("DSN", mail=(ExtensionParameter("RET"),)))
    assert made.code("MAIL FROM:<> RET=ANYTHING") == "250 2.0.0"


def test_extensions_that_contradict_each_other_are_refused(net: Net) -> None:
    other = Extension("XOTHER", mail=(ExtensionParameter("xlabel"),))
    with pytest.raises(InvalidInput, match="XLABEL and XOTHER both have XLABEL"):
        client(net, LABEL, other)
    with pytest.raises(InvalidServer, match="SIZE"):
        client(net, Extension("size"))


@pytest.mark.parametrize("keyword", ["", "X LABEL", "X=", "\u00e4", "X\r\nMAIL"])
def test_keywords_are_checked(keyword: str) -> None:
    with pytest.raises(InvalidInput):
        Extension(keyword)
    with pytest.raises(InvalidInput):
        ExtensionParameter(keyword)


@pytest.mark.parametrize("verb", ["MAIL", "quit", "", "X Y", "X\r\n"])
def test_verbs_are_checked(verb: str) -> None:
    with pytest.raises(InvalidInput):
        ExtensionCommand(verb)
