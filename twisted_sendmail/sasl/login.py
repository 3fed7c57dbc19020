"""LOGIN: user name, then password, each to a prompt (draft-murchison-sasl-login).

The draft fixes the prompts, and servers do not keep to it: they are not judged.
The server speaks first; RFC 4954 section 4 has it refuse an initial response.
"""

from __future__ import annotations

from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials
from twisted_sendmail.sasl.mechanism import Mechanism, one_too_many
from twisted_sendmail.smtp import InvalidInput

__all__ = ["Login"]


class Login(Mechanism):
    """The client of LOGIN.

    :raises InvalidInput: the credentials have no password, or an authorization
        identity, for which LOGIN has no place.
    """

    name: ClassVar[str] = "LOGIN"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        if credentials.password is None:
            raise InvalidInput(f"{self.name} needs a password")
        if credentials.authzid:
            raise InvalidInput(f"{self.name} has no place for an authorization identity")
        self._username = credentials.username
        self._password = credentials.password
        self._prompts = 0

    def start(self) -> None:
        """Return None: the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, then the password.

        :raises AuthenticationRejected: at a third prompt.
        """
        self._prompts += 1
        if self._prompts == 1:
            return self._username.encode()
        if self._prompts == 2:
            return self._password.reveal().encode()
        raise one_too_many(self.name)
