"""Credentials: validation, resolution, and a repr without secrets."""

from __future__ import annotations

import base64
import copy
import functools
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any

import pytest
from attrs import evolve

from tests.pure import run
from tests.sasl.identities import with_password
from twisted_sendmail import (
    MECHANISMS,
    AuthenticationError,
    AuthenticationFailed,
    Credentials,
    InvalidInput,
)
from twisted_sendmail.sasl import (
    ChannelBinding,
    CredentialsUnavailable,
    ResolvedCredentials,
    Secret,
    credentials,
    oauth,
    password,
    scram,
)
from twisted_sendmail.sasl import negotiation as choice

SECRET = "tr0ub4dor&3"

OURS = {module.__file__ for module in (choice, credentials, oauth, password, scram)}


def shown(error: BaseException) -> str:
    """All that a logger which prints local variables would print of our frames."""
    parts: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is None:
            continue
        parts += [str(current), repr(current), repr(vars(current))]
        frame: TracebackType | None = current.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename in OURS:
                parts.append(repr(frame.tb_frame.f_locals))
            frame = frame.tb_next
        todo += [current.__cause__, current.__context__]
    return "\n".join(parts)


# -- what they refuse ---------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "flaw"),
    [
        ("", "the password of 'bob' is empty"),
        (f"{SECRET}\n", "the password of 'bob' ends with a line break; strip it"),
        (f"{SECRET}\r\n", "the password of 'bob' ends with a line break; strip it"),
        (f"{SECRET}\r\nRSET", "the password of 'bob' has a line break in it"),
        (f"{SECRET}\0", "the password of 'bob' has a NUL in it"),
        (
            f"{SECRET}\udcff",
            "the password of 'bob' is not Unicode: it was probably read as something other than UTF-8",
        ),
    ],
)
def test_a_flawed_password_is_named_and_not_shown(password: str, flaw: str) -> None:
    with pytest.raises(InvalidInput) as given_directly:
        Credentials("bob", password)
    with pytest.raises(InvalidInput) as from_a_provider:
        run(Credentials("bob", lambda: password).resolve())

    assert flaw == str(given_directly.value)
    assert flaw == str(from_a_provider.value)
    assert SECRET not in shown(given_directly.value)
    assert SECRET not in shown(from_a_provider.value)


@pytest.mark.parametrize("token", ["a b", "a\x01b", "caf\u00e9", "a\tb"])
def test_a_token_has_only_visible_ascii(token: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Credentials("bob", token=token)

    assert (
        str(caught.value) == "the token of 'bob' has characters that no bearer token has (RFC 6750)"
    )


def test_a_token_that_ends_with_a_line_break_is_told_so() -> None:
    with pytest.raises(InvalidInput, match="ends with a line break; strip it"):
        Credentials("bob", token="abc\n")


@pytest.mark.parametrize("name", ["bo\0b", "bob\r\nRSET", "bob\n", "\x1b[2J", "bob\x01", "\ud800"])
def test_a_name_has_no_control_character_and_is_unicode(name: str) -> None:
    with pytest.raises(InvalidInput, match="the user name"):
        Credentials(name, SECRET)
    with pytest.raises(InvalidInput, match="the authorization identity"):
        Credentials("bob", SECRET, authzid=name)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        (("bob",), {}, "credentials of 'bob' have no password and no token"),
        (
            ("bob", SECRET),
            {"token": SECRET},
            "credentials of 'bob' have both a password and a token; give one of them",
        ),
        (("", SECRET), {}, "the password is given without a user name"),
        (
            ("bob", SECRET.encode()),
            {},
            "the password of 'bob' is a bytes; it must be a str or a callable that returns one",
        ),
        ((b"bob", SECRET), {}, "the user name is a bytes; it must be a str"),
        (
            ("bob", SECRET),
            {"mechanisms": "PLAIN"},
            "mechanisms cannot be str",
        ),
        (
            ("bob", SECRET),
            {"mechanisms": []},
            "mechanisms is an empty list; leave it out to allow all",
        ),
        (
            ("bob", SECRET),
            {"mechanisms": ["PLAIN\r\n"]},
            "'PLAIN\\r\\n' is no name of a SASL mechanism; it has 1 to 20 of A-Z, 0-9, - and _",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    arguments: tuple[Any, ...], keywords: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Credentials(*arguments, **keywords)

    assert text == caught.value.what
    assert SECRET not in shown(caught.value)


def test_credentials_without_a_secret_are_for_mechanisms_that_need_none() -> None:
    resolved = run(Credentials("", mechanisms=["external"]).resolve())

    assert resolved.password is None
    assert resolved.token is None
    assert resolved.mechanisms == ("EXTERNAL",)


# -- what they resolve to -----------------------------------------------------


class Pending:
    """Something to await that is there at once."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, str]:
        yield from ()
        return self.value


async def from_a_coroutine() -> str:
    return SECRET


@pytest.mark.parametrize(
    "source",
    [SECRET, lambda: SECRET, from_a_coroutine, lambda: Pending(SECRET)],
    ids=["str", "callable", "coroutine", "awaitable"],
)
def test_a_secret_comes_from_a_str_a_callable_or_an_awaitable(
    source: str | Callable[[], str | Awaitable[str]],
) -> None:
    as_password = run(Credentials("bob", source, authzid="shop").resolve())
    as_token = run(Credentials("bob", token=source).resolve())

    assert as_password.password is not None
    assert as_password.password.reveal() == SECRET
    assert as_password.token is None
    assert as_password.username == "bob"
    assert as_password.authzid == "shop"
    assert as_token.token is not None
    assert as_token.token.reveal() == SECRET
    assert as_token.password is None


def test_a_provider_is_asked_anew_for_each_connection() -> None:
    tokens = iter(["first", "second"])
    renewing = Credentials("bob", token=lambda: next(tokens))

    seen = [run(renewing.resolve()).token for _ in range(2)]

    assert [token.reveal() for token in seen if token is not None] == ["first", "second"]


def test_a_failing_provider_is_a_temporary_failure_that_quotes_nothing() -> None:
    def fail() -> str:
        raise OSError(f"cannot refresh {SECRET}")

    with pytest.raises(CredentialsUnavailable) as caught:
        run(Credentials("bob", token=fail).resolve())

    assert (
        str(caught.value)
        == "the token provider of 'bob' failed: OSError; what it raised is the cause of this error"
    )
    assert isinstance(caught.value, AuthenticationError)
    assert caught.value.transient
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_of_ours_from_a_provider_passes_as_it_is() -> None:
    def fail() -> str:
        raise AuthenticationFailed("the account is locked")

    with pytest.raises(AuthenticationFailed, match="the account is locked"):
        run(Credentials("bob", fail).resolve())


def test_a_cancelled_provider_is_cancelled_and_not_failed() -> None:
    class CancelledError(Exception):
        """As Twisted's, which is an Exception too."""

    async def wait() -> str:
        raise CancelledError

    with pytest.raises(CancelledError):
        run(Credentials("bob", wait).resolve())


def test_a_provider_that_returns_something_else_is_told_so() -> None:
    provider: Any = SECRET.encode

    with pytest.raises(InvalidInput) as caught:
        run(Credentials("bob", provider).resolve())

    assert str(caught.value) == "the password provider of 'bob' returned bytes, not str"
    assert SECRET not in shown(caught.value)


# -- that they show nothing ---------------------------------------------------


def everything() -> list[object]:
    """Everything in this room that holds the secret, mechanisms in every state included."""
    held = with_password("bob", SECRET)
    token = ResolvedCredentials("bob", token=Secret(SECRET))
    things: list[object] = [
        Secret(SECRET),
        Credentials("bob", SECRET),
        Credentials("bob", token=SECRET),
        Credentials("bob", functools.partial(str, SECRET)),
        held,
        token,
    ]
    for name, factory in MECHANISMS.items():
        mechanism = factory(
            evolve(
                token if "AUTH" in name else held,
                channel_binding=ChannelBinding("tls-exporter", b"data"),
                certificate=True,
                mechanisms=(name,),
            )
        )
        mechanism.start()
        if name != "EXTERNAL":  # it holds no secret
            things.append(mechanism)
    return things


def test_no_way_of_showing_an_object_shows_the_secret() -> None:
    hidden = [SECRET, base64.b64encode(SECRET.encode()).decode(), SECRET[::-1]]
    for thing in everything():
        texts = [
            repr(thing),
            str(thing),
            f"{thing}",
            f"{thing!r:>40}",
            "%s %r" % (thing, thing),  # noqa: UP031 - logging does it this way
            pprint.pformat(thing),
            repr(getattr(thing, "__dict__", None)),
            repr(
                [
                    getattr(thing, name, None)
                    for name in dir(thing)
                    if "__text" not in name and name != "__weakref__"
                ]
            ),
            repr(copy.copy(thing)),
            repr(copy.deepcopy(thing)),
            json.dumps([thing], default=repr),
            logging.LogRecord("x", 10, "x", 1, "%s", (thing,), None).getMessage(),
        ]
        for text in texts:
            assert not any(secret in text for secret in hidden), (type(thing), text)


def test_nothing_that_holds_a_secret_is_pickled() -> None:
    for thing in everything():
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="never pickled"):
                pickle.dumps(thing, protocol)


def test_a_copy_still_authenticates() -> None:
    given_ = Credentials("bob", SECRET)
    resolved = copy.deepcopy(run(copy.deepcopy(given_).resolve()))

    assert resolved.password is not None
    assert resolved.password.reveal() == SECRET


def test_repr_is_the_user_name() -> None:
    assert repr(Credentials("bob", SECRET)) == "Credentials('bob')"
    assert repr(with_password("bob", SECRET)) == "ResolvedCredentials('bob')"
    assert "Secret(<hidden>)" == f"{Secret(SECRET)}"


def test_a_traceback_of_a_failing_provider_shows_no_bound_argument() -> None:
    def refresh(refresh_token: str) -> str:
        del refresh_token
        raise RuntimeError("offline")

    with pytest.raises(CredentialsUnavailable) as caught:
        run(Credentials("bob", token=functools.partial(refresh, SECRET)).resolve())

    assert SECRET not in shown(caught.value)
    text = "".join(traceback.TracebackException.from_exception(caught.value).format())
    assert SECRET not in text
