"""The server parses the command lines that the client writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_sendmail import ForwardPath, Reply, ReversePath
from twisted_sendmail.smtp import (
    Auth,
    AuthCancel,
    AuthLine,
    Bdat,
    Command,
    Data,
    Hello,
    Mail,
    Noop,
    OtherCommand,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Verb,
)
from twisted_sendmail.smtp.command_parser import parse_auth_line, parse_command
from twisted_sendmail.smtp.limits import MAX_AUTH_LINE

COMMANDS: list[Command] = [
    Hello("client.example.org"),
    Hello("[192.0.2.1]", Verb.HELO),
    Hello("[IPv6:2001:db8::1]", Verb.LHLO),
    StartTLS(),
    Data(),
    Rset(),
    Noop(),
    Quit(),
    Auth("PLAIN"),
    Auth("PLAIN", b""),
    Auth("PLAIN", b"\0jane\0s3cret"),
    Mail(ReversePath()),
    Mail(ReversePath.parse("a@example.org"), (("SIZE", "10"), ("SMTPUTF8", None))),
    Mail(ReversePath.parse('"a b>c"@example.org')),
    Rcpt(ForwardPath.parse("b@[192.0.2.1]"), (("NOTIFY", "NEVER"),)),
    Rcpt(ForwardPath.parse("postmaster")),
    Rcpt(ForwardPath.parse("\u00e4@example.org")),
    Bdat(0),
    Bdat(123, last=True),
    OtherCommand("VRFY", "jane"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_that_is_written_is_read_back(command: Command) -> None:
    assert parse_command(command.line().removesuffix(b"\r\n")) == command


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_case_does_not_matter_in_what_is_a_keyword(command: Command) -> None:
    verb, _, rest = command.line().removesuffix(b"\r\n").partition(b" ")
    line = verb.swapcase() + (b" " + rest if rest else b"")
    assert parse_command(line) == command


@given(st.binary(max_size=200))
def test_whatever_a_line_is_it_is_a_command_or_a_refusal(line: bytes) -> None:
    found = parse_command(line)
    if isinstance(found, Reply):
        assert found.permanent
        assert found.enhanced is not None
    else:
        assert isinstance(found, Command)
        again = parse_command(found.line().removesuffix(b"\r\n"))
        assert again == found


@given(st.binary(max_size=200))
def test_an_answer_in_auth_is_base64_a_star_or_refused(line: bytes) -> None:
    found = parse_auth_line(line)
    assert isinstance(found, (AuthLine, AuthCancel, Reply))
    written = parse_auth_line(AuthLine(line).line().removesuffix(b"\r\n"))
    assert written == AuthLine(line)


def test_an_answer_in_auth_may_have_12288_octets() -> None:
    assert isinstance(parse_auth_line(b"A" * MAX_AUTH_LINE), AuthLine)
    assert isinstance(parse_auth_line(b"A" * (MAX_AUTH_LINE + 4)), Reply)
