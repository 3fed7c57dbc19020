"""People to authenticate, with the secret at hand, and a way to run a coroutine."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials, Secret

T = TypeVar("T")


def with_password(
    username: str = "user",
    password: str = "pencil",
    *,
    authzid: str = "",
    mechanisms: Sequence[str] | None = None,
) -> ResolvedCredentials:
    return ResolvedCredentials(
        username,
        password=Secret(password),
        authzid=authzid,
        mechanisms=None if mechanisms is None else tuple(mechanisms),
    )


def with_token(
    username: str = "user@example.com",
    token: str = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
    *,
    authzid: str = "",
) -> ResolvedCredentials:
    return ResolvedCredentials(username, token=Secret(token), authzid=authzid)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError("the coroutine waits for something")
