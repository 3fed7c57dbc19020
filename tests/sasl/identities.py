"""Identities with their secrets, for tests of AUTH."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_sendmail.sasl import ResolvedCredentials, Secret


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
