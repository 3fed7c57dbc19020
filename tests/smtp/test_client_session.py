"""The client's session: order, pipelining, and what a hostile server does with both."""

from __future__ import annotations

import itertools
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.client_states import (
    COMMANDS,
    EHLO_REPLY,
    ROUTES,
    Event,
    Session,
    brought_to,
)
from twisted_sendmail.smtp import (
    Auth,
    AuthLine,
    Bdat,
    ClientState,
    Command,
    CommandNotAllowed,
    ConnectionClosed,
    ContentCommand,
    DeliveryInDoubt,
    Hello,
    Mail,
    ProtocolBreach,
    Quit,
    Rcpt,
    Reply,
    SendmailError,
    Verb,
)
from twisted_sendmail.smtp.errors import ServiceClosing, UnexpectedResponse

PASSWORD = "s3cret-Pa55word"


def taken(session: Session) -> list[Event]:
    events = list(session.events)
    session.events.clear()
    return events


def codes(session: Session) -> list[int]:
    """The codes of the replies that came since the last time."""
    events = taken(session)
    assert all(isinstance(e.result, Reply) for e in events), events
    return [e.result.code for e in events]  # type: ignore[union-attr]


def waiting_for_content() -> Session:
    """A session that was asked for content, its beginning written."""
    session = brought_to(ClientState.DATA)
    session.give(ContentCommand(), tag="content")
    session.data_to_send()
    return session


# -- order


def test_nothing_is_written_before_the_greeting() -> None:
    """RFC 5321 section 3.1."""
    session = Session()
    session.give(Hello("client.example.org"))
    assert session.data_to_send() == b""
    session.receive(b"220-mx\r\n")
    assert session.data_to_send() == b""
    session.receive(b"220 hi\r\n")
    assert session.data_to_send() == b"EHLO client.example.org\r\n"


def test_a_group_goes_out_in_one_piece_with_pipelining() -> None:
    session = brought_to(ClientState.READY)
    for verb in (Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.DATA):
        session.give(COMMANDS[verb])
    assert session.data_to_send().count(b"\r\n") == 4


def test_without_pipelining_one_command_at_a_time() -> None:
    session = brought_to(ClientState.READY)
    session.withhold("PIPELINING")
    for verb in (Verb.MAIL, Verb.RCPT, Verb.DATA):
        session.give(COMMANDS[verb])
    assert session.data_to_send() == b"MAIL FROM:<a@example.org>\r\n"
    assert session.data_to_send() == b""
    session.receive(b"250 ok\r\n")
    assert session.data_to_send() == b"RCPT TO:<b@example.net>\r\n"
    session.receive(b"250 ok\r\n")
    assert session.data_to_send() == b"DATA\r\n"


@pytest.mark.parametrize("verb", [Verb.NOOP, Verb.OTHER, Verb.EHLO, Verb.STARTTLS, Verb.AUTH])
def test_nothing_is_written_behind_a_command_that_ends_its_group(verb: Verb) -> None:
    """RFC 2920 section 3.1; STARTTLS and AUTH by their own."""
    session = brought_to(ClientState.READY)
    session.give(COMMANDS[verb])
    assert session.data_to_send()
    if verb is not Verb.STARTTLS:
        session.give(COMMANDS[Verb.MAIL])
    assert session.data_to_send() == b""


def test_the_content_waits_for_the_354() -> None:
    session = brought_to(ClientState.RCPT)
    session.give(COMMANDS[Verb.DATA])
    session.give(ContentCommand())
    assert session.data_to_send() == b"DATA\r\n"
    assert (session.data_to_send(), session.content_open) == (b"", False)
    session.receive(b"354 go\r\n")
    session.data_to_send()
    assert session.content_open


@pytest.mark.parametrize("asked", [False, True])
def test_nothing_follows_the_final_dot_unless_that_is_asked_for(asked: bool) -> None:
    session = waiting_for_content()
    session.pipelines_after_data = asked
    session.give(Quit())
    assert session.data_to_send() == b""
    session.content(b".dot\r\n")
    session.end_content()
    written = session.data_to_send()
    assert b"..dot\r\n.\r\n" + b"QUIT\r\n" * asked == written
    session.receive(b"250 ok\r\n")
    assert written + session.data_to_send() == b"..dot\r\n.\r\nQUIT\r\n"


def test_what_a_refusal_made_pointless_is_not_written() -> None:
    """MAIL was refused: its RCPT and DATA are not for a server without PIPELINING."""
    session = brought_to(ClientState.READY)
    session.withhold("PIPELINING")
    for tag, verb in enumerate((Verb.MAIL, Verb.RCPT, Verb.DATA)):
        session.give(COMMANDS[verb], tag=tag)
    session.data_to_send()
    session.receive(b"550 no\r\n")
    assert session.data_to_send() == b""
    events = taken(session)
    assert [e.tag for e in events] == [0, 1, 2]
    assert [isinstance(e.result, CommandNotAllowed) for e in events[1:]] == [True, True]
    # And the session goes on.
    session.give(Mail("c@example.org"))
    assert session.data_to_send() == b"MAIL FROM:<c@example.org>\r\n"


def test_content_is_taken_only_after_354() -> None:
    for state in ROUTES:
        session = brought_to(state)
        with pytest.raises(CommandNotAllowed):
            session.content(b"x")
        with pytest.raises(CommandNotAllowed):
            session.end_content()


def test_capabilities_are_those_of_the_last_ehlo_and_forgotten_at_starttls() -> None:
    session = brought_to(ClientState.READY)
    assert "AUTH" in session.capabilities
    session.give(COMMANDS[Verb.STARTTLS])
    session.data_to_send()
    session.receive(b"220 go\r\n")
    session.begin_tls()
    assert list(session.capabilities) == []
    session.tls_begun("TLS")
    session.give(Hello("client.example.org"))
    session.data_to_send()
    session.receive(b"250-mx\r\n250 SIZE 1\r\n")
    assert list(session.capabilities) == ["SIZE"]


def test_a_refused_ehlo_offers_nothing_new() -> None:
    session = brought_to(ClientState.GREETED)
    session.give(Hello("client.example.org"))
    session.data_to_send()
    session.receive(b"502-STARTTLS\r\n502 AUTH PLAIN\r\n")
    assert list(session.capabilities) == []


def test_helo_offers_nothing() -> None:
    session = brought_to(ClientState.GREETED)
    session.give(Hello("client.example.org", Verb.HELO))
    session.data_to_send()
    session.receive(b"250-mx\r\n250 AUTH PLAIN\r\n")
    assert list(session.capabilities) == []


def test_a_command_that_restarts_the_session_leaves_no_capabilities() -> None:
    session = brought_to(ClientState.READY)
    session.give(COMMANDS[Verb.AUTH])
    session.data_to_send()
    session.receive(b"235 yes\r\n")
    assert (True, True) == (session.authenticated, "PIPELINING" in session.capabilities)
    session.give(COMMANDS[Verb.RESTART])
    session.data_to_send()
    session.receive(b"220 mx.example.net\r\n")
    assert (False, []) == (session.authenticated, list(session.capabilities))
    assert ClientState.GREETED is session.confirmed


def test_a_command_taken_back_was_never_written() -> None:
    session = brought_to(ClientState.READY)
    session.give(COMMANDS[Verb.NOOP], tag="a")
    session.give(COMMANDS[Verb.NOOP], tag="b")
    session.data_to_send()
    assert (session.take_back("a"), session.take_back("b")) == (False, True)
    session.receive(b"250 ok\r\n")
    assert session.data_to_send() == b""
    assert [e.tag for e in taken(session)] == ["a"]


# -- replies nobody asked for


@pytest.mark.parametrize(
    "state",
    [s for s in ROUTES if s not in {ClientState.CONNECTED, ClientState.HANDSHAKE}],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize(
    "reply", [b"250 ok\r\n", b"220 again\r\n", b"354 go\r\n", b"550 no\r\n", b"250-", b"2"]
)
def test_a_reply_nobody_waits_for_ends_the_session(state: ClientState, reply: bytes) -> None:
    session = brought_to(state)
    session.receive(reply)
    assert isinstance(session.over, ProtocolBreach)
    assert "a reply that no command waits for" in str(session.over)
    assert taken(session) == []


@pytest.mark.parametrize(
    "state", [s for s in ROUTES if s is not ClientState.CONNECTED], ids=lambda s: s.name
)
def test_421_is_a_close_at_any_time_in_any_cutting(state: ClientState) -> None:
    session = brought_to(state)
    for octet in b"421-4.3.2 busy\r\n421 bye\r\n":
        assert session.over is None
        session.receive(bytes([octet]))
    assert isinstance(session.over, ServiceClosing)


def test_a_verdict_already_complete_stands_when_something_follows() -> None:
    session = waiting_for_content()
    session.end_content()
    session.data_to_send()
    session.receive(b"250 queued\r\n250 queued twice\r\n")
    assert [e.result for e in taken(session)] == [Reply(250, ("queued",))]
    assert isinstance(session.over, ProtocolBreach)


def test_a_second_banner_ends_the_session() -> None:
    session = Session()
    session.receive(b"220 one\r\n220 two\r\n")
    assert isinstance(session.over, ProtocolBreach)


def test_the_whole_script_up_front_ends_the_session() -> None:
    session = Session()
    session.receive(
        b"220 hi\r\n" + EHLO_REPLY + b"250 ok\r\n" * 2 + b"354 go\r\n250 queued\r\n221 bye\r\n"
    )
    assert isinstance(session.over, ProtocolBreach)


@pytest.mark.parametrize(
    "after", [b"250 queued\r\n", b"2", b"250-", b"220 x\r\n", b"550 no\r\n", b"\r\n", b"x"]
)
def test_nothing_may_follow_354(after: bytes) -> None:
    """An early 250 must not be taken for the verdict."""
    session = brought_to(ClientState.RCPT)
    session.give(COMMANDS[Verb.DATA])
    session.data_to_send()
    session.receive(b"354 go\r\n" + after)
    assert isinstance(session.over, ProtocolBreach)


@pytest.mark.parametrize(
    "state", [ClientState.GREETED, ClientState.READY, ClientState.SECURED], ids=lambda s: s.name
)
@pytest.mark.parametrize("half", [b"4", b"42", b"421", b"421 ", b"421-x\r\n", b"421-x\r\n421"])
def test_nothing_is_written_behind_half_a_reply(state: ClientState, half: bytes) -> None:
    """What began before we spoke is no answer to what we say; 421 is all it may become."""
    session = brought_to(state)
    session.receive(half)
    assert session.over is None
    session.give(COMMANDS[Verb.QUIT], tag="quit")
    assert session.data_to_send() == b""
    assert isinstance(session.over, ProtocolBreach)
    assert [e.tag for e in taken(session)] == ["quit"]


def test_half_a_reply_does_not_become_the_answer_to_the_next_command() -> None:
    session = brought_to(ClientState.READY)
    session.receive(b"4")
    session.give(COMMANDS[Verb.MAIL], tag="mail")
    session.data_to_send()
    session.receive(b"50 try later\r\n")
    assert [ProtocolBreach] == [type(e.result) for e in taken(session)]


@pytest.mark.parametrize(
    "early", [b"250 queued\r\n", b"2", b"250", b"250-queued\r\n", b"354 go\r\n", b"3"]
)
def test_no_yes_may_come_before_the_content_is_complete(early: bytes) -> None:
    """Not even its beginning: the dot would make it a verdict."""
    session = waiting_for_content()
    session.content(b"half of it\r\n")
    session.data_to_send()
    session.receive(early)
    assert isinstance(session.over, ProtocolBreach)
    (event,) = taken(session)
    assert (event.tag, isinstance(event.result, DeliveryInDoubt)) == ("content", False)


@pytest.mark.parametrize("code", [552, 452, 550])
def test_a_refusal_in_the_middle_of_the_content_is_believed_and_ends_the_session(code: int) -> None:
    session = waiting_for_content()
    session.content(b"half of it\r\n")
    for octet in b"%d too much\r\n" % code:
        session.receive(bytes([octet]))
    assert [code] == codes(session)
    assert isinstance(session.over, ConnectionClosed)
    assert session.data_to_send() == b"", "no dot, nothing"


def test_421_in_the_middle_of_the_content_leaves_no_doubt() -> None:
    session = waiting_for_content()
    session.content(b"half of it\r\n")
    session.receive(b"421 bye\r\n")
    assert [ServiceClosing] == [type(e.result) for e in taken(session)]


@pytest.mark.parametrize(
    "why",
    [b"354 more\r\n", b"garbage\r\n", b"250-queued\r\n251 no\r\n", b"421-x\r\n221 y\r\n", b""],
)
def test_behind_the_final_dot_everything_but_a_verdict_is_doubt(why: bytes) -> None:
    session = waiting_for_content()
    session.content(b"all of it\r\n")
    session.end_content()
    session.give(Quit(), tag="quit")
    session.data_to_send()
    session.receive(why)
    if not why:
        session.finish(ConnectionClosed("connection lost"))
    events = taken(session)
    assert [e.tag for e in events] == ["content", "quit"]
    verdict, other = (e.result for e in events)
    assert isinstance(verdict, DeliveryInDoubt)
    assert not isinstance(other, DeliveryInDoubt)
    assert (verdict.in_doubt, verdict.transient) == (True, False)


def test_a_chunk_that_was_the_last_leaves_doubt_and_one_that_was_not_does_not() -> None:
    for last in (False, True):
        session = brought_to(ClientState.RCPT)
        session.give(Bdat(4, last), payload=b"abcd")
        assert b"BDAT 4" + (b" LAST" if last else b"") + b"\r\nabcd" == session.data_to_send()
        session.finish(ConnectionClosed("connection lost"))
        assert last == isinstance(taken(session)[0].result, DeliveryInDoubt)


# -- STARTTLS


@pytest.mark.parametrize(
    "injected",
    [b"250 x\r\n", b"250", b"2", b"\r\n", b" ", b"421 x\r\n", b"220 go\r\n", b"\x16\x03\x03"],
)
def test_nothing_may_be_behind_the_reply_to_starttls(injected: bytes) -> None:
    """Response injection: not even a fragment."""
    session = brought_to(ClientState.READY)
    session.give(COMMANDS[Verb.STARTTLS], tag="starttls")
    session.data_to_send()
    session.receive(b"220 go\r\n" + injected)
    assert isinstance(session.over, ProtocolBreach)
    assert [(e.tag, isinstance(e.result, ProtocolBreach)) for e in taken(session)] == [
        ("starttls", True)
    ]


@pytest.mark.parametrize("injected", [b"250 x\r\n", b"2", b"x"])
def test_nothing_may_come_between_the_reply_to_starttls_and_the_handshake(injected: bytes) -> None:
    session = brought_to(ClientState.HANDSHAKE)
    session.receive(injected)
    assert isinstance(session.over, ProtocolBreach)


def test_what_the_parser_held_is_gone_after_the_handshake() -> None:
    session = brought_to(ClientState.HANDSHAKE)
    session.receive(b"421-injec")
    session.begin_tls()
    session.tls_begun("TLS")
    session.give(Hello("client.example.org"))
    assert session.data_to_send()
    session.receive(b"250 mx\r\n")
    assert (session.over, session.confirmed) == (None, ClientState.READY)


# -- AUTH


@pytest.mark.parametrize("code", [220, 250, 251, 354, 200, 299, 300])
def test_only_235_authenticates(code: int) -> None:
    for verb, state in ((Verb.AUTH, ClientState.READY), (Verb.AUTH_LINE, ClientState.AUTH)):
        session = brought_to(state)
        session.give(COMMANDS[verb])
        session.data_to_send()
        session.receive(b"%d ok\r\n" % code)
        assert isinstance(session.over, UnexpectedResponse)
        assert not session.authenticated


def test_a_challenge_behind_235_ends_the_session() -> None:
    session = brought_to(ClientState.READY)
    session.give(COMMANDS[Verb.AUTH])
    session.data_to_send()
    session.receive(b"235 yes\r\n334 one more\r\n")
    assert isinstance(session.over, ProtocolBreach)


SECRETS = [
    (Auth("PLAIN", f"\0tester\0{PASSWORD}".encode()), PASSWORD),
    (AuthLine(PASSWORD.encode()), PASSWORD),
    (Auth("XOAUTH2", f"user=tester\x01auth=Bearer {PASSWORD}\x01\x01".encode()), PASSWORD),
    (
        Auth("OAUTHBEARER", f"n,a=tester,\x01host=mx\x01auth=Bearer {PASSWORD}\x01\x01".encode()),
        PASSWORD,
    ),
]


@pytest.mark.parametrize(("command", "secret"), SECRETS, ids=[str(i) for i in range(len(SECRETS))])
@pytest.mark.parametrize(
    "reply",
    [
        "535 no, {} is wrong",
        "535-no\r\n535 {}",
        "235 welcome, {}",
        "334 {}",
        "250 {}",
        "421 {}",
        "garbage {}",
        "235 yes\r\n334 {}",
        "235 yes\r\ngarbage {}",
        "235 yes\r\n250 {}",
    ],
)
def test_a_secret_a_server_echoes_is_never_shown(command: Command, secret: str, reply: str) -> None:
    """Nor in base64, nor the whole response: not in an error, a reply, the transcript."""
    whole = command.initial if isinstance(command, Auth) else command.response  # type: ignore[attr-defined]
    assert whole is not None
    forms = [secret, b64encode(secret.encode()).decode(), b64encode(whole).decode()]
    for form in forms:
        session = brought_to(ClientState.READY if isinstance(command, Auth) else ClientState.AUTH)
        session.give(command)
        session.data_to_send()
        session.receive(reply.format(form).encode() + b"\r\n")
        session.finish(ConnectionClosed("connection lost"))
        said = [
            str(session.transcript),
            str(session.over),
            repr(session.over),
            repr(getattr(session.over, "reply", None)),
        ]
        for event in taken(session):
            if not (isinstance(event.result, Reply) and event.result.code == 334):
                said += [repr(event), str(event.result)]
        for shown in said:
            assert not any(f in shown for f in forms), shown


def test_a_challenge_reaches_the_mechanism_as_it_is() -> None:
    session = brought_to(ClientState.READY)
    session.give(Auth("PLAIN", PASSWORD.encode()))
    session.data_to_send()
    session.receive(f"334 {PASSWORD}\r\n".encode())
    assert taken(session)[0].result == Reply(334, (PASSWORD,))
    assert PASSWORD not in str(session.transcript)


# -- laws

_SCRIPT = [
    (COMMANDS[Verb.EHLO], EHLO_REPLY),
    (COMMANDS[Verb.MAIL], b"250 ok\r\n"),
    (COMMANDS[Verb.RCPT], b"250 ok\r\n"),
    (Rcpt("c@example.net"), b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"),
    (COMMANDS[Verb.DATA], b"354 go\r\n"),
]


def conversation(cuts: list[int], tail: bytes) -> tuple[list[Any], object]:
    """Play the script, what the server says cut at *cuts*, then *tail*; what came of it."""
    session = Session("greeting")

    def receive(data: bytes) -> None:
        edges = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
        for begin, end in itertools.pairwise(edges):
            session.receive(data[begin:end])

    receive(b"220 hi\r\n")
    session.give(_SCRIPT[0][0], tag=0)
    session.data_to_send()
    receive(_SCRIPT[0][1])
    for tag, (command, _) in enumerate(_SCRIPT[1:], start=1):
        session.give(command, tag=tag)
    session.data_to_send()
    receive(b"".join(reply for _, reply in _SCRIPT[1:]))
    session.give(ContentCommand(), tag="content")
    session.data_to_send()
    session.content(b"x\r\n")
    session.end_content()
    session.data_to_send()
    receive(tail)
    results = [
        (e.tag, e.result if isinstance(e.result, Reply) else type(e.result)) for e in session.events
    ]
    return results, type(session.over)


@given(
    st.lists(st.integers(1, 120), max_size=20),
    st.binary(max_size=20) | st.sampled_from([b"250 ok\r\n", b"421 x\r\n"]),
)
def test_any_cutting_gives_the_same_events(cuts: list[int], tail: bytes) -> None:
    assert (
        conversation([], tail) == conversation(cuts, tail) == conversation(list(range(120)), tail)
    )


_OCTETS = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"250 ok\r\n",
            b"354 go\r\n",
            b"220 go\r\n",
            b"235 ok\r\n",
            b"334 \r\n",
            b"550 no\r\n",
            b"421 x\r\n",
            b"250-x\r\n",
            EHLO_REPLY,
        ]
    ),
)
_DEED = st.one_of(
    _OCTETS,
    st.sampled_from([v for v in Verb if v is not Verb.GREETING]),
    st.just("end"),
    st.just("flush"),
)


@given(st.sampled_from(list(ROUTES)), st.lists(_DEED, max_size=25))
def test_whatever_happens_each_command_gets_one_event_and_nothing_is_raised(
    state: ClientState, deeds: list[object]
) -> None:
    session = brought_to(state)
    given_tags: list[object] = ["greeting"] if state is ClientState.CONNECTED else []
    for i, deed in enumerate(deeds):
        if isinstance(deed, bytes):
            session.receive(deed)
        elif isinstance(deed, Verb):
            try:
                session.give(COMMANDS[deed], tag=i, payload=b"abc\n")
                given_tags.append(i)
            except SendmailError:
                pass
        elif session.content_open:
            session.end_content()
        session.data_to_send()
    session.finish(ConnectionClosed("connection lost"))
    assert sorted(map(str, given_tags)) == sorted(str(e.tag) for e in session.events)
    for event in session.events:
        assert isinstance(event.result, (Reply, SendmailError))


@given(st.sampled_from(list(ROUTES)), st.binary(min_size=1, max_size=40))
def test_garbage_gives_a_protocol_error_and_nothing_else(
    state: ClientState, garbage: bytes
) -> None:
    session = brought_to(state)
    session.receive(garbage)
    assert session.over is None or isinstance(session.over, (ProtocolBreach, ServiceClosing))
