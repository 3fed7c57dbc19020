"""PLAIN: the password as it is, in one message (RFC 4616).

Only the caller's authorization identity is ever in the message.  That it travels
inside TLS is the client's care.
"""

from __future__ import annotations

from typing import ClassVar

from twisted_sendmail.sasl.credentials import ResolvedCredentials
from twisted_sendmail.sasl.mechanism import Mechanism, one_too_many
from twisted_sendmail.smtp import InvalidInput

__all__ = ["Plain"]


class Plain(Mechanism):
    """The client of PLAIN.

    :raises InvalidInput: the credentials have no password.
    """

    name: ClassVar[str] = "PLAIN"

    def __init__(self, credentials: ResolvedCredentials) -> None:
        if credentials.password is None:
            raise InvalidInput(f"{self.name} needs a password")
        self._authzid = credentials.authzid
        self._username = credentials.username
        self._password = credentials.password
        self._asked_again = False

    def start(self) -> bytes:
        """Return the message, the only one."""
        return f"{self._authzid}\0{self._username}\0{self._password.reveal()}".encode()

    def respond(self, challenge: bytes) -> bytes:
        """Say it again to a server that passed over the initial response.

        Such a server asks with an empty challenge, once.

        :raises AuthenticationRejected: at any other challenge.
        """
        if challenge or self._asked_again:
            raise one_too_many(self.name)
        self._asked_again = True
        return self.start()
