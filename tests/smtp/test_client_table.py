"""The table of the client's session, entry by entry, and what is not in it."""

from __future__ import annotations

import itertools

import pytest

from tests.smtp.client_states import COMMANDS, ROUTES, Session, brought_to, code_of
from twisted_sendmail import (
    CommandNotAllowed,
    ConnectionClosed,
    DeliveryInDoubt,
    Reply,
    SendmailError,
    UnexpectedResponse,
)
from twisted_sendmail.smtp import ClientState, CommandGroup, Verb
from twisted_sendmail.smtp.client_states import CLIENT_TABLE, OPTIMISTIC, ReplyKind, reply_kind

REACHED = [*ROUTES, ClientState.LONE_DOT]


def forced(state: ClientState, verb: Verb) -> Session:
    """Return a session in *state* that owes a reply to *verb*, however it got there."""
    session = Session()
    session.confirmed = session.optimistic = session._planned = state
    session._owed.clear()
    group = CommandGroup((COMMANDS[verb],))
    group.written = 1
    session._owed.append(group)
    session._tags[id(group)] = "tag"
    return session


def test_every_state_is_reached_and_left() -> None:
    assert set(ClientState) == {*REACHED, ClientState.CLOSED}
    assert set(ClientState) - set(CLIENT_TABLE.values()) - {ClientState.SECURED} == {
        ClientState.CONNECTED,
        ClientState.CLOSED,
    }
    # HANDSHAKE is left by the handshake.
    left = {state for state, _, _ in CLIENT_TABLE}
    assert set(ClientState) - left == {ClientState.HANDSHAKE, ClientState.QUIT, ClientState.CLOSED}


@pytest.mark.parametrize("key", CLIENT_TABLE, ids=lambda key: " ".join(part.name for part in key))
def test_each_entry_leads_where_it_says(key: tuple[ClientState, Verb, ReplyKind]) -> None:
    state, verb, kind = key
    session = forced(state, verb)
    session.receive(b"%d text\r\n" % code_of(verb, kind))
    assert (None, CLIENT_TABLE[key]) == (session.over, session.confirmed)
    (event,) = session.events
    assert event.tag == "tag"
    if key == (ClientState.BROKEN, Verb.MAIL, ReplyKind.NO):
        # The message after a broken one was not processed: this is no refusal of it.
        assert isinstance(event.result, CommandNotAllowed)
    else:
        # The text of a 235 is a part of the SASL exchange.
        text = "****" if code_of(verb, kind) == 235 else "text"
        assert Reply(code_of(verb, kind), (text,)) == event.result


def test_what_is_not_in_the_table_is_a_breach_of_protocol() -> None:
    """All of it: every state, verb and kind of reply."""
    absent = [
        k
        for k in itertools.product(ClientState, Verb, ReplyKind)
        if k not in CLIENT_TABLE and k[0] is not ClientState.CLOSED
    ]
    assert len(absent) > 800
    for state, verb, kind in absent:
        if reply_kind(verb, code_of(verb, kind)) is not kind:
            continue  # no code means that
        session = forced(state, verb)
        session.receive(b"%d text\r\n" % code_of(verb, kind))
        assert isinstance(session.over, UnexpectedResponse), (state, verb, kind)
        assert session.confirmed is ClientState.CLOSED
        assert [event.tag for event in session.events] == ["tag"]


def test_a_command_is_sent_exactly_where_its_success_has_a_place() -> None:
    for state, verb in itertools.product(REACHED, Verb):
        session = brought_to(state)
        # Before the greeting commands may be given, but are not written.
        following = OPTIMISTIC.get(
            (ClientState.GREETED if state is ClientState.CONNECTED else state, verb)
        )
        if following is None:
            with pytest.raises(CommandNotAllowed):
                session.give(COMMANDS[verb])
            assert (session.data_to_send(), list(session.events), session.over) == (b"", [], None)
        else:
            session.give(COMMANDS[verb], payload=b"abc\n")
            written = session.data_to_send()
            if state is ClientState.CONNECTED:
                assert written == b""
            else:
                assert written.startswith(COMMANDS[verb].line())
                assert following is session.optimistic


def test_no_content_is_following_for_that_nobody_would_get() -> None:
    for verb in (Verb.DATA, Verb.BDAT_LAST):
        assert (ClientState.MAIL, verb) not in OPTIMISTIC
        assert (ClientState.READY, verb) not in OPTIMISTIC


@pytest.mark.parametrize(
    ("verb", "code", "expected"),
    [
        (Verb.GREETING, 220, ReplyKind.YES),
        (Verb.GREETING, 250, ReplyKind.UNEXPECTED),
        (Verb.STARTTLS, 220, ReplyKind.YES),
        (Verb.STARTTLS, 250, ReplyKind.UNEXPECTED),
        (Verb.STARTTLS, 334, ReplyKind.UNEXPECTED),
        (Verb.AUTH, 235, ReplyKind.YES),
        (Verb.AUTH, 250, ReplyKind.UNEXPECTED),
        (Verb.AUTH, 220, ReplyKind.UNEXPECTED),
        (Verb.AUTH, 334, ReplyKind.MORE),
        (Verb.AUTH, 354, ReplyKind.UNEXPECTED),
        (Verb.AUTH, 503, ReplyKind.NO),
        (Verb.DATA, 354, ReplyKind.YES),
        (Verb.DATA, 250, ReplyKind.UNEXPECTED),
        (Verb.DATA, 334, ReplyKind.UNEXPECTED),
        (Verb.RCPT, 251, ReplyKind.YES),
        (Verb.RCPT, 252, ReplyKind.YES),
        (Verb.CONTENT, 299, ReplyKind.YES),
        (Verb.CONTENT, 354, ReplyKind.UNEXPECTED),
        (Verb.CONTENT, 221, ReplyKind.UNEXPECTED),
        (Verb.BDAT_LAST, 221, ReplyKind.UNEXPECTED),
        (Verb.NOOP, 221, ReplyKind.UNEXPECTED),
        (Verb.MAIL, 220, ReplyKind.UNEXPECTED),
        (Verb.RCPT, 235, ReplyKind.UNEXPECTED),
        (Verb.QUIT, 221, ReplyKind.YES),
        (Verb.QUIT, 250, ReplyKind.YES),
        (Verb.OTHER, 220, ReplyKind.YES),
        (Verb.MAIL, 450, ReplyKind.NO),
        (Verb.OTHER, 354, ReplyKind.MORE),
    ],
)
def test_what_a_code_means(verb: Verb, code: int, expected: ReplyKind) -> None:
    assert reply_kind(verb, code) is expected


def sequences(state: ClientState) -> list[tuple[Verb, ...]]:
    """Up to three commands that may be given one after the other from *state*."""
    state = ClientState.GREETED if state is ClientState.CONNECTED else state
    found: list[tuple[Verb, ...]] = [()]
    layer: list[tuple[tuple[Verb, ...], ClientState]] = [((), state)]
    for _ in range(3):
        layer = [
            ((*verbs, verb), following)
            for verbs, here in layer
            for verb in Verb
            if (following := OPTIMISTIC.get((here, verb))) is not None and verb is not Verb.GREETING
        ]
        found += [verbs for verbs, _ in layer]
    return found


@pytest.mark.parametrize("state", REACHED, ids=lambda state: state.name)
def test_a_lost_connection_gives_every_command_exactly_one_event(state: ClientState) -> None:
    """From every state, with every sequence of up to three commands, written or not."""
    for verbs in sequences(state):
        for written in (False, True):
            session = brought_to(state)
            tags: list[object] = ["greeting"] if state is ClientState.CONNECTED else []
            for i, verb in enumerate(verbs):
                session.give(COMMANDS[verb], tag=i, payload=b"abc\n")
                tags.append(i)
            if written:
                session.data_to_send()
            why = ConnectionClosed("connection lost")
            session.finish(why)
            session.finish(ConnectionClosed("again"))
            assert why is session.over
            assert tags == [event.tag for event in session.events]
            assert all(isinstance(event.result, SendmailError) for event in session.events)
            doubtful = [e for e in session.events if isinstance(e.result, DeliveryInDoubt)]
            # A message is in doubt exactly if its end is on the wire.  The end of a
            # content is not: nobody called end_content().
            assert all(e.command.verb is Verb.BDAT_LAST and written for e in doubtful)
            assert session.data_to_send() == b""
            with pytest.raises(ConnectionClosed):
                session.give(COMMANDS[Verb.QUIT])
