"""A group of commands gives what its commands give one by one, with the results in one list."""

from __future__ import annotations

import re
from collections import deque
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.client_states import Session, brought_to
from twisted_sendmail import ConnectionClosed, Reply, SendmailError
from twisted_sendmail.smtp import (
    Bdat,
    ClientState,
    Command,
    CommandGroup,
    CommandNotAllowed,
    ContentCommand,
    Data,
    Mail,
    Rcpt,
    Rset,
)

CONTENT = b"Subject: hi\r\n\r\nhi\r\n"


class Commands(NamedTuple):
    """The commands of one message."""

    given: tuple[Command, ...]
    payload: bytes | None


def message(recipients: int, *, chunk: bool, reset: bool = False) -> Commands:
    given: list[Command] = [Rset()] if reset else []
    given.append(Mail("alice@example.org"))
    given += [Rcpt(f"r{n}@example.net") for n in range(recipients)]
    given.append(Bdat(len(CONTENT), last=True) if chunk else Data())
    return Commands(tuple(given), CONTENT if chunk else None)


class Twin:
    """Two sessions with the same commands: one in groups, one command by command."""

    def __init__(self) -> None:
        self.grouped = brought_to(ClientState.READY)
        self.single = brought_to(ClientState.READY)
        self.groups: list[CommandGroup] = []
        self.singles: list[list[CommandGroup]] = []

    def send(self, commands: Commands) -> bool:
        """Send *commands* to both, if both take them."""
        given, payload = commands
        try:
            self.groups.append(self.grouped.send(*given, payload=payload))
        except SendmailError as e:
            self.refused_too(given, payload, e)
            return False
        last = len(given) - 1
        self.singles.append(
            [
                self.single.send(each, payload=payload if n == last else None)
                for n, each in enumerate(given)
            ]
        )
        return True

    def refused_too(
        self, given: tuple[Command, ...], payload: bytes | None, error: Exception
    ) -> None:
        """One of the commands is refused by the other session; the rest is taken back."""
        taken: deque[CommandGroup] = deque()
        with pytest.raises(type(error), match=re.escape(str(error))):
            taken.extend(self.single.send(each, payload=payload) for each in given)
        while taken:
            assert self.single.withdraw(taken.pop())

    def flush(self) -> bytes:
        written = self.grouped.data_to_send()
        assert self.single.data_to_send() == written
        return written

    def receive(self, data: bytes) -> None:
        self.grouped.receive(data)
        self.single.receive(data)

    def finish(self) -> None:
        self.grouped.finish(ConnectionClosed("lost"), by_server=True)
        self.single.finish(ConnectionClosed("lost"), by_server=True)

    def compare(self) -> None:
        for group, singles in zip(self.groups, self.singles, strict=True):
            each = [answer for single in singles for answer in single.replies]
            assert words(each) == words(group.replies)
            assert group.complete == all(single.complete for single in singles)
        assert [g for g in self.groups if g.complete] == list(self.grouped.completed)
        assert facts(self.single) == facts(self.grouped)


def words(answers: list[Any]) -> list[str]:
    return [f"{type(each).__name__} {each} {getattr(each, 'detail', '')}" for each in answers]


def facts(session: Session) -> list[object]:
    return [
        session.confirmed,
        session.optimistic,
        session.idle,
        session.turn if session.over is None else None,
        str(session.owed),
        session.owed_verb,
        str(session.over),
        str(session.closing),
        str(session.transcript),
        len(session.transcript),
    ]


REPLIES = st.sampled_from(
    [
        *[b"250 ok\r\n"] * 12,
        b"250-two\r\n250 lines\r\n",
        b"251 will forward\r\n",
        b"354 go\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"451 later\r\n",
        b"421 closing\r\n",
        b"220 what\r\n",
        b"junk\r\n",
        b"25",
    ]
)
MESSAGES = st.builds(message, st.integers(1, 4), chunk=st.booleans(), reset=st.booleans())
STEPS = st.lists(
    st.one_of(
        MESSAGES,
        st.lists(REPLIES, min_size=1, max_size=12).map(b"".join),
        st.sampled_from(["flush", "flush", "finish"]),
    ),
    max_size=20,
)


@given(STEPS)
def test_a_group_gives_what_its_commands_give_one_by_one(steps: list[Any]) -> None:
    twin = Twin()
    for step in steps:
        if isinstance(step, Commands):
            twin.send(step)
        elif isinstance(step, bytes):
            twin.receive(step)
        else:
            getattr(twin, step)()
        twin.compare()


@given(
    st.sampled_from([b"x\r\n", b".dot\r\nmore\r\n"]),
    st.one_of(st.none(), MESSAGES),
    st.lists(REPLIES, max_size=8),
)
def test_a_whole_content_is_its_pieces_and_its_end(
    content: bytes, after: Commands | None, replies: list[bytes]
) -> None:
    twin = Twin()
    assert twin.send(message(1, chunk=False))
    _ = twin.flush()
    twin.receive(b"250 ok\r\n" * 2)
    twin.receive(b"354 go\r\n")
    twin.compare()
    twin.groups.append(twin.grouped.send(ContentCommand(), payload=content))
    twin.singles.append([twin.single.send(ContentCommand())])
    assert twin.single.data_to_send() == b""
    twin.single.content(content)
    twin.single.end_content()
    if after is not None:
        twin.send(after)
    assert twin.flush().startswith(content.replace(b".dot", b"..dot"))
    twin.compare()
    for reply in replies:
        twin.receive(reply)
        twin.compare()
    twin.finish()
    twin.compare()


def test_groups_complete_in_their_order() -> None:
    session = brought_to(ClientState.READY)
    groups = []
    for reset in (False, True):
        given, payload = message(1, chunk=True, reset=reset)
        groups.append(session.send(*given, payload=payload))
    wire = [b"".join(each.line() for each in group.commands) + CONTENT for group in groups]
    assert b"".join(wire) == session.data_to_send()
    session.receive(b"250 ok\r\n" * 7)
    assert groups == list(session.completed)
    assert [[Reply(250, ("ok",))] * n for n in (3, 4)] == [each.replies for each in groups]
    assert session.confirmed is ClientState.READY
    assert session.idle


def test_refusals_are_in_the_list() -> None:
    session = brought_to(ClientState.READY)
    group = session.send(*message(2, chunk=False).given)
    _ = session.data_to_send()
    session.receive(b"250 ok\r\n550 no\r\n251 ok\r\n")
    assert not group.complete
    session.receive(b"354 go\r\n")
    assert [answer.code for answer in group.replies] == [250, 550, 251, 354]  # type: ignore[union-attr]


def test_a_group_that_ends_with_data_ends_the_flight() -> None:
    """RFC 2920 section 3.1."""
    session = brought_to(ClientState.READY)
    group = session.send(*message(2, chunk=False).given)
    assert b"".join(each.line() for each in group.commands) == session.data_to_send()
    session.receive(b"250 ok\r\n" * 3 + b"354 go\r\n")
    assert session.confirmed is ClientState.DATA


def test_without_pipelining_a_group_is_one_command_after_the_other() -> None:
    session = brought_to(ClientState.READY)
    session.withhold("PIPELINING")
    given, payload = message(1, chunk=True)
    group = session.send(*given, payload=payload)
    assert session.data_to_send() == b"MAIL FROM:<alice@example.org>\r\n"
    session.receive(b"250 ok\r\n")
    assert session.data_to_send() == b"RCPT TO:<r0@example.net>\r\n"
    session.receive(b"550 no\r\n")
    # The chunk has no recipient.
    assert session.data_to_send() == b""
    assert isinstance(group.replies[-1], CommandNotAllowed)
    assert group.complete


def test_a_group_of_which_one_command_does_not_fit_is_not_sent_at_all() -> None:
    session = brought_to(ClientState.READY)
    with pytest.raises(CommandNotAllowed, match="DATA not sent"):
        session.send(Mail("alice@example.org"), Data())
    assert (session.idle, session.data_to_send()) == (True, b"")
