"""A group of commands is a short way to say them one by one: nothing else comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.client_states import brought_to
from twisted_sendmail import ClientSession, ConnectionClosed, Reply, SendmailError
from twisted_sendmail.smtp import (
    Bdat,
    ClientState,
    Command,
    CommandGroup,
    Content,
    Data,
    Mail,
    Rcpt,
    Rset,
)

CONTENT = b"Subject: hi\r\n\r\nhi\r\n"


class Group(CommandGroup):
    __slots__ = ("given",)

    def __init__(self, recipients: int, *, chunk: bool, behind: bool) -> None:
        self.given: list[Command] = [Rset()] if behind else []
        self.given.append(Mail("alice@example.org"))  # type: ignore[arg-type]  # text is parsed
        for n in range(recipients):
            self.given.append(Rcpt(f"r{n}@example.net"))  # type: ignore[arg-type]  # the same
        self.given.append(Bdat(len(CONTENT), last=True) if chunk else Data())
        wire = b"".join(command.line() for command in self.given)
        super().__init__(wire, len(self.given), CONTENT if chunk else None, behind=behind)

    def commands(self) -> Sequence[Command]:
        return self.given


class Twin:
    """Two sessions that are told the same: one in groups, one command by command."""

    def __init__(self) -> None:
        self.grouped = brought_to(ClientState.READY)
        self.single = brought_to(ClientState.READY)
        self.groups: list[Group] = []
        self.heard: list[tuple[object, str]] = []
        self.heard_singly: list[tuple[object, str]] = []

    def send(self, group: Group) -> bool:
        self.groups.append(group)
        errors: list[str] = []
        for session in (self.grouped, self.single):
            try:
                if session is self.grouped:
                    session.send_group(group)
                else:
                    for entry in group.entries():
                        session.send(entry.command, group, entry.payload)
            except SendmailError as e:
                errors.append(str(e))
        assert 2 * errors[:1] == errors
        return not errors

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
        self.heard += drained(self.grouped)
        self.heard_singly += drained(self.single)
        assert self.heard_singly == self.heard
        assert facts(self.single) == facts(self.grouped)


def drained(session: ClientSession) -> list[tuple[object, str]]:
    """What came of each command, in words."""
    found: list[tuple[object, str]] = []
    while session.events:
        event = session.events.popleft()
        result = event.result
        replies: list[Any] = result if isinstance(result, list) else [result]
        found += [
            (event.tag, f"{type(each).__name__} {each} {getattr(each, 'detail', '')}")
            for each in replies
        ]
    return found


def facts(session: ClientSession) -> list[object]:
    return [
        session.confirmed,
        session.hoped,
        session.promising,
        session.idle,
        session.turn if session.over is None else None,
        str(session.owed),
        session.owed_verb,
        str(session.over),
        str(session.closing),
        str(session.transcript),
        len(session.transcript),
        repr(session.transcript),
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
GROUPS = st.builds(Group, st.integers(1, 4), chunk=st.booleans(), behind=st.booleans())
STEPS = st.lists(
    st.one_of(
        GROUPS,
        st.lists(REPLIES, min_size=1, max_size=12).map(b"".join),
        st.sampled_from(["flush", "flush", "finish"]),
    ),
    max_size=20,
)


@given(STEPS)
def test_whatever_the_server_says_a_group_is_its_commands_one_by_one(steps: list[Any]) -> None:
    twin = Twin()
    for step in steps:
        if isinstance(step, Group):
            twin.send(step)
        elif isinstance(step, bytes):
            twin.receive(step)
        else:
            getattr(twin, step)()
        twin.compare()


@given(
    st.sampled_from([b"", b"x\r\n", b".dot\r\nmore\r\n"]),
    st.one_of(st.none(), GROUPS),
    st.lists(REPLIES, max_size=8),
    st.integers(0, 30),
)
def test_a_whole_content_is_its_pieces_and_its_end(
    content: bytes, behind: Group | None, replies: list[bytes], before: int
) -> None:
    twin = Twin()
    for _ in range(before):  # so that the transcript keeps no single lines any more
        twin.grouped.transcript.add("--", "before")
        twin.single.transcript.add("--", "before")
    twin.send(Group(1, chunk=False, behind=False))
    _ = twin.flush()
    twin.receive(b"250 ok\r\n" * 2)
    twin.receive(b"354 go\r\n")
    twin.compare()
    tag = object()
    twin.grouped.send_content(content, tag)
    twin.single.send(Content(), tag)
    assert b"" == twin.single.data_to_send()
    twin.single.content(content)
    twin.single.end_content()
    if behind is not None:
        twin.send(behind)
    assert twin.flush().startswith(content.replace(b".dot", b"..dot"))
    twin.compare()
    for reply in replies:
        twin.receive(reply)
        twin.compare()
    twin.finish()
    twin.compare()


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 4), st.data())
def test_a_long_dialogue_leaves_the_same_transcript(
    behind: list[bool], recipients: int, data: st.DataObject
) -> None:
    twin = Twin()
    for each in behind:
        group = Group(recipients, chunk=True, behind=each)
        assert twin.send(group)
        assert twin.flush()
        refused = data.draw(st.sampled_from([None] * 9 + [0]))
        twin.receive(b"".join(b"250 ok %d\r\n" % n for n in range(group.size - 1)))
        twin.receive(b"250 ok\r\n" if refused is None else b"554 no\r\n")
        twin.compare()
        if refused is not None:
            break


def test_what_succeeds_as_a_whole_is_heard_as_a_whole() -> None:
    session = brought_to(ClientState.READY)
    first, second = (Group(1, chunk=True, behind=b) for b in (False, True))
    session.send_group(first)
    session.send_group(second)
    assert first.wire + CONTENT + second.wire + CONTENT == session.data_to_send()
    session.receive(b"250 ok\r\n" * 7)
    assert [first, second] == [event.tag for event in session.events]
    assert [[Reply(250, ("ok",))] * n for n in (3, 4)] == [e.result for e in session.events]
    assert ClientState.READY is session.confirmed
    assert session.idle


def test_a_group_that_ends_with_data_ends_the_flight() -> None:
    """RFC 2920 section 3.1."""
    session = brought_to(ClientState.READY)
    group = Group(2, chunk=False, behind=False)
    session.send_group(group)
    assert not session.promising
    assert group.wire == session.data_to_send()
    session.receive(b"250 ok\r\n" * 3 + b"354 go\r\n")
    assert ClientState.DATA is session.confirmed


def test_without_pipelining_a_group_is_one_command_after_the_other() -> None:
    session = brought_to(ClientState.READY)
    session.withhold("PIPELINING")
    session.send_group(Group(1, chunk=True, behind=False))
    assert b"MAIL FROM:<alice@example.org>\r\n" == session.data_to_send()
    session.receive(b"250 ok\r\n")
    assert b"RCPT TO:<r0@example.net>\r\n" == session.data_to_send()
