"""Accounts that let everybody in, for tests that only want to see who came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.server import FAILED, AuthRefused, Avatar

if TYPE_CHECKING:
    from twisted_sendmail.server import ScramKeys


class Anyone:
    """Any user with any password.  SCRAM cannot be: it needs to know the password."""

    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")

    async def check(self, user: str, password: str) -> Avatar | None:
        """Yes."""
        return Avatar()

    async def scram_keys(self, user: str) -> ScramKeys:
        """There are none."""
        raise AuthRefused(FAILED)
