"""Sessions of the queue page, and the limit on wrong tokens."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from twisted_sendmail import InvalidInput
from twisted_sendmail.admin.sessions import (
    MAX_SESSIONS,
    SESSION_IDLE,
    SESSION_LIFETIME,
    Sessions,
    TooManyTokens,
)

TOKEN = "correct-horse-battery"


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(TOKEN, clock)


def begun(sessions: Sessions) -> str:
    name = sessions.sign_in(TOKEN)
    assert name is not None
    return name


def test_the_right_token_begins_a_session(sessions: Sessions) -> None:
    name = begun(sessions)
    assert len(name) == 43
    assert sessions.find(name) is not None


@pytest.mark.parametrize(
    "token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\udcff", "ü"]
)
def test_a_wrong_token_begins_no_session(sessions: Sessions, token: str) -> None:
    assert sessions.sign_in(token) is None


def test_a_session_is_found_only_by_its_name(sessions: Sessions) -> None:
    name = begun(sessions)
    assert [sessions.find(other) for other in (None, "", name[:-1], name + "x")] == [None] * 4


def test_each_session_has_its_own_secrets(sessions: Sessions) -> None:
    first, second = sessions.find(begun(sessions)), sessions.find(begun(sessions))
    assert first is not None
    assert second is not None
    assert sessions.owns_form(first, first.form_secret)
    assert not sessions.owns_form(first, second.form_secret)
    assert not sessions.owns_form(first, "")


def test_an_unused_session_ends(sessions: Sessions, clock: Clock) -> None:
    name = begun(sessions)
    clock.advance(SESSION_IDLE - 1)
    assert sessions.find(name) is not None
    clock.advance(SESSION_IDLE)
    assert sessions.find(name) is None


def test_a_used_session_ends_after_its_lifetime(sessions: Sessions, clock: Clock) -> None:
    name = begun(sessions)
    for _ in range(int(SESSION_LIFETIME / 600) - 1):
        clock.advance(600)
        assert sessions.find(name) is not None
    clock.advance(600)
    assert sessions.find(name) is None


def test_no_session_lasts_longer_when_the_clock_is_set_back(
    sessions: Sessions, clock: Clock
) -> None:
    name = begun(sessions)
    clock.rightNow -= 3600
    assert sessions.find(name) is None


def test_signing_out_ends_the_session(sessions: Sessions) -> None:
    name, other = begun(sessions), begun(sessions)
    sessions.sign_out(name)
    sessions.sign_out(name)
    sessions.sign_out(None)
    assert sessions.find(name) is None
    assert sessions.find(other) is not None


def test_the_number_of_sessions_is_limited(sessions: Sessions, clock: Clock) -> None:
    names = []
    for _ in range(MAX_SESSIONS):
        names.append(begun(sessions))
        clock.advance(1)
    # The first one is used, so that the second is unused for longest.
    assert sessions.find(names[0]) is not None
    new = begun(sessions)
    there = [name for name in [*names, new] if sessions.find(name) is not None]
    assert [names[0], *names[2:], new] == there


def test_wrong_tokens_in_a_row_have_to_wait(sessions: Sessions, clock: Clock) -> None:
    for _ in range(5):
        assert sessions.sign_in("wrong") is None
    # Nor is the right one looked at: a guess would show by it.
    with pytest.raises(TooManyTokens) as raised:
        sessions.sign_in(TOKEN)
    assert raised.value.wait == 10.0
    clock.advance(10)
    assert sessions.sign_in(TOKEN) is not None


def test_one_token_in_ten_seconds_is_compared(sessions: Sessions, clock: Clock) -> None:
    looked_at = 0
    for _ in range(3600):
        clock.advance(1)
        try:
            assert sessions.sign_in("wrong") is None
            looked_at += 1
        except TooManyTokens:
            pass
    assert 5 + 359 <= looked_at <= 5 + 361


def test_no_more_tokens_are_compared_when_the_clock_is_set_back(
    sessions: Sessions, clock: Clock
) -> None:
    for _ in range(5):
        sessions.sign_in("wrong")
    clock.rightNow -= 86400
    with pytest.raises(TooManyTokens):
        sessions.sign_in("wrong")
    clock.advance(10)
    assert sessions.sign_in(TOKEN) is not None


def test_without_a_token_nobody_can_sign_in(clock: Clock) -> None:
    sessions = Sessions(None, clock)
    assert not sessions.possible
    assert [sessions.sign_in(""), sessions.sign_in("None")] == [None, None]


@pytest.mark.parametrize("token", ["", "short", "fifteen-letters"])
def test_a_short_token_is_refused_and_not_shown(clock: Clock, token: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Sessions(token, clock)
    assert "the token of the queue page cannot be used" in str(raised.value)
    assert not token or token not in str(raised.value)


def test_no_secret_is_in_a_repr(sessions: Sessions) -> None:
    name = begun(sessions)
    session = sessions.find(name)
    assert session is not None
    assert session.form_secret not in repr(session)
    assert TOKEN not in repr(vars(sessions))
    assert name not in repr(vars(sessions))
